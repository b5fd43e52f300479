package piece

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/column"
)

// Ints reads n integers and nothing behind them. B is a whole piece.
func Ints(m *Memory, b []byte, n int) ([]int64, error) {
	return ints(m, b, n, column.Scaled)
}

// Some is Ints for those numbers of which set has a bit; what it returns for others is not defined.
func Some(m *Memory, b []byte, n int, set []uint64) ([]int64, error) {
	return ints(m, b, n, func(src []byte, out []int64, by int64) ([]byte, error) { return column.Some(src, out, set, by) })
}

func ints(m *Memory, b []byte, n int, decode func(src []byte, out []int64, by int64) ([]byte, error)) ([]int64, error) {
	if n == 0 {
		return nil, wantNone(b)
	}
	if len(b) == 0 || n > 128*(len(b)+2) {
		return nil, fmt.Errorf("%d integers cannot fit in %d bytes", n, len(b))
	}
	scale := b[0]
	if scale > 3 {
		return nil, fmt.Errorf("scale %d", scale)
	}
	out := m.wide.Get(n)
	rest, err := decode(pad(b)[1:], out, [...]int64{1, 1e3, 1e6, 1e9}[scale])
	if err != nil {
		return nil, err
	}
	if len(rest) != padding {
		return nil, fmt.Errorf("%d bytes too many", len(rest)-padding)
	}
	return out, nil
}

func wantNone(b []byte) error {
	if len(b) > 0 {
		return fmt.Errorf("%d bytes too many", len(b))
	}
	return nil
}

// The forms of codes. The numbers are on disk.
const (
	codesSame  = 0 // one uvarint for all
	codesTight = 1 // ints of package column
	codes8     = 2 // a byte each
	codes16    = 3 // two, least significant first
	codes32    = 4
)

// Codes reads n codes below limit.
func Codes(m *Memory, b []byte, n int, limit uint32) ([]uint32, error) {
	if n == 0 {
		return nil, wantNone(b)
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("%d codes in no bytes", n)
	}
	form, b := b[0], b[1:]
	width := 0
	switch form {
	case codes8:
		width = 1
	case codes16:
		width = 2
	case codes32:
		width = 4
	case codesSame:
		u, rest, err := column.Uvarint(b)
		if err != nil || len(rest) > 0 || u >= uint64(limit) {
			return nil, fmt.Errorf("code %d of %d", u, limit)
		}
		out := m.Codes.Get(n)
		for i := range out {
			out[i] = uint32(u)
		}
		return out, nil
	case codesTight:
		if n > 128*(len(b)+2) {
			return nil, fmt.Errorf("%d codes cannot fit in %d bytes", n, len(b))
		}
		out := m.Codes.Get(n)
		rest, err := column.Codes(pad(b), out)
		if err != nil {
			return nil, err
		}
		if len(rest) != padding {
			return nil, fmt.Errorf("%d bytes too many", len(rest)-padding)
		}
		return below(out, limit)
	default:
		return nil, fmt.Errorf("unknown form %d of codes", form)
	}
	if len(b) != n*width {
		return nil, fmt.Errorf("%d codes of %d bytes in %d", n, width, len(b))
	}
	out := m.Codes.Get(n)
	switch width {
	case 1:
		for i, c := range b {
			out[i] = uint32(c)
		}
	case 2:
		for i := range out {
			out[i] = uint32(binary.LittleEndian.Uint16(b[2*i:]))
		}
	default:
		for i := range out {
			out[i] = binary.LittleEndian.Uint32(b[4*i:])
		}
	}
	return below(out, limit)
}

// below returns the codes if each is below limit.
func below(codes []uint32, limit uint32) ([]uint32, error) {
	wrong := int64(0) // below zero if one is not: this is quicker than their largest one
	for _, c := range codes {
		wrong |= int64(limit) - 1 - int64(c)
	}
	if wrong < 0 {
		return nil, fmt.Errorf("code %d of %d", slices.Max(codes), limit)
	}
	return codes, nil
}

// Texts reads n strings and nothing behind them; they share b's memory.
func Texts(b []byte, n int) ([]string, error) {
	if n == 0 {
		return nil, wantNone(b)
	}
	size, b, err := column.Uvarint(b)
	if err != nil || size > uint64(len(b)) {
		return nil, fmt.Errorf("lengths of %d bytes in %d", size, len(b))
	}
	if n > 128*(int(size)+2) {
		return nil, fmt.Errorf("%d strings cannot fit in %d bytes", n, len(b))
	}
	lens := make([]int64, n)
	rest, err := column.Ints(b[:size], lens, nil)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes too many", len(rest))
	}
	text := unsafe.String(unsafe.SliceData(b), len(b))[size:]
	out := make([]string, n)
	at := 0
	for i, l := range lens {
		if l < 0 || l > int64(len(text)-at) {
			return nil, fmt.Errorf("a string of %d bytes, %d are left", l, len(text)-at)
		}
		out[i] = text[at : at+int(l)]
		at += int(l)
	}
	if at != len(text) {
		return nil, fmt.Errorf("%d bytes too many", len(text)-at)
	}
	return out, nil
}

// Values reads n values and nothing behind them.
func Values(b []byte, n int) ([]telemetry.Value, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%d values in no bytes", n)
	}
	form, b := b[0], b[1:]
	switch form {
	case 1:
		ss, err := Texts(b, n)
		if err != nil {
			return nil, err
		}
		out := make([]telemetry.Value, n)
		for i, s := range ss {
			out[i] = telemetry.String(s)
		}
		return out, nil
	case 2:
		ns, err := Ints(&Memory{}, b, n)
		if err != nil {
			return nil, err
		}
		out := make([]telemetry.Value, n)
		for i, v := range ns {
			out[i] = telemetry.Int(v)
		}
		return out, nil
	case 0:
		if n > len(b) {
			return nil, fmt.Errorf("%d values cannot fit in %d bytes", n, len(b))
		}
		d := telemetry.NewDecoderBytes(b)
		out := make([]telemetry.Value, n)
		for i := range out {
			out[i] = d.Value()
		}
		if d.Err() == nil && d.Len() > 0 {
			d.Fail("%d bytes too many", d.Len())
		}
		return out, d.Err()
	default:
		return nil, fmt.Errorf("unknown form %d of values", form)
	}
}
