package telemetry_test

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
)

var rewrite = flag.Bool("rewrite", false, "write the golden file of the current version")

const golden = "testdata/v1/batch.bin"

// floats draws any bits, with a taste for the special ones.
func floats() *rapid.Generator[float64] {
	return rapid.Custom(func(t *rapid.T) float64 {
		if rapid.Bool().Draw(t, "special") {
			return rapid.SampledFrom([]float64{
				0, math.Copysign(0, -1), math.NaN(), math.Float64frombits(0x7ff8000000abcdef), math.Float64frombits(0x7ff0000000000002),
				math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64, 1, 0.1,
			}).Draw(t, "float")
		}
		return math.Float64frombits(rapid.Uint64().Draw(t, "bits"))
	})
}

func ints() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{0, 1, -1, math.MaxInt64, math.MinInt64}))
}

func values(depth int) *rapid.Generator[telemetry.Value] {
	return rapid.Custom(func(t *rapid.T) telemetry.Value {
		kinds := 8
		if depth == 0 {
			kinds = 6
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 1:
			return telemetry.String(string(rapid.SliceOf(rapid.Byte()).Draw(t, "text")))
		case 2:
			return telemetry.Bool(rapid.Bool().Draw(t, "bool"))
		case 3:
			return telemetry.Int(ints().Draw(t, "int"))
		case 4:
			return telemetry.Double(floats().Draw(t, "double"))
		case 5:
			return telemetry.Bytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		case 6:
			return telemetry.Array(rapid.SliceOfN(values(depth-1), 0, 3).Draw(t, "array"))
		case 7:
			return telemetry.Map(attrs(depth-1).Draw(t, "map"))
		default:
			return telemetry.Value{}
		}
	})
}

func attrs(depth int) *rapid.Generator[telemetry.Attrs] {
	return rapid.Custom(func(t *rapid.T) telemetry.Attrs {
		as := telemetry.NewAttrs(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) telemetry.Attr {
			return attr(rapid.StringN(0, 4, -1).Draw(t, "key"), values(depth).Draw(t, "value"))
		}), 0, 4).Draw(t, "attrs"))
		if len(as) == 0 {
			return nil
		}
		return as
	})
}

func traceIDs() *rapid.Generator[telemetry.TraceID] {
	return rapid.Custom(func(t *rapid.T) (id telemetry.TraceID) {
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 0, 16).Draw(t, "trace"))
		return id
	})
}

func spanIDs() *rapid.Generator[telemetry.SpanID] {
	return rapid.Custom(func(t *rapid.T) (id telemetry.SpanID) {
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "span"))
		return id
	})
}

