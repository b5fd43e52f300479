package columns

import (
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces/columns/piece"
)

// derived is what numbers of a dictionary (of resources, of scopes) say of a key: the distinct values, and the code of each number.
type derived struct {
	dict []telemetry.Value
	code []uint32 // absent for those that have none
}

// keyOf returns the key of the segment that holds a key of the contract as it is; ok is false for those that are made of others.
func keyOf(key storage.SpanKey) (k keyName, ok bool) {
	switch key.Scope {
	case storage.RecordScope:
		return keyName{spanAttr, key.Name}, true
	case storage.EventScope:
		return keyName{eventAttr, key.Name}, true
	case storage.LinkScope:
		return keyName{linkAttr, key.Name}, true
	case storage.FieldScope:
		switch key.Field {
		case storage.SpanName:
			return keyName{spanField, fieldName}, true
		case storage.SpanKindField:
			return keyName{spanField, fieldKind}, true
		case storage.SpanStatus:
			return keyName{spanField, fieldStatus}, true
		case storage.SpanStatusMessage:
			return keyName{spanField, fieldMessage}, true
		case storage.SpanState:
			return keyName{spanField, fieldState}, true
		case storage.EventName:
			return keyName{eventField, fieldName}, true
		default: // not kept as it is
		}
	default:
	}
	return keyName{}, false
}

// filled says whether a key has the empty text where tuples leave it out.
func (k keyName) filled() bool {
	return k.place == spanField && (k.name == fieldMessage || k.name == fieldState)
}

func noColumn() *storage.SpanColumn { return &storage.SpanColumn{Rows: []int32{}} }

// Column implements storage.TraceBlock.
func (b *Block) Column(key storage.SpanKey) (*storage.SpanColumn, error) {
	if c := b.cols[key]; c != nil {
		return c, nil
	}
	c, err := b.column(key)
	if err != nil {
		return nil, err
	}
	if b.cols == nil {
		b.cols = make(map[storage.SpanKey]*storage.SpanColumn)
	}
	b.cols[key] = c
	return c, nil
}

func (b *Block) column(key storage.SpanKey) (*storage.SpanColumn, error) {
	if k, ok := keyOf(key); ok {
		return b.keyColumn(k)
	}
	switch key.Scope {
	case storage.ResourceScope:
		return b.resourceColumn(key)
	case storage.InstrumentationScope:
		return b.scopeColumn(key)
	case storage.AnyScope:
		return anyColumn(b, b.info.Rows, key.Name)
	case storage.FieldScope:
		switch key.Field {
		case storage.ScopeName, storage.ScopeVersion:
			return b.scopeColumn(key)
		case storage.SpanParent, storage.SpanIDField:
			return b.idColumn(all(b.info.Rows), key.Field == storage.SpanParent)
		case storage.EventTime:
			return b.eventTimes()
		case storage.LinkTrace, storage.LinkSpan:
			return b.linkColumn(key.Field == storage.LinkTrace)
		default: // see keyOf
		}
	default:
	}
	return noColumn(), nil
}

