package traces

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces/packed"
)

// Head is the spans of all tenants that are not in parts yet, in the order of their arrival. It is safe
// for concurrent use; a Snapshot of it never changes.
//
// A span of some ten attributes takes about 200 bytes here, a trace about a hundred, whatever else the memory of the batch
// that brought them holds.
type Head struct {
	mu      sync.RWMutex // guards all below
	tenants map[telemetry.Tenant]*tenantHead
	packed  packed.Spans
	batches int
	bytes   int64
	records int64
}

// tenantHead is the spans of one tenant. Rows are numbered in the order of arrival. What is there of entries and rows does
// not change any more.
type tenantHead struct {
	entries []entry
	rows    []headRow
	index   map[telemetry.TraceID]int32
	traces  []headTrace
}

// headRow is where a span lies, and where it belongs.
type headRow struct {
	start int64
	at    packed.Place
	prev  int32 // row of the same trace before it, -1 for none
	entry int32
	trace int32
}

// headTrace is the spans of one trace in a head.
type headTrace struct {
	id   telemetry.TraceID
	last int32 // row
	rows int32
	lo   int64 // smallest and largest start
	hi   int64
	end  int64 // largest end or start
}

// HeldTrace is a trace of a snapshot of a head: some of its spans, or all, the snapshot may not hold.
type HeldTrace struct {
	headTrace
	of *Tenant
	n  int32
}

// ID returns the trace's ID.
func (t *HeldTrace) ID() telemetry.TraceID { return t.id }

// Bounds returns times between which all spans start and end, and the largest start.
func (t *HeldTrace) Bounds() (lo, hi, last int64) { return t.lo, t.end, t.hi }

// Len returns about how many spans there are.
func (t *HeldTrace) Len() int { return int(t.rows) }

// Of returns the snapshot, and the number of the trace in it, as Tenant.Matching has it.
func (t *HeldTrace) Of() (*Tenant, int) { return t.of, int(t.n) }

// entry is what one batch brought.
type entry struct {
	batch  int   // its number
	base   int32 // its first row
	rows   int32
	pos    storage.Position
	res    *telemetry.Resource
	lo, hi int64 // smallest and largest start
}

// NewHead returns an empty head.
func NewHead() *Head { return &Head{tenants: make(map[telemetry.Tenant]*tenantHead)} }

// What a span, a trace and a batch take beside their own.
const (
	rowBytes   = 32
	traceBytes = 120
	entryBytes = 64
)

// Append adds the spans of b, of which it keeps nothing. It is for one caller at a time.
func (h *Head) Append(pos storage.Position, b *telemetry.Batch) {
	if len(b.Spans) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.tenants[b.Tenant]
	if t == nil { // an entry follows
		t = &tenantHead{index: make(map[telemetry.TraceID]int32)}
		h.tenants[b.Tenant] = t
	}
	before, held := len(t.traces), h.packed.Size()
	e := entry{
		batch: h.batches, base: int32(len(t.rows)), rows: int32(len(b.Spans)), pos: pos, res: h.packed.Resource(b.Resource),
		lo: math.MaxInt64, hi: math.MinInt64,
	}
	last := int32(-1) // trace
	for i := range b.Spans {
		s := &b.Spans[i]
		if last < 0 || s.TraceID != t.traces[last].id {
			last = t.trace(s)
		}
		tr := &t.traces[last]
		t.rows = append(t.rows, headRow{start: s.Start, at: h.packed.Add(s), prev: tr.last, entry: int32(len(t.entries)), trace: last})
		tr.last = e.base + int32(i)
		tr.rows++
		tr.lo, tr.hi, tr.end = min(tr.lo, s.Start), max(tr.hi, s.Start), max(tr.end, s.Start, s.End)
		e.lo, e.hi = min(e.lo, s.Start), max(e.hi, s.Start)
	}
	h.packed.Forget()
	t.entries = append(t.entries, e)
	h.batches++
	h.bytes += h.packed.Size() - held + entryBytes + int64(len(b.Spans))*rowBytes + int64(len(t.traces)-before)*traceBytes
	h.records += int64(len(b.Spans))
}

// trace returns the number of the trace of s.
func (t *tenantHead) trace(s *telemetry.Span) int32 {
	n, ok := t.index[s.TraceID]
	if !ok {
		n = int32(len(t.traces))
		t.index[s.TraceID] = n
		t.traces = append(t.traces, headTrace{id: s.TraceID, last: -1, lo: s.Start, hi: s.Start, end: s.Start})
	}
	return n
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
	return &Snapshot{head: h, batches: h.batches}
}

