package lines

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"strings"
)

// maxSegment bounds the bytes of a segment of the word index.
const maxSegment = 64 << 20

// maxListed bounds the templates whose blocks are looked up one by one.
const maxListed = 512

// Index is the word index of a part. It is safe for concurrent use if its reader is.
type Index struct {
	r        io.ReaderAt
	blocks   int
	segments []segment
}

// segment is the part of the index about SegmentBlocks blocks.
type segment struct {
	first  int // block
	sums   []summary
	pages  int
	table  int64 // where the offsets of pages are
	start  int64 // where the pages are
	length int64 // of the pages
}

// OpenIndex opens an index of size bytes. It reads the summaries; everything else is read when it is asked for, some hundred
// bytes a word and segment.
func OpenIndex(r io.ReaderAt, size int64) (*Index, error) {
	read := func(at int64, n int) ([]byte, error) {
		b := make([]byte, n)
		if at < 0 || at+int64(n) > size {
			return nil, errIndex
		}
		if _, err := r.ReadAt(b, at); err != nil {
			return nil, fmt.Errorf("read the word index: %w", err)
		}
		return b, nil
	}
	b, err := read(size-4, 4)
	if err != nil {
		return nil, err
	}
	tail := int64(binary.LittleEndian.Uint32(b))
	if tail > min(size-4, maxSegment) {
		return nil, errIndex
	}
	if b, err = read(size-4-tail, int(tail)); err != nil {
		return nil, err
	}
	t := &reader{b: b}
	if v := t.byte(); t.err == nil && v != IndexVersion {
		return nil, fmt.Errorf("%w: a word index of version %d, this program reads %d", ErrCorrupt, v, IndexVersion)
	}
	ix := &Index{r: r, blocks: t.uvarint(1 << 30)}
	count := t.uvarint(len(t.b) + 1)
	if t.err != nil || count != (ix.blocks+SegmentBlocks-1)/SegmentBlocks {
		return nil, errIndex
	}
	at := int64(0)
	for i := range count {
		length := int64(t.uvarint(maxSegment))
		if t.err != nil || at+length > size-4-tail {
			return nil, errIndex
		}
		if b, err = read(at, 8); err != nil {
			return nil, err
		}
		n, pages := int64(binary.LittleEndian.Uint32(b)), int64(binary.LittleEndian.Uint32(b[4:]))
		s := segment{first: i * SegmentBlocks, pages: int(pages), table: at + 8 + n*summarySize}
		s.start = s.table + 4*(pages+1)
		s.length = at + length - s.start
		if n != int64(min(SegmentBlocks, ix.blocks-s.first)) || s.length < 0 {
			return nil, errIndex
		}
		if b, err = read(at+8, int(n)*summarySize); err != nil {
			return nil, err
		}
		for ; len(b) > 0; b = b[summarySize:] {
			s.sums = append(s.sums, summary{flags: b[0], hex: b[1], decimal: b[2], skipped: b[3], stampDecimal: b[4]})
		}
		ix.segments = append(ix.segments, s)
		at += length
	}
	if len(t.b) > 0 || at != size-4-tail {
		return nil, errIndex
	}
	return ix, nil
}

var errIndex = fmt.Errorf("a word index is wrong: %w", ErrCorrupt)

// Through returns the same index, read through r.
func (ix *Index) Through(r io.ReaderAt) *Index {
	out := *ix
	out.r = r
	return &out
}

// Len returns the number of blocks.
func (ix *Index) Len() int { return ix.blocks }

