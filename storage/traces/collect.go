package traces

import (
	"bytes"
	"cmp"
	"context"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

// Collect reads the rows that s selects from all sources, which are given in the order of arrival, and returns
// them in s's order, s.Limit of them at most. With a limit it reads the columns of rows that it returns alone.
func Collect(ctx context.Context, sources []Source, s Scan, failed func(src int, err error) error) (*storage.SpanBlock, error) {
	s.late = s.Limit > 0
	out := &storage.SpanBlock{}
	err := part.Ordered[*storage.SpanBlock]{
		Newest: s.Order == storage.NewestFirst, Limit: s.Limit, Start: s.Start, End: s.End, Sources: len(sources),
		Bounds: func(src int) (int64, int64) { return sources[src].Bounds() },
		Scan: func(src int, start, end int64, emit func(part.Found[*storage.SpanBlock]) (int64, int64)) error {
			scan := s
			scan.Start, scan.End = start, end
			return sources[src].Scan(ctx, &scan, func(r Rows) error {
				scan.Start, scan.End = emit(part.Found[*storage.SpanBlock]{Block: r.SpanBlock, Times: r.Start, Seq: r.place, Load: r.load})
				return nil
			})
		},
		Tie: func(x *storage.SpanBlock, i int, y *storage.SpanBlock, j int) int {
			return cmp.Or(bytes.Compare(x.TraceID[i][:], y.TraceID[j][:]), bytes.Compare(x.SpanID[i][:], y.SpanID[j][:]),
				bytes.Compare(x.ParentID[i][:], y.ParentID[j][:]))
		},
		Failed: failed,
	}.Collect(ctx, func(b *storage.SpanBlock, row int) {
		sp := b.Span(row)
		out.Append(b.ResourceOf(row), &sp, s.Columns)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
