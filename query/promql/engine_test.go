package promql_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

const tenant = telemetry.DefaultTenant

func newEngine(t *testing.T, r storage.Reader, change func(*promql.Config), obs *query.Observer) *promql.Engine {
	t.Helper()
	cfg := promql.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	e, err := promql.New(promql.Deps{Config: cfg, Reader: r, Observer: obs, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return e
}

// store has ten series "m" with a sample each 10 s from 0 to 600 s.
func store(t *testing.T) *testkit.Store {
	t.Helper()
	s := testkit.NewStore("c")
	var b telemetry.Batch
	b.Tenant = tenant
	for _, i := range "0123456789" {
		se := telemetry.Series{Labels: telemetry.NewLabelSet(labels.FromStrings("__name__", "m", "i", string(i)))}
		for at := int64(0); at <= 600; at += 10 {
			se.Samples = append(se.Samples, telemetry.Sample{T: at * 1000, V: float64(at)})
		}
		b.Series = append(b.Series, se)
	}
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
	require.NoError(t, err)
	return s
}

func TestConfig(t *testing.T) {
	require.NoError(t, promql.DefaultConfig().Validate())
	err := promql.Config{}.Validate()
	for _, field := range []string{"timeout", "max_samples", "lookback", "concurrency"} {
		require.ErrorContains(t, err, field)
	}
	_, err = promql.New(promql.Deps{})
	require.Error(t, err)
}

func TestQuery(t *testing.T) {
	e := newEngine(t, store(t), nil, nil)
	tests := []struct {
		name string
		req  promql.Request
		want string
	}{
		{"instant", promql.Request{Expr: "sum(m)", End: time.Unix(100, 0)}, "{} => 1000 @[100000]"},
		{"1970", promql.Request{Expr: "1+1", End: time.Unix(0, 0)}, "scalar: 2 @[0]"},
		{"at and offset", promql.Request{Expr: "sum(m @ 50 offset -10s)", End: time.Unix(100, 0)}, "{} => 600 @[100000]"},
		{"lookback", promql.Request{Expr: "count(m)", End: time.Unix(700, 0), Lookback: time.Minute}, ""},
		{"range", promql.Request{Expr: "sum(m)", Start: time.Unix(0, 0), End: time.Unix(20, 0), Step: 10 * time.Second}, "{} =>\n0 @[0]\n100 @[10000]\n200 @[20000]"},
		{"subquery without a step", promql.Request{Expr: "count_over_time(vector(1)[5m:])", End: time.Unix(600, 0)}, "{} => 5 @[600000]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.req.Tenant = tenant
			a, err := e.Query(t.Context(), tt.req)
			require.NoError(t, err)
			defer a.Close()
			require.Equal(t, tt.want, a.Value.String())
			require.Empty(t, a.Warnings)
		})
	}
}

func TestTenantsAreApart(t *testing.T) {
	e := newEngine(t, store(t), nil, nil)
	a, err := e.Query(t.Context(), promql.Request{Tenant: "other", Expr: "m", End: time.Unix(100, 0)})
	require.NoError(t, err)
	defer a.Close()
	require.Empty(t, a.Value.String())
}

func TestOneViewServesOneQuery(t *testing.T) {
	s := store(t)
	e := newEngine(t, s, nil, nil)
	a, err := e.Query(t.Context(), promql.Request{Tenant: tenant, Expr: "sum(m) + count(m) + max(m[1m:10s] @ end())", End: time.Unix(100, 0)})
	require.Error(t, err) // max of a range
	require.Nil(t, a)
	a, err = e.Query(t.Context(), promql.Request{Tenant: tenant, Expr: "sum(m) + count(m) + max(max_over_time(m[1m:10s]))", End: time.Unix(100, 0)})
	require.NoError(t, err)
	open, ever := s.OpenViews()
	require.Equal(t, []int{1, 1}, []int{open, ever})
	a.Close()
	a.Close()
	open, _ = s.OpenViews()
	require.Zero(t, open)
}

func TestWarningsOfTheView(t *testing.T) {
	s := store(t)
	s.Warn("part 7 is corrupt")
	a, err := newEngine(t, s, nil, nil).Query(t.Context(), promql.Request{Tenant: tenant, Expr: "rate(m[1m])", End: time.Unix(100, 0)})
	require.NoError(t, err)
	defer a.Close()
	warnings, infos := a.Warnings.AsStrings("rate(m[1m])", 10, 10)
	require.Equal(t, []string{"part 7 is corrupt"}, warnings)
	require.Len(t, infos, 1) // the name does not look like a counter's
}

// broken is a reader that fails.
type broken struct{ err error }

func (b broken) View(context.Context, storage.Position) (storage.View, error) { return nil, b.err }

// brokenSeries fails when the series are read.
type brokenSeries struct {
	storage.Reader
	err error
}

func (b brokenSeries) View(ctx context.Context, p storage.Position) (storage.View, error) {
	v, err := b.Reader.View(ctx, p)
	return brokenView{v, b.err}, err
}

type brokenView struct {
	storage.View
	err error
}

func (v brokenView) Series(context.Context, storage.SeriesQuery) promstorage.SeriesSet {
	return promstorage.ErrSeriesSet(v.err)
}

func TestErrorsHaveKinds(t *testing.T) {
	s := store(t)
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	late, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	boom := errors.New("boom")
	tests := []struct {
		name   string
		ctx    context.Context
		reader storage.Reader
		change func(*promql.Config)
		expr   string
		kind   httpapi.Kind
		text   string
	}{
		{"syntax", t.Context(), s, nil, "sum(m", httpapi.BadData, `invalid parameter "query": 1:6: parse error: unclosed left parenthesis`},
		{"experimental", t.Context(), s, nil, "limitk(1, m)", httpapi.BadData, "limitk"},
		{"execution", t.Context(), s, nil, "m + on() m", httpapi.Execution, "many-to-many"},
		{"samples", t.Context(), s, func(c *promql.Config) { c.MaxSamples = 5 }, "m", httpapi.QueryLimit, "promql.max_samples (5)"},
		{"canceled", canceled, s, nil, "m", httpapi.Canceled, "canceled"},
		{"deadline", late, s, nil, "m", httpapi.Timeout, "the time that the request gave it"},
		{"timeout", t.Context(), s, func(c *promql.Config) { c.Timeout = 1 }, "m", httpapi.Timeout, "promql.timeout (1ns)"},
		{"store", t.Context(), broken{boom}, nil, "m", httpapi.Internal, "boom"},
		{"store while reading", t.Context(), brokenSeries{s, boom}, nil, "m", httpapi.Internal, "boom"},
		{"view expired", t.Context(), brokenSeries{s, storage.ErrViewExpired}, nil, "m", httpapi.QueryLimit, "storage.pinned_bytes"},
		{"stopping", t.Context(), broken{storage.ErrClosed}, nil, "m", httpapi.Unavailable, "stopping"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newEngine(t, tt.reader, tt.change, nil)
			_, err := e.Query(tt.ctx, promql.Request{Tenant: tenant, Expr: tt.expr, End: time.Unix(100, 0)})
			require.ErrorContains(t, err, tt.text)
			require.Equal(t, tt.kind, query.KindOf(err))
			open, _ := s.OpenViews()
			require.Zero(t, open)
		})
	}
}

