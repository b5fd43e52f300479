package traces

import (
	"cmp"
	"context"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// fragment is where spans of a trace lie: trace number trace in a block of a unit.
type fragment struct{ unit, block, trace int32 }

// idTable tells where each of many traces lies, and which of them lie in several places.
type idTable struct {
	seed  maphash.Seed
	slots []idSlot // a power of two; unit -1 is free
	n     int
	more  map[telemetry.TraceID][]fragment // those in several places
	// joints are more, and blocks those of each unit that have some of them; see finish.
	joints []joint
	blocks map[int32]*blockSet
	trees  trees // of some of more
}

// tree is how the spans of a trace in several places hang together.
type tree struct {
	order   []int32 // which of the spans, numbered over all places, each row is
	parents []int32 // row of the trace, or NoParent or LostParent
}

// maxTrees bounds the bytes of the trees of a table. What is beyond is worked out by each read.
const maxTrees = 8 << 20

// trees keeps the trees of traces in several places, so that not each read has to sort their spans. Nil keeps none. It is safe
// for concurrent use.
type trees struct {
	mu    sync.Mutex // guards known
	known map[telemetry.TraceID]*tree
	bytes atomic.Int64
}

func (t *trees) get(id telemetry.TraceID) *tree {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known[id]
}

// put keeps the tree of the trace that c joined last.
func (t *trees) put(id telemetry.TraceID, c *composer) {
	if t == nil || t.bytes.Load() >= maxTrees {
		return
	}
	n := c.grown()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil {
		t.known = make(map[telemetry.TraceID]*tree)
	}
	if t.known[id] == nil {
		t.known[id] = n
		t.bytes.Add(int64(8*len(n.order)) + 120)
	}
}

type idSlot struct {
	id telemetry.TraceID
	fragment
}

func newIDTable(traces int) *idTable {
	size := 1 << bits.Len(uint(traces+traces/2+8))
	t := &idTable{seed: maphash.MakeSeed(), slots: make([]idSlot, size), more: make(map[telemetry.TraceID][]fragment)}
	for i := range t.slots {
		t.slots[i].unit = -1
	}
	return t
}

func (t *idTable) slot(id *telemetry.TraceID) *idSlot {
	mask := uint64(len(t.slots) - 1)
	for h := maphash.Bytes(t.seed, id[:]); ; h++ {
		if s := &t.slots[h&mask]; s.unit < 0 || s.id == *id {
			return s
		}
	}
}

// add notes a place of a trace.
func (t *idTable) add(id *telemetry.TraceID, f fragment) {
	s := t.slot(id)
	if s.unit >= 0 {
		t.also(id, s, f)
		return
	}
	if t.n >= len(t.slots)*3/4 { // more than were announced
		old := t.slots
		t.slots = make([]idSlot, 2*len(old))
		for i := range t.slots {
			t.slots[i].unit = -1
		}
		for i := range old {
			if old[i].unit >= 0 {
				*t.slot(&old[i].id) = old[i]
			}
		}
		s = t.slot(id)
	}
	s.id, s.fragment = *id, f
	t.n++
}

// also notes one more place of a trace.
func (t *idTable) also(id *telemetry.TraceID, s *idSlot, f fragment) {
	fs := t.more[*id]
	if fs == nil {
		fs = append(fs, s.fragment)
	}
	t.more[*id] = append(fs, f)
}

// probe notes a place of a trace that is in the table, and of no other.
func (t *idTable) probe(id *telemetry.TraceID, f fragment) {
	if s := t.slot(id); s.unit >= 0 {
		t.also(id, s, f)
	}
}

// finish sorts what was added.
func (t *idTable) finish() {
	t.joints, t.blocks = make([]joint, 0, len(t.more)), make(map[int32]*blockSet)
	for id, at := range t.more {
		slices.SortFunc(at, compareFragments)
		for _, f := range at {
			if t.blocks[f.unit] == nil {
				t.blocks[f.unit] = &blockSet{}
			}
			t.blocks[f.unit].add(int(f.block))
		}
		t.joints = append(t.joints, joint{id: id, at: at})
	}
	slices.SortFunc(t.joints, func(a, b joint) int { return compareFragments(a.at[0], b.at[0]) })
}

// find returns the places of a trace.
func (t *idTable) find(id *telemetry.TraceID) []fragment {
	s := t.slot(id)
	if s.unit < 0 {
		return nil
	}
	if fs := t.more[*id]; fs != nil {
		return fs
	}
	return []fragment{s.fragment}
}

// size returns about how many bytes the table holds.
func (t *idTable) size() int64 {
	return int64(len(t.slots))*28 + int64(len(t.more))*200 + t.trees.bytes.Load()
}

const (
	// maxTable is how many traces of parts are held in a table at once: 15 to 30 MB. Reads over more go over the IDs of all
	// of them once for each so many.
	maxTable = 512 << 10
	// maxTables bounds the bytes of the tables that are kept.
	maxTables = 32 << 20
)

// Shared remembers which traces lie in several places of the same parts, so that not each read has to find out. It holds
// 32 MiB at most, and is safe for concurrent use.
type Shared struct {
	traces int // how many are held in a table at once

	mu    sync.Mutex // guards known
	known []*sharedTable

	memories memories
}

// sharedTable is the table of some parts.
type sharedTable struct {
	parts []*Part
	table *idTable
}

// NewShared returns an empty one. It looks at so many traces at once; 0 is 512 Ki.
func NewShared(traces int) *Shared { return &Shared{traces: cmp.Or(traces, maxTable)} }

func (s *Shared) get(parts []*Part) *idTable {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, t := range s.known {
		if slices.Equal(t.parts, parts) {
			s.known = append(append(slices.Clone(s.known[:i]), s.known[i+1:]...), t) // the last one is the one used last
			return t.table
		}
	}
	return nil
}

func (s *Shared) put(parts []*Part, t *idTable) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = append(s.known, &sharedTable{parts, t})
	sum := int64(0)
	for i, k := range slices.Backward(s.known) {
		if sum += k.table.size(); sum > maxTables {
			s.known = slices.Clone(s.known[i+1:])
			return
		}
	}
}

