package packed

import "github.com/braidobs/braid/internal/telemetry"

// View is what a Spans holds at some time. It is safe for concurrent use.
type View struct {
	chunks []string
	texts  []string
	shapes [][]uint32
	scopes []*telemetry.Scope
}

// View returns what s holds now. It must not be called while Add is.
func (s *Spans) View() View {
	return View{chunks: s.chunks, texts: s.texts, shapes: s.shapes, scopes: s.scopes}
}

// Span sets all of sp to the span at a place, whose trace ID and start are given, and appends its attributes to as, which it
// returns. Strings share the memory of v, slices that of as.
func (v *View) Span(at Place, id telemetry.TraceID, start int64, sp *telemetry.Span, as telemetry.Attrs) telemetry.Attrs {
	r := reader{v: v, s: v.chunks[at.chunk][at.off:], as: as}
	has := r.byte()
	*sp = telemetry.Span{TraceID: id, Start: start, Kind: telemetry.SpanKind(r.byte()), Status: telemetry.StatusCode(r.byte())}
	copy(sp.SpanID[:], r.take(len(sp.SpanID)))
	if has&hasParent != 0 {
		copy(sp.ParentID[:], r.take(len(sp.ParentID)))
	}
	sp.End = start + r.varint()
	sp.Name = r.text()
	if n := r.uvarint(); n > 0 {
		sp.Scope = v.scopes[n-1]
	}
	if has&hasState != 0 {
		sp.State = r.text()
	}
	if has&hasMessage != 0 {
		sp.StatusMessage = r.text()
	}
	if has&hasFlags != 0 {
		sp.Flags = uint32(r.uvarint())
	}
	if has&hasDropped != 0 {
		sp.DroppedAttrs, sp.DroppedEvents, sp.DroppedLinks = uint32(r.uvarint()), uint32(r.uvarint()), uint32(r.uvarint())
	}
	sp.Attrs = r.attrs()
	if has&hasEvents != 0 {
		sp.Events = make([]telemetry.Event, r.uvarint())
		for i := range sp.Events {
			sp.Events[i] = telemetry.Event{Time: start + r.varint(), Name: r.text(), Dropped: uint32(r.uvarint()), Attrs: r.attrs()}
		}
	}
	if has&hasLinks != 0 {
		sp.Links = make([]telemetry.Link, r.uvarint())
		for i := range sp.Links {
			l := &sp.Links[i]
			copy(l.TraceID[:], r.take(len(l.TraceID)))
			copy(l.SpanID[:], r.take(len(l.SpanID)))
			l.State, l.Flags, l.Dropped = r.text(), uint32(r.uvarint()), uint32(r.uvarint())
			l.Attrs = r.attrs()
		}
	}
	return r.as
}

// reader reads what Spans wrote.
type reader struct {
	v  *View
	s  string // the rest
	as telemetry.Attrs
}

func (r *reader) byte() byte {
	b := r.s[0]
	r.s = r.s[1:]
	return b
}

func (r *reader) take(n int) string {
	s := r.s[:n]
	r.s = r.s[n:]
	return s
}

func (r *reader) uvarint() uint64 {
	if b := r.s[0]; b < 0x80 {
		r.s = r.s[1:]
		return uint64(b)
	}
	n := uint64(0)
	for i := 0; ; i++ {
		b := r.s[i]
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			r.s = r.s[i+1:]
			return n
		}
	}
}

func (r *reader) varint() int64 {
	n := r.uvarint()
	return int64(n>>1) ^ -int64(n&1)
}

func (r *reader) text() string {
	n := r.uvarint()
	if n >= firstText {
		return r.v.texts[n-firstText]
	}
	return r.take(int(r.uvarint()))
}

func (r *reader) value() telemetry.Value {
	switch n := r.uvarint(); n {
	case otherValue:
		return r.other()
	case plainText:
		return telemetry.String(r.take(int(r.uvarint())))
	default:
		return telemetry.String(r.v.texts[n-firstText])
	}
}

// other reads a value that is no text.
func (r *reader) other() telemetry.Value {
	if telemetry.Kind(r.s[0]) == telemetry.KindInt {
		r.s = r.s[1:]
		return telemetry.Int(r.varint())
	}
	d := telemetry.NewDecoder(r.s)
	v := d.Value()
	r.s = r.s[d.Offset():]
	return v
}

func (r *reader) attrs() telemetry.Attrs {
	from := len(r.as)
	switch n := r.uvarint(); n {
	case noAttrs:
		return nil
	case noShape:
		for range r.uvarint() {
			r.as = append(r.as, telemetry.Attr{Key: r.text(), Value: r.value()})
		}
	default:
		for _, k := range r.v.shapes[n-firstShape] {
			r.as = append(r.as, telemetry.Attr{Key: r.v.texts[k], Value: r.value()})
		}
	}
	return r.as[from:len(r.as):len(r.as)]
}
