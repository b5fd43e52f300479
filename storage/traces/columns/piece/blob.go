// Package piece encodes what segments of spans are made of: columns of integers, codes, texts and values, each a piece of a blob that
// is read on its own, with its checksum; and the filter that tells which pages may have a hash.
//
// The format is described in docs/format/part.md, section "Traces". What reads takes hostile input: it returns errors and
// allocates no more than a small multiple of what it was given.
package piece

import (
	"encoding/binary"
	"fmt"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/part"
)

// Ref is where a piece of a blob lies and how large it is.
type Ref struct {
	off  int64
	Size int // stored bytes
	Raw  int // unpacked; 0 for what is stored as it is
	crc  uint32
}

// Blob gathers pieces and the references to them.
type Blob struct {
	w      *part.Writer
	Head   []byte // as far as it was written
	Body   []byte // the pieces
	packed []byte
}

// Reset empties it; pieces will go into a part of w.
func (b *Blob) Reset(w *part.Writer) { b.w, b.Head, b.Body = w, b.Head[:0], b.Body[:0] }

// Bytes returns head and pieces. They are valid until the next call of a method.
func (b *Blob) Bytes() []byte {
	b.packed = append(append(b.packed[:0], b.Head...), b.Body...)
	return b.packed
}

// Add adds a piece, and a reference to it to the head. With pack it is compressed if that makes it smaller by an eighth.
func (b *Blob) Add(p []byte, pack bool) {
	if pack && len(p) >= 64 {
		b.packed = b.w.Pack(b.packed[:0], p)
		b.choose(p, b.packed)
		return
	}
	b.stored(p, 0)
}

func (b *Blob) choose(p, packed []byte) {
	if len(packed) <= len(p)-len(p)/8 {
		b.stored(packed, len(p))
		return
	}
	b.stored(p, 0)
}

func (b *Blob) stored(p []byte, raw int) {
	b.Head = binary.AppendUvarint(b.Head, uint64(len(p)))
	b.Head = binary.AppendUvarint(b.Head, uint64(raw))
	b.Head = binary.LittleEndian.AppendUint32(b.Head, part.Checksum(p))
	b.Body = append(b.Body, p...)
}

// ReadRef reads a reference; off is where the next piece begins.
func ReadRef(d *telemetry.Decoder, off *int64) Ref {
	r := Ref{off: *off}
	size, raw := d.Uvarint(), d.Uvarint()
	if size > part.MaxBlockBytes || raw > part.MaxBlockBytes {
		d.Fail("a piece of %d bytes, %d unpacked", size, raw)
		return Ref{}
	}
	r.Size, r.Raw = int(size), int(raw)
	if s := d.Take(4); s != "" {
		r.crc = binary.LittleEndian.Uint32([]byte(s))
	}
	*off += int64(size)
	return r
}

// Source is a blob that is read piece by piece.
type Source struct {
	Whole func(b []byte, crc uint32) bool // says that a piece has that checksum
	Part  *part.Part
	Table *part.Table
	Block int
	Head  int64 // where pieces begin

	near []byte // the beginning of the blob
}

// Begin reads the head of the blob, and with it about n bytes behind, which Fetch then need not read. They stay until Reuse.
func (s *Source) Begin(m *Memory, n int64) (head []byte, err error) {
	b, err := s.Table.Begin(m.bytes.Get(int(s.Head+n)), s.Block, s.Head+n)
	if err == nil && int64(len(b)) < s.Head {
		err = s.Bad("head", "%d bytes, want %d", len(b), s.Head)
	}
	if err != nil {
		return nil, err
	}
	s.near = b
	return b[:s.Head], nil
}

// Whole says whether b has a checksum.
func Whole(b []byte, crc uint32) bool { return part.Checksum(b) == crc }

