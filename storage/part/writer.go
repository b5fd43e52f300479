package part

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"sort"

	"github.com/klauspost/compress/zstd"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/column"
)

// Writer writes one part, table after table, block after block. It buffers one block.
type Writer struct {
	w      io.Writer
	enc    *zstd.Encoder
	props  map[string]string
	tables []tableMeta
	now    int // the table that blocks belong to
	offset int64
	buf    []byte
	packed []byte
	ints   column.Encoder
	err    error
}

// NewEncoder returns an encoder for Writers; it may be shared by several of them.
func NewEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true),
		zstd.WithAllLitEntropyCompression(true)) // identifiers repeat nothing but their few characters
}

// NewWriter starts a part on w with the given properties, which Part.Props returns. The encoder is only
// borrowed.
func NewWriter(w io.Writer, enc *zstd.Encoder, props map[string]string) *Writer {
	pw := &Writer{w: w, enc: enc, props: props}
	header := make([]byte, headerSize)
	copy(header, headerMagic)
	header[8] = Version
	pw.write(header)
	return pw
}

func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(b)
	w.offset += int64(n)
	w.err = err
}

// Begin starts the next table and returns its number; blocks that follow belong to it.
func (w *Writer) Begin(s Schema) int {
	w.tables = append(w.tables, tableMeta{schema: s, blocks: make([][]blockMeta, len(s.Columns))})
	w.now = len(w.tables) - 1
	return w.now
}

// Turn makes blocks that follow belong to a table that was begun before.
func (w *Writer) Turn(table int) { w.now = table }

// Prop sets a property.
func (w *Writer) Prop(key, value string) { w.props[key] = value }

// Block writes one block of n rows: a vector for each column of the table, in order. Zero rows write nothing.
func (w *Writer) Block(n int, cols ...Vector) error {
	if w.err != nil || n == 0 {
		return w.err
	}
	t := &w.tables[w.now]
	if n > MaxBlockRows || len(cols) != len(t.schema.Columns) {
		return fmt.Errorf("block of table %s has %d rows and %d columns, want at most %d and %d", t.schema.Name, n, len(cols), MaxBlockRows, len(t.schema.Columns))
	}
	for i := range cols {
		c := t.schema.Columns[i]
		var err error
		if w.buf, err = w.appendColumn(w.buf[:0], c, &cols[i], n); err != nil {
			return fmt.Errorf("encode table %s: %w", t.schema.Name, err)
		}
		if len(w.buf) > MaxBlockBytes {
			return fmt.Errorf("encode table %s: column %s has %d bytes in one block, the limit is %d", t.schema.Name, c.Name, len(w.buf), MaxBlockBytes)
		}
		lo, hi := limits(c, &cols[i], n)
		t.blocks[i] = append(t.blocks[i], w.store(w.buf, lo, hi, c.Type != Packed))
	}
	t.rows = append(t.rows, n)
	t.total += int64(n)
	return w.err
}

// store writes the bytes of one block of a column.
func (w *Writer) store(b []byte, lo, hi string, pack bool) blockMeta {
	m := blockMeta{offset: w.offset, raw: len(b), min: lo, max: hi}
	if pack && len(b) >= 64 {
		if w.packed = w.enc.EncodeAll(b, w.packed[:0]); len(w.packed) < len(b) {
			b = w.packed
		}
	}
	m.size, m.crc = len(b), checksum(b)
	w.write(b)
	return m
}

// Blob writes one block of a table whose only column is a Blob: bytes in a format of the table's own that stand for
// n rows, with what their smallest and largest value are as far as that format says. With pack they are compressed.
func (w *Writer) Blob(n int, b []byte, lo, hi string, pack bool) error {
	if w.err != nil {
		return w.err
	}
	t := &w.tables[w.now]
	if n < 1 || n > MaxBlockRows || len(t.schema.Columns) != 1 || t.schema.Columns[0].Type != Blob || len(b) > MaxBlockBytes {
		return fmt.Errorf("table %s takes no block of %d rows and %d bytes", t.schema.Name, n, len(b))
	}
	t.blocks[0] = append(t.blocks[0], w.store(b, lo, hi, pack))
	t.rows = append(t.rows, n)
	t.total += int64(n)
	return w.err
}

