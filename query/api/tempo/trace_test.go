package tempo_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/internal/wire"
	"github.com/braidobs/braid/query/api/tempo"
	"github.com/braidobs/braid/storage"
)

// long is a trace of n spans in ten services, ten of which start at the same time each time.
func long(t *testing.T, n int) *testkit.Store {
	t.Helper()
	s := testkit.NewStore("c")
	for svc := range 10 {
		b := telemetry.Batch{Tenant: tenant, Resource: service(fmt.Sprint("s", svc))}
		for i := svc; i < n; i += 10 {
			at := int64(i/10) * int64(time.Millisecond)
			sp := telemetry.Span{TraceID: id(1), SpanID: telemetry.SpanID{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i), 1}, Start: at, End: at + 5, Name: "work"}
			if i > 0 {
				sp.ParentID = telemetry.SpanID{4: 1}
			}
			b.Spans = append(b.Spans, sp)
		}
		_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
		require.NoError(t, err)
	}
	return s
}

// pagesOf reads a trace in pages and returns how many times each span came, and the pages.
func pagesOf(t *testing.T, h http.Handler, limit int) (seen map[string]int, pages int) {
	t.Helper()
	seen = make(map[string]int)
	last := int64(-1)
	for cursor := ""; ; pages++ {
		w := get(t.Context(), h, fmt.Sprintf("/api/v2/traces/1?limit=%d&cursor=%s", limit, cursor))
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		var out struct {
			Trace           json.RawMessage
			Status, Message string
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out))
		td, err := new(ptrace.JSONUnmarshaler).UnmarshalTraces(out.Trace)
		require.NoError(t, err)
		require.LessOrEqual(t, td.SpanCount(), limit)
		first, end := int64(1)<<62, int64(0)
		for _, rs := range td.ResourceSpans().All() {
			for _, ss := range rs.ScopeSpans().All() {
				for _, sp := range ss.Spans().All() {
					seen[sp.SpanID().String()]++
					first, end = min(first, int64(sp.StartTimestamp())), max(end, int64(sp.StartTimestamp()))
				}
			}
		}
		require.GreaterOrEqual(t, first, last, "pages come by start")
		last = end
		if cursor = w.Header().Get("Braid-Cursor"); cursor == "" {
			require.Empty(t, out.Status)
			require.Equal(t, "true", w.Header().Get("Braid-Complete"))
			return seen, pages + 1
		}
		require.Equal(t, "PARTIAL", out.Status)
		require.Contains(t, out.Message, cursor)
		require.Equal(t, "false", w.Header().Get("Braid-Complete"))
		require.Equal(t, limit, td.SpanCount())
	}
}

func TestTracePages(t *testing.T) {
	const n = 300
	h := handler(long(t, n), tempo.DefaultConfig())
	for _, limit := range []int{1, 3, 7, 10, 100, 299, 300, 301} {
		seen, pages := pagesOf(t, h, limit)
		require.Len(t, seen, n, "limit %d", limit)
		for sp, times := range seen {
			require.Equal(t, 1, times, sp)
		}
		require.Equal(t, (n+limit-1)/limit, pages)
	}
	w := get(t.Context(), h, "/api/v2/traces/1?limit=7", "Accept", "application/protobuf")
	fields := make(map[uint64]wire.Field)
	require.NoError(t, wire.Fields(w.Body.String(), func(f wire.Field) error { fields[f.Num] = f; return nil }))
	require.Equal(t, uint64(1), fields[3].N, "PARTIAL")
	require.Contains(t, fields[4].S, "cursor=")
	td, err := new(ptrace.ProtoUnmarshaler).UnmarshalTraces([]byte(fields[1].S))
	require.NoError(t, err)
	require.Equal(t, 7, td.SpanCount())
	for _, target := range []string{"?limit=0", "?limit=1&cursor=!", "?limit=1&cursor=AAAA", "?limit=500001"} {
		require.Equal(t, http.StatusBadRequest, get(t.Context(), h, "/api/v2/traces/1"+target).Code, target)
	}
	cfg := tempo.DefaultConfig()
	cfg.MaxSpans = 100
	h = handler(long(t, n), cfg)
	w = get(t.Context(), h, "/api/v2/traces/1")
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	require.Contains(t, w.Body.String(), "read it in pages with limit=")
	seen, _ := pagesOf(t, h, 100)
	require.Len(t, seen, n)
}
