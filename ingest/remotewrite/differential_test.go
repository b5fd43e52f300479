package remotewrite_test

import (
	"math"
	"net/http"
	"sort"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/remotewrite"
	"github.com/braidobs/braid/internal/telemetry"
)

// open lifts the limits, which the reference does not have.
func open(ic *ingest.Config, rc *remotewrite.Config) {
	ic.TimeWindow = false
	ic.MaxLabels, ic.MaxName, ic.MaxLabelValue, ic.MaxRecord = 1<<20, 1<<20, 1<<20, 1<<24
	rc.MaxBody = 1 << 20
}

// content is what a request says, in a form that compares: series without metadata as the log has them, and the
// metadata.
type content struct {
	series   []string
	metadata map[string]bool
}

func (c *content) add(s telemetry.Series) {
	if s.Metadata != nil {
		c.metadata[s.Labels.Get("__name__")+string(telemetry.AppendMetadata(nil, s.Metadata))] = true
	}
	s.Metadata = nil
	if len(s.Samples)+len(s.Histograms)+len(s.Exemplars) > 0 {
		c.series = append(c.series, string(telemetry.AppendSeries(nil, &s)))
	}
}

// fits says whether the store can hold a time.
func fits(t int64) bool { return t >= math.MinInt64/1_000_000 && t <= math.MaxInt64/1_000_000 }

// labelsFit says whether labels may be those of a series, as Prometheus made them.
func labelsFit(ls labels.Labels) bool {
	_, twice := ls.HasDuplicateLabelNames()
	ok := ls.Get("__name__") != "" && !twice
	ls.Range(func(l labels.Label) {
		ok = ok && l.Name != "" && (l.Value == "" || utf8.ValidString(l.Name) && utf8.ValidString(l.Value))
	})
	return ok
}

// reference collects what a request must come to, from what Prometheus's own code decodes.
type reference struct {
	content
	refused bool
}

func newReference() *reference { return &reference{content: content{metadata: make(map[string]bool)}} }

type refExemplar struct {
	labels labels.Labels
	value  float64
	t      int64
	err    error
}

func (r *reference) one(ls labels.Labels, samples []telemetry.Sample, hs []telemetry.HistogramSample, es []refExemplar) {
	if !labelsFit(ls) {
		r.refused = true
		return
	}
	s := telemetry.Series{Labels: telemetry.NewLabelSet(ls)}
	var last *int64 // of all samples that are sent well
	var valid []telemetry.HistogramSample
	for _, h := range hs {
		if bad(h) {
			r.refused = true
			continue
		}
		valid = append(valid, h)
		last = &h.T
	}
	for i := range samples {
		last = &samples[i].T
	}
	for _, p := range samples {
		if !fits(p.T) {
			r.refused = true
			continue
		}
		s.Samples = append(s.Samples, p)
	}
	for _, h := range valid {
		if !fits(h.T) {
			r.refused = true
			continue
		}
		s.Histograms = append(s.Histograms, h)
	}
	for _, e := range es {
		ok := e.err == nil
		_, twice := e.labels.HasDuplicateLabelNames()
		e.labels.Range(func(l labels.Label) {
			ok = ok && l.Name != "" && utf8.ValidString(l.Name) && utf8.ValidString(l.Value)
		})
		if e.t == 0 && last != nil {
			e.t = *last
		} else if e.t == 0 {
			ok = false
		}
		if !ok || twice || !fits(e.t) {
			r.refused = true
			continue
		}
		s.Exemplars = append(s.Exemplars, exemplar.Exemplar{Labels: e.labels, Value: e.value, Ts: e.t, HasTs: true})
	}
	if len(s.Samples)+len(s.Histograms) == 0 && len(samples)+len(valid) > 0 {
		return // nothing is left to hang exemplars on
	}
	r.add(s)
}

// bad says whether Prometheus refuses a histogram; one with a reserved schema it makes coarser.
func bad(h telemetry.HistogramSample) bool {
	if h.H != nil {
		if h.H.CounterResetHint > histogram.GaugeType {
			h.H.CounterResetHint = histogram.UnknownCounterReset
		}
		if histogram.IsExponentialSchemaReserved(h.H.Schema) && h.H.Schema > histogram.ExponentialSchemaMax &&
			h.H.ReduceResolution(histogram.ExponentialSchemaMax) != nil {
			return true
		}
		return h.H.Validate() != nil
	}
	if h.FH.CounterResetHint > histogram.GaugeType {
		h.FH.CounterResetHint = histogram.UnknownCounterReset
	}
	if histogram.IsExponentialSchemaReserved(h.FH.Schema) && h.FH.Schema > histogram.ExponentialSchemaMax &&
		h.FH.ReduceResolution(histogram.ExponentialSchemaMax) != nil {
		return true
	}
	return h.FH.Validate() != nil
}

