package part

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"unsafe"

	"github.com/klauspost/compress/zstd"

	"github.com/braidobs/braid/internal/telemetry"
)

// Part is an open part. It is immutable and safe for concurrent use; it does not own the reader it was opened
// on.
type Part struct {
	file   string
	r      io.ReaderAt
	size   int64
	dec    *zstd.Decoder
	cache  *Cache
	props  map[string]string
	tables map[string]*Table
}

// Table is one table of an open part.
type Table struct {
	p    *Part
	name string
	meta tableMeta
	cols map[string]int
}

// NewDecoder returns a decoder for Open; it may be shared by any number of parts.
func NewDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(MaxBlockBytes), zstd.WithDecoderMaxWindow(8<<20))
}

// Open reads the footer of a part. File is its name, for errors and for the cache, which may be nil.
func Open(file string, r io.ReaderAt, size int64, dec *zstd.Decoder, cache *Cache) (*Part, error) {
	p := &Part{file: file, r: r, size: size, dec: dec, cache: cache, props: map[string]string{}, tables: map[string]*Table{}}
	if size < headerSize+trailerSize {
		return nil, p.corrupt(0, "%d bytes are too few for a part", size)
	}
	var head [headerSize]byte
	if err := p.readAt(head[:], 0); err != nil {
		return nil, err
	}
	if string(head[:8]) != headerMagic {
		return nil, p.corrupt(0, "no part starts like this")
	}
	if head[8] != Version {
		return nil, p.corrupt(8, "version %d, this program reads up to version %d", head[8], Version)
	}
	var tr [trailerSize]byte
	if err := p.readAt(tr[:], size-trailerSize); err != nil {
		return nil, err
	}
	if string(tr[12:]) != trailerMagic || tr[8] != Version {
		return nil, p.corrupt(size-trailerSize, "no part ends like this")
	}
	n := int64(binary.LittleEndian.Uint32(tr[:]))
	at := size - trailerSize - n
	if n > MaxFooterBytes || at < headerSize {
		return nil, p.corrupt(size-trailerSize, "a footer of %d bytes", n)
	}
	footer := make([]byte, n)
	if err := p.readAt(footer, at); err != nil {
		return nil, err
	}
	if checksum(footer) != binary.LittleEndian.Uint32(tr[4:]) {
		return nil, p.corrupt(at, "the checksum of the footer does not match")
	}
	d := telemetry.NewDecoderBytes(footer)
	p.footer(d, at)
	if err := d.Err(); err != nil {
		return nil, p.corrupt(at, "footer: %v", err)
	}
	return p, nil
}

func (p *Part) readAt(b []byte, off int64) error {
	if n, err := p.r.ReadAt(b, off); n < len(b) {
		if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // ReadAt returns them bare
			return p.corrupt(off, "the file ends within a block of %d bytes", len(b))
		}
		return fmt.Errorf("read part %s at offset %d: %w", p.file, off, err)
	}
	return nil
}

func (p *Part) corrupt(off int64, format string, args ...any) error {
	return &CorruptError{File: p.file, Offset: off, What: fmt.Sprintf(format, args...)}
}

