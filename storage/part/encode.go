package part

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/column"
)

// The encodings of a column block, its first byte. A number is never given a second meaning.
const (
	encConst      = 0 // one value for all rows
	encVarint     = 1 // Int64: zig-zag varints
	encDelta      = 2 // Int64: the first value, then differences
	encDelta2     = 3 // Int64: the first value, the first difference, then differences of differences
	encPlain      = 4 // Bytes: lengths, then the strings; Fixed: the strings
	encDict       = 5 // Bytes: distinct strings in order of appearance, then indexes
	encXor        = 6 // Float64: XOR with the value before, bytes transposed (all first bytes, all second ...)
	encFloatInts  = 7 // Float64: whole numbers as encDelta
	encFloatScale = 8 // Float64: a power of ten p, then value*10^p as encDelta, exact
)

func (w *Writer) appendColumn(dst []byte, c Column, v *Vector, n int) ([]byte, error) {
	switch c.Type {
	case Packed:
		if len(v.Ints) != n {
			return nil, fmt.Errorf("column %s has %d rows, want %d", c.Name, len(v.Ints), n)
		}
		return w.ints.Ints(dst, v.Ints, nil), nil
	case Int64:
		if len(v.Ints) != n {
			return nil, fmt.Errorf("column %s has %d rows, want %d", c.Name, len(v.Ints), n)
		}
		return appendInts(dst, v.Ints), nil
	case Float64:
		if len(v.Floats) != n {
			return nil, fmt.Errorf("column %s has %d rows, want %d", c.Name, len(v.Floats), n)
		}
		return appendFloats(dst, v.Floats), nil
	case Bytes:
		if len(v.Strs) != n {
			return nil, fmt.Errorf("column %s has %d rows, want %d", c.Name, len(v.Strs), n)
		}
		return appendStrs(dst, v.Strs), nil
	case Fixed:
		if len(v.Fixed) != n*c.Width {
			return nil, fmt.Errorf("column %s has %d bytes, want %d", c.Name, len(v.Fixed), n*c.Width)
		}
		return appendFixed(dst, v.Fixed, c.Width), nil
	default:
		return nil, fmt.Errorf("column %s has unknown type %d", c.Name, c.Type)
	}
}

func varintLen(n int64) int {
	u := uint64(n<<1) ^ uint64(n>>63)
	l := 1
	for u >= 0x80 {
		u >>= 7
		l++
	}
	return l
}

func appendInts(dst []byte, ns []int64) []byte {
	var same, plain, delta, delta2 int
	var prev, prevDelta int64
	for i, n := range ns {
		if n == ns[0] {
			same++
		}
		d := n - prev
		plain += varintLen(n)
		delta += varintLen(d)
		if i < 2 {
			delta2 += varintLen(d)
		} else {
			delta2 += varintLen(d - prevDelta)
		}
		prev, prevDelta = n, d
	}
	switch {
	case same == len(ns):
		return binary.AppendVarint(append(dst, encConst), ns[0])
	case plain <= delta && plain <= delta2:
		dst = append(dst, encVarint)
		for _, n := range ns {
			dst = binary.AppendVarint(dst, n)
		}
		return dst
	case delta <= delta2:
		return appendDelta(append(dst, encDelta), ns)
	default:
		dst = append(dst, encDelta2)
		prev, prevDelta = 0, 0
		for i, n := range ns {
			d := n - prev
			if i < 2 {
				dst = binary.AppendVarint(dst, d)
			} else {
				dst = binary.AppendVarint(dst, d-prevDelta)
			}
			prev, prevDelta = n, d
		}
		return dst
	}
}

func appendDelta(dst []byte, ns []int64) []byte {
	var prev int64
	for _, n := range ns {
		dst = binary.AppendVarint(dst, n-prev)
		prev = n
	}
	return dst
}

// maxExact is the largest whole number up to which every float64 is exact.
const maxExact = 1 << 53

