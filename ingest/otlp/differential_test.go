package otlp_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/storage"
)

// sampleOf is one sample in a form that compares.
type sampleOf struct {
	T, ST int64
	Bits  uint64
	Hist  string
}

// seriesOf is one series in a form that compares.
type seriesOf struct {
	Samples   []sampleOf
	Exemplars []string
	Type      string
	Unit      string
	Help      string
}

func histogramText(h *histogram.Histogram) string {
	if value.IsStaleNaN(h.Sum) {
		return "stale"
	}
	return h.Copy().Compact(0).String() + fmt.Sprint(" schema ", h.Schema, " zero ", h.ZeroThreshold, h.CustomValues)
}

func exemplarText(e exemplar.Exemplar) string {
	return fmt.Sprint(e.Labels.String(), " ", e.Value, " ", e.Ts, " ", e.HasTs)
}

// appender collects what Prometheus makes of a request.
type appender struct{ series map[string]*seriesOf }

func (a *appender) Append(
	_ promstorage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, _ *histogram.FloatHistogram, o promstorage.AOptions,
) (promstorage.SeriesRef, error) {
	s := a.series[ls.String()]
	if s == nil {
		s = &seriesOf{Type: string(o.Metadata.Type), Unit: o.Metadata.Unit, Help: o.Metadata.Help}
		a.series[ls.String()] = s
	}
	p := sampleOf{T: t, ST: st, Bits: math.Float64bits(v)}
	if h != nil {
		p = sampleOf{T: t, ST: st, Hist: histogramText(h)}
	}
	s.Samples = append(s.Samples, p)
	for _, e := range o.Exemplars {
		s.Exemplars = append(s.Exemplars, exemplarText(e))
	}
	return 0, nil
}
func (a *appender) Commit() error   { return nil }
func (a *appender) Rollback() error { return nil }

// ours returns what was written in the same form.
func ours(t *testing.T, reqs []storage.Request) map[string]*seriesOf {
	t.Helper()
	out := make(map[string]*seriesOf)
	for _, r := range reqs {
		roundTrip(t, r.Batches)
		for _, b := range r.Batches {
			for _, s := range b.Series {
				require.NoError(t, s.Labels.Check())
				k := s.Labels.Labels().String()
				if out[k] == nil {
					out[k] = &seriesOf{Type: s.Metadata.Type.String(), Unit: s.Metadata.Unit, Help: s.Metadata.Help}
				}
				for _, p := range s.Samples {
					out[k].Samples = append(out[k].Samples, sampleOf{T: p.T, ST: p.ST, Bits: math.Float64bits(p.V)})
				}
				for _, p := range s.Histograms {
					out[k].Samples = append(out[k].Samples, sampleOf{T: p.T, ST: p.ST, Hist: histogramText(p.H)})
				}
				for _, e := range s.Exemplars {
					out[k].Exemplars = append(out[k].Exemplars, exemplarText(e))
				}
			}
		}
	}
	return out
}

