package lines

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/klauspost/compress/zstd"

	"github.com/braidobs/braid/storage"
)

// Decoder opens blocks. It is safe for concurrent use.
type Decoder struct{ zstd *zstd.Decoder }

// NewDecoder returns a decoder.
func NewDecoder() *Decoder {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(MaxBytes), zstd.IgnoreChecksum(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return &Decoder{zstd: z}
}

// Block is an opened block. Columns are decoded when they are first asked for, and kept. It refers to the bytes it was
// opened on. It is for one goroutine at a time.
type Block struct {
	dec     *Decoder
	raw     []byte // behind the shapes
	numbers []uint32
	shapes  []*blockShape
	shapeOf []uint32
	rowOf   []uint32
	times   func() ([]int64, error)

	groups []blockGroup
	spare  []uint32 // see codes
	zero   []uint32 // see zeros
}

// blockShape is the lines of a block with one template.
type blockShape struct {
	template *storage.Template
	number   uint32
	count    int
	rows     []uint32 // of the block, once needed
	cols     []blockColumn
}

// blockColumn is where a column lies.
type blockColumn struct {
	mask   byte // classes of its bytes
	top    int  // length of the longest text
	size   int  // of the body
	at     int  // in its group, or -1
	group  int
	packed []byte
	values *values
}

// blockGroup is small columns that are compressed together, unless packed has as many bytes as they have.
type blockGroup struct {
	size   int
	packed []byte
	body   []byte // once needed
}

// Open opens a block whose template numbers index templates. times is asked for the times of all rows when the first
// column of timestamps is decoded.
func (d *Decoder) Open(b []byte, templates []*storage.Template, times func() ([]int64, error)) (*Block, error) {
	r := &reader{b: b}
	if v := r.byte(); r.err == nil && v != Version {
		return nil, fmt.Errorf("%w: a block of version %d, this program reads %d", ErrCorrupt, v, Version)
	}
	blk := &Block{dec: d, times: times}
	n := r.uvarint(MaxRows)
	count := r.uvarint(n)
	shapes := make([]blockShape, count)
	blk.shapes, blk.numbers = make([]*blockShape, count), make([]uint32, count)
	total, gaps := 0, 0
	for i := range shapes {
		number, rows := r.uvarint(MaxTemplates), r.uvarint(n)
		if r.err != nil || number >= len(templates) || rows == 0 {
			return nil, ErrCorrupt
		}
		shapes[i] = blockShape{template: templates[number], number: uint32(number), count: rows}
		blk.shapes[i], blk.numbers[i] = &shapes[i], uint32(number)
		total += rows
		gaps += len(templates[number].Gaps)
	}
	if total != n || n > 0 && count == 0 {
		r.fail()
	}
	blk.raw = r.b
	dirLen := r.uvarint(MaxBytes)
	blk.groups = make([]blockGroup, r.uvarint(maxGroups))
	places := make([]int, 2*len(blk.groups)) // bytes compressed, and where the next column is
	for i := range blk.groups {
		g := &blk.groups[i]
		g.size, places[2*i] = r.uvarint(MaxBytes), r.uvarint(MaxBytes)
		if places[2*i] == 0 {
			places[2*i] = g.size
		}
	}
	dir := &reader{b: r.take(dirLen)}
	if r.err != nil || 3*gaps > dirLen {
		return nil, ErrCorrupt
	}
	for i := range blk.groups {
		blk.groups[i].packed = r.take(places[2*i])
	}
	place := func(c *blockColumn) {
		size := dir.uvarint(2*MaxBytes + 1)
		c.size = size >> 1
		if size&1 == 0 {
			if c.group = int(dir.byte()); c.group >= len(blk.groups) {
				dir.fail()
				return
			}
			next := &places[2*c.group+1]
			c.at = *next
			*next += c.size
			return
		}
		c.at = -1
		packed := dir.uvarint(MaxBytes)
		if packed == 0 {
			packed = c.size
		}
		c.packed = r.take(packed)
	}
	var codes blockColumn
	if count > 1 {
		place(&codes)
	}
	cols := make([]blockColumn, gaps)
	for _, s := range blk.shapes {
		s.cols, cols = cols[:len(s.template.Gaps)], cols[len(s.template.Gaps):]
		for i := range s.cols {
			c := &s.cols[i]
			c.mask, c.top = dir.byte(), dir.uvarint(MaxBytes)
			place(c)
		}
	}
	for i := range blk.groups {
		if places[2*i+1] != blk.groups[i].size {
			return nil, ErrCorrupt
		}
	}
	if r.err != nil || dir.err != nil || len(r.b) > 0 || len(dir.b) > 0 {
		return nil, ErrCorrupt
	}
	return blk, blk.number(n, &codes)
}

// number works out the shape of each row, and which row of the shape it is.
func (b *Block) number(n int, codes *blockColumn) error {
	both := make([]uint32, 2*n)
	b.shapeOf, b.rowOf = both[:n:n], both[n:]
	next := make([]uint32, len(b.shapes))
	switch {
	case len(b.shapes) > 1:
		body, err := b.body(codes)
		if err != nil {
			return err
		}
		high := body // of the numbers
		if len(b.shapes) > 1<<8 && len(body) == 2*n {
			body, high = body[:n], body[n:]
		} else if len(body) != n || len(b.shapes) > 1<<8 {
			return ErrCorrupt
		}
		wide := len(b.shapes) > 1<<8
		for i, c := range body {
			s := uint32(c)
			if wide {
				s |= uint32(high[i]) << 8
			}
			if int(s) >= len(next) {
				return ErrCorrupt
			}
			b.shapeOf[i], b.rowOf[i] = s, next[s]
			next[s]++
		}
	case n > 0:
		for i := range b.rowOf {
			b.rowOf[i] = uint32(i)
		}
		next[0] = uint32(n)
	}
	for i, s := range b.shapes {
		if int(next[i]) != s.count {
			return ErrCorrupt
		}
	}
	return nil
}

func (d *Decoder) decompress(b []byte, size int) ([]byte, error) {
	if len(b) == size {
		return b, nil
	}
	var h zstd.Header
	if err := h.Decode(b); err != nil || !h.HasFCS || h.FrameContentSize != uint64(size) || size/len(b) > 1<<15 {
		return nil, ErrCorrupt // before so much is allocated; nothing expands more
	}
	out, err := d.zstd.DecodeAll(b, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if len(out) != size {
		return nil, ErrCorrupt
	}
	return out, nil
}

// body returns the encoded column.
func (b *Block) body(c *blockColumn) ([]byte, error) {
	if c.at < 0 {
		return b.dec.decompress(c.packed, c.size)
	}
	g := &b.groups[c.group]
	if g.body == nil {
		body, err := b.dec.decompress(g.packed, g.size)
		if err != nil {
			return nil, err
		}
		g.body = body
	}
	return g.body[c.at : c.at+c.size], nil
}

// values returns a column, decoded.
func (b *Block) values(s *blockShape, gap int) (*values, error) {
	c := &s.cols[gap]
	if c.values != nil {
		return c.values, nil
	}
	body, err := b.body(c)
	if err != nil {
		return nil, err
	}
	v, err := unpack(body, &columnIn{
		n: s.count, rows: func() []uint32 { return b.rowsOf(s) }, times: b.times,
		codes: func() []uint32 { return b.codes(s.count) }, zeros: func() []uint32 { return b.zeros(s.count) },
	})
	if err != nil {
		return nil, err
	}
	c.values = v
	return v, nil
}

// codes returns n numbers, cut from a larger piece of memory: shapes are many and mostly small.
func (b *Block) codes(n int) []uint32 {
	if len(b.spare) < n {
		b.spare = make([]uint32, max(n, min(len(b.shapeOf), 2048)))
	}
	out := b.spare[:n:n]
	b.spare = b.spare[n:]
	return out
}

// zeros returns n zeros that must not be changed.
func (b *Block) zeros(n int) []uint32 {
	if len(b.zero) < n {
		b.zero = make([]uint32, n)
	}
	return b.zero[:n:n]
}

// rowsOf returns the rows of the block that the rows of a shape are.
func (b *Block) rowsOf(s *blockShape) []uint32 {
	if s.rows != nil {
		return s.rows
	}
	all := make([]uint32, len(b.shapeOf))
	at := 0
	for _, sh := range b.shapes {
		sh.rows = all[at : at : at+sh.count]
		at += sh.count
	}
	for i, si := range b.shapeOf {
		sh := b.shapes[si]
		sh.rows = append(sh.rows, uint32(i))
	}
	return s.rows
}

// get returns the text of a row.
func (v *values) get(row int) string {
	switch {
	case v.Ints != nil:
		return string(storage.AppendDecimal(nil, v.Ints[row], v.Scale))
	case v.Dict != nil:
		return v.Dict[v.Code[row]]
	default:
		return v.Texts[row]
	}
}

// Rows returns the number of rows.
func (b *Block) Rows() int { return len(b.shapeOf) }

// Lines returns the bodies of the given rows, or of all when rows is nil.
func (b *Block) Lines(rows []uint32) *storage.Lines {
	l := &storage.Lines{Shapes: make([]*storage.Shape, len(b.shapes)), Shape: b.shapeOf, Row: b.rowOf}
	for i, s := range b.shapes {
		l.Shapes[i] = &storage.Shape{Template: s.template, Rows: s.count, Load: func(gap int) (*storage.Variables, error) {
			v, err := b.values(s, gap)
			if err != nil {
				return nil, err
			}
			return &v.Variables, nil
		}}
	}
	if rows != nil {
		l.Shape, l.Row = make([]uint32, len(rows)), make([]uint32, len(rows))
		for i, row := range rows {
			l.Shape[i], l.Row[i] = b.shapeOf[row], b.rowOf[row]
		}
	}
	return l
}

// AppendLine appends the line of a row to dst.
func (b *Block) AppendLine(dst []byte, row int) ([]byte, error) {
	s, i := b.shapes[b.shapeOf[row]], int(b.rowOf[row])
	for gap, text := range s.template.Text {
		dst = append(dst, text...)
		if gap < len(s.cols) {
			v, err := b.values(s, gap)
			if err != nil {
				return dst, err
			}
			dst = v.Append(dst, i)
		}
	}
	return dst, nil
}

// AppendTo appends the block to dst as a block of another part, whose dictionary gets the templates. It says no, and appends
// nothing, when the dictionary is full.
func (b *Block) AppendTo(dst []byte, dict *Dict) ([]byte, bool) {
	out := append(dst, Version)
	out = binary.AppendUvarint(out, uint64(len(b.shapeOf)))
	out = binary.AppendUvarint(out, uint64(len(b.shapes)))
	var key []byte
	for _, s := range b.shapes {
		key = AppendTemplate(key[:0], s.template)
		n, ok := dict.add(string(key))
		if !ok {
			return dst, false
		}
		out = binary.AppendUvarint(out, uint64(n))
		out = binary.AppendUvarint(out, uint64(s.count))
	}
	return append(out, b.raw...), true
}

// Templates returns the numbers of the templates that the block uses.
func (b *Block) Templates() []uint32 { return b.numbers }

// Match removes the rows from keep whose line f does not accept. f must not retain the line.
func (b *Block) Match(f func(line string) bool, keep Set) error {
	var buf []byte
	var err error
	keep.Each(func(row int) {
		if err != nil {
			return
		}
		if buf, err = b.AppendLine(buf[:0], row); err == nil && !f(unsafe.String(unsafe.SliceData(buf), len(buf))) {
			keep.Remove(row)
		}
	})
	return err
}
