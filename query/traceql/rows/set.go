package rows

import "math/bits"

// Set is a set of rows of a block, one bit a row.
type Set []uint64

// NewSet returns an empty set for n rows.
func NewSet(n int) Set { return make(Set, (n+63)/64) }

// Full returns the set of all n rows.
func Full(n int) Set {
	s := NewSet(n)
	s.AddRange(0, n)
	return s
}

// Add adds a row.
func (s Set) Add(i int) { s[i>>6] |= 1 << (i & 63) }

// Has says whether the row is in the set.
func (s Set) Has(i int) bool { return s[i>>6]&(1<<(i&63)) != 0 }

// AddRange adds the rows from lo up to, not including, hi.
func (s Set) AddRange(lo, hi int) {
	if lo >= hi {
		return
	}
	a, b := lo>>6, (hi-1)>>6
	first, last := ^uint64(0)<<(lo&63), ^uint64(0)>>(63-(hi-1)&63)
	if a == b {
		s[a] |= first & last
		return
	}
	s[a] |= first
	for i := a + 1; i < b; i++ {
		s[i] = ^uint64(0)
	}
	s[b] |= last
}

// Empty says whether no row is in the set.
func (s Set) Empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

// Count returns the number of rows.
func (s Set) Count() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// CountRange returns the number of rows from lo up to, not including, hi.
func (s Set) CountRange(lo, hi int) int {
	n := 0
	for i := lo >> 6; i<<6 < hi; i++ {
		n += bits.OnesCount64(s.word(i, lo, hi))
	}
	return n
}

// AnyIn says whether there is a row from lo up to, not including, hi.
func (s Set) AnyIn(lo, hi int) bool {
	for i := lo >> 6; i<<6 < hi; i++ {
		if s.word(i, lo, hi) != 0 {
			return true
		}
	}
	return false
}

// word returns word i with the bits from lo to hi only.
func (s Set) word(i, lo, hi int) uint64 {
	w := s[i]
	if i == lo>>6 {
		w &= ^uint64(0) << (lo & 63)
	}
	if i == hi>>6 {
		w &= 1<<(hi&63) - 1
	}
	return w
}

// Clone returns a copy.
func (s Set) Clone() Set { return append(Set(nil), s...) }

// And keeps the rows that are in t as well, and returns s.
func (s Set) And(t Set) Set {
	for i := range s {
		s[i] &= t[i]
	}
	return s
}

// Or adds the rows of t, and returns s.
func (s Set) Or(t Set) Set {
	for i := range s {
		s[i] |= t[i]
	}
	return s
}

// AndNot removes the rows of t, and returns s.
func (s Set) AndNot(t Set) Set {
	for i := range s {
		s[i] &^= t[i]
	}
	return s
}

// Each calls f with each row, ascending.
func (s Set) Each(f func(i int)) {
	for w, b := range s {
		for ; b != 0; b &= b - 1 {
			f(w<<6 + bits.TrailingZeros64(b))
		}
	}
}

// EachIn calls f with each row from lo up to, not including, hi, ascending.
func (s Set) EachIn(lo, hi int, f func(i int)) {
	for w := lo >> 6; w<<6 < hi; w++ {
		for b := s.word(w, lo, hi); b != 0; b &= b - 1 {
			f(w<<6 + bits.TrailingZeros64(b))
		}
	}
}
