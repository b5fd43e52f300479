// Package column packs the times and values of series: integers as differences in blocks of packed bits, floats as
// scaled integers where that loses no bit. What is decoded is what was encoded to the bit: NaN payloads, negative
// zeros and infinities too.
//
// The format is described in docs/format/part.md, section "Columns of samples". Decoders take hostile input: they
// return an error that wraps ErrCorrupt and never read or write out of bounds; how many values there are is known to
// the caller, so that nothing is allocated here.
package column

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// ErrCorrupt is wrapped by every error of the decoders.
var ErrCorrupt = errors.New("malformed column")

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// Uvarint reads a number of the variable-length form and returns what follows.
func Uvarint(src []byte) (uint64, []byte, error) {
	if len(src) > 0 && src[0] < 0x80 {
		return uint64(src[0]), src[1:], nil
	}
	if len(src) >= 8 { // of at most 8 bytes: all at once
		w := binary.LittleEndian.Uint64(src)
		if last := ^w & more; last != 0 {
			w &= (last ^ (last - 1)) &^ more
			w = w&0x007f007f007f007f | w&0x7f007f007f007f00>>1
			w = w&0x00003fff00003fff | w&0x3fff00003fff0000>>2
			w = w&0x000000000fffffff | w&0x0fffffff00000000>>4
			return w, src[bits.TrailingZeros64(last)/8+1:], nil
		}
	}
	n, k := binary.Uvarint(src)
	if k <= 0 {
		return 0, nil, corrupt("bad number")
	}
	return n, src[k:], nil
}

// more is the bits of bytes of the variable-length form that say that the number goes on.
const more = 0x8080808080808080

func varint(src []byte) (int64, []byte, error) {
	u, rest, err := Uvarint(src)
	return int64(u>>1) ^ -int64(u&1), rest, err
}

// skipVarint returns what follows a number.
func skipVarint(src []byte) ([]byte, error) {
	if len(src) >= 8 {
		if last := ^binary.LittleEndian.Uint64(src) & more; last != 0 {
			return src[bits.TrailingZeros64(last)/8+1:], nil
		}
	}
	_, rest, err := Uvarint(src)
	return rest, err
}
