package file_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/storage/vfs"
	"github.com/braidobs/braid/storage/wal"
	"github.com/braidobs/braid/storage/wal/file"
	"github.com/braidobs/braid/storage/wal/waltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock ticks a second each time it is asked.
func clock() func() time.Time {
	var n atomic.Int64
	return func() time.Time { return time.Unix(1700000000+n.Add(1), 0) }
}

func options(fsys vfs.FS) file.Options {
	return file.Options{FS: fsys, Dir: "wal", Shard: 3, Now: clock()}
}

func open(t *testing.T, o file.Options) *file.Log {
	t.Helper()
	l, err := file.Open(t.Context(), o)
	require.NoError(t, err)
	return l
}

func mustAppend(t *testing.T, l wal.Log, recs ...string) (out []waltest.Record) {
	t.Helper()
	for _, r := range recs {
		pos, err := waltest.Append(l, r)
		require.NoError(t, err)
		out = append(out, waltest.Record{Position: pos, Text: r})
	}
	return out
}

func TestAcceptance(t *testing.T) {
	for name, where := range map[string]func(t *testing.T) (vfs.FS, string){
		"mem": func(*testing.T) (vfs.FS, string) { return vfs.NewMem(), "a/b/wal" },
		"os":  func(t *testing.T) (vfs.FS, string) { t.Helper(); return vfs.OS{}, filepath.Join(t.TempDir(), "wal") },
	} {
		for _, segment := range []int64{0, 200} {
			t.Run(fmt.Sprintf("%s/%d", name, segment), func(t *testing.T) {
				limits := waltest.Limits{MaxRecordBytes: 10_000, MaxQueuedBytes: 100_000}
				waltest.Run(t, limits, func(t *testing.T) waltest.Reopen {
					t.Helper()
					fsys, dir := where(t)
					now := clock()
					return func(t *testing.T, atLeast wal.Position) wal.Log {
						t.Helper()
						return open(t, file.Options{
							FS: fsys, Dir: dir, Now: now, SegmentBytes: segment, AtLeast: atLeast,
							MaxRecordBytes: limits.MaxRecordBytes, MaxQueuedBytes: int64(limits.MaxQueuedBytes),
						})
					}
				})
			})
		}
	}
}

func TestOptions(t *testing.T) {
	_, err := file.Open(t.Context(), file.Options{SegmentBytes: -1, MaxQueuedBytes: -1, MaxRecordBytes: 1 << 30})
	for _, field := range []string{"FS", "Dir", "Now", "SegmentBytes", "MaxQueuedBytes", "MaxRecordBytes"} {
		require.ErrorContains(t, err, field+":")
	}
}

func TestTwoLogs(t *testing.T) {
	m := vfs.NewMem()
	o := options(m)
	o.Metrics = prometheus.NewRegistry()
	l := open(t, o)
	_, err := file.Open(t.Context(), o)
	require.ErrorIs(t, err, vfs.ErrLocked)
	other := o
	other.Dir = "wal2"
	l2 := open(t, other)
	mustAppend(t, l, "a")
	mustAppend(t, l2, "b", "c")
	require.NoError(t, l.Close())
	require.NoError(t, l2.Close())
	wrong := o
	wrong.Shard = 4
	wrong.Metrics = nil
	_, err = file.Open(t.Context(), wrong)
	require.ErrorContains(t, err, "belongs to shard 3, not 4")
	n, err := testutil.GatherAndCount(o.Metrics.(prometheus.Gatherer))
	require.NoError(t, err)
	require.Equal(t, 8, n)
	problems, err := testutil.GatherAndLint(o.Metrics.(prometheus.Gatherer))
	require.NoError(t, err)
	require.Empty(t, problems)
}

// TestGroupCommit holds the disk inside one fdatasync and requires that all appends made meanwhile need one more.
func TestGroupCommit(t *testing.T) {
	var syncs atomic.Int64
	enter, leave := make(chan struct{}), make(chan struct{})
	fsys := vfs.NewFault(vfs.NewMem())
	l := open(t, options(fsys))
	fsys.SetHooks(func(op vfs.Op) vfs.Action {
		if op.Kind == vfs.OpSync && syncs.Add(1) == 1 {
			enter <- struct{}{}
			<-leave
		}
		return vfs.Action{}
	})
	var wg sync.WaitGroup
	one := func() {
		wg.Add(1)
		l.Append([]byte("x"), func(_ wal.Position, err error) {
			defer wg.Done()
			if err != nil {
				t.Error(err)
			}
		})
	}
	one()
	<-enter
	for range 100 {
		one()
	}
	close(leave)
	wg.Wait()
	require.EqualValues(t, 2, syncs.Load())
	require.NoError(t, l.Close())
}

