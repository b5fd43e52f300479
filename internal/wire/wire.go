// Package wire reads and writes messages of protobuf field by field, as they are encoded: for protocols whose messages are
// translated without being made first. Texts that are read share the memory of the message.
package wire

import (
	"encoding/binary"
	"errors"
	"math"
)

// Type is how a field is encoded.
type Type uint8

// The types. Groups are none of them.
const (
	Varint  Type = 0
	Fixed64 Type = 1
	Bytes   Type = 2
	Fixed32 Type = 5
)

// ErrMalformed says that bytes are no message of protobuf.
var ErrMalformed = errors.New("malformed protobuf")

// Field is one field of a message: its number, and its value as a number or, with type Bytes, as bytes.
type Field struct {
	Num  uint64
	Type Type
	N    uint64
	S    string
}

// Next reads the first field of m and returns what follows it.
func Next(m string) (f Field, rest string, err error) {
	tag, m, ok := uvarint(m)
	f.Num, f.Type = tag>>3, Type(tag&7)
	if !ok || f.Num == 0 || f.Num > math.MaxInt32>>2 {
		return f, "", ErrMalformed
	}
	switch f.Type {
	case Varint:
		if f.N, m, ok = uvarint(m); ok {
			return f, m, nil
		}
	case Fixed64:
		if len(m) >= 8 {
			f.N = binary.LittleEndian.Uint64([]byte(m[:8]))
			return f, m[8:], nil
		}
	case Bytes:
		if f.N, m, ok = uvarint(m); ok && f.N <= uint64(len(m)) {
			f.S = m[:f.N]
			return f, m[f.N:], nil
		}
	case Fixed32:
		if len(m) >= 4 {
			f.N = uint64(binary.LittleEndian.Uint32([]byte(m[:4])))
			return f, m[4:], nil
		}
	}
	return f, "", ErrMalformed
}

// uvarint reads a number and returns what follows it.
func uvarint(s string) (n uint64, rest string, ok bool) {
	if len(s) > 0 && s[0] < 0x80 {
		return uint64(s[0]), s[1:], true
	}
	for i := 0; i < len(s) && i < binary.MaxVarintLen64; i++ {
		c := s[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			return 0, "", false
		}
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n, s[i+1:], true
		}
	}
	return 0, "", false
}

// Fields calls f with each field of m, until the first error.
func Fields(m string, f func(Field) error) error {
	for len(m) > 0 {
		x, rest, err := Next(m)
		if err != nil {
			return err
		}
		if err := f(x); err != nil {
			return err
		}
		m = rest
	}
	return nil
}
