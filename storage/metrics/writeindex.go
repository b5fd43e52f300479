package metrics

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/part"
)

// any says whether an input has something of a kind.
func (o *partWriter) any(w What) bool {
	return slices.ContainsFunc(o.b.inputs, func(in input) bool { return in.has(w) })
}

// histograms writes the native histograms.
func (o *partWriter) histograms() error {
	r := newRows(o.w, tableHistograms)
	if !o.any(histogramsToo) {
		return r.close()
	}
	for i := range o.ends {
		hs, err := o.histogramsOf(o.from(i))
		if err != nil {
			return err
		}
		for j := range hs {
			p := &hs[j]
			r.ints(0, int64(i))
			r.ints(1, p.T)
			r.ints(2, int64(telemetry.PackStart(p.T, p.ST)))
			h := string(telemetry.AppendHistogram(nil, &telemetry.HistogramSample{H: p.H, FH: p.FH}))
			r.v[3].Strs = append(r.v[3].Strs, h)
			r.end(len(h) + 24)
			o.lo[i], o.hi[i] = min(o.lo[i], p.T), max(o.hi[i], p.T)
			o.b.saw(1, p.T, p.T)
		}
	}
	return r.close()
}

// histogramsOf returns the histograms of a series as they stand beside its floats.
func (o *partWriter) histogramsOf(from []ref) ([]Point, error) {
	some := false
	for _, r := range from {
		hs, err := o.b.inputs[r.input].histograms(int(r.series))
		if err != nil {
			return nil, err
		}
		if len(from) == 1 {
			return hs, nil
		}
		some = some || len(hs) > 0
	}
	if !some {
		return nil, nil
	}
	var all Data
	for _, r := range from {
		in := o.b.inputs[r.input]
		hs, err := in.histograms(int(r.series))
		if err != nil {
			return nil, err
		}
		c, err := allFloats(in, int(r.series))
		if err != nil {
			return nil, err
		}
		all.join(&Data{Columns: c, Histograms: slices.Clone(hs)})
	}
	return all.Histograms, nil
}

// allFloats returns the float samples of a series of an input in all windows.
func allFloats(in input, i int) (Columns, error) {
	var out Data
	lo, hi := in.bounds()
	if lo > hi {
		return out.Columns, nil
	}
	for w := windowOf(lo); w <= windowOf(hi); w++ {
		c, err := in.floats(i, w*windowMillis, (w+1)*windowMillis-1)
		if err != nil {
			return out.Columns, err
		}
		out.join(&Data{Columns: Columns{T: slices.Clone(c.T), V: slices.Clone(c.V), ST: slices.Clone(c.ST)}})
	}
	return out.Columns, nil
}

// exemplars writes the exemplars, each of several equal ones once.
func (o *partWriter) exemplars() error {
	r := newRows(o.w, tableExemplars)
	if !o.any(Exemplars) {
		return r.close()
	}
	var all []exemplar.Exemplar
	for i := range o.ends {
		all = all[:0]
		for _, f := range o.from(i) {
			es, err := o.b.inputs[f.input].exemplars(int(f.series))
			if err != nil {
				return err
			}
			all = append(all, es...)
		}
		slices.SortStableFunc(all, func(x, y exemplar.Exemplar) int { return cmp.Compare(x.Ts, y.Ts) })
		last := ""
		for j := range all {
			x := &all[j]
			e := string(telemetry.AppendExemplar(nil, x))
			if e == last {
				continue
			}
			last = e
			r.ints(0, int64(i))
			r.ints(1, x.Ts)
			r.v[2].Strs = append(r.v[2].Strs, e)
			r.end(len(e) + 16)
			o.b.saw(1, x.Ts, x.Ts)
		}
	}
	return r.close()
}

// evidence writes who vouches for the series, and the resources.
func (o *partWriter) evidence() error {
	var resources part.Resources
	r := newRows(o.w, tableEvidence)
	var all []Evidence
	for i := range o.ends {
		all = all[:0]
		for _, f := range o.from(i) {
			es, err := o.b.inputs[f.input].evidence(int(f.series))
			if err != nil {
				return err
			}
			all = joinEvidence(all, es)
		}
		for _, e := range all {
			r.ints(0, int64(i))
			r.ints(1, int64(resources.Add(e.Resource)))
			r.ints(2, e.First)
			r.ints(3, e.Last)
			r.end(16)
		}
	}
	if err := r.close(); err != nil {
		return err
	}
	return resources.Write(o.w)
}

// dict is the values of one label while series are numbered.
type dict struct {
	name   string
	ids    map[string]uint32
	values []string
	rank   []int64 // of each value among the sorted ones, from 1
}

// dicts is the values of all labels.
type dicts struct {
	byName map[string]int
	all    []dict
}

// pair is a label: the number of its name, and that of its value, from 1.
type pair struct{ label, value uint32 }

// label returns the number of a label name.
func (ds *dicts) label(name string) uint32 {
	n, ok := ds.byName[name]
	if !ok {
		n = len(ds.all)
		name = strings.Clone(name)
		ds.byName[name] = n
		ds.all = append(ds.all, dict{name: name, ids: make(map[string]uint32)})
	}
	return uint32(n)
}

