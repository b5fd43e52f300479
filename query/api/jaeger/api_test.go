package jaeger_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/internal/testkit/rawgrpc"
	"github.com/braidobs/braid/internal/wire"
	"github.com/braidobs/braid/query/api/jaeger"
	"github.com/braidobs/braid/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// base is when the first trace starts.
var base = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func text(k, v string) telemetry.Attr { return telemetry.Attr{Key: k, Value: telemetry.String(v)} }

// store holds two traces of a shop: one that failed in the database and one, a minute later, with a lost parent.
func store(t *testing.T) *testkit.Store {
	t.Helper()
	at := func(d time.Duration) int64 { return base.Add(d).UnixNano() }
	span := func(trace, id, parent byte, name string, kind telemetry.SpanKind, start, took time.Duration, attrs ...telemetry.Attr) telemetry.Span {
		return telemetry.Span{
			TraceID: telemetry.TraceID{15: trace}, SpanID: telemetry.SpanID{7: id}, ParentID: telemetry.SpanID{7: parent}, Name: name, Kind: kind,
			Start: at(start), End: at(start + took), Attrs: telemetry.NewAttrs(attrs),
		}
	}
	front := telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{text("service.name", "front"), text("zone", "a")}))
	back := telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{text("service.name", "back"), text("zone", "b")}))
	db := span(1, 3, 2, "SELECT", telemetry.SpanKindClient, 12*time.Millisecond, 30*time.Millisecond, text("db", "orders"))
	db.Status, db.StatusMessage = telemetry.StatusError, "gone"
	db.Events = []telemetry.Event{{Time: at(13 * time.Millisecond), Name: "exception", Attrs: telemetry.Attrs{text("reason", "timeout")}}}
	db.Scope = &telemetry.Scope{Name: "otelsql", Version: "2"}
	db.Links = []telemetry.Link{{TraceID: telemetry.TraceID{9}, SpanID: telemetry.SpanID{9}}}
	s := testkit.NewStore("")
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{
		{Tenant: telemetry.DefaultTenant, Resource: front, Spans: []telemetry.Span{
			span(1, 1, 0, "GET /", telemetry.SpanKindServer, 0, 50*time.Millisecond, telemetry.Attr{Key: "code", Value: telemetry.Int(500)}),
			span(2, 1, 0, "GET /", telemetry.SpanKindServer, time.Minute, 5*time.Millisecond, telemetry.Attr{Key: "code", Value: telemetry.Int(200)}),
		}},
		{Tenant: telemetry.DefaultTenant, Resource: back, Spans: []telemetry.Span{
			span(1, 2, 1, "list", telemetry.SpanKindServer, 10*time.Millisecond, 35*time.Millisecond), db,
			span(2, 5, 4, "list", telemetry.SpanKindInternal, time.Minute+time.Millisecond, time.Millisecond),
		}},
	}})
	require.NoError(t, err)
	return s
}

func api(r storage.Reader, maxSpans int) *jaeger.API {
	return jaeger.New(jaeger.Deps{Reader: r, Now: func() time.Time { return base.Add(time.Hour) }, MaxSpans: maxSpans})
}

func get(t *testing.T, a *jaeger.API, target string) (int, string) {
	t.Helper()
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	a.Register(rt)
	w := httptest.NewRecorder()
	rt.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody))
	return w.Code, w.Body.String()
}

const (
	trace1 = "00000000000000000000000000000001"
	trace2 = "00000000000000000000000000000002"
)

