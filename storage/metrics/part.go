package metrics

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

// Builder collects the series of one part: of one tenant and one day.
type Builder struct {
	series map[telemetry.LabelSet]*Data
	meta   map[string]telemetry.Metadata
	rows   int64
	bytes  int64
	lo, hi int64
}

// NewBuilder returns an empty builder.
func NewBuilder() *Builder {
	return &Builder{series: make(map[telemetry.LabelSet]*Data), meta: make(map[string]telemetry.Metadata), lo: math.MaxInt64, hi: math.MinInt64}
}

// Add adds what a source holds of a series, which it keeps. Sources are added in the order of arrival.
func (b *Builder) Add(d Data) {
	old := b.series[d.Labels]
	if old == nil {
		old = &Data{Labels: d.Labels}
		b.series[d.Labels] = old
		b.bytes += int64(300 + len(d.Labels))
	}
	for i := range d.Points {
		b.lo, b.hi = min(b.lo, d.Points[i].T), max(b.hi, d.Points[i].T)
	}
	for i := range d.Exemplars {
		b.lo, b.hi = min(b.lo, d.Exemplars[i].Ts), max(b.hi, d.Exemplars[i].Ts)
	}
	old.Points = append(old.Points, d.Points...)
	old.Exemplars = append(old.Exemplars, d.Exemplars...)
	for _, e := range d.Evidence {
		i := slices.IndexFunc(old.Evidence, func(o Evidence) bool { return o.Resource.ID == e.Resource.ID })
		if i < 0 {
			old.Evidence = append(old.Evidence, e)
			continue
		}
		old.Evidence[i].First, old.Evidence[i].Last = min(old.Evidence[i].First, e.First), max(old.Evidence[i].Last, e.Last)
	}
	b.rows += int64(len(d.Points) + len(d.Exemplars))
	b.bytes += int64(56*len(d.Points) + 128*len(d.Exemplars))
}

// AddMetadata adds the metadata of a family; the last one stays.
func (b *Builder) AddMetadata(metric string, m telemetry.Metadata) { b.meta[metric] = m }

// AddPart adds everything of p that no mask covers.
func (b *Builder) AddPart(ctx context.Context, p *Part, masks []Mask) error {
	q := storage.SeriesQuery{Start: math.MinInt64, End: math.MaxInt64}
	err := p.Select(ctx, &q, Points|Exemplars|EvidenceOf, masks, func(d Data) error {
		b.Add(d)
		return nil
	})
	if err != nil {
		return err
	}
	return p.Metadata("", b.AddMetadata)
}

// Empty says whether there is nothing worth a part. Metadata alone is.
func (b *Builder) Empty() bool { return b.rows == 0 && len(b.meta) == 0 }

// Rows returns the number of samples and exemplars, their size in memory, and the smallest and largest time.
func (b *Builder) Rows() (rows, bytes, lo, hi int64) { return b.rows, b.bytes, b.lo, b.hi }

// Write writes the tables of docs/format/part.md, section metrics. The builder is spent.
func (b *Builder) Write(w *part.Writer) error {
	all := make([]*Data, 0, len(b.series))
	for _, d := range b.series {
		sortPoints(d.Points)
		d.Points = dedupe(d.Points)
		slices.SortStableFunc(d.Exemplars, func(x, y exemplar.Exemplar) int { return cmp.Compare(x.Ts, y.Ts) })
		all = append(all, d)
	}
	slices.SortFunc(all, func(x, y *Data) int { return cmp.Compare(x.Labels, y.Labels) })
	names := make([]string, len(all))
	for i, d := range all {
		names[i] = string(d.Labels)
	}
	if err := part.WriteStrings(w, "series", names); err != nil {
		return err
	}
	for _, write := range []func(*part.Writer, []*Data) error{writeSamples, writeHistograms, writeExemplars, writeEvidence} {
		if err := write(w, all); err != nil {
			return err
		}
	}
	return b.writeMetadata(w)
}

// rows is a block of a table that is being filled.
type rows struct {
	w    *part.Writer
	v    []part.Vector
	n    int
	size int
	err  error
}

