package logql

import (
	"context"
	"math"
	"regexp"
	"slices"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/query/logql/syntax"
)

func comparison(op string) bool {
	switch op {
	case "==", "!=", ">", ">=", "<", "<=":
		return true
	default:
		return false
	}
}

// apply computes an operation on two numbers; false means that a comparison does not hold and removes the element.
func apply(op string, a, b float64) (float64, bool) {
	switch op {
	case "+":
		return a + b, true
	case "-":
		return a - b, true
	case "*":
		return a * b, true
	case "/":
		if b == 0 {
			return math.NaN(), true
		}
		return a / b, true
	case "%":
		if b == 0 {
			return math.NaN(), true
		}
		return math.Mod(a, b), true
	case "^":
		return math.Pow(a, b), true
	default:
		return a, pipeline.Compare(op, a, b)
	}
}

// truth is a comparison with bool.
func truth(op string, a, b float64) float64 {
	if pipeline.Compare(op, a, b) {
		return 1
	}
	return 0
}

func (ev *evaluator) binary(ctx context.Context, b *syntax.Binary, l, r []vector) ([]vector, error) {
	ls, rs := b.L.Kind() == syntax.Scalar, b.R.Kind() == syntax.Scalar
	switch {
	case ls && rs:
		return ev.scalars(b, l[0], r[0]), nil
	case rs:
		return withScalar(b, l, r[0], false), nil
	case ls:
		return withScalar(b, r, l[0], true), nil
	}
	switch b.Op {
	case "and", "or", "unless":
		return ev.set(b, l, r), nil
	default:
		return ev.match(ctx, b, l, r)
	}
}

func (ev *evaluator) scalars(b *syntax.Binary, l, r vector) []vector {
	out := newVector(nil, ev.grid.n)
	for k := range out.v {
		if comparison(b.Op) {
			out.put(k, truth(b.Op, l.v[k], r.v[k]))
			continue
		}
		x, _ := apply(b.Op, l.v[k], r.v[k])
		out.put(k, x)
	}
	return []vector{out}
}

// withScalar applies an operation to each element and a scalar, which is on the left if swapped.
func withScalar(b *syntax.Binary, vs []vector, s vector, swapped bool) []vector {
	out := make([]vector, len(vs))
	for i, v := range vs {
		out[i] = newVector(v.labels, len(v.v))
		for k, ok := range v.ok {
			if !ok {
				continue
			}
			x, y := v.v[k], s.v[k]
			if swapped {
				x, y = y, x
			}
			switch z, holds := apply(b.Op, x, y); {
			case comparison(b.Op) && b.Bool:
				out[i].put(k, truth(b.Op, x, y))
			case comparison(b.Op) && holds:
				out[i].put(k, v.v[k]) // the element's value, wherever it stands
			case holds:
				out[i].put(k, z)
			}
		}
	}
	return out
}

// signature returns the labels by which elements are matched.
func signature(ls []Label, m *syntax.Matching) telemetry.LabelSet {
	if m == nil {
		return setOf(ls)
	}
	return setOf(grouped(nil, ls, &syntax.Grouping{Without: !m.On, Labels: m.Labels}))
}

func (ev *evaluator) set(b *syntax.Binary, l, r []vector) []vector {
	index := func(vs []vector) map[telemetry.LabelSet][]int {
		out := make(map[telemetry.LabelSet][]int)
		for i := range vs {
			s := signature(vs[i].labels, b.Matching)
			out[s] = append(out[s], i)
		}
		return out
	}
	present := func(vs []vector, some []int, k int) bool {
		return slices.ContainsFunc(some, func(i int) bool { return vs[i].ok[k] })
	}
	filter := func(vs, others []vector, in map[telemetry.LabelSet][]int, want bool) []vector {
		out := make([]vector, 0, len(vs))
		for _, v := range vs {
			some := in[signature(v.labels, b.Matching)]
			o := vector{v.labels, v.v, make([]bool, len(v.ok))}
			for k, ok := range v.ok {
				o.ok[k] = ok && present(others, some, k) == want
			}
			out = append(out, o)
		}
		return out
	}
	switch b.Op {
	case "and":
		return filter(l, r, index(r), true)
	case "unless":
		return filter(l, r, index(r), false)
	default:
		return joined(append(slices.Clone(l), filter(r, l, index(l), false)...))
	}
}