func reference1(req *prompb.WriteRequest) *reference {
	r := newReference()
	b := labels.NewScratchBuilder(0)
	for _, ts := range req.Timeseries {
		ls := ts.ToLabels(&b, nil)
		var samples []telemetry.Sample
		for _, s := range ts.Samples {
			samples = append(samples, telemetry.Sample{T: s.Timestamp, V: s.Value})
		}
		var hs []telemetry.HistogramSample
		for _, h := range ts.Histograms {
			p := telemetry.HistogramSample{T: h.Timestamp}
			if h.ResetHint < 0 || h.ResetHint > 3 {
				h.ResetHint = 0
			}
			if h.IsFloatHistogram() {
				p.FH = h.ToFloatHistogram()
			} else {
				p.H = h.ToIntHistogram()
			}
			hs = append(hs, p)
		}
		var es []refExemplar
		for _, e := range ts.Exemplars {
			es = append(es, refExemplar{labels: e.ToExemplar(&b, nil).Labels, value: e.Value, t: e.Timestamp})
		}
		r.one(ls, samples, hs, es)
	}
	for _, m := range req.Metadata {
		if m.MetricFamilyName == "" || !utf8.ValidString(m.MetricFamilyName) || !utf8.ValidString(m.Help) || !utf8.ValidString(m.Unit) {
			r.refused = true
			continue
		}
		md := telemetry.Metadata{Unit: m.Unit, Help: m.Help}
		if m.Type >= 0 && m.Type <= 7 {
			md.Type = telemetry.MetricType(m.Type)
		}
		r.add(telemetry.Series{Labels: telemetry.NewLabelSet(labels.FromStrings("__name__", m.MetricFamilyName)), Metadata: &md})
	}
	return r
}

// created returns the start times that release candidates sent for a whole series, by series.
func created(body []byte) (out []int64) {
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		m := protowire.ConsumeFieldValue(num, typ, body[n:])
		if num == 5 {
			in, _ := protowire.ConsumeBytes(body[n:])
			var t uint64
			for len(in) > 0 {
				num, typ, n := protowire.ConsumeTag(in)
				m := protowire.ConsumeFieldValue(num, typ, in[n:])
				if num == 6 && typ == protowire.VarintType {
					t, _ = protowire.ConsumeVarint(in[n:])
				}
				in = in[n+m:]
			}
			out = append(out, int64(t))
		}
		body = body[n+m:]
	}
	return out
}

func reference2(req *writev2.Request, started []int64) *reference {
	r := newReference()
	b := labels.NewScratchBuilder(0)
	for i, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&b, req.Symbols)
		if err != nil {
			r.refused = true
			continue
		}
		start := func(t int64) int64 {
			if t == 0 {
				return started[i]
			}
			return t
		}
		var samples []telemetry.Sample
		for _, s := range ts.Samples {
			samples = append(samples, telemetry.Sample{T: s.Timestamp, V: s.Value, ST: start(s.StartTimestamp)})
		}
		var hs []telemetry.HistogramSample
		for _, h := range ts.Histograms {
			p := telemetry.HistogramSample{T: h.Timestamp, ST: start(h.StartTimestamp)}
			if h.ResetHint < 0 || h.ResetHint > 3 {
				h.ResetHint = 0
			}
			if h.IsFloatHistogram() {
				p.FH = h.ToFloatHistogram()
			} else {
				p.H = h.ToIntHistogram()
			}
			hs = append(hs, p)
		}
		var es []refExemplar
		for _, e := range ts.Exemplars {
			x, err := e.ToExemplar(&b, req.Symbols)
			es = append(es, refExemplar{labels: x.Labels, value: e.Value, t: e.Timestamp, err: err})
		}
		md := ts.Metadata
		described := md.Type != 0 || md.HelpRef != 0 || md.UnitRef != 0
		if len(samples)+len(hs)+len(es) == 0 && !described {
			r.refused = true
		}
		if described && labelsFit(ls) {
			if m, err := ts.ToMetadata(req.Symbols); err != nil || !utf8.ValidString(m.Help) || !utf8.ValidString(m.Unit) {
				r.refused = true
			} else {
				kept := telemetry.Metadata{Unit: m.Unit, Help: m.Help}
				if md.Type >= 0 && md.Type <= 7 {
					kept.Type = telemetry.MetricType(md.Type)
				}
				r.add(telemetry.Series{Labels: telemetry.NewLabelSet(ls), Metadata: &kept})
			}
		}
		r.one(ls, samples, hs, es)
	}
	return r
}

