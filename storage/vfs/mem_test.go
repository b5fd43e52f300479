package vfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/storage/vfs"
)

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func exists(t *testing.T, fsys vfs.FS, name string) bool {
	t.Helper()
	_, err := fsys.Stat(name)
	if err != nil {
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	return err == nil
}

func TestStrictCrashKeepsOnlyWhatWasSynced(t *testing.T) {
	m := vfs.NewMem()
	require.NoError(t, m.MkdirAll("d"))
	f, err := m.Create("d/f")
	require.NoError(t, err)
	_, err = io.WriteString(f, "synced")
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	_, err = io.WriteString(f, " and not")
	require.NoError(t, err)

	require.False(t, exists(t, m.CrashClone(nil), "d"), "nobody synced the root")
	require.NoError(t, m.SyncDir("/"))
	require.True(t, exists(t, m.CrashClone(nil), "d"))
	require.False(t, exists(t, m.CrashClone(nil), "d/f"), "nobody synced d")
	require.NoError(t, m.SyncDir("d"))
	require.Equal(t, "synced", read(t, m.CrashClone(nil), "d/f"))

	require.NoError(t, m.Rename("d/f", "d/g"))
	require.NoError(t, m.Link("d/g", "d/h"))
	require.True(t, exists(t, m.CrashClone(nil), "d/f"))
	require.NoError(t, m.SyncDir("d"))
	c := m.CrashClone(nil)
	require.False(t, exists(t, c, "d/f"))
	require.Equal(t, "synced", read(t, c, "d/g"))
	require.NoError(t, m.Remove("d/g"))
	require.True(t, exists(t, m.CrashClone(nil), "d/g"))

	require.NoError(t, f.Truncate(2))
	require.Equal(t, "synced", read(t, m.CrashClone(nil), "d/h"))
	require.NoError(t, f.Sync())
	require.Equal(t, "sy", read(t, m.CrashClone(nil), "d/h"))

	// Clones are independent of the original and of each other.
	write(t, c, "d/h", "other")
	require.Equal(t, "other", read(t, c, "d/g"))
	require.Equal(t, "sy", read(t, m, "d/h"))
}

func TestKillCloneSeesEverythingAndKeepsItVolatile(t *testing.T) {
	m := vfs.NewMem()
	l, err := m.Lock("LOCK")
	require.NoError(t, err)
	f, err := m.Create("f")
	require.NoError(t, err)
	_, err = io.WriteString(f, "abc")
	require.NoError(t, err)
	k := m.KillClone()
	require.Equal(t, "abc", read(t, k, "f"))
	require.False(t, exists(t, k.CrashClone(nil), "f"))
	require.NoError(t, k.SyncDir("/"))
	require.Empty(t, read(t, k.CrashClone(nil), "f"))
	g, err := k.OpenReadWrite("f")
	require.NoError(t, err)
	require.NoError(t, g.Sync())
	require.Equal(t, "abc", read(t, k.CrashClone(nil), "f"))
	require.False(t, exists(t, m.CrashClone(nil), "f"), "the original is unchanged")
	_, err = k.Lock("LOCK")
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// TestRandomCrash says which outcomes are possible, and that all of them occur.
func TestRandomCrash(t *testing.T) {
	m := vfs.NewMem()
	write(t, m, "f", "")
	require.NoError(t, m.SyncDir("/"))
	f, err := m.OpenReadWrite("f")
	require.NoError(t, err)
	_, err = f.Write(bytes.Repeat([]byte{1}, 3*vfs.SectorSize))
	require.NoError(t, err)
	require.NoError(t, m.Rename("f", "g"))

	seen := map[string]int{}
	for seed := range uint64(500) {
		c := m.CrashClone(seeded(seed))
		names, err := c.ReadDir("/")
		require.NoError(t, err)
		require.Len(t, names, 1, "a rename in one directory is atomic")
		seen[names[0]]++
		b := []byte(read(t, c, names[0]))
		kind := strconv.Itoa(len(b))
		var sectors strings.Builder
		for i := 0; i < len(b); i += vfs.SectorSize {
			sector := b[i : i+vfs.SectorSize]
			require.Equal(t, bytes.Repeat(sector[:1], vfs.SectorSize), sector, "torn inside a sector")
			fmt.Fprintf(&sectors, " %d", sector[0])
		}
		kind += sectors.String()
		seen[kind]++
		again, err := m.CrashClone(seeded(seed)).ReadDir("/")
		require.NoError(t, err)
		require.Equal(t, names, again)
	}
	for _, kind := range []string{"f", "g", "0", "512 1", "1024 1 1", "1536 1 1 1", "1536 0 0 0", "1536 1 0 1", "1536 0 1 1"} {
		require.Contains(t, seen, kind)
	}
}

// TestMemAgainstModel compares random work with a plain map, and every strict crash with what was synced.
func TestMemAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := vfs.NewMem()
		f, err := m.Create("f")
		require.NoError(t, err)
		require.NoError(t, m.SyncDir("/"))
		var now, synced []byte
		rng := seeded(rapid.Uint64().Draw(t, "seed"))
		steps := rapid.IntRange(1, 40).Draw(t, "steps")
		check := func(c *vfs.Mem, want []byte) {
			got, err := vfs.ReadFile(c, "f", 1<<20)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
		}
		for range steps {
			switch rng.IntN(5) {
			case 0, 1:
				off, b := rng.IntN(20000), make([]byte, 1+rng.IntN(9000))
				for i := range b {
					b[i] = byte(rng.Uint32())
				}
				if len(now) < off+len(b) {
					now = append(now, make([]byte, off+len(b)-len(now))...)
				}
				copy(now[off:], b)
				_, err := f.WriteAt(b, int64(off))
				require.NoError(t, err)
			case 2:
				n := rng.IntN(len(now) + 5000)
				now = append(now, make([]byte, 5000)...)[:n:n]
				require.NoError(t, f.Truncate(int64(n)))
			case 3:
				synced = bytes.Clone(now)
				require.NoError(t, f.Sync())
			default:
				clone := m.CrashClone(nil)
				check(clone, synced)
				g, err := clone.OpenReadWrite("f")
				require.NoError(t, err)
				_, err = g.WriteAt([]byte("scribble"), 0) // must not show in m
				require.NoError(t, err)
				_ = m.CrashClone(rng)
			}
			check(m, now)
		}
		check(m.CrashClone(nil), synced)
	})
}

