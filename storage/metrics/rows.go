package metrics

import (
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/part"
)

// scanRows reads the blocks of a table with rows that have one of some series, which are sorted, and times in a range.
// It calls f for each such block with the series of its rows.
func scanRows(t *part.Table, series int, ids []int64, timed bool, lo, hi int64, f func(b int, of []int64) error) error {
	for b := range t.Blocks() {
		if timed {
			if l, h, ok := t.Ints("time", b); ok && (h < lo || l > hi) {
				continue
			}
		}
		if l, h, ok := t.Ints("series", b); ok {
			i, _ := slices.BinarySearch(ids, l)
			if i == len(ids) || ids[i] > h {
				continue
			}
		}
		of, err := t.Indexes("series", b, series)
		if err != nil {
			return err
		}
		if err := f(b, of); err != nil {
			return err
		}
	}
	return nil
}

// wanted walks over ids beside rows that are sorted by series.
type wanted struct {
	ids []int64
	at  int
}

func (w *wanted) has(id int64) bool {
	for w.at < len(w.ids) && w.ids[w.at] < id {
		w.at++
	}
	if w.at > 0 && w.ids[w.at-1] >= id { // not sorted after all
		_, found := slices.BinarySearch(w.ids, id)
		return found
	}
	return w.at < len(w.ids) && w.ids[w.at] == id
}

// histograms returns the native histograms of some series in a time range.
func (p *Part) histograms(ids []int64, lo, hi int64) (map[int64][]Point, error) {
	t, err := p.table(tableHistograms)
	if err != nil || t.Rows() == 0 {
		return nil, err
	}
	out := make(map[int64][]Point)
	w := wanted{ids: ids}
	err = scanRows(t, p.idx.series, ids, true, lo, hi, func(b int, of []int64) error {
		times, err := t.Read("time", b)
		if err != nil {
			return err
		}
		starts, err := t.Read("start", b)
		if err != nil {
			return err
		}
		values, err := t.Read("histogram", b)
		if err != nil {
			return err
		}
		for i, n := range of {
			at := times.Ints[i]
			if at < lo || at > hi || !w.has(n) {
				continue
			}
			pt, err := readHistogram(t, b, i, at, starts.Ints[i], values.Strs[i])
			if err != nil {
				return err
			}
			if have := out[n]; len(have) > 0 && have[len(have)-1].T >= at {
				return t.Corrupt("time", b, "row %d: times out of order", i)
			}
			out[n] = append(out[n], pt)
		}
		return nil
	})
	return out, err
}

func readHistogram(t *part.Table, b, row int, at, start int64, s string) (Point, error) {
	in := telemetry.NewDecoder(s)
	var h telemetry.HistogramSample
	if in.Histogram(&h); in.Err() != nil {
		return Point{}, t.Corrupt("histogram", b, "row %d: %v", row, in.Err())
	}
	return Point{T: at, ST: telemetry.UnpackStart(at, uint64(start)), H: h.H, FH: h.FH}, nil
}

// exemplars returns the exemplars of some series in a time range.
func (p *Part) exemplars(ids []int64, lo, hi int64) (map[int64][]exemplar.Exemplar, error) {
	t, err := p.table(tableExemplars)
	if err != nil || t.Rows() == 0 {
		return nil, err
	}
	out := make(map[int64][]exemplar.Exemplar)
	w := wanted{ids: ids}
	err = scanRows(t, p.idx.series, ids, true, lo, hi, func(b int, of []int64) error {
		values, err := t.Read("exemplar", b)
		if err != nil {
			return err
		}
		for i, n := range of {
			if !w.has(n) {
				continue
			}
			in := telemetry.NewDecoder(values.Strs[i])
			e := in.Exemplar()
			if in.Err() != nil {
				return t.Corrupt("exemplar", b, "row %d: %v", i, in.Err())
			}
			if e.Ts >= lo && e.Ts <= hi {
				out[n] = append(out[n], e)
			}
		}
		return nil
	})
	return out, err
}

// evidence returns who vouches for some series in a time range.
func (p *Part) evidence(ids []int64, lo, hi int64) (map[int64][]Evidence, error) {
	t, err := p.table(tableEvidence)
	if err != nil || t.Rows() == 0 {
		return nil, err
	}
	resources, err := part.ReadResources(p.p)
	if err != nil {
		return nil, err
	}
	out := make(map[int64][]Evidence)
	w := wanted{ids: ids}
	err = scanRows(t, p.idx.series, ids, false, 0, 0, func(b int, of []int64) error {
		res, err := t.Indexes("resource", b, len(resources))
		if err != nil {
			return err
		}
		first, err := t.Read("first", b)
		if err != nil {
			return err
		}
		last, err := t.Read("last", b)
		if err != nil {
			return err
		}
		for i, n := range of {
			if resources[res[i]] != nil && first.Ints[i] <= hi && last.Ints[i] >= lo && w.has(n) {
				out[n] = append(out[n], Evidence{Resource: resources[res[i]], First: first.Ints[i], Last: last.Ints[i]})
			}
		}
		return nil
	})
	return out, err
}