// Snapshot is a state of a head.
type Snapshot struct {
	head    *Head
	batches int
}

// Tenants returns the tenants that have spans, sorted.
func (s *Snapshot) Tenants() []telemetry.Tenant {
	s.head.mu.RLock()
	defer s.head.mu.RUnlock()
	tenants := make([]telemetry.Tenant, 0, len(s.head.tenants))
	for name, t := range s.head.tenants {
		if t.entries[0].batch < s.batches {
			tenants = append(tenants, name)
		}
	}
	slices.Sort(tenants)
	return tenants
}

// Tenant is the part of a snapshot that belongs to one tenant.
type Tenant struct {
	head    *Head
	of      *tenantHead // nil when there is nothing
	view    packed.View
	entries []entry
	rows    []headRow
	traces  []headTrace // of which only the IDs do not change
}

var _ Source = (*Tenant)(nil)

// Tenant returns the spans of one tenant.
func (s *Snapshot) Tenant(name telemetry.Tenant) *Tenant {
	s.head.mu.RLock()
	defer s.head.mu.RUnlock()
	t := &Tenant{head: s.head, of: s.head.tenants[name], view: s.head.packed.View()}
	if t.of == nil {
		return t
	}
	n, _ := slices.BinarySearchFunc(t.of.entries, s.batches, func(e entry, batch int) int { return e.batch - batch })
	t.entries = t.of.entries[:n]
	if n > 0 {
		last := &t.entries[n-1]
		t.rows = t.of.rows[:last.base+last.rows]
		t.traces = t.of.traces
	}
	return t
}

// Bounds returns the widest range: a head is young and always worth a look.
func (t *Tenant) Bounds() (int64, int64) { return math.MinInt64, math.MaxInt64 }

// last returns the last row of a trace, which the snapshot may not hold any more, and -1 when there is none.
func (t *Tenant) last(id telemetry.TraceID) int32 {
	if t.of == nil {
		return -1
	}
	t.head.mu.RLock()
	defer t.head.mu.RUnlock()
	if n, ok := t.of.index[id]; ok {
		return t.of.traces[n].last
	}
	return -1
}

// Empty says whether there are no spans.
func (t *Tenant) Empty() bool { return len(t.entries) == 0 }

// Each calls f for the spans that start from lo to hi, in the order of arrival, until it returns false. F must not keep them:
// only their strings, scopes, events and links stay as they are.
func (t *Tenant) Each(ctx context.Context, lo, hi int64, f func(*telemetry.Resource, *telemetry.Span) bool) error {
	var one unpacked
	for i := range t.entries {
		e := &t.entries[i]
		if i%64 == 63 && ctx.Err() != nil {
			return ctx.Err()
		}
		if e.hi < lo || e.lo > hi {
			continue
		}
		for row := e.base; row < e.base+e.rows; row++ {
			if at := t.rows[row].start; at >= lo && at <= hi && !f(e.res, one.of(t, row)) {
				return nil
			}
		}
	}
	return nil
}

// Trace returns a trace.
func (t *Tenant) Trace(id telemetry.TraceID) (tr HeldTrace, ok bool) {
	if t.of == nil {
		return tr, false
	}
	t.head.mu.RLock()
	defer t.head.mu.RUnlock()
	n, ok := t.of.index[id]
	if !ok {
		return tr, false
	}
	return HeldTrace{t.of.traces[n], t, n}, true
}

// Traces returns the traces of the tenant.
func (t *Tenant) Traces() []HeldTrace {
	if t.of == nil {
		return nil
	}
	t.head.mu.RLock()
	defer t.head.mu.RUnlock()
	trs := make([]HeldTrace, len(t.of.traces))
	for i := range trs {
		trs[i] = HeldTrace{t.of.traces[i], t, int32(i)}
	}
	return trs
}

// chain appends the rows of the trace whose last row is given, in the order of arrival.
func (t *Tenant) chain(dst []int32, last int32) []int32 {
	if last >= int32(len(t.rows)) {
		t.head.mu.RLock()
		rows := t.of.rows
		t.head.mu.RUnlock()
		for last >= int32(len(t.rows)) {
			last = rows[last].prev
		}
	}
	n := len(dst)
	for ; last >= 0; last = t.rows[last].prev {
		dst = append(dst, last)
	}
	slices.Reverse(dst[n:])
	return dst
}

