// Package storage is the contract between what writes telemetry, what reads it, and the engine that keeps it.
// It contains no engine: ingest and the query languages depend on this package alone, and internal/app hands
// them an implementation.
//
// Times are Unix milliseconds for samples and Unix nanoseconds for logs and spans; time ranges include both
// ends.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"

	"github.com/braidobs/braid/internal/telemetry"
)

// ReadStats is what the reads of a view cost.
type ReadStats struct {
	Series  int64 // series whose samples were read
	Samples int64 // samples decoded
	Bytes   int64 // bytes of parts decoded
	Rows    int64 // rows of logs and spans looked at, after whole blocks were ruled out
	Blocks  int64 // blocks of logs and spans opened
}

// Signal is one of the three kinds of telemetry. The numbers are on disk.
type Signal uint8

// The signals.
const (
	Metrics Signal = 1
	Logs    Signal = 2
	Traces  Signal = 3
)

// String returns the signal's name, which is also the name of its folder.
func (s Signal) String() string {
	switch s {
	case Metrics:
		return "metrics"
	case Logs:
		return "logs"
	case Traces:
		return "traces"
	default:
		return fmt.Sprintf("signal(%d)", uint8(s))
	}
}

// Key identifies a request so that a retry of it is stored once: a 128-bit hash of tenant, route and the
// decoded body. The zero key means that the request is exempt.
type Key [16]byte

// Request is what one sender sent at once: the unit of atomicity and of idempotence. Of batches with a
// telemetry.Source the store keeps what it has not acknowledged before, without a window in time; the marks that it
// compares with are those before the request, for all its batches.
type Request struct {
	Key     Key
	Batches []telemetry.Batch
	// Rejected is what ingest refused before the store saw it; it becomes part of the outcome.
	Rejected Rejected
}

// Position is a place in the store's sequence of writes.
type Position uint64

// Rejected counts the records of a request that were not stored, each with the reason of some.
type Rejected struct {
	Spans, Logs, Samples int
	Reasons              []string // at most MaxReasons, distinct
}

// MaxReasons bounds the reasons that one answer carries.
const MaxReasons = 8

// Total returns the number of records rejected.
func (r Rejected) Total() int { return r.Spans + r.Logs + r.Samples }

// Reason adds a reason unless it is known or there are enough.
func (r *Rejected) Reason(format string, args ...any) {
	if len(r.Reasons) >= MaxReasons {
		return
	}
	s := fmt.Sprintf(format, args...)
	if slices.Contains(r.Reasons, s) {
		return
	}
	r.Reasons = append(r.Reasons, s)
}

// Add adds what o rejected.
func (r *Rejected) Add(o Rejected) {
	r.Spans, r.Logs, r.Samples = r.Spans+o.Spans, r.Logs+o.Logs, r.Samples+o.Samples
	for _, s := range o.Reasons {
		r.Reason("%s", s)
	}
}

// Writer stores requests.
type Writer interface {
	// Write returns after the request is durable and visible to readers, with the position that a View can
	// wait for. A nil error with Rejected.Total() > 0 is a partial success. An error promises nothing (the
	// request is found zero times or once), and a retry with the same key is safe: it is acknowledged with the
	// first outcome and stored once; a concurrent duplicate waits for the first. Write takes ownership of the
	// batches. Cancelling ctx stops it only before the request is queued for the log.
	Write(ctx context.Context, req Request) (Position, Rejected, error)
}

// Reader opens views.
type Reader interface {
	// View pins one atomic version of everything stored, at or after min. Every read of one query uses one
	// view, so that no flush, merge or delete shows a record twice or not at all. It must be closed.
	View(ctx context.Context, min Position) (View, error)
}

// View is an immutable state of the store. Its methods may be called concurrently. What they return is valid
// until Close.
type View interface {
	SeriesReader
	LogReader
	SpanReader
	EntityReader
	// Warnings tells what this view could not read so far: parts that are corrupt, holes in the log.
	Warnings() []string
	// ReadStats tells what was read through the view so far.
	ReadStats() ReadStats
	io.Closer
}

// SeriesQuery selects series. All its conditions hold together.
type SeriesQuery struct {
	Tenant     telemetry.Tenant
	Start, End int64 // milliseconds
	Matchers   []*labels.Matcher
	// Resources, when not nil, keeps the series that one of these resources vouches for (see EntityReader).
	Resources []telemetry.ResourceID
	Limit     int // at most so many names or values; 0 for all
	Hints     *promstorage.SelectHints
	Unordered bool // series may come in any order
}