// Copy writes block b of a table with the schema of the present one as it is stored, after checking it.
func (w *Writer) Copy(from *Table, b int) error {
	t := &w.tables[w.now]
	if w.err != nil {
		return w.err
	}
	if len(from.meta.schema.Columns) != len(t.schema.Columns) {
		return fmt.Errorf("table %s is not copied to table %s: it has other columns", from.name, t.schema.Name)
	}
	for i := range t.schema.Columns {
		if from.meta.schema.Columns[i] != t.schema.Columns[i] {
			return fmt.Errorf("table %s is not copied to table %s: it has other columns", from.name, t.schema.Name)
		}
		m := from.meta.blocks[i][b]
		buf := make([]byte, m.size)
		if err := from.p.readAt(buf, m.offset); err != nil {
			return err
		}
		if checksum(buf) != m.crc {
			return from.p.corrupt(m.offset, "table %s, column %s, block %d: the checksum does not match", from.name, t.schema.Columns[i].Name, b)
		}
		m.offset = w.offset
		w.write(buf)
		t.blocks[i] = append(t.blocks[i], m)
	}
	t.rows = append(t.rows, from.meta.rows[b])
	t.total += int64(from.meta.rows[b])
	return w.err
}

// limits returns the smallest and the largest value of a block in the form of the footer.
func limits(c Column, v *Vector, n int) (string, string) {
	switch c.Type {
	case Int64, Packed:
		lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
		for _, x := range v.Ints {
			lo, hi = min(lo, x), max(hi, x)
		}
		return string(binary.AppendVarint(nil, lo)), string(binary.AppendVarint(nil, hi))
	case Fixed:
		lo, hi := v.Fixed[:c.Width], v.Fixed[:c.Width]
		for i := 1; i < n; i++ {
			s := v.Fixed[i*c.Width : (i+1)*c.Width]
			if bytes.Compare(s, lo) < 0 {
				lo = s
			} else if bytes.Compare(s, hi) > 0 {
				hi = s
			}
		}
		return string(lo), string(hi)
	default:
		return "", ""
	}
}

// Close writes the footer. It does not close or sync what is written to.
func (w *Writer) Close() error {
	var f []byte
	keys := make([]string, 0, len(w.props))
	for k := range w.props {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	f = binary.AppendUvarint(f, uint64(len(keys)))
	for _, k := range keys {
		f = telemetry.AppendString(f, k)
		f = telemetry.AppendString(f, w.props[k])
	}
	f = binary.AppendUvarint(f, uint64(len(w.tables)))
	for i := range w.tables {
		t := &w.tables[i]
		f = telemetry.AppendString(f, t.schema.Name)
		f = binary.AppendUvarint(f, uint64(len(t.schema.Columns)))
		for _, c := range t.schema.Columns {
			f = telemetry.AppendString(f, c.Name)
			f = append(f, byte(c.Type), byte(c.Width))
		}
		f = binary.AppendUvarint(f, uint64(len(t.rows)))
		for b, n := range t.rows {
			f = binary.AppendUvarint(f, uint64(n))
			for c := range t.schema.Columns {
				m := &t.blocks[c][b]
				f = binary.AppendUvarint(f, uint64(m.offset))
				f = binary.AppendUvarint(f, uint64(m.size))
				f = binary.AppendUvarint(f, uint64(m.raw))
				f = binary.LittleEndian.AppendUint32(f, m.crc)
				f = telemetry.AppendString(f, m.min)
				f = telemetry.AppendString(f, m.max)
			}
		}
	}
	if len(f) > MaxFooterBytes {
		return fmt.Errorf("footer has %d bytes, the limit is %d", len(f), MaxFooterBytes)
	}
	crc := checksum(f)
	w.write(f)
	var tr []byte
	tr = binary.LittleEndian.AppendUint32(tr, uint32(len(f)))
	tr = binary.LittleEndian.AppendUint32(tr, crc)
	tr = append(tr, Version, 0, 0, 0)
	tr = append(tr, trailerMagic...)
	w.write(tr)
	return w.err
}

// Size returns the bytes written so far.
func (w *Writer) Size() int64 { return w.offset }
