package part

import (
	"cmp"
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

// Ref is a row of a block of some source.
type Ref[B any] struct {
	Block B
	Row   int
	time  int64
	src   int   // where it came from decides among rows of the same time
	seq   int64 // place in the source
}

// Ordered collects rows of several sources, given in the order of arrival, in the order of time.
type Ordered[B any] struct {
	Newest     bool // the newest first
	Limit      int  // at most so many rows; 0 for all
	Start, End int64
	Sources    int
	// Bounds returns the smallest and largest time of a source.
	Bounds func(src int) (lo, hi int64)
	// Scan emits the blocks of a source whose rows lie from start to end; seq are places of the rows in the source, by
	// which rows of the same time are ordered. What emit returns are the bounds from then on: with a limit, they close
	// in on what can still be part of the answer.
	Scan func(src int, start, end int64, emit func(block B, times []int64, seq func(row int) int64) (start, end int64)) error
	// Tie, when not nil, orders rows of the same time before their places do, so that merges do not change it.
	Tie func(a, b Ref[B]) int
	// Failed handles the error of a scan; nil goes on with the other sources.
	Failed func(src int, err error) error
}

// slack is how many rows more than twice the limit are held before the surplus is cut off.
const slack = 4096

// Collect returns the first Limit rows. Sources and blocks that cannot hold one of them are not read.
func (o Ordered[B]) Collect() ([]Ref[B], error) {
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
	var refs []Ref[B]
	cut := func() {
		slices.SortFunc(refs, func(a, b Ref[B]) int {
			c := cmp.Compare(a.time, b.time)
			if c == 0 && o.Tie != nil {
				c = o.Tie(a, b)
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
		if lo, hi := o.Bounds(src); hi < o.Start || lo > o.End {
			continue
		}
		err := o.Scan(src, o.Start, o.End, func(b B, times []int64, seq func(int) int64) (int64, int64) {
			for i, at := range times {
				refs = append(refs, Ref[B]{Block: b, Row: i, time: at, src: src, seq: seq(i)})
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
