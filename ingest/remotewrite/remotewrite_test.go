package remotewrite_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/remotewrite"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// labelsOf returns labels from names and values.
func labelsOf(kv ...string) (out []prompb.Label) {
	for i := 0; i < len(kv); i += 2 {
		out = append(out, prompb.Label{Name: kv[i], Value: kv[i+1]})
	}
	return out
}

// at returns a sample of version 1.
func at(t time.Time, v float64) []prompb.Sample {
	return []prompb.Sample{{Timestamp: t.UnixMilli(), Value: v}}
}

func body1(t *testing.T, series ...prompb.TimeSeries) []byte {
	t.Helper()
	b, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	require.NoError(t, err)
	return b
}

// request2 returns a request of version 2 whose series are {__name__="m", i="N"} with a sample each.
func request2(n int) *writev2.Request {
	st := writev2.NewSymbolTable()
	req := &writev2.Request{}
	for i := range n {
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{
			LabelsRefs: []uint32{st.Symbolize("__name__"), st.Symbolize("m"), st.Symbolize("i"), st.Symbolize(strconv.Itoa(i))},
			Samples:    []writev2.Sample{{Timestamp: now.UnixMilli(), Value: float64(i)}},
		})
	}
	req.Symbols = st.Symbols()
	return req
}

func body2(t *testing.T, req *writev2.Request) []byte {
	t.Helper()
	b, err := req.Marshal()
	require.NoError(t, err)
	return b
}

func TestHeaders(t *testing.T) {
	one := body1(t, prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Samples: at(now, 1)})
	two := body2(t, request2(1))
	tests := []struct {
		name, contentType, encoding string
		body                        []byte
		code                        int
		message                     string
		version2                    bool
	}{
		{"version 1", type1, "snappy", one, 204, "", false},
		{"version 1 by name", "application/x-protobuf; proto=prometheus.WriteRequest", "snappy", one, 204, "", false},
		{"no type", "", "snappy", one, 204, "", false},
		{"no encoding", type1, "", one, 204, "", false},
		{"version 2", type2, "snappy", two, 204, "", true},
		{"version 2 quoted", `application/x-protobuf; proto="io.prometheus.write.v2.Request"`, "snappy", two, 204, "", true},
		{"JSON", "application/json", "snappy", one, 415, "use application/x-protobuf", false},
		{"unknown message", "application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy", one, 415, "io.prometheus.write.v3.Request", false},
		{"broken type", "application/x-protobuf;proto", "snappy", one, 415, "is not supported", false},
		{"gzip", type1, "gzip", one, 415, "use snappy", false},
		{"zstd, version 2", type2, "zstd", two, 415, "use snappy", true},
		{"wrong version", type2, "snappy", one, 204, "", true}, // the fields of one are reserved in the other
		{"not protobuf", type1, "snappy", []byte("hello"), 400, "is not the protobuf message", false},
		{"empty", type1, "snappy", nil, 204, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			w := r.raw(tt.contentType, tt.encoding, s2.EncodeSnappy(nil, tt.body))
			require.Equal(t, tt.code, w.Code, "%s", w.Body)
			require.Contains(t, w.Body.String(), tt.message)
			if tt.version2 {
				require.NotContains(t, written(w), "")
			} else {
				require.Equal(t, [3]string{}, written(w))
			}
		})
	}
	t.Run("GET", func(t *testing.T) {
		w := httptest.NewRecorder()
		newRig(t, nil).server.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/write", nil))
		require.Equal(t, http.StatusMethodNotAllowed, w.Code)
		require.Equal(t, http.MethodPost, w.Header().Get("Allow"))
	})
	t.Run("routes", func(t *testing.T) {
		require.Contains(t, newRig(t, nil).server.Routes(), "/api/v1/write")
	})
}

