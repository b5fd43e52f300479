package slo_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/alerting/slo"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func read(t *testing.T, text string) ([]slo.SLO, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "slo.yml")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return slo.Reader{Parser: parser.NewParser(parser.Options{})}.Load(name)
}

// TestWindows compares with the table of the Site Reliability Workbook, which sloth publishes for 30 days, and with its
// windows for 28 days (google-28d.yaml: the same percentages of the budget over the shorter period).
func TestWindows(t *testing.T) {
	const day = 24 * time.Hour
	want := []struct {
		long, short time.Duration
		severity    slo.Severity
		days        map[int]float64
	}{
		{time.Hour, 5 * time.Minute, slo.Page, map[int]float64{30: 14.4, 28: 13.44}},
		{6 * time.Hour, 30 * time.Minute, slo.Page, map[int]float64{30: 6, 28: 5.6}},
		{day, 2 * time.Hour, slo.Ticket, map[int]float64{30: 3, 28: 2.8}},
		{3 * day, 6 * time.Hour, slo.Ticket, map[int]float64{30: 1, 28: 0.9333333333}},
	}
	got := slo.Windows()
	require.Len(t, got, len(want))
	for i, w := range want {
		require.Equal(t, w.long, got[i].Long)
		require.Equal(t, w.short, got[i].Short)
		require.Equal(t, w.severity, got[i].Severity)
		for days, factor := range w.days {
			require.InDelta(t, factor, got[i].Factor(time.Duration(days)*day), 1e-9)
		}
	}
}

// TestBudget has error budgets worked out by hand.
func TestBudget(t *testing.T) {
	for _, tt := range []struct {
		objective  float64 // percent
		budget     float64
		total, bad int
		remaining  float64
	}{
		{99.9, 0.001, 10_000, 0, 1},
		{99.9, 0.001, 10_000, 4, 0.6},   // 10 may be bad
		{99.9, 0.001, 10_000, 10, 0},    // all of it
		{99.9, 0.001, 10_000, 25, -1.5}, // more than there is
		{99, 0.01, 200, 1, 0.5},         // 2 may be bad
		{99.95, 0.0005, 40_000, 5, 0.75},
		{90, 0.1, 10, 10, -9},
		{99.99, 0.0001, 30_000, 3, 0},
	} {
		t.Run(fmt.Sprintf("%v of %v", tt.bad, tt.total), func(t *testing.T) {
			r := newRig(t, fmt.Sprintf("slos:\n- name: x\n  objective: %v\n  sli:\n    spans: {total: {service: cart}, bad: {status: error}}\n", tt.objective))
			require.Equal(t, tt.budget, r.slo("x").Budget()) //nolint:testifylint // exactly the decimal
			r.spans(t, now.Add(-time.Hour), tt.total, tt.bad)
			st, err := r.manager.Status(t.Context(), r.manager.SLOs())
			require.NoError(t, err)
			require.InDelta(t, tt.total, *st[0].Total, 0)
			require.InDelta(t, tt.bad, *st[0].Bad, 0)
			require.InDelta(t, tt.remaining, *st[0].Remaining, 1e-9)
		})
	}
}

// rig is objectives over the naive store.
type rig struct {
	store   *testkit.Store
	counter *slo.Counter
	manager *slo.Manager
	engine  *promql.Engine
	n       int
}

func newRig(t *testing.T, text string) *rig {
	t.Helper()
	name := filepath.Join(t.TempDir(), "slo.yml")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	r := &rig{store: testkit.NewStore("")}
	o := slo.Options{Scale: 1}
	r.counter = slo.NewCounter(r.store, telemetry.DefaultTenant, o, prometheus.NewRegistry())
	var err error
	r.engine, err = promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: r.store, Virtual: r.counter, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	r.manager = slo.NewManager(slo.Deps{
		Files: []string{name}, Options: o, Tenant: telemetry.DefaultTenant, Engine: r.engine, Counter: r.counter, Now: func() time.Time { return now },
	})
	_, err = r.manager.Source()
	require.NoError(t, err)
	return r
}

func (r *rig) slo(name string) *slo.SLO { return r.manager.Find(name) }

// spans stores n spans of service cart, of which the first bad have failed, a millisecond apart.
func (r *rig) spans(t require.TestingT, from time.Time, n, bad int) { r.sampled(t, from, n, bad, "") }

