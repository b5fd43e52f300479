package telemetry

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
)

// AppendBatch appends b in the form of docs/format/batch.md, which the write-ahead log keeps.
func AppendBatch(dst []byte, b *Batch) []byte {
	dst = AppendString(dst, string(b.Tenant))
	if b.Resource == nil {
		dst = append(dst, 0)
	} else {
		dst = append(dst, 1)
		dst = AppendResource(dst, b.Resource)
		dst = AppendUvarint(dst, uint64(b.Resource.Dropped))
	}
	dst = AppendString(dst, string(b.Stream))
	var scopes scopeTable
	for i := range b.Spans {
		scopes.add(b.Spans[i].Scope)
	}
	for i := range b.Logs {
		scopes.add(b.Logs[i].Scope)
	}
	dst = AppendUvarint(dst, uint64(len(scopes.list)))
	for _, s := range scopes.list {
		dst = AppendScope(dst, s)
	}
	dst = AppendUvarint(dst, uint64(len(b.Spans)))
	for i := range b.Spans {
		dst = AppendUvarint(dst, scopes.index(b.Spans[i].Scope))
		dst = AppendSpan(dst, &b.Spans[i])
	}
	dst = AppendUvarint(dst, uint64(len(b.Logs)))
	for i := range b.Logs {
		dst = AppendUvarint(dst, scopes.index(b.Logs[i].Scope))
		dst = AppendLogRecord(dst, &b.Logs[i])
	}
	dst = AppendUvarint(dst, uint64(len(b.Series)))
	for i := range b.Series {
		dst = AppendSeries(dst, &b.Series[i])
	}
	return dst
}

// scopeTable numbers scopes by identity; 0 stands for none.
type scopeTable struct {
	list []*Scope
	last *Scope
	pos  map[*Scope]uint64
}

func (t *scopeTable) add(s *Scope) {
	if s == nil || s == t.last {
		return
	}
	t.last = s
	if t.pos == nil {
		t.pos = make(map[*Scope]uint64)
	}
	if _, ok := t.pos[s]; !ok {
		t.list = append(t.list, s)
		t.pos[s] = uint64(len(t.list))
	}
}

func (t *scopeTable) index(s *Scope) uint64 { return t.pos[s] }

// Batch reads what AppendBatch wrote; the batch shares the decoder's memory.
func (d *Decoder) Batch() Batch {
	b := Batch{Tenant: Tenant(d.Str())}
	if d.err == nil && !b.Tenant.Valid() {
		d.Fail("tenant %q is not a legal name", b.Tenant)
	}
	if d.Byte() == 1 {
		if b.Resource = d.Resource(); b.Resource != nil {
			b.Resource.Dropped = uint32(d.Uvarint())
		}
	}
	b.Stream = d.LabelSet()
	scopes := make([]*Scope, 0, d.Count(5)+1)
	n := cap(scopes) - 1
	scopes = append(scopes, nil)
	for range n {
		scopes = append(scopes, d.Scope())
	}
	pick := func() *Scope {
		i := d.Uvarint()
		if i >= uint64(len(scopes)) {
			d.Fail("scope %d of %d", i, len(scopes)-1)
			return nil
		}
		return scopes[i]
	}
	if n := d.Count(40); n > 0 && d.err == nil {
		b.Spans = make([]Span, 0, n)
		for i := 0; i < n && d.err == nil; i++ {
			sc := pick()
			b.Spans = append(b.Spans, d.Span())
			b.Spans[i].Scope = sc
		}
	}
	if n := d.Count(8); n > 0 && d.err == nil {
		b.Logs = make([]LogRecord, 0, n)
		for i := 0; i < n && d.err == nil; i++ {
			sc := pick()
			b.Logs = append(b.Logs, d.LogRecord())
			b.Logs[i].Scope = sc
		}
	}
	if n := d.Count(5); n > 0 && d.err == nil {
		b.Series = make([]Series, 0, n)
		for i := 0; i < n && d.err == nil; i++ {
			b.Series = append(b.Series, d.Series())
		}
	}
	return b
}

// LabelSet reads a label set with its length and checks that it is canonical.
func (d *Decoder) LabelSet() LabelSet {
	s := LabelSet(d.Str())
	if d.err == nil {
		if err := s.Check(); err != nil {
			d.Fail("labels: %v", err)
		}
	}
	return s
}

