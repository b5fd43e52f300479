package columns

import (
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/traces/columns/piece"
)

// pageHead is where the pieces of a page lie. It does not change.
type pageHead struct {
	ids      piece.Ref
	counts   piece.Ref
	spanIDs  piece.Ref
	parents  piece.Ref
	lost     piece.Ref
	starts   piece.Ref
	durs     piece.Ref
	res      piece.Ref
	families [families]itemHead
	times    piece.Ref // of events
	linked   piece.Ref
	columns  []keyHead // by key

	// What nearly all who read a page want, of a page that is kept: see Block.First and Block.Traces. Else nil.
	first  []int32
	traces []telemetry.TraceID
}

// itemHead is the items of a family in a page.
type itemHead struct {
	n      int
	rows   piece.Ref // of events and links
	tuples piece.Ref
}

// keyHead is where the column of a key in a page lies.
type keyHead struct {
	key      uint32
	form     byte
	n        int
	distinct int
	data     piece.Ref
	codes    piece.Ref
}

// size returns about how many bytes of memory a head that is kept holds.
func (h *pageHead) size(info *pageInfo) int64 {
	return 700 + 96*int64(len(h.columns)) + 20*int64(info.Traces)
}

// load reads the head.
func (p *pageReader) load() error {
	if p.pageHead != nil {
		return nil
	}
	key := cacheKey{p.s.part.number, uint32(p.Block), headOfPage}
	if c, ok := p.s.part.cache.get(key); ok {
		p.start(c.head)
		return nil
	}
	h, err := p.Begin(p.b.mem, int64(min(17*p.info.Traces+32, 1<<16))) // mostly with the IDs of traces and their rows
	if err != nil {
		return err
	}
	p.b.read += p.Head
	if !p.Whole(h, p.info.crc) {
		return p.Bad("head", "the checksum does not match")
	}
	d := telemetry.NewDecoderBytes(h)
	o := &pageHead{}
	p.readHead(d, o)
	if d.Err() == nil && d.Len() > 0 {
		d.Fail("%d bytes too many", d.Len())
	}
	if d.Err() != nil {
		return p.Corrupt("head", d.Err())
	}
	p.start(o)
	if !p.b.keep || len(p.b.pages) > 1 || !p.s.part.cache.admits(o.size(p.info)) {
		return nil
	}
	if o.first, err = p.b.readFirst(make([]int32, 0, p.info.Traces+1)); err != nil {
		return err
	}
	if o.traces, err = p.b.readTraces(make([]telemetry.TraceID, 0, p.info.Traces)); err != nil {
		return err
	}
	p.s.part.cache.put(key, cached{head: o}, o.size(p.info))
	return nil
}

// start makes the reader one of a page with a head.
func (p *pageReader) start(h *pageHead) {
	p.pageHead = h
	for f := range p.items {
		p.items[f].itemHead = h.families[f]
	}
}

