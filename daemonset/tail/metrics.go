package tail

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	read, acked, records, torn, cut, truncations, overflows, watchErrors, checkpointErrors prometheus.Counter

	lost                                      map[Reason]prometheus.Counter
	streams, files, lag, held, inflight, open prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	var errs []error
	counter := func(name, help string) prometheus.Counter {
		return register(reg, &errs, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
	}
	gauge := func(name, help string) prometheus.Gauge {
		return register(reg, &errs, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help}))
	}
	m := &metrics{
		read:             counter("braid_tail_read_bytes_total", "Bytes of logs read, uncompressed."),
		acked:            counter("braid_tail_acked_bytes_total", "Bytes of logs whose records are acknowledged."),
		records:          counter("braid_tail_records_total", "Records acknowledged."),
		torn:             counter("braid_tail_torn_lines_total", "Lines that did not begin with a header of the container runtime."),
		cut:              counter("braid_tail_cut_records_total", "Records over max_record, of which only the beginning was kept."),
		truncations:      counter("braid_tail_truncations_total", "Files that became shorter than what was read of them."),
		overflows:        counter("braid_tail_watch_overflows_total", "Times the kernel had more file events than its queue holds; everything was listed anew."),
		watchErrors:      counter("braid_tail_watch_errors_total", "Directories that could not be watched; they are listed every rescan_interval."),
		checkpointErrors: counter("braid_tail_checkpoint_errors_total", "Checkpoints that could not be written."),
		streams:          gauge("braid_tail_streams", "Log streams known."),
		files:            gauge("braid_tail_open_files", "Log files open."),
		lag:              gauge("braid_tail_lag_bytes", "Bytes in log files that are not acknowledged."),
		held:             gauge("braid_tail_held_bytes", "Bytes of deleted files that are kept open because they are not acknowledged; limited by max_held."),
		inflight:         gauge("braid_tail_inflight_bytes", "Bytes read and not acknowledged; limited by max_inflight."),
		open:             gauge("braid_tail_partial_bytes", "Bytes of records whose end has not come; limited by max_inflight."),
		lost:             map[Reason]prometheus.Counter{},
	}
	lost := register(reg, &errs, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "braid_tail_lost_bytes_total", Help: "Bytes of logs that were not delivered, by reason.",
	}, []string{"reason"}))
	for _, r := range reasons() {
		m.lost[r] = lost.WithLabelValues(string(r))
	}
	return m, errors.Join(errs...)
}

// register registers c, or finds the one of an earlier tailer: it goes on counting.
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
