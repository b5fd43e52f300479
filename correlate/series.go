package correlate

import (
	"cmp"
	"context"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Series is one series with some of its points.
type Series struct {
	Metric map[string]string `json:"metric"`
	Name   string            `json:"name"`
	Type   string            `json:"type,omitempty"`
	Unit   string            `json:"unit,omitempty"`
	Topic  string            `json:"topic"` // cpu, memory, latency, errors, traffic, restarts or other
	Query  string            `json:"query"` // PromQL that reproduces it
	Link   string            `json:"link"`
	Points [][2]any          `json:"points"` // [seconds, value as text]; of a native histogram the mean
}

// maxPoints bounds the points of a series; more are thinned out evenly.
const maxPoints = 120

// topics rank what somebody who looks at a slow or failing trace wants to see of its pods first.
func topicOf(name string) (rank int, topic string) {
	has := func(ss ...string) bool {
		return slices.ContainsFunc(ss, func(s string) bool { return strings.Contains(name, s) })
	}
	switch {
	case has("restart"):
		return 3, "restarts"
	case has("cpu"):
		return 0, "cpu"
	case has("memory", "rss", "working_set"):
		return 1, "memory"
	case has("duration", "latency"):
		return 2, "latency"
	case has("error", "fail", "exception"):
		return 4, "errors"
	case has("request", "call", "_total"):
		return 5, "traffic"
	default:
		return 9, "other"
	}
}

// keySeries returns the most telling series that the resources vouch for, from and to in milliseconds: a few of
// each topic, up to correlate.max_series.
func (c *Correlator) keySeries(ctx context.Context, v storage.View, tenant telemetry.Tenant, ids []telemetry.ResourceID, from, to int64) ([]Series, error) {
	out := []Series{}
	sets, err := v.LabelSets(ctx, storage.SeriesQuery{Tenant: tenant, Start: from, End: to, Resources: ids})
	if err != nil {
		return nil, err
	}
	type candidate struct {
		set  telemetry.LabelSet
		name string
		rank int
	}
	var cands []candidate
	perName := make(map[string]int)
	for _, s := range sets {
		name := s.Get(model.MetricNameLabel)
		if name == "target_info" || strings.HasSuffix(name, "_bucket") || strings.HasSuffix(name, "_sum") {
			continue
		}
		rank, _ := topicOf(name)
		if perName[name]++; perName[name] > 3 {
			rank += 20 // many series of one name do not crowd out the others
		}
		cands = append(cands, candidate{set: s, name: name, rank: rank})
	}
	slices.SortStableFunc(cands, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.name, b.name)) })
	if len(cands) > c.cfg.MaxSeries {
		cands = spread(cands, c.cfg.MaxSeries, func(x candidate) int { return x.rank })
	}
	for _, cand := range cands {
		s, err := c.series(ctx, v, tenant, cand.set, from, to)
		if err != nil {
			return nil, err
		}
		if len(s.Points) > 0 {
			out = append(out, s)
		}
	}
	return out, nil
}

// spread takes n items so that each rank gets its share before any gets more, and keeps the order.
func spread[T any](in []T, n int, rank func(T) int) []T {
	taken := make([]bool, len(in))
	for count := 0; count < n; {
		last, any := -1, false
		for i := range in {
			if taken[i] || rank(in[i]) == last || count == n {
				continue
			}
			taken[i], any, last = true, true, rank(in[i])
			count++
		}
		if !any {
			break
		}
	}
	var out []T
	for i := range in {
		if taken[i] {
			out = append(out, in[i])
		}
	}
	return out
}

// series reads the points of one series.
func (c *Correlator) series(ctx context.Context, v storage.View, tenant telemetry.Tenant, set telemetry.LabelSet, from, to int64) (Series, error) {
	name := set.Get(model.MetricNameLabel)
	_, topic := topicOf(name)
	s := Series{Metric: map[string]string{}, Name: name, Topic: topic, Points: [][2]any{}}
	set.Range(func(k, val string) { s.Metric[k] = val })
	for _, suffix := range []string{"", "_count", "_total"} {
		if meta, err := v.Metadata(ctx, tenant, strings.TrimSuffix(name, suffix)); err != nil {
			return s, err
		} else if m := meta[strings.TrimSuffix(name, suffix)]; len(m) > 0 {
			s.Type, s.Unit = m[len(m)-1].Type.String(), m[len(m)-1].Unit
			break
		}
	}
	s.Query = set.Labels().String()
	if base, ok := strings.CutSuffix(name, "_count"); ok && topic == "latency" {
		return c.meanLatency(ctx, v, tenant, set, base, s, from, to)
	}
	if strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_count") || s.Type == "counter" {
		s.Query = "rate(" + s.Query + "[1m])"
	}
	s.Link = rangeLink(s.Query, from, to)
	err := exactly(ctx, v, tenant, set, from, to, func(it chunkenc.Iterator) { points(it, &s) })
	return s, err
}