func newRows(w *part.Writer, table string) *rows {
	cols := columnsOf(table)
	w.Begin(part.Schema{Name: table, Columns: cols})
	return &rows{w: w, v: make([]part.Vector, len(cols))}
}

// columnsOf returns the columns of a table, which are sorted by series, then time.
func columnsOf(table string) []part.Column {
	num := func(name string) part.Column { return part.Column{Name: name, Type: part.Int64} }
	switch table {
	case "samples":
		return []part.Column{num("series"), num("time"), num("start"), {Name: "value", Type: part.Float64}}
	case "histograms":
		return []part.Column{num("series"), num("time"), num("start"), {Name: "histogram", Type: part.Bytes}}
	case "exemplars":
		return []part.Column{num("series"), num("time"), {Name: "exemplar", Type: part.Bytes}}
	case "evidence":
		return []part.Column{num("series"), num("resource"), num("first"), num("last")}
	default:
		return []part.Column{{Name: "metric", Type: part.Bytes}, {Name: "metadata", Type: part.Bytes}}
	}
}

// table returns a table of the part, once its columns are those expected.
func (p *Part) table(name string) (*part.Table, error) {
	t := p.p.Table(name)
	return t, t.Check(columnsOf(name))
}

// end ends a row of about size bytes.
func (r *rows) end(size int) {
	r.n++
	if r.size += size; r.n >= part.BlockRows || r.size >= 512<<10 {
		r.flush()
	}
}

func (r *rows) flush() {
	if err := r.w.Block(r.n, r.v...); err != nil && r.err == nil {
		r.err = err
	}
	for i := range r.v {
		r.v[i] = part.Vector{Ints: r.v[i].Ints[:0], Floats: r.v[i].Floats[:0], Strs: r.v[i].Strs[:0]}
	}
	r.n, r.size = 0, 0
}

func (r *rows) close() error {
	r.flush()
	return r.err
}

func (r *rows) ints(c int, n int64) { r.v[c].Ints = append(r.v[c].Ints, n) }

// start is the start time as the parts keep it.
func start(p *Point) int64 { return int64(telemetry.PackStart(p.T, p.ST)) }

func writeSamples(w *part.Writer, all []*Data) error {
	r := newRows(w, "samples")
	for i, d := range all {
		for j := range d.Points {
			p := &d.Points[j]
			if p.H != nil || p.FH != nil {
				continue
			}
			r.ints(0, int64(i))
			r.ints(1, p.T)
			r.ints(2, start(p))
			r.v[3].Floats = append(r.v[3].Floats, p.V)
			r.end(16)
		}
	}
	return r.close()
}

func writeHistograms(w *part.Writer, all []*Data) error {
	r := newRows(w, "histograms")
	for i, d := range all {
		for j := range d.Points {
			p := &d.Points[j]
			if p.H == nil && p.FH == nil {
				continue
			}
			r.ints(0, int64(i))
			r.ints(1, p.T)
			r.ints(2, start(p))
			h := string(telemetry.AppendHistogram(nil, &telemetry.HistogramSample{H: p.H, FH: p.FH}))
			r.v[3].Strs = append(r.v[3].Strs, h)
			r.end(len(h) + 24)
		}
	}
	return r.close()
}

func writeExemplars(w *part.Writer, all []*Data) error {
	r := newRows(w, "exemplars")
	for i, d := range all {
		for j := range d.Exemplars {
			e := string(telemetry.AppendExemplar(nil, &d.Exemplars[j]))
			r.ints(0, int64(i))
			r.ints(1, d.Exemplars[j].Ts)
			r.v[2].Strs = append(r.v[2].Strs, e)
			r.end(len(e) + 16)
		}
	}
	return r.close()
}

