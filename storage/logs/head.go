// Package logs keeps log records: in memory until they are flushed (Head), then in parts (Builder, Part). Both are
// scanned in the same way, through a Source.
//
// A part is a row of segments: what one flush brought, sorted by stream and time, cut into blocks of about a megabyte
// of text, with dictionaries and a word index of its own. A merge copies large segments as they are and makes one of
// neighbouring small ones. Bodies are kept as templates and columns of variables (package lines), attributes as columns
// by key; predicates are evaluated on those, and the index rules blocks out before they are read.
package logs

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Head is the log records of all tenants that are not in parts yet, in the order of their arrival. It is safe
// for concurrent use; a Snapshot of it never changes.
type Head struct {
	mu      sync.RWMutex // guards all below
	entries []entry
	traces  map[telemetry.TraceID][]int32 // entries that carry the ID
	bytes   int64
	records int64
}

// entry is what one batch brought.
type entry struct {
	pos    storage.Position
	tenant telemetry.Tenant
	stream telemetry.LabelSet
	res    *telemetry.Resource
	recs   []telemetry.LogRecord
	lo, hi int64
}

// NewHead returns an empty head.
func NewHead() *Head { return &Head{traces: make(map[telemetry.TraceID][]int32)} }

// Append adds the log records of b, which it keeps. It is for one caller at a time.
func (h *Head) Append(pos storage.Position, b *telemetry.Batch) {
	if len(b.Logs) == 0 {
		return
	}
	e := entry{pos: pos, tenant: b.Tenant, stream: b.Stream, res: b.Resource, recs: b.Logs, lo: math.MaxInt64, hi: math.MinInt64}
	size := int64(200 + len(b.Stream))
	for i := range b.Logs {
		e.lo, e.hi = min(e.lo, b.Logs[i].Time), max(e.hi, b.Logs[i].Time)
		size += int64(b.Logs[i].Size())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	n := int32(len(h.entries))
	for i := range b.Logs {
		if id := b.Logs[i].TraceID; !id.IsZero() {
			if list := h.traces[id]; len(list) == 0 || list[len(list)-1] != n {
				h.traces[id] = append(list, n)
				size += 40
			}
		}
	}
	h.entries = append(h.entries, e)
	h.bytes += size
	h.records += int64(len(b.Logs))
}

// Size returns the memory held, in bytes, and the number of records.
func (h *Head) Size() (bytes, records int64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.bytes, h.records
}

// Snapshot returns the records of a tenant that are there now. The tenant "" means all of them.
func (h *Head) Snapshot() *Snapshot {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return &Snapshot{head: h, entries: slices.Clip(h.entries)}
}

// Snapshot is a state of a head.
type Snapshot struct {
	head    *Head
	entries []entry
}

var _ Source = (*Tenant)(nil)

// Tenant is the part of a snapshot that belongs to one tenant.
type Tenant struct {
	s      *Snapshot
	tenant telemetry.Tenant
}

// Tenant returns the records of one tenant.
func (s *Snapshot) Tenant(t telemetry.Tenant) *Tenant { return &Tenant{s: s, tenant: t} }

// Each calls f for each batch, in the order of arrival.
func (s *Snapshot) Each(f func(tenant telemetry.Tenant, stream telemetry.LabelSet, res *telemetry.Resource, recs []telemetry.LogRecord)) {
	for i := range s.entries {
		e := &s.entries[i]
		f(e.tenant, e.stream, e.res, e.recs)
	}
}

// Bounds returns the widest range: a head is young and always worth a look.
func (t *Tenant) Bounds() (int64, int64) { return math.MinInt64, math.MaxInt64 }

// candidates calls f for the entries that can hold rows of q.
func (t *Tenant) candidates(q *Scan, f func(n int, e *entry) error) error {
	visit := func(n int) error {
		e := &t.s.entries[n]
		if e.tenant != t.tenant || e.hi < q.Start || e.lo > q.End {
			return nil
		}
		return f(n, e)
	}
	if ids, ok := storage.TracesOf(q.Where); ok {
		seen := make(map[int32]bool)
		var hits []int32
		t.s.head.mu.RLock()
		for _, id := range ids {
			for _, n := range t.s.head.traces[id] {
				if int(n) < len(t.s.entries) && !seen[n] {
					seen[n] = true
					hits = append(hits, n)
				}
			}
		}
		t.s.head.mu.RUnlock()
		slices.Sort(hits)
		for _, n := range hits {
			if err := visit(int(n)); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range t.s.entries {
		if err := visit(i); err != nil {
			return err
		}
	}
	return nil
}

// Scan implements Source: a head emits blocks of one stream each.
func (t *Tenant) Scan(ctx context.Context, s *Scan, emit func(Rows) error) error {
	cols := s.Columns
	asLines := s.Split && cols&storage.LogLines != 0 && cols&storage.LogBody == 0
	if cols&storage.LogLines != 0 && !asLines {
		cols |= storage.LogBody
	}
	var order []*streamRows
	match := rowMatcher{streams: make(map[streamPredicate]bool)}
	rowsOf := make(map[telemetry.LabelSet]*streamRows)
	entries, seen, place := 0, 0, int64(0)
	slow := costOf(s.Where) >= costOf(storage.LineMatch(nil)) // it may take long for a single line
	err := t.candidates(s, func(n int, e *entry) error {
		if entries++; entries%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		place = int64(n) << 24
		for i := range e.recs {
			r := &e.recs[i]
			if r.Time < s.Start || r.Time > s.End {
				continue
			}
			if seen++; (slow || seen%4096 == 0) && ctx.Err() != nil {
				return ctx.Err()
			}
			if !match.match(s.Where, e, r) || match.masked(e, r, s.Masks) {
				continue
			}
			rows := rowsOf[e.stream]
			if rows == nil {
				rows = &streamRows{stream: e.stream}
				rowsOf[e.stream] = rows
				order = append(order, rows)
			}
			rows.rows = append(rows.rows, headRow{res: e.res, rec: r, place: place + int64(i)})
		}
		return nil
	})
	s.opened(0, seen, 0)
	if err != nil {
		return err
	}
	for _, st := range order {
		st.sort()
		for at := 0; at < len(st.rows); at += blockRows {
			rows := st.rows[at:min(at+blockRows, len(st.rows))]
			b := &storage.LogBlock{}
			size := 0
			for _, r := range rows {
				b.Append(st.stream, r.res, r.rec, cols)
				size += len(r.rec.Body.Str())
			}
			s.opened(0, 0, size)
			if asLines {
				if b.Lines, err = split(s.Decoder, rows); err != nil {
					return err
				}
			}
			if err := emit(Rows{LogBlock: b, place: func(i int) int64 { return rows[i].place }}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Streams implements Source.
func (t *Tenant) Streams(ctx context.Context, s *Scan, f func(telemetry.LabelSet)) error {
	if len(s.Masks) > 0 {
		scan := *s
		scan.Columns, scan.Order = storage.LogStream, storage.Unordered
		return t.Scan(ctx, &scan, func(b Rows) error {
			for _, name := range b.Streams {
				f(name)
			}
			return nil
		})
	}
	seen := make(map[telemetry.LabelSet]bool)
	return t.candidates(s, func(_ int, e *entry) error {
		inside := func(r telemetry.LogRecord) bool { return r.Time >= s.Start && r.Time <= s.End }
		if !seen[e.stream] && slices.ContainsFunc(e.recs, inside) {
			seen[e.stream] = true
			f(e.stream)
		}
		return nil
	})
}

type streamRows struct {
	stream telemetry.LabelSet
	rows   []headRow
}

type headRow struct {
	res   *telemetry.Resource
	rec   *telemetry.LogRecord
	place int64
}

func (s *streamRows) sort() {
	slices.SortStableFunc(s.rows, func(a, b headRow) int { return cmp.Compare(a.rec.Time, b.rec.Time) })
}