func spans(scopes []*telemetry.Scope) *rapid.Generator[telemetry.Span] {
	u32, text := rapid.Uint32(), rapid.StringN(0, 6, -1)
	return rapid.Custom(func(t *rapid.T) telemetry.Span {
		s := telemetry.Span{
			TraceID: traceIDs().Draw(t, "trace"), SpanID: spanIDs().Draw(t, "span"), ParentID: spanIDs().Draw(t, "parent"),
			Kind: telemetry.SpanKind(rapid.Byte().Draw(t, "kind")), Status: telemetry.StatusCode(rapid.Byte().Draw(t, "status")),
			Flags: u32.Draw(t, "flags"), Start: ints().Draw(t, "start"), End: ints().Draw(t, "end"),
			Name: text.Draw(t, "name"), State: text.Draw(t, "state"), StatusMessage: text.Draw(t, "message"),
			DroppedAttrs: u32.Draw(t, "da"), DroppedEvents: u32.Draw(t, "de"), DroppedLinks: u32.Draw(t, "dl"),
			Scope: rapid.SampledFrom(scopes).Draw(t, "scope"), Attrs: attrs(2).Draw(t, "attrs"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "events") {
			s.Events = append(s.Events, telemetry.Event{
				Time: ints().Draw(t, "time"), Name: text.Draw(t, "name"), Dropped: u32.Draw(t, "dropped"), Attrs: attrs(1).Draw(t, "attrs"),
			})
		}
		for range rapid.IntRange(0, 2).Draw(t, "links") {
			s.Links = append(s.Links, telemetry.Link{
				TraceID: traceIDs().Draw(t, "trace"), SpanID: spanIDs().Draw(t, "span"), State: text.Draw(t, "state"),
				Flags: u32.Draw(t, "flags"), Dropped: u32.Draw(t, "dropped"), Attrs: attrs(1).Draw(t, "attrs"),
			})
		}
		return s
	})
}

func records(scopes []*telemetry.Scope) *rapid.Generator[telemetry.LogRecord] {
	u32, text := rapid.Uint32(), rapid.StringN(0, 6, -1)
	return rapid.Custom(func(t *rapid.T) telemetry.LogRecord {
		return telemetry.LogRecord{
			Time: ints().Draw(t, "time"), Observed: ints().Draw(t, "observed"), Severity: rapid.Byte().Draw(t, "severity"),
			TimeInferred: rapid.Bool().Draw(t, "inferred"), Flags: u32.Draw(t, "flags"), TraceID: traceIDs().Draw(t, "trace"),
			SpanID: spanIDs().Draw(t, "span"), SeverityText: text.Draw(t, "text"), EventName: text.Draw(t, "event"),
			Body: values(3).Draw(t, "body"), Scope: rapid.SampledFrom(scopes).Draw(t, "scope"), Attrs: attrs(2).Draw(t, "attrs"),
			Dropped: u32.Draw(t, "dropped"),
		}
	})
}

func labelSets() *rapid.Generator[telemetry.LabelSet] {
	return rapid.Custom(func(t *rapid.T) telemetry.LabelSet {
		return telemetry.NewLabelSet(labels.FromMap(rapid.MapOfN(rapid.StringN(1, 4, -1), rapid.StringN(0, 4, -1), 0, 4).Draw(t, "labels")))
	})
}

func buckets(t *rapid.T) (spans []histogram.Span, ints []int64, fs []float64) {
	for range rapid.IntRange(0, 3).Draw(t, "spans") {
		spans = append(spans, histogram.Span{Offset: rapid.Int32().Draw(t, "offset"), Length: rapid.Uint32().Draw(t, "length")})
	}
	for range rapid.IntRange(0, 3).Draw(t, "buckets") {
		ints = append(ints, rapid.Int64().Draw(t, "bucket"))
		fs = append(fs, floats().Draw(t, "bucket"))
	}
	return spans, ints, fs
}

func histograms() *rapid.Generator[telemetry.HistogramSample] {
	return rapid.Custom(func(t *rapid.T) telemetry.HistogramSample {
		p := telemetry.HistogramSample{T: ints().Draw(t, "time"), ST: ints().Draw(t, "start")}
		ps, pi, pf := buckets(t)
		ns, ni, nf := buckets(t)
		_, _, custom := buckets(t)
		hint, schema := histogram.CounterResetHint(rapid.Byte().Draw(t, "hint")), rapid.Int32().Draw(t, "schema")
		if rapid.Bool().Draw(t, "float") {
			p.FH = &histogram.FloatHistogram{
				CounterResetHint: hint, Schema: schema, ZeroThreshold: floats().Draw(t, "zt"), ZeroCount: floats().Draw(t, "zc"), Count: floats().Draw(t, "count"),
				Sum: floats().Draw(t, "sum"), PositiveSpans: ps, NegativeSpans: ns, PositiveBuckets: pf, NegativeBuckets: nf, CustomValues: custom,
			}
		} else {
			p.H = &histogram.Histogram{
				CounterResetHint: hint, Schema: schema, ZeroThreshold: floats().Draw(t, "zt"), ZeroCount: rapid.Uint64().Draw(t, "zc"), Count: rapid.Uint64().Draw(t, "count"),
				Sum: floats().Draw(t, "sum"), PositiveSpans: ps, NegativeSpans: ns, PositiveBuckets: pi, NegativeBuckets: ni, CustomValues: custom,
			}
		}
		return p
	})
}

func series() *rapid.Generator[telemetry.Series] {
	return rapid.Custom(func(t *rapid.T) telemetry.Series {
		s := telemetry.Series{Labels: labelSets().Draw(t, "labels"), Delta: rapid.Bool().Draw(t, "delta")}
		if rapid.Bool().Draw(t, "metadata") {
			s.Metadata = &telemetry.Metadata{Type: telemetry.MetricType(rapid.Byte().Draw(t, "type")), Unit: rapid.String().Draw(t, "unit"), Help: rapid.String().Draw(t, "help")}
		}
		for range rapid.IntRange(0, 4).Draw(t, "samples") {
			at := ints().Draw(t, "time")
			start := rapid.OneOf(ints(), rapid.SampledFrom([]int64{at, at + 1, at - 1})).Draw(t, "start")
			s.Samples = append(s.Samples, telemetry.Sample{T: at, ST: start, V: floats().Draw(t, "value")})
		}
		if n := rapid.IntRange(0, 2).Draw(t, "histograms"); n > 0 {
			s.Histograms = rapid.SliceOfN(histograms(), n, n).Draw(t, "histograms")
		}
		for range rapid.IntRange(0, 2).Draw(t, "exemplars") {
			s.Exemplars = append(s.Exemplars, exemplar.Exemplar{
				Labels: labelSets().Draw(t, "labels").Labels(), Value: floats().Draw(t, "value"), Ts: ints().Draw(t, "time"), HasTs: rapid.Bool().Draw(t, "has"),
			})
		}
		return s
	})
}

func batches() *rapid.Generator[telemetry.Batch] {
	return rapid.Custom(func(t *rapid.T) telemetry.Batch {
		b := telemetry.Batch{Tenant: telemetry.Tenant(rapid.StringMatching(`[A-Za-z0-9_-]{1,8}`).Draw(t, "tenant")), Stream: labelSets().Draw(t, "stream")}
		if rapid.Bool().Draw(t, "resource") {
			b.Resource = telemetry.NewResource(rapid.String().Draw(t, "url"), attrs(2).Draw(t, "attrs"))
			b.Resource.Dropped = rapid.Uint32().Draw(t, "dropped")
		}
		scopes := []*telemetry.Scope{nil, {}, {Name: "a", Version: "1", SchemaURL: "u", Attrs: attrs(1).Draw(t, "scope"), Dropped: 7}}
		if n := rapid.IntRange(0, 3).Draw(t, "spans"); n > 0 {
			b.Spans = rapid.SliceOfN(spans(scopes), n, n).Draw(t, "spans")
		}
		if n := rapid.IntRange(0, 3).Draw(t, "logs"); n > 0 {
			b.Logs = rapid.SliceOfN(records(scopes), n, n).Draw(t, "logs")
		}
		if n := rapid.IntRange(0, 3).Draw(t, "series"); n > 0 {
			b.Series = rapid.SliceOfN(series(), n, n).Draw(t, "series")
		}
		return b
	})
}

// same requires equal batches to the bit, also where NaN stands beside NaN.
func same(t require.TestingT, want, got *telemetry.Batch) {
	require.Equal(t, want.Tenant, got.Tenant)
	require.Equal(t, want.Stream, got.Stream)
	require.Equal(t, want.Resource, got.Resource)
	require.Equal(t, want.Spans, got.Spans)
	require.Equal(t, want.Logs, got.Logs)
	require.Len(t, got.Series, len(want.Series))
	for i := range want.Series {
		w, g := &want.Series[i], &got.Series[i]
		require.Equal(t, w.Labels, g.Labels)
		require.Equal(t, w.Metadata, g.Metadata)
		require.Equal(t, w.Delta, g.Delta)
		require.Len(t, g.Samples, len(w.Samples))
		for j := range w.Samples {
			require.Equal(t, w.Samples[j].T, g.Samples[j].T)
			require.Equal(t, w.Samples[j].ST, g.Samples[j].ST, "start of %d", w.Samples[j].T)
			require.Equal(t, math.Float64bits(w.Samples[j].V), math.Float64bits(g.Samples[j].V))
		}
		require.Len(t, g.Histograms, len(w.Histograms))
		for j := range w.Histograms {
			require.Equal(t, w.Histograms[j].T, g.Histograms[j].T)
			require.Equal(t, w.Histograms[j].ST, g.Histograms[j].ST)
			require.Equal(t, w.Histograms[j].H == nil, g.Histograms[j].H == nil)
			require.Equal(t, telemetry.AppendHistogram(nil, &w.Histograms[j]), telemetry.AppendHistogram(nil, &g.Histograms[j]))
		}
		require.Len(t, g.Exemplars, len(w.Exemplars))
		for j := range w.Exemplars {
			require.Equal(t, 0, labels.Compare(w.Exemplars[j].Labels, g.Exemplars[j].Labels))
			require.Equal(t, math.Float64bits(w.Exemplars[j].Value), math.Float64bits(g.Exemplars[j].Value))
			require.Equal(t, w.Exemplars[j].Ts, g.Exemplars[j].Ts)
			require.Equal(t, w.Exemplars[j].HasTs, g.Exemplars[j].HasTs)
		}
	}
}

func TestBatchRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := batches().Draw(t, "batch")
		enc := telemetry.AppendBatch(nil, &b)
		d := telemetry.NewDecoderBytes(enc)
		got := d.Batch()
		require.NoError(t, d.Err())
		require.Zero(t, d.Len())
		require.Equal(t, len(enc), d.Offset())
		same(t, &b, &got)
		require.Equal(t, b.Records(), got.Records())
	})
}

