package rules_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/value"
	promrules "github.com/prometheus/prometheus/rules"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/alerting/rules"
	"github.com/braidobs/braid/internal/selfobs"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

const tenant = telemetry.Tenant("shop")

// world is a store, and a manager over it, whose writes may fail.
type world struct {
	t     *testing.T
	store *testkit.Store
	reg   *prometheus.Registry
	m     *rules.Manager
	file  string
	end   func()

	mu       sync.Mutex // guards what follows
	refuse   error
	requests []storage.Request
	alerts   []promrules.Alert
	loud     int // writes that would trace themselves
}

func (w *world) Write(ctx context.Context, r storage.Request) (storage.Position, storage.Rejected, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !selfobs.Suppressed(ctx) {
		w.loud++
	}
	if w.refuse != nil {
		return 0, storage.Rejected{}, w.refuse
	}
	w.requests = append(w.requests, r)
	return w.store.Write(ctx, r)
}

func (w *world) sent() []promrules.Alert {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.alerts
	w.alerts = nil
	return out
}

func newWorld(t *testing.T, text string) *world {
	t.Helper()
	w := &world{t: t, store: testkit.NewStore("c"), file: write(t, "rules.yml", text)}
	w.start(nil)
	return w
}

// start starts a manager over what is stored.
func (w *world) start(sources []rules.Source) {
	w.reg = prometheus.NewRegistry()
	engine, err := promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: w.store, Log: slog.New(slog.DiscardHandler)})
	require.NoError(w.t, err)
	w.m = rules.New(rules.Deps{
		Engine: engine, Writer: w, Tenant: tenant, Files: []string{w.file}, Sources: sources,
		Interval: 10 * time.Second, ResendDelay: time.Minute, ExternalLabels: labels.FromStrings("cluster", "c1"),
		Notify: func(_ context.Context, _ string, alerts ...*promrules.Alert) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, a := range alerts {
				w.alerts = append(w.alerts, *a)
			}
		},
		Log: slog.New(slog.DiscardHandler), Metrics: w.reg, Now: time.Now,
	})
	require.NoError(w.t, w.m.Load())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.m.Run(ctx) }()
	w.end = func() {
		cancel()
		require.NoError(w.t, <-done)
	}
}

// put writes one sample now.
func (w *world) put(v float64, pairs ...string) {
	_, _, err := w.store.Write(w.t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{{
		Labels: telemetry.NewLabelSet(labels.FromStrings(pairs...)), Samples: []telemetry.Sample{{T: time.Now().UnixMilli(), V: v}},
	}}}}})
	require.NoError(w.t, err)
}

// samples returns the samples of the only series that a metric has.
func (w *world) samples(t telemetry.Tenant, metric string) (values []float64, stale int) {
	v, err := w.store.View(w.t.Context(), 0)
	require.NoError(w.t, err)
	defer v.Close()
	set := v.Series(w.t.Context(), storage.SeriesQuery{
		Tenant: t, Start: 0, End: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", metric)},
	})
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() != 0 {
			_, x := it.At()
			if value.IsStaleNaN(x) {
				stale++
				continue
			}
			values = append(values, x)
		}
	}
	require.NoError(w.t, set.Err())
	return values, stale
}

func (w *world) rule(name string) promrules.Rule {
	for _, g := range w.m.Groups() {
		for _, r := range g.Rules() {
			if r.Name() == name {
				return r
			}
		}
	}
	require.Fail(w.t, "no such rule", name)
	return nil
}

