package prometheus

import (
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/braidobs/braid/internal/httpapi"
)

func (a *API) formatQuery(r *http.Request) (result, error) {
	expr, err := a.Engine.Parser().ParseExpr(r.FormValue("query"))
	if err != nil {
		return result{}, invalid("query", err)
	}
	return result{data: func(dst []byte) []byte { return appendString(dst, expr.Pretty(0)) }}, nil
}

// parseQuery answers with the syntax tree of an expression, in the words of Prometheus's web UI.
func (a *API) parseQuery(r *http.Request) (result, error) {
	expr, err := a.Engine.Parser().ParseExpr(r.FormValue("query"))
	if err != nil {
		return result{}, invalid("query", err)
	}
	t, err := tree(expr)
	if err != nil {
		return result{}, err
	}
	return jsonResult(t)
}

// node is an object of a syntax tree.
type node map[string]any

// trees returns the trees of several expressions; the error is that of the first that has none.
func trees[E parser.Expr](list ...E) ([]any, error) {
	out := []any{}
	for _, e := range list {
		t, err := tree(e)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// tree returns an expression as JSON objects, nil for none.
func tree(e parser.Expr) (any, error) {
	switch e := e.(type) {
	case nil:
		return nil, nil //nolint:nilnil // JSON has a null
	case *parser.AggregateExpr:
		subs, err := trees(e.Expr, e.Param)
		if err != nil {
			return nil, err
		}
		return node{"type": "aggregation", "op": e.Op.String(), "expr": subs[0], "param": subs[1], "grouping": list(e.Grouping), "without": e.Without}, nil
	case *parser.BinaryExpr:
		subs, err := trees(e.LHS, e.RHS)
		if err != nil {
			return nil, err
		}
		var matching any
		if m := e.VectorMatching; m != nil {
			matching = node{
				"card": m.Card.String(), "labels": list(m.MatchingLabels), "on": m.On, "include": list(m.Include),
				"fillValues": node{"lhs": m.FillValues.LHS, "rhs": m.FillValues.RHS},
			}
		}
		return node{"type": "binaryExpr", "op": e.Op.String(), "lhs": subs[0], "rhs": subs[1], "matching": matching, "bool": e.ReturnBool}, nil
	case *parser.Call:
		args, err := trees(e.Args...)
		if err != nil {
			return nil, err
		}
		f := node{"name": e.Func.Name, "argTypes": e.Func.ArgTypes, "variadic": e.Func.Variadic, "returnType": e.Func.ReturnType}
		return node{"type": "call", "func": f, "args": args}, nil
	case *parser.VectorSelector:
		return selector(e, "vectorSelector")
	case *parser.MatrixSelector:
		vs, ok := e.VectorSelector.(*parser.VectorSelector)
		if !ok {
			return nil, httpapi.BadDataf("a range of %T cannot be shown", e.VectorSelector)
		}
		n, err := selector(vs, "matrixSelector")
		if err != nil {
			return nil, err
		}
		n["range"] = e.Range.Milliseconds()
		n["rangeExpr"], err = duration(e.RangeExpr)
		return n, err
	case *parser.SubqueryExpr:
		sub, err := tree(e.Expr)
		if err != nil {
			return nil, err
		}
		n := node{
			"type": "subquery", "expr": sub, "range": e.Range.Milliseconds(), "offset": e.OriginalOffset.Milliseconds(),
			"step": e.Step.Milliseconds(), "timestamp": e.Timestamp, "startOrEnd": bound(e.StartOrEnd),
		}
		for name, d := range map[string]*parser.DurationExpr{"rangeExpr": e.RangeExpr, "offsetExpr": e.OriginalOffsetExpr, "stepExpr": e.StepExpr} {
			if n[name], err = duration(d); err != nil {
				return nil, err
			}
		}
		return n, nil
	case *parser.DurationExpr:
		return duration(e)
	case *parser.NumberLiteral:
		return node{"type": "numberLiteral", "val": number(e.Val)}, nil
	case *parser.StringLiteral:
		return node{"type": "stringLiteral", "val": e.Val}, nil
	case *parser.ParenExpr:
		sub, err := tree(e.Expr)
		return node{"type": "parenExpr", "expr": sub}, err
	case *parser.UnaryExpr:
		sub, err := tree(e.Expr)
		return node{"type": "unaryExpr", "op": e.Op.String(), "expr": sub}, err
	default:
		return nil, httpapi.BadDataf("a %T cannot be shown", e)
	}
}

// selector returns what an instant selector and the selector of a range have in common.
func selector(s *parser.VectorSelector, kind string) (node, error) {
	offset, err := duration(s.OriginalOffsetExpr)
	if err != nil {
		return nil, err
	}
	ms := []node{}
	for _, m := range s.LabelMatchers {
		ms = append(ms, node{"name": m.Name, "value": m.Value, "type": m.Type.String()})
	}
	return node{
		"type": kind, "name": s.Name, "matchers": ms, "offset": s.OriginalOffset.Milliseconds(), "offsetExpr": offset,
		"timestamp": s.Timestamp, "startOrEnd": bound(s.StartOrEnd), "anchored": s.Anchored, "smoothed": s.Smoothed,
	}, nil
}

// duration returns the tree of a duration that is computed, nil for none.
func duration(e parser.Expr) (any, error) {
	switch e := e.(type) {
	case *parser.DurationExpr:
		if e == nil {
			return nil, nil //nolint:nilnil // JSON has a null
		}
		lhs, err := duration(e.LHS)
		if err != nil {
			return nil, err
		}
		rhs, err := duration(e.RHS)
		return node{"type": "durationExpr", "op": e.Op.String(), "lhs": lhs, "rhs": rhs, "wrapped": e.Wrapped}, err
	case *parser.NumberLiteral:
		if e == nil {
			return nil, nil //nolint:nilnil // JSON has a null
		}
		return node{"type": "numberLiteral", "val": number(e.Val), "duration": e.Duration}, nil
	default:
		return tree(e)
	}
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// list returns a list that is not null.
func list(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

// bound returns start or end where a selector has one of them as its time.
func bound(t parser.ItemType) any {
	if t == 0 {
		return nil
	}
	return t.String()
}

// parseMatchers reads series selectors.
func (a *API) parseMatchers(r *http.Request) ([][]*labels.Matcher, error) {
	return a.Engine.Parser().ParseMetricSelectors(r.Form["match[]"])
}
