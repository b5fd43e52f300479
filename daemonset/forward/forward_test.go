package forward_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/daemonset/forward"
	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend is Braid's OTLP receiver over the naive store, with a switch for trouble in front.
type backend struct {
	store   *testkit.Store
	url     string
	trouble atomic.Pointer[http.HandlerFunc]
	calls   atomic.Int64
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{store: testkit.NewStore("")}
	ic := ingest.DefaultConfig()
	ic.TimeWindow = false
	s := otlp.New(otlp.DefaultConfig(), otlp.Deps{
		Pipeline: ingest.New(ic, ingest.Deps{Writer: b.store, Now: time.Now, Metrics: prometheus.NewRegistry()}), Now: time.Now,
	})
	mux := http.NewServeMux()
	for pattern, h := range s.Routes() {
		mux.Handle(pattern, h)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.calls.Add(1)
		if h := b.trouble.Load(); h != nil {
			(*h)(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	b.url = srv.URL
	return b
}

// answer makes the backend answer everything with a code; 0 ends the trouble.
func (b *backend) answer(code int, header ...string) {
	if code == 0 {
		b.trouble.Store(nil)
		return
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		http.Error(w, "trouble", code)
	})
	b.trouble.Store(&h)
}

func (b *backend) lines(t *testing.T, tenant telemetry.Tenant) (lines []string) {
	t.Helper()
	v, err := b.store.View(t.Context(), 0)
	require.NoError(t, err)
	defer v.Close()
	for blk, err := range v.Logs(t.Context(), storage.LogQuery{Tenant: tenant, Start: 0, End: 1 << 62, Columns: storage.LogAll, Order: storage.OldestFirst}) {
		require.NoError(t, err)
		for i := range blk.Len() {
			lines = append(lines, blk.Body[i].Str())
		}
	}
	return lines
}

func client(t *testing.T, url string, log *bytes.Buffer, change ...func(*forward.Config)) *forward.Client {
	t.Helper()
	cfg := forward.DefaultConfig()
	cfg.Endpoint = url
	for _, f := range change {
		f(&cfg)
	}
	require.NoError(t, cfg.Validate())
	h := slog.DiscardHandler
	if log != nil {
		h = slog.NewTextHandler(log, nil)
	}
	c, err := forward.NewClient(cfg, time.Now, slog.New(h), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// line is a request with one numbered line.
func line(t require.TestingT, c *forward.Client, tenant telemetry.Tenant, n int) forward.Request {
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	rl.Resource().Attributes().PutStr("service.name", "s")
	lr := rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
	lr.SetTimestamp(pcommon.Timestamp(1_000_000 + n))
	lr.Body().SetStr(fmt.Sprintf("line %05d", n))
	body, err := plogotlp.NewExportRequestFromLogs(ld).MarshalProto()
	require.NoError(t, err)
	return forward.Request{Signal: storage.Logs, Tenant: tenant, Body: c.Compress(body), Records: 1}
}

func TestDeliver(t *testing.T) {
	b := newBackend(t)
	var log bytes.Buffer
	c := client(t, b.url, &log)
	require.NoError(t, c.Deliver(t.Context(), line(t, c, "a", 1)))
	require.Equal(t, []string{"line 00001"}, b.lines(t, "a"))
	require.Empty(t, b.lines(t, "default"))

	for _, code := range []int{400, 413, 415, 422} {
		b.answer(code)
		err := c.Deliver(t.Context(), line(t, c, "a", 2))
		var refused *forward.Refused
		require.ErrorAs(t, err, &refused)
		require.Equal(t, code, refused.Code)
		require.ErrorContains(t, err, "trouble")
	}
	for _, code := range []int{401, 403, 404, 408, 429, 500, 502, 503, 504} {
		b.answer(code)
		before := b.calls.Load()
		done, r := make(chan error, 1), line(t, c, "a", code)
		go func() { done <- c.Deliver(t.Context(), r) }()
		require.Eventually(t, func() bool { return b.calls.Load() > before+1 }, 20*time.Second, time.Millisecond, "%d is tried again", code)
		b.answer(0)
		require.NoError(t, <-done)
	}
	require.Len(t, b.lines(t, "a"), 10)
	require.Equal(t, 1, strings.Count(log.String(), "backend answered with code 401"), "the log is not flooded")
	require.Contains(t, log.String(), "takes what is sent again")
}

func TestDeliverEndsWithContext(t *testing.T) {
	b := newBackend(t)
	b.answer(503, "Retry-After", "30")
	c := client(t, b.url, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done, r := make(chan error, 1), line(t, c, "a", 1)
	go func() { done <- c.Deliver(ctx, r) }()
	require.Eventually(t, func() bool { return b.calls.Load() == 1 }, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.EqualValues(t, 1, b.calls.Load(), "Retry-After is honoured")
}

// TestHangingBackend has one that takes the request and never answers.
func TestHangingBackend(t *testing.T) {
	b := newBackend(t)
	stop := make(chan struct{})
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
		case <-stop:
		}
	})
	b.trouble.Store(&h)
	defer close(stop)
	c := client(t, b.url, nil, func(c *forward.Config) { c.Timeout = 50_000_000 })
	done, r := make(chan error, 1), line(t, c, "a", 1)
	go func() { done <- c.Deliver(t.Context(), r) }()
	require.Eventually(t, func() bool { return b.calls.Load() > 1 }, 20*time.Second, time.Millisecond)
	b.answer(0)
	require.NoError(t, <-done)
	require.Len(t, b.lines(t, "a"), 1)
}

// queue opens a queue and runs it until the returned func is called.
func queue(t *testing.T, fs vfs.FS, c *forward.Client) (*forward.Queue, func()) {
	t.Helper()
	q, err := forward.OpenQueue(t.Context(), forward.QueueOptions{
		FS: fs, Dir: "state/queue", Max: 1 << 30, Now: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}, c)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	return q, func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, q.Close())
	}
}

func TestQueue(t *testing.T) {
	b := newBackend(t)
	c := client(t, b.url, nil)
	disk := vfs.NewMem()
	require.NoError(t, vfs.MkdirAllSync(disk, "state/queue"))
	q, stop := queue(t, disk, c)
	for n := range 20 {
		require.NoError(t, q.Put(t.Context(), line(t, c, "a", n)))
	}
	require.Eventually(t, func() bool { return q.Waiting() == 0 }, 20*time.Second, time.Millisecond)
	require.Len(t, b.lines(t, "a"), 20)

	b.answer(503)
	calls := b.calls.Load()
	for n := range 30 {
		require.NoError(t, q.Put(t.Context(), line(t, c, "a", 20+n)))
		if n%10 == 0 {
			require.NoError(t, q.Put(t.Context(), line(t, c, "b", n)))
		}
	}
	require.Eventually(t, func() bool { return b.calls.Load() > calls }, 20*time.Second, time.Millisecond)
	require.Equal(t, 33, q.Waiting())
	stop()
	require.ErrorContains(t, q.Put(t.Context(), line(t, c, "a", 1)), "stopping")

	b.answer(0)
	q, stop = queue(t, disk, c)
	require.Eventually(t, func() bool { return q.Waiting() == 0 }, 20*time.Second, time.Millisecond)
	stop()
	lines := b.lines(t, "a")
	require.Len(t, lines, 50)
	seen := map[string]bool{}
	for _, l := range lines {
		require.False(t, seen[l], l)
		seen[l] = true
	}
	require.Len(t, b.lines(t, "b"), 3)
}

func TestQueueIsBounded(t *testing.T) {
	b := newBackend(t)
	b.answer(503)
	c := client(t, b.url, nil)
	reg := prometheus.NewRegistry()
	disk := vfs.NewMem()
	require.NoError(t, vfs.MkdirAllSync(disk, "state/queue"))
	q, err := forward.OpenQueue(t.Context(), forward.QueueOptions{
		FS: disk, Dir: "state/queue", Max: 1 << 20, Now: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: reg,
	}, c)
	require.NoError(t, err)
	defer q.Close()
	r := line(t, c, "a", 1)
	r.Body = make([]byte, 300<<10)
	for range 3 {
		require.NoError(t, q.Put(t.Context(), r))
	}
	err = q.Put(t.Context(), r)
	require.ErrorContains(t, err, "backend.max_queue (1MiB)")
	var e *httpapi.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, httpapi.Overloaded, e.Kind)
}

