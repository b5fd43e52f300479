package telemetry

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
)

// TraceID is a W3C trace ID; all zeros means none.
type TraceID [16]byte

// String returns 32 hexadecimal digits.
func (t TraceID) String() string { return hex.EncodeToString(t[:]) }

// IsZero says whether there is none.
func (t TraceID) IsZero() bool { return t == TraceID{} }

// ParseTraceID reads up to 32 hexadecimal digits; shorter ones are padded on the left, as Tempo does.
func ParseTraceID(s string) (TraceID, error) {
	var t TraceID
	if len(s) == 0 || len(s) > 32 {
		return t, fmt.Errorf("trace ID %q: want 1 to 32 hexadecimal digits", s)
	}
	padded := "00000000000000000000000000000000"[len(s):] + s
	if _, err := hex.Decode(t[:], []byte(padded)); err != nil {
		return TraceID{}, fmt.Errorf("trace ID %q: %w", s, err)
	}
	return t, nil
}

// SpanID is a W3C span ID; all zeros means none.
type SpanID [8]byte

// String returns 16 hexadecimal digits.
func (s SpanID) String() string { return hex.EncodeToString(s[:]) }

// IsZero says whether there is none.
func (s SpanID) IsZero() bool { return s == SpanID{} }

// SpanKind is OTLP's kind of span.
type SpanKind uint8

// The kinds of a span, numbered as in OTLP.
const (
	SpanKindUnspecified SpanKind = iota
	SpanKindInternal
	SpanKindServer
	SpanKindClient
	SpanKindProducer
	SpanKindConsumer
)

