package metrics_test

import (
	"bytes"
	"context"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/metrics"
	"github.com/braidobs/braid/storage/part"
)

// store is heads and parts put together as the engine does, with what they should hold.
type store struct {
	t      require.TestingT
	active *metrics.Active
	layers []layer // in the order of arrival
	masks  []metrics.Mask
	want   model
	other  model // of tenant b
}

// layer is a head, or what became of it.
type layer struct {
	head  *metrics.Head
	parts map[int64]*metrics.Part // by day
	to    storage.Position        // all of it came before
}

// width is how many positions of the log a head takes.
const width = 10

func newStore(t require.TestingT) *store {
	return &store{t: t, active: metrics.NewActive(metrics.Limits{PerTenant: 1e6, PerMetric: 1e6}), want: make(model), other: make(model)}
}

// begin makes a head.
func (s *store) begin() *metrics.Head {
	from := storage.Position(len(s.layers) * width)
	h := s.active.NewHead(from, int64(len(s.layers)))
	s.layers = append(s.layers, layer{head: h, to: from + width})
	return h
}

func (s *store) write(h *metrics.Head, batches ...telemetry.Batch) {
	for i := range batches {
		if batches[i].Tenant == "a" {
			s.want.write(&batches[i])
		} else {
			s.other.write(&batches[i])
		}
	}
	es, over := s.active.Resolve(batches, nil)
	require.Empty(s.t, over)
	h.Append(batches, es, func(telemetry.Tenant, *telemetry.Resource, int64, int64) {})
}

// remove deletes what came so far: the next head begins after it.
func (s *store) remove(m metrics.Mask) {
	m.Position = storage.Position(len(s.layers) * width)
	s.masks = append(s.masks, m)
	s.want.remove(&m)
}

// written returns a part that holds what b has, nil when it is empty.
func written(t require.TestingT, b *metrics.Builder, to storage.Position) *metrics.Part {
	enc, err := part.NewEncoder()
	require.NoError(t, err)
	defer func() { require.NoError(t, enc.Close()) }()
	var file bytes.Buffer
	w := part.NewWriter(&file, enc, map[string]string{})
	require.NoError(t, b.Write(w))
	if b.Empty() {
		return nil
	}
	require.NoError(t, w.Close())
	dec, err := part.NewDecoder()
	require.NoError(t, err)
	p, err := part.Open("test", bytes.NewReader(file.Bytes()), int64(file.Len()), dec, nil)
	require.NoError(t, err)
	require.NoError(t, p.Verify())
	rows, _, lo, hi := b.Rows()
	out := metrics.OpenPart(p, to, lo, hi)
	n, least, most := int64(0), int64(math.MaxInt64), int64(math.MinInt64)
	sel, err := out.Select(context.Background(), &storage.SeriesQuery{Start: math.MinInt64, End: math.MaxInt64}, metrics.Samples|metrics.Exemplars, nil)
	require.NoError(t, err)
	var buf metrics.Buffer
	for i := range sel.Len() {
		d, err := sel.Read(i, &buf)
		require.NoError(t, err)
		n += int64(len(d.T) + len(d.Histograms) + len(d.Exemplars))
		saw := func(at int64) { least, most = min(least, at), max(most, at) }
		for _, at := range d.T {
			saw(at)
		}
		for j := range d.Histograms {
			saw(d.Histograms[j].T)
		}
		for j := range d.Exemplars {
			saw(d.Exemplars[j].Ts)
		}
	}
	require.Equal(t, []int64{rows, lo, hi}, []int64{n, least, most}, "the builder's count and bounds")
	return out
}

// flush writes layer i into parts.
func (s *store) flush(i int) {
	l := &s.layers[i]
	src := l.head.Snapshot().Tenant("a")
	l.parts = make(map[int64]*metrics.Part)
	for _, d := range src.Days() {
		b := metrics.NewBuilder(context.Background())
		b.AddDay(src, d)
		p := written(s.t, b, l.to)
		require.NotNil(s.t, p, "a day has something")
		l.parts[d] = p
	}
	l.head = nil
}

// flushFirst flushes the heads among the first n layers: the oldest ones go first.
func (s *store) flushFirst(n int) {
	for i := range s.layers[:n] {
		if s.layers[i].head != nil {
			s.flush(i)
		}
	}
}

// merge joins the parts of layers [from, to), without what the masks cover so far if asked to.
func (s *store) merge(from, to int, rewrite bool) {
	days := make(map[int64]*metrics.Builder)
	last := s.layers[to-1].to
	masks := s.masks
	if !rewrite { // masks stay pending: the part must lie wholly before or after each
		masks = nil
		for _, m := range s.masks {
			if m.Position < last && m.Position > s.layers[from].to-width {
				return
			}
		}
	}
	for _, l := range s.layers[from:to] {
		for d, p := range l.parts {
			if days[d] == nil {
				days[d] = metrics.NewBuilder(context.Background())
			}
			require.NoError(s.t, days[d].AddPart(p, masks))
		}
	}
	out := layer{parts: make(map[int64]*metrics.Part), to: last}
	if rewrite {
		out.to = 1 << 60 // as the engine does: no mask so far concerns it any more
	}
	for d, b := range days {
		if p := written(s.t, b, out.to); p != nil {
			out.parts[d] = p
		}
	}
	s.layers = slices.Replace(s.layers, from, to, out)
}

