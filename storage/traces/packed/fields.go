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
	number uint64 // as it stands in a span; plainText when it has none
}

// Key returns a name to look for.
func (v *View) Key(name string) Key {
	if n := slices.Index(v.texts, name); n >= 0 {
		return Key{name, uint64(n) + firstText}
	}
	return Key{name, plainText}
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

// fields is what stands before the attributes of a span.
type fields struct {
	duration       int64
	name           Text
	scope          uint64 // one more than its number, 0 for none
	state, message Text
}

// fields reads up to the attributes.
func (v *View) fields(at Place) (f fields, rest reader) {
	r := reader{v: v, s: v.chunks[at.chunk][at.off:]}
	has := r.s[0]
	n := 3 + len(telemetry.SpanID{})
	if has&hasParent != 0 {
		n += len(telemetry.SpanID{})
	}
	r.s = r.s[n:]
	f.duration = r.varint()
	f.name = r.numbered()
	f.scope = r.uvarint()
	f.state = Text{telemetry.String(""), None}
	f.message = f.state
	if has&(hasState|hasMessage|hasFlags|hasDropped) == 0 {
		return f, r
	}
	if has&hasState != 0 {
		f.state = r.numbered()
	}
	if has&hasMessage != 0 {
		f.message = r.numbered()
	}
	if has&hasFlags != 0 {
		r.uvarint()
	}
	if has&hasDropped != 0 {
		r.uvarint()
		r.uvarint()
		r.uvarint()
	}
	return f, r
}

// numbered reads a text.
func (r *reader) numbered() Text {
	n := r.uvarint()
	if n >= firstText {
		return Text{telemetry.String(r.v.texts[n-firstText]), uint32(n - firstText)}
	}
	return Text{telemetry.String(r.take(int(r.uvarint()))), None}
}

// Duration returns how long a span took, in nanoseconds.
func (v *View) Duration(at Place) int64 {
	f, _ := v.fields(at)
	return f.duration
}

// Name returns the name of a span.
func (v *View) Name(at Place) Text {
	f, _ := v.fields(at)
	return f.name
}

// State returns the trace state of a span.
func (v *View) State(at Place) Text {
	if v.chunks[at.chunk][at.off]&hasState == 0 {
		return Text{telemetry.String(""), None}
	}
	f, _ := v.fields(at)
	return f.state
}

// Message returns the status message of a span.
func (v *View) Message(at Place) Text {
	if v.chunks[at.chunk][at.off]&hasMessage == 0 {
		return Text{telemetry.String(""), None}
	}
	f, _ := v.fields(at)
	return f.message
}

// Attr returns the value of an attribute of a span, if it has it.
func (v *View) Attr(at Place, k Key) (Text, bool) {
	_, r := v.fields(at)
	for range r.uvarint() {
		n := r.uvarint()
		mine := n == k.number
		if n == plainText {
			mine = r.take(int(r.uvarint())) == k.name
		}
		n = r.uvarint()
		switch {
		case n >= firstText:
			if mine {
				return Text{telemetry.String(v.texts[n-firstText]), uint32(n - firstText)}, true
			}
		case n == plainText:
			if text := r.take(int(r.uvarint())); mine {
				return Text{telemetry.String(text), None}, true
			}
		default:
			if value := r.other(); mine {
				return Text{value, None}, true
			}
		}
	}
	return Text{}, false
}