// AppendSpan appends everything of s but its scope.
func AppendSpan(dst []byte, s *Span) []byte {
	dst = append(dst, s.TraceID[:]...)
	dst = append(dst, s.SpanID[:]...)
	dst = append(dst, s.ParentID[:]...)
	dst = append(dst, byte(s.Kind), byte(s.Status))
	dst = AppendUvarint(dst, uint64(s.Flags))
	dst = AppendVarint(dst, s.Start)
	dst = AppendVarint(dst, s.End-s.Start)
	dst = AppendString(dst, s.Name)
	dst = AppendString(dst, s.State)
	dst = AppendString(dst, s.StatusMessage)
	dst = AppendUvarint(dst, uint64(s.DroppedAttrs))
	dst = AppendUvarint(dst, uint64(s.DroppedEvents))
	dst = AppendUvarint(dst, uint64(s.DroppedLinks))
	dst = AppendAttrs(dst, s.Attrs)
	dst = AppendEvents(dst, s.Events)
	return AppendLinks(dst, s.Links)
}

// AppendEvents appends the number of events, then each.
func AppendEvents(dst []byte, es []Event) []byte {
	dst = AppendUvarint(dst, uint64(len(es)))
	for i := range es {
		dst = AppendVarint(dst, es[i].Time)
		dst = AppendString(dst, es[i].Name)
		dst = AppendUvarint(dst, uint64(es[i].Dropped))
		dst = AppendAttrs(dst, es[i].Attrs)
	}
	return dst
}

// AppendLinks appends the number of links, then each.
func AppendLinks(dst []byte, ls []Link) []byte {
	dst = AppendUvarint(dst, uint64(len(ls)))
	for i := range ls {
		dst = append(dst, ls[i].TraceID[:]...)
		dst = append(dst, ls[i].SpanID[:]...)
		dst = AppendString(dst, ls[i].State)
		dst = AppendUvarint(dst, uint64(ls[i].Flags))
		dst = AppendUvarint(dst, uint64(ls[i].Dropped))
		dst = AppendAttrs(dst, ls[i].Attrs)
	}
	return dst
}

// Events reads what AppendEvents wrote.
func (d *Decoder) Events() []Event {
	n := d.Count(4)
	if n == 0 {
		return nil
	}
	es := make([]Event, 0, n)
	for i := 0; i < n && d.err == nil; i++ {
		es = append(es, Event{Time: d.Varint(), Name: d.Str(), Dropped: uint32(d.Uvarint()), Attrs: d.Attrs()})
	}
	return es
}

// Links reads what AppendLinks wrote.
func (d *Decoder) Links() []Link {
	n := d.Count(28)
	if n == 0 {
		return nil
	}
	ls := make([]Link, 0, n)
	for i := 0; i < n && d.err == nil; i++ {
		ls = append(ls, Link{
			TraceID: d.TraceID(), SpanID: d.SpanID(), State: d.Str(),
			Flags: uint32(d.Uvarint()), Dropped: uint32(d.Uvarint()), Attrs: d.Attrs(),
		})
	}
	return ls
}

// TraceID reads 16 bytes.
func (d *Decoder) TraceID() TraceID {
	var t TraceID
	copy(t[:], d.Take(16))
	return t
}

// SpanID reads 8 bytes.
func (d *Decoder) SpanID() SpanID {
	var s SpanID
	copy(s[:], d.Take(8))
	return s
}

// Span reads what AppendSpan wrote.
func (d *Decoder) Span() Span {
	s := Span{TraceID: d.TraceID(), SpanID: d.SpanID(), ParentID: d.SpanID()}
	s.Kind, s.Status = SpanKind(d.Byte()), StatusCode(d.Byte())
	s.Flags = uint32(d.Uvarint())
	s.Start = d.Varint()
	s.End = s.Start + d.Varint()
	s.Name, s.State, s.StatusMessage = d.Str(), d.Str(), d.Str()
	s.DroppedAttrs, s.DroppedEvents, s.DroppedLinks = uint32(d.Uvarint()), uint32(d.Uvarint()), uint32(d.Uvarint())
	s.Attrs, s.Events, s.Links = d.Attrs(), d.Events(), d.Links()
	return s
}

// AppendLogRecord appends everything of r but its scope.
func AppendLogRecord(dst []byte, r *LogRecord) []byte {
	var bits byte
	if r.TimeInferred {
		bits |= 1
	}
	if !r.TraceID.IsZero() {
		bits |= 2
	}
	if !r.SpanID.IsZero() {
		bits |= 4
	}
	dst = append(dst, bits, r.Severity)
	dst = AppendVarint(dst, r.Time)
	dst = AppendVarint(dst, r.Observed)
	if bits&2 != 0 {
		dst = append(dst, r.TraceID[:]...)
	}
	if bits&4 != 0 {
		dst = append(dst, r.SpanID[:]...)
	}
	dst = AppendUvarint(dst, uint64(r.Flags))
	dst = AppendUvarint(dst, uint64(r.Dropped))
	dst = AppendString(dst, r.SeverityText)
	dst = AppendString(dst, r.EventName)
	dst = AppendValue(dst, r.Body)
	return AppendAttrs(dst, r.Attrs)
}