func (p *pageReader) readHead(d *telemetry.Decoder, h *pageHead) {
	rows, traces := d.Uvarint(), d.Uvarint()
	if rows != uint64(p.info.Rows) || traces != uint64(p.info.Traces) {
		d.Fail("%d rows and %d traces, want %d and %d", rows, traces, p.info.Rows, p.info.Traces)
		return
	}
	off := int64(0)
	for _, r := range []*piece.Ref{&h.ids, &h.counts, &h.spanIDs, &h.parents, &h.lost, &h.starts, &h.durs, &h.res} {
		*r = piece.ReadRef(d, &off)
	}
	h.families[spans] = itemHead{n: int(rows), tuples: piece.ReadRef(d, &off)}
	for _, f := range []family{events, links} {
		n := d.Uvarint()
		if n == 0 {
			continue
		}
		it := itemHead{rows: piece.ReadRef(d, &off), tuples: piece.ReadRef(d, &off)}
		// As many as the rows of the items can tell, which are not compressed: more would be no page.
		if it.rows.Raw != 0 || n > uint64(128*(it.rows.Size+2)) {
			d.Fail("%d events or links in %d bytes", n, it.rows.Size)
			return
		}
		it.n = int(n)
		h.families[f] = it
		if f == events {
			h.times = piece.ReadRef(d, &off)
		} else {
			h.linked = piece.ReadRef(d, &off)
		}
	}
	n := d.Count(8)
	h.columns = make([]keyHead, 0, n)
	for i := 0; i < n && d.Err() == nil; i++ {
		key, form, size := d.Uvarint(), d.Byte(), d.Uvarint()
		if key >= uint64(len(p.s.keys)) || i > 0 && key <= uint64(h.columns[i-1].key) {
			d.Fail("a column of key %d", key)
			return
		}
		k := keyHead{key: uint32(key), form: form}
		if top := h.families[p.s.keys[key].family()].n; size == 0 || size > uint64(top) {
			d.Fail("%d values of key %d for %d", size, key, top)
			return
		}
		k.n = int(size)
		switch form {
		case formInts:
			k.data = piece.ReadRef(d, &off)
		case formCodes:
			k.codes = piece.ReadRef(d, &off)
		case formStrings, formValues:
			distinct := d.Uvarint()
			if distinct == 0 || distinct > size {
				d.Fail("%d distinct values of %d", distinct, size)
				return
			}
			k.distinct = int(distinct)
			k.data = piece.ReadRef(d, &off)
			k.codes = piece.ReadRef(d, &off)
		default:
			d.Fail("unknown form %d of a column", form)
			return
		}
		h.columns = append(h.columns, k)
	}
}

// First implements storage.TraceBlock.
func (b *Block) First() ([]int32, error) {
	if b.first != nil {
		return b.first, nil
	}
	if p := b.pages[0]; len(b.pages) == 1 {
		if err := p.load(); err != nil {
			return nil, err
		}
		if b.first = p.first; b.first != nil {
			return b.first, nil
		}
	}
	var err error
	b.first, err = b.readFirst(b.mem.Rows.Get(b.info.Traces + 1)[:0])
	return b.first, err
}

// readFirst appends the first row of each trace.
func (b *Block) readFirst(first []int32) ([]int32, error) {
	for _, p := range b.pages {
		if err := p.load(); err != nil {
			return nil, err
		}
		counts, err := p.ints("traces", p.counts, p.info.Traces)
		if err != nil {
			return nil, err
		}
		at := int64(p.base)
		for i, n := range counts {
			if i > 0 || !p.info.continued {
				first = append(first, int32(at))
			}
			if n <= 0 || n > int64(p.base+p.info.Rows)-at {
				return nil, p.Bad("traces", "a trace of %d rows at row %d", n, at)
			}
			at += n
		}
		if at != int64(p.base+p.info.Rows) {
			return nil, p.Bad("traces", "traces of %d rows, want %d", at-int64(p.base), p.info.Rows)
		}
	}
	return append(first, int32(b.info.Rows)), nil
}

// Traces implements storage.TraceBlock.
func (b *Block) Traces() ([]telemetry.TraceID, error) {
	if b.ids != nil {
		return b.ids, nil
	}
	if p := b.pages[0]; len(b.pages) == 1 {
		if err := p.load(); err != nil {
			return nil, err
		}
		if b.ids = p.traces; b.ids != nil {
			return b.ids, nil
		}
	}
	var err error
	b.ids, err = b.readTraces(b.mem.IDs.Get(b.info.Traces)[:0])
	return b.ids, err
}

// readTraces appends the ID of each trace.
func (b *Block) readTraces(ids []telemetry.TraceID) ([]telemetry.TraceID, error) {
	for _, p := range b.pages {
		if err := p.load(); err != nil {
			return nil, err
		}
		raw, err := p.fleeting("trace IDs", p.ids)
		if err == nil && len(raw) != 16*p.info.Traces {
			err = p.Bad("trace IDs", "%d bytes, want %d", len(raw), 16*p.info.Traces)
		}
		if err != nil {
			return nil, err
		}
		if p.info.continued {
			if ids[len(ids)-1] != telemetry.TraceID(raw[:16]) {
				return nil, p.Bad("trace IDs", "the page does not go on with the trace before")
			}
			raw = raw[16:]
		}
		for ; len(raw) > 0; raw = raw[16:] {
			ids = append(ids, telemetry.TraceID(raw[:16]))
		}
	}
	return ids, nil
}
