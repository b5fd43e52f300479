package spanmetrics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// The limits of one selector.
const (
	maxGroups = 100_000
	maxCells  = 8 << 20 // eight bytes each
	maxDims   = 8
	maxSteps  = 1 << 20

	recentBits = 11 // of the groups that were looked up last
)

// key is the values of the labels of a group, as numbers of texts.
type key [maxDims]uint32

// group is what is counted of one combination of labels.
type group struct {
	labels labels.Labels // without name and le
	keep   bool          // whether it is asked for
	cells  []int64       // by step, then by bucket
	marks  []mark        // in place of cells, when exemplars are wanted
}

// texts numbers texts; 0 is the empty one.
type texts struct {
	list []string
	ids  map[string]uint32
}

func (t *texts) id(s string) uint32 {
	id, ok := t.ids[s]
	if !ok {
		id = uint32(len(t.list))
		t.ids[s] = id
		t.list = append(t.list, s)
	}
	return id
}

// dim is a label of groups, filled from the first of some keys that a span has a value of.
type dim struct {
	label string
	keys  []storage.SpanKey
	text  func(telemetry.Value) string
	side  side

	seen [][]telemetry.Value // by key: the dictionary that nums were made for
	nums [][]uint32
	rows []uint32 // of the block
}

// side says which span of an edge a label is of.
type side uint8

const (
	either side = iota // of the spans that are counted one by one
	onClient
	onServer
)

// collector counts the spans of blocks for one metric.
type collector struct {
	metric   metric
	grid     grid
	matchers []*labels.Matcher // without the name and le
	width    int               // cells a step
	nanos    []int64           // bounds of buckets

	names  texts
	dims   []*dim
	groups map[key]*group
	recent []recent // by some bits of the key
	cells  int

	// Of the block:
	service, kind, status, peer, database *dim

	starts, durations []int64   // nil when not needed
	weights           []float64 // for how many spans each stands; nil when each stands for itself
	inside            bool      // everything is in the only step
	paired            []bool    // clients' spans with a server's below them
	marker            *marker   // finds exemplars in place of counting; nil when it counts

	ids ids
}

// recent is a group that was looked up before.
type recent struct {
	group *group
	small uint64 // its key, unless that is too large
	key   key
	isKey bool // it is
}

// small returns the first n numbers of a key as one, and whether these are all that it has.
func (k *key) small(n int) (small uint64, ok bool) {
	all := uint32(0)
	for _, id := range k[:min(n, 4)] {
		small, all = small<<16|uint64(id), all|id
	}
	return small, n <= 4 && all < 1<<16
}

// ids are the numbers of the texts that edges are made of.
type ids struct{ client, server, producer, consumer, messaging, database, virtual, user, failed uint32 }

// newCollector returns one that counts what matchers leave of a metric. Labels that matchers name besides those of the metric
// are attributes, which it looks up with keys.
func newCollector(m metric, g grid, ms []*labels.Matcher, known []storage.SpanKey) (*collector, error) {
	c := &collector{metric: m, grid: g, width: 1, names: texts{ids: make(map[string]uint32)}, groups: make(map[key]*group), recent: make([]recent, 1<<recentBits)}
	c.names.id("")
	if m.part == bucket {
		c.nanos, _ = m.bounds()
		c.width = len(c.nanos) + 1
	}
	for _, x := range ms {
		if x.Name != model.MetricNameLabel && x.Name != model.BucketLabel {
			c.matchers = append(c.matchers, x)
		}
	}
	c.service = newDim(labelService, either, serviceKey())
	c.kind = newDim(labelSpanKind, either, storage.Field(storage.SpanKindField))
	c.kind.text = func(v telemetry.Value) string {
		return "SPAN_KIND_" + strings.ToUpper(telemetry.SpanKind(v.Int()).String())
	}
	c.status = newDim(labelStatusCode, either, storage.Field(storage.SpanStatus))
	c.status.text = func(v telemetry.Value) string {
		return "STATUS_CODE_" + strings.ToUpper(telemetry.StatusCode(v.Int()).String())
	}
	switch m.source {
	case ofSpans:
		c.dims = []*dim{c.service, newDim(labelSpanName, either, storage.Field(storage.SpanName)), c.kind, c.status}
	case ofEdges:
		c.peer, c.database = newDim("", either, peers()[:1]...), newDim("", either, peers()[1:]...)
		c.dims = make([]*dim, 3) // client, server, connection_type
		kind := func(k telemetry.SpanKind) uint32 { return c.names.id(c.kind.text(telemetry.Int(int64(k)))) }
		c.ids = ids{
			client: kind(telemetry.SpanKindClient), server: kind(telemetry.SpanKindServer),
			producer: kind(telemetry.SpanKindProducer), consumer: kind(telemetry.SpanKindConsumer),
			messaging: c.names.id(connectionMessaging), database: c.names.id(connectionDatabase), virtual: c.names.id(connectionVirtual),
			user: c.names.id(userNode), failed: c.names.id(c.status.text(telemetry.Int(int64(telemetry.StatusError)))),
		}
	case ofResources:
		return c, nil
	}
	return c, c.more(known)
}

