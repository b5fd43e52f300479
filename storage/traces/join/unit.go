package join

import (
	"slices"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/columns"
)

// unit is something that holds whole traces in blocks, as far as they are not shared with others.
type unit struct {
	*traces.Unit
	n      int // its number
	src    int
	batch  int    // the run of reader.run that it belongs to
	table  *table // of its batch
	broken bool   // it is left out

	// By predicate of the query: what rows that match pass, and by block which traces have such; nil before it was asked for.
	tests []*columns.Test
	pass  [][]*set
}

// latest returns a time after which no trace starts of rows that in spans: where the first spans of a trace may be deleted, that is the
// start of the last row.
func (u *unit) latest(in *columns.Info) int64 {
	if len(u.Masks) > 0 {
		return in.LastStart
	}
	return in.LastFirst
}

// set is a set of blocks of a unit, or of traces of a block, by number. Nil is empty.
type set struct {
	all  bool
	bits []uint64
}

// and returns what is in both.
func (s *set) and(o *set) *set {
	if o.all {
		return s
	}
	out := &set{bits: slices.Clone(o.bits)}
	if !s.all {
		out.bits = out.bits[:min(len(out.bits), len(s.bits))]
		for i := range out.bits {
			out.bits[i] &= s.bits[i]
		}
	}
	return out
}

func (s *set) empty() bool {
	return !s.all && !slices.ContainsFunc(s.bits, func(x uint64) bool { return x != 0 })
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

// chosen is some traces of a block with what is left after it.
type chosen struct {
	*columns.Chosen
	rest int64
}

// Rest implements storage.TraceBlock.
func (b chosen) Rest() int64 { return b.rest }

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
	case chosen:
		b.rest = rest
		return b
	case *composed:
		b.rest = rest
		return b
	default:
		return rested{b, rest}
	}
}

// test returns what rows of the unit that match predicate k pass; nil for a part of the first layout, of which all do.
func (u *unit) test(need []storage.Predicate, k int) (*columns.Test, error) {
	if u.tests == nil {
		u.tests = make([]*columns.Test, len(need))
	}
	if u.tests[k] == nil {
		g, err := u.Segment()
		if g == nil || err != nil {
			return nil, err
		}
		if u.tests[k], err = g.Test(need[k]); err != nil {
			return nil, err
		}
	}
	return u.tests[k], nil
}

// mayHold says whether a block can hold a row that matches predicate k of need.
func (u *unit) mayHold(need []storage.Predicate, k, block int) (bool, error) {
	t, err := u.test(need, k)
	return err == nil && (t == nil || t.Blocks()>>block&1 == 1), err
}

// prune returns the blocks that may hold a trace with a matching row for each of need.
func (u *unit) prune(need []storage.Predicate) (*set, error) {
	out := &set{all: true}
	for k := range need {
		t, err := u.test(need, k)
		if err != nil {
			return nil, err
		}
		switch {
		case t == nil:
		case out.all:
			out = &set{bits: []uint64{t.Blocks()}}
		default:
			out.bits[0] &= t.Blocks()
		}
		if !out.all && out.bits[0] == 0 {
			break
		}
	}
	return out, nil
}

// passing returns the traces of a block that may have a row that matches predicate k of need. Open is called if it has to be looked
// at.
func (u *unit) passing(need []storage.Predicate, k, block int, open func() (storage.TraceBlock, error)) (*set, error) {
	for block >= len(u.pass) {
		u.pass = append(u.pass, nil)
	}
	if u.pass[block] == nil {
		u.pass[block] = make([]*set, len(need))
	}
	if s := u.pass[block][k]; s != nil {
		return s, nil
	}
	s, err := u.sieve(need, k, block, open)
	if err != nil {
		return nil, err
	}
	u.pass[block][k] = s
	return s, nil
}

func (u *unit) sieve(need []storage.Predicate, k, block int, open func() (storage.TraceBlock, error)) (*set, error) {
	t, err := u.test(need, k)
	switch {
	case err != nil:
		return nil, err
	case t == nil:
		return &set{all: true}, nil
	case t.Blocks()>>block&1 == 0:
		return &set{}, nil
	case t.Any():
		return &set{all: true}, nil
	}
	b, err := open()
	if err != nil {
		return nil, err
	}
	bits, err := b.(traces.Bounded).Sieve(t)
	return &set{bits: bits}, err
}
