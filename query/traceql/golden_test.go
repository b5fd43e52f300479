package traceql_test

import (
	"encoding/hex"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/internal/testkit/script"
	"github.com/braidobs/braid/query/traceql"
	"github.com/braidobs/braid/storage"
)

// rewrite makes TestGolden write what it finds into the files:
//
//	go test ./query/traceql -run TestGolden -rewrite
var rewrite = flag.Bool("rewrite", false, "write the results into testdata")

// base is time 0 of the files.
var base = time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC)

// TestGolden runs the scripts of testdata. Times are durations behind a base. Each line of a query is a query of its own.
//
//	load                                spans: see loadSpan
//	search from=0s to=1h limit=20       queries for traces; shows the IDs of the spans of each set. show=all shows all
//	                                    there is; spss=3 is how many spans; page=2 pages with a cursor
//	metrics from=0s to=1m step=30s      queries for numbers; without a step for one number; exemplars=10
//	format                              queries
//	values filter={...}                 fields, whose values are shown; limit=2
//	tags scope=span                     filters, for each the attributes that spans have
//	clear                               forgets what was loaded
//
// All of it is run once more with little blocks and without what the store may leave out.
func TestGolden(t *testing.T) {
	script.Run(t, "testdata/*.txt", *rewrite, func(t *testing.T) []script.Command {
		t.Helper()
		return []script.Command{
			commands(t, func(v storage.View) storage.View { return v }),
			commands(t, func(v storage.View) storage.View { return strict{v} }),
		}
	})
}

// commands runs commands over what wrap makes of views.
func commands(t *testing.T, wrap func(storage.View) storage.View) script.Command {
	t.Helper()
	store := testkit.NewStore("")
	return func(cmd, args string, body []string) string {
		switch cmd {
		case "clear":
			store = testkit.NewStore("")
			return ""
		case "load":
			for _, line := range body {
				_, _, err := store.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{loadSpan(t, line)}})
				require.NoError(t, err)
			}
			return ""
		}
		opts := map[string]string{"from": "0s", "to": "1h", "limit": "20", "spss": "20"}
		for f := range strings.FieldsSeq(args) {
			k, v, _ := strings.Cut(f, "=")
			opts[k] = v
		}
		v, err := store.View(t.Context(), 0)
		require.NoError(t, err)
		var answers strings.Builder
		for _, q := range body {
			if len(body) > 1 && cmd != "format" {
				answers.WriteString("> " + q + "\n")
			}
			if r := answer(t, wrap(v), cmd, q, opts); r != "" {
				answers.WriteString(strings.TrimRight(r, "\n") + "\n")
			}
		}
		require.NoError(t, v.Close())
		return answers.String()
	}
}