func appendFloats(dst []byte, fs []float64) []byte {
	first := math.Float64bits(fs[0])
	same := true
	for _, f := range fs {
		if math.Float64bits(f) != first {
			same = false
			break
		}
	}
	if same {
		return binary.LittleEndian.AppendUint64(append(dst, encConst), first)
	}
	if p, ns, ok := scaled(fs); ok {
		if p == 0 {
			return appendDelta(append(dst, encFloatInts), ns)
		}
		return appendDelta(append(dst, encFloatScale, byte(p)), ns)
	}
	dst = append(dst, encXor)
	at := len(dst)
	dst = append(dst, make([]byte, 8*len(fs))...)
	var prev uint64
	for i, f := range fs {
		u := math.Float64bits(f)
		x := u ^ prev
		prev = u
		for b := range 8 {
			dst[at+b*len(fs)+i] = byte(x >> (56 - 8*b))
		}
	}
	return dst
}

// scaled finds the smallest power of ten that makes all values whole, exactly and reversibly. Negative zero,
// NaN and infinities have no such form.
func scaled(fs []float64) (int, []int64, bool) {
	ns := make([]int64, len(fs))
	pow := 1.0
next:
	for p := 0; p <= 4; p, pow = p+1, pow*10 {
		for i, f := range fs {
			x := f * pow
			if !(x > -maxExact && x < maxExact) {
				return 0, nil, false
			}
			n := int64(math.Round(x))
			if math.Float64bits(float64(n)/pow) != math.Float64bits(f) {
				if p == 0 && f == 0 {
					return 0, nil, false // negative zero
				}
				continue next
			}
			ns[i] = n
		}
		return p, ns, true
	}
	return 0, nil, false
}

func appendStrs(dst []byte, ss []string) []byte {
	dict := make(map[string]int, 16)
	var order []string
	dictBytes, plainBytes := 0, 0
	for _, s := range ss {
		plainBytes += len(s)
		if _, ok := dict[s]; !ok && len(order) <= len(ss)/2 {
			dict[s] = len(order)
			order = append(order, s)
			dictBytes += len(s)
		}
	}
	switch {
	case len(order) == 1:
		return telemetry.AppendString(append(dst, encConst), ss[0])
	case len(order) <= len(ss)/2 && dictBytes+len(ss) < plainBytes+len(ss):
		dst = binary.AppendUvarint(append(dst, encDict), uint64(len(order)))
		dst = appendPlain(dst, order)
		for _, s := range ss {
			dst = binary.AppendUvarint(dst, uint64(dict[s]))
		}
		return dst
	default:
		return appendPlain(append(dst, encPlain), ss)
	}
}

func appendPlain(dst []byte, ss []string) []byte {
	for _, s := range ss {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
	}
	for _, s := range ss {
		dst = append(dst, s...)
	}
	return dst
}

func appendFixed(dst, b []byte, width int) []byte {
	for i := width; i < len(b); i += width {
		if string(b[i:i+width]) != string(b[:width]) {
			return append(append(dst, encPlain), b...)
		}
	}
	return append(append(dst, encConst), b[:width]...)
}

// decodeColumn reads n rows of a column. Strings share raw's memory.
func decodeColumn(raw string, c Column, n int) (Vector, error) {
	if c.Type == Packed {
		v := Vector{Ints: make([]int64, n)}
		rest, err := column.Ints(unsafe.Slice(unsafe.StringData(raw), len(raw)), v.Ints, nil)
		if err == nil && len(rest) > 0 {
			err = fmt.Errorf("%d bytes too many", len(rest))
		}
		return v, err
	}
	d := telemetry.NewDecoder(raw)
	enc := d.Byte()
	var v Vector
	switch c.Type {
	case Int64:
		v.Ints = decodeInts(d, enc, n)
	case Float64:
		v.Floats = decodeFloats(d, enc, n)
	case Bytes:
		v.Strs = decodeStrs(d, enc, n)
	case Fixed:
		v.Fixed = decodeFixed(d, enc, n, c.Width)
	default:
		d.Fail("unknown type %d", c.Type)
	}
	if d.Err() == nil && d.Len() != 0 {
		d.Fail("%d bytes too many", d.Len())
	}
	return v, d.Err()
}

