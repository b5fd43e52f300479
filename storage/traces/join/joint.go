package join

import (
	"cmp"
	"math"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/columns"
	"github.com/braidobs/braid/storage/traces/places"
)

// joint is a trace that lies in several places.
type joint struct {
	id    telemetry.TraceID
	at    []places.Place
	heads []traces.HeldTrace // in the heads that have it
	// Of the blocks that it lies in: all spans start and end between lo and hi, the first one does not start after first, and
	// no other one after last.
	lo, hi      int64
	first, last int64
}

// span sets the times of a trace from those of its blocks.
func (j *joint) span(info func(places.Place) (in columns.Info, ok bool, err error)) error {
	j.lo, j.hi, j.first, j.last = math.MaxInt64, math.MinInt64, math.MaxInt64, math.MinInt64
	for _, p := range j.at {
		in, ok, err := info(p)
		if err != nil {
			return err
		}
		if ok {
			j.lo, j.hi = min(j.lo, in.Lo), max(j.hi, in.Hi)
			j.first, j.last = min(j.first, in.LastFirst), max(j.last, in.LastStart)
		}
	}
	return nil
}

const (
	// jointBlocks is from how many blocks the traces of one joined block come, unless a single trace lies in more.
	jointBlocks = 8
	// joints is how many traces a joined block has at most.
	maxJoints = 256
)

// group is traces in several places that come in one block.
type group struct {
	joints      []joint
	in          []int32 // the number of the block of each place of each of the traces
	blocks      []places.Place
	lo, hi      int64
	first, last int64
}

// groupsOf makes groups of traces that start at about the same time, the newest first.
func groupsOf(js []joint) (out []group) {
	slices.SortFunc(js, func(a, b joint) int {
		c := cmp.Compare(b.first, a.first)
		if c == 0 && len(a.at) > 0 && len(b.at) > 0 {
			c = places.Compare(a.at[0], b.at[0])
		}
		return c
	})
	for len(js) > 0 {
		g := group{lo: math.MaxInt64, hi: math.MinInt64, first: js[0].first, last: math.MinInt64}
		number := make(map[places.Place]int32)
		k := 0
		for ; k < len(js) && k < maxJoints; k++ {
			fresh := 0
			for _, p := range js[k].at {
				if _, ok := number[places.Place{Unit: p.Unit, Block: p.Block}]; !ok {
					fresh++
				}
			}
			if k > 0 && fresh+len(g.blocks) > jointBlocks {
				break
			}
			for _, p := range js[k].at {
				block := places.Place{Unit: p.Unit, Block: p.Block}
				n, ok := number[block]
				if !ok {
					n = int32(len(g.blocks))
					number[block] = n
					g.blocks = append(g.blocks, block)
				}
				g.in = append(g.in, n)
			}
			g.lo, g.hi, g.last = min(g.lo, js[k].lo), max(g.hi, js[k].hi), max(g.last, js[k].last)
		}
		g.joints = js[:k:k]
		out = append(out, g)
		js = js[k:]
	}
	return out
}

// pushGroup puts a group of the table of a batch into the queue.
func (r *reader) pushGroup(g *group, batch int) {
	if !r.overlaps(g.lo, g.hi) {
		return
	}
	bound := g.first
	if len(r.Masks) > 0 { // the first spans may be deleted
		bound = g.last
	}
	r.push(candidate{group: g, batch: batch, bound: bound, n: len(r.queue)})
}

