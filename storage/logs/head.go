// Package logs keeps log records: in memory until they are flushed (Head), then in parts sorted by stream and
// time (Builder, Part). Both are scanned in the same way, through a Source.
package logs

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Source is something that holds log records: a snapshot of a head or a part.
type Source interface {
	// Bounds returns the smallest and largest time held.
	Bounds() (lo, hi int64)
	// Scan calls emit with blocks of the rows that q selects and no mask covers, in no order except that the
	// rows of one stream come in the order of time, then arrival. A block may be kept by emit.
	Scan(ctx context.Context, q *storage.LogQuery, masks []Mask, emit func(*storage.LogBlock) error) error
	// Streams calls f for each stream with rows in the time range of q.
	Streams(q *storage.LogQuery, masks []Mask, f func(telemetry.LabelSet)) error
}

// Mask is a delete as scans apply it: rows in the time range that match are invisible.
type Mask struct {
	Position   storage.Position // what came before it is covered
	Start, End int64
	Where      storage.Predicate
}

// NewMask turns a delete into the form of scans.
func NewMask(m *storage.Mask, at storage.Position) Mask {
	var w storage.And
	if len(m.Matchers) > 0 {
		w = append(w, storage.StreamMatch(m.Matchers))
	}
	if m.Contains != "" {
		w = append(w, storage.LineContains(m.Contains))
	}
	if len(m.Traces) > 0 {
		w = append(w, storage.TraceIn(m.Traces))
	}
	return Mask{Position: at, Start: m.Start, End: m.End, Where: w}
}

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
func (t *Tenant) candidates(q *storage.LogQuery, f func(*entry) error) error {
	visit := func(e *entry) error {
		if e.tenant != t.tenant || e.hi < q.Start || e.lo > q.End {
			return nil
		}
		return f(e)
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
		sortInt32(hits)
		for _, n := range hits {
			if err := visit(&t.s.entries[n]); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range t.s.entries {
		if err := visit(&t.s.entries[i]); err != nil {
			return err
		}
	}
	return nil
}

// Scan implements Source. Rows of a stream are put in order by the caller's sort or by Collect; a head emits
// one block per stream, sorted.
func (t *Tenant) Scan(ctx context.Context, q *storage.LogQuery, masks []Mask, emit func(*storage.LogBlock) error) error {
	need := q.Columns | storage.NeedsOfLogs(q.Where)
	for i := range masks {
		need |= storage.NeedsOfLogs(masks[i].Where)
	}
	streams := make(map[telemetry.LabelSet]*streamRows)
	var order []*streamRows
	var one storage.LogBlock
	rows := 0
	err := t.candidates(q, func(e *entry) error {
		if rows++; rows%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		for i := range e.recs {
			r := &e.recs[i]
			if r.Time < q.Start || r.Time > q.End {
				continue
			}
			if q.Where != nil || len(masks) > 0 {
				reset(&one)
				one.Append(e.stream, e.res, r, need)
				if !one.Match(0, q.Where) || masked(&one, 0, e.pos, masks) {
					continue
				}
			}
			s := streams[e.stream]
			if s == nil {
				s = &streamRows{stream: e.stream}
				streams[e.stream] = s
				order = append(order, s)
			}
			s.rows = append(s.rows, headRow{res: e.res, rec: r})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, s := range order {
		s.sort()
		for at := 0; at < len(s.rows); at += blockRows {
			b := &storage.LogBlock{}
			for _, r := range s.rows[at:min(at+blockRows, len(s.rows))] {
				b.Append(s.stream, r.res, r.rec, q.Columns)
			}
			if err := emit(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// Streams implements Source.
func (t *Tenant) Streams(q *storage.LogQuery, masks []Mask, f func(telemetry.LabelSet)) error {
	seen := make(map[telemetry.LabelSet]bool)
	if len(masks) > 0 {
		sq := *q
		sq.Columns = storage.LogStream
		return t.Scan(context.Background(), &sq, masks, func(b *storage.LogBlock) error {
			for _, s := range b.Streams {
				f(s)
			}
			return nil
		})
	}
	return t.candidates(q, func(e *entry) error {
		inside := func(r telemetry.LogRecord) bool { return r.Time >= q.Start && r.Time <= q.End }
		if !seen[e.stream] && slices.ContainsFunc(e.recs, inside) {
			seen[e.stream] = true
			f(e.stream)
		}
		return nil
	})
}

const blockRows = 4096

type streamRows struct {
	stream telemetry.LabelSet
	rows   []headRow
}

type headRow struct {
	res *telemetry.Resource
	rec *telemetry.LogRecord
}

func reset(b *storage.LogBlock) {
	*b = storage.LogBlock{
		Streams: b.Streams[:0], Resources: b.Resources[:0], Scopes: b.Scopes[:0], Time: b.Time[:0], Stream: b.Stream[:0],
		Resource: b.Resource[:0], Scope: b.Scope[:0], Body: b.Body[:0], Attrs: b.Attrs[:0], Severity: b.Severity[:0],
		SeverityText: b.SeverityText[:0], TraceID: b.TraceID[:0], SpanID: b.SpanID[:0], Flags: b.Flags[:0],
		Observed: b.Observed[:0], EventName: b.EventName[:0], Dropped: b.Dropped[:0], Inferred: b.Inferred[:0],
	}
}

func masked(b *storage.LogBlock, i int, pos storage.Position, masks []Mask) bool {
	for m := range masks {
		k := &masks[m]
		if pos < k.Position && b.Time[i] >= k.Start && b.Time[i] <= k.End && b.Match(i, k.Where) {
			return true
		}
	}
	return false
}
