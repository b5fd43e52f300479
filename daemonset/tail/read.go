package tail

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/braidobs/braid/daemonset/tail/line"
)

// gauge is a number that is shown.
type gauge struct {
	n     atomic.Int64
	shown prometheus.Gauge
}

func (g *gauge) add(n int64) { g.shown.Set(float64(g.n.Add(n))) }

// batch is a chunk in the making and what follows from its acknowledgement.
type batch struct {
	file    *logFile
	from    uint64
	to      uint64
	records []Record
	joined  int64 // bytes of bodies that are not in the buffer that was read into
	resume  []position
	loss    *Loss
	bytes   int64
}

// position is where to read on in a file.
type position struct {
	file *logFile
	off  int64
}

// bytesPerRecord bounds how many records a chunk has: what a record takes beside its text.
const bytesPerRecord = 64

// want returns how large a buffer the next step should get, at most limit.
func (s *stream) want(limit int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	const least = 4 << 10
	f := s.pick()
	if f == nil && !s.carry.open {
		f = s.tailFile()
	}
	if f == nil || f.loss != nil {
		return least
	}
	n := int64(limit)
	if !f.compressed {
		n = min(n, f.size-f.read)
	}
	size := least
	for int64(size) < n {
		size *= 2
	}
	return size
}

// pick returns the oldest file with something to read; nil when there is none, or when it is waited for.
func (s *stream) pick() *logFile {
	for i, f := range s.files {
		if f.loss != nil {
			return f
		}
		if f.absent() {
			s.pending = true
			return nil
		}
		if f.src == nil {
			continue
		}
		if f.compressed {
			if !f.drained {
				return f
			}
			continue
		}
		fi, err := f.src.Stat()
		if err != nil {
			continue
		}
		size := fi.Size()
		if size < f.read {
			s.truncated(i)
			return nil
		}
		if size != f.size {
			f.size = size
			s.dirty = true
		}
		if size > f.read && size != f.waiting {
			return f
		}
		if tail := size > f.read || s.carry.open && s.carry.file == f; tail && s.newer(i) {
			s.pending = true
			return nil // newer files wait for the last line of this one
		}
	}
	return nil
}

// newer says whether a file after s.files[i] has bytes.
func (s *stream) newer(i int) bool {
	for _, f := range s.files[i+1:] {
		if f.src != nil && (f.compressed && !f.drained || f.size > f.read) {
			return true
		}
		if f.src != nil && !f.compressed {
			if fi, err := f.src.Stat(); err == nil && fi.Size() > f.read {
				return true
			}
		}
	}
	return false
}

// truncated begins a new file in the place of s.files[i], which became shorter than what was read of it. What the old
// one still had may be in a copy: the next listing tells.
func (s *stream) truncated(i int) {
	old := s.files[i]
	fresh := &logFile{
		path: old.path, rot: old.rot, dev: old.dev, ino: old.ino, stat: old.stat, src: old.src, since: s.now(),
		gen: old.gen + 1, waiting: -1,
	}
	old.src, old.cut, old.path, old.rot.live, old.since = nil, true, "", false, s.now()
	s.files = append(s.files[:i+1], append([]*logFile{fresh}, s.files[i+1:]...)...)
	s.metrics.truncations.Inc()
	s.rescan, s.dirty = true, true
	s.log.Info("log file was truncated", "stream", s.id, "file", fresh.path, "read", old.read)
}

// step reads once into buf. It returns what to send, or nil, and whether there may be more to read.
func (s *stream) step(into *buffer) (b *batch, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	now, buf := s.now(), into.data
	s.pending = false
	f := s.pick()
	switch {
	case f == nil:
		b = s.flushSilent(now, buf)
		s.pending = s.pending || s.waits()
		s.tidy(now)
		return b, b != nil
	case f.loss != nil:
		return s.lossBatch(f, now), true
	case s.carry.open && s.carry.file != f: // an older file has grown
		return s.flush(now, nil, nil), true
	}
	if err := f.learn(s.source, false); err != nil {
		return nil, s.failed(f, err)
	}
	if !f.headKnown {
		f.wait(now)
		return nil, true
	}
	n, end, err := f.readInto(buf)
	if errors.Is(err, errSkipping) {
		return nil, true
	}
	if err != nil {
		return nil, s.failed(f, err)
	}
	b = s.begin(f)
	b.records = into.records[:0]
	off := s.consume(b, f, buf[:n], n == len(buf), now)
	s.cur = f
	rest := buf[off:n]
	switch {
	case end && bytes.IndexByte(rest, '\n') < 0: // the last line has no newline and never gets one
		if len(rest) > 0 || s.carry.open {
			s.lastLine(b, f, rest, now)
		}
		f.drained = true
	case f.gz != nil:
		f.gz.keep(rest)
	case off == 0:
		f.wait(now)
	}
	into.records = b.records[:0]
	return s.finish(b), true
}

