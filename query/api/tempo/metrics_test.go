package tempo_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/query/api/tempo"
	"github.com/braidobs/braid/storage"
)

// withoutStats returns a JSON answer without what the query cost.
func withoutStats(t *testing.T, body []byte) string {
	t.Helper()
	got := make(map[string]any)
	require.NoError(t, json.Unmarshal(body, &got))
	require.Contains(t, got, "metrics")
	delete(got, "metrics")
	text, err := json.Marshal(got)
	require.NoError(t, err)
	return string(text)
}

func TestMetrics(t *testing.T) {
	h := handler(store(t), tempo.DefaultConfig()) // it is 1000 s
	tests := []struct {
		name, path, q, params, want string
	}{
		{
			"count over time", "query_range", `{ span.http.code = 500 } | count_over_time()`, "start=10&end=30&step=10s&exemplars=0",
			`{"series":[{"labels":[{"key":"__name__","value":{"stringValue":"count_over_time"}}],
				"samples":[{"timestampMs":"10000","value":0},{"timestampMs":"20000","value":1},{"timestampMs":"30000","value":1}]}]}`,
		},
		{
			"labels have types", "query_range", `{ } | rate() by (span.http.code, status)`, "start=20&end=30&step=10&exemplars=0",
			`{"series":[
				{"labels":[{"key":"span.http.code","value":{"intValue":"200"}},{"key":"status","value":{"stringValue":"unset"}}],"samples":[{"timestampMs":"20000","value":0},{"timestampMs":"30000","value":0.1}]},
				{"labels":[{"key":"span.http.code","value":{"intValue":"500"}},{"key":"status","value":{"stringValue":"unset"}}],"samples":[{"timestampMs":"20000","value":0.1},{"timestampMs":"30000","value":0}]},
				{"labels":[{"key":"span.http.code","value":{"intValue":"500"}},{"key":"status","value":{"stringValue":"error"}}],"samples":[{"timestampMs":"20000","value":0},{"timestampMs":"30000","value":0.1}]}]}`,
		},
		{
			"exemplars", "query_range", `{ name = "GET /cart" } | count_over_time() by (name)`, "start=20&end=20.5&step=10s&exemplars=5",
			`{"series":[{"labels":[{"key":"name","value":{"stringValue":"GET /cart"}}],"samples":[{"timestampMs":"20000","value":1},{"timestampMs":"30000","value":0}],
				"exemplars":[{"labels":[{"key":"trace:id","value":{"stringValue":"00000000000000000000000000000002"}}],"timestampMs":"20000","value":1}]}]}`,
		},
		{
			"instant", "query", `{ } | max_over_time(duration) by (resource.service.name)`, "start=1&end=40",
			`{"series":[{"labels":[{"key":"resource.service.name","value":{"stringValue":"db"}}],"value":1},{"labels":[{"key":"resource.service.name","value":{"stringValue":"web"}}],"value":5}]}`,
		},
		{
			"of the last hour", "query", `{ } | count_over_time()`, "",
			`{"series":[{"labels":[{"key":"__name__","value":{"stringValue":"count_over_time"}}],"value":5}]}`,
		},
		{
			"since", "query", `{ } | count_over_time()`, "since=975s",
			`{"series":[{"labels":[{"key":"__name__","value":{"stringValue":"count_over_time"}}],"value":1}]}`,
		},
		{
			"of what is not there", "query", `{ } | avg_over_time(span.nope)`, "start=1&end=40", `{"series":[]}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, q := range []string{"q", "query"} {
				w := get(t.Context(), h, "/api/metrics/"+tt.path+"?"+q+"="+url.QueryEscape(tt.q)+"&"+tt.params)
				require.Equal(t, http.StatusOK, w.Code, w.Body)
				require.JSONEq(t, tt.want, withoutStats(t, w.Body.Bytes()))
			}
		})
	}
	steps := func(params string) (n int) {
		var out struct{ Series []struct{ Samples []any } }
		w := get(t.Context(), h, "/api/metrics/query_range?q=%7B%7D%7Crate()&"+params)
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out))
		require.Len(t, out.Series, 1, w.Body)
		return len(out.Series[0].Samples)
	}
	require.Equal(t, 101, steps("start=0.001&end=100"), "a second each")
	require.Equal(t, 121, steps("start=1&end=3600"), "30 seconds each")
	require.LessOrEqual(t, steps("start=1&end=1000000"), 121)
	require.Equal(t, 1001, steps("start=10&end=11&step=0.001"))
}

func TestMetricsErrors(t *testing.T) {
	h := handler(store(t), tempo.DefaultConfig())
	for params, text := range map[string]string{
		"":                                     "the parameter q is missing",
		"q=%7B%7D":                             "the query is for traces",
		"q=%7B%7D%7Crate(1)":                   "parse error at line 1",
		"q=%7B%7D%7Crate()&start=x":            `invalid start "x"`,
		"q=%7B%7D%7Crate()&end=x":              `invalid end "x"`,
		"q=%7B%7D%7Crate()&since=x":            `invalid since "x"`,
		"q=%7B%7D%7Crate()&start=5&end=4":      `invalid end "4"`,
		"q=%7B%7D%7Crate()&step=x":             `invalid step "x"`,
		"q=%7B%7D%7Crate()&step=-1":            `invalid step "-1"`,
		"q=%7B%7D%7Crate()&step=NaN":           `invalid step "NaN"`,
		"q=%7B%7D%7Crate()&step=1us":           "a millisecond at least",
		"q=%7B%7D%7Crate()&exemplars=1000000":  `invalid exemplars "1000000"`,
		"q=%7B%7D%7Crate()&exemplars=-1":       `invalid exemplars "-1"`,
		"q=%7B%7D%7Crate()&start=1&end=1&a=%z": "malformed parameters",
	} {
		w := get(t.Context(), h, "/api/metrics/query_range?"+params)
		require.Equal(t, http.StatusBadRequest, w.Code, "%s: %s", params, w.Body)
		require.Contains(t, w.Body.String(), text)
	}
	w := get(t.Context(), h, "/api/metrics/query_range?q=%7B%7D%7Crate()&start=1&end=900000&step=1s")
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	require.Contains(t, w.Body.String(), "limit of 11000")
}

// stuck is a store that answers when it is told to stop.
type stuck struct{ storage.Reader }

func (stuck) View(ctx context.Context, _ storage.Position) (storage.View, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestQueriesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := handler(stuck{}, tempo.DefaultConfig())
		began := time.Now()
		w := get(t.Context(), h, "/api/search?q=%7B%7D")
		require.Equal(t, http.StatusServiceUnavailable, w.Code, w.Body)
		require.Contains(t, w.Body.String(), "longer than 2m0s")
		require.Equal(t, 2*time.Minute, time.Since(began))
	})
}
