package traceql

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/rows"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

// Search finds traces. It reads the most recent blocks first and ends when no other block can have a trace for the page.
func (e *Engine) Search(ctx context.Context, v storage.View, q SearchQuery) (*SearchResult, error) {
	if q.Query.Metric() {
		return nil, httpapi.BadDataf("the query is for numbers, and traces are wanted: leave out the functions such as rate()")
	}
	s := newSearch(q)
	m := newMeter(v, e.Limits)
	if q.Limit > 0 {
		if err := s.read(ctx, m); err != nil {
			return nil, err
		}
	}
	out := &SearchResult{Traces: s.top}
	if len(s.top) > q.Limit {
		out.Traces = s.top[:q.Limit]
		last := out.Traces[q.Limit-1]
		out.Next = &Cursor{last.Start, last.ID}
	}
	out.Stats = m.cost()
	return out, nil
}

// search collects the traces that start last.
type search struct {
	q        SearchQuery
	plan     *plan
	measures []*rows.Measure // of what is shown
	service  *rows.Measure
	status   *rows.Measure
	names    *rows.Measure
	top      []Trace // sorted; at most one more than the limit, which tells that there are more
}

func newSearch(q SearchQuery) *search {
	s := &search{q: q, plan: planOf(q.Query.Node)}
	for _, f := range s.plan.shown {
		s.measures = append(s.measures, rows.NewMeasure(f))
	}
	s.service = rows.NewMeasure(&syntax.Attribute{Scope: syntax.ResourceScope, Name: "service.name"})
	s.status = rows.NewMeasure(&syntax.Intrinsic{ID: syntax.Status, Name: "status"})
	s.names = rows.NewMeasure(&syntax.Intrinsic{ID: syntax.Name, Name: "name"})
	return s
}

func (s *search) read(ctx context.Context, m *meter) error {
	tq := storage.TraceQuery{
		Tenant: s.q.Tenant, Start: s.q.Start, End: s.q.End, Need: s.plan.need, Order: storage.NewestFirst,
		Keys: keys(s.plan.fields, storage.Field(storage.SpanName), storage.Field(storage.SpanStatus),
			storage.SpanKey{Scope: storage.ResourceScope, Name: "service.name"}),
	}
	if c := s.q.After; c != nil {
		tq.End = min(tq.End, c.Start)
	}
	for b, err := range m.traces(ctx, tq) {
		if err != nil {
			return err
		}
		if err := s.block(b); err != nil {
			return err
		}
		if len(s.top) > s.q.Limit && b.Rest() < s.top[s.q.Limit].Start {
			return nil
		}
	}
	return nil
}

// block adds the traces of a block.
func (s *search) block(b *rows.Block) error {
	if lo, hi := b.Bounds(); hi < s.q.Start || lo > s.q.End {
		return nil
	}
	st := state{rows: b.All().Clone()}
	if err := run(s.plan.stages, b, &st); err != nil || st.rows.Empty() {
		return err
	}
	ids, err := b.Traces()
	if err != nil {
		return err
	}
	type candidate struct {
		trace      int
		start, end int64
	}
	var found []candidate
	for t := range b.TraceCount() {
		if !st.rows.AnyIn(int(b.First[t]), int(b.First[t+1])) {
			continue
		}
		start, end, err := b.Span(t)
		if err != nil {
			return err
		}
		if start <= s.q.End && end >= s.q.Start && s.after(start, ids[t]) {
			found = append(found, candidate{t, start, end})
		}
	}
	slices.SortFunc(found, func(x, y candidate) int {
		return cmp.Or(cmp.Compare(y.start, x.start), bytes.Compare(ids[x.trace][:], ids[y.trace][:]))
	})
	found = found[:min(len(found), s.q.Limit+1)]
	loaded := false
	for _, c := range found {
		t := Trace{ID: ids[c.trace], Start: c.start, Duration: c.end - c.start}
		at, _ := slices.BinarySearchFunc(s.top, t, later)
		if at > s.q.Limit {
			break
		}
		if at < s.q.Limit { // the one behind only tells that there are more
			if !loaded {
				if err := s.load(b); err != nil {
					return err
				}
				loaded = true
			}
			if err := s.fill(b, &st, c.trace, &t); err != nil {
				return err
			}
		}
		s.top = slices.Insert(s.top, at, t)
		s.top = s.top[:min(len(s.top), s.q.Limit+1)]
	}
	return nil
}

