package loki_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/api/loki"
	"github.com/braidobs/braid/storage"
)

// observed returns the API with its metrics.
func observed(t *testing.T, r storage.Reader) (http.Handler, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	clock := now
	loki.New(loki.Deps{
		Config: loki.DefaultConfig(), Reader: r, Now: clock, Observer: query.NewObserver(slog.New(slog.DiscardHandler), reg, clock),
	}).Register(rt)
	return rt, reg
}

// Queries over a limit and hostile ones have a clear error, in bounded time and memory.
func TestLimits(t *testing.T) {
	s := testkit.NewStore("")
	b := telemetry.Batch{Tenant: tenant, Stream: set("app", "a")}
	for i := range 600 {
		b.Logs = append(b.Logs, line(int64(1000+i), "n="+strconv.Itoa(i)+" "+strings.Repeat("ab", 50)))
	}
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
	require.NoError(t, err)
	h, reg := observed(t, s)
	const sel = `{app="a"} `
	template := func(s string) string { return sel + "| line_format `" + s + "`" }
	for name, tt := range map[string]struct {
		query string
		more  string
		code  int
		want  string
	}{
		"lines":                 {query: sel, more: "&limit=5001", code: 400, want: "limit 5001 is over loki.max_lines (5000): ask for less"},
		"series":                {query: `count_over_time({app="a"} | logfmt [1s])`, code: 422, want: "the result has 600 series, the limit is 500: sum by"},
		"steps":                 {query: `rate({app="a"}[1s])`, more: "&start=0&end=200000&step=1", code: 400, want: "steps, the limit is 11000: ask for a larger step"},
		"length":                {query: `{app="` + strings.Repeat("x", 200_000) + `"}`, code: 400, want: "longer than 131072 bytes"},
		"length of a regex":     {query: sel + `|~ "` + strings.Repeat("x", 9000) + `"`, code: 400, want: "line 1, col 14: the regular expression is longer than 8192 bytes"},
		"size of a regex":       {query: sel + `|~ "` + strings.Repeat("x{1000}", 1000) + `"`, code: 400, want: "line 1, col 14: the regular expressions come to more than 100000 characters"},
		"size of a matcher":     {query: `{app=~"` + strings.Repeat("x{1000}", 1000) + `"}`, code: 400, want: "line 1, col 7: the regular expressions come to more than 100000 characters"},
		"bad regex":             {query: sel + `|~ "a("`, code: 400, want: "line 1, col 14: error parsing regexp: missing closing )"},
		"bad template":          {query: template("{{.a"), code: 400, want: "line 1, col 25: line:1: unclosed action"},
		"unknown function":      {query: template("{{exec 1}}"), code: 400, want: `line 1, col 25: line:1: function "exec" not defined`},
		"loop":                  {query: template("{{range $i := 1000000000}}x{{end}}"), code: 422, want: "at line 1, col 25: it makes more than 50000 steps for one line"},
		"recursion":             {query: template(`{{define "a"}}{{template "a"}}{{end}}{{template "a"}}`), code: 422, want: "more than 50000 steps"},
		"recursion that forks":  {query: template(`{{define "a"}}{{template "a"}}{{template "a"}}{{end}}{{template "a"}}`), code: 422, want: "more than 50000 steps"},
		"width":                 {query: template(`{{printf "%1000000000d" 1}}`), code: 422, want: "it makes a text of more than 4194304 bytes"},
		"widths":                {query: template(`{{printf "` + strings.Repeat("%1000000d", 5000) + `" 1}}`), code: 422, want: "it makes a text of more than 4194304 bytes"},
		"width of an argument":  {query: template(`{{printf "%*d%*d%*d%*d%*d" 999999 1 999999 1 999999 1 999999 1 999999 1}}`), code: 422, want: "it makes a text of more than 4194304 bytes"},
		"argument again":        {query: template(`{{$x := repeat 1000000 "x"}}{{printf "` + strings.Repeat("%[1]s", 5000) + `" $x}}`), code: 422, want: "it makes a text of more than 4194304 bytes"},
		"doubling":              {query: template(`{{$x := __line__}}{{range $i := 100}}{{$x = print $x $x}}{{end}}`), code: 422, want: "it makes a text of more than 4194304 bytes"},
		"doubling by escaping":  {query: template(`{{$x := "%"}}{{range $i := 100}}{{$x = urlencode $x}}{{$x = printf "%s%s" $x $x}}{{end}}`), code: 422, want: "it makes a text of more than 4194304 bytes"},
		"doubling dates":        {query: template(`{{$x := "1"}}{{range $i := 100}}{{$x = date $x (unixToTime "1700000000")}}{{end}}`), code: 422, want: "it makes a text of more than 4194304 bytes"},
		"output":                {query: template(`{{repeat 3000000 "x"}}`), code: 422, want: "it writes more than 1048576 bytes for one line"},
		"regex of a template":   {query: template(`{{range $i := 1000}}{{count "(a|b){900}c" __line__}}{{end}}`), code: 422, want: "more than 50000 steps"},
		"nesting":               {query: strings.Repeat("(", 1000) + "1" + strings.Repeat(")", 1000), code: 400, want: "nested deeper than 200"},
		"stages":                {query: sel + strings.Repeat("|= `x` ", 2001), code: 400, want: "more than 2000 stages"},
		"a filter too many ors": {query: sel + "|= `x`" + strings.Repeat(" or `x`", 3000), code: 400, want: "more than 2000 stages"},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			w := do(t.Context(), h, http.MethodPost, "query_range", "query="+url.QueryEscape(tt.query)+"&start=0&end=0.00001"+tt.more)
			if strings.Contains(tt.more, "start") {
				w = do(t.Context(), h, http.MethodPost, "query_range", "query="+url.QueryEscape(tt.query)+tt.more)
			}
			runtime.ReadMemStats(&after)
			require.Equal(t, tt.code, w.Code, w.Body.String())
			require.Contains(t, w.Body.String(), tt.want)
			require.Less(t, w.Body.Len(), 2000, "an error is short")
			require.Less(t, time.Since(began), 5*time.Second)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(256<<20))
		})
	}
	for name, q := range map[string]string{
		"filters": sel + strings.Repeat("|= `n=` ", 900),
		"value":   `{app="a", other!="` + strings.Repeat("x", 10_000) + `"}`,
		"name":    `{app="a"} | ` + strings.Repeat("x", 10_000) + `=""`,
		"regexes": sel + strings.Repeat("|~ `n=[0-9]+` ", 500),
	} {
		t.Run("works: "+name, func(t *testing.T) {
			w := do(t.Context(), h, http.MethodPost, "query_range", "query="+url.QueryEscape(q)+"&start=0&end=0.00001")
			require.Equal(t, http.StatusOK, w.Code, w.Body.String())
			require.Contains(t, w.Body.String(), "n=599")
		})
	}
	require.Subset(t, statuses(t, reg), []string{"query_limit", "bad_data", "success"})
}

// statuses returns how queries ended.
func statuses(t *testing.T, reg *prometheus.Registry) []string {
	t.Helper()
	fs, err := reg.Gather()
	require.NoError(t, err)
	var out []string
	for _, f := range fs {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "status" {
					out = append(out, l.GetValue())
				}
			}
		}
	}
	return out
}

// A request whose client went away or whose time is over is answered as such.
func TestEndedRequests(t *testing.T) {
	h, reg := observed(t, store(t))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, httpapi.StatusClientClosedRequest, do(gone, h, http.MethodGet, "query_range", `query={app="a"}`).Code)
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	w := do(late, h, http.MethodGet, "query_range", `query={app="a"}`)
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Contains(t, w.Body.String(), "the query took longer than 2m0s, which is the limit: narrow its time range")
	require.ElementsMatch(t, []string{"canceled", "timeout"}, statuses(t, reg))
}
