package file

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/braidobs/braid/storage/wal"
)

const (
	// groupBytes bounds one write. A longer record is a group of its own.
	groupBytes = 8 << 20
	// keepBytes is the largest buffer that is kept for the next group.
	keepBytes = 2 * groupBytes
)

// commitLoop takes what is queued and makes it durable, until the log is closed and the queue is empty.
func (l *Log) commitLoop() {
	defer close(l.committed)
	for {
		l.mu.Lock()
		for len(l.queue) == 0 && !l.closed {
			l.work.Wait()
		}
		group := l.queue
		l.queue = nil
		l.mu.Unlock()
		if len(group) == 0 {
			break
		}
		l.commit(group)
		l.mark()
	}
	l.closeErr = l.closeActive()
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.ready.Signal()
}

// commit decides the outcome of every append in group.
func (l *Log) commit(group []pending) {
	for len(group) > 0 {
		refused := 0
		for refused < len(group) && group[refused].err != nil {
			refused++
		}
		if refused > 0 {
			l.complete(group[:refused])
			group = group[refused:]
			continue
		}
		n, err := l.write(group)
		if err != nil {
			l.failAll(group, err)
			return
		}
		l.complete(group[:n])
		group = group[n:]
	}
}

// write makes the first appends of group durable, and returns how many. The first of group is not refused.
func (l *Log) write(group []pending) (int, error) {
	if l.active != nil && l.active.records && l.active.size+group[0].cost > l.o.SegmentBytes {
		// All of it is durable; there is nothing that an error of Close could tell.
		_ = l.active.f.Close()
		l.active = nil
	}
	l.mu.Lock()
	end := l.end
	l.mu.Unlock()
	if l.active == nil {
		if err := l.begin(end, end); err != nil {
			return 0, err
		}
	}
	a := l.active
	start := l.o.Now()
	if cap(l.buf) > keepBytes {
		l.buf = nil
	}
	b, n := l.buf[:0], 0
	for ; n < len(group) && group[n].err == nil; n++ {
		p := &group[n]
		if n > 0 && (int64(len(b))+p.cost > groupBytes || a.size+int64(len(b))+p.cost > l.o.SegmentBytes) {
			break
		}
		p.pos = end + wal.Position(n)
		b = appendRecord(b, a.seed, recordHeader{pos: p.pos, at: start.UnixMilli(), syncedTo: end}, p.rec)
	}
	l.buf = b
	if err := a.append(b); err != nil {
		return 0, fmt.Errorf("write segment %s: %w", a.path, err)
	}
	if err := a.f.Sync(); err != nil {
		return 0, fmt.Errorf("sync segment %s: %w", a.path, err)
	}
	a.synced, a.records = a.size, true
	for i := range group[:n] {
		group[i].rec = nil
	}
	l.mu.Lock()
	l.end = end + wal.Position(n)
	s := &l.segments[len(l.segments)-1]
	s.lastAppend = max(s.lastAppend, start.UnixMilli())
	l.grow(s, a.size)
	l.mu.Unlock()

	l.metrics.records.Add(float64(n))
	l.metrics.bytes.Add(float64(len(b)))
	l.metrics.syncs.Inc()
	l.metrics.syncSeconds.Observe(l.o.Now().Sub(start).Seconds())
	if l.failing {
		l.failing = false
		l.o.Log.Info("write-ahead log accepts appends again", "file", a.path)
	}
	return n, nil
}

// append writes b at the end of the segment.
func (a *active) append(b []byte) error {
	n, err := a.f.WriteAt(b, a.size)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err == nil {
		a.size += int64(n)
	}
	return err
}

// grow sets the size of a segment; mu is held.
func (l *Log) grow(s *segment, size int64) {
	l.addBytes(size - s.size)
	s.size = size
}

// failAll fails group and all that is queued behind it, and seals the segment. The segment is never written to
// again: after a failed fdatasync nobody knows what the disk holds, and a second one that succeeds proves nothing.
func (l *Log) failAll(group []pending, cause error) {
	cause = fmt.Errorf("%w: %w", wal.ErrFailed, cause)
	l.mu.Lock()
	group = append(group, l.queue...)
	l.queue = nil
	for i := range group {
		if group[i].err == nil {
			l.queued -= group[i].cost
			l.fail(&group[i], cause)
		}
	}
	l.mu.Unlock()
	if !l.failing {
		l.failing = true
		l.o.Log.Error("write-ahead log append failed; appends fail until a new segment can be written",
			"dir", l.o.Dir, "err", cause)
	}
	l.seal()
	l.complete(group)
}

// seal ends the active segment after a failure. What is beyond its durable records is cut off if that is possible;
// if not, the next segment supersedes it.
func (l *Log) seal() {
	a := l.active
	if a == nil {
		return
	}
	l.active = nil
	size := a.synced
	if err := a.f.Truncate(a.synced); err != nil {
		if now, err := a.f.Size(); err == nil {
			size = now
		}
	}
	_ = a.f.Close() // nothing is promised about what it could lose
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grow(&l.segments[len(l.segments)-1], size)
}

// mark writes, without syncing it, that the last group is durable, unless another group is about to say so. Damage
// to a record that no later one vouches for cannot be told from an unfinished write; after a kill the mark is
// there, after a power loss it may be.
func (l *Log) mark() {
	a := l.active
	if a == nil || !a.records {
		return
	}
	l.mu.Lock()
	busy, end := len(l.queue) > 0, l.end
	l.mu.Unlock()
	if busy || a.size > a.synced {
		return
	}
	b := appendRecord(nil, a.seed, recordHeader{mark: true, pos: end, at: l.o.Now().UnixMilli(), syncedTo: end}, nil)
	if err := a.append(b); err != nil {
		l.o.Log.Warn("write-ahead log segment is sealed: a mark could not be written", "file", a.path, "err", err)
		l.seal()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grow(&l.segments[len(l.segments)-1], a.size)
}

// closeActive makes the mark durable and closes the segment.
func (l *Log) closeActive() error {
	l.mark()
	a := l.active
	if a == nil {
		return nil
	}
	l.active = nil
	var err error
	if a.size > a.synced {
		err = a.f.Sync()
	}
	if cerr := a.f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("close write-ahead log %s: %w", filepath.Clean(l.o.Dir), err)
	}
	return nil
}
