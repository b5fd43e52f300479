package columns

import (
	"math"

	"github.com/prometheus/prometheus/util/kahansum"
)

// function is what is computed of the samples of one series inside a window.
type function uint8

// The functions. The instant selector is one, too: the last sample inside the lookback.
const (
	selector function = iota
	rate
	increase
	delta
	irate
	idelta
	sumOverTime
	avgOverTime
	minOverTime
	maxOverTime
	countOverTime
	lastOverTime
	presentOverTime
)

// functionOf returns the function with a name in PromQL.
func functionOf(name string) (function, bool) {
	switch name {
	case "rate":
		return rate, true
	case "increase":
		return increase, true
	case "delta":
		return delta, true
	case "irate":
		return irate, true
	case "idelta":
		return idelta, true
	case "sum_over_time":
		return sumOverTime, true
	case "avg_over_time":
		return avgOverTime, true
	case "min_over_time":
		return minOverTime, true
	case "max_over_time":
		return maxOverTime, true
	case "count_over_time":
		return countOverTime, true
	case "last_over_time":
		return lastOverTime, true
	case "present_over_time":
		return presentOverTime, true
	default:
		return 0, false
	}
}

// dropsName tells whether the name of the metric goes.
func (f function) dropsName() bool { return f != selector && f != lastOverTime }

// counter tells whether falling values are resets.
func (f function) counter() bool { return f == rate || f == increase }

// extrapolates tells whether f is extrapolated to the ends of its range.
func (f function) extrapolates() bool { return f == rate || f == increase || f == delta }

// kernel computes a function of one series after the other.
type kernel struct {
	f      function
	span   *span
	resets []int32   // where a value is less than the one before it
	prefix []float64 // the sum of the values before each
}

// apply sets row to the values of f for each window over the samples of one series, absent where there is none. The
// values hold no staleness markers, unless f is the selector, which reads them.
func (k *kernel) apply(times []int64, values []float64, w []window, row []float64) {
	row = row[:len(w)]
	switch k.f {
	case selector, lastOverTime: // the last sample is stale or it is the value
		none := absent()
		for i := range w {
			if x := &w[i]; x.hi > x.lo {
				row[i] = values[x.hi-1]
			} else {
				row[i] = none
			}
		}
	case rate, increase, delta:
		k.extrapolated(values, w, row)
	case irate, idelta:
		k.lastTwo(times, values, w, row)
	case sumOverTime, avgOverTime:
		k.sums(values, w, row)
	case minOverTime:
		each(values, w, row, smallest)
	case maxOverTime:
		each(values, w, row, largest)
	case countOverTime:
		each(values, w, row, func(v []float64) float64 { return float64(len(v)) })
	case presentOverTime:
		each(values, w, row, func([]float64) float64 { return 1 })
	}
}

// extrapolated computes rate, increase and delta. What was seen is the difference of the last and the first value and,
// for counters, the value before each reset in between, which are looked up and not searched for.
func (k *kernel) extrapolated(values []float64, w []window, row []float64) {
	none := absent()
	counter := k.f.counter()
	resets := k.resets[:0]
	if counter {
		for i := 1; i < len(values); i++ {
			if values[i] < values[i-1] {
				resets = append(resets, int32(i))
			}
		}
		k.resets = resets
	}
	for i := range w {
		x := &w[i]
		if x.hi-x.lo < 2 {
			row[i] = none
			continue
		}
		first := values[x.lo]
		seen := values[x.hi-1] - first
		if len(resets) > 0 {
			for len(resets) > 0 && resets[0] <= x.lo {
				resets = resets[1:]
			}
			for _, r := range resets {
				if r >= x.hi {
					break
				}
				seen += values[r-1]
			}
		}
		factor := x.factor
		// A counter was not below zero: it is not extrapolated further back than where it would have been zero. The
		// division is needed only when the product comes near.
		if counter && seen > 0 && first >= 0 && !(x.covered*first > x.toStart*seen*(1+1e-9)) {
			if zero := x.covered * (first / seen); zero < x.toStart {
				factor = k.span.scale(x, zero)
			}
		}
		row[i] = seen * factor
	}
}

// lastTwo computes irate and idelta.
func (k *kernel) lastTwo(times []int64, values []float64, w []window, row []float64) {
	none := absent()
	for i := range w {
		x := &w[i]
		if x.hi-x.lo < 2 {
			row[i] = none
			continue
		}
		prev, v := values[x.hi-2], values[x.hi-1]
		if k.f == idelta || !(v < prev) {
			v -= prev
		}
		if k.f == irate {
			v /= float64(times[x.hi-1]-times[x.hi-2]) / 1000
		}
		row[i] = v
	}
}

// exact is the bound below which all sums of whole numbers are exact.
const exact = 1 << 53

// sums computes sum_over_time and avg_over_time. Sums of whole numbers are the differences of sums from the start: they
// are exact, so they are those of the engine.
func (k *kernel) sums(values []float64, w []window, row []float64) {
	read := 0
	for i := range w {
		read += int(w[i].hi - w[i].lo)
	}
	if read < 2*len(values) || !k.sumWhole(values) {
		if k.f == sumOverTime {
			each(values, w, row, sum)
		} else {
			each(values, w, row, mean)
		}
		return
	}
	none := absent()
	for i := range w {
		switch x := &w[i]; {
		case x.hi == x.lo:
			row[i] = none
		case k.f == sumOverTime:
			row[i] = k.prefix[x.hi] - k.prefix[x.lo]
		default:
			row[i] = (k.prefix[x.hi] - k.prefix[x.lo]) / float64(x.hi-x.lo)
		}
	}
}

// sumWhole sums up the values; it is false when they are not whole numbers or become too large.
func (k *kernel) sumWhole(values []float64) bool {
	k.prefix = append(k.prefix[:0], 0)
	var s, size float64
	for _, v := range values {
		if v != math.Trunc(v) {
			return false
		}
		s += v
		size += math.Abs(v)
		k.prefix = append(k.prefix, s)
	}
	return size < exact // an infinity is not, either
}

// each computes f of the values in each window.
func each(values []float64, w []window, row []float64, f func([]float64) float64) {
	none := absent()
	for i := range w {
		if x := &w[i]; x.hi > x.lo {
			row[i] = f(values[x.lo:x.hi])
		} else {
			row[i] = none
		}
	}
}

func sum(v []float64) float64 {
	var s, c float64
	for _, x := range v {
		s, c = kahansum.Inc(x, s, c)
	}
	if math.IsInf(s, 0) {
		return s
	}
	return s + c
}

// mean divides the sum, or, where the sum overflows, goes on from mean to mean.
func mean(v []float64) float64 {
	s, c, n := v[0], 0., 1.
	running := false
	for i, x := range v[1:] {
		n = float64(i + 2)
		if !running {
			t, d := kahansum.Inc(x, s, c)
			if !math.IsInf(t, 0) {
				s, c = t, d
				continue
			}
			running = true
			s /= n - 1
			c /= n - 1
		}
		q := (n - 1) / n
		s, c = kahansum.Inc(x/n, q*s, q*c)
	}
	if running {
		return s + c
	}
	return s/n + c/n
}

func smallest(v []float64) float64 {
	m := v[0]
	for _, x := range v {
		if x < m || m != m {
			m = x
		}
	}
	return m
}

func largest(v []float64) float64 {
	m := v[0]
	for _, x := range v {
		if x > m || m != m {
			m = x
		}
	}
	return m
}
