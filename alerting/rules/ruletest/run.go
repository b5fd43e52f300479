package ruletest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	promrules "github.com/prometheus/prometheus/rules"

	"github.com/braidobs/braid/alerting/rules"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

// Store is what a test runs against.
type Store interface {
	storage.Writer
	storage.Reader
	Close(ctx context.Context) error
}

// Runner runs test files.
type Runner struct {
	Open          func(ctx context.Context) (Store, error) // an empty store
	PromQL        promql.Config
	Run           *regexp.Regexp // of the names of the tests to run; nil for all
	IgnoreUnknown bool           // fields of rule files that are not known are no mistake
	Log           *slog.Logger   // gets what is odd but no mistake
	Now           func() time.Time
}

// File runs the tests of one file. It returns how many ran, and all that failed, each a *Failure or a mistake of a
// rule file.
func (r Runner) File(ctx context.Context, name string) (ran int, err error) {
	content, err := readFile(name)
	if err != nil {
		return 0, err
	}
	p, err := parse(name, content)
	if err != nil {
		return 0, err
	}
	files, err := p.ruleFiles(r.Log)
	if err != nil {
		return 0, err
	}
	var (
		set  *rules.Set // read for the first test that runs: without one the rules are not looked at
		errs config.Errors
	)
	for i := range p.Tests {
		if r.Run != nil && !r.Run.MatchString(p.Tests[i].Name) {
			continue
		}
		if set == nil {
			if set, err = (rules.Reading{Parser: r.PromQL.Parser(), IgnoreUnknown: r.IgnoreUnknown, Log: r.Log}).Load(files...); err != nil {
				return ran, err
			}
		}
		if err := ctx.Err(); err != nil {
			return ran, err
		}
		ran++
		errs.Add(r.test(ctx, p, i, set))
	}
	return ran, errs.Err()
}

// running is a test that runs.
type running struct {
	*test
	file   *parsed
	index  int
	parser parser.Parser
	store  Store
	ask    promrules.QueryFunc
	groups []*promrules.Group
	input  []input
	start  time.Time
	errs   config.Errors
}

// input is a series with the samples that were not written yet.
type input struct {
	labels telemetry.LabelSet
	values []sample
	before *histogram.FloatHistogram // the last that was written
}

type sample struct {
	at int64
	v  float64
	h  *histogram.FloatHistogram
}

// fail notes what is wrong with a part of the test.
func (t *running) fail(err error, part ...any) {
	line := t.file.line(append([]any{"tests", t.index}, part...)...)
	t.errs.Add(&Failure{File: t.file.name, Line: line, Test: t.Name, Err: err})
}

func (r Runner) test(ctx context.Context, p *parsed, index int, set *rules.Set) (err error) {
	store, err := r.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(context.WithoutCancel(ctx))) }()
	engine, err := promql.New(promql.Deps{Config: r.PromQL, Reader: store, Log: r.Log, SubqueryStep: time.Duration(p.EvaluationInterval)})
	if err != nil {
		return err
	}
	t := &running{
		test: &p.Tests[index], file: p, index: index, parser: engine.Parser(), store: store,
		ask: rules.Query(engine, telemetry.DefaultTenant), start: time.Unix(0, 0).UTC(),
	}
	if !t.StartTimestamp.IsZero() {
		t.start = t.StartTimestamp.Time
	}
	t.prepare()
	external, err := url.Parse(t.ExternalURL)
	if err != nil {
		t.fail(fmt.Errorf("external_url: %w", err), "external_url")
	}
	if len(t.errs) > 0 {
		return t.errs
	}
	all, err := rules.Still(ctx, rules.Deps{
		Engine: engine, Writer: store, Tenant: telemetry.DefaultTenant, Interval: time.Duration(t.Interval),
		ExternalURL: external, ExternalLabels: t.ExternalLabels, Notify: func(context.Context, string, ...*promrules.Alert) {},
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Now: r.Now,
	}, set)
	if err != nil {
		return err
	}
	t.groups = inOrder(all, p.GroupEvalOrder)
	if t.evaluate(ctx) {
		t.exprs(ctx)
	}
	return t.errs.Err()
}

// inOrder puts the groups that are named first, in the order of the names; those that are not named count as the
// first of them, as in promtool.
func inOrder(groups []*promrules.Group, names []string) []*promrules.Group {
	place := make(map[string]int)
	for i, n := range names {
		place[n] = i
	}
	slices.SortStableFunc(groups, func(a, b *promrules.Group) int { return place[a.Name()] - place[b.Name()] })
	return groups
}

