package testkit

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Options say what a Gen makes. The zero value is fine.
type Options struct {
	Tenants []telemetry.Tenant // default: the default tenant and one more
	Start   time.Time          // of the first record; default 2026-03-04 05:06:07 UTC
	Step    time.Duration      // between requests; default 1 s
	Signals []storage.Signal   // default: all
	// Numbered gives every record a number that Numbers finds: the attribute "seq" of spans and logs (logs also
	// carry it in their line), and for metrics the value of a series of its own with the label "seq".
	Numbered bool
	// Plain leaves out what JSON and protobuf cannot tell apart or carry: values that are not UTF-8, NaN payloads
	// and histograms with integer counts.
	Plain bool
	// InOrder keeps the samples of each series in the order of time, one a timestamp.
	InOrder bool
}

// Gen makes requests that are a function of its seed and of the calls before. They look like the traffic of a
// small shop in Kubernetes, with everything among it that is legal and rare: unicode, empty values, NaN, -0,
// nested attributes, records without a resource or a stream, spans without a parent, repeated times, samples
// that come late. Not safe for concurrent use.
type Gen struct {
	o      Options
	rng    *rand.Rand
	now    int64 // nanoseconds
	seq    uint64
	counts map[string]float64 // of cumulative series
	times  map[string]int64   // last of each series, milliseconds
	trace  telemetry.TraceID  // of the last span
	parent telemetry.SpanID
}

// NewGen returns a generator.
func NewGen(seed uint64, o Options) *Gen {
	if len(o.Tenants) == 0 {
		o.Tenants = []telemetry.Tenant{telemetry.DefaultTenant, "other"}
	}
	if o.Start.IsZero() {
		o.Start = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	}
	if o.Step == 0 {
		o.Step = time.Second
	}
	if len(o.Signals) == 0 {
		o.Signals = []storage.Signal{storage.Metrics, storage.Logs, storage.Traces}
	}
	return &Gen{
		o: o, rng: rand.New(rand.NewPCG(seed, 0x62726169)), now: o.Start.UnixNano(), seq: 1,
		counts: make(map[string]float64), times: make(map[string]int64),
	}
}

// Batch returns a batch of about n records of the default tenant, of all signals.
func Batch(seed uint64, n int) telemetry.Batch {
	g := NewGen(seed, Options{Tenants: []telemetry.Tenant{telemetry.DefaultTenant}})
	p := g.producer()
	b := telemetry.Batch{Tenant: telemetry.DefaultTenant, Resource: p.resource, Stream: p.stream}
	for b.Records() < n {
		g.fill(&b, p)
	}
	return b
}

// Next returns the number that the next record will carry. Without Options.Numbered nothing is counted.
func (g *Gen) Next() uint64 { return g.seq }

// Now returns the time of the last request, in nanoseconds.
func (g *Gen) Now() int64 { return g.now }

// Request returns the next request, of n records or a few more, with a key of its own.
func (g *Gen) Request(n int) storage.Request {
	g.now += int64(g.o.Step)
	var req storage.Request
	binary.LittleEndian.PutUint64(req.Key[:], g.rng.Uint64())
	binary.LittleEndian.PutUint64(req.Key[8:], g.rng.Uint64()|1)
	for total := 0; total < n; {
		p := g.producer()
		b := telemetry.Batch{Tenant: pick(g.rng, g.o.Tenants), Resource: p.resource, Stream: p.stream}
		for range 1 + g.rng.IntN(4) {
			if total+b.Records() < n {
				g.fill(&b, p)
			}
		}
		total += b.Records()
		req.Batches = append(req.Batches, b)
	}
	return req
}

// Clone returns a copy of req that shares nothing with it: Write takes ownership of what it gets.
func Clone(req storage.Request) storage.Request {
	out := storage.Request{Key: req.Key, Rejected: req.Rejected}
	out.Rejected.Reasons = append([]string(nil), req.Rejected.Reasons...)
	for i := range req.Batches {
		d := telemetry.NewDecoder(string(telemetry.AppendBatch(nil, &req.Batches[i])))
		b := d.Batch()
		if err := d.Err(); err != nil {
			panic(fmt.Sprintf("a batch that cannot be read back: %v", err))
		}
		for j := range b.Series {
			b.Series[j].Derived = req.Batches[i].Series[j].Derived
		}
		out.Batches = append(out.Batches, b)
	}
	return out
}

func pick[T any](rng *rand.Rand, of []T) T { return of[rng.IntN(len(of))] }

// one in n.
func (g *Gen) rare(n int) bool { return g.rng.IntN(n) == 0 }

func str(key, value string) telemetry.Attr {
	return telemetry.Attr{Key: key, Value: telemetry.String(value)}
}

