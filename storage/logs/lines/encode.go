package lines

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/braidobs/braid/storage"
)

// Version is the version of the format of a block.
const Version = 1

// Limits of a block.
const (
	// MaxRows bounds the rows of a block.
	MaxRows = 1 << 16
	// MaxBytes bounds the bytes of a block's texts, and what one column takes decoded.
	MaxBytes = 128 << 20
)

// largeColumn is from how many bytes a column is compressed by itself.
const largeColumn = 1 << 10

// maxKept bounds the buffers of columns that are kept from one block to the next.
const maxKept = 16 << 20

// Encoder splits lines and writes blocks of them. It is for one goroutine and for one part.
type Encoder struct {
	dict  *Dict
	split *splitter
	pack  *packer
	zstd  *zstd.Encoder
	words Words

	times   []int64
	shapeOf []uint32
	bytes   int
	shapes  []*shapeRows
	whole   *shapeRows            // of shapes, or nil
	known   []*shapeRows          // by number in dict
	fresh   map[string]*shapeRows // templates that dict does not have
	copied  map[*storage.Template]*shapeRows
	source  *Block // of copied
	free    []*shapeRows
	scratch []byte

	dir, small, large, out []byte
	placed                 []placedColumn
	groups                 []group
	groupOf                map[string]int // by key of placedColumn
}

// placedColumn is a column of the block being written.
type placedColumn struct {
	key    string // small ones with one key are alike: the end of the text before the gap
	mask   byte
	top    int
	size   int
	at     int // in small, or -1
	packed int // large: compressed length, 0 when it is stored as it is
}

// group is small columns that are compressed together.
type group struct {
	size   int
	number int // among those that are large enough to stand alone, from 1 on; 0 is the rest
	b      []byte
}

// Limits of groups of small columns.
const (
	groupKey  = 12 // bytes before the gap that tell the group
	groupSize = 768
	maxGroups = 256
)

// shapeRows is the lines of the block being written that have one template.
type shapeRows struct {
	index  uint32 // in shapes
	key    string
	number uint32
	known  bool // the dictionary has it
	drop   bool
	gaps   []storage.Gap
	rows   []uint32
	cols   [][]string // nil where the gap has none
}

// NewEncoder returns an encoder that adds the templates it finds to dict.
func NewEncoder(dict *Dict) *Encoder {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return &Encoder{
		dict: dict, split: newSplitter(), pack: newPacker(), zstd: z,
		groupOf: make(map[string]int), fresh: make(map[string]*shapeRows), copied: make(map[*storage.Template]*shapeRows),
	}
}

// Rows returns the rows added to the block so far.
func (e *Encoder) Rows() int { return len(e.times) }

// Bytes returns the bytes of the lines added to the block so far.
func (e *Encoder) Bytes() int { return e.bytes }

// Add adds the next line. It is referred to until Append.
func (e *Encoder) Add(line string, time int64) {
	s := e.split
	s.split(line)
	sh := e.shape(s.key)
	e.row(sh, time, len(line))
	for i, v := range s.vars {
		sh.cols[i] = append(sh.cols[i], v)
	}
}

// AddFrom adds row i of an opened block without splitting it again. Its time is the one that the block was opened with.
// It refers to the block until Append.
func (e *Encoder) AddFrom(b *Block, i int, time int64) error {
	local, row := b.shapeOf[i], int(b.rowOf[i])
	from := b.shapes[local]
	if len(from.template.Gaps) == 1 && from.template.Gaps[0] == storage.GapLine {
		v, err := b.values(from, 0)
		if err != nil {
			return err
		}
		e.Add(v.get(row), time) // in company it may be worth splitting
		return nil
	}
	if e.source != b {
		clear(e.copied)
		e.source = b
	}
	sh := e.copied[from.template]
	if sh == nil {
		e.scratch = AppendTemplate(e.scratch[:0], from.template)
		sh = e.shape(e.scratch)
		e.copied[from.template] = sh
	}
	size := 0
	for _, t := range from.template.Text {
		size += len(t)
	}
	for gap := range from.template.Gaps {
		v, err := b.values(from, gap)
		if err != nil {
			for k := range gap { // the row is not there
				sh.cols[k] = sh.cols[k][:len(sh.cols[k])-1]
			}
			return fmt.Errorf("row %d: %w", i, err)
		}
		text := v.get(row)
		size += len(text)
		sh.cols[gap] = append(sh.cols[gap], text)
	}
	e.row(sh, time, size)
	return nil
}

func (e *Encoder) row(sh *shapeRows, time int64, size int) {
	sh.rows = append(sh.rows, uint32(len(e.times)))
	e.shapeOf = append(e.shapeOf, sh.index)
	e.times = append(e.times, time)
	e.bytes += size
}