// agree sends a body twice, so that the second time the labels are known, and compares with the reference, which is
// nil when Prometheus cannot decode it. What we accept, Prometheus must.
func agree(t require.TestingT, contentType string, body []byte, ref func() *reference) {
	r := newRig(t, open)
	for range 2 {
		r.requests = nil
		w := r.send(contentType, body)
		if w.Code == http.StatusRequestEntityTooLarge || w.Code == http.StatusBadRequest && strings.Contains(w.Body.String(), "is not the protobuf message") {
			require.Empty(t, r.requests)
			return
		}
		want := ref()
		require.NotNil(t, want, "accepted with %d %s", w.Code, w.Body)
		code := http.StatusNoContent
		if want.refused {
			code = http.StatusBadRequest
		}
		got := content{metadata: make(map[string]bool)}
		for _, s := range r.series() {
			require.NotNil(t, s.Known)
			got.add(s)
		}
		require.Equal(t, want.series, got.series)
		for m := range want.metadata { // of a series whose samples were all refused it is not kept
			if !got.metadata[m] {
				require.True(t, want.refused)
			}
		}
		for m := range got.metadata {
			require.True(t, want.metadata[m])
		}
		require.Equal(t, code, w.Code, "%s", w.Body)
	}
}

func agree1(t require.TestingT, body []byte) {
	agree(t, type1, body, func() *reference {
		var req prompb.WriteRequest
		if req.Unmarshal(body) != nil {
			return nil
		}
		return reference1(&req)
	})
}

func agree2(t require.TestingT, body []byte) {
	agree(t, type2, body, func() *reference {
		var req writev2.Request
		if req.Unmarshal(body) != nil {
			return nil
		}
		return reference2(&req, created(body))
	})
}

// Values that are worth a test.
func floats() *rapid.Generator[float64] {
	return rapid.OneOf(rapid.Float64(), rapid.Just(math.Float64frombits(0x7ff0000000000002)), rapid.Just(math.NaN()), rapid.Just(math.Inf(-1)), rapid.Just(math.Copysign(0, -1)))
}

func times() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64Range(1<<40, 1<<41), rapid.SampledFrom([]int64{0, 1, -1, 1 << 35, 1<<35 - 1, 1 << 42, math.MaxInt64, math.MinInt64}))
}

func words() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{"", "a", "b", "__name__", "le", "Upper", "job name", "x.y", "\xff", "ö", strings.Repeat("long", 50)})
}

func pairs() *rapid.Generator[[]labels.Label] {
	return rapid.Custom(func(t *rapid.T) []labels.Label {
		var out []labels.Label
		if rapid.IntRange(0, 9).Draw(t, "named") > 0 {
			out = append(out, labels.Label{Name: "__name__", Value: rapid.SampledFrom([]string{"m", "n_total", ""}).Draw(t, "metric")})
		}
		for range rapid.IntRange(0, 4).Draw(t, "labels") {
			out = append(out, labels.Label{Name: words().Draw(t, "name"), Value: words().Draw(t, "value")})
		}
		if rapid.Bool().Draw(t, "sorted") {
			sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
		}
		return out
	})
}

// spansFor returns spans of n buckets, now and then of a few more.
func spansFor(t *rapid.T, n int) (out []prompb.BucketSpan) {
	if rapid.IntRange(0, 9).Draw(t, "broken") == 0 {
		n++
	}
	for n > 0 {
		l := rapid.IntRange(1, n).Draw(t, "span")
		out = append(out, prompb.BucketSpan{Offset: int32(rapid.IntRange(-1, 3).Draw(t, "offset")), Length: uint32(l)})
		n -= l
	}
	return out
}

