package logql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

// window computes a range aggregation, grouped by g; nil keeps all labels.
func (ev *evaluator) window(ctx context.Context, r *syntax.Range, g *syntax.Grouping) ([]vector, error) {
	grid := ev.grid
	if r.At != nil {
		grid = gridAt(r.At, grid)
	}
	w := newWindows(grid.start-int64(r.Offset), max(grid.step, 1), grid.n, int64(r.Window))
	vs, err := ev.gather(ctx, r, g, w)
	if err != nil {
		return nil, err
	}
	if r.Op == syntax.AbsentOverTime {
		vs = absent(r, vs, w.n)
	}
	if r.At != nil { // one time, the same for all
		for i := range vs {
			one := vs[i]
			vs[i] = newVector(one.labels, ev.grid.n)
			for k := range vs[i].v {
				vs[i].v[k], vs[i].ok[k] = one.v[0], one.ok[0]
			}
		}
	}
	return vs, nil
}

// gridAt returns the one time that @ names.
func gridAt(a *syntax.At, g grid) grid {
	switch {
	case a.Start:
		return grid{start: g.start, n: 1}
	case a.End:
		return grid{start: g.at(g.n - 1), n: 1}
	default:
		return grid{start: a.Millis * 1e6, n: 1}
	}
}

// absent returns 1 where nothing was found, with the labels that the selector demands.
func absent(r *syntax.Range, vs []vector, n int) []vector {
	out := newVector(nil, n)
	count := make(map[string]int)
	for _, m := range r.Log.Matchers {
		count[m.Name]++
	}
	for _, m := range r.Log.Matchers {
		if m.Type == labels.MatchEqual && m.Value != "" && count[m.Name] == 1 {
			out.labels = append(out.labels, Label{Name: m.Name, Value: m.Value})
		}
	}
	pipeline.SortLabels(out.labels)
	for k := range n {
		if !slices.ContainsFunc(vs, func(v vector) bool { return v.ok[k] }) {
			out.put(k, 1)
		}
	}
	return []vector{out}
}

// scan gathers rows for a range aggregation.
type scan struct {
	ev      *evaluator
	r       *syntax.Range
	g       *syntax.Grouping
	w       windows
	class   class
	pipe    *pipeline.Pipeline // stages, without unwrap
	after   *pipeline.Pipeline // stages behind unwrap
	series  map[telemetry.LabelSet]*gather
	last    *gather // which the last row was added to
	lastKey []byte
	key     []byte
	names   []string // that are grouped by, sorted
	labels  []Label
	scratch []Label
	cells   int
	samples int
	row     pipeline.Row
	rec     pipeline.Record
}

// gather reads the rows of the windows and returns a vector for each series.
func (ev *evaluator) gather(ctx context.Context, r *syntax.Range, g *syntax.Grouping, w windows) ([]vector, error) {
	stop := stopped(ctx)
	p, err := planOf(r.Log, stop)
	if err != nil {
		return nil, fmt.Errorf("plan the query: %w", err)
	}
	s := &scan{ev: ev, r: r, g: g, w: w, class: classOf(r.Op, r.Unwrap != nil), series: make(map[telemetry.LabelSet]*gather)}
	if r.Op == syntax.AbsentOverTime {
		s.g = &syntax.Grouping{}
	}
	if s.g != nil {
		s.names = slices.Sorted(slices.Values(s.g.Labels))
	}
	behind := s.behind()
	if s.pipe, err = pipeline.Compile(p.stages, pipeline.Options{Now: ev.engine.Now, Stop: stop, Needed: behind}); err != nil {
		return nil, err
	}
	if s.after, err = pipeline.Compile(r.After, pipeline.Options{Now: ev.engine.Now, Stop: stop}); err != nil {
		return nil, err
	}
	from, to := w.bounds()
	q := storage.LogQuery{Tenant: ev.tenant, Start: from, End: to, Where: p.where}
	var names, meta []string
	if q.Columns, names, meta, err = s.columns(ctx, q, p, behind); err != nil {
		return nil, err
	}
	fast := newColumnar(s, p, names, meta)
	if fast != nil {
		q.Columns = q.Columns&^storage.LogBody | storage.LogLines
	}
	for b, err := range ev.meter.logs(ctx, q) {
		if err != nil {
			return nil, err
		}
		if len(p.stages) == 0 && r.Unwrap == nil && q.Columns&^storage.LogStream == 0 {
			err = s.counts(ctx, b)
		} else if len(p.stages) == 0 && r.Unwrap == nil && q.Columns&storage.LogBody == 0 {
			err = s.described(ctx, b)
		} else if fast != nil && b.Lines != nil {
			err = fast.block(ctx, b)
		} else {
			err = s.rows(ctx, b)
		}
		if err != nil {
			return nil, err
		}
	}
	return s.finish(ctx)
}