// sources returns what answers for tenant a.
func (s *store) sources() []metrics.Source {
	var out []metrics.Source
	for _, l := range s.layers {
		if l.head != nil {
			out = append(out, l.head.Snapshot().Tenant("a"))
			continue
		}
		for _, d := range slices.Sorted(maps.Keys(l.parts)) {
			out = append(out, l.parts[d])
		}
	}
	return out
}

func selectAll(t require.TestingT, srcs []metrics.Source, q *storage.SeriesQuery, what metrics.What, masks []metrics.Mask) *metrics.Merged {
	var sels []metrics.Selection
	for _, src := range srcs {
		sel, err := src.Select(context.Background(), q, what, masks)
		require.NoError(t, err)
		sels = append(sels, sel)
	}
	return metrics.Merge(sels, func(_ int, err error) error { return err })
}

// check compares the answers to a query with the model. Ever is all that was written: who vouches for a series, and what
// its first and last sample are, may come from a request that a snapshot does not see yet.
func check(t require.TestingT, srcs []metrics.Source, masks []metrics.Mask, want, ever model, q *storage.SeriesQuery) {
	ctx := context.Background()
	expect, near := want.find(q), ever.near(q)
	m := selectAll(t, srcs, q, metrics.Samples|metrics.Exemplars|metrics.EvidenceOf, masks)
	m.Sort()
	got := make(map[telemetry.LabelSet]found)
	var buf metrics.Buffer
	var last labels.Labels
	for i := range m.Len() {
		ls := m.Labels(i)
		require.NoError(t, ls.Check())
		if i > 0 {
			require.Negative(t, labels.Compare(last, ls.Labels()), "each series once, in order")
		}
		last = ls.Labels()
		d, err := m.Read(i, &buf)
		require.NoError(t, err)
		require.Equal(t, ls, d.Labels)
		f := dataOf(t, &d, q)
		if len(f.samples)+len(f.exemplars) > 0 {
			got[ls] = f
			checkEvidence(t, want[ls], ever[ls], d.Evidence, f.samples)
		}
	}
	require.Equal(t, expect, got)

	// By the iterator of the engine.
	seen := 0
	set := selectAll(t, srcs, q, metrics.Samples, masks).Set(ctx, func() annotations.Annotations { return nil })
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		it = s.Iterator(it)
		samples := iterated(t, it)
		if len(samples) > 0 {
			seen++
			require.Equal(t, expect[telemetry.NewLabelSet(s.Labels())].samples, samples)
		}
	}
	require.NoError(t, set.Err())
	names, values, some := make(map[string]bool), make(map[string]bool), 0
	for ls, f := range expect {
		if len(f.samples) == 0 {
			continue
		}
		some++
		ls.Range(func(n, v string) {
			names[n] = true
			if n == "Zone" {
				values[v] = true
			}
		})
	}
	require.Equal(t, some, seen)

	// What the index alone tells may be more: series with something before and after.
	bare := selectAll(t, srcs, q, 0, masks)
	found := make(map[telemetry.LabelSet]bool)
	for i := range bare.Len() {
		found[bare.Labels(i)] = true
		require.Contains(t, near, bare.Labels(i))
	}
	for ls, f := range expect {
		require.True(t, found[ls] || len(f.samples) == 0, "%q is missing", ls)
	}
	gotNames, gotValues := make(map[string]bool), make(map[string]bool)
	for _, src := range srcs {
		require.NoError(t, src.LabelNames(ctx, q, func(n string) { gotNames[n] = true }))
		require.NoError(t, src.LabelValues(ctx, "Zone", q, func(v string) { gotValues[v] = true }))
	}
	nearNames, nearValues := make(map[string]bool), make(map[string]bool)
	if len(masks) > 0 { // what was deleted moves the bounds of a part
		near = ever.near(&storage.SeriesQuery{Start: math.MinInt64, End: math.MaxInt64, Matchers: q.Matchers})
	}
	for ls := range near {
		ls.Range(func(n, v string) {
			nearNames[n] = true
			if n == "Zone" {
				nearValues[v] = true
			}
		})
	}
	between(t, names, gotNames, nearNames)
	between(t, values, gotValues, nearValues)
}

func between(t require.TestingT, least, got, most map[string]bool) {
	for n := range least {
		require.Contains(t, got, n)
	}
	for n := range got {
		require.Contains(t, most, n)
	}
}

