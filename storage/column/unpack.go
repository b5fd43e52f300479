package column

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Ints fills m, which is not empty, from what Encoder.Ints wrote with the same ref, and returns what follows. It is quicker
// when 8 bytes follow, whatever they are.
func Ints(src []byte, m, ref []int64) ([]byte, error) { return decode(src, m, ref, 1) }

// Scaled is Ints without ref; each number is multiplied by a constant.
func Scaled(src []byte, m []int64, by int64) ([]byte, error) { return decode(src, m, nil, by) }

// Codes is Ints without ref for numbers below 2^32; of others it returns the lower half.
func Codes(src []byte, m []uint32) ([]byte, error) { return decode(src, m, nil, 1) }

// Some is Scaled for those numbers of which set has a bit; what it makes of others is not defined. It is quicker where
// the set is small and the numbers were not predicted.
func Some(src []byte, m []int64, set []uint64, by int64) ([]byte, error) {
	if len(src) == 0 || src[0]&3 != predNone || len(set) < (len(m)+63)/64 {
		return Scaled(src, m, by)
	}
	shift := src[0] >> 2
	first, src, err := varint(src[1:])
	if err != nil {
		return nil, err
	}
	m[0] = first * by
	by <<= shift
	for from := 1; from < len(m); from += block {
		r := m[from:min(from+block, len(m))]
		if src, err = someOfBlock(src, r, set, from, by); err != nil {
			return nil, err
		}
	}
	return src, nil
}

// someOfBlock is unpackBlock for those residuals of which set has a bit, that of the first one at from.
func someOfBlock(src []byte, r []int64, set []uint64, from int, by int64) ([]byte, error) {
	var b packed
	if err := b.open(src, len(r)); err != nil {
		return nil, err
	}
	if b.width > 57 || len(b.bits) < b.size+8 {
		return unpackBlock(src, r, by)
	}
	add := b.base * by
	mask := uint64(1)<<b.width - 1
	for w := from >> 6; w<<6 < from+len(r); w++ {
		word := set[w]
		if w<<6 < from {
			word &= math.MaxUint64 << (from & 63)
		}
		for ; word != 0; word &= word - 1 {
			i := w<<6 + bits.TrailingZeros64(word) - from
			if i >= len(r) {
				break
			}
			bit := uint(i) * b.width
			r[i] = int64(binary.LittleEndian.Uint64(b.bits[bit>>3:])>>(bit&7)&mask)*by + add
		}
	}
	b.except(func(i int, d int64) { r[i] = d*by + add })
	return b.bits[b.size:], nil
}

// number is what columns are decoded to. Arithmetic wraps around, so that a narrow type leaves out upper bits and nothing else.
type number interface{ int64 | uint32 }

func decode[T number](src []byte, m, ref []T, by T) ([]byte, error) {
	if len(src) == 0 {
		return nil, corrupt("no predictor")
	}
	p, shift := int(src[0]&3), src[0]>>2
	first, src, err := varint(src[1:])
	if err != nil {
		return nil, err
	}
	if p == predRef && len(ref) < len(m) {
		return nil, corrupt("a reference to no column")
	}
	x := T(first) * by
	m[0] = x
	by <<= shift
	for rest := m[1:]; len(rest) > 0; {
		r := rest[:min(block, len(rest))]
		if src, err = unpackBlock(src, r, by); err != nil {
			return nil, err
		}
		if p == predDelta { // while it is near
			for i, d := range r {
				x += d
				r[i] = x
			}
		}
		rest = rest[len(r):]
	}
	switch p {
	case predSlope:
		x, d := m[0], T(0)
		for i := 1; i < len(m); i++ {
			d += m[i]
			x += d
			m[i] = x
		}
	case predRef:
		ref = ref[:len(m)]
		d := m[0]
		m[0] += ref[0]
		for i := 1; i < len(m); i++ {
			d += m[i]
			m[i] = d + ref[i]
		}
	}
	return src, nil
}

// packed is a block of residuals.
type packed struct {
	width      uint
	base       int64
	exceptions []byte
	n          int    // of exceptions
	bits       []byte // of the others, and all that follows
	size       int    // of the bits in bytes
}

// open reads what stands before the bits of a block of n residuals.
func (b *packed) open(src []byte, n int) error {
	*b = packed{}
	if len(src) == 0 {
		return corrupt("a block is missing")
	}
	head := src[0]
	src = src[1:]
	if head != blockZero {
		if b.width = uint(head & widthMask); b.width > 64 {
			return corrupt("a block of width %d", b.width)
		}
		var err error
		if b.base, src, err = varint(src); err != nil {
			return err
		}
		if head&blockExceptions != 0 {
			if len(src) == 0 {
				return corrupt("no exceptions")
			}
			b.n, b.exceptions = int(src[0]), src[1:]
			src = b.exceptions
			for range b.n {
				if len(src) == 0 || int(src[0]) >= n {
					return corrupt("an exception out of place")
				}
				if src, err = skipVarint(src[1:]); err != nil {
					return err
				}
			}
		}
	}
	b.bits, b.size = src, (n*int(b.width)+7)/8
	if b.size > len(src) {
		return corrupt("%d bytes wanted, %d left", b.size, len(src))
	}
	return nil
}