// String returns the kind in lower case, as TraceQL writes it.
func (k SpanKind) String() string {
	names := [...]string{"unspecified", "internal", "server", "client", "producer", "consumer"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unspecified"
}

// StatusCode is OTLP's status of a span.
type StatusCode uint8

// The status codes, numbered as in OTLP.
const (
	StatusUnset StatusCode = iota
	StatusOK
	StatusError
)

// String returns the status in lower case, as TraceQL writes it.
func (c StatusCode) String() string {
	switch c {
	case StatusOK:
		return "ok"
	case StatusError:
		return "error"
	default:
		return "unset"
	}
}

// Event is something that happened at one time within a span.
type Event struct {
	Time    int64 // nanoseconds
	Name    string
	Attrs   Attrs
	Dropped uint32
}

// Link points from a span to another.
type Link struct {
	TraceID TraceID
	SpanID  SpanID
	State   string
	Flags   uint32
	Attrs   Attrs
	Dropped uint32
}

// Span is one span as it was sent.
type Span struct {
	TraceID       TraceID
	SpanID        SpanID
	ParentID      SpanID
	Kind          SpanKind
	Status        StatusCode
	Flags         uint32
	Start, End    int64 // nanoseconds
	Name          string
	State         string // W3C trace state
	StatusMessage string
	Scope         *Scope
	Attrs         Attrs
	Events        []Event
	Links         []Link
	DroppedAttrs  uint32
	DroppedEvents uint32
	DroppedLinks  uint32
}

// Duration returns the length of the span in nanoseconds, never below zero.
func (s *Span) Duration() int64 { return max(s.End-s.Start, 0) }

// Size returns an estimate of the memory that the span holds, in bytes.
func (s *Span) Size() int {
	n := 264 + len(s.Name) + len(s.State) + len(s.StatusMessage) + s.Attrs.Size()
	for i := range s.Events {
		n += 64 + len(s.Events[i].Name) + s.Events[i].Attrs.Size()
	}
	for i := range s.Links {
		n += 80 + len(s.Links[i].State) + s.Links[i].Attrs.Size()
	}
	return n
}

// LogRecord is one log record. Time is always set: ingest gives a record without one its observed time, or
// the time of its arrival, and then says so in TimeInferred.
type LogRecord struct {
	Time, Observed int64 // nanoseconds
	Severity       uint8 // OTLP's 1 to 24, 0 when unknown
	TimeInferred   bool
	Flags          uint32
	TraceID        TraceID
	SpanID         SpanID
	SeverityText   string
	EventName      string
	Body           Value
	Scope          *Scope
	Attrs          Attrs
	Dropped        uint32
}

// Size returns an estimate of the memory that the record holds, in bytes.
func (r *LogRecord) Size() int {
	return 216 + len(r.SeverityText) + len(r.EventName) + r.Body.Size() + r.Attrs.Size()
}

// MetricType is the type of a metric family, numbered for the disk.
type MetricType uint8

// The types of metrics that Prometheus knows.
const (
	MetricUnknown MetricType = iota
	MetricCounter
	MetricGauge
	MetricHistogram
	MetricGaugeHistogram
	MetricSummary
	MetricInfo
	MetricStateset
)

// metricTypes returns the types as the Prometheus API spells them.
func metricTypes() [8]string {
	return [...]string{"unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"}
}

// String returns the type as the Prometheus API spells it.
func (t MetricType) String() string {
	if names := metricTypes(); int(t) < len(names) {
		return names[t]
	}
	return "unknown"
}

// ParseMetricType is the reverse of String.
func ParseMetricType(s string) (MetricType, error) {
	names := metricTypes()
	i := slices.Index(names[:], s)
	if i < 0 {
		return MetricUnknown, fmt.Errorf("%q is no type of a metric; known are %s", s, strings.Join(names[:], ", "))
	}
	return MetricType(i), nil
}

// Metadata describes a metric family.
type Metadata struct {
	Type MetricType `json:"-"`
	Unit string     `json:"unit"`
	Help string     `json:"help"`
}

// Sample is one float sample. ST, when not zero, is the time from which a cumulative value counts.
type Sample struct {
	T, ST int64 // milliseconds
	V     float64
}

// HistogramSample is one native histogram sample: exactly one of H and FH is set.
type HistogramSample struct {
	T, ST int64 // milliseconds
	H     *histogram.Histogram
	FH    *histogram.FloatHistogram
}

// Series is a part of one series: its labels and what arrived for it, in order of arrival.
type Series struct {
	Labels     LabelSet
	Samples    []Sample
	Histograms []HistogramSample
	Exemplars  []exemplar.Exemplar
	Metadata   *Metadata // nil when the sender told none
	// Delta says that each value counts from its ST to its T only. The store turns such a series into a
	// cumulative one in the order of arrival; a sample that does not follow its predecessor is rejected.
	Delta bool
	// Derived says that the series is one of several made from each data point, which is counted with another
	// one when it is rejected. It is not stored.
	Derived bool
	// Known, when not nil, holds Labels, which were found to be within the limits of ingest before. It is not stored.
	Known *Interned
}

// Size returns an estimate of the memory that the series holds, in bytes.
func (s *Series) Size() int {
	n := 120 + len(s.Labels) + 24*len(s.Samples)
	for i := range s.Histograms {
		n += 32
		if h := s.Histograms[i].H; h != nil {
			n += 160 + 8*(len(h.PositiveSpans)+len(h.NegativeSpans)+len(h.PositiveBuckets)+len(h.NegativeBuckets)+len(h.CustomValues))
		}
		if h := s.Histograms[i].FH; h != nil {
			n += 160 + 8*(len(h.PositiveSpans)+len(h.NegativeSpans)+len(h.PositiveBuckets)+len(h.NegativeBuckets)+len(h.CustomValues))
		}
	}
	for range s.Exemplars {
		n += 128
	}
	return n
}

// Batch is the unit of ingest: records of one tenant that came with one resource.
type Batch struct {
	Tenant   Tenant
	Resource *Resource // nil for samples whose identity is in their labels (remote write, scrape)
	Stream   LabelSet  // the LogQL stream of Logs
	Spans    []Span
	Logs     []LogRecord
	Series   []Series
	// Source is where a sender that numbers what it sends has the batch from; nil for other senders.
	Source *Source
}

// Limits of what a sender says about a source.
const (
	MaxSourceStream = 512 // bytes
	MaxSourceFile   = 64  // bytes
)

// Source is a piece of a numbered stream: what a sender reads in order from a file, say a container's log, or from
// its own queue. It makes sending again harmless: the store remembers for each stream and file the largest position
// that it acknowledged, and stores nothing at or below it. Positions rise with what is read and are otherwise the
// sender's business.
type Source struct {
	Stream string // names the stream among all of the tenant's
	File   string // names the file among those of the stream
	From   uint64 // the position before the piece
	To     uint64 // the position after it
	// Ends are the positions after each of the batch's Logs. Without them the batch counts as a whole: it is stored
	// unless To was acknowledged.
	Ends []uint64
}

// Check returns what is wrong with s as the source of n log records, or nil.
func (s *Source) Check(n int) error {
	switch {
	case s.Stream == "" || len(s.Stream) > MaxSourceStream:
		return fmt.Errorf("the stream of a source must have 1 to %d bytes, not %d", MaxSourceStream, len(s.Stream))
	case s.File == "" || len(s.File) > MaxSourceFile:
		return fmt.Errorf("the file of a source must have 1 to %d bytes, not %d", MaxSourceFile, len(s.File))
	case s.To < s.From:
		return fmt.Errorf("a source ends at %d before it begins at %d", s.To, s.From)
	case s.Ends != nil && len(s.Ends) != n:
		return fmt.Errorf("a source has %d ends for %d log records", len(s.Ends), n)
	}
	last := s.From
	for _, e := range s.Ends {
		if e < last || e > s.To {
			return fmt.Errorf("position %d of a source is not in order: it must lie between %d and %d", e, last, s.To)
		}
		last = e
	}
	return nil
}

// KeepLogs removes the log records for which keep is false, and their ends.
func (b *Batch) KeepLogs(keep func(i int) bool) {
	var ends []uint64
	if b.Source != nil {
		ends = b.Source.Ends
	}
	n := 0
	for i := range b.Logs {
		if !keep(i) {
			continue
		}
		if n != i {
			b.Logs[n] = b.Logs[i]
			if ends != nil {
				ends[n] = ends[i]
			}
		}
		n++
	}
	clear(b.Logs[n:])
	b.Logs = b.Logs[:n]
	if ends != nil {
		b.Source.Ends = ends[:n]
	}
}

// Records returns the number of spans, log records and samples (float samples, histograms and exemplars).
func (b *Batch) Records() int {
	n := len(b.Spans) + len(b.Logs)
	for i := range b.Series {
		n += len(b.Series[i].Samples) + len(b.Series[i].Histograms) + len(b.Series[i].Exemplars)
	}
	return n
}

// Size returns an estimate of the memory that the batch holds, in bytes.
func (b *Batch) Size() int {
	n := 96 + len(b.Stream)
	if b.Resource != nil {
		n += b.Resource.Attrs.Size()
	}
	for i := range b.Spans {
		n += b.Spans[i].Size()
	}
	for i := range b.Logs {
		n += b.Logs[i].Size()
	}
	for i := range b.Series {
		n += b.Series[i].Size()
	}
	return n
}