// wait notes that f has nothing to give until it grows.
func (f *logFile) wait(now time.Time) {
	if f.waiting != f.size {
		f.waiting, f.since = f.size, now
	}
}

// failed handles a file that cannot be read; it says whether to go on at once.
func (s *stream) failed(f *logFile, err error) bool {
	if f.compressed {
		s.log.Error("compressed log file is damaged: the rest of it is lost", "stream", s.id, "file", f.path, "err", err)
		lost := f.size
		f.drained = true
		s.lose(f, Unreadable, lost)
		return true
	}
	f.wait(s.now())
	s.log.Warn("log file cannot be read, trying again when it grows", "stream", s.id, "file", f.path, "offset", f.read, "err", err)
	return false
}

func (s *stream) begin(f *logFile) *batch {
	return &batch{file: f, from: f.sent, to: f.sent}
}

// consume takes whole lines off data, which was read at f.read, and returns how many bytes that were. A line that fills
// all of data is carried over.
func (s *stream) consume(b *batch, f *logFile, data []byte, full bool, now time.Time) int {
	off, limit := 0, max(16, len(data)/bytesPerRecord)
	for off < len(data) && len(b.records) < limit {
		i := bytes.IndexByte(data[off:], '\n')
		if s.carry.open {
			part := data[off:]
			if i >= 0 {
				part = part[:i]
			}
			s.carryOn(part, now)
			off += len(part)
			if i < 0 {
				break
			}
			off++
			c := s.carry
			s.carry = carry{}
			s.partial.add(-int64(len(c.buf)))
			b.joined += int64(len(c.buf))
			s.line(b, f, c.buf, int(c.size)-len(c.buf), c.start, f.read+int64(off), now)
			continue
		}
		if i < 0 {
			if off == 0 && full {
				s.carry = carry{open: true, file: f, start: f.read}
				s.carryOn(data, now)
				off = len(data)
			}
			break
		}
		s.line(b, f, data[off:off+i], 0, f.read+int64(off), f.read+int64(off+i+1), now)
		off += i + 1
	}
	f.read += int64(off)
	b.bytes += int64(off)
	s.nRead += int64(off)
	s.metrics.read.Add(float64(off))
	return off
}

// carryOn appends to the line that is carried; of what is over the limits only the size is kept.
func (s *stream) carryOn(part []byte, now time.Time) {
	const header = 128 // of the runtime, in front of the text
	c := &s.carry
	c.size += int64(len(part))
	c.last = now
	part = part[:min(len(part), s.room(len(c.buf), s.maxRecord+header))]
	c.buf = append(c.buf, part...)
	s.partial.add(int64(len(part)))
}

// room returns how many bytes a record that is not whole and has n may still get.
func (s *stream) room(n, limit int) int {
	return int(max(0, min(int64(limit-n), s.maxOpen-s.partial.n.Load())))
}