// TestQueueDropsPoison has a request in the middle that the backend refuses.
func TestQueueDropsPoison(t *testing.T) {
	b := newBackend(t)
	c := client(t, b.url, nil)
	disk := vfs.NewMem()
	require.NoError(t, vfs.MkdirAllSync(disk, "state/queue"))
	b.answer(503)
	q, stop := queue(t, disk, c)
	require.NoError(t, q.Put(t.Context(), line(t, c, "a", 1)))
	require.NoError(t, q.Put(t.Context(), forward.Request{Signal: storage.Traces, Tenant: "a", Body: c.Compress([]byte("\x0a\xff")), Records: 3}))
	require.NoError(t, q.Put(t.Context(), line(t, c, "a", 2)))
	b.answer(0)
	require.Eventually(t, func() bool { return q.Waiting() == 0 }, 20*time.Second, time.Millisecond)
	stop()
	require.Len(t, b.lines(t, "a"), 2)
}

// TestQueueIsExact crashes the machine at random while the backend comes and goes: what Put returned for is stored, and
// nothing twice.
func TestQueueIsExact(t *testing.T) {
	for seed := range uint64(15) {
		rng := rand.New(rand.NewPCG(seed, 3))
		b := newBackend(t)
		c := client(t, b.url, nil, func(c *forward.Config) { c.Timeout = 2_000_000_000 })
		disk := vfs.NewMem()
		require.NoError(t, vfs.MkdirAllSync(disk, "state/queue"))
		var put []int
		n := 0
		for range 3 {
			crash := vfs.CrashAt(disk, 20+rng.Uint64N(200), rand.New(rand.NewPCG(seed, rng.Uint64()))) // it crashes in another goroutine
			q, err := forward.OpenQueue(t.Context(), forward.QueueOptions{
				FS: vfs.NewFault(disk, crash.Hook), Dir: "state/queue", Max: 1 << 30, Now: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
			}, c)
			if err == nil {
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- q.Run(ctx) }()
				for range 40 {
					if rng.IntN(6) == 0 {
						b.answer([]int{0, 503}[rng.IntN(2)])
					}
					var wg sync.WaitGroup
					ok := make([]bool, 1+rng.IntN(3))
					for i := range ok {
						wg.Go(func() { ok[i] = q.Put(t.Context(), line(t, c, "a", n+i)) == nil })
					}
					wg.Wait()
					for i := range ok {
						if ok[i] {
							put = append(put, n+i)
						}
					}
					n += len(ok)
				}
				cancel()
				if err := <-done; err != nil {
					require.ErrorIs(t, err, vfs.ErrCrashed)
				}
				_ = q.Close()
			}
			disk = crash.Disk()
		}
		b.answer(0)
		q, stop := queue(t, disk, c)
		require.Eventually(t, func() bool { return q.Waiting() == 0 }, 20*time.Second, time.Millisecond)
		stop()
		times := map[string]int{}
		for _, l := range b.lines(t, "a") {
			times[l]++
			require.Equal(t, 1, times[l], "seed %d: %s", seed, l)
		}
		for _, n := range put {
			require.Equal(t, 1, times[fmt.Sprintf("line %05d", n)], "seed %d: line %d was acknowledged", seed, n)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		change func(*forward.Config)
		want   string
	}{
		{func(c *forward.Config) { c.Endpoint = "braid:4318" }, "endpoint"},
		{func(c *forward.Config) { c.Endpoint = "http://a:b@braid:4318" }, "must not hold a password"},
		{func(c *forward.Config) { c.Endpoint = "http://braid:4318/v1/logs" }, "must end before /v1/logs"},
		{func(c *forward.Config) { c.Endpoint = "http://braid:4318?x=1" }, "must end with the path"},
		{func(c *forward.Config) { c.Tenant = "a b" }, "legal name"},
		{func(c *forward.Config) { c.CertFile = "x" }, "needs key_file"},
		{func(c *forward.Config) { c.Timeout = 0 }, "timeout"},
		{func(c *forward.Config) { c.MaxQueue = 1 }, "at least 8MiB"},
	} {
		cfg := forward.DefaultConfig()
		require.NoError(t, cfg.Validate())
		tt.change(&cfg)
		require.ErrorContains(t, cfg.Validate(), tt.want)
	}
	cfg := forward.DefaultConfig()
	cfg.CAFile = filepath.Join(t.TempDir(), "none.pem")
	_, err := forward.NewClient(cfg, time.Now, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.ErrorContains(t, err, "backend.ca_file")
}

func FuzzQueued(f *testing.F) {
	f.Add(forward.AppendRequest(nil, forward.Request{Signal: storage.Traces, Tenant: "a", Records: 5, Body: []byte("body")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := forward.DecodeRequest(b)
		if err != nil {
			return
		}
		again, err := forward.DecodeRequest(forward.AppendRequest(nil, r))
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}
