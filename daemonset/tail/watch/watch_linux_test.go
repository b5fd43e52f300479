package watch_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/daemonset/tail/watch"
)

func TestWatcher(t *testing.T) {
	w, err := watch.New()
	require.NoError(t, err)
	dir := t.TempDir()
	names, err := w.Add(dir, false)
	require.NoError(t, err)
	sub := filepath.Join(dir, "sub")
	require.NoError(t, os.Mkdir(sub, 0o750))
	files, err := w.Add(sub, true)
	require.NoError(t, err)
	_, err = w.Add(filepath.Join(dir, "absent"), true)
	require.ErrorIs(t, err, os.ErrNotExist)

	require.NoError(t, os.WriteFile(filepath.Join(sub, "a"), []byte("x"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b"), []byte("x"), 0o600))
	require.NoError(t, os.RemoveAll(sub))
	var got []watch.Event
	for len(got) == 0 || got[len(got)-1] != (watch.Event{WD: names, Name: "sub"}) {
		require.NoError(t, w.Read(make([]byte, 64<<10), func(e watch.Event) { got = append(got, e) }))
	}
	require.Equal(t, []watch.Event{
		{WD: names, Name: "sub"},
		{WD: files, Name: "a"},
		{WD: files, Name: "a", Modify: true},
		{WD: names, Name: "b"}, // its content is of no interest
		{WD: files, Name: "a"},
		{WD: files, Gone: true},
		{WD: names, Name: "sub"},
	}, append(got[:0:0], first(got)...))
	require.NoError(t, w.Close())
	require.Error(t, w.Read(make([]byte, 64<<10), func(watch.Event) {}))
}

// first leaves out what the kernel says twice.
func first(in []watch.Event) (out []watch.Event) {
	for i, e := range in {
		if i == 0 || in[i-1] != e {
			out = append(out, e)
		}
	}
	return out
}