// TestSizes sends bodies that are, or claim to be, too large.
func TestSizes(t *testing.T) {
	small := func(_ *ingest.Config, rc *remotewrite.Config) { rc.MaxBody = 1 << 16 }
	manySamples := prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Samples: make([]prompb.Sample, 30_000)}
	symbols := &writev2.Request{Symbols: make([]string, 20_000)}
	tests := []struct {
		name, contentType string
		raw               []byte
		code              int
		message           string
	}{
		{"compressed", type1, make([]byte, 1<<16+1), 413, "larger than 65536 bytes"},
		{"decompressed", type1, s2.EncodeSnappy(nil, make([]byte, 1<<16+1)), 413, "larger than 65536 bytes"},
		{"a claim of 4 GiB", type2, append([]byte("\xff\xff\xff\xff\x0f"), 1, 2, 3), 413, "larger than"},
		{"a claim within the limit that cannot be", type1, append(protowire.AppendVarint(nil, 1<<16), 1, 2, 3), 400, "not valid snappy"},
		{"many samples in little", type1, s2.EncodeSnappy(nil, body1(t, manySamples)), 413, "setting remote_write.max_body"},
		{"many symbols in little", type2, s2.EncodeSnappy(nil, body2(t, symbols)), 413, "setting remote_write.max_body"},
		{"not snappy", type1, []byte("\x05hello"), 400, "not valid snappy"},
		{"nothing", type1, nil, 400, "not valid snappy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, small)
			w := r.raw(tt.contentType, "snappy", tt.raw)
			require.Equal(t, tt.code, w.Code, "%s", w.Body)
			require.Contains(t, w.Body.String(), tt.message)
			require.Empty(t, r.requests)
		})
	}
}

// TestPartial sends a good series beside a bad one.
func TestPartial(t *testing.T) {
	good := prompb.TimeSeries{Labels: labelsOf("__name__", "good", "z", "1"), Samples: at(now, 1)}
	long := strings.Repeat("x", 2000)
	many := labelsOf("__name__", "m")
	for i := range 70 {
		many = append(many, prompb.Label{Name: fmt.Sprintf("l%02d", i), Value: "v"})
	}
	hist := func(change func(h *prompb.Histogram)) []prompb.Histogram {
		h := prompb.Histogram{
			Count: &prompb.Histogram_CountInt{CountInt: 3}, ZeroCount: &prompb.Histogram_ZeroCountInt{}, Timestamp: now.UnixMilli(),
			PositiveSpans: []prompb.BucketSpan{{Length: 2}}, PositiveDeltas: []int64{1, 1},
		}
		change(&h)
		return []prompb.Histogram{h}
	}
	tests := []struct {
		name    string
		bad     prompb.TimeSeries
		message string
		reason  string
		n       int // samples refused
	}{
		{"no name", prompb.TimeSeries{Labels: labelsOf("job", "a"), Samples: at(now, 1)}, `1 samples were not stored, the others were: a series has no label __name__: {"job"="a"}`, "no_metric_name", 1},
		{"empty name", prompb.TimeSeries{Labels: labelsOf("__name__", ""), Samples: at(now, 1)}, "no label __name__", "no_metric_name", 1},
		{"no labels", prompb.TimeSeries{Samples: at(now, 1)}, "a series has no labels", "no_metric_name", 1},
		{"duplicate", prompb.TimeSeries{Labels: labelsOf("__name__", "m", "a", "1", "a", "1"), Samples: at(now, 1)}, `label "a" is given twice`, "malformed", 1},
		{"nameless label", prompb.TimeSeries{Labels: labelsOf("__name__", "m", "", "1"), Samples: at(now, 1)}, "a label has no name", "malformed", 1},
		{"UTF-8", prompb.TimeSeries{Labels: labelsOf("__name__", "m", "a", "\xff"), Samples: append(at(now, 1), at(now, 2)...)}, "a label is not valid UTF-8", "not_utf8", 2},
		{"long name", prompb.TimeSeries{Labels: labelsOf("__name__", "m", long, "v"), Samples: at(now, 1)}, "setting ingest.max_name", "name_too_long", 1},
		{"many labels", prompb.TimeSeries{Labels: many, Samples: at(now, 1)}, "setting ingest.max_labels", "too_many_labels", 1},
		{"1970", prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Samples: at(time.UnixMilli(0), 1)}, "older than the retention of 30d (setting storage.retention)", "too_old", 1},
		{"2100", prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Samples: at(now.AddDate(74, 0, 0), 1)}, "in the future (setting ingest.max_future)", "too_far_in_future", 1},
		{"no year", prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Samples: []prompb.Sample{{Timestamp: math.MaxInt64}}}, "within the years", "time_out_of_range", 1},
		{"spans", prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Histograms: hist(func(h *prompb.Histogram) { h.PositiveSpans[0].Length = 1 << 30 })}, "spans do not fit", "bad_histogram", 1},
		{"gap", prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Histograms: hist(func(h *prompb.Histogram) {
			h.PositiveSpans = []prompb.BucketSpan{{Length: 1}, {Offset: -5, Length: 1}}
		})}, "offset is negative", "bad_histogram", 1},
		{"count", prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Histograms: hist(func(h *prompb.Histogram) { h.Count = &prompb.Histogram_CountInt{CountInt: 1} })}, "the Count field is 1", "bad_histogram", 1},
		{"schema", prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Histograms: hist(func(h *prompb.Histogram) { h.Schema = -77 })}, "schema", "bad_histogram", 1},
		{"exemplar", prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Samples: at(now, 1), Exemplars: []prompb.Exemplar{{Labels: labelsOf("a", "1", "a", "2")}}}, "an exemplar is not stored", "malformed", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			for range 2 { // the second time what was good is known
				r.requests = nil
				w := r.send(type1, body1(t, tt.bad, good))
				require.Equal(t, 400, w.Code)
				require.Contains(t, w.Body.String(), tt.message)
				kept := r.series()
				require.Equal(t, "good", kept[len(kept)-1].Labels.Get("__name__"))
				require.Equal(t, tt.n, r.requests[0].Rejected.Samples)
			}
			require.InDelta(t, 2*tt.n, counter(t, r, "braid_ingest_rejected_total", tt.reason), 0)
		})
	}
}

