package file_test

import (
	"encoding/binary"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage/vfs"
	"github.com/braidobs/braid/storage/wal"
	"github.com/braidobs/braid/storage/wal/file"
	"github.com/braidobs/braid/storage/wal/waltest"
)

var rewrite = flag.Bool("rewrite", false, "write the golden file of the current version")

const golden = "testdata/v1/00000000000000000007.wal"

// TestGolden reads the segment that version 1 wrote, and requires that the same work still gives the same bytes.
func TestGolden(t *testing.T) {
	m := vfs.NewMem()
	o := options(m)
	o.Now = func() time.Time { return time.Unix(1700000000, 123e6) }
	o.AtLeast = 7
	l := open(t, o)
	want := mustAppend(t, l, "first", "", "third record")
	require.NoError(t, l.Close())
	wrote, err := vfs.ReadFile(m, "wal/00000000000000000007.wal", 1<<20)
	require.NoError(t, err)
	if *rewrite {
		require.NoError(t, os.MkdirAll(filepath.Dir(golden), 0o755))
		require.NoError(t, os.WriteFile(golden, normal(wrote), 0o600))
	}
	kept, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, kept, normal(wrote))

	o.FS = place(t, kept, 7)
	l = open(t, o)
	require.Equal(t, want, waltest.Replay(t, l, 0))
	_, err = l.Replay(t.Context(), 0, func(_ wal.Position, at time.Time, _ []byte) error {
		require.Equal(t, o.Now().UTC(), at)
		return nil
	})
	require.NoError(t, err)
	require.EqualValues(t, 10, l.End())
	require.NoError(t, l.Close())
}

// normal leaves out the marks in the middle: whether one is written depends on whether the next append was there.
func normal(segment []byte) []byte {
	out := append([]byte{}, segment[:44]...)
	for b := segment[44:]; len(b) > 0; {
		n := 40 + int(binary.LittleEndian.Uint32(b[4:]))
		if b[3] == 'd' || len(b) == n {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out
}

// place returns a disk with one segment.
func place(tb testing.TB, segment []byte, base int) *vfs.Mem {
	tb.Helper()
	m := vfs.NewMem()
	require.NoError(tb, m.MkdirAll("wal"))
	f, err := m.Create("wal/0000000000000000000" + string(rune('0'+base)) + ".wal")
	require.NoError(tb, err)
	_, err = f.Write(segment)
	require.NoError(tb, err)
	require.NoError(tb, f.Close())
	return m
}

// patch changes a segment header and makes its checksum right.
func patch(b []byte, change func(header []byte)) []byte {
	b = append([]byte{}, b...)
	change(b)
	binary.LittleEndian.PutUint32(b[40:], crc32.Checksum(b[:40], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func TestNewerVersion(t *testing.T) {
	kept, err := os.ReadFile(golden)
	require.NoError(t, err)
	o := options(place(t, patch(kept, func(h []byte) { h[8] = 2 }), 7))
	_, err = file.Open(t.Context(), o)
	require.ErrorContains(t, err, "format version 2")
}

func TestRenamedSegment(t *testing.T) {
	kept, err := os.ReadFile(golden)
	require.NoError(t, err)
	l := open(t, options(place(t, kept, 6)))
	recs, holes := waltest.ReplayHoles(t, l, 0)
	require.Empty(t, recs)
	require.Len(t, holes, 1)
	require.ErrorContains(t, holes[0].Err, "renamed")
	require.NoError(t, l.Close())
}

// TestEmptiedSegment is a last segment of zeros: it is never reused, so the report stays.
func TestEmptiedSegment(t *testing.T) {
	m := place(t, make([]byte, 5000), 0)
	for range 3 {
		l := open(t, options(m))
		recs, holes := waltest.ReplayHoles(t, l, 0)
		require.Empty(t, recs)
		require.Len(t, holes, 1)
		require.EqualValues(t, 1, l.End())
		require.NoError(t, l.Close())
	}
}

// TestHostileLength is a valid header that promises 256 MiB: nothing is allocated for it.
func TestHostileLength(t *testing.T) {
	kept, err := os.ReadFile(golden)
	require.NoError(t, err)
	var seed [12]byte
	binary.LittleEndian.PutUint32(seed[:], 3)
	binary.LittleEndian.PutUint64(seed[4:], 7)
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(kept[44+4:], 256<<20)
	binary.LittleEndian.PutUint32(kept[44+36:], crc32.Update(crc32.Checksum(seed[:], table), table, kept[44:44+36]))
	o := options(place(t, kept, 7))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l := open(t, o)
	recs, holes := waltest.ReplayHoles(t, l, 0)
	runtime.ReadMemStats(&after)
	require.Len(t, recs, 2)
	require.Len(t, holes, 1)
	require.ErrorContains(t, holes[0].Err, "file ends inside a record")
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
	require.NoError(t, l.Close())
}

// FuzzReplay opens and replays any bytes as a segment: no panic, ascending positions, every position is found or in
// a hole or cut, and what was found is found again after more appends and another start.
func FuzzReplay(f *testing.F) {
	kept, err := os.ReadFile(golden)
	require.NoError(f, err)
	f.Add(kept, 0, byte(0))
	f.Add(kept[:60], 0, byte(0))
	f.Add(append(append([]byte{}, kept...), make([]byte, 100)...), 50, byte(1))
	f.Add(append(append([]byte{}, kept...), kept[44:]...), 90, byte(255))
	f.Add([]byte{}, 0, byte(0))
	f.Fuzz(func(t *testing.T, segment []byte, at int, xor byte) {
		segment = append([]byte{}, segment...)
		if at >= 0 && at < len(segment) {
			segment[at] ^= xor
		}
		m := place(t, segment, 7)
		o := options(m)
		l, err := file.Open(t.Context(), o)
		if err != nil {
			return // of another shard, or newer
		}
		recs, holes := waltest.ReplayHoles(t, l, 0)
		require.LessOrEqual(t, len(recs)*40, len(segment))
		for _, h := range holes {
			require.LessOrEqual(t, h.From, h.To)
			require.LessOrEqual(t, h.Offset, int64(len(segment)))
		}
		recs = append(recs, mustAppend(t, l, "more")...)
		require.NoError(t, l.Close())
		l = open(t, o)
		again, holesAgain := waltest.ReplayHoles(t, l, 0)
		require.Equal(t, recs, again)
		require.Len(t, holesAgain, len(holes))
		require.NoError(t, l.Close())
	})
}

// BenchmarkGroupCommit is the hot path: 64 writers that each wait for their record of 4 KiB.
func BenchmarkGroupCommit(b *testing.B) {
	l, err := file.Open(b.Context(), file.Options{FS: vfs.OS{}, Dir: b.TempDir(), Now: time.Now})
	require.NoError(b, err)
	rec := make([]byte, 4096)
	b.SetBytes(int64(len(rec)))
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		c := make(chan error, 1)
		done := func(_ wal.Position, err error) { c <- err }
		for pb.Next() {
			l.Append(rec, done)
			if err := <-c; err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "acks/s")
	require.NoError(b, l.Close())
}