// table returns the table of all traces of the units, which are those of the parts.
func (r *reader) table(ctx context.Context, parts []*Part, units []*unit, traces int) (*idTable, error) {
	if t := r.shared.get(parts); t != nil {
		return t, nil
	}
	t := newIDTable(traces)
	ok := true
	for _, u := range units {
		err := r.ids(ctx, u, t.add)
		if err != nil {
			if err = r.lost(u, err); err != nil {
				return nil, err
			}
			ok = false
		}
	}
	t.finish()
	if ok {
		r.shared.put(parts, t)
	}
	return t, nil
}

// ids calls f with the place of each trace of a unit.
func (r *reader) ids(ctx context.Context, u *unit, f func(*telemetry.TraceID, fragment)) error {
	n, err := u.blocks()
	if err != nil {
		return err
	}
	for i := range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := u.block(i, r.memory)
		if err != nil {
			return err
		}
		ids, err := b.Traces()
		if err != nil {
			return err
		}
		for k := range ids {
			f(&ids[k], fragment{int32(u.n), int32(i), int32(k)})
		}
		if err := r.counted(b, 0); err != nil {
			return err
		}
	}
	return nil
}

// sized is a block that knows how much was read for it.
type sized interface{ Bytes() int64 }

// counted adds what a block cost that is not used any more.
func (r *reader) counted(b storage.TraceBlock, blocks int64) error {
	n := int64(0)
	if s, ok := b.(sized); ok {
		n = s.Bytes()
	}
	rows := int64(0)
	if blocks > 0 {
		rows = int64(b.Len())
	}
	count(r.cost, blocks, rows, n)
	return r.limit()
}
