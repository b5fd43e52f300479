package traceql_test

import (
	"context"
	"iter"
	"math"

	"github.com/braidobs/braid/storage"
)

// strict is a view that leaves out all traces that TraceQuery.Need allows it to leave out, tears traces apart when it may,
// and gives out small blocks.
type strict struct{ storage.View }

func (v strict) Traces(ctx context.Context, q storage.TraceQuery) iter.Seq2[storage.TraceBlock, error] {
	return func(yield func(storage.TraceBlock, error) bool) {
		n := 0
		for b, err := range v.View.Traces(ctx, q) {
			if err != nil {
				yield(nil, err)
				return
			}
			first, err := b.First()
			if err != nil {
				yield(nil, err)
				return
			}
			for t := range len(first) - 1 {
				rows := spanRows(b, int(first[t]), int(first[t+1]))
				if q.Fragments {
					for _, r := range rows {
						if some := []storage.SpanRow{r}; meets(some, q.Need) {
							out := storage.NewTraceRows(math.MaxInt64)
							out.Add(some)
							if !yield(out, nil) {
								return
							}
						}
					}
					continue
				}
				if !meets(rows, q.Need) {
					continue
				}
				rest := int64(math.MaxInt64)
				for _, r := range rows {
					rest = min(rest, r.Span.Start)
				}
				out := storage.NewTraceRows(rest)
				out.Add(rows)
				if n++; !yield(out, nil) {
					return
				}
			}
		}
	}
}

func spanRows(b storage.TraceBlock, lo, hi int) []storage.SpanRow {
	var at []int
	for i := lo; i < hi; i++ {
		at = append(at, i)
	}
	block, err := b.Spans(at, storage.SpanAll)
	if err != nil {
		panic(err)
	}
	out := make([]storage.SpanRow, len(at))
	for i := range at {
		s := block.Span(i)
		out[i] = storage.SpanRow{Resource: block.ResourceOf(i), Span: &s}
	}
	return out
}

// meets says whether some row matches each of need.
func meets(rows []storage.SpanRow, need []storage.Predicate) bool {
	block := &storage.SpanBlock{}
	for _, r := range rows {
		block.Append(r.Resource, r.Span, storage.SpanAll)
	}
	for _, p := range need {
		found := false
		for i := range rows {
			found = found || block.Match(i, p)
		}
		if !found {
			return false
		}
	}
	return true
}