func TestDonesDoNotHoldTheDisk(t *testing.T) {
	l := open(t, options(vfs.NewMem()))
	hold, held := make(chan struct{}), make(chan struct{})
	l.Append([]byte("a"), func(wal.Position, error) { close(held); <-hold })
	<-held
	var wg sync.WaitGroup
	wg.Add(1)
	l.Append([]byte("b"), func(wal.Position, error) { wg.Done() })
	require.Eventually(t, func() bool { return l.End() == 2 }, time.Minute, time.Millisecond)
	close(hold)
	wg.Wait()
	require.NoError(t, l.Close())
}

// TestFailedAppend fails the write or the fdatasync of a group in all ways: what follows fails with it, then the
// log goes on in a new segment, and a restart finds the acknowledged records, and others once or never.
func TestFailedAppend(t *testing.T) {
	boom := errors.New("boom")
	late := func(op vfs.Op) vfs.Action {
		if op.Kind == vfs.OpSync {
			return vfs.Action{Err: boom, Late: true}
		}
		return vfs.Action{}
	}
	// skip lets marks pass: whether one comes depends on how soon the next append does.
	skip := func(h vfs.Hook) vfs.Hook {
		return func(op vfs.Op) vfs.Action {
			if op.Kind == vfs.OpWrite && op.Len == 40 {
				return vfs.Action{}
			}
			return h(op)
		}
	}
	noTruncate := vfs.FailOp(vfs.OpTruncate, "", 0, boom)
	for name, hooks := range map[string]func() []vfs.Hook{
		"sync":                    func() []vfs.Hook { return []vfs.Hook{vfs.FailOp(vfs.OpSync, "", 1, boom)} },
		"sync, done nevertheless": func() []vfs.Hook { return []vfs.Hook{late, noTruncate} },
		"sync, and truncate":      func() []vfs.Hook { return []vfs.Hook{vfs.FailOp(vfs.OpSync, "", 1, boom), noTruncate} },
		"write":                   func() []vfs.Hook { return []vfs.Hook{skip(vfs.FailOp(vfs.OpWrite, "", 1, boom))} },
		"short write":             func() []vfs.Hook { return []vfs.Hook{skip(vfs.ShortWrite("", 1, 41))} },
		"short write and truncate": func() []vfs.Hook {
			return []vfs.Hook{skip(vfs.ShortWrite("", 1, 41)), noTruncate}
		},
	} {
		for _, before := range []int{0, 2} {
			t.Run(fmt.Sprintf("%s/after %d", name, before), func(t *testing.T) {
				m := vfs.NewMem()
				fsys := vfs.NewFault(m)
				o := options(fsys)
				l := open(t, o)
				var want []waltest.Record
				for range before {
					want = append(want, mustAppend(t, l, "before")...)
				}
				fsys.SetHooks(hooks()...)
				_, err := waltest.Append(l, "lost")
				require.ErrorIs(t, err, wal.ErrFailed)
				if !errors.Is(err, boom) {
					require.ErrorIs(t, err, syscall.EIO)
				}
				fsys.SetHooks()
				require.Eventually(t, func() bool {
					pos, err := waltest.Append(l, "after")
					if err == nil {
						want = append(want, waltest.Record{Position: pos, Text: "after"})
					}
					return err == nil
				}, time.Minute, time.Microsecond)
				want = append(want, mustAppend(t, l, "more")...)
				require.EqualValues(t, before, want[before].Position)
				require.Equal(t, want, waltest.Replay(t, l, 0))
				crashed := m.CrashClone(nil)
				require.NoError(t, l.Close())
				for _, disk := range []*vfs.Mem{m, crashed} {
					o.FS = disk
					l = open(t, o)
					require.Equal(t, want, waltest.Replay(t, l, 0))
					require.EqualValues(t, before+2, l.End())
					require.NoError(t, l.Close())
				}
			})
		}
	}
}

