package logs

import (
	"context"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

// Collect reads the rows that q selects from all sources, which are given in the order of arrival, and returns
// them in q's order, q.Limit of them at most.
func Collect(ctx context.Context, sources []Source, q storage.LogQuery, masks []Mask, failed func(src int, err error) error) (*storage.LogBlock, error) {
	refs, err := part.Ordered[*storage.LogBlock]{
		Newest: q.Order == storage.NewestFirst, Limit: q.Limit, Start: q.Start, End: q.End, Sources: len(sources),
		Bounds: func(src int) (int64, int64) { return sources[src].Bounds() },
		Scan: func(src int, start, end int64, emit func(*storage.LogBlock, []int64) (int64, int64)) error {
			scan := q
			scan.Start, scan.End = start, end
			return sources[src].Scan(ctx, &scan, masks, func(b *storage.LogBlock) error {
				scan.Start, scan.End = emit(b, b.Time)
				return nil
			})
		},
		Failed: failed,
	}.Collect()
	if err != nil {
		return nil, err
	}
	out := &storage.LogBlock{}
	for _, r := range refs {
		rec := r.Block.Record(r.Row)
		out.Append(r.Block.StreamIf(r.Row), r.Block.ResourceOf(r.Row), &rec, q.Columns)
	}
	return out, nil
}
