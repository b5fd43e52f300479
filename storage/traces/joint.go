package traces

import (
	"cmp"
	"math"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// joint is a trace that lies in several places.
type joint struct {
	id    telemetry.TraceID
	at    []fragment
	heads []heldTrace // in the heads that have it
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
		if slices.ContainsFunc(j.at, func(f fragment) bool { b := r.units[f.unit].batch; return b > 0 && b < n }) {
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
			c = compareFragments(a.at[0], b.at[0])
		}
		return c
	})
	for len(wanted) > 0 {
		k := 0
		blocks := make(map[fragment]bool)
		for ; k < len(wanted) && k < maxJoints; k++ {
			for _, f := range wanted[k].at {
				blocks[fragment{unit: f.unit, block: f.block}] = true
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
		lo, hi = min(lo, h.lo), max(hi, h.end)
	}
	for _, f := range j.at {
		in := &r.units[f.unit].info
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
		lo, hi = min(lo, h.lo), max(hi, h.end)
	}
	for _, f := range j.at {
		u := r.units[f.unit]
		if u.broken {
			continue
		}
		in, err := u.blockInfo(int(f.block))
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
			last = max(last, h.hi)
		}
		j.bound = last
	}
	return r.overlaps(lo, hi), nil
}

// mayMatch says whether a row of a trace may match predicate k.
func (r *reader) mayMatch(j *joint, k int) (bool, error) {
	for _, f := range j.at {
		u := r.units[f.unit]
		if u.broken {
			continue
		}
		ok, err := u.mayHold(r.Need, k, int(f.block))
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
	number := make(map[fragment]int)
	for i := range js {
		for _, f := range js[i].at {
			u := r.units[f.unit]
			key := fragment{unit: f.unit, block: f.block}
			if _, known := number[key]; known || u.broken {
				continue
			}
			if len(blocks) == len(r.more) {
				r.more = append(r.more, r.shared.memories.take())
			}
			b, err := u.block(int(f.block), r.more[len(blocks)])
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
		var places []place
		for _, f := range js[i].at {
			u := r.units[f.unit]
			if u.broken {
				continue
			}
			n := number[fragment{unit: f.unit, block: f.block}]
			p, err := r.placeOf(u, blocks[n], n, f)
			if err != nil {
				if err = r.lost(u, err); err != nil {
					return nil, err
				}
				goto again
			}
			places = append(places, p)
		}
		if inHead[i].from < inHead[i].to {
			places = append(places, inHead[i])
		}
		if len(places) == 1 && places[0].some == nil && inHead[i].from == inHead[i].to { // its tree is there
			parents, err := blocks[places[0].block].Parents()
			if err == nil {
				c.add(js[i].id, places[0], parents)
				continue
			}
			if err = r.lost(owners[places[0].block], err); err != nil {
				return nil, err
			}
			goto again
		}
		trees := r.trees(&js[i], places)
		if t := trees.get(js[i].id); t != nil {
			c.graft(js[i].id, places, t)
			continue
		}
		if n, err := c.join(js[i].id, places); err != nil {
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
func (r *reader) trees(j *joint, places []place) *trees {
	if len(j.heads) > 0 || len(j.at) == 0 || len(places) != len(j.at) {
		return nil
	}
	for i := range places {
		if places[i].some != nil {
			return nil
		}
	}
	t := r.units[j.at[0].unit].table
	if t == nil || len(t.more[j.id]) != len(places) {
		return nil
	}
	return &t.trees
}

// placeOf returns the rows of a fragment that were not deleted.
func (r *reader) placeOf(u *unit, b storage.TraceBlock, n int, f fragment) (place, error) {
	first, err := b.First()
	if err != nil {
		return place{}, err
	}
	p := place{block: n, from: first[f.trace], to: first[f.trace+1]}
	if len(u.masks) > 0 {
		_, err = r.cut(u, b, &p)
	}
	return p, err
}

// headTraces returns the traces of heads: those that lie elsewhere, too, and the others.
func (r *reader) headTraces(table *idTable) (all []joint, plain []heldTrace) {
	r.taken, r.inHeads = make(map[telemetry.TraceID]bool), make(map[[2]int]bool)
	for k, h := range r.heads {
	next:
		for _, tr := range h.traces() {
			if r.Fragments {
				plain = append(plain, tr)
				continue
			}
			j := joint{id: tr.id, heads: []heldTrace{tr}}
			for o, other := range r.heads {
				if o == k {
					continue
				}
				if same, ok := other.trace(tr.id); ok {
					if o < k {
						continue next
					}
					j.heads = append(j.heads, same)
				}
			}
			if r.headIDs != nil {
				j.at = slices.Clone(r.headIDs.more[tr.id])
				j.at = slices.DeleteFunc(j.at, func(f fragment) bool { return int(f.unit) >= len(r.units) }) // itself
				slices.SortFunc(j.at, compareFragments)
			} else if table != nil {
				j.at = table.find(&tr.id)
			}
			if len(j.at) == 0 && len(j.heads) == 1 {
				plain = append(plain, tr)
				continue
			}
			r.taken[tr.id] = true
			for _, f := range j.at {
				r.inHeads[[2]int{int(f.unit), int(f.block)}] = true
			}
			all = append(all, j)
		}
	}
	return all, plain
}

// headChunks puts traces that lie in one head only into the queue, as far as they are wanted.
func (r *reader) headChunks(traces []heldTrace) {
	traces = slices.DeleteFunc(traces, func(tr heldTrace) bool {
		if !r.overlaps(tr.lo, tr.end) {
			return true
		}
		for k := range r.Need {
			if !r.headMatch(&tr, k) {
				return true
			}
		}
		return false
	})
	slices.SortStableFunc(traces, func(a, b heldTrace) int { return cmp.Compare(b.hi, a.hi) })
	for len(traces) > 0 {
		n := 0
		for rows := 0; n < len(traces) && (n == 0 || rows+int(traces[n].rows) <= blockRows); n++ {
			rows += int(traces[n].rows)
		}
		r.push(candidate{heads: traces[:n:n], bound: traces[0].hi, n: -1})
		traces = traces[n:]
	}
}

// headMatch says whether a row of a trace in a head may match predicate k.
func (r *reader) headMatch(tr *heldTrace, k int) bool {
	key := headNeed{tr.of, k}
	found, known := r.matching[key]
	if !known {
		found = tr.of.matching(r.Need[k], len(tr.of.traces()))
		if r.matching == nil {
			r.matching = make(map[headNeed][]bool)
		}
		r.matching[key] = found
	}
	return int(tr.n) >= len(found) || found[tr.n]
}

// headNeed is a predicate of the query, of a head.
type headNeed struct {
	of *Tenant
	k  int
}

// headEach calls f for the spans of a trace in a head that were not deleted, in the order of arrival.
func (r *reader) headEach(tr *heldTrace, f func(*telemetry.Resource, *telemetry.Span)) {
	r.rows = tr.of.chain(r.rows[:0], tr.last)
	for _, row := range r.rows {
		e := tr.of.at(row)
		s := &e.spans[row-e.base]
		if s.Start >= r.Lo && s.Start <= r.Hi && (len(r.Masks) == 0 || !covered(since(r.Masks, e.pos), s.TraceID, s.Start)) {
			f(e.res, s)
		}
	}
}

// headRows returns the spans of a trace in heads that were not deleted, in the order of arrival.
func (r *reader) headRows(in []heldTrace) []storage.SpanRow {
	var out []storage.SpanRow
	for i := range in {
		r.headEach(&in[i], func(res *telemetry.Resource, s *telemetry.Span) {
			out = append(out, storage.SpanRow{Resource: res, Span: s})
		})
	}
	return out
}

// headBlock makes a block of traces that lie in one head only.
func (r *reader) headBlock(traces []heldTrace) storage.TraceBlock {
	b := storage.NewTraceRows(0)
	for i := range traces {
		b.Add(r.headRows(traces[i : i+1]))
	}
	return b
}