// producer is something that sends: a container of a pod, or something without a name.
type producer struct {
	service, pod string
	resource     *telemetry.Resource
	stream       telemetry.LabelSet
}

func (g *Gen) producer() producer {
	service := pick(g.rng, []string{"frontend", "cart", "checkout", "database", "café-☕"})
	replica := g.rng.IntN(3)
	p := producer{service: service, pod: fmt.Sprintf("%s-%d", service, replica)}
	if g.rare(12) {
		return p // neither resource nor stream
	}
	as := []telemetry.Attr{
		str("service.name", service), str("service.namespace", "shop"), str("k8s.namespace.name", "prod"),
		str("k8s.pod.name", p.pod), str("k8s.container.name", "app"), str("host.name", fmt.Sprintf("node-%d", replica)),
		str("telemetry.sdk.language", "go"),
	}
	if g.rng.IntN(3) > 0 { // the sender may not know it
		as = append(as, str("k8s.pod.uid", fmt.Sprintf("uid-%s-%d", p.pod, (g.now/int64(time.Hour))%2)))
	}
	if g.rare(5) {
		as = append(as, telemetry.Attr{Key: "process.pid", Value: telemetry.Int(int64(g.rng.IntN(9)))}, str("empty", ""))
	}
	url := ""
	if g.rare(4) {
		url = "https://opentelemetry.io/schemas/1.40.0"
	}
	p.resource = telemetry.NewResource(url, telemetry.NewAttrs(as))
	p.stream = telemetry.NewLabelSet(labels.FromStrings("service_name", service, "namespace", "prod", "pod", p.pod))
	return p
}

// fill adds a few records of one signal.
func (g *Gen) fill(b *telemetry.Batch, p producer) {
	switch pick(g.rng, g.o.Signals) {
	case storage.Traces:
		b.Spans = append(b.Spans, g.span())
	case storage.Logs:
		b.Logs = append(b.Logs, g.log(p))
	case storage.Metrics:
		if g.o.Numbered {
			b.Series = append(b.Series, g.numbered())
			return
		}
		b.Series = append(b.Series, g.series(p))
	}
}

func (g *Gen) number() (uint64, bool) {
	n := g.seq
	if g.o.Numbered {
		g.seq++
	}
	return n, g.o.Numbered
}

// at returns a time near now; now and then the same one again.
func (g *Gen) at() int64 {
	if g.rare(4) {
		return g.now
	}
	return g.now + g.rng.Int64N(int64(g.o.Step))
}

func (g *Gen) spanID() (id telemetry.SpanID) {
	binary.BigEndian.PutUint64(id[:], g.rng.Uint64()|1)
	return id
}

func (g *Gen) scope() *telemetry.Scope {
	switch g.rng.IntN(3) {
	case 0:
		return nil
	case 1:
		return &telemetry.Scope{Name: "net/http", Version: "1.2.3"}
	default:
		return &telemetry.Scope{
			Name: "db", SchemaURL: "https://opentelemetry.io/schemas/1.40.0", Dropped: 1,
			Attrs: telemetry.Attrs{str("library", "pg"), {Key: "pool", Value: telemetry.Int(4)}},
		}
	}
}

func (g *Gen) span() telemetry.Span {
	s := telemetry.Span{
		TraceID: g.trace, ParentID: g.parent, SpanID: g.spanID(), Scope: g.scope(), Start: g.at(),
		Name:  pick(g.rng, []string{"GET /", "POST /cart", "SELECT orders", "checkout", "größe", ""}),
		Kind:  telemetry.SpanKind(g.rng.IntN(6)),
		Attrs: g.attrs(),
	}
	if s.TraceID.IsZero() || g.rare(5) { // a new trace, one in ten with a parent that never comes
		binary.BigEndian.PutUint64(s.TraceID[:], g.rng.Uint64())
		binary.BigEndian.PutUint64(s.TraceID[8:], g.rng.Uint64()|1)
		s.ParentID = telemetry.SpanID{}
		if g.rare(10) {
			s.ParentID = g.spanID()
		}
	}
	s.End = s.Start + g.rng.Int64N(int64(2*time.Second))
	if g.rare(10) {
		s.End = s.Start
	}
	switch g.rng.IntN(6) {
	case 0:
		s.Status, s.StatusMessage = telemetry.StatusError, "deadline exceeded"
	case 1:
		s.Status = telemetry.StatusOK
	}
	if g.rare(4) {
		s.Events = []telemetry.Event{{
			Time: s.Start + 1, Name: "exception", Dropped: 2,
			Attrs: telemetry.Attrs{str("exception.message", "no stock of \"mugs\""), str("exception.type", "OutOfStock")},
		}}
	}
	if g.rare(6) {
		s.Links = []telemetry.Link{{TraceID: g.trace, SpanID: g.spanID(), State: "a=b", Flags: 1, Attrs: g.attrs(), Dropped: 1}}
	}
	if g.rare(6) {
		s.State, s.Flags, s.DroppedAttrs, s.DroppedEvents, s.DroppedLinks = "vendor=1", 0x101, 1, 2, 3
	}
	if n, ok := g.number(); ok {
		s.Attrs = telemetry.NewAttrs(append(s.Attrs, telemetry.Attr{Key: "seq", Value: telemetry.Int(int64(n))}))
	}
	g.trace, g.parent = s.TraceID, s.SpanID
	return s
}

