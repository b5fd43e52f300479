package prometheus

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

const (
	// maxTop bounds the lists of the cardinality explorer, as Prometheus does.
	maxTop = 10_000
	// explored is the range of the explorer when none is given, about that of the head of Prometheus.
	explored = 2 * time.Hour
)

// count is a name and how much there is of it.
type count struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// cardinality is what the series of a selection consist of, in the shape of Prometheus's status/tsdb.
type cardinality struct {
	HeadStats struct {
		NumSeries     uint64 `json:"numSeries"`
		NumLabelPairs int    `json:"numLabelPairs"`
		ChunkCount    int64  `json:"chunkCount"`
		MinTime       int64  `json:"minTime"`
		MaxTime       int64  `json:"maxTime"`
	} `json:"headStats"`
	SeriesCountByMetricName     []count `json:"seriesCountByMetricName"`
	LabelValueCountByLabelName  []count `json:"labelValueCountByLabelName"`
	MemoryInBytesByLabelName    []count `json:"memoryInBytesByLabelName"`
	SeriesCountByLabelValuePair []count `json:"seriesCountByLabelValuePair"`
	SeriesCountByLabelName      []count `json:"seriesCountByLabelName"`
	SeriesCountByFocusLabel     []count `json:"seriesCountByFocusLabelValue,omitempty"`
}

// explore answers what the series of a tenant consist of: which metrics and labels have the most.
func (a *API) explore(r *http.Request) (result, error) {
	top := 10
	if s := r.FormValue("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return result{}, httpapi.BadDataf("limit must be a positive number")
		}
		if n > maxTop {
			return result{}, httpapi.BadDataf("limit must not exceed %d", maxTop)
		}
		top = n
	}
	now := a.Now()
	end, err := timeParam(r, "end", now)
	if err != nil {
		return result{}, err
	}
	start, err := timeParam(r, "start", end.Add(-explored))
	if err != nil {
		return result{}, err
	}
	if end.Before(start) {
		return result{}, invalid("end", errEndBeforeStart())
	}
	sets, err := a.parseMatchers(r)
	if err != nil {
		return result{}, invalidMatch(err)
	}
	if metric := r.FormValue("metric"); metric != "" {
		m := labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, metric)
		if len(sets) == 0 {
			sets = [][]*labels.Matcher{nil}
		}
		for i := range sets {
			sets[i] = append(sets[i], m)
		}
	}
	s := selection{
		SeriesQuery: storage.SeriesQuery{Tenant: httpapi.TenantFrom(r.Context()), Start: timestamp.FromTime(start), End: timestamp.FromTime(end)},
		matchers:    sets,
	}
	return a.read(r, func(ctx context.Context, v storage.View) (result, error) {
		found := make(map[telemetry.LabelSet]struct{})
		err := s.each(func(q storage.SeriesQuery) error {
			sets, err := v.LabelSets(ctx, q)
			for _, ls := range sets {
				found[ls] = struct{}{}
			}
			return err
		})
		if err != nil {
			return result{}, err
		}
		c := measure(found, top, r.FormValue("label"))
		c.HeadStats.MinTime, c.HeadStats.MaxTime = s.Start, s.End
		return jsonResult(c)
	})
}

// measure counts what series consist of, and keeps the largest of each kind.
func measure(found map[telemetry.LabelSet]struct{}, top int, focus string) *cardinality {
	pairs := make(map[string]map[string]uint64) // series by name and value of a label
	for ls := range found {
		ls.Range(func(name, value string) {
			m := pairs[name]
			if m == nil {
				m = make(map[string]uint64)
				pairs[name] = m
			}
			m[value]++
		})
	}
	c := &cardinality{}
	c.HeadStats.NumSeries = uint64(len(found))
	values, memory, byName, byPair := largest{n: top}, largest{n: top}, largest{n: top}, largest{n: top}
	for name, m := range pairs {
		c.HeadStats.NumLabelPairs += len(m)
		var bytes, series uint64
		for value, n := range m {
			bytes += labels.SizeOfLabels(name, value, n)
			series += n
			byPair.add(count{name + "=" + value, n})
		}
		values.add(count{name, uint64(len(m))})
		memory.add(count{name, bytes})
		byName.add(count{name, series})
	}
	of := func(name string) []count {
		l := largest{n: top}
		for value, n := range pairs[name] {
			l.add(count{value, n})
		}
		return l.list()
	}
	c.SeriesCountByMetricName = of(model.MetricNameLabel)
	c.LabelValueCountByLabelName, c.MemoryInBytesByLabelName = values.list(), memory.list()
	c.SeriesCountByLabelName, c.SeriesCountByLabelValuePair = byName.list(), byPair.list()
	if focus != "" {
		c.SeriesCountByFocusLabel = of(focus)
	}
	return c
}

// largest keeps the n largest counts.
type largest struct {
	n   int
	all []count
}

func (l *largest) add(c count) {
	l.all = append(l.all, c)
	if len(l.all) >= 2*l.n+1000 { // now and then, so that it stays small
		l.cut()
	}
}

func (l *largest) cut() {
	slices.SortFunc(l.all, func(a, b count) int { return cmp.Or(cmp.Compare(b.Value, a.Value), cmp.Compare(a.Name, b.Name)) })
	l.all = l.all[:min(len(l.all), l.n)]
}

// list returns the counts, the largest first, those that are equal in the order of their names.
func (l *largest) list() []count {
	l.cut()
	if l.all == nil {
		return []count{}
	}
	return l.all
}
