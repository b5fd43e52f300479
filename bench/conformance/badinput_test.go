package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

// rawWrite sends bytes to the receiver of remote write and returns the answer with its text.
func rawWrite(t *testing.T, s *harness.Server, contentType, encoding string, body []byte) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTP+"/api/v1/write", bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", encoding)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header, string(b)
}

const (
	typeV1 = "application/x-protobuf"
	typeV2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
)

// goodSeries is what goes beside something bad: series good with a number.
func goodSeries(n int, at time.Time) prompb.TimeSeries {
	return prompb.TimeSeries{
		Labels:  []prompb.Label{{Name: "__name__", Value: "good"}, {Name: "n", Value: strconv.Itoa(n)}},
		Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: float64(n)}},
	}
}

// packed returns a request of version 1 as it goes over the wire.
func packed(t *testing.T, series ...prompb.TimeSeries) []byte {
	t.Helper()
	b, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	require.NoError(t, err)
	return s2.EncodeSnappy(nil, b)
}

// asVersion2 returns the same request in version 2.
func asVersion2(t *testing.T, series ...prompb.TimeSeries) []byte {
	t.Helper()
	st := writev2.NewSymbolTable()
	req := &writev2.Request{}
	for i := range series {
		in := &series[i]
		var out writev2.TimeSeries
		for _, l := range in.Labels { // as they are: repeated, empty or out of order
			out.LabelsRefs = append(out.LabelsRefs, st.Symbolize(l.Name), st.Symbolize(l.Value))
		}
		for _, p := range in.Samples {
			out.Samples = append(out.Samples, writev2.Sample{Timestamp: p.Timestamp, Value: p.Value})
		}
		for j := range in.Histograms { // the fields have the same numbers in both versions
			b, err := in.Histograms[j].Marshal()
			require.NoError(t, err)
			var h writev2.Histogram
			require.NoError(t, h.Unmarshal(b))
			out.Histograms = append(out.Histograms, h)
		}
		req.Timeseries = append(req.Timeseries, out)
	}
	req.Symbols = st.Symbols()
	b, err := req.Marshal()
	require.NoError(t, err)
	return s2.EncodeSnappy(nil, b)
}

