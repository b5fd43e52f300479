package columns

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces/columns/piece"
)

// Block is whole traces of a segment, as storage.TraceBlock says; only Rest is for the caller to add. What it returns must not be
// changed, and stays as it is. It is for one goroutine at a time.
type Block struct {
	s      *Segment
	info   Info
	mem    *piece.Memory
	pages  []*pageReader
	first  []int32
	ids    []telemetry.TraceID
	starts []int64
	durs   []int64
	up     []int32
	read   int64
	keep   bool // codes go into the cache of the part
	cols   map[storage.SpanKey]*storage.SpanColumn
	copied *copier // what a merge needs
}

// Block returns block i. It reads nothing yet.
func (s *Segment) Block(i int) (*Block, error) { return s.block(i, &piece.Memory{}, false) }

// BlockIn is Block with the memory of a block that is not used any more: columns that it, and those before it in this memory,
// returned become those of the new one. Values and spans stay.
func (s *Segment) BlockIn(i int, m *piece.Memory) (*Block, error) {
	m.Reuse()
	return s.block(i, m, true)
}

func (s *Segment) block(i int, m *piece.Memory, keep bool) (*Block, error) {
	from, to := s.blocks[i].from, s.blocks[i].to
	all := &struct { // mostly one page
		Block
		first [1]*pageReader
		page  pageReader
	}{Block: Block{s: s, info: s.blocks[i].info, mem: m, keep: keep}}
	b := &all.Block
	b.pages = all.first[:0]
	rows := 0
	for n := from; n < to; n++ {
		p := &all.page
		if n > from {
			p = &pageReader{}
		}
		p.b, p.s, p.info, p.base = b, s, &s.pages[n], rows
		p.Source = piece.Source{Whole: s.in.Whole, Part: s.in.Part, Table: s.part.pages, Block: s.first + n, Head: int64(s.pages[n].head)}
		b.pages = append(b.pages, p)
		rows += s.pages[n].Rows
	}
	return b, nil
}

// Bytes returns how many bytes of the file were read so far.
func (b *Block) Bytes() int64 { return b.read }

// Len implements storage.TraceBlock.
func (b *Block) Len() int { return b.info.Rows }

// Bounds implements storage.TraceBlock.
func (b *Block) Bounds() (lo, hi int64) { return b.info.Lo, b.info.Hi }

// pageReader reads one page.
type pageReader struct {
	piece.Source
	b    *Block
	s    *Segment
	info *pageInfo
	base int // row of the block that is its first one

	*pageHead // nil before it is read
	items     [families]itemReader
	own       []keyRows // the columns of the head, once one is asked for
	ownAt     []uint16  // by key, the place in own and 1; 0 for none

	views [codesOfParents + 1]piece.View

	lengths []int64
	begun   []int64 // starts of some rows, the first ones
	some    []int64 // durations of the rows of someOf
	someOf  []uint64

	spans []byte // span IDs, once read
	gone  []byte // IDs of lost parents
	lostN int    // of rows before lostRow
	resOf []uint32

	lostRow int
	at      []int64
	linkIDs []byte
	vals    [][]telemetry.Value // dictionaries of keys
	sets    [families]*tupleSet
}

// itemReader is the items of a family in a page.
type itemReader struct {
	itemHead

	of    []int32 // rows, once read
	codes []uint32
}

// keyRows is the column of a key in a page.
type keyRows struct {
	keyHead

	found bool
	at    []int32 // items that have it; nil when all do
	next  int     // of at, to be asked for next
	ints  []int64
	raw   []byte            // of formStrings, once read
	vals  []telemetry.Value // distinct ones; of formCodes the segment's
	code  []uint32          // nil with ints
}

func (p *pageReader) piece(what string, r piece.Ref) ([]byte, error) {
	p.b.read += int64(r.Size)
	return p.Fetch(what, r)
}

// fleeting is piece for what is not used after the next call.
func (p *pageReader) fleeting(what string, r piece.Ref) ([]byte, error) {
	p.b.read += int64(r.Size)
	return p.FetchIn(p.b.mem, what, r)
}

// fixed reads n things of width bytes.
func (p *pageReader) fixed(what string, r piece.Ref, n, width int) ([]byte, error) {
	raw, err := p.piece(what, r)
	if err == nil && len(raw) != n*width {
		return nil, p.Bad(what, "%d bytes, want %d", len(raw), n*width)
	}
	return raw, err
}

// lasting reads a number of bytes into the memory of the block.
func (p *pageReader) lasting(what string, r piece.Ref, size int) ([]byte, error) {
	p.b.read += int64(r.Size)
	b, err := p.FetchOwn(p.b.mem, what, r)
	if err == nil && len(b) != size {
		return nil, p.Bad(what, "%d bytes, want %d", len(b), size)
	}
	return b, err
}