// counter returns the value of one metric with a label that has the value.
func counter(t *testing.T, r *rig, name, value string) float64 {
	t.Helper()
	families, err := r.reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == value {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	return 0
}

// TestWritten checks the counts that senders of version 2 rely on.
func TestWritten(t *testing.T) {
	r := newRig(t, nil)
	req := request2(3)
	h := writev2.Histogram{Count: &writev2.Histogram_CountInt{}, ZeroCount: &writev2.Histogram_ZeroCountInt{}, Timestamp: now.UnixMilli()}
	old, broken := h, h
	old.Timestamp, broken.Schema = 1, 99
	req.Timeseries[1].Samples = nil
	req.Timeseries[1].Histograms = []writev2.Histogram{h, old, broken}
	req.Timeseries[2].Exemplars = []writev2.Exemplar{{Value: 1}, {Value: 2, Timestamp: 1}, {LabelsRefs: []uint32{99, 0}}}
	req.Timeseries = append(req.Timeseries, writev2.TimeSeries{LabelsRefs: []uint32{1, 2, 3}, Samples: []writev2.Sample{{Timestamp: now.UnixMilli()}}})
	w := r.send(type2, body2(t, req))
	require.Equal(t, 400, w.Code)
	require.Equal(t, [3]string{"2", "1", "1"}, written(w))
	for _, s := range []string{"3 samples were not stored", "3 references", "symbol 99 of", "older than the retention", "schema"} {
		require.Contains(t, w.Body.String(), s)
	}

	r.extra = storage.Rejected{Samples: 2, Reasons: []string{"the store has its reasons"}}
	w = r.send(type2, body2(t, request2(3)))
	require.Equal(t, [3]string{"1", "0", "0"}, written(w))
	require.Equal(t, 400, w.Code)

	r.err = &storage.Overloaded{Reason: "flushing", RetryAfter: 2 * time.Second}
	w = r.send(type2, body2(t, request2(3)))
	require.Equal(t, [3]string{"0", "0", "0"}, written(w))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "2", w.Header().Get("Retry-After"))

	r.err = errors.New("secret")
	w = r.send(type1, body1(t, prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Samples: at(now, 1)}))
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.NotContains(t, w.Body.String(), "secret")
}