// prepare reads the series and looks for mistakes that keep the test from running.
func (t *running) prepare() {
	at := make(map[telemetry.LabelSet]int)
	for i, s := range t.InputSeries {
		ls, values, err := t.parser.ParseSeriesDesc(s.Series + " " + s.Values)
		if err != nil {
			t.fail(fmt.Errorf("series %q with values %q: %w", s.Series, s.Values, err), "input_series", i)
			continue
		}
		in := input{labels: telemetry.NewLabelSet(ls)}
		for k, v := range values {
			if !v.Omitted {
				in.values = append(in.values, sample{t.start.Add(time.Duration(k) * time.Duration(t.Interval)).UnixMilli(), v.Value, v.Histogram})
			}
		}
		if known, ok := at[in.labels]; ok { // the later one counts, as in promtool
			t.input[known] = in
			continue
		}
		at[in.labels] = len(t.input)
		t.input = append(t.input, in)
	}
	for i, a := range t.Alerts {
		if a.Alertname == "" {
			t.fail(fmt.Errorf("an item under alert_rule_test misses required attribute alertname at eval_time %v", a.EvalTime), "alert_rule_test", i)
		}
	}
}

// load writes the samples up to a time: a rule must not see the future.
func (t *running) load(ctx context.Context, until time.Time) error {
	b := telemetry.Batch{Tenant: telemetry.DefaultTenant}
	for i := range t.input {
		in := &t.input[i]
		s := telemetry.Series{Labels: in.labels}
		for len(in.values) > 0 && in.values[0].at <= until.UnixMilli() {
			v := in.values[0]
			in.values = in.values[1:]
			if v.h != nil {
				h := v.h.Copy()
				rules.SetResetHint(in.before, h)
				v.h, in.before = h, h
				s.Histograms = append(s.Histograms, telemetry.HistogramSample{T: v.at, FH: v.h})
			} else {
				s.Samples = append(s.Samples, telemetry.Sample{T: v.at, V: v.v})
			}
		}
		if len(s.Samples)+len(s.Histograms) > 0 {
			b.Series = append(b.Series, s)
		}
	}
	if len(b.Series) == 0 {
		return nil
	}
	_, rejected, err := t.store.Write(ctx, storage.Request{Batches: []telemetry.Batch{b}})
	if err == nil && rejected.Total() > 0 {
		err = fmt.Errorf("%d samples were rejected: %v", rejected.Total(), rejected.Reasons)
	}
	return err
}

// end returns the last time that is asked about.
func (t *running) end() time.Time {
	var longest time.Duration
	for _, a := range t.Alerts {
		longest = max(longest, time.Duration(a.EvalTime))
	}
	for _, e := range t.Exprs {
		longest = max(longest, time.Duration(e.EvalTime))
	}
	return t.start.Add(longest)
}

// evaluate evaluates the rules again and again, as the server would, and compares the alerts on the way. It
// returns false when a rule failed.
func (t *running) evaluate(ctx context.Context) bool {
	interval := time.Duration(t.file.EvaluationInterval)
	times := make(map[time.Duration][]int) // of the cases of alerts
	for i, a := range t.Alerts {
		times[time.Duration(a.EvalTime)] = append(times[time.Duration(a.EvalTime)], i)
	}
	order := slices.Sorted(maps.Keys(times))
	for at := t.start; !at.After(t.end()); at = at.Add(interval) {
		err := ctx.Err()
		if err == nil {
			err = t.load(ctx, at)
		}
		if err != nil {
			t.fail(err)
			return false
		}
		failed := false
		for _, g := range t.groups {
			g.Eval(ctx, at)
			for _, r := range g.Rules() {
				if err := r.LastError(); err != nil {
					t.fail(fmt.Errorf("rule %s at %s: %w", r.Name(), at.Sub(time.Unix(0, 0).UTC()), err))
					failed = true
				}
			}
		}
		if failed {
			return false
		}
		for len(order) > 0 && order[0] < at.Add(interval).Sub(t.start) {
			for _, i := range times[order[0]] {
				t.alerts(i)
			}
			order = order[1:]
		}
	}
	return true
}

// described is an alert as it is compared.
type described struct{ labels, annotations labels.Labels }

func (d described) compare(e described) int {
	if c := labels.Compare(d.labels, e.labels); c != 0 {
		return c
	}
	return labels.Compare(d.annotations, e.annotations)
}

func (d described) String() string {
	return "labels " + d.labels.String() + " annotations " + d.annotations.String()
}