// lookup returns the blocks of a segment that may have a word, as bits.
func (ix *Index) lookup(s *segment, h uint64) (uint64, error) {
	if s.pages == 0 {
		return 0, nil
	}
	buckets := s.pages * pageBucket
	bucket := bucketOf(h, buckets)
	page := bucket / pageBucket
	var offsets [8]byte
	if _, err := ix.r.ReadAt(offsets[:], s.table+4*int64(page)); err != nil {
		return 0, fmt.Errorf("read the word index: %w", err)
	}
	from, to := int64(binary.LittleEndian.Uint32(offsets[:])), int64(binary.LittleEndian.Uint32(offsets[4:]))
	if from > to || to > s.length || to-from > 1<<16 {
		return 0, errIndex
	}
	var local [1024]byte
	b := local[:]
	if to-from > int64(len(b)) {
		b = make([]byte, to-from)
	}
	b = b[:to-from]
	if _, err := ix.r.ReadAt(b, s.start+from); err != nil {
		return 0, fmt.Errorf("read the word index: %w", err)
	}
	return find(b, bucket%pageBucket, h, 1<<len(s.sums)-1)
}

// find looks a hash up in a page: a zero bit ends each bucket, one bits before it count its entries; the entries follow.
func find(b []byte, bucket int, h, all uint64) (uint64, error) {
	bit := func(i int) byte { return b[i>>3] >> (i & 7) & 1 }
	ones, zeros, i := 0, 0, 0
	for i>>3 < len(b) { // whole bytes before the bucket
		if i&7 != 0 {
			return 0, errIndex
		}
		z := 8 - bits.OnesCount8(b[i>>3])
		if zeros+z >= bucket {
			break
		}
		zeros, ones, i = zeros+z, ones+8-z, i+8
	}
	for zeros < bucket {
		if i>>3 >= len(b) {
			return 0, errIndex
		}
		if bit(i) == 0 {
			zeros++
		} else {
			ones++
		}
		i++
	}
	first := ones
	for {
		if i>>3 >= len(b) {
			return 0, errIndex
		}
		if bit(i) == 0 {
			break
		}
		ones++
		i++
	}
	last := ones
	if first == last {
		return 0, nil
	}
	for zeros < pageBucket { // where the entries begin
		if i>>3 >= len(b) {
			return 0, errIndex
		}
		if i&7 == 0 {
			if z := 8 - bits.OnesCount8(b[i>>3]); zeros+z < pageBucket {
				zeros, i = zeros+z, i+8
				continue
			}
		}
		if bit(i) == 0 {
			zeros++
		}
		i++
	}
	entries := b[(i+7)/8:]
	var out uint64
	for k := first; k < last; k++ {
		e, ok := entryAt(entries, k)
		if !ok {
			return 0, errIndex
		}
		if e>>blockBits != h>>blockBits&(1<<printBits-1) {
			continue
		}
		if e &= 1<<blockBits - 1; e == everywhere {
			return all, nil
		}
		out |= 1 << e
	}
	return out & all, nil
}

func entryAt(b []byte, k int) (uint64, bool) {
	at := k * entryBits
	if (at+entryBits+7)/8 > len(b) {
		return 0, false
	}
	v := uint64(b[at>>3]) | uint64(b[at>>3+1])<<8
	return v >> (at & 7) & (1<<entryBits - 1), true
}

// Blocks returns the blocks that may have lines that contain the needle. The needle must be one for the templates of the
// segment that the index is about.
func (ix *Index) Blocks(n *Needle) (Set, error) {
	out := EmptySet(ix.blocks)
	n.learn()
	for i := range ix.segments {
		s := &ix.segments[i]
		found, err := ix.search(s, &n.asked, n.numbering)
		if err != nil {
			return nil, err
		}
		for ; found != 0; found &= found - 1 {
			out.Add(s.first + bits.TrailingZeros64(found))
		}
	}
	return out, nil
}

// Hashed returns the blocks that may have what was added by Words.Hash.
func (ix *Index) Hashed(h uint64) (Set, error) {
	out := EmptySet(ix.blocks)
	for i := range ix.segments {
		s := &ix.segments[i]
		found, err := ix.lookup(s, mix(seedOwn^h))
		if err != nil {
			return nil, err
		}
		found |= s.where(func(m *summary) bool { return m.flags&hasTooMany != 0 })
		for ; found != 0; found &= found - 1 {
			out.Add(s.first + bits.TrailingZeros64(found))
		}
	}
	return out, nil
}

