// Package alerting looks at rules and alerts of the running binary from outside.
package alerting

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

var binary string // built once for the package

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "braid-alerting")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if binary, err = harness.Build(context.Background(), dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// start starts a server whose rules are in dir/rules.yml.
func start(t *testing.T, dir, rules, more string) *harness.Server {
	t.Helper()
	file := filepath.Join(dir, "rules.yml")
	require.NoError(t, os.WriteFile(file, []byte(rules), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := harness.Start(ctx, harness.Options{Binary: binary, Data: dir, Config: "alerting:\n  rules: [" + file + "]\n" + more})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	return s
}

// alert is an alert in the API of Prometheus.
type alert struct {
	Labels   map[string]string `json:"labels"`
	State    string            `json:"state"`
	ActiveAt time.Time         `json:"activeAt"`
}

func alerts(t *testing.T, s *harness.Server) []alert {
	t.Helper()
	var out struct {
		Data struct {
			Alerts []alert `json:"alerts"`
		} `json:"data"`
	}
	ok, err := s.JSON(t.Context(), "/api/v1/alerts", nil, &out)
	require.NoError(t, err)
	require.True(t, ok)
	return out.Data.Alerts
}

func post(t *testing.T, url string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, http.NoBody)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}
