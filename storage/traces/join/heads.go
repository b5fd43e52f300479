package join

import (
	"cmp"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
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

// headRows returns the spans of a trace in heads that were not deleted, in the order of arrival.
func (r *reader) headRows(in []traces.HeldTrace) []storage.SpanRow {
	var out []storage.SpanRow
	for i := range in {
		in[i].Each(r.Lo, r.Hi, r.Masks, func(res *telemetry.Resource, s *telemetry.Span) {
			out = append(out, storage.SpanRow{Resource: res, Span: s})
		})
	}
	return out
}

// headBlock makes a block of traces that lie in one head only.
func (r *reader) headBlock(held []traces.HeldTrace) storage.TraceBlock {
	b := storage.NewTraceRows(0)
	for i := range held {
		b.Add(r.headRows(held[i : i+1]))
	}
	return b
}
