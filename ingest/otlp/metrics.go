package otlp

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/value"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
)

// metrics translates the metrics of one request.
type metrics struct {
	c         Config
	maxLabels int
	guard     *guard
	req       request
	bs        batches
	namer     otlptranslator.MetricNamer
	labels    otlptranslator.LabelNamer
	units     otlptranslator.UnitNamer
	escape    bool              // names of labels change, so that several may become one
	names     map[string]string // names of labels, translated

	// Of the resource and the scope at hand.
	promoted labelSet
	identity labelSet // job and instance
	scope    labelSet
	batch    int // in bs.list
	series   seriesTable
	latest   pcommon.Timestamp
	points   int // accepted

	pipeline *ingest.Pipeline
	last     *ingest.Labels // of the series before, nil for the first
	hits     int
	misses   int

	attrs, base labelSet           // scratch
	buf         []byte             // scratch
	samples     []telemetry.Sample // memory for those of series with one
}

// seriesTable finds the series of one batch by what makes them one.
type seriesTable map[seriesKey]int

// seriesKey is the fingerprint of the labels of a series, and whether it is a delta or derived.
type seriesKey struct {
	labels ingest.Fingerprint
	flags  byte
}

// family is what the data points of one metric have in common.
type family struct {
	name  string
	meta  *telemetry.Metadata
	delta bool
}

// translateMetrics translates metrics to series. Points with more attributes than the pipeline takes labels are
// rejected at once.
func translateMetrics(md pmetric.Metrics, c Config, p *ingest.Pipeline, now time.Time, g *guard) (request, error) {
	p.Labels().Age(now)
	strategy := otlptranslator.TranslationStrategyOption(c.MetricNames)
	t := metrics{
		c: c, maxLabels: p.Config().MaxLabels, pipeline: p, guard: g, names: make(map[string]string), escape: strategy.ShouldEscape(),
		namer:  otlptranslator.NewMetricNamer("", strategy),
		labels: otlptranslator.LabelNamer{UTF8Allowed: !strategy.ShouldEscape()},
	}
	tables := make(map[int]seriesTable)
	for _, rm := range md.ResourceMetrics().All() {
		n := 0
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				n += pointsOf(m)
			}
		}
		if n == 0 {
			continue
		}
		var err error
		t.batch, err = t.bs.get(rm.Resource(), rm.SchemaUrl())
		if err != nil {
			t.reject(n, reasonDepth, err)
			continue
		}
		if tables[t.batch] == nil {
			tables[t.batch] = make(seriesTable)
		}
		t.series = tables[t.batch]
		if err = t.resource(rm, n); err != nil {
			return request{}, err
		}
	}
	for i := range t.bs.list {
		if b := &t.bs.list[i]; len(b.Resource.Attrs) == 0 && b.Resource.SchemaURL == "" {
			b.Resource = nil // their labels say what they are of
		}
	}
	t.req.batches = t.bs.list
	p.Labels().Count(t.hits, t.misses)
	return t.req, nil
}

// pointsOf returns the number of data points of a metric.
func pointsOf(m pmetric.Metric) int {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return m.Gauge().DataPoints().Len()
	case pmetric.MetricTypeSum:
		return m.Sum().DataPoints().Len()
	case pmetric.MetricTypeHistogram:
		return m.Histogram().DataPoints().Len()
	case pmetric.MetricTypeExponentialHistogram:
		return m.ExponentialHistogram().DataPoints().Len()
	case pmetric.MetricTypeSummary:
		return m.Summary().DataPoints().Len()
	default:
		return 0
	}
}

func (t *metrics) reject(n int, reason string, err error) {
	t.req.rejected.Samples += n
	t.req.refuse(reason, n, "%s", printable(err.Error()))
}

