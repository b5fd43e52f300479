// Package waltest is the acceptance suite of wal.Log: what the engine relies on, for any implementation.
package waltest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage/wal"
)

// Reopen opens the same log again, its records as they were, the next append at no less than atLeast. The test
// closes each log before it reopens it.
type Reopen func(t *testing.T, atLeast wal.Position) wal.Log

// Limits is what the logs of a suite have been opened with, so that it can be exceeded.
type Limits struct {
	MaxRecordBytes int // at most 1 MiB, to keep the suite small
	MaxQueuedBytes int // at most 16 MiB
}

// Record is what Replay gave.
type Record struct {
	Position wal.Position
	Text     string
}

// Run runs the suite. fresh returns a new, empty log's Reopen.
func Run(t *testing.T, limits Limits, fresh func(t *testing.T) Reopen) {
	t.Helper()
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, limits Limits, open Reopen)
	}{
		{"append and replay", appendAndReplay},
		{"an empty log", empty},
		{"dones are in order and never overlap", order},
		{"dones may append", reentrant},
		{"reopen continues", reopen},
		{"at least skips positions without a hole", atLeast},
		{"replay from a position", from},
		{"replay stops at an error", stops},
		{"replay is cancelled", cancelled},
		{"replay while appending", whileAppending},
		{"trim keeps what is young or wanted", trim},
		{"a record over the limit", tooLarge},
		{"a full queue", overloaded},
		{"a failure fails what follows it until dones returned", failsFollowers},
		{"close waits for appends", closeWaits},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, limits, fresh(t)) })
	}
}

// Append appends rec and waits for its outcome.
func Append(log wal.Log, rec string) (wal.Position, error) {
	type result struct {
		pos wal.Position
		err error
	}
	c := make(chan result, 1)
	log.Append([]byte(rec), func(pos wal.Position, err error) { c <- result{pos, err} })
	r := <-c
	return r.pos, r.err
}

// Replay returns all records of log from a position on, and requires that there is no hole.
func Replay(t *testing.T, log wal.Log, from wal.Position) []Record {
	t.Helper()
	recs, holes := ReplayHoles(t, log, from)
	require.Empty(t, holes)
	return recs
}

// ReplayHoles returns all records of log from a position on, and the holes; it requires ascending positions.
func ReplayHoles(t *testing.T, log wal.Log, from wal.Position) ([]Record, []wal.Hole) {
	t.Helper()
	var recs []Record
	next := from
	holes, err := log.Replay(t.Context(), from, func(pos wal.Position, at time.Time, rec []byte) error {
		if pos < next {
			return fmt.Errorf("position %d after %d", pos, next)
		}
		if at.IsZero() {
			return errors.New("no append time")
		}
		next = pos + 1
		recs = append(recs, Record{pos, string(rec)})
		clear(rec) // it is ours until we return
		return nil
	})
	require.NoError(t, err)
	return recs, holes
}

func fill(t *testing.T, log wal.Log, recs ...string) (out []Record) {
	t.Helper()
	for _, r := range recs {
		pos, err := Append(log, r)
		require.NoError(t, err)
		out = append(out, Record{pos, r})
	}
	return out
}

func appendAndReplay(t *testing.T, _ Limits, open Reopen) {
	t.Helper()
	log := open(t, 0)
	want := fill(t, log, "a", "", "ccc")
	require.Equal(t, []Record{{0, "a"}, {1, ""}, {2, "ccc"}}, want)
	require.Equal(t, want, Replay(t, log, 0))
	require.EqualValues(t, 3, log.End())
	require.EqualValues(t, 0, log.Base())
	require.Positive(t, log.Bytes())
	require.NoError(t, log.Close())
}

func empty(t *testing.T, _ Limits, open Reopen) {
	t.Helper()
	for range 3 {
		log := open(t, 0)
		require.Empty(t, Replay(t, log, 0))
		require.Zero(t, log.End())
		require.Zero(t, log.Base())
		require.NoError(t, log.Trim(100, far()))
		require.NoError(t, log.Close())
	}
}

