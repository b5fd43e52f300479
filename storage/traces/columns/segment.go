package columns

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces/columns/piece"
)

// Info says what some rows span.
type Info struct {
	Rows, Traces int
	Start        int64 // smallest start of a row, which is that of the first trace
	LastStart    int64 // largest start of a row
	LastFirst    int64 // no trace starts after it: the first start of the last trace
	Lo, Hi       int64 // all rows start and end between these
}

// Part is the segments of a part. It is safe for concurrent use.
type Part struct {
	whole           func(b []byte, crc uint32) bool // that is its checksum
	p               *part.Part
	pages, segments *part.Table
	list            []segmentInfo
	cache           *Cache // may be nil
	number          uint32 // in it
}

// segmentInfo is what the footer says of a segment.
type segmentInfo struct {
	Info
	first, pages int // blocks of table "pages"
	head         int // bytes
	crc          uint32
	filter       piece.FilterShape
	filterAt     int64
}

// Has says whether p has traces in the layout of this package.
func Has(p *part.Part) bool { return p.Table(tableSegments).Blocks() > 0 }

// Open checks that p is what a Writer wrote, as far as the footer tells.
func Open(p *part.Part) (*Part, error) {
	out := &Part{whole: piece.Whole, p: p, pages: p.Table(tablePages), segments: p.Table(tableSegments)}
	for _, t := range []*part.Table{out.pages, out.segments} {
		if err := t.Check(schema("").Columns); err != nil {
			return nil, err
		}
	}
	at := 0
	for i := range out.segments.Blocks() {
		lo, hi := out.segments.Limits(i)
		d := telemetry.NewDecoder(lo)
		g := segmentInfo{Info: readInfo(d), first: at}
		if d.Err() == nil && d.Len() > 0 {
			d.Fail("%d bytes too many", d.Len())
		}
		if d.Err() != nil {
			return nil, out.segments.Corrupt("blob", i, "segment %d: %v", i, d.Err())
		}
		d = telemetry.NewDecoder(hi)
		pages, head := d.Uvarint(), d.Uvarint()
		if s := d.Take(4); s != "" {
			g.crc = binary.LittleEndian.Uint32([]byte(s))
		}
		filterAt, slots, pieces := d.Uvarint(), d.Uvarint(), d.Uvarint()
		if slots == 0 || slots > piece.MaxFilterPiece || pieces == 0 || pieces > part.MaxBlockBytes/64 || filterAt > part.MaxBlockBytes {
			d.Fail("a filter of %d pieces with %d slots at %d", pieces, slots, filterAt)
		}
		if d.Err() == nil && (d.Len() > 0 || pages == 0 || pages > MaxBlocks || int(pages) > out.pages.Blocks()-at || head > part.MaxBlockBytes) {
			d.Fail("%d pages of %d, a head of %d bytes", pages, out.pages.Blocks()-at, head)
		}
		if d.Err() != nil {
			return nil, out.segments.Corrupt("blob", i, "segment %d: %v", i, d.Err())
		}
		g.pages, g.head, g.filterAt = int(pages), int(head), int64(filterAt)
		g.filter = piece.FilterShape{Width: (g.pages + 7) / 8, Slots: int(slots), Pieces: int(pieces)}
		rows := 0
		for n := range g.pages {
			rows += out.pages.BlockRows(at + n)
		}
		if rows != g.Rows {
			return nil, out.segments.Corrupt("blob", i, "segment %d has %d rows, want %d", i, rows, g.Rows)
		}
		at += g.pages
		out.list = append(out.list, g)
	}
	if at != out.pages.Blocks() {
		return nil, out.segments.Corrupt("blob", 0, "segments have %d pages of %d", at, out.pages.Blocks())
	}
	return out, nil
}

// Len returns the number of segments.
func (p *Part) Len() int { return len(p.list) }

// Info says what segment i spans, without reading it.
func (p *Part) Info(i int) Info { return p.list[i].Info }

// Segment is whole traces in the order of their first starts, then IDs. It is safe for concurrent use.
type Segment struct {
	in     piece.Source
	part   *Part
	number int
	first  int // block of table "pages" that is the first page
	info   Info
	pages  []pageInfo
	blocks []block

	keys     []keyMeta
	byName   map[keyName]uint32
	tupleRef [families]piece.Ref
	tupleLen [families]int
	resRef   piece.Ref
	resMasks piece.Ref
	resLen   int
	scopeRef piece.Ref
	scopeLen int
	order    piece.Ref

	size atomic.Int64

	mu      sync.Mutex // guards what is loaded and kept, below
	tuples  [families]*tupleSet
	vals    map[uint32][]telemetry.Value
	lookups map[uint32][]uint32
	res     []*telemetry.Resource
	masks   []uint64 // pages that have each resource
	scopes  []*telemetry.Scope
	derived map[storage.SpanKey]*derived
}

