package shop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/bench/shop"
	"github.com/braidobs/braid/bench/shop/fault"
	"github.com/braidobs/braid/bench/shop/host"
	"github.com/braidobs/braid/bench/shop/runner"
)

const (
	limit = 30 * time.Second
	poll  = 20 * time.Millisecond
)

var binary struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if binary.dir != "" {
			_ = os.RemoveAll(binary.dir)
		}
		os.Exit(code)
	}))
}

// build returns the path of the shop binary.
func build(t *testing.T) string {
	t.Helper()
	binary.once.Do(func() {
		if binary.dir, binary.err = os.MkdirTemp("", "shop"); binary.err != nil { //nolint:usetesting // all tests share it
			return
		}
		out, err := exec.Command("go", "build", "-o", filepath.Join(binary.dir, "shop"), "./cmd/shop").CombinedOutput()
		if err != nil {
			binary.err = fmt.Errorf("build shop: %w\n%s", err, out)
		}
	})
	require.NoError(t, binary.err)
	return filepath.Join(binary.dir, "shop")
}

func newClient(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: limit}
}

func get(t *testing.T, c *http.Client, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return do(t, c, req)
}

func checkout(t *testing.T, c *http.Client, base, user string) int {
	t.Helper()
	body := fmt.Sprintf(`{"user":%q,"items":[{"product":"p01","quantity":2},{"product":"p07","quantity":1}]}`, user)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/checkout", strings.NewReader(body))
	require.NoError(t, err)
	code, _ := do(t, c, req)
	return code
}