// behind returns the labels that matter behind the stages, nil when all do.
func (s *scan) behind() []string {
	if s.g == nil || s.g.Without {
		return nil
	}
	out := slices.Clone(s.names)
	if out == nil {
		out = []string{}
	}
	if s.r.Unwrap != nil {
		out = append(out, s.r.Unwrap.Label)
		for _, st := range s.r.After {
			if f, ok := st.(*syntax.LabelFilter); ok {
				out = append(out, pipeline.NamesOf(f.Test)...)
			}
		}
	}
	return out
}

// columns returns what must be read, and the labels that are, when these are known, and which of them metadata can have.
func (s *scan) columns(ctx context.Context, q storage.LogQuery, p *plan, behind []string) (cols storage.LogColumns, names, meta []string, err error) {
	var body storage.LogColumns
	if len(p.stages) > 0 || s.class == summing && s.r.Unwrap == nil {
		body = storage.LogBody
	}
	names, any := pipeline.Reads(p.stages, behind)
	if behind == nil || any {
		return storage.LogAll, nil, nil, nil
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == pipeline.ErrorLabel || n == pipeline.DetailsLabel })
	if len(names) == 0 {
		return body, names, nil, nil
	}
	streams, err := s.ev.view.Streams(ctx, q)
	if err != nil {
		return 0, nil, nil, err
	}
	// What every stream has, metadata has not.
	meta = slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		return !slices.ContainsFunc(streams, func(l telemetry.LabelSet) bool { return l.Get(n) == "" })
	})
	cols = body | storage.LogStream
	for _, n := range meta {
		cols |= pipeline.Needs(n)
	}
	return cols, names, meta, nil
}

// counts adds the rows of a block whose series depends on the stream alone.
func (s *scan) counts(ctx context.Context, b *storage.LogBlock) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	of := make([]*gather, max(len(b.Streams), 1))
	for i := 0; i < len(b.Time); {
		code := uint32(0)
		if b.Stream != nil {
			code = b.Stream[i]
		}
		g := of[code]
		if g == nil {
			s.rec = pipeline.Record{Stream: b.StreamIf(i)}
			s.row.Reset(&s.rec, "")
			var err error
			if g, err = s.find(); err != nil {
				return err
			}
			of[code] = g
		}
		end := len(b.Time)
		if b.Stream != nil {
			for end = i + 1; end < len(b.Stream) && b.Stream[end] == code; {
				end++
			}
		}
		for i < end {
			// Neighbours mostly belong to the same window.
			t := b.Time[i]
			n := within(b.Time[i:end], s.w.until(t))
			i += n
			lo, hi := s.w.at(t)
			if err := s.room(g, hi); err != nil {
				return err
			}
			for c := lo; c < hi; c++ {
				g.cells[c].n += int64(n)
			}
		}
	}
	return nil
}

// within returns how many times from the first on lie between that and to.
func within(times []int64, to int64) int {
	first := times[0]
	for i, t := range times {
		if t < first || t > to {
			return max(i, 1)
		}
	}
	return len(times)
}

