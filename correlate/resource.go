package correlate

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sort"
	"strconv"

	"github.com/prometheus/common/model"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Resources is the answer to a question about a producer of telemetry.
type Resources struct {
	Entities []ResourceEntity `json:"entities"`
	Warnings []string         `json:"warnings,omitempty"`
}

// ResourceEntity is everything that one entity sent in a time.
type ResourceEntity struct {
	Entity
	Resources []Resource `json:"resources"`
	Related   []Entity   `json:"related"` // entities that share a resource with it
	Metrics   Metrics    `json:"metrics"`
	Logs      LogVolume  `json:"logs"`
	Spans     SpanRates  `json:"spans"`
}

// Metrics lists the series of an entity.
type Metrics struct {
	Series int           `json:"series"`
	Names  []MetricCount `json:"names"`
	Key    []Series      `json:"key"` // with points
}

// MetricCount is a metric's name and how many series of it the entity has.
type MetricCount struct {
	Name   string `json:"name"`
	Series int    `json:"series"`
}

// LogVolume sums up the log records of an entity.
type LogVolume struct {
	Records    int64            `json:"records"`
	Bytes      int64            `json:"bytes"` // of the bodies
	BySeverity map[string]int64 `json:"bySeverity"`
	PerMinute  [][2]int64       `json:"perMinute"` // [start of the minute in seconds, records]
}

// SpanRates sums up the spans of an entity. One whose trace was kept at random counts as those it stands for.
type SpanRates struct {
	Count         int64      `json:"count"`
	Errors        int64      `json:"errors"`
	RatePerSecond float64    `json:"ratePerSecond"`
	ErrorRatio    float64    `json:"errorRatio"`
	P50Nanos      int64      `json:"p50Nanos"` // of the durations, exact where all spans were kept
	P99Nanos      int64      `json:"p99Nanos"`
	PerMinute     [][3]int64 `json:"perMinute"` // [start of the minute in seconds, spans, errors]
}

// maxEntities bounds the entities of one answer.
const maxEntities = 20

