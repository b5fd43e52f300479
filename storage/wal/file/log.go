// Package file keeps a write-ahead log in segment files on a local disk, with group commit: all appends that wait
// are written with one write and made durable with one fdatasync, while the dones of the group before are called.
//
// docs/format/wal.md describes the files, and what is made of them after a crash.
//
// Three kinds of locks, taken in this order: trimMu, mu, those of the caller's done (none is held while it runs).
package file

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/braidobs/braid/storage/vfs"
	"github.com/braidobs/braid/storage/wal"
)

// Log is a write-ahead log on a local disk. Make one with [Open].
type Log struct {
	o       Options
	metrics *metrics
	lock    io.Closer

	trimMu      sync.RWMutex // held for reading by replays, for writing by trims; taken before mu
	trimUnsaved bool         // a removal is not yet durable; guarded by trimMu

	mu       sync.Mutex // guards below
	work     sync.Cond  // queue or closed changed
	ready    sync.Cond  // done or stopped changed
	queue    []pending  // appended, not yet taken by the committer
	queued   int64      // bytes of the appends whose done has not returned
	done     []pending  // outcome known, done not yet called
	failed   int        // failed appends whose done has not returned
	cause    error      // of the first of these
	closed   bool
	stopped  bool // the committer has ended
	segments []segment
	bytes    int64
	end      wal.Position // after the last durable record

	// These belong to the committer.
	active  *active // nil: the next group begins a segment
	buf     []byte
	failing bool // the last group failed; for logging

	committed, finished chan struct{} // closed when the goroutines end
	closing             sync.Once
	closeErr            error
}

var _ wal.Log = (*Log)(nil)

// pending is an append on its way.
type pending struct {
	rec  []byte
	cost int64 // its part of Log.queued
	done func(wal.Position, error)
	pos  wal.Position
	err  error
}

// active is the segment that is written to.
type active struct {
	f            vfs.File
	path         string
	seed         uint32
	size, synced int64
	records      bool // it holds durable records
}

// Append implements [wal.Log].
func (l *Log) Append(rec []byte, done func(wal.Position, error)) {
	p := pending{rec: rec, cost: recordHeaderSize + int64(len(rec)), done: done}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		done(0, wal.ErrClosed)
		return
	}
	switch {
	case l.failed > 0:
		p.err = fmt.Errorf("%w: refused because one before failed: %w", wal.ErrFailed, l.cause)
	case len(rec) > l.o.MaxRecordBytes:
		p.err = fmt.Errorf("%w: %d bytes, the limit is %d", wal.ErrTooLarge, len(rec), l.o.MaxRecordBytes)
	case l.queued > 0 && l.queued+p.cost > l.o.MaxQueuedBytes:
		p.err = fmt.Errorf("%w: %d bytes wait, the limit is %d", wal.ErrOverloaded, l.queued, l.o.MaxQueuedBytes)
	}
	if p.err != nil {
		l.fail(&p, p.err)
	}
	l.queued += p.cost
	l.queue = append(l.queue, p)
	l.mu.Unlock()
	l.work.Signal()
}

// fail marks p as failed and frees its record; mu is held.
func (l *Log) fail(p *pending, err error) {
	p.err, p.rec, p.cost = err, nil, 0
	if l.failed == 0 {
		l.cause = err
	}
	l.failed++
	l.metrics.failed.Inc()
}

// doneLoop calls the dones, in order.
func (l *Log) doneLoop() {
	defer close(l.finished)
	for {
		l.mu.Lock()
		for len(l.done) == 0 && !l.stopped {
			l.ready.Wait()
		}
		batch := l.done
		l.done = nil
		l.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for i := range batch {
			p := &batch[i]
			p.done(p.pos, p.err)
			l.mu.Lock()
			l.queued -= p.cost
			if p.err != nil {
				if l.failed--; l.failed == 0 {
					l.cause = nil
				}
			}
			l.mu.Unlock()
			*p = pending{}
		}
	}
}

// complete hands appends whose outcome is known to doneLoop.
func (l *Log) complete(ps []pending) {
	if len(ps) == 0 {
		return
	}
	l.mu.Lock()
	l.done = append(l.done, ps...)
	l.mu.Unlock()
	l.ready.Signal()
}

// End implements [wal.Log].
func (l *Log) End() wal.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// Base implements [wal.Log].
func (l *Log) Base() wal.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.segments[0].base
}

// Bytes implements [wal.Log].
func (l *Log) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// addBytes accounts a change of the size on disk; mu is held, or nobody else has the log yet.
func (l *Log) addBytes(n int64) {
	l.bytes += n
	l.metrics.size.Set(float64(l.bytes))
}

// Trim implements [wal.Log]. Segments go oldest first, each durably before the next, so that a crash cannot leave a
// gap. The age of a segment written by an earlier process is that of the segment after it.
func (l *Log) Trim(upTo wal.Position, olderThan time.Time) error {
	l.trimMu.Lock()
	defer l.trimMu.Unlock()
	for {
		if l.trimUnsaved {
			if err := l.o.FS.SyncDir(l.o.Dir); err != nil {
				return fmt.Errorf("trim write-ahead log: %w", err)
			}
			l.trimUnsaved = false
		}
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return wal.ErrClosed
		}
		oldest := l.segments[0]
		old := len(l.segments) > 1 && limitOf(l.segments, 0, l.end) <= upTo &&
			closedAt(l.segments, 0) < olderThan.UnixMilli()
		l.mu.Unlock()
		if !old {
			return nil
		}
		if err := l.o.FS.Remove(oldest.path); err != nil {
			return fmt.Errorf("trim write-ahead log: %w", err)
		}
		l.trimUnsaved = true
		l.mu.Lock()
		l.segments = slices.Clone(l.segments[1:])
		l.addBytes(-oldest.size)
		l.mu.Unlock()
	}
}

// Close implements [wal.Log]. When all is written it marks the log as durable up to its end, so that any damage
// found later is known to be one.
func (l *Log) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.work.Signal()
	<-l.committed
	<-l.finished
	l.closing.Do(func() {
		if err := l.lock.Close(); l.closeErr == nil {
			l.closeErr = err
		}
	})
	return l.closeErr
}

// Replay implements [wal.Log]. It reads with a buffer of 256 KiB, or the length of the longest record.
func (l *Log) Replay(ctx context.Context, from wal.Position,
	fn func(pos wal.Position, at time.Time, rec []byte) error,
) ([]wal.Hole, error) {
	l.trimMu.RLock()
	defer l.trimMu.RUnlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, wal.ErrClosed
	}
	segs, end := slices.Clone(l.segments), l.end
	l.mu.Unlock()

	r := replay{ctx: ctx, o: l.o, from: from, fn: fn}
	for i := range segs {
		if err := r.segment(segs[i], min(limitOf(segs, i, end), end)); err != nil {
			return r.holes, err
		}
	}
	l.metrics.holes.Add(float64(len(r.holes)))
	return r.holes, nil
}