// sampled stores n spans with a trace state, of which the first bad ones are.
func (r *rig) sampled(t require.TestingT, from time.Time, n, bad int, state string) {
	res := telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{{Key: "service.name", Value: telemetry.String("cart")}}))
	b := telemetry.Batch{Tenant: telemetry.DefaultTenant, Resource: res}
	for i := range n {
		r.n++
		s := telemetry.Span{
			TraceID: telemetry.TraceID{1, byte(r.n >> 24), byte(r.n >> 16), byte(r.n >> 8), byte(r.n)}, SpanID: telemetry.SpanID{1}, Name: "GET", Kind: telemetry.SpanKindServer, State: state,
			Start: from.UnixNano() + int64(i)*1e6, End: from.UnixNano() + int64(i)*1e6 + 5e6,
		}
		if i < bad {
			s.Status = telemetry.StatusError
		}
		b.Spans = append(b.Spans, s)
	}
	touching := r.counter.Touching([]telemetry.Batch{b})
	_, _, err := r.store.Write(context.Background(), storage.Request{Batches: []telemetry.Batch{b}})
	require.NoError(t, err)
	r.counter.Touch(touching)
}

func (r *rig) value(t *testing.T, expr string, at time.Time) (float64, bool) {
	t.Helper()
	a, err := r.engine.Query(t.Context(), promql.Request{Tenant: telemetry.DefaultTenant, Expr: expr, End: at})
	require.NoError(t, err)
	defer a.Close()
	text := a.Value.String()
	if text == "" {
		return 0, false
	}
	var f float64
	_, err = fmt.Sscanf(text[len("{} => "):], "%g", &f)
	require.NoError(t, err, text)
	return f, true
}

const short = `
slos:
- name: cart-errors
  service: cart
  objective: 99
  sli:
    spans:
      total: {kind: server}
      bad: {status: error}
- name: cart-latency
  service: cart
  objective: 99.5
  period: 28d
  labels: {team: shop}
  sli:
    spans:
      total: {service: cart}
      good: {max_duration: 300ms}
- name: http
  objective: 99.9
  alerts: false
  sli:
    metrics:
      bad: http_requests_total{code=~"5.."}
      total: sum(increase(http_requests_total[$window]))
`

// TestCountsAreExact compares with a count by hand, while spans of any time are stored and counted at once.
func TestCountsAreExact(t *testing.T) {
	r := newRig(t, short)
	rng := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	var starts []int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { // counts while others write: what it keeps must be right
		for {
			select {
			case <-stop:
				return
			default:
			}
			_, _ = r.engine.Query(t.Context(), promql.Request{Tenant: telemetry.DefaultTenant, Expr: r.slo("cart-errors").Expr(6 * time.Hour), End: now})
		}
	})
	for range 60 {
		at := now.Add(-time.Duration(rng.Int64N(int64(7 * time.Hour)))).Truncate(time.Millisecond)
		r.spans(t, at, 3, 1)
		mu.Lock()
		starts = append(starts, at.UnixNano())
		mu.Unlock()
	}
	close(stop)
	wg.Wait()
	for _, w := range []time.Duration{5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 6 * time.Hour} {
		total, bad := 0, 0
		for _, s := range starts {
			for i := range int64(3) {
				if at := s + i*1e6; at >= now.Add(-w).UnixNano() && at < now.UnixNano() {
					total++
					if i == 0 {
						bad++
					}
				}
			}
		}
		got, ok := r.value(t, r.slo("cart-errors").Expr(w), now)
		require.Equal(t, total > 0, ok)
		if ok {
			require.InDelta(t, float64(bad)/float64(total), got, 1e-12, "%s: %d of %d", w, bad, total)
		}
	}
	// Deleting is told by Forget.
	r.counter.Forget()
	got, _ := r.value(t, r.slo("cart-errors").Expr(6*time.Hour), now)
	require.Positive(t, got)
}

// TestSampledCountAsMany has spans whose traces were kept at random: they count as those they stand for.
func TestSampledCountAsMany(t *testing.T) {
	r := newRig(t, short)
	r.spans(t, now.Add(-time.Minute), 10, 4)                                                 // kept for a reason
	r.sampled(t, now.Add(-2*time.Minute), 3, 0, telemetry.WithProbability("vendor=1", 0.25)) // of 12
	r.sampled(t, now.Add(-3*time.Minute), 1, 1, telemetry.WithProbability("", 0.3))          // of 3 and a third
	for outcome, want := range map[string]float64{"total": 25, "bad": 7} {
		got, ok := r.value(t, `sum(sum_over_time(braid_slo_spans{slo="cart-errors",outcome="`+outcome+`"}[1h]))`, now)
		require.True(t, ok)
		require.InDelta(t, want, got, 0, outcome)
	}
	got, ok := r.value(t, r.slo("cart-errors").Expr(time.Hour), now)
	require.True(t, ok)
	require.InDelta(t, 7.0/25, got, 1e-12)
}

