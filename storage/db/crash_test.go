package db_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/vfs"
)

// life drives a store through random operations and keeps account of what it acknowledged. A failure names its
// seed: run it alone with -run TestCrash/seed.
type life struct {
	m       *machine
	rng     *rand.Rand
	acked   map[int]bool
	deleted map[int]bool // acknowledged deletes: gone
	maybe   map[int]bool // deletes without an answer, or past the retention: there or not
	pending []int        // writes without an answer: a client would retry them
	tries   int
	aged    bool
	sender  sender
}

func newLife(rng *rand.Rand) *life {
	return &life{rng: rng, sender: sender{rng: rng}, acked: map[int]bool{}, deleted: map[int]bool{}, maybe: map[int]bool{}}
}

func at(n int) time.Time {
	if n%7 == 6 {
		return start.Add(-29 * 24 * time.Hour)
	}
	return start.Add(time.Duration(n) * time.Millisecond)
}

// write writes n and says whether it was acknowledged.
func (l *life) write(t *testing.T, n int) bool {
	t.Helper()
	_, _, err := l.m.db.Write(t.Context(), numbered(n, at(n)))
	return err == nil
}

// step makes one random operation.
func (l *life) step(t *testing.T) {
	t.Helper()
	switch p := l.rng.IntN(100); {
	case p < 50:
		n := l.tries
		l.tries++
		if l.write(t, n) {
			l.acked[n] = true
		} else {
			l.pending = append(l.pending, n)
		}
	case p < 57:
		l.burst(t)
	case p < 60:
		for range 4 {
			l.sender.send(t, l.m.db)
		}
	case p < 68 && len(l.pending) > 0 && !l.aged:
		n := l.pending[0]
		if l.write(t, n) {
			l.acked[n] = true
			l.pending = l.pending[1:]
		}
	case p < 85:
		_ = l.m.db.Flush(t.Context())
	case p < 94:
		_ = l.m.db.Maintain(t.Context())
	case p < 95: // all traces are kept: the parts are written anew
		for _, d := range l.m.db.TraceDays() {
			_ = l.m.db.SampleTraces(t.Context(), d, math.MaxUint64, func(telemetry.TraceID) float64 { return 1 })
		}
	case p < 97:
		l.delete(t)
	case p < 99: // past the window of retries: the log may be trimmed
		l.m.clock.set(l.m.clock.Now().Add(6 * time.Minute))
		l.pending = nil
	case !l.aged:
		l.aged = true
		l.m.clock.set(l.m.clock.Now().Add(3 * 24 * time.Hour))
		for n := range l.tries {
			if n%7 == 6 {
				l.maybe[n] = true
			}
		}
	}
}

// burst writes from several goroutines at once, so that records share a commit.
func (l *life) burst(t *testing.T) {
	t.Helper()
	const size = 4
	var wg sync.WaitGroup
	var ok [size]bool
	for i := range size {
		n := l.tries + i
		wg.Go(func() { ok[i] = l.write(t, n) })
	}
	wg.Wait()
	for i := range size {
		if ok[i] {
			l.acked[l.tries+i] = true
		} else {
			l.pending = append(l.pending, l.tries+i)
		}
	}
	l.tries += size
}

// delete deletes the logs of one stream.
func (l *life) delete(t *testing.T) {
	t.Helper()
	part := l.rng.IntN(3)
	_, err := l.m.db.Delete(t.Context(), storage.Mask{
		Tenant: tenant, Signal: storage.Logs, Start: math.MinInt64, End: math.MaxInt64,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "part", strconv.Itoa(part))},
	})
	for n := range l.tries {
		if n%3 != part {
			continue
		}
		if err == nil && l.acked[n] {
			l.deleted[n] = true
		} else {
			l.maybe[n] = true
		}
	}
}

func (l *life) check(t *testing.T) {
	t.Helper()
	l.sender.check(t, l.m.db)
	f, warnings := read(t, l.m.db)
	require.Empty(t, warnings)
	for n := range l.tries {
		if l.aged && n%7 == 6 {
			l.maybe[n] = true
		}
	}
	for n := range l.maybe {
		require.LessOrEqual(t, f.spans[n], 1, "span %d", n)
		require.LessOrEqual(t, f.logs[n], 1, "log %d", n)
		require.LessOrEqual(t, f.samples[n], 1, "sample %d", n)
		if l.deleted[n] {
			require.Zero(t, f.logs[n], "log %d was deleted", n)
		}
		if n%7 != 6 && l.acked[n] {
			require.Equal(t, 1, f.spans[n], "span %d", n)
			require.Equal(t, 1, f.samples[n], "sample %d", n)
		}
		f.spans[n], f.logs[n], f.samples[n] = 0, 0, 0
	}
	acked, deleted := map[int]bool{}, map[int]bool{}
	for n := range l.acked {
		acked[n] = !l.maybe[n]
	}
	for n := range l.deleted {
		deleted[n] = !l.maybe[n]
	}
	check(t, f, acked, deleted, l.tries)
}

