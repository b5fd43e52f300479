package db

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	signalmetrics "github.com/braidobs/braid/storage/metrics"
)

// A log record is a version byte, a byte that says what it is, and its body, S2-compressed. See
// docs/format/record.md.
const (
	recordVersion = 1
	recordRequest = 1
	recordMask    = 2
	recordSourced = 3 // a request with sources
	recordSetting = 4
	recordSeries  = 5 // a request with series, which are told by numbers

	// maxRecordRaw bounds the unpacked size of a record.
	maxRecordRaw = 256 << 20
)

var errRecord = errors.New("log record is malformed")

// record is what one record of the log says: a request with the marks of its sources, a mask, or a setting.
type record struct {
	req     *storage.Request
	marks   []sourceMark
	mask    *storage.Mask
	setting *setting
}

func appendHeader(kind byte) []byte { return []byte{recordVersion, kind} }

// packing is memory that requests are written into before they are compressed; it is used again and again.
type packing struct{ body, packed []byte }

// maxPacking bounds what is kept of it.
const maxPacking = 8 << 20

// encodeRequest writes a request. Without numbers it tells its series by their labels.
func (d *DB) encodeRequest(req *storage.Request, entries []*signalmetrics.Entry, n *numbers) []byte {
	p, _ := d.packings.Get().(*packing)
	if p == nil {
		p = &packing{}
	}
	rec := p.encode(req, entries, n)
	if cap(p.packed) <= maxPacking {
		d.packings.Put(p)
	}
	return rec
}

func (p *packing) encode(req *storage.Request, entries []*signalmetrics.Entry, n *numbers) []byte {
	body := p.body[:0]
	kind := byte(recordRequest)
	marks := marksOf(req)
	switch {
	case n != nil:
		kind = recordSeries
		body = appendMarks(body, marks)
	case len(marks) > 0:
		kind = recordSourced
		body = appendMarks(body, marks)
	}
	body = append(body, req.Key[:]...)
	body = appendRejected(body, &req.Rejected)
	body = telemetry.AppendUvarint(body, uint64(len(req.Batches)))
	for i := range req.Batches {
		b := req.Batches[i]
		if n != nil {
			b.Series = nil
		}
		body = telemetry.AppendBatch(body, &b)
	}
	if n != nil {
		body = n.append(body, req.Batches, entries)
	}
	p.body = body
	if size := s2.MaxEncodedLen(len(body)); size > len(p.packed) {
		p.packed = make([]byte, size)
	}
	return append(appendHeader(kind), s2.Encode(p.packed, body)...)
}

func appendMarks(dst []byte, marks []sourceMark) []byte {
	dst = telemetry.AppendUvarint(dst, uint64(len(marks)))
	for _, m := range marks {
		dst = telemetry.AppendString(dst, string(m.tenant))
		dst = telemetry.AppendString(dst, m.stream)
		dst = telemetry.AppendString(dst, m.file)
		dst = telemetry.AppendUvarint(dst, m.to)
	}
	return dst
}

func readMarks(d *telemetry.Decoder) []sourceMark {
	var marks []sourceMark
	for range d.Count(4) {
		m := sourceMark{sourceKey{telemetry.Tenant(d.Str()), d.Str()}, fileMark{d.Str(), d.Uvarint()}}
		if d.Err() != nil {
			return nil
		}
		marks = append(marks, m)
	}
	return marks
}

func encodeSetting(s setting) []byte {
	return append(appendHeader(recordSetting), s2.Encode(nil, appendSetting(nil, s))...)
}

func appendRejected(dst []byte, r *storage.Rejected) []byte {
	dst = telemetry.AppendUvarint(dst, uint64(r.Spans))
	dst = telemetry.AppendUvarint(dst, uint64(r.Logs))
	dst = telemetry.AppendUvarint(dst, uint64(r.Samples))
	dst = telemetry.AppendUvarint(dst, uint64(len(r.Reasons)))
	for _, s := range r.Reasons {
		dst = telemetry.AppendString(dst, s)
	}
	return dst
}

