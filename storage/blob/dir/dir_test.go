package dir_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage/blob"
	"github.com/braidobs/braid/storage/blob/blobtest"
	"github.com/braidobs/braid/storage/blob/dir"
	"github.com/braidobs/braid/storage/vfs"
)

func open(t *testing.T, fsys vfs.FS, root string) *dir.Store {
	t.Helper()
	s, err := dir.Open(fsys, root)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestAcceptance(t *testing.T) {
	t.Run("mem", func(t *testing.T) {
		blobtest.Run(t, func(t *testing.T) blob.Store { t.Helper(); return open(t, vfs.NewMem(), "data/blobs") })
	})
	t.Run("os", func(t *testing.T) {
		blobtest.Run(t, func(t *testing.T) blob.Store {
			t.Helper()
			return open(t, vfs.OS{}, filepath.Join(t.TempDir(), "blobs"))
		})
	})
}

func TestRootIsLocked(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "blobs")
	_, err := dir.Open(m, "blobs")
	require.ErrorIs(t, err, vfs.ErrLocked)
	require.NoError(t, s.Close())
	open(t, m, "blobs")
}

func TestReservedNames(t *testing.T) {
	s := open(t, vfs.NewMem(), "blobs")
	for _, name := range []string{"tmp", "tmp/a", "LOCK", "LOCK/a"} {
		require.ErrorIs(t, blobtest.Put(t.Context(), s, name, ""), blob.ErrInvalidName)
	}
	require.NoError(t, blobtest.Put(t.Context(), s, "a/tmp/LOCK", ""))
}

func TestEmptyFoldersGo(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "blobs")
	require.NoError(t, blobtest.Put(t.Context(), s, "a/b/c", ""))
	require.NoError(t, blobtest.Put(t.Context(), s, "a/d", ""))
	require.NoError(t, s.Delete(t.Context(), "a/b/c"))
	names, err := m.ReadDir("blobs/a")
	require.NoError(t, err)
	require.Equal(t, []string{"d"}, names)
	require.NoError(t, s.Delete(t.Context(), "a/d"))
	names, err = m.ReadDir("blobs")
	require.NoError(t, err)
	require.Equal(t, []string{"LOCK", "tmp"}, names)
}

func TestFullDisk(t *testing.T) {
	m := vfs.NewMem()
	space := vfs.DiskFull(1000)
	s := open(t, vfs.NewFault(m, space.Hook), "blobs")
	require.NoError(t, blobtest.Put(t.Context(), s, "a", "x"))
	require.ErrorIs(t, blobtest.Put(t.Context(), s, "b", strings.Repeat("x", 2000)), syscall.ENOSPC)
	require.ErrorIs(t, s.PutIfAbsent(t.Context(), "c", []byte("x")), syscall.ENOSPC)
	require.Equal(t, []string{"a"}, blobtest.Names(t, s, ""))
	left, err := m.ReadDir("blobs/tmp")
	require.NoError(t, err)
	require.Empty(t, left)
	space.Add(1000)
	require.NoError(t, s.PutIfAbsent(t.Context(), "c", []byte("x")))
}

func TestErrorsLeaveWholeObjects(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpRename, vfs.OpLink, vfs.OpSyncDir, vfs.OpMkdir} {
		m := vfs.NewMem()
		fsys := vfs.NewFault(m)
		s := open(t, fsys, "blobs")
		fsys.SetHooks(vfs.FailOp(kind, "", 0, syscall.EIO))
		perr := blobtest.Put(t.Context(), s, "p/x", "put")
		aerr := s.PutIfAbsent(t.Context(), "q/x", []byte("absent"))
		require.True(t, perr != nil || aerr != nil, kind)
		fsys.SetHooks()
		for name, text := range map[string]string{"p/x": "put", "q/x": "absent"} {
			b, err := s.Get(t.Context(), name, 100)
			if err == nil {
				require.Equal(t, text, string(b))
			} else {
				require.ErrorIs(t, err, blob.ErrNotFound)
			}
		}
		require.NoError(t, blobtest.Put(t.Context(), s, "p/x", "put"))
	}
}

