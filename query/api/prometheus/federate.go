package prometheus

import (
	"context"
	"math"
	"net/http"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/query"
)

// federate answers with the last samples of the series that are asked for, as a target that is scraped.
func (a *API) federate(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	fail := func(err error) { a.errors.Text(w, r, httpapi.Query, err) }
	if err := r.ParseForm(); err != nil {
		fail(httpapi.BadDataf("error parsing form values: %w", err))
		return
	}
	sets, err := a.Engine.Parser().ParseMetricSelectors(r.Form["match[]"])
	if err != nil {
		fail(httpapi.BadDataf("%w", err))
		return
	}
	format := expfmt.NegotiateAccept(r.Header,
		expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeProtoText), expfmt.NewFormat(expfmt.TypeProtoCompact), expfmt.NewFormat(expfmt.TypeTextPlain))
	done := a.Observer.Start(ctx, query.Federate, httpapi.TenantFrom(ctx), r.Form.Encode())
	last, err := a.lastSamples(ctx, sets)
	done(err)
	if err != nil {
		fail(err)
		return
	}
	w.Header().Set("Content-Type", string(format))
	enc := expfmt.NewEncoder(w, format)
	binary := slices.Contains([]expfmt.FormatType{expfmt.TypeProtoDelim, expfmt.TypeProtoText, expfmt.TypeProtoCompact}, format.FormatType())
	for _, f := range families(last, binary) {
		if err := enc.Encode(f); err != nil { // the answer has begun: it ends here
			return
		}
	}
}

// lastSamples returns the last samples of series, not older than the lookback, in the order of names.
func (a *API) lastSamples(ctx context.Context, sets [][]*labels.Matcher) (promql.Vector, error) {
	maxt := timestamp.FromTime(a.Now())
	mint := maxt - a.Engine.Config().Lookback.Std().Milliseconds()
	q, err := a.Engine.Queryable(httpapi.TenantFrom(ctx)).Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	defer func() { _ = q.Close() }() // only gives back memory
	var found []promstorage.SeriesSet
	for _, ms := range sets {
		found = append(found, q.Select(ctx, true, &promstorage.SelectHints{Start: mint, End: maxt}, ms...))
	}
	set := promstorage.NewMergeSeriesSet(found, 0, promstorage.ChainedSeriesMerge)
	var out promql.Vector
	var it chunkenc.Iterator
	for set.Next() {
		it = set.At().Iterator(it)
		s := promql.Sample{T: math.MinInt64}
		var h *histogram.FloatHistogram
		for k := it.Next(); k != chunkenc.ValNone; k = it.Next() {
			if k == chunkenc.ValFloat {
				s.T, s.F = it.At()
				s.H = nil
				continue
			}
			s.T, h = it.AtFloatHistogram(h)
			s.H = h
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
		// A target cannot say that a series has ended; that its samples do not come any more says it.
		if s.T == math.MinInt64 || s.H == nil && value.IsStaleNaN(s.F) || s.H != nil && value.IsStaleNaN(s.H.Sum) {
			continue
		}
		if s.Metric = set.At().Labels(); s.Metric.Get(model.MetricNameLabel) != "" {
			out = append(out, s)
		}
	}
	if err := set.Err(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(out, func(a, b promql.Sample) int {
		return strings.Compare(a.Metric.Get(model.MetricNameLabel), b.Metric.Get(model.MetricNameLabel))
	})
	return out, nil
}

// families returns samples in the order of their names as metric families, without a type: it may differ from series to
// series. One that holds another kind of sample than its predecessor begins a family of the same name. The text format
// has no native histograms; those with custom buckets become classic ones.
func families(samples promql.Vector, native bool) []*dto.MetricFamily {
	var out []*dto.MetricFamily
	for _, s := range samples {
		if s.H != nil && !native && !s.H.UsesCustomBuckets() {
			continue
		}
		kind := dto.MetricType_UNTYPED
		if s.H != nil {
			kind = dto.MetricType_HISTOGRAM
			if s.H.CounterResetHint == histogram.GaugeType {
				kind = dto.MetricType_GAUGE_HISTOGRAM
			}
		}
		name := s.Metric.Get(model.MetricNameLabel)
		if len(out) == 0 || out[len(out)-1].GetName() != name || out[len(out)-1].GetType() != kind {
			out = append(out, &dto.MetricFamily{Name: &name, Type: kind.Enum()})
		}
		m := &dto.Metric{TimestampMs: new(s.T)}
		instance := false
		s.Metric.Range(func(l labels.Label) {
			if l.Name != model.MetricNameLabel {
				instance = instance || l.Name == model.InstanceLabel
				m.Label = append(m.Label, &dto.LabelPair{Name: new(l.Name), Value: new(l.Value)})
			}
		})
		if !instance { // or the scraper would add that of the server
			m.Label = append(m.Label, &dto.LabelPair{Name: new(model.InstanceLabel), Value: new("")})
		}
		switch {
		case s.H == nil:
			m.Untyped = &dto.Untyped{Value: new(s.F)}
		case s.H.UsesCustomBuckets():
			m.Histogram = classic(s.H)
		default:
			m.Histogram = exponential(s.H)
		}
		f := out[len(out)-1]
		f.Metric = append(f.Metric, m)
	}
	return out
}

func exponential(h *histogram.FloatHistogram) *dto.Histogram {
	return &dto.Histogram{
		SampleCountFloat: &h.Count, SampleSum: &h.Sum, Schema: &h.Schema, ZeroThreshold: &h.ZeroThreshold, ZeroCountFloat: &h.ZeroCount,
		NegativeSpan: spans(h.NegativeSpans), NegativeCount: h.NegativeBuckets, PositiveSpan: spans(h.PositiveSpans), PositiveCount: h.PositiveBuckets,
	}
}

func spans(in []histogram.Span) []*dto.BucketSpan {
	var out []*dto.BucketSpan
	for _, s := range in {
		out = append(out, &dto.BucketSpan{Offset: new(s.Offset), Length: new(s.Length)})
	}
	return out
}

// classic returns a histogram with custom buckets as one with bounds, the infinite one left to the format.
func classic(h *histogram.FloatHistogram) *dto.Histogram {
	out := &dto.Histogram{SampleCountFloat: &h.Count, SampleSum: &h.Sum}
	counts := make([]float64, len(h.CustomValues)+1)
	for it := h.PositiveBucketIterator(); it.Next(); {
		if b := it.At(); b.Index >= 0 && int(b.Index) < len(counts) {
			counts[b.Index] = b.Count
		}
	}
	sum := 0.
	for i, le := range h.CustomValues {
		sum += counts[i]
		out.Bucket = append(out.Bucket, &dto.Bucket{UpperBound: new(le), CumulativeCountFloat: new(sum)})
	}
	return out
}
