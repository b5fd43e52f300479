package logql

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/braidobs/braid/query/logql/syntax"
)

// windows divides time into the cells in which rows are gathered: either one for each window, a row then belongs to each
// window that covers it, or shorter ones of which windows consist, so that a row belongs to one.
type windows struct {
	first  int64 // the end of the first window
	step   int64
	n      int // windows
	width  int64
	cell   int64 // the width of a cell; 0 when cells are windows
	cells  int
	stride int // cells between the begins of windows
	span   int // cells in a window
}

// maxFine bounds how many short cells there are.
const maxFine = 100_000

func newWindows(first, step int64, n int, width int64) windows {
	w := windows{first: first, step: step, n: n, width: width, cells: n}
	if n == 1 || step >= width {
		return w
	}
	c := gcd(step, width)
	cells := (int64(n-1)*step + width) / c
	if cells > maxFine {
		return w
	}
	w.cell, w.cells, w.stride, w.span = c, int(cells), int(step/c), int(width/c)
	return w
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// bounds returns the first and last time that belong to any window.
func (w *windows) bounds() (from, to int64) {
	return w.first - w.width + 1, w.first + int64(w.n-1)*w.step
}

// at returns the cells of a time: from lo up to, without, hi. Inside of the bounds there may be none.
func (w *windows) at(t int64) (lo, hi int) {
	if w.cell > 0 {
		lo = int((t - (w.first - w.width) - 1) / w.cell)
		return lo, lo + 1
	}
	if w.n == 1 {
		return 0, 1
	}
	// Window k is (first+k*step-width, first+k*step].
	d := t - w.first
	low := int64(0)
	if d > 0 {
		low = (d + w.step - 1) / w.step
	}
	high := (d + w.width - 1) / w.step // d+width-1 is not negative
	return int(low), int(min(high+1, int64(w.n)))
}

// until returns the last time that has the same cells as t, which has one.
func (w *windows) until(t int64) int64 {
	switch {
	case w.cell > 0:
		lo, _ := w.at(t)
		return w.first - w.width + int64(lo+1)*w.cell
	case w.n == 1:
		return w.first
	case w.step >= w.width:
		lo, hi := w.at(t)
		if lo == hi {
			return t
		}
		return w.first + int64(lo)*w.step
	default:
		return t
	}
}

// cell is what is known of the rows of a cell.
type cell struct {
	n    int64
	a, b float64 // depending on the operation: the sum; the value; the mean and the sum of squares
	t    int64   // of the value
}

// sample is a value with its time.
type sample struct {
	t int64
	v float64
}

// gather is the cells of one series.
type gather struct {
	labels  []Label
	cells   []cell
	values  [][]float64 // of quantiles
	samples [][]sample  // of counters
}

// class is what an operation keeps of rows.
type class uint8

const (
	counting class = iota
	summing
	lowest
	highest
	moments
	earliest
	latest
	valuing
	sampling
)

func classOf(op syntax.RangeOp, unwrapped bool) class {
	switch op {
	case syntax.BytesOverTime, syntax.BytesRate, syntax.SumOverTime:
		return summing
	case syntax.Rate:
		if unwrapped {
			return summing
		}
		return counting
	case syntax.MinOverTime:
		return lowest
	case syntax.MaxOverTime:
		return highest
	case syntax.AvgOverTime, syntax.StddevOverTime, syntax.StdvarOverTime:
		return moments
	case syntax.FirstOverTime:
		return earliest
	case syntax.LastOverTime:
		return latest
	case syntax.QuantileOverTime:
		return valuing
	case syntax.RateCounter:
		return sampling
	default:
		return counting
	}
}

// add adds a row to the cell.
func (c *cell) add(k class, t int64, v float64) {
	switch k {
	case counting, valuing, sampling:
	case summing:
		c.a += v
	case lowest:
		if c.n == 0 || v < c.a || math.IsNaN(c.a) {
			c.a = v
		}
	case highest:
		if c.n == 0 || v > c.a || math.IsNaN(c.a) {
			c.a = v
		}
	case moments:
		d := v - c.a
		c.a += d / float64(c.n+1)
		c.b += d * (v - c.a)
	case earliest:
		if c.n == 0 || t < c.t {
			c.a, c.t = v, t
		}
	case latest:
		if c.n == 0 || t >= c.t {
			c.a, c.t = v, t
		}
	}
	c.n++
}

// merge adds a later cell.
func (c *cell) merge(k class, o *cell) {
	if o.n == 0 {
		return
	}
	if c.n == 0 {
		*c = *o
		return
	}
	switch k {
	case counting, valuing, sampling:
	case summing:
		c.a += o.a
	case lowest:
		if o.a < c.a || math.IsNaN(c.a) {
			c.a = o.a
		}
	case highest:
		if o.a > c.a || math.IsNaN(c.a) {
			c.a = o.a
		}
	case moments:
		n, m := float64(c.n), float64(o.n)
		d := o.a - c.a
		c.a += d * m / (n + m)
		c.b += o.b + d*d*n*m/(n+m)
	case earliest:
		if o.t < c.t {
			c.a, c.t = o.a, o.t
		}
	case latest:
		if o.t >= c.t {
			c.a, c.t = o.a, o.t
		}
	}
	c.n += o.n
}

// finish computes the windows of a series.
func (g *gather) finish(ctx context.Context, r *syntax.Range, w *windows) (vector, error) {
	k := classOf(r.Op, r.Unwrap != nil)
	out := newVector(g.labels, w.n)
	var some []sample
	var values []float64
	for i := range w.n {
		if k == valuing || k == sampling || i&255 == 0 {
			if err := ctx.Err(); err != nil {
				return vector{}, err
			}
		}
		lo, hi := i, i+1
		if w.cell > 0 {
			lo, hi = i*w.stride, i*w.stride+w.span
		}
		if k == valuing {
			hi = min(hi, len(g.values))
			switch {
			case hi <= lo:
				continue
			case hi-lo == 1 && (w.cell == 0 || w.span == 1):
				values = g.values[lo] // no other window has it
			default:
				values = values[:0]
				for j := lo; j < hi; j++ {
					values = append(values, g.values[j]...)
				}
			}
			if len(values) > 0 {
				x, err := quantile(ctx, r.Param, values)
				if err != nil {
					return vector{}, err
				}
				out.put(i, x)
			}
			continue
		}
		if k == sampling {
			some = some[:0]
			for j := lo; j < min(hi, len(g.samples)); j++ {
				some = append(some, g.samples[j]...)
			}
			end := w.first + int64(i)*w.step
			slices.SortStableFunc(some, func(a, b sample) int { return cmp.Compare(a.t, b.t) })
			if v, ok := counterRate(some, end-int64(r.Window), end); ok {
				out.put(i, v)
			}
			continue
		}
		var c cell
		for j := lo; j < min(hi, len(g.cells)); j++ {
			c.merge(k, &g.cells[j])
		}
		if c.n > 0 {
			out.put(i, c.value(r))
		}
	}
	return out, nil
}

func (c *cell) value(r *syntax.Range) float64 {
	switch r.Op {
	case syntax.CountOverTime:
		return float64(c.n)
	case syntax.Rate:
		if r.Unwrap == nil {
			return float64(c.n) / r.Window.Seconds()
		}
		return c.a / r.Window.Seconds()
	case syntax.BytesRate:
		return c.a / r.Window.Seconds()
	case syntax.StdvarOverTime:
		return c.b / float64(c.n)
	case syntax.StddevOverTime:
		return math.Sqrt(c.b / float64(c.n))
	default:
		return c.a
	}
}

// quantile returns the q-quantile, between two values by their distance. It changes the order of some.
func quantile(ctx context.Context, q float64, some []float64) (float64, error) {
	switch {
	case len(some) == 0 || math.IsNaN(q):
		return math.NaN(), nil
	case q < 0:
		return math.Inf(-1), nil
	case q > 1:
		return math.Inf(1), nil
	}
	nans := 0 // they are the smallest
	for i, v := range some {
		if math.IsNaN(v) {
			some[i], some[nans] = some[nans], v
			nans++
		}
	}
	rank := q * float64(len(some)-1)
	low := int(math.Floor(rank))
	high := min(low+1, len(some)-1)
	if low < nans {
		return math.NaN(), nil
	}
	rest := some[nans:]
	a, err := nth(ctx, rest, low-nans)
	if err != nil {
		return 0, err
	}
	b := a
	if high > low {
		b = slices.Min(rest[low-nans+1:])
	}
	weight := rank - math.Floor(rank)
	return a*(1-weight) + b*weight, nil
}

// nth moves the n-th smallest number to its place, smaller ones before it and larger ones behind, and returns it.
func nth(ctx context.Context, s []float64, n int) (float64, error) {
	const piece = 1 << 20 // that is looked at in a few milliseconds
	lo, hi, moved := 0, len(s)-1, 0
	for rounds := 0; lo < hi; rounds++ {
		if rounds > 64 || hi-lo < 12 { // rounds: an order that is made to be slow
			slices.Sort(s[lo : hi+1])
			break
		}
		pivot := median(s[lo], s[lo+(hi-lo)/2], s[hi])
		i, j := lo, hi
		for i <= j {
			for s[i] < pivot {
				i++
			}
			for pivot < s[j] {
				j--
			}
			if i <= j {
				s[i], s[j] = s[j], s[i]
				i++
				j--
			}
			if moved++; moved&(piece-1) == 0 {
				if err := ctx.Err(); err != nil {
					return 0, err
				}
			}
		}
		switch {
		case n <= j:
			hi = j
		case n >= i:
			lo = i
		default:
			return s[n], nil
		}
	}
	return s[n], nil
}

func median(a, b, c float64) float64 { return max(min(a, b), min(max(a, b), c)) }

// counterRate returns the increase per second of a counter, whose resets count from zero, carried on to the ends of the
// window when the samples come near to them.
func counterRate(s []sample, from, to int64) (float64, bool) {
	if len(s) < 2 {
		return 0, false
	}
	first, last := s[0], s[len(s)-1]
	if first.t == last.t {
		return 0, false
	}
	increase := last.v - first.v
	before := first.v
	for _, x := range s[1:] {
		if x.v < before {
			increase += before
		}
		before = x.v
	}
	sec := func(ns int64) float64 { return float64(ns) / 1e9 }
	sampled, toStart, toEnd := sec(last.t-first.t), sec(first.t-from), sec(to-last.t)
	average := sampled / float64(len(s)-1)
	threshold := average * 1.1
	if toStart >= threshold {
		toStart = average / 2
	}
	if increase > 0 && first.v >= 0 { // it cannot have been below zero
		toStart = min(toStart, sampled*(first.v/increase))
	}
	if toEnd >= threshold {
		toEnd = average / 2
	}
	return increase * (sampled + toStart + toEnd) / sampled / sec(to-from), true
}