// chosen returns the traces of a candidate that may be what the query asks for. It opens what it has to look at.
func (r *reader) chosen(c *candidate, o *opened) ([]joint, error) {
	g := c.group
	if len(r.Need) == 0 && c.batch == 0 {
		return g.joints, nil
	}
	pass := make([][]*set, 0, 4)
	for k := range r.Need {
		of, some, err := r.passing(g, k, o)
		if err != nil {
			return nil, err
		}
		if !some && c.batch > 0 { // there are no heads in tables
			return nil, nil
		}
		pass = append(pass, of)
	}
	var out []joint
	in := g.in
	for i := range g.joints {
		j := &g.joints[i]
		mine := in[:len(j.at)]
		in = in[len(j.at):]
		if !r.matches(j, mine, pass) {
			continue
		}
		if c.batch > 0 {
			if !r.overlaps(j.lo, j.hi) || len(r.taken) > 0 && r.taken[j.id] {
				continue
			}
			if slices.ContainsFunc(j.at, func(p places.Place) bool { b := r.units[p.Unit].batch; return b > 0 && b < c.batch }) {
				continue // it came with an earlier one
			}
		}
		out = append(out, *j)
	}
	return out, nil
}

// matches says whether a trace has a row for each predicate, given which traces of the blocks of its places have.
func (r *reader) matches(j *joint, in []int32, pass [][]*set) bool {
next:
	for k, of := range pass {
		for i, n := range in {
			if of[n].has(int(j.at[i].Trace)) {
				continue next
			}
		}
		for i := range j.heads {
			if r.headMatch(&j.heads[i], k) {
				continue next
			}
		}
		return false
	}
	return true
}

// passing returns for each block of a group which traces may have a row that matches predicate k, and whether there are any.
func (r *reader) passing(g *group, k int, o *opened) (pass []*set, some bool, err error) {
	pass = make([]*set, len(g.blocks))
	for n, p := range g.blocks {
		u := r.units[p.Unit]
		if u.broken {
			continue
		}
		pass[n], err = u.passing(r.Need, k, int(p.Block), func() (storage.TraceBlock, error) {
			i, err := r.open(o, p)
			if err != nil {
				return nil, err
			}
			return o.blocks[i], nil
		})
		if err != nil {
			if err = r.lost(u, err); err != nil {
				return nil, false, err
			}
			continue
		}
		some = some || !pass[n].empty()
	}
	return pass, some, nil
}

// opened is blocks that are open at once, and valid until others are opened in their place.
type opened struct {
	number map[places.Place]int // of blocks; places have no trace
	blocks []storage.TraceBlock
	owners []*unit
}

// open returns the number of the block of a place.
func (r *reader) open(o *opened, p places.Place) (int, error) {
	key := places.Place{Unit: p.Unit, Block: p.Block}
	if n, ok := o.number[key]; ok {
		return n, nil
	}
	n := len(o.blocks)
	if n == len(r.more) {
		r.more = append(r.more, r.shared.memories.Take())
	}
	u := r.units[p.Unit]
	b, err := u.Block(int(p.Block), r.more[n])
	if err != nil {
		return 0, err
	}
	if o.number == nil {
		o.number = make(map[places.Place]int)
	}
	o.number[key] = n
	o.blocks, o.owners = append(o.blocks, b), append(o.owners, u)
	return n, nil
}

// join puts traces of heads, or those that were looked for by their IDs, into the queue, as far as they are wanted.
func (r *reader) join(all []joint) error {
	wanted := all[:0]
	for i := range all {
		j := &all[i]
		if err := j.span(r.infoOf); err != nil {
			return err
		}
		known := len(r.Masks) == 0 && j.first <= j.last // only what parts have of it is known to be all there
		for _, h := range j.heads {
			lo, hi, last := h.Bounds()
			j.lo, j.hi, j.last = min(j.lo, lo), max(j.hi, hi), max(j.last, last)
		}
		if !known {
			j.first = j.last
		}
		if !r.overlaps(j.lo, j.hi) {
			continue
		}
		ok, err := r.wanted(j)
		if err != nil {
			return err
		}
		if ok {
			wanted = append(wanted, *j)
		}
	}
	groups := groupsOf(wanted)
	for i := range groups {
		r.push(candidate{group: &groups[i], bound: groups[i].first, n: len(r.queue)})
	}
	return nil
}

