package packed

import (
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
)

// Text is a text of a span, or a value that may be one. Two with the same Number, if it is not None, are equal.
type Text struct {
	Value  telemetry.Value
	Number uint32
}

// None is the number of what is not held once.
const None = noText

// Texts returns how many numbers there are.
func (v *View) Texts() int { return len(v.texts) }

// Key is the name of an attribute, as a View has it.
type Key struct {
	name   string
	number uint64  // as it stands in a span; plainText when it has none
	places []int16 // by shape: how many attributes stand before it, -1 when it has none with this name
}

// Key returns a name to look for.
func (v *View) Key(name string) Key {
	k := Key{name: name, number: plainText, places: make([]int16, len(v.shapes))}
	n := slices.Index(v.texts, name)
	if n >= 0 {
		k.number = uint64(n) + firstText
	}
	for i, shape := range v.shapes {
		if k.places[i] = -1; n >= 0 {
			k.places[i] = int16(slices.Index(shape, uint32(n)))
		}
	}
	return k
}

// Kind returns the kind and the status of a span.
func (v *View) Kind(at Place) (telemetry.SpanKind, telemetry.StatusCode) {
	s := v.chunks[at.chunk][at.off:]
	return telemetry.SpanKind(s[1]), telemetry.StatusCode(s[2])
}

// IDs returns the span's ID and that of its parent, zero for none.
func (v *View) IDs(at Place) (id, parent telemetry.SpanID) {
	s := v.chunks[at.chunk][at.off:]
	copy(id[:], s[3:])
	if s[0]&hasParent != 0 {
		copy(parent[:], s[3+len(id):])
	}
	return id, parent
}

// Duration returns how long a span took, in nanoseconds.
func (v *View) Duration(at Place) int64 {
	s := v.chunks[at.chunk][at.off:]
	n, _ := uvarint(s, behindIDs(s))
	return int64(n>>1) ^ -int64(n&1)
}

// Name returns the name of a span.
func (v *View) Name(at Place) Text {
	s := v.chunks[at.chunk][at.off:]
	return v.text(s, behindNumber(s, behindIDs(s)))
}

// State returns the trace state of a span.
func (v *View) State(at Place) Text {
	s := v.chunks[at.chunk][at.off:]
	if s[0]&hasState == 0 {
		return Text{telemetry.String(""), None}
	}
	return v.text(s, behindScope(s))
}

// Message returns the status message of a span.
func (v *View) Message(at Place) Text {
	s := v.chunks[at.chunk][at.off:]
	if s[0]&hasMessage == 0 {
		return Text{telemetry.String(""), None}
	}
	i := behindScope(s)
	if s[0]&hasState != 0 {
		i = behindText(s, i)
	}
	return v.text(s, i)
}

// Attr returns the value of an attribute of a span, if it has it.
func (v *View) Attr(at Place, k Key) (Text, bool) {
	s := v.chunks[at.chunk][at.off:]
	n, i := uvarint(s, behindFields(s))
	switch n {
	case noAttrs:
		return Text{}, false
	case noShape:
		if i = named(s, i, k); i == 0 {
			return Text{}, false
		}
	default:
		before := k.places[n-firstShape]
		if before < 0 {
			return Text{}, false
		}
		for range before {
			i = behindValue(s, i)
		}
	}
	if s[i] != otherValue {
		return v.text(s, i), true
	}
	r := reader{v: v, s: s[i+1:]}
	return Text{r.other(), None}, true
}

// named returns where the value of a key is among attributes that have their keys, 0 when it is not there.
func named(s string, i int, k Key) int {
	n, i := uvarint(s, i)
	for ; n > 0; n-- {
		var key uint64
		key, i = uvarint(s, i)
		mine := key == k.number
		if key == plainText {
			key, i = uvarint(s, i)
			mine = s[i:i+int(key)] == k.name
			i += int(key)
		}
		if mine {
			return i
		}
		i = behindValue(s, i)
	}
	return 0
}

// text reads the text at i of s.
func (v *View) text(s string, i int) Text {
	n, i := uvarint(s, i)
	if n >= firstText {
		return Text{telemetry.String(v.texts[n-firstText]), uint32(n - firstText)}
	}
	n, i = uvarint(s, i)
	return Text{telemetry.String(s[i : i+int(n)]), None}
}

// uvarint reads the number at i of s, and returns what is behind it.
func uvarint(s string, i int) (uint64, int) {
	if b := s[i]; b < 0x80 {
		return uint64(b), i + 1
	}
	n := uint64(0)
	for shift := 0; ; shift += 7 {
		b := s[i]
		i++
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n, i
		}
	}
}

// behindNumber, behindText and behindValue return what is behind such a thing at i of s.
func behindNumber(s string, i int) int {
	for s[i] >= 0x80 {
		i++
	}
	return i + 1
}

func behindText(s string, i int) int {
	first := s[i]
	i = behindNumber(s, i)
	if first == plainText {
		n, at := uvarint(s, i)
		i = at + int(n)
	}
	return i
}

func behindValue(s string, i int) int {
	if s[i] != otherValue {
		return behindText(s, i)
	}
	kind := telemetry.Kind(s[i+1])
	i += 2
	switch kind {
	case telemetry.KindEmpty:
		return i
	case telemetry.KindBool:
		return i + 1
	case telemetry.KindDouble:
		return i + 8
	case telemetry.KindInt:
		return behindNumber(s, i)
	default:
		n, at := uvarint(s, i)
		return at + int(n)
	}
}

// behindIDs returns where the duration of a span is.
func behindIDs(s string) int {
	if s[0]&hasParent != 0 {
		return 3 + 2*len(telemetry.SpanID{})
	}
	return 3 + len(telemetry.SpanID{})
}

// behindScope returns where the state of a span is, or what is there in its place.
func behindScope(s string) int {
	return behindNumber(s, behindText(s, behindNumber(s, behindIDs(s))))
}

// behindFields returns where the attributes of a span are.
func behindFields(s string) int {
	i, has := behindScope(s), s[0]
	if has&(hasState|hasMessage|hasFlags|hasDropped) == 0 {
		return i
	}
	if has&hasState != 0 {
		i = behindText(s, i)
	}
	if has&hasMessage != 0 {
		i = behindText(s, i)
	}
	if has&hasFlags != 0 {
		i = behindNumber(s, i)
	}
	if has&hasDropped != 0 {
		i = behindNumber(s, behindNumber(s, behindNumber(s, i)))
	}
	return i
}
