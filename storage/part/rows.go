package part

import (
	"cmp"
	"context"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
)

// RowReader reads some rows of columns of one block. Its first error sticks: after it everything is empty.
type RowReader struct {
	Table *Table
	Block int
	Err   error
}

// Read returns a whole column.
func (r *RowReader) Read(column string) Vector {
	if r.Err != nil {
		return Vector{}
	}
	v, err := r.Table.Read(column, r.Block)
	r.Err = err
	return v
}

// Indexes returns the given rows of a column of numbers, each of which must point into a dictionary of n values.
func (r *RowReader) Indexes(column string, rows []int, n int) []uint32 {
	if r.Err != nil {
		return nil
	}
	ns, err := r.Table.Indexes(column, r.Block, n)
	if err != nil {
		r.Err = err
		return nil
	}
	return Pick(rows, ns, func(n int64) uint32 { return uint32(n) })
}

// Decoded returns the given rows of a column of binary values.
func Decoded[V any](r *RowReader, column string, rows []int, f func(*telemetry.Decoder) V) []V {
	return Pick(rows, r.Read(column).Strs, func(s string) V {
		d := telemetry.NewDecoder(s)
		v := f(d)
		if d.Err() != nil && r.Err == nil {
			r.Err = r.Table.Corrupt(column, r.Block, "%v", d.Err())
		}
		return v
	})
}

// Pick returns f of the given rows of a column; of an empty column nothing.
func Pick[A, B any](rows []int, in []A, f func(A) B) []B {
	if len(in) == 0 {
		return nil
	}
	out := make([]B, len(rows))
	for i, row := range rows {
		out[i] = f(in[row])
	}
	return out
}

// Same returns a, for Pick.
func Same[A any](a A) A { return a }

// Found is a block of a source, with rows that may be part of the answer.
type Found[B any] struct {
	Block B
	Times []int64             // of its rows
	Seq   func(row int) int64 // the place of a row in the source, by which rows of the same time are ordered
	// Load, when not nil, reads all that is wanted of some rows, ascending: Block has only what Ordered.Tie looks at.
	Load func(rows []int) (B, error)
}

// found is a Found of a source.
type found[B any] struct {
	Found[B]

	src    int
	some   []int // rows to load
	loaded B     // them
}

// ref is a row of a block.
type ref[B any] struct {
	*found[B]

	row  int
	time int64
	seq  int64
}

// Ordered collects rows of several sources, given in the order of arrival, in the order of time.
type Ordered[B any] struct {
	Newest     bool // the newest first
	Limit      int  // at most so many rows; 0 for all
	Start, End int64
	Sources    int
	// Bounds returns the smallest and largest time of a source.
	Bounds func(src int) (lo, hi int64)
	// Scan emits the blocks of a source whose rows lie from start to end. What emit returns are the bounds from then on: with a
	// limit, they close in on what can still be part of the answer.
	Scan func(src int, start, end int64, emit func(Found[B]) (start, end int64)) error
	// Tie, when not nil, orders rows of the same time, row i of a and row j of b, before their places do, so that merges do not
	// change it.
	Tie func(a B, i int, b B, j int) int
	// Failed handles the error of a source; nil goes on with the others.
	Failed func(src int, err error) error
}

// slack is how many rows more than twice the limit are held before the surplus is cut off.
const slack = 4096

// Collect calls take with the first Limit rows. Sources and blocks that cannot hold one of them are not read.
func (o Ordered[B]) Collect(ctx context.Context, take func(b B, row int)) error {
	broken := make([]bool, o.Sources)
	for {
		refs, err := o.refs(broken)
		if err != nil {
			return err
		}
		again, err := o.load(ctx, refs, broken)
		if err != nil {
			return err
		}
		if again {
			continue
		}
		for _, r := range refs {
			if r.Load == nil {
				take(r.Block, r.row)
				continue
			}
			row, _ := slices.BinarySearch(r.some, r.row)
			take(r.loaded, row)
		}
		return nil
	}
}

// load loads the rows that are left to load. Again says that a source was lost: others have rows for the place of its.
func (o *Ordered[B]) load(ctx context.Context, refs []ref[B], broken []bool) (again bool, err error) {
	var blocks []*found[B]
	for _, r := range refs {
		if r.Load != nil {
			if r.some == nil {
				blocks = append(blocks, r.found)
			}
			r.some = append(r.some, r.row)
		}
	}
	for _, f := range blocks {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		slices.Sort(f.some)
		if f.loaded, err = f.Load(f.some); err == nil {
			continue
		}
		if err := o.Failed(f.src, err); err != nil {
			return false, err
		}
		broken[f.src] = true
		return true, nil
	}
	return false, nil
}

// refs returns the first Limit rows of the sources that are not broken.
func (o Ordered[B]) refs(broken []bool) ([]ref[B], error) {
	order := make([]int, o.Sources)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		alo, ahi := o.Bounds(a)
		blo, bhi := o.Bounds(b)
		if o.Newest {
			return cmp.Compare(bhi, ahi)
		}
		return cmp.Compare(alo, blo)
	})
	var refs []ref[B]
	cut := func() {
		slices.SortFunc(refs, func(a, b ref[B]) int {
			c := cmp.Compare(a.time, b.time)
			if c == 0 && o.Tie != nil {
				c = o.Tie(a.Block, a.row, b.Block, b.row)
			}
			c = cmp.Or(c, cmp.Compare(a.src, b.src), cmp.Compare(a.seq, b.seq))
			if o.Newest {
				return -c
			}
			return c
		})
		if o.Limit == 0 || len(refs) < o.Limit {
			return
		}
		refs = slices.Clip(refs[:o.Limit])
		if last := refs[o.Limit-1].time; o.Newest {
			o.Start = max(o.Start, last)
		} else {
			o.End = min(o.End, last)
		}
	}
	for _, src := range order {
		if lo, hi := o.Bounds(src); broken[src] || hi < o.Start || lo > o.End {
			continue
		}
		err := o.Scan(src, o.Start, o.End, func(b Found[B]) (int64, int64) {
			f := &found[B]{Found: b, src: src}
			for i, at := range b.Times {
				refs = append(refs, ref[B]{found: f, row: i, time: at, seq: b.Seq(i)})
			}
			if o.Limit > 0 && len(refs) > 2*o.Limit+slack {
				cut()
			}
			return o.Start, o.End
		})
		if err != nil {
			if err = o.Failed(src, err); err != nil {
				return nil, err
			}
		}
		cut()
	}
	return refs, nil
}
