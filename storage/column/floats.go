package column

import (
	"encoding/binary"
	"math"
)

// Kinds of float columns, three bits on disk.
const (
	kindConst    = iota // one value for all: its bits
	kindConstInt        // one whole number for all: a varint
	kindDecimal         // v = m / 10^e
	kindUlps            // v = m / 10^e moved by k units in the last place (sums that drifted off the decimal grid)
	kindBits            // the bits of v
	kindSame            // the column before
)

// The first byte of a float column: its kind, whether exceptions follow, the exponent.
const (
	kindMask      = 7
	hasExceptions = 8
	exponentShift = 4
)

// staleNaN is the bit pattern that Prometheus marks the end of a series with (model/value.StaleNaN).
const staleNaN uint64 = 0x7ff0000000000002

const (
	maxExponent = 9
	maxWhole    = 1 << 53 // the largest whole number up to which every float64 is exact
)

func pow10(e int) float64 {
	return [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}[e]
}

// exception is a value that does not fit into its column's kind.
type exception struct {
	at   int
	bits uint64
}

// Reset makes the next column the first of a chain: it refers to none before.
func (e *Encoder) Reset() { e.refOK = false }

// Floats appends v, which is not empty. It may refer to prev, the column that was appended before, nil for none or
// after Reset; the two must have the same length for that. Chains are decoded in the order in which they were encoded.
func (e *Encoder) Floats(dst []byte, v, prev []float64) []byte {
	if sameBits(v) {
		e.refOK = false
		x := v[0]
		if n := int64(x); float64(n) == x && n > -maxWhole && n < maxWhole && !(x == 0 && math.Signbit(x)) {
			return binary.AppendVarint(append(dst, kindConstInt), n)
		}
		return binary.LittleEndian.AppendUint64(append(dst, kindConst), math.Float64bits(x))
	}
	if prev != nil && equalBits(v, prev) { // what can be referred to stays
		return append(dst, kindSame)
	}
	if len(e.ref) != len(v) {
		e.refOK = false
	}
	clean, flag := e.clean(v)
	e.m = grow(e.m, len(v))
	if exp, ok := decimal(e.m, clean); ok {
		var ref []int64
		if e.refOK && e.refExp == exp {
			ref = e.ref
		}
		dst = e.exceptions(append(dst, kindDecimal|flag|byte(exp)<<exponentShift))
		dst = e.Ints(dst, e.m, ref)
		e.m, e.ref = e.ref, e.m
		e.refOK, e.refExp = true, exp
		return dst
	}
	e.refOK = false
	e.k = grow(e.k, len(v))
	e.a = e.a[:0]
	if nearest(e.m, e.k, clean) {
		e.a = e.exceptions(append(e.a, kindUlps|flag|maxExponent<<exponentShift))
		e.a = e.Ints(e.a, e.m, nil)
		e.a = e.Ints(e.a, e.k, nil)
	}
	for i, x := range clean {
		e.m[i] = int64(math.Float64bits(x))
	}
	e.b = e.exceptions(append(e.b[:0], kindBits|flag))
	e.b = e.Ints(e.b, e.m, nil)
	if len(e.a) > 0 && len(e.a) < len(e.b) {
		return append(dst, e.a...)
	}
	return append(dst, e.b...)
}

// clean returns v with what no decimal can hold replaced by a neighbour, and notes it in e.at, unless that is too much.
func (e *Encoder) clean(v []float64) ([]float64, byte) {
	e.at = e.at[:0]
	for i, x := range v {
		if x-x != 0 || x == 0 && math.Signbit(x) { // NaN, infinities, negative zero
			if len(e.at) > len(v)/8 {
				e.at = e.at[:0]
				return v, 0
			}
			e.at = append(e.at, exception{i, math.Float64bits(x)})
		}
	}
	if len(e.at) == 0 {
		return v, 0
	}
	e.fixed = grow(e.fixed, len(v))
	copy(e.fixed, v)
	good := 0.0
	for i, j := 0, 0; i < len(v); i++ {
		if j == len(e.at) || e.at[j].at != i {
			good = v[i]
			break
		}
		j++
	}
	j := 0
	for i := range e.fixed {
		if j < len(e.at) && e.at[j].at == i {
			e.fixed[i] = good
			j++
			continue
		}
		good = e.fixed[i]
	}
	return e.fixed, hasExceptions
}

func (e *Encoder) exceptions(dst []byte) []byte {
	if len(e.at) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.at)))
	last := 0
	for _, x := range e.at {
		if x.bits == staleNaN {
			dst = binary.AppendUvarint(dst, uint64(x.at-last)<<1)
		} else {
			dst = binary.AppendUvarint(dst, uint64(x.at-last)<<1|1)
			dst = binary.LittleEndian.AppendUint64(dst, x.bits)
		}
		last = x.at
	}
	return dst
}

func sameBits(v []float64) bool {
	b := math.Float64bits(v[0])
	for _, y := range v {
		if math.Float64bits(y) != b {
			return false
		}
	}
	return true
}

func equalBits(v, w []float64) bool {
	if len(v) != len(w) {
		return false
	}
	for i := range v {
		if math.Float64bits(v[i]) != math.Float64bits(w[i]) {
			return false
		}
	}
	return true
}