// footer reads the footer, which starts at end: no block may reach beyond that.
func (p *Part) footer(d *telemetry.Decoder, end int64) {
	for range d.Count(2) {
		k := d.Str()
		p.props[k] = d.Str()
	}
	for range d.Count(3) {
		t := &Table{p: p, name: d.Str(), cols: map[string]int{}}
		t.meta.schema.Name = t.name
		for i := range d.Count(3) {
			c := Column{Name: d.Str(), Type: Type(d.Byte()), Width: int(d.Byte())}
			if c.Type < Int64 || c.Type > Packed || c.Type == Fixed && (c.Width < 1 || c.Width > 32) {
				d.Fail("column %q has type %d and width %d", c.Name, c.Type, c.Width)
			}
			t.meta.schema.Columns = append(t.meta.schema.Columns, c)
			t.cols[c.Name] = i
		}
		t.meta.blocks = make([][]blockMeta, len(t.meta.schema.Columns))
		for range d.Count(1 + 9*len(t.meta.schema.Columns)) {
			n := d.Uvarint()
			if n == 0 || n > MaxBlockRows {
				d.Fail("a block of %d rows", n)
			}
			t.meta.first = append(t.meta.first, t.meta.total)
			t.meta.rows = append(t.meta.rows, int(n))
			t.meta.total += int64(n)
			for c := range t.meta.schema.Columns {
				m := blockMeta{offset: int64(d.Uvarint()), size: int(d.Uvarint()), raw: int(d.Uvarint())}
				if s := d.Take(4); s != "" {
					m.crc = binary.LittleEndian.Uint32([]byte(s))
				}
				m.min, m.max = d.Str(), d.Str()
				if m.offset < headerSize || m.size < 0 || int64(m.size) > end || m.offset > end-int64(m.size) || m.raw < 0 || m.raw > MaxBlockBytes {
					d.Fail("a block at %d of %d bytes, %d unpacked", m.offset, m.size, m.raw)
				}
				t.meta.blocks[c] = append(t.meta.blocks[c], m)
			}
			if d.Err() != nil {
				return
			}
		}
		p.tables[t.name] = t
	}
	if d.Err() == nil && d.Len() != 0 {
		d.Fail("%d bytes too many", d.Len())
	}
}

// File returns the name that the part was opened under.
func (p *Part) File() string { return p.file }

// Prop returns a property, "" when it is absent.
func (p *Part) Prop(key string) string { return p.props[key] }

// Table returns the table of that name; one that the part does not have is empty.
func (p *Part) Table(name string) *Table {
	if t, ok := p.tables[name]; ok {
		return t
	}
	return &Table{p: p, name: name}
}

// Check returns an error unless the table, when there is one, has all these columns.
func (t *Table) Check(cols []Column) error {
	if t.p.tables[t.name] != t {
		return nil
	}
	for _, want := range cols {
		c, ok := t.cols[want.Name]
		if !ok || t.meta.schema.Columns[c] != want {
			return t.p.corrupt(0, "table %s has no column %s of type %d", t.name, want.Name, want.Type)
		}
	}
	return nil
}

// Rows returns the number of rows.
func (t *Table) Rows() int64 { return t.meta.total }

// Blocks returns the number of blocks.
func (t *Table) Blocks() int { return len(t.meta.rows) }

// BlockRows returns the number of rows of block b.
func (t *Table) BlockRows(b int) int { return t.meta.rows[b] }

// FirstRow returns the number of the first row of block b.
func (t *Table) FirstRow(b int) int64 { return t.meta.first[b] }

