package logql_test

import (
	"context"
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
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

// rewrite makes TestGolden write what it finds into the files:
//
//	go test ./query/logql -run TestGolden -rewrite
var rewrite = flag.Bool("rewrite", false, "write the results into testdata")

// base is time 0 of the files.
var base = time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC)

// TestGolden runs the scripts of testdata. Times are seconds or durations behind a base.
//
//	load {app="a"} key=value ...    lines: a time, a blank and the text, quoted or as it is; the pairs are attributes,
//	                                severity=9, trace_id=... and resource.key=value are what they say
//	lines from=0s to=1h limit=10    a query; newest is another option, page=2 pages with a cursor
//	metric at=60s                   a query at a time, or with from, to and step over a range
//	format                          a query
//	clear                           forgets what was loaded
func TestGolden(t *testing.T) {
	script.Run(t, "testdata/*.txt", *rewrite, func(t *testing.T) []script.Command {
		t.Helper()
		store := testkit.NewStore("")
		return []script.Command{func(cmd, args string, body []string) string {
			switch cmd {
			case "clear":
				store = testkit.NewStore("")
			case "load":
				load(t, store, args, body)
			default:
				return answer(t, store, cmd, args, strings.Join(body, "\n"))
			}
			return ""
		}}
	})
}

func load(t *testing.T, store *testkit.Store, args string, body []string) {
	t.Helper()
	end := strings.Index(args, "}") + 1
	ms, err := logql.ParseSelector(args[:end])
	require.NoError(t, err, args)
	var ls []logql.Label
	for _, m := range ms {
		ls = append(ls, logql.Label{Name: m.Name, Value: m.Value})
	}
	pipeline.SortLabels(ls)
	b := telemetry.Batch{Tenant: telemetry.DefaultTenant, Stream: telemetry.LabelSet(pipeline.EncodeLabels(nil, ls))}
	rec := telemetry.LogRecord{}
	var attrs, resource []telemetry.Attr
	for f := range strings.FieldsSeq(args[end:]) {
		k, v, _ := strings.Cut(f, "=")
		switch {
		case k == "severity":
			n, err := strconv.Atoi(v)
			require.NoError(t, err)
			rec.Severity = uint8(n)
		case k == "trace_id":
			rec.TraceID, err = telemetry.ParseTraceID(v)
			require.NoError(t, err)
		case strings.HasPrefix(k, "resource."):
			resource = append(resource, telemetry.Attr{Key: k[len("resource."):], Value: telemetry.String(v)})
		default:
			attrs = append(attrs, telemetry.Attr{Key: k, Value: telemetry.String(v)})
		}
	}
	rec.Attrs = telemetry.NewAttrs(attrs)
	if resource != nil {
		b.Resource = telemetry.NewResource("", telemetry.NewAttrs(resource))
	}
	for _, line := range body {
		at, text, _ := strings.Cut(line, " ")
		if s, err := strconv.Unquote(text); err == nil {
			text = s
		}
		r := rec
		r.Time, r.Body = when(t, at), telemetry.String(text)
		b.Logs = append(b.Logs, r)
	}
	_, _, err = store.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
	require.NoError(t, err)
}

func when(t *testing.T, s string) int64 {
	t.Helper()
	if _, err := strconv.Atoi(s); err == nil {
		s += "s"
	}
	d, err := syntax.ParseDuration(s)
	require.NoError(t, err, s)
	return base.Add(d).UnixNano()
}

func answer(t *testing.T, store storage.Reader, cmd, args, query string) string {
	t.Helper()
	e, err := logql.Parse(query)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	opts := map[string]string{"from": "0s", "to": "1h", "limit": "0", "at": "1m"}
	for f := range strings.FieldsSeq(args) {
		k, v, _ := strings.Cut(f, "=")
		opts[k] = v
	}
	v, err := store.View(t.Context(), 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, v.Close()) }()
	eng := logql.Engine{Limits: logql.DefaultLimits(), Now: func() time.Time { return base }}
	var out string
	switch cmd {
	case "format":
		out = logql.Format(e) + "\n"
	case "lines":
		out, err = lines(t, &eng, v, e, opts)
	case "metric":
		out, err = metric(t, &eng, v, e, opts)
	default:
		require.Fail(t, "unknown command", cmd)
	}
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	return out
}

func lines(t *testing.T, eng *logql.Engine, v storage.View, e logql.Expr, opts map[string]string) (string, error) {
	t.Helper()
	limit, err := strconv.Atoi(opts["limit"])
	require.NoError(t, err)
	_, newest := opts["newest"]
	q := logql.LinesQuery{
		Tenant: telemetry.DefaultTenant, Expr: e, Start: when(t, opts["from"]), End: when(t, opts["to"]), Newest: newest, Limit: limit,
	}
	var b strings.Builder
	for {
		if p := opts["page"]; p != "" {
			q.Limit, err = strconv.Atoi(p)
			require.NoError(t, err)
		}
		res, err := eng.Lines(context.Background(), v, q)
		if err != nil {
			return "", err
		}
		for _, en := range res.Entries {
			fmt.Fprintf(&b, "%s %s %s %s %s\n", syntax.FormatDuration(time.Duration(en.Time-base.UnixNano())), braces(pipeline.AppendLabels(nil, en.Stream)),
				braces(en.Structured), braces(en.Parsed), strconv.Quote(en.Line))
		}
		if q.After = res.Next; q.After == nil || opts["page"] == "" {
			return b.String(), nil
		}
		b.WriteString("-\n")
	}
}

func metric(t *testing.T, eng *logql.Engine, v storage.View, e logql.Expr, opts map[string]string) (string, error) {
	t.Helper()
	q := logql.MetricQuery{Tenant: telemetry.DefaultTenant, Expr: e, End: when(t, opts["at"])}
	if s := opts["step"]; s != "" {
		var err error
		q.Step, err = syntax.ParseDuration(s)
		require.NoError(t, err)
		q.Start, q.End = when(t, opts["from"]), when(t, opts["to"])
	}
	m, err := eng.Metric(context.Background(), v, q)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, s := range m.Series {
		if m.Scalar {
			b.WriteString("scalar")
		} else {
			b.WriteString(braces(pipeline.AppendLabels(nil, s.Labels)))
		}
		for _, p := range s.Points {
			value := strconv.FormatFloat(p.Value, 'g', 10, 64)
			if q.Step > 0 {
				fmt.Fprintf(&b, " %s@%s", value, syntax.FormatDuration(time.Duration(p.Time-base.UnixNano())))
			} else {
				b.WriteString(" " + value)
			}
		}
		b.WriteString("\n")
	}
	return b.String(), nil
}

// braces writes labels the short way.
func braces(ls []logql.Label) string {
	out := make([]string, len(ls))
	for i, l := range ls {
		out[i] = l.Name + "=" + syntax.Quote(l.Value)
	}
	return "{" + strings.Join(out, ", ") + "}"
}