// printable makes text that quotes a sender's bytes fit for an answer.
func printable(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// labelName translates the name of an attribute.
func (t *metrics) labelName(name string) (string, error) {
	if out, ok := t.names[name]; ok {
		return out, nil
	}
	out, err := t.labels.Build(name)
	if err != nil {
		return "", err
	}
	t.names[name] = out
	return out, nil
}

func (t *metrics) resource(rm pmetric.ResourceMetrics, n int) error {
	attrs := rm.Resource().Attributes()
	t.promoted, t.identity = t.promoted[:0], t.identity[:0]
	if name, ok := attrs.Get(serviceName); ok {
		job := name.AsString()
		if ns, ok := attrs.Get("service.namespace"); ok {
			job = ns.AsString() + "/" + job
		}
		t.identity.set("job", job)
	}
	if id, ok := attrs.Get("service.instance.id"); ok {
		t.identity.set("instance", id.AsString())
	}
	for _, name := range t.c.PromoteResourceAttributes {
		v, ok := attrs.Get(name)
		if !ok {
			continue
		}
		out, err := t.labelName(name)
		if err != nil {
			t.reject(n, reasonName, err)
			return nil
		}
		t.promoted.set(out, v.AsString())
	}
	t.latest, t.points = 0, 0
	for _, sm := range rm.ScopeMetrics().All() {
		if err := t.scopeLabels(sm); err != nil {
			n := 0
			for _, m := range sm.Metrics().All() {
				n += pointsOf(m)
			}
			t.reject(n, reasonName, err)
			continue
		}
		for _, m := range sm.Metrics().All() {
			if err := t.metric(m); err != nil {
				return err
			}
		}
	}
	if t.points == 0 {
		return nil
	}
	return t.targetInfo(attrs)
}

// scopeLabels sets the labels of a scope.
func (t *metrics) scopeLabels(sm pmetric.ScopeMetrics) error {
	t.scope = t.scope[:0]
	s := sm.Scope()
	if !t.c.PromoteScopeMetadata || s.Name() == "" {
		return nil
	}
	if s.Attributes().Len() > t.maxLabels {
		return fmt.Errorf("a scope has more than %d attributes (setting ingest.max_labels)", t.maxLabels)
	}
	for k, v := range s.Attributes().All() {
		name, err := t.labelName("otel_scope_" + k)
		if err != nil {
			return err
		}
		if text := v.AsString(); text != "" {
			t.scope.set(name, text)
		}
	}
	t.scope.set("otel_scope_name", s.Name())
	t.scope.set("otel_scope_version", s.Version())
	t.scope.set("otel_scope_schema_url", sm.SchemaUrl())
	return nil
}

// metric translates one metric. Its error stops the request.
func (t *metrics) metric(m pmetric.Metric) error {
	n := pointsOf(m)
	if n == 0 {
		return nil
	}
	typ, temporality, err := typeOf(m)
	if err != nil {
		t.reject(n, reasonTemporal, err)
		return nil
	}
	scraped, err := t.scraped(m, &typ)
	if err != nil {
		t.reject(n, reasonName, err)
		return nil
	}
	if scraped {
		defer func(escape bool) { t.escape = escape }(t.escape)
		t.escape = false
	}
	name := m.Name()
	if !scraped {
		name, err = t.namer.Build(otlptranslator.Metric{Name: m.Name(), Unit: m.Unit(), Type: typ.name})
	}
	if err == nil && name == "" {
		err = errors.New("a metric has no name")
	}
	if err != nil {
		t.reject(n, reasonName, err)
		return nil
	}
	f := family{
		name: name, delta: temporality == pmetric.AggregationTemporalityDelta,
		meta: &telemetry.Metadata{Type: typ.meta, Unit: t.units.Build(m.Unit()), Help: m.Description()},
	}
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return points(t, m.Gauge().DataPoints().All(), f, t.number)
	case pmetric.MetricTypeSum:
		return points(t, m.Sum().DataPoints().All(), f, t.number)
	case pmetric.MetricTypeHistogram:
		if t.c.CustomBuckets || scraped {
			return points(t, m.Histogram().DataPoints().All(), f, t.customBuckets)
		}
		return points(t, m.Histogram().DataPoints().All(), f, t.histogram)
	case pmetric.MetricTypeExponentialHistogram:
		return points(t, m.ExponentialHistogram().DataPoints().All(), f, t.exponential)
	case pmetric.MetricTypeSummary:
		return points(t, m.Summary().DataPoints().All(), f, t.summary)
	default:
		return nil
	}
}

