//go:build e2e

package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // registers gzip
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/braidobs/braid/bench/harness"
)

const (
	typeProto = "application/x-protobuf"
	typeJSON  = "application/json"
)

// numbers makes every request of a process another one: the server takes equal ones for retries.
var numbers atomic.Int64

// record is one record of a signal as it is sent and asked for again.
type record struct {
	number int64
	at     time.Time
	pad    int // bytes of text in it
}

func newRecord() record {
	return record{number: numbers.Add(1), at: time.Now().Add(-time.Minute)}
}

func (r record) service() string { return "conformance-" + strconv.FormatInt(r.number, 10) }

func (r record) traceID() pcommon.TraceID {
	var id pcommon.TraceID
	binary.BigEndian.PutUint64(id[:], 0xc0f)
	binary.BigEndian.PutUint64(id[8:], uint64(r.number))
	return id
}

// message is an OTLP request.
type message interface {
	MarshalProto() ([]byte, error)
	MarshalJSON() ([]byte, error)
}

// signal is one signal as a client sees it.
type signal struct {
	name, path, method string
	// request returns the records in one request.
	request func(rs ...record) message
	// partial decodes an answer.
	partial func(json bool, b []byte) (int64, string, error)
	// stored returns how many records like r a tenant can read.
	stored func(t *testing.T, s *harness.Server, tenant string, r record) int
}

func signals() []signal {
	type response interface {
		UnmarshalProto(b []byte) error
		UnmarshalJSON(b []byte) error
	}
	read := func(m response, json bool, b []byte) error {
		if json {
			return m.UnmarshalJSON(b)
		}
		return m.UnmarshalProto(b)
	}
	return []signal{
		{
			name: "traces", path: "/v1/traces", method: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
			request: func(rs ...record) message {
				td := ptrace.NewTraces()
				for _, r := range rs {
					out := td.ResourceSpans().AppendEmpty()
					out.Resource().Attributes().PutStr("service.name", r.service())
					sp := out.ScopeSpans().AppendEmpty().Spans().AppendEmpty()
					sp.SetTraceID(r.traceID())
					sp.SetSpanID(pcommon.SpanID{1})
					sp.SetName("span " + strings.Repeat("x", r.pad))
					sp.SetStartTimestamp(pcommon.NewTimestampFromTime(r.at))
					sp.SetEndTimestamp(pcommon.NewTimestampFromTime(r.at.Add(time.Millisecond)))
				}
				return ptraceotlp.NewExportRequestFromTraces(td)
			},
			partial: func(json bool, b []byte) (int64, string, error) {
				m := ptraceotlp.NewExportResponse()
				err := read(m, json, b)
				return m.PartialSuccess().RejectedSpans(), m.PartialSuccess().ErrorMessage(), err
			},
			stored: func(t *testing.T, s *harness.Server, tenant string, r record) int {
				t.Helper()
				return spans(t, s, tenant, r.traceID().String())
			},
		},
		{
			name: "metrics", path: "/v1/metrics", method: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
			request: func(rs ...record) message {
				md := pmetric.NewMetrics()
				for _, r := range rs {
					out := md.ResourceMetrics().AppendEmpty()
					out.Resource().Attributes().PutStr("service.name", r.service())
					m := out.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
					m.SetName("conformance.number")
					m.SetDescription(strings.Repeat("x", r.pad))
					p := m.SetEmptyGauge().DataPoints().AppendEmpty()
					p.SetTimestamp(pcommon.NewTimestampFromTime(r.at))
					p.SetIntValue(r.number)
				}
				return pmetricotlp.NewExportRequestFromMetrics(md)
			},
			partial: func(json bool, b []byte) (int64, string, error) {
				m := pmetricotlp.NewExportResponse()
				err := read(m, json, b)
				return m.PartialSuccess().RejectedDataPoints(), m.PartialSuccess().ErrorMessage(), err
			},
			stored: func(t *testing.T, s *harness.Server, tenant string, r record) int {
				t.Helper()
				got := vector(t, s, tenant, fmt.Sprintf(`conformance_number{service_name=%q} == %d`, r.service(), r.number))
				return len(got)
			},
		},
		{
			name: "logs", path: "/v1/logs", method: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
			request: func(rs ...record) message {
				ld := plog.NewLogs()
				for _, r := range rs {
					out := ld.ResourceLogs().AppendEmpty()
					out.Resource().Attributes().PutStr("service.name", r.service())
					l := out.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
					l.SetTimestamp(pcommon.NewTimestampFromTime(r.at))
					l.Body().SetStr("line " + strconv.FormatInt(r.number, 10) + strings.Repeat("x", r.pad))
				}
				return plogotlp.NewExportRequestFromLogs(ld)
			},
			partial: func(json bool, b []byte) (int64, string, error) {
				m := plogotlp.NewExportResponse()
				err := read(m, json, b)
				return m.PartialSuccess().RejectedLogRecords(), m.PartialSuccess().ErrorMessage(), err
			},
			stored: func(t *testing.T, s *harness.Server, tenant string, r record) int {
				t.Helper()
				return len(lines(t, s, tenant, fmt.Sprintf(`{service_name=%q} |= "line %d"`, r.service(), r.number)))
			},
		},
	}
}

