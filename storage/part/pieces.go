package part

import (
	"fmt"
	"slices"
)

// Pack appends b, compressed. For blobs that are made of pieces which are read one by one.
func (w *Writer) Pack(dst, b []byte) []byte { return w.enc.EncodeAll(b, dst) }

// Unpack returns what Pack made of size bytes, in dst if that is large enough; another size is an error.
func (p *Part) Unpack(dst, b []byte, size int) ([]byte, error) {
	if size < 0 || size > MaxBlockBytes {
		return nil, fmt.Errorf("%d bytes packed", size)
	}
	raw, err := p.dec.DecodeAll(b, slices.Grow(dst[:0], size+unpackSlack))
	if err == nil && len(raw) != size {
		err = fmt.Errorf("%d bytes unpacked, want %d", len(raw), size)
	}
	return raw, err
}

// unpackSlack is capacity beyond what is wanted: with it the decoder need not copy.
const unpackSlack = 8

// Begin reads the first n bytes of block b of a Blob, or as many as there are, as Piece does.
func (t *Table) Begin(dst []byte, b int, n int64) ([]byte, error) {
	return t.Piece(dst, b, 0, min(n, int64(t.meta.blocks[0][b].size)))
}

// Piece reads the n bytes of block b of a Blob that begin at off, into dst if that is large enough. The block must be stored as it is, and is not checked:
// its format has checksums of its own.
func (t *Table) Piece(dst []byte, b int, off, n int64) ([]byte, error) {
	m := &t.meta.blocks[0][b]
	if m.size != m.raw || off < 0 || n < 0 || off > int64(m.size) || n > int64(m.size)-off {
		return nil, t.p.corrupt(m.offset, "table %s, block %d: %d bytes at %d of %d", t.name, b, n, off, m.size)
	}
	buf := slices.Grow(dst[:0], int(n)+unpackSlack)[:n]
	return buf, t.p.readAt(buf, m.offset+off)
}

// Checksum is the checksum that blocks have in the footer, for the pieces of a block.
func Checksum(b []byte) uint32 { return checksum(b) }