// BlockOf returns the block that holds a row.
func (t *Table) BlockOf(row int64) int {
	lo, hi := 0, len(t.meta.first)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; t.meta.first[mid] <= row {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// Ints returns the smallest and largest value of an Int64 or Packed column in block b; ok is false without statistics.
func (t *Table) Ints(column string, b int) (lo, hi int64, ok bool) {
	c, known := t.cols[column]
	if !known || t.meta.schema.Columns[c].Type != Int64 && t.meta.schema.Columns[c].Type != Packed {
		return 0, 0, false
	}
	m := &t.meta.blocks[c][b]
	lo, n := binary.Varint([]byte(m.min))
	hi, k := binary.Varint([]byte(m.max))
	return lo, hi, n > 0 && k > 0 && lo <= hi
}

// Fixed returns the smallest and largest value of a Fixed column in block b; ok is false without statistics.
func (t *Table) Fixed(column string, b int) (lo, hi string, ok bool) {
	c, known := t.cols[column]
	if !known || t.meta.schema.Columns[c].Type != Fixed {
		return "", "", false
	}
	m := &t.meta.blocks[c][b]
	return m.min, m.max, len(m.min) == len(m.max) && m.min != ""
}

// Read returns one column of block b, after checking it. The vector may share memory with others that were
// read, none of which may be changed.
func (t *Table) Read(column string, b int) (Vector, error) {
	c, ok := t.cols[column]
	if !ok {
		return Vector{}, t.p.corrupt(0, "table %s has no column %s", t.name, column)
	}
	m := &t.meta.blocks[c][b]
	cache := t.p.cache
	if t.meta.schema.Columns[c].Type == Packed {
		cache = nil // it is stored as it is: caching would only copy it
	}
	raw, err := t.p.block(t.name, column, b, m, cache)
	if err != nil {
		return Vector{}, err
	}
	v, err := decodeColumn(raw, t.meta.schema.Columns[c], t.meta.rows[b])
	if err != nil {
		return Vector{}, t.p.corrupt(m.offset, "table %s, column %s, block %d: %v", t.name, column, b, err)
	}
	return v, nil
}

// Blob returns the bytes of block b of a table whose column is a Blob, after checking them. They must not be changed.
// Those that were stored as they are are read from the file each time: caching them would only copy them.
func (t *Table) Blob(b int) ([]byte, error) {
	m := &t.meta.blocks[0][b]
	cache := t.p.cache
	if m.size == m.raw {
		cache = nil
	}
	s, err := t.p.block(t.name, t.meta.schema.Columns[0].Name, b, m, cache)
	return unsafe.Slice(unsafe.StringData(s), len(s)), err
}

// Limits returns what the writer of a Blob said of the smallest and largest value of block b.
func (t *Table) Limits(b int) (lo, hi string) {
	m := &t.meta.blocks[0][b]
	return m.min, m.max
}

// Stored returns how many bytes block b of a Blob takes in the file.
func (t *Table) Stored(b int) int { return t.meta.blocks[0][b].size }

// block returns the unpacked bytes of a column block.
func (p *Part) block(table, column string, b int, m *blockMeta, cache *Cache) (string, error) {
	var key []byte
	if cache != nil {
		key = fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d", p.file, table, column, b)
		if raw, ok := cache.get(key, m.raw); ok {
			return text(raw), nil
		}
	}
	buf := make([]byte, m.size)
	if err := p.readAt(buf, m.offset); err != nil {
		return "", err
	}
	if checksum(buf) != m.crc {
		return "", p.corrupt(m.offset, "table %s, column %s, block %d: the checksum does not match", table, column, b)
	}
	if m.size != m.raw {
		raw, err := p.dec.DecodeAll(buf, make([]byte, 0, m.raw))
		if err != nil || len(raw) != m.raw {
			return "", p.corrupt(m.offset, "table %s, column %s, block %d: %d bytes unpacked, want %d: %v", table, column, b, len(raw), m.raw, err)
		}
		buf = raw
	}
	cache.set(key, buf)
	return text(buf), nil
}

func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Verify reads every block and returns the first mistake.
func (p *Part) Verify() error {
	for _, t := range p.tables {
		for b := range t.Blocks() {
			for _, c := range t.meta.schema.Columns {
				var err error
				if c.Type == Blob {
					_, err = t.Blob(b)
				} else {
					_, err = t.Read(c.Name, b)
				}
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Describe lists tables, columns, blocks and bytes, for people.
func (p *Part) Describe() string {
	var s strings.Builder
	for name, t := range p.tables {
		fmt.Fprintf(&s, "%s: %d rows in %d blocks\n", name, t.Rows(), t.Blocks())
		for c, col := range t.meta.schema.Columns {
			stored, raw := 0, 0
			for _, m := range t.meta.blocks[c] {
				stored, raw = stored+m.size, raw+m.raw
			}
			fmt.Fprintf(&s, "  %-12s %9d bytes, %9d unpacked\n", col.Name, stored, raw)
		}
	}
	return s.String()
}
