package traces

import (
	"slices"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces/columns"
)

// unit is something that holds whole traces in blocks, as far as they are not shared with others: a segment, or a part of
// the first layout.
type unit struct {
	n       int // its number
	src     int
	part    *Part
	segment int // unless the part is of the first layout
	info    columns.Info
	masks   []Mask
	batch   int      // the run of reader.run that it belongs to
	table   *idTable // of its batch
	broken  bool     // it is left out

	may    []*blockSet        // by predicate of the query, nil before it was asked for
	legacy []legacyBlock      // of the first layout
	cached storage.TraceBlock // the block asked for last of the first layout
	at     int
}

// blockSet is a set of blocks.
type blockSet struct {
	all  bool
	bits []uint64
}

func (s *blockSet) has(i int) bool {
	return s.all || i/64 < len(s.bits) && s.bits[i/64]&(1<<(i%64)) != 0
}

func (s *blockSet) add(i int) {
	for i/64 >= len(s.bits) {
		s.bits = append(s.bits, 0)
	}
	s.bits[i/64] |= 1 << (i % 64)
}

// unitsOf returns the units of a part, which is loaded.
func unitsOf(src int, p *Part, masks []Mask) []*unit {
	masks = p.pending(masks)
	if p.legacy != nil {
		return []*unit{{src: src, part: p, info: p.legacy.info(p.lo, p.hi), masks: masks}}
	}
	us := make([]*unit, p.columns.Len())
	for i := range us {
		us[i] = &unit{src: src, part: p, segment: i, info: p.columns.Info(i), masks: masks}
	}
	return us
}

func (u *unit) isLegacy() bool { return u.part.legacy != nil }

// open returns the segment, which the part keeps for a while.
func (u *unit) open() (*columns.Segment, error) { return u.part.segment(u.segment) }

// list returns the blocks of a part of the first layout.
func (u *unit) list() (_ []legacyBlock, err error) {
	if u.legacy == nil {
		u.legacy, err = u.part.legacy.blocks()
	}
	return u.legacy, err
}

// blocks returns the number of blocks.
func (u *unit) blocks() (int, error) {
	if u.isLegacy() {
		bs, err := u.list()
		return len(bs), err
	}
	g, err := u.open()
	if err != nil {
		return 0, err
	}
	return g.Blocks(), nil
}

// blockInfo says what a block spans.
func (u *unit) blockInfo(i int) (columns.Info, error) {
	if u.isLegacy() {
		return u.info, nil
	}
	g, err := u.open()
	if err != nil {
		return columns.Info{}, err
	}
	return g.BlockInfo(i), nil
}

// block returns a block. With memory, its columns are valid until the memory is used again. A block of the first layout is
// whole in memory.
func (u *unit) block(i int, in *columns.Memory) (storage.TraceBlock, error) {
	if !u.isLegacy() {
		g, err := u.open()
		if err != nil {
			return nil, err
		}
		b, err := blockIn(g, i, in)
		if err != nil {
			return nil, err
		}
		return bounded{Block: b}, nil
	}
	if u.cached != nil && u.at == i {
		return u.cached, nil
	}
	bs, err := u.list()
	if err != nil {
		return nil, err
	}
	b, err := u.part.legacy.traces(bs[i])
	if err != nil {
		return nil, err
	}
	u.cached, u.at = b, i
	return b, nil
}

// bounded is a block with what is left after it.
type bounded struct {
	*columns.Block
	rest int64
}

// Rest implements storage.TraceBlock.
func (b bounded) Rest() int64 { return b.rest }

// rested is a block in memory with what is left after it.
type rested struct {
	storage.TraceBlock
	rest int64
}

// Rest implements storage.TraceBlock.
func (b rested) Rest() int64 { return b.rest }

func withRest(b storage.TraceBlock, rest int64) storage.TraceBlock {
	switch b := b.(type) {
	case bounded:
		b.rest = rest
		return b
	case *composed:
		b.rest = rest
		return b
	default:
		return rested{b, rest}
	}
}

// mayHold says whether a block can hold a row that matches predicate k of need.
func (u *unit) mayHold(need []storage.Predicate, k, block int) (bool, error) {
	if u.may == nil {
		u.may = make([]*blockSet, len(need))
	}
	if u.may[k] == nil {
		set, err := u.prune(need[k : k+1])
		if err != nil {
			return false, err
		}
		u.may[k] = set
	}
	return u.may[k].has(block), nil
}

// prune returns the blocks that may hold a trace with a matching row for each of need.
func (u *unit) prune(need []storage.Predicate) (*blockSet, error) {
	if u.isLegacy() || len(need) == 0 {
		return &blockSet{all: true}, nil
	}
	g, err := u.open()
	if err != nil {
		return nil, err
	}
	bits, err := g.Prune(need)
	return &blockSet{bits: []uint64{bits}}, err
}

// relevant drops the masks of a unit that cover nothing of it.
func (u *unit) relevant() error {
	var some []Mask
	for _, m := range u.masks {
		if m.Start > u.info.LastStart || m.End < u.info.Start {
			continue
		}
		hit, err := u.hit(&m)
		if err != nil {
			return err
		}
		if hit {
			some = append(some, m)
		}
	}
	u.masks = slices.Clip(some)
	return nil
}

// hit says whether the unit may have what a mask covers.
func (u *unit) hit(m *Mask) (bool, error) {
	if m.traces == nil || u.isLegacy() {
		return true, nil
	}
	g, err := u.open()
	if err != nil {
		return false, err
	}
	for id := range m.traces {
		if block, _, err := g.Find(id); err != nil || block >= 0 {
			return block >= 0, err
		}
	}
	return false, nil
}