func (p *pageReader) ints(what string, r piece.Ref, n int) ([]int64, error) {
	raw, err := p.fleeting(what, r)
	if err != nil {
		return nil, err
	}
	ns, err := piece.Ints(p.b.mem, raw, n)
	return ns, p.Corrupt(what, err)
}

func (p *pageReader) codes(what string, r piece.Ref, n int, limit int) ([]uint32, error) {
	raw, err := p.fleeting(what, r)
	if err != nil {
		return nil, err
	}
	cs, err := piece.Codes(p.b.mem, raw, n, uint32(limit))
	return cs, p.Corrupt(what, err)
}

// view returns codes of each row. It loads nothing else if it has them.
func (p *pageReader) view(what codesOf) (*piece.View, error) {
	v := &p.views[what]
	if v.Len() > 0 {
		return v, nil
	}
	key := cacheKey{p.s.part.number, uint32(p.Block), what}
	if c, ok := p.s.part.cache.get(key); ok {
		*v = c.view
		return v, nil
	}
	if err := p.load(); err != nil {
		return nil, err
	}
	var r piece.Ref
	var name string
	limit := 0
	switch what {
	case codesOfTuples:
		name, r, limit = "tuples", p.items[spans].tuples, p.s.tupleLen[spans]
	case codesOfResources:
		name, r, limit = "resources", p.res, p.s.resLen
	case codesOfParents:
		name, r, limit = "parents", p.parents, p.b.info.Rows+parentUp
	default: // no codes
	}
	p.b.read += int64(r.Size)
	raw, err := p.FetchOwn(p.b.mem, name, r)
	if err != nil {
		return nil, err
	}
	if *v, err = piece.ViewOf(p.b.mem, raw, p.info.Rows, uint32(limit)); err != nil {
		return nil, p.Corrupt(name, err)
	}
	if p.b.keep && p.s.part.cache.admits(v.Size()) {
		p.s.part.cache.put(key, cached{view: v.Clone()}, v.Size())
	}
	return v, nil
}

// viewed returns codes of each row.
func (p *pageReader) viewed(what codesOf) ([]uint32, error) {
	v, err := p.view(what)
	if err != nil {
		return nil, err
	}
	out := p.b.mem.Codes.Get(v.Len())
	v.Read(out)
	return out, nil
}

// each calls f with every page, once its head was read.
func (b *Block) each(f func(p *pageReader) error) error {
	for _, p := range b.pages {
		if err := p.load(); err != nil {
			return err
		}
		if err := f(p); err != nil {
			return err
		}
	}
	return nil
}

