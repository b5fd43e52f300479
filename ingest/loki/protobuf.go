package loki

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
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

// fields calls f for each field of a message: with its bytes, or its number.
func fields(m string, f func(num protowire.Number, n uint64, b string, isBytes bool) error) error {
	for len(m) > 0 {
		tag, k := uvarint(m)
		num := tag >> 3
		if k == 0 || num == 0 || num > 1<<29-1 {
			return errWire
		}
		m = m[k:]
		var n uint64
		var b string
		switch protowire.Type(tag & 7) {
		case protowire.VarintType:
			if n, k = uvarint(m); k == 0 {
				return errWire
			}
		case protowire.BytesType:
			size, head := uvarint(m)
			if head == 0 || size > uint64(len(m)-head) {
				return errWire
			}
			k = head + int(size)
			b = m[head:k]
		case protowire.Fixed32Type:
			k = 4
		case protowire.Fixed64Type:
			k = 8
		default: // groups, which the message never had
			return errWire
		}
		if k > len(m) {
			return errWire
		}
		m = m[k:]
		if err := f(protowire.Number(num), n, b, protowire.Type(tag&7) == protowire.BytesType); err != nil {
			return err
		}
	}
	return nil
}

// uvarint reads a number and returns how many bytes it has, 0 when it is none.
func uvarint(s string) (n uint64, size int) {
	for i := 0; i < len(s) && i < 10; i++ {
		c := s[i]
		if c < 0x80 {
			if i == 9 && c > 1 {
				return 0, 0
			}
			return n | uint64(c)<<(7*i), i + 1
		}
		n |= uint64(c&0x7f) << (7 * i)
	}
	return 0, 0
}

// protobuf decodes a push request.
func (d *decoder) protobuf(body string) error {
	return fields(body, func(num protowire.Number, _ uint64, b string, isBytes bool) error {
		if num != requestStreams {
			return nil
		}
		if !isBytes {
			return errWire
		}
		return d.protoStream(b)
	})
}

func (d *decoder) protoStream(m string) error {
	n, text := 0, ""
	err := fields(m, func(num protowire.Number, _ uint64, b string, isBytes bool) error {
		switch {
		case num != streamLabels && num != streamEntries:
			return nil
		case !isBytes:
			return errWire
		case num == streamLabels:
			text = b
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
	return fields(m, func(num protowire.Number, _ uint64, b string, _ bool) error {
		if num != streamEntries {
			return nil
		}
		r, ok, err := d.protoEntry(b)
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
	err = fields(m, func(num protowire.Number, _ uint64, b string, isBytes bool) error {
		if num > entryMetadata {
			return nil
		}
		if !isBytes {
			return errWire
		}
		switch num {
		case entryTime:
			return fields(b, func(num protowire.Number, n uint64, _ string, isBytes bool) error {
				switch {
				case num > timeNanos:
					return nil
				case isBytes:
					return errWire
				case num == timeSeconds:
					sec = int64(n)
				default:
					nanos = int32(n)
				}
				return nil
			})
		case entryLine:
			r.Body = telemetry.String(b)
		default: // entryMetadata
			var name, value string
			err := fields(b, func(num protowire.Number, _ uint64, b string, isBytes bool) error {
				switch {
				case num > labelValue:
					return nil
				case !isBytes:
					return errWire
				case num == labelName:
					name = b
				default:
					value = b
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
