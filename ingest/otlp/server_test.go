package otlp_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

func TestMain(m *testing.M) {
	otlp.RegisterCompression()
	goleak.VerifyTestMain(m)
}

// now is the time of the tests.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// writer is a storage.Writer whose answers are told to it.
type writer struct {
	mu       sync.Mutex // guards what follows
	requests []storage.Request
	answer   func(ctx context.Context, r storage.Request) (storage.Rejected, error)
}

func (w *writer) Write(ctx context.Context, r storage.Request) (storage.Position, storage.Rejected, error) {
	w.mu.Lock()
	w.requests = append(w.requests, r)
	answer := w.answer
	w.mu.Unlock()
	if answer != nil {
		rejected, err := answer(ctx, r)
		return 0, rejected, err
	}
	return 0, r.Rejected, nil
}

// script sets the answer and forgets what was written.
func (w *writer) script(f func(ctx context.Context, r storage.Request) (storage.Rejected, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer, w.requests = f, nil
}

func (w *writer) written() []storage.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]storage.Request(nil), w.requests...)
}

// rig is both listeners over one writer.
type rig struct {
	writer *writer
	http   string // base URL
	grpc   string // address
	reg    *prometheus.Registry
}

func newRig(t *testing.T, change func(*ingest.Config, *otlp.Config)) *rig {
	t.Helper()
	return newForwardingRig(t, change, nil)
}

func newForwardingRig(
	t *testing.T, change func(*ingest.Config, *otlp.Config), forward func(context.Context, otlp.Payload) (storage.Rejected, error),
) *rig {
	t.Helper()
	ic, oc := ingest.DefaultConfig(), otlp.DefaultConfig()
	if change != nil {
		change(&ic, &oc)
	}
	require.NoError(t, ic.Validate())
	require.NoError(t, oc.Validate())
	r := &rig{writer: &writer{}, reg: prometheus.NewRegistry()}
	clock := func() time.Time { return now }
	s := otlp.New(oc, otlp.Deps{
		Pipeline: ingest.New(ic, ingest.Deps{Writer: r.writer, Now: clock, Metrics: r.reg}),
		Forward:  forward, Now: clock,
	})
	mux := http.NewServeMux()
	for _, routes := range []map[string]http.Handler{s.Routes(), s.Aliases()} {
		for pattern, h := range routes {
			mux.Handle(pattern, h)
		}
	}
	hs := httptest.NewServer(mux)
	t.Cleanup(hs.Close)
	r.http = hs.URL

	metrics := httpapi.NewMetrics(prometheus.NewRegistry(), clock)
	gs := grpc.NewServer(append(s.ServerOptions(), httpapi.GRPC{Surface: httpapi.Ingest, Metrics: metrics}.Options()...)...)
	s.Register(gs)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- gs.Serve(ln) }()
	t.Cleanup(func() {
		gs.Stop()
		require.NoError(t, <-done)
	})
	r.grpc = ln.Addr().String()
	return r
}

