package shop_test

import (
	"compress/gzip"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/stats"
)

// receiver is an OTLP receiver over gRPC and HTTP that keeps everything.
type receiver struct {
	grpcAddr, httpAddr string

	mu         sync.Mutex // guards the rest
	spans      []span
	logs       []logRecord
	metrics    []point
	transports map[string]map[string]bool // service -> "signal transport"
	resources  map[string][]map[string]any
}

type span struct {
	service, version string
	ptrace.Span
}

type logRecord struct {
	service string
	plog.LogRecord
}

// point is one metric of one export.
type point struct {
	service string
	pmetric.Metric
}

// startReceiver listens on free ports; the test's end stops it.
func startReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{transports: map[string]map[string]bool{}, resources: map[string][]map[string]any{}}
	var lc net.ListenConfig
	gl, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	hl, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.grpcAddr, r.httpAddr = gl.Addr().String(), hl.Addr().String()

	gs := grpc.NewServer(grpc.StatsHandler(compression{}))
	ptraceotlp.RegisterGRPCServer(gs, &traceServer{r: r})
	pmetricotlp.RegisterGRPCServer(gs, &metricServer{r: r})
	plogotlp.RegisterGRPCServer(gs, &logServer{r: r})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", handle(ptraceotlp.NewExportRequest, func(q ptraceotlp.ExportRequest, via string) wireMessage {
		r.addTraces(q.Traces(), via)
		return ptraceotlp.NewExportResponse()
	}))
	mux.HandleFunc("POST /v1/metrics", handle(pmetricotlp.NewExportRequest, func(q pmetricotlp.ExportRequest, via string) wireMessage {
		r.addMetrics(q.Metrics(), via)
		return pmetricotlp.NewExportResponse()
	}))
	mux.HandleFunc("POST /v1/logs", handle(plogotlp.NewExportRequest, func(q plogotlp.ExportRequest, via string) wireMessage {
		r.addLogs(q.Logs(), via)
		return plogotlp.NewExportResponse()
	}))
	hs := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	var wg sync.WaitGroup
	wg.Go(func() { _ = gs.Serve(gl) })
	wg.Go(func() { _ = hs.Serve(hl) })
	t.Cleanup(func() {
		gs.Stop()
		_ = hs.Close()
		wg.Wait()
	})
	return r
}

// wireMessage is what the OTLP requests and responses of pdata have in common.
type wireMessage interface {
	MarshalProto() ([]byte, error)
	MarshalJSON() ([]byte, error)
	UnmarshalProto([]byte) error
	UnmarshalJSON([]byte) error
}

func handle[Q wireMessage](fresh func() Q, add func(Q, string) wireMessage) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		kind, encoding := r.Header.Get("Content-Type"), r.Header.Get("Content-Encoding")
		var body io.Reader = r.Body
		via := "http " + kind
		if encoding == "gzip" {
			gz, err := gzip.NewReader(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			body, via = gz, via+" gzip"
		}
		b, err := io.ReadAll(body)
		q := fresh()
		decode, encode := q.UnmarshalProto, wireMessage.MarshalProto
		if kind == "application/json" {
			decode, encode = q.UnmarshalJSON, wireMessage.MarshalJSON
		}
		if err == nil {
			err = decode(b)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b, err = encode(add(q, via))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(b)
	}
}

type traceServer struct {
	ptraceotlp.UnimplementedGRPCServer
	r *receiver
}

func (s *traceServer) Export(ctx context.Context, q ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	s.r.addTraces(q.Traces(), grpcVia(ctx))
	return ptraceotlp.NewExportResponse(), nil
}

type metricServer struct {
	pmetricotlp.UnimplementedGRPCServer
	r *receiver
}

func (s *metricServer) Export(ctx context.Context, q pmetricotlp.ExportRequest) (pmetricotlp.ExportResponse, error) {
	s.r.addMetrics(q.Metrics(), grpcVia(ctx))
	return pmetricotlp.NewExportResponse(), nil
}

type logServer struct {
	plogotlp.UnimplementedGRPCServer
	r *receiver
}

