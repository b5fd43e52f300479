// Package logql answers LogQL: queries for lines, and for numbers computed from lines.
//
//	e, err := logql.Parse(`sum by (app) (rate({env="prod"} |= "timeout" | json | status >= 500 [5m]))`)
//	eng := logql.Engine{Limits: logql.DefaultLimits(), Now: now}
//	r, err := eng.Metric(ctx, view, logql.MetricQuery{Tenant: t, Expr: e, Start: start, End: end, Step: step})
//
// Package syntax has the language, package pipeline what stages do to a line. This package decides what the store can do
// of a query (selectors, filters of lines, which columns to read), and computes the rest: row by row for lines, and over
// whole blocks of templates and columns for metrics where package columns can tell that it comes to the same.
package logql

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

type (
	// Expr is a parsed query.
	Expr = syntax.Expr
	// Error is a mistake in a query.
	Error = syntax.Error
	// Label is a name and a value.
	Label = pipeline.Label
)

// Parse reads a query. Errors are of the type *Error.
func Parse(s string) (Expr, error) { return syntax.Parse(s) }

// ParseSelector reads a stream selector, such as {app="shop"}, and nothing behind it. Errors are of the type *Error.
func ParseSelector(s string) ([]*labels.Matcher, error) { return syntax.ParseSelector(s) }

// Format returns the query laid out in lines.
func Format(e Expr) string { return syntax.Format(e) }

// Limits bound what a query costs.
type Limits struct {
	// Series is how many series the result of a metric query may have.
	Series int
	// Points is how many steps a range query may have.
	Points int
	// Bytes is how many bytes of parts a query may read; 0 for any.
	Bytes int64
}

// DefaultLimits allows 500 series, 11,000 steps and any number of bytes.
func DefaultLimits() Limits { return Limits{Series: 500, Points: 11_000} }

const (
	// maxGroups bounds the series in the middle of a computation.
	maxGroups = 200_000
	// maxCells bounds series times steps in the middle of a computation.
	maxCells = 8_000_000
	// maxSamples bounds the values that quantiles and counters keep.
	maxSamples = 50_000_000
)

// Engine answers queries. It has no state: a value may be copied and used concurrently.
type Engine struct {
	Limits Limits
	// Now is the time that templates tell as now; nil is 1970.
	Now func() time.Time
	// Rows makes metric queries go row by row only: what tests compare with.
	Rows bool
}

// Stats is what a query cost.
type Stats struct {
	Lines    int64 // looked at
	Bytes    int64 // of parts, decoded
	Blocks   int64 // opened
	Returned int64 // lines or points
}

// meter tells what was read through a view since it was made.
type meter struct {
	view   storage.View
	before storage.ReadStats
	limit  int64
	rows   int64 // that the view gave out
}

func newMeter(v storage.View, limit int64) *meter { return &meter{v, v.ReadStats(), limit, 0} }

func (m *meter) stats(returned int) Stats {
	now := m.view.ReadStats()
	return Stats{
		Lines: max(now.Rows-m.before.Rows, m.rows), Bytes: now.Bytes - m.before.Bytes,
		Blocks: now.Blocks - m.before.Blocks, Returned: int64(returned),
	}
}

// logs reads rows, no more of them than the query may read altogether.
func (m *meter) logs(ctx context.Context, q storage.LogQuery) iter.Seq2[*storage.LogBlock, error] {
	return func(yield func(*storage.LogBlock, error) bool) {
		if m.limit > 0 {
			q.MaxBytes = m.limit - (m.view.ReadStats().Bytes - m.before.Bytes)
			if q.MaxBytes <= 0 {
				yield(nil, m.over())
				return
			}
		}
		for b, err := range m.view.Logs(ctx, q) {
			if errors.Is(err, storage.ErrReadLimit) {
				err = m.over()
			}
			if err == nil {
				m.rows += int64(b.Len())
			}
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

func (m *meter) over() error {
	return limitf("the query read more than %d bytes of parts, which is the limit (loki.max_bytes): narrow its time range or its selector, or look for a text that few lines have", m.limit)
}

// stopped returns what says that a query need not go on.
func stopped(ctx context.Context) func() bool { return func() bool { return ctx.Err() != nil } }

// limitf returns an error of a query that is over a limit.
func limitf(format string, args ...any) error {
	return httpapi.Errorf(httpapi.QueryLimit, format, args...)
}

var errNotLines = errors.New("the query is for numbers, and lines are wanted")