func order(t *testing.T, _ Limits, open Reopen) {
	t.Helper()
	log := open(t, 0)
	const writers, each = 8, 50
	var (
		mu       sync.Mutex // makes the order of appends known
		appended int
		called   int
		inDone   atomic.Bool
		problems []string
		wg       sync.WaitGroup
		dones    sync.WaitGroup
	)
	dones.Add(writers * each)
	for range writers {
		wg.Go(func() {
			for range each {
				mu.Lock()
				i := appended
				appended++
				log.Append(fmt.Appendf(nil, "%d", i), func(pos wal.Position, err error) {
					defer dones.Done()
					if !inDone.CompareAndSwap(false, true) {
						problems = append(problems, "two dones at a time")
					}
					if err != nil || i != called || int(pos) != i {
						problems = append(problems, fmt.Sprintf("append %d: position %d, call %d, %v", i, pos, called, err))
					}
					called++
					inDone.Store(false)
				})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	dones.Wait()
	require.Empty(t, problems)
	require.NoError(t, log.Close())
	log = open(t, 0)
	for i, r := range Replay(t, log, 0) {
		require.Equal(t, Record{wal.Position(i), strconv.Itoa(i)}, r)
	}
	require.NoError(t, log.Close())
}

func reentrant(t *testing.T, _ Limits, open Reopen) {
	t.Helper()
	log := open(t, 0)
	c := make(chan error)
	log.Append([]byte("a"), func(wal.Position, error) {
		log.Append([]byte("b"), func(_ wal.Position, err error) { c <- err })
	})
	require.NoError(t, <-c)
	require.Len(t, Replay(t, log, 0), 2)
	require.NoError(t, log.Close())
}

func reopen(t *testing.T, _ Limits, open Reopen) {
	t.Helper()
	var want []Record
	for i := range 4 {
		log := open(t, 0)
		require.Equal(t, want, Replay(t, log, 0))
		require.EqualValues(t, len(want), log.End())
		want = append(want, fill(t, log, fmt.Sprint("x", i), fmt.Sprint("y", i))...)
		require.NoError(t, log.Close())
	}
}

func atLeast(t *testing.T, _ Limits, open Reopen) {
	t.Helper()
	log := open(t, 5)
	require.EqualValues(t, 5, log.End())
	want := fill(t, log, "five")
	require.EqualValues(t, 5, want[0].Position)
	require.NoError(t, log.Close())
	for _, at := range []wal.Position{0, 3, 6, 20, 20, 7, 30} { // 20 twice: the first time nothing is appended
		log = open(t, at)
		require.Equal(t, want, Replay(t, log, 0))
		require.GreaterOrEqual(t, log.End(), at)
		if at != 20 {
			want = append(want, fill(t, log, fmt.Sprint(at))...)
			require.GreaterOrEqual(t, want[len(want)-1].Position, at)
		}
		require.Equal(t, want, Replay(t, log, 0))
		require.NoError(t, log.Close())
	}
	log = open(t, 0)
	require.Equal(t, want, Replay(t, log, 0))
	require.EqualValues(t, 31, log.End())
	require.NoError(t, log.Close())
}

func from(t *testing.T, _ Limits, open Reopen) {
	t.Helper()
	var want []Record
	for i := range 3 {
		log := open(t, 0)
		want = append(want, fill(t, log, strconv.Itoa(i), "b", "c")...)
		require.NoError(t, log.Close())
	}
	log := open(t, 0)
	for i := range want {
		require.Equal(t, want[i:], Replay(t, log, wal.Position(i)))
	}
	require.Empty(t, Replay(t, log, 9))
	require.Empty(t, Replay(t, log, 1000))
	require.NoError(t, log.Close())
}

func stops(t *testing.T, _ Limits, open Reopen) {
	t.Helper()
	log := open(t, 0)
	fill(t, log, "a", "b")
	boom := errors.New("boom")
	n := 0
	_, err := log.Replay(t.Context(), 0, func(wal.Position, time.Time, []byte) error { n++; return boom })
	require.ErrorIs(t, err, boom)
	require.Equal(t, 1, n)
	require.NoError(t, log.Close())
}

func cancelled(t *testing.T, _ Limits, open Reopen) {
	t.Helper()
	log := open(t, 0)
	fill(t, log, "a", "b")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := log.Replay(ctx, 0, func(wal.Position, time.Time, []byte) error { return nil })
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, log.Close())
}

func whileAppending(t *testing.T, _ Limits, open Reopen) {
	t.Helper()
	log := open(t, 0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := Append(log, strconv.Itoa(i)); err != nil {
				return
			}
		}
	})
	for range 20 {
		end := log.End()
		recs := Replay(t, log, 0)
		require.GreaterOrEqual(t, len(recs), int(end))
		for i, r := range recs {
			require.Equal(t, Record{wal.Position(i), strconv.Itoa(i)}, r)
		}
	}
	close(stop)
	wg.Wait()
	require.NoError(t, log.Close())
}

// far returns a time after every append, wherever the clock of the log stands.
func far() time.Time { return time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC) }

