package promql

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/braidobs/braid/storage"
)

// resetWindow is how far before a histogram the one is looked for that tells whether a counter was reset in between.
const resetWindow = 5 * time.Minute

// resetSet tells of each native histogram whether its counters went on since the one before it, as Prometheus's
// database does. It depends on the samples alone, not on how the store lays them out.
type resetSet struct {
	promstorage.SeriesSet
	earlier func() (map[string]earlier, error)
}

// withResets returns the series of a query in view v.
func withResets(ctx context.Context, v storage.View, q storage.SeriesQuery) promstorage.SeriesSet {
	before := q
	before.Start, before.End = q.Start-resetWindow.Milliseconds(), q.Start-1
	return resetSet{v.Series(ctx, q), sync.OnceValues(func() (map[string]earlier, error) {
		return lastHistograms(v.Series(ctx, before))
	})}
}

// earlier is the last sample of a series before a range: its kind, and the last histogram.
type earlier struct {
	kind chunkenc.ValueType
	h    *histogram.FloatHistogram
}

// lastHistograms returns the ends of the series that have native histograms, by the bytes of the labels.
func lastHistograms(set promstorage.SeriesSet) (map[string]earlier, error) {
	out := make(map[string]earlier)
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		it = s.Iterator(it)
		var last earlier
		for k := it.Next(); k != chunkenc.ValNone; k = it.Next() {
			if last.kind = k; k != chunkenc.ValFloat {
				_, last.h = it.AtFloatHistogram(last.h)
			}
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
		if last.h != nil {
			out[string(s.Labels().Bytes(nil))] = last
		}
	}
	return out, set.Err()
}

// At implements promstorage.SeriesSet.
func (s resetSet) At() promstorage.Series { return &resetSeries{s.SeriesSet.At(), s.earlier} }

type resetSeries struct {
	promstorage.Series
	earlier func() (map[string]earlier, error)
}

// Iterator implements promstorage.SampleIterable.
func (s *resetSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	old, ok := it.(*resetIterator)
	if !ok {
		return &resetIterator{Iterator: s.Series.Iterator(nil), series: s}
	}
	*old = resetIterator{Iterator: s.Series.Iterator(old.Iterator), series: s, current: old.current, before: old.before}
	return old
}

// resetIterator hands out floats as they are.
type resetIterator struct {
	chunkenc.Iterator
	series          *resetSeries
	kind            chunkenc.ValueType         // of the current sample
	current, before *histogram.FloatHistogram  // the current histogram, and memory for the one before it
	hint            histogram.CounterResetHint // of the current histogram
	err             error
}

// Next implements chunkenc.Iterator.
func (it *resetIterator) Next() chunkenc.ValueType {
	was, began := it.kind, it.kind != chunkenc.ValNone
	it.kind = it.Iterator.Next()
	if it.kind == chunkenc.ValNone || it.kind == chunkenc.ValFloat {
		return it.kind
	}
	switch {
	case !began:
		return it.arrive()
	case was != it.kind: // a float, or counts of another kind
		it.load()
		return it.tell(nil)
	}
	it.before, it.current = it.current, it.before
	it.load()
	return it.tell(it.before)
}

// Seek implements chunkenc.Iterator.
func (it *resetIterator) Seek(t int64) chunkenc.ValueType { //nolint:govet // the interface is Prometheus's, not io.Seeker
	if it.kind != chunkenc.ValNone && it.AtT() >= t {
		return it.kind
	}
	it.kind = it.Iterator.Seek(t)
	if it.kind == chunkenc.ValNone || it.kind == chunkenc.ValFloat {
		return it.kind
	}
	return it.arrive()
}

// arrive is at a histogram whose predecessor was not seen: it looks for that.
func (it *resetIterator) arrive() chunkenc.ValueType {
	it.load()
	at := it.AtT()
	trail := it.series.Series.Iterator(nil)
	found := chunkenc.ValNone
	for k := trail.Seek(at - resetWindow.Milliseconds()); k != chunkenc.ValNone && trail.AtT() < at; k = trail.Next() {
		found = k
		if k == it.kind {
			_, it.before = trail.AtFloatHistogram(it.before)
		}
	}
	if err := trail.Err(); err != nil {
		return it.fail(err)
	}
	if found != chunkenc.ValNone {
		if found != it.kind {
			return it.tell(nil)
		}
		return it.tell(it.before)
	}
	all, err := it.series.earlier()
	if err != nil {
		return it.fail(err)
	}
	if last := all[string(it.series.Labels().Bytes(nil))]; last.kind == it.kind {
		return it.tell(last.h)
	}
	return it.tell(nil)
}

func (it *resetIterator) fail(err error) chunkenc.ValueType {
	it.err, it.kind = err, chunkenc.ValNone
	return it.kind
}

func (it *resetIterator) load() { _, it.current = it.Iterator.AtFloatHistogram(it.current) }

// tell decides on the hint of the current histogram by the one before it, nil for none. A reset is unknown to
// functions until they look, as with Prometheus: only the absence of one is told.
func (it *resetIterator) tell(before *histogram.FloatHistogram) chunkenc.ValueType {
	h := it.current
	it.hint = h.CounterResetHint
	if it.hint == histogram.GaugeType {
		return it.kind
	}
	if before != nil && before.CounterResetHint != histogram.GaugeType && !value.IsStaleNaN(before.Sum) && !value.IsStaleNaN(h.Sum) {
		if h.CounterResetHint == histogram.NotCounterReset { // of the sender, whose last sample may be missing here
			h.CounterResetHint = histogram.UnknownCounterReset
		}
		if !h.DetectReset(before) {
			it.hint = histogram.NotCounterReset
			return it.kind
		}
	}
	it.hint = histogram.UnknownCounterReset
	return it.kind
}

// AtHistogram implements chunkenc.Iterator.
func (it *resetIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := it.Iterator.AtHistogram(h)
	h.CounterResetHint = it.hint
	return t, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *resetIterator) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	if fh == nil {
		fh = it.current.Copy()
	} else {
		it.current.CopyTo(fh)
	}
	fh.CounterResetHint = it.hint
	return it.AtT(), fh
}

// Err implements chunkenc.Iterator.
func (it *resetIterator) Err() error {
	if it.err != nil {
		return it.err
	}
	return it.Iterator.Err()
}