func readRejected(d *telemetry.Decoder) storage.Rejected {
	r := storage.Rejected{Spans: int(d.Uvarint()), Logs: int(d.Uvarint()), Samples: int(d.Uvarint())}
	for range d.Count(1) {
		r.Reasons = append(r.Reasons, d.Str())
	}
	return r
}

// tellsSeries says whether a record may tell the labels of series that later ones speak of.
func tellsSeries(rec []byte) bool { return len(rec) > 1 && rec[1] == recordSeries }

func encodeMask(m *storage.Mask) []byte {
	return append(appendHeader(recordMask), s2.Encode(nil, appendMask(nil, m))...)
}

func appendMask(dst []byte, m *storage.Mask) []byte {
	dst = telemetry.AppendUvarint(dst, m.ID)
	dst = telemetry.AppendString(dst, string(m.Tenant))
	dst = append(dst, byte(m.Signal))
	dst = telemetry.AppendVarint(dst, m.Start)
	dst = telemetry.AppendVarint(dst, m.End)
	dst = telemetry.AppendUvarint(dst, uint64(len(m.Matchers)))
	for _, lm := range m.Matchers {
		dst = append(dst, byte(lm.Type))
		dst = telemetry.AppendString(dst, lm.Name)
		dst = telemetry.AppendString(dst, lm.Value)
	}
	dst = telemetry.AppendString(dst, m.Contains)
	dst = telemetry.AppendUvarint(dst, uint64(len(m.Traces)))
	for _, t := range m.Traces {
		dst = append(dst, t[:]...)
	}
	return dst
}

func readMask(d *telemetry.Decoder) *storage.Mask {
	m := &storage.Mask{ID: d.Uvarint(), Tenant: telemetry.Tenant(d.Str()), Signal: storage.Signal(d.Byte()), Start: d.Varint(), End: d.Varint()}
	for range d.Count(3) {
		kind, name, value := labels.MatchType(d.Byte()), d.Str(), d.Str()
		if kind < labels.MatchEqual || kind > labels.MatchNotRegexp {
			d.Fail("matcher of type %d", kind)
			return m
		}
		lm, err := labels.NewMatcher(kind, name, value)
		if err != nil {
			d.Fail("matcher: %v", err)
			return m
		}
		m.Matchers = append(m.Matchers, lm)
	}
	m.Contains = d.Str()
	for range d.Count(16) {
		m.Traces = append(m.Traces, d.TraceID())
	}
	return m
}

// decodeRecord reads a record; what it returns shares no memory with rec. Records with numbered series must be read in
// the order of the log with the same numbering.
func decodeRecord(rec []byte, n *numbering) (record, error) {
	if len(rec) < 2 || rec[0] != recordVersion {
		return record{}, fmt.Errorf("%w: no version %d", errRecord, recordVersion)
	}
	size, err := s2.DecodedLen(rec[2:])
	if err != nil || size > maxRecordRaw {
		return record{}, fmt.Errorf("%w: %d bytes unpacked: %w", errRecord, size, err)
	}
	body, err := s2.Decode(nil, rec[2:])
	if err != nil {
		return record{}, fmt.Errorf("%w: %w", errRecord, err)
	}
	d := telemetry.NewDecoderBytes(body)
	var r record
	switch rec[1] {
	case recordRequest, recordSourced, recordSeries:
		if rec[1] != recordRequest {
			r.marks = readMarks(d)
		}
		r.req = &storage.Request{}
		copy(r.req.Key[:], d.Take(len(r.req.Key)))
		r.req.Rejected = readRejected(d)
		for range d.Count(8) {
			if d.Err() != nil {
				break
			}
			r.req.Batches = append(r.req.Batches, d.Batch())
		}
		if rec[1] == recordSeries && d.Err() == nil {
			n.read(d, r.req.Batches)
		}
	case recordMask:
		r.mask = readMask(d)
	case recordSetting:
		s := readSetting(d)
		r.setting = &s
	default:
		return record{}, fmt.Errorf("%w: unknown kind %d", errRecord, rec[1])
	}
	if d.Err() == nil && d.Len() != 0 {
		d.Fail("%d bytes too many", d.Len())
	}
	if err := d.Err(); err != nil {
		return record{}, fmt.Errorf("%w: %w", errRecord, err)
	}
	return r, nil
}
