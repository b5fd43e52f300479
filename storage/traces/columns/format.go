package columns

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/column"
	"github.com/braidobs/braid/storage/part"
)

// The format is described in docs/format/part.md, section "Traces".

// version is the version of the format of segments.
const version = 1

// MaxBlocks is how many blocks, and pages, a segment has at most: one for each bit of the answers about them.
const MaxBlocks = 64

// place is where a key belongs to. The numbers are on disk.
type place uint8

const (
	spanField  place = 1
	spanAttr   place = 2
	eventField place = 3
	eventAttr  place = 4
	linkField  place = 5
	linkAttr   place = 6
)

// family is what has tuples: spans, their events, their links.
type family int

const (
	spans family = iota
	events
	links
	families
)

func (p place) family() family { return family(p-1) / 2 }

func (p place) attr() bool { return p%2 == 0 }

// Names of fields, one letter each. Name, kind, status and scope are always there, the others if they are not zero.
const (
	fieldName    = "n"
	fieldKind    = "k"
	fieldStatus  = "s"
	fieldScope   = "c" // its number
	fieldMessage = "m"
	fieldState   = "t" // of spans and links
	fieldFlags   = "f" // of spans and links
	fieldDropped = "d" // attributes of any family
	fieldEvents  = "e" // dropped events
	fieldLinks   = "l" // dropped links
)

// own is the code in a tuple of a key whose values stand in a column of their own.
const own = 1<<32 - 1

// The forms of a column of its own in a page. The numbers are on disk.
const (
	formInts    = 1 // integers
	formCodes   = 2 // codes of the key's values in the segment
	formStrings = 3 // strings of the page, each once, and their codes
	formValues  = 4 // values of the page in their binary form, each once, and their codes
)

// ref is where a piece of a blob lies and how large it is.
type ref struct {
	off  int64
	size int
	raw  int // unpacked; 0 for what is stored as it is
	crc  uint32
}

// blob gathers pieces and the references to them.
type blob struct {
	w      *part.Writer
	head   []byte // as far as it was written
	body   []byte
	packed []byte
}

func (b *blob) reset() { b.head, b.body = b.head[:0], b.body[:0] }

// add adds a piece, and a reference to it to the head. With pack it is compressed if that makes it smaller by an eighth.
func (b *blob) add(p []byte, pack bool) {
	if pack && len(p) >= 64 {
		b.packed = b.w.Pack(b.packed[:0], p)
		b.choose(p, b.packed)
		return
	}
	b.stored(p, 0)
}

func (b *blob) choose(p, packed []byte) {
	if len(packed) <= len(p)-len(p)/8 {
		b.stored(packed, len(p))
		return
	}
	b.stored(p, 0)
}

func (b *blob) stored(p []byte, raw int) {
	b.head = binary.AppendUvarint(b.head, uint64(len(p)))
	b.head = binary.AppendUvarint(b.head, uint64(raw))
	b.head = binary.LittleEndian.AppendUint32(b.head, part.Checksum(p))
	b.body = append(b.body, p...)
}

// readRef reads a reference; off is where the next piece begins.
func readRef(d *telemetry.Decoder, off *int64) ref {
	r := ref{off: *off}
	size, raw := d.Uvarint(), d.Uvarint()
	if size > part.MaxBlockBytes || raw > part.MaxBlockBytes {
		d.Fail("a piece of %d bytes, %d unpacked", size, raw)
		return ref{}
	}
	r.size, r.raw = int(size), int(raw)
	if s := d.Take(4); s != "" {
		r.crc = binary.LittleEndian.Uint32([]byte(s))
	}
	*off += int64(size)
	return r
}

// source is a blob that is read piece by piece.
type source struct {
	whole func(b []byte, crc uint32) bool // that is its checksum
	p     *part.Part
	t     *part.Table
	block int
	head  int64 // where pieces begin
}

func whole(b []byte, crc uint32) bool { return part.Checksum(b) == crc }

