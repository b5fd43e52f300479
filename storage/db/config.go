package db

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/blob"
	"github.com/braidobs/braid/storage/catalog"
	"github.com/braidobs/braid/storage/logs"
	"github.com/braidobs/braid/storage/traces/columns"
	"github.com/braidobs/braid/storage/wal"
)

// Config is section "storage" of the configuration.
type Config struct {
	Retention          config.Duration `yaml:"retention" help:"How long everything is kept, by the time of the records."`
	HeadBytes          config.Size     `yaml:"head_bytes" help:"How much of each signal is held in memory. At half of it a part is written; at all of it writes are refused for now."`
	PinnedBytes        config.Size     `yaml:"pinned_bytes" help:"How much memory that is written out already queries may keep from being freed; over it the oldest query is cancelled."`
	CacheBytes         config.Size     `yaml:"cache_bytes" help:"Memory for blocks read from parts; 0 for no cache."`
	FlushInterval      config.Duration `yaml:"flush_interval" help:"How long records stay in memory before they are written to a part, however few there are."`
	LogBytes           config.Size     `yaml:"log_bytes" help:"The size of the write-ahead log at which everything in memory is written to parts. It bounds the time of a start after a crash."`
	RetryWindow        config.Duration `yaml:"retry_window" help:"How long a write request is remembered, so that a retry of it is stored once."`
	MaxSources         int             `yaml:"max_sources" help:"How many numbered streams of senders, such as the logs of containers, are remembered, so that what is sent again is stored once. The one written to longest ago is forgotten first."`
	MaxState           config.Size     `yaml:"max_state" help:"How much keyed state, such as the evidence of alerts, is kept."`
	MaxSeries          int             `yaml:"max_series" help:"How many series of one tenant may be written to at once. Series beyond are refused; one that had no samples for 15 minutes does not count."`
	MaxSeriesPerMetric int             `yaml:"max_series_per_metric" help:"How many series of one metric of a tenant may be written to at once."`
	MaxDeltaSeries     int             `yaml:"max_delta_series" help:"How many series of delta temporality are added up at once; the state of one takes some memory."`
	MaxResources       int             `yaml:"max_resources" help:"How many resources are known for joins; later ones join nothing."`
	Cluster            string          `yaml:"cluster" help:"The cluster of pods that do not name theirs."`
}

// DefaultConfig returns the settings that a small machine is served well by.
func DefaultConfig() Config {
	return Config{
		Retention:     config.Duration(30 * 24 * time.Hour),
		HeadBytes:     64 << 20,
		PinnedBytes:   128 << 20,
		CacheBytes:    32 << 20,
		FlushInterval: config.Duration(10 * time.Minute),
		LogBytes:      512 << 20,
		RetryWindow:   config.Duration(5 * time.Minute),
		MaxSources:    200_000,
		MaxState:      64 << 20,
		MaxSeries:     1_000_000, MaxSeriesPerMetric: 200_000,
		MaxDeltaSeries: 200_000,
		MaxResources:   500_000,
	}
}

// Validate returns all mistakes.
func (c Config) Validate() error {
	var errs config.Errors
	if c.Retention < config.Duration(time.Hour) {
		errs.Field("retention", errors.New("must be at least 1h"))
	}
	for _, s := range []struct {
		name string
		size config.Size
	}{
		{"head_bytes", c.HeadBytes},
		{"pinned_bytes", c.PinnedBytes},
		{"log_bytes", c.LogBytes},
	} {
		if s.size < 1<<20 {
			errs.Field(s.name, errors.New("must be at least 1MiB"))
		}
	}
	if c.CacheBytes != 0 && c.CacheBytes < 32<<20 {
		errs.Field("cache_bytes", errors.New("must be 0 (none) or at least 32MiB"))
	}
	if c.FlushInterval < config.Duration(time.Second) {
		errs.Field("flush_interval", errors.New("must be at least 1s"))
	}
	if c.RetryWindow < 0 {
		errs.Field("retry_window", errors.New("must not be negative"))
	}
	if c.MaxSources < 1 {
		errs.Field("max_sources", errors.New("must be positive"))
	}
	if c.MaxState < storage.MaxStateValue {
		errs.Field("max_state", fmt.Errorf("must be at least %s", config.Size(storage.MaxStateValue)))
	}
	if c.MaxSeries < 1 {
		errs.Field("max_series", errors.New("must be positive"))
	}
	if c.MaxSeriesPerMetric < 1 {
		errs.Field("max_series_per_metric", errors.New("must be positive"))
	}
	if c.MaxDeltaSeries < 1 {
		errs.Field("max_delta_series", errors.New("must be positive"))
	}
	if c.MaxResources < 1 {
		errs.Field("max_resources", errors.New("must be positive"))
	}
	return errs.Err()
}

