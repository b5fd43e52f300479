package spanmetrics

import (
	"time"

	promstorage "github.com/prometheus/prometheus/storage"
)

// The steps of a grid, in milliseconds.
const (
	fineStep = int64(15 * time.Second / time.Millisecond)
	// manySteps is when a coarser grid is looked for.
	manySteps = 1500
	// lookbackStep is the coarsest grid for those who ask for the value at a time.
	lookbackStep = int64(time.Minute / time.Millisecond)
)

// grid is the times, in milliseconds, at which counters have samples: at each step, and once more a millisecond later with
// the same value. So a range that begins and ends at steps holds, as it leaves out its beginning, both values there, and the
// difference is what happened in between.
type grid struct {
	origin int64 // counters are zero here
	step   int64
	n      int   // steps after the origin
	lo, hi int64 // samples are from lo to hi, both included
}

// newGrid returns the grid of a query: it ends where the query ends, so that windows whose length and distance are multiples of
// the step begin and end on the grid. It is finer than the ranges that hints tell of, unless all that matters is what happened
// in one of them.
func newGrid(start, end int64, hints *promstorage.SelectHints) grid {
	step, anchor := fineStep, int64(0)
	var length, every int64
	if hints != nil {
		length, every = hints.Range, hints.Step
	}
	if length > 0 {
		anchor = end
	}
	if length > 1 && end-start == length-1 && (hints.Func == "increase" || hints.Func == "rate") {
		return gridOf(start, end, length, anchor) // one window, of which only both ends matter
	}
	if (end-start)/step > manySteps {
		for _, s := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour} {
			s := s.Milliseconds()
			fits := s <= lookbackStep
			if length > 0 {
				fits = 4*s <= length && length%s == 0 && every%s == 0
			}
			if !fits {
				break
			}
			if step = s; (end-start)/step <= manySteps {
				break
			}
		}
	}
	return gridOf(start, end, step, anchor)
}

// gridOf returns the grid with steps at a distance of whole steps from anchor.
func gridOf(start, end, step, anchor int64) grid {
	floor := func(t int64) int64 { // to the last step
		d := (t - anchor) % step
		if d < 0 {
			d += step
		}
		return t - d
	}
	g := grid{origin: floor(start - 1), step: step, lo: start, hi: end}
	g.n = max(int((floor(end)-g.origin)/step), 0)
	return g
}

// bucket returns the number of the step in which something ended, in nanoseconds, or -1 when it is not on the grid.
func (g grid) bucket(nanos int64) int {
	start, end := g.nanos()
	if nanos < start || nanos > end {
		return -1
	}
	return int((nanos - start) / (g.step * 1e6))
}

// times returns the first and the last point of the grid between lo and hi.
func (g grid) times() (first, last int) {
	first, last = 0, 2*g.n+1
	for first <= last && g.time(first) < g.lo {
		first++
	}
	for last >= first && g.time(last) > g.hi {
		last--
	}
	return first, last
}

// time returns when point i is.
func (g grid) time(i int) int64 { return g.origin + int64(i/2)*g.step + int64(i%2) }

// nanos returns the range of time whose spans are counted.
func (g grid) nanos() (start, end int64) {
	return g.origin*1e6 + 1, (g.origin + int64(g.n)*g.step) * 1e6
}