func trim(t *testing.T, _ Limits, open Reopen) {
	t.Helper()
	for range 3 { // each reopening begins a segment
		log := open(t, 0)
		fill(t, log, "a", "b", "c")
		require.NoError(t, log.Close())
	}
	log := open(t, 0)
	require.NoError(t, log.Trim(9, time.Time{}))
	require.EqualValues(t, 0, log.Base(), "all are too young")
	require.NoError(t, log.Trim(2, far()))
	require.LessOrEqual(t, log.Base(), wal.Position(2))
	before := log.Bytes()
	require.NoError(t, log.Trim(4, far()))
	require.Positive(t, log.Base())
	require.LessOrEqual(t, log.Base(), wal.Position(4))
	require.Less(t, log.Bytes(), before)
	base := log.Base()
	recs := Replay(t, log, 0)
	require.Equal(t, base, recs[0].Position)
	require.Len(t, recs, int(9-base))
	require.NoError(t, log.Trim(1000, far()))
	require.EqualValues(t, 9, log.End())
	fill(t, log, "next")
	base = log.Base()
	require.NoError(t, log.Close())
	log = open(t, 0)
	require.Equal(t, base, log.Base())
	recs = Replay(t, log, base)
	require.Equal(t, Record{9, "next"}, recs[len(recs)-1])
	require.NoError(t, log.Close())
}

func tooLarge(t *testing.T, limits Limits, open Reopen) {
	t.Helper()
	log := open(t, 0)
	want := fill(t, log, "a", string(make([]byte, limits.MaxRecordBytes)))
	_, err := Append(log, string(make([]byte, limits.MaxRecordBytes+1)))
	require.ErrorIs(t, err, wal.ErrTooLarge)
	require.Eventually(t, func() bool {
		pos, err := Append(log, "c")
		if err == nil {
			want = append(want, Record{pos, "c"})
		}
		return err == nil
	}, time.Minute, time.Microsecond)
	require.Equal(t, want, Replay(t, log, 0))
	require.EqualValues(t, 3, log.End())
	require.NoError(t, log.Close())
}

func overloaded(t *testing.T, limits Limits, open Reopen) {
	t.Helper()
	log := open(t, 0)
	hold, entered := make(chan struct{}), make(chan struct{})
	log.Append([]byte("first"), func(wal.Position, error) { close(entered); <-hold })
	<-entered
	rec := limits.MaxRecordBytes
	var (
		errs []error
		wg   sync.WaitGroup
	)
	n := limits.MaxQueuedBytes/rec + 2
	wg.Add(n)
	for range n {
		log.Append(make([]byte, rec), func(_ wal.Position, err error) { errs = append(errs, err); wg.Done() })
	}
	close(hold)
	wg.Wait()
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[n-1], wal.ErrOverloaded)
	failed := false
	for _, err := range errs {
		require.False(t, failed && err == nil, "nothing passes a failed append")
		failed = failed || err != nil
	}
	require.Eventually(t, func() bool { _, err := Append(log, "later"); return err == nil }, time.Minute, time.Microsecond)
	require.NoError(t, log.Close())
}

func failsFollowers(t *testing.T, limits Limits, open Reopen) {
	t.Helper()
	log := open(t, 0)
	hold, entered := make(chan struct{}), make(chan error)
	log.Append(make([]byte, limits.MaxRecordBytes+1), func(_ wal.Position, err error) { entered <- err; <-hold })
	require.ErrorIs(t, <-entered, wal.ErrTooLarge)
	c := make(chan error, 1)
	log.Append([]byte("refused"), func(_ wal.Position, err error) { c <- err })
	close(hold)
	err := <-c
	require.ErrorIs(t, err, wal.ErrFailed)
	require.ErrorIs(t, err, wal.ErrTooLarge)
	for {
		if _, err := Append(log, "accepted"); err == nil {
			break
		}
		runtime.Gosched()
	}
	require.Equal(t, []Record{{0, "accepted"}}, Replay(t, log, 0))
	require.NoError(t, log.Close())
}

func closeWaits(t *testing.T, _ Limits, open Reopen) {
	t.Helper()
	log := open(t, 0)
	const n = 100
	acked := 0
	for range n {
		log.Append([]byte("x"), func(_ wal.Position, err error) {
			if err == nil {
				acked++
			}
		})
	}
	require.NoError(t, log.Close())
	require.Equal(t, n, acked)
	called := false
	log.Append([]byte("x"), func(_ wal.Position, err error) { called = errors.Is(err, wal.ErrClosed) })
	require.True(t, called)
	require.NoError(t, log.Close())
	log = open(t, 0)
	require.Len(t, Replay(t, log, 0), n)
	require.NoError(t, log.Close())
}
