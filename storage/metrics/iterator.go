package metrics

import (
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// iterator walks over the samples of one series. Histograms are copied before they are handed out: callers change
// them.
type iterator struct {
	buf  Buffer
	c    Columns
	hs   []Point
	i, j int                // the next float and histogram
	now  chunkenc.ValueType // what the iterator stands on, which is the one before the next of its kind
	err  error
}

func (it *iterator) reset(d *Data) {
	it.c, it.hs, it.i, it.j, it.now, it.err = d.Columns, d.Histograms, 0, 0, chunkenc.ValNone, nil
}

// Next implements chunkenc.Iterator.
func (it *iterator) Next() chunkenc.ValueType {
	switch {
	case it.err != nil:
		it.now = chunkenc.ValNone
	case it.i < len(it.c.T) && (it.j >= len(it.hs) || it.c.T[it.i] < it.hs[it.j].T):
		it.i++
		it.now = chunkenc.ValFloat
	case it.j < len(it.hs):
		it.now = chunkenc.ValFloatHistogram
		if it.hs[it.j].H != nil {
			it.now = chunkenc.ValHistogram
		}
		it.j++
	default:
		it.now = chunkenc.ValNone
	}
	return it.now
}

// Seek implements chunkenc.Iterator.
func (it *iterator) Seek(t int64) chunkenc.ValueType { //nolint:govet // the interface is Prometheus's, not io.Seeker
	if it.now != chunkenc.ValNone && it.AtT() >= t {
		return it.now
	}
	// Steps of a query are mostly near.
	for n := 0; it.i < len(it.c.T) && it.c.T[it.i] < t; n++ {
		if n == 8 {
			k, _ := slices.BinarySearch(it.c.T[it.i:], t)
			it.i += k
			break
		}
		it.i++
	}
	for it.j < len(it.hs) && it.hs[it.j].T < t {
		it.j++
	}
	return it.Next()
}

// At implements chunkenc.Iterator.
func (it *iterator) At() (int64, float64) { return it.c.T[it.i-1], it.c.V[it.i-1] }

// AtHistogram implements chunkenc.Iterator.
func (it *iterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	p := &it.hs[it.j-1]
	if h == nil {
		return p.T, p.H.Copy()
	}
	p.H.CopyTo(h)
	return p.T, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *iterator) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	p := &it.hs[it.j-1]
	if p.H != nil {
		return p.T, p.H.ToFloat(fh)
	}
	if fh == nil {
		return p.T, p.FH.Copy()
	}
	p.FH.CopyTo(fh)
	return p.T, fh
}

// AtT implements chunkenc.Iterator.
func (it *iterator) AtT() int64 {
	if it.now == chunkenc.ValFloat {
		return it.c.T[it.i-1]
	}
	return it.hs[it.j-1].T
}

// AtST implements chunkenc.Iterator.
func (it *iterator) AtST() int64 {
	switch {
	case it.now != chunkenc.ValFloat:
		return it.hs[it.j-1].ST
	case it.c.ST == nil:
		return 0
	default:
		return it.c.ST[it.i-1]
	}
}

// Err implements chunkenc.Iterator.
func (it *iterator) Err() error { return it.err }
