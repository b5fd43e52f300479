package correlate_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/correlate"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/storage"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func resource(pairs ...string) *telemetry.Resource {
	var as []telemetry.Attr
	for i := 0; i < len(pairs); i += 2 {
		as = append(as, telemetry.Attr{Key: pairs[i], Value: telemetry.String(pairs[i+1])})
	}
	return telemetry.NewResource("", telemetry.NewAttrs(as))
}

func labelSet(pairs ...string) telemetry.LabelSet {
	return telemetry.NewLabelSet(labels.FromStrings(pairs...))
}

func id(n byte) (t telemetry.TraceID) {
	t[15] = n
	return t
}

func span(n byte, name string, at time.Time, d time.Duration, status telemetry.StatusCode) telemetry.Span {
	return telemetry.Span{TraceID: id(n), SpanID: telemetry.SpanID{n, byte(len(name))}, Name: name, Start: at.UnixNano(), End: at.Add(d).UnixNano(), Status: status}
}

// shop fills a store with two pods of which one is replaced by another of the same name.
func shop(t *testing.T) http.Handler {
	t.Helper()
	store := testkit.NewStore("prod")
	write := func(bs ...telemetry.Batch) {
		for i := range bs {
			bs[i].Tenant = telemetry.DefaultTenant
		}
		_, _, err := store.Write(t.Context(), storage.Request{Batches: bs})
		require.NoError(t, err)
	}
	web := resource("service.name", "web", "k8s.namespace.name", "shop", "k8s.pod.name", "web-0", "k8s.pod.uid", "uid-1")
	db := resource("service.name", "database", "k8s.namespace.name", "shop", "k8s.pod.name", "db-0", "k8s.pod.uid", "uid-2")
	next := resource("service.name", "web", "k8s.namespace.name", "shop", "k8s.pod.name", "web-0", "k8s.pod.uid", "uid-3")
	write(
		telemetry.Batch{Resource: web, Spans: []telemetry.Span{span(1, "GET /", start, time.Second, telemetry.StatusUnset)}, Stream: labelSet("service_name", "web"), Logs: []telemetry.LogRecord{
			{Time: start.UnixNano() + 5, Body: telemetry.String("checkout took too long"), TraceID: id(1), Severity: 13},
			{Time: start.UnixNano() + 6, Body: telemetry.String("of another trace"), TraceID: id(2), Severity: 9},
		}},
		telemetry.Batch{Resource: db, Spans: []telemetry.Span{span(1, "SELECT", start.Add(time.Millisecond), 900*time.Millisecond, telemetry.StatusError)}},
		telemetry.Batch{Series: []telemetry.Series{
			{Labels: labelSet("__name__", "container_cpu_usage_seconds_total", "namespace", "shop", "pod", "db-0", "container", "db"), Samples: []telemetry.Sample{{T: start.UnixMilli(), V: 1}, {T: start.UnixMilli() + 15000, V: 2}}},
			{Labels: labelSet("__name__", "container_cpu_usage_seconds_total", "namespace", "shop", "pod", "other-0"), Samples: []telemetry.Sample{{T: start.UnixMilli(), V: 9}}},
		}},
	)
	later := start.Add(time.Hour)
	write(telemetry.Batch{Resource: next, Spans: []telemetry.Span{span(3, "GET /", later, time.Millisecond, telemetry.StatusUnset)}})
	c := correlate.New(correlate.DefaultConfig(), store, func() time.Time { return start.Add(2 * time.Hour) }, nil)
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	correlate.NewAPI(c, httpapi.Errors{}).Register(rt)
	return rt
}

// TestSampledCountAsMany has spans whose traces were kept at random: they count as those they stand for.
func TestSampledCountAsMany(t *testing.T) {
	store := testkit.NewStore("prod")
	res := resource("service.name", "web", "k8s.namespace.name", "shop", "k8s.pod.name", "web-0", "k8s.pod.uid", "uid-1")
	b := telemetry.Batch{Tenant: telemetry.DefaultTenant, Resource: res}
	add := func(n byte, length time.Duration, code telemetry.StatusCode, probability float64) {
		s := span(n, "GET /", start, length, code)
		s.State = telemetry.WithProbability("", probability)
		b.Spans = append(b.Spans, s)
	}
	add(1, 10*time.Second, telemetry.StatusError, 1)
	add(2, time.Millisecond, telemetry.StatusUnset, 1.0/64)
	add(3, time.Second, telemetry.StatusUnset, 0.25)
	_, _, err := store.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
	require.NoError(t, err)
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	correlate.NewAPI(correlate.New(correlate.DefaultConfig(), store, func() time.Time { return start.Add(time.Hour) }, nil), httpapi.Errors{}).Register(rt)
	var out correlate.Resources
	require.Equal(t, 200, get(t, rt, "/api/v1/correlate/resource?kind=pod&name=web-0&start="+strconv.FormatInt(start.Add(-time.Minute).Unix(), 10), &out))
	got := out.Entities[0].Spans
	require.EqualValues(t, 69, got.Count)
	require.EqualValues(t, 1, got.Errors)
	require.InDelta(t, 69, got.RatePerSecond, 0)
	require.InDelta(t, 1.0/69, got.ErrorRatio, 1e-12)
	require.EqualValues(t, time.Millisecond, got.P50Nanos)
	require.EqualValues(t, 10*time.Second, got.P99Nanos) // the 69th of 69
	require.Equal(t, [][3]int64{{start.Unix() / 60 * 60, 69, 1}}, got.PerMinute)
}

