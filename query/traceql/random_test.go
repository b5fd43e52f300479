package traceql_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/traceql"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// randomValue returns a value; few are different, so that comparisons hold now and then.
func randomValue(rng *rand.Rand) telemetry.Value {
	switch rng.IntN(10) {
	case 0, 1, 2:
		return telemetry.Int(int64(rng.IntN(5)))
	case 3, 4:
		return telemetry.String(pick(rng, "a", "b", "ab", "1", ""))
	case 5:
		return telemetry.Bool(rng.IntN(2) == 0)
	case 6:
		return telemetry.Double(pick(rng, 1, 1.5, 2, -1, math.NaN()))
	case 7:
		return telemetry.Value{}
	case 8:
		return telemetry.Array([]telemetry.Value{randomValue(rng), randomValue(rng)})
	default:
		return telemetry.Bytes([]byte("a"))
	}
}

func randomAttrs(rng *rand.Rand) telemetry.Attrs {
	var out []telemetry.Attr
	for _, k := range []string{"x", "y", "service.name"} {
		if rng.IntN(2) == 0 {
			v := randomValue(rng)
			if k == "service.name" {
				v = telemetry.String(pick(rng, "shop", "web"))
			}
			out = append(out, telemetry.Attr{Key: k, Value: v})
		}
	}
	return telemetry.NewAttrs(out)
}

