//go:build long

// Package jaeger_test runs Jaeger's own tests of storage backends against Braid: a stock Jaeger that reads its traces through
// jaeger.storage.v2 and writes them over OTLP. It needs a checkout of Jaeger:
//
//	cd $JAEGER_DIR && go build -o cmd/jaeger/jaeger-e2e ./cmd/jaeger/internal/integration/jaeger-e2e
//	cd $JAEGER_DIR/cmd/jaeger/internal/integration && go test -c -o suite .
//	JAEGER_DIR=... go test -tags long ./bench/interop/jaeger
package jaeger_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

// store is a server that can be emptied: each test of the suite begins with nothing.
type store struct {
	t      *testing.T
	binary string
	dir    string

	mu sync.Mutex // guards s
	s  *harness.Server
}

// empty starts the server anew, at the same addresses, with nothing in it.
func (s *store) empty(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.s
	if old != nil {
		old.Kill()
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "store")); err != nil {
		return err
	}
	var err error
	s.s, err = harness.Start(ctx, harness.Options{Binary: s.binary, Data: s.dir, Config: "ingest:\n  time_window: false\n", Like: old})
	return err
}

func TestStorage(t *testing.T) {
	checkout := os.Getenv("JAEGER_DIR")
	if checkout == "" {
		t.Skip("JAEGER_DIR is not set")
	}
	dir := t.TempDir()
	binary, err := harness.Build(t.Context(), dir)
	require.NoError(t, err)
	s := &store{t: t, binary: binary, dir: dir}
	require.NoError(t, s.empty(t.Context()))
	defer func() { s.s.Kill() }()
	purger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.empty(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	defer purger.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	folder := filepath.Join(checkout, "cmd", "jaeger", "internal", "integration")
	cmd := exec.CommandContext(ctx, filepath.Join(folder, "suite"), "-test.run=TestGRPCStorage", "-test.v")
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "STORAGE=grpc", "CUSTOM_STORAGE=true", "PURGER_ENDPOINT="+purger.URL,
		"REMOTE_STORAGE_ENDPOINT="+s.s.HTTP, "REMOTE_STORAGE_WRITER_ENDPOINT="+s.s.OTLPGRPC)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	passed := regexp.MustCompile(`(?m)^ *--- PASS: TestGRPCStorage/.*$`).FindAll(out, -1)
	skipped := regexp.MustCompile(`(?m)^ *--- SKIP: .*$`).FindAll(out, -1)
	t.Logf("%d tests of Jaeger pass, %d were left out by it", len(passed), len(skipped))
	require.Greater(t, len(passed), 30)
}
