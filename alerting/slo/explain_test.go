package slo_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/alerting/notify"
	"github.com/braidobs/braid/alerting/slo"
	"github.com/braidobs/braid/correlate/evidence"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// state is a storage.State in a map.
type state struct {
	mu   sync.Mutex
	m    map[string][]byte
	sets int
}

var _ storage.State = (*state)(nil)

func (s *state) Set(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sets++
	if len(value) == 0 {
		delete(s.m, key)
		return nil
	}
	s.m[key] = value
	return nil
}

func (s *state) Get(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[key]
}

func (s *state) Keys(prefix string) (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.m {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// line stores a line of each trace.
func (r *rig) line(t *testing.T, at time.Time, text string) {
	t.Helper()
	b := telemetry.Batch{Tenant: telemetry.DefaultTenant, Stream: telemetry.NewLabelSet(labels.FromStrings("service_name", "cart"))}
	for n := range r.n {
		n++
		b.Logs = append(b.Logs, telemetry.LogRecord{
			Time: at.UnixNano(), TraceID: telemetry.TraceID{1, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, Severity: 17, Body: telemetry.String(text),
		})
	}
	_, _, err := r.store.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
	require.NoError(t, err)
}

func burning(startsAt time.Time) *notify.Alert {
	return &notify.Alert{
		Labels:      labels.FromStrings("alertname", slo.AlertName, "slo", "cart-errors", "severity", "page", "service", "cart"),
		Annotations: labels.FromStrings("summary", "cart-errors burns"), StartsAt: startsAt,
	}
}

func TestExplain(t *testing.T) {
	r := newRig(t, short)
	r.spans(t, now.Add(-3*time.Minute), 50, 10)
	st := &state{m: map[string][]byte{}}
	e := slo.NewExplainer(slo.ExplainerDeps{
		Manager: r.manager, Collector: evidence.NewCollector(r.store, r.engine, time.Now, prometheus.NewRegistry()), State: st,
		URL: "http://braid", Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler),
	})
	a := burning(now)
	e.Annotate(t.Context(), a)
	fp := slo.Fingerprint(a.Labels)
	want := model.LabelSet{}
	a.Labels.Range(func(l labels.Label) { want[model.LabelName(l.Name)] = model.LabelValue(l.Value) })
	require.Equal(t, want.Fingerprint().String(), fp)
	require.Equal(t, "http://braid/api/v1/evidence/"+fp, a.Annotations.Get(slo.AnnotationEvidence))
	require.Contains(t, a.Annotations.Get(slo.AnnotationTraces), "(cart GET, 5 ms)")
	require.Equal(t, "cart-errors burns", a.Annotations.Get("summary"))
	require.Equal(t, 1, st.sets)

	// The same alert again, and when it is resolved, carries what was gathered first.
	again := burning(now)
	e.Annotate(t.Context(), again)
	require.Equal(t, a.Annotations, again.Annotations)
	again = burning(now)
	again.Resolved = true
	e.Annotate(t.Context(), again)
	require.Equal(t, a.Annotations, again.Annotations)
	require.Equal(t, 1, st.sets)
	// While there are no lines yet it is gathered again, and kept when there is more.
	r.spans(t, now.Add(-2*time.Minute), 1, 1)
	e.Annotate(t.Context(), burning(now))
	require.Equal(t, 1, st.sets, "five traces are all")
	r.line(t, now.Add(-3*time.Minute), "boom")
	later := burning(now)
	e.Annotate(t.Context(), later)
	require.Equal(t, 2, st.sets)
	require.Contains(t, later.Annotations.Get(slo.AnnotationLogs), "boom")
	e.Annotate(t.Context(), burning(now))
	require.Equal(t, 2, st.sets)
	// When it fires anew it is gathered anew.
	e.Annotate(t.Context(), burning(now.Add(time.Hour)))
	require.Equal(t, 3, st.sets)
	// Others are left alone.
	other := &notify.Alert{Labels: labels.FromStrings("alertname", "Other", "slo", "cart-errors")}
	e.Annotate(t.Context(), other)
	require.True(t, other.Annotations.IsEmpty())

	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	e.Register(rt)
	r.manager.Register(rt)
	ask := func(path, tenant string) (int, map[string]any) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		if tenant != "" {
			req.Header.Set("X-Scope-OrgID", tenant)
		}
		w := httptest.NewRecorder()
		rt.ServeHTTP(w, req)
		var out map[string]any
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out), w.Body.String())
		return w.Code, out
	}
	code, out := ask("/api/v1/evidence/"+fp, "")
	require.Equal(t, http.StatusOK, code)
	data := out["data"].(map[string]any)
	require.Equal(t, "cart-errors", data["slo"])
	require.NotEmpty(t, data["traces"])
	for _, miss := range []struct{ path, tenant string }{{"/api/v1/evidence/" + fp, "other"}, {"/api/v1/evidence/0123", ""}, {"/api/v1/slos?name=none", ""}, {"/api/v1/slos?name=http", "other"}} {
		code, out = ask(miss.path, miss.tenant)
		require.Equal(t, http.StatusNotFound, code, miss.path)
		require.Equal(t, "error", out["status"])
	}
	code, out = ask("/api/v1/slos?name=cart-errors", "")
	require.Equal(t, http.StatusOK, code)
	require.Len(t, out["data"].(map[string]any)["slos"], 1)
	_, out = ask("/api/v1/slos", "other")
	require.Empty(t, out["data"].(map[string]any)["slos"])

	// Evidence that cannot be read is gathered anew; of too much the oldest goes.
	st.m["evidence/"+fp] = []byte("{broken")
	e.Annotate(t.Context(), burning(now))
	code, _ = ask("/api/v1/evidence/"+fp, "")
	require.Equal(t, http.StatusOK, code)
	for i := range 600 {
		a := burning(now.Add(time.Duration(i) * time.Second))
		a.Labels = labels.NewBuilder(a.Labels).Set("n", strings.Repeat("x", i)).Labels()
		e.Annotate(t.Context(), a)
	}
	require.Len(t, st.m, 500)
}