// LogRecord reads what AppendLogRecord wrote.
func (d *Decoder) LogRecord() LogRecord {
	bits := d.Byte()
	r := LogRecord{TimeInferred: bits&1 != 0, Severity: d.Byte(), Time: d.Varint(), Observed: d.Varint()}
	if bits&2 != 0 {
		r.TraceID = d.TraceID()
	}
	if bits&4 != 0 {
		r.SpanID = d.SpanID()
	}
	r.Flags, r.Dropped = uint32(d.Uvarint()), uint32(d.Uvarint())
	r.SeverityText, r.EventName = d.Str(), d.Str()
	r.Body, r.Attrs = d.Value(), d.Attrs()
	return r
}

// AppendSeries appends s.
func AppendSeries(dst []byte, s *Series) []byte {
	dst = AppendString(dst, string(s.Labels))
	var bits byte
	if s.Delta {
		bits |= 1
	}
	if s.Metadata != nil {
		bits |= 2
	}
	dst = append(dst, bits)
	if s.Metadata != nil {
		dst = AppendMetadata(dst, s.Metadata)
	}
	dst = AppendUvarint(dst, uint64(len(s.Samples)))
	var last int64
	for i := range s.Samples {
		p := &s.Samples[i]
		dst = AppendVarint(dst, p.T-last)
		dst = AppendUvarint(dst, PackStart(p.T, p.ST))
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(p.V))
		last = p.T
	}
	dst = AppendUvarint(dst, uint64(len(s.Histograms)))
	for i := range s.Histograms {
		p := &s.Histograms[i]
		dst = AppendVarint(dst, p.T)
		dst = AppendUvarint(dst, PackStart(p.T, p.ST))
		dst = AppendHistogram(dst, p)
	}
	dst = AppendUvarint(dst, uint64(len(s.Exemplars)))
	for i := range s.Exemplars {
		dst = AppendExemplar(dst, &s.Exemplars[i])
	}
	return dst
}

// PackStart returns a start time in the form of the disk: how long it lies before t, plus one; 0 stands for none.
// A start of t+1, which would be 0, takes the number that a start of 0 would have.
func PackStart(t, st int64) uint64 {
	switch st {
	case 0:
		return 0
	case t + 1:
		return uint64(t) + 1
	default:
		return uint64(t-st) + 1
	}
}

// UnpackStart is the reverse of PackStart.
func UnpackStart(t int64, n uint64) int64 {
	switch n {
	case 0:
		return 0
	case uint64(t) + 1:
		return t + 1
	default:
		return t - int64(n-1)
	}
}

// AppendMetadata appends m.
func AppendMetadata(dst []byte, m *Metadata) []byte {
	dst = append(dst, byte(m.Type))
	dst = AppendString(dst, m.Unit)
	return AppendString(dst, m.Help)
}

// Metadata reads what AppendMetadata wrote.
func (d *Decoder) Metadata() *Metadata {
	return &Metadata{Type: MetricType(d.Byte()), Unit: d.Str(), Help: d.Str()}
}

// Series reads what AppendSeries wrote.
func (d *Decoder) Series() Series {
	s := Series{Labels: d.LabelSet()}
	bits := d.Byte()
	s.Delta = bits&1 != 0
	if bits&2 != 0 {
		s.Metadata = d.Metadata()
	}
	if n := d.Count(10); n > 0 && d.err == nil {
		s.Samples = make([]Sample, 0, n)
		var last int64
		for i := 0; i < n && d.err == nil; i++ {
			t := last + d.Varint()
			s.Samples = append(s.Samples, Sample{T: t, ST: UnpackStart(t, d.Uvarint()), V: d.Float()})
			last = t
		}
	}
	if n := d.Count(12); n > 0 && d.err == nil {
		s.Histograms = make([]HistogramSample, 0, n)
		for i := 0; i < n && d.err == nil; i++ {
			p := HistogramSample{T: d.Varint()}
			p.ST = UnpackStart(p.T, d.Uvarint())
			d.Histogram(&p)
			s.Histograms = append(s.Histograms, p)
		}
	}
	if n := d.Count(10); n > 0 && d.err == nil {
		s.Exemplars = make([]exemplar.Exemplar, 0, n)
		for i := 0; i < n && d.err == nil; i++ {
			s.Exemplars = append(s.Exemplars, d.Exemplar())
		}
	}
	return s
}