// description is what the labels of a row without attributes and IDs depend on.
type description struct {
	stream, resource, scope uint32
	severity                uint8
	text                    string
}

// described adds the rows of a block whose series depends on the stream and on metadata: the labels are worked out once
// for rows with the same description.
func (s *scan) described(ctx context.Context, b *storage.LogBlock) error {
	known := make(map[description]*gather)
	var last description
	var g *gather
	for i := range b.Time {
		if i&255 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		var d description
		if b.Stream != nil {
			d.stream = b.Stream[i]
		}
		if b.Resource != nil {
			d.resource = b.Resource[i]
		}
		if b.Scope != nil {
			d.scope = b.Scope[i]
		}
		if b.Severity != nil {
			d.severity, d.text = b.Severity[i], b.SeverityText[i]
		}
		single := b.Attrs != nil && len(b.Attrs[i]) > 0 || b.TraceID != nil && (!b.TraceID[i].IsZero() || !b.SpanID[i].IsZero()) ||
			b.EventName != nil && b.EventName[i] != ""
		if single || g == nil || d != last {
			found := known[d]
			if single || found == nil {
				pipeline.RecordOf(&s.rec, b, i)
				s.row.Reset(&s.rec, "")
				var err error
				if found, err = s.find(); err != nil {
					return err
				}
			}
			if !single {
				g, last = found, d
				known[d] = found
			}
			if err := s.add(found, b.Time[i], 0); err != nil {
				return err
			}
			continue
		}
		if err := s.add(g, b.Time[i], 0); err != nil {
			return err
		}
	}
	return nil
}

// rows adds the rows of a block one by one.
func (s *scan) rows(ctx context.Context, b *storage.LogBlock) error {
	var line []byte
	for i := range b.Time {
		if err := ctx.Err(); err != nil { // for each row: stages can take long
			return err
		}
		pipeline.RecordOf(&s.rec, b, i)
		var text string
		if b.Lines != nil {
			var err error
			if line, err = b.Lines.AppendLine(line[:0], i); err != nil {
				return err
			}
			text = string(line)
		} else {
			text = s.rec.Body.Text()
		}
		if err := s.one(text); err != nil {
			return err
		}
	}
	return nil
}

// one adds the record s.rec with its line.
func (s *scan) one(line string) error {
	s.row.Reset(&s.rec, line)
	keep, err := s.pipe.Process(&s.row)
	if err != nil || !keep {
		return err
	}
	value := 0.0
	if s.r.Unwrap != nil {
		var ok bool
		if value, ok = pipeline.Unwrap(s.r.Unwrap, &s.row); !ok {
			return nil
		}
		if keep, err = s.after.Process(&s.row); err != nil || !keep {
			return err
		}
	} else if s.class == summing {
		value = float64(len(s.row.Line))
	}
	if s.row.Failed() {
		kind, details := s.row.Error()
		return pipelineError(kind, details, s.row.AppendAll(nil))
	}
	g, err := s.find()
	if err != nil {
		return err
	}
	return s.add(g, s.rec.Time, value)
}

func pipelineError(kind, details string, ls []Label) error {
	ls = slices.DeleteFunc(ls, func(l Label) bool { return l.Name == pipeline.DetailsLabel })
	return httpapi.BadDataf("a line of %s carries the error %s (%s), and lines with errors cannot be counted; drop them with | __error__=\"\" behind the stage that fails", braces(ls), kind, details)
}