func TestMemBounds(t *testing.T) {
	m := vfs.NewMem()
	f, err := m.Create("f")
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("x"), 1<<62)
	require.ErrorIs(t, err, syscall.EFBIG)
	require.ErrorIs(t, f.Truncate(1<<62), syscall.EFBIG)
	_, err = f.WriteAt([]byte("x"), -1)
	require.Error(t, err)
	_, err = f.ReadAt(make([]byte, 1), -1)
	require.Error(t, err)
	require.Error(t, f.Truncate(-1))
	require.False(t, m.FlipBit("f", 0, 0))
	require.False(t, m.FlipBit("nope", 0, 0))
	require.Error(t, m.Remove("/"))
	_, err = m.Create("f/g")
	require.ErrorIs(t, err, syscall.ENOTDIR)
}

func TestCrashAtEveryOperation(t *testing.T) {
	outcomes := map[string]int{}
	for n := uint64(1); ; n++ {
		for seed := range uint64(20) {
			m := vfs.NewMem()
			require.NoError(t, vfs.WriteFileAtomic(m, "f", []byte("old")))
			crash := vfs.CrashAt(m, n, seeded(seed))
			fsys := vfs.NewFault(m, crash.Hook)
			err := vfs.WriteFileAtomic(fsys, "f", []byte("new"))
			if crash.Crashed() {
				require.ErrorIs(t, err, vfs.ErrCrashed)
				_, err := fsys.Stat("f")
				require.ErrorIs(t, err, vfs.ErrCrashed)
				got := read(t, crash.Disk(), "f")
				require.Contains(t, []string{"old", "new"}, got)
				outcomes[got]++
				continue
			}
			require.NoError(t, err)
			require.Equal(t, "new", read(t, crash.Disk(), "f"))
			require.EqualValues(t, 5, crash.Changes())
			require.Positive(t, outcomes["old"])
			require.Positive(t, outcomes["new"])
			return
		}
	}
}

