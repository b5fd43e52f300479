package traceql

import (
	"slices"

	"github.com/braidobs/braid/query/traceql/rows"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

// plan is what a pipeline asks of the store, and the stages that are left to us.
type plan struct {
	stages []stage
	need   []storage.Predicate
	fields []syntax.Field // that are read
	shown  []syntax.Field // that are shown of spans: attributes and intrinsics among fields
	whole  bool           // whole traces are needed
}

func planOf(ns ...syntax.Node) *plan {
	p := &plan{stages: compileStages(ns)}
	for _, n := range ns {
		p.node(n)
		p.need = append(p.need, needOf(n)...)
	}
	p.whole = p.whole || rows.Whole(p.fields...)
	for _, f := range p.fields {
		p.show(f)
	}
	return p
}

// node collects what stages read, and whether they look at more than one span.
func (p *plan) node(n syntax.Node) {
	switch n := n.(type) {
	case *syntax.Filter:
		if n.Cond != nil {
			p.fields = append(p.fields, n.Cond)
		}
	case *syntax.Combine:
		p.whole = p.whole || n.Op != syntax.Or
		p.node(n.L)
		p.node(n.R)
	case *syntax.Pipeline:
		for _, s := range n.Stages {
			p.node(s)
		}
	case *syntax.ScalarFilter:
		p.whole = true
		p.node(n.L)
		p.node(n.R)
	case *syntax.ScalarOp:
		p.node(n.L)
		p.node(n.R)
	case *syntax.ScalarPipe:
		for _, s := range n.Stages {
			p.node(s)
		}
		p.node(n.Of)
	case *syntax.Aggregate:
		if n.Of != nil {
			p.fields = append(p.fields, n.Of)
		}
	case *syntax.Group:
		p.fields = append(p.fields, n.By)
	case *syntax.Select:
		p.fields = append(p.fields, n.Fields...)
	case *syntax.Coalesce, *syntax.Number:
	}
}

// show adds the attributes and intrinsics that f names.
func (p *plan) show(f syntax.Field) {
	switch f := f.(type) {
	case *syntax.Unary:
		p.show(f.X)
	case *syntax.Binary:
		p.show(f.L)
		p.show(f.R)
	case *syntax.Attribute, *syntax.Intrinsic:
		if i, ok := f.(*syntax.Intrinsic); ok && !i.Parent {
			switch i.ID {
			case syntax.Name, syntax.Duration, syntax.SpanID, syntax.TraceID, syntax.TraceDuration, syntax.RootName,
				syntax.RootService, syntax.ParentSpan: // the result has them anyway
				return
			default:
			}
		}
		if !slices.ContainsFunc(p.shown, func(g syntax.Field) bool { return syntax.Label(g) == syntax.Label(f) }) {
			p.shown = append(p.shown, f)
		}
	}
}

// needOf returns predicates of which each matches some row of every trace in which n finds spans.
func needOf(n syntax.Node) []storage.Predicate {
	switch n := n.(type) {
	case *syntax.Filter:
		return rows.Needs(n.Cond)
	case *syntax.Combine:
		l, r := needOf(n.L), needOf(n.R)
		switch {
		case n.Op == syntax.Or:
			if len(l) == 0 || len(r) == 0 {
				return nil
			}
			return []storage.Predicate{storage.Or{l[0], r[0]}}
		case negative(n.Op):
			return r
		default:
			return append(l, r...)
		}
	case *syntax.Pipeline:
		var out []storage.Predicate
		for _, s := range n.Stages {
			out = append(out, needOf(s)...)
		}
		return out
	}
	return nil
}

// keys returns the keys of the columns that fields are read from, each once.
func keys(fs []syntax.Field, more ...storage.SpanKey) []storage.SpanKey {
	var out []storage.SpanKey
	for _, k := range append(rows.Keys(fs...), more...) {
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}