// unpackBlock fills r with the residuals of a block, each multiplied by a constant.
func unpackBlock[T number](src []byte, r []T, by T) ([]byte, error) {
	if len(src) > 0 && src[0] == blockZero {
		clear(r)
		return src[1:], nil
	}
	var b packed
	if err := b.open(src, len(r)); err != nil {
		return nil, err
	}
	add := T(b.base) * by
	switch {
	case b.width == 0:
		for i := range r {
			r[i] = add
		}
	case len(b.bits) >= b.size+8:
		unpack(b.bits, r, b.width, by, add)
	default:
		var padded [8*block + 8]byte
		copy(padded[:], b.bits[:b.size])
		unpack(padded[:], r, b.width, by, add)
	}
	b.except(func(i int, d int64) { r[i] = T(d)*by + add })
	return b.bits[b.size:], nil
}

// except calls f with the place of each exception and how far it is above the base.
func (b *packed) except(f func(i int, d int64)) {
	ex := b.exceptions
	for range b.n {
		d, rest, _ := varint(ex[1:])
		f(int(ex[0]), d)
		ex = rest
	}
}

// unpack fills r with numbers of width bits, 1 to 64, each multiplied by a constant, plus another one. Behind what they take src has
// at least 8 bytes more. Eight numbers take width bytes: the loops read 8, 4, 2, or one of them at a time.
func unpack[T number](src []byte, r []T, width uint, by, add T) {
	mask, w := uint64(1)<<width-1, width&63
	switch {
	case width <= 8:
		for ; len(r) >= 8; src, r = src[width:], r[8:] {
			o, u := r[:8:8], binary.LittleEndian.Uint64(src)
			o[0] = T(u&mask)*by + add
			u >>= w
			o[1] = T(u&mask)*by + add
			u >>= w
			o[2] = T(u&mask)*by + add
			u >>= w
			o[3] = T(u&mask)*by + add
			u >>= w
			o[4] = T(u&mask)*by + add
			u >>= w
			o[5] = T(u&mask)*by + add
			u >>= w
			o[6] = T(u&mask)*by + add
			u >>= w
			o[7] = T(u&mask)*by + add
		}
	case width <= 14:
		half, odd := width>>1, width&1*4
		for ; len(r) >= 8; src, r = src[width:], r[8:] {
			o, u := r[:8:8], binary.LittleEndian.Uint64(src)
			o[0] = T(u&mask)*by + add
			u >>= w
			o[1] = T(u&mask)*by + add
			u >>= w
			o[2] = T(u&mask)*by + add
			u >>= w
			o[3] = T(u&mask)*by + add
			u = binary.LittleEndian.Uint64(src[half:]) >> odd
			o[4] = T(u&mask)*by + add
			u >>= w
			o[5] = T(u&mask)*by + add
			u >>= w
			o[6] = T(u&mask)*by + add
			u >>= w
			o[7] = T(u&mask)*by + add
		}
	case width <= 28:
		b2, b4, b6 := 2*width>>3, 4*width>>3, 6*width>>3
		s2, s4, s6 := 2*width&7, 4*width&7, 6*width&7
		for ; len(r) >= 8; src, r = src[width:], r[8:] {
			o, u := r[:8:8], binary.LittleEndian.Uint64(src)
			o[0] = T(u&mask)*by + add
			o[1] = T(u>>w&mask)*by + add
			u = binary.LittleEndian.Uint64(src[b2:]) >> s2
			o[2] = T(u&mask)*by + add
			o[3] = T(u>>w&mask)*by + add
			u = binary.LittleEndian.Uint64(src[b4:]) >> s4
			o[4] = T(u&mask)*by + add
			o[5] = T(u>>w&mask)*by + add
			u = binary.LittleEndian.Uint64(src[b6:]) >> s6
			o[6] = T(u&mask)*by + add
			o[7] = T(u>>w&mask)*by + add
		}
	case width <= 57:
		for ; len(r) >= 8; src, r = src[width:], r[8:] {
			o, b := r[:8:8], src[:width+8]
			bit := width
			o[0] = T(binary.LittleEndian.Uint64(b)&mask)*by + add
			o[1] = T(binary.LittleEndian.Uint64(b[bit>>3:])>>(bit&7)&mask)*by + add
			bit += width
			o[2] = T(binary.LittleEndian.Uint64(b[bit>>3:])>>(bit&7)&mask)*by + add
			bit += width
			o[3] = T(binary.LittleEndian.Uint64(b[bit>>3:])>>(bit&7)&mask)*by + add
			bit += width
			o[4] = T(binary.LittleEndian.Uint64(b[bit>>3:])>>(bit&7)&mask)*by + add
			bit += width
			o[5] = T(binary.LittleEndian.Uint64(b[bit>>3:])>>(bit&7)&mask)*by + add
			bit += width
			o[6] = T(binary.LittleEndian.Uint64(b[bit>>3:])>>(bit&7)&mask)*by + add
			bit += width
			o[7] = T(binary.LittleEndian.Uint64(b[bit>>3:])>>(bit&7)&mask)*by + add
		}
	default:
		for i := range r {
			r[i] = T(readBits(src, i*int(width), int(width)))*by + add
		}
		return
	}
	bit := uint(0)
	for i := range r {
		r[i] = T(binary.LittleEndian.Uint64(src[bit>>3:])>>(bit&7)&mask)*by + add
		bit += width
	}
}

func readBits(src []byte, at, width int) (u uint64) {
	for i := 0; i < width; {
		b := at + i
		take := min(8-b&7, width-i)
		u |= uint64(src[b>>3]>>(b&7)&(1<<take-1)) << i
		i += take
	}
	return u
}
