//go:build long

package loki

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

const lokiConfig = `auth_enabled: false
server: {http_listen_address: 127.0.0.1, http_listen_port: %[1]s, grpc_listen_address: 127.0.0.1, grpc_listen_port: 0, log_level: error}
frontend: {address: 127.0.0.1}
memberlist: {bind_addr: ["127.0.0.1"], bind_port: 0}
common:
  instance_addr: 127.0.0.1
  path_prefix: %[2]s
  replication_factor: 1
  ring: {instance_addr: 127.0.0.1, kvstore: {store: inmemory}}
  storage: {filesystem: {chunks_directory: %[2]s/chunks, rules_directory: %[2]s/rules}}
schema_config:
  configs: [{from: 2020-01-01, store: tsdb, object_store: filesystem, schema: v13, index: {prefix: i_, period: 24h}}]
limits_config: {allow_structured_metadata: true, volume_enabled: true, discover_log_levels: true, ingestion_rate_mb: 100, ingestion_burst_size_mb: 100}
querier: {query_ingesters_within: 0s}
ingester: {max_chunk_age: 100h, chunk_idle_period: 100h, lifecycler: {min_ready_duration: 0s}}
analytics: {reporting_enabled: false}
`

// startLoki starts the Loki that the environment variable LOKI names.
func startLoki(t *testing.T) *harness.Server {
	t.Helper()
	binary, dir := program(t, "LOKI"), t.TempDir()
	file := filepath.Join(dir, "loki.yaml")
	s, err := harness.StartProgram(t.Context(), harness.ProgramOptions{Binary: binary, Dir: dir, Ready: "/ready", Args: func(addr string) []string {
		_, port, _ := strings.Cut(addr, ":")
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, lokiConfig, port, filepath.Join(dir, "data")), 0o600))
		return []string{"-config.file=" + file}
	}})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	return s
}

// pushBody returns 600 lines in four streams over ten minutes from base: JSON, logfmt, access and plain lines, no two at
// the same time.
func pushBody(base time.Time) string {
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(s ...string) string { return s[rng.IntN(len(s))] }
	type stream struct {
		Stream map[string]string `json:"stream"`
		Values [][]any           `json:"values"`
	}
	streams := make([]stream, 4)
	for i, kind := range []string{"json", "logfmt", "access", "plain"} {
		streams[i].Stream = map[string]string{"kind": kind, "env": "prod", "service_name": "svc" + strconv.Itoa(i%2)}
	}
	for i := range 600 {
		status, path := pick("200", "204", "404", "500", "503"), "/"+pick("a", "b", "c/1", "c/2", "health")
		level, took := pick("info", "warn", "error"), strconv.Itoa(1+rng.IntN(900))
		ip := fmt.Sprintf("10.0.%d.%d", rng.IntN(2), 1+rng.IntN(20))
		var line string
		switch i % 4 {
		case 0:
			line = fmt.Sprintf(`{"level":"%s","status":%s,"path":"%s","took":"%sms","ms":%s.5,"client":{"ip":"%s","env":"x"},"tags":["a",1],"msg":"request \"done\""}`, level, status, path, took, took, ip)
			if rng.IntN(15) == 0 {
				line = pick(`{"level":"error","status":`, "not json", `{"status":"600","ms":"x"}`)
			}
		case 1:
			line = fmt.Sprintf(`level=%s status=%s path=%s took=%sms size=%sKB msg="request done" empty= user=u%d`, level, status, path, took, took, rng.IntN(5))
		case 2:
			line = fmt.Sprintf(`%s - - [x] "%s %s HTTP/1.1" %s %s`, ip, pick("GET", "POST"), path, status, took)
		default:
			line = pick("connection reset by peer", "timeout after "+took+"ms", "user u"+took+" logged in", "\x1b[31mred\x1b[0m alert", "")
		}
		meta := map[string]string{"pod": "p" + strconv.Itoa(i%3)}
		if i%4 == 0 && rng.IntN(4) == 0 {
			meta["path"] = "meta"
		}
		streams[i%4].Values = append(streams[i%4].Values, []any{strconv.FormatInt(base.Add(time.Duration(i)*time.Second+time.Duration(i)).UnixNano(), 10), line, meta})
	}
	b, _ := json.Marshal(map[string]any{"streams": streams})
	return string(b)
}

