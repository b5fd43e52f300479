package traces

import (
	"cmp"
	"context"
	"slices"

	"github.com/braidobs/braid/storage"
)

// ref is a row of a block: the place where it came from decides among rows of the same start.
type ref struct {
	start    int64
	src, row int
	block    *storage.SpanBlock
	i        int
}

// Collect reads the rows that q selects from all sources, which are given in the order of arrival, and returns
// them in q's order, q.Limit of them at most. With a limit, sources and blocks that cannot hold a row of the
// answer are not read.
func Collect(ctx context.Context, sources []Source, q storage.SpanQuery, masks []Mask, failed func(src int, err error) error) (*storage.SpanBlock, error) {
	newest := q.Order == storage.NewestFirst
	order := make([]int, len(sources))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		alo, ahi := sources[a].Bounds()
		blo, bhi := sources[b].Bounds()
		if newest {
			return cmp.Compare(bhi, ahi)
		}
		return cmp.Compare(alo, blo)
	})
	var refs []ref
	cut := func() {
		slices.SortFunc(refs, func(a, b ref) int {
			c := cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.src, b.src), cmp.Compare(a.row, b.row))
			if newest {
				return -c
			}
			return c
		})
		if q.Limit > 0 && len(refs) >= q.Limit {
			refs = slices.Clip(refs[:q.Limit])
			if last := refs[q.Limit-1].start; newest {
				q.Start = max(q.Start, last)
			} else {
				q.End = min(q.End, last)
			}
		}
	}
	for _, src := range order {
		lo, hi := sources[src].Bounds()
		if hi < q.Start || lo > q.End {
			continue
		}
		row := 0
		scan := q
		err := sources[src].Scan(ctx, &scan, masks, func(b *storage.SpanBlock) error {
			for i := range b.Len() {
				refs = append(refs, ref{start: b.Start[i], src: src, row: row, block: b, i: i})
				row++
			}
			if q.Limit > 0 && len(refs) > 2*q.Limit+blockRows {
				cut()
				scan.Start, scan.End = q.Start, q.End
			}
			return nil
		})
		if err != nil {
			if err = failed(src, err); err != nil {
				return nil, err
			}
		}
		cut()
	}
	cut()
	out := &storage.SpanBlock{}
	for _, r := range refs {
		s := r.block.Span(r.i)
		out.Append(r.block.ResourceOf(r.i), &s, q.Columns)
	}
	return out, nil
}