func writeEvidence(w *part.Writer, all []*Data) error {
	var resources part.Resources
	r := newRows(w, "evidence")
	for i, d := range all {
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
	return resources.Write(w)
}

func (b *Builder) writeMetadata(w *part.Writer) error {
	names := make([]string, 0, len(b.meta))
	for n := range b.meta {
		names = append(names, n)
	}
	slices.Sort(names)
	r := newRows(w, "metadata")
	for _, n := range names {
		m := b.meta[n]
		s := string(telemetry.AppendMetadata(nil, &m))
		r.v[0].Strs = append(r.v[0].Strs, n)
		r.v[1].Strs = append(r.v[1].Strs, s)
		r.end(len(n) + len(s))
	}
	return r.close()
}

// Part is a part of metrics, open for reading.
type Part struct {
	p      *part.Part
	to     storage.Position
	lo, hi int64
}

var _ Source = (*Part)(nil)

// OpenPart returns the series of p, whose samples all came before to and have times from lo to hi.
func OpenPart(p *part.Part, to storage.Position, lo, hi int64) *Part {
	return &Part{p: p, to: to, lo: lo, hi: hi}
}

// Bounds implements Source.
func (p *Part) Bounds() (int64, int64) { return p.lo, p.hi }

// selection is the series of a part that a query wants, by their numbers.
type selection struct {
	want []int32 // -1, or the place in data
	data []Data
	lo   int64 // smallest and largest number wanted
	hi   int64
	n    int
}

func (s *selection) at(series int64) *Data {
	if i := s.want[series]; i >= 0 {
		return &s.data[i]
	}
	return nil
}

func (p *Part) selection(q *storage.SeriesQuery) (*selection, error) {
	names, err := part.ReadStrings(p.p, "series")
	if err != nil {
		return nil, err
	}
	s := &selection{want: make([]int32, len(names)), n: len(names), lo: math.MaxInt64, hi: -1}
	for i, n := range names {
		ls := telemetry.LabelSet(n)
		s.want[i] = -1
		if storage.MatchLabels(ls, q.Matchers) {
			if err := ls.Check(); err != nil {
				return nil, p.p.Table("series").Corrupt("value", 0, "series %d: %v", i, err)
			}
			s.want[i] = int32(len(s.data))
			s.data = append(s.data, Data{Labels: ls})
			s.lo, s.hi = min(s.lo, int64(i)), int64(i)
		}
	}
	return s, nil
}

// Select implements Source.
func (p *Part) Select(ctx context.Context, q *storage.SeriesQuery, what What, masks []Mask, f func(Data) error) error {
	var pending []Mask
	for _, m := range masks {
		if p.to <= m.Position && m.Start <= p.hi && m.End >= p.lo {
			pending = append(pending, m)
		}
	}
	s, err := p.selection(q)
	if err != nil || len(s.data) == 0 {
		return err
	}
	if err := p.points(ctx, s, q, "samples"); err != nil {
		return err
	}
	if err := p.points(ctx, s, q, "histograms"); err != nil {
		return err
	}
	if what&Exemplars != 0 {
		if err := p.exemplars(s, q); err != nil {
			return err
		}
	}
	if what&EvidenceOf != 0 || q.Resources != nil {
		if err := p.evidence(s, q); err != nil {
			return err
		}
	}
	for i := range s.data {
		d := &s.data[i]
		if len(pending) > 0 {
			cover := covering(pending, d.Labels)
			d.Points = slices.DeleteFunc(d.Points, func(pt Point) bool { return hidden(cover, pt.T, 0) })
			d.Exemplars = slices.DeleteFunc(d.Exemplars, func(e exemplar.Exemplar) bool { return hidden(cover, e.Ts, 0) })
		}
		if len(d.Points) == 0 && len(d.Exemplars) == 0 || q.Resources != nil && !vouched(d.Evidence, q.Resources) {
			continue
		}
		sortPoints(d.Points)
		if err := f(*d); err != nil {
			return err
		}
	}
	return nil
}

// skip says whether block b of a table has none of the wanted series or times.
func (s *selection) skip(t *part.Table, b int, q *storage.SeriesQuery) bool {
	if lo, hi, ok := t.Ints("time", b); ok && (hi < q.Start || lo > q.End) {
		return true
	}
	lo, hi, ok := t.Ints("series", b)
	if !ok || lo < 0 || hi >= int64(s.n) {
		return false
	}
	if hi < s.lo || lo > s.hi {
		return true
	}
	for i := lo; i <= hi; i++ {
		if s.want[i] >= 0 {
			return false
		}
	}
	return true
}

// points reads table "samples" or "histograms".
func (p *Part) points(ctx context.Context, s *selection, q *storage.SeriesQuery, table string) error {
	t, err := p.table(table)
	if err != nil {
		return err
	}
	for b := range t.Blocks() {
		if s.skip(t, b, q) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		series, err := t.Indexes("series", b, s.n)
		if err != nil {
			return err
		}
		times, err := t.Read("time", b)
		if err != nil {
			return err
		}
		starts, err := t.Read("start", b)
		if err != nil {
			return err
		}
		column := "value"
		if table == "histograms" {
			column = "histogram"
		}
		values, err := t.Read(column, b)
		if err != nil {
			return err
		}
		for i, n := range series {
			at := times.Ints[i]
			d := s.at(n)
			if d == nil || at < q.Start || at > q.End {
				continue
			}
			pt := Point{T: at, ST: telemetry.UnpackStart(at, uint64(starts.Ints[i]))}
			if values.Floats != nil {
				pt.V = values.Floats[i]
			} else {
				in := telemetry.NewDecoder(values.Strs[i])
				var h telemetry.HistogramSample
				if in.Histogram(&h); in.Err() != nil {
					return t.Corrupt(column, b, "row %d: %v", i, in.Err())
				}
				pt.H, pt.FH = h.H, h.FH
			}
			d.Points = append(d.Points, pt)
		}
	}
	return nil
}

func (p *Part) exemplars(s *selection, q *storage.SeriesQuery) error {
	t, err := p.table("exemplars")
	if err != nil {
		return err
	}
	for b := range t.Blocks() {
		if s.skip(t, b, q) {
			continue
		}
		series, err := t.Indexes("series", b, s.n)
		if err != nil {
			return err
		}
		values, err := t.Read("exemplar", b)
		if err != nil {
			return err
		}
		for i, n := range series {
			d := s.at(n)
			if d == nil {
				continue
			}
			in := telemetry.NewDecoder(values.Strs[i])
			e := in.Exemplar()
			if in.Err() != nil {
				return t.Corrupt("exemplar", b, "row %d: %v", i, in.Err())
			}
			if e.Ts >= q.Start && e.Ts <= q.End {
				d.Exemplars = append(d.Exemplars, e)
			}
		}
	}
	return nil
}

func (p *Part) evidence(s *selection, q *storage.SeriesQuery) error {
	resources, err := part.ReadResources(p.p)
	if err != nil {
		return err
	}
	t, err := p.table("evidence")
	if err != nil {
		return err
	}
	for b := range t.Blocks() {
		series, err := t.Indexes("series", b, s.n)
		if err != nil {
			return err
		}
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
		for i, n := range series {
			if d := s.at(n); d != nil && resources[res[i]] != nil && first.Ints[i] <= q.End && last.Ints[i] >= q.Start {
				d.Evidence = append(d.Evidence, Evidence{Resource: resources[res[i]], First: first.Ints[i], Last: last.Ints[i]})
			}
		}
	}
	return nil
}

// Resources returns the resources that vouch for series of the part.
func (p *Part) Resources() ([]*telemetry.Resource, error) { return part.ReadResources(p.p) }

// Metadata implements Source.
func (p *Part) Metadata(metric string, f func(string, telemetry.Metadata)) error {
	t, err := p.table("metadata")
	if err != nil {
		return err
	}
	for b := range t.Blocks() {
		names, err := t.Read("metric", b)
		if err != nil {
			return err
		}
		values, err := t.Read("metadata", b)
		if err != nil {
			return err
		}
		for i, n := range names.Strs {
			if metric != "" && metric != n {
				continue
			}
			in := telemetry.NewDecoder(values.Strs[i])
			m := in.Metadata()
			if in.Err() != nil {
				return t.Corrupt("metadata", b, "row %d: %v", i, in.Err())
			}
			f(n, *m)
		}
	}
	return nil
}
