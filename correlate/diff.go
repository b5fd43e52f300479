package correlate

import (
	"context"
	"time"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// How the spans of two traces compare.
const (
	DiffSame    = "same"
	DiffSlower  = "slower"
	DiffFaster  = "faster"
	DiffAdded   = "added"   // only in b
	DiffRemoved = "removed" // only in a
)

// A span is slower or faster when its duration differs by more than both of these, the second being a part of a's.
const (
	minDiff  = time.Millisecond
	diffPart = 10
)

// TraceDiff is two traces, span by span.
type TraceDiff struct {
	A        DiffTrace  `json:"a"`
	B        DiffTrace  `json:"b"`
	Added    int        `json:"added"` // spans
	Removed  int        `json:"removed"`
	Slower   int        `json:"slower"`
	Faster   int        `json:"faster"`
	Same     int        `json:"same"`
	Failed   int        `json:"failed"`   // spans in both with status error in b only
	Repaired int        `json:"repaired"` // and in a only
	Spans    []DiffSpan `json:"spans"`    // each right before its descendants
	Warnings []string   `json:"warnings,omitempty"`
}

// DiffTrace is one of two traces in short.
type DiffTrace struct {
	TraceID       string `json:"traceID"`
	Spans         int    `json:"spans"`
	Errors        int    `json:"errors"`
	DurationNanos int64  `json:"durationNanos"` // of the root
}

// DiffSpan is a span of one trace, or one of each that stand for the same.
type DiffSpan struct {
	Depth      int       `json:"depth"` // 0 for roots and the roots of fragments
	Service    string    `json:"service"`
	Name       string    `json:"name"`
	Kind       string    `json:"kind"`
	Change     string    `json:"change"`
	DeltaNanos int64     `json:"deltaNanos"`      // what b took longer, 0 for a span of one trace
	Error      string    `json:"error,omitempty"` // "failed" or "repaired"
	A          *DiffSide `json:"a,omitempty"`
	B          *DiffSide `json:"b,omitempty"`
}

// DiffSide is a span in one of two traces.
type DiffSide struct {
	SpanID        string `json:"spanID"`
	DurationNanos int64  `json:"durationNanos"`
	Status        string `json:"status"`
	StatusMessage string `json:"statusMessage,omitempty"`
}

// Diff compares two traces. Spans stand for the same when they have the same service and name, their parents stand for the
// same, and they are the first such child of their parent by start, or both the second, and so on. Unknown traces are NotFound,
// those with more spans than the setting correlate.max_spans are refused.
func (c *Correlator) Diff(ctx context.Context, tenant telemetry.Tenant, a, b telemetry.TraceID) (*TraceDiff, error) {
	start := c.now()
	defer func() { c.took.WithLabelValues("diff").Observe(c.now().Sub(start).Seconds()) }()
	v, err := c.reader.View(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	ta, err := c.tree(ctx, v, tenant, a)
	if err != nil {
		return nil, err
	}
	tb, err := c.tree(ctx, v, tenant, b)
	if err != nil {
		return nil, err
	}
	d := diffTrees(ta, tb)
	d.Warnings = v.Warnings()
	return d, nil
}

// like says what a span may stand for.
type like struct {
	service, name string
	nth           int
}

// pair is a span of each of two trees, -1 for none.
type pair struct{ a, b, depth int }

// differ compares two trees.
type differ struct {
	a, b *tree
	out  *TraceDiff
}

func diffTrees(a, b *tree) *TraceDiff {
	d := differ{a: a, b: b, out: &TraceDiff{A: diffTrace(a), B: diffTrace(b), Spans: []DiffSpan{}}}
	// What is on the stack is visited from its end.
	stack := d.align(nil, tops(a), tops(b), 0)
	for len(stack) > 0 {
		p := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		d.add(p)
		var ca, cb []int
		if p.a >= 0 {
			ca = a.children[p.a]
		}
		if p.b >= 0 {
			cb = b.children[p.b]
		}
		stack = d.align(stack, ca, cb, p.depth+1)
	}
	return d.out
}

// tops returns the roots and the roots of fragments.
func tops(t *tree) []int {
	var out []int
	for i, p := range t.parents {
		if p < 0 {
			out = append(out, i)
		}
	}
	return out
}

func diffTrace(t *tree) DiffTrace {
	out := DiffTrace{TraceID: t.rows[0].Span.TraceID.String(), Spans: len(t.rows), DurationNanos: t.rows[t.root()].Span.Duration()}
	for _, r := range t.rows {
		if r.Span.Status == telemetry.StatusError {
			out.Errors++
		}
	}
	return out
}

// align appends the pairs of two lists of siblings, the last first: those of b in their order, and before each those of a that
// are in a alone and come before what it stands for.
func (d *differ) align(stack []pair, as, bs []int, depth int) []pair {
	inA := make(map[like]int, len(as)) // the place
	count := make(map[like]int)
	likeOf := func(r storage.SpanRow) like {
		k := like{service: serviceOf(r), name: r.Span.Name}
		count[k]++
		k.nth = count[like{service: k.service, name: k.name}]
		return k
	}
	for i, row := range as {
		inA[likeOf(d.a.rows[row])] = i
	}
	clear(count)
	partner := make([]int, len(bs)) // the place in a, or -1
	taken := make([]bool, len(as))
	for i, row := range bs {
		partner[i] = -1
		if at, ok := inA[likeOf(d.b.rows[row])]; ok {
			partner[i], taken[at] = at, true
		}
	}
	var out []pair
	next := 0 // of a
	alone := func(until int) {
		for ; next < until; next++ {
			if !taken[next] {
				out = append(out, pair{as[next], -1, depth})
			}
		}
	}
	for i, row := range bs {
		if partner[i] < 0 {
			out = append(out, pair{-1, row, depth})
			continue
		}
		alone(partner[i])
		out = append(out, pair{as[partner[i]], row, depth})
	}
	alone(len(as))
	for i := range out {
		stack = append(stack, out[len(out)-1-i])
	}
	return stack
}

// add adds what a pair says.
func (d *differ) add(p pair) {
	side := func(t *tree, row int) *DiffSide {
		s := t.rows[row].Span
		return &DiffSide{SpanID: s.SpanID.String(), DurationNanos: s.Duration(), Status: s.Status.String(), StatusMessage: s.StatusMessage}
	}
	o := DiffSpan{Depth: p.depth}
	var r storage.SpanRow
	if p.a >= 0 {
		r, o.A = d.a.rows[p.a], side(d.a, p.a)
	}
	if p.b >= 0 {
		r, o.B = d.b.rows[p.b], side(d.b, p.b)
	}
	o.Service, o.Name, o.Kind = serviceOf(r), r.Span.Name, r.Span.Kind.String()
	switch {
	case o.A == nil:
		o.Change = DiffAdded
		d.out.Added++
	case o.B == nil:
		o.Change = DiffRemoved
		d.out.Removed++
	default:
		o.DeltaNanos = o.B.DurationNanos - o.A.DurationNanos
		d.judge(&o)
	}
	d.out.Spans = append(d.out.Spans, o)
}

// judge says how a span of both traces changed.
func (d *differ) judge(o *DiffSpan) {
	least := max(int64(minDiff), o.A.DurationNanos/diffPart)
	switch {
	case o.DeltaNanos > least:
		o.Change = DiffSlower
		d.out.Slower++
	case o.DeltaNanos < -least:
		o.Change = DiffFaster
		d.out.Faster++
	default:
		o.Change = DiffSame
		d.out.Same++
	}
	failed := telemetry.StatusError.String()
	switch {
	case o.A.Status != failed && o.B.Status == failed:
		o.Error = "failed"
		d.out.Failed++
	case o.A.Status == failed && o.B.Status != failed:
		o.Error = "repaired"
		d.out.Repaired++
	}
}
