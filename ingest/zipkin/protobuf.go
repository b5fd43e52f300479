package zipkin

import (
	"net/netip"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/wire"
)

// protobuf decodes a ListOfSpans of zipkin.proto3.
func (d *decoder) protobuf(body string) error {
	err := wire.Fields(body, func(f wire.Field) error {
		if f.Num != 1 || f.Type != wire.Bytes {
			return nil
		}
		if err := d.room.Take(0, spanSize); err != nil {
			return err
		}
		z := &span{}
		if err := z.read(f.S); err != nil {
			return httpapi.BadDataf("the request is malformed, span %d: %w", d.n+1, err)
		}
		d.add(z)
		return nil
	})
	if err != nil {
		if _, ok := err.(*httpapi.Error); !ok { //nolint:errorlint // it is not wrapped
			return httpapi.BadDataf("the request is malformed: %w", err)
		}
	}
	return err
}

// read reads a Span. Fields of another type than theirs are ignored, like those that are not known.
func (z *span) read(m string) error {
	err := wire.Fields(m, func(f wire.Field) error {
		switch {
		case f.Num == 1 && f.Type == wire.Bytes:
			z.trace = f.S
		case f.Num == 2 && f.Type == wire.Bytes:
			z.parent = f.S
		case f.Num == 3 && f.Type == wire.Bytes:
			z.id = f.S
		case f.Num == 4 && f.Type == wire.Varint:
			kinds := [...]telemetry.SpanKind{0, telemetry.SpanKindClient, telemetry.SpanKindServer, telemetry.SpanKindProducer, telemetry.SpanKindConsumer}
			if f.N < uint64(len(kinds)) {
				z.kind = kinds[f.N]
			}
		case f.Num == 5 && f.Type == wire.Bytes:
			z.name = f.S
		case f.Num == 6 && f.Type == wire.Fixed64:
			z.at = f.N
		case f.Num == 7 && f.Type == wire.Varint:
			z.duration = f.N
		case f.Num == 8 && f.Type == wire.Bytes:
			return z.local.read(f.S)
		case f.Num == 9 && f.Type == wire.Bytes:
			return z.remote.read(f.S)
		case f.Num == 10 && f.Type == wire.Bytes:
			return z.readNote(f.S)
		case f.Num == 11 && f.Type == wire.Bytes:
			return z.readTag(f.S)
		case f.Num == 12 && f.Type == wire.Varint:
			z.debug = f.N != 0
		case f.Num == 13 && f.Type == wire.Varint:
			z.shared = f.N != 0
		}
		return nil
	})
	z.notes = sorted(z.notes)
	z.tags = telemetry.NewAttrs(z.tags)
	return err
}

func (e *endpoint) read(m string) error {
	return wire.Fields(m, func(f wire.Field) error {
		switch {
		case f.Num == 1 && f.Type == wire.Bytes:
			e.service = f.S
		case (f.Num == 2 || f.Num == 3) && f.Type == wire.Bytes:
			if a, ok := netip.AddrFromSlice([]byte(f.S)); ok && !e.addr.IsValid() {
				e.addr = a
			}
		case f.Num == 4 && f.Type == wire.Varint:
			e.port = int64(int32(f.N))
		}
		return nil
	})
}

func (z *span) readNote(m string) error {
	var n note
	err := wire.Fields(m, func(f wire.Field) error {
		switch {
		case f.Num == 1 && f.Type == wire.Fixed64:
			n.at = f.N
		case f.Num == 2 && f.Type == wire.Bytes:
			n.value = f.S
		}
		return nil
	})
	z.notes = append(z.notes, n)
	return err
}

func (z *span) readTag(m string) error {
	var k, v string
	err := wire.Fields(m, func(f wire.Field) error {
		switch {
		case f.Num == 1 && f.Type == wire.Bytes:
			k = f.S
		case f.Num == 2 && f.Type == wire.Bytes:
			v = f.S
		}
		return nil
	})
	z.tags = append(z.tags, telemetry.Attr{Key: k, Value: telemetry.String(v)})
	return err
}