func TestEmptyBatchesFollowEachOther(t *testing.T) {
	b := telemetry.Batch{Tenant: "a", Series: []telemetry.Series{{}, {}}}
	enc := telemetry.AppendBatch(nil, &b)
	d := telemetry.NewDecoderBytes(enc)
	require.Len(t, d.Batch().Series, 2)
	require.NoError(t, d.Err())
}

func TestDeepNestingIsRefused(t *testing.T) {
	nest := func(depth int, wrap func(telemetry.Value) telemetry.Value) telemetry.Value {
		v := telemetry.Int(1)
		for range depth {
			v = wrap(v)
		}
		return v
	}
	for name, wrap := range map[string]func(telemetry.Value) telemetry.Value{
		"array": func(v telemetry.Value) telemetry.Value { return telemetry.Array([]telemetry.Value{v}) },
		"map":   func(v telemetry.Value) telemetry.Value { return telemetry.Map(telemetry.Attrs{attr("k", v)}) },
	} {
		v := nest(telemetry.MaxDepth, wrap)
		d := telemetry.NewDecoderBytes(telemetry.AppendValue(nil, v))
		require.Equal(t, v, d.Value(), name)
		require.NoError(t, d.Err())
		d = telemetry.NewDecoderBytes(telemetry.AppendValue(nil, nest(telemetry.MaxDepth+1, wrap)))
		d.Value()
		require.ErrorIs(t, d.Err(), telemetry.ErrDecode)
		require.ErrorContains(t, d.Err(), "nest deeper than 32", name)
		d = telemetry.NewDecoderBytes(telemetry.AppendValue(nil, nest(5000, wrap)))
		d.Value()
		require.Error(t, d.Err())
	}
}