// TestFailedMark loses a segment for the sake of a mark; no append notices.
func TestFailedMark(t *testing.T) {
	var marks atomic.Int64
	fsys := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) vfs.Action {
		if op.Kind == vfs.OpWrite && op.Len == 40 {
			marks.Add(1)
			return vfs.Action{Err: syscall.EIO, Short: 20}
		}
		return vfs.Action{}
	})
	o := options(fsys)
	l := open(t, o)
	want := mustAppend(t, l, "a")
	require.Eventually(t, func() bool { return marks.Load() == 1 }, time.Minute, time.Millisecond)
	want = append(want, mustAppend(t, l, "b", "c")...)
	require.NoError(t, l.Close())
	l = open(t, o)
	require.Equal(t, want, waltest.Replay(t, l, 0))
	require.NoError(t, l.Close())
}

// TestKilledAfterFailure kills the process right after a failed fdatasync whose records are on the disk all the
// same: without a new segment they are found once, and stay.
func TestKilledAfterFailure(t *testing.T) {
	m := vfs.NewMem()
	fsys := vfs.NewFault(m)
	o := options(fsys)
	l := open(t, o)
	want := mustAppend(t, l, "a")
	fsys.SetHooks(vfs.FailOp(vfs.OpSync, "", 0, syscall.EIO), vfs.FailOp(vfs.OpTruncate, "", 0, syscall.EIO))
	_, err := waltest.Append(l, "unacknowledged")
	require.ErrorIs(t, err, syscall.EIO)
	killed := m.KillClone()
	require.NoError(t, l.Close())

	o.FS = killed
	l = open(t, o)
	want = append(want, waltest.Record{Position: 1, Text: "unacknowledged"})
	require.Equal(t, want, waltest.Replay(t, l, 0))
	require.EqualValues(t, 2, l.End())
	o.FS = killed.CrashClone(nil)
	l2 := open(t, o)
	require.Equal(t, want, waltest.Replay(t, l2, 0), "what was found once is durable")
	require.NoError(t, l.Close())
	require.NoError(t, l2.Close())
}

func TestFailureFailsTheQueue(t *testing.T) {
	fsys := vfs.NewFault(vfs.NewMem())
	l := open(t, options(fsys))
	enter, leave := make(chan struct{}), make(chan struct{})
	first := true
	fsys.SetHooks(func(op vfs.Op) vfs.Action {
		if op.Kind != vfs.OpSync || !first {
			return vfs.Action{}
		}
		first = false
		enter <- struct{}{}
		<-leave
		return vfs.Action{Err: syscall.EIO}
	})
	var errs []error
	var wg sync.WaitGroup
	wg.Add(11)
	done := func(_ wal.Position, err error) { errs = append(errs, err); wg.Done() }
	l.Append([]byte("in the group"), done)
	<-enter
	for range 10 {
		l.Append([]byte("queued"), done)
	}
	close(leave)
	wg.Wait()
	for _, err := range errs {
		require.ErrorIs(t, err, wal.ErrFailed)
		require.ErrorIs(t, err, syscall.EIO)
	}
	require.NoError(t, l.Close())
}

func TestDiskFull(t *testing.T) {
	m := vfs.NewMem()
	space := vfs.DiskFull(1000)
	o := options(vfs.NewFault(m, space.Hook))
	l := open(t, o)
	var want []waltest.Record
	full := 0
	for i := range 40 {
		pos, err := waltest.Append(l, string(make([]byte, 60+i)))
		if err == nil {
			want = append(want, waltest.Record{Position: pos, Text: string(make([]byte, 60+i))})
			continue
		}
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.Equal(t, want, waltest.Replay(t, l, 0), "reads go on")
		if full++; full == 10 {
			space.Add(1000)
		}
	}
	require.Greater(t, full, 10)
	require.Greater(t, len(want), 10)
	space.Add(1 << 20)
	require.Eventually(t, func() bool {
		pos, err := waltest.Append(l, "space")
		if err == nil {
			want = append(want, waltest.Record{Position: pos, Text: "space"})
		}
		return err == nil
	}, time.Minute, time.Microsecond)
	require.NoError(t, l.Close())
	names, err := m.ReadDir("wal")
	require.NoError(t, err)
	for _, n := range names {
		require.NotContains(t, n, ".tmp")
	}
	o.FS = m.CrashClone(nil)
	l = open(t, o)
	require.Equal(t, want, waltest.Replay(t, l, 0))
	require.NoError(t, l.Close())
}