// query is a needle, worked out for an index. Templates have the needle's numbers.
type query struct {
	all    bool
	inside *piece   // in one variable, of whatever template; nil if it cannot
	texts  []uint32 // templates all of whose lines may match
	ways   []queryWay
}

// queryWay is a place of the needle in lines of one template.
type queryWay struct {
	template uint32
	pieces   []*piece
}

// piece is what must be in a variable: words, all of them.
type piece struct{ words []word }

// word is a word of a needle.
type word struct {
	text    string
	kind    wordKind
	hexish  bool   // only hexadecimal digits: it can be a part of what is
	partial bool   // it can be a part of a longer one
	uuid    []word // it is a UUID, of these words
	noUUID  bool   // it cannot be part of one
	stamp   bool   // it can be part of a timestamp
}

// ask adds to what the index is asked for the plan of a template that is not simple.
func (n *Needle) ask(template uint32, p *plan) {
	q := &n.asked
	if p.always || p.rebuild {
		q.texts = append(q.texts, template)
		return
	}
	for _, w := range p.ways {
		qw := queryWay{template: template}
		for _, pt := range w {
			pt.gap = 0
			if n.pieces[pt] == nil {
				n.pieces[pt] = n.piece(pt)
			}
			qw.pieces = append(qw.pieces, n.pieces[pt])
		}
		q.ways = append(q.ways, qw)
	}
}

// piece cuts a part of a needle into words.
func (n *Needle) piece(p part) *piece {
	out := &piece{}
	t := p.text
	for i := 0; i < len(t); {
		c := n.class[t[i]]
		if c&isWord == 0 {
			i++
			continue
		}
		a, mask := i, byte(0)
		for i < len(t) && n.class[t[i]]&isWord != 0 {
			mask |= n.class[t[i]]
			i++
		}
		w := n.word(t, a, i, mask, p.mode)
		if i-a == 8 && isUUID(t[a:], &n.class) {
			// Either a UUID, or something that is longer at an end and has these words.
			u := word{text: t[a : a+36], uuid: []word{w}}
			for b := a + 9; b < a+36; {
				end, mask := b, byte(0)
				for end < a+36 && t[end] != '-' {
					mask |= n.class[t[end]]
					end++
				}
				u.uuid = append(u.uuid, n.word(t, b, end, mask, p.mode))
				b = end + 1
			}
			for k := range u.uuid {
				u.uuid[k].noUUID = true
			}
			out.words = append(out.words, u)
			i = a + 36
			continue
		}
		out.words = append(out.words, w)
	}
	return out
}

// word returns t[a:b] as a word; mode is that of the whole of t.
func (n *Needle) word(t string, a, b int, mask byte, m mode) word {
	w := word{text: t[a:b], kind: kindOf(mask), hexish: mask&^(isDigit|isHex) == 0, stamp: stampWord(t[a:b])}
	w.partial = a == 0 && (m == inside || m == atEnd) || b == len(t) && (m == inside || m == atStart)
	return w
}

// stampWord says whether t can be a word of a timestamp, or a part of one.
func stampWord(t string) bool {
	n := 0
	for _, c := range []byte(t) {
		if c >= '0' && c <= '9' || c == 'T' || c == 'Z' {
			n++
		}
	}
	return n == len(t) || len(t) <= 3 && (strings.Contains(monthNames, t) || strings.Contains(weekdayNames, t))
}

