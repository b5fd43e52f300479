package otlp

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/braidobs/braid/internal/telemetry"
)

// errUnusual says that a request is malformed or written in a way that only pdata is asked about: a field of another wire
// type, a part
// given twice that protobuf says is to be merged, values nested too deep.
var errUnusual = errors.New("unusual protobuf")

// walker translates a protobuf request of traces without decoding it first. What it makes shares the memory of one copy of
// the request and of one slice of attributes.
type walker struct {
	attrs []telemetry.Attr // all so far
	list  []telemetry.Attr // those of the part that is being read, as they were sent
	// orders has, by their number, the order that sorted the last attributes: neighbours mostly have the same keys.
	orders [32][]uint8
}

// field is one field of a message: its number, and its value as a number or as bytes.
type field struct {
	num  uint64
	wire byte
	n    uint64
	s    string
}

// The wire types of protobuf.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// next reads one field of m and returns what follows it.
func next(m string) (f field, rest string, err error) {
	tag, m, ok := uvarint(m)
	f.num, f.wire = tag>>3, byte(tag&7)
	if !ok || f.num == 0 || f.num > math.MaxInt32>>2 {
		return f, "", errUnusual
	}
	switch f.wire {
	case wireVarint:
		if f.n, m, ok = uvarint(m); ok {
			return f, m, nil
		}
	case wireFixed64:
		if len(m) >= 8 {
			f.n = binary.LittleEndian.Uint64([]byte(m[:8]))
			return f, m[8:], nil
		}
	case wireBytes:
		if f.n, m, ok = uvarint(m); ok && f.n <= uint64(len(m)) {
			f.s = m[:f.n]
			return f, m[f.n:], nil
		}
	case wireFixed32:
		if len(m) >= 4 {
			f.n = uint64(binary.LittleEndian.Uint32([]byte(m[:4])))
			return f, m[4:], nil
		}
	}
	return f, "", errUnusual
}

func uvarint(s string) (n uint64, rest string, ok bool) {
	if len(s) > 0 && s[0] < 0x80 {
		return uint64(s[0]), s[1:], true
	}
	for i := 0; i < len(s) && i < binary.MaxVarintLen64; i++ {
		c := s[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			return 0, "", false
		}
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n, s[i+1:], true
		}
	}
	return 0, "", false
}

// fields calls f with each field of m.
func fields(m string, f func(field) error) error {
	for len(m) > 0 {
		x, rest, err := next(m)
		if err != nil {
			return err
		}
		if err := f(x); err != nil {
			return err
		}
		m = rest
	}
	return nil
}

// walkTraces is translateTraces for a request that is not decoded yet; attrs is how many attributes it has at most. An error
// says that the request must be decoded by pdata.
func walkTraces(body []byte, attrs int) (request, error) {
	w := walker{attrs: make([]telemetry.Attr, 0, attrs)}
	var req request
	var bs batches
	var scs scopes
	err := fields(string(body), func(f field) error {
		if f.num != 1 {
			return nil
		}
		if f.wire != wireBytes {
			return errUnusual
		}
		return w.resourceSpans(f.s, &req, &bs, &scs)
	})
	req.batches = bs.list
	return req, err
}

func (w *walker) resourceSpans(m string, req *request, bs *batches, scs *scopes) error {
	var resource, schema string
	resources, spans := 0, 0
	err := fields(m, func(f field) error {
		switch f.num {
		case 1:
			resource = f.s
			resources++
		case 2:
			n, err := countSpans(f.s)
			spans += n
			if err != nil {
				return err
			}
		case 3:
			schema = f.s
		default:
			return nil
		}
		return bytesOnly(f)
	})
	if err != nil {
		return err
	}
	if resources > 1 {
		return errUnusual
	}
	attrs, dropped, err := w.resource(resource)
	if err != nil {
		return err
	}
	var b *telemetry.Batch
	if spans > 0 {
		if i, err := bs.of(attrs, dropped, schema); err == nil {
			b = &bs.list[i]
			if b.Spans == nil {
				b.Spans = make([]telemetry.Span, 0, spans)
			}
		} else {
			req.rejectSpans(spans, err)
			b = &telemetry.Batch{} // the spans are still looked at
			req = &request{}
		}
	}
	return fields(m, func(f field) error {
		if f.num != 2 {
			return nil
		}
		return w.scopeSpans(f.s, req, b, scs)
	})
}