// differentialQueries returns queries for lines, at an instant, and over a range.
func differentialQueries() (lines, instant []string) {
	for _, f := range []string{
		``, ` |= "done"`, ` != "done"`, ` |~ "5\\d\\d"`, ` !~ "GET|POST"`, ` |= "GET" or "user"`, ` != "GET" or "user"`, ` |= ip("10.0.0.0/24")`, ` != ip("10.0.1.1-10.0.1.9")`,
		` |> "<_>status=5<_>"`, ` !> "<_>took=<_>"`, ` |~ "(?i)TIMEOUT"`, ` |= "timeout" |= "ms"`, ` | pod="p1"`, ` | pod!="p1" | kind="json"`, ` | decolorize`, ` |= ""`,
		` | line_format "{{.kind}}:{{__line__ | upper | trunc 12}}"`, ` | label_format k="{{.kind}}/{{.pod}}"`, ` | label_format x=pod`, ` | drop pod`, ` | keep kind`, ` | keep kind, pod="p1"`,
	} {
		lines = append(lines, `{env="prod"}`+f)
	}
	for _, f := range []string{
		``, ` | status=500`, ` | status>=500`, ` | status<300 | level="error"`, ` | level=~"err.+|warn"`, ` | took>500ms`, ` | took<=10ms or status=503`, ` | status>=500 and level!="info"`, ` | (status=404 or status=500), level="info"`,
		` | __error__=""`, ` | __error__!=""`, ` | nope="x"`, ` | nope=""`, ` | path="/a"`, ` | path_extracted="/a"`, ` | client_ip=ip("10.0.0.0/24")`, ` | client_ip!=ip("10.0.0.5")`, ` | ms>400.5 | __error__=""`,
		` | line_format "{{.status}} {{.path}}"`, ` | label_format s="{{.status}}0"`, ` | label_format status=level`, ` | drop level, status="500"`, ` | keep status, level`, ` | drop __error__, __error_details__`, ` |= "done"`, ` | msg=~".*done.*"`, ` | pod="p0" | status!=200`,
	} {
		lines = append(lines, `{kind="json"} | json`+f, `{kind="logfmt"} | logfmt`+f)
	}
	lines = append(lines,
		`{kind="json"} |= "request" | json s="status", ip="client.ip", t="tags[0]", c="client", n="nope"`, `{kind="json"} | json status, level | status="500"`, `{kind="json"} | json ["x"]`, `{kind="logfmt"} | logfmt --strict`, `{kind="logfmt"} | logfmt --keep-empty`,
		`{kind="logfmt"} | logfmt status, u="user"`, `{kind="access"} | logfmt --strict`, `{kind="plain"} | logfmt`, `{kind="plain"} | json`, `{kind="json"} | logfmt`, `{kind="logfmt"} | json`, `{kind="json"} | unpack`,
		`{kind="access"} | pattern "<ip> - - [<_>] \"<method> <path> <_>\" <status> <size>"`, `{kind="access"} | pattern "<ip> - - [<_>] \"<method> <path> <_>\" <status> <size>" | status>=500`, `{kind="access"} | pattern "<_> \"<method> <_>"`,
		`{kind="access"} | regexp "(?P<ip>\\S+).*\" (?P<status>\\d+) (?P<size>\\d+)"`, `{kind="access"} | regexp "(?P<method>GET|POST) (?P<path>\\S+)" | method="GET"`, `{kind="plain"} | regexp "user (?P<u>u\\d+)"`, `{kind="plain"} |= "u" | regexp "(?P<n>\\d+)" | n>500`,
		`{kind="logfmt"} | logfmt | size>500KB`, `{kind="logfmt"} | logfmt | size<=1MB and took>1ms`, `{kind="logfmt"} | logfmt | line_format "{{.msg}}" |= "done"`, `{kind="json"} | json | line_format "{{.msg}}" | logfmt`, `{kind="nope"}`, `{kind="json"`, `{kind="json"} | json |`, `{kind=~".*"}`,
	)
	rows := []string{
		`{env="prod"}`, `{env="prod"} |= "done"`, `{env="prod"} | pod="p1"`, `{kind="json"} | json | __error__=""`, `{kind="json"} | json | __error__="" | status>=500`, `{kind="logfmt"} | logfmt`, `{kind="logfmt"} | logfmt | level="error" | took>100ms`,
		`{kind="access"} | pattern "<ip> - - [<_>] \"<method> <path> <_>\" <status> <size>"`, `{kind="access"} | regexp "\" (?P<status>\\d+)"`,
	}
	for _, r := range rows {
		for _, by := range []string{"by (kind)", "by (status)", "by (level, status)", "by (pod, nope)", "without (pod, level, path, status, took, client_ip, ms, msg, user, size, ip, path_extracted)", ""} {
			instant = append(instant, fmt.Sprintf(`sum %s (count_over_time(%s [10m]))`, by, r))
		}
		instant = append(instant, fmt.Sprintf(`rate(%s | keep kind, pod [5m])`, r), fmt.Sprintf(`sum by (kind) (bytes_over_time(%s [10m]))`, r), fmt.Sprintf(`bytes_rate(%s | keep kind [3m])`, r), fmt.Sprintf(`absent_over_time(%s [1m])`, r),
			fmt.Sprintf(`count_over_time(%s | keep pod [2m] offset 1m)`, r), fmt.Sprintf(`topk(2, sum by (kind) (bytes_over_time(%s [10m])) * 1.5)`, r), fmt.Sprintf(`max(count_over_time(%s | keep kind, pod [7m]))`, r))
	}
	for _, u := range []string{`{kind="json"} | json | __error__="" | unwrap ms`, `{kind="json"} | json | unwrap ms | __error__=""`, `{kind="logfmt"} | logfmt | unwrap status`, `{kind="logfmt"} | logfmt | unwrap duration(took)`, `{kind="logfmt"} | logfmt | unwrap bytes(size)`, `{kind="json"} | json | unwrap duration_seconds(took) | __error__=""`} {
		for _, f := range []string{"avg_over_time(%s [10m]) by (level)", "min_over_time(%s [10m]) by (level)", "max_over_time(%s [10m]) by ()", "stddev_over_time(%s [10m]) by (status)", "stdvar_over_time(%s [10m]) by (pod)", "quantile_over_time(0.95, %s [10m]) by (level)", "quantile_over_time(0, %s [10m]) by (pod)", "first_over_time(%s [10m]) by (pod)", "last_over_time(%s [10m]) by (level)", "sum by (level) (sum_over_time(%s [10m]))", "sum(rate(%s [5m]))"} {
			instant = append(instant, fmt.Sprintf(f, u))
		}
	}
	a, b := `sum by (kind) (count_over_time({env="prod"}[10m]))`, `sum by (kind) (count_over_time({env="prod"} |= "done" [10m]))`
	bytes := `sum by (kind) (bytes_over_time({env="prod"}[10m]))` // no two are equal
	for _, op := range []string{"+", "-", "*", "/", "%", "^", "==", "!=", ">", ">=", "<", "<=", "> bool", "== bool", "and", "or", "unless", "+ on(kind)", "/ ignoring(nope)", "and on()", "unless ignoring(kind)"} {
		instant = append(instant, a+" "+op+" "+b)
	}
	instant = append(instant, a+" / on() group_left sum("+b+")", "sum("+b+") - on() group_right "+a, a+" > 100", "200 - "+a, a+" * 2 ^ 2", "1 + 2 * 3", "vector(3) > 2", "avg("+a+")", "count("+a+")", "stddev("+a+")", "min("+a+")", "sort("+bytes+")", "sort_desc("+bytes+")", "bottomk(1, "+bytes+" * 1.01)",
		`label_replace(`+a+`, "k", "<$1>", "kind", "(j.*)")`, `sum(count_over_time({kind="nope"}[1m])) or vector(0)`, `rate_counter({kind="logfmt"} | logfmt | unwrap status | keep kind [5m])`, `sum(`, `sum by (kind) (count_over_time({env="prod"}))`)
	return lines, instant
}

