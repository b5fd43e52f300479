package part

import (
	"errors"
	"fmt"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/column"
)

// Scratch is memory that columns are read through, one after the other. It is for one goroutine.
type Scratch struct {
	raw  []byte
	ints []int64
}

var errChecksum = errors.New("the checksum does not match")

// ReadInts reads a Packed column of block b into dst, which is grown if need be, and returns it. The numbers belong to
// the caller.
func (t *Table) ReadInts(name string, b int, dst []int64, s *Scratch) ([]int64, error) {
	c, ok := t.cols[name]
	if !ok || t.meta.schema.Columns[c].Type != Packed {
		return nil, t.p.corrupt(0, "table %s has no packed column %s", t.name, name)
	}
	n := t.meta.rows[b]
	dst = slices.Grow(dst[:0], n)[:n]
	return dst, t.packed(name, c, b, s, func(raw []byte) ([]byte, error) { return column.Ints(raw, dst, nil) })
}

// Runs calls f with runs of equal values of a Packed column of block b, in order.
func (t *Table) Runs(name string, b int, s *Scratch, f func(n int, v int64) error) error {
	c, ok := t.cols[name]
	if !ok || t.meta.schema.Columns[c].Type != Packed {
		return t.p.corrupt(0, "table %s has no packed column %s", t.name, name)
	}
	return t.packed(name, c, b, s, func(raw []byte) ([]byte, error) { return column.Runs(raw, t.meta.rows[b], f) })
}

// packed reads the bytes of column c of block b and has them decoded; decode returns what is left of them.
func (t *Table) packed(name string, c, b int, s *Scratch, decode func(raw []byte) ([]byte, error)) error {
	m := &t.meta.blocks[c][b]
	s.raw = slices.Grow(s.raw[:0], m.size)[:m.size]
	if err := t.p.readAt(s.raw, m.offset); err != nil {
		return err
	}
	var rest []byte
	var err error
	switch {
	case checksum(s.raw) != m.crc:
		err = errChecksum
	case m.size != m.raw:
		err = fmt.Errorf("%d bytes stored of %d", m.size, m.raw)
	default:
		rest, err = decode(s.raw)
	}
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes too many", len(rest))
	}
	if err != nil {
		return t.p.corrupt(m.offset, "table %s, column %s, block %d: %v", t.name, name, b, err)
	}
	return nil
}

// ReadRows returns the given rows of a column of type Packed, Bytes or Fixed of block b; nil is all rows. A column that
// has one value only is not taken apart row by row.
func (t *Table) ReadRows(name string, b int, rows []int, s *Scratch) (Vector, error) {
	c, ok := t.cols[name]
	if !ok {
		return Vector{}, t.p.corrupt(0, "table %s has no column %s", t.name, name)
	}
	n := len(rows)
	if rows == nil {
		n = t.meta.rows[b]
	}
	if t.meta.schema.Columns[c].Type == Packed {
		if lo, hi, ok := t.Ints(name, b); ok && lo == hi {
			return Vector{Ints: slices.Repeat([]int64{lo}, n)}, nil
		}
		if rows == nil {
			ns, err := t.ReadInts(name, b, nil, s)
			return Vector{Ints: ns}, err
		}
		var err error
		if s.ints, err = t.ReadInts(name, b, s.ints, s); err != nil {
			return Vector{}, err
		}
		return Vector{Ints: Pick(rows, s.ints, Same[int64])}, nil
	}
	m := &t.meta.blocks[c][b]
	raw, err := t.p.block(t.name, name, b, m, t.p.cache)
	if err != nil {
		return Vector{}, err
	}
	col := t.meta.schema.Columns[c]
	if len(raw) > 0 && raw[0] == encConst && (col.Type == Bytes || col.Type == Fixed) {
		d := telemetry.NewDecoder(raw[1:])
		var v Vector
		if col.Type == Bytes {
			v.Strs = slices.Repeat([]string{d.Str()}, n)
		} else {
			v.Fixed = slices.Repeat([]byte(d.Take(col.Width)), n)
		}
		if d.Err() == nil && d.Len() != 0 {
			d.Fail("%d bytes too many", d.Len())
		}
		if d.Err() != nil {
			return Vector{}, t.p.corrupt(m.offset, "table %s, column %s, block %d: %v", t.name, name, b, d.Err())
		}
		return v, nil
	}
	v, err := decodeColumn(raw, col, t.meta.rows[b])
	if err != nil {
		return Vector{}, t.p.corrupt(m.offset, "table %s, column %s, block %d: %v", t.name, name, b, err)
	}
	if rows == nil {
		return v, nil
	}
	out := Vector{Ints: Pick(rows, v.Ints, Same[int64]), Floats: Pick(rows, v.Floats, Same[float64]), Strs: Pick(rows, v.Strs, Same[string])}
	if w := col.Width; v.Fixed != nil {
		out.Fixed = make([]byte, 0, n*w)
		for _, row := range rows {
			out.Fixed = append(out.Fixed, v.Fixed[row*w:row*w+w]...)
		}
	}
	return out, nil
}
