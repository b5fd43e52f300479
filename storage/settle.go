package storage

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
)

// Settler orders the spans of traces as trees. Its zero value is ready; it is for one caller at a time.
type Settler struct {
	order   []int32 // by start, span ID, parent ID, place
	byID    []int32 // by span ID, start, parent ID, place
	parent  []int32
	child   []int32 // first child that was not visited yet
	next    []int32 // next sibling
	place   []int32 // in the result, -1 before
	stack   []int32
	rows    []SpanRow
	parents []int32
}

// Settle sorts the spans of one trace in place so that each comes right before its descendants, siblings by start, span ID,
// parent ID and then the order in which they were given, and returns the row of each one's parent, NoParent or LostParent.
// The result is valid until the next call.
//
// The parent of a span is the one with the span ID that it names; of several, the first by start, parent ID, then in the order given.
// Roots and the roots of fragments are siblings. Where parents are a circle, the span of it that comes first is the root of
// a fragment; those come last.
func (s *Settler) Settle(rows []SpanRow) []int32 {
	n := len(rows)
	for _, a := range []*[]int32{&s.order, &s.byID, &s.parent, &s.child, &s.next, &s.place, &s.parents} {
		*a = slices.Grow((*a)[:0], n)[:n]
	}
	for i := range n {
		s.order[i], s.byID[i], s.child[i], s.place[i] = int32(i), int32(i), -1, -1
	}
	slices.SortFunc(s.order, func(a, b int32) int {
		x, y := rows[a].Span, rows[b].Span
		if x.Start != y.Start { // mostly
			return cmp.Compare(x.Start, y.Start)
		}
		return cmp.Or(compareIDs(x.SpanID, y.SpanID), compareIDs(x.ParentID, y.ParentID), cmp.Compare(a, b))
	})
	slices.SortFunc(s.byID, func(a, b int32) int {
		x, y := rows[a].Span, rows[b].Span
		if x.SpanID != y.SpanID {
			return compareIDs(x.SpanID, y.SpanID)
		}
		return cmp.Or(cmp.Compare(x.Start, y.Start), compareIDs(x.ParentID, y.ParentID), cmp.Compare(a, b))
	})
	for i := range rows {
		s.parent[i] = s.find(rows, rows[i].Span.ParentID)
	}
	for _, i := range slices.Backward(s.order) { // so that lists of children are in order
		if p := s.parent[i]; p >= 0 {
			s.next[i], s.child[p] = s.child[p], i
		}
	}
	s.rows = s.rows[:0]
	for _, i := range s.order {
		if s.parent[i] < 0 {
			s.descend(rows, i, s.parent[i])
		}
	}
	for _, i := range s.order { // what is left hangs on circles
		if s.place[i] < 0 {
			s.descend(rows, i, LostParent)
		}
	}
	copy(rows, s.rows)
	clear(s.rows)
	return s.parents
}

func compareIDs(a, b telemetry.SpanID) int {
	return cmp.Compare(binary.BigEndian.Uint64(a[:]), binary.BigEndian.Uint64(b[:]))
}

// find returns the row of the span with the ID.
func (s *Settler) find(rows []SpanRow, id telemetry.SpanID) int32 {
	if id.IsZero() {
		return NoParent
	}
	at, ok := slices.BinarySearchFunc(s.byID, id, func(i int32, id telemetry.SpanID) int { return compareIDs(rows[i].Span.SpanID, id) })
	if !ok {
		return LostParent
	}
	return s.byID[at]
}

// descend puts row i and what hangs on it into the result.
func (s *Settler) descend(rows []SpanRow, i, parent int32) {
	put := func(i, parent int32) {
		s.place[i] = int32(len(s.rows))
		s.parents[len(s.rows)] = parent
		s.rows = append(s.rows, rows[i])
	}
	put(i, parent)
	s.stack = append(s.stack[:0], i)
	for len(s.stack) > 0 {
		top := s.stack[len(s.stack)-1]
		c := s.child[top]
		if c < 0 {
			s.stack = s.stack[:len(s.stack)-1]
			continue
		}
		s.child[top] = s.next[c]
		if s.place[c] < 0 {
			put(c, s.place[top])
			s.stack = append(s.stack, c)
		}
	}
}
