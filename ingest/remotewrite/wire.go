package remotewrite

import (
	"encoding/binary"
	"errors"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// errWire is the error of every malformed message: where a message stops being one says little to a sender.
var errWire = errors.New("the request is not the protobuf message that its content type names")

// The kinds of fields.
const (
	wireVarint = 0
	wireFixed8 = 1
	wireBytes  = 2
	wireGroup  = 3
	wireFixed4 = 5
)

// maxField is the largest number of a field.
const maxField = 1<<29 - 1

// field is one field of a message: a number, or bytes of the message.
type field struct {
	num  uint32
	wire uint8
	n    uint64
	b    []byte
}

// next reads the field at m[at:] and returns where the one after it begins.
func next(m []byte, at int) (field, int, error) {
	tag, i := uvarint(m, at)
	num := tag >> 3
	if i == 0 || num == 0 || num > maxField {
		return field{}, 0, errWire
	}
	f := field{num: uint32(num), wire: uint8(tag & 7)}
	switch f.wire {
	case wireVarint:
		if f.n, i = uvarint(m, i); i == 0 {
			return field{}, 0, errWire
		}
	case wireFixed8:
		if len(m)-i < 8 {
			return field{}, 0, errWire
		}
		f.n = binary.LittleEndian.Uint64(m[i:])
		i += 8
	case wireBytes:
		n, j := uvarint(m, i)
		if j == 0 || n > uint64(len(m)-j) {
			return field{}, 0, errWire
		}
		i = j + int(n)
		f.b = m[j:i:i]
	case wireGroup:
		n := protowire.ConsumeFieldValue(protowire.Number(num), protowire.StartGroupType, m[i:])
		if n < 0 {
			return field{}, 0, errWire
		}
		i += n
	case wireFixed4:
		if len(m)-i < 4 {
			return field{}, 0, errWire
		}
		i += 4
	default:
		return field{}, 0, errWire
	}
	return f, i, nil
}

// uvarint reads a number at m[at:] and returns the position after it, or 0 when there is none.
func uvarint(m []byte, at int) (n uint64, end int) {
	if at < len(m) && m[at] < 0x80 {
		return uint64(m[at]), at + 1
	}
	if at+1 < len(m) && m[at+1] < 0x80 {
		return uint64(m[at]&0x7f) | uint64(m[at+1])<<7, at + 2
	}
	n, k := binary.Uvarint(m[at:])
	if k <= 0 {
		return 0, 0
	}
	return n, at + k
}

// is says whether f has the kind that its number wants; a field of another kind makes the message malformed.
func (f *field) is(wire uint8) error {
	if f.wire != wire {
		return errWire
	}
	return nil
}

// float returns the value of a double.
func (f *field) float() float64 { return math.Float64frombits(f.n) }

// zigzag32 decodes a sint32 as generated code does, which drops the upper half.
func zigzag32(n uint64) int32 {
	u := uint32(n)
	return int32(u>>1) ^ -int32(u&1)
}

// zigzag64 decodes a sint64.
func zigzag64(n uint64) int64 { return int64(n>>1) ^ -int64(n&1) }

// varints counts the numbers of a packed field.
func varints(b []byte) (n int) {
	for _, c := range b {
		if c < 0x80 {
			n++
		}
	}
	return n
}

// eachVarint calls f for the numbers of a repeated field, packed or not.
func eachVarint(fl *field, f func(n uint64)) error {
	if fl.wire == wireVarint {
		f(fl.n)
		return nil
	}
	if fl.wire != wireBytes {
		return errWire
	}
	for i := 0; i < len(fl.b); {
		n, end := uvarint(fl.b, i)
		if end == 0 {
			return errWire
		}
		f(n)
		i = end
	}
	return nil
}

// appendFloats appends the doubles of a repeated field, packed or not.
func appendFloats(dst []float64, f *field) ([]float64, error) {
	if f.wire == wireFixed8 {
		return append(dst, f.float()), nil
	}
	if f.wire != wireBytes || len(f.b)%8 != 0 {
		return nil, errWire
	}
	for i := 0; i < len(f.b); i += 8 {
		dst = append(dst, math.Float64frombits(binary.LittleEndian.Uint64(f.b[i:])))
	}
	return dst, nil
}