func TestReadErrors(t *testing.T) {
	m := vfs.NewMem()
	o := options(m)
	l := open(t, o)
	want := mustAppend(t, l, "a", string(make([]byte, 20000)), "c")
	require.NoError(t, l.Close())
	seg := "wal/00000000000000000000.wal"

	o.FS = vfs.NewFault(m, vfs.ReadError(filepath.Base(seg), 9000))
	_, err := file.Open(t.Context(), o)
	require.ErrorIs(t, err, syscall.EIO, "the end of the log would be a guess")
	require.ErrorContains(t, err, seg)

	fsys := vfs.NewFault(m)
	o.FS = fsys
	l = open(t, o)
	fsys.SetHooks(vfs.ReadError(filepath.Base(seg), 9000))
	recs, holes := waltest.ReplayHoles(t, l, 0)
	require.Equal(t, []waltest.Record{want[0], want[2]}, recs)
	require.Len(t, holes, 1)
	require.Equal(t, seg, holes[0].File)
	require.Contains(t, []int64{44 + 41, 44 + 41 + 40}, holes[0].Offset, "with a mark before it or not")
	require.EqualValues(t, 1, holes[0].From)
	require.EqualValues(t, 2, holes[0].To)
	require.ErrorIs(t, holes[0].Err, syscall.EIO)
	require.ErrorContains(t, holes[0].Err, "restore the file")

	fsys.SetHooks(vfs.ReadError(filepath.Base(seg), holes[0].Offset+3)) // the header: the record after it is found all the same
	recs, holes = waltest.ReplayHoles(t, l, 0)
	require.Equal(t, []waltest.Record{want[0], want[2]}, recs)
	require.Len(t, holes, 1)
	require.NoError(t, l.Close())

	require.NoError(t, m.Remove(seg))
	o.FS = m
	l = open(t, o)
	require.Empty(t, waltest.Replay(t, l, 0), "the log now begins at the next segment")
	require.EqualValues(t, 3, l.Base())
	require.NoError(t, l.Close())
}

func TestMissingSegment(t *testing.T) {
	m := vfs.NewMem()
	o := options(m)
	var want []waltest.Record
	for range 3 {
		l := open(t, o)
		want = append(want, mustAppend(t, l, "a", "b")...)
		require.NoError(t, l.Close())
	}
	require.NoError(t, m.Remove("wal/00000000000000000002.wal"))
	l := open(t, o)
	recs, holes := waltest.ReplayHoles(t, l, 0)
	require.Equal(t, append(want[:2:2], want[4:]...), recs)
	require.Len(t, holes, 1)
	require.EqualValues(t, 2, holes[0].From)
	require.EqualValues(t, 4, holes[0].To)
	require.Contains(t, holes[0].String(), "positions [2, 4)")
	_, holes = waltest.ReplayHoles(t, l, 3)
	require.EqualValues(t, 3, holes[0].From)
	require.NoError(t, l.Close())
}

func TestTrimFailureLeavesNoGap(t *testing.T) {
	m := vfs.NewMem()
	fsys := vfs.NewFault(m)
	o := options(fsys)
	for range 4 {
		l := open(t, o)
		mustAppend(t, l, "a")
		require.NoError(t, l.Close())
	}
	l := open(t, o)
	fsys.SetHooks(vfs.FailOp(vfs.OpSyncDir, "", 1, syscall.EIO))
	far := time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	require.ErrorIs(t, l.Trim(4, far), syscall.EIO)
	require.EqualValues(t, 1, l.Base())
	require.NoError(t, l.Trim(4, far))
	require.EqualValues(t, 4, l.Base())
	require.NoError(t, l.Close())
	_, err := m.Stat("wal/00000000000000000000.wal")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestTrimKeepsTheWindow(t *testing.T) {
	m := vfs.NewMem()
	now := time.Unix(1700000000, 0)
	o := options(m)
	o.Now = func() time.Time { return now }
	for range 3 {
		l := open(t, o)
		mustAppend(t, l, "a")
		require.NoError(t, l.Close())
		now = now.Add(time.Minute)
	}
	l := open(t, o)
	defer func() { require.NoError(t, l.Close()) }()
	require.NoError(t, l.Trim(3, now.Add(-2*time.Minute)))
	require.EqualValues(t, 0, l.Base(), "the second segment was begun at that time, so the first may reach up to it")
	require.NoError(t, l.Trim(3, now.Add(-2*time.Minute+time.Millisecond)))
	require.EqualValues(t, 1, l.Base())
}