// crashTrial crashes one store a few times at random points, the recovery included.
func crashTrial(t *testing.T, seed uint64) {
	t.Helper()
	rng := testRand(seed)
	disk := vfs.NewMem()
	l := newLife(rng)
	l.m = newMachine(disk)
	l.m.checkpointEvery = []int{0, 2, 5}[rng.IntN(3)]
	defer func() { l.m.stop() }()
	for range 1 + rng.IntN(3) {
		crash := vfs.CrashAt(disk, 1+rng.Uint64N(1+rng.Uint64N(600)), testRand(rng.Uint64())) // it crashes in another goroutine
		l.m.fs = vfs.NewFault(disk, crash.Hook)
		if err := l.m.open(t.Context()); err == nil {
			for range 60 {
				if crash.Crashed() {
					break
				}
				l.step(t)
			}
		} else {
			require.ErrorIs(t, err, vfs.ErrCrashed)
		}
		l.m.stop()
		disk = crash.Disk()
		l.sender.restart()
	}
	l.m.fs = disk
	require.NoError(t, l.m.open(t.Context()))
	l.check(t)
	for end := l.sender.acked + 10; l.sender.next < end; {
		require.True(t, l.sender.send(t, l.m.db))
	}
	for !l.aged && len(l.pending) > 0 { // what was not acknowledged is retried and is then there once
		n := l.pending[0]
		l.pending = l.pending[1:]
		require.True(t, l.write(t, n))
		l.acked[n] = true
		if l.maybe[n] {
			delete(l.acked, n)
		}
	}
	l.check(t)
	require.NoError(t, l.m.db.Flush(t.Context()))
	require.NoError(t, l.m.db.Maintain(t.Context()))
	l.check(t)
	l.m.stop()
	require.NoError(t, l.m.open(t.Context()))
	l.check(t)
}

func TestCrash(t *testing.T) {
	seeds(t, crashPoints, crashTrial)
}

// seeds runs trial for many seeds, on all processors.
func seeds(t *testing.T, n int, trial func(t *testing.T, seed uint64)) {
	t.Helper()
	next := make(chan uint64, n)
	for s := range n {
		next <- uint64(s)
	}
	close(next)
	for w := range runtime.GOMAXPROCS(0) {
		t.Run(fmt.Sprintf("worker%d", w), func(t *testing.T) {
			t.Parallel()
			for s := range next {
				if !t.Run(fmt.Sprintf("seed%d", s), func(t *testing.T) { trial(t, s) }) {
					return
				}
			}
		})
	}
}

// faultTrial lets the disk misbehave without a crash, then crashes and requires the same as crashTrial.
func faultTrial(t *testing.T, seed uint64) {
	t.Helper()
	rng := testRand(seed ^ 0xfa17)
	disk := vfs.NewMem()
	l := newLife(rng)
	l.m = newMachine(disk)
	l.m.checkpointEvery = []int{0, 2, 5}[rng.IntN(3)]
	defer func() { l.m.stop() }()
	crash := vfs.CrashAt(disk, math.MaxUint64, testRand(rng.Uint64()))
	var hook vfs.Hook
	switch rng.IntN(5) {
	case 0:
		hook = vfs.DiskFull(int64(rng.IntN(200 << 10))).Hook
	case 1:
		hook = vfs.ShortWrite("*", 1+rng.Uint64N(300), rng.IntN(200))
	case 2:
		hook = vfs.FailOp(vfs.OpSync, "*", 1+rng.Uint64N(200), syscall.EIO)
	case 3:
		hook = vfs.FailOp(vfs.OpSyncDir, "*", 1+rng.Uint64N(100), syscall.EIO)
	case 4:
		hook = vfs.FailOp(vfs.OpLink, "*", 1+rng.Uint64N(20), syscall.EIO)
	}
	l.m.fs = vfs.NewFault(disk, crash.Hook, hook)
	if err := l.m.open(t.Context()); err == nil {
		for range 60 {
			l.step(t)
		}
		l.check(t) // reads go on
	}
	l.m.stop()
	l.m.fs = crash.Disk()
	require.NoError(t, l.m.open(t.Context()))
	l.check(t)
}