// scraped says whether a metric has Prometheus's names already, and puts its type right.
func (t *metrics) scraped(m pmetric.Metric, typ *metricType) (bool, error) {
	if m.Metadata().Len() == 0 {
		return false, nil
	}
	v, ok := m.Metadata().Get(PrometheusType)
	if !ok {
		return false, nil
	}
	var err error
	if typ.meta, err = telemetry.ParseMetricType(v.AsString()); err != nil {
		return false, err
	}
	return true, nil
}

// metricType is the type of a metric as names and as metadata have it.
type metricType struct {
	name otlptranslator.MetricType
	meta telemetry.MetricType
}

func typeOf(m pmetric.Metric) (metricType, pmetric.AggregationTemporality, error) {
	temporality := pmetric.AggregationTemporalityCumulative
	var out metricType
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		out = metricType{otlptranslator.MetricTypeGauge, telemetry.MetricGauge}
	case pmetric.MetricTypeSum:
		out = metricType{otlptranslator.MetricTypeNonMonotonicCounter, telemetry.MetricGauge}
		if m.Sum().IsMonotonic() {
			out = metricType{otlptranslator.MetricTypeMonotonicCounter, telemetry.MetricCounter}
		}
		temporality = m.Sum().AggregationTemporality()
	case pmetric.MetricTypeHistogram:
		out = metricType{otlptranslator.MetricTypeHistogram, telemetry.MetricHistogram}
		temporality = m.Histogram().AggregationTemporality()
	case pmetric.MetricTypeExponentialHistogram:
		out = metricType{otlptranslator.MetricTypeExponentialHistogram, telemetry.MetricHistogram}
		temporality = m.ExponentialHistogram().AggregationTemporality()
	case pmetric.MetricTypeSummary:
		out = metricType{otlptranslator.MetricTypeSummary, telemetry.MetricSummary}
	case pmetric.MetricTypeEmpty:
	}
	if temporality != pmetric.AggregationTemporalityCumulative && temporality != pmetric.AggregationTemporalityDelta {
		return out, temporality, errors.New("a metric has neither cumulative nor delta temporality")
	}
	return out, temporality, nil
}

// point is what all kinds of data points have.
type point interface {
	Attributes() pcommon.Map
	Timestamp() pcommon.Timestamp
	StartTimestamp() pcommon.Timestamp
}

// points translates the data points of one metric. A point that cannot be translated is rejected; the error stops
// the request.
func points[P point](t *metrics, all func(func(int, P) bool), f family, convert func(P, family) error) error {
	for _, p := range all {
		t.latest = max(t.latest, p.Timestamp())
		t.req.timeless = t.req.timeless || p.Timestamp() == 0
		err := t.baseLabels(p.Attributes())
		if err == nil {
			err = convert(p, f)
		}
		switch {
		case err == nil:
			t.points++
		case errors.As(err, new(*histogramError)):
			t.reject(1, reasonHistogram, err)
		case errors.As(err, new(*httpapi.Error)):
			return err
		case errors.Is(err, errAttributes):
			t.reject(1, reasonLabels, fmt.Errorf("there are more than %d labels (setting ingest.max_labels)", t.maxLabels))
		default:
			t.reject(1, reasonName, err)
		}
	}
	return nil
}

var errAttributes = errors.New("too many attributes")

// baseLabels makes the labels that all series of a data point have, in t.base.
func (t *metrics) baseLabels(attrs pcommon.Map) error {
	if attrs.Len() > t.maxLabels {
		return errAttributes
	}
	if err := t.own(attrs, nil); err != nil {
		return err
	}
	for _, l := range t.promoted {
		if t.base.get(l.name) == "" {
			t.base.set(l.name, l.value)
		}
	}
	for _, l := range t.identity {
		if l.value != "" {
			t.base.set(l.name, l.value)
		}
	}
	for _, l := range t.scope {
		t.base.set(l.name, l.value)
	}
	t.base.sort()
	return nil
}

