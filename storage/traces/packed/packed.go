// Package packed holds spans in memory as bytes: a fifth of what they take as telemetry.Span, without pointers that the
// garbage collector would have to follow. Texts that repeat, mostly all names, keys and many values, are held once.
//
// The form is that of one process and never leaves it.
package packed

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/braidobs/braid/internal/telemetry"
)

const (
	// chunkBytes is the size of a chunk of memory; what is larger has one for itself.
	chunkBytes = 64 << 10
	// maxTexts and maxText bound the texts that are held once: how many, and the bytes of one.
	maxTexts = 64 << 10
	maxText  = 1 << 10
	// maxShapes bounds the lists of keys that are held once, and maxKeys their length.
	maxShapes = 4 << 10
	maxKeys   = 256
	// seenTexts is how many texts that came once are remembered, by their hash.
	seenTexts = 16 << 10
)

// Place is where a span lies. It is of no use but for the Spans that returned it.
type Place struct{ chunk, off int32 }

// Spans is a growing set of spans. Add is for one caller at a time; a View of it never changes and can be read meanwhile.
type Spans struct {
	chunks []string // whole, as they will be; what was written of them does not change
	open   []byte   // the memory of chunks[number]
	number int32
	used   int
	size   int64

	texts  []string
	table  []uint32          // by hash: one more than the number of a text
	guess  []guess           // by text, as a key of attributes
	first  uint32            // the key that came first in the last attributes
	seen   []uint32          // the upper half of hashes, by the lower
	shapes [][]uint32        // keys of attributes, as numbers of texts
	shape  map[string]uint32 // numbers of shapes
	keys   []uint32
	scopes []*telemetry.Scope
	known  map[string]uint32 // numbers of scopes by their encoded form
	res    map[resourceKey]*telemetry.Resource

	scope   *telemetry.Scope // the last one, until Forget
	scopeNo uint64
	buf     []byte
}

// guess is what came with a key the last time: the key behind it and its value, as numbers of texts, and the number of the shape
// that it was the last key of.
type guess struct{ next, value, shape uint32 }

// noText is no number of a text.
const noText = 1<<32 - 1

// Size returns about how many bytes of memory are held.
func (s *Spans) Size() int64 { return s.size }

// Add adds a span: all but its trace ID and start, which the caller holds. It keeps nothing of sp but, until Forget, its
// scope.
func (s *Spans) Add(sp *telemetry.Span) Place {
	s.buf = s.appendSpan(s.buf[:0], sp)
	return s.put(s.buf)
}

// resourceKey tells resources apart: what was dropped of one is no part of its ID.
type resourceKey struct {
	id      telemetry.ResourceID
	dropped uint32
}

// Resource returns a resource that equals r, the same one for all such, and keeps nothing of r.
func (s *Spans) Resource(r *telemetry.Resource) *telemetry.Resource {
	if r == nil {
		return nil
	}
	key := resourceKey{r.ID, r.Dropped}
	own := s.res[key]
	if own == nil {
		own = r.Clone()
		if s.res == nil {
			s.res = make(map[resourceKey]*telemetry.Resource)
		}
		s.res[key] = own
		s.size += int64(160 + len(own.SchemaURL) + own.Attrs.Size())
	}
	return own
}

// Forget lets go of what was passed to Add.
func (s *Spans) Forget() { s.scope = nil }

// put copies b into a chunk.
func (s *Spans) put(b []byte) Place {
	s.size += int64(len(b))
	if len(b) > chunkBytes {
		s.chunks = append(s.chunks, string(b))
		return Place{chunk: int32(len(s.chunks) - 1)}
	}
	if s.used+len(b) > len(s.open) {
		s.open, s.used, s.number = make([]byte, chunkBytes), 0, int32(len(s.chunks))
		s.chunks = append(s.chunks, telemetry.NewDecoderBytes(s.open).Take(chunkBytes))
	}
	p := Place{chunk: s.number, off: int32(s.used)}
	s.used += copy(s.open[s.used:], b)
	return p
}

// The parts that a span may have.
const (
	hasParent = 1 << iota
	hasState
	hasMessage
	hasFlags
	hasDropped
	hasEvents
	hasLinks
)

