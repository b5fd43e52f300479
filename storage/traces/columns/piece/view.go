package piece

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
)

// View is codes in as few bytes as they need, of which each can be had by itself. It changes no more than the bytes that it is of.
type View struct {
	n     int
	width int    // bytes of a code; 0 when all are the same
	same  uint32 // then
	b     []byte
}

// ViewOf reads n codes below limit, as Codes does. It keeps b.
func ViewOf(m *Memory, b []byte, n int, limit uint32) (View, error) {
	v := View{n: n}
	if n == 0 {
		return v, wantNone(b)
	}
	if len(b) > 0 {
		switch b[0] {
		case codes8:
			v.width = 1
		case codes16:
			v.width = 2
		case codes32:
			v.width = 4
		}
	}
	if v.width > 0 {
		v.b = b[1:]
		if len(v.b) != n*v.width {
			return View{}, fmt.Errorf("%d codes of %d bytes in %d", n, v.width, len(v.b))
		}
		if uint64(limit)>>(8*v.width) > 0 { // all that fit
			return v, nil
		}
		if top := v.top(); top >= limit {
			return View{}, fmt.Errorf("code %d of %d", top, limit)
		}
		return v, nil
	}
	cs, err := Codes(m, b, n, limit)
	if err != nil {
		return View{}, err
	}
	return viewOf(cs), nil
}

// viewOf returns a view of codes, of which there are some.
func viewOf(cs []uint32) View {
	v := View{n: len(cs), same: cs[0]}
	top := slices.Max(cs)
	switch {
	case !slices.ContainsFunc(cs, func(c uint32) bool { return c != v.same }):
	case top < 1<<8:
		v.width, v.b = 1, make([]byte, len(cs))
		for i, c := range cs {
			v.b[i] = byte(c)
		}
	case top < 1<<16:
		v.width, v.b = 2, make([]byte, 2*len(cs))
		for i, c := range cs {
			binary.LittleEndian.PutUint16(v.b[2*i:], uint16(c))
		}
	default:
		v.width, v.b = 4, make([]byte, 4*len(cs))
		for i, c := range cs {
			binary.LittleEndian.PutUint32(v.b[4*i:], c)
		}
	}
	return v
}

func (v *View) top() (top uint32) {
	if v.width == 1 {
		return uint32(slices.Max(v.b))
	}
	for i := range v.n {
		top = max(top, v.At(i))
	}
	return top
}

// Len returns the number of codes.
func (v *View) Len() int { return v.n }

// Width returns how many bytes a code takes, 0 when all are the same.
func (v *View) Width() int { return v.width }

// Clone returns a view with memory of its own.
func (v *View) Clone() View {
	c := *v
	c.b = bytes.Clone(v.b)
	return c
}

// Size returns how many bytes of memory it holds.
func (v *View) Size() int64 { return int64(len(v.b)) + 100 }

// At returns code i.
func (v *View) At(i int) uint32 {
	switch v.width {
	case 0:
		return v.same
	case 1:
		return uint32(v.b[i])
	case 2:
		return uint32(binary.LittleEndian.Uint16(v.b[2*i:]))
	default:
		return binary.LittleEndian.Uint32(v.b[4*i:])
	}
}

// Count returns how many of the codes from number from up to, not including, to are c.
func (v *View) Count(c uint32, from, to int) (count int) {
	if v.width == 1 {
		if c > 255 {
			return 0
		}
		return bytes.Count(v.b[from:to], []byte{byte(c)})
	}
	for i := from; i < to; i++ {
		if v.At(i) == c {
			count++
		}
	}
	return count
}

// Read writes all codes to out, which is as long.
func (v *View) Read(out []uint32) {
	switch v.width {
	case 0:
		for i := range out {
			out[i] = v.same
		}
	case 1:
		b := v.b[:len(out)]
		for i, c := range b {
			out[i] = uint32(c)
		}
	case 2:
		b := v.b[:2*len(out)]
		for i := range out {
			out[i] = uint32(binary.LittleEndian.Uint16(b[2*i:]))
		}
	default:
		b := v.b[:4*len(out)]
		for i := range out {
			out[i] = binary.LittleEndian.Uint32(b[4*i:])
		}
	}
}