// found returns the last digit of each trace in an answer of the older API.
func found(t *testing.T, body string) string {
	t.Helper()
	var a struct {
		Data []struct {
			TraceID string `json:"traceID"`
		} `json:"data"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &a), body)
	var out strings.Builder
	for _, d := range a.Data {
		out.WriteString(d.TraceID[31:])
	}
	return out.String()
}

func TestFind(t *testing.T) {
	a := api(store(t), 1000)
	micros := func(d time.Duration) string { return strconv.FormatInt(base.Add(d).UnixMicro(), 10) }
	tests := []struct{ query, want string }{
		{"", "21"},
		{"service=front", "21"},
		{"service=back&operation=SELECT", "1"},
		{"service=back&operation=GET /", ""},
		{"service=front&limit=1", "2"},
		{`tags={"code":"500"}`, "1"},
		{`tags={"code":"500","zone":"a"}`, "1"},
		{`tags={"code":"500","zone":"b"}`, ""}, // not on one span
		{"tag=db:orders&tag=reason:timeout", "1"},
		{`tags={"error":"true"}`, "1"},
		{`tags={"span.kind":"internal"}`, "2"},
		{`tags={"otel.scope.name":"otelsql"}`, "1"},
		{`tags={"event":"exception"}`, "1"},
		{"minDuration=40ms", "1"},
		{"service=front&maxDuration=40ms", "2"},
		{"start=" + micros(time.Second), "2"},
		{"end=" + micros(time.Second), "1"},
		{"lookback=59m30s", "2"},
		{"lookback=2d", "21"},
		{"traceID=1&traceID=7", "1"},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			code, body := get(t, a, "/jaeger/api/traces?"+strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22", " ", "%20").Replace(tt.query))
			require.Equal(t, http.StatusOK, code, body)
			require.Equal(t, tt.want, found(t, body))
		})
	}
}

func TestBadRequests(t *testing.T) {
	a := api(store(t), 2)
	tests := []struct {
		target string
		code   int
		want   string
	}{
		{"/jaeger/api/traces?start=x", 400, `"errors":[{"code":400,"msg":"invalid start \"x\": want microseconds since 1970"}]`},
		{"/jaeger/api/traces?limit=0", 400, "want a positive number"},
		{"/jaeger/api/traces?limit=100000", 400, "at most 1500 traces are returned at once"},
		{"/jaeger/api/traces?tags=x", 400, "want a JSON object of texts"},
		{"/jaeger/api/traces?tag=x", 400, "want key:value"},
		{"/jaeger/api/traces?lookback=x", 400, "want a duration"},
		{"/jaeger/api/traces?minDuration=2s&maxDuration=1s", 400, "the longest is below the shortest"},
		{"/jaeger/api/traces/xyz", 400, "invalid byte"},
		{"/jaeger/api/traces/7", 404, "trace not found"},
		{"/jaeger/api/traces/1", 422, "more than 2 spans (setting tempo.max_spans)"},
		{"/jaeger/api/operations", 400, "the parameter service is missing"},
		{"/jaeger/api/operations?service=a&spanKind=b", 400, "invalid span kind"},
		{"/jaeger/api/dependencies?endTs=x", 400, "want milliseconds"},
		{"/api/v3/traces/7", 404, `{"error":{"httpCode":404,"message":"trace 00000000000000000000000000000007 not found"}}`},
		{"/api/v3/traces?query.service_name=nobody", 404, "No traces found"},
		{"/api/v3/traces?query.start_time_min=x", 400, "invalid query.start_time_min"},
		{"/api/v3/traces?query.durationMin=x", 400, "invalid query.durationMin"},
		{"/api/v3/traces?query.search_depth=x", 400, "invalid query.search_depth"},
		{"/api/v3/traces?query.filter=x", 400, "query.filter is not supported"},
	}
	for _, tt := range tests {
		t.Run(tt.target, func(t *testing.T) {
			code, body := get(t, a, tt.target)
			require.Equal(t, tt.code, code, body)
			require.Contains(t, body, tt.want)
		})
	}
}

func TestOldTrace(t *testing.T) {
	code, body := get(t, api(store(t), 1000), "/jaeger/api/traces/1")
	require.Equal(t, http.StatusOK, code)
	var a struct {
		Data []struct {
			Spans     []map[string]any `json:"spans"`
			Processes map[string]any   `json:"processes"`
		} `json:"data"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &a))
	require.Len(t, a.Data[0].Spans, 3)
	require.Len(t, a.Data[0].Processes, 2)
	for _, s := range a.Data[0].Spans {
		if s["operationName"] != "SELECT" {
			continue
		}
		b, err := json.Marshal(s)
		require.NoError(t, err)
		require.JSONEq(t, fmt.Sprintf(`{"traceID":%q,"spanID":"0000000000000003","operationName":"SELECT","startTime":%[2]d,"duration":30000,"processID":"p2","warnings":null,
			"references":[{"refType":"CHILD_OF","traceID":%[1]q,"spanID":"0000000000000002"},{"refType":"FOLLOWS_FROM","traceID":"09000000000000000000000000000000","spanID":"0900000000000000"}],
			"tags":[{"key":"db","type":"string","value":"orders"},{"key":"otel.scope.name","type":"string","value":"otelsql"},{"key":"otel.scope.version","type":"string","value":"2"},
			{"key":"span.kind","type":"string","value":"client"},{"key":"otel.status_code","type":"string","value":"ERROR"},{"key":"error","type":"bool","value":true},{"key":"otel.status_description","type":"string","value":"gone"}],
			"logs":[{"timestamp":%[3]d,"fields":[{"key":"event","type":"string","value":"exception"},{"key":"reason","type":"string","value":"timeout"}]}]}`,
			trace1, base.Add(12*time.Millisecond).UnixMicro(), base.Add(13*time.Millisecond).UnixMicro()), string(b))
	}
}