func TestRules(t *testing.T) {
	r := newRig(t, short)
	require.Len(t, r.manager.SLOs(), 3)
	g := r.slo("cart-latency").Rules(slo.Options{Scale: 60})
	require.Equal(t, "slo:cart-latency", g.Name)
	require.Len(t, g.Groups, 2)
	p := parser.NewParser(parser.Options{})
	alerts := 0
	for _, group := range g.Groups {
		for _, rule := range group.Rules {
			_, err := p.ParseExpr(rule.Expr)
			require.NoError(t, err, rule.Expr)
			require.Equal(t, "cart-latency", rule.Labels["slo"])
			require.Equal(t, "shop", rule.Labels["team"])
			if rule.Alert != "" {
				alerts++
			}
		}
	}
	require.Equal(t, 2, alerts)
	require.Equal(t, "slo:sli_error:ratio_rate5m", g.Groups[0].Rules[0].Record)
	require.Contains(t, g.Groups[0].Rules[0].Expr, "[5s]")
	page := g.Groups[0].Rules[len(g.Groups[0].Rules)-2]
	require.Equal(t, `(slo:sli_error:ratio_rate1h{slo="cart-latency"} > (13.44 * 0.005) and slo:sli_error:ratio_rate5m{slo="cart-latency"} > (13.44 * 0.005))`+
		` or (slo:sli_error:ratio_rate6h{slo="cart-latency"} > (5.6 * 0.005) and slo:sli_error:ratio_rate30m{slo="cart-latency"} > (5.6 * 0.005))`, page.Expr)
	for _, rule := range r.slo("http").Rules(slo.Options{Scale: 1}).Groups[0].Rules {
		require.Empty(t, rule.Alert)
	}
	bad, total := r.slo("http").Counts(time.Hour)
	require.Equal(t, `sum(increase(http_requests_total[1h]))`, total)
	require.Equal(t, `(sum(increase(http_requests_total{code=~"5.."}[1h]))) or 0 * (`+total+`)`, bad)
}

func TestStatus(t *testing.T) {
	r := newRig(t, short)
	st, err := r.manager.Status(t.Context(), r.manager.SLOs())
	require.NoError(t, err)
	for _, s := range st { // not measured is not good
		require.Nil(t, s.Remaining, s.Name)
		require.Empty(t, s.Firing)
	}
	r.spans(t, now.Add(-2*time.Minute), 100, 50)
	st, err = r.manager.Status(t.Context(), r.manager.SLOs())
	require.NoError(t, err)
	s := st[0]
	require.Equal(t, "cart-errors", s.Name)
	require.InDelta(t, 0.01, s.ErrorBudget, 0)
	require.InDelta(t, -49, *s.Remaining, 1e-9)
	require.Equal(t, []slo.Severity{slo.Page, slo.Ticket}, s.Firing)
	require.Equal(t, "5m", s.Burn[0].Window)
	require.InDelta(t, 50, *s.Burn[0].Rate, 1e-9)
	for _, b := range s.Burn { // every figure is reproduced by its query
		got, ok := r.value(t, b.Query, now)
		require.True(t, ok)
		require.InDelta(t, *b.Ratio, got, 1e-12)
	}
	require.Empty(t, st[1].Firing)
	require.InDelta(t, 1, *st[1].Remaining, 1e-12)
}

