//go:build long

package tempo

import (
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"google.golang.org/grpc"

	"github.com/braidobs/braid/internal/wire"
)

// The same queries on the same spans give the same traces with the same spans and fields, the same numbers, and the same tags
// and values as Tempo gives; queries that docs/api/traceql.md says to differ do.
func TestDifferential(t *testing.T) {
	d := &differential{t: t, tempo: startTempo(t), braid: start(t), base: time.Now().Add(-110 * time.Second).Truncate(10 * time.Second)}
	for _, tenant := range []string{whole, broken} {
		td := generate(d.base, tenant == broken)
		d.spans += td.SpanCount()
		for _, s := range []server{d.tempo, d.braid} {
			s.push(t, tenant, td)
			d.settle(t, s, tenant)
		}
	}
	t.Logf("%d spans", d.spans)
	t.Run("traces", d.traces)
	t.Run("searches", func(t *testing.T) {
		for _, q := range spanQueries() {
			d.search(t, whole, q)
			if !ofTree(q) {
				d.search(t, broken, q)
			}
		}
		for _, q := range setQueries() {
			d.search(t, whole, q)
		}
	})
	t.Run("numbers", func(t *testing.T) {
		for _, q := range metricQueries() {
			d.instant(t, whole, q)
			d.timeSeries(t, whole, q)
		}
	})
	t.Run("tags", d.tags)
	t.Run("documented", func(t *testing.T) {
		for q, why := range differing() {
			require.NotEqual(t, d.found(t, d.tempo, whole, q), d.found(t, d.braid, whole, q), "%s (%s) no longer differs", q, why)
		}
	})
	t.Logf("%d queries, %d comparisons, %d differ", len(d.asked), d.compared, d.differ)
	require.GreaterOrEqual(t, len(d.asked), 200)
}

// ofTree says whether a query is about the tree of a trace, which is another one where spans are missing.
func ofTree(q string) bool {
	return strings.Contains(q, "nestedSet") || strings.Contains(q, "childCount")
}

type differential struct {
	tempo, braid            server
	base                    time.Time
	spans, compared, differ int
	asked                   map[string]bool
	t                       *testing.T
	conns                   map[string]*grpc.ClientConn // by address
}

// settle waits until all spans are found.
func (d *differential) settle(t *testing.T, s server, tenant string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(d.found(t, s, tenant, "{}").rows) == traceCount }, 90*time.Second, time.Second)
}

// overGRPC ends what is said of a query that is asked over gRPC, in messages.
const overGRPC = " over gRPC"

// same counts a comparison, and reports where it fails.
func (d *differential) same(t *testing.T, q string, want, got answer, equal func(want, got string) bool) {
	t.Helper()
	if d.asked == nil {
		d.asked = make(map[string]bool)
	}
	d.asked[strings.TrimSuffix(q, overGRPC)] = true
	d.compared++
	if want.err != "" && got.err != "" || want.err == "" && got.err == "" && maps.EqualFunc(want.rows, got.rows, equal) {
		return
	}
	d.differ++
	var out strings.Builder
	shown := 0
	for _, k := range slices.Sorted(maps.Keys(want.rows)) {
		if g, ok := got.rows[k]; (!ok || !equal(want.rows[k], g)) && shown < 3 {
			at := 0
			for at < min(len(g), len(want.rows[k])) && g[at] == want.rows[k][at] {
				at++
			}
			at = max(at-100, 0)
			fmt.Fprintf(&out, "\n%s\n  Tempo: %.300s\n  Braid: %.300s", k, want.rows[k][at:], g[min(at, len(g)):])
			shown++
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got.rows)) {
		if _, ok := want.rows[k]; !ok && shown < 5 {
			fmt.Fprintf(&out, "\n%s\n  Tempo: -\n  Braid: %.300s", k, got.rows[k])
			shown++
		}
	}
	t.Errorf("%s\nTempo has %d (%s), Braid %d (%s)%s", q, len(want.rows), want.err, len(got.rows), got.err, out.String())
}

// answer is what a server says, by trace or series.
type answer struct {
	err  string
	rows map[string]string
}

