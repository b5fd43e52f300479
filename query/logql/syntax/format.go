package syntax

import (
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// width is up to how many bytes Format leaves in one line.
const width = 100

// Format returns the query in several lines when it is long: what is aggregated stands deeper, and each stage in a line.
// Parse gives the same tree for it.
func Format(e Expr) string {
	w := &writer{multi: true}
	w.expr(e, 0, 0)
	return w.b.String()
}

func line(e Expr) string {
	w := &writer{}
	w.expr(e, 0, 0)
	return w.b.String()
}

// String implements Expr.
func (l *Log) String() string { return line(l) }

// String implements Expr.
func (r *Range) String() string { return line(r) }

// String implements Expr.
func (a *Aggregation) String() string { return line(a) }

// String implements Expr.
func (b *Binary) String() string { return line(b) }

// String implements Expr.
func (n *Negation) String() string { return line(n) }

// String implements Expr.
func (n *Number) String() string { return line(n) }

// String implements Expr.
func (c *Constant) String() string { return line(c) }

// String implements Expr.
func (l *LabelReplace) String() string { return line(l) }

// Quote returns s as a quoted text of a query: as it is where that is possible and shorter.
func Quote(s string) string {
	q := strconv.Quote(s)
	if len(q) == len(s)+2 || strings.ContainsAny(s, "`\r") {
		return q
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return q
		}
	}
	return "`" + s + "`"
}

type writer struct {
	b     strings.Builder
	multi bool
}

func (w *writer) s(parts ...string) {
	for _, p := range parts {
		w.b.WriteString(p)
	}
}

// line begins a new line at a depth, or writes a blank.
func (w *writer) line(depth int, blank string) {
	if !w.multi {
		w.s(blank)
		return
	}
	w.s("\n", strings.Repeat("  ", depth))
}

// short says whether e fits into a line.
func (w *writer) short(e Expr, depth int) bool {
	return !w.multi || len(e.String())+2*depth <= width
}

// expr writes e, in parentheses if its operator does not bind stronger than min.
func (w *writer) expr(e Expr, min, depth int) {
	if w.multi && w.short(e, depth) {
		one := &writer{}
		one.expr(e, min, depth)
		w.s(one.b.String())
		return
	}
	switch e := e.(type) {
	case *Log:
		w.log(e, depth)
	case *Range:
		w.window(e, depth)
	case *Aggregation:
		w.s(string(e.Op))
		if e.Grouping != nil {
			w.s(" ")
			w.grouping(e.Grouping)
			w.s(" ")
		}
		w.s("(")
		w.line(depth+1, "")
		if e.K > 0 {
			w.s(strconv.Itoa(e.K), ",")
			w.line(depth+1, " ")
		}
		w.expr(e.Expr, 0, depth+1)
		w.line(depth, "")
		w.s(")")
	case *Binary:
		w.binary(e, min, depth)
	case *Negation:
		if min >= 6 {
			w.s("(")
			defer w.s(")")
		}
		w.s("-(")
		w.expr(e.Expr, 0, depth)
		w.s(")")
	case *Number:
		if min >= 6 && (e.Value < 0) {
			w.s("(", formatNumber(e.Value), ")")
			return
		}
		w.s(formatNumber(e.Value))
	case *Constant:
		w.s("vector(", formatNumber(e.Value), ")")
	case *LabelReplace:
		w.s("label_replace(")
		w.line(depth+1, "")
		w.expr(e.Expr, 0, depth+1)
		for _, s := range []string{e.Destination, e.Replacement, e.Source, e.Regexp} {
			w.s(",")
			w.line(depth+1, " ")
			w.s(Quote(s))
		}
		w.line(depth, "")
		w.s(")")
	}
}

