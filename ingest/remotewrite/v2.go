package remotewrite

import (
	"fmt"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/telemetry"
)

// symbols is the table of texts of a request of version 2, and the fingerprint of each.
type symbols struct {
	text   [][]byte
	prints []ingest.Fingerprint
	joined []byte // the fingerprints of one series' labels, one after another
}

func (s *symbols) end() {
	clear(s.text)
	s.text, s.prints = s.text[:0], s.prints[:0]
	if cap(s.text) > 1<<16 { // a table that was as large as that is not kept
		s.text, s.prints = nil, nil
	}
}

// described is a family with what was said about it, by their symbols.
type described struct{ name, unit, help, kind uint32 }

// version2 decodes an io.prometheus.write.v2.Request.
func (d *decoder) version2(body []byte) error {
	t := &d.symbols
	t.text, t.prints = t.text[:0], t.prints[:0]
	n := 0
	for i := 0; i < len(body); { // the table may stand behind what refers to it
		if body[i] == tagSeries2 { // not looked into yet
			size, j := uvarint(body, i+1)
			if j == 0 || size > uint64(len(body)-j) {
				return errWire
			}
			i = j + int(size)
			n++
			continue
		}
		f, end, err := next(body, i)
		if err != nil {
			return err
		}
		i = end
		switch f.num {
		case 4:
			if err := f.is(wireBytes); err != nil {
				return err
			}
			if err := d.spend(2 * symbolCost); err != nil {
				return err
			}
			t.text = append(t.text, f.b)
			t.prints = append(t.prints, d.interner.Sum(f.b))
		case 5:
			n++
		}
	}
	d.reserve(n, len(body))
	for i := 0; i < len(body); {
		if body[i] == tagSymbol {
			size, j := uvarint(body, i+1)
			i = j + int(size) // it was read before
			continue
		}
		f, end, err := next(body, i)
		if err != nil {
			return err
		}
		i = end
		if f.num != 5 {
			continue
		}
		if err := f.is(wireBytes); err != nil {
			return err
		}
		if err := d.series2(f.b); err != nil {
			return err
		}
	}
	return nil
}

// about is the metadata of a series of version 2.
type about struct{ kind, unit, help uint64 }

// series2 decodes a TimeSeries of version 2.
func (d *decoder) series2(m []byte) error {
	if err := d.spend(seriesCost); err != nil {
		return err
	}
	i := 0
	var refs []byte
	if len(m) > 1 && m[0] == tagRefs && m[1] < 0x80 && int(m[1]) <= len(m)-2 {
		i = 2 + int(m[1])
		refs = m[2:i:i]
	}
	var p part
	var md about
	var created int64
	for i < len(m) {
		f, end, err := next(m, i)
		if err != nil {
			return err
		}
		i = end
		if f.num >= 2 && f.num <= 5 {
			if err := f.is(wireBytes); err != nil {
				return err
			}
		}
		switch f.num {
		case 1:
			if refs, err = d.moreRefs(refs, &f); err != nil {
				return err
			}
		case 2:
			s, err := parseSample(f.b, true)
			if err != nil {
				return err
			}
			if err := d.spend(sampleCost); err != nil {
				return err
			}
			d.sample(s)
		case 3:
			if err := d.histogram(&p, f.b, true); err != nil {
				return err
			}
		case 4:
			if err := d.exemplar2(&p, f.b); err != nil {
				return err
			}
		case 5:
			if err := md.parse(f.b); err != nil {
				return err
			}
		case 6: // the start time of release candidates, one for all samples
			if f.wire == wireVarint {
				created = int64(f.n)
			}
		}
	}
	if created != 0 {
		d.start(&p, created)
	}
	ls, name, r, err := d.labels2(refs)
	if err != nil {
		return err
	}
	if r.none() && md != (about{}) {
		if r, err = d.about(&p, md, name); err != nil {
			return err
		}
		if !r.none() { // the samples are as good as without it
			d.refuse(r, 0)
			r = refusal{}
		}
	}
	if r.none() && len(d.samples) == d.first && len(p.histograms)+len(p.exemplars)+p.bad == 0 && md == (about{}) {
		r = d.describe(refusal{reasonEmpty, "a series has neither samples nor histograms nor anything else"})
	}
	d.keep(ls, r, &p)
	return nil
}

// moreRefs appends to refs, which is a piece of the request or d.raw: references may come one by one, or packed in
// several pieces.
func (d *decoder) moreRefs(refs []byte, f *field) ([]byte, error) {
	if f.wire != wireBytes && f.wire != wireVarint {
		return nil, errWire
	}
	if len(refs) == 0 && f.wire == wireBytes {
		return f.b, nil
	}
	if len(refs) == 0 || cap(d.raw) == 0 || &refs[0] != &d.raw[:1][0] {
		d.raw = append(d.raw[:0], refs...)
	}
	if f.wire == wireBytes {
		d.raw = append(d.raw, f.b...)
	} else {
		d.raw = telemetry.AppendUvarint(d.raw, f.n)
	}
	return d.raw, nil
}

