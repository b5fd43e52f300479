// Package traces keeps spans: in memory until they are flushed (Head), then in parts where the spans of a
// trace lie together (Builder, Part). Both are scanned in the same way, through a Source. A trace whose spans
// came at different times lies in several sources as fragments, which readers join.
package traces

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Source is something that holds spans: a snapshot of a head or a part.
type Source interface {
	// Bounds returns the smallest and largest start held.
	Bounds() (lo, hi int64)
	// Scan calls emit with blocks of the rows that q selects and no mask covers, in no order. A block may be
	// kept by emit.
	Scan(ctx context.Context, q *storage.SpanQuery, masks []Mask, emit func(*storage.SpanBlock) error) error
}

// Mask is a delete as scans apply it: rows in the time range that match are invisible.
type Mask struct {
	Position   storage.Position // what came before it is covered
	Start, End int64
	Where      storage.Predicate
}

// NewMask turns a delete into the form of scans.
func NewMask(m *storage.Mask, at storage.Position) Mask {
	var w storage.Predicate
	if len(m.Traces) > 0 {
		w = storage.TraceIn(m.Traces)
	}
	return Mask{Position: at, Start: m.Start, End: m.End, Where: w}
}

// Head is the spans of all tenants that are not in parts yet, in the order of their arrival. It is safe for
// concurrent use; a Snapshot of it never changes.
type Head struct {
	mu      sync.RWMutex // guards all below
	entries []entry
	traces  map[telemetry.TraceID][]int32 // entries that hold spans of the trace
	bytes   int64
	records int64
}

// entry is what one batch brought.
type entry struct {
	pos    storage.Position
	tenant telemetry.Tenant
	res    *telemetry.Resource
	spans  []telemetry.Span
	lo, hi int64
}

// NewHead returns an empty head.
func NewHead() *Head { return &Head{traces: make(map[telemetry.TraceID][]int32)} }

// Append adds the spans of b, which it keeps. It is for one caller at a time.
func (h *Head) Append(pos storage.Position, b *telemetry.Batch) {
	if len(b.Spans) == 0 {
		return
	}
	e := entry{pos: pos, tenant: b.Tenant, res: b.Resource, spans: b.Spans, lo: math.MaxInt64, hi: math.MinInt64}
	size := int64(200)
	h.mu.Lock()
	defer h.mu.Unlock()
	n := int32(len(h.entries))
	for i := range b.Spans {
		s := &b.Spans[i]
		e.lo, e.hi = min(e.lo, s.Start), max(e.hi, s.Start)
		size += int64(s.Size())
		if list := h.traces[s.TraceID]; len(list) == 0 || list[len(list)-1] != n {
			h.traces[s.TraceID] = append(list, n)
			size += 60
		}
	}
	h.entries = append(h.entries, e)
	h.bytes += size
	h.records += int64(len(b.Spans))
}

// Size returns the memory held, in bytes, and the number of spans.
func (h *Head) Size() (bytes, records int64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.bytes, h.records
}

// Snapshot returns the spans that are there now.
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

// Each calls f for each batch, in the order of arrival.
func (s *Snapshot) Each(f func(tenant telemetry.Tenant, res *telemetry.Resource, spans []telemetry.Span)) {
	for i := range s.entries {
		e := &s.entries[i]
		f(e.tenant, e.res, e.spans)
	}
}

// Tenant is the part of a snapshot that belongs to one tenant.
type Tenant struct {
	s      *Snapshot
	tenant telemetry.Tenant
}

var _ Source = (*Tenant)(nil)

// Tenant returns the spans of one tenant.
func (s *Snapshot) Tenant(t telemetry.Tenant) *Tenant { return &Tenant{s: s, tenant: t} }

// Bounds returns the widest range: a head is young and always worth a look.
func (t *Tenant) Bounds() (int64, int64) { return math.MinInt64, math.MaxInt64 }

// candidates returns the entries that can hold rows of q.
func (t *Tenant) candidates(q *storage.SpanQuery) []*entry {
	var es []*entry
	add := func(e *entry) {
		if e.tenant == t.tenant && e.hi >= q.Start && e.lo <= q.End {
			es = append(es, e)
		}
	}
	ids, ok := storage.TracesOf(q.Where)
	if !ok {
		for i := range t.s.entries {
			add(&t.s.entries[i])
		}
		return es
	}
	var hits []int32
	t.s.head.mu.RLock()
	for _, id := range ids {
		hits = append(hits, t.s.head.traces[id]...)
	}
	t.s.head.mu.RUnlock()
	slices.Sort(hits)
	for _, n := range slices.Compact(hits) {
		if int(n) < len(t.s.entries) {
			add(&t.s.entries[n])
		}
	}
	return es
}

const blockRows = 4096

// Scan implements Source.
func (t *Tenant) Scan(ctx context.Context, q *storage.SpanQuery, masks []Mask, emit func(*storage.SpanBlock) error) error {
	need := q.Columns | storage.NeedsOfSpans(q.Where)
	for i := range masks {
		need |= storage.NeedsOfSpans(masks[i].Where)
	}
	out := &storage.SpanBlock{}
	var one storage.SpanBlock
	for n, e := range t.candidates(q) {
		if n%64 == 63 && ctx.Err() != nil {
			return ctx.Err()
		}
		for i := range e.spans {
			s := &e.spans[i]
			if s.Start < q.Start || s.Start > q.End {
				continue
			}
			if q.Where != nil || len(masks) > 0 {
				reset(&one)
				one.Append(e.res, s, need)
				if !one.Match(0, q.Where) || masked(&one, 0, e.pos, masks) {
					continue
				}
			}
			out.Append(e.res, s, q.Columns)
			if out.Len() >= blockRows {
				if err := emit(out); err != nil {
					return err
				}
				out = &storage.SpanBlock{}
			}
		}
	}
	if out.Len() == 0 {
		return nil
	}
	return emit(out)
}

func reset(b *storage.SpanBlock) {
	*b = storage.SpanBlock{
		Resources: b.Resources[:0], Scopes: b.Scopes[:0], TraceID: b.TraceID[:0], SpanID: b.SpanID[:0], ParentID: b.ParentID[:0],
		Start: b.Start[:0], Duration: b.Duration[:0], Kind: b.Kind[:0], Status: b.Status[:0], Resource: b.Resource[:0],
		Scope: b.Scope[:0], Name: b.Name[:0], Attrs: b.Attrs[:0], Events: b.Events[:0], Links: b.Links[:0],
		StatusMessage: b.StatusMessage[:0], State: b.State[:0], Flags: b.Flags[:0], Dropped: b.Dropped[:0],
	}
}

func masked(b *storage.SpanBlock, i int, pos storage.Position, masks []Mask) bool {
	for m := range masks {
		k := &masks[m]
		if pos < k.Position && b.Start[i] >= k.Start && b.Start[i] <= k.End && b.Match(i, k.Where) {
			return true
		}
	}
	return false
}