// differentAt are queries whose results differ on purpose; docs/api/logql.md says why.
func differentAt(query string) bool { return strings.Contains(query, "decolorize |") }

// The same queries on the same lines give the same lines in the same order, and the same numbers to 1e-5, as Loki does.
func TestDifferential(t *testing.T) {
	loki, braid := startLoki(t), start(t)
	base := time.Now().Truncate(time.Hour).Add(-time.Hour)
	body := pushBody(base)
	for _, s := range []*harness.Server{loki, braid} {
		res, err := http.Post("http://"+s.HTTP+"/loki/api/v1/push", "application/json", strings.NewReader(body))
		require.NoError(t, err)
		text, _ := io.ReadAll(res.Body)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusNoContent, res.StatusCode, string(text))
	}
	lines, instant := differentialQueries()
	end := base.Add(10 * time.Minute)
	compared, failed := 0, 0
	check := func(query, path string, params url.Values) {
		if differentAt(query) {
			return
		}
		params.Set("query", query)
		want, got := ask(t, loki, path, params), ask(t, braid, path, params)
		compared++
		if !same(want, got) {
			failed++
			t.Errorf("%s\nLoki:  %.600s\nBraid: %.600s", query, fmt.Sprint(want), fmt.Sprint(got))
		}
	}
	nanos := func(at time.Time) string { return strconv.FormatInt(at.UnixNano(), 10) }
	for i, q := range lines {
		check(q, "query_range", url.Values{"start": {nanos(base)}, "end": {nanos(end)}, "limit": {"1000"}, "direction": {[]string{"forward", "backward"}[i%2]}})
		check(q, "query_range", url.Values{"start": {nanos(base)}, "end": {nanos(end)}, "limit": {"7"}, "direction": {[]string{"backward", "forward"}[i%2]}})
	}
	for _, q := range instant {
		check(q, "query", url.Values{"time": {nanos(end)}})
	}
	for i, q := range instant {
		if i%4 == 0 && !strings.Contains(q, "topk") && !strings.Contains(q, "bottomk") {
			check(q, "query_range", url.Values{"start": {nanos(base)}, "end": {nanos(end)}, "step": {"47s"}})
		}
	}
	require.Greater(t, compared, 300)
	t.Logf("%d queries compared, %d differ", compared, failed)
}

