package file

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/braidobs/braid/storage/vfs"
	"github.com/braidobs/braid/storage/wal"
)

// Open opens the log in o.Dir, or begins one. It reads the headers of all segments and the records of the last;
// its memory is bounded by the longest record. What a crash has left unfinished at the end is cut off and logged;
// damage to records that had been acknowledged is left as it is, for Replay to report. The result has two
// goroutines, which Close ends.
//
// It is an error when another process has the log open, when the directory belongs to another shard or was
// written by a newer version, and when the last segment cannot be read (its end would be a guess).
func Open(ctx context.Context, o Options) (*Log, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open write-ahead log: %w", err)
	}
	l := &Log{o: o, committed: make(chan struct{}), finished: make(chan struct{})}
	l.work.L, l.ready.L = &l.mu, &l.mu
	if l.metrics, err = newMetrics(o.Metrics, o.Shard); err != nil {
		return nil, fmt.Errorf("open write-ahead log %s: %w", o.Dir, err)
	}
	if err := vfs.MkdirAllSync(o.FS, o.Dir); err != nil {
		return nil, fmt.Errorf("open write-ahead log: %w", err)
	}
	if l.lock, err = o.FS.Lock(filepath.Join(o.Dir, lockName)); err != nil {
		return nil, fmt.Errorf("open write-ahead log: %w", err)
	}
	if err := l.recover(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open write-ahead log %s: %w", o.Dir, err), l.lock.Close())
	}
	go l.commitLoop()
	go l.doneLoop()
	return l, nil
}

// recover finds the segments and the end of the log, and begins a new segment, which also makes the names durable
// that a killed process may have left seen but unsynced.
func (l *Log) recover(ctx context.Context) error {
	names, err := l.o.FS.ReadDir(l.o.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, tmpSuffix) {
			if err := l.o.FS.Remove(filepath.Join(l.o.Dir, name)); err != nil {
				return fmt.Errorf("remove an unfinished segment: %w", err)
			}
		}
		base, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		s, err := readSegment(l.o, base)
		if err != nil {
			return err
		}
		if s.headerErr != nil {
			l.o.Log.ErrorContext(ctx, "write-ahead log segment has a damaged header", "file", s.path, "err", s.headerErr)
		}
		l.segments = append(l.segments, s)
	}
	slices.SortFunc(l.segments, func(a, b segment) int { // fixed-width names are in order; do not rely on it
		if a.base < b.base {
			return -1
		}
		return 1
	})

	var prevEnd wal.Position
	pristine := true
	if n := len(l.segments); n > 0 {
		last := &l.segments[n-1]
		if l.end, err = l.recoverLast(ctx, last); err != nil {
			return err
		}
		prevEnd = l.end
		pristine = last.headerErr == nil && last.size == segmentHeaderSize
	}
	base := max(l.end, l.o.AtLeast)
	if n := len(l.segments); n > 0 && l.segments[n-1].base == base && !pristine {
		base++ // the name is taken by evidence of damage
	}
	l.end = base
	for _, s := range l.segments {
		l.addBytes(s.size)
	}
	return l.begin(base, prevEnd)
}

// recoverLast finds the end of the last segment, cuts off what was never acknowledged, and makes the rest durable.
func (l *Log) recoverLast(ctx context.Context, last *segment) (wal.Position, error) {
	f, err := l.o.FS.OpenReadWrite(last.path)
	if err != nil {
		return 0, fmt.Errorf("open the last segment: %w", err)
	}
	defer f.Close()
	advice := func(err error) error {
		return fmt.Errorf("last segment %s: %w; if the disk cannot be repaired, move the file away: "+
			"its records are then lost", last.path, err)
	}
	if err := f.Sync(); err != nil {
		return 0, advice(err)
	}
	var (
		synced wal.Position // the youngest proof of durability
		open   []damage     // not below synced
	)
	s := scanner{
		base: last.base, limit: ^wal.Position(0), seed: recordSeed(l.o.Shard, last.base),
		record: func(recordHeader, []byte) error { return nil },
		header: func(h recordHeader) {
			last.lastAppend = max(last.lastAppend, h.at)
			if h.syncedTo > synced {
				synced = h.syncedTo
				open = slices.DeleteFunc(open, func(d damage) bool { return d.from < synced })
			}
		},
		damage: func(d damage) { open = append(open, d) },
	}
	s.reset(f, last.size)
	if err := s.run(ctx); err != nil {
		return 0, advice(err)
	}
	last.known = true
	if len(open) == 0 || last.headerErr != nil {
		// With a damaged header nothing is cut: what the file holds is all there is to learn from.
		return s.next, nil
	}
	cut := open[0]
	l.o.Log.WarnContext(ctx, "write-ahead log ends in an unfinished write, which was never acknowledged: cutting it off",
		"file", last.path, "offset", cut.off, "bytes", last.size-cut.off, "position", uint64(cut.from), "err", cut.err)
	l.metrics.torn.Add(float64(last.size - cut.off))
	if err := f.Truncate(cut.off); err != nil {
		return 0, advice(err)
	}
	if err := f.Sync(); err != nil {
		return 0, advice(err)
	}
	last.size = cut.off
	return cut.from, nil
}

// begin starts a segment and makes it the active one. It takes the place of a last segment of the same base, which
// holds no record that counts, and inherits what that one declares.
func (l *Log) begin(base, prevEnd wal.Position) error {
	h := segmentHeader{shard: l.o.Shard, base: base, prevEnd: prevEnd, created: l.o.Now().UnixMilli()}
	l.mu.Lock()
	last, replaces := l.lastSegment()
	if replaces = replaces && last.base == base; replaces {
		h.prevEnd = last.header.prevEnd
	}
	l.mu.Unlock()
	f, s, err := createSegment(l.o, h)
	if err != nil {
		return err
	}
	l.active = &active{f: f, path: s.path, seed: recordSeed(h.shard, h.base), size: segmentHeaderSize, synced: segmentHeaderSize}
	l.mu.Lock()
	defer l.mu.Unlock()
	if replaces { // Trim leaves the last one
		l.addBytes(-last.size)
		l.segments = l.segments[:len(l.segments)-1]
	}
	l.segments = append(l.segments, s)
	l.addBytes(s.size)
	return nil
}

// lastSegment returns the youngest segment; mu is held.
func (l *Log) lastSegment() (segment, bool) {
	if len(l.segments) == 0 {
		return segment{}, false
	}
	return l.segments[len(l.segments)-1], true
}
