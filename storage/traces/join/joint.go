package join

import (
	"cmp"
	"math"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/places"
)

// joint is a trace that lies in several places.
type joint struct {
	id    telemetry.TraceID
	at    []places.Place
	heads []traces.HeldTrace // in the heads that have it
	bound int64
}

const (
	// jointBlocks is from how many blocks the traces of one joined block come, unless a single trace lies in more.
	jointBlocks = 8
	// joints is how many traces a joined block has at most.
	maxJoints = 256
)

// join puts the traces of batch n that lie in several places into the queue, as far as they are wanted.
func (r *reader) join(all []joint, n int) error {
	wanted := all[:0]
	for i := range all {
		j := &all[i]
		if slices.ContainsFunc(j.at, func(f places.Place) bool { b := r.units[f.Unit].batch; return b > 0 && b < n }) {
			continue // it came with an earlier batch
		}
		ok, err := r.wanted(j)
		if err != nil {
			return err
		}
		if ok {
			wanted = append(wanted, *j)
		}
	}
	slices.SortFunc(wanted, func(a, b joint) int {
		c := cmp.Compare(b.bound, a.bound)
		if c == 0 && len(a.at) > 0 && len(b.at) > 0 {
			c = places.Compare(a.at[0], b.at[0])
		}
		return c
	})
	for len(wanted) > 0 {
		k := 0
		blocks := make(map[places.Place]bool)
		for ; k < len(wanted) && k < maxJoints; k++ {
			for _, f := range wanted[k].at {
				blocks[places.Place{Unit: f.Unit, Block: f.Block}] = true
			}
			if len(blocks) > jointBlocks && k > 0 {
				break
			}
		}
		r.push(candidate{joints: wanted[:k:k], bound: wanted[0].bound, n: len(r.queue)})
		wanted = wanted[k:]
	}
	return nil
}

// wanted says whether a trace may be what the query asks for, and sets its bound.
func (r *reader) wanted(j *joint) (bool, error) {
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	for _, h := range j.heads {
		from, to, _ := h.Bounds()
		lo, hi = min(lo, from), max(hi, to)
	}
	for _, f := range j.at {
		in := &r.units[f.Unit].Info
		lo, hi = min(lo, in.Lo), max(hi, in.Hi)
	}
	if !r.overlaps(lo, hi) {
		return false, nil
	}
	for k := range r.Need {
		ok, err := r.mayMatch(j, k)
		if !ok || err != nil {
			return false, err
		}
	}
	// The blocks know better than the units.
	lo, hi = math.MaxInt64, math.MinInt64
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	for _, h := range j.heads {
		from, to, _ := h.Bounds()
		lo, hi = min(lo, from), max(hi, to)
	}
	for _, f := range j.at {
		u := r.units[f.Unit]
		if u.broken {
			continue
		}
		in, err := u.BlockInfo(int(f.Block))
		if err != nil {
			if err = r.lost(u, err); err != nil {
				return false, err
			}
			continue
		}
		lo, hi = min(lo, in.Lo), max(hi, in.Hi)
		first, last = min(first, in.LastFirst), max(last, in.LastStart)
	}
	j.bound = first
	if len(r.Masks) > 0 || first > last { // only what parts have of it is known to be all there
		for _, h := range j.heads {
			_, _, start := h.Bounds()
			last = max(last, start)
		}
		j.bound = last
	}
	return r.overlaps(lo, hi), nil
}

// mayMatch says whether a row of a trace may match predicate k.
func (r *reader) mayMatch(j *joint, k int) (bool, error) {
	for _, f := range j.at {
		u := r.units[f.Unit]
		if u.broken {
			continue
		}
		ok, err := u.mayHold(r.Need, k, int(f.Block))
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

// compose makes a block of traces that lie in several places.
func (r *reader) compose(js []joint) (storage.TraceBlock, error) {
again:
	var (
		blocks []storage.TraceBlock
		owners []*unit
	)
	number := make(map[places.Place]int)
	for i := range js {
		for _, f := range js[i].at {
			u := r.units[f.Unit]
			key := places.Place{Unit: f.Unit, Block: f.Block}
			if _, known := number[key]; known || u.broken {
				continue
			}
			if len(blocks) == len(r.more) {
				r.more = append(r.more, r.shared.memories.Take())
			}
			b, err := u.Block(int(f.Block), r.more[len(blocks)])
			if err == nil {
				_, err = b.First()
			}
			if err != nil {
				if err = r.lost(u, err); err != nil {
					return nil, err
				}
				continue
			}
			number[key] = len(blocks)
			blocks, owners = append(blocks, b), append(owners, u)
		}
	}
	held := storage.NewTraceRows(0)
	inHead := make([]place, len(js))
	for i := range js {
		from := held.Len()
		held.Add(r.headRows(js[i].heads))
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
			n := number[places.Place{Unit: f.Unit, Block: f.Block}]
			p, err := r.placeOf(u, blocks[n], n, f)
			if err != nil {
				if err = r.lost(u, err); err != nil {
					return nil, err
				}
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
	r.taken, r.inHeads = make(map[telemetry.TraceID]bool), make(map[[2]int]bool)
	for k, h := range r.heads {
	next:
		for _, tr := range h.Traces() {
			if r.Fragments {
				plain = append(plain, tr)
				continue
			}
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
			for _, f := range j.at {
				r.inHeads[[2]int{int(f.Unit), int(f.Block)}] = true
			}
			all = append(all, j)
		}
	}
	return all, plain
}