// spans returns how many spans a trace has.
func spans(t *testing.T, s *harness.Server, tenant, id string) (n int) {
	t.Helper()
	code, b := get(t, s, tenant, "/api/v2/traces/"+id)
	if code == http.StatusNotFound {
		return 0
	}
	require.Equal(t, http.StatusOK, code, "%s", b)
	var answer struct {
		Trace struct {
			ResourceSpans []struct {
				ScopeSpans []struct{ Spans []struct{ TraceID string } }
			}
		}
	}
	require.NoError(t, json.Unmarshal(b, &answer))
	for _, rs := range answer.Trace.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, sp := range ss.Spans {
				require.Equal(t, id, sp.TraceID)
				n++
			}
		}
	}
	return n
}

// vector asks a PromQL query now and returns the values by their labels.
func vector(t *testing.T, s *harness.Server, tenant, query string) map[string]float64 {
	t.Helper()
	code, b := get(t, s, tenant, "/api/v1/query?"+url.Values{"query": {query}}.Encode())
	require.Equal(t, http.StatusOK, code, "%s", b)
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	require.NoError(t, json.Unmarshal(b, &answer))
	out := make(map[string]float64)
	for _, r := range answer.Data.Result {
		v, err := strconv.ParseFloat(r.Value[1].(string), 64)
		require.NoError(t, err)
		out[fmt.Sprint(r.Metric)] = v
	}
	return out
}

// value asks for one number.
func value(t *testing.T, s *harness.Server, query string) float64 {
	t.Helper()
	got := slices.Collect(maps.Values(vector(t, s, "", query)))
	require.Len(t, got, 1, query)
	return got[0]
}

// answer is how a server answered, whatever the transport.
type answer struct {
	http    int // 0 over gRPC
	code    codes.Code
	count   int64 // of partial_success
	message string
}

// client is one way to send OTLP.
type client struct {
	name string
	json bool
	send func(t *testing.T, sig signal, tenant string, body []byte) answer
}

func (c client) encode(t *testing.T, m message) []byte {
	t.Helper()
	marshal := m.MarshalProto
	if c.json {
		marshal = m.MarshalJSON
	}
	b, err := marshal()
	require.NoError(t, err)
	return b
}

// clients returns all nine.
func clients(t *testing.T, s *harness.Server) (out []client) {
	t.Helper()
	for _, enc := range []string{"", "gzip", "zstd"} {
		for _, ct := range []string{typeProto, typeJSON} {
			out = append(out, client{
				name: strings.TrimRight("http "+strings.TrimPrefix(ct, "application/")+" "+enc, " "), json: ct == typeJSON,
				send: func(t *testing.T, sig signal, tenant string, body []byte) answer {
					t.Helper()
					return sendHTTP(t, s, sig, tenant, ct, enc, compress(t, enc, body))
				},
			})
		}
		conn, err := grpc.NewClient(s.OTLPGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, conn.Close()) })
		out = append(out, client{name: strings.TrimRight("grpc "+enc, " "), send: func(t *testing.T, sig signal, tenant string, body []byte) answer {
			t.Helper()
			return sendGRPC(t.Context(), t, conn, sig, tenant, enc, body)
		}})
	}
	return out
}