func (g *Gen) attrs() telemetry.Attrs {
	as := []telemetry.Attr{
		str("http.request.method", pick(g.rng, []string{"GET", "POST"})),
		{Key: "http.response.status_code", Value: telemetry.Int(pick(g.rng, []int64{200, 200, 404, 500}))},
		str("user.id", fmt.Sprintf("u-%04d", g.rng.IntN(1000))),
	}
	for g.rare(3) {
		as = append(as, telemetry.Attr{Key: pick(g.rng, []string{"extra", "größe", "a.b", "service.name", "x y"}), Value: g.value(0)})
	}
	return telemetry.NewAttrs(as)
}

func (g *Gen) value(depth int) telemetry.Value {
	switch g.rng.IntN(10) {
	case 0:
		return telemetry.Value{}
	case 1:
		return telemetry.Bool(g.rare(2))
	case 2:
		return telemetry.Int(pick(g.rng, []int64{0, -1, math.MaxInt64, math.MinInt64, 42}))
	case 3:
		return telemetry.Double(g.float())
	case 4:
		return telemetry.Bytes([]byte{0, 0xff, byte(g.rng.Uint32())})
	case 5, 6:
		if depth < 3 {
			return telemetry.Array([]telemetry.Value{g.value(depth + 1), g.value(depth + 1)})
		}
		return telemetry.Array(nil)
	case 7:
		if depth < 3 {
			return telemetry.Map(telemetry.NewAttrs([]telemetry.Attr{{Key: "k", Value: g.value(depth + 1)}, {Key: "ключ", Value: g.value(depth + 1)}}))
		}
		return telemetry.Map(nil)
	default:
		return telemetry.String(g.text())
	}
}

func (g *Gen) text() string {
	some := []string{"", "plain", "日本語", "with \"quotes\" and \\", "line\nbreak", "\x00\x01", "🙂", "key=value key2=\"v\""}
	if !g.o.Plain {
		some = append(some, "not utf-8: \xff\xfe")
	}
	return pick(g.rng, some)
}

func (g *Gen) float() float64 {
	some := []float64{0, math.Copysign(0, -1), 1, -1.5, 1e300, math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1), math.NaN(), math.Pi}
	if !g.o.Plain {
		some = append(some, math.Float64frombits(0x7ff8000000abcdef))
	}
	return pick(g.rng, some)
}

func (g *Gen) log(p producer) telemetry.LogRecord {
	r := telemetry.LogRecord{Time: g.at(), Scope: g.scope(), Attrs: g.attrs()}
	r.Observed = r.Time + 1000
	level := g.rng.IntN(4)
	r.Severity, r.SeverityText = uint8(5+4*level), []string{"DEBUG", "INFO", "WARN", "ERROR"}[level]
	switch g.rng.IntN(6) {
	case 0:
		r.Body = telemetry.String(fmt.Sprintf("level=%s msg=%q user=u-%04d took=%dms", r.SeverityText, "request done", g.rng.IntN(1000), g.rng.IntN(900)))
	case 1:
		r.Body = telemetry.String(fmt.Sprintf(`{"level":%q,"msg":"order placed","order":%d}`, r.SeverityText, g.rng.IntN(1e6)))
	case 2:
		r.Body = telemetry.String("panic: runtime error\n\tgoroutine 1 [running]:\n\tmain.main()")
	case 3:
		r.Body = g.value(0)
	default:
		r.Body = telemetry.String(fmt.Sprintf("%s handled request %d of %s", p.service, g.rng.IntN(1e4), g.text()))
	}
	if g.rare(3) {
		r.TraceID, r.SpanID, r.Flags = g.trace, g.parent, 1
	}
	if g.rare(8) {
		r.Severity, r.SeverityText, r.TimeInferred, r.Dropped, r.EventName = 0, "", true, 3, "session.start"
	}
	if n, ok := g.number(); ok {
		r.Attrs = telemetry.NewAttrs(append(r.Attrs, telemetry.Attr{Key: "seq", Value: telemetry.Int(int64(n))}))
		r.Body = telemetry.String(fmt.Sprintf("%s seq=%d", r.Body.Text(), n))
	}
	return r
}

