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

// after returns a reader of what stands behind the IDs of a span.
func (v *View) after(at Place) (r reader, has byte) {
	r = reader{v: v, s: v.chunks[at.chunk][at.off:]}
	has = r.s[0]
	n := 3 + len(telemetry.SpanID{})
	if has&hasParent != 0 {
		n += len(telemetry.SpanID{})
	}
	r.s = r.s[n:]
	return r, has
}

// skip passes over a text.
func (r *reader) skip() {
	if n := r.uvarint(); n < firstText {
		r.take(int(r.uvarint()))
	}
}

// rare passes over what few spans have before their attributes.
func (r *reader) rare(has byte) {
	if has&hasState != 0 {
		r.skip()
	}
	if has&hasMessage != 0 {
		r.skip()
	}
	if has&hasFlags != 0 {
		r.uvarint()
	}
	if has&hasDropped != 0 {
		for range 3 {
			r.uvarint()
		}
	}
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
	r, _ := v.after(at)
	return r.varint()
}

// Name returns the name of a span.
func (v *View) Name(at Place) Text {
	r, _ := v.after(at)
	r.uvarint()
	return r.numbered()
}

// State returns the trace state of a span.
func (v *View) State(at Place) Text {
	if v.chunks[at.chunk][at.off]&hasState == 0 {
		return Text{telemetry.String(""), None}
	}
	r, _ := v.after(at)
	r.uvarint()
	r.skip()
	r.uvarint()
	return r.numbered()
}

// Message returns the status message of a span.
func (v *View) Message(at Place) Text {
	r, has := v.after(at)
	if has&hasMessage == 0 {
		return Text{telemetry.String(""), None}
	}
	r.uvarint()
	r.skip()
	r.uvarint()
	if has&hasState != 0 {
		r.skip()
	}
	return r.numbered()
}

// Attr returns the value of an attribute of a span, if it has it.
func (v *View) Attr(at Place, k Key) (Text, bool) {
	r, has := v.after(at)
	r.uvarint()
	r.skip()
	r.uvarint()
	if has&(hasState|hasMessage|hasFlags|hasDropped) != 0 {
		r.rare(has)
	}
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
		case !mine && telemetry.Kind(r.s[0]) == telemetry.KindInt:
			r.s = r.s[1:]
			r.uvarint()
		default:
			if value := r.other(); mine {
				return Text{value, None}, true
			}
		}
	}
	return Text{}, false
}