func formatNumber(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func (w *writer) binary(b *Binary, min, depth int) {
	t := token{kind: operator, s: b.Op}
	if letter(b.Op[0]) {
		t.kind = ident
	}
	prec := precedence(t)
	if prec <= min {
		w.s("(")
		w.line(depth+1, "")
		depth++
	}
	l, r := prec-1, prec
	if b.Op == "^" {
		l, r = prec, prec-1
	}
	w.expr(b.L, l, depth)
	w.line(depth, " ")
	w.s(b.Op, " ")
	if b.Bool {
		w.s("bool ")
	}
	if m := b.Matching; m != nil {
		name := "ignoring "
		if m.On {
			name = "on "
		}
		w.s(name)
		w.names(m.Labels)
		w.s(" ")
		if m.Group != "" {
			w.s("group_", m.Group, " ")
			w.names(m.Include)
			w.s(" ")
		}
	}
	w.expr(b.R, r, depth)
	if prec <= min {
		w.line(depth-1, "")
		w.s(")")
	}
}

func (w *writer) names(names []string) { w.s("(", strings.Join(names, ", "), ")") }

func (w *writer) grouping(g *Grouping) {
	if g.Without {
		w.s("without ")
	} else {
		w.s("by ")
	}
	w.names(g.Labels)
}

func (w *writer) window(r *Range, depth int) {
	w.s(string(r.Op), "(")
	w.line(depth+1, "")
	if r.Op == QuantileOverTime {
		w.s(formatNumber(r.Param), ",")
		w.line(depth+1, " ")
	}
	w.log(r.Log, depth+1)
	if u := r.Unwrap; u != nil {
		w.line(depth+2, " ")
		w.s("| unwrap ")
		if u.Conversion == PlainNumber {
			w.s(u.Label)
		} else {
			w.s(string(u.Conversion), "(", u.Label, ")")
		}
	}
	for _, s := range r.After {
		w.line(depth+2, " ")
		w.stage(s)
	}
	w.line(depth+1, " ")
	w.s("[", FormatDuration(r.Window), "]")
	if a := r.At; a != nil {
		switch {
		case a.Start:
			w.s(" @ start()")
		case a.End:
			w.s(" @ end()")
		default:
			w.s(" @ ", strconv.FormatFloat(float64(a.Millis)/1000, 'f', -1, 64))
		}
	}
	if r.Offset != 0 {
		w.s(" offset ", FormatDuration(r.Offset))
	}
	w.line(depth, "")
	w.s(")")
	if r.Grouping != nil {
		w.s(" ")
		w.grouping(r.Grouping)
	}
}

func matcher(m *labels.Matcher) string { return m.Name + m.Type.String() + Quote(m.Value) }

// FormatSelector returns matchers as a selector.
func FormatSelector(ms []*labels.Matcher) string {
	out := make([]string, len(ms))
	for i, m := range ms {
		out[i] = matcher(m)
	}
	return "{" + strings.Join(out, ", ") + "}"
}

func (w *writer) log(l *Log, depth int) {
	w.s(FormatSelector(l.Matchers))
	for _, s := range l.Stages {
		w.line(depth+1, " ")
		w.stage(s)
	}
}

func (w *writer) extractions(es []Extraction) {
	for i, e := range es {
		if i > 0 {
			w.s(",")
		}
		w.s(" ", e.Label)
		if e.Path != e.Label {
			w.s("=", Quote(e.Path))
		}
	}
}

func (w *writer) stage(s Stage) {
	switch s := s.(type) {
	case *LineFilter:
		w.s(string(s.Op))
		for i, a := range s.Alternatives {
			if i > 0 {
				w.s(" or")
			}
			if a.IP {
				w.s(" ip(", Quote(a.Text), ")")
			} else {
				w.s(" ", Quote(a.Text))
			}
		}
	case *JSON:
		w.s("| json")
		w.extractions(s.Fields)
	case *Logfmt:
		w.s("| logfmt")
		if s.Strict {
			w.s(" --strict")
		}
		if s.KeepEmpty {
			w.s(" --keep-empty")
		}
		w.extractions(s.Fields)
	case *Regexp:
		w.s("| regexp ", Quote(s.Text))
	case *Pattern:
		w.s("| pattern ", Quote(s.Text))
	case *Unpack:
		w.s("| unpack")
	case *Decolorize:
		w.s("| decolorize")
	case *LineFormat:
		w.s("| line_format ", Quote(s.Text))
	case *LabelFormat:
		w.s("| label_format ")
		for i, a := range s.Assignments {
			if i > 0 {
				w.s(", ")
			}
			if a.Rename != "" {
				w.s(a.Label, "=", a.Rename)
			} else {
				w.s(a.Label, "=", Quote(a.Text))
			}
		}
	case *Drop:
		w.s("| drop ")
		w.namesOrMatches(s.Labels)
	case *Keep:
		w.s("| keep ")
		w.namesOrMatches(s.Labels)
	case *LabelFilter:
		w.s("| ")
		w.test(s.Test, false)
	}
}

func (w *writer) namesOrMatches(ls []NameOrMatch) {
	for i, l := range ls {
		if i > 0 {
			w.s(", ")
		}
		if l.Match != nil {
			w.s(matcher(l.Match))
		} else {
			w.s(l.Name)
		}
	}
}

// test writes a condition; one of or needs parentheses inside of and.
func (w *writer) test(t Test, inside bool) {
	switch t := t.(type) {
	case *And:
		w.test(t.L, true)
		w.s(" and ")
		if _, ok := t.R.(*And); ok {
			w.s("(")
			w.test(t.R, false)
			w.s(")")
		} else {
			w.test(t.R, true)
		}
	case *Or:
		if inside {
			w.s("(")
			defer w.s(")")
		}
		w.test(t.L, false)
		w.s(" or ")
		_, nested := t.R.(*Or)
		w.test(t.R, nested)
	case *Match:
		w.s(matcher(t.M))
	case *Compare:
		op := t.Op
		w.s(t.Name, " ", op, " ", t.Text)
	case *IP:
		op := "="
		if t.Not {
			op = "!="
		}
		w.s(t.Name, " ", op, " ip(", Quote(t.Text), ")")
	}
}