func TestExperimentalFunctions(t *testing.T) {
	e := newEngine(t, store(t), func(c *promql.Config) { c.Experimental = true }, nil)
	a, err := e.Query(t.Context(), promql.Request{Tenant: tenant, Expr: "count(limitk(3, m))", End: time.Unix(100, 0)})
	require.NoError(t, err)
	defer a.Close()
	require.Equal(t, "{} => 3 @[100000]", a.Value.String())
}

// waiting is a reader whose views come once it is let go.
type waiting struct {
	storage.Reader
	asked, free chan struct{}
}

func (w waiting) View(ctx context.Context, p storage.Position) (storage.View, error) {
	w.asked <- struct{}{}
	<-w.free
	return w.Reader.View(ctx, p)
}

func TestConcurrency(t *testing.T) {
	w := waiting{store(t), make(chan struct{}), make(chan struct{})}
	e := newEngine(t, w, func(c *promql.Config) { c.Concurrency = 1 }, nil)
	run := func(ctx context.Context) error {
		a, err := e.Query(ctx, promql.Request{Tenant: tenant, Expr: "m", End: time.Unix(100, 0)})
		if err == nil {
			a.Close()
		}
		return err
	}
	first := make(chan error)
	go func() { first <- run(t.Context()) }()
	<-w.asked
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := run(ctx)
	require.Equal(t, httpapi.Overloaded, query.KindOf(err))
	require.ErrorContains(t, err, "promql.concurrency (1)")
	close(w.free)
	require.NoError(t, <-first)
	go func() { <-w.asked }()
	require.NoError(t, run(t.Context()))
}

func TestQueryable(t *testing.T) {
	s := store(t)
	q, err := newEngine(t, s, nil, nil).Queryable(tenant).Querier(0, 600_000)
	require.NoError(t, err)
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "i", "3"))
	require.True(t, set.Next())
	require.Equal(t, `{__name__="m", i="3"}`, set.At().Labels().String())
	require.False(t, set.Next())
	require.NoError(t, set.Err())
	values, _, err := q.LabelValues(t.Context(), "i", &promstorage.LabelHints{Limit: 2})
	require.NoError(t, err)
	require.Equal(t, []string{"0", "1"}, values)
	names, _, err := q.LabelNames(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"__name__", "i"}, names)
	require.NoError(t, q.Close())
	require.ErrorIs(t, q.Select(t.Context(), true, nil).Err(), storage.ErrClosed)
	open, _ := s.OpenViews()
	require.Zero(t, open)
}

func TestObserver(t *testing.T) {
	reg := prometheus.NewRegistry()
	var log strings.Builder
	at := time.Unix(0, 0)
	obs := query.NewObserver(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), reg,
		func() time.Time { at = at.Add(time.Second); return at })
	e := newEngine(t, store(t), nil, obs)
	for _, expr := range []string{"m", "m", "m("} {
		if a, err := e.Query(t.Context(), promql.Request{Tenant: tenant, Expr: expr, End: time.Unix(100, 0)}); err == nil {
			a.Close()
		}
	}
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP braid_query_running_queries Queries that are being answered or wait for their turn.
# TYPE braid_query_running_queries gauge
braid_query_running_queries{language="promql"} 0
`), "braid_query_running_queries"))
	n, err := testutil.GatherAndCount(reg, "braid_query_duration_seconds")
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Contains(t, log.String(), `msg=query language=promql tenant=default query=m( status=bad_data took=1s`)
}