// Resource answers what is known of the entities called name, of any kind when kind is empty, from start to end
// in nanoseconds. A name that nothing has is NotFound.
func (c *Correlator) Resource(ctx context.Context, tenant telemetry.Tenant, kind telemetry.EntityKind, name string, start, end int64) (*Resources, error) {
	began := c.now()
	defer func() { c.took.WithLabelValues("resource").Observe(c.now().Sub(began).Seconds()) }()
	v, err := c.reader.View(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	es, err := v.Entities(ctx, tenant, telemetry.Query{Start: start, End: end, Kind: kind, Name: name})
	if err != nil {
		return nil, err
	}
	if len(es) == 0 {
		return nil, httpapi.NotFoundf("no %s called %q sent anything in this time", orAny(kind), name)
	}
	if len(es) > maxEntities {
		return nil, httpapi.Errorf(httpapi.QueryLimit, "%d entities are called %q, the limit is %d: give kind, or a longer name such as namespace/pod", len(es), name, maxEntities)
	}
	out := &Resources{}
	for i := range es {
		e, err := c.resource(ctx, v, tenant, &es[i], start, end)
		if err != nil {
			return nil, err
		}
		out.Entities = append(out.Entities, *e)
	}
	out.Warnings = v.Warnings()
	return out, nil
}

func orAny(k telemetry.EntityKind) string {
	if k == "" {
		return "entity"
	}
	return string(k)
}

func (c *Correlator) resource(ctx context.Context, v storage.View, tenant telemetry.Tenant, e *telemetry.Entity, start, end int64) (*ResourceEntity, error) {
	own := speakersOf(e)
	ids := own.ids()
	out := &ResourceEntity{Entity: EntityOf(e), Resources: resourcesOf(e), Related: []Entity{}}
	related, err := v.Entities(ctx, tenant, telemetry.Query{Start: start, End: end, Resources: ids})
	if err != nil {
		return nil, err
	}
	for i := range related {
		if related[i].Key != e.Key {
			out.Related = append(out.Related, EntityOf(&related[i]))
		}
	}
	sets, err := v.LabelSets(ctx, storage.SeriesQuery{Tenant: tenant, Start: start / 1e6, End: end / 1e6, Resources: ids})
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int)
	for _, s := range sets {
		counts[s.Get(model.MetricNameLabel)]++
	}
	out.Metrics = Metrics{Series: len(sets), Names: []MetricCount{}}
	for n, k := range counts {
		out.Metrics.Names = append(out.Metrics.Names, MetricCount{Name: n, Series: k})
	}
	slices.SortFunc(out.Metrics.Names, func(a, b MetricCount) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	if out.Metrics.Key, err = c.keySeries(ctx, v, tenant, ids, start/1e6, end/1e6); err != nil {
		return nil, err
	}
	if out.Logs, err = logVolume(ctx, v, tenant, own, ids, start, end); err != nil {
		return nil, err
	}
	out.Spans, err = spanRates(ctx, v, tenant, own, ids, start, end)
	return out, err
}

const minute = 60 * 1_000_000_000

// minuteOf returns the start of the minute of t, in seconds.
func minuteOf(t int64) int64 {
	m := t / minute
	if t%minute < 0 {
		m--
	}
	return m * 60
}

func logVolume(ctx context.Context, v storage.View, tenant telemetry.Tenant, own speakers, ids storage.ResourceIn, start, end int64) (LogVolume, error) {
	out := LogVolume{BySeverity: map[string]int64{}, PerMinute: [][2]int64{}}
	minutes := make(map[int64]int64)
	q := storage.LogQuery{Tenant: tenant, Start: start, End: end, Where: ids, Columns: storage.LogResource | storage.LogBody | storage.LogSeverity}
	for b, err := range v.Logs(ctx, q) {
		if err != nil {
			return out, err
		}
		for i := range b.Len() {
			if !own.covers(b.ResourceOf(i), b.Time[i]) {
				continue
			}
			out.Records++
			out.Bytes += int64(len(b.Body[i].Text()))
			level := severity(b.Severity[i], "")
			if level == "" {
				level = "UNKNOWN"
			}
			out.BySeverity[level]++
			minutes[minuteOf(b.Time[i])]++
		}
	}
	for m, n := range minutes {
		out.PerMinute = append(out.PerMinute, [2]int64{m, n})
	}
	sort.Slice(out.PerMinute, func(i, j int) bool { return out.PerMinute[i][0] < out.PerMinute[j][0] })
	return out, nil
}

func spanRates(ctx context.Context, v storage.View, tenant telemetry.Tenant, own speakers, ids storage.ResourceIn, start, end int64) (SpanRates, error) {
	out := SpanRates{PerMinute: [][3]int64{}}
	minutes := make(map[int64][2]int64)
	var durations []weighted
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	q := storage.SpanQuery{Tenant: tenant, Start: start, End: end, Where: ids, Columns: storage.SpanResource | storage.SpanMessages}
	for b, err := range v.Spans(ctx, q) {
		if err != nil {
			return out, err
		}
		for i := range b.Len() {
			if !own.covers(b.ResourceOf(i), b.Start[i]) {
				continue
			}
			weight := b.Weight(i)
			out.Count += weight
			m := minutes[minuteOf(b.Start[i])]
			m[0] += weight
			if b.Status[i] == telemetry.StatusError {
				out.Errors += weight
				m[1] += weight
			}
			minutes[minuteOf(b.Start[i])] = m
			durations = append(durations, weighted{b.Duration[i], weight})
			first, last = min(first, b.Start[i]), max(last, b.Start[i])
		}
	}
	if out.Count == 0 {
		return out, nil
	}
	out.RatePerSecond = float64(out.Count) / math.Max(float64(last-first)/1e9, 1)
	out.ErrorRatio = float64(out.Errors) / float64(out.Count)
	slices.SortFunc(durations, func(a, b weighted) int { return cmp.Compare(a.value, b.value) })
	out.P50Nanos, out.P99Nanos = quantile(durations, out.Count, 50), quantile(durations, out.Count, 99)
	for m, n := range minutes {
		out.PerMinute = append(out.PerMinute, [3]int64{m, n[0], n[1]})
	}
	sort.Slice(out.PerMinute, func(i, j int) bool { return out.PerMinute[i][0] < out.PerMinute[j][0] })
	return out, nil
}

// weighted is a value that counts several times.
type weighted struct{ value, weight int64 }

// quantile returns the nearest-rank percentile of sorted values, which count total times altogether.
func quantile(sorted []weighted, total, percent int64) int64 {
	rank := (total*percent + 99) / 100
	for _, x := range sorted {
		if rank -= x.weight; rank <= 0 {
			return x.value
		}
	}
	return sorted[len(sorted)-1].value
}

// parseTime reads seconds (with a fraction), nanoseconds (19 digits) or RFC 3339.
func parseTime(name, s string, def int64) (int64, error) {
	if s == "" {
		return def, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n > 1e15 || n < -1e15 {
			return n, nil
		}
		if n > 1e11 || n < -1e11 {
			return 0, httpapi.BadDataf("%s: %q is neither seconds nor nanoseconds", name, s)
		}
		return n * 1e9, nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(f) < 1e9*9 {
		return int64(f * 1e9), nil
	}
	return parseRFC3339(name, s)
}