func do(t *testing.T, c *http.Client, req *http.Request) (int, string) {
	t.Helper()
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

// path names the spans from a span up to its root.
func path(spans []span, leaf span) []string {
	byID := map[pcommon.SpanID]span{}
	for _, s := range spans {
		byID[s.SpanID()] = s
	}
	var out []string
	for s, ok := leaf, true; ok; s, ok = byID[s.ParentSpanID()] {
		out = append(out, fmt.Sprintf("%s %s %s", s.service, s.Kind(), s.Name()))
	}
	return out
}

func find(spans []span, service, name string) (span, bool) {
	i := slices.IndexFunc(spans, func(s span) bool { return s.service == service && s.Name() == name })
	if i < 0 {
		return span{}, false
	}
	return spans[i], true
}

func (s span) duration() time.Duration {
	return s.EndTimestamp().AsTime().Sub(s.StartTimestamp().AsTime())
}

// waitSpan waits until the trace of the user's checkout has the named span.
func waitSpan(t *testing.T, r *receiver, user, service, name string) span {
	t.Helper()
	var found span
	require.Eventually(t, func() bool {
		var ok bool
		found, ok = find(r.trace(user), service, name)
		return ok
	}, limit, poll, "span %s of %s", name, service)
	return found
}

func waitLog(t *testing.T, r *receiver, service, body string, trace pcommon.TraceID) plog.LogRecord {
	t.Helper()
	var rec plog.LogRecord
	require.Eventually(t, func() bool {
		var ok bool
		rec, ok = r.log(service, body, trace)
		return ok
	}, limit, poll, "log %q of %s in the trace", body, service)
	return rec
}

func waitMetric(t *testing.T, r *receiver, service, name string) pmetric.Metric {
	t.Helper()
	var m pmetric.Metric
	require.Eventually(t, func() bool {
		var ok bool
		m, ok = r.metric(service, name)
		return ok
	}, limit, poll, "metric %s of %s", name, service)
	return m
}

// logs collects what the processes write, for the report of a failure.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// TestProcesses runs the shop as it runs in the demo: a process per service, over real sockets.
func TestProcesses(t *testing.T) {
	r, client := startReceiver(t), newClient(t)
	var stderr logs
	s, err := runner.Start(t.Context(), runner.Options{
		Binary: build(t), OTLPGRPC: r.grpcAddr, OTLPHTTP: r.httpAddr, RPS: 20, Canary: true,
		MetricInterval: 200 * time.Millisecond, Stderr: &stderr, Args: []string{"-batch-delay", "100ms"},
	})
	require.NoError(t, err)
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			_ = s.Stop(context.Background())
		}
		if t.Failed() {
			t.Log(stderr.String())
		}
	})

	t.Run("trace", func(t *testing.T) {
		require.Equal(t, http.StatusOK, checkout(t, client, s.FrontendURL(), "alice"))
		var spans []span
		require.Eventually(t, func() bool { // client spans arrive after the server spans below them
			spans = r.trace("alice")
			return len(spans) == 19
		}, limit, poll)
		insert, ok := find(spans, "database", "INSERT orders")
		require.True(t, ok)
		require.Equal(t, []string{
			"database Internal INSERT orders",
			"database Server shop.v1.Database/Query",
			"checkout Client shop.v1.Database/Query",
			"checkout Server shop.v1.Checkout/PlaceOrder",
			"frontend Client shop.v1.Checkout/PlaceOrder",
			"frontend Server POST /checkout",
		}, path(spans, insert))
		read, ok := find(spans, "cart", "GET /cart/{user}")
		require.True(t, ok)
		require.Equal(t, []string{
			"cart Server GET /cart/{user}",
			"checkout Client HTTP GET",
			"checkout Server shop.v1.Checkout/PlaceOrder",
			"frontend Client shop.v1.Checkout/PlaceOrder",
			"frontend Server POST /checkout",
		}, path(spans, read))
		put, ok := find(spans, "cart", "PUT /cart/{user}")
		require.True(t, ok)
		require.Equal(t, []string{
			"cart Server PUT /cart/{user}", "frontend Client HTTP PUT", "frontend Server POST /checkout",
		}, path(spans, put))
		for _, s := range spans {
			require.NotEqual(t, ptrace.StatusCodeError, s.Status().Code(), s.Name())
		}
		for key, want := range map[string]string{
			"db.system": "other_sql", "db.system.name": "other_sql", "db.operation.name": "INSERT",
			"db.query.text": "INSERT INTO orders (user_id, total_cents) VALUES ($1, $2) RETURNING id",
		} {
			got, _ := insert.Attributes().Get(key)
			require.Equal(t, want, got.Str(), key)
		}
		for service, body := range map[string]string{
			"frontend": "checkout done", "cart": "cart saved", "checkout": "order placed", "database": "query executed",
		} {
			require.Equal(t, plog.SeverityNumberInfo, waitLog(t, r, service, body, insert.TraceID()).SeverityNumber())
		}
	})

	t.Run("metrics", func(t *testing.T) {
		for service, names := range map[string][]string{
			"frontend": {"http.server.request.duration", "http.client.request.duration", "product.views"},
			"cart":     {"http.server.request.duration", "cart.items"},
			"checkout": {"rpc.server.call.duration", "rpc.server.duration", "rpc.client.call.duration", "orders", "order.value"},
			"database": {"rpc.server.call.duration", "rpc.server.duration", "db.client.operation.duration"},
		} {
			for _, name := range append(names, "process.cpu.time", "process.memory.usage", "container.cpu.usage",
				"container.memory.working_set", "go.memory.used", "go.goroutine.count") {
				waitMetric(t, r, service, name)
			}
		}
		require.Equal(t, pmetric.MetricTypeExponentialHistogram, waitMetric(t, r, "database", "db.client.operation.duration").Type())
		request := waitMetric(t, r, "cart", "http.server.request.duration")
		require.Equal(t, pmetric.AggregationTemporalityDelta, request.Histogram().AggregationTemporality())
		request = waitMetric(t, r, "frontend", "http.server.request.duration")
		require.Equal(t, pmetric.AggregationTemporalityCumulative, request.Histogram().AggregationTemporality())
		route, _ := request.Histogram().DataPoints().At(0).Attributes().Get("http.route")
		require.NotEmpty(t, route.Str())
		orders := waitMetric(t, r, "checkout", "orders")
		require.True(t, orders.Sum().IsMonotonic())
		guide, err := os.ReadFile(filepath.FromSlash("../../docs/guides/shop.md"))
		require.NoError(t, err)
		for _, name := range r.metricNames() {
			require.Contains(t, string(guide), "`"+name+"`", "the guide lists what is emitted")
		}
	})

	t.Run("transports", func(t *testing.T) {
		for service, via := range map[string]string{
			"frontend": "grpc", "cart": "http application/x-protobuf gzip",
			"checkout": "http application/json", "database": "grpc gzip",
		} {
			require.Eventually(t, func() bool { return len(r.via(service)) == 3 }, limit, poll, service)
			require.Equal(t, []string{"logs " + via, "metrics " + via, "traces " + via}, r.via(service), service)
		}
	})

	t.Run("resources", func(t *testing.T) {
		require.Eventually(t, func() bool { return len(r.pods("checkout")) == 2 }, limit, poll)
		seen := map[any]bool{}
		for service, pods := range map[string]int{"frontend": 1, "cart": 1, "checkout": 2, "database": 1} {
			got := r.pods(service)
			require.Len(t, got, pods, service) // one resource for all signals of a pod
			for _, attrs := range got {
				require.Equal(t, []string{
					"deployment.environment.name", "k8s.cluster.name", "k8s.container.name", "k8s.deployment.name",
					"k8s.namespace.name", "k8s.node.name", "k8s.pod.name", "k8s.pod.uid", "service.instance.id",
					"service.name", "service.version", "telemetry.sdk.language", "telemetry.sdk.name", "telemetry.sdk.version",
				}, slices.Sorted(maps.Keys(attrs)))
				require.Equal(t, "demo", attrs["k8s.cluster.name"])
				require.Equal(t, "shop", attrs["k8s.namespace.name"])
				for _, unique := range []string{"k8s.pod.name", "k8s.pod.uid", "service.instance.id"} {
					require.False(t, seen[attrs[unique]], unique)
					seen[attrs[unique]] = true
				}
			}
		}
	})

	t.Run("prometheus", func(t *testing.T) {
		code, body := get(t, client, s.MetricsURL(), "Accept", "application/openmetrics-text; version=1.0.0")
		require.Equal(t, http.StatusOK, code)
		require.Regexp(t, `shop_database_queries_total\{code="OK",statement="insert_order"\} [1-9]`, body)
		require.Regexp(t, `shop_database_query_duration_seconds_bucket\{.*# \{trace_id="[0-9a-f]{32}"\}`, body)
		require.Contains(t, body, "process_resident_memory_bytes")
	})

	t.Run("slow_database", func(t *testing.T) {
		st, err := s.Inject(t.Context(), runner.Database, fault.Fault{
			Kind: fault.SlowDatabase, Delay: fault.Duration(600 * time.Millisecond), Query: "insert_order",
		})
		require.NoError(t, err)
		require.Len(t, st.Faults, 1)
		require.InDelta(t, 1, st.Faults[0].Ratio, 0)
		require.Equal(t, http.StatusOK, checkout(t, client, s.FrontendURL(), "bob"))
		insert := waitSpan(t, r, "bob", "database", "INSERT orders")
		require.Greater(t, insert.duration(), 600*time.Millisecond)
		require.Equal(t, plog.SeverityNumberWarn, waitLog(t, r, "database", "slow query", insert.TraceID()).SeverityNumber())
		require.Equal(t, plog.SeverityNumberWarn,
			waitLog(t, r, "checkout", "checkout took too long", insert.TraceID()).SeverityNumber())

		require.NoError(t, s.ClearFaults(t.Context(), runner.Database))
		st, err = s.Faults(t.Context(), runner.Database)
		require.NoError(t, err)
		require.Empty(t, st.Faults)
		_, err = s.Inject(t.Context(), runner.Cart, fault.Fault{Kind: fault.SlowDatabase})
		require.ErrorContains(t, err, "a cart cannot do slow_database")
	})

	t.Run("error_burst in one version", func(t *testing.T) {
		for _, name := range []string{runner.Checkout, runner.CheckoutCanary} {
			_, err := s.Inject(t.Context(), name, fault.Fault{Kind: fault.ErrorBurst, Version: "1.1.0"})
			require.NoError(t, err)
		}
		failed := ""
		for i := range 50 { // load takes turns too: which pod gets a request is open
			user := fmt.Sprintf("carol%d", i)
			if checkout(t, client, s.FrontendURL(), user) == http.StatusInternalServerError {
				failed = user
				break
			}
		}
		require.NotEmpty(t, failed)
		call := waitSpan(t, r, failed, "checkout", "shop.v1.Checkout/PlaceOrder")
		require.Equal(t, "1.1.0", call.version)
		require.Equal(t, ptrace.StatusCodeError, call.Status().Code())
		rec := waitLog(t, r, "checkout", "request failed", call.TraceID())
		require.Equal(t, plog.SeverityNumberError, rec.SeverityNumber())
		stack, _ := rec.Attributes().Get("exception.stacktrace")
		require.Contains(t, stack.Str(), "fault.(*Switch)")
		message, _ := rec.Attributes().Get("exception.message")
		require.Contains(t, message.Str(), "price rounding")
		root := waitSpan(t, r, failed, "frontend", "POST /checkout")
		require.Equal(t, ptrace.StatusCodeError, root.Status().Code())
		waitLog(t, r, "frontend", "request failed", call.TraceID())
		require.NoError(t, s.ClearFaults(t.Context(), runner.CheckoutCanary))
	})

	t.Run("leaking_pod", func(t *testing.T) {
		used := func() int64 {
			m := waitMetric(t, r, "cart", "container.memory.working_set")
			return m.Sum().DataPoints().At(0).IntValue()
		}
		before := used()
		_, err := s.Inject(t.Context(), runner.Cart, fault.Fault{Kind: fault.LeakingPod, Rate: 320 << 20, Limit: 64 << 20})
		require.NoError(t, err)
		require.Eventually(t, func() bool { return used() > before+48<<20 }, limit, poll)
		require.NoError(t, s.ClearFaults(t.Context(), runner.Cart))
		require.Eventually(t, func() bool {
			st, err := s.Faults(t.Context(), runner.Cart)
			return err == nil && st.Leaked == 0
		}, limit, poll)
	})

	t.Run("stop", func(t *testing.T) {
		select {
		case <-s.Failed():
			t.Error("a process has ended by itself")
		default:
		}
		procs := s.Processes()
		require.Len(t, procs, 6)
		require.Equal(t, http.StatusOK, checkout(t, client, s.FrontendURL(), "last"))
		stopped = true
		require.NoError(t, s.Stop(t.Context()))
		for _, p := range procs {
			require.ErrorIs(t, syscall.Kill(p.PID, 0), syscall.ESRCH, p.Name)
		}
		_, ok := find(r.trace("last"), "frontend", "POST /checkout")
		require.True(t, ok, "what was buffered at the stop has been exported")
		sum, ok := s.LoadSummary()
		require.True(t, ok)
		require.Positive(t, sum.Orders)
		require.Zero(t, sum.Failed, sum.Error)
	})
}