// dataOf checks the order and the range of what was read, and returns it.
func dataOf(t require.TestingT, d *metrics.Data, q *storage.SeriesQuery) found {
	f := found{samples: make(map[int64]string), exemplars: make(map[string]int64)}
	add := func(p *metrics.Point) {
		require.True(t, p.T >= q.Start && p.T <= q.End)
		require.NotContains(t, f.samples, p.T, "one sample a timestamp")
		f.samples[p.T] = pointText(p)
	}
	require.Len(t, d.V, len(d.T))
	require.True(t, d.ST == nil || len(d.ST) == len(d.T))
	require.True(t, slices.IsSorted(d.T))
	for i, at := range d.T {
		p := metrics.Point{T: at, V: d.V[i]}
		if d.ST != nil {
			p.ST = d.ST[i]
		}
		add(&p)
	}
	for i := range d.Histograms {
		require.True(t, i == 0 || d.Histograms[i-1].T < d.Histograms[i].T)
		add(&d.Histograms[i])
	}
	for i := range d.Exemplars {
		e := &d.Exemplars[i]
		require.True(t, e.Ts >= q.Start && e.Ts <= q.End)
		f.exemplars[exemplarText(e)] = e.Ts
	}
	return f
}

// checkEvidence requires each resource that vouched for one of the samples, for its time at least, and none that never
// did.
func checkEvidence(t require.TestingT, s, ever *modelSeries, got []metrics.Evidence, samples map[int64]string) {
	by := make(map[telemetry.ResourceID]metrics.Evidence)
	for _, e := range got {
		require.NotContains(t, by, e.Resource.ID)
		require.Contains(t, ever.vouch, e.Resource.ID)
		by[e.Resource.ID] = e
	}
	for r, ts := range s.vouch {
		for at, stays := range ts {
			if _, ok := samples[at]; ok && stays {
				require.Contains(t, by, r)
				require.True(t, by[r].First <= at && by[r].Last >= at)
			}
		}
	}
}

// iterated reads an iterator, now and then by Seek.
func iterated(t require.TestingT, it chunkenc.Iterator) map[int64]string {
	out := make(map[int64]string)
	n := 0
	for kind := it.Next(); kind != chunkenc.ValNone; {
		p := metrics.Point{T: it.AtT(), ST: it.AtST()}
		switch kind {
		case chunkenc.ValFloat:
			_, p.V = it.At()
		case chunkenc.ValHistogram:
			_, p.H = it.AtHistogram(nil)
		default:
			_, p.FH = it.AtFloatHistogram(nil)
		}
		out[p.T] = pointText(&p)
		if n++; n%3 == 0 && p.T < math.MaxInt64 {
			kind = it.Seek(p.T + 1)
		} else {
			kind = it.Next()
		}
	}
	require.NoError(t, it.Err())
	return out
}

// TestRandom writes random series into heads, flushes, merges and deletes, and compares what is read with the model.
func TestRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.SampledFrom([]int64{20_000 * day, 0, -1000 * day}).Draw(t, "base")
		g := newGen(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 120).Draw(t, "series"), base)
		s := newStore(t)
		for range rapid.IntRange(1, 5).Draw(t, "heads") {
			h := s.begin()
			s.fill(g, h, rapid.IntRange(1, 6).Draw(t, "requests"))
			if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
				m := metrics.Mask{Start: math.MinInt64, End: math.MaxInt64, Matchers: g.matchers()}
				if !g.rare(3) {
					m.Start = g.base + int64(g.IntN(4*hour)) - 2*hour
					m.End = m.Start + int64(g.IntN(3*hour))
				}
				s.remove(m)
			}
			s.flushFirst(rapid.IntRange(0, len(s.layers)).Draw(t, "flush"))
			if rapid.Bool().Draw(t, "sweep") {
				oldest := uint32(math.MaxUint32)
				for _, l := range s.layers {
					if l.head != nil {
						oldest = min(oldest, l.head.Number())
					}
				}
				s.active.Sweep(int64(rapid.IntRange(0, 6).Draw(t, "before")), oldest)
			}
		}
		s.flushFirst(rapid.IntRange(0, len(s.layers)).Draw(t, "flush at last"))
		for i := 0; i+2 <= len(s.layers); i++ {
			n := rapid.IntRange(2, 4).Draw(t, "merge")
			if i+n > len(s.layers) || slices.ContainsFunc(s.layers[i:i+n], func(l layer) bool { return l.head != nil }) {
				continue
			}
			s.merge(i, i+n, rapid.Bool().Draw(t, "rewrite"))
		}
		for range 8 {
			check(t, s.sources(), s.masks, s.want, s.want, g.query())
		}
	})
}

// fill writes requests into a head, and compares snapshots taken between them with what was there then.
func (s *store) fill(g *gen, h *metrics.Head, requests int) {
	type moment struct {
		src  metrics.Source
		want model
	}
	var moments []moment
	now := make(model) // of this head alone
	for range requests {
		batches := []telemetry.Batch{g.batch("a")}
		for g.rare(3) {
			batches = append(batches, g.batch([]telemetry.Tenant{"a", "b"}[g.IntN(2)]))
		}
		for i := range batches {
			if batches[i].Tenant == "a" {
				now.write(&batches[i])
			}
		}
		s.write(h, batches...)
		if g.rare(4) {
			moments = append(moments, moment{h.Snapshot().Tenant("a"), now.clone()})
		}
	}
	for _, m := range moments {
		check(s.t, []metrics.Source{m.src}, nil, m.want, now, g.query())
	}
}