func TestMistakes(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"several at once", `
slos:
- name: Bad Name
  objective: 100
  period: 1h
  sli:
    spans: {total: {kind: sever}, bad: {status: error, min_duration: fast}}
- name: ok
  objective: 99
  sli:
    metrics: {good: "sum(x)", bad: "y[5m]", total: "sum(rate(x[$window])"}
`, []string{
			`slo.yml:3:9: name "Bad Name" must be`, `:4:14: the objective must lie between`, `:5:11: period "1h" must be from 1d`, `:7:27: kind "sever" is not one of`,
			`:7:`, `min_duration "fast"`, `:11:14: exactly one of good and bad`, `good: the expression must name its window`, `:11:36: bad:`, `total: `,
		}},
		{"unknown field", "slos:\n- name: a\n  objectiv: 99\n  objective: 99\n  sli: {spans: {total: {service: a}, bad: {status: error}}}\n", []string{`:3:3: field "objectiv" is not known`}},
		{"wrong type", "slos:\n- name: a\n  objective: high\n", []string{":3: cannot unmarshal"}},
		{"no YAML", "slos: [\n", []string{"slo.yml"}},
		{"empty", "{}\n", []string{"there is no list slos"}},
		{"both", "slos:\n- name: a\n  objective: 99\n  sli: {spans: {total: {service: a}, bad: {status: error}}, metrics: {good: x, total: y}}\n", []string{":4:8: sli must have exactly one"}},
		{"everything", "slos:\n- name: a\n  objective: 99\n  sli: {spans: {bad: {status: error}}}\n", []string{"total matches every span"}},
		{"twice", "slos:\n- {name: a, objective: 99, sli: {spans: {total: {service: a}, bad: {status: error}}}}\n- {name: a, objective: 99, sli: {spans: {total: {service: a}, bad: {status: error}}}}\n", []string{":3: objective \"a\" is defined already, in "}},
		{"reserved label", "slos:\n- name: a\n  objective: 99\n  labels: {slo: x}\n  sli: {spans: {total: {service: a}, bad: {status: error}}}\n", []string{`:4:17: "slo" cannot be`}},
		{"OpenSLO", `apiVersion: openslo/v1
kind: SLO
metadata: {name: a}
spec:
  service: cart
  budgetingMethod: Timeslices
  timeWindow: [{duration: 1w, isRolling: false}]
  indicatorRef: none
  objectives: [{target: 0.99, targetPercent: 99}]
---
apiVersion: openslo/v2
kind: SLO
---
apiVersion: openslo/v1
kind: Slow
`, []string{":6:20: budgetingMethod", ":7:16: windows of the calendar", `:8:17: there is no SLI "none"`, ":9:16: exactly one of target", ":11:13: apiVersion", `:15:7: kind "Slow"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := read(t, tt.text)
			require.Error(t, err)
			for _, w := range tt.want {
				require.ErrorContains(t, err, w)
			}
		})
	}
	_, err := slo.Reader{}.Load(filepath.Join(t.TempDir(), "none.yml"))
	require.ErrorContains(t, err, "none.yml")
}

func TestOpenSLO(t *testing.T) {
	got, err := read(t, `
apiVersion: openslo/v1
kind: SLI
metadata: {name: requests}
spec:
  ratioMetric:
    counter: true
    good: {metricSource: {type: Prometheus, spec: {query: 'http_requests_total{code="200"}'}}}
    total: {metricSource: {type: Prometheus, spec: {query: 'sum(increase(http_requests_total[{{.window}}]))'}}}
---
apiVersion: openslo/v1
kind: SLO
metadata:
  name: availability
  labels: {team: [a, b]}
spec:
  description: Requests succeed.
  service: cart
  indicatorRef: requests
  budgetingMethod: Occurrences
  timeWindow: [{duration: 28d, isRolling: true}]
  objectives: [{target: 0.999}, {targetPercent: 99}]
---
apiVersion: openslo/v1
kind: AlertPolicy
metadata: {name: ignored}
`)
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, "availability", got[0].Name)
	require.InDelta(t, 0.001, got[0].Budget(), 1e-15)
	require.Equal(t, 28*24*time.Hour, got[0].Period)
	require.Equal(t, "a,b", got[0].Labels["team"])
	require.Equal(t, "availability-2", got[1].Name)
	bad, total := got[1].Counts(time.Hour)
	require.Equal(t, "sum(increase(http_requests_total[1h]))", total)
	require.Contains(t, bad, `sum(increase(http_requests_total{code="200"}[1h]))`)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(short))
	f.Add([]byte("apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: a}\nspec: {service: s, indicator: {spec: {ratioMetric: {good: {}, total: {}}}}, timeWindow: [{duration: 30d, isRolling: true}], objectives: [{target: 0.9}]}\n"))
	p := parser.NewParser(parser.Options{})
	f.Fuzz(func(t *testing.T, b []byte) {
		slos, err := slo.Reader{Parser: p}.Parse("x", b)
		if err != nil {
			return
		}
		for i := range slos {
			for _, g := range slos[i].Rules(slo.Options{Scale: 1}).Groups {
				for _, rule := range g.Rules {
					_, err := p.ParseExpr(rule.Expr)
					require.NoError(t, err, rule.Expr)
				}
			}
		}
	})
}