// SeriesBlock is the samples of one series as columns, in the order of time, one a timestamp.
type SeriesBlock struct {
	Labels telemetry.LabelSet
	// Times are in milliseconds. Series with the same times may share one slice, which then stays as it is until
	// Columns returns: equal pointers are equal times.
	Times  []int64
	Values []float64
	// Histograms says that the series has native histograms in the range, too. Times and Values leave them out.
	Histograms bool
}

// SeriesReader reads metrics.
type SeriesReader interface {
	// Series returns the series in the order of their labels. Samples are in the order of time, one a
	// timestamp: of several the one that arrived last. A series may turn out to have no samples in the range.
	Series(ctx context.Context, q SeriesQuery) promstorage.SeriesSet
	// LabelNames returns the label names of the matching series, sorted. This and the next two go by the first and
	// last sample of a series in each part: one that is silent in the range may be among them if it has samples before
	// and after.
	LabelNames(ctx context.Context, q SeriesQuery) ([]string, error)
	// LabelValues returns the values of label name among the matching series, sorted.
	LabelValues(ctx context.Context, name string, q SeriesQuery) ([]string, error)
	// LabelSets returns the labels of the matching series, sorted; it reads no samples.
	LabelSets(ctx context.Context, q SeriesQuery) ([]telemetry.LabelSet, error)
	// Columns calls f for each matching series with samples in the range, each once, in any order, from one goroutine:
	// what is computed on columns reads it. It ends with the first error of f. The block is valid until f returns;
	// its Labels may be kept.
	Columns(ctx context.Context, q SeriesQuery, f func(*SeriesBlock) error) error
	// Exemplars returns the exemplars of the matching series, sorted by labels, then time.
	Exemplars(ctx context.Context, q SeriesQuery) ([]exemplar.QueryResult, error)
	// Metadata returns what is known about the metric families; metric "" means all of them.
	Metadata(ctx context.Context, tenant telemetry.Tenant, metric string) (map[string][]telemetry.Metadata, error)
}

// Order is the order in which rows are returned.
type Order uint8

// The orders of rows. Rows with the same time come in the order of their stream's labels or their trace, those of one
// trace by span ID and parent ID, and what is equal then in the order of arrival (NewestFirst: the reverse); nothing that the
// store does to its parts changes that.
const (
	Unordered Order = iota
	OldestFirst
	NewestFirst
)

// LogQuery selects log records.
type LogQuery struct {
	Tenant     telemetry.Tenant
	Start, End int64 // nanoseconds
	Where      Predicate
	Columns    LogColumns // what the caller will read; Time is always there
	Order      Order
	Limit      int // with an order: return the first Limit rows of it; 0 for all
	// Split makes what is not in parts yet come as Lines, too, when Columns asks for them: it costs splitting each line.
	Split bool
	// MaxBytes ends the read with ErrReadLimit when it has read more bytes of parts; 0 for any number.
	MaxBytes int64
}

// LogReader reads logs.
type LogReader interface {
	// Logs yields blocks of matching rows. A block is valid until the next is yielded.
	Logs(ctx context.Context, q LogQuery) iter.Seq2[*LogBlock, error]
	// Streams returns the distinct streams with records in the time range that match q.Where as far as it
	// speaks of streams, sorted.
	Streams(ctx context.Context, q LogQuery) ([]telemetry.LabelSet, error)
}

// LogFollower tells of logs as they arrive.
type LogFollower interface {
	// FollowLogs calls f with each batch of a tenant's logs once readers see it, in the order of arrival, until stop is
	// called; stop waits for a call of f that is under way. f must return soon and not use the store; it may keep the
	// batch, but must not change it.
	FollowLogs(tenant telemetry.Tenant, f func(*telemetry.Batch)) (stop func())
}

// SpanQuery selects spans by their start.
type SpanQuery struct {
	Tenant     telemetry.Tenant
	Start, End int64 // nanoseconds
	Where      Predicate
	Columns    SpanColumns // what the caller will read; IDs, start and duration are always there
	Order      Order
	Limit      int
}

// SpanReader reads traces.
type SpanReader interface {
	// Spans yields blocks of matching rows. A block is valid until the next is yielded.
	Spans(ctx context.Context, q SpanQuery) iter.Seq2[*SpanBlock, error]
	// Traces yields blocks of whole traces.
	Traces(ctx context.Context, q TraceQuery) iter.Seq2[TraceBlock, error]
	// SpanKeys returns the keys of attributes that traces in the range of q have, sorted by scope and name. This and the
	// next go by the blocks that hold the range, and may tell of more than it has; the rest of q is not used.
	SpanKeys(ctx context.Context, q TraceQuery) ([]SpanKey, error)
	// SpanValues returns at most limit distinct values of key, 0 for all, in no order.
	SpanValues(ctx context.Context, key SpanKey, q TraceQuery, limit int) ([]telemetry.Value, error)
}