// wanted says whether a trace may have a row for each predicate, as far as is known without a look at the blocks.
func (r *reader) wanted(j *joint) (bool, error) {
	for k := range r.Need {
		ok, err := r.mayMatch(j, k)
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// mayMatch says whether a row of a trace may match predicate k.
func (r *reader) mayMatch(j *joint, k int) (bool, error) {
	for _, p := range j.at {
		u := r.units[p.Unit]
		if u.broken {
			continue
		}
		ok, err := u.mayHold(r.Need, k, int(p.Block))
		if err != nil {
			if err = r.lost(u, err); err != nil {
				return false, err
			}
			continue
		}
		if ok {
			return true, nil
		}
	}
	for i := range j.heads {
		if r.headMatch(&j.heads[i], k) {
			return true, nil
		}
	}
	return false, nil
}

// choice is the blocks that some traces lie in.
type choice struct {
	blocks []storage.TraceBlock
	owners []*unit
	number []int     // by number in opened
	some   [][]int32 // the traces that a block is left with; nil for all
}

// choose returns the open blocks that js lie in, without other traces where that makes them much smaller.
func (r *reader) choose(js []joint, o *opened) (*choice, error) {
	some := make([][]int32, len(o.blocks))
	for i := range js {
		for _, p := range js[i].at {
			if n, ok := o.number[places.Place{Unit: p.Unit, Block: p.Block}]; ok {
				some[n] = append(some[n], p.Trace)
			}
		}
	}
	c := &choice{number: make([]int, len(o.blocks))}
	for n, b := range o.blocks {
		if len(some[n]) == 0 {
			continue
		}
		slices.Sort(some[n])
		some[n] = slices.Compact(some[n])
		less, err := few(b, some[n])
		if err != nil {
			if err = r.lost(o.owners[n], err); err != nil {
				return nil, err
			}
			continue
		}
		if less == nil {
			less, some[n] = b, nil
		}
		c.number[n] = len(c.blocks)
		c.blocks, c.owners, c.some = append(c.blocks, less), append(c.owners, o.owners[n]), append(c.some, some[n])
	}
	return c, nil
}

// few returns some traces of a block; nil if they are many, or the block is not of columns.
func few(b storage.TraceBlock, some []int32) (storage.TraceBlock, error) {
	from, ok := b.(traces.Bounded)
	if !ok {
		return nil, nil
	}
	first, err := from.First()
	if err != nil {
		return nil, err
	}
	rows := int32(0)
	for _, t := range some {
		rows += first[t+1] - first[t]
	}
	if int(rows) > b.Len()/2 {
		return nil, nil
	}
	c, err := from.Choose(some)
	if err != nil {
		return nil, err
	}
	return chosen{Chosen: c}, nil
}

// compose makes a block of traces that lie in several places, some of whose blocks may be open.
func (r *reader) compose(js []joint, o *opened) (storage.TraceBlock, error) {
again:
	for i := range js {
		for _, p := range js[i].at {
			u := r.units[p.Unit]
			if u.broken {
				continue
			}
			if _, err := r.open(o, p); err != nil {
				if err = r.lost(u, err); err != nil {
					return nil, err
				}
			}
		}
	}
	of, err := r.choose(js, o)
	if err != nil {
		return nil, err
	}
	blocks, owners := of.blocks, of.owners
	held := newHeldBlock(&r.columns)
	inHead := make([]place, len(js))
	for i := range js {
		from := held.Len()
		var rows []traces.Held
		for k := range js[i].heads {
			h := &js[i].heads[k]
			rows = h.Rows(rows, r.Lo, r.Hi, r.Masks)
			lo, hi, _ := h.Bounds()
			held.span(lo, hi)
		}
		held.add(js[i].id, rows...)
		inHead[i] = place{block: len(blocks), from: int32(from), to: int32(held.Len())}
	}
	if held.Len() > 0 {
		blocks = append(blocks, held)
	}
	c := newComposer(blocks, 0)
	for i := range js {
		var ps []place
		for _, f := range js[i].at {
			u := r.units[f.Unit]
			if u.broken {
				continue
			}
			n := of.number[o.number[places.Place{Unit: f.Unit, Block: f.Block}]]
			if some := of.some[n]; some != nil {
				at, _ := slices.BinarySearch(some, f.Trace)
				f.Trace = int32(at)
			}
			p, err := r.placeOf(u, blocks[n], n, f)
			if err != nil {
				if err = r.lost(u, err); err != nil {
					return nil, err
				}
				*o = opened{}
				goto again
			}
			ps = append(ps, p)
		}
		if inHead[i].from < inHead[i].to {
			ps = append(ps, inHead[i])
		}
		if len(ps) == 1 && ps[0].some == nil && inHead[i].from == inHead[i].to { // its tree is there
			parents, err := blocks[ps[0].block].Parents()
			if err == nil {
				c.add(js[i].id, ps[0], parents)
				continue
			}
			if err = r.lost(owners[ps[0].block], err); err != nil {
				return nil, err
			}
			*o = opened{}
			goto again
		}
		trees := r.trees(&js[i], ps)
		if t := trees.get(js[i].id); t != nil {
			c.graft(js[i].id, ps, t)
			continue
		}
		if n, err := c.join(js[i].id, ps); err != nil {
			if err = r.lost(owners[n], err); err != nil { // a block in memory has none
				return nil, err
			}
			*o = opened{}
			goto again
		}
		trees.put(js[i].id, c)
	}
	return c.out, nil
}

// trees returns where the tree of a trace may be kept, nil when that is not the one of all of its fragments.
func (r *reader) trees(j *joint, ps []place) *trees {
	if len(j.heads) > 0 || len(j.at) == 0 || len(ps) != len(j.at) {
		return nil
	}
	for i := range ps {
		if ps[i].some != nil {
			return nil
		}
	}
	t := r.units[j.at[0].Unit].table
	if t == nil || len(t.More[j.id]) != len(ps) {
		return nil
	}
	return &t.trees
}

// placeOf returns the rows of a fragment that were not deleted.
func (r *reader) placeOf(u *unit, b storage.TraceBlock, n int, f places.Place) (place, error) {
	first, err := b.First()
	if err != nil {
		return place{}, err
	}
	p := place{block: n, from: first[f.Trace], to: first[f.Trace+1]}
	if len(u.Masks) > 0 {
		_, err = r.cut(u, b, &p)
	}
	return p, err
}

// headTraces returns the traces of heads: those that lie elsewhere, too, and the others.
func (r *reader) headTraces(known *table) (all []joint, plain []traces.HeldTrace) {
	r.taken, r.inHeads = make(map[telemetry.TraceID]bool), make(sharing)
	for k, h := range r.heads {
	next:
		for _, tr := range h.Traces() {
			id := tr.ID()
			j := joint{id: id, heads: []traces.HeldTrace{tr}}
			for o, other := range r.heads {
				if o == k {
					continue
				}
				if same, ok := other.Trace(id); ok {
					if o < k {
						continue next
					}
					j.heads = append(j.heads, same)
				}
			}
			if r.headIDs != nil {
				j.at = slices.Clone(r.headIDs.More[id])
				j.at = slices.DeleteFunc(j.at, func(f places.Place) bool { return int(f.Unit) >= len(r.units) }) // itself
				slices.SortFunc(j.at, places.Compare)
			} else if known != nil {
				j.at = known.Find(&id)
			}
			if len(j.at) == 0 && len(j.heads) == 1 {
				plain = append(plain, tr)
				continue
			}
			r.taken[id] = true
			for _, p := range j.at {
				r.inHeads.add(p)
			}
			all = append(all, j)
		}
	}
	return all, plain
}