// Map writes what of stands for each code to out, which is as long, and returns the largest of that.
func (v *View) Map(of, out []uint32) (top uint32) {
	switch v.width {
	case 0:
		top = of[v.same]
		for i := range out {
			out[i] = top
		}
	case 1:
		var all [256]uint32
		copy(all[:], of)
		b := v.b[:len(out)]
		for i, c := range b {
			x := all[c]
			out[i] = x
			top = max(top, x)
		}
	case 2:
		b := v.b[:2*len(out)]
		for i := range out {
			x := of[binary.LittleEndian.Uint16(b[2*i:])]
			out[i] = x
			top = max(top, x)
		}
	default:
		b := v.b[:4*len(out)]
		for i := range out {
			x := of[binary.LittleEndian.Uint32(b[4*i:])]
			out[i] = x
			top = max(top, x)
		}
	}
	return top
}

// Mark makes set the places of the codes for which some says 1, and says whether there are any. It has a bit for each code,
// and some an entry, 0 or 1, for each code that there may be.
func (v *View) Mark(some []uint8, set []uint64) (any bool) {
	clear(set)
	switch v.width {
	case 0:
		if some[v.same] == 0 {
			return false
		}
		Fill(set, v.n)
		return true
	case 1:
		return v.mark8(some, set)
	case 2:
		return v.mark16(some, set)
	default:
		all := uint64(0)
		for i := range v.n {
			x := uint64(some[binary.LittleEndian.Uint32(v.b[4*i:])]) << (i & 63)
			set[i>>6] |= x
			all |= x
		}
		return all != 0
	}
}

func (v *View) mark8(some []uint8, set []uint64) bool {
	var of [256]uint8
	copy(of[:], some)
	all := uint64(0)
	b := v.b
	for w := range set {
		x := uint64(0)
		if len(b) >= 64 {
			p := (*[64]byte)(b)
			for i := 0; i < 64; i += 4 {
				x |= uint64(of[p[i]])<<(i&63) | uint64(of[p[i+1]])<<((i+1)&63) | uint64(of[p[i+2]])<<((i+2)&63) | uint64(of[p[i+3]])<<((i+3)&63)
			}
			b = b[64:]
		} else {
			for i, c := range b {
				x |= uint64(of[c]) << (i & 63)
			}
			b = nil
		}
		set[w] = x
		all |= x
	}
	return all != 0
}

func (v *View) mark16(some []uint8, set []uint64) bool {
	all := uint64(0)
	b := v.b
	for w := range set {
		x := uint64(0)
		if len(b) >= 128 {
			p := (*[128]byte)(b)
			for i := 0; i < 64; i += 4 {
				c := binary.LittleEndian.Uint64(p[2*i:])
				x |= uint64(some[c&0xffff])<<(i&63) | uint64(some[c>>16&0xffff])<<((i+1)&63) |
					uint64(some[c>>32&0xffff])<<((i+2)&63) | uint64(some[c>>48])<<((i+3)&63)
			}
			b = b[128:]
		} else {
			for i := 0; 2*i < len(b); i++ {
				x |= uint64(some[binary.LittleEndian.Uint16(b[2*i:])]) << (i & 63)
			}
			b = nil
		}
		set[w] = x
		all |= x
	}
	return all != 0
}

// Keep leaves in set, as Mark makes it, the places of the codes for which some says 1.
func (v *View) Keep(some []uint8, set []uint64) {
	for w, x := range set {
		for ; x != 0; x &= x - 1 {
			if i := bits.TrailingZeros64(x); some[v.At(w<<6+i)] == 0 {
				set[w] &^= 1 << i
			}
		}
	}
}

// Fill adds the numbers below n to a set of bits.
func Fill(set []uint64, n int) {
	for w := range set[:n>>6] {
		set[w] = ^uint64(0)
	}
	if n&63 > 0 {
		set[n>>6] |= 1<<(n&63) - 1
	}
}