// after says whether a trace stands behind the cursor.
func (s *search) after(start int64, id telemetry.TraceID) bool {
	c := s.q.After
	return c == nil || start < c.Start || start == c.Start && bytes.Compare(id[:], c.Trace[:]) > 0
}

// later orders traces as results have them.
func later(x, y Trace) int {
	return cmp.Or(cmp.Compare(y.Start, x.Start), bytes.Compare(x.ID[:], y.ID[:]))
}

func (s *search) load(b *rows.Block) error {
	for _, m := range append([]*rows.Measure{s.service, s.status, s.names}, s.measures...) {
		if err := m.Load(b); err != nil {
			return err
		}
	}
	return nil
}

// fill fills in all that results have of a trace.
func (s *search) fill(b *rows.Block, st *state, trace int, t *Trace) error {
	roots, err := b.Roots()
	if err != nil {
		return err
	}
	t.RootService = NoRoot
	if root := roots[trace]; root >= 0 {
		t.RootService = kept(s.service.Value(int(root)))
		t.RootName = kept(s.names.Value(int(root)))
	}
	lo, hi := int(b.First[trace]), int(b.First[trace+1])
	t.Services = s.services(lo, hi)
	if st.groups == nil {
		set := SpanSet{}
		if st.attrs != nil {
			set.Attrs = keptAttrs(st.attrs[trace])
		}
		var of []int32
		st.rows.EachIn(lo, hi, func(i int) { of = append(of, int32(i)) })
		t.Sets = []SpanSet{set}
		return s.spans(b, of, &t.Sets[0])
	}
	for i := range st.groups {
		g := &st.groups[i]
		if g.trace != trace {
			continue
		}
		t.Sets = append(t.Sets, SpanSet{Attrs: keptAttrs(g.attrs)})
		if err := s.spans(b, g.rows, &t.Sets[len(t.Sets)-1]); err != nil {
			return err
		}
	}
	return nil
}

// kept returns the text of a value, which outlives its block; an empty one for no value.
func kept(v Value) string {
	if v.IsNil() {
		return ""
	}
	return strings.Clone(v.Text())
}

func keptAttrs(as []Attr) []Attr {
	out := slices.Clone(as)
	for i := range out {
		out[i].Value = rows.Keep(out[i].Value)
	}
	return out
}

// services counts the spans of each service from row lo up to, not including, hi.
func (s *search) services(lo, hi int) []ServiceStats {
	var of []Value           // the first services of out, which are mostly all
	var others map[Value]int // where the others are
	var out []ServiceStats
	for i := lo; i < hi; i++ {
		v := s.service.Value(i)
		at := slices.Index(of, v)
		if at < 0 {
			if n, ok := others[v]; ok {
				at = n
			}
		}
		if at < 0 {
			at = len(out)
			if at < 32 {
				of = append(of, v)
			} else {
				if others == nil {
					others = make(map[Value]int)
				}
				others[v] = at
			}
			out = append(out, ServiceStats{Service: kept(v)})
		}
		out[at].Spans++
		if s.status.Value(i).Value.Int() == int64(telemetry.StatusError) {
			out[at].Errors++
		}
	}
	slices.SortStableFunc(out, func(x, y ServiceStats) int { return strings.Compare(x.Service, y.Service) })
	return out
}

// spans fills in the first spans of a set.
func (s *search) spans(b *rows.Block, of []int32, set *SpanSet) error {
	set.Matched = len(of)
	if s.q.Spans <= 0 {
		return nil
	}
	starts, err := b.Starts()
	if err != nil {
		return err
	}
	first := make([]int, len(of))
	for i, r := range of {
		first[i] = int(r)
	}
	slices.SortStableFunc(first, func(x, y int) int { return cmp.Compare(starts[x], starts[y]) })
	first = first[:min(len(first), s.q.Spans)]
	block, err := b.Spans(first, storage.SpanNames)
	if err != nil {
		return err
	}
	for i, r := range first {
		sp := block.Span(i)
		out := Span{ID: sp.SpanID, Name: strings.Clone(sp.Name), Start: sp.Start, Duration: sp.Duration()}
		for j, m := range s.measures {
			if v := m.Value(r); !v.IsNil() {
				out.Attrs = append(out.Attrs, Attr{shownAs(s.plan.shown[j]), rows.Keep(v)})
			}
		}
		set.Spans = append(set.Spans, out)
	}
	return nil
}

// shownAs returns the key of a field in results: the name of an attribute without its scope.
func shownAs(f syntax.Field) string {
	if a, ok := f.(*syntax.Attribute); ok && !a.Parent {
		return a.Name
	}
	return syntax.Label(f)
}