func (s *source) corrupt(what string, err error) error {
	if err == nil || part.IsCorrupt(err) {
		return err
	}
	return s.t.Corrupt("blob", s.block, "%s of block %d: %v", what, s.block, err)
}

func (s *source) bad(what, format string, args ...any) error {
	return s.t.Corrupt("blob", s.block, "%s of block %d: %s", what, s.block, fmt.Sprintf(format, args...))
}

// fetch returns a piece, unpacked, in memory of its own.
func (s *source) fetch(what string, r ref) ([]byte, error) { return s.fetchIn(&Memory{}, what, r) }

// fetchIn is fetch into m, whose bytes the next call uses again.
func (s *source) fetchIn(m *Memory, what string, r ref) ([]byte, error) {
	b, err := s.t.Piece(m.raw, s.block, s.head+r.off, int64(r.size))
	if err != nil {
		return nil, err
	}
	m.raw = b
	if !s.whole(b, r.crc) {
		return nil, s.bad(what, "the checksum does not match")
	}
	if r.raw > 0 {
		if b, err = s.p.Unpack(m.unpacked, b, r.raw); err != nil {
			return nil, s.corrupt(what, err)
		}
		m.unpacked = b
	}
	return b, nil
}

// Memory is what blocks are decoded into, one after the other: see Segment.BlockIn. Its zero value is ready.
type Memory struct {
	raw, unpacked []byte
	wide          pool[int64]
	codes         pool[uint32]
	rows          pool[int32]
}

func (m *Memory) reuse() {
	m.wide.next, m.codes.next, m.rows.next = 0, 0, 0
}

// pool is slices of which the first ones are in use.
type pool[T any] struct {
	all  [][]T
	next int
}

