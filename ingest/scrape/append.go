package scrape

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	promstorage "github.com/prometheus/prometheus/storage"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// sink is a promstorage.AppendableV2 that writes to a pipeline.
type sink struct {
	pipeline *ingest.Pipeline
	tenant   telemetry.Tenant
	lost     prometheus.Counter
}

func newSink(d Deps) *sink {
	return &sink{pipeline: d.Pipeline, tenant: d.Tenant, lost: promauto.With(d.Metrics).NewCounter(prometheus.CounterOpts{
		Name: "braid_scrape_samples_lost_total", Help: "Samples that were scraped and could not be stored.",
	})}
}

// AppenderV2 implements promstorage.AppendableV2.
func (s *sink) AppenderV2(ctx context.Context) promstorage.AppenderV2 {
	return &appender{ctx: ctx, sink: s}
}

// appender collects the samples of one scrape.
type appender struct {
	ctx    context.Context //nolint:containedctx // Commit has none
	sink   *sink
	series []telemetry.Series
	known  map[telemetry.LabelSet]int                // where a series is in series
	family map[metadata.Metadata]*telemetry.Metadata // so that the series of a family share theirs
}

// Append implements promstorage.AppenderV2. The reference only tells the scraper that the series is known.
func (a *appender) Append(
	ref promstorage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o promstorage.AppendV2Options,
) (promstorage.SeriesRef, error) {
	if ref == 0 {
		ref = promstorage.SeriesRef(ls.Hash() | 1)
	}
	if a.known == nil {
		a.known, a.family = make(map[telemetry.LabelSet]int), make(map[metadata.Metadata]*telemetry.Metadata)
	}
	key := telemetry.NewLabelSet(ls)
	i, ok := a.known[key]
	if !ok {
		i = len(a.series)
		a.known[key] = i
		a.series = append(a.series, telemetry.Series{Labels: key, Metadata: a.metadata(o.Metadata)})
	}
	se := &a.series[i]
	switch {
	case fh != nil:
		se.Histograms = append(se.Histograms, telemetry.HistogramSample{T: t, ST: st, FH: fh.Copy()})
	case h != nil:
		se.Histograms = append(se.Histograms, telemetry.HistogramSample{T: t, ST: st, H: h.Copy()})
	default:
		se.Samples = append(se.Samples, telemetry.Sample{T: t, ST: st, V: v})
	}
	for _, e := range o.Exemplars {
		if !e.HasTs {
			e.Ts, e.HasTs = t, true
		}
		se.Exemplars = append(se.Exemplars, exemplar.Exemplar{Labels: e.Labels.Copy(), Value: e.Value, Ts: e.Ts, HasTs: true})
	}
	return ref, nil
}

// metadata returns the metadata of a family, nil for none.
func (a *appender) metadata(md metadata.Metadata) *telemetry.Metadata {
	if md == (metadata.Metadata{}) {
		return nil
	}
	known := a.family[md]
	if known == nil {
		m := metadataOf(md.Type, md.Unit, md.Help)
		known = &m
		a.family[md] = known
	}
	return known
}

func metadataOf(t model.MetricType, unit, help string) telemetry.Metadata {
	kind, err := telemetry.ParseMetricType(string(t))
	if err != nil {
		kind = telemetry.MetricUnknown
	}
	return telemetry.Metadata{Type: kind, Unit: unit, Help: help}
}

// Commit implements promstorage.AppenderTransaction: it returns once the scrape is stored.
func (a *appender) Commit() error {
	series := a.series
	a.reset()
	if len(series) == 0 {
		return nil
	}
	n := 0
	for i := range series {
		n += len(series[i].Samples) + len(series[i].Histograms)
	}
	rejected, err := a.sink.pipeline.Write(a.ctx, a.sink.tenant, storage.Key{}, []telemetry.Batch{{Series: series}}, storage.Rejected{})
	if err != nil {
		a.sink.lost.Add(float64(n))
		return fmt.Errorf("store a scrape: %w", err)
	}
	if rejected.Total() > 0 {
		return fmt.Errorf("%d samples of a scrape were not stored: %w", rejected.Total(), errors.Join(reasons(rejected)...))
	}
	return nil
}

func reasons(r storage.Rejected) []error {
	var out []error
	for _, text := range slices.Compact(slices.Sorted(slices.Values(r.Reasons))) {
		out = append(out, errors.New(text))
	}
	return out
}

// Rollback implements promstorage.AppenderTransaction.
func (a *appender) Rollback() error {
	a.reset()
	return nil
}

func (a *appender) reset() { a.series, a.known, a.family = nil, nil, nil }
