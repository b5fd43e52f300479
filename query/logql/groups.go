package logql

import (
	"math"

	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

// unwrap returns the values of rows that have one; rows whose label is no number are punted.
func (c *columnar) unwrap(u *syntax.Unwrap, rows []uint32, mask uint64) ([]uint32, []float64, error) {
	src, found := c.column(u.Label, mask)
	if !found {
		return nil, nil, nil
	}
	values := make([]float64, 0, len(rows))
	if gap, ok := src.value.Gap(); ok && src.index < 0 {
		v, err := c.shape.Load(gap)
		if err != nil {
			return nil, nil, err
		}
		if v.Ints != nil && u.Conversion == syntax.PlainNumber && v.Scale <= maxScale {
			pow := math.Pow10(v.Scale)
			out := rows[:0]
			for _, row := range rows {
				n := v.Ints[c.b.Lines.Row[row]]
				if n > maxExact || n < -maxExact {
					c.punted = append(c.punted, row)
					continue
				}
				out = append(out, row)
				values = append(values, float64(n)/pow)
			}
			return out, values, nil
		}
	}
	all := make([]float64, 0, 64) // the distinct values, as far as texts are looked at once
	res, err := c.eachIndex(src, rows, func(s string) uint32 {
		x, err := pipeline.Convert(u.Conversion, s)
		if err != nil {
			return 0
		}
		all = append(all, x)
		return uint32(len(all))
	})
	if err != nil {
		return nil, nil, err
	}
	out := rows[:0]
	for i, row := range rows {
		if res[i] == 0 {
			c.punted = append(c.punted, row)
			continue
		}
		out = append(out, row)
		values = append(values, all[res[i]-1])
	}
	return out, values, nil
}

// eachIndex calls f with the label of each row, once for each distinct text where they are known, and returns what it says
// for each row.
func (c *columnar) eachIndex(src source, rows []uint32, f func(string) uint32) ([]uint32, error) {
	out := make([]uint32, len(rows))
	at := c.b.Lines.Row
	lut := func(n int, code func(i int) uint32, text func(code uint32) string) {
		known := make([]uint64, n)
		for i := range rows {
			k := code(i)
			if known[k] == 0 {
				known[k] = 1 + uint64(f(text(k)))
			}
			out[i] = uint32(known[k] - 1)
		}
	}
	if src.index >= 0 {
		lut(len(c.streams), func(i int) uint32 { return c.b.Stream[rows[i]] }, func(k uint32) string { return c.stream(k).values[src.index] })
		return out, nil
	}
	if s, ok := src.value.Constant(); ok {
		r := f(s)
		for i := range out {
			out[i] = r
		}
		return out, nil
	}
	if gap, ok := src.value.Gap(); ok {
		v, err := c.shape.Load(gap)
		if err != nil {
			return nil, err
		}
		switch {
		case v.Ints != nil:
			known := make(map[int64]uint32)
			for i, row := range rows {
				n := v.Ints[at[row]]
				r, ok := known[n]
				if !ok {
					c.line = storage.AppendDecimal(c.line[:0], n, v.Scale)
					r = f(string(c.line))
					known[n] = r
				}
				out[i] = r
			}
			return out, nil
		case v.Dict != nil:
			lut(len(v.Dict), func(i int) uint32 { return v.Code[at[rows[i]]] }, func(k uint32) string { return v.Dict[k] })
			return out, nil
		default:
			for i, row := range rows {
				out[i] = f(v.Texts[at[row]])
			}
			return out, nil
		}
	}
	vs, err := c.load(src.value)
	if err != nil {
		return nil, err
	}
	for i, row := range rows {
		c.line = appendValue(c.line[:0], src.value, vs, int(at[row]))
		out[i] = f(string(c.line))
	}
	return out, nil
}

// add adds rows, with values or without, to their series.
func (c *columnar) add(rows []uint32, values []float64, mask uint64) error {
	var srcs []source
	var names []string
	for _, n := range c.s.names {
		if src, ok := c.column(n, mask); ok {
			srcs, names = append(srcs, src), append(names, n)
		}
	}
	of, series, err := c.groups(names, srcs, rows)
	if err != nil {
		return err
	}
	s, times := c.s, c.b.Time
	if s.class == counting && s.w.n == 1 {
		counts := make([]int64, len(series))
		if of == nil {
			counts[0] = int64(len(rows))
		}
		for _, k := range of {
			counts[k]++
		}
		for k, g := range series {
			if err := s.room(g, 1); err != nil {
				return err
			}
			g.cells[0].n += counts[k]
		}
		return nil
	}
	v, g := 0.0, series[0]
	for i, row := range rows {
		if values != nil {
			v = values[i]
		}
		if of != nil {
			g = series[of[i]]
		}
		if err := s.add(g, times[row], v); err != nil {
			return err
		}
	}
	return nil
}

// groups returns the series of rows by the labels that come from srcs, and which of them each row belongs to; nil means
// that all belong to the first.
func (c *columnar) groups(names []string, srcs []source, rows []uint32) ([]uint32, []*gather, error) {
	texts := make([]string, len(srcs))
	find := func() (*gather, error) {
		c.s.scratch = c.s.scratch[:0]
		for i, n := range names {
			c.s.scratch = append(c.s.scratch, Label{Name: n, Value: texts[i]})
		}
		c.s.key = pipeline.EncodeLabels(c.s.key[:0], c.s.scratch)
		return c.s.of(c.s.key, c.s.scratch)
	}
	// A number for each distinct text of each label, then a series for each combination that there is.
	var indexes [][]uint32
	var distinct [][]string
	var varying []int
	for i, src := range srcs {
		if s, ok := src.value.Constant(); ok && src.index < 0 {
			texts[i] = s
			continue
		}
		var all []string
		idx, err := c.eachIndex(src, rows, func(s string) uint32 {
			all = append(all, s)
			return uint32(len(all) - 1)
		})
		if err != nil {
			return nil, nil, err
		}
		if len(all) == 1 {
			texts[i] = all[0]
			continue
		}
		varying = append(varying, i)
		indexes, distinct = append(indexes, idx), append(distinct, all)
	}
	var series []*gather
	if len(varying) == 0 {
		g, err := find()
		return nil, append(series, g), err
	}
	of := indexes[0]
	for j := 1; j < len(varying); j++ { // the combinations of the labels so far with the next
		of = combine(of, indexes[j])
	}
	for i, k := range of {
		if int(k) < len(series) {
			continue
		}
		// Combinations are numbered in the order in which they appear.
		for j, n := range varying {
			texts[n] = distinct[j][indexes[j][i]]
		}
		g, err := find()
		if err != nil {
			return nil, nil, err
		}
		series = append(series, g)
	}
	return of, series, nil
}

// combine numbers the pairs of a and b in the order in which they appear.
func combine(a, b []uint32) []uint32 {
	known := make(map[uint64]uint32)
	out := make([]uint32, len(a))
	last, n := uint64(0), uint32(0)
	for i := range a {
		key := uint64(a[i])<<32 | uint64(b[i])
		if i == 0 || key != last {
			var ok bool
			if n, ok = known[key]; !ok {
				n = uint32(len(known))
				known[key] = n
			}
			last = key
		}
		out[i] = n
	}
	return out
}