func (s *Spans) appendSpan(dst []byte, sp *telemetry.Span) []byte {
	has := byte(0)
	set := func(bit byte, is bool) {
		if is {
			has |= bit
		}
	}
	set(hasParent, !sp.ParentID.IsZero())
	set(hasState, sp.State != "")
	set(hasMessage, sp.StatusMessage != "")
	set(hasFlags, sp.Flags != 0)
	set(hasDropped, sp.DroppedAttrs|sp.DroppedEvents|sp.DroppedLinks != 0)
	set(hasEvents, len(sp.Events) > 0)
	set(hasLinks, len(sp.Links) > 0)
	dst = append(append(dst, has, byte(sp.Kind), byte(sp.Status)), sp.SpanID[:]...)
	if has&hasParent != 0 {
		dst = append(dst, sp.ParentID[:]...)
	}
	dst = telemetry.AppendVarint(dst, sp.End-sp.Start)
	dst = s.appendText(dst, sp.Name)
	dst = telemetry.AppendUvarint(dst, s.scopeOf(sp.Scope))
	if has&hasState != 0 {
		dst = s.appendText(dst, sp.State)
	}
	if has&hasMessage != 0 {
		dst = s.appendText(dst, sp.StatusMessage)
	}
	if has&hasFlags != 0 {
		dst = telemetry.AppendUvarint(dst, uint64(sp.Flags))
	}
	if has&hasDropped != 0 {
		for _, n := range []uint32{sp.DroppedAttrs, sp.DroppedEvents, sp.DroppedLinks} {
			dst = telemetry.AppendUvarint(dst, uint64(n))
		}
	}
	dst = s.appendAttrs(dst, sp.Attrs)
	if has&hasEvents != 0 {
		dst = telemetry.AppendUvarint(dst, uint64(len(sp.Events)))
		for i := range sp.Events {
			e := &sp.Events[i]
			dst = telemetry.AppendVarint(dst, e.Time-sp.Start)
			dst = s.appendText(dst, e.Name)
			dst = telemetry.AppendUvarint(dst, uint64(e.Dropped))
			dst = s.appendAttrs(dst, e.Attrs)
		}
	}
	if has&hasLinks != 0 {
		dst = telemetry.AppendUvarint(dst, uint64(len(sp.Links)))
		for i := range sp.Links {
			l := &sp.Links[i]
			dst = append(append(dst, l.TraceID[:]...), l.SpanID[:]...)
			dst = s.appendText(dst, l.State)
			dst = telemetry.AppendUvarint(dst, uint64(l.Flags))
			dst = telemetry.AppendUvarint(dst, uint64(l.Dropped))
			dst = s.appendAttrs(dst, l.Attrs)
		}
	}
	return dst
}

// What a text or value begins with: a value of another kind, a text as it is, or the number of a text and firstText.
const (
	otherValue = 0
	plainText  = 1
	firstText  = 2
)

func (s *Spans) appendText(dst []byte, text string) []byte {
	return s.appendTextOr(dst, text, s.find(text, false))
}

func (s *Spans) appendTextOr(dst []byte, text string, n uint32) []byte {
	if n == noText {
		return telemetry.AppendString(append(dst, plainText), text)
	}
	return telemetry.AppendUvarint(dst, uint64(n)+firstText)
}

// What attributes begin with: each has its key, there are none, or the number of their shape and firstShape.
const (
	noShape    = 0
	noAttrs    = 1
	firstShape = 2
)

func (s *Spans) appendAttrs(dst []byte, as telemetry.Attrs) []byte {
	if len(as) == 0 {
		return append(dst, noAttrs)
	}
	s.keys = s.keys[:0]
	last, all := uint32(noText), true
	for i := range as {
		last = s.key(last, as[i].Key)
		s.keys = append(s.keys, last)
		all = all && last != noText
	}
	shape := uint32(noText)
	if all {
		shape = s.shapeOf(last)
	}
	if shape == noText {
		dst = telemetry.AppendUvarint(append(dst, noShape), uint64(len(as)))
	} else {
		dst = telemetry.AppendUvarint(dst, uint64(shape)+firstShape)
	}
	for i := range as {
		if shape == noText {
			dst = s.appendTextOr(dst, as[i].Key, s.keys[i])
		}
		v := as[i].Value
		if v.Kind() != telemetry.KindString {
			dst = telemetry.AppendValue(append(dst, otherValue), v)
		} else {
			dst = s.appendTextOr(dst, v.Str(), s.value(s.keys[i], v.Str()))
		}
	}
	return dst
}

