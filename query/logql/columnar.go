package logql

import (
	"bytes"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql/address"
	"github.com/braidobs/braid/query/logql/columns"
	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

// columnar evaluates a range aggregation over blocks of templates without rebuilding lines: parser, filters of labels,
// unwrap and grouping. What it cannot prove to come to the same, it leaves to the row-by-row way: a template, or single
// rows.
type columnar struct {
	s     *scan
	parse func(*storage.Template) (*columns.Fields, bool)
	json  bool // parse reads JSON, else logfmt
	tests []syntax.Test
	after []syntax.Test
	names []string // the labels that are read
	meta  []string // those that metadata can have
	plans map[*storage.Template]*shapePlan
	line  []byte

	// Of the block that is read.
	b         *storage.LogBlock
	resources []*telemetry.Resource
	scopes    []*telemetry.Scope
	described bool           // a resource or scope has one of the labels
	streams   []streamValues // of sets
	sets      []telemetry.LabelSet
	mask      uint64 // what all of them have of the labels
	alike     bool   // there is such a mask
	shape     *storage.Shape
	plan      *shapePlan
	punted    []uint32
	free      [][]uint8
}

// shapePlan is what the parser finds in a template; nil values mean that lines must be rebuilt.
type shapePlan struct {
	fields *columns.Fields
}

// streamValues is what a stream has of the labels that are read.
type streamValues struct {
	known  bool
	has    uint64
	values []string
}

// maxColumns bounds the labels that are read.
const maxColumns = 64

// newColumnar returns how a query is evaluated over templates, nil when it is not. It reads the labels names; meta are
// those of them that metadata can have.
func newColumnar(s *scan, p *plan, names, meta []string) *columnar {
	if s.g == nil || s.g.Without || len(p.stages) == 0 || len(names) > maxColumns || s.ev.engine.Rows {
		return nil
	}
	switch {
	case s.class == earliest || s.class == latest || s.r.Op == syntax.RateCounter:
		return nil // rows of the same time must come in their order
	case s.class == summing && s.r.Unwrap == nil:
		return nil // the length of the line
	}
	c := &columnar{s: s, names: names, meta: meta, plans: make(map[*storage.Template]*shapePlan)}
	want := func(name string) bool { return slices.Contains(names, name) || name == pipeline.ErrorLabel }
	switch st := p.stages[0].(type) {
	case *syntax.JSON:
		if len(st.Fields) > 0 {
			return nil
		}
		c.json = true
		c.parse = func(t *storage.Template) (*columns.Fields, bool) { return columns.JSON(t, want) }
	case *syntax.Logfmt:
		if len(st.Fields) > 0 {
			return nil
		}
		c.parse = func(t *storage.Template) (*columns.Fields, bool) {
			return columns.Logfmt(t, st.Strict, st.KeepEmpty, want)
		}
	default:
		return nil
	}
	var ok bool
	if c.tests, ok = testsOf(p.stages[1:]); !ok {
		return nil
	}
	if c.after, ok = testsOf(s.r.After); !ok {
		return nil
	}
	for _, n := range names {
		if strings.HasSuffix(n, "_extracted") || n == pipeline.DetailsLabel || pipeline.IsField(n) {
			return nil
		}
	}
	return c
}

func testsOf(stages []syntax.Stage) ([]syntax.Test, bool) {
	var out []syntax.Test
	for _, st := range stages {
		f, ok := st.(*syntax.LabelFilter)
		if !ok {
			return nil, false
		}
		out = append(out, f.Test)
	}
	return out, true
}

// block adds the rows of a block that has Lines.
func (c *columnar) block(ctx context.Context, b *storage.LogBlock) error {
	c.b, c.punted = b, c.punted[:0]
	if c.inDictionaries(b) {
		return c.s.rows(ctx, b)
	}
	c.takeStreams(b.Streams)
	// Rows are put together by their shapes: those of shape sh end at ends[sh].
	ends := make([]uint32, len(b.Lines.Shapes)+1)
	for _, sh := range b.Lines.Shape {
		ends[sh+1]++
	}
	for sh := range b.Lines.Shapes {
		ends[sh+1] += ends[sh]
	}
	begins := slices.Clone(ends)
	all := make([]uint32, b.Len())
	for i, sh := range b.Lines.Shape {
		if b.Attrs != nil && len(b.Attrs[i]) > 0 && c.inAttrs(b.Attrs[i]) {
			c.punted = append(c.punted, uint32(i))
			continue
		}
		all[ends[sh]] = uint32(i)
		ends[sh]++
	}
	for sh := range b.Lines.Shapes {
		rows := all[begins[sh]:ends[sh]]
		if len(rows) == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.rows(b.Lines.Shapes[sh], rows); err != nil {
			return err
		}
	}
	if len(c.punted) == 0 {
		return nil
	}
	slices.Sort(c.punted)
	for n, i := range c.punted {
		if n&255 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		pipeline.RecordOf(&c.s.rec, b, int(i))
		var err error
		if c.line, err = b.Lines.AppendLine(c.line[:0], int(i)); err != nil {
			return err
		}
		if err := c.s.one(string(c.line)); err != nil {
			return err
		}
	}
	return nil
}

// inDictionaries says whether a resource or scope of the block has one of the labels that are read.
func (c *columnar) inDictionaries(b *storage.LogBlock) bool {
	if same(b.Resources, c.resources) && same(b.Scopes, c.scopes) { // as in the block before, of the same part
		return c.described
	}
	c.resources, c.scopes = b.Resources, b.Scopes
	c.described = slices.ContainsFunc(b.Resources, func(r *telemetry.Resource) bool { return r != nil && c.inAttrs(r.Attrs) }) ||
		slices.ContainsFunc(b.Scopes, func(sc *telemetry.Scope) bool { return sc != nil && c.inAttrs(sc.Attrs) })
	return c.described
}

// same says whether two slices are one.
func same[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func (c *columnar) inAttrs(as telemetry.Attrs) bool {
	for i := range as {
		if slices.Contains(c.meta, pipeline.LabelName(as[i].Key)) {
			return true
		}
	}
	return false
}

// stream returns what a stream of the block has of the labels.
func (c *columnar) stream(code uint32) *streamValues {
	v := &c.streams[code]
	if !v.known {
		v.known = true
		v.values = make([]string, len(c.names))
		c.sets[code].Range(func(name, value string) {
			if i := slices.Index(c.names, name); i >= 0 {
				v.has |= 1 << i
				v.values[i] = value
			}
		})
	}
	return v
}

// takeStreams prepares for blocks with these streams; those of a part have the same.
func (c *columnar) takeStreams(sets []telemetry.LabelSet) {
	if same(sets, c.sets) {
		return
	}
	c.sets, c.streams = sets, make([]streamValues, len(sets))
	c.alike = len(sets) > 0 && len(sets) <= maxAlike
	if !c.alike {
		return
	}
	c.mask = c.stream(0).has
	for code := range sets {
		if c.stream(uint32(code)).has != c.mask {
			c.alike = false
			return
		}
	}
}

// maxAlike bounds the streams that are looked at before one of their rows is.
const maxAlike = 1 << 16

// rows adds rows of one shape: in parts whose streams have the same of the labels.
func (c *columnar) rows(sh *storage.Shape, rows []uint32) error {
	c.shape = sh
	plan, ok := c.plans[sh.Template]
	if !ok {
		plan = &shapePlan{}
		if f, ok := c.parse(sh.Template); ok {
			if _, set := f.Values[pipeline.ErrorLabel]; !set {
				plan.fields = f
			}
		}
		c.plans[sh.Template] = plan
	}
	if plan.fields == nil {
		c.punted = append(c.punted, rows...)
		return nil
	}
	c.plan = plan
	if c.b.Stream == nil {
		return c.part(rows, 0)
	}
	if c.alike {
		return c.part(rows, c.mask)
	}
	for len(rows) > 0 {
		mask := c.stream(c.b.Stream[rows[0]]).has
		n := 1
		for n < len(rows) && c.stream(c.b.Stream[rows[n]]).has == mask {
			n++
		}
		if err := c.part(rows[:n], mask); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// part adds rows of one shape whose streams have the labels in mask.
func (c *columnar) part(rows []uint32, mask uint64) error {
	var err error
	for _, t := range c.tests {
		if rows, err = c.filter(t, rows, mask); err != nil || len(rows) == 0 {
			return err
		}
	}
	if c.plan.fields.Failed {
		c.punted = append(c.punted, rows...)
		return nil
	}
	var values []float64
	if u := c.s.r.Unwrap; u != nil {
		if rows, values, err = c.unwrap(u, rows, mask); err != nil || len(rows) == 0 {
			return err
		}
		if len(c.after) > 0 {
			before := slices.Clone(rows)
			for _, t := range c.after {
				if rows, err = c.filter(t, rows, mask); err != nil || len(rows) == 0 {
					return err
				}
			}
			values = matching(values, before, rows)
		}
	}
	return c.add(rows, values, mask)
}

// matching returns the values of those of before that are left; both rise.
func matching(values []float64, before, left []uint32) []float64 {
	out := values[:0]
	j := 0
	for i, row := range before {
		if j < len(left) && left[j] == row {
			out = append(out, values[i])
			j++
		}
	}
	return out
}

// The outcomes of a test on a row: bit 0 says that it is kept.
const (
	no     uint8 = 0
	yes    uint8 = 1
	unsure uint8 = 2 // the row must be rebuilt
)

// filter returns the rows that a test keeps; unsure ones are punted.
func (c *columnar) filter(t syntax.Test, rows []uint32, mask uint64) ([]uint32, error) {
	res, err := c.test(t, rows, mask)
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(res, unsure) >= 0 {
		for i, row := range rows {
			if res[i] == unsure {
				c.punted = append(c.punted, row)
			}
		}
	}
	n := 0
	for i, row := range rows {
		rows[n] = row
		n += int(res[i] & yes)
	}
	c.free = append(c.free, res)
	return rows[:n], nil
}

func (c *columnar) results(n int) []uint8 {
	if k := len(c.free); k > 0 {
		r := c.free[k-1]
		c.free = c.free[:k-1]
		if cap(r) >= n {
			return r[:n]
		}
	}
	return make([]uint8, n)
}

func (c *columnar) test(t syntax.Test, rows []uint32, mask uint64) ([]uint8, error) {
	switch t := t.(type) {
	case *syntax.And:
		return c.both(t.L, t.R, yes, rows, mask)
	case *syntax.Or:
		return c.both(t.L, t.R, no, rows, mask)
	case *syntax.Match:
		if t.M.Name == pipeline.ErrorLabel {
			return c.same(rows, outcome(t.M.Matches(c.failure()))), nil
		}
		f, found := c.column(t.M.Name, mask)
		if !found {
			return c.same(rows, outcome(t.M.Matches(""))), nil
		}
		return c.each(f, rows, func(s string) uint8 { return outcome(t.M.Matches(s)) }, matchInts(t.M))
	case *syntax.IP:
		if c.plan.fields.Failed {
			return c.same(rows, yes), nil
		}
		f, found := c.column(t.Name, mask)
		if !found {
			return c.same(rows, no), nil
		}
		set, err := address.Parse(t.Text)
		if err != nil {
			return nil, err
		}
		return c.each(f, rows, func(s string) uint8 { return outcome(set.Contains(s) != t.Not) }, nil)
	case *syntax.Compare:
		f, found := c.column(t.Name, mask)
		if t.Name == pipeline.ErrorLabel || !found {
			return c.same(rows, no), nil
		}
		return c.each(f, rows, func(s string) uint8 {
			v, err := pipeline.ParseValue(t.Type, s)
			if err != nil {
				return unsure
			}
			return outcome(pipeline.Compare(t.Op, v, t.Value))
		}, compareInts(t))
	default:
		return c.same(rows, unsure), nil
	}
}

const (
	maxScale = 15      // digits behind the point that a power of ten has exactly
	maxExact = 1 << 53 // up to which whole numbers are exact
)

func outcome(ok bool) uint8 {
	r := no
	if ok { // compiles to no jump
		r = yes
	}
	return r
}

// failure returns the value of __error__ in all lines of the shape.
func (c *columnar) failure() string {
	switch {
	case !c.plan.fields.Failed:
		return ""
	case c.json:
		return pipeline.ErrJSON
	default:
		return pipeline.ErrLogfmt
	}
}

// both combines two tests: the second counts where the first comes to on.
func (c *columnar) both(l, r syntax.Test, on uint8, rows []uint32, mask uint64) ([]uint8, error) {
	a, err := c.test(l, rows, mask)
	if err != nil {
		return nil, err
	}
	b, err := c.test(r, rows, mask)
	if err != nil {
		return nil, err
	}
	for i := range a {
		if a[i] == on {
			a[i] = b[i]
		}
	}
	c.free = append(c.free, b)
	return a, nil
}

func (c *columnar) same(rows []uint32, r uint8) []uint8 {
	out := c.results(len(rows))
	for i := range out {
		out[i] = r
	}
	return out
}

// source is where a label of rows comes from: the stream, when index is not negative, or a value of the template.
type source struct {
	index int
	value columns.Value
}

// column returns where a label comes from, and whether the rows have it.
func (c *columnar) column(name string, mask uint64) (source, bool) {
	if i := slices.Index(c.names, name); i >= 0 && mask&(1<<i) != 0 {
		return source{index: i}, true
	}
	v, ok := c.plan.fields.Values[name]
	return source{index: -1, value: v}, ok
}

// intTest tests the numbers of rows, which stand at at[row], and says whether it did.
type intTest func(v *storage.Variables, rows, at []uint32, out []uint8) bool

// each tests the label of each row: texts by f, once for each distinct text where they are known; numbers by ints, if it
// is not nil and does it.
func (c *columnar) each(src source, rows []uint32, f func(string) uint8, ints intTest) ([]uint8, error) {
	out := c.results(len(rows))
	if src.index >= 0 {
		known := make([]uint8, len(c.streams)) // 1 + the outcome
		for i, row := range rows {
			code := c.b.Stream[row]
			if known[code] == 0 {
				known[code] = 1 + f(c.stream(code).values[src.index])
			}
			out[i] = known[code] - 1
		}
		return out, nil
	}
	if s, ok := src.value.Constant(); ok {
		r := f(s)
		for i := range out {
			out[i] = r
		}
		return out, nil
	}
	at := c.b.Lines.Row
	if gap, ok := src.value.Gap(); ok {
		v, err := c.shape.Load(gap)
		if err != nil {
			return nil, err
		}
		switch {
		case v.Ints != nil && ints != nil && ints(v, rows, at, out):
			return out, nil
		case v.Ints != nil: // as texts, below
		case v.Dict != nil:
			known := make([]uint8, len(v.Dict))
			if len(known) < len(rows) {
				for code, s := range v.Dict {
					known[code] = f(s)
				}
				for i, row := range rows {
					out[i] = known[v.Code[at[row]]]
				}
				return out, nil
			}
			for i, row := range rows {
				code := v.Code[at[row]]
				if known[code] == 0 {
					known[code] = 1 + f(v.Dict[code])
				}
				out[i] = known[code] - 1
			}
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

// load returns the variables of the gaps of a value, nil for texts.
func (c *columnar) load(v columns.Value) ([]*storage.Variables, error) {
	out := make([]*storage.Variables, len(v))
	for i, p := range v {
		if p.Gap < 0 {
			continue
		}
		var err error
		if out[i], err = c.shape.Load(p.Gap); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func appendValue(dst []byte, v columns.Value, vs []*storage.Variables, row int) []byte {
	for i, p := range v {
		if p.Gap < 0 {
			dst = append(dst, p.Text...)
		} else {
			dst = vs[i].Append(dst, row)
		}
	}
	return dst
}

// compareInts returns the test of a comparison on numbers.
func compareInts(t *syntax.Compare) intTest {
	return func(v *storage.Variables, rows, at []uint32, out []uint8) bool {
		if t.Type != syntax.NumberValue || v.Scale > maxScale {
			return false
		}
		// One of three outcomes for each number: below, equal, above.
		results := [4]uint8{outcome(pipeline.Compare(t.Op, 1, 1)), outcome(pipeline.Compare(t.Op, 0, 1)), outcome(pipeline.Compare(t.Op, 1, 0))}
		if math.IsNaN(t.Value) {
			return false
		}
		// The numbers are compared as whole ones: equal are those from equal up to, without, above.
		pow := math.Pow10(v.Scale)
		equal := firstInt(func(n int64) bool { return float64(n)/pow >= t.Value })
		above := firstInt(func(n int64) bool { return float64(n)/pow > t.Value })
		inexact := no
		for i, row := range rows {
			n := v.Ints[at[row]]
			inexact |= outcome(uint64(n+maxExact) > 2*maxExact)
			out[i] = results[(outcome(n < equal)|outcome(n >= above)<<1)&3]
		}
		return inexact == no // else texts are compared
	}
}

// firstInt returns the smallest number, of those that are exact as floats, for which f holds, and one more than the largest
// for none; f holds from some number on.
func firstInt(f func(int64) bool) int64 {
	lo, hi := int64(-maxExact), int64(maxExact+1)
	for lo < hi {
		if mid := lo + (hi-lo)/2; f(mid) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// matchInts returns the test of a matcher on numbers.
func matchInts(m *labels.Matcher) intTest {
	if m.Type != labels.MatchEqual && m.Type != labels.MatchNotEqual {
		return func(v *storage.Variables, rows, at []uint32, out []uint8) bool {
			known := make(map[int64]uint8)
			var b []byte
			for i, row := range rows {
				n := v.Ints[at[row]]
				r, ok := known[n]
				if !ok {
					b = storage.AppendDecimal(b[:0], n, v.Scale)
					r = outcome(m.Matches(string(b)))
					known[n] = r
				}
				out[i] = r
			}
			return true
		}
	}
	return func(v *storage.Variables, rows, at []uint32, out []uint8) bool {
		n, err := strconv.ParseInt(strings.Replace(m.Value, ".", "", 1), 10, 64)
		exists := err == nil && string(storage.AppendDecimal(nil, n, v.Scale)) == m.Value
		equal, other := outcome(m.Type == labels.MatchEqual), outcome(m.Type != labels.MatchEqual)
		for i, row := range rows {
			out[i] = other
			if v.Ints[at[row]] == n && exists {
				out[i] = equal
			}
		}
		return true
	}
}