func newDim(label string, s side, keys ...storage.SpanKey) *dim {
	return &dim{
		label: label, side: s, keys: keys, text: telemetry.Value.Text,
		seen: make([][]telemetry.Value, len(keys)), nums: make([][]uint32, len(keys)),
	}
}

// extra returns the labels that matchers name and the metric does not have by itself.
func extra(m metric, ms []*labels.Matcher) []string {
	own := append(m.labels(), model.MetricNameLabel, model.BucketLabel)
	var out []string
	for _, x := range ms {
		if m.source != ofResources && !slices.Contains(own, x.Name) && !slices.Contains(out, x.Name) {
			out = append(out, x.Name)
		}
	}
	sort.Strings(out)
	return out
}

// more adds the labels that are attributes.
func (c *collector) more(known []storage.SpanKey) error {
	for _, label := range extra(c.metric, c.matchers) {
		attr, s := label, either
		if c.metric.source == ofEdges {
			var ok bool
			if attr, ok = strings.CutPrefix(label, labelClient+"_"); ok {
				s = onClient
			} else if attr, ok = strings.CutPrefix(label, labelServer+"_"); ok {
				s = onServer
			} else {
				continue
			}
		}
		var keys []storage.SpanKey
		for _, k := range known {
			isAttr := k.Scope == storage.RecordScope || k.Scope == storage.InstrumentationScope || k.Scope == storage.ResourceScope
			key := storage.SpanKey{Scope: storage.AnyScope, Name: k.Name}
			if isAttr && (k.Name == attr || labelName(k.Name) == attr) && !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
		if len(keys) == 0 {
			continue // nothing has it: it is absent from all series
		}
		if len(c.dims) == maxDims {
			return httpapi.Errorf(httpapi.QueryLimit, "a selector of %s may name at most %d attributes", c.metric.name, maxDims-len(c.metric.labels()))
		}
		c.dims = append(c.dims, newDim(label, s, keys...))
	}
	return nil
}

// labelName returns the name of an attribute as a label's.
func labelName(s string) string {
	b := []byte(s)
	for i, x := range b {
		if x != '_' && (x < 'a' || x > 'z') && (x < 'A' || x > 'Z') && (x < '0' || x > '9') {
			b[i] = '_'
		}
	}
	if len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
		return "_" + string(b)
	}
	return string(b)
}

// keys returns the columns that will be read.
func (c *collector) keys() []storage.SpanKey {
	if c.metric.source == ofResources {
		return nil
	}
	out := []storage.SpanKey{serviceKey(), storage.Field(storage.SpanKindField), storage.WeightKey()}
	if c.metric.source == ofEdges {
		out = append(out, peers()...)
		if c.metric.measure == failures {
			out = append(out, storage.Field(storage.SpanStatus))
		}
	}
	for _, d := range c.dims {
		if d != nil {
			out = append(out, d.keys...)
		}
	}
	return out
}