func TestLists(t *testing.T) {
	a := api(store(t), 1000)
	tests := []struct{ target, want string }{
		{"/jaeger/api/services", `{"data":["back","front"],"total":2,"limit":0,"offset":0,"errors":null}`},
		{"/jaeger/api/services/back/operations", `{"data":["SELECT","list"],"total":2,"limit":0,"offset":0,"errors":null}`},
		{"/jaeger/api/operations?service=back&spanKind=server", `{"data":[{"name":"list","spanKind":"server"}],"total":1,"limit":0,"offset":0,"errors":null}`},
		{"/jaeger/api/dependencies", `{"data":[{"parent":"front","child":"back","callCount":1}],"total":0,"limit":0,"offset":0,"errors":null}`},
		{"/api/v3/services", `{"services":["back","front"]}`},
		{"/api/v3/operations?service=back", `{"operations":[{"name":"SELECT","spanKind":"client"},{"name":"list","spanKind":"internal"},{"name":"list","spanKind":"server"}]}`},
		{"/api/v3/dependencies?start_time=2026-03-01T00:00:00Z&end_time=2026-03-02T00:00:00Z", `{"dependencies":[{"parent":"front","child":"back","callCount":"1"}]}`},
		{"/api/v3/dependencies?start_time=2026-03-02T00:00:00Z", `{"dependencies":[]}`},
		{"/api/v3/trace-summaries?query.service_name=back", fmt.Sprintf(`{"summaries":[
			{"traceId":%q,"rootServiceName":"front","rootOperationName":"GET /","minStartTimeUnixNano":"%d","maxEndTimeUnixNano":"%d","spanCount":2,"errorSpanCount":0,"orphanSpanCount":1,
			"services":[{"name":"back","spanCount":1,"errorSpanCount":0},{"name":"front","spanCount":1,"errorSpanCount":0}]},
			{"traceId":%q,"rootServiceName":"front","rootOperationName":"GET /","minStartTimeUnixNano":"%d","maxEndTimeUnixNano":"%d","spanCount":3,"errorSpanCount":1,"orphanSpanCount":0,
			"services":[{"name":"back","spanCount":2,"errorSpanCount":1},{"name":"front","spanCount":1,"errorSpanCount":0}]}]}`,
			trace2, base.Add(time.Minute).UnixNano(), base.Add(time.Minute+5*time.Millisecond).UnixNano(), trace1, base.UnixNano(), base.Add(50*time.Millisecond).UnixNano())},
	}
	for _, tt := range tests {
		t.Run(tt.target, func(t *testing.T) {
			code, body := get(t, a, tt.target)
			require.Equal(t, http.StatusOK, code, body)
			require.JSONEq(t, tt.want, body)
		})
	}
}

func TestV3Trace(t *testing.T) {
	for _, target := range []string{"/api/v3/traces/1", "/api/v3/traces?query.service_name=back&query.operation_name=SELECT&query.attributes=%7B%22error%22:%22true%22%7D"} {
		code, body := get(t, api(store(t), 1000), target)
		require.Equal(t, http.StatusOK, code, body)
		var a struct {
			Result json.RawMessage `json:"result"`
		}
		require.NoError(t, json.Unmarshal([]byte(body), &a))
		td, err := new(ptrace.JSONUnmarshaler).UnmarshalTraces(a.Result)
		require.NoError(t, err)
		require.Equal(t, 3, td.SpanCount())
		require.Equal(t, 2, td.ResourceSpans().Len())
	}
}

// rpc serves the API over gRPC on loopback and returns a client.
func rpc(t *testing.T, a *jaeger.API) *grpc.ClientConn {
	t.Helper()
	return rawgrpc.Serve(t, func(s *grpc.Server) { a.RegisterGRPC(s) })
}

func spansIn(t *testing.T, messages []string) (n int) {
	t.Helper()
	for _, m := range messages {
		td, err := new(ptrace.ProtoUnmarshaler).UnmarshalTraces([]byte(m))
		require.NoError(t, err)
		require.Positive(t, td.SpanCount(), "no message is empty")
		n += td.SpanCount()
	}
	return n
}

func seconds(num int, t time.Time) func([]byte) []byte {
	return func(b []byte) []byte {
		return wire.AppendMessage(b, num, func(b []byte) []byte { return wire.AppendNumber(b, 1, uint64(t.Unix())) })
	}
}