// TestCrash puts and deletes concurrently, crashes at each operation in turn, some seeds each (no rng, random, and
// kill followed by a power loss), and requires of what is left: every object that a put returned nil for is there
// and whole, every deleted one is gone, no object is partial, and the store works.
func TestCrash(t *testing.T) {
	runs := 0
	for n := uint64(1); ; n++ {
		crashed := false
		for seed := range uint64(25) {
			runs++
			crashed = crashRun(t, n, seed) || crashed
		}
		if !crashed {
			break
		}
	}
	require.Greater(t, runs, 1000)
	t.Logf("%d runs", runs)
}

func text(name string, version int) string {
	return strings.Repeat(fmt.Sprintf("%s %d;", name, version), 200)
}

func crashRun(t *testing.T, n, seed uint64) bool {
	t.Helper()
	disk := vfs.NewMem()
	var crash *vfs.Crash
	switch seed {
	case 0:
		crash = vfs.CrashAt(disk, n, nil)
	case 1:
		crash = vfs.KillAt(disk, n)
	default:
		crash = vfs.CrashAt(disk, n, rand.New(rand.NewPCG(seed, n)))
	}
	var (
		mu      sync.Mutex         // guards must
		must    = map[string]int{} // version that must be there, -1 for none
		allowed = map[string]int{} // latest version that may be
	)
	s, err := dir.Open(vfs.NewFault(disk, crash.Hook), "data/blobs")
	if err == nil {
		var wg sync.WaitGroup
		for w := range 2 {
			wg.Go(func() {
				put := func(name string, version int, absent bool) {
					mu.Lock()
					allowed[name] = version
					old, had := must[name]
					delete(must, name)
					mu.Unlock()
					var err error
					if absent {
						err = s.PutIfAbsent(t.Context(), name, []byte(text(name, version)))
					} else {
						err = blobtest.Put(t.Context(), s, name, text(name, version))
					}
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						must[name] = version
					case errors.Is(err, blob.ErrExists):
						must[name] = old
					case had && old >= 0:
						must[name] = -2 // any whole version
					}
				}
				put(fmt.Sprintf("p/%d/a", w), 1, false)
				put(fmt.Sprintf("p/%d/a", w), 2, false)
				put(fmt.Sprintf("q/r/s/m%d", w), 1, true)
				put(fmt.Sprintf("q/r/s/m%d", w), 1, true)
				name := fmt.Sprintf("gone/%d", w)
				put(name, 1, false)
				if s.Delete(t.Context(), name) == nil {
					mu.Lock()
					must[name] = -1
					mu.Unlock()
				} else {
					mu.Lock()
					delete(must, name)
					mu.Unlock()
				}
				put(fmt.Sprintf("gone/x%d", w), 1, true)
			})
		}
		wg.Wait()
	}
	after := crash.Disk()
	for round := range 2 {
		s, err := dir.Open(after, "data/blobs")
		require.NoError(t, err)
		what := fmt.Sprintf("operation %d, seed %d, round %d", n, seed, round)
		found := map[string]bool{}
		for info, err := range s.List(t.Context(), "") {
			require.NoError(t, err, what)
			found[info.Name] = true
			require.Positive(t, allowed[info.Name], "%s: %s was never put", what, info.Name)
			got, whole := blobtest.Get(t, s, info.Name), false
			for v := 1; v <= allowed[info.Name]; v++ {
				whole = whole || got == text(info.Name, v)
			}
			require.True(t, whole, "%s: %s is partial", what, info.Name)
			if v := must[info.Name]; v > 0 {
				require.Equal(t, text(info.Name, v), got, "%s: %s", what, info.Name)
			}
		}
		for name, v := range must {
			require.Equal(t, v != -1, found[name], "%s: %s", what, name)
		}
		left, err := after.ReadDir("data/blobs/tmp")
		require.NoError(t, err)
		require.Empty(t, left)
		name := fmt.Sprintf("q/r/new%d", round)
		require.NoError(t, s.PutIfAbsent(t.Context(), name, []byte(text(name, 1))))
		must[name], allowed[name] = 1, 1
		require.NoError(t, s.Close())
		after = after.CrashClone(nil)
	}
	return crash.Crashed()
}
