package traces

import (
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces/columns"
)

// Unit is whole traces in blocks, as far as they lie in one place: a segment of a part, or a part of the first layout. It is for one
// goroutine.
type Unit struct {
	// Info is what it spans.
	Info columns.Info
	// Masks are the deletes that may cover some of it.
	Masks []Mask

	part    *Part
	segment int                // unless the part is of the first layout
	blocks  []legacyBlock      // of the first layout
	cached  storage.TraceBlock // the block asked for last of the first layout
	at      int
}

// Units returns what a part consists of, in the order of arrival, with those of masks that it was not rewritten for.
func (p *Part) Units(masks []Mask) ([]*Unit, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	masks = p.pending(masks)
	if p.legacy != nil {
		return []*Unit{{part: p, Info: p.legacy.info(p.lo, p.hi), Masks: masks}}, nil
	}
	us := make([]*Unit, p.columns.Len())
	for i := range us {
		us[i] = &Unit{part: p, segment: i, Info: p.columns.Info(i), Masks: masks}
	}
	return us, nil
}

// Segment returns the segment, which the part keeps for a while; nil for a part of the first layout.
func (u *Unit) Segment() (*columns.Segment, error) {
	if u.isLegacy() {
		return nil, nil
	}
	return u.part.segment(u.segment)
}

// MayHold says whether the unit may have a trace. It reads some KB of a segment, and nothing else, where it has none.
func (u *Unit) MayHold(id telemetry.TraceID) (bool, error) {
	if u.isLegacy() {
		return true, nil
	}
	return u.part.columns.MayHold(u.segment, id)
}

func (u *Unit) isLegacy() bool { return u.part.legacy != nil }

// list returns the blocks of a part of the first layout.
func (u *Unit) list() (_ []legacyBlock, err error) {
	if u.blocks == nil {
		u.blocks, err = u.part.legacy.blocks()
	}
	return u.blocks, err
}

// Blocks returns the number of blocks.
func (u *Unit) Blocks() (int, error) {
	if u.isLegacy() {
		bs, err := u.list()
		return len(bs), err
	}
	g, err := u.Segment()
	if err != nil {
		return 0, err
	}
	return g.Blocks(), nil
}

// BlockInfo says what a block spans.
func (u *Unit) BlockInfo(i int) (columns.Info, error) {
	if u.isLegacy() {
		return u.Info, nil
	}
	g, err := u.Segment()
	if err != nil {
		return columns.Info{}, err
	}
	return g.BlockInfo(i), nil
}

// Block returns a block. With memory, its columns are valid until the memory is used again. A block of the first layout is
// whole in memory.
func (u *Unit) Block(i int, in *columns.Memory) (storage.TraceBlock, error) {
	if !u.isLegacy() {
		g, err := u.Segment()
		if err != nil {
			return nil, err
		}
		b, err := blockIn(g, i, in)
		if err != nil {
			return nil, err
		}
		return Bounded{Block: b}, nil
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

// Rows returns the spans of a block of a part of the first layout.
func (u *Unit) Rows(i int) ([]storage.SpanRow, error) {
	bs, err := u.list()
	if err != nil {
		return nil, err
	}
	return u.part.legacy.rows(bs[i])
}

// Bounded is a block with what is left after it.
type Bounded struct {
	*columns.Block
	Left int64
}

// Rest implements storage.TraceBlock.
func (b Bounded) Rest() int64 { return b.Left }

// relevant drops the masks of a unit that cover nothing of it.
func (u *Unit) relevant() error {
	var some []Mask
	for _, m := range u.Masks {
		if m.Start > u.Info.LastStart || m.End < u.Info.Start {
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
	u.Masks = slices.Clip(some)
	return nil
}

// hit says whether the unit may have what a mask covers.
func (u *Unit) hit(m *Mask) (bool, error) {
	if m.traces == nil || u.isLegacy() {
		return true, nil
	}
	for id := range m.traces {
		ok, err := u.MayHold(id)
		if err != nil {
			return false, err
		}
		if !ok {
			continue
		}
		g, err := u.Segment()
		if err != nil {
			return false, err
		}
		if block, _, err := g.Find(id); err != nil || block >= 0 {
			return block >= 0, err
		}
	}
	return false, nil
}
