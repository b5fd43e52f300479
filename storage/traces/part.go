package traces

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces/columns"
)

// Part is a part of traces, open for reading. It keeps a few hundred bytes for each of its segments; what is read of them
// lies in a Segments, which has a bound.
type Part struct {
	p      *part.Part
	to     storage.Position
	lo, hi int64
	open   *Segments

	mu      sync.Mutex // guards what load makes
	loaded  atomic.Bool
	legacy  *rowsPart // a part of the first layout; nil for others
	columns *columns.Part
}

var _ Source = (*Part)(nil)

// OpenPart returns the spans of p, which all came before to and start from lo to hi. Segments that are read are kept in
// open, which parts share.
func OpenPart(p *part.Part, to storage.Position, lo, hi int64, open *Segments) *Part {
	return &Part{p: p, to: to, lo: lo, hi: hi, open: open}
}

// Bounds implements Source.
func (p *Part) Bounds() (int64, int64) { return p.lo, p.hi }

// load reads what tells the layout. A try that failed is made again: the error may be one of the disk.
func (p *Part) load() error {
	if p.loaded.Load() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded.Load() {
		return nil
	}
	if columns.Has(p.p) {
		c, err := columns.Open(p.p)
		if err != nil {
			return err
		}
		c.Keep(p.open.codes)
		p.columns = c
	} else {
		l := &rowsPart{p: p.p}
		if err := l.load(); err != nil {
			return err
		}
		p.legacy = l
	}
	p.loaded.Store(true)
	return nil
}

// Resources returns the resources of the part.
func (p *Part) Resources() ([]*telemetry.Resource, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	if p.legacy != nil {
		return p.legacy.resources, nil
	}
	var all part.Dict[telemetry.ResourceID, *telemetry.Resource]
	for i := range p.columns.Len() {
		g, err := p.segment(i)
		if err != nil {
			return nil, err
		}
		rs, err := g.Resources()
		if err != nil {
			return nil, err
		}
		for _, r := range rs {
			if r != nil {
				all.Add(r.ID, r)
			}
		}
	}
	return all.Values, nil
}

func (p *Part) segment(i int) (*columns.Segment, error) { return p.open.get(p, i) }

// pending returns the masks that the part was not rewritten for.
func (p *Part) pending(masks []Mask) []Mask {
	var some []Mask
	for _, m := range masks {
		if p.to <= m.Position && m.Start <= p.hi && m.End >= p.lo {
			some = append(some, m)
		}
	}
	return some
}

