package rules

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	promstorage "github.com/prometheus/prometheus/storage"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// forgetAfter is after how many milliseconds without a sample the last one of a series is forgotten.
const forgetAfter = 3_600_000

// appendable writes what rules compute. The samples of one rule are one request: they are all stored or none.
//
// The store takes samples in any order, and of two with one time the later one. The rule manager relies on the
// opposite: a staleness marker for a series that another rule goes on with must be refused, or it would hide that
// rule's sample. So the last sample of each series that rules wrote is remembered here.
type appendable struct {
	writer storage.Writer
	tenant telemetry.Tenant

	mu       sync.Mutex // guards all below
	recent   map[telemetry.LabelSet]last
	older    map[telemetry.LabelSet]last // what was not written since the maps were swapped
	swapped  int64                       // the time of the sample at which they were
	inflight sync.WaitGroup              // commits
}

// last is the last sample of a series.
type last struct {
	t    int64
	bits uint64
	fh   *histogram.FloatHistogram // or nil
}

var _ promstorage.Appendable = (*appendable)(nil)

func newAppendable(w storage.Writer, t telemetry.Tenant) *appendable {
	return &appendable{writer: w, tenant: t, recent: make(map[telemetry.LabelSet]last)}
}

// wait returns when no commit is under way.
func (a *appendable) wait() { a.inflight.Wait() }

// Appender implements promstorage.Appendable.
func (a *appendable) Appender(ctx context.Context) promstorage.Appender {
	a.inflight.Add(1)
	return &appender{ctx: ctx, to: a, index: make(map[telemetry.LabelSet]int)}
}

// known returns the last sample of a series.
func (a *appendable) known(ls telemetry.LabelSet) (last, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l, ok := a.recent[ls]
	if !ok {
		l, ok = a.older[ls]
	}
	return l, ok
}

// check refuses a sample that does not come after the last one of its series.
func (a *appendable) check(ls telemetry.LabelSet, s last) (duplicate bool, err error) {
	l, ok := a.known(ls)
	switch {
	case !ok || s.t > l.t:
		return false, nil
	case s.t < l.t:
		return false, promstorage.ErrOutOfOrderSample
	case s.fh != nil && l.fh != nil && s.fh.Equals(l.fh), s.fh == nil && l.fh == nil && s.bits == l.bits:
		return true, nil
	default:
		return false, promstorage.ErrDuplicateSampleForTimestamp
	}
}

// stored notes what was written.
func (a *appendable) stored(written map[telemetry.LabelSet]last) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for ls, s := range written {
		if s.t-a.swapped > forgetAfter {
			a.older, a.recent, a.swapped = a.recent, make(map[telemetry.LabelSet]last, len(a.recent)), s.t
		}
		a.recent[ls] = s
	}
}

// appender collects the samples of one rule at one time.
type appender struct {
	ctx    context.Context //nolint:containedctx // the interface has it so: a transaction has one context
	to     *appendable
	series []telemetry.Series
	index  map[telemetry.LabelSet]int // into series
	ended  bool
}

var _ promstorage.Appender = (*appender)(nil)

func (a *appender) at(ls telemetry.LabelSet) *telemetry.Series {
	i, ok := a.index[ls]
	if !ok {
		i = len(a.series)
		a.index[ls] = i
		a.series = append(a.series, telemetry.Series{Labels: ls})
	}
	return &a.series[i]
}

// Append implements promstorage.Appender.
func (a *appender) Append(_ promstorage.SeriesRef, l labels.Labels, t int64, v float64) (promstorage.SeriesRef, error) {
	ls := telemetry.NewLabelSet(l)
	if again, err := a.to.check(ls, last{t: t, bits: math.Float64bits(v)}); again || err != nil {
		return 0, err
	}
	s := a.at(ls)
	s.Samples = append(s.Samples, telemetry.Sample{T: t, V: v})
	return 0, nil
}

