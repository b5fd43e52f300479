package lines

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// ErrCorrupt is wrapped by every error about what is read.
var ErrCorrupt = errors.New("malformed lines")

// hashString returns a hash that is the same on every machine: it is stored in indexes.
func hashString(s string) uint64 {
	h := uint64(len(s))*0x9e3779b97f4a7c15 + 0x2545f4914f6cdd1d
	for len(s) >= 8 {
		h = mix(h ^ (uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56))
		s = s[8:]
	}
	var tail uint64
	for i := range len(s) {
		tail |= uint64(s[i]) << (8 * i)
	}
	return mix(h ^ tail ^ 0xd6e8feb86659fd93)
}

func mix(h uint64) uint64 {
	hi, lo := bits.Mul64(h, 0xa0761d6478bd642f)
	return hi ^ lo
}

// Modes of packed integers.
const (
	packFrom  = 0 // differences from the smallest
	packSteps = 1 // differences of differences from the smallest step
)

// appendInts packs n integers: one byte mode and planes, then varints, then the planes: all lowest bytes, all second bytes ...
func appendInts(dst []byte, v []int64) []byte {
	if len(v) == 0 {
		return dst
	}
	lo, hi := v[0], v[0]
	for _, x := range v {
		lo, hi = min(lo, x), max(hi, x)
	}
	width := bits.Len64(uint64(hi) - uint64(lo))
	if width <= 4 || len(v) < 4 {
		return appendPlanes(binary.AppendVarint(append(dst, byte(packFrom<<4|(width+7)/8)), lo), v, lo, (width+7)/8)
	}
	// Wrapping differences: they are undone by wrapping sums.
	step, last, span := v[1]-v[0], v[1]-v[0], 0
	for i := 1; i < len(v); i++ {
		d := v[i] - v[i-1]
		step, last = min(step, d), max(last, d)
	}
	plain := 0
	for i := 1; i < len(v); i++ {
		plain += bits.Len64(uint64(v[i]) - uint64(lo))
		span += bits.Len64(uint64(v[i]-v[i-1]) - uint64(step))
	}
	if span+len(v) >= plain {
		return appendPlanes(binary.AppendVarint(append(dst, byte(packFrom<<4|(width+7)/8)), lo), v, lo, (width+7)/8)
	}
	width = bits.Len64(uint64(last) - uint64(step))
	planes := (width + 7) / 8
	dst = binary.AppendVarint(append(dst, byte(packSteps<<4|planes)), v[0])
	dst = binary.AppendVarint(dst, step)
	for p := range planes {
		for i := 1; i < len(v); i++ {
			dst = append(dst, byte((uint64(v[i]-v[i-1])-uint64(step))>>(8*p)))
		}
	}
	return dst
}

func appendPlanes(dst []byte, v []int64, lo int64, planes int) []byte {
	for p := range planes {
		for _, x := range v {
			dst = append(dst, byte((uint64(x)-uint64(lo))>>(8*p)))
		}
	}
	return dst
}

// reader takes bytes apart. Its first error sticks; everything is zero then.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	r.err, r.b = ErrCorrupt, nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

// uvarint reads a number up to limit.
func (r *reader) uvarint(limit int) int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > uint64(limit) {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// ints reads n integers that appendInts packed. What it allocates is bounded by n, which the caller has checked.
func (r *reader) ints(n int) []int64 {
	if n == 0 || r.err != nil {
		return nil
	}
	mode := r.byte()
	planes := int(mode & 15)
	first := r.varint()
	var step int64
	rows := n
	switch mode >> 4 {
	case packFrom:
	case packSteps:
		step = r.varint()
		rows--
	default:
		r.fail()
	}
	if planes > 8 {
		r.fail()
	}
	b := r.take(planes * rows)
	if r.err != nil {
		return nil
	}
	out := make([]int64, n)
	v := out[n-rows:]
	switch planes {
	case 0:
	case 1:
		for i, c := range b {
			v[i] = int64(c)
		}
	case 2:
		hi := b[rows:]
		for i, c := range b[:rows] {
			v[i] = int64(c) | int64(hi[i])<<8
		}
	default:
		for p := range planes {
			for i, c := range b[p*rows : (p+1)*rows] {
				v[i] |= int64(uint64(c) << (8 * p))
			}
		}
	}
	if mode>>4 == packFrom {
		for i := range v {
			v[i] += first
		}
		return out
	}
	out[0] = first
	for i := range v {
		first += v[i] + step
		v[i] = first
	}
	return out
}

// appendCodes appends numbers below n, which is 1<<16 at most.
func appendCodes(dst []byte, codes []uint32, n int) []byte {
	for _, c := range codes {
		dst = append(dst, byte(c))
	}
	if n > 1<<8 {
		for _, c := range codes {
			dst = append(dst, byte(c>>8))
		}
	}
	return dst
}

// codes reads numbers below n into out.
func (r *reader) codes(out []uint32, n int) {
	rows := len(out)
	planes := 1
	if n > 1<<8 {
		planes++
	}
	b := r.take(planes * rows)
	if r.err != nil {
		return
	}
	top := uint32(0)
	if planes == 1 {
		for i, c := range b {
			out[i] = uint32(c)
			top = max(top, uint32(c))
		}
	} else {
		for i, c := range b[:rows] {
			out[i] = uint32(c) | uint32(b[rows+i])<<8
			top = max(top, out[i])
		}
	}
	if rows > 0 && int(top) >= n {
		r.fail()
	}
}
