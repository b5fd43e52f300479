package zipkin_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/zipkin"
	"github.com/braidobs/braid/storage"
)

// now is the time of the tests.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// writer is a storage.Writer that keeps what it is given.
type writer struct{ requests []storage.Request }

func (w *writer) Write(_ context.Context, r storage.Request) (storage.Position, storage.Rejected, error) {
	w.requests = append(w.requests, r)
	return 1, r.Rejected, nil
}

// show returns what was written, one span a line, times relative to now in microseconds.
func (w *writer) show() string {
	var out []string
	for _, r := range w.requests {
		for _, b := range r.Batches {
			for i := range b.Spans {
				s := &b.Spans[i]
				line := fmt.Sprintf("%s %s %s %s %q %s %d+%d %s %q %s", b.Resource.Attrs.AppendJSON(nil), s.TraceID, s.SpanID, s.ParentID, s.Name,
					s.Kind, (s.Start-now.UnixNano())/1000, s.Duration()/1000, s.Status, s.StatusMessage, s.Attrs.AppendJSON(nil))
				for _, e := range s.Events {
					line = fmt.Sprintf("%s %s@%d", line, e.Name, (e.Time-now.UnixNano())/1000)
				}
				if s.Scope != nil {
					line += " scope " + s.Scope.Name + " " + s.Scope.Version
				}
				if s.State != "" {
					line += " state " + s.State
				}
				out = append(out, line)
			}
		}
	}
	return strings.Join(out, "\n")
}

func send(t require.TestingT, contentType string, body []byte) (*writer, *httptest.ResponseRecorder) {
	c := ingest.DefaultConfig()
	require.NoError(t, c.Validate())
	w := &writer{}
	clock := func() time.Time { return now }
	server := zipkin.New(ingest.NewReceiver(ingest.ReceiverDeps{
		Pipeline: ingest.New(c, ingest.Deps{Writer: w, Now: clock, Metrics: prometheus.NewRegistry()}), MaxBody: 1 << 20, Now: clock,
	}))
	req := httptest.NewRequest(http.MethodPost, zipkin.Path, bytes.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	rec := httptest.NewRecorder()
	server.ServeHTTP(rec, req)
	return w, rec
}

// text replaces NOW by now in microseconds.
func text(s string) string {
	return strings.ReplaceAll(s, "NOW", strconv.FormatInt(now.UnixMilli(), 10))
}

const (
	trace = "5982fe77008310cc80f1da5e10147517"
	zeros = "0000000000000000"
)

func TestJSON(t *testing.T) {
	tests := []struct {
		name, in string
		status   int
		want     string // spans, or a part of the error
	}{
		{
			"everything",
			`[{"traceId":"` + trace + `","name":"get /api","id":"bd7a977555f6b982","parentId":"e457b5a2e4d86bd1","kind":"CLIENT","timestamp":NOW000,"duration":386000,
			"localEndpoint":{"serviceName":"frontend","ipv4":"10.0.0.1","port":3306},"remoteEndpoint":{"serviceName":"backend","ipv6":"2001:db8::c001","port":9000},
			"annotations":[{"timestamp":NOW900,"value":"wr"},{"timestamp":NOW100,"value":"ws"}],"tags":{"http.path":"/api","clnt":"true","otel.scope.name":"lib","otel.scope.version":"1.2","w3c.tracestate":"a=b"},
			"debug":true,"shared":true,"future":{"x":[1]}}]`, 202,
			`{"service.name":"frontend"} ` + trace + ` bd7a977555f6b982 e457b5a2e4d86bd1 "get /api" client 0+386000 unset "" {"clnt":"true","http.path":"/api","network.local.address":"10.0.0.1","network.local.port":3306,"network.peer.address":"2001:db8::c001","network.peer.port":9000,"peer.service":"backend","zipkin.debug":true,"zipkin.shared":true} ws@100 wr@900 scope lib 1.2 state a=b`,
		},
		{"least", `[{"traceId":"1","id":"2","timestamp":NOW000}]`, 202, `{} ` + zeros + `0000000000000001 0000000000000002 ` + zeros + ` "" internal 0+0 unset "" {}`},
		{
			"error and its text", `[{"traceId":"a","id":"b","timestamp":NOW000,"tags":{"error":"timed out"}},{"traceId":"a","id":"c","timestamp":NOW000,"tags":{"error":"true","otel.status_description":"no"}},{"traceId":"a","id":"d","timestamp":NOW000,"tags":{"otel.status_code":"OK","error":"false"}}]`, 202,
			`{} ` + zeros + `000000000000000a 000000000000000b ` + zeros + ` "" internal 0+0 error "timed out" {}
{} ` + zeros + `000000000000000a 000000000000000c ` + zeros + ` "" internal 0+0 error "no" {}
{} ` + zeros + `000000000000000a 000000000000000d ` + zeros + ` "" internal 0+0 ok "" {"error":"false"}`,
		},
		{"tags that are no texts", `[{"traceId":"a","id":"b","timestamp":NOW000.5,"tags":{"n":1,"b":true}}]`, 202, `{} ` + zeros + `000000000000000a 000000000000000b ` + zeros + ` "" internal 0+0 unset "" {"b":"true","n":"1"}`},
		{"time of an annotation", `[{"traceId":"a","id":"b","annotations":[{"timestamp":NOW007,"value":"x"}]}]`, 202, `{} ` + zeros + `000000000000000a 000000000000000b ` + zeros + ` "" internal 7+0 unset "" {} x@7`},
		{"no time", `[{"traceId":"a","id":"b"}]`, 202, `{} ` + zeros + `000000000000000a 000000000000000b ` + zeros + ` "" internal 0+0 unset "" {}`},
		{"nothing", `[]`, 202, ``},
		{"one bad ID", `[{"traceId":"xyz","id":"b"},{"traceId":"a","id":"b","timestamp":NOW000}]`, 400, `1 spans were not stored, the others were: span 1: traceId`},
		{"no ID", `[{"traceId":"a"}]`, 400, `span 1: its ID is not hexadecimal, too long, or zero`},
		{"ID too long", `[{"traceId":"a","id":"0123456789abcdef0"}]`, 400, `span 1: its ID is not`},
		{"no list", `{"traceId":"a"}`, 400, `malformed at byte 1, span 1: want a list of spans`},
		{"cut", `[{"traceId":"a","id":"b"}`, 400, `malformed at byte 25, span 2: unexpected EOF`},
		{"more", `[] []`, 400, `something follows the list`},
		{"nonsense", `[{"traceId":7}]`, 400, `span 1`},
		{"negative", `[{"traceId":"a","id":"b","timestamp":-1}]`, 400, `timestamp: "-1" is not a number of microseconds`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, rec := send(t, "application/json", []byte(text(tt.in)))
			require.Equal(t, tt.status, rec.Code, rec.Body.String())
			if tt.status == http.StatusAccepted {
				require.Equal(t, tt.want, w.show())
			} else {
				require.Contains(t, rec.Body.String(), tt.want)
			}
		})
	}
}