// at returns the batch of a row.
func (t *Tenant) at(row int32) *entry { return &t.entries[t.rows[row].entry] }

// unpack sets sp to the span of a row and appends its attributes to as, which it returns.
func (t *Tenant) unpack(row int32, sp *telemetry.Span, as telemetry.Attrs) telemetry.Attrs {
	r := &t.rows[row]
	return t.view.Span(r.at, t.traces[r.trace].id, r.start, sp, as)
}

// unpacked is a span of a head that was unpacked, with its attributes.
type unpacked struct {
	span telemetry.Span
	as   telemetry.Attrs // behind those that are kept
}

// of unpacks the span of a row, in the place of the one before.
func (u *unpacked) of(t *Tenant, row int32) *telemetry.Span {
	u.as = t.unpack(row, &u.span, u.as[:0])
	return &u.span
}

// keep says that the attributes of the span stay in use.
func (u *unpacked) keep() {
	if u.as = u.as[len(u.as):]; cap(u.as) < 32 {
		u.as = make(telemetry.Attrs, 0, 1024)
	}
}

// Matching says of each trace, by its number, whether it has a row that matches p. Traces that came later may be missing.
func (t *Tenant) Matching(p storage.Predicate) []bool {
	if t.of == nil {
		return nil
	}
	t.head.mu.RLock()
	traces := len(t.of.traces)
	t.head.mu.RUnlock()
	found := make([]bool, traces)
	v := t.verdicts(p)
	for i := range t.entries {
		e := &t.entries[i]
		for row := e.base; row < e.base+e.rows; row++ {
			n := t.rows[row].trace
			if int(n) < traces && !found[n] {
				found[n] = v.matches(row, e)
			}
		}
	}
	return found
}

// each calls f for the rows in the time range of s, which f may narrow, in the order of arrival.
func (t *Tenant) each(ctx context.Context, s *Scan, f func(row int32, e *entry) error) error {
	seen := int64(0)
	defer func() { s.opened(0, seen, 0) }()
	visit := func(row int32, e *entry) error {
		if seen++; seen%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if at := t.rows[row].start; at < s.Start || at > s.End {
			return nil
		}
		return f(row, e)
	}
	ids, ok := storage.TracesOf(s.Where)
	if !ok {
		for n := range t.entries {
			e := &t.entries[n]
			if n%64 == 63 && ctx.Err() != nil {
				return ctx.Err()
			}
			if e.hi < s.Start || e.lo > s.End {
				continue
			}
			for row := e.base; row < e.base+e.rows; row++ {
				if err := visit(row, e); err != nil {
					return err
				}
			}
		}
		return nil
	}
	var rows []int32
	for _, id := range ids {
		rows = t.chain(rows, t.last(id))
	}
	slices.Sort(rows)
	for _, row := range slices.Compact(rows) {
		if err := visit(row, t.at(row)); err != nil {
			return err
		}
	}
	return nil
}

const blockRows = 4096

// Scan implements Source.
func (t *Tenant) Scan(ctx context.Context, s *Scan, emit func(Rows) error) error {
	cols := s.Columns
	if s.late {
		cols = 0
	}
	var out *storage.SpanBlock
	var rows []int32
	send := func() error {
		if len(rows) == 0 {
			return nil
		}
		kept := rows
		r := Rows{SpanBlock: out, place: func(i int) int64 { return int64(kept[i]) }}
		if s.late {
			wanted := s.Columns
			r.load = func(some []int) (*storage.SpanBlock, error) {
				b := &storage.SpanBlock{}
				var one unpacked
				for _, i := range some {
					b.Append(t.at(kept[i]).res, one.of(t, kept[i]), wanted)
					one.keep()
				}
				return b, nil
			}
		}
		out, rows = nil, nil
		return emit(r)
	}
	var one unpacked
	where := t.verdicts(s.Where)
	err := t.each(ctx, s, func(row int32, e *entry) error {
		r := &t.rows[row]
		if !where.matches(row, e) || len(s.Masks) > 0 && Covered(since(s.Masks, e.pos), t.traces[r.trace].id, r.start) {
			return nil
		}
		sp := one.of(t, row)
		if out == nil {
			out = &storage.SpanBlock{}
		}
		out.Append(e.res, sp, cols)
		if cols != 0 {
			one.keep()
		}
		if rows = append(rows, row); len(rows) >= blockRows {
			return send()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return send()
}
