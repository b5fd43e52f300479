package lines

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"slices"
)

// Sizes of the word index.
const (
	// SegmentBlocks is how many blocks share a segment.
	SegmentBlocks = 63
	// everywhere stands for all blocks of a segment.
	everywhere = 63
	// common is from how many blocks of a segment on a word is said to be everywhere.
	common = 20

	blockBits  = 6
	printBits  = 6
	entryBits  = blockBits + printBits
	pageBucket = 256 // buckets of a page; there are about as many buckets as entries
)

// IndexVersion is the version of the format of the word index.
const IndexVersion = 1

// IndexBuilder writes the word index of a part: a segment for every SegmentBlocks blocks, of which it keeps one in memory.
type IndexBuilder struct {
	w       io.Writer
	at      int64
	blocks  int
	sums    []summary
	entries []uint64 // hash, with the block of the segment in the lowest bits
	sorted  []uint64
	table   []byte // lengths of segments
	count   int
	buf     []byte
	err     error
}

// NewIndexBuilder returns a builder that writes to w.
func NewIndexBuilder(w io.Writer) *IndexBuilder { return &IndexBuilder{w: w} }

// Add adds the words of the next block.
func (b *IndexBuilder) Add(w *Words) error {
	block := uint64(len(b.sums))
	b.sums = append(b.sums, w.summary)
	for _, h := range w.hashes {
		b.entries = append(b.entries, h&^(1<<blockBits-1)|block)
	}
	b.blocks++
	if len(b.sums) == SegmentBlocks {
		b.flush()
	}
	return b.err
}

// Close writes what is left and the table of segments. It returns the size of the index.
func (b *IndexBuilder) Close() (int64, error) {
	if len(b.sums) > 0 {
		b.flush()
	}
	buf := binary.AppendUvarint([]byte{IndexVersion}, uint64(b.blocks))
	buf = append(binary.AppendUvarint(buf, uint64(b.count)), b.table...)
	b.write(binary.LittleEndian.AppendUint32(buf, uint32(len(buf))))
	return b.at, b.err
}

func (b *IndexBuilder) write(p []byte) {
	if b.err != nil {
		return
	}
	if _, err := b.w.Write(p); err != nil {
		b.err = fmt.Errorf("write the word index: %w", err)
	}
	b.at += int64(len(p))
}

// flush writes a segment: a head with the summaries and the offset of each page, then the pages.
func (b *IndexBuilder) flush() {
	entries := b.sort()
	buckets := (len(entries) + pageBucket - 1) / pageBucket * pageBucket
	pages := buckets / pageBucket
	head := binary.LittleEndian.AppendUint32(b.buf[:0], uint32(len(b.sums)))
	head = binary.LittleEndian.AppendUint32(head, uint32(pages))
	for _, s := range b.sums {
		head = append(head, s.flags, s.hex, s.decimal, s.skipped, s.stampDecimal)
	}
	offsets := len(head)
	head = append(head, make([]byte, 4*(pages+1))...)
	start := len(head)
	next := 0
	for page := range pages {
		binary.LittleEndian.PutUint32(head[offsets+4*page:], uint32(len(head)-start))
		first := next
		var unary bitWriter
		unary.b = head
		for bucket := page * pageBucket; bucket < (page+1)*pageBucket; bucket++ {
			for next < len(entries) && bucketOf(entries[next], buckets) == bucket {
				unary.put(1, 1)
				next++
			}
			unary.put(0, 1)
		}
		unary.flush()
		for _, e := range entries[first:next] {
			unary.put(e&(1<<entryBits-1), entryBits)
		}
		unary.flush()
		head = unary.b
	}
	binary.LittleEndian.PutUint32(head[offsets+4*pages:], uint32(len(head)-start))
	b.table = binary.AppendUvarint(b.table, uint64(len(head)))
	b.count++
	b.write(head)
	b.buf = head
	b.sums, b.entries = b.sums[:0], b.entries[:0]
}

// bucketOf maps the upper bits of a hash to the buckets, keeping the order.
func bucketOf(h uint64, buckets int) int {
	hi, _ := bits.Mul64(h&^(1<<blockBits-1), uint64(buckets))
	return int(hi)
}

// sort returns the entries in order, once each; what is in many blocks is everywhere.
func (b *IndexBuilder) sort() []uint64 {
	if len(b.entries) < 1<<12 {
		slices.Sort(b.entries)
	} else { // by the upper bits first: hashes are even
		const digit = 12
		var counts [1<<digit + 1]int
		for _, e := range b.entries {
			counts[e>>(64-digit)+1]++
		}
		for i := range 1 << digit {
			counts[i+1] += counts[i]
		}
		b.sorted = slices.Grow(b.sorted[:0], len(b.entries))[:len(b.entries)]
		at := counts
		for _, e := range b.entries {
			k := e >> (64 - digit)
			b.sorted[at[k]] = e
			at[k]++
		}
		for i := range 1 << digit {
			slices.Sort(b.sorted[counts[i]:counts[i+1]])
		}
		b.entries, b.sorted = b.sorted, b.entries
	}
	all := slices.Compact(b.entries)
	out := all[:0]
	for i := 0; i < len(all); {
		j := i + 1
		for j < len(all) && all[j]>>blockBits == all[i]>>blockBits {
			j++
		}
		if j-i >= common {
			out = append(out, all[i]|everywhere)
		} else {
			out = append(out, all[i:j]...)
		}
		i = j
	}
	return out
}

// bitWriter appends bits, the lowest first.
type bitWriter struct {
	b    []byte
	acc  uint64
	have uint
}

func (w *bitWriter) put(v uint64, n uint) {
	w.acc |= v << w.have
	w.have += n
	for w.have >= 8 {
		w.b = append(w.b, byte(w.acc))
		w.acc >>= 8
		w.have -= 8
	}
}

// flush fills the last byte with zeros.
func (w *bitWriter) flush() {
	if w.have > 0 {
		w.b = append(w.b, byte(w.acc))
	}
	w.acc, w.have = 0, 0
}