// own makes labels of attributes, in t.base. The values of several that become one label are joined.
func (t *metrics) own(attrs pcommon.Map, ignore []string) error {
	t.attrs, t.base = t.attrs[:0], t.base[:0]
	for k, v := range attrs.All() {
		if k != "__name__" && !slices.Contains(ignore, k) {
			t.attrs = append(t.attrs, label{k, v.AsString()})
		}
	}
	slices.SortStableFunc(t.attrs, func(a, b label) int { return strings.Compare(a.name, b.name) })
	for _, l := range t.attrs {
		name := l.name
		if name == "" {
			return errors.New("an attribute of a data point has no name")
		}
		if !t.escape {
			t.base.set(name, l.value)
			continue
		}
		name, err := t.labelName(name)
		if err != nil {
			return err
		}
		if has := t.base.get(name); has != "" {
			l.value = has + ";" + l.value
		}
		t.base.set(name, l.value)
	}
	return nil
}

// get returns the series with the base labels, the name and one more label unless its name is empty. It is valid
// until the next call.
func (t *metrics) get(f family, name string, derived bool, extra label) (*telemetry.Series, error) {
	t.buf = t.base.appendWith(t.buf[:0], label{"__name__", name}, extra)
	key := seriesKey{labels: t.pipeline.Labels().Sum(t.buf)}
	if f.delta {
		key.flags |= 1
	}
	if derived {
		key.flags |= 2
	}
	b := &t.bs.list[t.batch]
	i, ok := t.series[key]
	if !ok {
		if err := t.guard.add(len(t.buf) + 250); err != nil {
			return nil, err
		}
		i = len(b.Series)
		t.series[key] = i
		s := telemetry.Series{Metadata: f.meta, Delta: f.delta, Derived: derived, Samples: t.one()}
		t.name(&s, key.labels)
		b.Series = append(b.Series, s)
	}
	return &b.Series[i], nil
}

// name gives a series its labels, which are in t.buf: those of an earlier request, if they are known.
func (t *metrics) name(s *telemetry.Series, f ingest.Fingerprint) {
	known, ok := t.pipeline.Labels().Lookup(f, t.last)
	if ok {
		t.hits++
	} else {
		t.misses++
		ls := telemetry.LabelSet(t.buf)
		if reason, _ := t.pipeline.CheckLabels(ls); reason != "" {
			s.Labels = ls // the pipeline refuses them, with all others of the data point
			return
		}
		known = t.pipeline.Labels().Intern(f, ls)
	}
	t.last = known
	s.Labels, s.Known = known.Labels, &known.Interned
}

// one returns memory for one sample.
func (t *metrics) one() []telemetry.Sample {
	if len(t.samples) == 0 {
		t.samples = make([]telemetry.Sample, 256)
	}
	out := t.samples[:0:1]
	t.samples = t.samples[1:]
	return out
}

// add appends one float sample and returns its series.
func (t *metrics) add(f family, name string, derived bool, extra label, p point, v float64, stale bool) (*telemetry.Series, error) {
	s, err := t.get(f, name, derived, extra)
	if err != nil {
		return nil, err
	}
	if stale {
		v = math.Float64frombits(value.StaleNaN)
	}
	at, start := times(p)
	s.Samples = append(s.Samples, telemetry.Sample{T: at, ST: start, V: v})
	return s, nil
}

// times returns the time of a point and its start; a start after the time is none.
func times(p point) (at, start int64) {
	at, start = millis(p.Timestamp()), millis(p.StartTimestamp())
	if start > at {
		start = 0
	}
	return at, start
}