// row is a line or a point of an answer.
type row struct {
	time, labels, text string
	value              float64
}

// answer is what a server says, with what may differ left out: the status alone for errors.
type answer struct {
	status int
	kind   string
	rows   []row
}

func ask(t *testing.T, s *harness.Server, path string, params url.Values) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.HTTP+"/loki/api/v1/"+path+"?"+params.Encode(), http.NoBody)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	a := answer{status: res.StatusCode / 100}
	if res.StatusCode != http.StatusOK {
		return a
	}
	var out struct {
		Data struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	require.NoError(t, json.Unmarshal(text, &out))
	a.kind = out.Data.ResultType
	if a.kind == "scalar" {
		a.rows = []row{point(t, out.Data.Result, "")}
		a.rows[0].time = "" // Loki has it in milliseconds
		return a
	}
	var result []struct {
		Stream, Metric map[string]string
		Value          json.RawMessage
		Values         []json.RawMessage
	}
	require.NoError(t, json.Unmarshal(out.Data.Result, &result))
	for _, s := range result {
		if a.kind == "streams" {
			for _, v := range s.Values {
				var pair []string
				require.NoError(t, json.Unmarshal(v, &pair))
				a.rows = append(a.rows, row{time: pair[0], labels: named(s.Stream), text: pair[1]})
			}
			continue
		}
		if s.Value != nil {
			s.Values = append(s.Values, s.Value)
		}
		for _, v := range s.Values {
			a.rows = append(a.rows, point(t, v, named(s.Metric)))
		}
	}
	if q := params.Get("query"); a.kind == "vector" && (strings.HasPrefix(q, "sort") || strings.HasPrefix(q, "topk") || strings.HasPrefix(q, "bottomk")) {
		return a // in the order of values
	}
	// Streams come in any order; within one the order is that of the direction.
	slices.SortStableFunc(a.rows, func(x, y row) int {
		if a.kind == "streams" && params.Get("direction") == "backward" {
			x, y = y, x
		}
		if c := strings.Compare(x.time, y.time); c != 0 {
			return c
		}
		return strings.Compare(x.labels, y.labels)
	})
	return a
}

func point(t *testing.T, raw json.RawMessage, labels string) row {
	t.Helper()
	var pair []any
	require.NoError(t, json.Unmarshal(raw, &pair))
	v, err := strconv.ParseFloat(pair[1].(string), 64)
	require.NoError(t, err)
	return row{time: fmt.Sprintf("%.3f", pair[0]), labels: labels, value: v}
}

// named writes labels, without texts of errors and without levels, which both find in their own ways.
func named(ls map[string]string) string {
	var out []string
	for k, v := range ls {
		if k != "__error_details__" && k != "detected_level" {
			out = append(out, k+"="+strconv.Quote(v))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

func same(want, got answer) bool {
	return want.status == got.status && want.kind == got.kind && slices.EqualFunc(want.rows, got.rows, func(x, y row) bool {
		d := math.Abs(x.value - y.value)
		return x.time == y.time && x.labels == y.labels && x.text == y.text &&
			(d <= 1e-5*math.Max(1, math.Abs(x.value)) || x.value == y.value || math.IsNaN(x.value) && math.IsNaN(y.value))
	})
}
