package columns

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/util/kahansum"

	"github.com/braidobs/braid/internal/telemetry"
)

// operator is how the series of a group become one.
type operator uint8

// The operators. With none each series stays.
const (
	none operator = iota
	opSum
	opAvg
	opMin
	opMax
	opCount
	opGroup
)

// accumulator is what an operator knows of one group at one step.
type accumulator struct {
	v, c float64 // the sum or mean with its compensation, or the extreme
	n    float64 // members; negative once the sum of a mean has overflown, and then v is the mean
}

// add takes the values of one more series of the group.
func (op operator) add(acc []accumulator, row []float64) {
	acc = acc[:len(row)]
	switch op {
	case opSum:
		for i, v := range row {
			if v != v && isAbsent(v) {
				continue
			}
			if a := &acc[i]; a.n == 0 {
				a.v, a.n = v, 1
			} else {
				a.v, a.c = kahansum.Inc(v, a.v, a.c)
			}
		}
	case opAvg:
		for i, v := range row {
			if v != v && isAbsent(v) {
				continue
			}
			acc[i].mean(v)
		}
	case opMin:
		for i, v := range row {
			if v != v && isAbsent(v) {
				continue
			}
			if a := &acc[i]; a.n == 0 || a.v > v || a.v != a.v {
				a.v, a.n = v, 1
			}
		}
	case opMax:
		for i, v := range row {
			if v != v && isAbsent(v) {
				continue
			}
			if a := &acc[i]; a.n == 0 || a.v < v || a.v != a.v {
				a.v, a.n = v, 1
			}
		}
	case opCount, opGroup:
		for i, v := range row {
			if v == v || !isAbsent(v) {
				acc[i].n++
			}
		}
	case none:
	}
}

// mean adds to the sum, or, once the sum would overflow, goes on from mean to mean.
func (a *accumulator) mean(v float64) {
	if a.n == 0 {
		a.v, a.n = v, 1
		return
	}
	if a.n > 0 {
		s, c := kahansum.Inc(v, a.v, a.c)
		if !math.IsInf(s, 0) {
			a.v, a.c = s, c
			a.n++
			return
		}
		a.v /= a.n
		a.c /= a.n
		a.n = -a.n
	}
	n := 1 - a.n
	q := (n - 1) / n
	a.v, a.c = kahansum.Inc(v/n, q*a.v, q*a.c)
	a.n = -n
}

// value returns what the group is at one step.
func (op operator) value(a *accumulator) float64 {
	switch {
	case a.n == 0:
		return absent()
	case op == opSum:
		return a.v + a.c
	case op == opAvg && a.n < 0:
		return a.v + a.c
	case op == opAvg:
		return a.v/a.n + a.c/a.n
	case op == opCount:
		return a.n
	case op == opGroup:
		return 1
	default:
		return a.v
	}
}

// group is a series of the result.
type group struct {
	labels telemetry.LabelSet // of the group
	order  telemetry.LabelSet // of its first member: groups come in the order in which the engine would meet them
	acc    []accumulator      // with an operator
	row    []float64          // a value or absent for each step
}

// sortGroups puts groups in the order of their first members.
func sortGroups(gs []group) {
	before := func(a, b group) int { return compare(string(a.order), string(b.order)) }
	if !slices.IsSortedFunc(gs, before) {
		slices.SortFunc(gs, before)
	}
}
