package columns

import (
	"sort"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// at returns the page that holds a row.
func (b *Block) at(row int) *pageReader {
	if len(b.pages) == 1 {
		return b.pages[0]
	}
	i := sort.Search(len(b.pages), func(i int) bool { return b.pages[i].base > row })
	return b.pages[i-1]
}

// spanIDs returns the IDs of rows and of their parents.
func (b *Block) spanIDs(rows []int) (ids, parents []telemetry.SpanID, err error) {
	up, err := b.parentRows(rows)
	if err != nil {
		return nil, nil, err
	}
	id := func(row int) (out telemetry.SpanID, err error) {
		p := b.at(row)
		if err := p.load(); err != nil {
			return out, err
		}
		if p.spans == nil {
			if p.spans, err = p.lasting("span IDs", p.spanIDs, 8*p.info.Rows); err != nil {
				return out, err
			}
		}
		return telemetry.SpanID(p.spans[8*(row-p.base):]), nil
	}
	ids, parents = make([]telemetry.SpanID, len(rows)), make([]telemetry.SpanID, len(rows))
	for i, row := range rows {
		if ids[i], err = id(row); err != nil {
			return nil, nil, err
		}
		switch parent := up[i]; {
		case parent >= 0:
			parents[i], err = id(int(parent))
		case parent == storage.LostParent:
			parents[i], err = b.at(row).lostID(row)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return ids, parents, nil
}

// parentRows returns the parent of each of some rows: from those of all rows, if the rows are many.
func (b *Block) parentRows(rows []int) ([]int32, error) {
	out := make([]int32, len(rows))
	if b.up != nil || len(rows) > b.info.Rows/4 {
		up, err := b.Parents()
		if err != nil {
			return nil, err
		}
		for i, row := range rows {
			out[i] = up[row]
		}
		return out, nil
	}
	first, err := b.First()
	if err != nil {
		return nil, err
	}
	var up, chain []int32
	from, to := 0, 0 // the trace that up is about
	for i, row := range rows {
		if row < from || row >= to {
			t := sort.Search(len(first), func(t int) bool { return int(first[t]) > row }) - 1
			from, to = int(first[t]), int(first[t+1])
			if cap(up) < to-from {
				up = make([]int32, to-from)
			}
			up = up[:to-from]
			if chain, err = b.parentsOf(int32(from), up, chain); err != nil {
				return nil, err
			}
		}
		out[i] = up[row-from]
	}
	return out, nil
}

// lostID returns the ID of the parent of a row that has lost it.
func (p *pageReader) lostID(row int) (id telemetry.SpanID, err error) {
	v, err := p.view(codesOfParents)
	if err != nil {
		return id, err
	}
	if p.gone == nil {
		p.b.read += int64(p.lost.Size)
		gone, err := p.FetchOwn(p.b.mem, "lost parents", p.lost)
		if err != nil {
			return id, err
		}
		if n := v.Count(parentLost, 0, v.Len()); len(gone) != 8*n {
			return id, p.Bad("lost parents", "%d bytes for %d", len(gone), n)
		}
		p.gone = gone
	}
	if row -= p.base; row < p.lostRow {
		p.lostRow, p.lostN = 0, 0
	}
	p.lostN += v.Count(parentLost, p.lostRow, row) // mostly they are asked for in order
	p.lostRow = row
	return telemetry.SpanID(p.gone[8*p.lostN:]), nil
}

// Spans implements storage.TraceBlock.
func (b *Block) Spans(rows []int, cols storage.SpanColumns) (*storage.SpanBlock, error) {
	out := &storage.SpanBlock{}
	ids, err := b.Traces()
	if err != nil {
		return nil, err
	}
	first, err := b.First()
	if err != nil {
		return nil, err
	}
	starts, durs, err := b.times(rows)
	if err != nil {
		return nil, err
	}
	if out.SpanID, out.ParentID, err = b.spanIDs(rows); err != nil {
		return nil, err
	}
	out.TraceID = make([]telemetry.TraceID, len(rows))
	out.Start, out.Duration = make([]int64, len(rows)), make([]int64, len(rows))
	trace := 0
	for i, row := range rows {
		if row < int(first[trace]) || row >= int(first[trace+1]) {
			trace = sort.Search(len(ids), func(t int) bool { return int(first[t]) > row }) - 1
		}
		out.TraceID[i], out.Start[i], out.Duration[i] = ids[trace], starts[row], durs[row]
	}
	if err := b.s.dictionaries(out, cols); err != nil {
		return nil, err
	}
	size(out, len(rows), cols)
	for i, row := range rows {
		p := b.at(row)
		if err := p.fill(out, i, row-p.base, cols); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Segment) dictionaries(out *storage.SpanBlock, cols storage.SpanColumns) (err error) {
	if cols&storage.SpanResource != 0 {
		if out.Resources, err = s.Resources(); err != nil {
			return err
		}
	}
	if cols&storage.SpanScope != 0 {
		out.Scopes, err = s.Scopes()
	}
	return err
}

// size makes the columns of n rows.
func size(out *storage.SpanBlock, n int, cols storage.SpanColumns) {
	out.Kind, out.Status = make([]telemetry.SpanKind, n), make([]telemetry.StatusCode, n)
	if cols&storage.SpanResource != 0 {
		out.Resource = make([]uint32, n)
	}
	if cols&storage.SpanScope != 0 {
		out.Scope = make([]uint32, n)
	}
	if cols&storage.SpanNames != 0 {
		out.Name = make([]string, n)
	}
	if cols&storage.SpanAttrs != 0 {
		out.Attrs = make([]telemetry.Attrs, n)
	}
	if cols&storage.SpanEvents != 0 {
		out.Events = make([][]telemetry.Event, n)
	}
	if cols&storage.SpanLinks != 0 {
		out.Links = make([][]telemetry.Link, n)
	}
	if cols&storage.SpanMessages != 0 {
		out.StatusMessage, out.State, out.Flags, out.Dropped = make([]string, n), make([]string, n), make([]uint32, n), make([][3]uint32, n)
	}
}

// fill fills row i of out with a row of the page.
func (p *pageReader) fill(out *storage.SpanBlock, i, row int, cols storage.SpanColumns) error {
	if cols&storage.SpanResource != 0 {
		res, err := p.resources()
		if err != nil {
			return err
		}
		out.Resource[i] = res[row]
	}
	var attrs *telemetry.Attrs
	if cols&storage.SpanAttrs != 0 {
		attrs = &out.Attrs[i]
	}
	err := p.item(spans, row, attrs, func(field string, v telemetry.Value) {
		n := uint32(v.Int())
		switch field {
		case fieldName:
			if out.Name != nil {
				out.Name[i] = v.Str()
			}
		case fieldKind:
			out.Kind[i] = telemetry.SpanKind(n)
		case fieldStatus:
			out.Status[i] = telemetry.StatusCode(n)
		case fieldScope:
			if out.Scope != nil {
				out.Scope[i] = n
			}
		}
		if out.State == nil {
			return
		}
		switch field {
		case fieldMessage:
			out.StatusMessage[i] = v.Str()
		case fieldState:
			out.State[i] = v.Str()
		case fieldFlags:
			out.Flags[i] = n
		case fieldDropped:
			out.Dropped[i][0] = n
		case fieldEvents:
			out.Dropped[i][1] = n
		case fieldLinks:
			out.Dropped[i][2] = n
		}
	})
	if err != nil {
		return err
	}
	if out.Scope != nil && int(out.Scope[i]) >= len(out.Scopes) {
		return p.Bad("scopes", "scope %d of %d", out.Scope[i], len(out.Scopes))
	}
	if cols&storage.SpanEvents != 0 {
		if err := p.eventsOf(out, i, row); err != nil {
			return err
		}
	}
	if cols&storage.SpanLinks != 0 {
		return p.linksOf(out, i, row)
	}
	return nil
}

// item tells an item's fields, and fills attrs unless it is nil.
func (p *pageReader) item(f family, item int, attrs *telemetry.Attrs, field func(name string, v telemetry.Value)) error {
	tuple, err := p.tuple(f, item)
	if err != nil {
		return err
	}
	if p.sets[f] == nil {
		if p.sets[f], err = p.s.tuplesOf(f); err != nil {
			return err
		}
	}
	entries := p.sets[f].of(tuple)
	for n, e := range entries {
		k := uint32(e >> 32)
		m := &p.s.keys[k]
		if m.attr() {
			if attrs == nil {
				break // fields come first
			}
			if *attrs == nil {
				*attrs = make(telemetry.Attrs, 0, len(entries)-n)
			}
		}
		v, err := p.entry(k, uint32(e), item)
		if err != nil {
			return err
		}
		if m.attr() {
			*attrs = append(*attrs, telemetry.Attr{Key: m.name, Value: v})
		} else {
			field(m.name, v)
		}
	}
	return nil
}

// entry returns the value that code of key k stands for in an item.
func (p *pageReader) entry(k, code uint32, item int) (telemetry.Value, error) {
	if code != own {
		if p.vals == nil {
			p.vals = make([][]telemetry.Value, len(p.s.keys))
		}
		if p.vals[k] == nil {
			var err error
			if p.vals[k], err = p.s.values(k); err != nil {
				return telemetry.Value{}, err
			}
		}
		return p.vals[k][code], nil
	}
	c, err := p.column(k)
	if err != nil {
		return telemetry.Value{}, err
	}
	if c == nil {
		return telemetry.Value{}, p.Bad("columns", "the page has no column of key %q", p.s.keys[k].name)
	}
	v, err := p.value(c, item)
	return v, p.Corrupt("columns", err)
}

// span returns the items of a family that belong to a row.
func (p *pageReader) span(f family, row int) (from, to int, err error) {
	of, err := p.rowsOf(f)
	if err != nil {
		return 0, 0, err
	}
	from = sort.Search(len(of), func(i int) bool { return int(of[i]) >= row })
	for to = from; to < len(of) && int(of[to]) == row; to++ {
	}
	return from, to, nil
}

func (p *pageReader) eventsOf(out *storage.SpanBlock, i, row int) error {
	from, to, err := p.span(events, row)
	if err != nil || from == to {
		return err
	}
	if p.at == nil {
		if p.at, err = p.ints("times of events", p.times, p.items[events].n); err != nil {
			return err
		}
	}
	es := make([]telemetry.Event, to-from)
	for n := range es {
		e := &es[n]
		e.Time = p.at[from+n] + out.Start[i]
		err := p.item(events, from+n, &e.Attrs, func(field string, v telemetry.Value) {
			switch field {
			case fieldName:
				e.Name = v.Str()
			case fieldDropped:
				e.Dropped = uint32(v.Int())
			}
		})
		if err != nil {
			return err
		}
	}
	out.Events[i] = es
	return nil
}

func (p *pageReader) linksOf(out *storage.SpanBlock, i, row int) error {
	from, to, err := p.span(links, row)
	if err != nil || from == to {
		return err
	}
	if p.linkIDs == nil {
		if p.linkIDs, err = p.fixed("links", p.linked, p.items[links].n, linkSize); err != nil {
			return err
		}
	}
	ls := make([]telemetry.Link, to-from)
	for n := range ls {
		l := &ls[n]
		ids := p.linkIDs[(from+n)*linkSize:]
		l.TraceID, l.SpanID = telemetry.TraceID(ids), telemetry.SpanID(ids[16:])
		err := p.item(links, from+n, &l.Attrs, func(field string, v telemetry.Value) {
			switch field {
			case fieldState:
				l.State = v.Str()
			case fieldFlags:
				l.Flags = uint32(v.Int())
			case fieldDropped:
				l.Dropped = uint32(v.Int())
			}
		})
		if err != nil {
			return err
		}
	}
	out.Links[i] = ls
	return nil
}
