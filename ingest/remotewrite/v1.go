package remotewrite

import (
	"encoding/binary"
	"math"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/telemetry"
)

// First bytes of fields that every sender writes.
const (
	tagSeries  = 1<<3 | wireBytes // of a request of version 1
	tagLabel   = 1<<3 | wireBytes // of a series of version 1
	tagSample  = 2<<3 | wireBytes // of a series, in both versions
	tagValue   = 1<<3 | wireFixed8
	tagTime    = 2<<3 | wireVarint
	tagSymbol  = 4<<3 | wireBytes // of a request of version 2
	tagSeries2 = 5<<3 | wireBytes // of a request of version 2
	tagRefs    = 1<<3 | wireBytes // of a series of version 2
	sampleSize = 9                // of a value, before the time
)

// version1 decodes a prometheus.WriteRequest.
func (d *decoder) version1(body []byte) error {
	d.reserve(guess(body), len(body))
	for i := 0; i < len(body); {
		if body[i] == tagSeries {
			n, j := uvarint(body, i+1)
			if j == 0 || n > uint64(len(body)-j) {
				return errWire
			}
			i = j + int(n)
			if err := d.series1(body[j:i:i]); err != nil {
				return err
			}
			continue
		}
		f, end, err := next(body, i)
		if err != nil {
			return err
		}
		i = end
		switch f.num {
		case 1:
			if err = f.is(wireBytes); err == nil {
				err = d.series1(f.b)
			}
		case 3:
			if err = f.is(wireBytes); err == nil {
				err = d.family(f.b)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// guess returns about how many series a request of version 1 has, from the sizes of the first ones.
func guess(body []byte) int {
	n, i := 0, 0
	for ; n < 64 && i < len(body); n++ {
		_, end, err := next(body, i)
		if err != nil {
			return n
		}
		i = end
	}
	if i == len(body) {
		return n
	}
	return n * len(body) / i * 17 / 16
}

// series1 decodes a prometheus.TimeSeries.
func (d *decoder) series1(m []byte) error {
	if err := d.spend(seriesCost); err != nil {
		return err
	}
	i := 0
	for i < len(m) && m[i] == tagLabel { // all known senders write the labels first, one after another
		if i+1 < len(m) && m[i+1] < 0x80 {
			i += 2 + int(m[i+1])
			continue
		}
		n, j := uvarint(m, i+1)
		if j == 0 || n > uint64(len(m)-j) {
			return errWire
		}
		i = j + int(n)
	}
	if i > len(m) {
		return errWire
	}
	raw := m[:i]
	var p part
	for i < len(m) {
		if m[i] == tagSample && i+1 < len(m) && m[i+1] < 0x80 && int(m[i+1]) <= len(m)-i-2 {
			end := i + 2 + int(m[i+1])
			s, err := parseSample(m[i+2:end], false)
			if err != nil {
				return err
			}
			if err := d.spend(sampleCost); err != nil {
				return err
			}
			d.sample(s)
			i = end
			continue
		}
		f, end, err := next(m, i)
		if err != nil {
			return err
		}
		if f.num >= 1 && f.num <= 4 {
			if err := f.is(wireBytes); err != nil {
				return err
			}
		}
		switch f.num {
		case 1:
			if len(raw) == 0 || &raw[0] == &m[0] {
				d.raw = append(d.raw[:0], raw...)
			}
			d.raw = append(d.raw, m[i:end]...)
			raw = d.raw
		case 2:
			s, err := parseSample(f.b, false)
			if err != nil {
				return err
			}
			if err := d.spend(sampleCost); err != nil {
				return err
			}
			d.sample(s)
		case 3:
			if err := d.exemplar1(&p, f.b); err != nil {
				return err
			}
		case 4:
			if err := d.histogram(&p, f.b, false); err != nil {
				return err
			}
		}
		i = end
	}
	fp := d.interner.Sum(raw)
	if known, ok := d.interner.Lookup(fp, d.last); ok {
		d.hits++
		d.last = known
		d.keep(&known.Interned, refusal{}, &p)
		return nil
	}
	d.misses++
	if err := d.pairs1(raw); err != nil {
		return err
	}
	ls, r := d.labelSet()
	d.keep(d.intern(fp, ls, r), r, &p)
	return nil
}

// intern keeps labels that are good, for the next time.
func (d *decoder) intern(fp ingest.Fingerprint, ls telemetry.LabelSet, r refusal) *telemetry.Interned {
	if !r.none() {
		return nil
	}
	d.last = d.interner.Intern(fp, ls)
	return &d.last.Interned
}

// pairs1 parses label fields, all with the same number, into d.pairs.
func (d *decoder) pairs1(raw []byte) error {
	d.pairs = d.pairs[:0]
	for i := 0; i < len(raw); {
		f, end, err := next(raw, i)
		if err != nil {
			return err
		}
		i = end
		p, err := parsePair(f.b)
		if err != nil {
			return err
		}
		d.pairs = append(d.pairs, p)
	}
	return nil
}

func parsePair(b []byte) (p pair, err error) {
	for i := 0; i < len(b); {
		f, end, err := next(b, i)
		if err != nil {
			return p, err
		}
		i = end
		switch f.num {
		case 1:
			err, p.name = f.is(wireBytes), f.b
		case 2:
			err, p.value = f.is(wireBytes), f.b
		}
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

// parseSample decodes a sample. Field 3, the start time, is there since version 2.
func parseSample(b []byte, version2 bool) (s telemetry.Sample, err error) {
	i := 0
	if len(b) >= sampleSize && b[0] == tagValue {
		s.V = math.Float64frombits(binary.LittleEndian.Uint64(b[1:]))
		i = sampleSize
		if len(b) == sampleSize+7 && b[i] == tagTime && b[i+6] < 0x80 && // a time between 1971 and 2109
			b[i+1]&b[i+2]&b[i+3]&b[i+4]&b[i+5]&0x80 != 0 {
			s.T = int64(b[i+1]&0x7f) | int64(b[i+2]&0x7f)<<7 | int64(b[i+3]&0x7f)<<14 | int64(b[i+4]&0x7f)<<21 |
				int64(b[i+5]&0x7f)<<28 | int64(b[i+6])<<35
			return s, nil
		}
	}
	for i < len(b) {
		f, end, err := next(b, i)
		if err != nil {
			return s, err
		}
		i = end
		switch f.num {
		case 1:
			err, s.V = f.is(wireFixed8), f.float()
		case 2:
			err, s.T = f.is(wireVarint), int64(f.n)
		case 3:
			if version2 {
				err, s.ST = f.is(wireVarint), int64(f.n)
			}
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// exemplar1 decodes an exemplar of version 1 into p.
func (d *decoder) exemplar1(p *part, b []byte) error {
	d.pairs = d.pairs[:0]
	var value float64
	var t int64
	for i := 0; i < len(b); {
		f, end, err := next(b, i)
		if err != nil {
			return err
		}
		i = end
		switch f.num {
		case 1:
			if err = f.is(wireBytes); err == nil {
				var one pair
				one, err = parsePair(f.b)
				d.pairs = append(d.pairs, one)
			}
		case 2:
			err, value = f.is(wireFixed8), f.float()
		case 3:
			err, t = f.is(wireVarint), int64(f.n)
		}
		if err != nil {
			return err
		}
	}
	return d.exemplar(p, value, t)
}

// family decodes the metadata of a metric, which version 1 sends apart from series.
func (d *decoder) family(b []byte) error {
	var t uint64
	var name, help, unit []byte
	for i := 0; i < len(b); {
		f, end, err := next(b, i)
		if err != nil {
			return err
		}
		i = end
		switch f.num {
		case 1:
			err, t = f.is(wireVarint), f.n
		case 2:
			err, name = f.is(wireBytes), f.b
		case 4:
			err, help = f.is(wireBytes), f.b
		case 5:
			err, unit = f.is(wireBytes), f.b
		}
		if err != nil {
			return err
		}
	}
	if err := d.spend(seriesCost); err != nil {
		return err
	}
	m, r, err := d.metadata(t, unit, help)
	if err != nil {
		return err
	}
	var ls telemetry.LabelSet
	if r.none() {
		d.pairs = append(d.pairs[:0], pair{[]byte(nameLabel), name})
		ls, r = d.labelSet()
	}
	if !r.none() {
		d.refuse(r, 0)
		return nil
	}
	d.keep(&telemetry.Interned{Labels: ls}, refusal{}, &part{metadata: m})
	return nil
}