// need returns what rules traces out.
func (c *collector) need() []storage.Predicate {
	var all storage.And
	for _, m := range c.matchers {
		if m.Type != labels.MatchEqual || m.Value == "" {
			continue
		}
		var k storage.SpanKey
		switch {
		case c.metric.source == ofSpans && m.Name == labelService, c.metric.source == ofEdges && m.Name == labelClient && m.Value != userNode:
			k = serviceKey()
		case c.metric.source == ofSpans && m.Name == labelSpanName:
			k = storage.Field(storage.SpanName)
		default:
			continue
		}
		all = append(all, storage.ValueMatch{
			Key: k, Accept: func(v telemetry.Value) bool { return v.Text() == m.Value }, Equal: []telemetry.Value{telemetry.String(m.Value)},
		})
	}
	if len(all) == 0 {
		return nil
	}
	return []storage.Predicate{all}
}

// collect reads the traces of a view.
func (c *collector) collect(ctx context.Context, v storage.View, tenant telemetry.Tenant, maxBytes int64) error {
	start, end := c.grid.nanos()
	q := storage.TraceQuery{
		Tenant: tenant, Start: start, End: end, Keys: c.keys(), Need: c.need(), Fragments: c.metric.source != ofEdges, MaxBytes: maxBytes,
	}
	for b, err := range v.Traces(ctx, q) {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = c.block(b)
		}
		if errors.Is(err, storage.ErrReadLimit) {
			return httpapi.Errorf(httpapi.QueryLimit,
				"%s reads more of the store than promql.max_read (%d bytes) allows: shorten the time range, or match one service", c.metric.name, maxBytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) block(b storage.TraceBlock) error {
	start, end := c.grid.nanos()
	lo, hi := b.Bounds()
	if hi < start || lo > end {
		return nil
	}
	c.starts, c.durations = nil, nil
	c.inside = c.marker == nil && c.grid.n == 1 && lo >= start && hi <= end
	if !c.inside || c.metric.measure != calls && c.metric.measure != failures {
		var err error
		if c.starts, err = b.Starts(); err != nil {
			return err
		}
		if c.durations, err = b.Durations(); err != nil {
			return err
		}
	}
	var err error
	if c.marker != nil {
		if err := c.marker.open(b); err != nil {
			return err
		}
		if err := c.events(b); err != nil {
			return err
		}
		return c.marker.close(b)
	}
	if c.weights, err = storage.Weights(b); err != nil {
		return err
	}
	return c.events(b)
}

// events counts what the metric counts in a block.
func (c *collector) events(b storage.TraceBlock) error {
	switch c.metric.source {
	case ofSpans:
		return c.spans(b)
	case ofEdges:
		return c.edges(b)
	case ofResources:
		return c.resources(b)
	default:
		return fmt.Errorf("%s has no source", c.metric.name)
	}
}

// load fills the rows of a label for a block.
func (c *collector) load(d *dim, b storage.TraceBlock) error {
	n := b.Len()
	d.rows = slices.Grow(d.rows[:0], n)[:n]
	clear(d.rows)
	for i, k := range d.keys {
		col, err := b.Column(k)
		if err != nil {
			return err
		}
		if col.Len() == 0 {
			continue
		}
		if col.Ints != nil {
			var was int64
			id, fresh := uint32(0), true
			for j, x := range col.Ints {
				if fresh || x != was {
					id, was, fresh = c.names.id(d.text(telemetry.Int(x))), x, false
				}
				d.put(col, j, id)
			}
			continue
		}
		if len(d.seen[i]) != len(col.Dict) || &d.seen[i][0] != &col.Dict[0] {
			d.seen[i], d.nums[i] = col.Dict, d.nums[i][:0]
			for _, v := range col.Dict {
				d.nums[i] = append(d.nums[i], c.names.id(d.text(v)))
			}
		}
		nums := d.nums[i]
		if col.Rows == nil && i == 0 {
			for j, code := range col.Code {
				d.rows[j] = nums[code]
			}
			continue
		}
		for j, code := range col.Code {
			d.put(col, j, nums[code])
		}
	}
	return nil
}

// put gives the row of value j an ID, unless it has one.
func (d *dim) put(col *storage.SpanColumn, j int, id uint32) {
	row := j
	if col.Rows != nil {
		row = int(col.Rows[j])
	}
	if d.rows[row] == 0 {
		d.rows[row] = id
	}
}

// group returns the group with a key, which has texts for the labels.
func (c *collector) group(k *key) (*group, error) {
	mix, small := k.small(len(c.dims))
	if !small {
		for _, id := range k[:len(c.dims)] {
			mix = (mix ^ uint64(id)) * 0x9e3779b97f4a7c15
		}
	}
	seen := &c.recent[mix*0x9e3779b97f4a7c15>>(64-recentBits)]
	if seen.group != nil && seen.isKey != small && (small && seen.small == mix || !small && seen.key == *k) {
		return seen.group, nil
	}
	g := c.groups[*k]
	if g == nil {
		own := c.metric.labels()
		pairs := make(map[string]string)
		for i, d := range c.dims {
			name := ""
			if d != nil {
				name = d.label
			} else {
				name = own[i]
			}
			if v := c.names.list[k[i]]; v != "" {
				pairs[name] = v
			}
		}
		var err error
		if g, err = c.add(labels.FromMap(pairs)); err != nil {
			return nil, err
		}
		c.groups[*k] = g
	}
	*seen = recent{g, mix, *k, !small}
	return g, nil
}

// add returns a new group.
func (c *collector) add(ls labels.Labels) (*group, error) {
	g := &group{labels: ls, keep: !slices.ContainsFunc(c.matchers, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })}
	if len(c.groups) >= maxGroups {
		return nil, httpapi.Errorf(httpapi.QueryLimit,
			"%s has more than %d series before buckets in the time range: match one service, name fewer attributes, or shorten the range", c.metric.name, maxGroups)
	}
	if g.keep {
		cost := c.grid.n * c.width
		if c.marker != nil {
			cost *= markCells
		}
		if c.cells += cost; c.cells > maxCells {
			return nil, httpapi.Errorf(httpapi.QueryLimit,
				"%s counts more than %d series times steps: match one service, name fewer attributes, or shorten the range", c.metric.name, maxCells)
		}
		if c.marker != nil {
			g.marks = make([]mark, c.grid.n*c.width)
		} else {
			g.cells = make([]int64, c.grid.n*c.width)
		}
	}
	return g, nil
}

// end returns when the span of a row ended, once times are loaded.
func (c *collector) end(row int) int64 { return c.starts[row] + max(c.durations[row], 0) }

// step returns the step in which the span of a row ended, -1 for none.
func (c *collector) step(row int) int {
	if c.inside {
		return 0
	}
	return c.grid.bucket(c.end(row))
}

// count adds a value of the span of a row at a step: a number, or a duration in nanoseconds for metrics of durations. A span
// counts as the whole number of spans next to what it stands for.
func (c *collector) count(g *group, step, row int, n int64) {
	at := 0
	if c.metric.part == bucket {
		at = sort.Search(len(c.nanos), func(i int) bool { return n <= c.nanos[i] })
	}
	if c.marker != nil {
		value := 1.0
		if c.metric.part == bucket {
			value = float64(n) / 1e9
		}
		c.marker.mark(&g.marks[step*c.width+at], row, c.end(row), value)
		return
	}
	weight := int64(1)
	if c.weights != nil {
		weight = int64(math.Round(c.weights[row]))
	}
	switch c.metric.part {
	case bucket:
		g.cells[step*c.width+at] += weight
	case count:
		g.cells[step] += weight
	default:
		g.cells[step] += n * weight
	}
}

// finish makes totals of the counts and returns the series.
func (c *collector) finish() []*series {
	first, last := c.grid.times()
	var out []*series
	_, le := c.metric.bounds()
	for _, g := range c.groups {
		if !g.keep {
			continue
		}
		for i := range g.cells {
			if i%c.width > 0 {
				g.cells[i] += g.cells[i-1]
			}
		}
		for i := c.width; i < len(g.cells); i++ {
			g.cells[i] += g.cells[i-c.width]
		}
		lb := labels.NewBuilder(g.labels).Set(model.MetricNameLabel, c.metric.name)
		for at := range c.width {
			if c.metric.part == bucket {
				lb.Set(model.BucketLabel, le[at])
			}
			s := &series{labels: lb.Labels(), grid: c.grid, first: first, last: last, totals: g.cells, stride: c.width, at: at, nanos: c.metric.part == sum}
			if c.metric.source == ofResources {
				s.totals = nil
			}
			out = append(out, s)
		}
	}
	return out
}
