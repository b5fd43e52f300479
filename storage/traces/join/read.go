// Package join reads whole traces, as columns, from parts and heads of spans (package traces): the spans of a trace that lie in
// several places come together.
package join

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/columns"
	"github.com/braidobs/braid/storage/traces/places"
)

// Query is what is read of whole traces.
type Query struct {
	storage.TraceQuery
	// Lo and Hi are the starts of the spans that belong to the traces; the sources that are parts hold no others.
	Lo, Hi int64
	// Masks are the deletes of the tenant.
	Masks []traces.Mask
	// Cost, when not nil, counts what is read.
	Cost *storage.ReadStats
}

// Read yields the traces that q selects from sources, which are given in the order of arrival: parts first. The spans of a
// trace that lie in several places come together in one block. Failed is asked what to do about the error of a source; when
// it returns nil, the source is left out from there on.
//
// What it has in memory at a time is a block for each place that a trace of a block lies in, the table of shared, and the
// traces of heads.
func Read(ctx context.Context, sources []traces.Source, q Query, shared *Shared, failed func(src int, err error) error) iter.Seq2[storage.TraceBlock, error] {
	return func(yield func(storage.TraceBlock, error) bool) {
		r := &reader{Query: q, shared: shared, failed: failed, cost: q.Cost, yield: yield, memory: shared.memories.Take()}
		defer func() {
			for _, m := range append(r.more, r.memory) {
				shared.memories.Give(m)
			}
		}()
		if err := r.run(ctx, sources); err != nil && !errors.Is(err, errEnough) {
			yield(nil, err)
		}
	}
}

var errEnough = errors.New("enough")

// reader is one run of Read.
type reader struct {
	Query
	shared *Shared
	failed func(src int, err error) error
	yield  func(storage.TraceBlock, error) bool
	cost   *storage.ReadStats

	units   []*unit // by number, which is the order of arrival
	heads   []*traces.Tenant
	headIDs *places.Table              // when the units come in batches: the traces of heads
	taken   map[telemetry.TraceID]bool // traces of heads that are joined with others
	inHeads sharing                    // of blocks that have such
	queue   candidates
	columns traces.HeldColumns // of spans of heads
	settler storage.Settler
	memory  *columns.Memory   // of the block that is read: what is yielded is valid until the next
	more    []*columns.Memory // of the blocks of joined traces, one each
	some    []int32           // of the traces of a block
	// matching says of the traces of a head which may have a row for a predicate.
	matching map[headNeed][]bool
	ahead    int64 // no trace that is not in the queue yet starts after it
}

// lost handles an error of a unit: nil leaves out its source.
func (r *reader) lost(u *unit, err error) error {
	if err = r.failed(u.src, err); err != nil {
		return err
	}
	for _, o := range r.units {
		if o.src == u.src {
			o.broken = true
		}
	}
	return nil
}

func (r *reader) limit() error {
	if r.MaxBytes > 0 && r.cost != nil && r.cost.Bytes > r.MaxBytes {
		return fmt.Errorf("%d bytes: %w", r.cost.Bytes, storage.ErrReadLimit)
	}
	return nil
}

// overlaps says whether times reach into the range asked for.
func (r *reader) overlaps(lo, hi int64) bool { return lo <= r.End && hi >= r.Start }

// prepare makes units of the sources and returns the parts among them, and how many traces they have.
func (r *reader) prepare(sources []traces.Source) (parts []*traces.Part, held int, err error) {
	for i, s := range sources {
		switch s := s.(type) {
		case *traces.Part:
			us, err := s.Units(r.Masks)
			if err != nil {
				if err = r.failed(i, err); err != nil {
					return nil, 0, err
				}
				continue
			}
			parts = append(parts, s)
			for _, u := range us {
				held += u.Info.Traces
				r.units = append(r.units, &unit{Unit: u, n: len(r.units), src: i})
			}
		case *traces.Tenant:
			if !s.Empty() {
				r.heads = append(r.heads, s)
			}
		}
	}
	return parts, held, nil
}