// shape returns the shape of the encoded template key.
func (e *Encoder) shape(key []byte) *shapeRows {
	if n, ok := e.dict.numbers[string(key)]; ok {
		for int(n) >= len(e.known) {
			e.known = append(e.known, nil)
		}
		sh := e.known[n]
		if sh == nil {
			sh = e.newShape(e.dict.keys[n])
			sh.number, sh.known = n, true
			e.known[n] = sh
			if n == 0 {
				e.whole = sh
			}
		}
		return sh
	}
	sh := e.fresh[string(key)]
	if sh == nil {
		sh = e.newShape(string(key))
		e.fresh[sh.key] = sh
	}
	return sh
}

func (e *Encoder) newShape(key string) *shapeRows {
	var sh *shapeRows
	if n := len(e.free); n > 0 {
		sh, e.free = e.free[n-1], e.free[:n-1]
	} else {
		sh = &shapeRows{}
	}
	*sh = shapeRows{key: key, index: uint32(len(e.shapes)), gaps: sh.gaps[:0], rows: sh.rows[:0], cols: sh.cols}
	for i := 0; i+1 < len(key); i++ {
		if key[i] == gapMark {
			sh.gaps = append(sh.gaps, storage.Gap(key[i+1]))
			i++
		}
	}
	for len(sh.cols) < len(sh.gaps) {
		sh.cols = append(sh.cols, nil)
	}
	e.shapes = append(e.shapes, sh)
	return sh
}

// settle decides which templates are worth being known: lines of the others are kept whole.
func (e *Encoder) settle() {
	dropped := 0
	for _, sh := range e.shapes {
		if sh.known {
			continue
		}
		if len(sh.rows) == 1 && !e.dict.again(sh.key) {
			sh.drop = true
		} else if n, ok := e.dict.add(sh.key); ok {
			sh.number = n
		} else {
			sh.drop = true
		}
		if sh.drop {
			dropped++
		}
	}
	if dropped == 0 {
		return
	}
	if e.whole == nil {
		e.shape([]byte(wholeLine))
	}
	whole := e.whole
	old, oldRows := whole.cols[0], 0
	var lines []string
	var rows []uint32
	next := make([]int, len(e.shapes))
	for row, si := range e.shapeOf {
		sh := e.shapes[si]
		switch {
		case sh == whole:
			lines = append(lines, old[oldRows])
			rows = append(rows, uint32(row))
			oldRows++
		case sh.drop:
			lines = append(lines, sh.line(next[si]))
			rows = append(rows, uint32(row))
			next[si]++
			e.shapeOf[row] = whole.index
		}
	}
	whole.cols[0], whole.rows = lines, rows
}

// line rebuilds a line of the shape.
func (sh *shapeRows) line(row int) string {
	var b []byte
	gap := 0
	for i := 0; i < len(sh.key); i++ {
		if sh.key[i] == gapMark {
			b = append(b, sh.cols[gap][row]...)
			gap++
			i++
			continue
		}
		b = append(b, sh.key[i])
	}
	return string(b)
}

// Append ends the block and appends it to dst.
func (e *Encoder) Append(dst []byte) []byte {
	e.words.reset()
	e.settle()
	e.dir, e.small, e.large, e.placed = e.dir[:0], e.small[:0], e.large[:0], e.placed[:0]
	kept := make([]uint32, len(e.shapes))
	n := 0
	for i, sh := range e.shapes {
		if !sh.drop && len(sh.rows) > 0 {
			kept[i] = uint32(n)
			n++
		}
	}
	dst = append(dst, Version)
	dst = binary.AppendUvarint(dst, uint64(len(e.times)))
	dst = binary.AppendUvarint(dst, uint64(n))
	for _, sh := range e.shapes {
		if !sh.drop && len(sh.rows) > 0 {
			dst = binary.AppendUvarint(dst, uint64(sh.number))
			dst = binary.AppendUvarint(dst, uint64(len(sh.rows)))
			e.words.template(sh.number)
		}
	}
	for i, s := range e.shapeOf {
		e.shapeOf[i] = kept[s]
	}
	if n > 1 {
		e.scratch = appendCodes(e.scratch[:0], e.shapeOf, n)
		e.column(placedColumn{}, e.scratch, true)
	}
	for _, sh := range e.shapes {
		if sh.drop || len(sh.rows) == 0 {
			continue
		}
		rest := sh.key
		for gap, kind := range sh.gaps {
			vals := sh.cols[gap]
			enc := e.pack.pack(kind, vals, sh.rows, e.times)
			var c placedColumn
			i := strings.IndexByte(rest, gapMark)
			c.key, rest = rest[max(0, i-groupKey):i], rest[i+2:]
			c.mask, c.top = e.describe(enc, vals)
			e.column(c, e.pack.body, enc != encHex)
		}
	}
	dst = append(e.appendSmall(dst, n > 1), e.large...)
	e.reset()
	return dst
}