func TestFaults(t *testing.T) { seeds(t, crashPoints/2, faultTrial) }

// TestFaultsThatWere runs seeds that found a mistake, a few times each: 646 flushes metrics while logs cannot be, and the
// log was cut where records for the logs still spoke of series.
func TestFaultsThatWere(t *testing.T) {
	for range 5 {
		for _, seed := range []uint64{646} {
			t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) { faultTrial(t, seed) })
		}
	}
}

// readErrorTrial lets a read fail at any time: while the store recovers, answers, flushes or merges. Whoever needed
// it gets the error, and nothing is lost by it.
func readErrorTrial(t *testing.T, seed uint64) {
	t.Helper()
	rng := testRand(seed ^ 0x4ead)
	disk := vfs.NewMem()
	l := newLife(rng)
	l.m = newMachine(disk)
	l.m.checkpointEvery = []int{0, 2, 5}[rng.IntN(3)]
	defer func() { l.m.stop() }()
	for range 3 {
		l.m.fs = vfs.NewFault(disk, vfs.FailOp(vfs.OpRead, "*", 1+rng.Uint64N(150), syscall.EIO))
		if err := l.m.open(t.Context()); err != nil {
			require.ErrorIs(t, err, syscall.EIO)
		} else {
			for range 30 {
				l.step(t)
				if rng.IntN(4) == 0 {
					l.ask(t)
				}
			}
		}
		l.m.stop()
		disk = disk.KillClone() // what a process that ends leaves, its locks given back
	}
	l.m.fs = disk
	require.NoError(t, l.m.open(t.Context()))
	l.check(t)
}

// ask reads all log records; an error is that of the disk.
func (l *life) ask(t *testing.T) {
	t.Helper()
	v, err := l.m.db.View(t.Context(), 0)
	require.NoError(t, err)
	for _, err := range v.Logs(t.Context(), storage.LogQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Columns: storage.LogAll}) {
		if err != nil {
			require.ErrorIs(t, err, syscall.EIO)
		}
	}
	require.NoError(t, v.Close())
}

func TestReadErrors(t *testing.T) { seeds(t, crashPoints/2, readErrorTrial) }

// flipTrial flips one bit of one file at rest. What is lost must be named with file and offset.
func flipTrial(t *testing.T, seed uint64) {
	t.Helper()
	rng := testRand(seed ^ 0xf11b)
	disk := vfs.NewMem()
	l := newLife(rng)
	l.m = newMachine(disk)
	l.m.checkpointEvery = []int{0, 2, 5}[rng.IntN(3)]
	defer func() { l.m.stop() }()
	require.NoError(t, l.m.open(t.Context()))
	for range 40 {
		l.step(t)
	}
	l.m.stop()
	var files []string
	walk(t, disk, "data", func(name string) {
		if info, err := disk.Stat(name); err == nil && info.Size > 0 {
			files = append(files, name)
		}
	})
	name := files[rng.IntN(len(files))]
	info, err := disk.Stat(name)
	require.NoError(t, err)
	off := rng.Int64N(info.Size)
	require.True(t, disk.FlipBit(name, off, uint(rng.IntN(8))))
	base := filepath.Base(name)
	if err := l.m.open(t.Context()); err != nil {
		require.Contains(t, err.Error(), base, "the error names the file")
		require.Contains(t, err.Error(), "offset")
		return
	}
	f, warnings := read(t, l.m.db)
	missing := false
	for n := range l.acked {
		if l.maybe[n] || l.aged && n%7 == 6 {
			continue
		}
		missing = missing || f.spans[n] != 1 || f.samples[n] != 1 || f.logs[n] != 1 && !l.deleted[n]
		require.LessOrEqual(t, f.spans[n], 1)
		require.LessOrEqual(t, f.logs[n], 1)
		require.LessOrEqual(t, f.samples[n], 1)
	}
	if missing {
		all := strings.Join(warnings, "\n")
		require.Contains(t, all, base, "what is missing is named")
		require.Contains(t, all, "offset")
	}
}

func TestBitFlips(t *testing.T) { seeds(t, crashPoints/2, flipTrial) }

func walk(t *testing.T, fs vfs.FS, dir string, f func(string)) {
	t.Helper()
	names, err := fs.ReadDir(dir)
	require.NoError(t, err)
	for _, n := range names {
		path := filepath.Join(dir, n)
		info, err := fs.Stat(path)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		require.NoError(t, err)
		if info.Dir {
			walk(t, fs, path, f)
		} else {
			f(path)
		}
	}
}
