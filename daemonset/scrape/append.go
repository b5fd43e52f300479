package scrape

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	promstorage "github.com/prometheus/prometheus/storage"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/braidobs/braid/ingest/otlp"
)

const (
	// maxPoints is how many data points go into one request.
	maxPoints = 20_000
	// maxBuckets bounds a native histogram whose buckets lie far apart: OTLP has them densely.
	maxBuckets = 16_384
)

// Send takes the metrics of a scrape, points of them; it returns when they are safe.
type Send func(ctx context.Context, md pmetric.Metrics, points int) error

// sink is a promstorage.AppendableV2 that makes OTLP of what is appended.
type sink struct {
	send Send
	lost prometheus.Counter
}

func newSink(d Deps) *sink {
	s := &sink{send: d.Send, lost: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "braid_scrape_samples_lost_total", Help: "Samples that were scraped and could not be handed on.",
	})}
	d.Metrics.MustRegister(s.lost)
	return s
}

// AppenderV2 implements promstorage.AppendableV2.
func (s *sink) AppenderV2(ctx context.Context) promstorage.AppenderV2 {
	return &appender{ctx: ctx, sink: s}
}

// appender collects the samples of one scrape.
type appender struct {
	ctx    context.Context //nolint:containedctx // Commit has none
	sink   *sink
	full   []pmetric.Metrics // with maxPoints each
	now    pmetric.Metrics
	out    pmetric.MetricSlice
	known  map[metricKey]pmetric.Metric
	points int // in now
}

type metricKey struct {
	name string
	kind pmetric.MetricType
}

// Append implements promstorage.AppenderV2. The reference only tells the scraper that the series is known.
func (a *appender) Append(
	ref promstorage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o promstorage.AppendV2Options,
) (promstorage.SeriesRef, error) {
	if ref == 0 {
		ref = promstorage.SeriesRef(ls.Hash() | 1)
	}
	if a.known == nil || a.points >= maxPoints {
		a.begin()
	}
	name := ls.Get(model.MetricNameLabel)
	var es pmetric.ExemplarSlice
	switch {
	case fh != nil:
		return 0, errors.New("histograms with fractional counts cannot be handed on")
	case h != nil && h.UsesCustomBuckets():
		p := a.metric(name, pmetric.MetricTypeHistogram, o).Histogram().DataPoints().AppendEmpty()
		custom(p, h)
		stamp(p, st, t)
		attributes(p.Attributes(), ls)
		es = p.Exemplars()
	case h != nil:
		if err := dense(h); err != nil {
			return 0, err
		}
		p := a.metric(name, pmetric.MetricTypeExponentialHistogram, o).ExponentialHistogram().DataPoints().AppendEmpty()
		exponential(p, h)
		stamp(p, st, t)
		attributes(p.Attributes(), ls)
		es = p.Exemplars()
	default:
		p := a.metric(name, pmetric.MetricTypeGauge, o).Gauge().DataPoints().AppendEmpty()
		if value.IsStaleNaN(v) {
			p.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
		}
		p.SetDoubleValue(v)
		stamp(p, st, t)
		attributes(p.Attributes(), ls)
		es = p.Exemplars()
	}
	for i := range o.Exemplars {
		addExemplar(es.AppendEmpty(), &o.Exemplars[i], t)
	}
	a.points++
	return ref, nil
}

// begin begins a request.
func (a *appender) begin() {
	if a.points > 0 {
		a.full = append(a.full, a.now)
	}
	a.now, a.points = pmetric.NewMetrics(), 0
	a.out = a.now.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	a.known = make(map[metricKey]pmetric.Metric)
}

// metric returns the metric that a sample belongs to.
func (a *appender) metric(name string, kind pmetric.MetricType, o promstorage.AppendV2Options) pmetric.Metric {
	k := metricKey{name, kind}
	if m, ok := a.known[k]; ok {
		return m
	}
	m := a.out.AppendEmpty()
	m.SetName(name)
	typ := string(o.Metadata.Type)
	if typ == "" {
		typ = "unknown"
	}
	m.Metadata().PutStr(otlp.PrometheusType, typ)
	m.SetDescription(o.Metadata.Help)
	m.SetUnit(o.Metadata.Unit)
	switch kind {
	case pmetric.MetricTypeHistogram:
		m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	case pmetric.MetricTypeExponentialHistogram:
		m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	default:
		m.SetEmptyGauge()
	}
	a.known[k] = m
	return m
}

