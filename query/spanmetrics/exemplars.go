package spanmetrics

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sort"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

const (
	// exemplarSteps is into how many parts a range is divided: a series has one exemplar in each at most.
	exemplarSteps = 100
	// maxExemplars bounds those of one metric; of more, the ones of the smallest trace IDs are kept, which is a random choice.
	maxExemplars = 10_000
	// markCells is how many cells of maxCells a mark counts for.
	markCells = 8

	labelTrace = "trace_id"
	labelSpan  = "span_id"
)

// mark is a span that is the exemplar of a series in a step.
type mark struct {
	trace telemetry.TraceID // zero for none
	span  telemetry.SpanID
	at    int64 // milliseconds: when it ended
	value float64
	row   int // of the block that it was found in
}

// marker finds the exemplars of groups: of each step and bucket the span of the smallest trace ID.
type marker struct {
	lo, hi int64 // milliseconds

	// Of the block:
	first  []int32
	traces []telemetry.TraceID
	trace  int     // where the last row was
	fresh  []*mark // set in the block
}

// exemplified says whether a metric has exemplars: counters of spans and calls, and buckets of their durations.
func (m metric) exemplified() bool {
	return m.source != ofResources && m.measure != sizes && (m.part == bucket || m.part == plain)
}

// Exemplars implements storage.SeriesReader: where the store has none for the metrics of spans, they are the spans themselves.
// The labels are trace_id and span_id, the value is the duration in seconds where the metric is about durations, and else 1.
func (v *view) Exemplars(ctx context.Context, q storage.SeriesQuery) ([]exemplar.QueryResult, error) {
	stored, err := v.View.Exemplars(ctx, q)
	if err != nil || len(stored) > 0 || q.Resources != nil {
		return stored, err
	}
	lo, hi := max(q.Start, -far), min(q.End, far)
	if lo > hi {
		return stored, nil
	}
	g := gridOf(lo, hi, max((hi-lo)/exemplarSteps, 1), hi)
	for _, m := range selected(q.Matchers) {
		if !m.exemplified() {
			continue
		}
		c, err := v.collect(ctx, q, m, g, &marker{lo: lo, hi: hi})
		if err != nil {
			return nil, err
		}
		stored = append(stored, c.exemplars(q.Matchers)...)
	}
	slices.SortFunc(stored, func(a, b exemplar.QueryResult) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
	return stored, nil
}

// open makes the marker ready for a block.
func (m *marker) open(b storage.TraceBlock) (err error) {
	m.trace, m.fresh = 0, m.fresh[:0]
	if m.first, err = b.First(); err != nil {
		return err
	}
	m.traces, err = b.Traces()
	return err
}

// mark makes the span of a row the exemplar of a cell, if no other has a smaller trace ID.
func (m *marker) mark(at *mark, row int, end int64, value float64) {
	if end /= 1e6; end < m.lo || end > m.hi {
		return
	}
	if row < int(m.first[m.trace]) || row >= int(m.first[m.trace+1]) {
		m.trace = sort.Search(len(m.traces), func(i int) bool { return int(m.first[i+1]) > row })
	}
	id := m.traces[m.trace]
	if !at.trace.IsZero() && cmp.Or(bytes.Compare(id[:], at.trace[:]), cmp.Compare(end, at.at), cmp.Compare(value, at.value)) >= 0 {
		return
	}
	*at = mark{trace: id, at: end, value: value, row: row}
	m.fresh = append(m.fresh, at)
}

// close fills in what is only known of spans that are read.
func (m *marker) close(b storage.TraceBlock) error {
	if len(m.fresh) == 0 {
		return nil
	}
	rows := make([]int, len(m.fresh))
	for i, at := range m.fresh {
		rows[i] = at.row
	}
	spans, err := b.Spans(rows, 0)
	if err != nil {
		return err
	}
	for i, at := range m.fresh {
		at.span = spans.SpanID[i]
	}
	return nil
}

// exemplars returns what was marked, by series.
func (c *collector) exemplars(ms []*labels.Matcher) []exemplar.QueryResult {
	var ids []telemetry.TraceID
	for _, g := range c.groups {
		for i := range g.marks {
			if id := g.marks[i].trace; !id.IsZero() {
				ids = append(ids, id)
			}
		}
	}
	compare := func(a, b telemetry.TraceID) int { return bytes.Compare(a[:], b[:]) }
	var last *telemetry.TraceID // that is kept
	if len(ids) > maxExemplars {
		slices.SortFunc(ids, compare)
		last = &ids[maxExemplars-1]
	}
	_, le := c.metric.bounds()
	var out []exemplar.QueryResult
	for _, g := range c.groups {
		lb := labels.NewBuilder(g.labels).Set(model.MetricNameLabel, c.metric.name)
		for at := range c.width {
			if c.metric.part == bucket {
				lb.Set(model.BucketLabel, le[at])
			}
			r := exemplar.QueryResult{SeriesLabels: lb.Labels()}
			for i := at; i < len(g.marks); i += c.width {
				x := &g.marks[i]
				if x.trace.IsZero() || last != nil && compare(x.trace, *last) > 0 {
					continue
				}
				r.Exemplars = append(r.Exemplars, exemplar.Exemplar{
					Labels: labels.FromStrings(labelSpan, x.span.String(), labelTrace, x.trace.String()), Value: x.value, Ts: x.at, HasTs: true,
				})
			}
			if len(r.Exemplars) == 0 || slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(r.SeriesLabels.Get(m.Name)) }) {
				continue
			}
			slices.SortFunc(r.Exemplars, func(a, b exemplar.Exemplar) int { return cmp.Compare(a.Ts, b.Ts) })
			out = append(out, r)
		}
	}
	return out
}