// randomMetrics returns cumulative metrics of all types.
func randomMetrics(r *rand.Rand) pmetric.Metrics {
	pick := func(xs ...string) string { return xs[r.IntN(len(xs))] }
	attrs := func(m pcommon.Map, n int) {
		for range r.IntN(n + 1) {
			k := pick("http.method", "http_method", "le.x", "0digit", "a-b", "a.b", "job", "instance", "k8s.pod.name", "host", "_x", "__name__", "münchen")
			switch r.IntN(7) {
			case 0:
				m.PutInt(k, r.Int64N(100))
			case 1:
				m.PutDouble(k, r.Float64())
			case 2:
				m.PutBool(k, true)
			case 3:
				m.PutEmptySlice(k).AppendEmpty().SetStr("x")
			case 4:
				m.PutStr(k, "")
			default:
				m.PutStr(k, pick("GET", "POST", "a b", "ü", `"q"`))
			}
		}
	}
	exemplars := func(es pmetric.ExemplarSlice) {
		var vs []float64
		for range r.IntN(4) {
			vs = append(vs, math.Floor(r.Float64()*20))
		}
		slices.Sort(vs)
		for _, v := range vs {
			e := es.AppendEmpty()
			e.SetTimestamp(stamp(time.Duration(r.IntN(100)) * time.Second))
			e.SetDoubleValue(v)
			if r.IntN(2) == 0 {
				e.SetTraceID(traceID)
				e.SetSpanID(spanID)
			}
			e.FilteredAttributes().PutStr("user", pick("u1", "u2", string(make([]byte, 200))))
		}
	}
	type point interface {
		SetTimestamp(pcommon.Timestamp)
		SetStartTimestamp(pcommon.Timestamp)
		SetFlags(pmetric.DataPointFlags)
		Attributes() pcommon.Map
	}
	common := func(p point) {
		p.SetTimestamp(stamp(time.Duration(r.IntN(1000)) * time.Millisecond))
		if r.IntN(2) == 0 {
			p.SetStartTimestamp(stamp(time.Hour))
		}
		if r.IntN(8) == 0 {
			p.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
		}
		attrs(p.Attributes(), 4)
	}
	md := pmetric.NewMetrics()
	for range 1 + r.IntN(2) {
		rm := md.ResourceMetrics().AppendEmpty()
		for _, k := range []string{"service.name", "service.namespace", "service.instance.id", "k8s.pod.name", "host.name", "k8s.namespace.name"} {
			if r.IntN(2) == 0 {
				rm.Resource().Attributes().PutStr(k, pick("x", "y", "z"))
			}
		}
		for range 1 + r.IntN(2) {
			sm := rm.ScopeMetrics().AppendEmpty()
			sm.SetSchemaUrl(pick("", "https://example.org"))
			sm.Scope().SetName(pick("", "lib"))
			sm.Scope().SetVersion(pick("", "1"))
			sm.Scope().Attributes().PutStr("lang", pick("", "go"))
			for range 1 + r.IntN(3) {
				m := sm.Metrics().AppendEmpty()
				m.SetName(pick("http.requests", "http_requests_total", "queue.size", "9lives", "a b", "latency", "x:y") + strconv.Itoa(md.MetricCount()))
				m.SetUnit(pick("", "1", "s", "By", "ms", "By/s", "{request}", "m/h", "%"))
				m.SetDescription(pick("", "What it is."))
				n := 1 + r.IntN(3)
				switch r.IntN(5) {
				case 0:
					dps := m.SetEmptyGauge().DataPoints()
					for range n {
						p := dps.AppendEmpty()
						common(p)
						p.SetIntValue(r.Int64N(1000))
					}
				case 1:
					s := m.SetEmptySum()
					s.SetIsMonotonic(r.IntN(2) == 0)
					s.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
					for range n {
						p := s.DataPoints().AppendEmpty()
						common(p)
						p.SetDoubleValue(r.Float64())
						exemplars(p.Exemplars())
					}
				case 2:
					h := m.SetEmptyHistogram()
					h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
					for range n {
						p := h.DataPoints().AppendEmpty()
						common(p)
						p.ExplicitBounds().FromRaw([]float64{0.5, 1, 2.5, 10, 12, 1e6})
						var sum uint64
						for range 7 {
							c := r.Uint64N(3) * r.Uint64N(3)
							sum += c
							p.BucketCounts().Append(c)
						}
						p.SetCount(sum)
						if sum > 0 && r.IntN(2) == 0 {
							p.SetSum(r.Float64() * 100)
						}
						exemplars(p.Exemplars())
					}
				case 3:
					h := m.SetEmptyExponentialHistogram()
					h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
					for range n {
						p := h.DataPoints().AppendEmpty()
						common(p)
						p.SetScale(int32(r.IntN(20)) - 4)
						p.SetZeroCount(r.Uint64N(5))
						sum := p.ZeroCount()
						for _, b := range []pmetric.ExponentialHistogramDataPointBuckets{p.Positive(), p.Negative()} {
							b.SetOffset(int32(r.IntN(2000)) - 1000)
							for range r.IntN(40) {
								c := r.Uint64N(3) * r.Uint64N(2) * r.Uint64N(2)
								if p.Scale() > 8 {
									c++ // Prometheus moves a bucket that follows an empty one when it merges buckets
								}
								sum += c
								b.BucketCounts().Append(c)
							}
						}
						p.SetCount(sum)
						p.SetSum(r.Float64())
						exemplars(p.Exemplars())
					}
				default:
					dps := m.SetEmptySummary().DataPoints()
					for range n {
						p := dps.AppendEmpty()
						common(p)
						p.SetCount(r.Uint64N(100))
						p.SetSum(r.Float64())
						for _, q := range []float64{0, 0.5, 0.99, 1} {
							v := p.QuantileValues().AppendEmpty()
							v.SetQuantile(q)
							v.SetValue(r.Float64())
						}
					}
				}
			}
		}
	}
	return md
}

// TestPrometheus translates random cumulative metrics with Prometheus's own translator and with ours.
func TestPrometheus(t *testing.T) {
	strategies := []otlptranslator.TranslationStrategyOption{
		otlptranslator.UnderscoreEscapingWithSuffixes, otlptranslator.UnderscoreEscapingWithoutSuffixes,
		otlptranslator.NoUTF8EscapingWithSuffixes, otlptranslator.NoTranslation,
	}
	total := 0
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		strategy := strategies[seed%4]
		nhcb, scope := seed%3 == 0, seed%5 == 0
		promote := []string{"k8s.pod.name", "host.name", "service.name"}
		md := randomMetrics(r)
		rig := newRecorder(t, func(_ *ingest.Config, c *otlp.Config) {
			c.MetricNames, c.CustomBuckets, c.PromoteScopeMetadata = string(strategy), nhcb, scope
			c.PromoteResourceAttributes = promote
		})
		resp := rig.send(t, storage.Metrics, must(pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()))
		require.Empty(t, resp, "seed %d", seed)

		app := &appender{series: make(map[string]*seriesOf)}
		_, err := prometheusremotewrite.NewPrometheusConverter(app).FromMetrics(context.Background(), md, prometheusremotewrite.Settings{
			AddMetricSuffixes: strategy.ShouldAddSuffixes(), AllowUTF8: !strategy.ShouldEscape(),
			PromoteResourceAttributes: prometheusremotewrite.NewPromoteResourceAttributes(config.OTLPConfig{PromoteResourceAttributes: promote}),
			ConvertHistogramsToNHCB:   nhcb, PromoteScopeMetadata: scope, LookbackDelta: time.Hour,
		})
		require.NoError(t, err, "seed %d", seed)
		want, got := app.series, ours(t, rig.writer.written())
		for k, s := range want {
			g := got[k]
			require.NotNil(t, g, "seed %d: %s is missing", seed, k)
			if s.Help == "Target metadata" { // Prometheus adds samples between the first point and the last
				s.Samples, g.Samples = s.Samples[len(s.Samples)-1:], g.Samples[len(g.Samples)-1:]
			}
			require.Equal(t, s, g, "seed %d: %s", seed, k)
			total++
		}
		require.Len(t, got, len(want), "seed %d", seed)
	}
	t.Logf("%d series are equal", total)
}
