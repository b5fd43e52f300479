package tail

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOpenAfterRotation has a rotation between looking at a name and opening it: the file that has the name by then is
// not the one that was looked at, and must not be read in its place.
func TestOpenAfterRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	require.NoError(t, os.WriteFile(path, []byte("older\n"), 0o600))
	e, ok := statEntry(path, rotation{live: true})
	require.True(t, ok)
	f, err := openFile(e, Source{})
	require.NoError(t, err)
	f.close()
	require.NoError(t, os.Rename(path, path+".1"))
	require.NoError(t, os.WriteFile(path, []byte("newer\n"), 0o600))
	_, err = openFile(e, Source{})
	require.ErrorIs(t, err, fs.ErrNotExist)
}
