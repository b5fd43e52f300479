//go:build long

// Package loki runs logcli and loki-canary, built elsewhere, against the server and wants them to work unchanged. The
// environment variables LOGCLI and LOKI_CANARY name the programs; what is not named is not run.
package loki

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

func start(t *testing.T) *harness.Server {
	t.Helper()
	dir := t.TempDir()
	binary, err := harness.Build(t.Context(), dir)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := harness.Start(ctx, harness.Options{Binary: binary, Data: t.TempDir(), Server: "  admin_api: true\n"})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	return s
}

func program(t *testing.T, variable string) string {
	t.Helper()
	p := os.Getenv(variable)
	if p == "" {
		t.Skipf("%s names no program", variable)
	}
	return p
}

// push sends lines of one stream, a second apart, the last one now.
func push(t *testing.T, s *harness.Server, labels string, lines ...string) {
	t.Helper()
	var values []string
	for i, l := range lines {
		at := time.Now().Add(-time.Duration(len(lines)-1-i) * time.Second)
		values = append(values, fmt.Sprintf(`["%d",%s]`, at.UnixNano(), strconv.Quote(l)))
	}
	body := `{"streams":[{"stream":` + labels + `,"values":[` + strings.Join(values, ",") + `]}]}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTP+"/loki/api/v1/push", strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusNoContent, resp.StatusCode, string(text))
}

func TestLogcli(t *testing.T) {
	logcli, s := program(t, "LOGCLI"), start(t)
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), logcli, append(args, "--addr=http://"+s.HTTP, "--quiet")...)
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		require.NoError(t, cmd.Run(), "%v: %s", args, errOut.String())
		return out.String()
	}
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf("line %d of many", i))
	}
	push(t, s, `{"app":"shop","pod":"shop-0"}`, `level=info msg="order 1 placed" took=12ms`, `level=warn msg="order 2 is late" took=1.5s`)
	push(t, s, `{"app":"shop","pod":"shop-1"}`, `{"level":"error","msg":"order 3 failed","code":500}`)
	push(t, s, `{"app":"many"}`, many...)
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"query", []string{"query", `{app="shop"}`}, []string{"order 1 placed", "order 2 is late", "order 3 failed", `pod="shop-0"`, `detected_level="warn"`}},
		{"query with a pipeline, raw", []string{"query", `{app="shop"} | logfmt | took > 1s | line_format "{{.msg}}!"`, "-o", "raw"}, []string{"order 2 is late!"}},
		{"query as JSON lines", []string{"query", `{app="shop"} | json | code = 500`, "-o", "jsonl"}, []string{`order 3 failed`, `"timestamp":`}},
		{"query forward", []string{"query", `{app="shop", pod="shop-0"}`, "--forward", "-o", "raw"}, []string{"order 1 placed", "order 2 is late"}},
		{"pages", []string{"query", `{app="many"}`, "--limit=250", "--batch=40", "-o", "raw"}, []string{"line 299 of many", "line 50 of many"}},
		{"a range query for numbers", []string{"query", `sum by (app) (rate({app=~"shop|many"}[1m]))`, "--since=5m"}, []string{`"app": "shop"`, `"app": "many"`, `"values"`}},
		{"an instant query", []string{"instant-query", `sum by (app) (count_over_time({app=~".+"}[1h]))`}, []string{`"app": "many"`, `"300"`, `"3"`}},
		{"labels", []string{"labels"}, []string{"app\n", "pod\n", "service_name\n"}},
		{"values of a label", []string{"labels", "app"}, []string{"many\n", "shop\n"}},
		{"series", []string{"series", `{app="shop"}`}, []string{`{app="shop", pod="shop-0", service_name="shop"}`, `pod="shop-1"`}},
		{"series, analyzed", []string{"series", "{}", "--analyze-labels"}, []string{"Total Streams:  3", "pod"}},
		{"stats", []string{"stats", `{app="many"}`}, []string{"streams: 1", "entries: 300"}},
		{"volume", []string{"volume", `{app=~".+"}`}, []string{`"app": "many"`, `"app": "shop"`}},
		{"volume by label", []string{"volume", `{app="shop"}`, "--targetLabels=pod"}, []string{`"pod": "shop-0"`}},
		{"volume over time", []string{"volume_range", `{app="many"}`, "--step=5m"}, []string{`"values"`}},
		{"detected fields", []string{"detected-fields", `{app="shop"}`}, []string{"label: took", "type: duration", "label: code", "type: int"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := run(tt.args...)
			for _, want := range tt.want {
				require.Contains(t, out, want)
			}
			if tt.name == "pages" {
				require.Equal(t, 250, strings.Count(out, "of many"))
			}
			if tt.name == "query forward" {
				require.Less(t, strings.Index(out, "order 1"), strings.Index(out, "order 2"))
			}
		})
	}
	t.Run("tail", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, logcli, "query", `{app="shop"} |= "order"`, "--tail", "--addr=http://"+s.HTTP, "-o", "raw", "--since=1h")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		next := func() string {
			require.True(t, lines.Scan(), "the tail ended")
			return lines.Text()
		}
		for range 3 {
			require.Contains(t, next(), "order")
		}
		push(t, s, `{"app":"shop","pod":"shop-2"}`, "order 4 comes live", "order 5 comes live")
		require.Contains(t, next(), "order 4 comes live")
		require.Contains(t, next(), "order 5 comes live")
		require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
		_ = cmd.Wait()
	})
	t.Run("delete", func(t *testing.T) {
		ago := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
		soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		run("delete", "create", `{app="shop"} |= "live"`, "--from="+ago, "--to="+soon)
		require.Contains(t, run("delete", "list"), `{app="shop"} |= "live"`)
		require.NotContains(t, run("query", `{app="shop"}`), "live")
		require.Contains(t, run("query", `{app="shop"}`), "order 3")
	})
}

// canaryTime is how long the canary sings.
func canaryTime() time.Duration {
	if testing.Short() {
		return 30 * time.Second
	}
	return 5 * time.Minute
}

// TestCanary runs loki-canary with entries out of order: each is received over the websocket, found by queries, and
// received once.
func TestCanary(t *testing.T) {
	canary, s := program(t, "LOKI_CANARY"), start(t)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	log, err := os.Create(filepath.Join(t.TempDir(), "canary.log"))
	require.NoError(t, err)
	defer log.Close()
	// An entry out of order counts as late by its own time: it must not be older than -wait when it is sent.
	cmd := exec.CommandContext(t.Context(), canary, "-addr="+s.HTTP, "-push", "-port="+port, "-interval=500ms", "-size=200",
		"-out-of-order-percentage=25", "-out-of-order-min=2s", "-out-of-order-max=20s", "-wait=30s", "-max-wait=60s", "-pruneinterval=5s",
		"-spot-check-interval=5s", "-spot-check-query-rate=10s", "-spot-check-initial-wait=10s",
		"-metric-test-interval=15s", "-metric-test-range=2m")
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	sung := time.NewTimer(canaryTime())
	defer sung.Stop()
	select {
	case <-sung.C:
	case <-s.Died():
		t.Fatal(s.Log())
	}
	got := make(map[string]float64)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port+"/metrics", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if x, err := strconv.ParseFloat(value, 64); err == nil {
			got[strings.TrimPrefix(name, "loki_canary_")] = x
		}
	}
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	text, err := os.ReadFile(log.Name())
	require.NoError(t, err)
	require.Zero(t, got["ws_reconnects_total"], "%s", text)
	for _, name := range []string{
		"missing_entries_total", "websocket_missing_entries_total", "spot_check_missing_entries_total", "duplicate_entries_total", "unexpected_entries_total",
	} {
		require.Zero(t, got[name], "%s\n%s", name, text)
	}
	require.Greater(t, got["entries_total"], 0.9*canaryTime().Seconds()*2)
	require.NotZero(t, got["spot_check_entries_total"])
	t.Logf("%.0f entries, a quarter of them out of order; %.0f looked for again", got["entries_total"], got["spot_check_entries_total"])
}