// Commit implements promstorage.AppenderTransaction.
func (a *appender) Commit() error {
	if a.points > 0 {
		a.full = append(a.full, a.now)
	}
	all := a.full
	a.reset()
	var errs []error
	for _, md := range all {
		n := md.DataPointCount()
		if err := a.sink.send(a.ctx, md, n); err != nil {
			a.sink.lost.Add(float64(n))
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Rollback implements promstorage.AppenderTransaction.
func (a *appender) Rollback() error {
	a.reset()
	return nil
}

func (a *appender) reset() { a.full, a.known, a.points = nil, nil, 0 }

func stamp(p interface {
	SetTimestamp(v pcommon.Timestamp)
	SetStartTimestamp(v pcommon.Timestamp)
}, st, t int64,
) {
	p.SetTimestamp(pcommon.Timestamp(t * 1e6))
	if st > 0 {
		p.SetStartTimestamp(pcommon.Timestamp(st * 1e6))
	}
}

func attributes(m pcommon.Map, ls labels.Labels) {
	m.EnsureCapacity(ls.Len())
	ls.Range(func(l labels.Label) {
		if l.Name != model.MetricNameLabel {
			m.PutStr(l.Name, l.Value)
		}
	})
}

func addExemplar(out pmetric.Exemplar, e *exemplar.Exemplar, t int64) {
	if e.HasTs {
		t = e.Ts
	}
	out.SetTimestamp(pcommon.Timestamp(t * 1e6))
	out.SetDoubleValue(e.Value)
	e.Labels.Range(func(l labels.Label) {
		if b, err := hex.DecodeString(l.Value); err == nil {
			switch {
			case l.Name == "trace_id" && len(b) == 16:
				out.SetTraceID(pcommon.TraceID(b))
				return
			case l.Name == "span_id" && len(b) == 8:
				out.SetSpanID(pcommon.SpanID(b))
				return
			}
		}
		out.FilteredAttributes().PutStr(l.Name, l.Value)
	})
}

// dense says whether the buckets of h can be written one after the other.
func dense(h *histogram.Histogram) error {
	for _, spans := range [][]histogram.Span{h.PositiveSpans, h.NegativeSpans} {
		n := int64(0)
		for i, s := range spans {
			if i > 0 {
				n += int64(s.Offset)
			}
			n += int64(s.Length)
		}
		if n > maxBuckets {
			return fmt.Errorf("a native histogram spans %d buckets, at most %d can be handed on", n, maxBuckets)
		}
	}
	return nil
}

// exponential writes a native histogram as OTLP has it, where bucket i is (base^i, base^(i+1)] and not
// (base^(i-1), base^i].
func exponential(p pmetric.ExponentialHistogramDataPoint, h *histogram.Histogram) {
	p.SetScale(h.Schema)
	if value.IsStaleNaN(h.Sum) {
		p.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
		return
	}
	p.SetCount(h.Count)
	p.SetSum(h.Sum)
	p.SetZeroCount(h.ZeroCount)
	p.SetZeroThreshold(h.ZeroThreshold)
	buckets(p.Positive(), h.PositiveSpans, h.PositiveBuckets)
	buckets(p.Negative(), h.NegativeSpans, h.NegativeBuckets)
}

func buckets(out pmetric.ExponentialHistogramDataPointBuckets, spans []histogram.Span, deltas []int64) {
	if len(spans) == 0 {
		return
	}
	out.SetOffset(spans[0].Offset - 1)
	count := int64(0)
	at := 0
	for i, s := range spans {
		for range s.Offset {
			if i > 0 {
				out.BucketCounts().Append(0)
			}
		}
		for range s.Length {
			count += deltas[at]
			at++
			out.BucketCounts().Append(uint64(count))
		}
	}
}

// custom writes a native histogram with custom buckets.
func custom(p pmetric.HistogramDataPoint, h *histogram.Histogram) {
	p.ExplicitBounds().FromRaw(h.CustomValues)
	if value.IsStaleNaN(h.Sum) {
		p.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
		return
	}
	p.SetCount(h.Count)
	p.SetSum(h.Sum)
	counts := make([]uint64, len(h.CustomValues)+1)
	it := h.PositiveBucketIterator()
	for it.Next() {
		b := it.At()
		if i := int(b.Index); i >= 0 && i < len(counts) {
			counts[i] = b.Count
		}
	}
	p.BucketCounts().FromRaw(counts)
}