// httpStatus is what a code is over HTTP.
func httpStatus(c codes.Code) int {
	switch c {
	case codes.OK:
		return http.StatusOK
	case codes.InvalidArgument:
		return http.StatusBadRequest
	case codes.ResourceExhausted:
		return http.StatusRequestEntityTooLarge
	default:
		return 0
	}
}

func postHTTP(t *testing.T, s *harness.Server, method, path string, header map[string]string, body []byte) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.OTLPHTTP+path, bytes.NewReader(body))
	require.NoError(t, err)
	for k, v := range header {
		if v != "" {
			req.Header.Set(k, v)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header, out
}

// sendHTTP posts what is compressed already. The answer must have the type of the request.
func sendHTTP(t *testing.T, s *harness.Server, sig signal, tenant, contentType, enc string, body []byte) answer {
	t.Helper()
	code, header, out := postHTTP(t, s, http.MethodPost, sig.path,
		map[string]string{"Content-Type": contentType, "Content-Encoding": enc, "X-Scope-OrgID": tenant}, body)
	require.Equal(t, contentType, header.Get("Content-Type"))
	a := answer{http: code}
	if code == http.StatusOK {
		var err error
		a.count, a.message, err = sig.partial(contentType == typeJSON, out)
		require.NoError(t, err, "%q", out)
		if a.count == 0 && a.message == "" { // without partial_success
			require.Contains(t, []string{"", "{}"}, string(out))
		}
		return a
	}
	st := readStatus(t, header, out)
	a.code, a.message = codes.Code(st.GetCode()), st.GetMessage()
	require.Equal(t, httpStatus(a.code), a.http, a.message)
	return a
}

func readStatus(t *testing.T, header http.Header, body []byte) *spb.Status {
	t.Helper()
	st := new(spb.Status)
	if header.Get("Content-Type") == typeJSON {
		require.NoError(t, protojson.Unmarshal(body, st), "%s", body)
	} else {
		require.NoError(t, proto.Unmarshal(body, st))
	}
	require.NotEmpty(t, st.GetMessage())
	return st
}

func sendGRPC(ctx context.Context, t *testing.T, conn *grpc.ClientConn, sig signal, tenant, enc string, body []byte) answer {
	t.Helper()
	if tenant != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-scope-orgid", tenant)
	}
	opts := []grpc.CallOption{grpc.ForceCodec(rawCodec{})}
	if enc != "" {
		opts = append(opts, grpc.UseCompressor(enc))
	}
	var out rawMessage
	if err := conn.Invoke(ctx, sig.method, rawMessage(body), &out, opts...); err != nil {
		return answer{code: status.Code(err), message: status.Convert(err).Message()}
	}
	count, message, err := sig.partial(false, out)
	require.NoError(t, err)
	if count == 0 && message == "" {
		require.Empty(t, out)
	}
	return answer{count: count, message: message}
}

func compress(t *testing.T, enc string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch enc {
	case "gzip":
		w = gzip.NewWriter(&out)
	case "zstd":
		z, err := zstd.NewWriter(&out)
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

// rawMessage is bytes that are sent as they are.
type rawMessage []byte

type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)      { return v.(rawMessage), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*rawMessage) = bytes.Clone(data); return nil }
func (rawCodec) Name() string                       { return "proto" }

// zstdCompressor makes the gRPC client of the tests know zstd.
type zstdCompressor struct{}

func (zstdCompressor) Name() string { return "zstd" }

func (zstdCompressor) Compress(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }

func (zstdCompressor) Decompress(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }

func init() { //nolint:gochecknoinits // gRPC wants it before the first connection
	encoding.RegisterCompressor(zstdCompressor{})
}
