package metrics

import (
	"context"
	"slices"
	"strings"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Merged is the series of several selections, each once. It is for one caller at a time.
type Merged struct {
	sels   []Selection
	series []mergedSeries
	bufs   []Buffer
	joined map[string][]int64 // columns of times put together, by where the pieces lie
	key    []byte
	pieces []Data
	refs   []ref // memory for those of series
	failed func(sel int, err error) error

	read    int // series
	samples int64
}

type mergedSeries struct {
	labels telemetry.LabelSet
	first  ref
	more   []ref
}

// Merge joins selections, which come in the order of arrival. Of several samples of a series at one time that of the
// last selection stays. Failed decides about the error of reading a selection: with nil the reading goes on without it.
func Merge(sels []Selection, failed func(sel int, err error) error) *Merged {
	m := &Merged{sels: sels, bufs: make([]Buffer, len(sels)), joined: make(map[string][]int64), failed: failed}
	n := 0
	for _, s := range sels {
		n = max(n, s.Len())
	}
	m.series = make([]mergedSeries, 0, n)
	var by map[telemetry.LabelSet]int32 // the first of m.series, made when it is needed
	find := func(ls telemetry.LabelSet) (int32, bool) {
		if by == nil {
			by = make(map[telemetry.LabelSet]int32, n)
		}
		for j := len(by); j < len(m.series); j++ {
			by[m.series[j].labels] = int32(j)
		}
		k, ok := by[ls]
		return k, ok
	}
	for i, s := range sels {
		guess := 0 // sources of one time mostly have the same series in the same order
		known := len(m.series)
		for j := range s.Len() {
			ls, r := s.Labels(j), ref{int32(i), int32(j)}
			k := int32(guess)
			ok := guess < known && m.series[guess].labels == ls
			if !ok && known > 0 {
				k, ok = find(ls)
			}
			if ok {
				m.more(&m.series[k], r, len(sels)-i)
				guess = int(k) + 1
				continue
			}
			m.series = append(m.series, mergedSeries{labels: ls, first: r})
		}
	}
	return m
}

// more notes one more place that a series comes from; there will be so many at most.
func (m *Merged) more(s *mergedSeries, r ref, most int) {
	if s.more == nil {
		if len(m.refs) < most {
			m.refs = make([]ref, max(most, 4096))
		}
		s.more, m.refs = m.refs[:0:most], m.refs[most:]
	}
	s.more = append(s.more, r)
}

// Sort puts the series into the order of their labels.
func (m *Merged) Sort() {
	slices.SortFunc(m.series, func(a, b mergedSeries) int { return compareLabels(a.labels, b.labels) })
}

// compareLabels orders labels as labels.Compare does.
func compareLabels(a, b telemetry.LabelSet) int {
	x, y := telemetry.NewDecoder(string(a)), telemetry.NewDecoder(string(b))
	for x.Len() > 0 && y.Len() > 0 {
		if c := strings.Compare(x.Str(), y.Str()); c != 0 {
			return c
		}
		if c := strings.Compare(x.Str(), y.Str()); c != 0 {
			return c
		}
	}
	return x.Len() - y.Len()
}

// Len returns the number of series.
func (m *Merged) Len() int { return len(m.series) }

// Labels returns the labels of series i.
func (m *Merged) Labels(i int) telemetry.LabelSet { return m.series[i].labels }

// Cost returns how many series and samples were read so far, and the bytes of parts that it took.
func (m *Merged) Cost() storage.ReadStats {
	c := storage.ReadStats{Series: int64(m.read), Samples: m.samples}
	for _, s := range m.sels {
		c.Bytes += s.Cost()
	}
	return c
}

// Read returns series i, under the rules of Selection.Read.
func (m *Merged) Read(i int, b *Buffer) (Data, error) {
	d, err := m.get(i, b)
	if err == nil {
		m.read++
		m.samples += int64(d.samples())
	}
	return d, err
}

func (m *Merged) get(i int, b *Buffer) (Data, error) {
	s := &m.series[i]
	if len(s.more) == 0 {
		d, err := m.sels[s.first.input].Read(int(s.first.series), b)
		if err != nil {
			return Data{Labels: s.labels}, m.failed(int(s.first.input), err)
		}
		return d, nil
	}
	pieces := m.pieces[:0]
	for i := range 1 + len(s.more) {
		r := s.first
		if i > 0 {
			r = s.more[i-1]
		}
		d, err := m.sels[r.input].Read(int(r.series), &m.bufs[r.input])
		if err != nil {
			if err := m.failed(int(r.input), err); err != nil {
				return d, err
			}
			continue
		}
		if !d.empty() || len(d.Evidence) > 0 {
			pieces = append(pieces, d)
		}
	}
	m.pieces = pieces
	out := Data{Labels: s.labels}
	if m.follow(pieces) {
		out.T = m.times(pieces)
		b.v, b.st = b.v[:0], b.st[:0]
		for i := range pieces {
			p := &pieces[i]
			if p.ST != nil {
				for len(b.st) < len(b.v) {
					b.st = append(b.st, 0)
				}
				b.st = append(b.st, p.ST...)
			}
			b.v = append(b.v, p.V...)
			out.Exemplars = append(out.Exemplars, p.Exemplars...)
			out.Evidence = joinEvidence(out.Evidence, p.Evidence)
		}
		out.V = b.v
		if len(b.st) > 0 {
			for len(b.st) < len(b.v) {
				b.st = append(b.st, 0)
			}
			out.ST = b.st
		}
		return out, nil
	}
	for i := range pieces {
		p := &pieces[i]
		if out.samples() == 0 {
			p.Columns = Columns{T: slices.Clone(p.T), V: slices.Clone(p.V), ST: slices.Clone(p.ST)}
			p.Histograms = slices.Clone(p.Histograms)
		}
		p.Exemplars = slices.Clip(p.Exemplars)
		out.join(p)
	}
	return out, nil
}

// follow says whether the pieces are floats alone, each younger than the one before.
func (m *Merged) follow(pieces []Data) bool {
	last, any := int64(0), false
	for i := range pieces {
		p := &pieces[i]
		if len(p.Histograms) > 0 {
			return false
		}
		if n := len(p.T); n > 0 {
			if any && p.T[0] <= last {
				return false
			}
			last, any = p.T[n-1], true
		}
	}
	return true
}

// times puts the times of pieces together, and gives the same slice for the same pieces.
func (m *Merged) times(pieces []Data) []int64 {
	m.key = m.key[:0]
	n, only := 0, -1
	for i := range pieces {
		ts := pieces[i].T
		if len(ts) == 0 {
			continue
		}
		n, only = n+1, i
		at := struct {
			p uintptr
			n int
		}{uintptr(unsafe.Pointer(unsafe.SliceData(ts))), len(ts)}
		m.key = append(m.key, unsafe.Slice((*byte)(unsafe.Pointer(&at)), unsafe.Sizeof(at))...)
	}
	switch n {
	case 0:
		return nil
	case 1:
		return pieces[only].T
	}
	if ts, ok := m.joined[string(m.key)]; ok {
		return ts
	}
	var all []int64
	for i := range pieces {
		all = append(all, pieces[i].T...)
	}
	m.joined[string(m.key)] = all
	return all
}

// Each reads all series in order.
func (m *Merged) Each(ctx context.Context, f func(*Data) error) error {
	var b Buffer
	for i := range m.series {
		if i%64 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		d, err := m.Read(i, &b)
		if err != nil {
			return err
		}
		if d.empty() {
			continue
		}
		if err := f(&d); err != nil {
			return err
		}
	}
	return nil
}

// Set returns the series as the PromQL engine reads them: each is read when its iterator is asked for. A series that
// turns out to have no samples in the range is an empty one.
func (m *Merged) Set(ctx context.Context, notes func() annotations.Annotations) promstorage.SeriesSet {
	return &seriesSet{m: m, ctx: ctx, at: -1, notes: notes}
}

type seriesSet struct {
	m     *Merged
	ctx   context.Context //nolint:containedctx // that of the Select that the set answers
	at    int
	notes func() annotations.Annotations
}

// Next implements promstorage.SeriesSet.
func (s *seriesSet) Next() bool {
	if s.at+1 >= s.m.Len() || s.at%64 == 0 && s.ctx.Err() != nil {
		return false
	}
	s.at++
	return true
}

// At implements promstorage.SeriesSet.
func (s *seriesSet) At() promstorage.Series { return &lazySeries{set: s, i: s.at} }

// Err implements promstorage.SeriesSet.
func (s *seriesSet) Err() error { return context.Cause(s.ctx) }

// Warnings implements promstorage.SeriesSet.
func (s *seriesSet) Warnings() annotations.Annotations { return s.notes() }

type lazySeries struct {
	set *seriesSet
	i   int
}

// Labels implements promstorage.Series.
func (s *lazySeries) Labels() labels.Labels { return s.set.m.Labels(s.i).Labels() }

// Iterator implements promstorage.Series.
func (s *lazySeries) Iterator(old chunkenc.Iterator) chunkenc.Iterator {
	it, ok := old.(*iterator)
	if !ok {
		it = &iterator{}
	}
	d, err := s.set.m.Read(s.i, &it.buf)
	it.reset(&d)
	if err == nil {
		err = context.Cause(s.set.ctx)
	}
	it.err = err
	return it
}
