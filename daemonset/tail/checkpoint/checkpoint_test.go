package checkpoint_test

import (
	"bytes"
	"flag"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/daemonset/tail/checkpoint"
	"github.com/braidobs/braid/storage/vfs"
)

var rewrite = flag.Bool("rewrite", false, "write the golden file anew")

func open(t require.TestingT, fsys vfs.FS, dir string) (*checkpoint.Store, map[string]checkpoint.Stream) {
	s, streams, err := checkpoint.Open(fsys, dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return s, streams
}

func example(id string, n uint64) checkpoint.Stream {
	return checkpoint.Stream{
		ID: id, Key: []string{"default", "web-0", id},
		Files: []checkpoint.File{
			{Head: [16]byte{1, byte(n)}, ID: [16]byte{2}, Dev: 1, Ino: 77, Resume: 300, Acked: 600, Size: 300, Done: true},
			{Head: [16]byte{3}, ID: [16]byte{4}, Dev: 1, Ino: 78, Generation: 2, Resume: n, Acked: n<<1 | 1, Size: 1 << 40},
		},
	}
}

func TestStore(t *testing.T) {
	fsys, dir := vfs.OS{}, t.TempDir()
	s, got := open(t, fsys, dir)
	require.Empty(t, got)
	_, _, err := checkpoint.Open(fsys, dir, slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, vfs.ErrLocked)
	s.Put(example("a", 1))
	s.Put(example("b", 1))
	require.NoError(t, s.Sync())
	s.Put(example("a", 2))
	s.Put(checkpoint.Stream{ID: "none"})
	s.Delete("b")
	s.Delete("unknown")
	require.NoError(t, s.Close())
	s, got = open(t, fsys, dir)
	require.Equal(t, map[string]checkpoint.Stream{"a": example("a", 2), "none": {ID: "none"}}, got)
	require.NoError(t, s.Close())
}

// The file does not grow with the number of changes.
func TestCompaction(t *testing.T) {
	fsys, dir := vfs.OS{}, t.TempDir()
	s, _ := open(t, fsys, dir)
	for n := range uint64(20_000) {
		s.Put(example("a", n))
		if n%500 == 0 {
			require.NoError(t, s.Sync())
		}
	}
	require.NoError(t, s.Close())
	info, err := os.Stat(filepath.Join(dir, "tail.checkpoint"))
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(400<<10))
	s, got := open(t, fsys, dir)
	require.Equal(t, example("a", 19_999), got["a"])
	require.NoError(t, s.Close())
}

