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
	n, k := binary.Uvarint(src)
	if k <= 0 {
		return 0, nil, corrupt("bad number")
	}
	return n, src[k:], nil
}

func varint(src []byte) (int64, []byte, error) {
	u, rest, err := Uvarint(src)
	return int64(u>>1) ^ -int64(u&1), rest, err
}