func bytesOnly(f field) error {
	if f.wire != wireBytes {
		return errUnusual
	}
	return nil
}

func countSpans(m string) (int, error) {
	n := 0
	err := fields(m, func(f field) error {
		if f.num == 2 {
			n++
			return bytesOnly(f)
		}
		return nil
	})
	return n, err
}

func (w *walker) resource(m string) (as telemetry.Attrs, dropped uint32, err error) {
	err = fields(m, func(f field) error {
		switch f.num {
		case 1:
			return w.attr(f)
		case 2:
			if f.wire != wireVarint {
				return errUnusual
			}
			dropped = uint32(f.n)
		case 3: // entities are not kept
			return bytesOnly(f)
		}
		return nil
	})
	return w.taken(), dropped, err
}

// taken returns the attributes that were read, and begins a new list.
func (w *walker) taken() telemetry.Attrs {
	n := len(w.list)
	if n == 0 {
		return nil
	}
	from := len(w.attrs)
	var order []uint8
	if n < len(w.orders) {
		order = w.orders[n]
		if order == nil || !sorted(w.list, order) {
			order = sorting(w.list, order)
			w.orders[n] = order
		}
	}
	if order == nil || !sorted(w.list, order) { // many, or some key twice
		w.attrs = append(w.attrs, w.list...)
		w.list = w.list[:0]
		return telemetry.NewAttrs(w.attrs[from:len(w.attrs):len(w.attrs)])
	}
	for _, i := range order {
		w.attrs = append(w.attrs, w.list[i])
	}
	w.list = w.list[:0]
	return w.attrs[from:len(w.attrs):len(w.attrs)]
}

// sorted says whether the keys rise strictly in the given order.
func sorted(as []telemetry.Attr, order []uint8) bool {
	for i := 1; i < len(order); i++ {
		if as[order[i-1]].Key >= as[order[i]].Key {
			return false
		}
	}
	return true
}

// sorting returns the order that sorts the keys.
func sorting(as []telemetry.Attr, order []uint8) []uint8 {
	order = order[:0]
	for i := range as {
		order = append(order, uint8(i))
	}
	slices.SortFunc(order, func(a, b uint8) int { return strings.Compare(as[a].Key, as[b].Key) })
	return order
}

func (w *walker) scopeSpans(m string, req *request, b *telemetry.Batch, scs *scopes) error {
	var scope, schema string
	given := 0
	err := fields(m, func(f field) error {
		switch f.num {
		case 1:
			scope = f.s
			given++
		case 2:
		case 3:
			schema = f.s
		default:
			return nil
		}
		return bytesOnly(f)
	})
	if err != nil {
		return err
	}
	if given > 1 {
		return errUnusual
	}
	sc, err := w.scope(scope, schema)
	if err != nil {
		return err
	}
	sc = scs.intern(sc)
	return fields(m, func(f field) error {
		if f.num != 2 {
			return nil
		}
		b.Spans = append(b.Spans, telemetry.Span{})
		s := &b.Spans[len(b.Spans)-1]
		if err := w.span(f.s, s); err != nil {
			b.Spans = b.Spans[:len(b.Spans)-1]
			if errors.Is(err, errUnusual) {
				return err
			}
			req.rejectSpans(1, err)
			return nil
		}
		req.timeless = req.timeless || s.Start == 0
		s.Scope = sc
		return nil
	})
}

