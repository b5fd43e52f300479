package traces

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

// collected is a block that Collect found rows in.
type collected struct {
	Rows
	src  int
	some []int              // rows that are wanted, if they are to be loaded
	blk  *storage.SpanBlock // them
}

// Collect reads the rows that s selects from all sources, which are given in the order of arrival, and returns
// them in s's order, s.Limit of them at most. With a limit it reads the columns of rows that it returns alone.
func Collect(ctx context.Context, sources []Source, s Scan, failed func(src int, err error) error) (*storage.SpanBlock, error) {
	s.late = s.Limit > 0
	broken := make([]bool, len(sources))
again:
	refs, err := part.Ordered[*collected]{
		Newest: s.Order == storage.NewestFirst, Limit: s.Limit, Start: s.Start, End: s.End, Sources: len(sources),
		Bounds: func(src int) (int64, int64) { return sources[src].Bounds() },
		Scan: func(src int, start, end int64, emit func(*collected, []int64, func(int) int64) (int64, int64)) error {
			if broken[src] {
				return nil
			}
			scan := s
			scan.Start, scan.End = start, end
			return sources[src].Scan(ctx, &scan, func(r Rows) error {
				scan.Start, scan.End = emit(&collected{Rows: r, src: src}, r.Start, r.place)
				return nil
			})
		},
		Tie: func(a, b part.Ref[*collected]) int {
			x, y := a.Block, b.Block
			return cmp.Or(bytes.Compare(x.TraceID[a.Row][:], y.TraceID[b.Row][:]), bytes.Compare(x.SpanID[a.Row][:], y.SpanID[b.Row][:]),
				bytes.Compare(x.ParentID[a.Row][:], y.ParentID[b.Row][:]))
		},
		Failed: failed,
	}.Collect()
	if err != nil {
		return nil, err
	}
	var blocks []*collected
	for _, r := range refs {
		if c := r.Block; c.load != nil {
			if c.some == nil {
				blocks = append(blocks, c)
			}
			c.some = append(c.some, r.Row)
		}
	}
	for _, c := range blocks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		slices.Sort(c.some)
		if c.blk, err = c.load(c.some); err == nil {
			continue
		}
		if err := failed(c.src, err); err != nil {
			return nil, err
		}
		broken[c.src] = true // others have rows for the place of its
		goto again
	}
	out := &storage.SpanBlock{}
	for _, r := range refs {
		blk, row := r.Block.SpanBlock, r.Row
		if c := r.Block; c.load != nil {
			blk = c.blk
			row, _ = slices.BinarySearch(c.some, row)
		}
		sp := blk.Span(row)
		out.Append(blk.ResourceOf(row), &sp, s.Columns)
	}
	return out, nil
}