func get(t *testing.T, h http.Handler, path string, into any) int {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	var body struct {
		Status, Error string
		Data          json.RawMessage
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), w.Body.String())
	if w.Code == http.StatusOK {
		require.NoError(t, json.Unmarshal(body.Data, into))
	} else {
		require.NotEmpty(t, body.Error)
	}
	return w.Code
}

func TestTraceJoinsItsLogsPodsAndSeries(t *testing.T) {
	h := shop(t)
	var tr correlate.Trace
	require.Equal(t, 200, get(t, h, "/api/v1/correlate/trace/"+id(1).String(), &tr))
	require.Len(t, tr.Spans, 2)
	require.Equal(t, []string{"web", "database"}, tr.Services)
	require.Equal(t, 1, tr.Errors)
	require.Equal(t, int64(time.Second), tr.DurationNanos)
	require.Equal(t, "web-0", tr.Spans[0].Pod)
	require.Len(t, tr.Logs, 1)
	require.Equal(t, "checkout took too long", tr.Logs[0].Body)
	require.Equal(t, "WARN", tr.Logs[0].Severity)
	require.Equal(t, "web-0", tr.Logs[0].Pod)
	byID := map[string]correlate.TraceEntity{}
	for _, e := range tr.Entities {
		byID[string(e.Kind)+" "+e.ID] = e
	}
	require.Contains(t, byID, "pod uid-1")
	require.Contains(t, byID, "pod uid-2")
	require.Contains(t, byID, "service web")
	require.NotContains(t, byID, "pod uid-3", "a pod that took the name over an hour later has no part in it")
	db := byID["pod uid-2"]
	require.Equal(t, 1, db.Errors)
	require.Len(t, db.Series, 1, "the series of cAdvisor names the pod, not its UID")
	require.Equal(t, "cpu", db.Series[0].Topic)
	require.Len(t, db.Series[0].Points, 2)
	require.Contains(t, db.Series[0].Query, "rate(")
	require.Equal(t, 404, get(t, h, "/api/v1/correlate/trace/abc", nil))
	require.Equal(t, 400, get(t, h, "/api/v1/correlate/trace/xyz", nil))
}

func TestResourceByAnyAlias(t *testing.T) {
	h := shop(t)
	from := "&start=" + strconv.FormatInt(start.Add(-time.Minute).Unix(), 10)
	for _, name := range []string{"db-0", "shop/db-0", "prod/shop/db-0", "uid-2"} {
		var out correlate.Resources
		require.Equal(t, 200, get(t, h, "/api/v1/correlate/resource?kind=pod&name="+name+from, &out), name)
		require.Len(t, out.Entities, 1)
		e := out.Entities[0]
		require.Equal(t, "uid-2", e.ID)
		require.EqualValues(t, 1, e.Spans.Count)
		require.EqualValues(t, 1, e.Spans.Errors)
		require.Equal(t, int64(900*time.Millisecond), e.Spans.P99Nanos)
		require.Equal(t, 1, e.Metrics.Series)
		require.NotEmpty(t, e.Related)
	}
	var out correlate.Resources
	require.Equal(t, 200, get(t, h, "/api/v1/correlate/resource?kind=pod&name=web-0"+from, &out))
	require.Len(t, out.Entities, 2, "two pods had that name, one after the other")
	require.EqualValues(t, 2, out.Entities[0].Logs.Records)
	require.Equal(t, map[string]int64{"INFO": 1, "WARN": 1}, out.Entities[0].Logs.BySeverity)
	require.EqualValues(t, 1, out.Entities[1].Spans.Count)
	require.Equal(t, 404, get(t, h, "/api/v1/correlate/resource?name=nobody"+from, nil))
	for _, bad := range []string{"", "?name=a&kind=planet", "?name=a&start=x", "?name=a&start=9&end=3"} {
		require.Equal(t, 400, get(t, h, "/api/v1/correlate/resource"+bad, nil), bad)
	}
}