// block is pages that belong together.
type block struct {
	from, to int // pages
	info     Info
}

// keyMeta is a key of the segment.
type keyMeta struct {
	place
	name      string
	tupled    uint64 // pages that have it in tuples
	columned  uint64 // pages that have a column of it
	anywhere  uint64 // pages with values that are not in the dictionary
	unindexed uint64 // pages with values that the filter does not know
	lo, hi    int64  // of integers that are not in the dictionary
	n         int    // values in the dictionary
	ref       piece.Ref
}

// tupleSet is the tuples of a family.
type tupleSet struct {
	entries []uint64
	ends    []int32
	masks   []uint64 // pages that have each
}

func (t *tupleSet) of(i uint32) []uint64 {
	from := int32(0)
	if i > 0 {
		from = t.ends[i-1]
	}
	return t.entries[from:t.ends[i]]
}

func (t *tupleSet) len() int { return len(t.ends) }

// Segment reads the head of segment i. What it loads later on stays with it: see Size.
func (p *Part) Segment(i int) (*Segment, error) {
	g := &p.list[i]
	s := &Segment{
		part: p, number: i, first: g.first, info: g.Info, byName: make(map[keyName]uint32),
		in:   piece.Source{Whole: p.whole, Part: p.p, Table: p.segments, Block: i, Head: int64(g.head)},
		vals: make(map[uint32][]telemetry.Value), lookups: make(map[uint32][]uint32), derived: make(map[storage.SpanKey]*derived),
	}
	b, err := p.segments.Piece(nil, i, 0, int64(g.head))
	if err != nil {
		return nil, err
	}
	if !p.whole(b, g.crc) {
		return nil, s.in.Bad("head", "the checksum does not match")
	}
	d := telemetry.NewDecoderBytes(b)
	s.readHead(d, g)
	if d.Err() == nil && d.Len() > 0 {
		d.Fail("%d bytes too many", d.Len())
	}
	if d.Err() != nil {
		return nil, s.in.Corrupt("head", d.Err())
	}
	s.size.Store(int64(len(b)) + 600 + int64(160*len(s.keys)+120*len(s.pages)))
	return s, nil
}

func (s *Segment) readHead(d *telemetry.Decoder, g *segmentInfo) {
	if v := d.Byte(); d.Err() == nil && v != version {
		d.Fail("a segment of version %d, this program reads %d", v, version)
		return
	}
	s.readPages(d, g)
	off := int64(0)
	n := d.Count(9)
	s.keys = make([]keyMeta, 0, n)
	for i := 0; i < n && d.Err() == nil; i++ {
		k := keyMeta{place: place(d.Byte()), name: d.Str(), tupled: d.Uvarint(), columned: d.Uvarint(), anywhere: d.Uvarint(), unindexed: d.Uvarint(), lo: d.Varint(), hi: d.Varint()}
		k.n = s.count(d)
		if k.n > 0 {
			k.ref = piece.ReadRef(d, &off)
		}
		if k.place < spanField || k.place > linkAttr {
			d.Fail("key %q of place %d", k.name, k.place)
			return
		}
		name := keyName{k.place, k.name}
		if _, ok := s.byName[name]; ok {
			d.Fail("key %q comes twice", k.name)
			return
		}
		s.byName[name] = uint32(i)
		s.keys = append(s.keys, k)
	}
	for f := range s.tupleRef {
		if s.tupleLen[f] = s.count(d); s.tupleLen[f] > 0 {
			s.tupleRef[f] = piece.ReadRef(d, &off)
		}
	}
	s.resLen = s.count(d)
	s.resRef, s.resMasks = piece.ReadRef(d, &off), piece.ReadRef(d, &off)
	s.scopeLen = s.count(d)
	s.scopeRef = piece.ReadRef(d, &off)
	s.order = piece.ReadRef(d, &off)
}

// count reads a number of things of the segment.
func (s *Segment) count(d *telemetry.Decoder) int {
	n := d.Uvarint()
	if n > part.MaxBlockBytes {
		d.Fail("%d of something", n)
		return 0
	}
	return int(n)
}

