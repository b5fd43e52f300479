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
	s.late = s.Limit > 0
	out := &storage.LogBlock{}
	err := part.Ordered[*storage.LogBlock]{
		Newest: s.Order == storage.NewestFirst, Limit: s.Limit, Start: s.Start, End: s.End, Sources: len(sources),
		Bounds: func(src int) (int64, int64) { return sources[src].Bounds() },
		Scan: func(src int, start, end int64, emit func(part.Found[*storage.LogBlock]) (int64, int64)) error {
			scan := s
			scan.Start, scan.End = start, end
			return sources[src].Scan(ctx, &scan, func(r Rows) error {
				scan.Start, scan.End = emit(part.Found[*storage.LogBlock]{Block: r.LogBlock, Times: r.Time, Seq: r.place, Load: r.load})
				return nil
			})
		},
		Tie: func(a *storage.LogBlock, i int, b *storage.LogBlock, j int) int {
			return cmp.Compare(a.StreamOf(i), b.StreamOf(j))
		},
		Failed: failed,
	}.Collect(ctx, func(b *storage.LogBlock, row int) {
		rec := b.Record(row)
		out.Append(b.StreamIf(row), b.ResourceOf(row), &rec, wanted)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