func TestHostileInput(t *testing.T) {
	huge := telemetry.AppendUvarint(nil, math.MaxUint64)
	tests := map[string]struct {
		in   []byte
		read func(*telemetry.Decoder)
		want string
	}{
		"string longer than the input": {huge, func(d *telemetry.Decoder) { d.Str() }, "cannot fit"},
		"attributes":                   {huge, func(d *telemetry.Decoder) { d.Attrs() }, "cannot fit"},
		"number without end":           {[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, func(d *telemetry.Decoder) { d.Uvarint() }, "bad number"},
		"number cut off":               {[]byte{0x80}, func(d *telemetry.Decoder) { d.Uvarint() }, "bad number"},
		"boolean of two":               {[]byte{2, 2}, func(d *telemetry.Decoder) { d.Value() }, "a boolean of 2"},
		"unknown kind":                 {[]byte{8}, func(d *telemetry.Decoder) { d.Value() }, "unknown kind of value 8"},
		"keys out of order":            {[]byte{2, 1, 'b', 0, 1, 'a', 0}, func(d *telemetry.Decoder) { d.Attrs() }, "out of order"},
		"keys repeated":                {[]byte{2, 1, 'a', 0, 1, 'a', 0}, func(d *telemetry.Decoder) { d.Attrs() }, "out of order"},
		"rest inside an array":         {[]byte{6, 2, 0, 0}, func(d *telemetry.Decoder) { d.Value() }, "1 bytes too many"},
		"tenant":                       {telemetry.AppendString(nil, "a b"), func(d *telemetry.Decoder) { d.Batch() }, "not a legal name"},
		"take":                         {nil, func(d *telemetry.Decoder) { d.Take(1) }, "1 bytes wanted"},
		"take less than none":          {nil, func(d *telemetry.Decoder) { d.Take(-1) }, "wanted"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := telemetry.NewDecoderBytes(tt.in)
			tt.read(d)
			require.ErrorIs(t, d.Err(), telemetry.ErrDecode)
			require.ErrorContains(t, d.Err(), tt.want)
			require.ErrorContains(t, d.Err(), "offset")
			first := d.Err()
			require.Zero(t, d.Uvarint())
			require.Equal(t, first, d.Err(), "the first mistake sticks")
		})
	}
}

