// Package results keeps the answers of range queries, so that the next refresh of a dashboard computes only the steps
// that are new or may have changed.
//
//	c := results.New(results.Options{Bytes: 32 << 20, Metrics: reg})
//	if old := c.Get(key); old != nil { ... }
//	c.Put(key, old.Extend(grid, valid, fresh))
//
// The package knows nothing of the store: which steps of an Entry still hold is for the caller to say.
package results

import (
	"container/list"
	"math"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Key tells queries apart whose answers at one step may differ. Times are in milliseconds.
type Key struct {
	Tenant   telemetry.Tenant
	Expr     string
	Step     int64
	Phase    int64 // of the steps: their times modulo Step
	Lookback int64
}

// Grid is the steps of a query: From, From+Step and so on up to To, which is one of them.
type Grid struct{ From, To, Step int64 }

// Len returns the number of steps.
func (g Grid) Len() int { return int((g.To-g.From)/g.Step) + 1 }

// Entry is the answer of a query. It does not change.
type Entry struct {
	At     storage.Position // of the view that it was computed over, or an earlier one
	Grid   Grid
	series []series // in the order of their labels
	bytes  int
}

type series struct {
	labels labels.Labels
	values []float64 // one a step, absent for none
}

// absent stands for no value; no answer has it, as the engine drops staleness markers.
func absent() float64 { return math.Float64frombits(value.StaleNaN) }

// Extend returns the answer on a grid: the steps up to valid from e, the later ones from fresh. valid is before the
// grid's start when nothing is to be taken from e, which then may be nil; else it is a step of both grids, and e begins
// no later than the grid. Extend returns nil for an answer that cannot be kept: one with native histograms.
func (e *Entry) Extend(at storage.Position, g Grid, valid int64, fresh promql.Matrix) *Entry {
	n := g.Len()
	out := &Entry{At: at, Grid: g}
	index := make(map[uint64]int)
	row := func(ls labels.Labels) []float64 {
		hash := ls.Hash()
		if i, ok := index[hash]; ok {
			if !labels.Equal(out.series[i].labels, ls) {
				return nil
			}
			return out.series[i].values
		}
		values := make([]float64, n)
		none := absent()
		for i := range values {
			values[i] = none
		}
		index[hash] = len(out.series)
		out.series = append(out.series, series{ls.Copy(), values}) // the memory may be the store's
		return values
	}
	if valid >= g.From {
		skip, keep := int((g.From-e.Grid.From)/g.Step), int((valid-g.From)/g.Step)+1
		for i := range e.series {
			kept := e.series[i].values[skip : skip+keep]
			if !slices.ContainsFunc(kept, present) {
				continue
			}
			values := row(e.series[i].labels)
			if values == nil {
				return nil
			}
			copy(values, kept)
		}
	}
	for i := range fresh {
		values := row(fresh[i].Metric)
		if len(fresh[i].Histograms) > 0 || values == nil {
			return nil
		}
		for _, p := range fresh[i].Floats {
			if !present(p.F) {
				return nil
			}
			values[(p.T-g.From)/g.Step] = p.F
		}
	}
	slices.SortFunc(out.series, func(a, b series) int { return labels.Compare(a.labels, b.labels) })
	for i := range out.series {
		out.bytes += 8*n + int(out.series[i].labels.ByteSize()) + perSeries //nolint:gosec // small
	}
	out.bytes += perEntry
	return out
}

// What an entry and each of its series take besides values and labels.
const (
	perEntry  = 256
	perSeries = 64
)

func present(v float64) bool { return v == v || !value.IsStaleNaN(v) }

// Moved returns the same answer as one over a later view, in which nothing of it changed.
func (e *Entry) Moved(at storage.Position) *Entry {
	out := *e
	out.At = at
	return &out
}

// Matrix returns the answer as the engine gives it.
func (e *Entry) Matrix() promql.Matrix {
	out := make(promql.Matrix, 0, len(e.series))
	for i := range e.series {
		points := make([]promql.FPoint, 0, len(e.series[i].values))
		for j, v := range e.series[i].values {
			if present(v) {
				points = append(points, promql.FPoint{T: e.Grid.From + int64(j)*e.Grid.Step, F: v})
			}
		}
		out = append(out, promql.Series{Metric: e.series[i].labels, Floats: points})
	}
	return out
}

// Options are what a cache depends on.
type Options struct {
	Bytes   int                   // that the entries may take together
	Metrics prometheus.Registerer // nil for none
}

// Cache keeps the entries that were used last. It is safe for concurrent use.
type Cache struct {
	limit    int
	requests *prometheus.CounterVec
	evicted  prometheus.Counter

	mu      sync.Mutex // guards what follows
	entries map[Key]*list.Element
	order   list.List // of *item, the one used last in front
	bytes   int
}

type item struct {
	key   Key
	entry *Entry
}

// New returns an empty cache.
func New(o Options) *Cache {
	f := promauto.With(o.Metrics)
	c := &Cache{
		limit: o.Bytes, entries: make(map[Key]*list.Element),
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_promql_cache_requests_total", Help: "Range queries that the cache of results could serve, by how much it did: all steps, some, none.",
		}, []string{"result"}),
		evicted: f.NewCounter(prometheus.CounterOpts{
			Name: "braid_promql_cache_evictions_total", Help: "Results that were dropped to make room for others (setting promql.cache_bytes).",
		}),
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "braid_promql_cache_bytes", Help: "Bytes of results kept.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(c.bytes)
	})
	return c
}

// Get returns an answer, nil when there is none.
func (c *Cache) Get(k Key) *Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.entries[k]
	if el == nil {
		return nil
	}
	c.order.MoveToFront(el)
	return el.Value.(*item).entry
}

// Put keeps an answer in the place of an older one; nil drops that. An answer that would take more than a quarter of the
// cache is not kept.
func (c *Cache) Put(k Key, e *Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.entries[k]; el != nil {
		if e != nil && el.Value.(*item).entry.At > e.At {
			return // a slower query over an older view
		}
		c.remove(el)
	}
	if e == nil || e.bytes+len(k.Expr) > c.limit/4 {
		return
	}
	c.entries[k] = c.order.PushFront(&item{k, e})
	c.bytes += e.bytes + len(k.Expr)
	for c.bytes > c.limit {
		c.remove(c.order.Back())
		c.evicted.Inc()
	}
}

// remove needs mu.
func (c *Cache) remove(el *list.Element) {
	it := c.order.Remove(el).(*item)
	delete(c.entries, it.key)
	c.bytes -= it.entry.bytes + len(it.key.Expr)
}

// Count counts a query of which steps out of all were served.
func (c *Cache) Count(served, all int) {
	switch {
	case served == 0:
		c.requests.WithLabelValues("miss").Inc()
	case served < all:
		c.requests.WithLabelValues("part").Inc()
	default:
		c.requests.WithLabelValues("hit").Inc()
	}
}
