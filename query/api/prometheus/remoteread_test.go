package prometheus_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

// TestRemoteRead reads with the client of Prometheus, both kinds of answers, and wants what the store holds.
func TestRemoteRead(t *testing.T) {
	s := testkit.NewStore("c")
	rng := rand.New(rand.NewPCG(3, 4))
	var all []telemetry.Series
	for i := range 20 {
		se := series("__name__", "m", "i", string(rune('a'+i)))
		for n := range 500 {
			at := int64(n)*15_000 + rng.Int64N(1000)
			switch i % 5 {
			case 1:
				k := int64(n + 1)
				se.Histograms = append(se.Histograms, telemetry.HistogramSample{T: at, H: &histogram.Histogram{
					Count: uint64(3 * k), Sum: float64(k), ZeroThreshold: 0.1, PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{k, k},
				}})
			case 2:
				se.Histograms = append(se.Histograms, telemetry.HistogramSample{T: at, FH: &histogram.FloatHistogram{
					Schema: histogram.CustomBucketsSchema, Count: 2.5, Sum: float64(n), PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []float64{2.5}, CustomValues: []float64{1, 2},
				}})
			default:
				se.Samples = append(se.Samples, telemetry.Sample{T: at, ST: 1, V: rng.NormFloat64()})
			}
		}
		se.Samples = append(se.Samples, telemetry.Sample{T: 500 * 15_000, V: math.Inf(1)})
		all = append(all, se)
	}
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: all}}})
	require.NoError(t, err)
	srv := httptest.NewServer(handler(t, s, nil))
	defer srv.Close()
	held := querier(t, s)
	want := dump(t, held.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "i", "[a-r]")))
	require.NoError(t, held.Close())
	require.Len(t, want, 18)
	for _, accepted := range [][]prompb.ReadRequest_ResponseType{
		nil, {prompb.ReadRequest_SAMPLES}, {prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES},
	} {
		q := &prompb.Query{EndTimestampMs: math.MaxInt64, Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "i", Value: "[a-r]"}}}
		require.Equal(t, want, readAs(t, srv.URL, q, accepted))
	}
	open, _ := s.OpenViews()
	require.Zero(t, open)
}

func querier(t *testing.T, s storage.Reader) promstorage.Querier {
	t.Helper()
	e, err := promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: s})
	require.NoError(t, err)
	q, err := e.Queryable(tenant).Querier(0, math.MaxInt64)
	require.NoError(t, err)
	return q
}