// line takes the line text, which lies in [start, end) of f; cut more bytes belong to it and were not kept.
func (s *stream) line(b *batch, f *logFile, text []byte, cut int, start, end int64, now time.Time) {
	l := s.parser.Parse(f.format, text)
	if l.Torn {
		s.metrics.torn.Inc()
		if l.Skipped > 0 {
			s.count(Torn, int64(l.Skipped))
		}
	}
	if l.Time != 0 {
		for i := range s.pieces {
			if p := &s.pieces[i]; p.open && p.lastTime != 0 && l.Time-p.lastTime > int64(silence) {
				s.flushPieces(b, uint64(start)<<1|1, now)
				break
			}
		}
		s.lastTime = l.Time
	}
	p := &s.pieces[0]
	if l.Stderr {
		p = &s.pieces[1]
	}
	if l.Torn && l.Skipped == 0 && f.format != line.Raw { // no header: it belongs to nobody
		p = &piece{}
		l.Time = s.lastTime
	}
	if !l.Partial && !p.open {
		r := Record{
			Time: l.Time, Observed: now.UnixNano(), Body: l.Body, End: uint64(end) << 1, Size: len(l.Body) + cut,
			Stderr: l.Stderr, Torn: l.Torn,
		}
		if len(r.Body) > s.maxRecord || cut > 0 {
			r.Body, r.Truncated = r.Body[:min(len(r.Body), s.maxRecord)], true
		}
		s.emit(b, r)
		return
	}
	if !p.open {
		*p = piece{open: true, file: f, start: start, time: l.Time}
	}
	p.last, p.lastTime, p.torn = now, l.Time, p.torn || l.Torn
	p.size += len(l.Body) + cut
	part := l.Body[:min(len(l.Body), s.room(len(p.buf), s.maxRecord))]
	p.truncated = p.truncated || len(part) < len(l.Body)+cut
	p.buf = append(p.buf, part...)
	s.partial.add(int64(len(part)))
	if l.Partial {
		return
	}
	s.emit(b, s.take(b, p, uint64(end)<<1, l.Stderr, now))
}

// take makes a record of the pieces in p.
func (s *stream) take(b *batch, p *piece, end uint64, stderr bool, now time.Time) Record {
	r := Record{
		Time: p.time, Observed: now.UnixNano(), Body: p.buf, End: end, Size: p.size,
		Stderr: stderr, Truncated: p.truncated, Torn: p.torn,
	}
	s.partial.add(-int64(len(p.buf)))
	b.joined += int64(len(p.buf))
	*p = piece{}
	return r
}

// emit adds a record to the batch, unless it was acknowledged before.
func (s *stream) emit(b *batch, r Record) {
	if r.End <= b.file.acked {
		return
	}
	if r.Truncated {
		s.metrics.cut.Inc()
		s.count(OversizeCut, int64(r.Size-len(r.Body)))
	}
	b.records = append(b.records, r)
	b.to = r.End
}

// flushPieces sends what there is of open records, as records that all end at the same position.
func (s *stream) flushPieces(b *batch, end uint64, now time.Time) {
	for i := range s.pieces {
		if p := &s.pieces[i]; p.open {
			r := s.take(b, p, end, i == 1, now)
			r.Partial = true
			s.emit(b, r)
		}
	}
}

// lastLine takes the bytes after the last newline of f as a line.
func (s *stream) lastLine(b *batch, f *logFile, rest []byte, now time.Time) {
	start, cut := f.read, 0
	text := rest
	if s.carry.open {
		c := s.carry
		s.carry = carry{}
		s.partial.add(-int64(len(c.buf)))
		b.joined += int64(len(c.buf))
		start, cut = c.start, int(c.size)-len(c.buf)+len(rest)
		text = c.buf
	}
	f.read += int64(len(rest))
	b.bytes += int64(len(rest))
	s.nRead += int64(len(rest))
	end := uint64(f.read)<<1 | 1
	n := len(b.records)
	s.line(b, f, text, cut, start, f.read, now)
	for i := n; i < len(b.records); i++ {
		b.records[i].Partial = true
		b.records[i].End = end
	}
	s.flushPieces(b, end, now)
	if len(b.records) > n {
		b.to = end
	}
}

// tailFile returns the file whose last line has no newline and is waited for.
func (s *stream) tailFile() *logFile {
	if s.carry.open {
		return s.carry.file
	}
	for _, f := range s.files {
		if f.src != nil && !f.compressed && f.size > f.read {
			return f
		}
	}
	return nil
}

// waits says whether something is going to be flushed.
func (s *stream) waits() bool {
	return s.pieces[0].open || s.pieces[1].open || s.tailFile() != nil
}

// flushSilent sends pieces whose end has been waited for long enough. All that can be read was read.
func (s *stream) flushSilent(now time.Time, buf []byte) *batch {
	wait := endedSilence
	for _, f := range s.files {
		if f.rot.live {
			wait = silence
		}
	}
	due := false
	for i := range s.pieces {
		due = due || s.pieces[i].open && now.Sub(s.pieces[i].last) >= wait
	}
	tail := s.tailFile()
	if tail != nil {
		since := tail.since
		if s.carry.open {
			since = s.carry.last
		}
		if !tail.rot.live {
			wait = tailSettle
		}
		if now.Sub(since) < wait {
			return nil // its end may come, and belongs to what is open
		}
		due = true
	}
	if !due {
		return nil
	}
	return s.flush(now, tail, buf)
}