// TestVersion2Details checks what only version 2 has.
func TestVersion2Details(t *testing.T) {
	r := newRig(t, nil)
	req := request2(3)
	req.Symbols = append(req.Symbols, "seconds", "How long.")
	n := uint32(len(req.Symbols))
	for i := range req.Timeseries {
		req.Timeseries[i].Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_HISTOGRAM, UnitRef: n - 2, HelpRef: n - 1}
	}
	req.Timeseries[0].Samples[0].StartTimestamp = 5
	body := body2(t, req)
	old := protowire.AppendVarint(protowire.AppendTag(nil, 6, protowire.VarintType), 7) // the start time of release candidates
	series, err := req.Timeseries[1].Marshal()
	require.NoError(t, err)
	body = protowire.AppendBytes(protowire.AppendTag(body, 5, protowire.BytesType), append(series, old...))
	require.Equal(t, 204, r.send(type2, body).Code)
	got := r.series()
	require.Len(t, got, 4)
	require.Equal(t, &telemetry.Metadata{Type: telemetry.MetricHistogram, Unit: "seconds", Help: "How long."}, got[0].Metadata)
	require.Nil(t, got[1].Metadata, "once a request is enough")
	require.Equal(t, []int64{5, 0, 7}, []int64{got[0].Samples[0].ST, got[1].Samples[0].ST, got[3].Samples[0].ST})

	// References one by one, and a label in two pieces.
	var split []byte
	for _, ref := range req.Timeseries[2].LabelsRefs[:2] {
		split = protowire.AppendVarint(protowire.AppendTag(split, 1, protowire.VarintType), uint64(ref))
	}
	packed := []byte{byte(req.Timeseries[2].LabelsRefs[2]), byte(req.Timeseries[2].LabelsRefs[3])}
	split = protowire.AppendBytes(protowire.AppendTag(split, 1, protowire.BytesType), packed)
	split = protowire.AppendBytes(protowire.AppendTag(split, 2, protowire.BytesType), protowire.AppendVarint([]byte{0x10}, uint64(now.UnixMilli())))
	whole := body2(t, &writev2.Request{Symbols: req.Symbols})
	whole = protowire.AppendBytes(protowire.AppendTag(whole, 5, protowire.BytesType), split)
	r.requests = nil
	require.Equal(t, 204, r.send(type2, whole).Code)
	require.Equal(t, got[2].Labels, r.series()[0].Labels)
}

// TestStaleness checks that what NaN carries survives, and that values are kept to the bit.
func TestStaleness(t *testing.T) {
	r := newRig(t, nil)
	bits := []uint64{0x7ff0000000000002, 0x7ff8000000000001, 0x7ff0000000000000, 1}
	var samples []prompb.Sample
	for _, b := range bits {
		samples = append(samples, prompb.Sample{Timestamp: now.UnixMilli(), Value: math.Float64frombits(b)})
	}
	require.Equal(t, 204, r.send(type1, body1(t, prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Samples: samples})).Code)
	for i, s := range r.series()[0].Samples {
		require.Equal(t, bits[i], math.Float64bits(s.V))
	}
}

// TestRetry checks that the same bytes have the same key, and others another one.
func TestRetry(t *testing.T) {
	r := newRig(t, nil)
	one := body1(t, prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Samples: at(now, 1)})
	other := body1(t, prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Samples: at(now, 2)})
	r.send(type1, one)
	r.send(type1, one)
	r.send(type1, other)
	require.NotEqual(t, storage.Key{}, r.requests[0].Key)
	require.Equal(t, r.requests[0].Key, r.requests[1].Key)
	require.NotEqual(t, r.requests[0].Key, r.requests[2].Key)
}

// TestTenant checks that the header names the tenant.
func TestTenant(t *testing.T) {
	r := newRig(t, nil)
	body := s2.EncodeSnappy(nil, body1(t, prompb.TimeSeries{Labels: labelsOf("__name__", "m"), Samples: at(now, 1)}))
	for _, tt := range []struct {
		tenant string
		code   int
	}{{"", 204}, {"team", 204}, {"a|b", 400}, {"no spaces", 400}} {
		req := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(body))
		req.Header.Set("X-Scope-OrgID", tt.tenant)
		w := httptest.NewRecorder()
		r.server.ServeHTTP(w, req)
		require.Equal(t, tt.code, w.Code, tt.tenant)
	}
	require.Equal(t, telemetry.DefaultTenant, r.requests[0].Batches[0].Tenant)
	require.Equal(t, telemetry.Tenant("team"), r.requests[1].Batches[0].Tenant)
}

