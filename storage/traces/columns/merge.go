package columns

import (
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// mapping is what a segment's keys, codes and tuples are in the open one.
type mapping struct {
	keys   []*key
	codes  [][]uint32 // by key and code; 0 for not known yet, else one more
	tuples [families][][]mapped
	res    []uint32 // one more
	scopes []uint32 // one more
	scope  uint32   // the key of their numbers
	scoped bool
}

// mapped is what a tuple has of a key.
type mapped struct {
	to   *key
	from uint32 // the key in the other segment
	code uint32 // there
}

// mapping returns what s is in the open segment.
func (w *Writer) mapping(s *Segment) *mapping {
	m := w.maps[s]
	if m != nil {
		return m
	}
	m = &mapping{keys: make([]*key, len(s.keys)), codes: make([][]uint32, len(s.keys)), res: make([]uint32, s.resLen), scopes: make([]uint32, s.scopeLen)}
	for f := range m.tuples {
		m.tuples[f] = make([][]mapped, s.tupleLen[f])
	}
	m.scope, m.scoped = s.byName[keyName{spanField, fieldScope}]
	if w.maps == nil {
		w.maps = make(map[*Segment]*mapping)
	}
	w.maps[s] = m
	return m
}

// AddFrom is Add for a trace of a block. It costs a fraction of that: what repeats is looked up once a segment.
func (w *Writer) AddFrom(b *Block, trace int) error {
	c, err := b.copier()
	if err != nil {
		return err
	}
	from, to := int(c.first[trace]), int(c.first[trace+1])
	if to-from > w.layout.PageRows || b.at(from) != b.at(to-1) {
		return w.addLarge(b, from, to)
	}
	if _, err := w.begin(c.ids[trace], to-from); err != nil {
		return err
	}
	m := w.mapping(b.s)
	for row := from; row < to; row++ {
		p := b.at(row)
		parent := int(c.up[row])
		var lost telemetry.SpanID
		if parent >= 0 {
			parent -= from
		} else if parent == storage.LostParent {
			if lost, err = p.lostID(row); err != nil {
				return err
			}
		}
		res, err := p.resources()
		if err != nil {
			return err
		}
		if p.spans == nil {
			if p.spans, err = p.fixed("span IDs", p.spanIDs, p.info.Rows, 8); err != nil {
				return err
			}
		}
		local := row - p.base
		n := &m.res[res[local]]
		if *n == 0 {
			*n = w.res.Add(c.res[res[local]]) + 1
			w.noteResource(*n - 1)
		}
		if err := w.row(row-from, parent, lost, telemetry.SpanID(p.spans[8*local:]), c.starts[row], c.durs[row], *n-1); err != nil {
			return err
		}
		if err := w.addItems(p, m, c, local); err != nil {
			return err
		}
	}
	return nil
}

// addLarge adds a trace that may have to be cut.
func (w *Writer) addLarge(b *Block, from, to int) error {
	parents, err := b.Parents()
	if err != nil {
		return err
	}
	nums := make([]int, 0, to-from)
	ups := make([]int32, 0, to-from)
	for row := from; row < to; row++ {
		nums = append(nums, row)
		up := parents[row]
		if up >= 0 {
			up -= int32(from)
		}
		ups = append(ups, up)
	}
	blk, err := b.Spans(nums, storage.SpanAll)
	if err != nil {
		return err
	}
	rows := make([]storage.SpanRow, len(nums))
	all := make([]telemetry.Span, len(nums))
	for i := range rows {
		all[i] = blk.Span(i)
		rows[i] = storage.SpanRow{Resource: blk.ResourceOf(i), Span: &all[i]}
	}
	return w.Add(rows, ups)
}

// copier is what AddFrom needs of a block for each trace.
type copier struct {
	first  []int32
	ids    []telemetry.TraceID
	starts []int64
	durs   []int64
	up     []int32
	res    []*telemetry.Resource
	scopes []*telemetry.Scope
}

func (b *Block) copier() (*copier, error) {
	if b.copied != nil {
		return b.copied, nil
	}
	c := &copier{}
	var err error
	if c.first, err = b.First(); err != nil {
		return nil, err
	}
	if c.ids, err = b.Traces(); err != nil {
		return nil, err
	}
	if c.starts, err = b.Starts(); err != nil {
		return nil, err
	}
	if c.durs, err = b.Durations(); err != nil {
		return nil, err
	}
	if c.up, err = b.Parents(); err != nil {
		return nil, err
	}
	if c.res, err = b.s.Resources(); err != nil {
		return nil, err
	}
	if c.scopes, err = b.s.Scopes(); err != nil {
		return nil, err
	}
	b.copied = c
	return c, nil
}

// addItems adds the fields and attributes of a row, its events and its links.
func (w *Writer) addItems(p *pageReader, m *mapping, c *copier, row int) error {
	if err := w.addItem(p, m, c, spans, row); err != nil {
		return err
	}
	mine := int64(w.page.rows - 1)
	for _, f := range []family{events, links} {
		if p.items[f].n == 0 {
			continue
		}
		from, to, err := p.span(f, row)
		if err != nil {
			return err
		}
		for i := from; i < to; i++ {
			w.page.items[f].rows = append(w.page.items[f].rows, mine)
			if f == events {
				if p.at == nil {
					if p.at, err = p.ints("times of events", p.times, p.items[f].n); err != nil {
						return err
					}
				}
				w.page.times = append(w.page.times, p.at[i])
				w.page.text += 32
			} else {
				if p.linkIDs == nil {
					if p.linkIDs, err = p.fixed("links", p.linked, p.items[f].n, linkSize); err != nil {
						return err
					}
				}
				w.page.linked = append(w.page.linked, p.linkIDs[i*linkSize:(i+1)*linkSize]...)
				w.page.text += 64
			}
			if err := w.addItem(p, m, c, f, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// addItem adds an item of a page of another segment.
func (w *Writer) addItem(p *pageReader, m *mapping, c *copier, f family, i int) error {
	codes, err := p.tuples(f)
	if err != nil {
		return err
	}
	it := &w.page.items[f]
	t := m.tuples[f][codes[i]]
	if t == nil {
		if t, err = w.tuple(p.s, m, f, codes[i]); err != nil {
			return err
		}
	}
	for _, e := range t {
		if e.code == own {
			v, err := p.entry(e.from, own, i)
			if err != nil {
				return err
			}
			if v, err = w.renumber(p, m, c, e.from, v); err != nil {
				return err
			}
			w.put(it, e.to, v)
			continue
		}
		known := m.codes[e.from][e.code]
		if known != 0 && e.to.mode != plain {
			w.touch(e.to)
			it.entries = append(it.entries, uint64(e.to.id)<<32|uint64(known-1))
			continue
		}
		v, err := p.entry(e.from, e.code, i)
		if err != nil {
			return err
		}
		if v, err = w.renumber(p, m, c, e.from, v); err != nil {
			return err
		}
		w.put(it, e.to, v)
		if e.to.mode != plain {
			m.codes[e.from][e.code] = uint32(it.entries[len(it.entries)-1]) + 1
		}
	}
	it.end()
	return nil
}

// renumber returns a value of a key as it is in the open segment: that of a scope is its number.
func (w *Writer) renumber(p *pageReader, m *mapping, c *copier, k uint32, v telemetry.Value) (telemetry.Value, error) {
	if !m.scoped || k != m.scope {
		return v, nil
	}
	i := v.Int()
	if v.Kind() != telemetry.KindInt || i < 0 || i >= int64(len(m.scopes)) {
		return v, p.Bad("scopes", "scope %s of %d", v.Text(), len(m.scopes))
	}
	n := &m.scopes[i]
	if *n == 0 {
		*n = w.scopes.Add(c.scopes[i]) + 1
	}
	return telemetry.Int(int64(*n - 1)), nil
}

// tuple works out what a tuple of s is in the open segment.
func (w *Writer) tuple(s *Segment, m *mapping, f family, n uint32) ([]mapped, error) {
	ts, err := s.tuplesOf(f)
	if err != nil {
		return nil, err
	}
	out := make([]mapped, 0, len(ts.of(n)))
	for _, e := range ts.of(n) {
		k := uint32(e >> 32)
		if m.keys[k] == nil {
			m.keys[k] = w.keys.get(s.keys[k].place, s.keys[k].name)
			m.codes[k] = make([]uint32, s.keys[k].n)
		}
		out = append(out, mapped{to: m.keys[k], from: k, code: uint32(e)})
	}
	m.tuples[f][n] = out
	return out, nil
}