// decimal finds the least e with every v exactly m/10^e, and fills m.
func decimal(m []int64, v []float64) (e int, ok bool) {
	for pass := range 2 { // the first pass finds e, the second converts all at e
		scale := pow10(e)
		for i, x := range v {
			y := math.Round(x * scale)
			for y/scale != x || x == 0 && math.Signbit(x) {
				if e++; e > maxExponent || pass == 1 {
					return 0, false
				}
				scale = pow10(e)
				y = math.Round(x * scale)
			}
			if !(math.Abs(y) < maxWhole) {
				return 0, false
			}
			m[i] = int64(y)
		}
		if e == 0 {
			break
		}
	}
	return e, true
}

// nearest fills m with the nearest decimal and k with the distance in units in the last place.
func nearest(m, k []int64, v []float64) bool {
	const scale = 1e9
	for i, x := range v {
		y := math.Round(x * scale)
		if !(math.Abs(y) < maxWhole) || !(x > 0) {
			return false
		}
		m[i] = int64(y)
		k[i] = int64(math.Float64bits(x)) - int64(math.Float64bits(y/scale))
	}
	return true
}

// Decoder decodes the float columns of a chain in order. Its zero value is ready; it is for one caller at a time.
type Decoder struct {
	m, k   []int64
	ref    []int64
	refExp int
	refOK  bool
}

// Reset makes the next column the first of a chain.
func (d *Decoder) Reset() { d.refOK = false }

// Floats fills v, which is not empty, and returns what follows. Prev is the column decoded before, nil for none.
func (d *Decoder) Floats(src []byte, v, prev []float64) ([]byte, error) {
	if len(src) == 0 {
		return nil, corrupt("no kind of values")
	}
	head := src[0]
	kind, exp := head&kindMask, int(head>>exponentShift)
	src = src[1:]
	switch kind {
	case kindConst, kindConstInt:
		d.refOK = false
		var x float64
		if kind == kindConst {
			if len(src) < 8 {
				return nil, corrupt("no value")
			}
			x, src = math.Float64frombits(binary.LittleEndian.Uint64(src)), src[8:]
		} else {
			n, rest, err := varint(src)
			if err != nil {
				return nil, err
			}
			x, src = float64(n), rest
		}
		for i := range v {
			v[i] = x
		}
		return src, nil
	case kindSame:
		if len(prev) != len(v) {
			return nil, corrupt("equal to a column of another length")
		}
		copy(v, prev)
		return src, nil
	}
	if exp > maxExponent {
		return nil, corrupt("exponent %d", exp)
	}
	exceptions := src
	if head&hasExceptions != 0 {
		var err error
		if src, err = eachException(src, len(v), func(int, uint64) {}); err != nil {
			return nil, err
		}
	}
	if len(d.ref) != len(v) {
		d.refOK = false
	}
	d.m = grow(d.m, len(v))
	var err error
	switch kind {
	case kindDecimal:
		var ref []int64
		if d.refOK && d.refExp == exp {
			ref = d.ref
		}
		if src, err = Ints(src, d.m, ref); err != nil {
			return nil, err
		}
		if exp == 0 {
			for i, m := range d.m {
				v[i] = float64(m)
			}
		} else {
			scale := pow10(exp)
			for i, m := range d.m {
				v[i] = float64(m) / scale
			}
		}
		d.m, d.ref = d.ref, d.m
		d.refOK, d.refExp = true, exp
	case kindUlps:
		d.refOK = false
		d.k = grow(d.k, len(v))
		if src, err = Ints(src, d.m, nil); err != nil {
			return nil, err
		}
		if src, err = Ints(src, d.k, nil); err != nil {
			return nil, err
		}
		scale := pow10(exp)
		for i, m := range d.m {
			v[i] = math.Float64frombits(uint64(int64(math.Float64bits(float64(m)/scale)) + d.k[i]))
		}
	case kindBits:
		d.refOK = false
		if src, err = Ints(src, d.m, nil); err != nil {
			return nil, err
		}
		for i, m := range d.m {
			v[i] = math.Float64frombits(uint64(m))
		}
	default:
		return nil, corrupt("values of kind %d", kind)
	}
	if head&hasExceptions != 0 {
		_, err = eachException(exceptions, len(v), func(at int, b uint64) { v[at] = math.Float64frombits(b) })
	}
	return src, err
}

// eachException reads the exceptions of a column of n values and returns what follows.
func eachException(src []byte, n int, f func(at int, bits uint64)) ([]byte, error) {
	count, src, err := Uvarint(src)
	if err != nil {
		return nil, err
	}
	if count > uint64(n) {
		return nil, corrupt("%d exceptions among %d values", count, n)
	}
	at := uint64(0)
	for range count {
		var x uint64
		if x, src, err = Uvarint(src); err != nil {
			return nil, err
		}
		if at += x >> 1; at >= uint64(n) || x>>1 >= uint64(n) {
			return nil, corrupt("an exception at %d of %d values", at, n)
		}
		b := staleNaN
		if x&1 != 0 {
			if len(src) < 8 {
				return nil, corrupt("no value of an exception")
			}
			b, src = binary.LittleEndian.Uint64(src), src[8:]
		}
		f(int(at), b)
	}
	return src, nil
}
