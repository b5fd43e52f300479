package join

import (
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
)

// unit is something that holds whole traces in blocks, as far as they are not shared with others.
type unit struct {
	*traces.Unit
	n      int // its number
	src    int
	batch  int    // the run of reader.run that it belongs to
	table  *table // of its batch
	broken bool   // it is left out

	may []*set // by predicate of the query, nil before it was asked for: blocks that may have a row
}

// set is a set of blocks of a unit, or of traces of a block, by number. Nil is empty.
type set struct {
	all  bool
	bits []uint64
}

func (s *set) has(i int) bool {
	return s != nil && (s.all || i/64 < len(s.bits) && s.bits[i/64]&(1<<(i%64)) != 0)
}

func (s *set) add(i int) {
	for i/64 >= len(s.bits) {
		s.bits = append(s.bits, 0)
	}
	s.bits[i/64] |= 1 << (i % 64)
}

// rested is a block in memory with what is left after it.
type rested struct {
	storage.TraceBlock
	rest int64
}

// Rest implements storage.TraceBlock.
func (b rested) Rest() int64 { return b.rest }

func withRest(b storage.TraceBlock, rest int64) storage.TraceBlock {
	switch b := b.(type) {
	case traces.Bounded:
		b.Left = rest
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
		u.may = make([]*set, len(need))
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
func (u *unit) prune(need []storage.Predicate) (*set, error) {
	if len(need) == 0 {
		return &set{all: true}, nil
	}
	g, err := u.Segment()
	if err != nil {
		return nil, err
	}
	if g == nil {
		return &set{all: true}, nil
	}
	bits, err := g.Prune(need)
	return &set{bits: []uint64{bits}}, err
}
