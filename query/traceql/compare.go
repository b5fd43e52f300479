package traceql

import (
	"cmp"
	"slices"

	"github.com/braidobs/braid/query/traceql/rows"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

// compared is what one attribute was worth, in the spans that are selected (1) and in the others (0).
type compared struct {
	name   string
	coder  *rows.Coder
	counts [][2][]float64 // by code, then by point
	totals [2][]float64
}

// comparedIntrinsics are those that tell spans apart without being different in each.
func comparedIntrinsics() []string {
	return []string{
		"name", "kind", "status", "statusMessage", "rootName", "rootServiceName", "span:childCount",
		"instrumentation:name", "instrumentation:version",
	}
}

// compare counts the values of all attributes of the spans that a pipeline leaves, apart for those that are selected.
func (c *computation) compare(n *syntax.MetricPipe) (*table, error) {
	p := planOf(n.Stages...)
	attrs, fields, err := c.attributes()
	if err != nil {
		return nil, err
	}
	if cond := n.Func.Selection.Cond; cond != nil {
		fields = append(fields, cond)
	}
	selection := rows.Compile(n.Func.Selection.Cond)
	cells := 0
	for b, err := range c.meter.traces(c.ctx, c.query(p, fields...)) {
		if err != nil {
			return nil, err
		}
		set, err := c.rowsOf(p, b)
		if err != nil {
			return nil, err
		}
		if set.Empty() {
			continue
		}
		selected, err := selection.Eval(b, set)
		if err != nil {
			return nil, err
		}
		starts, err := b.Starts()
		if err != nil {
			return nil, err
		}
		if f := n.Func; f.Start != 0 || f.End != 0 {
			all := selected
			selected = make(rows.Set, len(all))
			all.Each(func(i int) {
				if starts[i] >= f.Start && starts[i] < f.End {
					selected.Add(i)
				}
			})
		}
		weights, err := c.weights(b)
		if err != nil {
			return nil, err
		}
		for _, a := range attrs {
			err := a.coder.Present(b, set, func(row int, code uint32) {
				which := 0
				if selected.Has(row) {
					which = 1
				}
				weight := 1.0
				if weights != nil {
					weight = weights[row]
				}
				cells += a.count(code, which, c.grid.point(starts[row]), c.grid.n, weight)
			})
			if err != nil {
				return nil, err
			}
			if cells > maxCells {
				return nil, limitf("compare computes more than %d points: ask for one point (an instant query), or for a shorter range", maxCells)
			}
		}
	}
	t := &table{name: string(syntax.Compare), compared: true}
	for _, a := range attrs {
		a.lines(t, n.Func.Top, c.grid.n)
	}
	return t, nil
}

// point returns the point that something is about that starts at a time.
func (g grid) point(start int64) int { return int((start - g.base - 1) / g.step) }

// attributes returns what compare counts.
func (c *computation) attributes() ([]*compared, []syntax.Field, error) {
	found, err := c.meter.view.SpanKeys(c.ctx, storage.TraceQuery{Tenant: c.tenant, Start: c.grid.base + 1, End: c.grid.time(c.grid.n - 1)})
	if err != nil {
		return nil, nil, err
	}
	var fields []syntax.Field
	for _, name := range comparedIntrinsics() {
		f, err := syntax.ParseField(name)
		if err != nil {
			return nil, nil, err
		}
		fields = append(fields, f)
	}
	for _, k := range found {
		switch k.Scope {
		case storage.RecordScope:
			fields = append(fields, &syntax.Attribute{Scope: syntax.SpanScope, Name: k.Name})
		case storage.ResourceScope:
			fields = append(fields, &syntax.Attribute{Scope: syntax.ResourceScope, Name: k.Name})
		case storage.InstrumentationScope:
			fields = append(fields, &syntax.Attribute{Scope: syntax.InstrumentationScope, Name: k.Name})
		default:
		}
	}
	out := make([]*compared, len(fields))
	for i, f := range fields {
		out[i] = &compared{name: syntax.Label(f), coder: rows.NewLimitedCoder(f, maxCompared)}
	}
	return out, fields, nil
}

// count counts as many spans as weight says, and returns how many cells that took.
func (a *compared) count(code uint32, which, point, n int, weight float64) (cells int) {
	for int(code) >= len(a.counts) {
		a.counts = append(a.counts, [2][]float64{})
	}
	for _, of := range []*[]float64{&a.counts[code][which], &a.totals[which]} {
		if *of == nil {
			*of = make([]float64, n)
			cells += n
		}
		(*of)[point] += weight
	}
	return cells
}

// lines adds the series of an attribute: its most frequent values, and in how many spans it is at all.
func (a *compared) lines(t *table, top, n int) {
	none := Attr{a.name, rows.Nil()}
	tooMany := false
	for which, kind := range []string{"baseline", "selection"} {
		type entry struct {
			value Value
			sum   float64
			of    []float64
		}
		var all []entry
		for code := range a.counts {
			if of := a.counts[code][which]; of != nil {
				e := entry{a.coder.Value(uint32(code)), 0, of}
				for _, v := range of {
					e.sum += v
				}
				all = append(all, e)
			}
		}
		slices.SortFunc(all, func(x, y entry) int {
			return cmp.Or(cmp.Compare(y.sum, x.sum), x.value.Compare(y.value))
		})
		tooMany = tooMany || len(all) > top
		for _, e := range all[:min(len(all), top)] {
			t.rows = append(t.rows, &line{labels: []Attr{{"__meta_type", textValue(kind)}, {a.name, e.value}}, values: e.of})
		}
		if a.totals[which] != nil {
			t.rows = append(t.rows, &line{labels: []Attr{{"__meta_type", textValue(kind + "_total")}, none}, values: a.totals[which]})
		}
	}
	if tooMany {
		t.rows = append(t.rows, &line{labels: []Attr{{"__meta_error", textValue("__too_many_values__")}, none}, values: make([]float64, n)})
	}
}