func histograms() *rapid.Generator[prompb.Histogram] {
	return rapid.Custom(func(t *rapid.T) prompb.Histogram {
		n := rapid.IntRange(0, 4).Draw(t, "buckets")
		h := prompb.Histogram{
			Sum: floats().Draw(t, "sum"), Schema: int32(rapid.SampledFrom([]int{-4, 0, 8, 9, 20, 52, 53, -53, -54, 100}).Draw(t, "schema")),
			ZeroThreshold: 0.001, Timestamp: times().Draw(t, "t"), ResetHint: prompb.Histogram_ResetHint(rapid.IntRange(0, 4).Draw(t, "hint")),
		}
		zero := uint64(rapid.IntRange(0, 3).Draw(t, "zero"))
		if h.Schema == -53 {
			zero, h.ZeroThreshold = 0, 0
			for i := range n {
				h.CustomValues = append(h.CustomValues, float64(i))
			}
		}
		h.PositiveSpans = spansFor(t, n)
		count := zero + uint64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "miscounted"))
		last := int64(0)
		float := rapid.Bool().Draw(t, "float")
		for range n {
			c := int64(rapid.IntRange(0, 9).Draw(t, "count"))
			h.PositiveDeltas = append(h.PositiveDeltas, c-last)
			h.PositiveCounts = append(h.PositiveCounts, float64(c))
			last = c
			count += uint64(c)
		}
		if float {
			h.PositiveDeltas, h.Count, h.ZeroCount = nil, &prompb.Histogram_CountFloat{CountFloat: float64(count)}, &prompb.Histogram_ZeroCountFloat{ZeroCountFloat: float64(zero)}
		} else {
			h.PositiveCounts, h.Count, h.ZeroCount = nil, &prompb.Histogram_CountInt{CountInt: count}, &prompb.Histogram_ZeroCountInt{ZeroCountInt: zero}
		}
		return h
	})
}

func requests1() *rapid.Generator[*prompb.WriteRequest] {
	return rapid.Custom(func(t *rapid.T) *prompb.WriteRequest {
		req := &prompb.WriteRequest{}
		asLabels := func(ps []labels.Label) (out []prompb.Label) {
			for _, p := range ps {
				out = append(out, prompb.Label{Name: p.Name, Value: p.Value})
			}
			return out
		}
		for range rapid.IntRange(0, 4).Draw(t, "series") {
			ts := prompb.TimeSeries{Labels: asLabels(pairs().Draw(t, "labels"))}
			for range rapid.IntRange(0, 3).Draw(t, "samples") {
				ts.Samples = append(ts.Samples, prompb.Sample{Value: floats().Draw(t, "v"), Timestamp: times().Draw(t, "t")})
			}
			for range rapid.IntRange(0, 1).Draw(t, "histograms") {
				ts.Histograms = append(ts.Histograms, histograms().Draw(t, "h"))
			}
			for range rapid.IntRange(0, 2).Draw(t, "exemplars") {
				ts.Exemplars = append(ts.Exemplars, prompb.Exemplar{Labels: asLabels(pairs().Draw(t, "labels")), Value: floats().Draw(t, "v"), Timestamp: times().Draw(t, "t")})
			}
			req.Timeseries = append(req.Timeseries, ts)
		}
		for range rapid.IntRange(0, 2).Draw(t, "families") {
			req.Metadata = append(req.Metadata, prompb.MetricMetadata{
				Type: prompb.MetricMetadata_MetricType(rapid.IntRange(0, 8).Draw(t, "type")), MetricFamilyName: words().Draw(t, "family"), Help: words().Draw(t, "help"), Unit: words().Draw(t, "unit"),
			})
		}
		return req
	})
}

