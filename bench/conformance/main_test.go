// Package conformance talks to the running binary as its users do: it runs the examples of the pages, starts and
// stops it in good and bad circumstances and, with the build tag e2e, sends OTLP to it with every encoding, with the
// exporters of OpenTelemetry and with telemetrygen, and reads back what was stored.
package conformance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

// server is the binary under test, built once.
var server string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "braid-conformance-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if server, err = harness.Build(context.Background(), dir); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// start starts a server on the data in dir, with YAML beside the addresses and the folder.
func start(t *testing.T, dir, config string) *harness.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := harness.Start(ctx, harness.Options{Binary: server, Data: dir, Config: config, Server: "  admin_api: true\n"})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	return s
}

// get asks the query port, for a tenant unless it is empty.
func get(t *testing.T, s *harness.Server, tenant, path string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.HTTP+path, nil)
	require.NoError(t, err)
	if tenant != "" {
		req.Header.Set("X-Scope-OrgID", tenant)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, b
}
