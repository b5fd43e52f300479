package plugin_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/grafana-plugin/internal/contract"
)

// FuzzAnswers: whatever a server answers becomes frames that keep the contract, or an error of the server's.
func FuzzAnswers(f *testing.F) {
	types := []string{"metrics", "logs", "trace", "traceLogs", "traceMetrics", "search", "resource", "traceql"}
	files, err := filepath.Glob("testdata/answers/*.json")
	require.NoError(f, err)
	for _, name := range files {
		b, err := os.ReadFile(name)
		require.NoError(f, err)
		var exchanges []exchange
		require.NoError(f, json.Unmarshal(b, &exchanges))
		for _, e := range exchanges {
			for i := range types {
				if len(e.Body) < 20000 {
					f.Add(byte(i), []byte(e.Body))
				}
			}
		}
	}
	f.Add(byte(0), []byte(`{"data":{"resultType":"vector","result":[{"metric":{"Value":"x"},"value":[1,"1"]}]}}`))
	f.Add(byte(2), []byte(`{"trace":{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":"a","startTimeUnixNano":"9","endTimeUnixNano":"1","status":{"code":9}}]}]}]}}`))
	var body atomic.Pointer[[]byte]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(*body.Load())
	}))
	f.Cleanup(srv.Close)
	ds := open(f, srv.URL, nil, nil)
	f.Fuzz(func(t *testing.T, kind byte, in []byte) {
		body.Store(&in)
		b, err := json.Marshal(map[string]any{
			"queryType": types[int(kind)%len(types)], "expr": "x", "traceId": "1", "resource": "r", "instant": kind > 100, "format": []string{"", "table", "timeseries", "timeseries"}[kind>>3&3], "exemplars": kind&2 > 0,
		})
		require.NoError(t, err)
		got := ask(t, ds, time.Unix(1e9, 0), string(b))
		if got.Error != nil {
			require.Equal(t, backend.ErrorSourceDownstream, got.ErrorSource, got.Error)
			return
		}
		require.NoError(t, contract.Check(got.Frames))
		_, err = json.Marshal(got.Frames)
		require.NoError(t, err)
	})
}

// FuzzQuery: whatever a query says, it is answered or refused.
func FuzzQuery(f *testing.F) {
	for _, q := range goldenCases() {
		f.Add([]byte(q), int64(60000), int64(3600))
	}
	f.Add([]byte(`{"expr":"$__range","minStep":"65535d"}`), int64(-5), int64(1)<<40)
	srv := httptest.NewServer(respond(200, "application/json", `{"data":{"resultType":"matrix","result":[]}}`))
	f.Cleanup(srv.Close)
	ds := open(f, srv.URL, nil, nil)
	f.Fuzz(func(t *testing.T, q []byte, interval, span int64) {
		out, err := ds.QueryData(t.Context(), &backend.QueryDataRequest{Queries: []backend.DataQuery{{
			RefID: "A", JSON: q, Interval: time.Duration(interval), TimeRange: backend.TimeRange{From: time.Unix(0, 0), To: time.Unix(span, 0)},
		}}})
		require.NoError(t, err)
		if a := out.Responses["A"]; a.Error != nil {
			require.Equal(t, backend.ErrorSourceDownstream, a.ErrorSource, a.Error)
		}
	})
}
