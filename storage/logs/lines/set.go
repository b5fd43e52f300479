package lines

import "math/bits"

// Set is a set of numbers from 0 on: rows of a block, or blocks of a part.
type Set []uint64

// NewSet returns the set of all numbers below n.
func NewSet(n int) Set {
	s := EmptySet(n)
	s.Fill(n)
	return s
}

// Fill makes it the set of all numbers below n, for which it was made.
func (s Set) Fill(n int) {
	for i := range s {
		s[i] = ^uint64(0)
	}
	if n%64 != 0 {
		s[len(s)-1] = 1<<(n%64) - 1
	}
}

// EmptySet returns an empty set for numbers below n.
func EmptySet(n int) Set { return make(Set, (n+63)/64) }

// Has says whether i is in the set.
func (s Set) Has(i int) bool { return s[i>>6]>>(i&63)&1 != 0 }

// Add adds i.
func (s Set) Add(i int) { s[i>>6] |= 1 << (i & 63) }

// Remove removes i.
func (s Set) Remove(i int) { s[i>>6] &^= 1 << (i & 63) }

// RemoveRange removes the numbers from a up to b, without b.
func (s Set) RemoveRange(a, b int) {
	if a >= b {
		return
	}
	from, to := a>>6, (b-1)>>6
	first, last := ^uint64(0)<<(a&63), ^uint64(0)>>(63-(b-1)&63)
	if from == to {
		s[from] &^= first & last
		return
	}
	s[from] &^= first
	clear(s[from+1 : to])
	s[to] &^= last
}

// Count returns how many numbers are in the set.
func (s Set) Count() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// Any says whether the set is not empty.
func (s Set) Any() bool {
	for _, w := range s {
		if w != 0 {
			return true
		}
	}
	return false
}

// Each calls f with the numbers in rising order. f may remove the number it is called with.
func (s Set) Each(f func(i int)) {
	for w, word := range s {
		for word != 0 {
			f(w<<6 + bits.TrailingZeros64(word))
			word &= word - 1
		}
	}
}

// And keeps what is in o, too.
func (s Set) And(o Set) {
	for i := range s {
		s[i] &= o[i]
	}
}

// Or adds what is in o.
func (s Set) Or(o Set) {
	for i := range s {
		s[i] |= o[i]
	}
}

// AndNot removes what is in o.
func (s Set) AndNot(o Set) {
	for i := range s {
		s[i] &^= o[i]
	}
}