// EntityReader answers what produced telemetry. It may know more than the view it belongs to, never less.
type EntityReader interface {
	// Entities returns entities with the resources that speak for them inside the time asked for.
	Entities(ctx context.Context, tenant telemetry.Tenant, q telemetry.Query) ([]telemetry.Entity, error)
	// SeriesResources returns for each matching series the resources that vouch for it.
	SeriesResources(ctx context.Context, q SeriesQuery) (map[telemetry.LabelSet][]telemetry.ResourceID, error)
}

// State is small keyed state that is as durable as the records: what alerting must know after a restart. It is safe
// for concurrent use.
type State interface {
	// Set makes value the value of key, durably; an empty value removes the key. Keys have at most MaxStateKey bytes,
	// values MaxStateValue.
	Set(ctx context.Context, key string, value []byte) error
	// Get returns the value of key, which the caller must not change, or nil.
	Get(key string) []byte
	// Keys returns the keys that begin with prefix, sorted.
	Keys(prefix string) []string
}

// Limits of State.
const (
	MaxStateKey   = 1 << 10
	MaxStateValue = 1 << 20
)

// Mask is a delete: what it covers is invisible at once and is rewritten away later.
type Mask struct {
	ID         uint64 // set by the store; rises
	Tenant     telemetry.Tenant
	Signal     Signal
	Start, End int64               // in the unit of the signal
	Matchers   []*labels.Matcher   // of series or streams; none means all
	Contains   string              // logs: lines that contain it
	Traces     []telemetry.TraceID // logs, traces: only these
}

// Receipt tells how far a delete has come.
type Receipt struct {
	Mask      Mask
	Position  Position
	Rewritten []string // parts written anew without what the mask covers
	Pending   []string // parts that may still hold covered bytes; readers never see them
}

// Admin is what operators do to the store.
type Admin interface {
	// Delete makes everything stored so far that m covers invisible, durably, and returns the mask's ID.
	Delete(ctx context.Context, m Mask) (uint64, error)
	// Receipts returns the deletes of a tenant, oldest first.
	Receipts(ctx context.Context, tenant telemetry.Tenant) ([]Receipt, error)
	// Flush writes everything in memory into parts.
	Flush(ctx context.Context) error
	// Stats describes what is stored.
	Stats(ctx context.Context) (Stats, error)
}

// Stats describes what is stored.
type Stats struct {
	Signals map[Signal]SignalStats
	LogSize int64 // bytes of the write-ahead log
	Holes   []string
}

// SignalStats describes one signal.
type SignalStats struct {
	HeadBytes, HeadRecords int64
	Parts                  int
	PartBytes, PartRecords int64
	IndexBytes             int64    // of PartBytes, what tells the labels of series
	Corrupt                []string // quarantined parts
}

var (
	// ErrOverloaded is wrapped when a write is refused for now; RetryAfter tells when to try again.
	ErrOverloaded = errors.New("overloaded")
	// ErrFull is wrapped, together with ErrOverloaded, when the disk is full.
	ErrFull = errors.New("the disk is full")
	// ErrTooLarge is wrapped when a request is too large for the log; a retry is of no use.
	ErrTooLarge = errors.New("the request is too large")
	// ErrStateFull is wrapped when there is more keyed state than storage.max_state allows.
	ErrStateFull = errors.New("there is too much keyed state (setting storage.max_state)")
	// ErrClosed is returned once the store is closed.
	ErrClosed = errors.New("the store is closed")
	// ErrReadLimit is wrapped by reads that are over LogQuery.MaxBytes.
	ErrReadLimit = errors.New("more was read than the query allows")
	// ErrViewExpired is wrapped by reads of a view that was held so long that its memory was taken back.
	ErrViewExpired = errors.New("the view expired: narrow the query's time range or raise storage.pinned_bytes")
)

// Overloaded is the error of a write that may be retried after a while.
type Overloaded struct {
	Reason     string
	RetryAfter time.Duration
	Err        error // nil, or ErrFull
}

// Error tells the reason.
func (e *Overloaded) Error() string { return "overloaded: " + e.Reason }

// Unwrap makes errors.Is(err, ErrOverloaded) true.
func (e *Overloaded) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrOverloaded}
	}
	return []error{ErrOverloaded, e.Err}
}
