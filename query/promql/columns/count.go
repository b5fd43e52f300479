package columns

import "github.com/prometheus/prometheus/util/stats"

// frame is a place that an expression is evaluated in, from the outside in: how often and how its samples count.
type frame struct {
	kind           frameKind
	parent, child  Grid
	offset, length int64 // of the subquery
}

type frameKind uint8

const (
	invariant frameKind = iota // evaluated once, for all steps
	argument                   // the subquery that a function takes
	matrix                     // a subquery that is the answer
)

// count adds to samples what the engine would have counted while it computed the shape, less what it counts while it
// reads the values of the shape. What is less than nothing is owed until the query has ended, for an engine that ends
// with an error must not have counted below zero.
func (p *Plan) count(u *use, samples *stats.QuerySamples) {
	s := u.shape
	total, read := make([]int64, s.grid.Len()), make([]int64, s.grid.Len())
	copy(total, s.total)
	copy(read, s.read)
	for _, g := range s.groups {
		for i, v := range g.row {
			if v == v || !isAbsent(v) {
				total[i]--
				read[i]--
			}
		}
	}
	for i := len(u.frames) - 1; i >= 0; i-- {
		total, read = u.frames[i].outward(total, read)
	}
	for i := range total {
		samples.IncrementSamplesAtStep(i, max(total[i], 0))
		samples.IncrementSamplesReadAtStep(i, max(read[i], 0))
		if total[i] < 0 || read[i] < 0 {
			p.owed = append(p.owed, debt{step: i, total: min(total[i], 0), read: min(read[i], 0)})
		}
	}
}

// debt is what was counted too much at a step.
type debt struct {
	step        int
	total, read int64
}

// Settle makes the statistics those of the engine once the query has been evaluated.
func (p *Plan) Settle(samples *stats.QuerySamples) {
	for _, d := range p.owed {
		samples.IncrementSamplesAtStep(d.step, d.total)
		samples.IncrementSamplesReadAtStep(d.step, d.read)
	}
	p.owed = nil
}

// outward turns what was counted at the steps inside the frame into what counts at the steps around it.
func (f *frame) outward(total, read []int64) (outTotal, outRead []int64) {
	steps := f.parent.Len()
	outTotal = make([]int64, steps)
	switch f.kind {
	case invariant:
		for i := range outTotal {
			outTotal[i] = all(total)
		}
		outRead = make([]int64, steps)
		outRead[0] = all(read)
		return outTotal, outRead
	case matrix:
		outTotal[steps-1] = all(total)
		return outTotal, f.merge(read, 0, 0)
	default: // the function counts the values that the subquery gave
		return outTotal, f.merge(read, f.offset, f.length)
	}
}

func (f *frame) merge(read []int64, offset, length int64) []int64 {
	child := stats.NewChildWithStepTracking(f.child.Start, f.child.End, f.child.Step)
	for i, n := range read {
		child.IncrementSamplesReadAtStep(i, n)
	}
	out := stats.NewChildWithStepTracking(f.parent.Start, f.parent.End, f.parent.Step)
	out.MergeSamplesReadFromSubquery(child, f.parent.Start, f.parent.Step, f.parent.Len(), offset, length)
	return out.SamplesReadPerStep
}

func all(counts []int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}
