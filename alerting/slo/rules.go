package slo

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"

	"github.com/braidobs/braid/alerting/rules"
)

// Names of what is recorded. They are those that sloth made known, so that its dashboards need only a change of labels.
const (
	RatioMetric     = "slo:sli_error:ratio_rate" // and the window, as in slo:sli_error:ratio_rate5m
	ObjectiveMetric = "slo:objective:ratio"
	BudgetMetric    = "slo:error_budget:ratio"
	RemainingMetric = "slo:period_error_budget_remaining:ratio"
	// AlertName is the name of burn alerts; the objective stands in the label slo.
	AlertName = "SLOErrorBudgetBurn"
)

// Labels of the recorded series and of alerts.
const (
	LabelSLO      = "slo"
	LabelService  = "service"
	LabelSeverity = "severity"
)

const (
	minInterval = 100 * time.Millisecond
	// interval and periodInterval are how often windows and whole periods are evaluated, at scale 1.
	interval       = 30 * time.Second
	periodInterval = 5 * time.Minute
)

// Options say how objectives turn into rules.
type Options struct {
	// Scale shortens all windows and periods, for tests and demonstrations: at 60 an hour is a minute. Names keep the
	// true windows.
	Scale float64
}

// labels returns the labels of what is recorded for an objective.
func (s *SLO) labels() map[string]string {
	out := map[string]string{LabelSLO: s.Name}
	if s.Service != "" {
		out[LabelService] = s.Service
	}
	maps.Copy(out, s.Labels)
	return out
}

// selector returns a selector of a recorded series of the objective.
func (s *SLO) selector(metric string) string {
	return fmt.Sprintf("%s{%s=%q}", metric, LabelSLO, s.Name)
}

// distinct returns the different windows, short ones first in each pair.
func distinct() []time.Duration {
	var out []time.Duration
	seen := make(map[time.Duration]bool)
	for _, w := range Windows() {
		for _, d := range []time.Duration{w.Short, w.Long} {
			if !seen[d] {
				seen[d] = true
				out = append(out, d)
			}
		}
	}
	return out
}

// Rules returns the rule groups of an objective: one of its windows with the alerts over them, and a slower one of its
// period.
func (s *SLO) Rules(o Options) rules.Generated {
	every := func(d time.Duration) model.Duration { return model.Duration(max(scaled(d, o.Scale), minInterval)) }
	burn := rulefmt.RuleGroup{Name: "slo " + s.Name, Interval: every(interval)}
	period := rulefmt.RuleGroup{Name: "slo " + s.Name + " period", Interval: every(periodInterval)}
	record := func(g *rulefmt.RuleGroup, name, expr string) {
		g.Rules = append(g.Rules, rulefmt.Rule{Record: name, Expr: expr, Labels: s.labels()})
	}
	for _, w := range distinct() {
		record(&burn, RatioMetric+promDuration(w), s.Expr(scaled(w, o.Scale)))
	}
	if !s.NoAlerts {
		for _, severity := range []Severity{Page, Ticket} {
			burn.Rules = append(burn.Rules, s.alert(severity))
		}
	}
	record(&period, ObjectiveMetric, "vector("+number(s.Objective)+")")
	record(&period, BudgetMetric, "vector("+number(s.Budget())+")")
	record(&period, RatioMetric+promDuration(s.Period), s.Expr(scaled(s.Period, o.Scale)))
	record(&period, RemainingMetric, "1 - "+s.selector(RatioMetric+promDuration(s.Period))+" / "+number(s.Budget()))
	return rules.Generated{Name: "slo:" + s.Name, Groups: []rulefmt.RuleGroup{burn, period}}
}

// alert returns the alert of a severity: the burn rates of both windows of one of its pairs are above the pair's factor.
func (s *SLO) alert(severity Severity) rulefmt.Rule {
	var pairs []string
	for _, w := range Windows() {
		if w.Severity != severity {
			continue
		}
		limit := " > (" + number(w.Factor(s.Period)) + " * " + number(s.Budget()) + ")"
		of := func(d time.Duration) string { return s.selector(RatioMetric+promDuration(d)) + limit }
		pairs = append(pairs, "("+of(w.Long)+" and "+of(w.Short)+")")
	}
	r := rulefmt.Rule{
		Alert: AlertName, Expr: strings.Join(pairs, " or "), Labels: s.labels(),
		Annotations: map[string]string{
			"summary": s.Name + " burns its error budget",
			"description": fmt.Sprintf("{{ $value | humanizePercentage }} of the events of %s are bad; its objective of %s%% over %s allows %s%%.",
				s.Name, number(s.Objective*100), promDuration(s.Period), number(s.Budget()*100)),
		},
	}
	r.Labels[LabelSeverity] = string(severity)
	maps.Copy(r.Annotations, s.Annotations)
	return r
}

func number(f float64) string {
	v, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', 12, 64), 64)
	if err != nil {
		v = f
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}