// TestLabelsAreKnown checks that both versions share label sets with themselves, in whatever order labels come.
func TestLabelsAreKnown(t *testing.T) {
	r := newRig(t, nil)
	a := prompb.TimeSeries{Labels: labelsOf("__name__", "m", "a", "1", "b", ""), Samples: at(now, 1)}
	b := prompb.TimeSeries{Labels: labelsOf("a", "1", "__name__", "m"), Samples: at(now, 1)}
	for range 3 {
		require.Equal(t, 204, r.send(type1, body1(t, a, b)).Code)
		require.Equal(t, 204, r.send(type2, body2(t, request2(1))).Code)
	}
	all := r.series()
	require.Equal(t, all[0].Labels, all[1].Labels)
	require.NoError(t, testutil.GatherAndCompare(r.reg, strings.NewReader(`
# HELP braid_ingest_label_cache_hits_total Series whose labels were known from an earlier request.
# TYPE braid_ingest_label_cache_hits_total counter
braid_ingest_label_cache_hits_total 6
# HELP braid_ingest_label_cache_misses_total Series whose labels had to be parsed and checked.
# TYPE braid_ingest_label_cache_misses_total counter
braid_ingest_label_cache_misses_total 3
`), "braid_ingest_label_cache_hits_total", "braid_ingest_label_cache_misses_total"))
}

func TestConfig(t *testing.T) {
	require.NoError(t, remotewrite.DefaultConfig().Validate())
	require.ErrorContains(t, remotewrite.Config{}.Validate(), "max_body")
	require.ErrorContains(t, remotewrite.Config{MaxBody: 1 << 30}.Validate(), "max_body")
}

// load returns n series of ten labels, about 300 bytes each, with a sample.
func load(n int) *prompb.WriteRequest {
	req := &prompb.WriteRequest{}
	for i := range n {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels: labelsOf("__name__", fmt.Sprintf("http_request_duration_seconds_bucket_%02d", i%47), "cluster", "production-eu-1",
				"container", "checkout", "instance", fmt.Sprintf("10.42.%d.%d:8080", i/250, i%250), "job", "kubernetes-pods", "le", "0.25",
				"method", "GET", "namespace", fmt.Sprintf("team-%02d", i%30), "node", fmt.Sprintf("ip-10-0-%d-17.eu-central-1.compute.internal", i%20),
				"pod", fmt.Sprintf("checkout-7d9f8b6c5d-%05d", i)),
			Samples: at(now, float64(i)),
		})
	}
	return req
}

// BenchmarkWrite is a request of 10,000 series with a sample each, all known, up to the store.
func BenchmarkWrite(b *testing.B) {
	const n = 10_000
	req := load(n)
	v1, err := req.Marshal()
	require.NoError(b, err)
	st := writev2.NewSymbolTable()
	two := &writev2.Request{}
	for _, ts := range req.Timeseries {
		s := writev2.TimeSeries{Samples: []writev2.Sample{{Value: ts.Samples[0].Value, Timestamp: ts.Samples[0].Timestamp}}}
		for _, l := range ts.Labels {
			s.LabelsRefs = append(s.LabelsRefs, st.Symbolize(l.Name), st.Symbolize(l.Value))
		}
		two.Timeseries = append(two.Timeseries, s)
	}
	two.Symbols = st.Symbols()
	v2, err := two.Marshal()
	require.NoError(b, err)
	for _, bb := range []struct {
		name, contentType string
		body              []byte
	}{{"version1", type1, v1}, {"version2", type2, v2}} {
		b.Run(bb.name, func(b *testing.B) {
			r := newRig(b, nil)
			packed := s2.EncodeSnappy(nil, bb.body)
			b.ReportAllocs()
			for b.Loop() {
				r.requests = r.requests[:0]
				if w := r.raw(bb.contentType, "snappy", packed); w.Code != http.StatusNoContent {
					b.Fatal(w.Code, w.Body)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/sample")
			b.ReportMetric(float64(len(packed))/n, "wireB/sample")
		})
	}
}
