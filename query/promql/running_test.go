package promql_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	stock "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/logging"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

func TestLimitsOfReading(t *testing.T) {
	s := store(t)
	e := newEngine(t, s, func(c *promql.Config) { c.MaxSeries = 9 }, nil)
	ask := func(expr string) error {
		a, err := e.Query(t.Context(), promql.Request{Tenant: tenant, Expr: expr, End: time.Unix(100, 0)})
		if err == nil {
			a.Close()
		}
		return err
	}
	require.NoError(t, ask(`m{i!="3"}`))
	for _, expr := range []string{"m", `m{i=~"[0-4]"} + m{i=~"[0-4]"}`} {
		err := ask(expr)
		require.ErrorContains(t, err, "promql.max_series (9)")
		require.Equal(t, httpapi.QueryLimit, query.KindOf(err))
	}
	e = newEngine(t, bigReads{s}, func(c *promql.Config) { c.MaxRead = 1 << 20 }, nil)
	err := ask("m")
	require.ErrorContains(t, err, "promql.max_read (1MiB)")
	require.Equal(t, httpapi.QueryLimit, query.KindOf(err))
	open, _ := s.OpenViews()
	require.Zero(t, open)
}

// bigReads is a store whose views say that they have read much.
type bigReads struct{ storage.Reader }

func (b bigReads) View(ctx context.Context, p storage.Position) (storage.View, error) {
	v, err := b.Reader.View(ctx, p)
	return bigView{v}, err
}

type bigView struct{ storage.View }

func (bigView) ReadStats() storage.ReadStats { return storage.ReadStats{Bytes: 1<<20 + 1} }

// stuck is a store whose views come when the query ends.
type stuck struct{ asked chan struct{} }

func (s stuck) View(ctx context.Context, _ storage.Position) (storage.View, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestRunningQueries(t *testing.T) {
	w := stuck{make(chan struct{})}
	now := time.Unix(1000, 0)
	e, err := promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: w, Now: func() time.Time { return now }})
	require.NoError(t, err)
	ended := make(chan error)
	ask := func(ctx context.Context, expr string) {
		_, err := e.Query(ctx, promql.Request{Tenant: tenant, Expr: expr, End: time.Unix(100, 0)})
		ended <- err
	}
	ctx, leave := context.WithCancel(t.Context())
	go ask(ctx, "m")
	<-w.asked
	go ask(t.Context(), "n")
	<-w.asked

	all := e.Running(tenant)
	require.Len(t, all, 2)
	require.Equal(t, []string{"m", "n"}, []string{all[0].Request.Expr, all[1].Request.Expr})
	require.Equal(t, now, all[1].Began)
	require.Empty(t, e.Running("other"))
	require.False(t, e.Stop("other", all[1].ID), "a query of another tenant")

	require.True(t, e.Stop(tenant, all[1].ID))
	err = <-ended
	require.Equal(t, httpapi.Canceled, query.KindOf(err))
	require.ErrorContains(t, err, "stopped on request")
	require.False(t, e.Stop(tenant, all[1].ID), "it is over")

	leave() // the client goes away
	err = <-ended
	require.Equal(t, httpapi.Canceled, query.KindOf(err))
	require.Empty(t, e.Running(tenant))
}

func TestTurnsOfTenants(t *testing.T) {
	w := waiting{store(t), make(chan struct{}), make(chan struct{})}
	e := newEngine(t, w, func(c *promql.Config) { c.PerTenant = 1 }, nil)
	run := func(ctx context.Context, tenant telemetry.Tenant) error {
		a, err := e.Query(ctx, promql.Request{Tenant: tenant, Expr: "m", End: time.Unix(100, 0)})
		if err == nil {
			a.Close()
		}
		return err
	}
	first, other := make(chan error), make(chan error)
	go func() { first <- run(t.Context(), tenant) }()
	<-w.asked
	go func() { other <- run(t.Context(), "other") }()
	<-w.asked // another tenant does not wait
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := run(ctx, tenant)
	require.Equal(t, httpapi.Overloaded, query.KindOf(err))
	require.ErrorContains(t, err, "promql.tenant_concurrency (1)")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, httpapi.Canceled, query.KindOf(run(gone, tenant)))
	close(w.free)
	require.NoError(t, <-first)
	require.NoError(t, <-other)
	go func() { <-w.asked }()
	require.NoError(t, run(t.Context(), tenant))
}

// TestQueryLog wants a line for each query that ran, those that failed as well, with what Prometheus has in it.
func TestQueryLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "queries.log")
	l, err := logging.NewJSONFileLogger(file)
	require.NoError(t, err)
	e, err := promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: store(t), QueryLog: l})
	require.NoError(t, err)
	ctx := stock.NewOriginContext(t.Context(), map[string]any{"tenant": "default"})
	for _, expr := range []string{"sum(m)", "m + on() m", "m("} {
		a, err := e.Query(ctx, promql.Request{Tenant: tenant, Expr: expr, Start: time.Unix(0, 0), End: time.Unix(20, 0), Step: 10 * time.Second})
		if err == nil {
			a.Close()
		}
	}
	require.NoError(t, l.Close())
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	type line struct {
		Params struct {
			Query, Start, End string
			Step              int
		}
		Stats         struct{ Timings map[string]float64 }
		Error, Tenant string
	}
	var got []line
	for s := bufio.NewScanner(f); s.Scan(); {
		var one line
		require.NoError(t, json.Unmarshal(s.Bytes(), &one))
		got = append(got, one)
	}
	require.Len(t, got, 2, "what does not parse is no query")
	require.Equal(t, "sum(m)", got[0].Params.Query)
	require.Equal(t, []any{"1970-01-01T00:00:00.000Z", "1970-01-01T00:00:20.000Z", 10}, []any{got[0].Params.Start, got[0].Params.End, got[0].Params.Step})
	require.Equal(t, "default", got[0].Tenant)
	require.Contains(t, got[0].Stats.Timings, "execTotalTime")
	require.Empty(t, got[0].Error)
	require.Contains(t, got[1].Error, "many-to-many")
}