func rangeLink(query string, from, to int64) string {
	return "/api/v1/query_range?" + encode("query", query, "start", seconds(from), "end", seconds(to), "step", "5")
}

// exactly reads the series with these labels and no others.
func exactly(ctx context.Context, v storage.View, tenant telemetry.Tenant, set telemetry.LabelSet, from, to int64, f func(chunkenc.Iterator)) error {
	var ms []*labels.Matcher
	set.Range(func(name, value string) { ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, name, value)) })
	found := v.Series(ctx, storage.SeriesQuery{Tenant: tenant, Start: from, End: to, Matchers: ms})
	for found.Next() {
		if telemetry.NewLabelSet(found.At().Labels()) == set {
			f(found.At().Iterator(nil))
		}
	}
	return found.Err()
}

// meanLatency turns the _count series of a classic histogram, with its _sum, into the mean between neighbouring
// points: a count alone tells nothing about latency.
func (c *Correlator) meanLatency(ctx context.Context, v storage.View, tenant telemetry.Tenant, count telemetry.LabelSet, base string, s Series, from, to int64) (Series, error) {
	b := labels.NewBuilder(count.Labels())
	b.Set(model.MetricNameLabel, base+"_sum")
	sum := telemetry.NewLabelSet(b.Labels())
	s.Name, s.Metric[model.MetricNameLabel] = base, base
	s.Query = "rate(" + sum.Labels().String() + "[1m]) / rate(" + count.Labels().String() + "[1m])"
	s.Link = rangeLink(s.Query, from, to)
	sums := make(map[int64]float64)
	err := exactly(ctx, v, tenant, sum, from, to, func(it chunkenc.Iterator) {
		for it.Next() == chunkenc.ValFloat {
			t, x := it.At()
			sums[t] = x
		}
	})
	if err != nil {
		return s, err
	}
	var lastSum, lastCount float64
	err = exactly(ctx, v, tenant, count, from, to, func(it chunkenc.Iterator) {
		for it.Next() == chunkenc.ValFloat {
			t, n := it.At()
			x, ok := sums[t]
			if ok && n > lastCount {
				s.Points = append(s.Points, [2]any{float64(t) / 1000, strconv.FormatFloat((x-lastSum)/(n-lastCount), 'g', 6, 64)})
			}
			if ok {
				lastSum, lastCount = x, n
			}
		}
	})
	s.Points = thin(s.Points)
	return s, err
}

func points(it chunkenc.Iterator, s *Series) {
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		switch kind {
		case chunkenc.ValFloat:
			t, x := it.At()
			s.Points = append(s.Points, [2]any{float64(t) / 1000, strconv.FormatFloat(x, 'g', -1, 64)})
		case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
			t, h := it.AtFloatHistogram(nil)
			s.Type = "histogram"
			s.Points = append(s.Points, [2]any{float64(t) / 1000, strconv.FormatFloat(h.Sum/h.Count, 'g', -1, 64)})
		case chunkenc.ValNone:
		}
	}
	s.Points = thin(s.Points)
}

// thin keeps at most maxPoints, evenly spread.
func thin(ps [][2]any) [][2]any {
	n := len(ps)
	if n <= maxPoints {
		return ps
	}
	out := make([][2]any, maxPoints)
	for i := range out {
		out[i] = ps[i*(n-1)/(maxPoints-1)]
	}
	return out
}

func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }

func regexpQuote(s string) string { return regexp.QuoteMeta(s) }

// encode returns pairs of names and values as a URL query.
func encode(pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return q.Encode()
}

// resourceLink is the path of an entity's own answer.
func resourceLink(k telemetry.EntityKey, from, to int64) string {
	return "/api/v1/correlate/resource?" + encode("kind", string(k.Kind), "name", k.ID, "start", strconv.FormatInt(from, 10), "end", strconv.FormatInt(to, 10))
}
