package metrics

import (
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/braidobs/braid/storage"
)

// input is series that go into a part. It is walked over once by next, in storage order; the series are numbered in the
// order in which that gives them, and then read in rising order, from the first again as often as needed.
type input interface {
	// next moves to the next series; ok is false after the last. It appends the labels as dicts numbers them.
	next(ds *dicts, dst []pair) (labels []pair, ok bool, err error)
	// key returns what the series that next moved to is sorted by, until the call after.
	key() (*key, error)
	// bounds returns the smallest and largest time of float samples.
	bounds() (lo, hi int64)
	// floats returns the float samples of series i in a time range, which are valid until the next call. The range
	// changes after the last series only.
	floats(i int, lo, hi int64) (Columns, error)
	// has says whether there is any of a kind, without looking closely.
	has(w What) bool
	histograms(i int) ([]Point, error)
	exemplars(i int) ([]exemplar.Exemplar, error)
	evidence(i int) ([]Evidence, error)
}

// histogramsToo is a kind of an input's content.
const histogramsToo What = 1 << 7

// memoryInput is an input that is in memory.
type memoryInput struct {
	keys []key
	data []Data
	at   int
}

// newMemoryInput takes over data, in any order.
func newMemoryInput(data []Data) *memoryInput {
	in := &memoryInput{keys: make([]key, len(data)), data: make([]Data, len(data)), at: -1}
	order := make([]int, len(data))
	keys := make([]key, len(data))
	for i := range data {
		keys[i], order[i] = keyOf(data[i].Labels), i
	}
	slices.SortFunc(order, func(a, b int) int { return keys[a].compare(&keys[b]) })
	for i, from := range order {
		in.keys[i], in.data[i] = keys[from], data[from]
	}
	return in
}

func (in *memoryInput) next(ds *dicts, dst []pair) ([]pair, bool, error) {
	if in.at++; in.at >= len(in.data) {
		return dst, false, nil
	}
	return ds.appendAll(dst, in.data[in.at].Labels), true, nil
}

func (in *memoryInput) key() (*key, error) { return &in.keys[in.at], nil }
func (in *memoryInput) has(What) bool      { return true }

func (in *memoryInput) bounds() (lo, hi int64) {
	lo, hi = maxTime, minTime
	for i := range in.data {
		if ts := in.data[i].T; len(ts) > 0 {
			lo, hi = min(lo, ts[0]), max(hi, ts[len(ts)-1])
		}
	}
	return lo, hi
}

func (in *memoryInput) floats(i int, lo, hi int64) (Columns, error) {
	return in.data[i].within(lo, hi), nil
}

func (in *memoryInput) histograms(i int) ([]Point, error) { return in.data[i].Histograms, nil }

func (in *memoryInput) evidence(i int) ([]Evidence, error) { return in.data[i].Evidence, nil }

func (in *memoryInput) exemplars(i int) ([]exemplar.Exemplar, error) {
	return in.data[i].Exemplars, nil
}

// within returns the samples in a time range, which share memory with c.
func (c *Columns) within(lo, hi int64) Columns {
	if n := len(c.T); n == 0 || lo <= c.T[0] && hi >= c.T[n-1] {
		return *c
	}
	a, _ := slices.BinarySearch(c.T, lo)
	b, found := slices.BinarySearch(c.T, hi)
	if found {
		b++
	}
	b = max(a, b)
	out := Columns{T: c.T[a:b], V: c.V[a:b]}
	if c.ST != nil {
		out.ST = c.ST[a:b]
	}
	return out
}

// everything is the query that selects all.
func everything() *storage.SeriesQuery { return &storage.SeriesQuery{Start: minTime, End: maxTime} }
