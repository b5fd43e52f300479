package randpromql

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Request is a query with its time.
type Request struct {
	Expr       string
	Start, End time.Time
	Step       time.Duration // 0 for an instant query, at End
	Lookback   time.Duration // 0 for the default
}

// String returns the query and its time, for a failing test.
func (r Request) String() string {
	return fmt.Sprintf("%s from %d to %d step %s lookback %s", r.Expr, r.Start.UnixMilli(), r.End.UnixMilli(), r.Step, r.Lookback)
}

// Query returns a random query over Data.
func Query(rng *rand.Rand) Request {
	q := grammar{rng}
	at := func() time.Time {
		t := Start + rng.Int64N(End-Start+10*60*1000) - 5*60*1000
		if rng.IntN(2) == 0 {
			t = t / 15_000 * 15_000
		}
		return time.UnixMilli(t)
	}
	r := Request{Expr: q.expr(2), End: at()}
	if rng.IntN(3) == 0 {
		r.Start = r.End
	} else {
		r.Start = at()
		if r.Start.After(r.End) {
			r.Start, r.End = r.End, r.Start
		}
		r.Step = pick(rng, 15*time.Second, 20*time.Second, time.Minute, 7*time.Minute, 13*time.Second+7*time.Millisecond)
	}
	if rng.IntN(3) == 0 {
		r.Lookback = pick(rng, 10*time.Second, time.Minute, 30*time.Minute)
	}
	return r
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

type grammar struct{ rng *rand.Rand }

func (g grammar) n(n int) bool { return g.rng.IntN(n) == 0 }

func (g grammar) selector() string {
	name := pick(g.rng, "requests_total", "requests_total", "latency_seconds_bucket", "load", "load", "work_done", "info", "mixed", "native", "nothing")
	var ms []string
	if g.n(2) {
		ms = append(ms, pick(g.rng, `job="api"`, `job!="api"`, `instance=~"i[01]"`, `code=~"5.."`, `code!="200"`, `kind="a"`, `absent=""`, `le!="1"`))
	}
	if g.n(15) {
		ms = append(ms, `__name__=~"requests_total|work_done|load"`)
		name = ""
	}
	if len(ms) == 0 {
		return name
	}
	return name + "{" + strings.Join(ms, ",") + "}"
}

// modifiers returns an offset or a fixed time, mostly none.
func (g grammar) modifiers() string {
	s := ""
	if g.n(8) {
		s += fmt.Sprintf(" @ %d", Start/1000+g.rng.Int64N(40*60))
	} else if g.n(20) {
		s += pick(g.rng, " @ start()", " @ end()")
	}
	if g.n(6) {
		s += " offset " + pick(g.rng, "1m", "7s", "-30s", "5m3s")
	}
	return s
}

func (g grammar) ranged() string {
	f := pick(g.rng, "rate", "rate", "rate", "increase", "delta", "irate", "idelta", "sum_over_time", "avg_over_time", "min_over_time",
		"max_over_time", "count_over_time", "last_over_time", "present_over_time", "stddev_over_time", "changes", "resets", "absent_over_time")
	length := pick(g.rng, "20s", "1m", "1m", "5m", "5m", "17m", "1h")
	return fmt.Sprintf("%s(%s[%s]%s)", f, g.selector(), length, g.modifiers())
}

// leaf returns an expression over one selector without an aggregation.
func (g grammar) leaf() string {
	if g.n(3) {
		return g.selector() + g.modifiers()
	}
	return g.ranged()
}

func (g grammar) by() string {
	switch g.rng.IntN(5) {
	case 0:
		return ""
	case 1, 2:
		return pick(g.rng, " by (job)", " by (instance, job)", " by (le)", " by (code)", " by (__name__, job)", " by (missing)", " by ()", " by (job, job, Zone)", " by (le, job)")
	default:
		return pick(g.rng, " without (instance)", " without (code, instance)", " without ()", " without (__name__)", " without (le, instance, kind)")
	}
}

// aggregation aggregates a leaf.
func (g grammar) aggregation(leaf string) string {
	if g.n(8) {
		return fmt.Sprintf("%s%s(%s, %s)", pick(g.rng, "topk", "bottomk", "quantile", "limitk"), g.by(), pick(g.rng, "1", "2", "0.5", "5"), leaf)
	}
	return g.unordered(leaf)
}

// unordered aggregates anything: the result does not depend on the order of the series, which is random in the engine
// above some expressions.
func (g grammar) unordered(inner string) string {
	op := pick(g.rng, "sum", "sum", "sum", "avg", "min", "max", "count", "group", "stddev")
	return fmt.Sprintf("%s%s(%s)", op, g.by(), inner)
}

func (g grammar) expr(depth int) string {
	if depth == 0 {
		if g.n(3) {
			return g.leaf()
		}
		return g.aggregation(g.leaf())
	}
	e := func() string { return g.expr(depth - 1) }
	switch g.rng.IntN(14) {
	case 0:
		return fmt.Sprintf("%s / %s", g.aggregation(g.ranged()), g.aggregation(g.ranged()))
	case 1:
		return fmt.Sprintf("histogram_quantile(%s, %s)", pick(g.rng, "0.9", "0.5", "1", "-1"), pick(g.rng,
			"sum by (le, job) (rate(latency_seconds_bucket[5m]))", "sum by (le) (rate(latency_seconds_bucket[1m]))",
			"rate(latency_seconds_bucket[5m])", "sum without (instance) (increase(latency_seconds_bucket[2m] offset 1m))", e()))
	case 2:
		return fmt.Sprintf("%s_over_time((%s)[%s:%s]%s)", pick(g.rng, "max", "min", "sum", "avg", "count", "last", "present", "stddev"),
			e(), pick(g.rng, "5m", "10m", "33s"), pick(g.rng, "", "30s", "1m", "7s"), g.modifiers())
	case 3:
		return fmt.Sprintf("%s(%s[%s:%s])", pick(g.rng, "rate", "increase", "delta", "deriv"), e(), pick(g.rng, "5m", "10m"), pick(g.rng, "", "30s", "1m"))
	case 4:
		return fmt.Sprintf("sum by (job, instance) (%s) * on (instance, job) group_left (version) info", g.leaf())
	case 5:
		return fmt.Sprintf("(%s) %s (%s)", e(), pick(g.rng, "+", "-", "*", "or", "and", "unless", "> bool", "=="), e())
	case 6:
		return fmt.Sprintf("%s %s", e(), pick(g.rng, "> 1", "* 2", "^ 2", "!= bool 0"))
	case 7:
		return g.unordered("(" + e() + ")")
	case 8:
		return pick(g.rng, "absent", "sort", "sort_desc", "abs", "timestamp", "scalar", "ceil") + "(" + e() + ")"
	case 9:
		return `label_replace(` + e() + `, "to", "x$1", "job", "(.).*")`
	case 10:
		return "-" + g.aggregation(g.leaf())
	default:
		return g.aggregation(g.leaf())
	}
}