func (w *walker) scope(m, schema string) (*telemetry.Scope, error) {
	sc := &telemetry.Scope{SchemaURL: schema}
	err := fields(m, func(f field) error {
		switch f.num {
		case 1:
			sc.Name = f.s
		case 2:
			sc.Version = f.s
		case 3:
			return w.attr(f)
		case 4:
			sc.Dropped = uint32(f.n)
			if f.wire != wireVarint {
				return errUnusual
			}
			return nil
		default:
			return nil
		}
		return bytesOnly(f)
	})
	sc.Attrs = w.taken()
	return sc, err
}

// span fills s, which is empty.
func (w *walker) span(m string, s *telemetry.Span) error {
	events, links, statuses := 0, 0, 0
	for rest := m; len(rest) > 0; {
		var f field
		var err error
		if f, rest, err = next(rest); err != nil {
			return err
		}
		want := byte(wireBytes)
		switch f.num {
		case 1:
			err = takeID(s.TraceID[:], f.s)
		case 2:
			err = takeID(s.SpanID[:], f.s)
		case 3:
			s.State = f.s
		case 4:
			err = takeID(s.ParentID[:], f.s)
		case 5:
			s.Name = f.s
		case 6:
			want = wireVarint
			n, err := enum(f, int32(telemetry.SpanKindConsumer))
			if err != nil {
				return err
			}
			s.Kind = telemetry.SpanKind(n)
		case 7:
			want = wireFixed64
			s.Start = int64(min(f.n, math.MaxInt64))
		case 8:
			want = wireFixed64
			s.End = int64(min(f.n, math.MaxInt64))
		case 9:
			err = w.attr(f)
		case 10:
			want = wireVarint
			s.DroppedAttrs = uint32(f.n)
		case 11:
			events++
		case 12:
			want = wireVarint
			s.DroppedEvents = uint32(f.n)
		case 13:
			links++
		case 14:
			want = wireVarint
			s.DroppedLinks = uint32(f.n)
		case 15:
			statuses++
			err = takeStatus(f.s, s)
		case 16:
			want = wireFixed32
			s.Flags = uint32(f.n)
		default:
			continue
		}
		if err != nil {
			return err
		}
		if f.wire != want {
			return errUnusual
		}
	}
	if statuses > 1 {
		return errUnusual
	}
	s.Attrs = w.taken()
	if events+links > 0 {
		if err := w.parts(m, s, events, links); err != nil {
			return err
		}
	}
	switch {
	case s.TraceID.IsZero():
		return errTraceID
	case s.SpanID.IsZero():
		return errSpanID
	default:
		return nil
	}
}

// enum returns a number from 0 to last, and 0 for others.
func enum(f field, last int32) (int32, error) {
	if f.n <= uint64(last) {
		return int32(f.n), nil
	}
	if n := int32(f.n); n >= 0 && n <= last {
		return 0, errUnusual // bits that an int32 has no place for
	}
	return 0, nil
}

func takeID(dst []byte, s string) error {
	if len(s) != 0 && len(s) != len(dst) {
		return errUnusual
	}
	clear(dst)
	copy(dst, s)
	return nil
}

func takeStatus(m string, s *telemetry.Span) error {
	return fields(m, func(f field) error {
		switch f.num {
		case 2:
			s.StatusMessage = f.s
			return bytesOnly(f)
		case 3:
			n, err := enum(f, int32(telemetry.StatusError))
			if f.wire != wireVarint {
				err = errUnusual
			}
			s.Status = telemetry.StatusCode(n)
			return err
		}
		return nil
	})
}

// parts reads the events and links of a span.
func (w *walker) parts(m string, s *telemetry.Span, events, links int) error {
	if events > 0 {
		s.Events = make([]telemetry.Event, 0, events)
	}
	if links > 0 {
		s.Links = make([]telemetry.Link, 0, links)
	}
	return fields(m, func(f field) error {
		switch f.num {
		case 11:
			s.Events = append(s.Events, telemetry.Event{})
			return w.event(f.s, &s.Events[len(s.Events)-1])
		case 13:
			s.Links = append(s.Links, telemetry.Link{})
			return w.link(f.s, &s.Links[len(s.Links)-1])
		}
		return nil
	})
}

