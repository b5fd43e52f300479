package vfs_test

import (
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage/vfs"
)

// TestFS runs the acceptance suite on every file system: what is true here is what the engine relies on.
func TestFS(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (vfs.FS, string){
		"os":    func(t *testing.T) (vfs.FS, string) { t.Helper(); return vfs.OS{}, t.TempDir() },
		"mem":   func(*testing.T) (vfs.FS, string) { return vfs.NewMem(), "/" },
		"fault": func(*testing.T) (vfs.FS, string) { return vfs.NewFault(vfs.NewMem()), "." },
	} {
		t.Run(name, func(t *testing.T) {
			for _, tt := range acceptance {
				t.Run(tt.name, func(t *testing.T) {
					fsys, dir := open(t)
					tt.run(t, fsys, func(name string) string { return filepath.Join(dir, name) })
				})
			}
		})
	}
}

func write(t *testing.T, fsys vfs.FS, name, text string) {
	t.Helper()
	f, err := fsys.Create(name)
	require.NoError(t, err)
	_, err = io.WriteString(f, text)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
}

func read(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	b, err := vfs.ReadFile(fsys, name, 1<<20)
	require.NoError(t, err)
	return string(b)
}

var acceptance = []struct {
	name string
	run  func(t *testing.T, fsys vfs.FS, at func(string) string)
}{
	{"create, read, truncate", func(t *testing.T, fsys vfs.FS, at func(string) string) {
		t.Helper()
		f, err := fsys.Create(at("a"))
		require.NoError(t, err)
		require.Equal(t, at("a"), f.Name())
		_, err = io.WriteString(f, "hello")
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("J"), 0)
		require.NoError(t, err)
		_, err = io.WriteString(f, " world")
		require.NoError(t, err)
		b := make([]byte, 5)
		_, err = f.ReadAt(b, 6)
		require.NoError(t, err)
		require.Equal(t, "world", string(b))
		n, err := f.ReadAt(b, 9)
		require.Equal(t, 2, n)
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, f.Truncate(3))
		require.NoError(t, f.Truncate(6))
		size, err := f.Size()
		require.NoError(t, err)
		require.EqualValues(t, 6, size)
		require.NoError(t, f.Sync())
		require.NoError(t, f.Close())
		require.ErrorIs(t, f.Close(), fs.ErrClosed)
		require.Equal(t, "Jel\x00\x00\x00", read(t, fsys, at("a")))
		_, err = vfs.ReadFile(fsys, at("a"), 5)
		require.ErrorIs(t, err, vfs.ErrTooBig)
		write(t, fsys, at("a"), "x")
		require.Equal(t, "x", read(t, fsys, at("a")))
	}},
	{"sequential reads and large files", func(t *testing.T, fsys vfs.FS, at func(string) string) {
		t.Helper()
		text := strings.Repeat("0123456789abcde\n", 5000)
		write(t, fsys, at("big"), text)
		f, err := fsys.Open(at("big"))
		require.NoError(t, err)
		defer f.Close()
		b, err := io.ReadAll(f)
		require.NoError(t, err)
		require.Equal(t, text, string(b))
		_, err = f.Write([]byte("x"))
		require.Error(t, err)
		info, err := fsys.Stat(at("big"))
		require.NoError(t, err)
		require.EqualValues(t, len(text), info.Size)
		require.False(t, info.Dir)
		require.False(t, info.ModTime.IsZero())
	}},
	{"open modes", func(t *testing.T, fsys vfs.FS, at func(string) string) {
		t.Helper()
		_, err := fsys.Open(at("a"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = fsys.OpenReadWrite(at("a"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = fsys.Create(at("no/a"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		f, err := fsys.CreateExclusive(at("a"))
		require.NoError(t, err)
		require.NoError(t, f.Close())
		_, err = fsys.CreateExclusive(at("a"))
		require.ErrorIs(t, err, fs.ErrExist)
		write(t, fsys, at("a"), "abc")
		f, err = fsys.OpenReadWrite(at("a"))
		require.NoError(t, err)
		_, err = io.WriteString(f, "X")
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.Equal(t, "Xbc", read(t, fsys, at("a")))
	}},
	{"directories", func(t *testing.T, fsys vfs.FS, at func(string) string) {
		t.Helper()
		require.NoError(t, fsys.MkdirAll(at("d/e/f")))
		require.NoError(t, fsys.MkdirAll(at("d/e/f")))
		for _, n := range []string{"d/z", "d/a", "d/m"} {
			write(t, fsys, at(n), n)
		}
		names, err := fsys.ReadDir(at("d"))
		require.NoError(t, err)
		require.Equal(t, []string{"a", "e", "m", "z"}, names)
		_, err = fsys.ReadDir(at("nope"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.Error(t, fsys.MkdirAll(at("d/a")))
		require.Error(t, fsys.Remove(at("d")))
		info, err := fsys.Stat(at("d"))
		require.NoError(t, err)
		require.True(t, info.Dir)
		require.NoError(t, fsys.SyncDir(at("d")))
		require.ErrorIs(t, fsys.SyncDir(at("nope")), fs.ErrNotExist)
		require.NoError(t, fsys.Remove(at("d/a")))
		require.ErrorIs(t, fsys.Remove(at("d/a")), fs.ErrNotExist)
		require.NoError(t, fsys.Remove(at("d/e/f")))
		require.NoError(t, fsys.RemoveAll(at("d")))
		require.NoError(t, fsys.RemoveAll(at("d")))
		_, err = fsys.Stat(at("d"))
		require.ErrorIs(t, err, fs.ErrNotExist)
	}},
	{"rename and link", func(t *testing.T, fsys vfs.FS, at func(string) string) {
		t.Helper()
		write(t, fsys, at("a"), "A")
		write(t, fsys, at("b"), "B")
		require.ErrorIs(t, fsys.Link(at("a"), at("b")), fs.ErrExist)
		require.ErrorIs(t, fsys.Link(at("nope"), at("c")), fs.ErrNotExist)
		require.NoError(t, fsys.Link(at("a"), at("c")))
		require.NoError(t, fsys.Rename(at("a"), at("b")))
		require.ErrorIs(t, fsys.Rename(at("a"), at("b")), fs.ErrNotExist)
		require.Equal(t, "A", read(t, fsys, at("b")))
		require.Equal(t, "A", read(t, fsys, at("c")))
		require.NoError(t, fsys.MkdirAll(at("x/y")))
		require.NoError(t, fsys.Rename(at("x"), at("z")))
		require.Error(t, fsys.Rename(at("z"), at("z/y/z")))
		require.NoError(t, fsys.Rename(at("c"), at("z/y/c")))
		require.Equal(t, "A", read(t, fsys, at("z/y/c")))
	}},
	{"an open file outlives its name", func(t *testing.T, fsys vfs.FS, at func(string) string) {
		t.Helper()
		write(t, fsys, at("a"), "A")
		f, err := fsys.Open(at("a"))
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, fsys.Remove(at("a")))
		b := make([]byte, 1)
		_, err = f.ReadAt(b, 0)
		require.NoError(t, err)
		require.Equal(t, "A", string(b))
	}},
	{"lock", func(t *testing.T, fsys vfs.FS, at func(string) string) {
		t.Helper()
		l, err := fsys.Lock(at("LOCK"))
		require.NoError(t, err)
		_, err = fsys.Lock(at("LOCK"))
		require.ErrorIs(t, err, vfs.ErrLocked)
		require.ErrorContains(t, err, at("LOCK"))
		require.NoError(t, l.Close())
		l, err = fsys.Lock(at("LOCK"))
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}},
	{"free bytes", func(t *testing.T, fsys vfs.FS, at func(string) string) {
		t.Helper()
		n, err := fsys.FreeBytes(at("."))
		require.NoError(t, err)
		require.Positive(t, n)
		_, err = fsys.FreeBytes(at("nope"))
		require.Error(t, err)
	}},
	{"helpers", func(t *testing.T, fsys vfs.FS, at func(string) string) {
		t.Helper()
		require.NoError(t, vfs.MkdirAllSync(fsys, at("p/q/r")))
		require.NoError(t, vfs.MkdirAllSync(fsys, at("p/q/r")))
		require.NoError(t, vfs.WriteFileAtomic(fsys, at("p/q/r/f"), []byte("1")))
		require.NoError(t, vfs.WriteFileAtomic(fsys, at("p/q/r/f"), []byte("2")))
		require.Equal(t, "2", read(t, fsys, at("p/q/r/f")))
		names, err := fsys.ReadDir(at("p/q/r"))
		require.NoError(t, err)
		require.Equal(t, []string{"f"}, names)
		require.ErrorIs(t, vfs.MkdirAllSync(fsys, at("p/q/r/f")), fs.ErrExist)
	}},
	{"concurrent use", func(t *testing.T, fsys vfs.FS, at func(string) string) {
		t.Helper()
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				name := at(fmt.Sprintf("f%d", i))
				for j := range 20 {
					if err := vfs.WriteFileAtomic(fsys, name, fmt.Appendf(nil, "%d", j)); err != nil {
						errs[i] = err
					}
				}
			})
		}
		wg.Wait()
		for i, err := range errs {
			require.NoError(t, err)
			require.Equal(t, "19", read(t, fsys, at(fmt.Sprintf("f%d", i))))
		}
	}},
}
