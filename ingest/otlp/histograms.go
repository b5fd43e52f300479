package otlp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/braidobs/braid/internal/telemetry"
)

const (
	// zeroThreshold is that of histograms which tell none.
	zeroThreshold = 1e-128
	// maxExemplarRunes is how many characters of labels an exemplar may have in OpenMetrics.
	maxExemplarRunes = 128
	// maxGap is how many empty buckets are written out before a new span is cheaper.
	maxGap = 2
)

// histogramError says why a histogram has no native form.
type histogramError struct{ err error }

func (e *histogramError) Error() string { return e.err.Error() }
func (e *histogramError) Unwrap() error { return e.err }

// exponential translates an exponential histogram to a native one. A scale beyond what native histograms have is
// reduced, which is exact; one below cannot be raised.
func (t *metrics) exponential(p pmetric.ExponentialHistogramDataPoint, f family) error {
	scale, down := p.Scale(), int32(0)
	if scale < histogram.ExponentialSchemaMin {
		return &histogramError{fmt.Errorf("an exponential histogram has a scale below %d", histogram.ExponentialSchemaMin)}
	}
	if scale > histogram.ExponentialSchemaMax {
		down = min(scale-histogram.ExponentialSchemaMax, 63)
		scale = histogram.ExponentialSchemaMax
	}
	h := &histogram.Histogram{
		Schema: scale, ZeroThreshold: zeroThreshold, ZeroCount: p.ZeroCount(), Count: p.Count(), Sum: p.Sum(),
	}
	if z := p.ZeroThreshold(); z > 0 {
		h.ZeroThreshold = z
	}
	var err error
	if h.PositiveSpans, h.PositiveBuckets, err = buckets(p.Positive(), down); err != nil {
		return err
	}
	if h.NegativeSpans, h.NegativeBuckets, err = buckets(p.Negative(), down); err != nil {
		return err
	}
	return t.native(p, f, h, p.Flags().NoRecordedValue(), p.Exemplars())
}

// buckets translates the buckets of an exponential histogram. OTLP's bucket i is (base^i, base^(i+1)], the native
// one is (base^(i-1), base^i].
func buckets(b pmetric.ExponentialHistogramDataPointBuckets, down int32) ([]histogram.Span, []int64, error) {
	counts := b.BucketCounts()
	var out spans
	var pending uint64
	var at int64
	for i := range counts.Len() {
		idx := (int64(b.Offset())+int64(i))>>down + 1
		if idx != at && pending > 0 {
			out.add(at, pending)
			pending = 0
		}
		at = idx
		if pending+counts.At(i) > math.MaxInt64 || counts.At(i) > math.MaxInt64 {
			return nil, nil, &histogramError{errors.New("a histogram has a bucket that is too full")}
		}
		pending += counts.At(i)
	}
	if pending > 0 {
		out.add(at, pending)
	}
	if out.bad {
		return nil, nil, &histogramError{errors.New("a histogram has buckets out of range")}
	}
	return out.spans, out.deltas, nil
}

// customBuckets translates a histogram with explicit buckets to a native one with the same.
func (t *metrics) customBuckets(p pmetric.HistogramDataPoint, f family) error {
	h := &histogram.Histogram{Schema: histogram.CustomBucketsSchema, Count: p.Count(), CustomValues: p.ExplicitBounds().AsRaw()}
	if p.HasSum() {
		h.Sum = p.Sum()
	}
	var out spans
	for i, n := range p.BucketCounts().All() {
		if n > math.MaxInt64 {
			return &histogramError{errors.New("a histogram has a bucket that is too full")}
		}
		if n > 0 {
			out.add(int64(i), n)
		}
	}
	h.PositiveSpans, h.PositiveBuckets = out.spans, out.deltas
	return t.native(p, f, h, p.Flags().NoRecordedValue(), p.Exemplars())
}