func (t *metrics) number(p pmetric.NumberDataPoint, f family) error {
	v := p.DoubleValue()
	if p.ValueType() == pmetric.NumberDataPointValueTypeInt {
		v = float64(p.IntValue())
	}
	s, err := t.add(f, f.name, false, label{}, p, v, p.Flags().NoRecordedValue())
	if err != nil {
		return err
	}
	s.Exemplars = append(s.Exemplars, t.exemplars(p.Exemplars())...)
	return nil
}

func (t *metrics) histogram(p pmetric.HistogramDataPoint, f family) error {
	stale := p.Flags().NoRecordedValue()
	if p.HasSum() {
		if _, err := t.add(f, f.name+"_sum", true, label{}, p, p.Sum(), stale); err != nil {
			return err
		}
	}
	if _, err := t.add(f, f.name+"_count", false, label{}, p, float64(p.Count()), stale); err != nil {
		return err
	}
	exemplars := t.exemplars(p.Exemplars())
	slices.SortStableFunc(exemplars, func(a, b exemplar.Exemplar) int {
		switch {
		case a.Value < b.Value:
			return -1
		case a.Value > b.Value:
			return 1
		default:
			return 0
		}
	})
	bounds, counts := p.ExplicitBounds(), p.BucketCounts()
	var sum uint64
	for i := 0; i < bounds.Len() && i < counts.Len(); i++ {
		sum += counts.At(i)
		le := strconv.FormatFloat(bounds.At(i), 'f', -1, 64)
		s, err := t.add(f, f.name+"_bucket", true, label{"le", le}, p, float64(sum), stale)
		if err != nil {
			return err
		}
		for len(exemplars) > 0 && exemplars[0].Value <= bounds.At(i) {
			s.Exemplars = append(s.Exemplars, exemplars[0])
			exemplars = exemplars[1:]
		}
	}
	s, err := t.add(f, f.name+"_bucket", true, label{"le", "+Inf"}, p, float64(p.Count()), stale)
	if err != nil {
		return err
	}
	s.Exemplars = append(s.Exemplars, exemplars...)
	return nil
}

func (t *metrics) summary(p pmetric.SummaryDataPoint, f family) error {
	stale := p.Flags().NoRecordedValue()
	if _, err := t.add(f, f.name+"_sum", true, label{}, p, p.Sum(), stale); err != nil {
		return err
	}
	if _, err := t.add(f, f.name+"_count", false, label{}, p, float64(p.Count()), stale); err != nil {
		return err
	}
	for _, q := range p.QuantileValues().All() {
		quantile := strconv.FormatFloat(q.Quantile(), 'f', -1, 64)
		if _, err := t.add(f, f.name, true, label{"quantile", quantile}, p, q.Value(), stale); err != nil {
			return err
		}
	}
	return nil
}

// targetInfo adds the series target_info of a resource, unless that would say nothing or the resource does not say
// which target it is.
func (t *metrics) targetInfo(attrs pcommon.Map) error {
	if len(t.identity) == 0 || attrs.Len() > 4*t.maxLabels {
		return nil
	}
	identifying := []string{"service.namespace", serviceName, "service.instance.id"}
	rest := attrs.Len()
	for _, name := range identifying {
		if _, ok := attrs.Get(name); ok {
			rest--
		}
	}
	if rest == 0 {
		return nil
	}
	if err := t.own(attrs, identifying); err != nil {
		t.req.rejected.Reason("target_info is missing: %s", printable(err.Error()))
		return nil
	}
	for _, l := range t.identity {
		if l.value != "" {
			t.base.set(l.name, l.value)
		}
	}
	if t.base.get("job") == "" && t.base.get("instance") == "" {
		return nil
	}
	t.base.sort()
	f := family{name: "target_info", meta: &telemetry.Metadata{Type: telemetry.MetricGauge, Help: "Target metadata"}}
	s, err := t.get(f, f.name, true, label{})
	if err != nil {
		return err
	}
	s.Samples = append(s.Samples, telemetry.Sample{T: millis(t.latest), V: 1})
	return nil
}