func (w *walker) event(m string, e *telemetry.Event) error {
	err := fields(m, func(f field) error {
		want := byte(wireBytes)
		switch f.num {
		case 1:
			want = wireFixed64
			e.Time = int64(min(f.n, math.MaxInt64))
		case 2:
			e.Name = f.s
		case 3:
			return w.attr(f)
		case 4:
			want = wireVarint
			e.Dropped = uint32(f.n)
		default:
			return nil
		}
		if f.wire != want {
			return errUnusual
		}
		return nil
	})
	e.Attrs = w.taken()
	return err
}

func (w *walker) link(m string, l *telemetry.Link) error {
	err := fields(m, func(f field) error {
		want := byte(wireBytes)
		var err error
		switch f.num {
		case 1:
			err = takeID(l.TraceID[:], f.s)
		case 2:
			err = takeID(l.SpanID[:], f.s)
		case 3:
			l.State = f.s
		case 4:
			return w.attr(f)
		case 5:
			want = wireVarint
			l.Dropped = uint32(f.n)
		case 6:
			want = wireFixed32
			l.Flags = uint32(f.n)
		default:
			return nil
		}
		if f.wire != want {
			return errUnusual
		}
		return err
	})
	l.Attrs = w.taken()
	return err
}

// attr adds an attribute.
func (w *walker) attr(f field) error {
	a, err := pair(f, 0)
	w.list = append(w.list, a)
	return err
}

// pair reads an attribute that stands within depth arrays and maps.
func pair(f field, depth int) (a telemetry.Attr, err error) {
	if f.wire != wireBytes {
		return a, errUnusual
	}
	values := 0
	for m := f.s; len(m) > 0; {
		var x field
		if x, m, err = next(m); err != nil {
			return a, err
		}
		switch x.num {
		case 1:
			a.Key = x.s
		case 2:
			if values++; values > 1 {
				return a, errUnusual
			}
			if a.Value, err = anyOf(x.s, depth); err != nil {
				return a, err
			}
		default:
			return a, errUnusual
		}
		if x.wire != wireBytes {
			return a, errUnusual
		}
	}
	return a, nil
}

// anyOf reads a value that stands within depth arrays and maps.
func anyOf(m string, depth int) (v telemetry.Value, err error) {
	for len(m) > 0 {
		var f field
		if f, m, err = next(m); err != nil {
			return v, err
		}
		want := byte(wireBytes)
		switch f.num {
		case 1:
			v = telemetry.String(f.s)
		case 2:
			want = wireVarint
			v = telemetry.Bool(f.n != 0)
		case 3:
			want = wireVarint
			v = telemetry.Int(int64(f.n))
		case 4:
			want = wireFixed64
			v = telemetry.Double(math.Float64frombits(f.n))
		case 5:
			v, err = array(f.s, depth)
		case 6:
			v, err = dictionary(f.s, depth)
		case 7:
			v = telemetry.Bytes([]byte(f.s))
		default:
			return v, errUnusual
		}
		if f.wire != want {
			return v, errUnusual
		}
		if err != nil {
			return v, err
		}
	}
	return v, nil
}

func array(m string, depth int) (telemetry.Value, error) {
	if depth >= telemetry.MaxDepth {
		return telemetry.Value{}, errUnusual
	}
	var vs []telemetry.Value
	err := fields(m, func(f field) error {
		if f.num != 1 {
			return nil
		}
		v, err := anyOf(f.s, depth+1)
		vs = append(vs, v)
		return errors.Join(bytesOnly(f), err)
	})
	return telemetry.Array(vs), err
}

func dictionary(m string, depth int) (telemetry.Value, error) {
	if depth >= telemetry.MaxDepth {
		return telemetry.Value{}, errUnusual
	}
	var as []telemetry.Attr
	err := fields(m, func(f field) error {
		if f.num != 1 {
			return nil
		}
		a, err := pair(f, depth+1)
		as = append(as, a)
		return err
	})
	return telemetry.Map(telemetry.NewAttrs(as)), err
}