func TestEvaluate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, `groups:
- name: g
  rules:
  - {record: job:x:sum, expr: sum by (job) (x)}
  - alert: High
    expr: job:x:sum > 5
    for: 30s
    annotations: {summary: "{{ $labels.job }} has {{ $value }} in {{ $externalLabels.cluster }}"}
`)
		defer func() { w.end() }()
		for range 12 { // a minute
			w.put(7, "__name__", "x", "job", "a", "i", "1")
			time.Sleep(5 * time.Second)
		}
		values, stale := w.samples(tenant, "job:x:sum")
		require.GreaterOrEqual(t, len(values), 5)
		require.Equal(t, []float64{7}, values[:1])
		require.Zero(t, stale)
		none, _ := w.samples(telemetry.DefaultTenant, "job:x:sum")
		require.Empty(t, none, "only the tenant of the rules gets what they write")
		sent := w.sent()
		require.Len(t, sent, 1)
		require.Equal(t, `{alertname="High", job="a"}`, sent[0].Labels.String())
		require.Equal(t, `{summary="a has 7 in c1"}`, sent[0].Annotations.String())
		require.Equal(t, promrules.StateFiring, sent[0].State)
		require.Equal(t, 4*time.Minute, sent[0].ValidUntil.Sub(sent[0].LastSentAt), "four times the resend delay")
		for range 24 {
			w.put(7, "__name__", "x", "job", "a", "i", "1")
			time.Sleep(5 * time.Second)
		}
		require.NotEmpty(t, w.sent(), "sent again after the resend delay")

		w.put(math.Float64frombits(value.StaleNaN), "__name__", "x", "job", "a", "i", "1")
		time.Sleep(20 * time.Second)
		_, stale = w.samples(tenant, "job:x:sum")
		require.Equal(t, 1, stale)
		_, stale = w.samples(tenant, "ALERTS")
		require.GreaterOrEqual(t, stale, 1)
		sent = w.sent()
		require.Len(t, sent, 1)
		require.False(t, sent[0].ResolvedAt.IsZero())
		time.Sleep(14 * time.Minute)
		n := len(w.sent())
		require.Contains(t, []int{12, 13, 14}, n, "resolved alerts are sent again each resend delay")
		time.Sleep(5 * time.Minute)
		require.LessOrEqual(t, len(w.sent()), 2)
		time.Sleep(5 * time.Minute)
		require.Empty(t, w.sent(), "but only for 15 minutes")

		require.Zero(t, w.loud)
		require.Equal(t, promrules.HealthGood, w.rule("High").Health())
		n, err := testutil.GatherAndCount(w.reg, "prometheus_rule_evaluations_total", "prometheus_rule_group_rules", "braid_alerting_reload_success")
		require.NoError(t, err)
		require.Equal(t, 3, n)
	})
}

// TestRefusedWrites requires that a store that takes nothing for now is seen at the rule, and that the rule works
// again when the store does.
func TestRefusedWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "groups:\n- name: g\n  rules:\n  - {record: one, expr: vector(1)}\n  - record: bad\n    expr: vector(1) + on() (vector(1) or label_replace(vector(2), 'a', 'b', '', ''))\n")
		defer func() { w.end() }()
		w.mu.Lock()
		w.refuse = &storage.Overloaded{Reason: "the head is full", RetryAfter: time.Second}
		w.mu.Unlock()
		time.Sleep(30 * time.Second)
		require.Equal(t, promrules.HealthBad, w.rule("one").Health())
		require.ErrorContains(t, w.rule("one").LastError(), "store the samples of the rule: overloaded: the head is full")
		require.ErrorIs(t, w.rule("one").LastError(), storage.ErrOverloaded)
		require.ErrorContains(t, w.rule("bad").LastError(), "many-to-many")
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		time.Sleep(20 * time.Second)
		require.Equal(t, promrules.HealthGood, w.rule("one").Health())
		values, _ := w.samples(tenant, "one")
		require.GreaterOrEqual(t, len(values), 1)
		require.LessOrEqual(t, len(values), 2)
	})
}

// TestForIsRestored requires that an alert goes on waiting after a restart where it was, the time of the outage not
// counted, as in Prometheus.
func TestForIsRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "groups:\n- name: g\n  rules:\n  - {alert: A, expr: vector(1), for: 1h}\n")
		time.Sleep(40 * time.Minute)
		before := w.rule("A").(*promrules.AlertingRule).ActiveAlerts()
		require.Len(t, before, 1)
		require.Equal(t, promrules.StatePending, before[0].State)
		w.end()
		time.Sleep(10 * time.Minute)
		w.start(nil)
		defer func() { w.end() }()
		time.Sleep(time.Minute)
		after := w.rule("A").(*promrules.AlertingRule).ActiveAlerts()
		require.Len(t, after, 1)
		require.InDelta(t, 10*60, after[0].ActiveAt.Sub(before[0].ActiveAt).Seconds(), 60)
		time.Sleep(17 * time.Minute)
		require.Empty(t, w.sent())
		time.Sleep(3 * time.Minute)
		require.Len(t, w.sent(), 1)
	})
}

