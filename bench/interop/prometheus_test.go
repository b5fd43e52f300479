//go:build long

// Package interop runs the server beside Prometheus and its tools, of the release whose packages the server is made
// with, and wants them to work with it and to agree.
package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

// The programs, built once for the package.
var braid, prometheus, promtool string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "braid-interop")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if braid, err = harness.Build(context.Background(), dir); err != nil {
		return 0, err
	}
	prometheus, promtool = filepath.Join(dir, "prometheus"), filepath.Join(dir, "promtool")
	const from = "github.com/prometheus/prometheus/cmd/"
	build := exec.Command("go", "build", "-tags", "remove_all_sd", "-o", dir, from+"prometheus", from+"promtool")
	build.Dir = "../tools" // a module of its own: it needs replacements that ours has not
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build Prometheus: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// start starts our server.
func start(t *testing.T, config, server string) *harness.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := harness.Start(ctx, harness.Options{Binary: braid, Data: t.TempDir(), Config: config, Server: server})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	return s
}

// startPrometheus starts a Prometheus.
func startPrometheus(t *testing.T, config string, flags ...string) *harness.Server {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := harness.StartProgram(ctx, harness.ProgramOptions{Binary: prometheus, Dir: dir, Args: func(addr string) []string {
		return append([]string{"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + addr}, flags...)
	}})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	return s
}

// nodeExporter starts Debian's node exporter and returns its address.
func nodeExporter(t *testing.T) string {
	t.Helper()
	const bin = "/usr/bin/prometheus-node-exporter"
	if _, err := os.Stat(bin); err != nil {
		require.Empty(t, os.Getenv("CI"), "prometheus-node-exporter must be installed where CI runs")
		t.Skip("needs Debian's package prometheus-node-exporter")
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	require.NoError(t, ln.Close())
	cmd := exec.Command(bin, "--web.listen-address="+addr)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	require.Eventually(t, func() bool {
		code, _ := get(t, "http://"+addr+"/metrics", "")
		return code == http.StatusOK
	}, 20*time.Second, 50*time.Millisecond)
	return addr
}

// get returns the status and the body of an answer, 0 when there was none.
func get(t *testing.T, target, tenant string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
	require.NoError(t, err)
	if tenant != "" {
		r.Header.Set("X-Scope-OrgID", tenant)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

// query returns the data of an answer.
func query(t *testing.T, s *harness.Server, tenant, path string, params url.Values) string {
	t.Helper()
	code, body := get(t, "http://"+s.HTTP+"/api/v1/"+path+"?"+params.Encode(), tenant)
	require.Equal(t, http.StatusOK, code, body)
	var out struct{ Data json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(body), &out))
	return string(out.Data)
}

// raw returns the samples of all scraped series in the seconds before a time, series by series.
func raw(t *testing.T, s *harness.Server, tenant, selector string, at time.Time, seconds int) map[string]string {
	t.Helper()
	data := query(t, s, tenant, "query", url.Values{"query": {selector + "[" + strconv.Itoa(seconds) + "s]"}, "time": {strconv.FormatInt(at.Unix(), 10)}})
	var v struct{ Result []map[string]json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(data), &v))
	out := make(map[string]string)
	for _, r := range v.Result {
		out[string(r["metric"])] = string(r["values"]) + string(r["histograms"])
	}
	return out
}

func tool(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput()
	require.NoError(t, err, "promtool %v\n%s", args, out)
	return string(out)
}

// TestPromtool works on our server with promtool, and wants what Prometheus would have answered.
func TestPromtool(t *testing.T) {
	s := start(t, "", "")
	at := "http://" + s.HTTP
	require.Contains(t, tool(t, "check", "healthy", "--url", at), "SUCCESS")
	require.Contains(t, tool(t, "check", "ready", "--url", at), "SUCCESS")

	file := filepath.Join(t.TempDir(), "metrics.prom")
	require.NoError(t, os.WriteFile(file, []byte(`# HELP pushed_total How many.
# TYPE pushed_total counter
pushed_total{path="/a"} 3
pushed_total{path="/b"} 4
# TYPE pushed_seconds histogram
pushed_seconds_bucket{le="1"} 1
pushed_seconds_bucket{le="+Inf"} 2
pushed_seconds_sum 5
pushed_seconds_count 2
`), 0o600))
	require.Contains(t, tool(t, "push", "metrics", "--label", "job=batch", at, file), "SUCCESS")
	require.Regexp(t, `^\{\} => 7 @\[[0-9.]+\]\n$`, tool(t, "query", "instant", at, `sum(pushed_total{job="batch"})`))
	require.Contains(t, tool(t, "query", "range", "--step=5s", at, "count(pushed_seconds_bucket)"), "2 @[")
	require.Equal(t, "{__name__=\"pushed_total\", job=\"batch\", path=\"/a\"}\n{__name__=\"pushed_total\", job=\"batch\", path=\"/b\"}\n",
		tool(t, "query", "series", "--match=pushed_total", at))
	require.Equal(t, "/a\n/b\n", tool(t, "query", "labels", at, "path"))
	require.JSONEq(t, `{"pushed_total":[{"type":"counter","unit":"","help":"How many."}]}`, query(t, s, "", "metadata", url.Values{"metric": {"pushed_total"}}))
}

// TestRemoteWriteAndRead lets a Prometheus scrape itself and a node and send us everything, by both versions of remote
// write, and wants every sample back; another Prometheus reads it from us.
func TestRemoteWriteAndRead(t *testing.T) {
	node := nodeExporter(t)
	s := start(t, "", "")
	const scrapes = "global: {scrape_interval: 1s, scrape_timeout: 1s, scrape_native_histograms: true}\nscrape_configs:\n"
	targets := fmt.Sprintf("- {job_name: node, static_configs: [{targets: ['%s']}]}\n", node)
	var write strings.Builder
	write.WriteString("remote_write:\n")
	for tenant, message := range map[string]string{"one": "prometheus.WriteRequest", "two": "io.prometheus.write.v2.Request"} {
		fmt.Fprintf(&write, "- {name: %s, url: 'http://%s/api/v1/write', protobuf_message: %s, send_native_histograms: true, metadata_config: {send_interval: 1s}, headers: {X-Scope-OrgID: %s}}\n",
			tenant, s.HTTP, message, tenant)
	}
	p := startPrometheus(t, scrapes+targets+write.String())
	self := fmt.Sprintf("- {job_name: prometheus, static_configs: [{targets: ['%s']}]}\n", p.HTTP)
	watcher := startPrometheus(t, scrapes+self+write.String()) // looks at the first one: it has native histograms
	require.Eventually(t, func() bool {                        // enough to compare
		return strings.Contains(query(t, watcher, "", "query", url.Values{"query": {"count_over_time(up[1m]) >= 12"}}), "metric")
	}, time.Minute, 200*time.Millisecond)
	for job, from := range map[string]*harness.Server{"node": p, "prometheus": watcher} {
		selector := fmt.Sprintf("{job=%q}", job)
		at := time.Now().Add(-2 * time.Second)
		want := raw(t, from, "", selector, at, 8)
		require.Greater(t, len(want), 300)
		native := slices.ContainsFunc(slices.Collect(values(want)), func(s string) bool { return strings.Contains(s, `"buckets"`) })
		require.Equal(t, job == "prometheus", native)
		samples := 0
		for _, v := range want {
			samples += strings.Count(v, "],[") + 1
		}
		for _, tenant := range []string{"one", "two"} {
			require.Eventually(t, func() bool { return len(raw(t, s, tenant, selector, at.Add(time.Second), 1)) > 0 }, 30*time.Second, 100*time.Millisecond)
			require.Equal(t, want, raw(t, s, tenant, selector, at, 8), "tenant %s", tenant)
		}
		// By version 2.0 this release of Prometheus sends metadata only where its log has it, which no flag turns on.
		require.NotEqual(t, "{}", query(t, s, "one", "metadata", url.Values{"metric": {"go_goroutines"}}), job)
		t.Logf("%s: %d series, %d samples are equal after remote write 1.0 and 2.0", job, len(want), samples)

		reader := startPrometheus(t, fmt.Sprintf("remote_read: [{url: 'http://%s/api/v1/read', read_recent: true, headers: {X-Scope-OrgID: two}}]\n", s.HTTP))
		require.Equal(t, want, raw(t, reader, "", selector, at, 8), "read back by remote read")
	}
}

func values(m map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

// TestScrape scrapes a node exporter with our server and with Prometheus, and wants the same series with the same
// labels and metadata.
func TestScrape(t *testing.T) {
	node := nodeExporter(t)
	s := start(t, fmt.Sprintf("scrape:\n  interval: 1s\n  timeout: 1s\n  static: [{job: node, targets: ['%s'], labels: {zone: z}}]\n", node), "")
	p := startPrometheus(t, fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s, scrape_native_histograms: true}\nscrape_configs: [{job_name: node, static_configs: [{targets: ['%s'], labels: {zone: z}}]}]\n", node))
	series := func(s *harness.Server) []string {
		var out []map[string]string
		require.NoError(t, json.Unmarshal([]byte(query(t, s, "", "series", url.Values{"match[]": {`{job="node"}`}})), &out))
		var names []string
		for _, m := range out {
			b, err := json.Marshal(m)
			require.NoError(t, err)
			names = append(names, string(b))
		}
		slices.Sort(names)
		return names
	}
	require.Eventually(t, func() bool { return len(series(p)) > 300 && len(series(s)) > 300 }, 30*time.Second, 200*time.Millisecond)
	want := series(p)
	require.Equal(t, want, series(s))
	params := url.Values{"metric": {"node_memory_MemTotal_bytes"}}
	require.JSONEq(t, query(t, p, "", "metadata", params), query(t, s, "", "metadata", params))
	one := func(s *harness.Server) string {
		data := query(t, s, "", "query", url.Values{"query": {"sum(node_memory_MemTotal_bytes) + sum(up)"}})
		return data[strings.LastIndexByte(data, ',')+1:] // after the time
	}
	require.NotEmpty(t, one(p))
	require.Equal(t, one(p), one(s))
	for _, path := range []string{"scrape_pools", "targets/metadata?metric=node_memory_MemTotal_bytes"} {
		_, want := get(t, "http://"+p.HTTP+"/api/v1/"+path, "")
		_, got := get(t, "http://"+s.HTTP+"/api/v1/"+path, "")
		require.JSONEq(t, want, got, path)
	}
	// What depends on the time of the scrape is left out.
	targets := func(s *harness.Server) string {
		var v struct {
			ActiveTargets []map[string]any
		}
		require.NoError(t, json.Unmarshal([]byte(query(t, s, "", "targets", nil)), &v))
		require.Len(t, v.ActiveTargets, 1)
		require.Equal(t, "up", v.ActiveTargets[0]["health"])
		require.Positive(t, v.ActiveTargets[0]["lastScrapeDuration"])
		for _, name := range []string{"lastScrape", "lastScrapeDuration", "globalUrl"} {
			require.Contains(t, v.ActiveTargets[0], name)
			delete(v.ActiveTargets[0], name)
		}
		b, err := json.Marshal(v.ActiveTargets)
		require.NoError(t, err)
		return string(b)
	}
	require.JSONEq(t, targets(p), targets(s))
}

// TestSameAnswers asks our server and Prometheus the same, right and wrong, where neither has data, and wants the same
// status and the same JSON.
func TestSameAnswers(t *testing.T) {
	s := start(t, "", "  admin_api: true\n")
	p := startPrometheus(t, "global: {}\n", "--web.enable-admin-api")
	get := func(paths ...string) (out [][2]string) {
		for _, p := range paths {
			out = append(out, [2]string{http.MethodGet, p})
		}
		return out
	}
	asks := get("query?query=1&time=5", "query?query=up(", "query?query=up&time=x", "query?query=up&timeout=x", "query?query=up&limit=-1", "query?query=up&lookback_delta=x",
		"query?query=%22s%22&time=1.5", "query?query=vector(NaN)&time=-3.25", "query?query=label_replace(vector(1),%22a%22,%22%22,%22b%22,%22(%22)&time=1",
		"query_range?query=1&start=0&end=10&step=5", "query_range?query=1&start=10&end=0&step=5", "query_range?query=1&start=0&end=10&step=0",
		"query_range?query=1&start=0&end=110000&step=1", "query_range?query=1&start=x&end=1&step=1", "query_range?query=1&start=1&end=x&step=1", "query_range?query=1&start=1&end=2&step=x",
		"query_range?query=x[5m]&start=1&end=2&step=1", "query_exemplars?query=x&start=2&end=1", "query_exemplars?query=x&start=1&end=2", "query_exemplars?query=(",
		"series", "series?match[]=x", "series?match[]=%7B%7D", "series?match[]=%7Ba%3D%22%22%7D", "labels", "labels?match[]=%7B", "labels?start=x", "labels?limit=x", "label/a/values", "label/U__a_2e_b/values", "label/0/values",
		"metadata?limit=x", "metadata?metric=none", "metadata?limit_per_metric=x",
		"format_query?query=sum(x)by(y)", "format_query?query=(", "parse_query?query=(", "targets", "targets?state=dropped", "targets?state=active", "targets/metadata", "targets/metadata?limit=x", "targets/metadata?match_target=%7B", "scrape_pools",
		"status/tsdb?limit=0", "status/tsdb?limit=10001", "status/tsdb?limit=x", "rules", "alerts", "rules?type=x")
	for _, e := range []string{
		`-sum by (a, b) (rate(x{c=~"d.*", e!="f"}[5m] offset 1m)) / on (a) group_left (b) y @ end()`, `topk without () (3, x) > bool 2`, `max_over_time((x or y)[1h:1m] @ 5)`,
		`absent_over_time({"a.b"}[1d]) unless ignoring (z) vector(0x1f)`, `count_values("v", time() % -Inf)`, `x[5m * 2]`, `"text"`, `quantile_over_time(0.5, x[1h:])`,
	} {
		asks = append(asks, get("parse_query?query="+url.QueryEscape(e), "format_query?query="+url.QueryEscape(e))...)
	}
	for _, path := range []string{"delete_series", "delete_series?match[]=%7B", "delete_series?match[]=x", "delete_series?match[]=x&start=a", "delete_series?match[]=x&end=a", "clean_tombstones", "snapshot?skip_head=x"} {
		asks = append(asks, [2]string{http.MethodPost, "admin/tsdb/" + path}, [2]string{http.MethodPut, "admin/tsdb/" + path})
	}
	ask := func(s *harness.Server, method, path string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.HTTP+"/api/v1/"+path, http.NoBody)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	var different []string
	for _, a := range asks {
		wantCode, want := ask(p, a[0], a[1])
		code, got := ask(s, a[0], a[1])
		var w, g any
		_ = json.Unmarshal([]byte(want), &w) // one without a body stays nil
		_ = json.Unmarshal([]byte(got), &g)
		if wantCode != code || !reflect.DeepEqual(w, g) {
			different = append(different, fmt.Sprintf("%v\nPrometheus: %d %s\nBraid:      %d %s", a, wantCode, want, code, got))
		}
	}
	require.Empty(t, different, strings.Join(different, "\n\n"))
	for _, path := range []string{"status/runtimeinfo", "status/walreplay", "status/buildinfo", "status/config", "status/flags", "status/tsdb"} {
		var want, got map[string]any
		require.NoError(t, json.Unmarshal([]byte(query(t, p, "", path, nil)), &want))
		require.NoError(t, json.Unmarshal([]byte(query(t, s, "", path, nil)), &got))
		if path == "status/flags" {
			for name := range got {
				require.Contains(t, want, name)
			}
			continue
		}
		for name := range want {
			require.Contains(t, got, name, path)
			require.IsType(t, want[name], got[name], "%s: %s", path, name)
		}
	}
	t.Logf("%d answers are the same", len(asks))
}
