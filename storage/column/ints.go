package column

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// block is how many residuals share a base and a width.
const block = 128

// Predictors, two bits on disk: what a value is expected to be.
const (
	predNone  = iota // zero
	predDelta        // the value before
	predSlope        // the value before, moved as far as that one was
	predRef          // the value before, moved as far as the reference column is
	predictors
)

// Head of a block: its width, 0x80 when exceptions follow. blockZero and blockConst stand alone.
const (
	blockExceptions = 0x80
	blockZero       = 0x7f // all residuals are zero
	widthMask       = 0x7f
)

// Encoder holds the scratch memory of encoding. It is for one caller at a time.
type Encoder struct {
	res   []int64
	m, k  []int64
	a, b  []byte
	fixed []float64
	at    []exception

	// The column that was encoded last by Floats, for the next one to refer to.
	ref    []int64
	refExp int
	refOK  bool
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/4)
	}
	return s[:n]
}

// Ints appends m, which is not empty. With ref, of the same length, the steps of m may be told as differences to those
// of ref; the decoder needs it, too.
func (e *Encoder) Ints(dst []byte, m, ref []int64) []byte {
	try := m
	if len(m) > block+1 { // the first block tells enough
		try = m[:block+1]
	}
	best, bestLen := predNone, math.MaxInt
	at := len(dst)
	for p := range predictors {
		if p == predRef && ref == nil || p == predSlope && len(m) < 3 {
			continue
		}
		e.predict(try, ref, p)
		dst = e.pack(dst[:at], p)
		if len(dst)-at < bestLen {
			best, bestLen = p, len(dst)-at
		}
		if p == predDelta && bestLen <= 4 { // nothing does better
			break
		}
	}
	if best == predictors-1 && len(try) == len(m) {
		return dst
	}
	e.predict(m, ref, best)
	return e.pack(dst[:at], best)
}

func (e *Encoder) predict(m, ref []int64, p int) {
	e.res = grow(e.res, len(m))
	r := e.res
	r[0] = m[0]
	switch p {
	case predNone:
		copy(r, m)
	case predDelta:
		for i := 1; i < len(m); i++ {
			r[i] = m[i] - m[i-1]
		}
	case predSlope:
		if len(m) > 1 {
			r[1] = m[1] - m[0]
		}
		for i := 2; i < len(m); i++ {
			r[i] = m[i] - 2*m[i-1] + m[i-2]
		}
	case predRef:
		ref = ref[:len(m)]
		r[0] -= ref[0]
		for i := 1; i < len(m); i++ {
			r[i] = m[i] - m[i-1] - ref[i] + ref[i-1]
		}
	}
}

// pack writes the residuals: a byte of predictor and shift, the first one, the rest in blocks.
func (e *Encoder) pack(dst []byte, p int) []byte {
	rest := e.res[1:]
	var or int64 // residuals often share low zero bits (pages of memory)
	for _, r := range rest {
		or |= r
	}
	shift := 0
	if or != 0 {
		shift = bits.TrailingZeros64(uint64(or))
	}
	dst = append(dst, byte(p)|byte(shift)<<2)
	dst = binary.AppendVarint(dst, e.res[0])
	for len(rest) > 0 {
		n := min(block, len(rest))
		dst = packBlock(dst, rest[:n], shift)
		rest = rest[n:]
	}
	return dst
}

// packBlock writes one block: head, base, exceptions, packed bits. Exceptions are residuals that would make all
// others wide: large ones, or the smallest one alone.
func packBlock(dst []byte, r []int64, shift int) []byte {
	lo, second, hi := int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MinInt64)
	for _, x := range r {
		x >>= shift
		switch {
		case x < lo:
			lo, second = x, lo
		case x > lo && x < second:
			second = x
		}
		hi = max(hi, x)
	}
	if lo == 0 && hi == 0 {
		return append(dst, blockZero)
	}
	base, width, ex := lo, bits.Len64(uint64(hi-lo)), 0
	if width > 0 && len(r) > 8 {
		cost := len(r) * width
		for i, b := range [...]int64{lo, second} {
			if i == 1 && second == math.MaxInt64 {
				break
			}
			if w, n, c := narrow(r, shift, b); c < cost {
				base, width, ex, cost = b, w, n, c
			}
		}
	}
	limit := uint64(math.MaxUint64)
	if width < 64 {
		limit = 1<<width - 1
	}
	head := byte(width)
	if ex > 0 {
		head |= blockExceptions
	}
	dst = binary.AppendVarint(append(dst, head), base)
	if ex > 0 {
		dst = append(dst, byte(ex))
		for i, x := range r {
			if d := x>>shift - base; uint64(d) > limit {
				dst = binary.AppendVarint(append(dst, byte(i)), d)
			}
		}
	}
	if width == 0 {
		return dst
	}
	var acc uint64
	used := 0
	for _, x := range r {
		u := uint64(x>>shift - base)
		if u > limit {
			u = 0
		}
		acc |= u << used
		if used += width; used >= 64 {
			dst = binary.LittleEndian.AppendUint64(dst, acc)
			used -= 64
			acc = u >> (width - used)
		}
	}
	for ; used > 0; used -= 8 {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	return dst
}

// narrow returns the width that costs least above base, how many residuals are exceptions to it, and the cost in bits.
func narrow(r []int64, shift int, base int64) (width, ex, cost int) {
	var count [65]int // by length
	for _, x := range r {
		count[bits.Len64(uint64(x>>shift-base))]++
	}
	cost = math.MaxInt
	above, extra := 0, 8
	for w := 64; w >= 0; w-- {
		if c := len(r)*w + extra; (above > 0 || w == 64 || count[w] > 0) && c < cost && above < block {
			width, ex, cost = w, above, c
			if above == 0 {
				cost -= 8
			}
		}
		above += count[w]
		extra += count[w] * (16 + w + w/7)
	}
	return width, ex, cost
}
