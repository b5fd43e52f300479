package metrics

import (
	"context"
	"slices"
	"sort"

	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

// Selection is the series that a source has for a query. It is for one caller at a time.
type Selection interface {
	// Len returns the number of series.
	Len() int
	// Labels returns the labels of series i.
	Labels(i int) telemetry.LabelSet
	// Read returns series i, empty when it turns out to have nothing. Nothing of it may be changed. Its values and
	// start times are valid until the next Read with the same buffer; everything else stays. Series with the same
	// times may share them: equal pointers are equal times. Reading in rising order is cheapest.
	Read(i int, b *Buffer) (Data, error)
	// Cost returns the bytes of parts that were unpacked so far.
	Cost() int64
}

// Buffer is memory for what Read returns.
type Buffer struct {
	v  []float64
	st []int64
}

// memory is a selection that is in memory.
type memory struct{ data []Data }

func (m *memory) Len() int                            { return len(m.data) }
func (m *memory) Labels(i int) telemetry.LabelSet     { return m.data[i].Labels }
func (m *memory) Read(i int, _ *Buffer) (Data, error) { return m.data[i], nil }
func (m *memory) Cost() int64                         { return 0 }

// selected is series of a part.
type selected struct {
	p          *Part
	start, end int64
	what       What
	masks      []Mask
	ids        []int64
	labels     []telemetry.LabelSet
	windows    []windowReader
	times      timesOf
	joined     map[string][]int64 // columns of times put together, by their numbers
	key        []byte
	pieces     [][]int64
	cost       int64

	histograms map[int64][]Point
	exemplars  map[int64][]exemplar.Exemplar
	evidence   map[int64][]Evidence
}

func (s *selected) Len() int                        { return len(s.ids) }
func (s *selected) Labels(i int) telemetry.LabelSet { return s.labels[i] }
func (s *selected) Cost() int64                     { return s.cost }

// selectSeries finds series in a part of the second layout.
func (p *Part) selectSeries(ctx context.Context, q *storage.SeriesQuery, what What, masks []Mask) (*selected, error) {
	ix, err := p.open()
	if err != nil {
		return nil, err
	}
	s := &selected{
		p: p, start: q.Start, end: q.End, what: what, masks: masks,
		times: timesOf{p: p, all: make(map[uint32][]int64)}, joined: make(map[string][]int64),
	}
	l := newLookup(p, ix)
	err = l.match(ctx, q, what&Exemplars != 0, func(first int64, rows []int) error {
		for _, r := range rows {
			ls, err := l.labels(r)
			if err != nil {
				return err
			}
			s.ids, s.labels = append(s.ids, first+int64(r)), append(s.labels, ls)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.rows(q); err != nil {
		return nil, err
	}
	if what&Samples != 0 {
		s.windows = p.windowsIn(ix, q.Start, q.End)
	}
	return s, nil
}

// windowsIn returns readers of the windows that reach into a time range.
func (p *Part) windowsIn(ix *index, lo, hi int64) []windowReader {
	var out []windowReader
	for i := range ix.windows {
		if w := &ix.windows[i]; w.lo <= hi && w.hi >= lo {
			out = append(out, windowReader{p: p, w: w, at: -1})
		}
	}
	return out
}

// rows reads what lies in tables with rows.
func (s *selected) rows(q *storage.SeriesQuery) error {
	if len(s.ids) == 0 {
		return nil
	}
	var err error
	if s.histograms, err = s.p.histograms(s.ids, q.Start, q.End); err != nil {
		return err
	}
	if s.what&Exemplars != 0 {
		if s.exemplars, err = s.p.exemplars(s.ids, q.Start, q.End); err != nil {
			return err
		}
	}
	if s.what&EvidenceOf == 0 && q.Resources == nil {
		return nil
	}
	if s.evidence, err = s.p.evidence(s.ids, q.Start, q.End); err != nil {
		return err
	}
	if q.Resources == nil {
		return nil
	}
	n := 0
	for i, id := range s.ids {
		if vouched(s.evidence[id], q.Resources) {
			s.ids[n], s.labels[n] = id, s.labels[i]
			n++
		}
	}
	s.ids, s.labels = s.ids[:n], s.labels[:n]
	return nil
}

// Read implements Selection.
func (s *selected) Read(i int, b *Buffer) (Data, error) {
	id := s.ids[i]
	d := Data{Labels: s.labels[i], Histograms: s.histograms[id], Exemplars: s.exemplars[id], Evidence: s.evidence[id]}
	if err := s.floats(id, b, &d); err != nil {
		return d, err
	}
	if len(s.masks) > 0 {
		if cover := covering(s.masks, d.Labels); len(cover) > 0 {
			d.T, d.Histograms, d.Exemplars = slices.Clone(d.T), slices.Clone(d.Histograms), slices.Clone(d.Exemplars)
			d.hide(cover)
		}
	}
	return d, nil
}

// floats reads the float samples of a series.
func (s *selected) floats(id int64, b *Buffer, d *Data) error {
	b.v, b.st = b.v[:0], b.st[:0]
	s.key = s.key[:0]
	pieces := s.pieces[:0]
	for i := range s.windows {
		w := &s.windows[i]
		at, err := w.find(id)
		if err != nil {
			return err
		}
		if at < 0 {
			continue
		}
		n := uint32(w.page.times[at])
		ts, err := s.times.get(n)
		if err != nil {
			return err
		}
		from, to := 0, len(ts)
		if ts[0] < s.start {
			from, _ = slices.BinarySearch(ts, s.start)
		}
		if ts[len(ts)-1] > s.end {
			var found bool
			if to, found = slices.BinarySearch(ts, s.end); found {
				to++
			}
		}
		if from >= to {
			continue
		}
		v, err := w.values(at, &s.times)
		if err != nil {
			return err
		}
		s.cost += w.page.sizes[at]
		b.v = append(b.v, v[from:to]...)
		st, err := w.startTimes(at, ts)
		if err != nil {
			return err
		}
		if st != nil {
			for len(b.st) < len(b.v)-(to-from) {
				b.st = append(b.st, 0)
			}
			b.st = append(b.st, st[from:to]...)
		}
		pieces = append(pieces, ts[from:to])
		s.key = append(s.key, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	}
	s.pieces = pieces
	d.V = b.v
	if len(b.st) > 0 {
		for len(b.st) < len(b.v) {
			b.st = append(b.st, 0)
		}
		d.ST = b.st
	}
	switch len(pieces) {
	case 0:
	case 1:
		d.T = pieces[0]
	default:
		all, ok := s.joined[string(s.key)]
		if !ok {
			all = slices.Concat(pieces...)
			if !ordered(all) {
				return s.p.p.Table(tablePages).Corrupt("data", 0, "windows overlap")
			}
			s.joined[string(s.key)] = all
		}
		d.T = all
	}
	return nil
}

// windowReader reads the series of one window.
type windowReader struct {
	p    *Part
	w    *window
	at   int // of the open page among those of the window, -1 for none
	page openPage
	hint int // where the next series may be found in the page
}

// find opens the page with a series and returns its place there, -1 when the window has none of it.
func (r *windowReader) find(id int64) (int, error) {
	ps := r.w.pages
	at := r.at
	if at < 0 || ps[at].first > id || ps[at].last < id {
		if at+1 < len(ps) && at >= 0 && ps[at+1].first <= id && ps[at+1].last >= id {
			at++
		} else {
			at = sort.Search(len(ps), func(i int) bool { return ps[i].last >= id })
		}
		if at == len(ps) || ps[at].first > id {
			return -1, nil
		}
		r.at = -1
		if err := r.page.read(r.p, ps[at]); err != nil {
			return -1, err
		}
		r.at, r.hint = at, 0
	}
	ids := r.page.ids
	if r.hint < len(ids) && ids[r.hint] == id {
		r.hint++
		return r.hint - 1, nil
	}
	i, found := slices.BinarySearch(ids, id)
	if !found {
		return -1, nil
	}
	r.hint = i + 1
	return i, nil
}

// values returns the values of the series at a place of the open page.
func (r *windowReader) values(at int, times *timesOf) ([]float64, error) {
	v, err := r.page.values(at, func(i int) (int, error) {
		ts, err := times.get(uint32(r.page.times[i]))
		return len(ts), err
	})
	return v, r.explain(err)
}

func (r *windowReader) startTimes(at int, ts []int64) ([]int64, error) {
	st, err := r.page.startTimes(at, ts)
	return st, r.explain(err)
}

// explain says which page is malformed.
func (r *windowReader) explain(err error) error {
	if err == nil || part.IsCorrupt(err) {
		return err
	}
	return r.p.p.Table(tablePages).Corrupt("data", r.page.ref.block, "%v", err)
}