// randomTraces returns the spans of traces, in no order: some without root, some with circles, some twice.
func randomTraces(rng *rand.Rand, traces int) []storage.SpanRow {
	var out []storage.SpanRow
	for t := range traces {
		var id telemetry.TraceID
		id[15] = byte(t + 1)
		begin := base.UnixNano() + int64(rng.IntN(60))*int64(time.Second)
		n := 1 + rng.IntN(8)
		for i := range n {
			s := &telemetry.Span{
				TraceID: id, SpanID: telemetry.SpanID{7: byte(i + 1)}, Name: pick(rng, "a", "b", "c"),
				Kind: telemetry.SpanKind(rng.IntN(3)), Status: telemetry.StatusCode(rng.IntN(3)), StatusMessage: pick(rng, "", "", "a"),
				Start: begin + int64(rng.IntN(20))*int64(time.Second), Attrs: randomAttrs(rng),
			}
			s.End = s.Start + pick(rng, int64(-1e9), 0, 1e9, 2e9, 5e9)
			switch {
			case i == 0 && rng.IntN(4) > 0, rng.IntN(12) == 0:
			case rng.IntN(8) == 0:
				s.ParentID = telemetry.SpanID{7: 0xee}
			default:
				s.ParentID = telemetry.SpanID{7: byte(rng.IntN(n) + 1)}
			}
			if rng.IntN(3) == 0 {
				for range 1 + rng.IntN(2) {
					s.Events = append(s.Events, telemetry.Event{Name: pick(rng, "a", "b"), Time: s.Start + int64(rng.IntN(3))*1e9, Attrs: randomAttrs(rng)})
				}
			}
			out = append(out, storage.SpanRow{Resource: telemetry.NewResource("", randomAttrs(rng)), Span: s})
		}
	}
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func randomField(rng *rand.Rand) string {
	return pick(rng, ".x", ".y", "span.x", "resource.x", "event.x", "resource.service.name", "parent.x", "parent.span.y", "parent.resource.x",
		"name", "duration", "status", "kind", "statusMessage", "span:id", "span:parentID", "span:childCount", "nestedSetLeft", "nestedSetRight",
		"nestedSetParent", "traceDuration", "rootName", "rootServiceName", "event:name", "event:timeSinceStart", "parent.name", "parent.duration")
}

func randomConstant(rng *rand.Rand) string {
	return pick(rng, "0", "1", "2", "-1", "1.5", "2.0", `"a"`, `"b"`, `"1"`, `""`, `"shop"`, "true", "false", "1s", "5s", "error", "ok", "server",
		"nil", `"0000000000000002"`)
}

// randomCondition returns a condition; it may make no sense.
func randomCondition(rng *rand.Rand, depth int) string {
	if depth > 0 && rng.IntN(3) == 0 {
		return "(" + randomCondition(rng, depth-1) + pick(rng, " && ", " || ") + randomCondition(rng, depth-1) + ")"
	}
	switch rng.IntN(12) {
	case 0:
		return pick(rng, "true", "false", ".x", "span.y", "parent.x")
	case 1:
		return "!(" + randomCondition(rng, 0) + ")"
	case 2:
		return randomField(rng) + pick(rng, " =~ ", " !~ ") + pick(rng, `"a|b"`, `"a.*"`, `".+"`, `""`)
	case 3:
		return randomField(rng) + pick(rng, " = ", " != ", " > ", " <= ") + randomField(rng)
	case 4:
		return randomField(rng) + pick(rng, " + ", " - ", " * ", " / ", " % ", " ^ ") + randomConstant(rng) + pick(rng, " = ", " > ", " < ") + randomConstant(rng)
	case 5:
		return randomConstant(rng) + pick(rng, " = ", " != ", " > ", " >= ", " < ", " <= ") + randomField(rng)
	case 6:
		return "!" + pick(rng, ".x", "span.y", "parent.x")
	case 7:
		return randomField(rng) + pick(rng, " = ", " != ") + "nil"
	default:
		return randomField(rng) + pick(rng, " = ", " != ", " > ", " >= ", " < ", " <= ") + randomConstant(rng)
	}
}

func randomSet(rng *rand.Rand, depth int) string {
	if depth > 0 && rng.IntN(2) == 0 {
		op := pick(rng, "&&", "||", ">", ">>", "<", "<<", "~", "!>", "!>>", "!<", "!<<", "!~", "&>", "&>>", "&<", "&<<", "&~")
		return "(" + randomSet(rng, depth-1) + " " + op + " " + randomSet(rng, depth-1) + ")"
	}
	if depth > 0 && rng.IntN(6) == 0 {
		return "(" + randomPipeline(rng, depth-1) + ")"
	}
	if rng.IntN(6) == 0 {
		return "{ }"
	}
	return "{ " + randomCondition(rng, 2) + " }"
}

func randomNumber(rng *rand.Rand) string {
	field := pick(rng, "duration", ".x", "span.y", "event:timeSinceStart", "nestedSetLeft", "duration * 2", ".x + 1")
	out := pick(rng, "count()", "avg("+field+")", "min("+field+")", "max("+field+")", "sum("+field+")")
	if rng.IntN(4) == 0 {
		out += pick(rng, " + ", " - ", " * ") + pick(rng, "1", "2.5", "count()")
	}
	return out
}

func randomPipeline(rng *rand.Rand, depth int) string {
	out := []string{randomSet(rng, depth)}
	for range rng.IntN(3) {
		switch rng.IntN(5) {
		case 0:
			out = append(out, "by("+pick(rng, randomField(rng), randomField(rng)+" = 1", ".x + 1")+")")
		case 1:
			out = append(out, "coalesce()")
		case 2, 3:
			out = append(out, randomNumber(rng)+pick(rng, " > ", " = ", " <= ", " != ")+pick(rng, "0", "1", "2", "3", "1s", "2s"))
		default:
			out = append(out, randomSet(rng, depth))
		}
	}
	return strings.Join(out, " | ")
}

// randomStore returns spans, and a view of a store with them.
func randomStore(t *testing.T, rng *rand.Rand) (traces []*naive, v storage.View) {
	t.Helper()
	rows := randomTraces(rng, 12)
	store := testkit.NewStore("")
	byID := map[telemetry.TraceID][]storage.SpanRow{}
	for _, r := range rows {
		byID[r.Span.TraceID] = append(byID[r.Span.TraceID], r)
		_, _, err := store.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: telemetry.DefaultTenant, Resource: r.Resource, Spans: []telemetry.Span{*r.Span}}}})
		require.NoError(t, err)
	}
	for _, rows := range byID {
		traces = append(traces, newNaive(rows))
	}
	slices.SortFunc(traces, func(a, b *naive) int {
		x, _ := a.bounds()
		y, _ := b.bounds()
		return cmp.Or(cmp.Compare(y, x), cmp.Compare(a.spans[0].Span.TraceID[15], b.spans[0].Span.TraceID[15]))
	})
	v, err := store.View(t.Context(), 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	return traces, v
}

