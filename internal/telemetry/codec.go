package telemetry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unsafe"
)

// ErrDecode is wrapped by every error of this package's decoders.
var ErrDecode = errors.New("malformed record")

// AppendUvarint appends n in the variable-length form of encoding/binary.
func AppendUvarint(dst []byte, n uint64) []byte { return binary.AppendUvarint(dst, n) }

// AppendVarint appends n zig-zag encoded.
func AppendVarint(dst []byte, n int64) []byte { return binary.AppendVarint(dst, n) }

// AppendString appends the length of s and s.
func AppendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// AppendValue appends v: its kind as one byte, then the text with its length, the number, or, for arrays and
// maps, their canonical form with its length.
func AppendValue(dst []byte, v Value) []byte {
	dst = append(dst, byte(v.kind))
	switch v.kind {
	case KindString, KindBytes, KindArray, KindMap:
		dst = AppendString(dst, v.str)
	case KindBool:
		dst = append(dst, byte(v.num))
	case KindInt:
		dst = binary.AppendVarint(dst, int64(v.num))
	case KindDouble:
		dst = binary.LittleEndian.AppendUint64(dst, v.num)
	case KindEmpty:
	}
	return dst
}

// AppendAttrs appends the number of attributes, then each key and value.
func AppendAttrs(dst []byte, as Attrs) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(as)))
	for i := range as {
		dst = AppendString(dst, as[i].Key)
		dst = AppendValue(dst, as[i].Value)
	}
	return dst
}

// Decoder reads what the Append functions wrote. Strings that it returns share the input's memory. The first
// mistake sticks: after it everything reads as zero and Err says what it was and where. A decoder never
// allocates more than a small multiple of its input.
type Decoder struct {
	s   string
	off int
	err error
}

// NewDecoder returns a decoder of s.
func NewDecoder(s string) *Decoder { return &Decoder{s: s} }

// NewDecoderBytes returns a decoder of b, which must not change while anything decoded from it is in use.
func NewDecoderBytes(b []byte) *Decoder {
	return &Decoder{s: unsafe.String(unsafe.SliceData(b), len(b))}
}

// Err returns the first mistake, with its offset.
func (d *Decoder) Err() error { return d.err }

// Len returns how many bytes are left.
func (d *Decoder) Len() int { return len(d.s) - d.off }

// Offset returns how many bytes were read.
func (d *Decoder) Offset() int { return d.off }

// Fail records a mistake found by the caller at the current offset.
func (d *Decoder) Fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: offset %d: %s", ErrDecode, d.off, fmt.Sprintf(format, args...))
	}
}

// Uvarint reads what AppendUvarint wrote.
func (d *Decoder) Uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	if d.off < len(d.s) && d.s[d.off] < 0x80 {
		d.off++
		return uint64(d.s[d.off-1])
	}
	var n uint64
	for i := range binary.MaxVarintLen64 {
		if d.off+i >= len(d.s) {
			break
		}
		b := d.s[d.off+i]
		if i == binary.MaxVarintLen64-1 && b > 1 {
			break
		}
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			d.off += i + 1
			return n
		}
	}
	d.Fail("bad number")
	return 0
}

// Varint reads what AppendVarint wrote.
func (d *Decoder) Varint() int64 {
	u := d.Uvarint()
	n := int64(u >> 1)
	if u&1 != 0 {
		n = ^n
	}
	return n
}

// Count reads a number of elements that take at least minSize bytes each, and refuses one that cannot fit in
// what is left.
func (d *Decoder) Count(minSize int) int {
	n := d.Uvarint()
	if d.err == nil && n > uint64(d.Len()/max(minSize, 1)) {
		d.Fail("%d elements cannot fit in %d bytes", n, d.Len())
		return 0
	}
	return int(n)
}

// Str reads what AppendString wrote.
func (d *Decoder) Str() string {
	n := d.Count(1)
	return d.Take(n)
}

// Take reads the next n bytes.
func (d *Decoder) Take(n int) string {
	if d.err != nil {
		return ""
	}
	if n < 0 || n > d.Len() {
		d.Fail("%d bytes wanted, %d left", n, d.Len())
		return ""
	}
	d.off += n
	return d.s[d.off-n : d.off]
}

// Byte reads one byte.
func (d *Decoder) Byte() byte {
	if s := d.Take(1); s != "" {
		return s[0]
	}
	return 0
}

// Uint64 reads eight bytes, little endian.
func (d *Decoder) Uint64() uint64 {
	s := d.Take(8)
	if len(s) < 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(unsafe.Slice(unsafe.StringData(s), 8))
}

// Float reads eight bytes as the bits of a float.
func (d *Decoder) Float() float64 { return math.Float64frombits(d.Uint64()) }

// Value reads what AppendValue wrote and checks that arrays and maps are whole and not nested too deep.
func (d *Decoder) Value() Value { return d.value(0) }

// Attrs reads what AppendAttrs wrote and checks the order of the keys.
func (d *Decoder) Attrs() Attrs { return d.attrs(0) }

func (d *Decoder) value(depth int) Value {
	k := Kind(d.Byte())
	v := Value{kind: k}
	switch k {
	case KindEmpty:
	case KindString, KindBytes:
		v.str = d.Str()
	case KindBool:
		v.num = uint64(d.Byte())
		if v.num > 1 {
			d.Fail("a boolean of %d", v.num)
		}
	case KindInt:
		v.num = uint64(d.Varint())
	case KindDouble:
		v.num = d.Uint64()
	case KindArray, KindMap:
		v.str = d.Str()
		if d.err == nil {
			d.check(k, v.str, depth+1)
		}
	default:
		d.Fail("unknown kind of value %d", k)
	}
	if d.err != nil {
		return Value{}
	}
	return v
}

// check walks the inside of an array or a map without keeping anything.
func (d *Decoder) check(k Kind, s string, depth int) {
	if depth > MaxDepth {
		d.Fail("values nest deeper than %d", MaxDepth)
		return
	}
	in := NewDecoder(s)
	prev := ""
	for i := range in.Count(1) {
		if k == KindMap {
			key := in.Str()
			if i > 0 && key <= prev {
				in.Fail("keys out of order")
			}
			prev = key
		}
		in.value(depth)
	}
	if in.err == nil && in.Len() != 0 {
		in.Fail("%d bytes too many", in.Len())
	}
	if in.err != nil {
		d.Fail("inside a value: %v", in.err)
	}
}

func (d *Decoder) values(depth int) []Value {
	n := d.Count(1)
	if n == 0 {
		return nil
	}
	vs := make([]Value, 0, n)
	for range n {
		vs = append(vs, d.value(depth))
	}
	if d.err != nil {
		return nil
	}
	return vs
}

func (d *Decoder) attrs(depth int) Attrs {
	n := d.Count(2)
	if n == 0 {
		return nil
	}
	as := make(Attrs, 0, n)
	for i := range n {
		a := Attr{Key: d.Str(), Value: d.value(depth)}
		if i > 0 && a.Key <= as[i-1].Key {
			d.Fail("attribute keys out of order")
		}
		if d.err != nil {
			return nil
		}
		as = append(as, a)
	}
	return as
}