// OpenLog opens the write-ahead log; its next position is at least atLeast.
type OpenLog func(atLeast wal.Position) (wal.Log, error)

// Deps is what the engine stands on.
type Deps struct {
	OpenLog OpenLog
	Blobs   blob.Store
	Catalog catalog.Catalog
	Now     func() time.Time
	Log     *slog.Logger          // nil logs nothing
	Metrics prometheus.Registerer // nil keeps them to itself
	// CheckpointEvery is after how many manifests of a chain they are absorbed into one; 0 is 256.
	CheckpointEvery int
	// MergeMetricsFrom is how many neighbouring small parts of metrics are worth a merge; 0 is 8.
	MergeMetricsFrom int
	// Logs is the layout of parts of logs; the zero value is logs.DefaultLayout.
	Logs logs.Layout
	// Traces is the layout of parts of traces; the zero value is columns.DefaultLayout.
	Traces columns.Layout
	// SharedTraces is of how many traces at once a read finds out where they lie; 0 is 512 Ki.
	SharedTraces int
}

// metrics are the engine's own.
type metrics struct {
	written    *prometheus.CounterVec // records, by signal
	rejected   *prometheus.CounterVec // by signal
	overloaded *prometheus.CounterVec // by reason
	retries    prometheus.Counter
	evicted    prometheus.Counter
	again      prometheus.Counter // records
	// streams of sources forgotten
	sourcesEvicted prometheus.Counter
	stateFull      prometheus.Counter
	overflow       *prometheus.CounterVec // samples, by setting
	flushes        *prometheus.CounterVec // by signal, outcome
	merges         *prometheus.CounterVec
	dropped        *prometheus.CounterVec // parts by reason
	corrupt        prometheus.Counter
	holes          prometheus.Counter
	expired        prometheus.Counter
	flushTime      *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "braid_storage_" + name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	m := &metrics{
		written:        counter("records_written_total", "Records made durable.", "signal"),
		rejected:       counter("records_rejected_total", "Records that the store rejected.", "signal"),
		overloaded:     counter("writes_refused_total", "Writes refused for now.", "reason"),
		retries:        counter("writes_retried_total", "Writes recognised as a retry and stored once.").WithLabelValues(),
		evicted:        counter("retry_keys_evicted_total", "Keys of requests forgotten before the end of storage.retry_window because there were more than 200,000.").WithLabelValues(),
		again:          counter("records_sent_again_total", "Records of numbered streams that were acknowledged before and not stored again.").WithLabelValues(),
		sourcesEvicted: counter("sources_evicted_total", "Numbered streams forgotten because of storage.max_sources.").WithLabelValues(),
		stateFull:      counter("state_refused_total", "Keyed state refused because of storage.max_state.").WithLabelValues(),
		overflow:       counter("series_refused_samples_total", "Samples of series refused because of a limit of active series; the series "+overflowMetric+" of the tenant names the metrics.", "setting"),
		flushes:        counter("flushes_total", "Flushes of memory into parts.", "signal", "outcome"),
		merges:         counter("merges_total", "Merges and rewrites of parts.", "signal", "outcome"),
		dropped:        counter("parts_dropped_total", "Parts dropped.", "signal", "reason"),
		corrupt:        counter("parts_corrupt_total", "Parts set aside because they are corrupt.").WithLabelValues(),
		holes:          counter("log_holes_total", "Holes found in the write-ahead log or in the chain of commits.").WithLabelValues(),
		expired:        counter("views_expired_total", "Views cancelled because of storage.pinned_bytes.").WithLabelValues(),
	}
	m.flushTime = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "braid_storage_flush_seconds", Help: "Time to write and commit one flush.", Buckets: prometheus.ExponentialBuckets(0.01, 4, 7),
	}, []string{"signal"})
	reg.MustRegister(m.flushTime)
	return m
}