func (r *rig) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(r.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// reply is the answer to a request, read.
type reply struct {
	StatusCode int
	Header     http.Header
}

// post sends a body and returns the answer.
func (r *rig) post(t *testing.T, path, contentType, contentEncoding string, body []byte, header ...string) (reply, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.http+path, bytes.NewReader(body))
	require.NoError(t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if contentEncoding != "" {
		req.Header.Set("Content-Encoding", contentEncoding)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	out, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return reply{resp.StatusCode, resp.Header}, out
}

func compress(t *testing.T, enc string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch enc {
	case "gzip":
		w = gzip.NewWriter(&out)
	case "zstd":
		z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
		require.NoError(t, err)
		w = z
	default:
		return b
	}
	_, err := w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

var (
	traceID = pcommon.TraceID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	spanID  = pcommon.SpanID{1, 2, 3, 4, 5, 6, 7, 8}
)

func stamp(ago time.Duration) pcommon.Timestamp { return pcommon.NewTimestampFromTime(now.Add(-ago)) }

func fillResource(r pcommon.Resource) {
	r.Attributes().PutStr("service.name", "cart")
	r.Attributes().PutStr("service.namespace", "shop")
	r.Attributes().PutStr("service.instance.id", "cart-1")
	r.Attributes().PutStr("k8s.pod.name", "cart-7d9")
	r.Attributes().PutInt("process.pid", 42)
}

// traces returns a request with n spans.
func traces(n int) ptrace.Traces {
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	rs.SetSchemaUrl("https://opentelemetry.io/schemas/1.30.0")
	fillResource(rs.Resource())
	rs.Resource().SetDroppedAttributesCount(2)
	ss := rs.ScopeSpans().AppendEmpty()
	ss.SetSchemaUrl("https://example.org/scope")
	ss.Scope().SetName("lib")
	ss.Scope().SetVersion("1.0")
	ss.Scope().Attributes().PutBool("async", true)
	ss.Scope().SetDroppedAttributesCount(1)
	for i := range n {
		s := ss.Spans().AppendEmpty()
		s.SetTraceID(traceID)
		s.SetSpanID(pcommon.SpanID{1, byte(i >> 8), byte(i), 1})
		s.SetParentSpanID(spanID)
		s.SetName("GET /cart")
		s.SetKind(ptrace.SpanKindServer)
		s.SetStartTimestamp(stamp(time.Minute))
		s.SetEndTimestamp(stamp(time.Minute - time.Millisecond))
		s.TraceState().FromRaw("a=b")
		s.SetFlags(0x101)
		s.Status().SetCode(ptrace.StatusCodeError)
		s.Status().SetMessage("boom")
		s.SetDroppedAttributesCount(3)
		s.SetDroppedEventsCount(4)
		s.SetDroppedLinksCount(5)
		s.Attributes().PutStr("http.method", "GET")
		s.Attributes().PutDouble("ratio", 0.5)
		s.Attributes().PutEmptyBytes("raw").FromRaw([]byte{0, 255})
		s.Attributes().PutEmptySlice("list").AppendEmpty().SetInt(7)
		s.Attributes().PutEmptyMap("map").PutEmpty("empty")
		e := s.Events().AppendEmpty()
		e.SetName("exception")
		e.SetTimestamp(stamp(time.Minute))
		e.Attributes().PutStr("exception.type", "io")
		e.SetDroppedAttributesCount(6)
		l := s.Links().AppendEmpty()
		l.SetTraceID(traceID)
		l.SetSpanID(spanID)
		l.TraceState().FromRaw("c=d")
		l.SetFlags(1)
		l.Attributes().PutInt("n", 1)
		l.SetDroppedAttributesCount(7)
	}
	return td
}

// logs returns a request with n log records.
func logs(n int) plog.Logs {
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	fillResource(rl.Resource())
	sl := rl.ScopeLogs().AppendEmpty()
	for range n {
		r := sl.LogRecords().AppendEmpty()
		r.SetTimestamp(stamp(time.Minute))
		r.SetObservedTimestamp(stamp(time.Second))
		r.SetSeverityNumber(plog.SeverityNumberWarn)
		r.SetSeverityText("WARN")
		r.SetEventName("cart.full")
		r.Body().SetStr("the cart is full")
		r.SetTraceID(traceID)
		r.SetSpanID(spanID)
		r.SetFlags(1)
		r.SetDroppedAttributesCount(1)
		r.Attributes().PutInt("items", 99)
	}
	return ld
}

// gauges returns a request with n data points of a gauge.
func gauges(n int) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	fillResource(rm.Resource())
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("cart.items")
	m.SetUnit("{item}")
	m.SetDescription("Items in carts.")
	g := m.SetEmptyGauge()
	for i := range n {
		p := g.DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(time.Minute))
		p.SetDoubleValue(float64(i))
		p.Attributes().PutInt("shard", int64(i))
	}
	return md
}

// signalCase is one signal as a client sees it.
type signalCase struct {
	name     string
	path     string
	signal   storage.Signal
	proto    func(n int) []byte
	json     func(n int) []byte
	records  func(r storage.Request) int
	rejected func(n int) storage.Rejected
	// partial reads an answer.
	partial func(contentType string, body []byte) (int64, string, error)
	// export sends n records with gRPC.
	export func(ctx context.Context, c *grpc.ClientConn, n int, opts ...grpc.CallOption) (int64, string, error)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func signals() []signalCase {
	type response interface {
		UnmarshalProto(b []byte) error
		UnmarshalJSON(b []byte) error
	}
	read := func(r response, contentType string, body []byte) error {
		if contentType == "application/json" {
			return r.UnmarshalJSON(body)
		}
		return r.UnmarshalProto(body)
	}
	return []signalCase{
		{
			name: "traces", path: "/v1/traces", signal: storage.Traces,
			proto: func(n int) []byte { return must(ptraceotlp.NewExportRequestFromTraces(traces(n)).MarshalProto()) },
			json:  func(n int) []byte { return must(ptraceotlp.NewExportRequestFromTraces(traces(n)).MarshalJSON()) },
			records: func(r storage.Request) (n int) {
				for _, b := range r.Batches {
					n += len(b.Spans)
				}
				return n
			},
			rejected: func(n int) storage.Rejected { return storage.Rejected{Spans: n} },
			partial: func(ct string, b []byte) (int64, string, error) {
				r := ptraceotlp.NewExportResponse()
				err := read(r, ct, b)
				return r.PartialSuccess().RejectedSpans(), r.PartialSuccess().ErrorMessage(), err
			},
			export: func(ctx context.Context, c *grpc.ClientConn, n int, opts ...grpc.CallOption) (int64, string, error) {
				r, err := ptraceotlp.NewGRPCClient(c).Export(ctx, ptraceotlp.NewExportRequestFromTraces(traces(n)), opts...)
				if err != nil {
					return 0, "", err
				}
				return r.PartialSuccess().RejectedSpans(), r.PartialSuccess().ErrorMessage(), nil
			},
		},
		{
			name: "logs", path: "/v1/logs", signal: storage.Logs,
			proto: func(n int) []byte { return must(plogotlp.NewExportRequestFromLogs(logs(n)).MarshalProto()) },
			json:  func(n int) []byte { return must(plogotlp.NewExportRequestFromLogs(logs(n)).MarshalJSON()) },
			records: func(r storage.Request) (n int) {
				for _, b := range r.Batches {
					n += len(b.Logs)
				}
				return n
			},
			rejected: func(n int) storage.Rejected { return storage.Rejected{Logs: n} },
			partial: func(ct string, b []byte) (int64, string, error) {
				r := plogotlp.NewExportResponse()
				err := read(r, ct, b)
				return r.PartialSuccess().RejectedLogRecords(), r.PartialSuccess().ErrorMessage(), err
			},
			export: func(ctx context.Context, c *grpc.ClientConn, n int, opts ...grpc.CallOption) (int64, string, error) {
				r, err := plogotlp.NewGRPCClient(c).Export(ctx, plogotlp.NewExportRequestFromLogs(logs(n)), opts...)
				if err != nil {
					return 0, "", err
				}
				return r.PartialSuccess().RejectedLogRecords(), r.PartialSuccess().ErrorMessage(), nil
			},
		},
		{
			name: "metrics", path: "/v1/metrics", signal: storage.Metrics,
			proto: func(n int) []byte {
				return must(pmetricotlp.NewExportRequestFromMetrics(gauges(n)).MarshalProto())
			},
			json: func(n int) []byte { return must(pmetricotlp.NewExportRequestFromMetrics(gauges(n)).MarshalJSON()) },
			records: func(r storage.Request) (n int) {
				for _, b := range r.Batches {
					for _, s := range b.Series {
						if !s.Derived {
							n += len(s.Samples) + len(s.Histograms)
						}
					}
				}
				return n
			},
			rejected: func(n int) storage.Rejected { return storage.Rejected{Samples: n} },
			partial: func(ct string, b []byte) (int64, string, error) {
				r := pmetricotlp.NewExportResponse()
				err := read(r, ct, b)
				return r.PartialSuccess().RejectedDataPoints(), r.PartialSuccess().ErrorMessage(), err
			},
			export: func(ctx context.Context, c *grpc.ClientConn, n int, opts ...grpc.CallOption) (int64, string, error) {
				r, err := pmetricotlp.NewGRPCClient(c).Export(ctx, pmetricotlp.NewExportRequestFromMetrics(gauges(n)), opts...)
				if err != nil {
					return 0, "", err
				}
				return r.PartialSuccess().RejectedDataPoints(), r.PartialSuccess().ErrorMessage(), nil
			},
		},
	}
}

// roundTrip requires that the log can hold what was written.
func roundTrip(t *testing.T, bs []telemetry.Batch) {
	t.Helper()
	for i := range bs {
		enc := telemetry.AppendBatch(nil, &bs[i])
		d := telemetry.NewDecoderBytes(enc)
		out := d.Batch()
		require.NoError(t, d.Err())
		require.Zero(t, d.Len())
		require.Equal(t, enc, telemetry.AppendBatch(nil, &out))
	}
}

// recorder is a server without a network.
type recorder struct {
	writer *writer
	server *otlp.Server
}

func newRecorder(t *testing.T, change func(*ingest.Config, *otlp.Config)) *recorder {
	t.Helper()
	ic, oc := ingest.DefaultConfig(), otlp.DefaultConfig()
	if change != nil {
		change(&ic, &oc)
	}
	require.NoError(t, ic.Validate())
	require.NoError(t, oc.Validate())
	w := &writer{}
	clock := func() time.Time { return now }
	return &recorder{w, otlp.New(oc, otlp.Deps{Pipeline: ingest.New(ic, ingest.Deps{Writer: w, Now: clock}), Now: clock})}
}

// answer sends a request and returns the answer.
func (r *recorder) answer(signal storage.Signal, contentType string, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", bytes.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	r.server.Handler(signal).ServeHTTP(w, req)
	return w
}

// send sends a request as protobuf, which must be accepted, and returns the answer.
func (r *recorder) send(t *testing.T, signal storage.Signal, body []byte) []byte {
	t.Helper()
	w := r.answer(signal, "application/x-protobuf", body)
	require.Equal(t, http.StatusOK, w.Code, "%q", w.Body)
	return w.Body.Bytes()
}