// loadSpan reads a span: the IDs of trace, span and parent (- for none), and then
//
//	name=a service=shop kind=server status=error message=m at=1s for=10ms scope=lib scope.k=1
//	span.k=1 resource.k=text event=name@1ms event.k=true link=trace/span link.k=1.5
//
// Values are numbers, true, false, texts or [1,a]; attributes of events and links are those of the last one.
func loadSpan(t *testing.T, line string) telemetry.Batch {
	t.Helper()
	f := strings.Fields(line)
	require.GreaterOrEqual(t, len(f), 3, line)
	var err error
	s := telemetry.Span{SpanID: spanID(t, f[1])}
	s.TraceID, err = telemetry.ParseTraceID(f[0])
	require.NoError(t, err)
	if f[2] != "-" {
		s.ParentID = spanID(t, f[2])
	}
	var attrs, resource, scope []telemetry.Attr
	at, length := time.Duration(0), 10*time.Millisecond
	for _, pair := range f[3:] {
		k, v, ok := strings.Cut(pair, "=")
		require.True(t, ok, line)
		place, key, _ := strings.Cut(k, ".")
		a := telemetry.Attr{Key: key, Value: value(v)}
		switch place {
		case "name":
			s.Name = v
		case "service":
			resource = append(resource, telemetry.Attr{Key: "service.name", Value: telemetry.String(v)})
		case "kind":
			for k := telemetry.SpanKindUnspecified; k <= telemetry.SpanKindConsumer; k++ {
				if k.String() == v {
					s.Kind = k
				}
			}
		case "status":
			s.Status = map[string]telemetry.StatusCode{"ok": telemetry.StatusOK, "error": telemetry.StatusError}[v]
		case "message":
			s.StatusMessage = v
		case "at":
			at, err = time.ParseDuration(v)
			require.NoError(t, err)
		case "for":
			length, err = time.ParseDuration(v)
			require.NoError(t, err)
		case "scope":
			if s.Scope == nil {
				s.Scope = &telemetry.Scope{}
			}
			if key == "" {
				s.Scope.Name, s.Scope.Version, _ = strings.Cut(v, "/")
			} else {
				scope = append(scope, a)
			}
		case "span":
			attrs = append(attrs, a)
		case "resource":
			resource = append(resource, a)
		case "event":
			if key == "" {
				name, off, _ := strings.Cut(v, "@")
				d, err := time.ParseDuration(off)
				require.NoError(t, err)
				s.Events = append(s.Events, telemetry.Event{Name: name, Time: base.Add(at + d).UnixNano()})
			} else {
				e := &s.Events[len(s.Events)-1]
				e.Attrs = telemetry.NewAttrs(append(e.Attrs, a))
			}
		case "link":
			if key == "" {
				tr, sp, _ := strings.Cut(v, "/")
				l := telemetry.Link{SpanID: spanID(t, sp)}
				l.TraceID, err = telemetry.ParseTraceID(tr)
				require.NoError(t, err)
				s.Links = append(s.Links, l)
			} else {
				l := &s.Links[len(s.Links)-1]
				l.Attrs = telemetry.NewAttrs(append(l.Attrs, a))
			}
		default:
			require.Fail(t, "unknown key", pair)
		}
	}
	s.Start = base.Add(at).UnixNano()
	s.End = s.Start + int64(length)
	s.Attrs = telemetry.NewAttrs(attrs)
	if s.Scope != nil {
		s.Scope.Attrs = telemetry.NewAttrs(scope)
	}
	return telemetry.Batch{
		Tenant: telemetry.DefaultTenant, Resource: telemetry.NewResource("", telemetry.NewAttrs(resource)), Spans: []telemetry.Span{s},
	}
}

func spanID(t *testing.T, s string) (id telemetry.SpanID) {
	t.Helper()
	_, err := hex.Decode(id[:], []byte(strings.Repeat("0", 16-len(s))+s))
	require.NoError(t, err)
	return id
}

func value(s string) telemetry.Value {
	if in, ok := strings.CutPrefix(s, "["); ok {
		var vs []telemetry.Value
		for e := range strings.SplitSeq(strings.TrimSuffix(in, "]"), ",") {
			vs = append(vs, value(e))
		}
		return telemetry.Array(vs)
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return telemetry.Int(n)
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return telemetry.Double(f)
	}
	switch s {
	case "true", "false":
		return telemetry.Bool(s == "true")
	}
	if u, err := strconv.Unquote(s); err == nil {
		s = u
	}
	return telemetry.String(s)
}

func when(t *testing.T, s string) int64 {
	t.Helper()
	d, err := time.ParseDuration(s)
	require.NoError(t, err)
	return base.Add(d).UnixNano()
}