func bytesField(m []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(m, num, protowire.BytesType), s)
}

func TestProtobuf(t *testing.T) {
	at := uint64(now.UnixMicro())
	fixed := func(m []byte, num protowire.Number, n uint64) []byte {
		return protowire.AppendFixed64(protowire.AppendTag(m, num, protowire.Fixed64Type), n)
	}
	varint := func(m []byte, num protowire.Number, n uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(m, num, protowire.VarintType), n)
	}
	var z []byte
	z = bytesField(z, 1, "\x01\x02\x03\x04\x05\x06\x07\x08")
	z = bytesField(z, 2, "\x00\x00\x00\x00\x00\x00\x00\x01")
	z = bytesField(z, 3, "\x00\x00\x00\x00\x00\x00\x00\x02")
	z = varint(z, 4, 2)
	z = bytesField(z, 5, "post")
	z = fixed(z, 6, at)
	z = varint(z, 7, 12)
	z = bytesField(z, 8, string(varint(bytesField(bytesField(nil, 1, "shop"), 2, "\x0a\x00\x00\x01"), 4, 80)))
	z = bytesField(z, 10, string(bytesField(fixed(nil, 1, at+3), 2, "note")))
	z = bytesField(z, 11, string(bytesField(bytesField(nil, 1, "k"), 2, "v")))
	body := bytesField(nil, 1, string(z))
	w, rec := send(t, "application/x-protobuf", body)
	require.Equal(t, http.StatusAccepted, rec.Code, rec.Body.String())
	const want = `{"service.name":"shop"} 00000000000000000102030405060708 0000000000000002 0000000000000001 "post" server 0+12 unset "" {"k":"v","network.local.address":"10.0.0.1","network.local.port":80} note@3`
	require.Equal(t, []string{want}, strings.Split(w.show(), "\n"))
	_, rec = send(t, "application/x-protobuf", body[:len(body)-1])
	require.Equal(t, http.StatusBadRequest, rec.Code)
	require.Contains(t, rec.Body.String(), "the request is malformed")
}

func TestMethod(t *testing.T) {
	rec := httptest.NewRecorder()
	zipkin.New(ingest.NewReceiver(ingest.ReceiverDeps{
		Pipeline: ingest.New(ingest.DefaultConfig(), ingest.Deps{Writer: &writer{}, Now: time.Now}), MaxBody: 1 << 20, Now: time.Now,
	})).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, zipkin.Path, nil))
	require.Equal(t, http.StatusMethodNotAllowed, rec.Code)
}

// FuzzSpans sends whatever body: it must be answered.
func FuzzSpans(f *testing.F) {
	f.Add([]byte(`[{"traceId":"1","id":"2","timestamp":1,"tags":{"a":"b"},"annotations":[{"timestamp":1,"value":"x"}],"localEndpoint":{"serviceName":"s","ipv4":"1.2.3.4"}}]`), false)
	f.Add(bytesField(nil, 1, string(bytesField(bytesField(nil, 1, "\x01"), 3, "\x02"))), true)
	f.Fuzz(func(t *testing.T, body []byte, proto bool) {
		contentType := "application/json"
		if proto {
			contentType = "application/x-protobuf"
		}
		_, rec := send(t, contentType, body)
		require.Contains(t, []int{http.StatusAccepted, http.StatusBadRequest, http.StatusRequestEntityTooLarge}, rec.Code, rec.Body.String())
	})
}
