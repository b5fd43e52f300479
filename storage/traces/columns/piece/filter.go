package piece

import (
	"encoding/binary"
	"math/bits"

	"github.com/braidobs/braid/storage/part"
)

// The filter of a segment tells which pages may have a hash: a Bloom filter for each page, laid side by side, so that one look-up
// asks all of them. It is cut into pieces; a hash is in one of them.
const (
	MaxFilterPiece = 4 << 10 // bytes
	filterBits     = 12      // for each hash of the page that has most
	filterProbe    = 4
)

// FilterBuilder gathers the hashes of the pages of a segment.
type FilterBuilder struct {
	hashes []uint64
	ends   []int // of pages
	most   int   // hashes of a page
}

// Reset empties it.
func (f *FilterBuilder) Reset() { f.hashes, f.ends, f.most = f.hashes[:0], f.ends[:0], 0 }

// Add adds a hash to the page.
func (f *FilterBuilder) Add(h uint64) { f.hashes = append(f.hashes, h) }

// End ends a page.
func (f *FilterBuilder) End() {
	from := 0
	if n := len(f.ends); n > 0 {
		from = f.ends[n-1]
	}
	f.ends = append(f.ends, len(f.hashes))
	f.most = max(f.most, len(f.hashes)-from)
}

// FilterShape is how a filter is laid out.
type FilterShape struct {
	Width  int // bytes of a slot: a bit for each page
	Slots  int // of a piece
	Pieces int
}

// Size returns the bytes of a piece.
func (s FilterShape) Size() int { return s.Width*s.Slots + 4 }

// Shape returns the shape of the filter of some pages.
func (f *FilterBuilder) Shape(pages int) FilterShape {
	s := FilterShape{Width: (pages + 7) / 8}
	slots := max(f.most*filterBits, 64)
	fit := MaxFilterPiece / s.Width
	s.Pieces = (slots + fit - 1) / fit
	s.Slots = (slots + s.Pieces - 1) / s.Pieces
	return s
}

// Place returns the piece of a hash, and its slots there.
func (s FilterShape) Place(h uint64) (n int, slots [filterProbe]int) {
	hi, _ := bits.Mul64(h, uint64(s.Pieces))
	x := Mix(h)
	for i := range slots {
		slots[i] = int((x & 0xffff) * uint64(s.Slots) >> 16)
		x >>= 16
	}
	return int(hi), slots
}

// Append appends the pieces, each with its checksum.
func (f *FilterBuilder) Append(dst []byte, s FilterShape) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, s.Pieces*s.Size())...)
	b := dst[at:]
	from := 0
	for page, end := range f.ends {
		for _, h := range f.hashes[from:end] {
			piece, slots := s.Place(h)
			for _, slot := range slots {
				b[piece*s.Size()+slot*s.Width+page/8] |= 1 << (page % 8)
			}
		}
		from = end
	}
	for i := range s.Pieces {
		p := b[i*s.Size() : (i+1)*s.Size()]
		binary.LittleEndian.PutUint32(p[len(p)-4:], part.Checksum(p[:len(p)-4]))
	}
	return dst
}

// Find returns the pages that may have a hash, given what it fell into.
func (s FilterShape) Find(piece []byte, slots [filterProbe]int) uint64 {
	out := ^uint64(0)
	for _, slot := range slots {
		var w [8]byte
		copy(w[:], piece[slot*s.Width:(slot+1)*s.Width])
		out &= binary.LittleEndian.Uint64(w[:])
	}
	return out
}

// Mix spreads the bits of x.
func Mix(x uint64) uint64 {
	hi, lo := bits.Mul64(x^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return hi ^ lo
}