// goldenBatch has one of everything.
func goldenBatch() telemetry.Batch {
	scope := &telemetry.Scope{Name: "http", Version: "1.2", SchemaURL: "https://s", Attrs: telemetry.Attrs{str("lib", "x")}, Dropped: 1}
	all := telemetry.NewAttrs([]telemetry.Attr{
		attr("array", telemetry.Array([]telemetry.Value{telemetry.Int(1), telemetry.String("two"), telemetry.Double(math.Copysign(0, -1))})),
		attr("bool", telemetry.Bool(true)), attr("bytes", telemetry.Bytes([]byte{0, 0xff})),
		attr("double", telemetry.Double(math.Float64frombits(0x7ff8000000abcdef))), attr("empty", telemetry.Value{}),
		attr("int", telemetry.Int(math.MinInt64)), attr("map", telemetry.Map(telemetry.Attrs{str("k", "v")})), str("größe", "text\n"),
	})
	res := telemetry.NewResource("https://schema", telemetry.NewAttrs([]telemetry.Attr{str("service.name", "shop"), str("k8s.pod.name", "shop-1")}))
	res.Dropped = 3
	h := &histogram.Histogram{
		CounterResetHint: histogram.NotCounterReset, Schema: 1, ZeroThreshold: 0.001, ZeroCount: 2, Count: 14, Sum: 18.5,
		PositiveSpans: []histogram.Span{{Offset: -2, Length: 2}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{3, -1, 2},
		NegativeSpans: []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []int64{3},
	}
	custom := &histogram.FloatHistogram{
		CounterResetHint: histogram.GaugeType, Schema: histogram.CustomBucketsSchema, Count: 3, Sum: 4.5,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []float64{1, 2}, CustomValues: []float64{0.5},
	}
	const ns, ms = 1_700_000_000_123_456_789, 1_700_000_000_123
	return telemetry.Batch{
		Tenant: "golden", Resource: res, Stream: telemetry.NewLabelSet(labels.FromStrings("service_name", "shop", "env", "prod")),
		Spans: []telemetry.Span{
			{
				TraceID: telemetry.TraceID{1, 2, 15: 16}, SpanID: telemetry.SpanID{1}, ParentID: telemetry.SpanID{2}, Kind: telemetry.SpanKindServer,
				Status: telemetry.StatusError, Flags: 0x101, Start: ns, End: ns + 5e6, Name: "GET /", State: "a=b", StatusMessage: "oops", Scope: scope,
				Attrs: all, DroppedAttrs: 1, DroppedEvents: 2, DroppedLinks: 3,
				Events: []telemetry.Event{{Time: ns + 1, Name: "exception", Attrs: telemetry.Attrs{str("type", "E")}, Dropped: 4}},
				Links:  []telemetry.Link{{TraceID: telemetry.TraceID{9}, SpanID: telemetry.SpanID{8}, State: "c=d", Flags: 1, Dropped: 5, Attrs: telemetry.Attrs{str("l", "1")}}},
			},
			{TraceID: telemetry.TraceID{3}, SpanID: telemetry.SpanID{4}, Start: ns, End: ns - 1},
		},
		Logs: []telemetry.LogRecord{
			{
				Time: ns, Observed: ns + 10, Severity: 17, TimeInferred: true, Flags: 1, TraceID: telemetry.TraceID{1, 2, 15: 16}, SpanID: telemetry.SpanID{1},
				SeverityText: "ERROR", EventName: "e", Body: telemetry.String("a line"), Scope: scope, Attrs: all, Dropped: 6,
			},
			{Time: -1, Body: telemetry.Map(telemetry.Attrs{str("k", "v")}), Scope: &telemetry.Scope{}},
		},
		Series: []telemetry.Series{
			{
				Labels:   telemetry.NewLabelSet(labels.FromStrings("__name__", "requests_total", "code", "200")),
				Metadata: &telemetry.Metadata{Type: telemetry.MetricCounter, Unit: "requests", Help: "Requests."},
				Samples: []telemetry.Sample{
					{T: ms, ST: ms - 1000, V: 1},
					{T: ms + 15000, V: math.Float64frombits(0x7ff0000000000002)},
					{T: ms + 14000, ST: ms + 14000, V: -0.1},
					{T: ms + 16000, ST: ms + 16001, V: 2},
					{T: ms + 17000, ST: ms + 18000, V: 3},
				},
				Exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "0102"), Value: 0.5, Ts: ms, HasTs: true}},
			},
			{
				Labels: telemetry.NewLabelSet(labels.FromStrings("__name__", "latency")), Delta: true,
				Histograms: []telemetry.HistogramSample{{T: ms, ST: ms - 1, H: h}, {T: ms + 1, FH: custom}},
			},
		},
	}
}