// AppendHistogram implements promstorage.Appender.
func (a *appender) AppendHistogram(_ promstorage.SeriesRef, l labels.Labels, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (promstorage.SeriesRef, error) {
	if h != nil {
		fh = h.ToFloat(nil)
	} else {
		fh = fh.Copy()
	}
	ls := telemetry.NewLabelSet(l)
	before, _ := a.to.known(ls)
	SetResetHint(before.fh, fh)
	if again, err := a.to.check(ls, last{t: t, fh: fh}); again || err != nil {
		return 0, err
	}
	s := a.at(ls)
	s.Histograms = append(s.Histograms, telemetry.HistogramSample{T: t, FH: fh})
	return 0, nil
}

// SetResetHint makes a histogram tell whether it counts on from the one before it in its series, nil for none. What
// it told before was about the series that it was computed from. Gauges stay gauges.
func SetResetHint(before, h *histogram.FloatHistogram) {
	if h.CounterResetHint == histogram.GaugeType {
		return
	}
	h.CounterResetHint = histogram.UnknownCounterReset
	if before == nil {
		return
	}
	if h.DetectReset(before) {
		h.CounterResetHint = histogram.CounterReset
		return
	}
	h.CounterResetHint = histogram.NotCounterReset
}

// SetOptions implements promstorage.Appender. Samples out of order are always discarded.
func (a *appender) SetOptions(*promstorage.AppendOptions) {}

// AppendExemplar implements promstorage.Appender. Rules have no exemplars.
func (a *appender) AppendExemplar(promstorage.SeriesRef, labels.Labels, exemplar.Exemplar) (promstorage.SeriesRef, error) {
	return 0, nil
}

// AppendHistogramSTZeroSample implements promstorage.Appender. Rules have no start times.
func (a *appender) AppendHistogramSTZeroSample(promstorage.SeriesRef, labels.Labels, int64, int64, *histogram.Histogram, *histogram.FloatHistogram) (promstorage.SeriesRef, error) {
	return 0, nil
}

// AppendSTZeroSample implements promstorage.Appender. Rules have no start times.
func (a *appender) AppendSTZeroSample(promstorage.SeriesRef, labels.Labels, int64, int64) (promstorage.SeriesRef, error) {
	return 0, nil
}

// UpdateMetadata implements promstorage.Appender. Rules have no metadata.
func (a *appender) UpdateMetadata(promstorage.SeriesRef, labels.Labels, metadata.Metadata) (promstorage.SeriesRef, error) {
	return 0, nil
}

// Commit implements promstorage.Appender: it returns after the samples are durable and visible.
func (a *appender) Commit() error {
	if a.ended {
		return nil
	}
	a.ended = true
	defer a.to.inflight.Done()
	if len(a.series) == 0 {
		return nil
	}
	written := make(map[telemetry.LabelSet]last, len(a.series))
	for i := range a.series {
		s := &a.series[i]
		for _, x := range s.Samples {
			written[s.Labels] = last{t: x.T, bits: math.Float64bits(x.V)}
		}
		for _, x := range s.Histograms {
			if w, ok := written[s.Labels]; !ok || x.T >= w.t {
				written[s.Labels] = last{t: x.T, fh: x.FH.Copy()}
			}
		}
	}
	_, rejected, err := a.to.writer.Write(a.ctx, storage.Request{Batches: []telemetry.Batch{{Tenant: a.to.tenant, Series: a.series}}})
	a.series = nil
	if err != nil {
		return fmt.Errorf("store the samples of the rule: %w", err)
	}
	a.to.stored(written)
	if n := rejected.Total(); n > 0 {
		return fmt.Errorf("the store rejected %d samples of the rule: %v", n, rejected.Reasons)
	}
	return nil
}

// Rollback implements promstorage.Appender.
func (a *appender) Rollback() error {
	if !a.ended {
		a.ended = true
		a.to.inflight.Done()
	}
	a.series = nil
	return nil
}