func (s *Segment) readPages(d *telemetry.Decoder, g *segmentInfo) {
	for i := 0; i < g.pages && d.Err() == nil; i++ {
		p := pageInfo{Info: readInfo(d)}
		flags := d.Byte()
		p.continued = flags&1 != 0
		p.minDur, p.maxDur = d.Varint(), d.Varint()
		head := d.Uvarint()
		if c := d.Take(4); c != "" {
			p.crc = binary.LittleEndian.Uint32([]byte(c))
		}
		if p.Rows != s.part.pages.BlockRows(g.first+i) || flags > 1 || p.continued && i == 0 || head > part.MaxBlockBytes {
			d.Fail("page %d: %d rows, flags %d, a head of %d bytes", i, p.Rows, flags, head)
			return
		}
		p.head = int(head)
		s.pages = append(s.pages, p)
		if !p.continued {
			s.blocks = append(s.blocks, block{from: i})
		}
		s.blocks[len(s.blocks)-1].to = i + 1
	}
	if d.Err() != nil {
		return
	}
	for i := range s.blocks {
		b := &s.blocks[i]
		b.info = total(s.pages[b.from:b.to])
	}
	if x := total(s.pages); x.Rows != g.Rows || x.Traces != g.Traces {
		d.Fail("pages of %d rows and %d traces, want %d and %d", x.Rows, x.Traces, g.Rows, g.Traces)
	}
}

// Size returns about how many bytes of memory the segment holds now.
func (s *Segment) Size() int64 { return s.size.Load() }

// Info says what the segment spans.
func (s *Segment) Info() Info { return s.info }

// Blocks returns the number of blocks, MaxBlocks at most.
func (s *Segment) Blocks() int { return len(s.blocks) }

// BlockInfo says what block i spans.
func (s *Segment) BlockInfo(i int) Info { return s.blocks[i].info }

// ofPages returns the blocks that have one of some pages.
func (s *Segment) ofPages(pages uint64) uint64 {
	if len(s.blocks) == len(s.pages) {
		return pages
	}
	out := uint64(0)
	for i, b := range s.blocks {
		for p := b.from; p < b.to; p++ {
			out |= pages >> p & 1 << i
		}
	}
	return out
}

func (s *Segment) allPages() uint64 { return ^uint64(0) >> (MaxBlocks - len(s.pages)) }

// values returns the dictionary of a key.
func (s *Segment) values(k uint32) ([]telemetry.Value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.valuesLocked(k)
}

func (s *Segment) valuesLocked(k uint32) ([]telemetry.Value, error) {
	if vs, ok := s.vals[k]; ok {
		return vs, nil
	}
	m := &s.keys[k]
	if m.n == 0 {
		return nil, nil
	}
	what := "the values of " + m.name
	b, err := s.in.Fetch(what, m.ref)
	if err != nil {
		return nil, err
	}
	vs, err := piece.Values(b, m.n)
	if err != nil {
		return nil, s.in.Corrupt(what, err)
	}
	s.vals[k] = vs
	s.size.Add(int64(len(b) + 32*len(vs)))
	return vs, nil
}

// tuplesOf returns the tuples of a family.
func (s *Segment) tuplesOf(f family) (*tupleSet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tuplesLocked(f)
}

func (s *Segment) tuplesLocked(f family) (*tupleSet, error) {
	if t := s.tuples[f]; t != nil {
		return t, nil
	}
	t := &tupleSet{}
	if n := s.tupleLen[f]; n > 0 {
		b, err := s.in.Fetch("tuples", s.tupleRef[f])
		if err != nil {
			return nil, err
		}
		if n > len(b) {
			return nil, s.in.Bad("tuples", "%d tuples in %d bytes", n, len(b))
		}
		d := telemetry.NewDecoderBytes(b)
		s.readTuples(d, f, n, t)
		if d.Err() != nil {
			return nil, s.in.Corrupt("tuples", d.Err())
		}
	}
	s.tuples[f] = t
	s.size.Add(int64(8*cap(t.entries) + 12*len(t.ends)))
	return t, nil
}