func decodeInts(d *telemetry.Decoder, enc byte, n int) []int64 {
	if enc != encConst && n > d.Len() {
		d.Fail("%d rows cannot fit in %d bytes", n, d.Len())
		return nil
	}
	ns := make([]int64, n)
	var prev, prevDelta int64
	switch enc {
	case encConst:
		x := d.Varint()
		for i := range ns {
			ns[i] = x
		}
	case encVarint:
		for i := range ns {
			ns[i] = d.Varint()
		}
	case encDelta:
		for i := range ns {
			prev += d.Varint()
			ns[i] = prev
		}
	case encDelta2:
		for i := range ns {
			if i < 2 {
				prevDelta = d.Varint()
			} else {
				prevDelta += d.Varint()
			}
			prev += prevDelta
			ns[i] = prev
		}
	default:
		d.Fail("unknown encoding %d of integers", enc)
	}
	return ns
}

func decodeFloats(d *telemetry.Decoder, enc byte, n int) []float64 {
	if enc != encConst && n > d.Len() {
		d.Fail("%d rows cannot fit in %d bytes", n, d.Len())
		return nil
	}
	fs := make([]float64, n)
	switch enc {
	case encConst:
		x := d.Float()
		for i := range fs {
			fs[i] = x
		}
	case encFloatInts, encFloatScale:
		pow := 1.0
		if enc == encFloatScale {
			p := d.Byte()
			if p > 4 {
				d.Fail("scale %d", p)
			}
			for range min(p, 4) {
				pow *= 10
			}
		}
		var prev int64
		for i := range fs {
			prev += d.Varint()
			fs[i] = float64(prev) / pow
		}
	case encXor:
		s := d.Take(8 * n)
		if d.Err() != nil {
			return nil
		}
		var prev uint64
		for i := range fs {
			var x uint64
			for b := range 8 {
				x = x<<8 | uint64(s[b*n+i])
			}
			prev ^= x
			fs[i] = math.Float64frombits(prev)
		}
	default:
		d.Fail("unknown encoding %d of floats", enc)
	}
	return fs
}

func decodeStrs(d *telemetry.Decoder, enc byte, n int) []string {
	switch enc {
	case encConst:
		x := d.Str()
		ss := make([]string, n)
		for i := range ss {
			ss[i] = x
		}
		return ss
	case encPlain:
		return decodePlain(d, n)
	case encDict:
		dict := decodePlain(d, d.Count(1))
		if n > d.Len() {
			d.Fail("%d rows cannot fit in %d bytes", n, d.Len())
			return nil
		}
		ss := make([]string, n)
		for i := range ss {
			k := d.Uvarint()
			if k >= uint64(len(dict)) {
				d.Fail("index %d into %d strings", k, len(dict))
				return nil
			}
			ss[i] = dict[k]
		}
		return ss
	default:
		d.Fail("unknown encoding %d of strings", enc)
		return nil
	}
}

func decodePlain(d *telemetry.Decoder, n int) []string {
	if n > d.Len() {
		d.Fail("%d strings cannot fit in %d bytes", n, d.Len())
		return nil
	}
	lens := make([]int, n)
	for i := range lens {
		lens[i] = d.Count(1)
	}
	ss := make([]string, n)
	for i, l := range lens {
		ss[i] = d.Take(l)
	}
	return ss
}

func decodeFixed(d *telemetry.Decoder, enc byte, n, width int) []byte {
	switch enc {
	case encConst:
		s := d.Take(width)
		b := make([]byte, 0, n*width)
		for range n {
			b = append(b, s...)
		}
		return b
	case encPlain:
		return []byte(d.Take(n * width))
	default:
		d.Fail("unknown encoding %d of fixed strings", enc)
		return nil
	}
}

// AppendStrings appends strings as the block of a Bytes column has them: once each when many are equal.
func AppendStrings(dst []byte, ss []string) []byte {
	if len(ss) == 0 {
		return dst
	}
	return appendStrs(dst, ss)
}

// Strings reads n strings that AppendStrings wrote, and nothing behind them. They share raw's memory.
func Strings(raw string, n int) ([]string, error) {
	if n == 0 {
		return nil, nil
	}
	v, err := decodeColumn(raw, Column{Type: Bytes}, n)
	return v.Strs, err
}
