package metrics

import (
	"slices"
	"sort"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// input is series that go into a part, in storage order. Of several inputs the later ones came later.
type input interface {
	len() int
	at(i int) *key
	labels(i int) (telemetry.LabelSet, error)
	// bounds returns the smallest and largest time of float samples.
	bounds() (lo, hi int64)
	// floats returns the float samples of series i in a time range, both ends included. What it returns is valid
	// until the next call with a smaller i or another range. Calls come window by window, series by series.
	floats(i int, lo, hi int64) (Columns, error)
	// others returns everything of series i but float samples. Calls come in the order of series.
	others(i int) (Data, error)
}

// memoryInput is an input that is in memory.
type memoryInput struct {
	keys []key
	data []Data
}

// newMemoryInput takes over data, in any order.
func newMemoryInput(data []Data) *memoryInput {
	in := &memoryInput{keys: make([]key, len(data)), data: data}
	for i := range data {
		in.keys[i] = keyOf(data[i].Labels)
	}
	sort.Sort(in)
	return in
}

// Len, Less and Swap implement sort.Interface.
func (in *memoryInput) Len() int           { return len(in.data) }
func (in *memoryInput) Less(i, j int) bool { return in.keys[i].compare(&in.keys[j]) < 0 }
func (in *memoryInput) Swap(i, j int) {
	in.keys[i], in.keys[j] = in.keys[j], in.keys[i]
	in.data[i], in.data[j] = in.data[j], in.data[i]
}

func (in *memoryInput) len() int                                 { return len(in.data) }
func (in *memoryInput) at(i int) *key                            { return &in.keys[i] }
func (in *memoryInput) labels(i int) (telemetry.LabelSet, error) { return in.data[i].Labels, nil }

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

func (in *memoryInput) others(i int) (Data, error) {
	d := in.data[i]
	d.Columns = Columns{}
	return d, nil
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