// start gives samples without a start time that one.
func (d *decoder) start(p *part, created int64) {
	for i := d.first; i < len(d.samples); i++ {
		if d.samples[i].ST == 0 {
			d.samples[i].ST = created
		}
	}
	for i := range p.histograms {
		if p.histograms[i].ST == 0 {
			p.histograms[i].ST = created
		}
	}
}

// labels2 returns the labels that refs point to, and the symbol of the metric's name.
func (d *decoder) labels2(refs []byte) (*telemetry.Interned, uint32, refusal, error) {
	t := &d.symbols
	t.joined = t.joined[:0]
	var name uint32
	var wrong refusal
	n, isName := 0, false
	for i := 0; i < len(refs); n++ {
		x, end := uvarint(refs, i)
		if end == 0 {
			return nil, 0, refusal{}, errWire
		}
		i = end
		ref := uint32(x)
		if uint64(ref) >= uint64(len(t.prints)) {
			wrong = refusal{reasonSymbol, fmt.Sprintf("a label refers to symbol %d of %d", ref, len(t.prints))}
			continue // what follows may be no reference at all, which is worse
		}
		if isName {
			name, isName = ref, false
		} else if n%2 == 0 {
			isName = string(t.text[ref]) == nameLabel
		}
		t.joined = t.prints[ref].Append(t.joined)
	}
	if !wrong.none() {
		return nil, 0, wrong, nil
	}
	if n%2 != 0 {
		return nil, 0, refusal{reasonSymbol, fmt.Sprintf("a series has %d references to names and values of labels, which is odd", n)}, nil
	}
	fp := d.interner.Sum(t.joined)
	if known, ok := d.interner.Lookup(fp, d.last); ok {
		d.hits++
		d.last = known
		return &known.Interned, name, refusal{}, nil
	}
	d.misses++
	d.pairs2(refs)
	ls, r := d.labelSet()
	return d.intern(fp, ls, r), name, r, nil
}

// pairs2 puts the labels that refs point to, all of them in the table and even in number, into d.pairs.
func (d *decoder) pairs2(refs []byte) {
	d.pairs = d.pairs[:0]
	for i := 0; i < len(refs); {
		a, j := uvarint(refs, i)
		b, end := uvarint(refs, j)
		d.pairs = append(d.pairs, pair{d.symbols.text[uint32(a)], d.symbols.text[uint32(b)]})
		i = end
	}
}

// exemplar2 decodes an exemplar of version 2 into p.
func (d *decoder) exemplar2(p *part, b []byte) error {
	var refs []byte
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
			refs, err = d.moreRefs(refs, &f)
		case 2:
			err, value = f.is(wireFixed8), f.float()
		case 3:
			err, t = f.is(wireVarint), int64(f.n)
		}
		if err != nil {
			return err
		}
	}
	n := 0
	var wrong refusal
	for i := 0; i < len(refs); n++ {
		x, end := uvarint(refs, i)
		if end == 0 {
			return errWire
		}
		i = end
		if ref := uint32(x); uint64(ref) >= uint64(len(d.symbols.text)) {
			wrong = refusal{reasonSymbol, fmt.Sprintf("a label of an exemplar refers to symbol %d of %d", ref, len(d.symbols.text))}
		}
	}
	if n%2 != 0 {
		wrong = refusal{reasonSymbol, fmt.Sprintf("an exemplar has %d references to names and values of labels, which is odd", n)}
	}
	if !wrong.none() {
		d.refuse(wrong, 0)
		return nil
	}
	d.pairs2(refs)
	return d.exemplar(p, value, t)
}

func (a *about) parse(b []byte) error {
	for i := 0; i < len(b); {
		f, end, err := next(b, i)
		if err != nil {
			return err
		}
		i = end
		switch f.num {
		case 1:
			err, a.kind = f.is(wireVarint), f.n
		case 3:
			err, a.help = f.is(wireVarint), f.n
		case 4:
			err, a.unit = f.is(wireVarint), f.n
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// about gives p the metadata, unless an earlier series of the metric has the same.
func (d *decoder) about(p *part, a about, name uint32) (refusal, error) {
	key := described{name: name, unit: uint32(a.unit), help: uint32(a.help), kind: uint32(a.kind)}
	n := uint64(len(d.symbols.text))
	if uint64(key.unit) >= n || uint64(key.help) >= n {
		return refusal{reasonSymbol, fmt.Sprintf("the metadata of a series refers to symbols %d and %d of %d", key.unit, key.help, n)}, nil
	}
	if _, ok := d.seen[key]; ok {
		return refusal{}, nil
	}
	m, r, err := d.metadata(uint64(key.kind), d.symbols.text[key.unit], d.symbols.text[key.help])
	if err != nil || !r.none() {
		return r, err
	}
	d.seen[key] = struct{}{}
	p.metadata = m
	return refusal{}, nil
}
