package logs

import (
	"cmp"
	"context"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

// Collect reads the rows that s selects from all sources, which are given in the order of arrival, and returns
// them in s's order, s.Limit of them at most, with bodies as values.
func Collect(ctx context.Context, sources []Source, s Scan, failed func(src int, err error) error) (*storage.LogBlock, error) {
	if s.Columns&storage.LogLines != 0 {
		s.Columns = s.Columns&^storage.LogLines | storage.LogBody
	}
	wanted := s.Columns
	s.Columns |= storage.LogStream
	refs, err := part.Ordered[*storage.LogBlock]{
		Newest: s.Order == storage.NewestFirst, Limit: s.Limit, Start: s.Start, End: s.End, Sources: len(sources),
		Bounds: func(src int) (int64, int64) { return sources[src].Bounds() },
		Scan: func(src int, start, end int64, emit func(*storage.LogBlock, []int64, func(int) int64) (int64, int64)) error {
			scan := s
			scan.Start, scan.End = start, end
			return sources[src].Scan(ctx, &scan, func(r Rows) error {
				scan.Start, scan.End = emit(r.LogBlock, r.Time, r.place)
				return nil
			})
		},
		Tie: func(a, b part.Ref[*storage.LogBlock]) int {
			return cmp.Compare(a.Block.StreamOf(a.Row), b.Block.StreamOf(b.Row))
		},
		Failed: failed,
	}.Collect()
	if err != nil {
		return nil, err
	}
	out := &storage.LogBlock{}
	for _, r := range refs {
		rec := r.Block.Record(r.Row)
		out.Append(r.Block.StreamIf(r.Row), r.Block.ResourceOf(r.Row), &rec, wanted)
	}
	return out, nil
}
