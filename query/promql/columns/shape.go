package columns

import (
	"context"
	"math"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	promstorage "github.com/prometheus/prometheus/storage"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// shape is a sub-expression that is computed on columns, and what came out of it.
type shape struct {
	key      string // equal keys are equal results
	grid     Grid
	f        function
	op       operator
	by       grouping
	matchers []*labels.Matcher
	name     string // that each series has, "" when they may differ
	offset   int64  // how long before a step its window ends
	length   int64  // of the window
	seconds  float64
	hints    promstorage.SelectHints

	done   bool
	groups []group
	// samples is what the engine would count at each step: in all, and those not read at the step before.
	total, read []int64
}

// checkEvery is how many series are read between two looks at the context.
const checkEvery = 256

// compute reads the series and computes the shape, once. The number of values held at once is bounded by maxValues.
func (s *shape) compute(ctx context.Context, src Source, maxValues int) error {
	if s.done {
		return nil
	}
	steps := s.grid.Len()
	c := &computation{
		shape: s, steps: steps, maxValues: maxValues, row: make([]float64, steps), index: make(map[string]int32),
		windows: windows{steps: steps, span: span{
			grid: s.grid, offset: s.offset, length: s.length,
			rate: s.f == rate, secs: s.seconds, extra: s.f.extrapolates(),
		}},
	}
	c.kernel = kernel{f: s.f, span: &c.windows.span}
	s.total, s.read = make([]int64, steps), make([]int64, steps)
	hints := s.hints
	q := storage.SeriesQuery{
		Start: s.grid.Start - s.offset - s.length + 1,
		End:   s.grid.Start + int64(steps-1)*s.grid.Step - s.offset, Matchers: s.matchers, Hints: &hints,
	}
	n := 0
	err := src(ctx, q, func(b *storage.SeriesBlock) error {
		if n++; n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		return c.series(b)
	})
	if err != nil {
		return err
	}
	s.groups = c.finish()
	s.done = true
	return nil
}

// computation is the state of one run over the series.
type computation struct {
	*shape
	steps     int
	maxValues int
	values    int // held
	windows   windows
	kernel    kernel
	row       []float64
	keyBuf    []byte
	index     map[string]int32 // from the labels of a group to its number
	groups    []group
	slab      []float64
	slabAcc   []accumulator
	times     []int64   // of a series without its staleness markers
	kept      []float64 // its values
}

func (c *computation) unfit(reason string) error { return &Unfit{key: c.key, Reason: reason} }

// series computes one series and adds it to its group.
func (c *computation) series(b *storage.SeriesBlock) error {
	if b.Histograms {
		return c.unfit("there are native histograms among the samples")
	}
	times, values := b.Times, b.Values
	if len(times) == 0 {
		return nil
	}
	var w []window
	if c.f != selector && hasStale(values) {
		times, values = c.withoutStale(times, values)
		if len(times) == 0 {
			return nil
		}
		w = c.windows.unshared(times)
		c.count(w, 1)
	} else {
		k := c.windows.of(times, c.retire)
		k.uses++
		w = k.w
	}
	c.kernel.apply(times, values, w, c.row)
	if c.f == selector {
		for i, v := range c.row {
			if v == v || !isAbsent(v) {
				c.total[i]++
				c.read[i]++
			}
		}
	}
	if !anyPresent(c.row) {
		return nil
	}
	key, meta, ok := c.by.appendKey(c.keyBuf[:0], string(b.Labels))
	c.keyBuf = key
	switch {
	case !ok:
		return c.unfit("labels are not canonical")
	case meta && c.f.dropsName():
		return c.unfit("labels hold metadata")
	}
	if c.op == none {
		row, err := c.newRow()
		if err != nil {
			return err
		}
		copy(row, c.row)
		c.groups = append(c.groups, group{labels: telemetry.LabelSet(key), order: b.Labels, row: row})
		return nil
	}
	g, err := c.groupOf(key, b.Labels)
	if err != nil {
		return err
	}
	c.op.add(g.acc, c.row)
	return nil
}

func hasStale(values []float64) bool {
	for _, v := range values {
		if v != v && value.IsStaleNaN(v) {
			return true
		}
	}
	return false
}

func anyPresent(row []float64) bool {
	for _, v := range row {
		if v == v || !isAbsent(v) {
			return true
		}
	}
	return false
}

func (c *computation) withoutStale(times []int64, values []float64) ([]int64, []float64) {
	c.times, c.kept = c.times[:0], c.kept[:0]
	for i, v := range values {
		if !value.IsStaleNaN(v) {
			c.times, c.kept = append(c.times, times[i]), append(c.kept, v)
		}
	}
	return c.times, c.kept
}

// groupOf returns the group with the labels key, which one with the labels member belongs to.
func (c *computation) groupOf(key []byte, member telemetry.LabelSet) (*group, error) {
	if i, ok := c.index[string(key)]; ok {
		g := &c.groups[i]
		if less(member, g.order) {
			g.order = member
		}
		return g, nil
	}
	if err := c.charge(); err != nil {
		return nil, err
	}
	if len(c.slabAcc) < c.steps {
		c.slabAcc = make([]accumulator, slab(c.steps))
	}
	g := group{labels: telemetry.LabelSet(key), order: member, acc: c.slabAcc[:c.steps:c.steps]}
	c.slabAcc = c.slabAcc[c.steps:]
	c.index[string(g.labels)] = int32(len(c.groups))
	c.groups = append(c.groups, g)
	return &c.groups[len(c.groups)-1], nil
}

// slab returns how many values to allocate at once.
func slab(steps int) int { return max(steps, 1<<13/steps*steps) }

func (c *computation) newRow() ([]float64, error) {
	if err := c.charge(); err != nil {
		return nil, err
	}
	if len(c.slab) < c.steps {
		c.slab = make([]float64, slab(c.steps))
	}
	row := c.slab[:c.steps:c.steps]
	c.slab = c.slab[c.steps:]
	return row, nil
}

// charge counts the values of one more row.
func (c *computation) charge() error {
	c.values += c.steps
	if c.maxValues > 0 && c.values > c.maxValues {
		return promql.ErrTooManySamples("query execution")
	}
	return nil
}

// retire counts the samples that were seen through windows.
func (c *computation) retire(k *known) { c.count(k.w, k.uses) }

// count counts the samples of windows for so many series. The selector counts values instead.
func (c *computation) count(w []window, series int64) {
	if c.f == selector {
		return
	}
	before := int32(math.MinInt32)
	for i := range w {
		c.total[i] += series * int64(w[i].hi-w[i].lo)
		c.read[i] += series * int64(w[i].hi-min(max(w[i].lo, before), w[i].hi))
		before = w[i].hi
	}
}

// finish makes rows of what was accumulated.
func (c *computation) finish() []group {
	c.windows.drain(c.retire)
	sortGroups(c.groups)
	if c.op == none {
		return c.groups
	}
	for i := range c.groups {
		g := &c.groups[i]
		g.row = make([]float64, c.steps)
		for j := range g.acc {
			g.row[j] = c.op.value(&g.acc[j])
		}
		g.acc = nil
	}
	return c.groups
}

// looksLikeCounter tells whether the name of a metric ends as those of counters do.
func looksLikeCounter(name string) bool {
	for _, suffix := range []string{"_total", "_sum", "_count", "_bucket"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}
