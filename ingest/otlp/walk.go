package otlp

import (
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/wire"
)

// errUnusual says that a request is malformed or written in a way that only pdata is asked about: a field of another wire
// type, a part given twice that protobuf says is to be merged, values nested too deep.
var errUnusual = errors.New("unusual protobuf")

// walker translates a protobuf request of traces without decoding it first. What it makes shares the memory of one copy of
// the request and of one slice of attributes.
type walker struct {
	attrs []telemetry.Attr // all so far
	list  []telemetry.Attr // those of the part that is being read, as they were sent
	// orders has, by their number, the order that sorted the last attributes: neighbours mostly have the same keys.
	orders [32][]uint8
}

// walkTraces is translateTraces for a request that is not decoded yet; attrs is how many attributes it has at most. An error
// says that the request must be decoded by pdata.
func walkTraces(body []byte, attrs int) (request, error) {
	w := walker{attrs: make([]telemetry.Attr, 0, attrs)}
	var req request
	var bs batches
	var scs scopes
	err := wire.Fields(string(body), func(f wire.Field) error {
		if f.Num != 1 {
			return nil
		}
		if f.Type != wire.Bytes {
			return errUnusual
		}
		return w.resourceSpans(f.S, &req, &bs, &scs)
	})
	req.batches = bs.list
	return req, err
}

