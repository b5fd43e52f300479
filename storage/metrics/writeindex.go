package metrics

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/part"
)

// gather joins what the inputs hold of a series besides float samples, and its histograms as they stand beside those.
func (o *partWriter) gather(m *merged) (Data, error) {
	var out Data
	some := 0
	err := m.each(func(r ref) error {
		in := o.b.inputs[r.input]
		d, err := in.others(int(r.series))
		if err != nil {
			return err
		}
		if len(m.more) > 0 && (len(d.Histograms) > 0 || len(out.Histograms) > 0) {
			if d.Columns, err = allFloats(in, int(r.series)); err != nil {
				return err
			}
		}
		if some++; some == 1 {
			out = d
			out.Exemplars, out.Evidence = slices.Clip(d.Exemplars), slices.Clone(d.Evidence)
			return nil
		}
		out.join(&d)
		return nil
	})
	return out, err
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

// histogramsOf returns the histograms of a series of an input in a time range.
func histogramsOf(in input, i int, lo, hi int64) ([]Point, error) {
	d, err := in.others(i)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(d.Histograms), func(p Point) bool { return p.T < lo || p.T > hi }), nil
}

// histograms writes the native histograms.
func (o *partWriter) histograms() error {
	r := newRows(o.w, tableHistograms)
	for i := range o.series {
		d, err := o.gather(&o.series[i])
		if err != nil {
			return err
		}
		for j := range d.Histograms {
			p := &d.Histograms[j]
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

// exemplars writes the exemplars, each of several equal ones once.
func (o *partWriter) exemplars() error {
	r := newRows(o.w, tableExemplars)
	for i := range o.series {
		d, err := o.gather(&o.series[i])
		if err != nil {
			return err
		}
		slices.SortStableFunc(d.Exemplars, func(x, y exemplar.Exemplar) int { return cmp.Compare(x.Ts, y.Ts) })
		last := ""
		for j := range d.Exemplars {
			x := &d.Exemplars[j]
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
	for i := range o.series {
		d, err := o.gather(&o.series[i])
		if err != nil {
			return err
		}
		for _, e := range d.Evidence {
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

func (ds *dicts) add(name, value string) [2]uint32 {
	n, ok := ds.byName[name]
	if !ok {
		n = len(ds.all)
		ds.byName[name] = n
		ds.all = append(ds.all, dict{name: name, ids: make(map[string]uint32)})
	}
	d := &ds.all[n]
	id, ok := d.ids[value]
	if !ok {
		id = uint32(len(d.values))
		d.ids[value] = id
		d.values = append(d.values, value)
	}
	return [2]uint32{uint32(n), id}
}

// index writes the label names, the values of each, and the labels of the series.
func (o *partWriter) index() error {
	ds := &dicts{byName: make(map[string]int)}
	var pairs [][2]uint32 // label and value, series after series
	ends := make([]int, len(o.series))
	for i := range o.series {
		f := o.series[i].first
		ls, err := o.b.inputs[f.input].labels(int(f.series))
		if err != nil {
			return err
		}
		ls.Range(func(name, value string) { pairs = append(pairs, ds.add(name, value)) })
		ends[i] = len(pairs)
	}
	order, err := o.dictionaries(ds)
	if err != nil {
		return err
	}
	o.w.Begin(part.Schema{Name: tableIndex, Columns: columnsOf(tableIndex)})
	columns := make([][]int64, len(ds.all)) // by label, in the order of its first series
	used := make([]bool, len(ds.all))
	var b []byte
	from := 0
	for at := 0; at < len(o.series); at += groupSeries {
		n := min(groupSeries, len(o.series)-at)
		clear(used)
		for i := range n {
			for _, p := range pairs[from:ends[at+i]] {
				c := p[0]
				if !used[c] {
					used[c] = true
					if columns[c] == nil {
						columns[c] = make([]int64, groupSeries)
					}
					clear(columns[c])
				}
				columns[c][i] = ds.all[c].rank[p[1]]
			}
			from = ends[at+i]
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
		err := o.w.Blob(n, b, string(binary.AppendVarint(nil, lo)), string(binary.AppendVarint(nil, hi)), true)
		if err != nil {
			return err
		}
	}
	return nil
}

// dictionaries writes the label names and their values, ranks the values, and returns the labels in the order of their
// names.
func (o *partWriter) dictionaries(ds *dicts) ([]int, error) {
	order := make([]int, len(ds.all))
	for i := range order {
		order[i] = i
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