func TestGRPC(t *testing.T) {
	conn := rpc(t, api(store(t), 1000))
	ctx := t.Context()
	query := func(fs ...func([]byte) []byte) []byte {
		return wire.AppendMessage(nil, 1, func(b []byte) []byte {
			for _, f := range fs {
				b = f(b)
			}
			return b
		})
	}
	field := func(num int, s string) func([]byte) []byte {
		return func(b []byte) []byte { return wire.AppendText(b, num, s) }
	}
	// An attribute of the query API is a text, one of the storage API a typed value.
	plain := func(b []byte) []byte {
		return wire.AppendMessage(b, 3, func(b []byte) []byte { return wire.AppendText(wire.AppendText(b, 1, "code"), 2, "500") })
	}
	typed := func(b []byte) []byte {
		return wire.AppendMessage(b, 3, func(b []byte) []byte {
			return wire.AppendMessage(wire.AppendText(b, 1, "code"), 2, func(b []byte) []byte { return wire.AppendNumber(b, 3, 500) })
		})
	}
	depth := func(b []byte) []byte { return wire.AppendNumber(b, 8, 10) }
	window := seconds(5, base.Add(30*time.Second))
	id1 := string(append(make([]byte, 15), 1))
	tests := []struct {
		method string
		req    []byte
		spans  int
		code   codes.Code
	}{
		{"jaeger.api_v3.QueryService/GetTrace", wire.AppendText(nil, 1, "1"), 3, codes.OK},
		{"jaeger.api_v3.QueryService/GetTrace", wire.AppendText(nil, 1, "7"), 0, codes.NotFound},
		{"jaeger.api_v3.QueryService/GetTrace", wire.AppendText(nil, 1, "x"), 0, codes.InvalidArgument},
		{"jaeger.api_v3.QueryService/FindTraces", query(field(1, "front"), depth), 5, codes.OK},
		{"jaeger.api_v3.QueryService/FindTraces", query(field(1, "front"), plain), 3, codes.OK},
		{"jaeger.api_v3.QueryService/FindTraces", query(field(1, "front"), window), 3, codes.OK},
		{"jaeger.api_v3.QueryService/FindTraces", nil, 0, codes.InvalidArgument},
		{"jaeger.api_v3.QueryService/FindTraces", []byte("\xff"), 0, codes.InvalidArgument},
		{"jaeger.storage.v2.TraceReader/FindTraces", query(field(2, "SELECT")), 3, codes.OK},
		{"jaeger.storage.v2.TraceReader/FindTraces", query(typed), 3, codes.OK},
		{"jaeger.storage.v2.TraceReader/FindTraces", query(field(9, "x")), 0, codes.InvalidArgument},
		{"jaeger.storage.v2.TraceReader/GetTraces", append(query(field(1, id1)), query(field(1, strings.Repeat("7", 16)))...), 3, codes.OK},
		{"jaeger.storage.v2.TraceReader/GetTraces", query(field(1, "short")), 0, codes.InvalidArgument},
		{"jaeger.storage.v2.TraceReader/FindSpans", nil, 0, codes.Unimplemented},
	}
	for _, tt := range tests {
		messages, err := rawgrpc.Call(ctx, conn, "/"+tt.method, tt.req)
		require.Equal(t, tt.code, status.Code(err), "%s %q: %v", tt.method, tt.req, err)
		require.Equal(t, tt.spans, spansIn(t, messages), "%s %q", tt.method, tt.req)
	}
	for method, want := range map[string][]byte{
		"jaeger.api_v3.QueryService/GetServices":             wire.AppendText(wire.AppendText(nil, 1, "back"), 1, "front"),
		"jaeger.storage.v2.Capabilities/GetCapabilities":     {0x0a, 4, 8, 1, 16, 1},
		"jaeger.storage.v2.DependencyReader/GetDependencies": nil,
	} {
		var out httpapi.RawMessage
		var req httpapi.RawMessage
		require.NoError(t, conn.Invoke(ctx, "/"+method, &req, &out), method)
		if len(want) > 0 {
			require.Equal(t, want, []byte(out), method)
		}
		require.NotEmpty(t, out, method)
	}
	sums, err := rawgrpc.Call(ctx, conn, "/jaeger.storage.v2.TraceReader/FindTraceSummaries", query(field(1, "front")))
	require.NoError(t, err)
	require.Len(t, sums, 1)
	n := 0
	require.NoError(t, wire.Fields(sums[0], func(wire.Field) error { n++; return nil }))
	require.Equal(t, 2, n)
}

// TestPieces: a large trace comes in messages that a client takes.
func TestPieces(t *testing.T) {
	s := testkit.NewStore("")
	const n = 12_000
	b := telemetry.Batch{Tenant: telemetry.DefaultTenant, Spans: make([]telemetry.Span, n)}
	for i := range b.Spans {
		b.Spans[i] = telemetry.Span{TraceID: telemetry.TraceID{15: 1}, SpanID: telemetry.SpanID{byte(i >> 8), byte(i), 1}, Start: base.UnixNano() + int64(i), End: base.UnixNano() + int64(i)}
	}
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
	require.NoError(t, err)
	messages, err := rawgrpc.Call(t.Context(), rpc(t, api(s, 10)), "/jaeger.api_v3.QueryService/GetTrace", wire.AppendText(nil, 1, "1"))
	require.NoError(t, err)
	require.Greater(t, len(messages), 2)
	require.Equal(t, n, spansIn(t, messages))
}