// TestAll runs all services in this process, and stops them without leaving a goroutine.
func TestAll(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("run", func(t *testing.T) {
		r := startReceiver(t)
		cfg := shop.DefaultConfig()
		cfg.Role, cfg.OTLPGRPC, cfg.OTLPHTTP = shop.All, r.grpcAddr, r.httpAddr
		cfg.MetricInterval, cfg.BatchDelay = 100*time.Millisecond, 50*time.Millisecond
		cfg.LogMirror, cfg.Load.RPS = true, 50
		var stdout, stderr logs
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- shop.Run(ctx, cfg, shop.Env{Stdout: &stdout, Stderr: &stderr, Now: time.Now}) }()
		require.Eventually(t, func() bool {
			for _, service := range []string{"frontend", "cart", "checkout", "database"} {
				if len(r.via(service)) != 3 {
					return false
				}
			}
			return true
		}, limit, poll)
		cancel()
		require.NoError(t, <-done)

		var roles []string
		for line := range strings.Lines(stdout.String()) {
			var ready host.Ready
			require.NoError(t, json.Unmarshal([]byte(line), &ready))
			roles = append(roles, ready.Role)
		}
		require.Equal(t, []string{"database", "cart", "checkout", "frontend", "load", "load"}, roles)
		require.Regexp(t, `"msg":"order placed".*"pod":"checkout-[a-z0-9]+-[a-z0-9]{5}".*"trace_id":"[0-9a-f]{32}"`, stderr.String())
	})
}

