package file

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/braidobs/braid/storage/vfs"
	"github.com/braidobs/braid/storage/wal"
)

// Defaults of [Options].
const (
	DefaultSegmentBytes   = 64 << 20
	DefaultMaxQueuedBytes = 64 << 20
	DefaultMaxRecordBytes = 32 << 20
)

// Options is what a log is opened with. FS, Dir and Now are needed; other zero values mean the default.
type Options struct {
	FS  vfs.FS
	Dir string // created when absent; for this log alone
	// Shard is the number of the sequence. A directory belongs to one shard for ever.
	Shard uint32
	// SegmentBytes is the size at which a new segment file is begun. A larger record gets a file of its own.
	SegmentBytes int64
	// MaxQueuedBytes bounds the appends whose done has not returned; over it they fail with wal.ErrOverloaded. A
	// single record is always taken.
	MaxQueuedBytes int64
	// MaxRecordBytes bounds one record, at most 256 MiB. It can be lowered at any time: records that are in the
	// log stay readable.
	MaxRecordBytes int
	// AtLeast makes the first append get max(end of the log, AtLeast). What this skips is declared in the segment
	// and not a hole.
	AtLeast wal.Position
	Now     func() time.Time
	Log     *slog.Logger          // nil logs nothing
	Metrics prometheus.Registerer // nil keeps them to itself
}

func (o Options) withDefaults() (Options, error) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.MaxQueuedBytes == 0 {
		o.MaxQueuedBytes = DefaultMaxQueuedBytes
	}
	if o.MaxRecordBytes == 0 {
		o.MaxRecordBytes = DefaultMaxRecordBytes
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if o.FS == nil {
		errs = append(errs, errors.New("option FS: must be set"))
	}
	if o.Dir == "" {
		errs = append(errs, errors.New("option Dir: must be set"))
	}
	if o.Now == nil {
		errs = append(errs, errors.New("option Now: must be set"))
	}
	if o.SegmentBytes < 0 {
		errs = append(errs, errors.New("option SegmentBytes: must be positive"))
	}
	if o.MaxQueuedBytes < 0 {
		errs = append(errs, errors.New("option MaxQueuedBytes: must be positive"))
	}
	if o.MaxRecordBytes < 0 || o.MaxRecordBytes > maxPayload {
		errs = append(errs, fmt.Errorf("option MaxRecordBytes: must be positive and at most %d", maxPayload))
	}
	return o, errors.Join(errs...)
}

// metrics counts; the shard is a label.
type metrics struct {
	records, bytes, failed, syncs, torn, holes prometheus.Counter
	syncSeconds                                prometheus.Histogram
	size                                       prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, shard uint32) (*metrics, error) {
	labels := prometheus.Labels{"shard": strconv.FormatUint(uint64(shard), 10)}
	var errs []error
	counter := func(name, help string) prometheus.Counter {
		return register(reg, &errs, prometheus.NewCounter(prometheus.CounterOpts{
			Name: name, Help: help, ConstLabels: labels,
		}))
	}
	m := &metrics{
		records: counter("braid_wal_appended_records_total", "Records made durable."),
		bytes:   counter("braid_wal_appended_bytes_total", "Bytes made durable, headers included."),
		failed:  counter("braid_wal_failed_records_total", "Appends that failed or were refused."),
		syncs:   counter("braid_wal_syncs_total", "Groups of records made durable by one fdatasync."),
		torn:    counter("braid_wal_torn_bytes_total", "Bytes of unfinished writes cut off when the log was opened."),
		holes:   counter("braid_wal_holes_total", "Holes found by replays: acknowledged records that are damaged."),
		syncSeconds: register(reg, &errs, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "braid_wal_sync_duration_seconds", Help: "Time to write and fdatasync one group.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16), ConstLabels: labels,
		})),
		size: register(reg, &errs, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "braid_wal_size_bytes", Help: "Size of the log on disk.", ConstLabels: labels,
		})),
	}
	return m, errors.Join(errs...)
}

// register registers c, or finds the one of an earlier log of the same shard: it goes on counting.
func register[C prometheus.Collector](reg prometheus.Registerer, errs *[]error, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if old, ok := already.ExistingCollector.(C); ok {
			return old
		}
	}
	if err != nil {
		*errs = append(*errs, err)
	}
	return c
}