func (w *walker) resourceSpans(m string, req *request, bs *batches, scs *scopes) error {
	var resource, schema string
	resources, spans := 0, 0
	err := wire.Fields(m, func(f wire.Field) error {
		switch f.Num {
		case 1:
			resource = f.S
			resources++
		case 2:
			n, err := countSpans(f.S)
			spans += n
			if err != nil {
				return err
			}
		case 3:
			schema = f.S
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
	return wire.Fields(m, func(f wire.Field) error {
		if f.Num != 2 {
			return nil
		}
		return w.scopeSpans(f.S, req, b, scs)
	})
}

func bytesOnly(f wire.Field) error {
	if f.Type != wire.Bytes {
		return errUnusual
	}
	return nil
}

func countSpans(m string) (int, error) {
	n := 0
	err := wire.Fields(m, func(f wire.Field) error {
		if f.Num == 2 {
			n++
			return bytesOnly(f)
		}
		return nil
	})
	return n, err
}

func (w *walker) resource(m string) (as telemetry.Attrs, dropped uint32, err error) {
	err = wire.Fields(m, func(f wire.Field) error {
		switch f.Num {
		case 1:
			return w.attr(f)
		case 2:
			if f.Type != wire.Varint {
				return errUnusual
			}
			dropped = uint32(f.N)
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
	err := wire.Fields(m, func(f wire.Field) error {
		switch f.Num {
		case 1:
			scope = f.S
			given++
		case 2:
		case 3:
			schema = f.S
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
	return wire.Fields(m, func(f wire.Field) error {
		if f.Num != 2 {
			return nil
		}
		b.Spans = append(b.Spans, telemetry.Span{})
		s := &b.Spans[len(b.Spans)-1]
		if err := w.span(f.S, s); err != nil {
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
	err := wire.Fields(m, func(f wire.Field) error {
		switch f.Num {
		case 1:
			sc.Name = f.S
		case 2:
			sc.Version = f.S
		case 3:
			return w.attr(f)
		case 4:
			sc.Dropped = uint32(f.N)
			if f.Type != wire.Varint {
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
		var f wire.Field
		var err error
		if f, rest, err = wire.Next(rest); err != nil {
			return err
		}
		want := wire.Bytes
		switch f.Num {
		case 1:
			err = takeID(s.TraceID[:], f.S)
		case 2:
			err = takeID(s.SpanID[:], f.S)
		case 3:
			s.State = f.S
		case 4:
			err = takeID(s.ParentID[:], f.S)
		case 5:
			s.Name = f.S
		case 6:
			want = wire.Varint
			n, err := enum(f, int32(telemetry.SpanKindConsumer))
			if err != nil {
				return err
			}
			s.Kind = telemetry.SpanKind(n)
		case 7:
			want = wire.Fixed64
			s.Start = int64(min(f.N, math.MaxInt64))
		case 8:
			want = wire.Fixed64
			s.End = int64(min(f.N, math.MaxInt64))
		case 9:
			err = w.attr(f)
		case 10:
			want = wire.Varint
			s.DroppedAttrs = uint32(f.N)
		case 11:
			events++
		case 12:
			want = wire.Varint
			s.DroppedEvents = uint32(f.N)
		case 13:
			links++
		case 14:
			want = wire.Varint
			s.DroppedLinks = uint32(f.N)
		case 15:
			statuses++
			err = takeStatus(f.S, s)
		case 16:
			want = wire.Fixed32
			s.Flags = uint32(f.N)
		default:
			continue
		}
		if err != nil {
			return err
		}
		if f.Type != want {
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
func enum(f wire.Field, last int32) (int32, error) {
	if f.N <= uint64(last) {
		return int32(f.N), nil
	}
	if n := int32(f.N); n >= 0 && n <= last {
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
	return wire.Fields(m, func(f wire.Field) error {
		switch f.Num {
		case 2:
			s.StatusMessage = f.S
			return bytesOnly(f)
		case 3:
			n, err := enum(f, int32(telemetry.StatusError))
			if f.Type != wire.Varint {
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
	return wire.Fields(m, func(f wire.Field) error {
		switch f.Num {
		case 11:
			s.Events = append(s.Events, telemetry.Event{})
			return w.event(f.S, &s.Events[len(s.Events)-1])
		case 13:
			s.Links = append(s.Links, telemetry.Link{})
			return w.link(f.S, &s.Links[len(s.Links)-1])
		}
		return nil
	})
}

func (w *walker) event(m string, e *telemetry.Event) error {
	err := wire.Fields(m, func(f wire.Field) error {
		want := wire.Bytes
		switch f.Num {
		case 1:
			want = wire.Fixed64
			e.Time = int64(min(f.N, math.MaxInt64))
		case 2:
			e.Name = f.S
		case 3:
			return w.attr(f)
		case 4:
			want = wire.Varint
			e.Dropped = uint32(f.N)
		default:
			return nil
		}
		if f.Type != want {
			return errUnusual
		}
		return nil
	})
	e.Attrs = w.taken()
	return err
}

func (w *walker) link(m string, l *telemetry.Link) error {
	err := wire.Fields(m, func(f wire.Field) error {
		want := wire.Bytes
		var err error
		switch f.Num {
		case 1:
			err = takeID(l.TraceID[:], f.S)
		case 2:
			err = takeID(l.SpanID[:], f.S)
		case 3:
			l.State = f.S
		case 4:
			return w.attr(f)
		case 5:
			want = wire.Varint
			l.Dropped = uint32(f.N)
		case 6:
			want = wire.Fixed32
			l.Flags = uint32(f.N)
		default:
			return nil
		}
		if f.Type != want {
			return errUnusual
		}
		return err
	})
	l.Attrs = w.taken()
	return err
}

// attr adds an attribute.
func (w *walker) attr(f wire.Field) error {
	a, err := pair(f, 0)
	w.list = append(w.list, a)
	return err
}

// pair reads an attribute that stands within depth arrays and maps.
func pair(f wire.Field, depth int) (a telemetry.Attr, err error) {
	if f.Type != wire.Bytes {
		return a, errUnusual
	}
	values := 0
	for m := f.S; len(m) > 0; {
		var x wire.Field
		if x, m, err = wire.Next(m); err != nil {
			return a, err
		}
		switch x.Num {
		case 1:
			a.Key = x.S
		case 2:
			if values++; values > 1 {
				return a, errUnusual
			}
			if a.Value, err = anyOf(x.S, depth); err != nil {
				return a, err
			}
		default:
			return a, errUnusual
		}
		if x.Type != wire.Bytes {
			return a, errUnusual
		}
	}
	return a, nil
}

// anyOf reads a value that stands within depth arrays and maps.
func anyOf(m string, depth int) (v telemetry.Value, err error) {
	for len(m) > 0 {
		var f wire.Field
		if f, m, err = wire.Next(m); err != nil {
			return v, err
		}
		want := wire.Bytes
		switch f.Num {
		case 1:
			v = telemetry.String(f.S)
		case 2:
			want = wire.Varint
			v = telemetry.Bool(f.N != 0)
		case 3:
			want = wire.Varint
			v = telemetry.Int(int64(f.N))
		case 4:
			want = wire.Fixed64
			v = telemetry.Double(math.Float64frombits(f.N))
		case 5:
			v, err = array(f.S, depth)
		case 6:
			v, err = dictionary(f.S, depth)
		case 7:
			v = telemetry.Bytes([]byte(f.S))
		default:
			return v, errUnusual
		}
		if f.Type != want {
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
	err := wire.Fields(m, func(f wire.Field) error {
		if f.Num != 1 {
			return nil
		}
		v, err := anyOf(f.S, depth+1)
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
	err := wire.Fields(m, func(f wire.Field) error {
		if f.Num != 1 {
			return nil
		}
		a, err := pair(f, depth+1)
		as = append(as, a)
		return err
	})
	return telemetry.Map(telemetry.NewAttrs(as)), err
}
