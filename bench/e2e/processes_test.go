//go:build long

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
	"github.com/braidobs/braid/bench/shop/fault"
	"github.com/braidobs/braid/bench/shop/instrument"
	"github.com/braidobs/braid/bench/shop/runner"
)

// shim writes what a process says into the log of a container, as a runtime does.
type shim struct {
	mu      sync.Mutex // guards the rest
	f       *os.File
	partial []byte
}

func newShim(pods string, id instrument.Identity) (*shim, error) {
	dir := filepath.Join(pods, fmt.Sprintf("%s_%s_%s", id.Namespace, id.Pod, id.PodUID), id.Container)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "0.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	return &shim{f: f}, err
}

func (s *shim) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partial = append(s.partial, b...)
	for {
		i := bytes.IndexByte(s.partial, '\n')
		if i < 0 {
			return len(b), nil
		}
		if _, err := fmt.Fprintf(s.f, "%s stderr F %s\n", time.Now().UTC().Format(time.RFC3339Nano), s.partial[:i]); err != nil {
			return 0, err
		}
		s.partial = s.partial[i+1:]
	}
}

// TestProcesses runs the shop as processes whose output a shim writes as the logs of containers.
func TestProcesses(t *testing.T) {
	pods := t.TempDir()
	const seed = 1
	db := instrument.NewIdentity("database", runner.Database, "1.0.0", seed)
	metrics := freeAddr(t)
	s := start(t, pods, metrics, db)
	binary, err := harness.BuildPackage(t.Context(), s.bin, "bench/shop/cmd/shop")
	require.NoError(t, err)
	services := map[string]string{runner.Database: "database", runner.Cart: "cart", runner.Checkout: "checkout", runner.Frontend: "frontend"}
	var shop *runner.Shop
	p := &place{
		pods: pods, database: db, metrics: metrics,
		injected: func(t *testing.T) {
			t.Helper()
			_, err := shop.Inject(t.Context(), runner.Database, fault.Fault{Kind: fault.SlowDatabase, Delay: fault.Duration(800 * time.Millisecond), Ratio: 0.9})
			require.NoError(t, err)
		},
	}
	shop, err = runner.Start(t.Context(), runner.Options{
		Binary: binary, OTLPGRPC: s.agentGRPC, OTLPHTTP: s.agentHTTP, RPS: 10, Seed: seed, LogJSON: true, MetricInterval: time.Second,
		ArgsOf: map[string][]string{runner.Database: {"-admin", metrics}}, Args: []string{"-otlp-logs=false"},
		StderrOf: func(name string) io.Writer {
			w, err := newShim(pods, instrument.NewIdentity(services[name], name, "1.0.0", seed))
			require.NoError(t, err)
			t.Cleanup(func() { _ = w.f.Close() })
			return w
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, shop.Stop(ctx))
	})
	scenario(t, s, p)
}