func TestDiskFull(t *testing.T) {
	space := vfs.DiskFull(5)
	fsys := vfs.NewFault(vfs.NewMem(), space.Hook)
	f, err := fsys.Create("f")
	require.NoError(t, err)
	n, err := f.Write([]byte("abc"))
	require.NoError(t, err)
	require.Equal(t, 3, n)
	free, err := fsys.FreeBytes("/")
	require.NoError(t, err)
	require.EqualValues(t, 2, free)
	n, err = f.Write([]byte("defg"))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 2, n)
	_, err = fsys.Create("g")
	require.ErrorIs(t, err, syscall.ENOSPC)
	space.Add(2)
	_, err = f.Write([]byte("fg"))
	require.NoError(t, err)
	require.Equal(t, "abcdefg", read(t, fsys, "f"))
}

func TestFaults(t *testing.T) {
	m := vfs.NewMem()
	boom := errors.New("boom")
	fsys := vfs.NewFault(m, vfs.ShortWrite("f", 2, 1), vfs.FailOp(vfs.OpSync, "f", 2, boom))
	f, err := fsys.Create("f")
	require.NoError(t, err)
	_, err = f.Write([]byte("ab"))
	require.NoError(t, err)
	n, err := f.Write([]byte("cd"))
	require.ErrorIs(t, err, syscall.EIO)
	require.Equal(t, 1, n)
	require.NoError(t, f.Sync())
	require.ErrorIs(t, f.Sync(), boom)
	require.NoError(t, f.Close())
	require.Equal(t, "abc", read(t, fsys, "f"))
	require.EqualValues(t, 10, fsys.Ops())

	fsys.SetHooks(vfs.BitFlip("f", 1, 0))
	require.Equal(t, "acc", read(t, fsys, "f"))
	fsys.SetHooks(vfs.ReadError("f", 1))
	_, err = vfs.ReadFile(fsys, "f", 10)
	require.ErrorIs(t, err, syscall.EIO)
	fsys.SetHooks(vfs.BitFlipWrite("*", 0, 0))
	write(t, fsys, "g", "b")
	require.Equal(t, "c", read(t, m, "g"))
	require.True(t, m.FlipBit("g", 0, 0))
	require.Equal(t, "b", read(t, m, "g"))
	fsys.SetHooks(func(op vfs.Op) vfs.Action {
		if op.Kind == vfs.OpSyncDir {
			return vfs.Action{Err: boom, Late: true}
		}
		return vfs.Action{}
	})
	require.ErrorIs(t, fsys.SyncDir("/"), boom)
	require.Equal(t, "b", read(t, m.CrashClone(nil), "g"), "late: it was done")
	for k := vfs.OpCreate; k <= vfs.OpClose; k++ {
		require.NotContains(t, k.String(), "op(")
	}
}

func BenchmarkCrashClone(b *testing.B) {
	m := vfs.NewMem()
	for i := range 20 {
		f, err := m.Create(fmt.Sprintf("f%d", i))
		require.NoError(b, err)
		_, err = f.Write(make([]byte, 1<<20))
		require.NoError(b, err)
		require.NoError(b, f.Sync())
	}
	require.NoError(b, m.SyncDir("/"))
	b.ReportAllocs()
	for b.Loop() {
		_ = m.CrashClone(nil)
	}
}
