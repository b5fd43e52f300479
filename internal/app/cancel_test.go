package app

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/api/loki"
	"github.com/braidobs/braid/storage"
)

// goneWithin is how soon a query must end whose client closed its connection: 100 ms, and as much again three times for
// the race detector on a busy machine.
const goneWithin = 400 * time.Millisecond

// A query over many lines ends when its client closes the connection.
func TestClientGoesAway(t *testing.T) {
	store, err := openMemory(context.WithoutCancel(t.Context()), func() time.Time { return logsBegin.Add(time.Hour) })
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close(context.WithoutCancel(t.Context()))) }()
	rng := rand.New(rand.NewPCG(1, 13))
	for part := range 2 {
		for range 4 {
			b := telemetry.Batch{Tenant: telemetry.DefaultTenant, Stream: telemetry.NewLabelSet(labels.FromStrings("app", "a"))}
			for i := range 5000 {
				at := logsBegin.Add(time.Duration(i) * time.Millisecond)
				b.Logs = append(b.Logs, telemetry.LogRecord{Time: at.UnixNano(), Body: telemetry.String(logLine(rng, 0, at))})
			}
			_, _, err := store.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
			require.NoError(t, err)
		}
		if part == 0 {
			require.NoError(t, store.Flush(t.Context()))
		}
	}
	reg := prometheus.NewRegistry()
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	loki.New(loki.Deps{
		Config: loki.DefaultConfig(), Reader: store, Now: func() time.Time { return logsBegin.Add(time.Hour) },
		Observer: query.NewObserver(slog.New(slog.DiscardHandler), reg, time.Now),
	}).Register(rt)
	returned := make(chan time.Time, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rt.ServeHTTP(w, r)
		returned <- time.Now()
	}))
	defer server.Close()
	running := func() (n float64) {
		fs, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range fs {
			if f.GetName() == "braid_query_running_queries" {
				for _, m := range f.GetMetric() {
					n += m.GetGauge().GetValue()
				}
			}
		}
		return n
	}
	slow := `|~ "(([a-z]|[0-9]){1,40}[^x]){1,12}[zq][~#]$"`
	for name, path := range map[string]string{
		"lines":   "/loki/api/v1/query_range?query=" + url.QueryEscape(`{app="a"} `+slow),
		"numbers": "/loki/api/v1/query_range?query=" + url.QueryEscape(`sum by (status) (count_over_time({app="a"} | json `+slow+` [1m]))`),
		"volume":  "/loki/api/v1/query?query=" + url.QueryEscape(`sum(bytes_over_time({app="a"} `+slow+` [2h]))`),
		"export":  "/api/v1/logs/export?query=" + url.QueryEscape(`{app="a"} `+slow),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s%s&start=%d&end=%d&time=%d", server.URL, path, logsBegin.UnixNano(), logsBegin.Add(time.Minute).UnixNano(), logsBegin.Add(time.Minute).UnixNano()), http.NoBody)
			require.NoError(t, err)
			failed := make(chan error, 1)
			go func() {
				res, err := server.Client().Do(req)
				if err == nil {
					err = fmt.Errorf("status %s", strconv.Itoa(res.StatusCode))
					_ = res.Body.Close()
				}
				failed <- err
			}()
			require.Eventually(t, func() bool { return running() == 1 }, 10*time.Second, time.Millisecond)
			require.Never(t, func() bool { return running() != 1 }, 50*time.Millisecond, 5*time.Millisecond, "it takes long, and reads by now")
			at := time.Now()
			cancel()
			end := <-returned
			t.Log(end.Sub(at))
			require.Less(t, end.Sub(at), goneWithin)
			require.ErrorIs(t, <-failed, context.Canceled)
			require.Zero(t, running())
		})
	}
}
