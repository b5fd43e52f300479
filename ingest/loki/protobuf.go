package loki

import (
	"errors"
	"math"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/wire"
)

// The numbers of the fields.
const (
	requestStreams = 1

	streamLabels  = 1
	streamEntries = 2

	entryTime     = 1
	entryLine     = 2
	entryMetadata = 3

	timeSeconds = 1
	timeNanos   = 2

	labelName  = 1
	labelValue = 2
)

var errWire = httpapi.BadDataf("the request is not the protobuf message that its content type names")

// protobuf decodes a push request.
func (d *decoder) protobuf(body string) error {
	err := wire.Fields(body, func(f wire.Field) error {
		if f.Num != requestStreams {
			return nil
		}
		if f.Type != wire.Bytes {
			return errWire
		}
		return d.protoStream(f.S)
	})
	if errors.Is(err, wire.ErrMalformed) {
		return errWire
	}
	return err
}

func (d *decoder) protoStream(m string) error {
	n, text := 0, ""
	err := wire.Fields(m, func(f wire.Field) error {
		switch {
		case f.Num != streamLabels && f.Num != streamEntries:
			return nil
		case f.Type != wire.Bytes:
			return errWire
		case f.Num == streamLabels:
			text = f.S
		default:
			n++
		}
		return nil
	})
	if err != nil || n == 0 {
		return err
	}
	if err := d.room.Take(n, 0); err != nil {
		return err
	}
	batch := d.stream(text, n, d.parseLabels)
	if batch == nil {
		return nil
	}
	return wire.Fields(m, func(f wire.Field) error {
		if f.Num != streamEntries {
			return nil
		}
		r, ok, err := d.protoEntry(f.S)
		if ok {
			batch.Logs = append(batch.Logs, r)
		}
		return err
	})
}

func (d *decoder) protoEntry(m string) (r telemetry.LogRecord, ok bool, err error) {
	var as []telemetry.Attr
	var sec int64
	var nanos int32
	err = wire.Fields(m, func(f wire.Field) error {
		if f.Num > entryMetadata {
			return nil
		}
		if f.Type != wire.Bytes {
			return errWire
		}
		switch f.Num {
		case entryTime:
			return wire.Fields(f.S, func(f wire.Field) error {
				switch {
				case f.Num > timeNanos:
					return nil
				case f.Type == wire.Bytes:
					return errWire
				case f.Num == timeSeconds:
					sec = int64(f.N)
				default:
					nanos = int32(f.N)
				}
				return nil
			})
		case entryLine:
			r.Body = telemetry.String(f.S)
		default: // entryMetadata
			var name, value string
			err := wire.Fields(f.S, func(f wire.Field) error {
				switch {
				case f.Num > labelValue:
					return nil
				case f.Type != wire.Bytes:
					return errWire
				case f.Num == labelName:
					name = f.S
				default:
					value = f.S
				}
				return nil
			})
			if err != nil {
				return err
			}
			as = append(as, telemetry.Attr{Key: name, Value: telemetry.String(value)})
			return d.room.Take(0, 64)
		}
		return nil
	})
	if err != nil {
		return r, false, err
	}
	if r.Body.IsZero() {
		r.Body = telemetry.String("")
	}
	if sec < math.MinInt64/int64(1e9)+1 || sec > math.MaxInt64/int64(1e9)-1 || nanos < 0 || nanos > 999_999_999 {
		d.refuse(reasonTime, 1, "the time of an entry is not within the years 1678 to 2262")
		return r, false, nil
	}
	r.Time = sec*1e9 + int64(nanos)
	r.Attrs = meta(as)
	return r, true, nil
}
