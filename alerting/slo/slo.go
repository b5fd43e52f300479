// Package slo turns service level objectives into recording rules and multi-window, multi-burn-rate alerts, and tells
// how much of their error budgets is left.
//
// An objective says which share of events is to be good over a period: the objective 99.9 % over 30 days leaves an
// error budget of 0.1 % of the events. The burn rate is the ratio of bad events over a window divided by the budget:
// at 1 the budget lasts exactly the period. An alert fires when the burn rate over a long window and over a short one
// are both above a factor: the long one says that it matters, the short one that it goes on. (Google, The Site
// Reliability Workbook, chapter 5, "Alerting on SLOs".)
//
// Events are counted by PromQL, or they are spans, which the store counts: see Counter.
package slo

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// SLO is one objective.
type SLO struct {
	Name        string // unique
	Service     string
	Description string
	Objective   float64 // the share of good events, between 0 and 1
	Period      time.Duration
	Labels      map[string]string // of the recorded series and of alerts
	Annotations map[string]string // of alerts
	NoAlerts    bool
	SLI         SLI

	File string
	Line int
}

// Budget returns the share of events that may be bad.
func (s *SLO) Budget() float64 {
	// The nearest decimal: 1-0.999 is not 0.001 in binary.
	v, err := strconv.ParseFloat(strconv.FormatFloat(1-s.Objective, 'f', 12, 64), 64)
	if err != nil {
		return 1 - s.Objective
	}
	return v
}

// SLI counts events: exactly one of its fields is set.
type SLI struct {
	Metrics *MetricSLI
	Spans   *SpanSLI
}

// MetricSLI counts by PromQL. Each expression gives one number for the events in a window, which it names as $window;
// exactly one of Good and Bad is set.
type MetricSLI struct{ Good, Bad, Total string }

// SpanSLI counts spans, at the time of their start; exactly one of Good and Bad is set. Good and bad spans are those of
// Total that match as well.
type SpanSLI struct {
	Total     Filter
	Good, Bad *Filter
}

// Filter matches spans; what is empty matches any.
type Filter struct {
	Service     string
	Name        string
	Kind        string // server, client, ...
	Status      string // unset, ok or error
	MinDuration time.Duration
	MaxDuration time.Duration
	Attributes  map[string]string // of the span, its scope or its resource
}

// Predicate returns what the filter compiles to.
func (f *Filter) Predicate() storage.Predicate {
	var out storage.And
	equal := func(v string) *labels.Matcher { return labels.MustNewMatcher(labels.MatchEqual, "", v) }
	if f.Service != "" {
		out = append(out, storage.AttrMatch{Scope: storage.ResourceScope, M: labels.MustNewMatcher(labels.MatchEqual, "service.name", f.Service)})
	}
	if f.Name != "" {
		out = append(out, storage.FieldMatch{Field: storage.SpanName, M: equal(f.Name)})
	}
	if f.Kind != "" {
		out = append(out, storage.FieldMatch{Field: storage.SpanKindField, M: equal(f.Kind)})
	}
	if f.Status != "" {
		out = append(out, storage.FieldMatch{Field: storage.SpanStatus, M: equal(f.Status)})
	}
	if f.MinDuration > 0 || f.MaxDuration > 0 {
		r := storage.DurationRange{Min: int64(f.MinDuration), Max: math.MaxInt64}
		if f.MaxDuration > 0 {
			r.Max = int64(f.MaxDuration)
		}
		out = append(out, r)
	}
	for k, v := range f.Attributes {
		out = append(out, storage.AttrMatch{M: labels.MustNewMatcher(labels.MatchEqual, k, v)})
	}
	return out
}

// Bad returns the predicate of the spans that are counted as bad.
func (s *SpanSLI) bad() storage.Predicate {
	if s.Bad != nil {
		return storage.And{s.Total.Predicate(), s.Bad.Predicate()}
	}
	return storage.And{s.Total.Predicate(), storage.Not{P: s.Good.Predicate()}}
}

// BadSpans returns what the spans match that spoil the objective: those counted as bad or, of an objective on metrics,
// the failed ones of its service.
func (s *SLO) BadSpans() storage.Predicate {
	if s.SLI.Spans != nil {
		return s.SLI.Spans.bad()
	}
	f := Filter{Service: s.Service, Status: telemetry.StatusError.String()}
	return f.Predicate()
}

// Severity says what an alert asks for.
type Severity string

// The severities of burn alerts.
const (
	Page   Severity = "page"
	Ticket Severity = "ticket"
)

// Window is one pair of windows of a burn alert.
type Window struct {
	Long, Short time.Duration
	// BudgetPercent is how much of the budget is gone when the alert has fired for Long at its factor.
	BudgetPercent float64
	Severity      Severity
}

// Factor returns the burn rate above which the alert fires: at that rate Long uses up BudgetPercent of the budget. Over
// 30 days the factors are 14.4, 6, 3 and 1.
func (w Window) Factor(period time.Duration) float64 {
	return w.BudgetPercent / 100 * float64(period) / float64(w.Long)
}

// Windows returns the pairs of windows, the most urgent first.
func Windows() []Window {
	const day = 24 * time.Hour
	return []Window{
		{Long: time.Hour, Short: 5 * time.Minute, BudgetPercent: 2, Severity: Page},
		{Long: 6 * time.Hour, Short: 30 * time.Minute, BudgetPercent: 5, Severity: Page},
		{Long: day, Short: 2 * time.Hour, BudgetPercent: 10, Severity: Ticket},
		{Long: 3 * day, Short: 6 * time.Hour, BudgetPercent: 10, Severity: Ticket},
	}
}

// scaled is a duration divided by the scale, in whole milliseconds.
func scaled(d time.Duration, scale float64) time.Duration {
	return max(time.Duration(float64(d)/scale).Round(time.Millisecond), time.Millisecond)
}

func promDuration(d time.Duration) string { return model.Duration(d).String() }

// Expr returns the PromQL of the ratio of bad events over a window. It has no value while there are no events.
func (s *SLO) Expr(window time.Duration) string {
	bad, total := s.Counts(window)
	return "(" + bad + ") / ((" + total + ") > 0)"
}

// Counts returns the PromQL of the number of bad events, and of all, over a window.
func (s *SLO) Counts(window time.Duration) (bad, total string) {
	w := promDuration(window)
	if m := s.SLI.Metrics; m != nil {
		in := func(expr string) string { return strings.ReplaceAll(expr, windowVariable, w) }
		total = in(m.Total)
		if m.Bad != "" {
			// No bad event may have happened yet, and then there is no series.
			return "(" + in(m.Bad) + ") or 0 * (" + total + ")", total
		}
		return "(" + total + ") - ((" + in(m.Good) + ") or 0 * (" + total + "))", total
	}
	of := func(outcome string) string {
		return fmt.Sprintf("sum by () (sum_over_time(%s{slo=%q,outcome=%q}[%s]))", SpansMetric, s.Name, outcome, w)
	}
	return of(outcomeBad), of(outcomeTotal)
}
