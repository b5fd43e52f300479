package traces

import (
	"bytes"
	"cmp"
	"context"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

// Collect reads the rows that q selects from all sources, which are given in the order of arrival, and returns
// them in q's order, q.Limit of them at most.
func Collect(ctx context.Context, sources []Source, q storage.SpanQuery, masks []Mask, failed func(src int, err error) error) (*storage.SpanBlock, error) {
	refs, err := part.Ordered[*storage.SpanBlock]{
		Newest: q.Order == storage.NewestFirst, Limit: q.Limit, Start: q.Start, End: q.End, Sources: len(sources),
		Bounds: func(src int) (int64, int64) { return sources[src].Bounds() },
		Scan: func(src int, start, end int64, emit func(*storage.SpanBlock, []int64, func(int) int64) (int64, int64)) error {
			scan := q
			rows := int64(0)
			scan.Start, scan.End = start, end
			return sources[src].Scan(ctx, &scan, masks, func(b *storage.SpanBlock) error {
				first := rows
				rows += int64(b.Len())
				scan.Start, scan.End = emit(b, b.Start, func(i int) int64 { return first + int64(i) })
				return nil
			})
		},
		Tie: func(a, b part.Ref[*storage.SpanBlock]) int {
			x, y := a.Block, b.Block
			return cmp.Or(bytes.Compare(x.TraceID[a.Row][:], y.TraceID[b.Row][:]), bytes.Compare(x.SpanID[a.Row][:], y.SpanID[b.Row][:]),
				bytes.Compare(x.ParentID[a.Row][:], y.ParentID[b.Row][:]))
		},
		Failed: failed,
	}.Collect()
	if err != nil {
		return nil, err
	}
	out := &storage.SpanBlock{}
	for _, r := range refs {
		s := r.Block.Span(r.Row)
		out.Append(r.Block.ResourceOf(r.Row), &s, q.Columns)
	}
	return out, nil
}