// numbered returns a series of its own for the next number.
func (g *Gen) numbered() telemetry.Series {
	n, _ := g.number()
	ls := labels.FromStrings(metricName, "seq", "seq", strconv.FormatUint(n, 10))
	return telemetry.Series{Labels: telemetry.NewLabelSet(ls), Samples: []telemetry.Sample{{T: g.now / 1e6, V: float64(n)}}}
}

// times of the next n samples of a series: after the last one, unless late samples are allowed.
func (g *Gen) sampleTimes(key string, n int) []int64 {
	ts := make([]int64, n)
	for i := range ts {
		t := max(g.now/1e6, g.times[key]+1+g.rng.Int64N(1000))
		if !g.o.InOrder && g.rare(10) {
			ts[i] = t - g.rng.Int64N(60_000) // late, perhaps a time once more
			continue
		}
		ts[i], g.times[key] = t, t
	}
	return ts
}

func (g *Gen) series(p producer) telemetry.Series {
	base := []string{"job", "shop/" + p.service, "instance", p.pod, "namespace", "prod", "pod", p.pod}
	set := func(name string, more ...string) telemetry.LabelSet {
		return telemetry.NewLabelSet(labels.FromStrings(append(append([]string{metricName, name}, base...), more...)...))
	}
	var s telemetry.Series
	n := 1 + g.rng.IntN(4)
	switch kind := g.rng.IntN(5); kind {
	case 0, 1: // a counter
		s.Labels = set("http_requests_total", "code", pick(g.rng, []string{"200", "404", "500"}), "path", pick(g.rng, []string{"/", "/cart", "/größe"}))
		s.Metadata = &telemetry.Metadata{Type: telemetry.MetricCounter, Help: "Requests."}
		for _, t := range g.sampleTimes(string(s.Labels), n) {
			g.counts[string(s.Labels)] += float64(g.rng.IntN(20))
			if g.rare(30) {
				g.counts[string(s.Labels)] = 0
			}
			s.Samples = append(s.Samples, telemetry.Sample{T: t, ST: g.o.Start.UnixMilli(), V: g.counts[string(s.Labels)]})
		}
		if g.rare(3) {
			s.Exemplars = []exemplar.Exemplar{{
				Labels: labels.FromStrings("trace_id", g.trace.String(), "span_id", g.parent.String()),
				Value:  g.rng.Float64(), Ts: s.Samples[0].T, HasTs: true,
			}}
		}
	case 2: // a gauge with everything that a float can be
		s.Labels = set("queue_length", "http.route", g.text())
		if g.o.Plain || g.rare(2) {
			s.Labels = set("queue_length")
		}
		s.Metadata = &telemetry.Metadata{Type: telemetry.MetricGauge, Unit: "items", Help: "Größe der \"Schlange\""}
		for _, t := range g.sampleTimes(string(s.Labels), n) {
			s.Samples = append(s.Samples, telemetry.Sample{T: t, V: g.float()})
		}
	case 3: // a classic histogram's bucket
		s.Labels = set("request_seconds_bucket", "le", pick(g.rng, []string{"0.1", "1.0", "+Inf"}))
		s.Metadata = &telemetry.Metadata{Type: telemetry.MetricHistogram, Unit: "seconds", Help: "Durations."}
		for _, t := range g.sampleTimes(string(s.Labels), n) {
			g.counts[string(s.Labels)] += float64(g.rng.IntN(5))
			s.Samples = append(s.Samples, telemetry.Sample{T: t, V: g.counts[string(s.Labels)]})
		}
	default: // a native histogram
		s.Labels = set("latency_seconds")
		s.Metadata = &telemetry.Metadata{Type: telemetry.MetricHistogram, Unit: "seconds", Help: "Latency."}
		for _, t := range g.sampleTimes(string(s.Labels), n) {
			g.counts[string(s.Labels)]++
			p := telemetry.HistogramSample{T: t}
			if h := nativeHistogram(uint64(g.counts[string(s.Labels)])); g.o.Plain || g.rare(2) {
				p.FH = h.ToFloat(nil)
			} else {
				p.H = h
			}
			s.Histograms = append(s.Histograms, p)
		}
	}
	return s
}

// nativeHistogram returns the state of a cumulative histogram after n rounds of observations.
func nativeHistogram(n uint64) *histogram.Histogram {
	return &histogram.Histogram{
		Schema: 1, ZeroThreshold: 0.001, ZeroCount: n, Count: 12 * n, Sum: 18.4 * float64(n),
		PositiveSpans:   []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 2}},
		PositiveBuckets: []int64{int64(n), int64(n), -int64(n), 0},
		NegativeSpans:   []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 2}},
		NegativeBuckets: []int64{int64(2 * n), -int64(n), 0, int64(n)},
	}
}