// TestBadSeries sends one bad series between good ones, in both versions: the answer tells what is wrong with it, and
// the others are stored.
func TestBadSeries(t *testing.T) {
	s := start(t, t.TempDir(), "")
	now := time.Now().Truncate(time.Second)
	m := func(pairs ...string) (out []prompb.Label) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
		}
		return out
	}
	sample := func(at time.Time) []prompb.Sample { return []prompb.Sample{{Timestamp: at.UnixMilli(), Value: 1}} }
	hist := func(change func(*prompb.Histogram)) []prompb.Histogram {
		h := prompb.Histogram{
			Count: &prompb.Histogram_CountInt{CountInt: 3}, ZeroCount: &prompb.Histogram_ZeroCountInt{}, Sum: 3, Timestamp: now.UnixMilli(),
			PositiveSpans: []prompb.BucketSpan{{Length: 2}}, PositiveDeltas: []int64{1, 1},
		}
		change(&h)
		return []prompb.Histogram{h}
	}
	many := m("__name__", "bad")
	for i := range 64 {
		many = append(many, prompb.Label{Name: fmt.Sprintf("l%02d", i), Value: "v"})
	}
	bad := m("__name__", "bad")
	tests := []struct {
		name   string
		series prompb.TimeSeries
		want   string // in the answer
		reason string // in the server's own metrics
	}{
		{"no name", prompb.TimeSeries{Labels: m("bad", "a"), Samples: sample(now)}, "no label __name__", "no_metric_name"},
		{"label twice", prompb.TimeSeries{Labels: m("__name__", "bad", "a", "1", "a", "2"), Samples: sample(now)}, `label "a" is given twice`, "malformed"},
		{"label without name", prompb.TimeSeries{Labels: m("__name__", "bad", "", "1"), Samples: sample(now)}, "a label has no name", "malformed"},
		{"value is not UTF-8", prompb.TimeSeries{Labels: m("__name__", "bad", "a", "\xff\xfe"), Samples: sample(now)}, "not valid UTF-8", "not_utf8"},
		{"name is not UTF-8", prompb.TimeSeries{Labels: m("__name__", "bad", "a\xc3\x28", "x"), Samples: sample(now)}, "not valid UTF-8", "not_utf8"},
		{"metric is not UTF-8", prompb.TimeSeries{Labels: m("__name__", "bad\x80"), Samples: sample(now)}, "not valid UTF-8", "not_utf8"},
		{"too many labels", prompb.TimeSeries{Labels: many, Samples: sample(now)}, "setting ingest.max_labels", "too_many_labels"},
		{"long name", prompb.TimeSeries{Labels: m("__name__", "bad", strings.Repeat("n", 1025), "v"), Samples: sample(now)}, "setting ingest.max_name", "name_too_long"},
		{"long value", prompb.TimeSeries{Labels: m("__name__", "bad", "a", strings.Repeat("v", 64<<10+1)), Samples: sample(now)}, "setting ingest.max_label_value", "label_value_too_long"},
		{"1970", prompb.TimeSeries{Labels: bad, Samples: sample(time.UnixMilli(0))}, "older than the retention", "too_old"},
		{"before 1970", prompb.TimeSeries{Labels: bad, Samples: sample(time.UnixMilli(-86_400_000))}, "older than the retention", "too_old"},
		{"2100", prompb.TimeSeries{Labels: bad, Samples: sample(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))}, "in the future (setting ingest.max_future)", "too_far_in_future"},
		{"no year", prompb.TimeSeries{Labels: bad, Samples: []prompb.Sample{{Timestamp: 1<<63 - 1}}}, "within the years", "time_out_of_range"},
		{"histogram of 1970", prompb.TimeSeries{Labels: bad, Histograms: hist(func(h *prompb.Histogram) { h.Timestamp = 0 })}, "older than the retention", "too_old"},
		{"spans for more buckets", prompb.TimeSeries{Labels: bad, Histograms: hist(func(h *prompb.Histogram) { h.PositiveSpans[0].Length = 3 })}, "spans do not fit", "bad_histogram"},
		{"spans for a billion buckets", prompb.TimeSeries{Labels: bad, Histograms: hist(func(h *prompb.Histogram) { h.PositiveSpans[0].Length = 1 << 30 })}, "spans do not fit", "bad_histogram"},
		{"span that goes back", prompb.TimeSeries{Labels: bad, Histograms: hist(func(h *prompb.Histogram) {
			h.PositiveSpans = []prompb.BucketSpan{{Length: 1}, {Offset: -5, Length: 1}}
		})}, "offset is negative", "bad_histogram"},
		{"negative bucket", prompb.TimeSeries{Labels: bad, Histograms: hist(func(h *prompb.Histogram) { h.PositiveDeltas = []int64{1, -3} })}, "bucket", "bad_histogram"},
		{"count that does not fit", prompb.TimeSeries{Labels: bad, Histograms: hist(func(h *prompb.Histogram) { h.Count = &prompb.Histogram_CountInt{CountInt: 1} })}, "Count field is 1", "bad_histogram"},
		{"unknown schema", prompb.TimeSeries{Labels: bad, Histograms: hist(func(h *prompb.Histogram) { h.Schema = -77 })}, "schema", "bad_histogram"},
		{"custom bounds out of order", prompb.TimeSeries{Labels: bad, Histograms: hist(func(h *prompb.Histogram) {
			h.Schema, h.CustomValues = -53, []float64{2, 1}
		})}, "custom", "bad_histogram"},
	}
	n := 0
	refused := func(reason string) float64 {
		x, err := s.Metric(t.Context(), "braid_ingest_rejected_total", `reason="`+reason+`"`)
		require.NoError(t, err)
		return x
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := refused(tt.reason)
			for _, version := range []struct {
				contentType string
				encode      func(*testing.T, ...prompb.TimeSeries) []byte
			}{{typeV1, packed}, {typeV2, asVersion2}} {
				body := version.encode(t, goodSeries(n, now), tt.series, goodSeries(n+1, now))
				n += 2
				code, header, text := rawWrite(t, s, version.contentType, "snappy", body)
				require.Equal(t, http.StatusBadRequest, code, text)
				require.Contains(t, text, tt.want)
				require.Equal(t, "1", header.Get("Braid-Refused"))
				if version.contentType == typeV2 {
					require.Equal(t, "2", header.Get("X-Prometheus-Remote-Write-Samples-Written"))
					require.Equal(t, "0", header.Get("X-Prometheus-Remote-Write-Histograms-Written"))
				}
				code, _, text = rawWrite(t, s, version.contentType, "snappy", version.encode(t, goodSeries(n, now)))
				n++
				require.Equal(t, http.StatusNoContent, code, text)
			}
			require.InDelta(t, before+2, refused(tt.reason), 0)
			requireGood(t, s, n)
		})
	}
	require.Empty(t, vector(t, s, `{__name__=~"bad.*"}`))
}

// requireGood requires that the series good are there as they were sent, and no other.
func requireGood(t *testing.T, s *harness.Server, n int) {
	t.Helper()
	want := make([]string, n)
	for i := range want {
		want[i] = fmt.Sprintf("map[__name__:good n:%d] %d", i, i)
	}
	require.ElementsMatch(t, want, vector(t, s, "good"))
}

