package rows

import "github.com/braidobs/braid/query/traceql/syntax"

// Tree returns the rows of r that a structural operator finds with l: those of r that are children, descendants, parents,
// ancestors or siblings of a row of l, for a negative operator those that are not, and for a union operator the rows of l
// that made them be found as well. Roots, and roots of fragments, have neither parents nor siblings.
func Tree(op syntax.Op, parents []int32, l, r Set) Set {
	switch op {
	case syntax.Child:
		return children(parents, l, r)
	case syntax.ChildNot:
		return r.Clone().AndNot(children(parents, l, r))
	case syntax.ChildUnion:
		return children(parents, l, r).Or(parentsOf(parents, r, l))
	case syntax.Parent:
		return parentsOf(parents, l, r)
	case syntax.ParentNot:
		return r.Clone().AndNot(parentsOf(parents, l, r))
	case syntax.ParentUnion:
		return parentsOf(parents, l, r).Or(children(parents, r, l))
	case syntax.Descendant:
		return descendants(parents, l, r)
	case syntax.DescendantNot:
		return r.Clone().AndNot(descendants(parents, l, r))
	case syntax.DescendantUnion:
		return descendants(parents, l, r).Or(ancestors(parents, r, l))
	case syntax.Ancestor:
		return ancestors(parents, l, r)
	case syntax.AncestorNot:
		return r.Clone().AndNot(ancestors(parents, l, r))
	case syntax.AncestorUnion:
		return ancestors(parents, l, r).Or(descendants(parents, r, l))
	case syntax.Sibling:
		return siblings(parents, l, r)
	case syntax.SiblingNot:
		return r.Clone().AndNot(siblings(parents, l, r))
	case syntax.SiblingUnion:
		return siblings(parents, l, r).Or(siblings(parents, r, l))
	default:
		return NewSet(len(parents))
	}
}

// children returns the rows of r whose parent is in l.
func children(parents []int32, l, r Set) Set {
	out := make(Set, len(r))
	if l.Empty() {
		return out
	}
	r.Each(func(i int) {
		if p := parents[i]; p >= 0 && l.Has(int(p)) {
			out.Add(i)
		}
	})
	return out
}

// parentsOf returns the rows of r that have a child in l.
func parentsOf(parents []int32, l, r Set) Set {
	out := make(Set, len(r))
	if r.Empty() {
		return out
	}
	l.Each(func(i int) {
		if p := parents[i]; p >= 0 && r.Has(int(p)) {
			out.Add(int(p))
		}
	})
	return out
}

// descendants returns the rows of r with an ancestor in l: parents come first, so one pass tells of each row whether it
// has one.
func descendants(parents []int32, l, r Set) Set {
	out := make(Set, len(r))
	if l.Empty() || r.Empty() {
		return out
	}
	below := make(Set, len(r))
	for i, p := range parents {
		if p >= 0 && (l.Has(int(p)) || below.Has(int(p))) {
			below.Add(i)
		}
	}
	return out.Or(below).And(r)
}

// ancestors returns the rows of r with a descendant in l. From each row of l it goes up until a row that was visited.
func ancestors(parents []int32, l, r Set) Set {
	above := make(Set, len(r))
	if r.Empty() {
		return above
	}
	l.Each(func(i int) {
		for p := parents[i]; p >= 0 && !above.Has(int(p)); p = parents[p] {
			above.Add(int(p))
		}
	})
	return above.And(r)
}

// siblings returns the rows of r that have the same parent as another row of l.
func siblings(parents []int32, l, r Set) Set {
	out := make(Set, len(r))
	if l.Empty() || r.Empty() {
		return out
	}
	// Of each parent, one child in l, and whether there are more.
	one := make([]int32, len(parents))
	more := make(Set, len(r))
	l.Each(func(i int) {
		p := parents[i]
		if p < 0 {
			return
		}
		if one[p] != 0 {
			more.Add(int(p))
		}
		one[p] = int32(i) // no child is row 0
	})
	r.Each(func(i int) {
		if p := parents[i]; p >= 0 && one[p] != 0 && (int(one[p]) != i || more.Has(int(p))) {
			out.Add(i)
		}
	})
	return out
}