func (ds *dicts) add(name, value string) pair {
	n := ds.label(name)
	d := &ds.all[n]
	id, ok := d.ids[value]
	if !ok {
		value = strings.Clone(value) // it may be a piece of something larger
		d.values = append(d.values, value)
		id = uint32(len(d.values))
		d.ids[value] = id
	}
	return pair{n, id}
}

// appendAll appends the labels of a series.
func (ds *dicts) appendAll(dst []pair, ls telemetry.LabelSet) []pair {
	ls.Range(func(name, value string) { dst = append(dst, ds.add(name, value)) })
	return dst
}

// index writes the label names, the values of each, and the labels of the series.
func (o *partWriter) index() error {
	ds := &o.dicts
	order, err := o.dictionaries(ds)
	if err != nil {
		return err
	}
	o.w.Begin(part.Schema{Name: tableIndex, Columns: columnsOf(tableIndex)})
	columns := make([][]int64, len(ds.all)) // by label, in the order of its first series
	used := make([]bool, len(ds.all))
	var b []byte
	from := uint32(0)
	for at := 0; at < len(o.ends); at += groupSeries {
		n := min(groupSeries, len(o.ends)-at)
		clear(used)
		for i := range n {
			for _, p := range o.pairs[from:o.labelEnds[at+i]] {
				c := p.label
				if !used[c] {
					used[c] = true
					if columns[c] == nil {
						columns[c] = make([]int64, groupSeries)
					}
					clear(columns[c])
				}
				columns[c][i] = ds.all[c].rank[p.value-1]
			}
			from = o.labelEnds[at+i]
		}
		b = b[:0]
		count := 0
		for _, u := range used {
			if u {
				count++
			}
		}
		b = binary.AppendUvarint(b, uint64(count))
		lo, hi := int64(0), int64(0)
		for place, c := range order {
			if !used[c] {
				continue
			}
			col := o.enc.Ints(nil, columns[c][:n], nil)
			b = binary.AppendUvarint(b, uint64(place))
			b = binary.AppendUvarint(b, uint64(len(col)))
			b = append(b, col...)
			if ds.all[c].name == metricName {
				lo, hi = columns[c][0], columns[c][n-1]
			}
		}
		b = o.enc.Ints(b, o.lo[at:at+n], nil)
		b = o.enc.Ints(b, o.hi[at:at+n], o.lo[at:at+n])
		// When the last of the series began and the first of them ended: between the two all of them go on.
		begun, ended := slices.Max(o.lo[at:at+n]), slices.Min(o.hi[at:at+n])
		err := o.w.Blob(n, b, bound(lo, begun), bound(hi, ended), true)
		if err != nil {
			return err
		}
	}
	return nil
}

// dictionaries writes the label names and their values, ranks the values, and returns the labels in the order of their
// names.
func (o *partWriter) dictionaries(ds *dicts) ([]int, error) {
	order := make([]int, 0, len(ds.all))
	for i := range ds.all {
		if len(ds.all[i].values) > 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(ds.all[a].name, ds.all[b].name) })
	names := binary.AppendUvarint(nil, uint64(len(order)))
	o.w.Begin(part.Schema{Name: tableValues, Columns: columnsOf(tableValues)})
	blocks := 0
	var b []byte
	for _, c := range order {
		d := &ds.all[c]
		names = telemetry.AppendString(names, d.name)
		names = binary.AppendUvarint(names, uint64(len(d.values)))
		names = binary.AppendUvarint(names, uint64(blocks))
		ids := make([]uint32, len(d.values))
		for i := range ids {
			ids[i] = uint32(i)
		}
		slices.SortFunc(ids, func(x, y uint32) int { return cmp.Compare(d.values[x], d.values[y]) })
		d.rank = make([]int64, len(ids))
		for i, id := range ids {
			d.rank[id] = int64(i + 1)
		}
		for len(ids) > 0 {
			first, prev := d.values[ids[0]], ""
			b = b[:0]
			n := 0
			for n < len(ids) && n < dictValues && len(b) < dictBytes {
				v := d.values[ids[n]]
				same := shared(prev, v)
				b = binary.AppendUvarint(b, uint64(same))
				b = telemetry.AppendString(b, v[same:])
				prev = v
				n++
			}
			if err := o.w.Blob(n, b, first[:min(len(first), maxBound)], "", true); err != nil {
				return nil, err
			}
			blocks++
			ids = ids[n:]
		}
	}
	o.w.Begin(part.Schema{Name: tableNames, Columns: columnsOf(tableNames)})
	if len(order) == 0 {
		return order, nil
	}
	return order, o.w.Blob(1, names, "", "", true)
}

// shared returns the length of the common beginning.
func shared(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func (o *partWriter) metadata() error {
	r := newRows(o.w, tableMetadata)
	for _, n := range slices.Sorted(maps.Keys(o.b.meta)) {
		m := o.b.meta[n]
		s := string(telemetry.AppendMetadata(nil, &m))
		r.v[0].Strs = append(r.v[0].Strs, n)
		r.v[1].Strs = append(r.v[1].Strs, s)
		r.end(len(n) + len(s))
	}
	return r.close()
}