// TestGolden reads the batch that version 1 wrote, and requires that the same batch still gives the same bytes.
func TestGolden(t *testing.T) {
	want := goldenBatch()
	enc := telemetry.AppendBatch(nil, &want)
	if *rewrite {
		require.NoError(t, os.MkdirAll(filepath.Dir(golden), 0o755))
		require.NoError(t, os.WriteFile(golden, enc, 0o600))
	}
	kept, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, kept, enc)
	d := telemetry.NewDecoderBytes(kept)
	got := d.Batch()
	require.NoError(t, d.Err())
	require.Zero(t, d.Len())
	same(t, &want, &got)
}

// FuzzBatch decodes any bytes: no panic, memory in proportion to the input, and what was read is read again the
// same.
func FuzzBatch(f *testing.F) {
	kept, err := os.ReadFile(golden)
	require.NoError(f, err)
	f.Add(kept)
	f.Add(kept[:100])
	f.Add([]byte{1, 'a', 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d := telemetry.NewDecoderBytes(in)
		b := d.Batch()
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20+200*len(in)), "memory")
		if d.Err() != nil {
			require.ErrorIs(t, d.Err(), telemetry.ErrDecode)
			return
		}
		_, _ = b.Records(), b.Size()
		for i := range b.Logs {
			_ = b.Logs[i].Body.Text()
		}
		enc := telemetry.AppendBatch(nil, &b)
		d = telemetry.NewDecoderBytes(enc)
		again := d.Batch()
		require.NoError(t, d.Err())
		require.Zero(t, d.Len())
		same(t, &b, &again)
		require.Equal(t, enc, telemetry.AppendBatch(nil, &again))
	})
}

func BenchmarkAppendBatch(b *testing.B) {
	batch := goldenBatch()
	buf := telemetry.AppendBatch(nil, &batch)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = telemetry.AppendBatch(buf[:0], &batch)
	}
}

func BenchmarkDecodeBatch(b *testing.B) {
	batch := goldenBatch()
	enc := string(telemetry.AppendBatch(nil, &batch))
	b.SetBytes(int64(len(enc)))
	b.ReportAllocs()
	for b.Loop() {
		d := telemetry.NewDecoder(enc)
		if got := d.Batch(); len(got.Spans) != 2 || d.Err() != nil {
			b.Fatal(d.Err())
		}
	}
}