func (s *logServer) Export(ctx context.Context, q plogotlp.ExportRequest) (plogotlp.ExportResponse, error) {
	s.r.addLogs(q.Logs(), grpcVia(ctx))
	return plogotlp.NewExportResponse(), nil
}

func (r *receiver) addTraces(d ptrace.Traces, via string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range d.ResourceSpans().All() {
		service := r.saw(rs.Resource(), "traces", via)
		version, _ := rs.Resource().Attributes().Get("service.version")
		for _, ss := range rs.ScopeSpans().All() {
			for _, s := range ss.Spans().All() {
				r.spans = append(r.spans, span{service, version.Str(), s})
			}
		}
	}
}

func (r *receiver) addMetrics(d pmetric.Metrics, via string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rm := range d.ResourceMetrics().All() {
		service := r.saw(rm.Resource(), "metrics", via)
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				r.metrics = append(r.metrics, point{service, m})
			}
		}
	}
}

func (r *receiver) addLogs(d plog.Logs, via string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rl := range d.ResourceLogs().All() {
		service := r.saw(rl.Resource(), "logs", via)
		for _, sl := range rl.ScopeLogs().All() {
			for _, l := range sl.LogRecords().All() {
				r.logs = append(r.logs, logRecord{service, l})
			}
		}
	}
}

// saw notes who sent what over which transport, and returns the service; mu is held.
func (r *receiver) saw(res pcommon.Resource, signal, via string) string {
	name, _ := res.Attributes().Get("service.name")
	service := name.Str()
	if r.transports[service] == nil {
		r.transports[service] = map[string]bool{}
	}
	r.transports[service][signal+" "+via] = true
	attrs := res.Attributes().AsRaw()
	if !slices.ContainsFunc(r.resources[service], func(have map[string]any) bool { return maps.Equal(have, attrs) }) {
		r.resources[service] = append(r.resources[service], attrs)
	}
	return service
}

// trace returns the spans of the trace in which the frontend served the user's checkout.
func (r *receiver) trace(user string) []span {
	r.mu.Lock()
	defer r.mu.Unlock()
	var id pcommon.TraceID
	for _, s := range r.spans {
		if v, ok := s.Attributes().Get("app.user.id"); ok && v.Str() == user && s.service == "frontend" {
			id = s.TraceID()
		}
	}
	var out []span
	for _, s := range r.spans {
		if !id.IsEmpty() && s.TraceID() == id {
			out = append(out, s)
		}
	}
	return out
}

// log returns the first record of the service with that body in the trace.
func (r *receiver) log(service, body string, trace pcommon.TraceID) (plog.LogRecord, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.logs {
		if l.service == service && l.Body().AsString() == body && l.TraceID() == trace && !l.SpanID().IsEmpty() {
			return l.LogRecord, true
		}
	}
	return plog.LogRecord{}, false
}

// metric returns the latest export of a metric.
func (r *receiver) metric(service, name string) (pmetric.Metric, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range slices.Backward(r.metrics) {
		if m.service == service && m.Name() == name {
			return m.Metric, true
		}
	}
	return pmetric.Metric{}, false
}

// metricNames returns the names of all metrics, sorted.
func (r *receiver) metricNames() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := map[string]bool{}
	for _, m := range r.metrics {
		names[m.Name()] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// via returns what a service used, sorted.
func (r *receiver) via(service string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for v := range r.transports[service] {
		out = append(out, v)
	}
	slices.Sort(out)
	return out
}

// pods returns the distinct resources of a service.
func (r *receiver) pods(service string) []map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.resources[service])
}

type compressionKey struct{}

// compression makes the compression of a call known to its handler.
type compression struct{}

func (compression) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, compressionKey{}, new(string))
}

func (compression) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if h, ok := s.(*stats.InHeader); ok {
		*ctx.Value(compressionKey{}).(*string) = h.Compression
	}
}

func (compression) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (compression) HandleConn(context.Context, stats.ConnStats)                       {}

func grpcVia(ctx context.Context) string {
	if c := *ctx.Value(compressionKey{}).(*string); c != "" {
		return "grpc " + c
	}
	return "grpc"
}
