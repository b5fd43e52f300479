package randpromql

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// Equal tells in what two answers differ, nil for nothing: labels, times, and values that are further apart than
// tolerance times the larger of them; one NaN is like another. The order of a vector does not count, as the engine's
// own comes from the order of a map where a binary operation or a histogram's quantile is below a subquery.
func Equal(want, got parser.Value, tolerance float64) error {
	if want.Type() != got.Type() {
		return fmt.Errorf("a %s instead of a %s", got.Type(), want.Type())
	}
	switch want := want.(type) {
	case promql.Matrix:
		got := got.(promql.Matrix)
		if len(want) != len(got) {
			return fmt.Errorf("%d series instead of %d:\n%s\ninstead of\n%s", len(got), len(want), got, want)
		}
		for i := range want {
			if err := equalSeries(&want[i], &got[i], tolerance); err != nil {
				return fmt.Errorf("series %d: %w:\n%s\ninstead of\n%s", i, err, got[i], want[i])
			}
		}
	case promql.Vector:
		got := inOrder(got.(promql.Vector))
		want = inOrder(want)
		if len(want) != len(got) {
			return fmt.Errorf("%d samples instead of %d:\n%s\ninstead of\n%s", len(got), len(want), got, want)
		}
		for i := range want {
			a, b := want[i], got[i]
			if a.Metric.String() != b.Metric.String() || a.T != b.T || (a.H == nil) != (b.H == nil) || !near(a.F, b.F, tolerance) ||
				a.H != nil && !a.H.Equals(b.H) {
				return fmt.Errorf("sample %d is %s instead of %s of\n%s\ninstead of\n%s", i, b, a, got, want)
			}
		}
	case promql.Scalar:
		if got := got.(promql.Scalar); want.T != got.T || !near(want.V, got.V, tolerance) {
			return fmt.Errorf("%s instead of %s", got, want)
		}
	default:
		if want.String() != got.String() {
			return fmt.Errorf("%s instead of %s", got, want)
		}
	}
	return nil
}

func equalSeries(want, got *promql.Series, tolerance float64) error {
	switch {
	case want.Metric.String() != got.Metric.String():
		return fmt.Errorf("labels %s instead of %s", got.Metric, want.Metric)
	case len(want.Floats) != len(got.Floats):
		return fmt.Errorf("%d values instead of %d", len(got.Floats), len(want.Floats))
	case !slices.EqualFunc(want.Histograms, got.Histograms, func(a, b promql.HPoint) bool { return a.T == b.T && a.H.Equals(b.H) }):
		return errors.New("other histograms")
	}
	for i := range want.Floats {
		if a, b := want.Floats[i], got.Floats[i]; a.T != b.T || !near(a.F, b.F, tolerance) {
			return fmt.Errorf("value %d is %v at %d instead of %v at %d", i, b.F, b.T, a.F, a.T)
		}
	}
	return nil
}

// inOrder returns the samples in the order of their labels.
func inOrder(v promql.Vector) promql.Vector {
	return slices.SortedStableFunc(slices.Values(v), func(a, b promql.Sample) int { return labels.Compare(a.Metric, b.Metric) })
}

func near(a, b, tolerance float64) bool {
	if a == b || a != a && b != b {
		return true
	}
	return math.Abs(a-b) <= tolerance*max(math.Abs(a), math.Abs(b))
}