// Whatever the damage, what is read is what was written up to some record.
func TestDamage(t *testing.T) {
	fsys, dir := vfs.OS{}, t.TempDir()
	s, _ := open(t, fsys, dir)
	for n := range uint64(10) {
		s.Put(example("a", n))
		require.NoError(t, s.Sync())
	}
	require.NoError(t, s.Close())
	name := filepath.Join(dir, "tail.checkpoint")
	whole, err := os.ReadFile(name)
	require.NoError(t, err)
	for i := range whole {
		if i > 24 && i%7 != 0 {
			continue
		}
		for _, b := range [][]byte{whole[:i], append(bytes.Clone(whole[:i]), append([]byte{whole[i] ^ 0x10}, whole[i+1:]...)...)} {
			require.NoError(t, os.WriteFile(name, b, 0o600))
			s, got := open(t, fsys, dir)
			if a, ok := got["a"]; ok {
				require.Equal(t, example("a", a.Files[1].Resume), a)
			}
			require.Equal(t, i < 16, fileExists(name+".damaged"), "byte %d", i)
			s.Put(example("b", 5))
			require.NoError(t, s.Close())
			s, again := open(t, fsys, dir)
			require.Equal(t, example("b", 5), again["b"])
			require.Equal(t, got["a"], again["a"])
			require.NoError(t, s.Close())
			_ = os.Remove(name + ".damaged")
		}
	}
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func TestNewerVersion(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tail.checkpoint"), checkpoint.HeaderOf(2), 0o600))
	_, _, err := checkpoint.Open(vfs.OS{}, dir, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "format version 2, this is 1: written by a newer version")
	require.NoFileExists(t, filepath.Join(dir, "tail.checkpoint.damaged"))
}

// The disk loses power or fills up at any operation: what Sync returned for is there, in the order it was put.
func TestCrash(t *testing.T) {
	for seed := range uint64(3) {
		for n := 1; ; n += 1 + n/20 {
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			disk := vfs.NewMem()
			crash := vfs.CrashAt(disk, uint64(n), rng)
			synced, put := crashWork(t, vfs.NewFault(disk, crash.Hook), seed)
			s, got := open(t, crash.Disk(), "state")
			if synced > 0 {
				require.Contains(t, got, "a", "seed %d, n %d", seed, n)
			}
			var at uint64
			if a, ok := got["a"]; ok {
				at = a.Files[1].Resume
				require.Equal(t, example("a", at), a)
			}
			require.GreaterOrEqual(t, at, synced, "seed %d, n %d", seed, n)
			require.LessOrEqual(t, at, put, "seed %d, n %d", seed, n)
			require.NoError(t, s.Close())
			if !crash.Crashed() {
				break
			}
		}
	}
}

// crashWork puts rising states until the disk fails and returns the last that is durable and the last of all.
func crashWork(t *testing.T, fsys vfs.FS, seed uint64) (synced, put uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	for put < 300 {
		s, _, err := checkpoint.Open(fsys, "state", slog.New(slog.DiscardHandler))
		if err != nil {
			return synced, put
		}
		for range 20 {
			for range rng.IntN(20) {
				put++
				s.Put(example("a", put))
			}
			s.Put(checkpoint.Stream{ID: strconv.Itoa(rng.IntN(50)), Key: []string{string(make([]byte, rng.IntN(5000)))}})
			s.Delete(strconv.Itoa(rng.IntN(50)))
			if s.Sync() == nil {
				synced = put
			}
		}
		if s.Close() != nil {
			return synced, put
		}
		synced = put
	}
	return synced, put
}

// After an error the next Sync makes all of it durable.
func TestDiskFull(t *testing.T) {
	disk := vfs.NewMem()
	space := vfs.DiskFull(1000)
	s, _ := open(t, vfs.NewFault(disk, space.Hook), "state")
	s.Put(example("a", 1))
	require.NoError(t, s.Sync())
	s.Put(example("a", 2))
	s.Put(checkpoint.Stream{ID: "large", Key: []string{string(make([]byte, 5000))}})
	require.Error(t, s.Sync())
	s.Put(example("b", 2))
	require.Error(t, s.Sync())
	s.Delete("large")
	space.Add(1000)
	require.NoError(t, s.Sync())
	_, got := open(t, disk.CrashClone(nil), "state")
	require.Equal(t, map[string]checkpoint.Stream{"a": example("a", 2), "b": example("b", 2)}, got)
	require.NoError(t, s.Close())
}

func TestGolden(t *testing.T) {
	const golden = "testdata/v1/tail.checkpoint"
	dir := t.TempDir()
	s, _ := open(t, vfs.OS{}, dir)
	s.Put(example("a", 1))
	require.NoError(t, s.Sync())
	s.Put(example("a", 1<<33))
	s.Put(example("b", 0))
	s.Delete("b")
	require.NoError(t, s.Close())
	got, err := os.ReadFile(filepath.Join(dir, "tail.checkpoint"))
	require.NoError(t, err)
	if *rewrite {
		require.NoError(t, os.MkdirAll(filepath.Dir(golden), 0o750))
		require.NoError(t, os.WriteFile(golden, got, 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, want, got)

	old := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(old, "tail.checkpoint"), want, 0o600))
	s, streams := open(t, vfs.OS{}, old)
	require.Equal(t, map[string]checkpoint.Stream{"a": example("a", 1<<33)}, streams)
	require.NoError(t, s.Close())
}

func FuzzCheckpoint(f *testing.F) {
	golden, err := os.ReadFile("testdata/v1/tail.checkpoint")
	require.NoError(f, err)
	f.Add(golden[16:], true)
	f.Add([]byte{1, 1, 'a', 0, 200, 1}, false)
	f.Fuzz(func(t *testing.T, b []byte, framed bool) {
		if !framed { // a valid frame around hostile bytes
			b = checkpoint.Frame(b)
		}
		disk := vfs.NewMem()
		require.NoError(t, disk.MkdirAll("state"))
		require.NoError(t, vfs.WriteFileAtomic(disk, "state/tail.checkpoint", append(checkpoint.HeaderOf(1), b...)))
		s, first := open(t, disk, "state")
		require.NoError(t, s.Close())
		s, second := open(t, disk, "state")
		require.Equal(t, first, second)
		for _, st := range first {
			s.Put(st)
		}
		require.NoError(t, s.Close())
		s, third := open(t, disk, "state")
		require.Equal(t, first, third)
		require.NoError(t, s.Close())
	})
}