// TestBadRequests sends what is no request at all: each gets its code, nothing of it is stored, and the server goes on.
func TestBadRequests(t *testing.T) {
	s := start(t, t.TempDir(), "remote_write: {max_body: 1MiB}\n")
	now := time.Now().Truncate(time.Second)
	whole := packed(t, goodSeries(0, now), goodSeries(1, now))
	raw, err := s2.Decode(nil, whole)
	require.NoError(t, err)
	v2, err := s2.Decode(nil, asVersion2(t, goodSeries(0, now)))
	require.NoError(t, err)
	snappy := func(b []byte) []byte { return s2.EncodeSnappy(nil, b) }
	tests := []struct {
		name, contentType, encoding string
		body                        []byte
		want                        int
	}{
		{"other type", "application/json", "snappy", whole, http.StatusUnsupportedMediaType},
		{"other message", "application/x-protobuf;proto=io.prometheus.write.v9.Request", "snappy", whole, http.StatusUnsupportedMediaType},
		{"other encoding", typeV1, "zstd", whole, http.StatusUnsupportedMediaType},
		{"not packed", typeV1, "snappy", raw, http.StatusBadRequest},
		{"not packed, version 2", typeV2, "snappy", v2, http.StatusBadRequest},
		{"cut", typeV1, "snappy", whole[:len(whole)-3], http.StatusBadRequest},
		{"cut inside", typeV1, "snappy", snappy(raw[:len(raw)-3]), http.StatusBadRequest},
		{"cut inside, version 2", typeV2, "snappy", snappy(v2[:len(v2)-3]), http.StatusBadRequest},
		{"noise", typeV1, "snappy", snappy(bytes.Repeat([]byte{0xff, 0x0a, 0x7f}, 500)), http.StatusBadRequest},
		{"noise, version 2", typeV2, "snappy", snappy(bytes.Repeat([]byte{0xff, 0x0a, 0x7f}, 500)), http.StatusBadRequest},
		{"a field of four gigabytes", typeV1, "snappy", snappy([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1}), http.StatusBadRequest},
		{"a header that promises four gigabytes", typeV1, "snappy", append(binary.AppendUvarint(nil, 1<<32-1), whole...), http.StatusRequestEntityTooLarge},
		{"a header above the limit", typeV2, "snappy", append(binary.AppendUvarint(nil, 2<<20), whole...), http.StatusRequestEntityTooLarge},
		{"unpacked above the limit", typeV1, "snappy", snappy(make([]byte, 2<<20)), http.StatusRequestEntityTooLarge},
		{"packed above the limit", typeV1, "snappy", slices.Repeat(whole, 20_000), http.StatusRequestEntityTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, header, text := rawWrite(t, s, tt.contentType, tt.encoding, tt.body)
			require.Equal(t, tt.want, code, text)
			require.NotEmpty(t, text)
			require.Empty(t, header.Get("Braid-Refused"), "nothing was stored")
			require.Empty(t, vector(t, s, "good"))
		})
	}
	code, _, text := rawWrite(t, s, typeV1, "snappy", whole)
	require.Equal(t, http.StatusNoContent, code, text)
	requireGood(t, s, 2)
	u, err := s.Usage()
	require.NoError(t, err)
	require.Less(t, u.PeakRSS, int64(256<<20), "no memory was taken for what was promised")
}

// TestBadSymbols sends references of version 2 that lead nowhere.
func TestBadSymbols(t *testing.T) {
	s := start(t, t.TempDir(), "")
	now := time.Now().Truncate(time.Second)
	sample := []writev2.Sample{{Timestamp: now.UnixMilli(), Value: 1}}
	for i, refs := range [][]uint32{{1, 2, 3}, {1, 99}, {1, 1<<32 - 1}, {99, 2}} {
		t.Run(fmt.Sprint(refs), func(t *testing.T) {
			st := writev2.NewSymbolTable()
			good := st.SymbolizeLabels(labels.FromStrings("__name__", "good", "n", strconv.Itoa(i)), nil)
			req := &writev2.Request{Timeseries: []writev2.TimeSeries{
				{LabelsRefs: refs, Samples: sample},
				{LabelsRefs: good, Samples: []writev2.Sample{{Timestamp: now.UnixMilli(), Value: float64(i)}}},
			}}
			req.Symbols = st.Symbols()
			b, err := req.Marshal()
			require.NoError(t, err)
			code, header, text := rawWrite(t, s, typeV2, "snappy", s2.EncodeSnappy(nil, b))
			require.Equal(t, http.StatusBadRequest, code, text)
			require.Equal(t, "1", header.Get("X-Prometheus-Remote-Write-Samples-Written"))
			requireGood(t, s, i+1)
		})
	}
	x, err := s.Metric(t.Context(), "braid_ingest_rejected_total", `reason="bad_symbol"`)
	require.NoError(t, err)
	require.InDelta(t, 4, x, 0)
}