// Scan implements Source.
func (p *Part) Scan(ctx context.Context, s *Scan, emit func(Rows) error) error {
	if err := p.load(); err != nil {
		return err
	}
	if masks := s.Masks; len(masks) > 0 {
		defer func() { s.Masks = masks }()
		s.Masks = p.pending(masks)
	}
	if p.legacy != nil {
		return p.legacy.Scan(ctx, s, emit)
	}
	segments := make([]int, 0, p.columns.Len())
	for i := range p.columns.Len() {
		segments = append(segments, i)
	}
	switch s.Order {
	case storage.Unordered:
	case storage.NewestFirst:
		slices.SortStableFunc(segments, func(a, b int) int { return cmp.Compare(p.columns.Info(b).LastStart, p.columns.Info(a).LastStart) })
	case storage.OldestFirst:
		slices.SortStableFunc(segments, func(a, b int) int { return cmp.Compare(p.columns.Info(a).Start, p.columns.Info(b).Start) })
	}
	var memory *columns.Memory
	if !s.late { // nothing is asked of a block after the next is open
		memory = p.open.memories.Take()
		defer p.open.memories.Give(memory)
	}
	for _, i := range segments {
		if in := p.columns.Info(i); in.LastStart < s.Start || in.Start > s.End {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.scanSegment(ctx, i, s, memory, emit); err != nil {
			return err
		}
	}
	return nil
}

// scanSegment emits the rows of segment n that s selects.
func (p *Part) scanSegment(ctx context.Context, n int, s *Scan, memory *columns.Memory, emit func(Rows) error) error {
	if ids, ok := storage.TracesOf(s.Where); ok {
		return p.scanTraces(ctx, n, ids, s, memory, emit)
	}
	g, err := p.segment(n)
	if err != nil {
		return err
	}
	set, err := g.Where(s.Where)
	if err != nil {
		return err
	}
	var blocks []int
	for i := range g.Blocks() {
		if set&(1<<i) != 0 {
			blocks = append(blocks, i)
		}
	}
	switch s.Order {
	case storage.Unordered, storage.OldestFirst:
	case storage.NewestFirst:
		slices.SortStableFunc(blocks, func(a, b int) int { return cmp.Compare(g.BlockInfo(b).LastStart, g.BlockInfo(a).LastStart) })
	}
	for _, i := range blocks {
		if in := g.BlockInfo(i); in.LastStart < s.Start || in.Start > s.End {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := blockIn(g, i, memory)
		if err != nil {
			return err
		}
		if err := p.scanBlock(b, int64(n)<<38|int64(i)<<32, 0, b.Len(), s, emit); err != nil {
			return err
		}
	}
	return nil
}

// blockIn returns a block in a memory, or in its own.
func blockIn(g *columns.Segment, i int, in *columns.Memory) (*columns.Block, error) {
	if in == nil {
		return g.Block(i)
	}
	return g.BlockIn(i, in)
}

// scanTraces emits the rows of some traces of segment n.
func (p *Part) scanTraces(ctx context.Context, n int, ids []telemetry.TraceID, s *Scan, memory *columns.Memory, emit func(Rows) error) error {
	type found struct{ block, trace int }
	var at []found
	var g *columns.Segment // few segments have any of the traces: only those are opened
	for _, id := range ids {
		ok, err := p.columns.MayHold(n, id)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if g == nil {
			if g, err = p.segment(n); err != nil {
				return err
			}
		}
		block, trace, err := g.Find(id)
		if err != nil {
			return err
		}
		if block >= 0 {
			at = append(at, found{block, trace})
		}
	}
	slices.SortFunc(at, func(a, b found) int { return cmp.Or(cmp.Compare(a.block, b.block), cmp.Compare(a.trace, b.trace)) })
	var b *columns.Block
	for i, f := range slices.Compact(at) {
		if in := g.BlockInfo(f.block); in.LastStart < s.Start || in.Start > s.End {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if i == 0 || b == nil || at[i-1].block != f.block {
			if b, err = blockIn(g, f.block, memory); err != nil {
				return err
			}
		}
		first, err := b.First()
		if err != nil {
			return err
		}
		if err := p.scanBlock(b, int64(n)<<38|int64(f.block)<<32, int(first[f.trace]), int(first[f.trace+1]), s, emit); err != nil {
			return err
		}
	}
	return nil
}

// scanBlock emits the rows from from to to of a block that s selects: in two steps, the columns that decide, then the wanted columns of
// the rows that stay.
func (p *Part) scanBlock(b *columns.Block, place int64, from, to int, s *Scan, emit func(Rows) error) error {
	read := b.Bytes()
	defer func() { s.opened(1, int64(to-from), b.Bytes()-read) }()
	starts, err := b.Starts()
	if err != nil {
		return err
	}
	rows := make([]int, 0, to-from)
	for i := from; i < to; i++ {
		if starts[i] >= s.Start && starts[i] <= s.End {
			rows = append(rows, i)
		}
	}
	if len(rows) > 0 && (s.Where != nil || len(s.Masks) > 0) {
		test, err := b.Spans(rows, storage.NeedsOfSpans(s.Where))
		if err != nil {
			return err
		}
		kept := rows[:0]
		for i, row := range rows {
			if test.Match(i, s.Where) && !Covered(s.Masks, test.TraceID[i], test.Start[i]) {
				kept = append(kept, row)
			}
		}
		rows = kept
	}
	if len(rows) == 0 {
		return nil
	}
	cols := s.Columns
	if s.late {
		cols = 0
	}
	out := Rows{place: func(i int) int64 { return place + int64(rows[i]) }}
	if out.SpanBlock, err = b.Spans(rows, cols); err != nil {
		return err
	}
	if s.late {
		wanted := s.Columns
		out.load = func(some []int) (*storage.SpanBlock, error) {
			return b.Spans(part.Pick(some, rows, part.Same[int]), wanted)
		}
	}
	return emit(out)
}

// maxOpenBytes bounds what the segments of all parts that are read hold in memory.
const maxOpenBytes = 24 << 20

// maxCodes bounds the codes of pages that are kept, in bytes: those of about 4 million spans.
const maxCodes = 16 << 20

// Segments keeps the segments that were read last, of any number of parts, up to 24 MiB, and 16 MiB of codes of their pages. It
// is safe for concurrent use.
type Segments struct {
	codes *columns.Cache

	mu    sync.Mutex // guards all below
	known map[segmentKey]*openSegment
	clock int64
	bytes int64

	memories columns.Memories
}

type segmentKey struct {
	p *columns.Part
	i int
}

type openSegment struct {
	g    *columns.Segment
	size int64
	used int64
}

// NewSegments returns an empty one.
func NewSegments() *Segments {
	return &Segments{known: make(map[segmentKey]*openSegment), codes: columns.NewCache(maxCodes)}
}

// Size returns the bytes of memory that segments which are kept open hold, and those of what is kept of their pages.
func (s *Segments) Size() (open, pages int64) {
	s.mu.Lock()
	open = s.bytes
	s.mu.Unlock()
	return open, s.codes.Size()
}

// get returns segment i of a part, which is loaded.
func (s *Segments) get(p *Part, i int) (*columns.Segment, error) {
	key := segmentKey{p.columns, i}
	if g := s.have(key); g != nil {
		return g, nil
	}
	g, err := p.columns.Segment(i)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.known[key]; o != nil {
		return o.g, nil
	}
	s.clock++
	o := &openSegment{g: g, used: s.clock, size: g.Size()}
	s.known[key] = o
	s.bytes += o.size
	s.trim()
	return g, nil
}

func (s *Segments) have(key segmentKey) *columns.Segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.known[key]
	if o == nil {
		return nil
	}
	s.clock++
	o.used = s.clock
	if n := o.g.Size(); n != o.size { // it has loaded more
		s.bytes += n - o.size
		o.size = n
		s.trim()
	}
	return o.g
}

// trim forgets the segments that were used longest ago. It needs mu.
func (s *Segments) trim() {
	if s.bytes <= maxOpenBytes {
		return
	}
	keys := make([]segmentKey, 0, len(s.known))
	for k := range s.known {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b segmentKey) int { return cmp.Compare(s.known[a].used, s.known[b].used) })
	for _, k := range keys[:len(keys)-1] {
		if s.bytes <= maxOpenBytes*3/4 {
			return
		}
		s.bytes -= s.known[k].size
		delete(s.known, k)
	}
}
