package piece

import (
	"encoding/binary"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/column"
)

// Encoder encodes pieces. Its zero value is ready; it is for one caller at a time.
type Encoder struct {
	enc   column.Encoder
	nums  []int64
	small []byte
	tight []byte
}

// Ints appends integers: how often they can be divided by a thousand, then the ints of package column.
func (p *Encoder) Ints(dst []byte, ns []int64) []byte {
	if len(ns) == 0 {
		return dst
	}
	scale := byte(0)
	for scale < 3 && divisible(ns) {
		if scale == 0 {
			p.nums = append(p.nums[:0], ns...)
			ns = p.nums
		}
		for i := range ns {
			ns[i] /= 1000
		}
		scale++
	}
	return p.enc.Ints(append(dst, scale), ns, nil)
}

func divisible(ns []int64) bool {
	zero := true
	for _, n := range ns {
		if n%1000 != 0 {
			return false
		}
		zero = zero && n == 0
	}
	return !zero
}

// Codes adds codes as a piece, in the form that is smallest: as bytes, which the compressor finds patterns in, or as bits.
func (p *Encoder) Codes(b *Blob, cs []uint32) {
	if len(cs) == 0 {
		b.Add(nil, false)
		return
	}
	top, same := uint32(0), true
	for _, c := range cs {
		top = max(top, c)
		same = same && c == cs[0]
	}
	if same {
		b.Add(binary.AppendUvarint([]byte{codesSame}, uint64(top)), false)
		return
	}
	p.small = p.small[:0]
	switch {
	case top < 1<<8:
		p.small = append(p.small, codes8)
		for _, c := range cs {
			p.small = append(p.small, byte(c))
		}
	case top < 1<<16:
		p.small = append(p.small, codes16)
		for _, c := range cs {
			p.small = append(p.small, byte(c), byte(c>>8))
		}
	default:
		p.small = append(p.small, codes32)
		for _, c := range cs {
			p.small = binary.LittleEndian.AppendUint32(p.small, c)
		}
	}
	p.nums = p.nums[:0]
	for _, c := range cs {
		p.nums = append(p.nums, int64(c))
	}
	p.tight = p.enc.Ints(append(p.tight[:0], codesTight), p.nums, nil)
	if len(cs) >= 64 {
		b.packed = b.w.Pack(b.packed[:0], p.small)
		if len(b.packed) < len(p.tight)-len(p.tight)/16 {
			b.stored(b.packed, len(p.small))
			return
		}
	}
	b.stored(p.tight, 0)
}

// Texts appends strings: their lengths as ints after the number of bytes that these take, then the bytes.
func (p *Encoder) Texts(dst []byte, ss []string) []byte {
	if len(ss) == 0 {
		return dst
	}
	p.nums = p.nums[:0]
	for _, s := range ss {
		p.nums = append(p.nums, int64(len(s)))
	}
	p.small = p.enc.Ints(p.small[:0], p.nums, nil)
	dst = binary.AppendUvarint(dst, uint64(len(p.small)))
	dst = append(dst, p.small...)
	for _, s := range ss {
		dst = append(dst, s...)
	}
	return dst
}

// Values appends values: a byte 1 and texts when all are strings, a byte 2 and ints when all are integers, else a byte 0 and
// their binary forms.
func (p *Encoder) Values(dst []byte, vs []telemetry.Value) []byte {
	switch KindOf(vs) {
	case telemetry.KindString:
		ss := make([]string, len(vs))
		for i, v := range vs {
			ss[i] = v.Str()
		}
		return p.Texts(append(dst, 1), ss)
	case telemetry.KindInt:
		ns := make([]int64, len(vs))
		for i, v := range vs {
			ns[i] = v.Int()
		}
		return p.Ints(append(dst, 2), ns)
	default:
		dst = append(dst, 0)
		for _, v := range vs {
			dst = telemetry.AppendValue(dst, v)
		}
		return dst
	}
}

// KindOf returns the kind of all values, KindEmpty when they differ or are empty.
func KindOf(vs []telemetry.Value) telemetry.Kind {
	if len(vs) == 0 {
		return telemetry.KindEmpty
	}
	k := vs[0].Kind()
	for _, v := range vs {
		if v.Kind() != k {
			return telemetry.KindEmpty
		}
	}
	return k
}