type attr struct {
	Key   string
	Value map[string]any
}

type attrs []attr

// String writes attributes sorted, those with equal texts once.
func (as attrs) String() string {
	var out []string
	for _, a := range as {
		out = append(out, fmt.Sprintf("%s=%v", a.Key, a.Value))
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

// searchResult is the answer to a search, of the parts that are compared.
type searchResult struct{ Traces []foundTrace }

type foundTrace struct {
	TraceID, RootServiceName, RootTraceName, StartTimeUnixNano string
	DurationMs                                                 int
	SpanSets                                                   []foundSet
	ServiceStats                                               map[string]serviceStats
}

type foundSet struct {
	Matched    int
	Attributes attrs
	Spans      []foundSpan
}

type foundSpan struct {
	SpanID, Name, StartTimeUnixNano, DurationNanos string
	Attributes                                     attrs
}

type serviceStats struct{ SpanCount, ErrorCount int }

// found searches over HTTP.
func (d *differential) found(t *testing.T, s server, tenant, q string) answer {
	t.Helper()
	var res searchResult
	params := url.Values{"q": {q}, "limit": {"1000"}, "spss": {"100"}, "start": {d.seconds(-60)}, "end": {d.seconds(90)}}
	if text := s.json(t, tenant, "/api/search", params, &res); text != "" {
		return answer{err: text}
	}
	return res.answer(q)
}

func (res *searchResult) answer(q string) answer {
	a := answer{rows: make(map[string]string)}
	for _, tr := range res.Traces {
		var sets, shown []string
		for _, set := range tr.SpanSets {
			var spans []string
			for _, sp := range set.Spans {
				spans = append(spans, fmt.Sprintf("%s %s %s", sp.SpanID, sp.StartTimeUnixNano, sp.DurationNanos))
				for _, a := range sp.Attributes {
					if !severalValues(q, a.Key) && a.Value["stringValue"] != "nil" {
						shown = append(shown, fmt.Sprintf("%s %s=%v", sp.SpanID, a.Key, a.Value))
					}
				}
			}
			slices.Sort(spans)
			sets = append(sets, fmt.Sprintf("%d {%s} %v", set.Matched, set.Attributes, spans))
		}
		slices.Sort(sets)
		slices.Sort(shown)
		a.rows[strings.TrimLeft(tr.TraceID, "0")] = fmt.Sprintf("%s %s %s %d %v\n%s\nshown:\n%s", tr.RootServiceName, tr.RootTraceName, tr.StartTimeUnixNano,
			tr.DurationMs, tr.ServiceStats, strings.Join(sets, "\n"), strings.Join(slices.Compact(shown), "\n"))
	}
	return a
}

func (d *differential) seconds(after int) string {
	return strconv.FormatInt(d.base.Unix()+int64(after), 10)
}

func (d *differential) search(t *testing.T, tenant, q string) {
	t.Helper()
	d.same(t, q, d.found(t, d.tempo, tenant, q), d.found(t, d.braid, tenant, q), sameTrace)
	d.same(t, q+overGRPC, d.streamed(t, d.tempo, tenant, q), d.streamed(t, d.braid, tenant, q), sameTrace)
}

// sameTrace compares what two found of a trace. Of the fields that a query names Tempo shows those that it read to answer it,
// Braid all that the span has.
func sameTrace(want, got string) bool {
	found, fields, _ := strings.Cut(want, "\nshown:\n")
	ourFound, ours, _ := strings.Cut(got, "\nshown:\n")
	return found == ourFound && (fields == "" || !slices.ContainsFunc(strings.Split(fields, "\n"), func(f string) bool {
		return !slices.Contains(strings.Split(ours, "\n"), f)
	}))
}

// severalValues says whether a span can have several values of what is shown as key, of which Tempo shows some.
func severalValues(q, key string) bool {
	switch key {
	case "tags", "numbers", "message", "attempt", "why", "event:name", "event:timeSinceStart", "link:traceID", "link:spanID":
		return true
	case "foo":
		return strings.Contains(q, " .foo")
	default:
		return false
	}
}

// traces compares traces by their ID, span by span.
func (d *differential) traces(t *testing.T) {
	read := func(s server, tenant string) answer {
		a := answer{rows: make(map[string]string)}
		for n := range traceCount {
			id := traceID(n).String()
			code, _, body := s.get(t, tenant, "/api/v2/traces/"+id, nil, "application/protobuf")
			require.Equal(t, 200, code, "%s", body)
			f, _, err := wire.Next(string(body))
			require.NoError(t, err)
			td, err := new(ptrace.ProtoUnmarshaler).UnmarshalTraces([]byte(f.S))
			require.NoError(t, err)
			var spans []string
			for _, rs := range td.ResourceSpans().All() {
				for _, ss := range rs.ScopeSpans().All() {
					for _, sp := range ss.Spans().All() {
						one := ptrace.NewTraces()
						r := one.ResourceSpans().AppendEmpty()
						rs.Resource().CopyTo(r.Resource())
						s := r.ScopeSpans().AppendEmpty()
						ss.Scope().CopyTo(s.Scope())
						sp.CopyTo(s.Spans().AppendEmpty())
						spans = append(spans, fmt.Sprintf("%s %v %v %v %v", sp.SpanID(), r.Resource().Attributes().AsRaw(), s.Scope().Attributes().AsRaw(), spanText(sp), s.Scope().Name()+s.Scope().Version()))
					}
				}
			}
			slices.Sort(spans)
			a.rows[id] = strings.Join(spans, "\n")
		}
		return a
	}
	for _, tenant := range []string{whole, broken} {
		d.same(t, "all traces of "+tenant, read(d.tempo, tenant), read(d.braid, tenant), func(want, got string) bool { return want == got })
	}
}

func spanText(sp ptrace.Span) string {
	var out []string
	for _, e := range sp.Events().All() {
		out = append(out, fmt.Sprint(e.Name(), e.Timestamp(), e.Attributes().AsRaw()))
	}
	for _, l := range sp.Links().All() {
		out = append(out, fmt.Sprint(l.TraceID(), l.SpanID(), l.Attributes().AsRaw()))
	}
	return fmt.Sprint(sp.ParentSpanID(), sp.Name(), sp.Kind(), sp.StartTimestamp(), sp.EndTimestamp(), sp.Status().Code(), sp.Status().Message(), sp.Attributes().AsRaw(), out)
}

type series struct {
	Labels  attrs
	Value   float64
	Samples []sample
}

type sample struct {
	TimestampMs string
	Value       float64
}

// named writes the labels of a series. Among several Tempo leaves out those that are nil; of compare it shows some values that
// Braid counts otherwise, and among equally frequent ones others: those of attributes with few values are compared.
func (s *series) named(q string) (string, bool) {
	labels := s.Labels
	if strings.Contains(q, "compare(") {
		few := func(key string) bool { return slices.Contains([]string{"name", "kind", "span.code", "span.foo"}, key) }
		of := func(kind any) bool { return kind == "baseline" || kind == "selection" }
		ok := len(labels) == 2
		for _, l := range labels {
			v := l.Value["stringValue"]
			ok = ok && v != "nil" && (few(l.Key) || l.Key == "__meta_type" && of(v))
		}
		return labels.String(), ok
	}
	if len(labels) > 1 {
		labels = slices.DeleteFunc(slices.Clone(labels), func(l attr) bool { return l.Value["stringValue"] == "nil" })
	}
	return labels.String(), true
}

// instant compares queries for one number a series.
func (d *differential) instant(t *testing.T, tenant, q string) {
	t.Helper()
	read := func(s server) answer {
		var res struct{ Series []series }
		a := answer{rows: make(map[string]string)}
		a.err = s.json(t, tenant, "/api/metrics/query", url.Values{"q": {q}, "start": {d.seconds(-10)}, "end": {d.seconds(90)}}, &res)
		for _, s := range res.Series {
			if name, ok := s.named(q); ok {
				a.rows[name] = number(s.Value)
			}
		}
		return a
	}
	d.same(t, q, read(d.tempo), read(d.braid), near(q))
}

// timeSeries compares queries over time. A point that one does not have and the other has as 0 is the same.
func (d *differential) timeSeries(t *testing.T, tenant, q string) {
	t.Helper()
	read := func(s server) answer {
		var res struct{ Series []series }
		a := answer{}
		a.err = s.json(t, tenant, "/api/metrics/query_range", url.Values{"q": {q}, "start": {d.seconds(-10)}, "end": {d.seconds(90)}, "step": {"10s"}, "exemplars": {"0"}}, &res)
		a.rows = points(q, res.Series)
		return a
	}
	d.same(t, q, read(d.tempo), read(d.braid), near(q))
	d.same(t, q+overGRPC, d.streamedSeries(t, d.tempo, tenant, q), d.streamedSeries(t, d.braid, tenant, q), near(q))
}

// points returns the points that are not 0.
func points(q string, list []series) map[string]string {
	out := make(map[string]string)
	for _, s := range list {
		name, ok := s.named(q)
		for _, p := range s.Samples {
			if ok && p.Value != 0 {
				out[name+"@"+p.TimestampMs] = number(p.Value)
			}
		}
	}
	return out
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 9, 64) }

// near compares numbers: quantiles of Tempo lie between two powers of two.
func near(q string) func(want, got string) bool {
	return func(want, got string) bool {
		x, err := strconv.ParseFloat(want, 64)
		y, bad := strconv.ParseFloat(got, 64)
		if err != nil || bad != nil {
			return false
		}
		if strings.Contains(q, "quantile") {
			return y <= 2*x && x <= 2*y
		}
		return math.Abs(x-y) <= 1e-8*max(math.Abs(x), math.Abs(y))
	}
}

// tags compares which attributes there are, and their values.
func (d *differential) tags(t *testing.T) {
	equal := func(want, got string) bool { return want == got }
	both := url.Values{"start": {d.seconds(-60)}, "end": {d.seconds(90)}}
	names := func(s server, params url.Values) answer {
		var res struct {
			Scopes []struct {
				Name string
				Tags []string
			}
		}
		a := answer{rows: make(map[string]string)}
		a.err = s.json(t, whole, "/api/v2/search/tags", params, &res)
		for _, sc := range res.Scopes {
			slices.Sort(sc.Tags)
			if sc.Name != "intrinsic" && len(sc.Tags) > 0 {
				a.rows[sc.Name] = strings.Join(sc.Tags, ",")
			}
		}
		return a
	}
	for _, scope := range []string{"", "span", "resource", "event", "link", "instrumentation"} {
		p := maps.Clone(both)
		p.Set("scope", scope)
		d.same(t, "tags "+scope, names(d.tempo, p), names(d.braid, p), equal)
	}
	values := func(s server, tag, q string) answer {
		var res struct {
			TagValues []struct{ Type, Value string }
		}
		a := answer{rows: make(map[string]string)}
		p := maps.Clone(both)
		if q != "" {
			p.Set("q", q)
		}
		a.err = s.json(t, whole, "/api/v2/search/tag/"+url.PathEscape(tag)+"/values", p, &res)
		for _, v := range res.TagValues {
			a.rows[v.Type+" "+v.Value] = ""
		}
		return a
	}
	for _, tag := range []string{
		"span.foo", "span.code", "span.hit", "span.load", "span.code.text", "resource.service.name", "resource.region", "resource.replica", ".foo", "event.message",
		"event.attempt", "link.why", "instrumentation.lib", "name", "status", "kind", "statusMessage", "rootName", "rootServiceName", "instrumentation:name", "event:name", "span.nope",
	} {
		for _, q := range []string{"", `{ resource.service.name = "cart" }`, `{ status = error && span.foo = "bar" }`} {
			if q != "" && strings.Index(tag, ".") <= 0 {
				continue // Tempo tells of values that no such span has, or not of all
			}
			d.same(t, "values "+tag+" "+q, values(d.tempo, tag, q), values(d.braid, tag, q), equal)
		}
	}
}
