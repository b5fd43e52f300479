package conformance

import (
	"bytes"
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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

// braid runs the binary until it ends by itself.
func braid(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, server, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	require.NoError(t, ctx.Err(), "it did not end by itself:\n%s%s", out.String(), errOut.String())
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func TestCommands(t *testing.T) {
	out, _, code := braid(t, "version")
	require.Zero(t, code)
	require.Regexp(t, `^braid \S+ \w+/\w+ go\S+\n$`, out)
	_, errOut, code := braid(t, "-help")
	require.Zero(t, code)
	require.Contains(t, errOut, "braid check")
	for _, args := range [][]string{{"nonsense"}, {"-nonsense"}, {"version", "argument"}, {"-config", filepath.Join(t.TempDir(), "none.yaml")}} {
		out, errOut, code = braid(t, args...)
		require.Equal(t, 1, code, args)
		require.Empty(t, out, args)
		require.Contains(t, errOut, "braid: ", args)
	}
}

func TestStart(t *testing.T) {
	s := start(t, t.TempDir(), "")
	require.Less(t, s.Startup, 5*time.Second)
	t.Logf("ready after %s", s.Startup.Round(time.Millisecond))
	for path, want := range map[string]string{"/-/ready": "ready", "/-/healthy": "healthy", "/": `"tagline"`} {
		code, body := get(t, s, "", path)
		require.Equal(t, http.StatusOK, code, path)
		require.Contains(t, string(body), want)
	}
	code, _ := get(t, s, "", "/nonsense")
	require.Equal(t, http.StatusNotFound, code)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.HTTP+"/", nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8") // a browser, and not a shipper
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(page), "<h1>Braid")
}

// TestPortInUse has another process on each port in turn.
func TestPortInUse(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	for _, key := range []string{"http", "otlp_http", "otlp_grpc"} {
		file := filepath.Join(t.TempDir(), "braid.yaml")
		addrs := map[string]string{"http": "127.0.0.1:0", "otlp_http": "127.0.0.1:0", "otlp_grpc": "127.0.0.1:0"}
		addrs[key] = ln.Addr().String()
		text := fmt.Sprintf("data: %q\nserver: {http: %q, otlp_http: %q, otlp_grpc: %q}\n",
			t.TempDir(), addrs["http"], addrs["otlp_http"], addrs["otlp_grpc"])
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		_, errOut, code := braid(t, "-config", file)
		require.Equal(t, 1, code, key)
		require.Contains(t, errOut, ln.Addr().String(), key)
		require.Contains(t, errOut, "address already in use", key)
	}
}

// TestFolderInUse starts a second process on the folder of a first one, which goes on.
func TestFolderInUse(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, "")
	store := filepath.Join(dir, "store")
	file := filepath.Join(t.TempDir(), "braid.yaml")
	require.NoError(t, os.WriteFile(file, []byte("server: {http: '127.0.0.1:0', otlp_http: '127.0.0.1:0', otlp_grpc: '127.0.0.1:0'}\n"), 0o600))
	_, errOut, code := braid(t, "-config", file, "-data", store)
	require.Equal(t, 1, code)
	require.Contains(t, errOut, store)
	require.Contains(t, errOut, "locked by another process")
	sendLogs(t, s, 0, 1)
	require.Equal(t, 1, countLogs(t, s))
}

func TestFolderNotWritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	config := filepath.Join(t.TempDir(), "braid.yaml")
	require.NoError(t, os.WriteFile(config, []byte("server: {http: '127.0.0.1:0', otlp_http: '127.0.0.1:0', otlp_grpc: '127.0.0.1:0'}\n"), 0o600))
	_, errOut, code := braid(t, "-config", config, "-data", file)
	require.Equal(t, 1, code)
	require.Contains(t, errOut, file)
}

// sendLogs sends the records [from, to).
func sendLogs(t *testing.T, s *harness.Server, from, to int) {
	t.Helper()
	body, err := harness.Logs(1, from, to, time.Now().Add(-time.Minute))
	require.NoError(t, err)
	code, _, err := s.Post(t.Context(), "logs", body, "")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code)
}

func countLogs(t *testing.T, s *harness.Server) int {
	t.Helper()
	return len(lines(t, s, "", `{service_name="writer-1"}`))
}

// lines returns the log lines of a stream in the last hour.
func lines(t *testing.T, s *harness.Server, tenant, query string) (out []string) {
	t.Helper()
	code, b := get(t, s, tenant, "/loki/api/v1/query_range?"+url.Values{"query": {query}, "limit": {"5000"}}.Encode())
	require.Equal(t, http.StatusOK, code, "%s", b)
	var answer struct {
		Data struct {
			Result []struct{ Values [][]any }
		}
	}
	require.NoError(t, json.Unmarshal(b, &answer))
	for _, r := range answer.Data.Result {
		for _, v := range r.Values {
			out = append(out, v[1].(string))
		}
	}
	return out
}

// TestTerminate stops with SIGTERM while requests come in: the code is 0, and every acknowledged request is there after
// a restart.
func TestTerminate(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, "")
	sendLogs(t, s, 0, 100)
	acked := 100
	stopped := make(chan error, 1)
	for n := 100; ; n++ {
		if n == 150 {
			require.NoError(t, syscall.Kill(s.PID(), syscall.SIGTERM))
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				select {
				case <-s.Died():
				case <-ctx.Done():
				}
				stopped <- s.Stop(ctx) // returns the exit code as an error
			}()
		}
		body, err := harness.Logs(1, n, n+1, time.Now().Add(-time.Minute))
		require.NoError(t, err)
		code, header, err := s.Post(t.Context(), "logs", body, "")
		if code == http.StatusOK && err == nil {
			acked++
			continue
		}
		require.GreaterOrEqual(t, n, 150, "refused before it was stopped: %v", err)
		if code != 0 {
			require.Equal(t, http.StatusServiceUnavailable, code)
			require.NotEmpty(t, header.Get("Content-Type"))
		}
		break
	}
	require.NoError(t, <-stopped)
	require.NotContains(t, s.Log(), "level=ERROR")
	s = start(t, dir, "")
	got := countLogs(t, s)
	require.GreaterOrEqual(t, got, acked)
	require.LessOrEqual(t, got, acked+1) // the last one may have been stored without an answer
}