// Corrupt says that what of the blob is corrupt because of err, unless that says it already; nil stays nil.
func (s *Source) Corrupt(what string, err error) error {
	if err == nil || part.IsCorrupt(err) {
		return err
	}
	return s.Table.Corrupt("blob", s.Block, "%s of block %d: %v", what, s.Block, err)
}

// Bad says that what of the blob is corrupt.
func (s *Source) Bad(what, format string, args ...any) error {
	return s.Table.Corrupt("blob", s.Block, "%s of block %d: %s", what, s.Block, fmt.Sprintf(format, args...))
}

// Fetch returns a piece, unpacked, in memory of its own.
func (s *Source) Fetch(what string, r Ref) ([]byte, error) { return s.FetchIn(&Memory{}, what, r) }

// FetchIn is Fetch into m, whose bytes the next call uses again.
func (s *Source) FetchIn(m *Memory, what string, r Ref) ([]byte, error) {
	var b []byte
	var err error
	if from := s.Head + r.off; from+int64(r.Size) <= int64(len(s.near)) {
		b = append(m.raw[:0], s.near[from:][:r.Size]...)
	} else if b, err = s.Table.Piece(m.raw, s.Block, from, int64(r.Size)); err != nil {
		return nil, err
	}
	m.raw = b
	if !s.Whole(b, r.crc) {
		return nil, s.Bad(what, "the checksum does not match")
	}
	if r.Raw > 0 {
		if b, err = s.Part.Unpack(m.unpacked, b, r.Raw); err != nil {
			return nil, s.Corrupt(what, err)
		}
		m.unpacked = b
	}
	return b, nil
}

// FetchOwn is FetchIn for what stays until Reuse.
func (s *Source) FetchOwn(m *Memory, what string, r Ref) ([]byte, error) {
	raw, unpacked := m.raw, m.unpacked
	if r.Raw > 0 {
		m.unpacked = m.bytes.Get(r.Raw + 2*padding)
	} else {
		m.raw = m.bytes.Get(r.Size + 2*padding)
	}
	b, err := s.FetchIn(m, what, r)
	if r.Raw > 0 {
		raw = m.raw
	}
	m.raw, m.unpacked = raw, unpacked
	return b, err
}

// Memory is what blocks are decoded into, one after the other: see columns.Segment.BlockIn. Its zero value is ready.
type Memory struct {
	raw, unpacked []byte
	zeros         []uint32
	wide          Pool[int64]
	Codes         Pool[uint32]
	Rows          Pool[int32]
	Sets          Pool[uint64]
	IDs           Pool[telemetry.TraceID]
	bytes         Pool[byte]
}

// Zeros returns n codes that are 0, and the same ones to others: they must not be changed.
func (m *Memory) Zeros(n int) []uint32 {
	if len(m.zeros) < n {
		m.zeros = make([]uint32, n)
	}
	return m.zeros[:n:n]
}

// Wide returns n integers, which are not zero.
func (m *Memory) Wide(n int) []int64 { return m.wide.Get(n) }

// Reuse takes back what was decoded.
func (m *Memory) Reuse() {
	m.wide.next, m.Codes.next, m.Rows.next, m.Sets.next, m.IDs.next, m.bytes.next = 0, 0, 0, 0, 0, 0
}

// Pool is slices of which the first ones are in use.
type Pool[T any] struct {
	all  [][]T
	next int
}

// Get returns n values, which are not zero.
func (p *Pool[T]) Get(n int) []T {
	if p.next == len(p.all) {
		p.all = append(p.all, nil)
	}
	s := &p.all[p.next]
	if *s == nil || cap(*s) < n { // never nil: that would mean something else
		*s = make([]T, n, n+n/8)
	}
	p.next++
	return (*s)[:n]
}

// padding is how many bytes behind a piece the reader of integers likes to have.
const padding = 8

func pad(b []byte) []byte {
	n := len(b)
	if cap(b) < n+padding {
		b = append(make([]byte, 0, n+padding), b...)
	}
	b = b[:n+padding]
	clear(b[n:])
	return b
}
