package join

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/columns"
	"github.com/braidobs/braid/storage/traces/places"
)

// table tells where each of many traces lies, and what is known of those in several places.
type table struct {
	*places.Table
	// groups are those in several places, and shared which of the traces of a block they are; see finish.
	groups []group
	shared sharing
	trees  trees // of some of these
}

// sharing tells of blocks, whose places have no trace, which of their traces come in another block.
type sharing map[places.Place]*set

func (s sharing) add(p places.Place) {
	key := places.Place{Unit: p.Unit, Block: p.Block}
	if s[key] == nil {
		s[key] = &set{}
	}
	s[key].add(int(p.Trace))
}

func (s sharing) of(u *unit, block int) *set {
	return s[places.Place{Unit: int32(u.n), Block: int32(block)}]
}

func newTable(traces int) *table { return &table{Table: places.New(traces)} }

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

// finish sorts what was added. Info says what the block of a place spans; ok is false when that is not known any more.
func (t *table) finish(info func(places.Place) (in columns.Info, ok bool, err error)) error {
	t.shared = make(sharing)
	js := make([]joint, 0, len(t.More))
	for id, at := range t.More {
		slices.SortFunc(at, places.Compare)
		j := joint{id: id, at: at}
		for _, p := range at {
			t.shared.add(p)
		}
		if err := j.span(info); err != nil {
			return err
		}
		js = append(js, j)
	}
	t.groups = groupsOf(js)
	return nil
}

// size returns about how many bytes the table holds.
func (t *table) size() int64 { return t.Size() + int64(len(t.More))*100 + t.trees.bytes.Load() }

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

	memories columns.Memories
}

// sharedTable is the table of some parts.
type sharedTable struct {
	parts []*traces.Part
	table *table
}

// NewShared returns an empty one. It looks at so many traces at once; 0 is 512 Ki.
func NewShared(traces int) *Shared { return &Shared{traces: cmp.Or(traces, maxTable)} }

func (s *Shared) get(parts []*traces.Part) *table {
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

func (s *Shared) put(parts []*traces.Part, t *table) {
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
func (r *reader) table(ctx context.Context, parts []*traces.Part, units []*unit, traces int) (*table, error) {
	if t := r.shared.get(parts); t != nil {
		return t, nil
	}
	t := newTable(traces)
	ok := true
	for _, u := range units {
		err := r.ids(ctx, u, t.Add)
		if err != nil {
			if err = r.lost(u, err); err != nil {
				return nil, err
			}
			ok = false
		}
	}
	if err := t.finish(r.infoOf); err != nil {
		return nil, err
	}
	if ok && !slices.ContainsFunc(units, func(u *unit) bool { return u.broken }) {
		r.shared.put(parts, t)
	}
	return t, nil
}

// infoOf says what a block spans, unless its unit is left out.
func (r *reader) infoOf(p places.Place) (columns.Info, bool, error) {
	u := r.units[p.Unit]
	if u.broken {
		return columns.Info{}, false, nil
	}
	in, err := u.BlockInfo(int(p.Block))
	if err != nil {
		return in, false, r.lost(u, err)
	}
	return in, true, nil
}

// ids calls f with the place of each trace of a unit.
func (r *reader) ids(ctx context.Context, u *unit, f func(*telemetry.TraceID, places.Place)) error {
	n, err := u.Blocks()
	if err != nil {
		return err
	}
	for i := range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := u.Block(i, r.memory)
		if err != nil {
			return err
		}
		ids, err := b.Traces()
		if err != nil {
			return err
		}
		for k := range ids {
			f(&ids[k], places.Place{Unit: int32(u.n), Block: int32(i), Trace: int32(k)})
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
	if c := r.cost; c != nil {
		c.Blocks += blocks
		c.Rows += rows
		c.Bytes += n
	}
	return r.limit()
}
