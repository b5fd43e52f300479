package traceql

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/rows"
)

// clock tells in which point of the grid the rows of a block are.
type clock struct {
	g      grid
	starts []int64 // nil when all rows are in one point
	point  int     // of the row that was asked for last
	lo, hi int64   // what starts behind lo, up to hi, is in it
}

// clock reads the starts of a block only when they make a difference. Its rows in the range of the query can be asked for.
func (c *computation) clock(b *rows.Block) (k clock, err error) {
	k.g = c.grid
	k.turn(k.g.base + 1)
	from, to := b.Bounds()
	if from > k.g.base && from <= k.g.time(k.g.n-1) {
		k.turn(from)
		if to <= k.hi {
			return k, nil
		}
	}
	k.starts, err = b.Starts()
	return k, err
}

func (k *clock) turn(t int64) {
	k.point = k.g.point(t)
	k.lo = k.g.base + int64(k.point)*k.g.step
	k.hi = k.lo + k.g.step
}

// of returns the point of a row.
func (k *clock) of(row int) int {
	if k.starts != nil {
		if t := k.starts[row]; t <= k.lo || t > k.hi {
			k.turn(t)
		}
	}
	return k.point
}

// span returns the first of the points in which the rows of a block can be, and how many these are.
func (k *clock) span(b *rows.Block) (first, n int) {
	if k.starts == nil {
		return k.point, 1
	}
	from, to := b.Bounds()
	first = k.g.point(max(from, k.g.base+1))
	return first, k.g.point(min(to, k.g.time(k.g.n-1))) - first + 1
}

// tally counts the spans of a block by point and code, before they are added to their groups. It is memory that is used again.
type tally struct {
	counts []uint32 // by point, then by code
	more   []uint32 // a part of those of the first point
	least  []uint64 // how the smallest trace ID of an exemplar begins that the cell has; 0 for cells without spans
}

// tally counts the rows of set, each as one span, and says whether it did: not when there would be more cells than rows. The group of
// a row is table[codes[row]]-1, without a table codes[row], without codes 0.
func (a *accumulator) tally(b *rows.Block, set rows.Set, codes, table []uint32) (bool, error) {
	kinds := 1
	switch {
	case table != nil:
		kinds = len(table)
	case codes != nil:
		kinds = a.by.len()
	}
	k, err := a.c.clock(b)
	if err != nil {
		return false, err
	}
	first, n := k.span(b)
	if n > b.Len() || kinds > b.Len() || n*kinds > b.Len() {
		return false, nil
	}
	t := &a.tallies
	t.counts = cleared(t.counts, n*kinds)
	switch {
	case k.starts != nil:
		for w, word := range set {
			for ; word != 0; word &= word - 1 {
				i := w<<6 + bits.TrailingZeros64(word)
				cell := (k.of(i) - first) * kinds
				if codes != nil {
					cell += int(codes[i])
				}
				t.counts[cell]++
			}
		}
	case codes == nil:
		t.counts[0] = uint32(set.Count())
	default:
		t.codes(set, codes, kinds)
	}
	t.least = cleared(t.least, n*kinds)
	for at := range n {
		for code, count := range t.counts[at*kinds:][:kinds] {
			if count == 0 {
				continue
			}
			s, err := a.group(groupOf(code, table))
			if err != nil {
				return false, err
			}
			s.counts[first+at] += float64(count)
			t.least[at*kinds+code] = s.least(first + at)
		}
	}
	if a.c.exemplars == 0 {
		return true, nil
	}
	return true, a.sample(b, set, codes, table, &k)
}

func groupOf(code int, table []uint32) uint32 {
	if table != nil {
		return table[code] - 1
	}
	return uint32(code)
}

// cleared returns n zeros, in s if it is large enough.
func cleared[T any](s []T, n int) []T {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

// codes counts the codes of the rows of set: neighbours in two columns, since they are often equal, and to count one
// would be to wait for the other.
func (t *tally) codes(set rows.Set, codes []uint32, kinds int) {
	t.more = cleared(t.more, kinds)
	even, odd := t.counts, t.more
	for w, word := range set {
		if word == math.MaxUint64 {
			of := codes[w<<6:][:64]
			for i := 0; i < len(of)-1; i += 2 {
				even[of[i]]++
				odd[of[i+1]]++
			}
			continue
		}
		for ; word != 0; word &= word - 1 {
			even[codes[w<<6+bits.TrailingZeros64(word)]]++
		}
	}
	for code, n := range odd {
		even[code] += n
	}
}

// sample looks for exemplars of the cells that were counted: only traces whose IDs are small enough for one are looked at.
func (a *accumulator) sample(b *rows.Block, set rows.Set, codes, table []uint32, k *clock) error {
	ids, err := b.Traces()
	if err != nil {
		return err
	}
	t := &a.tallies
	first, n := k.span(b)
	kinds := len(t.least) / n
	limit, none := uint64(0), 0 // the largest among least, and how many cells have no exemplar
	for _, least := range t.least {
		limit = max(limit, least)
		if least == math.MaxUint64 {
			none++
		}
	}
	for trace := range ids {
		head := headOf(&ids[trace])
		if head > limit {
			continue
		}
		lower := false
		for i := int(b.First[trace]); i < int(b.First[trace+1]); i++ {
			if !set.Has(i) {
				continue
			}
			point, code := k.of(i), 0
			if codes != nil {
				code = int(codes[i])
			}
			least := &t.least[(point-first)*kinds+code]
			if head > *least {
				continue
			}
			starts, err := b.Starts()
			if err != nil {
				return err
			}
			a.groups[groupOf(code, table)].mark(a.c.grid.n, mark{Exemplar{starts[i], 0, ids[trace]}, point, true})
			if *least == math.MaxUint64 {
				none--
			}
			lower = lower || *least == limit
			*least = head
		}
		if lower && none <= 0 && len(t.least) <= fewCells {
			limit = slices.Max(t.least)
		}
	}
	return nil
}

// fewCells is how many cells are looked at to learn that other traces need not be.
const fewCells = 256

func headOf(id *telemetry.TraceID) uint64 { return binary.BigEndian.Uint64(id[:]) }

// least returns how the trace ID of the exemplar of a point begins: what begins with more is none.
func (s *accumulated) least(point int) uint64 {
	if s.marks == nil || s.marks[point].Trace.IsZero() {
		return math.MaxUint64
	}
	return headOf(&s.marks[point].Trace)
}