// appendSmall appends the directory and the groups of small columns.
func (e *Encoder) appendSmall(dst []byte, codes bool) []byte {
	clear(e.groupOf)
	groups := append(e.groups[:0], group{})
	for _, c := range e.placed {
		if c.at < 0 {
			continue
		}
		g, ok := e.groupOf[c.key]
		if !ok {
			g = len(groups)
			e.groupOf[c.key] = g
			if g < cap(groups) {
				groups = groups[:g+1]
				groups[g] = group{b: groups[g].b[:0]}
			} else {
				groups = append(groups, group{})
			}
		}
		groups[g].size += c.size
	}
	e.groups = groups
	groups[0].b = groups[0].b[:0]
	count := 1
	for i := 1; i < len(groups); i++ {
		if groups[i].size >= groupSize && count < maxGroups {
			groups[i].number = count
			count++
		}
	}
	for i, c := range e.placed {
		if i > 0 || !codes {
			e.dir = binary.AppendUvarint(append(e.dir, c.mask), uint64(c.top))
		}
		if c.at < 0 {
			e.dir = binary.AppendUvarint(e.dir, uint64(c.size)<<1|1)
			e.dir = binary.AppendUvarint(e.dir, uint64(c.packed))
			continue
		}
		g := &groups[e.groupOf[c.key]]
		e.dir = append(binary.AppendUvarint(e.dir, uint64(c.size)<<1), byte(g.number))
		if g.number == 0 {
			g = &groups[0]
		}
		g.b = append(g.b, e.small[c.at:c.at+c.size]...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.dir)))
	dst = binary.AppendUvarint(dst, uint64(count))
	e.scratch = e.scratch[:0]
	for i := range groups {
		g := &groups[i]
		if i > 0 && g.number == 0 {
			continue
		}
		small := e.compress(g.b)
		dst = binary.AppendUvarint(dst, uint64(len(g.b)))
		dst = binary.AppendUvarint(dst, uint64(len(small)))
		if len(small) == 0 {
			small = g.b
		}
		e.scratch = append(e.scratch, small...)
	}
	return append(append(dst, e.dir...), e.scratch...)
}

// describe returns the classes of the bytes of a column and the length of its longest text, and collects its words.
func (e *Encoder) describe(enc byte, vals []string) (mask byte, top int) {
	switch enc {
	case encConst:
		vals = vals[:1]
	case encDict:
		vals = e.pack.entries
	}
	class := &e.pack.class
	for _, v := range vals {
		top = max(top, len(v))
		for i := range len(v) {
			mask |= class[v[i]]
		}
	}
	e.words.column(e.pack.body, vals, top)
	return mask, top
}

// column adds the body of a column to small or large.
func (e *Encoder) column(c placedColumn, body []byte, compress bool) {
	c.size = len(body)
	if len(body) < largeColumn {
		c.at = len(e.small)
		e.small = append(e.small, body...)
		e.placed = append(e.placed, c)
		return
	}
	c.at = -1
	if compress {
		if packed := e.compress(body); len(packed) > 0 {
			body, c.packed = packed, len(packed)
		}
	}
	e.large = append(e.large, body...)
	e.placed = append(e.placed, c)
}

// compress returns b compressed, or nothing when that is of no use and b is to be stored as it is.
func (e *Encoder) compress(b []byte) []byte {
	if len(b) < 32 {
		return nil
	}
	e.out = e.zstd.EncodeAll(b, e.out[:0])
	if len(e.out) >= len(b)-len(b)/32 {
		return nil
	}
	return e.out
}

// Words returns what the block that Append wrote last has for the word index. It is valid until the next Append.
func (e *Encoder) Words() *Words { return &e.words }

func (e *Encoder) reset() {
	for _, sh := range e.shapes {
		if sh.known {
			e.known[sh.number] = nil
		}
		for i := range sh.cols {
			clear(sh.cols[i])
			sh.cols[i] = sh.cols[i][:0]
		}
	}
	e.free = append(e.free, e.shapes...)
	kept := 0
	for _, sh := range e.free {
		for i := range sh.cols {
			if kept += 16 * cap(sh.cols[i]); kept > maxKept {
				sh.cols[i] = nil
			}
		}
		if kept > maxKept {
			sh.rows = nil
		}
	}
	clear(e.fresh)
	clear(e.copied)
	clear(e.placed)
	clear(e.groupOf)
	clear(e.pack.entries)
	clear(e.split.vars)
	e.pack.entries = e.pack.entries[:0]
	e.source, e.whole, e.bytes = nil, nil, 0
	e.shapes, e.shapeOf, e.times = e.shapes[:0], e.shapeOf[:0], e.times[:0]
}