func (r *reader) run(ctx context.Context, sources []traces.Source) error {
	parts, held, err := r.prepare(sources)
	if err != nil {
		return err
	}
	if ids, ok := storage.TracesOf(storage.And(r.Need)); ok && !r.Fragments {
		return r.byID(ctx, ids)
	}
	order := slices.Clone(r.units)
	if r.Order == storage.NewestFirst {
		slices.SortStableFunc(order, func(a, b *unit) int { return cmp.Compare(b.latest(&b.Info), a.latest(&a.Info)) })
	}
	batches := !r.Fragments && held > r.shared.traces
	for n := 1; n == 1 || len(order) > 0; n++ {
		batch := order
		if batches {
			sum := 0
			for i, u := range order {
				if sum += u.Info.Traces; sum > r.shared.traces && i > 0 {
					batch = order[:i]
					break
				}
			}
		}
		order = order[len(batch):]
		r.ahead = math.MinInt64
		for _, u := range order {
			r.ahead = max(r.ahead, u.latest(&u.Info))
		}
		var known *table
		switch {
		case r.Fragments:
		case batches:
			known, err = r.batchTable(ctx, batch, n)
		default:
			known, err = r.table(ctx, parts, r.units, held)
		}
		if err != nil {
			return err
		}
		if err := r.begin(n, batch, known); err != nil {
			return err
		}
		if err := r.drain(ctx); err != nil {
			return err
		}
	}
	return nil
}

// byID reads traces by their IDs: it looks for them in each unit instead of learning where all traces are.
func (r *reader) byID(ctx context.Context, ids []telemetry.TraceID) error {
	at := make(map[telemetry.TraceID][]places.Place, len(ids))
	for _, id := range ids {
		if !id.IsZero() { // which is none
			at[id] = nil
		}
	}
	for _, u := range r.units {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.find(ctx, u, at); err != nil {
			if err = r.lost(u, err); err != nil {
				return err
			}
		}
	}
	all := make([]joint, 0, len(at))
	for id, at := range at {
		j := joint{id: id, at: at}
		for _, h := range r.heads {
			if tr, ok := h.Trace(id); ok {
				j.heads = append(j.heads, tr)
			}
		}
		all = append(all, j)
	}
	r.ahead = math.MinInt64
	if err := r.join(all); err != nil {
		return err
	}
	return r.drain(ctx)
}

// find adds the places in a unit of the traces that at has.
func (r *reader) find(ctx context.Context, u *unit, at map[telemetry.TraceID][]places.Place) error {
	var some []telemetry.TraceID // few segments have any: only those are opened
	for id := range at {
		ok, err := u.MayHold(id)
		if err != nil {
			return err
		}
		if ok {
			some = append(some, id)
		}
	}
	if len(some) == 0 {
		return nil
	}
	g, err := u.Segment()
	if err != nil {
		return err
	}
	if g == nil {
		return r.ids(ctx, u, func(id *telemetry.TraceID, p places.Place) {
			if ps, ok := at[*id]; ok {
				at[*id] = append(ps, p)
			}
		})
	}
	for _, id := range some {
		block, trace, err := g.Find(id)
		if err != nil {
			return err
		}
		if block >= 0 {
			at[id] = append(at[id], places.Place{Unit: int32(u.n), Block: int32(block), Trace: int32(trace)})
		}
	}
	return nil
}

// begin puts what a batch of units holds into the queue, and what the heads do with the first one.
func (r *reader) begin(n int, batch []*unit, known *table) error {
	for _, u := range batch {
		u.batch, u.table = n, known
	}
	switch {
	case n > 1:
	case r.Fragments:
		for _, h := range r.heads {
			r.headFragments(h)
		}
	default:
		all, plain := r.headTraces(known)
		r.headChunks(plain)
		if err := r.join(all); err != nil {
			return err
		}
	}
	if known != nil {
		for i := range known.groups {
			r.pushGroup(&known.groups[i], n)
		}
	}
	for _, u := range batch {
		if !u.broken && r.overlaps(u.Info.Lo, u.Info.Hi) {
			r.push(candidate{u: u, block: -1, bound: u.latest(&u.Info)})
		}
	}
	return nil
}

// batchTable returns the table of a batch: of its traces, with all places that they lie in.
func (r *reader) batchTable(ctx context.Context, batch []*unit, n int) (*table, error) {
	sum := 0
	in := make(map[*unit]bool, len(batch))
	for _, u := range batch {
		sum += u.Info.Traces
		in[u] = true
	}
	t := newTable(sum)
	if n == 1 {
		r.headIDs = places.New(1 << 10)
		for _, h := range r.heads {
			for _, tr := range h.Traces() {
				if id := tr.ID(); r.headIDs.Find(&id) == nil {
					r.headIDs.Add(&id, places.Place{Unit: math.MaxInt32})
				}
			}
		}
	}
	for _, mine := range []bool{true, false} {
		for _, u := range r.units {
			if u.broken || in[u] != mine {
				continue
			}
			err := r.ids(ctx, u, func(id *telemetry.TraceID, f places.Place) {
				if mine {
					t.Add(id, f)
				} else {
					t.Probe(id, f)
				}
				if n == 1 {
					r.headIDs.Probe(id, f)
				}
			})
			if err != nil {
				if err = r.lost(u, err); err != nil {
					return nil, err
				}
			}
		}
	}
	return t, t.finish(r.infoOf)
}