// version2Of says what a request of version 1 says, with what only version 2 has, and now and then a bad reference.
func version2Of(t *rapid.T, req *prompb.WriteRequest) *writev2.Request {
	st := writev2.NewSymbolTable()
	out := &writev2.Request{}
	b := labels.NewScratchBuilder(0)
	bad := func(refs []uint32) []uint32 {
		switch rapid.IntRange(0, 20).Draw(t, "bad") {
		case 0:
			return append(refs, 0)
		case 1:
			return append(refs, 0, 1<<20)
		default:
			return refs
		}
	}
	for _, ts := range req.Timeseries {
		s := writev2.TimeSeries{}
		for _, l := range ts.Labels {
			s.LabelsRefs = append(s.LabelsRefs, st.Symbolize(l.Name), st.Symbolize(l.Value))
		}
		s.LabelsRefs = bad(s.LabelsRefs)
		for _, p := range ts.Samples {
			s.Samples = append(s.Samples, writev2.Sample{Value: p.Value, Timestamp: p.Timestamp, StartTimestamp: times().Draw(t, "start")})
		}
		for _, h := range ts.Histograms {
			one := writev2.FromFloatHistogram(times().Draw(t, "start"), h.Timestamp, h.ToFloatHistogram())
			if !h.IsFloatHistogram() {
				one = writev2.FromIntHistogram(times().Draw(t, "start"), h.Timestamp, h.ToIntHistogram())
			}
			s.Histograms = append(s.Histograms, one)
		}
		for _, e := range ts.Exemplars {
			b.Reset()
			x := writev2.Exemplar{Value: e.Value, Timestamp: e.Timestamp}
			for _, l := range e.Labels {
				x.LabelsRefs = append(x.LabelsRefs, st.Symbolize(l.Name), st.Symbolize(l.Value))
			}
			x.LabelsRefs = bad(x.LabelsRefs)
			s.Exemplars = append(s.Exemplars, x)
		}
		if rapid.Bool().Draw(t, "described") {
			s.Metadata = writev2.Metadata{
				Type: writev2.Metadata_MetricType(rapid.IntRange(0, 8).Draw(t, "type")), HelpRef: st.Symbolize(words().Draw(t, "help")), UnitRef: st.Symbolize(words().Draw(t, "unit")),
			}
		}
		out.Timeseries = append(out.Timeseries, s)
	}
	out.Symbols = st.Symbols()
	return out
}

// shuffled writes the fields of a message, and those of its fields with the number deep, in another order. Fields of
// one number stay in theirs.
func shuffled(t *rapid.T, m []byte, deep protowire.Number) []byte {
	byNum := map[protowire.Number][][]byte{}
	var nums []protowire.Number
	for len(m) > 0 {
		num, _, n := protowire.ConsumeField(m)
		if byNum[num] == nil {
			nums = append(nums, num)
		}
		one := m[:n]
		if num == deep {
			in, _ := protowire.ConsumeBytes(m[protowire.SizeTag(num):n])
			one = protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), shuffled(t, in, 0))
		}
		byNum[num] = append(byNum[num], one)
		m = m[n:]
	}
	var out []byte
	for len(nums) > 0 {
		i := rapid.IntRange(0, len(nums)-1).Draw(t, "next")
		out = append(out, byNum[nums[i]][0]...)
		if byNum[nums[i]] = byNum[nums[i]][1:]; len(byNum[nums[i]]) == 0 {
			nums = append(nums[:i], nums[i+1:]...)
		}
	}
	return out
}

func TestVersion1AsPrometheus(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body, err := requests1().Draw(t, "request").Marshal()
		require.NoError(t, err)
		if rapid.Bool().Draw(t, "shuffle") {
			body = shuffled(t, body, 1)
		}
		agree1(t, body)
	})
}

func TestVersion2AsPrometheus(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body, err := version2Of(t, requests1().Draw(t, "request")).Marshal()
		require.NoError(t, err)
		if rapid.Bool().Draw(t, "shuffle") {
			body = shuffled(t, body, 5)
		}
		agree2(t, body)
	})
}

// fuzzSeeds adds requests that have everything.
func fuzzSeeds(f *testing.F, marshal func(t *rapid.T) []byte) {
	f.Helper()
	for i := range 20 {
		f.Add(rapid.Custom(marshal).Example(i))
	}
	f.Add([]byte{})
	f.Add([]byte("\x0a\x00"))
}

func FuzzVersion1(f *testing.F) {
	fuzzSeeds(f, func(t *rapid.T) []byte {
		b, _ := requests1().Draw(t, "request").Marshal()
		return b
	})
	f.Fuzz(func(t *testing.T, body []byte) { agree1(t, body) })
}

func FuzzVersion2(f *testing.F) {
	fuzzSeeds(f, func(t *rapid.T) []byte {
		b, _ := version2Of(t, requests1().Draw(t, "request")).Marshal()
		return b
	})
	f.Fuzz(func(t *testing.T, body []byte) { agree2(t, body) })
}