// TestStopsWithoutReceiver checks that an endpoint that is down, or accepts and never answers, does not hold the shop.
func TestStopsWithoutReceiver(t *testing.T) {
	silent := startSilent(t)
	for name, tc := range map[string]struct {
		addr string
		stop func(cmd *exec.Cmd, stdin io.Closer) error
	}{
		"refused, SIGTERM":    {"127.0.0.1:1", func(c *exec.Cmd, _ io.Closer) error { return c.Process.Signal(syscall.SIGTERM) }},
		"silent, SIGINT":      {silent, func(c *exec.Cmd, _ io.Closer) error { return c.Process.Signal(os.Interrupt) }},
		"refused, stdin ends": {"127.0.0.1:1", func(_ *exec.Cmd, stdin io.Closer) error { return stdin.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout logs
			cmd := exec.CommandContext(t.Context(), build(t), "-role=all", "-rps=50", "-grace=1s", "-metric-interval=100ms",
				"-batch-delay=50ms", "-stop-with-stdin", "-otlp-grpc="+tc.addr, "-otlp-http="+tc.addr)
			cmd.Stdout = &stdout
			stdin, err := cmd.StdinPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			require.Eventually(t, func() bool { return strings.Contains(stdout.String(), `"role":"load"`) }, limit, poll)
			require.NoError(t, tc.stop(cmd, stdin))
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			select {
			case err := <-done:
				require.NoError(t, err)
			case <-time.After(limit):
				t.Error("the shop hangs")
				require.NoError(t, cmd.Process.Kill())
				require.Error(t, <-done)
			}
		})
	}
}