// keyColumn returns the column of a key of the segment.
func (b *Block) keyColumn(name keyName) (*storage.SpanColumn, error) {
	k, ok := b.s.byName[name]
	if !ok {
		if name.filled() {
			return &storage.SpanColumn{Dict: []telemetry.Value{telemetry.String("")}, Code: b.mem.Zeros(b.info.Rows)}, nil
		}
		return noColumn(), nil
	}
	cols := make([]*storage.SpanColumn, 0, 1)
	err := b.each(func(p *pageReader) error {
		c, err := p.keyColumn(k, name)
		cols = append(cols, c)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b.merge(cols), nil
}

// keyColumn returns the column of a key in the page, with rows of the page.
func (p *pageReader) keyColumn(k uint32, name keyName) (*storage.SpanColumn, error) {
	f := name.family()
	c := &storage.SpanColumn{}
	own, err := p.column(k)
	if err != nil {
		return nil, err
	}
	if own != nil {
		if err := p.decode(own); err != nil {
			return nil, err
		}
		c.Ints, c.Dict, c.Code, c.Rows = own.ints, own.vals, own.code, own.at
	} else if err := p.gather(k, c); err != nil {
		return nil, err
	}
	if name.filled() && c.Rows != nil {
		if c.Ints != nil {
			return nil, p.Bad("columns", "field %q has integers", name.name)
		}
		return fill(c, p.info.Rows), nil
	}
	if f == spans {
		return c, nil
	}
	return c, p.toRows(f, c)
}

// toRows turns numbers of items into numbers of rows.
func (p *pageReader) toRows(f family, c *storage.SpanColumn) error {
	of, err := p.rowsOf(f)
	if err != nil {
		return err
	}
	if c.Rows == nil {
		c.Rows = of
		if of == nil {
			c.Rows = []int32{}
		}
		return nil
	}
	rows := p.b.mem.Rows.Get(len(c.Rows))
	for i, item := range c.Rows {
		rows[i] = of[item]
	}
	c.Rows = rows
	return nil
}

// fill adds the empty text for rows without a value.
func fill(c *storage.SpanColumn, rows int) *storage.SpanColumn {
	out := &storage.SpanColumn{Dict: append(slices.Clip(c.Dict), telemetry.String("")), Code: make([]uint32, rows)}
	for i := range out.Code {
		out.Code[i] = uint32(len(c.Dict))
	}
	for i, row := range c.Rows {
		out.Code[row] = c.Code[i]
	}
	return out
}

// gather fills a column with what the tuples of the page have of a key.
func (p *pageReader) gather(k uint32, c *storage.SpanColumn) error {
	l, err := p.s.lookup(k)
	if err != nil {
		return err
	}
	if c.Dict, err = p.s.values(k); err != nil {
		return err
	}
	f := p.s.keys[k].family()
	if f == spans {
		v, err := p.view(codesOfTuples)
		if err != nil {
			return err
		}
		return p.pickOf(v, l, c, p.s.keys[k].name)
	}
	tuples, err := p.tuples(f)
	if err != nil {
		return err
	}
	return p.pick(tuples, l, c, p.s.keys[k].name)
}

// pickOf is pick for codes as they lie.
func (p *pageReader) pickOf(v *piece.View, l []uint32, c *storage.SpanColumn, what string) error {
	c.Code = p.b.mem.Codes.Get(v.Len())
	if v.Map(l, c.Code) < absent {
		return nil
	}
	return p.present(c, what)
}

// pick fills a column with what dictionary l has for codes.
func (p *pageReader) pick(codes, l []uint32, c *storage.SpanColumn, what string) error {
	c.Code = p.b.mem.Codes.Get(len(codes))
	top := uint32(0)
	for i, t := range codes {
		v := l[t]
		c.Code[i] = v
		top = max(top, v)
	}
	if top < absent {
		return nil
	}
	return p.present(c, what)
}

// present leaves out the rows of a column that have no value.
func (p *pageReader) present(c *storage.SpanColumn, what string) error {
	rows := p.b.mem.Rows.Get(len(c.Code) + 1)
	n, wrong := 0, 0
	for i, v := range c.Code {
		c.Code[n], rows[n] = v, int32(i)
		if v != absent {
			n++
		}
		if v == own {
			wrong++
		}
	}
	if wrong > 0 {
		return p.Bad("columns", "the page has no column of key %q", what)
	}
	c.Code, c.Rows = c.Code[:n], rows[:n]
	return nil
}

// merge makes one column of those of the pages.
func (b *Block) merge(cols []*storage.SpanColumn) *storage.SpanColumn {
	if len(cols) == 1 {
		return cols[0]
	}
	out := &storage.SpanColumn{}
	ints, same, full := true, true, true
	var dict []telemetry.Value
	for _, c := range cols {
		full = full && c.Rows == nil
		if c.Len() == 0 {
			continue
		}
		ints = ints && c.Ints != nil
		if dict == nil {
			dict = c.Dict
		}
		same = same && c.Ints == nil && len(dict) == len(c.Dict) && &dict[0] == &c.Dict[0]
	}
	codes := make(map[telemetry.Value]uint32)
	for i, c := range cols {
		base := int32(b.pages[i].base)
		if !full {
			for n := range c.Len() {
				row := int32(n)
				if c.Rows != nil {
					row = c.Rows[n]
				}
				out.Rows = append(out.Rows, base+row)
			}
		}
		switch {
		case ints:
			out.Ints = append(out.Ints, c.Ints...)
		case same:
			out.Dict = dict
			out.Code = append(out.Code, c.Code...)
		default:
			for n := range c.Len() {
				v := c.Value(n)
				code, ok := codes[v]
				if !ok {
					code = uint32(len(out.Dict))
					codes[v] = code
					out.Dict = append(out.Dict, v)
				}
				out.Code = append(out.Code, code)
			}
		}
	}
	if !full && out.Rows == nil {
		out.Rows = []int32{}
	}
	return out
}

// derive returns what a dictionary of the segment says of a key, worked out once.
func (s *Segment) derive(key storage.SpanKey, n int, value func(i int) (telemetry.Value, bool)) *derived {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.derived[key]; d != nil {
		return d
	}
	d := &derived{code: make([]uint32, n)}
	codes := make(map[telemetry.Value]uint32)
	for i := range n {
		v, ok := value(i)
		if !ok {
			d.code[i] = absent
			continue
		}
		code, ok := codes[v]
		if !ok {
			code = uint32(len(d.dict))
			codes[v] = code
			d.dict = append(d.dict, v)
		}
		d.code[i] = code
	}
	s.derived[key] = d
	s.size.Add(int64(4*n + 32*len(d.dict) + 100))
	return d
}

// resourceValues returns the values of a key of resources.
func (s *Segment) resourceValues(key storage.SpanKey) (*derived, error) {
	res, err := s.Resources()
	if err != nil {
		return nil, err
	}
	return s.derive(key, len(res), func(i int) (telemetry.Value, bool) {
		if res[i] == nil {
			return telemetry.Value{}, false
		}
		return res[i].Attrs.Get(key.Name)
	}), nil
}

// scopeValues returns the values of a key or a field of scopes.
func (s *Segment) scopeValues(key storage.SpanKey) (*derived, error) {
	scopes, err := s.Scopes()
	if err != nil {
		return nil, err
	}
	return s.derive(key, len(scopes), func(i int) (v telemetry.Value, ok bool) {
		span := telemetry.Span{Scope: scopes[i]}
		key.Each(nil, &span, func(x telemetry.Value) { v, ok = x, true })
		return v, ok
	}), nil
}

func (b *Block) resourceColumn(key storage.SpanKey) (*storage.SpanColumn, error) {
	d, err := b.s.resourceValues(key)
	if err != nil {
		return nil, err
	}
	cols := make([]*storage.SpanColumn, 0, 1)
	err = b.each(func(p *pageReader) error {
		v, err := p.view(codesOfResources)
		if err != nil {
			return err
		}
		c := &storage.SpanColumn{Dict: d.dict}
		cols = append(cols, c)
		return p.pickOf(v, d.code, c, key.Name)
	})
	if err != nil {
		return nil, err
	}
	return b.merge(cols), nil
}

func (b *Block) scopeColumn(key storage.SpanKey) (*storage.SpanColumn, error) {
	d, err := b.s.scopeValues(key)
	if err != nil {
		return nil, err
	}
	k, ok := b.s.byName[keyName{spanField, fieldScope}]
	if !ok {
		return noColumn(), nil
	}
	cols := make([]*storage.SpanColumn, 0, 1)
	err = b.each(func(p *pageReader) error {
		numbers, err := p.scopes(k)
		if err != nil {
			return err
		}
		c := &storage.SpanColumn{Dict: d.dict}
		cols = append(cols, c)
		return p.pick(numbers, d.code, c, key.Name)
	})
	if err != nil {
		return nil, err
	}
	return b.merge(cols), nil
}

// scopes returns the number of each row's scope; k is the key that has it.
func (p *pageReader) scopes(k uint32) ([]uint32, error) {
	c, err := p.keyColumn(k, keyName{spanField, fieldScope})
	if err != nil {
		return nil, err
	}
	if c.Rows != nil || c.Ints != nil {
		return nil, p.Bad("scopes", "not each row has one")
	}
	of := make([]uint32, len(c.Dict))
	for i, v := range c.Dict {
		n := v.Int()
		if v.Kind() != telemetry.KindInt || n < 0 || n >= int64(p.s.scopeLen) {
			return nil, p.Bad("scopes", "scope %d of %d", n, p.s.scopeLen)
		}
		of[i] = uint32(n)
	}
	out := p.b.mem.Codes.Get(len(c.Code))
	for i, code := range c.Code {
		out[i] = of[code]
	}
	return out, nil
}

// anyColumn returns for each of a number of rows of a block the attribute of the span, else that of its scope, else that of its
// resource.
func anyColumn(b interface {
	Column(storage.SpanKey) (*storage.SpanColumn, error)
}, rows int, name string,
) (*storage.SpanColumn, error) {
	var cols [3]*storage.SpanColumn
	some := 0
	last := 0
	for i, scope := range []storage.AttrScope{storage.RecordScope, storage.InstrumentationScope, storage.ResourceScope} {
		c, err := b.Column(storage.SpanKey{Scope: scope, Name: name})
		if err != nil {
			return nil, err
		}
		if cols[i] = c; c.Len() > 0 {
			some, last = some+1, i
		}
		if c.Rows == nil {
			if some == 1 {
				return c, nil
			}
		}
	}
	if some < 2 {
		return cols[last], nil
	}
	at := make([]int32, rows) // value of each row, from 1
	from := make([]uint8, rows)
	for i, c := range cols {
		for n := range c.Len() {
			row := int32(n)
			if c.Rows != nil {
				row = c.Rows[n]
			}
			if at[row] == 0 {
				at[row], from[row] = int32(n)+1, uint8(i)
			}
		}
	}
	out := &storage.SpanColumn{}
	codes := make(map[telemetry.Value]uint32)
	for row, n := range at {
		if n == 0 {
			continue
		}
		v := cols[from[row]].Value(int(n - 1))
		code, ok := codes[v]
		if !ok {
			code = uint32(len(out.Dict))
			codes[v] = code
			out.Dict = append(out.Dict, v)
		}
		out.Code = append(out.Code, code)
		out.Rows = append(out.Rows, int32(row))
	}
	if len(out.Rows) == len(at) {
		out.Rows = nil
	}
	return out, nil
}

// all returns the numbers below n.
func all(n int) []int {
	rows := make([]int, n)
	for i := range rows {
		rows[i] = i
	}
	return rows
}

// idColumn returns the IDs of the spans of rows or of their parents in hexadecimal.
func (b *Block) idColumn(rows []int, parents bool) (*storage.SpanColumn, error) {
	ids, ups, err := b.spanIDs(rows)
	if err != nil {
		return nil, err
	}
	if parents {
		ids = ups
	}
	out := &storage.SpanColumn{}
	codes := make(map[telemetry.SpanID]uint32)
	for row, id := range ids {
		if parents && id.IsZero() {
			continue
		}
		code, ok := codes[id]
		if !ok {
			code = uint32(len(out.Dict))
			codes[id] = code
			out.Dict = append(out.Dict, telemetry.String(id.String()))
		}
		out.Code = append(out.Code, code)
		out.Rows = append(out.Rows, int32(row))
	}
	if len(out.Rows) == len(rows) {
		out.Rows = nil
	} else if out.Rows == nil {
		out.Rows = []int32{}
	}
	return out, nil
}

func (b *Block) eventTimes() (*storage.SpanColumn, error) {
	cols := make([]*storage.SpanColumn, 0, 1)
	err := b.each(func(p *pageReader) error {
		c := noColumn()
		cols = append(cols, c)
		if p.items[events].n == 0 {
			return nil
		}
		var err error
		if c.Ints, err = p.ints("times of events", p.times, p.items[events].n); err != nil {
			return err
		}
		c.Rows, err = p.rowsOf(events)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b.merge(cols), nil
}

func (b *Block) linkColumn(traces bool) (*storage.SpanColumn, error) {
	cols := make([]*storage.SpanColumn, 0, 1)
	err := b.each(func(p *pageReader) error {
		c := noColumn()
		cols = append(cols, c)
		n := p.items[links].n
		if n == 0 {
			return nil
		}
		raw, err := p.fixed("links", p.linked, n, linkSize)
		if err != nil {
			return err
		}
		codes := make(map[string]uint32)
		for ; len(raw) > 0; raw = raw[linkSize:] {
			text := ""
			if traces {
				text = telemetry.TraceID(raw[:16]).String()
			} else {
				text = telemetry.SpanID(raw[16:linkSize]).String()
			}
			code, ok := codes[text]
			if !ok {
				code = uint32(len(c.Dict))
				codes[text] = code
				c.Dict = append(c.Dict, telemetry.String(text))
			}
			c.Code = append(c.Code, code)
		}
		c.Rows, err = p.rowsOf(links)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b.merge(cols), nil
}

// linkSize is how many bytes the IDs of a link take.
const linkSize = 24
