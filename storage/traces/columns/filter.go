package columns

import (
	"encoding/binary"
	"math/bits"

	"github.com/braidobs/braid/storage/part"
)

// The filter of a segment tells which pages may have a hash: a Bloom filter for each page, laid side by side, so that one look-up
// asks all of them. It is cut into pieces; a hash is in one of them.
const (
	filterPiece = 4 << 10 // bytes
	filterBits  = 12      // for each hash of the page that has most
	filterProbe = 4
)

// filterBuilder gathers the hashes of the pages of a segment.
type filterBuilder struct {
	hashes []uint64
	ends   []int // of pages
	most   int   // hashes of a page
}

func (f *filterBuilder) reset() { f.hashes, f.ends, f.most = f.hashes[:0], f.ends[:0], 0 }

func (f *filterBuilder) add(h uint64) { f.hashes = append(f.hashes, h) }

// end ends a page.
func (f *filterBuilder) end() {
	from := 0
	if n := len(f.ends); n > 0 {
		from = f.ends[n-1]
	}
	f.ends = append(f.ends, len(f.hashes))
	f.most = max(f.most, len(f.hashes)-from)
}

// filterShape is how a filter is laid out.
type filterShape struct {
	width  int // bytes of a slot: a bit for each page
	slots  int // of a piece
	pieces int
}

func (s filterShape) size() int { return s.width*s.slots + 4 }

func shapeOf(pages, most int) filterShape {
	s := filterShape{width: (pages + 7) / 8}
	slots := max(most*filterBits, 64)
	fit := filterPiece / s.width
	s.pieces = (slots + fit - 1) / fit
	s.slots = (slots + s.pieces - 1) / s.pieces
	return s
}

// place returns the piece of a hash, and a function of its slots there.
func (s filterShape) place(h uint64) (piece int, slots [filterProbe]int) {
	hi, _ := bits.Mul64(h, uint64(s.pieces))
	x := mix(h)
	for i := range slots {
		slots[i] = int((x & 0xffff) * uint64(s.slots) >> 16)
		x >>= 16
	}
	return int(hi), slots
}

// append appends the pieces, each with its checksum.
func (f *filterBuilder) append(dst []byte, s filterShape) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, s.pieces*s.size())...)
	b := dst[at:]
	from := 0
	for page, end := range f.ends {
		for _, h := range f.hashes[from:end] {
			piece, slots := s.place(h)
			for _, slot := range slots {
				b[piece*s.size()+slot*s.width+page/8] |= 1 << (page % 8)
			}
		}
		from = end
	}
	for i := range s.pieces {
		p := b[i*s.size() : (i+1)*s.size()]
		binary.LittleEndian.PutUint32(p[len(p)-4:], part.Checksum(p[:len(p)-4]))
	}
	return dst
}

// find returns the pages that may have a hash, given what it fell into.
func (s filterShape) find(piece []byte, slots [filterProbe]int) uint64 {
	out := ^uint64(0)
	for _, slot := range slots {
		var w [8]byte
		copy(w[:], piece[slot*s.width:(slot+1)*s.width])
		out &= binary.LittleEndian.Uint64(w[:])
	}
	return out
}