// TestReload requires that a file with mistakes changes nothing, and that groups that stay as they are go on.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "groups:\n- name: stays\n  rules:\n  - {alert: A, expr: vector(1), for: 1h}\n- name: goes\n  rules:\n  - {record: gone, expr: vector(1)}\n")
		defer func() { w.end() }()
		time.Sleep(time.Minute)
		change := func(text string) error {
			require.NoError(t, os.WriteFile(w.file, []byte(text), 0o600))
			return w.m.Load()
		}
		err := change("groups:\n- name: stays\n  rules:\n  - {alert: A, expr: \"(\"}\n  - {alert: B, expr: \"(\"}\n")
		require.ErrorContains(t, err, `rule "A"`)
		require.ErrorContains(t, err, `rule "B"`)
		require.Len(t, w.m.Groups(), 2)
		require.NoError(t, testutil.GatherAndCompare(w.reg, strings.NewReader(`
# HELP braid_alerting_reload_success Whether the last load of the rules found no mistake.
# TYPE braid_alerting_reload_success gauge
braid_alerting_reload_success 0
`), "braid_alerting_reload_success"))
		since := w.rule("A").(*promrules.AlertingRule).ActiveAlerts()[0].ActiveAt
		require.NoError(t, change("groups:\n- name: stays\n  rules:\n  - {alert: A, expr: vector(1), for: 1h}\n- name: new\n  rules:\n  - {record: came, expr: vector(2)}\n"))
		time.Sleep(time.Minute)
		require.Equal(t, since, w.rule("A").(*promrules.AlertingRule).ActiveAlerts()[0].ActiveAt)
		values, _ := w.samples(tenant, "came")
		require.NotEmpty(t, values)
		_, stale := w.samples(tenant, "gone")
		require.Equal(t, 1, stale)
	})
}

func TestSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		w.end()
		bad := errors.New("slo x: no objective")
		var fail error
		record := "made"
		w.start([]rules.Source{func() ([]rules.Generated, error) {
			return []rules.Generated{{Name: "slo:x", Groups: []rulefmt.RuleGroup{{Name: "g", Rules: []rulefmt.Rule{{Record: record, Expr: "vector(3)"}}}}}}, fail
		}})
		defer func() { w.end() }()
		time.Sleep(30 * time.Second)
		values, _ := w.samples(tenant, "made")
		require.NotEmpty(t, values)
		require.Equal(t, "slo:x", w.m.Groups()[0].File())
		fail = bad
		require.ErrorIs(t, w.m.Load(), bad)
		fail, record = nil, "other"
		require.NoError(t, w.m.Load())
		time.Sleep(30 * time.Second)
		values, _ = w.samples(tenant, "other")
		require.NotEmpty(t, values)
	})
}

// TestSeriesOfTwoRules requires that a rule that lets go of a series does not hide what another wrote to it.
func TestSeriesOfTwoRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "groups:\n- name: g\n  rules:\n  - {record: both, expr: x == 2}\n  - {record: both, expr: x == 1}\n")
		defer func() { w.end() }()
		for i := range 24 {
			w.put(float64(1+i/12), "__name__", "x")
			time.Sleep(5 * time.Second)
		}
		values, stale := w.samples(tenant, "both")
		require.Zero(t, stale)
		require.Contains(t, values, 1.0)
		require.Contains(t, values, 2.0)
	})
}

func TestResetHint(t *testing.T) {
	h := func(count float64, hint histogram.CounterResetHint) *histogram.FloatHistogram {
		return &histogram.FloatHistogram{CounterResetHint: hint, Count: count, Sum: count, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []float64{count}}
	}
	for _, tt := range []struct {
		name      string
		before, h *histogram.FloatHistogram
		want      histogram.CounterResetHint
	}{
		{"first", nil, h(1, histogram.NotCounterReset), histogram.UnknownCounterReset},
		{"on", h(1, 0), h(2, histogram.CounterReset), histogram.NotCounterReset},
		{"reset", h(2, 0), h(1, histogram.NotCounterReset), histogram.CounterReset},
		{"gauge", h(2, 0), h(1, histogram.GaugeType), histogram.GaugeType},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules.SetResetHint(tt.before, tt.h)
			require.Equal(t, tt.want, tt.h.CounterResetHint)
		})
	}
}