// alerts compares the alerts that fire with those of case i.
func (t *running) alerts(i int) {
	c := &t.Alerts[i]
	var got, want []described
	for _, g := range t.groups {
		for _, r := range g.Rules() {
			ar, ok := r.(*promrules.AlertingRule)
			if !ok || ar.Name() != c.Alertname {
				continue
			}
			for _, a := range ar.ActiveAlerts() {
				if a.State == promrules.StateFiring {
					got = append(got, described{a.Labels.Copy(), a.Annotations.Copy()})
				}
			}
		}
	}
	for _, e := range c.ExpAlerts {
		all := maps.Clone(e.Labels)
		if all == nil {
			all = make(map[string]string)
		}
		all[labels.AlertName] = c.Alertname
		want = append(want, described{labels.FromMap(all), labels.FromMap(e.Annotations)})
	}
	slices.SortFunc(got, described.compare)
	slices.SortFunc(want, described.compare)
	if !slices.EqualFunc(got, want, func(a, b described) bool { return a.compare(b) == 0 }) {
		t.fail(differ(fmt.Sprintf("alert %s at %s", c.Alertname, c.EvalTime), want, got), "alert_rule_test", i)
	}
}

// value is a sample as it is compared.
type value struct {
	labels labels.Labels
	v      float64
	h      string // in the notation of tests
}

func (v value) String() string {
	if v.h != "" {
		return v.labels.String() + " " + v.h
	}
	return v.labels.String() + " " + strconv.FormatFloat(v.v, 'E', -1, 64)
}

func (v value) equal(w value, fuzzy bool) bool {
	same := v.v == w.v || fuzzy && (math.Nextafter(v.v, math.Inf(-1)) == w.v || math.Nextafter(v.v, math.Inf(1)) == w.v)
	return same && labels.Equal(v.labels, w.labels) && v.h == w.h
}

// exprs compares the results of the expressions.
func (t *running) exprs(ctx context.Context) {
	for i := range t.Exprs {
		c := &t.Exprs[i]
		about := fmt.Sprintf("expr %q at %s", c.Expr, c.EvalTime)
		vector, err := t.ask(ctx, c.Expr, t.start.Add(time.Duration(c.EvalTime)))
		if err != nil {
			t.fail(fmt.Errorf("%s: %w", about, err), "promql_expr_test", i)
			continue
		}
		var got []value
		for _, s := range vector {
			got = append(got, value{s.Metric, s.F, notation(s.H)})
		}
		want, err := t.expected(c)
		if err != nil {
			t.fail(fmt.Errorf("%s: %w", about, err), "promql_expr_test", i)
			continue
		}
		byLabels := func(a, b value) int { return labels.Compare(a.labels, b.labels) }
		slices.SortStableFunc(got, byLabels)
		slices.SortStableFunc(want, byLabels)
		if !slices.EqualFunc(got, want, func(a, b value) bool { return a.equal(b, t.file.FuzzyCompare) }) {
			t.fail(differ(about, want, got), "promql_expr_test", i)
		}
	}
}

func (t *running) expected(c *exprCase) (out []value, err error) {
	for _, s := range c.ExpSamples {
		v := value{v: s.Value}
		if v.labels, err = t.parser.ParseMetric(s.Labels); err != nil {
			return nil, fmt.Errorf("labels %q: %w", s.Labels, err)
		}
		if s.Histogram != "" {
			_, values, err := t.parser.ParseSeriesDesc("{} " + s.Histogram)
			if err == nil && len(values) != 1 {
				err = fmt.Errorf("expected 1 value, got %d", len(values))
			}
			if err == nil && values[0].Histogram == nil {
				err = errors.New("is not a histogram")
			}
			if err != nil {
				return nil, fmt.Errorf("histogram %q: %w", s.Histogram, err)
			}
			v.h = notation(values[0].Histogram)
		}
		out = append(out, v)
	}
	return out, nil
}

func notation(h *histogram.FloatHistogram) string {
	if h == nil {
		return ""
	}
	return h.TestExpression()
}

// differ tells what was expected and what there is.
func differ[T fmt.Stringer](about string, want, got []T) error {
	list := func(xs []T) string {
		if len(xs) == 0 {
			return " nothing"
		}
		var b strings.Builder
		for _, x := range xs {
			b.WriteString("\n      " + x.String())
		}
		return b.String()
	}
	return fmt.Errorf("%s\n    want%s\n    got%s", about, list(want), list(got))
}