// dump returns the samples of series as text; what readers learn about counter resets depends on the protocol.
func dump(t *testing.T, set promstorage.SeriesSet) map[string][]string {
	t.Helper()
	out := make(map[string][]string)
	for set.Next() {
		name := set.At().Labels().String()
		it := set.At().Iterator(nil)
		for k := it.Next(); k != chunkenc.ValNone; k = it.Next() {
			if k == chunkenc.ValFloat {
				at, v := it.At()
				out[name] = append(out[name], time.UnixMilli(at).UTC().String()+" "+model.SampleValue(v).String())
				continue
			}
			at, h := it.AtFloatHistogram(nil)
			h.CounterResetHint = 0
			out[name] = append(out[name], time.UnixMilli(at).UTC().String()+" "+h.String())
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return out
}

// readAs asks for kinds of answers and returns the samples as dump does.
func readAs(t *testing.T, server string, q *prompb.Query, accepted []prompb.ReadRequest_ResponseType) map[string][]string {
	t.Helper()
	b, err := (&prompb.ReadRequest{Queries: []*prompb.Query{q}, AcceptedResponseTypes: accepted}).Marshal()
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server+"/api/v1/read", bytes.NewReader(s2.EncodeSnappy(nil, b)))
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	var out []promstorage.Series
	if slices.Contains(accepted, prompb.ReadRequest_STREAMED_XOR_CHUNKS) {
		require.Equal(t, "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse", res.Header.Get("Content-Type"))
		require.Empty(t, res.Header.Get("Content-Encoding"))
		for len(body) > 0 {
			n, k := binary.Uvarint(body)
			sum, frame := binary.BigEndian.Uint32(body[k:]), body[k+4:k+4+int(n)]
			require.Equal(t, crc32.Checksum(frame, crc32.MakeTable(crc32.Castagnoli)), sum)
			body = body[k+4+int(n):]
			var m prompb.ChunkedReadResponse
			require.NoError(t, m.Unmarshal(frame))
			require.Len(t, m.ChunkedSeries, 1)
			require.Zero(t, m.QueryIndex)
			ls := labelsOf(m.ChunkedSeries[0].Labels)
			for _, c := range m.ChunkedSeries[0].Chunks {
				require.Contains(t, []prompb.Chunk_Encoding{prompb.Chunk_XOR, prompb.Chunk_HISTOGRAM, prompb.Chunk_FLOAT_HISTOGRAM}, c.Type)
				chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
				require.NoError(t, err)
				out = append(out, &promstorage.SeriesEntry{Lset: ls, SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator { return chunk.Iterator(nil) }})
			}
		}
		return dump(t, &list{series: out})
	}
	require.Equal(t, "snappy", res.Header.Get("Content-Encoding"))
	plain, err := s2.Decode(nil, body)
	require.NoError(t, err)
	var m prompb.ReadResponse
	require.NoError(t, m.Unmarshal(plain))
	require.Len(t, m.Results, 1)
	texts := make(map[string][]string)
	for _, ts := range m.Results[0].Timeseries {
		name := labelsOf(ts.Labels).String()
		for _, h := range ts.Histograms {
			fh := h.ToFloatHistogram()
			fh.CounterResetHint = 0
			texts[name] = append(texts[name], time.UnixMilli(h.Timestamp).UTC().String()+" "+fh.String())
		}
		for _, p := range ts.Samples {
			texts[name] = append(texts[name], time.UnixMilli(p.Timestamp).UTC().String()+" "+model.SampleValue(p.Value).String())
		}
	}
	return texts
}

func labelsOf(in []prompb.Label) labels.Labels {
	b := labels.NewScratchBuilder(len(in))
	for _, l := range in {
		b.Add(l.Name, l.Value)
	}
	return b.Labels()
}

// list is a set of series, several of which may have the same labels.
type list struct {
	promstorage.SeriesSet
	series []promstorage.Series
	i      int
}

// Next implements promstorage.SeriesSet.
func (l *list) Next() bool { l.i++; return l.i <= len(l.series) }

// At implements promstorage.SeriesSet.
func (l *list) At() promstorage.Series { return l.series[l.i-1] }

// Err implements promstorage.SeriesSet.
func (*list) Err() error { return nil }

func TestRemoteReadErrors(t *testing.T) {
	h := handler(t, store(t), func(c *promql.Config) { c.MaxSamples, c.MaxSeries = 3, 2 })
	pack := func(r *prompb.ReadRequest) []byte {
		b, err := r.Marshal()
		require.NoError(t, err)
		return s2.EncodeSnappy(nil, b)
	}
	ask := func(kinds []prompb.ReadRequest_ResponseType, ms ...*prompb.LabelMatcher) []byte {
		return pack(&prompb.ReadRequest{AcceptedResponseTypes: kinds, Queries: []*prompb.Query{{EndTimestampMs: math.MaxInt64, Matchers: ms}}})
	}
	chunked := []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS}
	up := &prompb.LabelMatcher{Name: "__name__", Value: "up"}
	for _, tt := range []struct {
		name, text string
		code       int
		body       []byte
	}{
		{"no snappy", "not valid snappy", 400, []byte("hello")},
		{"too large", "larger than", 413, []byte{0xff, 0xff, 0xff, 0x7f, 0}},
		{"no request", "no request of remote read", 400, s2.EncodeSnappy(nil, []byte{0xff})},
		{"kind of answer", "supported: SAMPLES", 400, ask([]prompb.ReadRequest_ResponseType{9})},
		{"kind of matcher", "invalid matcher type", 400, ask(nil, &prompb.LabelMatcher{Type: 9})},
		{"regular expression", "invalid matcher", 400, ask(nil, &prompb.LabelMatcher{Type: prompb.LabelMatcher_RE, Name: "a", Value: "("})},
		{"samples", "promql.max_samples (3)", 422, ask(nil, up)},
		{"series", "promql.max_series (2)", 422, ask(nil)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, body := do(t, h, http.MethodPost, "/api/v1/read", string(tt.body))
			require.Equal(t, tt.code, code, body)
			require.Contains(t, body, tt.text)
		})
	}
	require.PanicsWithError(t, http.ErrAbortHandler.Error(), func() { do(t, h, http.MethodPost, "/api/v1/read", string(ask(chunked))) })
}

// FuzzRemoteRead wants an answer to whatever is sent.
func FuzzRemoteRead(f *testing.F) {
	b, err := (&prompb.ReadRequest{Queries: []*prompb.Query{{EndTimestampMs: 1, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: "up"}}}}}).Marshal()
	require.NoError(f, err)
	f.Add(b)
	f.Add(slices.Concat(b, b))
	f.Add([]byte{0x0a, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		code, _ := do(t, handler(t, testkit.NewStore("c"), nil), http.MethodPost, "/api/v1/read", string(s2.EncodeSnappy(nil, b)))
		require.Contains(t, []int{http.StatusOK, http.StatusBadRequest}, code)
	})
}