// drain yields what is in the queue, as far as it is newer than what is not.
func (r *reader) drain(ctx context.Context) error {
	for len(r.queue) > 0 && (r.Order != storage.NewestFirst || r.queue[0].bound >= r.ahead) {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := heap.Pop(&r.queue).(candidate)
		if c.u != nil && c.u.broken {
			continue
		}
		if c.u != nil && c.block < 0 {
			if err := r.expand(c.u); err != nil {
				if err = r.lost(c.u, err); err != nil {
					return err
				}
			}
			continue
		}
		rest := r.ahead
		if len(r.queue) > 0 {
			rest = max(rest, r.queue[0].bound)
		}
		if err := r.send(&c, rest); err != nil {
			return err
		}
	}
	return nil
}

// expand puts the blocks of a unit into the queue that may hold what is wanted.
func (r *reader) expand(u *unit) error {
	n, err := u.Blocks()
	if err != nil {
		return err
	}
	set, err := u.prune(r.Need)
	if err != nil {
		return err
	}
	for i := range n {
		if !set.has(i) {
			continue
		}
		in, err := u.BlockInfo(i)
		if err != nil {
			return err
		}
		if r.overlaps(in.Lo, in.Hi) {
			r.push(candidate{u: u, block: i, bound: u.latest(&in)})
		}
	}
	return nil
}

// send yields a candidate.
func (r *reader) send(c *candidate, rest int64) error {
	var (
		b   storage.TraceBlock
		err error
	)
	switch {
	case c.u != nil:
		if b, err = r.blockOf(c.u, c.block); err != nil {
			return r.lost(c.u, err)
		}
	case c.group != nil:
		var o opened
		js, err := r.chosen(c, &o)
		if err != nil {
			return err
		}
		if len(js) == 0 {
			return r.looked(o.blocks)
		}
		if b, err = r.compose(js, &o); err != nil {
			return err
		}
	case c.held != nil:
		b = c.held
	default:
		b = r.headBlock(c.heads)
	}
	if b == nil || b.Len() == 0 {
		return nil
	}
	if !r.yield(withRest(b, rest), nil) {
		return errEnough
	}
	return r.counted(b, 1)
}

// looked counts what was read of blocks that have nothing that is wanted.
func (r *reader) looked(blocks []storage.TraceBlock) error {
	for _, b := range blocks {
		if err := r.counted(b, 0); err != nil {
			return err
		}
	}
	return nil
}

// blockOf returns a block without the traces that are joined with others, and without what was deleted; nil if that leaves nothing.
// Traces that are not wanted are left out where that makes the block much smaller.
func (r *reader) blockOf(u *unit, i int) (storage.TraceBlock, error) {
	b, err := u.Block(i, r.memory)
	if err != nil {
		return nil, err
	}
	if r.Fragments && r.Order == storage.Unordered && len(u.Masks) == 0 { // else a torn trace would start later than the block says
		return r.rowsOf(u, b)
	}
	maybe := &set{all: true}
	for k := range r.Need {
		s, err := u.passing(r.Need, k, i, func() (storage.TraceBlock, error) { return b, nil })
		if err != nil {
			return nil, err
		}
		if maybe = maybe.and(s); maybe.empty() {
			return nil, r.counted(b, 1)
		}
	}
	var shared, inHeads *set
	if u.table != nil {
		shared, inHeads = u.table.shared.of(u, i), r.inHeads.of(u, i)
	}
	if maybe.all && len(u.Masks) == 0 && shared == nil && inHeads == nil {
		return b, nil
	}
	first, err := b.First()
	if err != nil {
		return nil, err
	}
	some := r.some[:0]
	rows, joined := int32(0), false
	for k := range len(first) - 1 {
		switch {
		case shared.has(k) || inHeads.has(k):
			joined = true
		case maybe.has(k):
			some = append(some, int32(k))
			rows += first[k+1] - first[k]
		}
	}
	r.some = some
	switch {
	case len(some) == 0:
		return nil, r.counted(b, 1)
	case len(u.Masks) > 0:
		return r.unmasked(u, b, some)
	case !joined && int(rows) > b.Len()/2:
		return b, nil
	}
	c, ok := b.(traces.Bounded)
	if !ok {
		return r.unmasked(u, b, some)
	}
	of, err := c.Choose(some)
	if err != nil {
		return nil, err
	}
	return chosen{Chosen: of}, nil
}