// TestColumnsAgreeWithSpans compares random queries over random traces with the naive way.
func TestColumnsAgreeWithSpans(t *testing.T) { compareRandom(t, 6, 150) }

func compareRandom(t *testing.T, stores, queries int) {
	t.Helper()
	eng := traceql.Engine{Limits: traceql.DefaultLimits()}
	answered, found := 0, 0
	for seed := range uint64(stores) {
		rng := rand.New(rand.NewPCG(seed, 42))
		traces, v := randomStore(t, rng)
		for range queries {
			text := randomPipeline(rng, 2)
			q, err := traceql.Parse(text)
			if err != nil {
				continue
			}
			answered++
			var want strings.Builder
			for _, n := range traces {
				if sets := n.run(q.Node, n.spans); len(sets) > 0 {
					found++
					fmt.Fprintf(&want, "%x:", n.spans[0].Span.TraceID[15])
					for _, s := range sets {
						want.WriteString(" [" + spanList(s) + "]")
					}
					want.WriteString("\n")
				}
			}
			for _, view := range []storage.View{v, strict{v}} {
				res, err := eng.Search(t.Context(), view, traceql.SearchQuery{
					Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano() - 1e12, End: base.UnixNano() + 1e12, Limit: 100, Spans: 100,
				})
				require.NoError(t, err, text)
				var got strings.Builder
				for _, tr := range res.Traces {
					fmt.Fprintf(&got, "%x:", tr.ID[15])
					for _, s := range tr.Sets {
						ids := make([]string, len(s.Spans))
						for i, sp := range s.Spans {
							ids[i] = strconv.Itoa(int(sp.ID[7]))
						}
						slices.Sort(ids)
						got.WriteString(" [" + strings.Join(ids, " ") + "]")
					}
					got.WriteString("\n")
				}
				require.Equal(t, want.String(), got.String(), "seed %d: %s, with little blocks: %v", seed, text, view != v)
			}
		}
	}
	t.Logf("%d queries found %d traces", answered, found)
	require.Greater(t, answered, stores*queries/4)
	require.Greater(t, found, answered)
}

