package promql

import (
	"context"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/braidobs/braid/query/promql/results"
	"github.com/braidobs/braid/storage"
)

// grid returns the key and the steps of a query whose answers may be kept.
func (e *Engine) grid(r Request) (results.Key, results.Grid, bool) {
	start, end, step := r.Start.UnixMilli(), r.End.UnixMilli(), r.Step.Milliseconds()
	whole := r.Start.Equal(time.UnixMilli(start)) && r.Step == time.Duration(step)*time.Millisecond
	if e.results == nil || e.cfg.Experimental || r.PerStepStats || step < 1 || end < start || start < 0 || !whole {
		return results.Key{}, results.Grid{}, false
	}
	expr, err := e.parser.ParseExpr(r.Expr)
	if err != nil || !keepable(expr) {
		return results.Key{}, results.Grid{}, false
	}
	lookback := r.Lookback
	if lookback <= 0 {
		lookback = e.cfg.Lookback.Std()
	}
	k := results.Key{Tenant: r.Tenant, Expr: r.Expr, Step: step, Phase: start % step, Lookback: lookback.Milliseconds()}
	return k, results.Grid{From: start, To: start + (end-start)/step*step, Step: step}, true
}

// keepable tells whether the answer at one step depends on nothing but samples up to the time of the step: not on other
// steps, on the range of the query, or on the future.
func keepable(expr parser.Expr) bool {
	ok, subquery, or := true, false, false
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			ok = ok && n.Timestamp == nil && n.StartOrEnd == 0 && n.OriginalOffset >= 0 && n.OriginalOffsetExpr == nil && named(n.LabelMatchers)
		case *parser.MatrixSelector:
			ok = ok && n.RangeExpr == nil
		case *parser.SubqueryExpr:
			ok = ok && n.Timestamp == nil && n.StartOrEnd == 0 && n.OriginalOffset >= 0 &&
				n.OriginalOffsetExpr == nil && n.RangeExpr == nil && n.StepExpr == nil
			subquery = true
		case *parser.Call:
			switch n.Func.Name {
			case "label_replace", "label_join": // two series may become one, which is an error, in all steps
				ok = false
			case "info", "start", "end", "range", "step":
				ok = false
			}
		case *parser.AggregateExpr:
			switch n.Op {
			case parser.TOPK, parser.BOTTOMK, parser.LIMITK, parser.LIMIT_RATIO: // of equal values the first, in whatever order
				ok = false
			default:
			}
		case *parser.BinaryExpr:
			or = or || n.Op == parser.LOR
		}
		return nil
	})
	return ok && (!or || !subquery) // a function over both sides of an or may find the same labels twice
}

// named tells whether all series that match have the same name: functions that drop it then never make two of one.
func named(ms []*labels.Matcher) bool {
	for _, m := range ms {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && m.Value != "" {
			return true
		}
	}
	return false
}

// fromResults answers a query as far as possible with what is kept of an earlier one, and keeps the answer. ok is false
// when the query must be evaluated as if nothing was kept.
func (e *Engine) fromResults(ctx context.Context, r Request, view *sharedView) (a *Answer, ok bool, err error) {
	k, g, ok := e.grid(r)
	if !ok {
		return nil, false, nil
	}
	v, err := view.get(ctx)
	if err != nil {
		return nil, false, nil // the evaluation finds it, too, and explains it
	}
	changes, ok := v.(storage.ChangeReader)
	if !ok {
		return nil, false, nil
	}
	old, valid := e.results.Get(k), g.From-g.Step
	if old != nil && old.Grid.From <= g.From {
		if t, known := changes.OldestChange(r.Tenant, old.At); known {
			valid = min(old.Grid.To, g.To)
			if t <= valid { // the last step before the change
				valid = g.From + floor(t-1-g.From, g.Step)*g.Step
			}
			valid = max(valid, g.From-g.Step)
		}
	}
	served := int((valid-g.From)/g.Step) + 1
	if served == 0 {
		a, err = e.whole(ctx, r, view)
		if err == nil {
			e.results.Count(0, g.Len())
			e.keep(k, g, changes.Position(), a)
		}
		return a, true, err
	}
	a = &Answer{view: view, Stats: &stats.Statistics{Timers: stats.NewQueryTimers(), Samples: stats.NewQuerySamples(false)}}
	next := old.Moved(changes.Position())
	if valid < g.To || old.Grid != g {
		var fresh promql.Matrix
		if valid < g.To {
			part := r
			part.Start = time.UnixMilli(valid + g.Step)
			rest, err := e.whole(ctx, part, view)
			if err != nil {
				return nil, true, err
			}
			defer rest.query.Close()
			if fresh, ok = rest.Value.(promql.Matrix); !ok || len(rest.Warnings) > 0 || view.foreign() {
				e.results.Put(k, nil)
				return nil, false, nil // once more, as a whole
			}
			a.Stats = rest.Stats
		}
		next = old.Extend(changes.Position(), g, valid, fresh)
	}
	e.results.Put(k, next)
	if next == nil {
		return nil, false, nil
	}
	e.results.Count(served, g.Len())
	a.Value, a.Read = next.Matrix(), view.stats()
	return a, true, nil
}

// keep keeps an answer if it is nothing but values of what is stored.
func (e *Engine) keep(k results.Key, g results.Grid, at storage.Position, a *Answer) {
	m, ok := a.Value.(promql.Matrix)
	if !ok || len(a.Warnings) > 0 || a.view.foreign() {
		e.results.Put(k, nil)
		return
	}
	var none *results.Entry
	e.results.Put(k, none.Extend(at, g, g.From-g.Step, m))
}

// floor divides towards the past.
func floor(a, b int64) int64 {
	if a < 0 {
		return -((-a + b - 1) / b)
	}
	return a / b
}