func (s *Segment) readTuples(d *telemetry.Decoder, f family, n int, t *tupleSet) {
	lists := make([][]uint32, d.Count(1))
	for i := range lists {
		lists[i] = s.readKeys(d, f)
	}
	t.ends, t.masks = make([]int32, 0, n), make([]uint64, n)
	for i := range n {
		list := d.Uvarint()
		if list >= uint64(len(lists)) {
			d.Fail("tuple %d has list %d of %d", i, list, len(lists))
		}
		if d.Err() != nil {
			return
		}
		for _, k := range lists[list] {
			code := d.Uvarint()
			if code > uint64(s.keys[k].n) {
				d.Fail("tuple %d has code %d of key %d", i, code, k)
				return
			}
			t.entries = append(t.entries, uint64(k)<<32|uint64(uint32(code)-1))
		}
		t.ends = append(t.ends, int32(len(t.entries)))
	}
	s.readMasks(d, t.masks)
}

// readKeys reads a list of keys of a family: fields first, then attributes by name.
func (s *Segment) readKeys(d *telemetry.Decoder, f family) []uint32 {
	list := make([]uint32, 0, d.Count(1))
	before, some := "", false
	for range cap(list) {
		k := d.Uvarint()
		if d.Err() != nil || k >= uint64(len(s.keys)) || s.keys[k].family() != f {
			d.Fail("a tuple has key %d", k)
			return nil
		}
		m := &s.keys[k]
		if some && (!m.attr() || before >= m.name) {
			d.Fail("a tuple has %q after %q", m.name, before)
			return nil
		}
		if m.attr() {
			before, some = m.name, true
		}
		list = append(list, uint32(k))
	}
	return list
}

// readMasks reads sets of pages, and nothing may follow.
func (s *Segment) readMasks(d *telemetry.Decoder, masks []uint64) {
	width := (len(s.pages) + 7) / 8
	b := d.Take(width * len(masks))
	if d.Err() != nil {
		return
	}
	for i := range masks {
		var w [8]byte
		copy(w[:], b[i*width:(i+1)*width])
		masks[i] = binary.LittleEndian.Uint64(w[:]) & s.allPages()
	}
	if d.Len() > 0 {
		d.Fail("%d bytes too many", d.Len())
	}
}

// absent is the code of a key in tuples that do not have it.
const absent = 1<<32 - 2

// lookup returns the code that each tuple has of a key: own and absent are said as such.
func (s *Segment) lookup(k uint32) ([]uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.lookups[k]; ok {
		return l, nil
	}
	t, err := s.tuplesLocked(s.keys[k].family())
	if err != nil {
		return nil, err
	}
	l := make([]uint32, t.len())
	at := 0
	for i, end := range t.ends {
		l[i] = absent
		for ; at < int(end); at++ {
			if e := t.entries[at]; uint32(e>>32) == k {
				l[i] = uint32(e)
			}
		}
	}
	s.lookups[k] = l
	s.size.Add(int64(4 * len(l)))
	return l, nil
}

// Resources returns the resources of the rows; one may be nil. They must not be changed.
func (s *Segment) Resources() ([]*telemetry.Resource, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resourcesLocked()
}

func (s *Segment) resourcesLocked() ([]*telemetry.Resource, error) {
	if s.res != nil {
		return s.res, nil
	}
	b, err := s.in.Fetch("resources", s.resRef)
	if err != nil {
		return nil, err
	}
	ss, err := piece.Texts(b, s.resLen)
	if err != nil {
		return nil, s.in.Corrupt("resources", err)
	}
	rs, err := s.part.p.Resources(ss)
	if err != nil {
		return nil, err
	}
	if b, err = s.in.Fetch("resources", s.resMasks); err != nil {
		return nil, err
	}
	masks := make([]uint64, len(rs))
	d := telemetry.NewDecoderBytes(b)
	s.readMasks(d, masks)
	if d.Err() != nil {
		return nil, s.in.Corrupt("resources", d.Err())
	}
	s.res, s.masks = rs, masks
	for _, r := range rs {
		if r != nil {
			s.size.Add(int64(r.Attrs.Size()) + 100)
		}
	}
	return rs, nil
}

// Scopes returns the scopes of the rows; one may be nil. They must not be changed.
func (s *Segment) Scopes() ([]*telemetry.Scope, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scopesLocked()
}

func (s *Segment) scopesLocked() ([]*telemetry.Scope, error) {
	if s.scopes != nil {
		return s.scopes, nil
	}
	b, err := s.in.Fetch("scopes", s.scopeRef)
	if err != nil {
		return nil, err
	}
	ss, err := piece.Texts(b, s.scopeLen)
	if err != nil {
		return nil, s.in.Corrupt("scopes", err)
	}
	if s.scopes, err = s.part.p.Scopes(ss); err != nil {
		return nil, err
	}
	for _, c := range s.scopes {
		if c != nil {
			s.size.Add(int64(c.Attrs.Size()) + 100)
		}
	}
	return s.scopes, nil
}