// find returns the series of the row.
func (s *scan) find() (*gather, error) {
	s.scratch = s.scratch[:0]
	if s.g != nil && !s.g.Without {
		for _, name := range s.names {
			if v, ok := s.row.Get(name); ok {
				s.scratch = append(s.scratch, Label{Name: name, Value: v})
			}
		}
		s.key = pipeline.EncodeLabels(s.key[:0], s.scratch)
		return s.of(s.key, s.scratch)
	}
	s.labels = s.row.AppendAll(s.labels[:0])
	unwrapped := ""
	if s.r.Unwrap != nil {
		unwrapped = s.r.Unwrap.Label
	}
	for _, l := range s.labels {
		if l.Name == unwrapped && unwrapped != "" || s.g != nil && slices.Contains(s.g.Labels, l.Name) {
			continue
		}
		s.scratch = append(s.scratch, l)
	}
	s.key = pipeline.EncodeLabels(s.key[:0], s.scratch)
	return s.of(s.key, s.scratch)
}

// of returns the series with these labels.
func (s *scan) of(key []byte, ls []Label) (*gather, error) {
	if s.last != nil && string(key) == string(s.lastKey) {
		return s.last, nil
	}
	g := s.series[telemetry.LabelSet(key)]
	if g == nil {
		if len(s.series) >= maxGroups {
			return nil, limitf("the query counts more than %d series: sum by (...) fewer labels", maxGroups)
		}
		g = &gather{}
		for _, l := range ls {
			g.labels = append(g.labels, Label{Name: strings.Clone(l.Name), Value: strings.Clone(l.Value)})
		}
		s.series[telemetry.LabelSet(strings.Clone(string(key)))] = g
	}
	s.last, s.lastKey = g, append(s.lastKey[:0], key...)
	return g, nil
}

// room makes cells of a series up to, without, n.
func (s *scan) room(g *gather, n int) error {
	if n <= len(g.cells) {
		return nil
	}
	n = min(max(n, 2*len(g.cells)), s.w.cells)
	if s.cells += n - len(g.cells); s.cells > maxCells {
		return limitf("the query needs more than %d series times steps: ask for fewer series or a larger step", maxCells)
	}
	g.cells = append(g.cells, make([]cell, n-len(g.cells))...)
	return nil
}

// add adds a row to a series.
func (s *scan) add(g *gather, t int64, v float64) error {
	lo, hi := s.w.at(t)
	if s.class == valuing {
		if err := s.keep(len(g.values), lo, hi); err != nil {
			return err
		}
		if len(g.values) < hi {
			g.values = append(g.values, make([][]float64, hi-len(g.values))...)
		}
		for c := lo; c < hi; c++ {
			g.values[c] = append(g.values[c], v)
		}
		return nil
	}
	if s.class == sampling {
		if err := s.keep(len(g.samples), lo, hi); err != nil {
			return err
		}
		if len(g.samples) < hi {
			g.samples = append(g.samples, make([][]sample, hi-len(g.samples))...)
		}
		for c := lo; c < hi; c++ {
			g.samples[c] = append(g.samples[c], sample{t, v})
		}
		return nil
	}
	if err := s.room(g, hi); err != nil {
		return err
	}
	for c := lo; c < hi; c++ {
		g.cells[c].add(s.class, t, v)
	}
	return nil
}

// keep counts a value that is kept in the cells from lo up to, without, hi of a series that has some.
func (s *scan) keep(have, lo, hi int) error {
	if s.cells += max(hi-have, 0); s.cells > maxCells {
		return limitf("the query needs more than %d series times steps: ask for fewer series or a larger step", maxCells)
	}
	if s.samples += hi - lo; s.samples > maxSamples {
		return limitf("the query keeps more than %d values: narrow its time range or its selector", maxSamples)
	}
	return nil
}

// finish returns the vectors, by their labels.
func (s *scan) finish(ctx context.Context) ([]vector, error) {
	if n := len(s.series) * s.w.n; n > maxCells {
		return nil, limitf("the query has %d series times %d steps, the limit is %d together: ask for fewer series or a larger step", len(s.series), s.w.n, maxCells)
	}
	out := make([]vector, 0, len(s.series))
	for _, g := range s.series {
		v, err := g.finish(ctx, s.r, &s.w)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b vector) int { return compareLabels(a.labels, b.labels) })
	return out, nil
}
