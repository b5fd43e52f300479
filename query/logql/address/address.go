// Package address matches IP addresses as LogQL's ip() names them: one address, a range of them, or a network.
package address

import (
	"errors"
	"net/netip"
	"strings"
)

// Set is some addresses. It is safe for concurrent use.
type Set struct {
	low, high netip.Addr
}

// Parse reads 192.0.2.1, 192.0.2.1-192.0.2.9 or 192.0.2.0/24, of either version.
func Parse(s string) (*Set, error) {
	s = strings.TrimSpace(s)
	if a, err := netip.ParseAddr(s); err == nil {
		return &Set{a, a}, nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return &Set{p.Masked().Addr(), last(p)}, nil
	}
	if from, to, ok := strings.Cut(s, "-"); ok {
		a, err1 := netip.ParseAddr(strings.TrimSpace(from))
		b, err2 := netip.ParseAddr(strings.TrimSpace(to))
		if err1 == nil && err2 == nil && a.BitLen() == b.BitLen() && !b.Less(a) {
			return &Set{a, b}, nil
		}
	}
	return nil, errors.New("want an address such as 192.0.2.1, a range such as 192.0.2.1-192.0.2.9 or a network such as 192.0.2.0/24")
}

// last returns the last address of a network.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b) // its length is that of an address
	return a
}

// Contains says whether s is one of the addresses.
func (s *Set) Contains(text string) bool {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	a = a.WithZone("")
	return a.BitLen() == s.low.BitLen() && !a.Less(s.low) && !s.high.Less(a)
}

// Within says whether one of the addresses stands in line, with nothing around it that could belong to an address.
func (s *Set) Within(line string) bool {
	v4 := s.low.Is4()
	for i := 0; i < len(line); {
		n := i
		dots, colons := 0, 0
		for n < len(line) && part(line[n], !v4) {
			switch line[n] {
			case '.':
				dots++
			case ':':
				colons++
			}
			n++
		}
		if n == i {
			i++
			continue
		}
		if word := line[i:n]; v4 && dots >= 3 || !v4 && colons >= 2 {
			if s.Contains(word) || s.Contains(strings.TrimRight(word, ".:")) {
				return true
			}
		}
		i = n
	}
	return false
}

func part(c byte, v6 bool) bool {
	return c >= '0' && c <= '9' || c == '.' || v6 && (c == ':' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F')
}
