package join

import (
	"cmp"
	"math"
	"slices"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
)

// blockRows is about how many rows a block of traces of heads has.
const blockRows = 4096

// headChunks puts traces that lie in one head only into the queue, as far as they are wanted.
func (r *reader) headChunks(held []traces.HeldTrace) {
	held = slices.DeleteFunc(held, func(tr traces.HeldTrace) bool {
		if lo, hi, _ := tr.Bounds(); !r.overlaps(lo, hi) {
			return true
		}
		for k := range r.Need {
			if !r.headMatch(&tr, k) {
				return true
			}
		}
		return false
	})
	last := func(tr *traces.HeldTrace) int64 {
		_, _, start := tr.Bounds()
		return start
	}
	slices.SortStableFunc(held, func(a, b traces.HeldTrace) int { return cmp.Compare(last(&b), last(&a)) })
	for len(held) > 0 {
		n := 0
		for rows := 0; n < len(held) && (n == 0 || rows+held[n].Len() <= blockRows); n++ {
			rows += held[n].Len()
		}
		r.push(candidate{heads: held[:n:n], bound: last(&held[0]), n: -1})
		held = held[n:]
	}
}

// headMatch says whether a row of a trace in a head may match predicate k.
func (r *reader) headMatch(tr *traces.HeldTrace, k int) bool {
	of, n := tr.Of()
	key := headNeed{of, k}
	found, known := r.matching[key]
	if !known {
		found = of.Matching(r.Need[k])
		if r.matching == nil {
			r.matching = make(map[headNeed][]bool)
		}
		r.matching[key] = found
	}
	return n >= len(found) || found[n]
}

// headNeed is a predicate of the query, of a head.
type headNeed struct {
	of *traces.Tenant
	k  int
}

// headBlock makes a block of traces that lie in one head only.
func (r *reader) headBlock(held []traces.HeldTrace) storage.TraceBlock {
	b := newHeldBlock(&r.columns)
	var rows []traces.Held
	for i := range held {
		rows = held[i].Rows(rows[:0], r.Lo, r.Hi, r.Masks)
		lo, hi, _ := held[i].Bounds()
		b.span(lo, hi)
		b.settle(held[i].ID(), rows, &r.settler)
	}
	return b
}

// headFragments puts the spans of a head into the queue, as far as they are wanted, as if each were a trace.
func (r *reader) headFragments(h *traces.Tenant) {
	held := h.Traces()
	wanted := make([]bool, len(held))
	for i := range held {
		lo, hi, _ := held[i].Bounds()
		wanted[i] = r.overlaps(lo, hi)
		for k := 0; wanted[i] && k < len(r.Need); k++ {
			wanted[i] = r.headMatch(&held[i], k)
		}
	}
	var b *heldBlock
	last := int64(math.MinInt64)
	send := func() {
		if b != nil {
			r.push(candidate{held: b, bound: last, n: -1})
		}
		b, last = nil, math.MinInt64
	}
	h.EachRow(r.Lo, r.Hi, r.Masks, func(row traces.Held, trace int) bool {
		if trace >= len(wanted) || !wanted[trace] {
			return true
		}
		if b == nil {
			b = newHeldBlock(&r.columns)
			b.grow(blockRows)
		}
		lo, hi, _ := held[trace].Bounds()
		b.span(lo, hi)
		b.add(held[trace].ID(), row)
		if last = max(last, row.Start()); b.Len() == blockRows {
			send()
		}
		return true
	})
	send()
}