// joined merges elements with the same labels that exist at different times.
func joined(vs []vector) []vector {
	at := make(map[telemetry.LabelSet]int)
	out := vs[:0:0]
	for _, v := range vs {
		s := v.set()
		i, ok := at[s]
		if !ok {
			at[s] = len(out)
			out = append(out, vector{v.labels, slices.Clone(v.v), slices.Clone(v.ok)})
			continue
		}
		for k, ok := range v.ok {
			if ok && !out[i].ok[k] {
				out[i].put(k, v.v[k])
			}
		}
	}
	return out
}

// match applies an operation to the elements of two vectors that belong together.
func (ev *evaluator) match(ctx context.Context, b *syntax.Binary, l, r []vector) ([]vector, error) {
	m := b.Matching
	many, one := l, r
	swapped := m != nil && m.Group == "right"
	if swapped {
		many, one = r, l
	}
	grouping := m != nil && m.Group != ""
	ones := make(map[telemetry.LabelSet][]int)
	for i := range one {
		s := signature(one[i].labels, m)
		ones[s] = append(ones[s], i)
	}
	results := make(map[telemetry.LabelSet]int)
	var out []vector
	for i := range many {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sig := signature(many[i].labels, m)
		for k, ok := range many[i].ok {
			if !ok {
				continue
			}
			found := -1
			for _, j := range ones[sig] {
				if !one[j].ok[k] {
					continue
				}
				if found >= 0 {
					return nil, httpapi.BadDataf("several elements on the %s side of %s match each other: %s and %s; many-to-many matching is not allowed",
						map[bool]string{false: "right", true: "left"}[swapped], b.Op, braces(one[found].labels), braces(one[j].labels))
				}
				found = j
			}
			if found < 0 {
				continue
			}
			x, y := many[i].v[k], one[found].v[k]
			if swapped {
				x, y = y, x
			}
			z, holds := apply(b.Op, x, y)
			if comparison(b.Op) && b.Bool {
				z, holds = truth(b.Op, x, y), true
			}
			if !holds {
				continue
			}
			ls := resultLabels(m, many[i].labels, one[found].labels, grouping)
			set := setOf(ls)
			at, ok := results[set]
			if !ok {
				at = len(out)
				results[set] = at
				out = append(out, newVector(ls, ev.grid.n))
			}
			if out[at].ok[k] {
				return nil, httpapi.BadDataf("several matches of %s have the labels %s; use on(...) or ignoring(...) with group_left or group_right", b.Op, braces(ls))
			}
			out[at].put(k, z)
		}
	}
	return out, nil
}

// resultLabels returns the labels of a match.
func resultLabels(m *syntax.Matching, many, one []Label, grouping bool) []Label {
	switch {
	case m == nil:
		return many
	case !grouping:
		return grouped(nil, many, &syntax.Grouping{Without: !m.On, Labels: m.Labels})
	case len(m.Include) == 0:
		return many
	}
	out := slices.DeleteFunc(slices.Clone(many), func(l Label) bool { return slices.Contains(m.Include, l.Name) })
	for _, l := range one {
		if slices.Contains(m.Include, l.Name) && l.Value != "" {
			out = append(out, l)
		}
	}
	pipeline.SortLabels(out)
	return out
}

// braces writes labels for messages.
func braces(ls []Label) string {
	b := []byte{'{'}
	for i, l := range ls {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(append(append(b, l.Name...), '='), syntax.Quote(l.Value)...)
	}
	return string(append(b, '}'))
}

func labelReplace(e *syntax.LabelReplace, vs []vector) ([]vector, error) {
	re, err := regexp.Compile("^(?s:" + e.Regexp + ")$")
	if err != nil {
		return nil, err
	}
	seen := make(map[telemetry.LabelSet]bool)
	out := make([]vector, 0, len(vs))
	for _, v := range vs {
		source := ""
		for _, l := range v.labels {
			if l.Name == e.Source {
				source = l.Value
			}
		}
		ls := v.labels
		if at := re.FindStringSubmatchIndex(source); at != nil {
			value := string(re.ExpandString(nil, e.Replacement, source, at))
			ls = slices.DeleteFunc(slices.Clone(ls), func(l Label) bool { return l.Name == e.Destination })
			if value != "" {
				ls = append(ls, Label{Name: e.Destination, Value: value})
				pipeline.SortLabels(ls)
			}
		}
		set := setOf(ls)
		if seen[set] {
			return nil, httpapi.BadDataf("label_replace gives several series the labels %s", braces(ls))
		}
		seen[set] = true
		out = append(out, vector{ls, v.v, v.ok})
	}
	return out, nil
}