// AppendExemplar appends e: labels, value, time.
func AppendExemplar(dst []byte, e *exemplar.Exemplar) []byte {
	dst = AppendString(dst, string(NewLabelSet(e.Labels)))
	dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(e.Value))
	dst = AppendVarint(dst, e.Ts)
	if e.HasTs {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// Exemplar reads what AppendExemplar wrote.
func (d *Decoder) Exemplar() exemplar.Exemplar {
	return exemplar.Exemplar{Labels: d.LabelSet().Labels(), Value: d.Float(), Ts: d.Varint(), HasTs: d.Byte() == 1}
}

// AppendHistogram appends the histogram of p, not its times.
func AppendHistogram(dst []byte, p *HistogramSample) []byte {
	if h := p.H; h != nil {
		dst = append(dst, 0, byte(h.CounterResetHint))
		dst = AppendVarint(dst, int64(h.Schema))
		dst = appendFloat(dst, h.ZeroThreshold)
		dst = AppendUvarint(dst, h.ZeroCount)
		dst = AppendUvarint(dst, h.Count)
		dst = appendFloat(dst, h.Sum)
		dst = appendSpans(dst, h.PositiveSpans)
		dst = appendSpans(dst, h.NegativeSpans)
		dst = appendInts(dst, h.PositiveBuckets)
		dst = appendInts(dst, h.NegativeBuckets)
		return appendFloats(dst, h.CustomValues)
	}
	h := p.FH
	dst = append(dst, 1, byte(h.CounterResetHint))
	dst = AppendVarint(dst, int64(h.Schema))
	dst = appendFloat(dst, h.ZeroThreshold)
	dst = appendFloat(dst, h.ZeroCount)
	dst = appendFloat(dst, h.Count)
	dst = appendFloat(dst, h.Sum)
	dst = appendSpans(dst, h.PositiveSpans)
	dst = appendSpans(dst, h.NegativeSpans)
	dst = appendFloats(dst, h.PositiveBuckets)
	dst = appendFloats(dst, h.NegativeBuckets)
	return appendFloats(dst, h.CustomValues)
}

// Histogram reads what AppendHistogram wrote into p. Whether the buckets make sense is for its Validate.
func (d *Decoder) Histogram(p *HistogramSample) {
	float := d.Byte() == 1
	hint := histogram.CounterResetHint(d.Byte())
	schema := int32(d.Varint())
	if float {
		p.FH = &histogram.FloatHistogram{
			CounterResetHint: hint, Schema: schema, ZeroThreshold: d.Float(), ZeroCount: d.Float(), Count: d.Float(), Sum: d.Float(),
			PositiveSpans: d.spans(), NegativeSpans: d.spans(), PositiveBuckets: d.floats(), NegativeBuckets: d.floats(), CustomValues: d.floats(),
		}
		return
	}
	p.H = &histogram.Histogram{
		CounterResetHint: hint, Schema: schema, ZeroThreshold: d.Float(), ZeroCount: d.Uvarint(), Count: d.Uvarint(), Sum: d.Float(),
		PositiveSpans: d.spans(), NegativeSpans: d.spans(), PositiveBuckets: d.ints(), NegativeBuckets: d.ints(), CustomValues: d.floats(),
	}
}

func appendFloat(dst []byte, f float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(f))
}

func appendFloats(dst []byte, fs []float64) []byte {
	dst = AppendUvarint(dst, uint64(len(fs)))
	for _, f := range fs {
		dst = appendFloat(dst, f)
	}
	return dst
}

func (d *Decoder) floats() []float64 {
	n := d.Count(8)
	if n == 0 || d.err != nil {
		return nil
	}
	fs := make([]float64, n)
	for i := range fs {
		fs[i] = d.Float()
	}
	return fs
}

func appendInts(dst []byte, ns []int64) []byte {
	dst = AppendUvarint(dst, uint64(len(ns)))
	for _, n := range ns {
		dst = AppendVarint(dst, n)
	}
	return dst
}

func (d *Decoder) ints() []int64 {
	n := d.Count(1)
	if n == 0 || d.err != nil {
		return nil
	}
	ns := make([]int64, n)
	for i := range ns {
		ns[i] = d.Varint()
	}
	return ns
}

func appendSpans(dst []byte, ss []histogram.Span) []byte {
	dst = AppendUvarint(dst, uint64(len(ss)))
	for _, s := range ss {
		dst = AppendVarint(dst, int64(s.Offset))
		dst = AppendUvarint(dst, uint64(s.Length))
	}
	return dst
}

func (d *Decoder) spans() []histogram.Span {
	n := d.Count(2)
	if n == 0 || d.err != nil {
		return nil
	}
	ss := make([]histogram.Span, n)
	for i := range ss {
		ss[i] = histogram.Span{Offset: int32(d.Varint()), Length: uint32(d.Uvarint())}
	}
	return ss
}