// shapeOf returns the number of the shape of keys, of which last is the last one; noText when it is not held.
func (s *Spans) shapeOf(last uint32) uint32 {
	if n := s.guess[last].shape; int(n) < len(s.shapes) && slices.Equal(s.shapes[n], s.keys) {
		return n
	}
	if len(s.keys) > maxKeys {
		return noText
	}
	var name []byte
	for _, k := range s.keys {
		name = binary.LittleEndian.AppendUint32(name, k)
	}
	n, ok := s.shape[string(name)]
	if !ok {
		if len(s.shapes) >= maxShapes {
			return noText
		}
		if s.shape == nil {
			s.shape = make(map[string]uint32)
		}
		n = uint32(len(s.shapes))
		s.shape[string(name)] = n
		s.shapes = append(s.shapes, slices.Clone(s.keys))
		s.size += int64(100 + 2*len(name))
	}
	s.guess[last].shape = n
	return n
}

// key returns the number of a key that stands behind another one: mostly the one that did so the last time.
func (s *Spans) key(behind uint32, key string) uint32 {
	guess := &s.first
	if behind != noText {
		guess = &s.guess[behind].next
	}
	if n := *guess; int(n) < len(s.texts) && s.texts[n] == key {
		return n
	}
	n := s.find(key, true)
	if behind == noText {
		s.first = n
	} else {
		s.guess[behind].next = n // it may have moved
	}
	return n
}

// value returns the number of a text that is the value of a key.
func (s *Spans) value(key uint32, text string) uint32 {
	if key == noText {
		return s.find(text, false)
	}
	if n := s.guess[key].value; int(n) < len(s.texts) && s.texts[n] == text {
		return n
	}
	n := s.find(text, false)
	if n != noText {
		s.guess[key].value = n
	}
	return n
}

// find returns the number of a text, noText for one that is not held once: it came for the first time, and now does not say
// that it should be at once.
func (s *Spans) find(text string, now bool) uint32 {
	if text == "" || len(text) > maxText {
		return noText
	}
	h := xxhash.Sum64String(text)
	if 2*len(s.texts) >= len(s.table) {
		s.grow()
	}
	mask := uint64(len(s.table) - 1)
	i := h & mask
	for ; s.table[i] != 0; i = (i + 1) & mask {
		if n := s.table[i] - 1; s.texts[n] == text {
			return n
		}
	}
	if len(s.texts) >= maxTexts {
		return noText
	}
	if was := &s.seen[h%seenTexts]; !now && *was != uint32(h>>32) {
		*was = uint32(h >> 32)
		return noText
	}
	p := s.put([]byte(text))
	n := uint32(len(s.texts))
	s.texts = append(s.texts, s.chunks[p.chunk][p.off:int(p.off)+len(text)])
	s.guess = append(s.guess, guess{noText, noText, noText})
	s.table[i] = n + 1
	s.size += 40
	return n
}

// grow doubles the table.
func (s *Spans) grow() {
	if s.seen == nil {
		s.seen = make([]uint32, seenTexts)
	}
	s.table = make([]uint32, max(2*len(s.table), 1024))
	mask := uint64(len(s.table) - 1)
	for n, text := range s.texts {
		i := xxhash.Sum64String(text) & mask
		for s.table[i] != 0 {
			i = (i + 1) & mask
		}
		s.table[i] = uint32(n) + 1
	}
}

// scopeOf returns one more than the number of a scope, 0 for none.
func (s *Spans) scopeOf(sc *telemetry.Scope) uint64 {
	if sc == nil {
		return 0
	}
	if sc == s.scope {
		return s.scopeNo
	}
	b := telemetry.AppendScope(nil, sc)
	n, ok := s.known[string(b)]
	if !ok {
		if s.known == nil {
			s.known = make(map[string]uint32)
		}
		text := string(b)
		n = uint32(len(s.scopes))
		s.known[text] = n
		s.scopes = append(s.scopes, telemetry.NewDecoder(text).Scope())
		s.size += int64(200 + 4*len(text))
	}
	s.scope, s.scopeNo = sc, uint64(n)+1
	return s.scopeNo
}
