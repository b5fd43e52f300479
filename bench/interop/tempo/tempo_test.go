//go:build long

// Package tempo compares the server with a real Tempo, and runs tempo-vulture and telemetrygen, all built elsewhere, against
// it. The environment variables TEMPO, TEMPO_VULTURE and TELEMETRYGEN name the programs; what is not named is not run.
package tempo

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
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/braidobs/braid/bench/harness"
)

// server is a running server: ours or Tempo.
type server struct {
	*harness.Server
	otlp string // URL
}

func start(t *testing.T) server {
	t.Helper()
	binary, err := harness.Build(t.Context(), t.TempDir())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := harness.Start(ctx, harness.Options{Binary: binary, Data: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	return server{s, "http://" + s.OTLPHTTP + "/v1/traces"}
}

const tempoConfig = `target: all
multitenancy_enabled: true
stream_over_http_enabled: true
server: {http_listen_address: 127.0.0.1, http_listen_port: %[1]s, grpc_listen_address: 127.0.0.1, grpc_listen_port: %[3]s, log_level: error}
memberlist: {bind_addr: ["127.0.0.1"], bind_port: %[4]s}
distributor: {receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:%[5]s"}}}}}
storage: {trace: {backend: local, wal: {path: %[2]s/wal}, local: {path: %[2]s/blocks}}}
live_store: {wal: {path: %[2]s/live}, shutdown_marker_dir: %[2]s/marker}
block_builder: {wal: {path: %[2]s/builder}}
backend_scheduler: {local_work_path: %[2]s}
usage_report: {reporting_enabled: false}
`

func startTempo(t *testing.T) server {
	t.Helper()
	binary, dir := program(t, "TEMPO"), t.TempDir()
	free := make([]string, 3)
	for i := range free {
		free[i] = freePort(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	file := filepath.Join(dir, "tempo.yaml")
	s, err := harness.StartProgram(ctx, harness.ProgramOptions{Binary: binary, Dir: dir, Ready: "/ready", Args: func(addr string) []string {
		_, port, _ := net.SplitHostPort(addr)
		_ = os.WriteFile(file, fmt.Appendf(nil, tempoConfig, port, dir, free[0], free[1], free[2]), 0o600) // a start without it fails
		return []string{"-config.file=" + file}
	}})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	return server{s, "http://127.0.0.1:" + free[2] + "/v1/traces"}
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return port
}

func program(t *testing.T, variable string) string {
	t.Helper()
	p := os.Getenv(variable)
	if p == "" {
		t.Skipf("%s names no program", variable)
	}
	return p
}

// run runs a program until it ends.
func run(t *testing.T, limit time.Duration, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// push sends spans.
func (s server) push(t *testing.T, tenant string, td ptrace.Traces) {
	t.Helper()
	body, err := new(ptrace.ProtoMarshaler).MarshalTraces(td)
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.otlp, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("X-Scope-OrgID", tenant)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", text)
}

// get asks for a path and returns the status, the header and the body.
func (s server) get(t *testing.T, tenant, path string, params url.Values, accept string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.HTTP+path+"?"+params.Encode(), http.NoBody)
	require.NoError(t, err)
	req.Header.Set("X-Scope-OrgID", tenant)
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header, body
}

// json asks for a path and decodes the answer; it returns the text of an error.
func (s server) json(t *testing.T, tenant, path string, params url.Values, into any) string {
	t.Helper()
	code, _, body := s.get(t, tenant, path, params, "application/json")
	if code != http.StatusOK {
		return fmt.Sprintf("%d %s", code, bytes.TrimSpace(body))
	}
	require.NoError(t, json.Unmarshal(body, into), "%s", body)
	return ""
}