// flush sends all that is open: the pieces, and with tail the last line of that file.
func (s *stream) flush(now time.Time, tail *logFile, buf []byte) *batch {
	f := s.cur
	if s.carry.open {
		f = s.carry.file
	}
	if tail != nil {
		f = tail
	}
	if f == nil {
		return nil
	}
	b := s.begin(f)
	var rest []byte
	if tail != nil && tail.size > tail.read {
		if err := tail.learn(s.source, true); err != nil || !tail.headKnown {
			return nil
		}
		n, _, err := tail.readInto(buf[:min(int64(len(buf)), tail.size-tail.read)])
		if err != nil {
			return nil
		}
		rest = buf[:n]
	}
	if len(rest) > 0 || s.carry.open {
		s.lastLine(b, f, rest, now)
		s.cur = f
	} else {
		s.flushPieces(b, uint64(f.read)<<1|1, now)
	}
	return s.finish(b)
}

// lossBatch makes the record that stands for a gap.
func (s *stream) lossBatch(f *logFile, now time.Time) *batch {
	loss := f.loss
	b := s.begin(f)
	f.read = max(f.read, f.size, f.resume)
	b.loss = loss
	amount := "an unknown number of bytes was"
	if loss.Bytes > 0 {
		amount = fmt.Sprintf("%d bytes were", loss.Bytes)
	}
	body := fmt.Sprintf("%s lost here (%s)", amount, loss.Reason)
	if loss.After != 0 && loss.Before != 0 {
		body += fmt.Sprintf(" between %s and %s", stamp(loss.After), stamp(loss.Before))
	}
	s.flushPieces(b, uint64(f.read)<<1|1, now)
	s.partial.add(-int64(len(s.carry.buf)))
	s.carry = carry{}
	s.emit(b, Record{
		Time: loss.After, Observed: now.UnixNano(), Body: []byte(body), End: uint64(f.read)<<1 | 1, Size: len(body), Lost: loss,
	})
	s.cur = f
	if len(b.records) == 0 { // sent before
		f.loss = nil
	}
	return s.finish(b)
}

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

// finish notes where reading goes on once the batch is acknowledged. Without records that is at once.
func (s *stream) finish(b *batch) *batch {
	var first *logFile
	var at int64
	mark := func(open bool, f *logFile, start int64) {
		if !open {
			return
		}
		i, j := s.index(f), s.index(first)
		if first == nil || i < j || i == j && start < at {
			first, at = f, start
		}
	}
	for i := range s.pieces {
		mark(s.pieces[i].open, s.pieces[i].file, s.pieces[i].start)
	}
	mark(s.carry.open, s.carry.file, s.carry.start)
	for _, f := range s.files {
		if f == first {
			b.resume = append(b.resume, position{f, at})
			break
		}
		if f.loss == nil || f == b.file {
			b.resume = append(b.resume, position{f, f.read})
		}
		if f == b.file {
			break
		}
	}
	b.file.sent = max(b.file.sent, b.to)
	if len(b.records) == 0 {
		s.acked(b)
		return nil
	}
	return b
}

func (s *stream) index(f *logFile) int {
	for i := range s.files {
		if s.files[i] == f {
			return i
		}
	}
	return len(s.files)
}

// acked applies the acknowledgement of b; mu is held.
func (s *stream) acked(b *batch) {
	for _, p := range b.resume {
		if p.off > p.file.resume {
			p.file.resume = p.off
			s.dirty = true
		}
	}
	if b.to > b.file.acked {
		b.file.acked = b.to
		s.dirty = true
	}
	if b.loss != nil && b.file.loss == b.loss {
		b.file.loss, b.file.done = nil, true
		s.dirty = true
	}
	s.nAcked += b.bytes
	s.nRecords += int64(len(b.records))
	s.metrics.acked.Add(float64(b.bytes))
	s.metrics.records.Add(float64(len(b.records)))
	s.tidy(s.now())
}
