package syntax

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// String returns the query as it is written.
func (q *Query) String() string {
	s := q.Node.String()
	if len(q.Hints) == 0 {
		return s
	}
	hints := make([]string, len(q.Hints))
	for i, h := range q.Hints {
		hints[i] = h.Name + "=" + h.Value.String()
	}
	return s + " with(" + strings.Join(hints, ", ") + ")"
}

func (n *Filter) String() string {
	if n.Cond == nil {
		return "{ }"
	}
	return "{ " + n.Cond.String() + " }"
}

func (n *Combine) String() string { return wrap(n.L) + " " + string(n.Op) + " " + wrap(n.R) }

// wrap puts parentheses around what is no single operand.
func wrap(n Node) string {
	switch n.(type) {
	case *Filter, *Number, *Aggregate, *ScalarPipe:
		return n.String()
	default:
		return "(" + n.String() + ")"
	}
}

func (n *Pipeline) String() string { return stages(n.Stages) }

// stages writes stages; those that consist of stages are in parentheses.
func stages(ns []Node) string {
	out := make([]string, len(ns))
	for i, n := range ns {
		out[i] = n.String()
		if _, ok := n.(*Pipeline); ok {
			out[i] = "(" + out[i] + ")"
		}
	}
	return strings.Join(out, " | ")
}

func (n *ScalarFilter) String() string { return wrap(n.L) + " " + string(n.Op) + " " + wrap(n.R) }

func (n *Group) String() string { return "by(" + n.By.String() + ")" }

func (n *Coalesce) String() string { return "coalesce()" }

func (n *Select) String() string { return "select(" + list(n.Fields) + ")" }

func list(fs []Field) string {
	out := make([]string, len(fs))
	for i, f := range fs {
		out[i] = f.String()
	}
	return strings.Join(out, ", ")
}

func (n *Aggregate) String() string {
	if n.Of == nil {
		return string(n.Op) + "()"
	}
	return string(n.Op) + "(" + n.Of.String() + ")"
}

func (n *ScalarOp) String() string { return wrap(n.L) + " " + string(n.Op) + " " + wrap(n.R) }

func (n *ScalarPipe) String() string { return "(" + stages(n.Stages) + " | " + n.Of.String() + ")" }

func (n *Number) String() string { return n.Static.String() }

func (n *MetricPipe) String() string { return stages(n.Stages) + " | " + n.Func.String() }

func (n *MetricBinary) String() string { return wrap(n.L) + " " + string(n.Op) + " " + wrap(n.R) }

func (n *MetricFilter) String() string {
	return n.Of.String() + " " + string(n.Op) + " " + n.Value.String() // arithmetic binds stronger
}

func (n *TopK) String() string {
	name := "topk"
	if n.Bottom {
		name = "bottomk"
	}
	return n.Of.String() + " | " + name + "(" + strconv.Itoa(n.K) + ")"
}

// String returns the call as it is written.
func (f *MetricFunc) String() string {
	var b strings.Builder
	b.WriteString(string(f.Op) + "(")
	if f.Of != nil {
		b.WriteString(operandText(f.Of))
	}
	for _, q := range f.Quantiles {
		b.WriteString(", " + strconv.FormatFloat(q, 'g', -1, 64))
	}
	if f.Selection != nil {
		b.WriteString(f.Selection.String() + ", " + strconv.Itoa(f.Top))
		if f.Start != 0 || f.End != 0 {
			b.WriteString(", " + strconv.FormatInt(f.Start, 10) + ", " + strconv.FormatInt(f.End, 10))
		}
	}
	b.WriteString(")")
	if len(f.By) > 0 {
		b.WriteString(" by(" + list(f.By) + ")")
	}
	return b.String()
}

func (f *Attribute) String() string {
	s := f.Scope.String() + "." + Quote(f.Name)
	if f.Parent {
		if f.Scope == Unscoped {
			return "parent" + s
		}
		return "parent." + s
	}
	return s
}

// Quote returns the name of an attribute as a query has it: quoted when it needs to be.
func Quote(name string) string {
	plain := name != ""
	for i := range name {
		plain = plain && inName(name[i:])
	}
	if plain && !digit(name[0]) && !strings.HasPrefix(name, "span.") && !strings.HasPrefix(name, "resource.") {
		return name
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}

func (f *Intrinsic) String() string { return f.Name }

func (f *Unary) String() string {
	return string(f.Op) + operandText(f.X)
}

func (f *Binary) String() string {
	return operandText(f.L) + " " + string(f.Op) + " " + operandText(f.R)
}

// operandText puts parentheses around what is no single operand.
func operandText(f Field) string {
	switch f := f.(type) {
	case *Binary, *Unary:
		return "(" + f.String() + ")"
	case *Static:
		if s := f.String(); s[0] == '-' {
			return "(" + s + ")"
		}
	}
	return f.String()
}

func (f *Static) String() string {
	switch f.Type {
	case TypeInt:
		switch f.Int {
		case math.MinInt64:
			return "minInt"
		case math.MaxInt64:
			return "maxInt"
		}
		return strconv.FormatInt(f.Int, 10)
	case TypeFloat:
		s := strconv.FormatFloat(f.Float, 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		return s
	case TypeDuration:
		return time.Duration(f.Int).String()
	case TypeString:
		return quoteText(f.Text)
	default:
		return words()[f.Type][f.Int]
	}
}

// quoteText writes a text with the escapes that the lexer knows.
func quoteText(s string) string {
	b := []byte{'"'}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'x', hex[s[i]>>4], hex[s[i]&15])
		case r == '"' || r == '\\' || !unicode.IsPrint(r):
			q := strconv.Quote(s[i : i+n])
			b = append(b, q[1:len(q)-1]...)
		default:
			b = append(b, s[i:i+n]...)
		}
		i += n
	}
	return string(append(b, '"'))
}