func spanList(spans []*naiveSpan) string {
	ids := make([]string, len(spans))
	for i, s := range spans {
		ids[i] = strconv.Itoa(int(s.Span.SpanID[7]))
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// TestMetricsAgreeWithSpans compares metrics of random spans with sums made by hand.
func TestMetricsAgreeWithSpans(t *testing.T) { compareRandomMetrics(t, 6, 60) }

func compareRandomMetrics(t *testing.T, stores, queries int) {
	t.Helper()
	eng := traceql.Engine{Limits: traceql.DefaultLimits()}
	const step = int64(10e9)
	for seed := range uint64(stores) {
		rng := rand.New(rand.NewPCG(seed, 43))
		traces, v := randomStore(t, rng)
		for range queries {
			by := slices.Compact(slices.Sorted(slices.Values([]string{randomField(rng), randomField(rng), randomField(rng)}[:rng.IntN(4)])))
			of := pick(rng, "duration", "span.x", ".y", "event:timeSinceStart", "nestedSetRight", "traceDuration")
			fn := pick(rng, "count_over_time()", "rate()", "min_over_time("+of+")", "max_over_time("+of+")", "sum_over_time("+of+")", "avg_over_time("+of+")", "quantile_over_time("+of+", 0.5)")
			text := randomPipeline(rng, 1) + " | " + fn
			if len(by) > 0 {
				text += " by(" + strings.Join(by, ", ") + ")"
			}
			q, err := traceql.Parse(text)
			if err != nil {
				continue
			}
			want := naiveMetrics(traces, q.Node.(*syntax.MetricPipe), base.UnixNano()-step, base.UnixNano()+60e9, step)
			for _, view := range []storage.View{v, strict{v}} {
				res, err := eng.Metrics(t.Context(), view, traceql.MetricsQuery{
					Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano(), End: base.UnixNano() + 60e9, Step: step,
				})
				require.NoError(t, err, text)
				got := map[string]float64{}
				for _, s := range res.Series {
					var labels strings.Builder
					for _, l := range s.Labels {
						if l.Key != "__name__" && l.Key != "p" {
							fmt.Fprintf(&labels, "%s=%s:%s ", l.Key, l.Value.Type, l.Value.Text())
						}
					}
					for _, p := range s.Points {
						if p.Value != 0 || !strings.Contains(text, "| rate") && !strings.Contains(text, "| count_over") {
							got[fmt.Sprintf("%s@%d", labels.String(), (p.Time-base.UnixNano())/step)] = p.Value
						}
					}
				}
				require.Len(t, got, len(want), "seed %d: %s: %v, want %v", seed, text, got, want)
				for k, v := range want {
					require.InDelta(t, v, got[k], 1e-9*math.Abs(v)+1e-12, "seed %d: %s: %s", seed, text, k)
				}
			}
		}
	}
}

func naiveMetrics(traces []*naive, p *syntax.MetricPipe, lo, hi, step int64) map[string]float64 {
	values := map[string][]float64{}
	for _, n := range traces {
		for _, set := range n.stages(p.Stages, [][]*naiveSpan{n.spans}) {
			for _, s := range set {
				if s.Span.Start <= lo || s.Span.Start > hi {
					continue
				}
				var labels strings.Builder
				for _, f := range p.Func.By {
					labels.WriteString(syntax.Label(f) + "=" + described(s.value(f)) + " ")
				}
				v := 1.0
				if p.Func.Of != nil {
					x := s.value(p.Func.Of)
					f, ok := asFloat(x)
					if !ok || math.IsNaN(f) {
						continue
					}
					if _, ok := x.(length); ok {
						f /= 1e9
					}
					v = f
				}
				point := -((base.UnixNano() - s.Span.Start) / step)
				if s.Span.Start > base.UnixNano() {
					point = (s.Span.Start-base.UnixNano()-1)/step + 1
				}
				k := fmt.Sprintf("%s@%d", labels.String(), point)
				values[k] = append(values[k], v)
			}
		}
	}
	out := map[string]float64{}
	for k, vs := range values {
		sum := 0.0
		for _, v := range vs {
			sum += v
		}
		slices.Sort(vs)
		switch p.Func.Op {
		case syntax.CountOverTime:
			out[k] = float64(len(vs))
		case syntax.Rate:
			out[k] = float64(len(vs)) / float64(step) * 1e9
		case syntax.MinOverTime:
			out[k] = vs[0]
		case syntax.MaxOverTime:
			out[k] = vs[len(vs)-1]
		case syntax.SumOverTime:
			out[k] = sum
		case syntax.QuantileOverTime:
			mid := float64(len(vs)-1) / 2
			out[k] = (vs[int(math.Floor(mid))] + vs[int(math.Ceil(mid))]) / 2
		default:
			out[k] = sum / float64(len(vs))
		}
	}
	return out
}

func described(v any) string {
	switch v := v.(type) {
	case nil:
		return "nil:nil"
	case bool:
		return fmt.Sprintf("boolean:%v", v)
	case int64:
		return fmt.Sprintf("integer:%d", v)
	case float64:
		return "float:" + telemetry.Double(v).Text()
	case string:
		return "string:" + v
	case length:
		return "duration:" + time.Duration(v).String()
	case status:
		return "status:" + telemetry.StatusCode(v).String()
	case kind:
		return "kind:" + telemetry.SpanKind(v).String()
	default:
		return "attribute:" + v.(telemetry.Value).Text()
	}
}