// native adds a native histogram.
func (t *metrics) native(p point, f family, h *histogram.Histogram, stale bool, es pmetric.ExemplarSlice) error {
	if stale {
		h = &histogram.Histogram{
			Schema: h.Schema, ZeroThreshold: h.ZeroThreshold, CustomValues: h.CustomValues,
			Sum: math.Float64frombits(value.StaleNaN),
		}
	} else if err := h.Validate(); err != nil {
		return &histogramError{fmt.Errorf("a histogram is not valid: %w", err)}
	}
	if err := t.guard.add(200 + 8*(len(h.PositiveBuckets)+len(h.NegativeBuckets)+len(h.PositiveSpans)+len(h.NegativeSpans))); err != nil {
		return err
	}
	s, err := t.get(f, f.name, false, label{})
	if err != nil {
		return err
	}
	at, start := times(p)
	s.Histograms = append(s.Histograms, telemetry.HistogramSample{T: at, ST: start, H: h})
	s.Exemplars = append(s.Exemplars, t.exemplars(es)...)
	return nil
}

// spans is the sparse form of buckets that is being made.
type spans struct {
	spans  []histogram.Span
	deltas []int64
	next   int64 // the index after the last bucket
	count  int64 // of the last bucket
	bad    bool  // an index does not fit
}

// add appends a bucket; indexes rise.
func (s *spans) add(idx int64, count uint64) {
	if idx > math.MaxInt32 || idx < math.MinInt32 {
		s.bad = true
		return
	}
	gap := idx - s.next
	switch {
	case len(s.spans) == 0:
		s.spans = append(s.spans, histogram.Span{Offset: int32(idx)})
	case gap > math.MaxInt32:
		s.bad = true
		return
	case gap > maxGap:
		s.spans = append(s.spans, histogram.Span{Offset: int32(gap)})
	default:
		for range gap {
			s.put(0)
		}
	}
	s.put(int64(count))
	s.next = idx + 1
}

func (s *spans) put(count int64) {
	s.spans[len(s.spans)-1].Length++
	s.deltas = append(s.deltas, count-s.count)
	s.count = count
}

// exemplars translates exemplars. Those without a value are left out, as are attributes that make the labels of one
// too long.
func (t *metrics) exemplars(es pmetric.ExemplarSlice) []exemplar.Exemplar {
	if es.Len() == 0 {
		return nil
	}
	out := make([]exemplar.Exemplar, 0, es.Len())
	for _, e := range es.All() {
		ts := millis(e.Timestamp())
		x := exemplar.Exemplar{Ts: ts, HasTs: ts != 0}
		switch e.ValueType() {
		case pmetric.ExemplarValueTypeInt:
			x.Value = float64(e.IntValue())
		case pmetric.ExemplarValueTypeDouble:
			x.Value = e.DoubleValue()
		default:
			t.req.rejected.Reason("an exemplar has no value")
			continue
		}
		x.Labels = exemplarLabels(e)
		out = append(out, x)
	}
	return out
}

func exemplarLabels(e pmetric.Exemplar) labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	runes := 0
	if id := e.TraceID(); !id.IsEmpty() {
		runes += len("trace_id") + 2*len(id)
	}
	if id := e.SpanID(); !id.IsEmpty() {
		runes += len("span_id") + 2*len(id)
	}
	type pair struct{ name, value string }
	var extra []pair
	for k, v := range e.FilteredAttributes().All() {
		text := v.AsString()
		runes += utf8.RuneCountInString(k) + utf8.RuneCountInString(text)
		if runes > maxExemplarRunes {
			extra = nil
			break
		}
		if k != "" {
			extra = append(extra, pair{k, text})
		}
	}
	for _, p := range extra {
		b.Set(p.name, p.value)
	}
	if id := e.TraceID(); !id.IsEmpty() {
		b.Set("trace_id", hex.EncodeToString(id[:]))
	}
	if id := e.SpanID(); !id.IsEmpty() {
		b.Set("span_id", hex.EncodeToString(id[:]))
	}
	return b.Labels()
}
