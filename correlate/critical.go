package correlate

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// CriticalPath is the chain of spans that a trace waited for: at each moment of its root, the one span whose work the end of
// the trace depended on.
type CriticalPath struct {
	TraceID           string         `json:"traceID"`
	StartTimeUnixNano string         `json:"startTimeUnixNano"`    // of the root
	DurationNanos     int64          `json:"durationNanos"`        // of the root: the steps add up to it
	Root              string         `json:"root"`                 // span ID
	Steps             []Step         `json:"steps"`                // in the order of time, without gaps
	Spans             []CriticalSpan `json:"spans"`                // the largest self time first
	Incomplete        bool           `json:"incomplete,omitempty"` // spans are missing, or not all hang on the root
	Warnings          []string       `json:"warnings,omitempty"`
}

// Step is a piece of time that one span on the path took itself.
type Step struct {
	SpanID            string `json:"spanID"`
	StartTimeUnixNano string `json:"startTimeUnixNano"`
	DurationNanos     int64  `json:"durationNanos"`
}

// CriticalSpan is a span on the path.
type CriticalSpan struct {
	SpanID    string  `json:"spanID"`
	Service   string  `json:"service"`
	Name      string  `json:"name"`
	Kind      string  `json:"kind"`
	Status    string  `json:"status"`
	SelfNanos int64   `json:"selfNanos"` // of its steps
	Share     float64 `json:"share"`     // of the root's duration
}

// CriticalPath finds the path of a trace. It follows the tree below the root that starts first, or the fragment that does when
// the root is not stored. An unknown trace is NotFound, one with more spans than the setting correlate.max_spans is refused.
//
// It walks back from the end of the root: the child that ended last before the walk's time is what the parent waited for, so
// the time between is the parent's own, the child is walked through the same way, and the parent goes on before the child's
// start. A child that ends after its parent counts up to where the walk is; one that starts before it, from the parent's start.
func (c *Correlator) CriticalPath(ctx context.Context, tenant telemetry.Tenant, id telemetry.TraceID) (*CriticalPath, error) {
	start := c.now()
	defer func() { c.took.WithLabelValues("critical_path").Observe(c.now().Sub(start).Seconds()) }()
	v, err := c.reader.View(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	t, err := c.tree(ctx, v, tenant, id)
	if err != nil {
		return nil, err
	}
	root := t.root()
	p := &CriticalPath{
		TraceID: id.String(), Root: t.rows[root].Span.SpanID.String(), StartTimeUnixNano: strconv.FormatInt(t.rows[root].Span.Start, 10),
		DurationNanos: t.rows[root].Span.Duration(), Incomplete: t.parents[root] != storage.NoParent, Warnings: v.Warnings(),
		Steps: []Step{}, Spans: []CriticalSpan{},
	}
	for i, parent := range t.parents {
		p.Incomplete = p.Incomplete || (i != root && parent < 0)
	}
	self := make(map[int]int64)
	order := []int{}
	for _, s := range criticalSteps(t, root) {
		if _, ok := self[s.row]; !ok {
			order = append(order, s.row)
		}
		self[s.row] += s.to - s.from
		p.Steps = append(p.Steps, Step{
			SpanID: t.rows[s.row].Span.SpanID.String(), StartTimeUnixNano: strconv.FormatInt(s.from, 10), DurationNanos: s.to - s.from,
		})
	}
	for _, row := range order {
		s := t.rows[row].Span
		x := CriticalSpan{
			SpanID: s.SpanID.String(), Service: serviceOf(t.rows[row]), Name: s.Name, Kind: s.Kind.String(), Status: s.Status.String(), SelfNanos: self[row],
		}
		if p.DurationNanos > 0 {
			x.Share = float64(x.SelfNanos) / float64(p.DurationNanos)
		}
		p.Spans = append(p.Spans, x)
	}
	slices.SortStableFunc(p.Spans, func(a, b CriticalSpan) int { return cmp.Compare(b.SelfNanos, a.SelfNanos) })
	return p, nil
}

// tree is the spans of a trace, each after its parent.
type tree struct {
	rows     []storage.SpanRow
	parents  []int32
	children [][]int
}

func newTree(rows []storage.SpanRow) *tree {
	var s storage.Settler
	t := &tree{rows: rows, parents: slices.Clone(s.Settle(rows)), children: make([][]int, len(rows))}
	for i, p := range t.parents {
		if p >= 0 {
			t.children[p] = append(t.children[p], i)
		}
	}
	return t
}

// root returns the root that starts first, or else the root of the first fragment.
func (t *tree) root() int {
	return max(slices.Index(t.parents, storage.NoParent), 0)
}

// tree reads a trace.
func (c *Correlator) tree(ctx context.Context, v storage.View, tenant telemetry.Tenant, id telemetry.TraceID) (*tree, error) {
	q := storage.SpanQuery{
		Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Where: storage.TraceIn{id}, Order: storage.OldestFirst, Limit: c.cfg.MaxSpans + 1,
		Columns: storage.SpanResource | storage.SpanNames | storage.SpanMessages,
	}
	var rows []storage.SpanRow
	for b, err := range v.Spans(ctx, q) {
		if err != nil {
			return nil, err
		}
		for i := range b.Len() {
			s := b.Span(i)
			rows = append(rows, storage.SpanRow{Resource: b.ResourceOf(i), Span: &s})
		}
	}
	switch {
	case len(rows) == 0:
		return nil, httpapi.NotFoundf("trace %s is not stored for this tenant", id)
	case len(rows) > c.cfg.MaxSpans:
		return nil, httpapi.Errorf(httpapi.QueryLimit, "trace %s has more than %d spans: raise correlate.max_spans", id, c.cfg.MaxSpans)
	}
	return newTree(rows), nil
}

func serviceOf(r storage.SpanRow) string {
	if r.Resource == nil {
		return ""
	}
	return r.Resource.Attrs.Text("service.name")
}

// criticalStep is a piece of time of a row.
type criticalStep struct {
	row      int
	from, to int64
}

// frame is a span that the walk is in.
type frame struct {
	row      int
	from     int64 // where the walk through it ends
	at       int64 // where the walk is
	children []int // not looked at yet; the one that ended last comes last
}

// criticalSteps returns the steps of the path below root in the order of time. They cover the root without gap or overlap.
func criticalSteps(t *tree, root int) []criticalStep {
	var out []criticalStep
	enter := func(row int, from, to int64) frame {
		children := slices.Clone(t.children[row])
		slices.SortStableFunc(children, func(a, b int) int {
			x, y := t.rows[a].Span, t.rows[b].Span
			return cmp.Or(cmp.Compare(max(x.End, x.Start), max(y.End, y.Start)), cmp.Compare(y.Start, x.Start))
		})
		return frame{row: row, from: from, at: to, children: children}
	}
	r := t.rows[root].Span
	stack := []frame{enter(root, r.Start, r.Start+r.Duration())}
	for len(stack) > 0 {
		f := &stack[len(stack)-1]
		child := -1
		var from, to int64
		for child < 0 && len(f.children) > 0 {
			last := f.children[len(f.children)-1]
			f.children = f.children[:len(f.children)-1]
			s := t.rows[last].Span
			from, to = max(s.Start, f.from), min(max(s.End, s.Start), f.at)
			if from < to { // it has time that nothing later took
				child = last
			}
		}
		own := f.from
		if child >= 0 {
			own = to
		}
		if own < f.at {
			out = append(out, criticalStep{f.row, own, f.at})
		}
		if child < 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		f.at = from
		stack = append(stack, enter(child, from, to))
	}
	slices.Reverse(out)
	return out
}