// get returns n values, which are not zero.
func (p *pool[T]) get(n int) []T {
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

// packer encodes columns of integers.
type packer struct {
	enc   column.Encoder
	nums  []int64
	small []byte
	tight []byte
}

// ints appends integers: how often they can be divided by a thousand, then the ints of package column.
func (p *packer) ints(dst []byte, ns []int64) []byte {
	if len(ns) == 0 {
		return dst
	}
	scale := byte(0)
	for scale < 3 && divisible(ns) {
		if scale == 0 {
			p.nums = append(p.nums[:0], ns...)
			ns = p.nums
		}
		for i := range ns {
			ns[i] /= 1000
		}
		scale++
	}
	return p.enc.Ints(append(dst, scale), ns, nil)
}

func divisible(ns []int64) bool {
	zero := true
	for _, n := range ns {
		if n%1000 != 0 {
			return false
		}
		zero = zero && n == 0
	}
	return !zero
}

// readInts reads n integers and nothing behind them. B is a whole piece.
func readInts(m *Memory, b []byte, n int) ([]int64, error) {
	if n == 0 {
		return nil, wantNone(b)
	}
	if len(b) == 0 || n > 128*(len(b)+2) {
		return nil, fmt.Errorf("%d integers cannot fit in %d bytes", n, len(b))
	}
	scale := b[0]
	if scale > 3 {
		return nil, fmt.Errorf("scale %d", scale)
	}
	out := m.wide.get(n)
	rest, err := column.Ints(pad(b)[1:], out, nil)
	if err != nil {
		return nil, err
	}
	if len(rest) != padding {
		return nil, fmt.Errorf("%d bytes too many", len(rest)-padding)
	}
	if scale > 0 {
		f := [...]int64{1, 1e3, 1e6, 1e9}[scale]
		for i := range out {
			out[i] *= f
		}
	}
	return out, nil
}

func wantNone(b []byte) error {
	if len(b) > 0 {
		return fmt.Errorf("%d bytes too many", len(b))
	}
	return nil
}

// The forms of codes. The numbers are on disk.
const (
	codesSame  = 0 // one uvarint for all
	codesTight = 1 // ints of package column
	codes8     = 2 // a byte each
	codes16    = 3 // two, least significant first
	codes32    = 4
)

// codes adds codes as a piece, in the form that is smallest: as bytes, which the compressor finds patterns in, or as bits.
func (p *packer) codes(b *blob, cs []uint32) {
	if len(cs) == 0 {
		b.add(nil, false)
		return
	}
	top, same := uint32(0), true
	for _, c := range cs {
		top = max(top, c)
		same = same && c == cs[0]
	}
	if same {
		b.add(binary.AppendUvarint([]byte{codesSame}, uint64(top)), false)
		return
	}
	p.small = p.small[:0]
	switch {
	case top < 1<<8:
		p.small = append(p.small, codes8)
		for _, c := range cs {
			p.small = append(p.small, byte(c))
		}
	case top < 1<<16:
		p.small = append(p.small, codes16)
		for _, c := range cs {
			p.small = append(p.small, byte(c), byte(c>>8))
		}
	default:
		p.small = append(p.small, codes32)
		for _, c := range cs {
			p.small = binary.LittleEndian.AppendUint32(p.small, c)
		}
	}
	p.nums = p.nums[:0]
	for _, c := range cs {
		p.nums = append(p.nums, int64(c))
	}
	p.tight = p.enc.Ints(append(p.tight[:0], codesTight), p.nums, nil)
	if len(cs) >= 64 {
		b.packed = b.w.Pack(b.packed[:0], p.small)
		if len(b.packed) < len(p.tight)-len(p.tight)/16 {
			b.stored(b.packed, len(p.small))
			return
		}
	}
	b.stored(p.tight, 0)
}

// readCodes reads n codes below limit.
func readCodes(m *Memory, b []byte, n int, limit uint32) ([]uint32, error) {
	if n == 0 {
		return nil, wantNone(b)
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("%d codes in no bytes", n)
	}
	form, b := b[0], b[1:]
	width := 0
	switch form {
	case codes8:
		width = 1
	case codes16:
		width = 2
	case codes32:
		width = 4
	case codesSame:
		u, rest, err := column.Uvarint(b)
		if err != nil || len(rest) > 0 || u >= uint64(limit) {
			return nil, fmt.Errorf("code %d of %d", u, limit)
		}
		out := m.codes.get(n)
		for i := range out {
			out[i] = uint32(u)
		}
		return out, nil
	case codesTight:
		if n > 128*(len(b)+2) {
			return nil, fmt.Errorf("%d codes cannot fit in %d bytes", n, len(b))
		}
		nums := m.wide.get(n)
		m.wide.next-- // for now only
		rest, err := column.Ints(pad(b), nums, nil)
		if err != nil {
			return nil, err
		}
		if len(rest) != padding {
			return nil, fmt.Errorf("%d bytes too many", len(rest)-padding)
		}
		out := m.codes.get(n)
		wrong := false
		for i, v := range nums {
			out[i] = uint32(v)
			wrong = wrong || uint64(v) >= uint64(limit)
		}
		if wrong {
			return nil, fmt.Errorf("a code is not below %d", limit)
		}
		return out, nil
	default:
		return nil, fmt.Errorf("unknown form %d of codes", form)
	}
	if len(b) != n*width {
		return nil, fmt.Errorf("%d codes of %d bytes in %d", n, width, len(b))
	}
	out := m.codes.get(n)
	top := uint32(0)
	switch width {
	case 1:
		for i, c := range b {
			out[i] = uint32(c)
			top = max(top, uint32(c))
		}
	case 2:
		for i := range out {
			c := uint32(binary.LittleEndian.Uint16(b[2*i:]))
			out[i] = c
			top = max(top, c)
		}
	default:
		for i := range out {
			c := binary.LittleEndian.Uint32(b[4*i:])
			out[i] = c
			top = max(top, c)
		}
	}
	if top >= limit {
		return nil, fmt.Errorf("code %d of %d", top, limit)
	}
	return out, nil
}

// texts appends strings: their lengths as ints after the number of bytes that these take, then the bytes.
func (p *packer) texts(dst []byte, ss []string) []byte {
	if len(ss) == 0 {
		return dst
	}
	p.nums = p.nums[:0]
	for _, s := range ss {
		p.nums = append(p.nums, int64(len(s)))
	}
	p.small = p.enc.Ints(p.small[:0], p.nums, nil)
	dst = binary.AppendUvarint(dst, uint64(len(p.small)))
	dst = append(dst, p.small...)
	for _, s := range ss {
		dst = append(dst, s...)
	}
	return dst
}

// readTexts reads n strings and nothing behind them; they share b's memory.
func readTexts(b []byte, n int) ([]string, error) {
	if n == 0 {
		return nil, wantNone(b)
	}
	size, b, err := column.Uvarint(b)
	if err != nil || size > uint64(len(b)) {
		return nil, fmt.Errorf("lengths of %d bytes in %d", size, len(b))
	}
	if n > 128*(int(size)+2) {
		return nil, fmt.Errorf("%d strings cannot fit in %d bytes", n, len(b))
	}
	lens := make([]int64, n)
	rest, err := column.Ints(b[:size], lens, nil)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes too many", len(rest))
	}
	text := unsafe.String(unsafe.SliceData(b), len(b))[size:]
	out := make([]string, n)
	at := 0
	for i, l := range lens {
		if l < 0 || l > int64(len(text)-at) {
			return nil, fmt.Errorf("a string of %d bytes, %d are left", l, len(text)-at)
		}
		out[i] = text[at : at+int(l)]
		at += int(l)
	}
	if at != len(text) {
		return nil, fmt.Errorf("%d bytes too many", len(text)-at)
	}
	return out, nil
}

