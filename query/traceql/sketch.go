package traceql

import (
	"math"
	"slices"
)

const (
	// exactValues is how many values a sketch keeps as they are.
	exactValues = 1024
	// mantissa is how many bits of a value's mantissa a sketch keeps beyond that: buckets are 1/128 of their value wide, so
	// that their middle is off by 0.4 % at most.
	mantissa = 7
)

// sketch is values of which quantiles are asked: exactly up to 1024 of them, and else within 0.4 %.
type sketch struct {
	values             []float64 // until there are more than are kept
	many               bool      // they are counted in buckets instead
	zeros              int
	negative, positive buckets
}

// buckets counts values by bucket, from one with the number low.
type buckets struct {
	low    int
	counts []uint32
}

// spare is memory for values that sketches do not need any more.
type spare [][]float64

// add adds a value n times, and returns by how many cells of memory the sketch grew.
func (s *sketch) add(v float64, n uint32, m *spare) int {
	if s.many {
		return s.count(v, n)
	}
	if last := len(*m) - 1; s.values == nil && last >= 0 {
		s.values, *m = (*m)[last], (*m)[:last]
	}
	before := cap(s.values)
	if len(s.values)+int(n) <= exactValues {
		for range n {
			s.values = append(s.values, v)
		}
		return cap(s.values) - before
	}
	grown := s.count(v, n) - before
	if before > 0 {
		grown += s.count(slices.Min(s.values), 0) + s.count(slices.Max(s.values), 0)
		for _, v := range s.values {
			grown += s.count(v, 1)
		}
		*m = append(*m, s.values[:0])
	}
	s.values, s.many = nil, true
	return grown
}

// count adds a value to its bucket n times.
func (s *sketch) count(v float64, n uint32) int {
	b := int(math.Float64bits(math.Abs(v)) >> (52 - mantissa))
	switch {
	case v == 0:
		s.zeros += int(n)
		return 0
	case v < 0:
		return s.negative.add(b, n)
	default:
		return s.positive.add(b, n)
	}
}

func (h *buckets) add(b int, n uint32) int {
	more := 0
	if b < h.low || b >= h.low+len(h.counts) {
		more = h.cover(b)
	}
	h.counts[b-h.low] += min(n, math.MaxUint32-h.counts[b-h.low])
	return more
}

// cover makes room for a bucket and those of all values between the same powers of two. It returns how many cells that takes.
func (h *buckets) cover(b int) int {
	lo := b &^ (1<<mantissa - 1)
	hi := lo + 1<<mantissa
	if h.counts != nil {
		lo, hi = min(lo, h.low), max(hi, h.low+len(h.counts))
	}
	counts := make([]uint32, hi-lo)
	copy(counts[max(h.low-lo, 0):], h.counts)
	more := len(counts) - len(h.counts)
	h.low, h.counts = lo, counts
	return more / 2
}

// middle returns the value that stands for a bucket.
func middle(b int) float64 {
	lo := math.Float64frombits(uint64(b) << (52 - mantissa))
	hi := math.Float64frombits(uint64(b+1) << (52 - mantissa))
	if math.IsInf(lo, 0) || math.IsInf(hi, 0) || math.IsNaN(hi) {
		return lo
	}
	return lo + (hi-lo)/2
}

// quantile returns the value below which a share q of all values is, between two of them in proportion; NaN without any.
func (s *sketch) quantile(q float64) float64 {
	slices.Sort(s.values)
	n := s.total()
	if n == 0 {
		return math.NaN()
	}
	rank := q * float64(n-1)
	lo, hi := s.nth(int(math.Floor(rank))), s.nth(int(math.Ceil(rank)))
	if lo == hi {
		return lo
	}
	return lo + (hi-lo)*(rank-math.Floor(rank))
}

func (s *sketch) total() int {
	n := len(s.values) + s.zeros
	for _, h := range []*buckets{&s.negative, &s.positive} {
		for _, c := range h.counts {
			n += int(c)
		}
	}
	return n
}

// nth returns the value that n values are smaller than.
func (s *sketch) nth(n int) float64 {
	if !s.many {
		return s.values[n]
	}
	for i, c := range slices.Backward(s.negative.counts) {
		if n -= int(c); n < 0 {
			return -middle(s.negative.low + i)
		}
	}
	if n -= s.zeros; n < 0 {
		return 0
	}
	for i, c := range s.positive.counts {
		if n -= int(c); n < 0 {
			return middle(s.positive.low + i)
		}
	}
	return math.NaN()
}
