package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

// writeSamples sends a remote write request and returns status and headers of the answer.
func writeSamples(t *testing.T, s *harness.Server, contentType string, body []byte) (int, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTP+"/api/v1/write", bytes.NewReader(s2.EncodeSnappy(nil, body)))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", "snappy")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, resp.Header
}

// vector answers an instant query as one text a series: labels and value.
func vector(t *testing.T, s *harness.Server, expr string) (out []string) {
	t.Helper()
	code, b := get(t, s, "", "/api/v1/query?query="+url.QueryEscape(expr))
	require.Equal(t, http.StatusOK, code, "%s", b)
	var a struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	require.NoError(t, json.Unmarshal(b, &a))
	for _, r := range a.Data.Result {
		out = append(out, fmt.Sprint(r.Metric, " ", r.Value[1]))
	}
	return out
}

func TestRemoteWrite(t *testing.T) {
	s := start(t, t.TempDir(), "")
	now := time.Now().UnixMilli()
	one := &prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{{
			Labels:  []prompb.Label{{Name: "__name__", Value: "one"}, {Name: "job", Value: "a"}},
			Samples: []prompb.Sample{{Timestamp: now, Value: 1}},
		}},
		Metadata: []prompb.MetricMetadata{{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: "one", Help: "The first."}},
	}
	body, err := one.Marshal()
	require.NoError(t, err)
	code, _ := writeSamples(t, s, "application/x-protobuf", body)
	require.Equal(t, http.StatusNoContent, code)
	require.Equal(t, []string{"map[__name__:one job:a] 1"}, vector(t, s, "one"))

	st := writev2.NewSymbolTable()
	two := &writev2.Request{Timeseries: []writev2.TimeSeries{
		{
			LabelsRefs: st.SymbolizeLabels(labels.FromStrings("__name__", "two", "job", "b"), nil),
			Samples:    []writev2.Sample{{Timestamp: now, Value: 2}},
			Exemplars:  []writev2.Exemplar{{LabelsRefs: st.SymbolizeLabels(labels.FromStrings("trace_id", "abc"), nil), Value: 3, Timestamp: now}},
			Metadata:   writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: st.Symbolize("The second.")},
		},
		{LabelsRefs: st.SymbolizeLabels(labels.FromStrings("job", "nameless"), nil), Samples: []writev2.Sample{{Timestamp: now}}},
	}}
	two.Symbols = st.Symbols()
	body, err = two.Marshal()
	require.NoError(t, err)
	code, header := writeSamples(t, s, "application/x-protobuf;proto=io.prometheus.write.v2.Request", body)
	require.Equal(t, http.StatusBadRequest, code, "one series has no name")
	for _, what := range []string{"Samples", "Exemplars"} {
		require.Equal(t, "1", header.Get("X-Prometheus-Remote-Write-"+what+"-Written"))
	}
	require.Equal(t, []string{"map[__name__:two job:b] 2"}, vector(t, s, "two"))
	_, b := get(t, s, "", "/api/v1/query_exemplars?start=0&end=4000000000&query=two")
	require.Contains(t, string(b), `"trace_id":"abc"`)
	_, b = get(t, s, "", "/api/v1/metadata")
	require.Contains(t, string(b), "The first.")
	require.Contains(t, string(b), "The second.")
}

// TestImport imports a block by the command, twice.
func TestImport(t *testing.T) {
	s := start(t, t.TempDir(), "")
	dir := t.TempDir()
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, 2*time.Hour.Milliseconds())
	require.NoError(t, err)
	app := w.Appender(t.Context())
	from := time.Now().Add(-30 * time.Hour).Truncate(2 * time.Hour)
	for n := range 100 {
		_, err := app.Append(0, labels.FromStrings("__name__", "old", "job", "a"), from.Add(time.Duration(n)*time.Minute).UnixMilli(), float64(n))
		require.NoError(t, err)
	}
	require.NoError(t, app.Commit())
	_, err = w.Flush(t.Context())
	require.NoError(t, err)
	require.NoError(t, w.Close())
	for range 2 {
		out, errOut, code := braid(t, "import", "prometheus", "-url", "http://"+s.HTTP, "-state", filepath.Join(dir, "state.json"), dir)
		require.Zero(t, code, errOut)
		require.Contains(t, out, "1 blocks, 100 samples")
	}
	require.Equal(t, []string{"map[job:a] 100"}, vector(t, s, "count_over_time(old[2d])"))
}
