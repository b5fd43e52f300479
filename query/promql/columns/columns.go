// Package columns computes the expensive shapes of PromQL on columns of samples instead of one sample at a time.
//
//	plan := columns.Rewrite(stmt, columns.Options{SubqueryStep: step, MaxSamples: n})
//	set, ok := plan.Select(ctx, matchers, source, samples) // in Querier.Select: ok when the engine asks for a shape
//	plan.Settle(samples)                                   // once the query has been evaluated
//
// Rewrite finds sub-expressions of a preprocessed statement that it knows (a function over a range of a selector or, at
// several steps, a selector, alone or under an aggregation) and puts a synthetic selector in the place of each. When
// the engine evaluates the selector, the shape is computed from storage.SeriesReader.Columns, and the engine gets
// series that have at each step of the evaluation either the value of the shape or a staleness marker. All that is
// above the shape (operators, joins, histogram_quantile, topk, subqueries) stays with the engine.
//
// The answer is that of the engine without the rewrite: the same labels in the same order, the same values up to the
// order in which the members of a group are added (which compensated summation keeps below 1e-12 of the value), the
// same annotations, the same statistics but for the peak of samples in memory, which is lower. What the package cannot
// answer like the engine it leaves alone, or, where only the data tell, reports as Unfit; see Plan.Without.
//
// A Plan serves one query and is not safe for concurrent use.
package columns

import (
	"context"
	"errors"
	"math"

	"github.com/prometheus/prometheus/model/value"

	"github.com/braidobs/braid/storage"
)

// Source calls f for each series that q selects, as storage.SeriesReader.Columns does; the tenant is the source's
// business. It returns ErrForeign for series that have no columns.
type Source func(ctx context.Context, q storage.SeriesQuery, f func(*storage.SeriesBlock) error) error

// ErrForeign is returned by a Source for matchers that ask for series which are not in the store.
var ErrForeign = errors.New("the series are not in the store")

// Unfit is the error of a query whose data a shape cannot answer for: native histograms among the samples, metadata in
// labels, series from elsewhere. The query is right without the shape.
type Unfit struct {
	key    string
	Reason string
}

// Error tells the reason.
func (u *Unfit) Error() string { return "not computable on columns: " + u.Reason }

// Grid is the times at which an expression is evaluated: Start, Start+Step and so on up to End, in milliseconds.
type Grid struct{ Start, End, Step int64 }

// Len returns the number of steps, 0 when the end is before the start.
func (g Grid) Len() int {
	if g.End < g.Start {
		return 0
	}
	return int((g.End-g.Start)/g.Step) + 1
}

// absent stands for "no value at this step" in a row of values. No shape has it as its value, since none reads it.
func absent() float64 { return math.Float64frombits(value.StaleNaN) }

// isAbsent tells whether v stands for no value.
func isAbsent(v float64) bool { return v != v && math.Float64bits(v) == value.StaleNaN }