// TraceIDs returns the IDs of all traces, sorted. They are read from the file each time.
func (s *Segment) TraceIDs() ([]telemetry.TraceID, error) {
	b, err := s.in.Fetch("order", s.order)
	if err != nil {
		return nil, err
	}
	order, err := piece.Ints(&piece.Memory{}, b, s.info.Traces)
	if err != nil {
		return nil, s.in.Corrupt("order", err)
	}
	var ids []telemetry.TraceID
	for i := range s.blocks {
		b, err := s.Block(i)
		if err != nil {
			return nil, err
		}
		some, err := b.Traces()
		if err != nil {
			return nil, err
		}
		ids = append(ids, some...)
	}
	if len(ids) != len(order) {
		return nil, s.in.Bad("order", "%d traces, want %d", len(ids), len(order))
	}
	out := make([]telemetry.TraceID, len(ids))
	for i, n := range order {
		if n < 0 || n >= int64(len(ids)) {
			return nil, s.in.Bad("order", "trace %d of %d", n, len(ids))
		}
		out[i] = ids[n]
		if i > 0 && bytes.Compare(out[i-1][:], out[i][:]) > 0 {
			return nil, s.in.Bad("order", "the IDs are not in order")
		}
	}
	return out, nil
}

// Find returns the block that has a trace, and the trace's number in it; -1 and -1 when there is none.
func (s *Segment) Find(id telemetry.TraceID) (int, int, error) {
	pages, err := s.hashed(traceHash(id))
	if err != nil {
		return -1, -1, err
	}
	for m := s.ofPages(pages); m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		b, err := s.Block(i)
		if err != nil {
			return -1, -1, err
		}
		ids, err := b.Traces()
		if err != nil {
			return -1, -1, err
		}
		if t := slices.Index(ids, id); t >= 0 {
			return i, t, nil
		}
	}
	return -1, -1, nil
}

// MayHold says whether segment i may have a trace: a segment that does not mostly says no. It reads some KB, and nothing else of
// the segment.
func (p *Part) MayHold(i int, id telemetry.TraceID) (bool, error) {
	pages, err := p.hashed(i, traceHash(id))
	return pages != 0, err
}

// hashed returns the pages that may have a hash.
func (p *Part) hashed(i int, h uint64) (uint64, error) {
	g := &p.list[i]
	at, slots := g.filter.Place(h)
	size := int64(g.filter.Size())
	b, err := p.segments.Piece(nil, i, g.filterAt+int64(at)*size, size)
	if err != nil {
		return 0, err
	}
	n := len(b) - 4
	if !p.whole(b[:n], binary.LittleEndian.Uint32(b[n:])) {
		return 0, p.segments.Corrupt("blob", i, "filter of block %d: the checksum of piece %d does not match", i, at)
	}
	return g.filter.Find(b, slots) & (^uint64(0) >> (MaxBlocks - g.pages)), nil
}

func (s *Segment) hashed(h uint64) (uint64, error) { return s.part.hashed(s.number, h) }

// Keys returns the keys of attributes that rows of the segment have.
func (s *Segment) Keys() ([]storage.SpanKey, error) {
	var out []storage.SpanKey
	seen := make(map[storage.SpanKey]bool)
	add := func(scope storage.AttrScope, name string) {
		if k := (storage.SpanKey{Scope: scope, Name: name}); !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	for i := range s.keys {
		switch k := &s.keys[i]; k.place {
		case spanAttr:
			add(storage.RecordScope, k.name)
		case eventAttr:
			add(storage.EventScope, k.name)
		case linkAttr:
			add(storage.LinkScope, k.name)
		default: // fields
		}
	}
	res, err := s.Resources()
	if err != nil {
		return nil, err
	}
	for _, r := range res {
		if r != nil {
			for i := range r.Attrs {
				add(storage.ResourceScope, r.Attrs[i].Key)
			}
		}
	}
	scopes, err := s.Scopes()
	for _, c := range scopes {
		if c != nil {
			for i := range c.Attrs {
				add(storage.InstrumentationScope, c.Attrs[i].Key)
			}
		}
	}
	return out, err
}