// TestRunnerFailures checks that a shop that cannot start, or loses a process, says so and leaves nothing behind.
func TestRunnerFailures(t *testing.T) {
	t.Run("does not start", func(t *testing.T) {
		var stderr logs
		_, err := runner.Start(t.Context(), runner.Options{
			Binary: build(t), OTLPGRPC: "127.0.0.1:1", OTLPHTTP: "no port", Stderr: &stderr,
		})
		require.ErrorContains(t, err, "database ended before it was ready")
		require.Contains(t, stderr.String(), `otlp-http: "no port" is not host:port`)
	})
	t.Run("loses a process", func(t *testing.T) {
		s, err := runner.Start(t.Context(), runner.Options{
			Binary: build(t), OTLPGRPC: "127.0.0.1:1", OTLPHTTP: "127.0.0.1:1", Args: []string{"-grace", "500ms"},
		})
		require.NoError(t, err)
		i := slices.IndexFunc(s.Processes(), func(p runner.Process) bool { return p.Name == runner.Cart })
		require.NoError(t, syscall.Kill(s.Processes()[i].PID, syscall.SIGKILL))
		select {
		case <-s.Failed():
		case <-time.After(limit):
			t.Error("nobody noticed")
		}
		err = s.Stop(t.Context())
		require.ErrorContains(t, err, "stop cart")
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	})
}

func TestConfigValidate(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*shop.Config)
		want []string // nil: valid
	}{
		{"all", func(c *shop.Config) { c.Role = shop.All }, nil},
		{"cart", func(c *shop.Config) { c.Role = shop.Cart }, nil},
		{"no role", func(*shop.Config) {}, []string{`role: "" is not one of cart, checkout, database, frontend, load, all`}},
		{"frontend without peers", func(c *shop.Config) { c.Role = shop.Frontend }, []string{"cart: ", "database: ", "checkout: must be set"}},
		{"load without rate", func(c *shop.Config) { c.Role, c.Load.RPS, c.Load.Target = shop.Load, 0, "127.0.0.1:1" }, []string{"rps: must be positive"}},
		{"intervals", func(c *shop.Config) { c.Role, c.MetricInterval, c.Grace = shop.Cart, 0, -1 }, []string{"metric-interval: ", "grace: "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := shop.DefaultConfig()
			tc.edit(&cfg)
			err := cfg.Validate()
			if tc.want == nil {
				require.NoError(t, err)
			}
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}