// TestMetrics lints the own metrics after some use.
func TestMetrics(t *testing.T) {
	s := start(t, t.TempDir(), "")
	sendLogs(t, s, 0, 10)
	countLogs(t, s)
	get(t, s, "", "/api/v1/query?query=up")
	get(t, s, "", "/api/v1/query?query=")
	_, body := get(t, s, "", "/metrics")
	problems, err := promlint.New(bytes.NewReader(body)).Lint()
	require.NoError(t, err)
	for _, p := range problems {
		if ours := strings.HasPrefix(p.Metric, "braid_"); ours {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	seen := make(map[string]bool)
	series := 0
	for line := range strings.SplitSeq(strings.TrimSpace(string(body)), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name := line[:strings.LastIndexByte(line, ' ')]
		require.False(t, seen[name], name)
		seen[name] = true
		series++
		require.NotContains(t, name, `=""`, "a label without a value")
		_, err := strconv.ParseFloat(line[len(name)+1:], 64)
		require.NoError(t, err, line)
		plain, _, _ := strings.Cut(name, "{")
		known := false
		for _, prefix := range []string{"braid_", "go_", "process_", "promhttp_", "prometheus_rule_", "prometheus_notifications_"} {
			known = known || strings.HasPrefix(plain, prefix)
		}
		require.True(t, known, name)
	}
	require.Less(t, series, 1500)
	require.Contains(t, string(body), "braid_build_info{")
	t.Logf("%d series after some use", series)
}

// TestSelf looks at what a server says about itself: there is something, and it does not feed itself.
func TestSelf(t *testing.T) {
	s := start(t, t.TempDir(), "self:\n  traces: 1\n")
	for n := range 5 {
		sendLogs(t, s, n, n+1)
		countLogs(t, s)
	}
	exported := func(signal string) float64 {
		n, err := s.Metric(t.Context(), "braid_selfobs_exported_records_total", `signal="`+signal+`"`)
		require.NoError(t, err)
		return n
	}
	require.Eventually(t, func() bool { return exported("traces") >= 10 && exported("logs") >= 1 }, 10*time.Second, 50*time.Millisecond)
	require.Contains(t, lines(t, s, "_self", `{service_name="braid"}`), "ready")
	var found struct {
		Traces []struct{ RootServiceName, RootTraceName string }
	}
	code, b := get(t, s, "_self", "/api/search?limit=100")
	require.Equal(t, http.StatusOK, code)
	require.NoError(t, json.Unmarshal(b, &found))
	require.Len(t, found.Traces, 10)
	for _, tr := range found.Traces {
		require.Equal(t, "braid", tr.RootServiceName)
		require.Contains(t, tr.RootTraceName, "/")
	}
	_, b = get(t, s, "", "/api/search?limit=100")
	require.NoError(t, json.Unmarshal(b, &found))
	require.Empty(t, found.Traces, "own traces are in another tenant")

	// That question made one more trace. After it there is nothing to tell for as long as nobody asks: reading own
	// records and own metrics is not recorded.
	require.Eventually(t, func() bool { return exported("traces") >= 11 }, 10*time.Second, 50*time.Millisecond)
	traces, logs := exported("traces"), exported("logs")
	require.Never(t, func() bool {
		get(t, s, "_self", "/api/search?limit=1")
		return exported("traces") != traces || exported("logs") != logs
	}, 3*time.Second, 100*time.Millisecond)
	dropped, err := s.Metric(t.Context(), "braid_selfobs_dropped_records_total")
	require.NoError(t, err)
	require.Zero(t, dropped)
}

// TestTenants keeps tenants apart and refuses bad names, as reader and as writer.
func TestTenants(t *testing.T) {
	s := start(t, t.TempDir(), "")
	body, err := harness.Logs(1, 0, 3, time.Now().Add(-time.Minute))
	require.NoError(t, err)
	post := func(tenant string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.OTLPHTTP+"/v1/logs", bytes.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-protobuf")
		req.Header.Set("X-Scope-OrgID", tenant)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		return resp.StatusCode
	}
	require.Equal(t, http.StatusOK, post("blue"))
	require.Len(t, lines(t, s, "blue", `{service_name="writer-1"}`), 3)
	for _, other := range []string{"", "green", "default", "Blue"} {
		require.Empty(t, lines(t, s, other, `{service_name=~".+"}`), other)
	}
	require.Equal(t, http.StatusBadRequest, post("_self"), "only Braid writes there")
	for _, bad := range []string{"a|b", "a/b", "..", "with space", "ä", strings.Repeat("a", 65)} {
		require.Equal(t, http.StatusBadRequest, post(bad), bad)
		for _, path := range []string{"/loki/api/v1/labels", "/api/v1/labels", "/api/search", "/api/v1/correlate/trace/1"} {
			code, _ := get(t, s, bad, path)
			require.Equal(t, http.StatusBadRequest, code, "%s %q", path, bad)
		}
	}
}