// values appends values: a byte 1 and texts when all are strings, a byte 2 and ints when all are integers, else a byte 0 and
// their binary forms.
func (p *packer) values(dst []byte, vs []telemetry.Value) []byte {
	switch kindOf(vs) {
	case telemetry.KindString:
		ss := make([]string, len(vs))
		for i, v := range vs {
			ss[i] = v.Str()
		}
		return p.texts(append(dst, 1), ss)
	case telemetry.KindInt:
		ns := make([]int64, len(vs))
		for i, v := range vs {
			ns[i] = v.Int()
		}
		return p.ints(append(dst, 2), ns)
	default:
		dst = append(dst, 0)
		for _, v := range vs {
			dst = telemetry.AppendValue(dst, v)
		}
		return dst
	}
}

// kindOf returns the kind of all values, KindEmpty when they differ or are empty.
func kindOf(vs []telemetry.Value) telemetry.Kind {
	if len(vs) == 0 {
		return telemetry.KindEmpty
	}
	k := vs[0].Kind()
	for _, v := range vs {
		if v.Kind() != k {
			return telemetry.KindEmpty
		}
	}
	return k
}

// readValues reads n values and nothing behind them.
func readValues(b []byte, n int) ([]telemetry.Value, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%d values in no bytes", n)
	}
	form, b := b[0], b[1:]
	switch form {
	case 1:
		ss, err := readTexts(b, n)
		if err != nil {
			return nil, err
		}
		out := make([]telemetry.Value, n)
		for i, s := range ss {
			out[i] = telemetry.String(s)
		}
		return out, nil
	case 2:
		ns, err := readInts(&Memory{}, b, n)
		if err != nil {
			return nil, err
		}
		out := make([]telemetry.Value, n)
		for i, v := range ns {
			out[i] = telemetry.Int(v)
		}
		return out, nil
	case 0:
		if n > len(b) {
			return nil, fmt.Errorf("%d values cannot fit in %d bytes", n, len(b))
		}
		d := telemetry.NewDecoderBytes(b)
		out := make([]telemetry.Value, n)
		for i := range out {
			out[i] = d.Value()
		}
		if d.Err() == nil && d.Len() > 0 {
			d.Fail("%d bytes too many", d.Len())
		}
		return out, d.Err()
	default:
		return nil, fmt.Errorf("unknown form %d of values", form)
	}
}

// mix spreads the bits of x.
func mix(x uint64) uint64 {
	hi, lo := bits.Mul64(x^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return hi ^ lo
}