// rowsOf returns the rows of a block that may match all predicates, each for itself; the block when these are many.
func (r *reader) rowsOf(u *unit, b storage.TraceBlock) (storage.TraceBlock, error) {
	of, ok := b.(traces.Bounded)
	if !ok || len(r.Need) == 0 {
		return b, nil
	}
	for k := range r.Need {
		if _, err := u.test(r.Need, k); err != nil {
			return nil, err
		}
	}
	rows, err := of.Passing(u.tests)
	if rows == nil || err != nil {
		return b, err
	}
	n := 0
	for _, x := range rows {
		n += bits.OnesCount64(x)
	}
	switch {
	case n == 0:
		return nil, r.counted(b, 1)
	case n > b.Len()/2:
		return b, nil
	}
	some, err := of.ChooseRows(rows)
	if err != nil {
		return nil, err
	}
	return chosen{Chosen: some}, nil
}

// unmasked returns some traces of a block without what was deleted.
func (r *reader) unmasked(u *unit, b storage.TraceBlock, some []int32) (storage.TraceBlock, error) {
	ids, err := b.Traces()
	if err != nil {
		return nil, err
	}
	first, err := b.First()
	if err != nil {
		return nil, err
	}
	parents, err := b.Parents()
	if err != nil {
		return nil, err
	}
	masked := func(k int32) bool {
		return slices.ContainsFunc(u.Masks, func(m traces.Mask) bool { return m.MayCover(ids[k]) })
	}
	if len(some) == len(ids) && !slices.ContainsFunc(some, masked) {
		return b, nil
	}
	c := newComposer([]storage.TraceBlock{b}, 0)
	for _, k := range some {
		p := place{from: first[k], to: first[k+1]}
		if masked(k) {
			cut, err := r.cut(u, b, &p)
			if err != nil {
				return nil, err
			}
			if cut {
				if _, err := c.join(ids[k], []place{p}); err != nil {
					return nil, err
				}
				continue
			}
		}
		c.add(ids[k], p, parents)
	}
	return c.out, nil
}

// cut takes what was deleted from rows of a block, and says whether that was anything.
func (r *reader) cut(u *unit, b storage.TraceBlock, p *place) (bool, error) {
	starts, err := b.Starts()
	if err != nil {
		return false, err
	}
	ids, err := b.Traces()
	if err != nil {
		return false, err
	}
	first, err := b.First()
	if err != nil {
		return false, err
	}
	k, found := slices.BinarySearch(first, p.from)
	if !found {
		return false, nil
	}
	some, any := without(p.from, p.to, func(row int32) bool { return traces.Covered(u.Masks, ids[k], starts[row]) })
	if any {
		p.some = some
	}
	return any, nil
}

// candidate is something in the queue: a unit, a block of one, traces that are joined, or traces of heads.
type candidate struct {
	bound int64 // none of its traces starts after it
	u     *unit
	block int // -1: the unit's blocks are not in the queue yet
	group *group
	batch int // of whose table the group is; 0 for others
	heads []traces.HeldTrace
	held  *heldBlock
	n     int // place in the queue: of equal bounds the first one comes first
}

// candidates is a heap, the newest on top.
type candidates []candidate

func (q candidates) Len() int { return len(q) }

func (q candidates) Less(i, j int) bool {
	return q[i].bound > q[j].bound || q[i].bound == q[j].bound && q[i].n < q[j].n
}

func (q candidates) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *candidates) Push(x any) { *q = append(*q, x.(candidate)) }

// Pop implements heap.Interface.
func (q *candidates) Pop() any {
	old := *q
	c := old[len(old)-1]
	old[len(old)-1] = candidate{}
	*q = old[:len(old)-1]
	return c
}

func (r *reader) push(c candidate) {
	if c.u != nil {
		c.n = c.u.n
	}
	heap.Push(&r.queue, c)
}
