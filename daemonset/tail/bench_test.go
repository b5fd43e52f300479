package tail_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/daemonset/tail"
	"github.com/braidobs/braid/storage/vfs"
)

type countingSink struct{ records atomic.Int64 }

func (s *countingSink) Send(_ context.Context, c tail.Chunk) error {
	s.records.Add(int64(len(c.Records)))
	return nil
}

// BenchmarkTail reads a backlog of 20 containers through the whole path: MB per second of CPU, not of the clock.
func BenchmarkTail(b *testing.B) {
	const streams, size = 20, 8 << 20
	pods := b.TempDir()
	text := strings.Repeat(`{"level":"info","msg":"x"} `, 6)
	lines, bytes := 0, 0
	for i := range streams {
		dir := filepath.Join(pods, fmt.Sprintf("default_pod-%d_uid", i), "app")
		require.NoError(b, os.MkdirAll(dir, 0o750))
		var s strings.Builder
		for n := 0; s.Len() < size; n++ {
			fmt.Fprintf(&s, "2026-01-31T14:%02d:%02d.%09dZ stdout F %s\n", i, n%60, n, text)
			lines++
		}
		require.NoError(b, os.WriteFile(filepath.Join(dir, "0.log"), []byte(s.String()), 0o600))
		bytes += s.Len()
	}
	cfg := tail.DefaultConfig()
	cfg.PodsDir = pods
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		sink := &countingSink{}
		t, err := tail.New(cfg, tail.Deps{Sink: sink, Now: time.Now, FS: vfs.OS{}, StateDir: b.TempDir()})
		require.NoError(b, err)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- t.Run(ctx) }()
		require.True(b, waitFor(time.Minute, func() bool { return sink.records.Load() >= int64(lines) }))
		cancel()
		require.NoError(b, <-done)
		require.EqualValues(b, lines, sink.records.Load())
	}
	b.ReportMetric(float64(b.N)*float64(bytes)/1e6/(cpu(b)-before).Seconds(), "MB/cpu-s")
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