// join returns the columns of all pages as one.
func join[T any](b *Block, f func(p *pageReader) ([]T, error)) ([]T, error) {
	var out []T
	err := b.each(func(p *pageReader) error {
		some, err := f(p)
		if len(b.pages) == 1 {
			out = some
		} else {
			out = append(out, some...)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Starts implements storage.TraceBlock.
func (b *Block) Starts() (starts []int64, err error) {
	if b.starts == nil {
		b.starts, err = join(b, func(p *pageReader) ([]int64, error) { return p.ints("starts", p.starts, p.info.Rows) })
	}
	return b.starts, err
}

// Durations implements storage.TraceBlock.
func (b *Block) Durations() (durs []int64, err error) {
	if b.durs == nil {
		b.durs, err = join(b, (*pageReader).durations)
	}
	return b.durs, err
}

func (p *pageReader) durations() (_ []int64, err error) {
	if p.lengths == nil {
		if err = p.load(); err == nil {
			p.lengths, err = p.ints("durations", p.durs, p.info.Rows)
		}
	}
	return p.lengths, err
}

// DurationsOf is storage.DurationsOf.
func (b *Block) DurationsOf(set []uint64) ([]int64, error) {
	if b.durs != nil || len(b.pages) > 1 {
		return b.Durations()
	}
	return b.pages[0].durationsOf(set)
}

// durationsOf returns the durations of the rows of a set; what it returns for others is not defined.
func (p *pageReader) durationsOf(set []uint64) ([]int64, error) {
	if p.lengths != nil {
		return p.lengths, nil
	}
	if p.some != nil && len(p.someOf) == len(set) {
		more := uint64(0)
		for i, x := range set {
			more |= x &^ p.someOf[i]
		}
		if more == 0 {
			return p.some, nil
		}
	}
	if err := p.load(); err != nil {
		return nil, err
	}
	raw, err := p.fleeting("durations", p.durs)
	if err != nil {
		return nil, err
	}
	if p.some, err = piece.Some(p.b.mem, raw, p.info.Rows, set); err != nil {
		return nil, p.Corrupt("durations", err)
	}
	p.someOf = p.b.mem.Sets.Get(len(set))
	copy(p.someOf, set)
	return p.some, nil
}

// startsUntil returns the starts of the rows below n, and maybe of others.
func (b *Block) startsUntil(n int) ([]int64, error) {
	if b.starts != nil || len(b.pages) > 1 {
		return b.Starts()
	}
	p := b.pages[0]
	if len(p.begun) >= n {
		return p.begun, nil
	}
	if err := p.load(); err != nil {
		return nil, err
	}
	raw, err := p.fleeting("starts", p.starts)
	if err != nil {
		return nil, err
	}
	p.begun, err = piece.Until(b.mem, raw, p.info.Rows, n)
	return p.begun, p.Corrupt("starts", err)
}

// times returns the starts and the durations of some rows, which may be those of others, too.
func (b *Block) times(rows []int) (starts, durs []int64, err error) {
	if len(rows) > b.info.Rows/4 {
		if starts, err = b.Starts(); err != nil {
			return nil, nil, err
		}
		durs, err = b.Durations()
		return starts, durs, err
	}
	last := 0
	set := b.mem.Sets.Get((b.info.Rows + 63) / 64)
	clear(set)
	for _, row := range rows {
		last = max(last, row)
		set[row>>6] |= 1 << (row & 63)
	}
	if starts, err = b.startsUntil(last + 1); err != nil {
		return nil, nil, err
	}
	durs, err = b.DurationsOf(set)
	return starts, durs, err
}

// Parents implements storage.TraceBlock.
func (b *Block) Parents() ([]int32, error) {
	if b.up != nil {
		return b.up, nil
	}
	first, err := b.First()
	if err != nil {
		return nil, err
	}
	up := b.mem.Rows.Get(b.info.Rows)
	var chain []int32 // the last row and its ancestors
	depth := 0
	err = b.each(func(p *pageReader) error {
		codes, err := p.viewed(codesOfParents)
		if err != nil {
			return err
		}
		for i, c := range codes {
			if c >= parentUp {
				depth -= int(c) - parentUp
				if depth <= 0 {
					return p.Bad("parents", "row %d has no such ancestor", p.base+i)
				}
				up[p.base+i] = chain[depth-1]
			} else {
				depth = 0
				up[p.base+i] = storage.NoParent - int32(c)
			}
			if depth == len(chain) {
				chain = append(chain, 0)
			}
			chain[depth] = int32(p.base + i)
			depth++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, row := range first[:len(first)-1] {
		if up[row] >= 0 {
			return nil, b.at(int(row)).Bad("parents", "row %d begins a trace and has a parent", row)
		}
	}
	b.up = up
	return up, nil
}

// resources returns the number of each row's resource.
func (p *pageReader) resources() (res []uint32, err error) {
	if p.resOf == nil {
		p.resOf, err = p.viewed(codesOfResources)
	}
	return p.resOf, err
}

// tuples returns the number of the tuple of each item of a family.
func (p *pageReader) tuples(f family) (codes []uint32, err error) {
	it := &p.items[f]
	if it.codes == nil && f == spans {
		it.codes, err = p.viewed(codesOfTuples)
	} else if it.codes == nil {
		it.codes, err = p.codes("tuples", it.tuples, it.n, p.s.tupleLen[f])
	}
	return it.codes, err
}

// tuple returns the number of the tuple of an item.
func (p *pageReader) tuple(f family, item int) (uint32, error) {
	if f == spans && p.items[f].codes == nil {
		v, err := p.view(codesOfTuples)
		if err != nil {
			return 0, err
		}
		return v.At(item), nil
	}
	codes, err := p.tuples(f)
	if err != nil {
		return 0, err
	}
	return codes[item], nil
}

// rowsOf returns the row, in the page, of each item of a family, ascending.
func (p *pageReader) rowsOf(f family) ([]int32, error) {
	it := &p.items[f]
	if it.of != nil || it.n == 0 {
		return it.of, nil
	}
	ns, err := p.ints("rows", it.rows, it.n)
	if err != nil {
		return nil, err
	}
	of := p.b.mem.Rows.Get(len(ns))
	last := int64(0)
	for i, n := range ns {
		if n < last || n >= int64(p.info.Rows) {
			return nil, p.Bad("rows", "row %d of %d after %d", n, p.info.Rows, last)
		}
		of[i], last = int32(n), n
	}
	it.of = of
	return of, nil
}

// column returns the column of a key, nil when it has none in the page. It is found, but not decoded.
func (p *pageReader) column(key uint32) (*keyRows, error) {
	if p.ownAt == nil {
		p.ownAt, p.own = make([]uint16, len(p.s.keys)), make([]keyRows, len(p.columns))
		for i, k := range p.columns {
			p.ownAt[k.key], p.own[i].keyHead = uint16(i+1), k
		}
	}
	if p.ownAt[key] == 0 {
		return nil, nil
	}
	k := &p.own[p.ownAt[key]-1]
	if k.found {
		return k, nil
	}
	l, err := p.s.lookup(key)
	if err != nil {
		return nil, err
	}
	codes, err := p.tuples(p.s.keys[key].family())
	if err != nil {
		return nil, err
	}
	at := p.b.mem.Rows.Get(len(codes) + 1)
	n, wrong := 0, 0
	for i, c := range codes {
		at[n] = int32(i)
		if l[c] == own {
			n++
		}
		if l[c] < absent {
			wrong++
		}
	}
	if n != k.n || wrong > 0 {
		return nil, p.Bad("columns", "key %q has %d values, want %d, and %d values in tuples", p.s.keys[key].name, k.n, n, wrong)
	}
	if n < len(codes) {
		k.at = at[:n]
	}
	k.found = true
	return k, nil
}

// decode reads the values of a column.
func (p *pageReader) decode(k *keyRows) error {
	if k.ints != nil || k.code != nil {
		return nil
	}
	name := p.s.keys[k.key].name
	if k.form == formInts {
		ints, err := p.ints(name, k.data, k.n)
		k.ints = ints
		return err
	}
	if k.form == formCodes {
		vals, err := p.s.values(k.key)
		if err != nil {
			return err
		}
		code, err := p.codes(name, k.codes, k.n, len(vals))
		k.vals, k.code = vals, code
		return err
	}
	raw, err := p.texts(k)
	if err != nil {
		return err
	}
	raw = bytes.Clone(raw) // values are kept
	var vals []telemetry.Value
	if k.form == formStrings {
		ss, err := piece.Texts(raw, k.distinct)
		if err != nil {
			return p.Corrupt(name, err)
		}
		vals = make([]telemetry.Value, len(ss))
		for i, s := range ss {
			vals[i] = telemetry.String(s)
		}
	} else if vals, err = piece.Values(raw, k.distinct); err != nil {
		return p.Corrupt(name, err)
	}
	if k.distinct == k.n {
		code := p.b.mem.Codes.Get(k.n)
		for i := range code {
			code[i] = uint32(i)
		}
		k.vals, k.code = vals, code
		return wantNoCodes(p, name, k)
	}
	code, err := p.codes(name, k.codes, k.n, k.distinct)
	k.vals, k.code = vals, code
	return err
}

// texts reads the distinct values of a column into the memory of the block.
func (p *pageReader) texts(k *keyRows) (_ []byte, err error) {
	if k.raw == nil {
		p.b.read += int64(k.data.Size)
		k.raw, err = p.FetchOwn(p.b.mem, p.s.keys[k.key].name, k.data)
	}
	return k.raw, err
}

func wantNoCodes(p *pageReader, name string, k *keyRows) error {
	if k.codes.Size > 0 && k.form == formStrings {
		return p.Bad(name, "codes of distinct values")
	}
	return nil
}

// value returns the value of an item, if its tuple says that it has one there.
func (p *pageReader) value(k *keyRows, item int) (telemetry.Value, error) {
	i := item
	if k.at != nil {
		i = k.next // mostly they are asked for in order
		if i >= len(k.at) || int(k.at[i]) != item {
			var ok bool
			if i, ok = slices.BinarySearch(k.at, int32(item)); !ok {
				return telemetry.Value{}, fmt.Errorf("item %d has no value", item)
			}
		}
		k.next = i + 1
	}
	if err := p.decode(k); err != nil {
		return telemetry.Value{}, err
	}
	if k.ints != nil {
		return telemetry.Int(k.ints[i]), nil
	}
	return k.vals[k.code[i]], nil
}

// Memory is what blocks are decoded into, one after the other: see Segment.BlockIn. Its zero value is ready.
type Memory = piece.Memory

// Memories are what blocks were decoded into, kept for the reads to come as long as the garbage collector lets them. Its zero
// value is ready, and safe for concurrent use.
type Memories struct{ pool sync.Pool }

// Take returns a memory that nobody else uses.
func (m *Memories) Take() *Memory {
	if in, ok := m.pool.Get().(*Memory); ok {
		return in
	}
	return &Memory{}
}

// Give takes back a memory: what was decoded into it is not used any more.
func (m *Memories) Give(in *Memory) { m.pool.Put(in) }