// search returns the blocks of a segment that may match, as bits.
func (ix *Index) search(s *segment, q *query, nb *Numbering) (uint64, error) {
	all := uint64(1)<<len(s.sums) - 1
	if q.all {
		return all, nil
	}
	found := s.where(func(m *summary) bool { return m.flags&hasTooMany != 0 })
	listed := 0
	for _, t := range q.texts {
		local, ok := nb.local(t)
		if !ok {
			continue
		}
		if listed++; found == all || listed > maxListed {
			return all, nil
		}
		m, err := ix.lookup(s, templateHash(local))
		if err != nil {
			return 0, err
		}
		found |= m
	}
	asked := make(map[*piece]uint64)
	ask := func(p *piece) (uint64, error) {
		m, ok := asked[p]
		if ok {
			return m, nil
		}
		m, err := ix.piece(s, p)
		asked[p] = m
		return m, err
	}
	if q.inside != nil {
		m, err := ask(q.inside)
		if err != nil {
			return 0, err
		}
		found |= m
	}
	for _, w := range q.ways {
		local, ok := nb.local(w.template)
		if !ok {
			continue
		}
		m := all
		for _, p := range w.pieces {
			now, err := ask(p)
			if err != nil {
				return 0, err
			}
			m &= now
		}
		if m&^found == 0 {
			continue
		}
		now, err := ix.lookup(s, templateHash(local))
		if err != nil {
			return 0, err
		}
		found |= m & now
	}
	return found, nil
}

// where returns the blocks whose summary f accepts.
func (s *segment) where(f func(*summary) bool) uint64 {
	var out uint64
	for i := range s.sums {
		if f(&s.sums[i]) {
			out |= 1 << i
		}
	}
	return out
}

func (ix *Index) piece(s *segment, p *piece) (uint64, error) {
	m := uint64(1)<<len(s.sums) - 1
	for i := range p.words {
		now, err := ix.word(s, &p.words[i])
		if err != nil {
			return 0, err
		}
		if m &= now; m == 0 {
			break
		}
	}
	return m, nil
}

func (ix *Index) word(s *segment, w *word) (uint64, error) {
	m, err := ix.lookup(s, hashString(w.text))
	if err != nil {
		return 0, err
	}
	if w.uuid != nil {
		longer, err := ix.piece(s, &piece{words: w.uuid})
		return m | longer, err
	}
	n := len(w.text)
	m |= s.where(func(b *summary) bool {
		switch {
		case w.stamp && b.flags&hasStamps != 0 && (w.kind == otherWord || n <= int(b.stampDecimal)):
			return true
		case w.hexish && !w.noUUID && (n == 4 || n == 8 || n == 12 || w.partial && n < 12) && b.flags&hasUUIDs != 0:
			return true
		case w.kind == decimalWord && n <= int(b.skipped):
			return true
		case !w.partial:
			return false
		default:
			return w.hexish && (n < int(b.hex) || n < 15 && b.flags&hasLongHex != 0) || w.kind == decimalWord && n < int(b.decimal) ||
				n < 4 || n < 7 && b.flags&hasLongWords != 0
		}
	})
	if !w.partial || n < 4 {
		return m, nil
	}
	short, err := ix.grams(s, w.text, 0, 1, 4)
	if err != nil {
		return 0, err
	}
	m |= short
	if long := s.where(func(b *summary) bool { return b.flags&hasLongWords != 0 }); n >= 7 && long&^m != 0 {
		for from := range 4 {
			found, err := ix.grams(s, w.text, from, 4, 4)
			if err != nil {
				return 0, err
			}
			m |= found
		}
	}
	if long := s.where(func(b *summary) bool { return b.flags&hasLongHex != 0 }); w.hexish && n >= 15 && long&^m != 0 {
		for from := range 8 {
			found, err := ix.grams(s, w.text, from, 8, 8)
			if err != nil {
				return 0, err
			}
			m |= found
		}
	}
	return m, nil
}

// grams returns the blocks that have all runs of size bytes of t, every step bytes.
func (ix *Index) grams(s *segment, t string, from, step, size int) (uint64, error) {
	m := uint64(1)<<len(s.sums) - 1
	for i := from; i+size <= len(t) && m != 0; i += step {
		var h uint64
		switch {
		case size == 8:
			h = hexHash(t[i:])
		case step == 1:
			h = gramHash(seedGram, t[i:])
		default:
			h = gramHash(seedPiece, t[i:])
		}
		now, err := ix.lookup(s, h)
		if err != nil {
			return 0, err
		}
		m &= now
	}
	return m, nil
}