func number(t *testing.T, s string) int {
	t.Helper()
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

func answer(t *testing.T, v storage.View, cmd, query string, opts map[string]string) string {
	t.Helper()
	var out string
	var err error
	start, end := when(t, opts["from"]), when(t, opts["to"])
	eng := traceql.Engine{Limits: traceql.DefaultLimits()}
	switch cmd {
	case "values":
		out, err = values(t, &eng, v, query, opts, start, end)
	case "tags":
		var f *traceql.Filter
		if query != "all" {
			f = traceql.ParseFilter(query)
		}
		var tags []traceql.Tags
		tags, _, err = eng.Tags(t.Context(), v, traceql.TagsQuery{Tenant: telemetry.DefaultTenant, Start: start, End: end, Scope: opts["scope"], Filter: f})
		var lines []string
		for _, s := range tags {
			lines = append(lines, s.Scope+": "+strings.Join(s.Names, " "))
		}
		out = strings.Join(lines, "\n")
	default:
		var q *traceql.Query
		if q, err = traceql.Parse(query); err != nil {
			break
		}
		switch cmd {
		case "format":
			out = q.String()
		case "search":
			out, err = search(t, &eng, v, q, opts, start, end)
		case "metrics":
			out, err = metrics(t, &eng, v, q, opts, start, end)
		default:
			require.Fail(t, "unknown command", cmd)
		}
	}
	if err != nil {
		return "error: " + err.Error()
	}
	return out
}

func values(t *testing.T, eng *traceql.Engine, v storage.View, field string, opts map[string]string, start, end int64) (string, error) {
	t.Helper()
	f, err := traceql.ParseField(field)
	if err != nil {
		return "", err
	}
	q := traceql.ValuesQuery{Tenant: telemetry.DefaultTenant, Start: start, End: end, Field: f, Limit: number(t, opts["limit"])}
	if s := opts["filter"]; s != "" {
		q.Filter = traceql.ParseFilter(s)
	}
	res, err := eng.Values(t.Context(), v, q)
	if err != nil {
		return "", err
	}
	var out []string
	for _, v := range res.Values {
		out = append(out, v.Type.String()+":"+v.Text())
	}
	if !res.Complete {
		out = append(out, "and more")
	}
	return strings.Join(out, " "), nil
}

func search(t *testing.T, eng *traceql.Engine, v storage.View, query *traceql.Query, opts map[string]string, start, end int64) (string, error) {
	t.Helper()
	q := traceql.SearchQuery{
		Tenant: telemetry.DefaultTenant, Query: query, Start: start, End: end, Limit: number(t, opts["limit"]), Spans: number(t, opts["spss"]),
	}
	var b strings.Builder
	for {
		if p := opts["page"]; p != "" {
			q.Limit = number(t, p)
		}
		res, err := eng.Search(t.Context(), v, q)
		if err != nil {
			return "", err
		}
		for _, tr := range res.Traces {
			b.WriteString(strings.TrimLeft(tr.ID.String(), "0"))
			if opts["show"] == "all" {
				fmt.Fprintf(&b, " %q %q at=%s for=%s %v\n", tr.RootService, tr.RootName, time.Duration(tr.Start-base.UnixNano()), time.Duration(tr.Duration), tr.Services)
			}
			for _, set := range tr.Sets {
				b.WriteString(showSet(set, opts["show"] == "all"))
			}
			b.WriteString("\n")
		}
		if q.After = res.Next; q.After == nil || opts["page"] == "" {
			if res.Next != nil {
				b.WriteString("and more\n")
			}
			return b.String(), nil
		}
		again, err := traceql.ParseCursor(res.Next.String())
		require.NoError(t, err)
		q.After = again
		b.WriteString("-\n")
	}
}

func showSet(set traceql.SpanSet, all bool) string {
	var b strings.Builder
	b.WriteString(" [")
	if all {
		fmt.Fprintf(&b, "%d%s:", set.Matched, attrs(set.Attrs))
	}
	for i, s := range set.Spans {
		if all {
			fmt.Fprintf(&b, "\n   %s %q at=%s for=%s%s", strings.TrimLeft(s.ID.String(), "0"), s.Name, time.Duration(s.Start-base.UnixNano()), time.Duration(s.Duration), attrs(s.Attrs))
			continue
		}
		if i > 0 {
			b.WriteString(" ")
		}
		b.WriteString(strings.TrimLeft(s.ID.String(), "0"))
	}
	return b.String() + "]"
}

func attrs(as []traceql.Attr) string {
	var out strings.Builder
	for _, a := range as {
		out.WriteString(" " + a.Key + "=" + a.Value.Text())
	}
	return out.String()
}

func metrics(t *testing.T, eng *traceql.Engine, v storage.View, query *traceql.Query, opts map[string]string, start, end int64) (string, error) {
	t.Helper()
	q := traceql.MetricsQuery{Tenant: telemetry.DefaultTenant, Query: query, Start: start, End: end, Exemplars: number(t, opts["exemplars"])}
	if s := opts["step"]; s != "" {
		d, err := time.ParseDuration(s)
		require.NoError(t, err)
		q.Step = int64(d)
	}
	res, err := eng.Metrics(t.Context(), v, q)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, s := range res.Series {
		b.WriteString("{" + strings.TrimSpace(attrs(s.Labels)) + "}")
		for _, p := range s.Points {
			text := strconv.FormatFloat(p.Value, 'g', 10, 64)
			if q.Step > 0 {
				text += "@" + time.Duration(p.Time-base.UnixNano()).String()
			}
			b.WriteString(" " + text)
		}
		for _, e := range s.Exemplars {
			fmt.Fprintf(&b, " #%s=%s@%s", strings.TrimLeft(e.Trace.String(), "0"), strconv.FormatFloat(e.Value, 'g', 10, 64), time.Duration(e.Time-base.UnixNano()))
		}
		b.WriteString("\n")
	}
	return b.String(), nil
}
