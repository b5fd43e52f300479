package badger_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage/catalog"
	"github.com/braidobs/braid/storage/catalog/badger"
	"github.com/braidobs/braid/storage/catalog/mem"
)

func open(t *testing.T, dir string) *badger.Catalog {
	t.Helper()
	c, err := badger.Open(dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return c
}

func TestBothCatalogsDoTheSame(t *testing.T) {
	disk := open(t, t.TempDir())
	defer func() { require.NoError(t, disk.Close()) }()
	for name, c := range map[string]catalog.Catalog{"badger": disk, "mem": mem.New()} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Get("a")
			require.ErrorIs(t, err, catalog.ErrNotFound)
			for _, k := range []string{"b/2", "a", "b/1", "c"} {
				require.NoError(t, c.Set(k, []byte("of "+k)))
			}
			require.NoError(t, c.Set("a", []byte("anew")))
			v, err := c.Get("a")
			require.NoError(t, err)
			require.Equal(t, "anew", string(v))
			var keys []string
			for e, err := range c.Scan("b/") {
				require.NoError(t, err)
				require.Equal(t, "of "+e.Key, string(e.Value))
				keys = append(keys, e.Key)
			}
			require.Equal(t, []string{"b/1", "b/2"}, keys)
			require.NoError(t, c.Delete("b/1", "nothing"))
			_, err = c.Get("b/1")
			require.ErrorIs(t, err, catalog.ErrNotFound)
		})
	}
}

func TestDamagedCatalogIsBegunAnew(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	require.NoError(t, c.Set("a", []byte("b")))
	require.NoError(t, c.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "MANIFEST"), []byte("nonsense"), 0o600))
	c = open(t, dir)
	_, err := c.Get("a")
	require.ErrorIs(t, err, catalog.ErrNotFound)
	require.NoError(t, c.Close())
}

func TestCatalogOfAnotherProcessIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	require.NoError(t, c.Set("a", []byte("b")))
	_, err := badger.Open(dir, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, dir)
	v, err := c.Get("a")
	require.NoError(t, err)
	require.Equal(t, "b", string(v))
	require.NoError(t, c.Close())
}
