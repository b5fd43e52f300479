package tempo_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/internal/testkit/rawgrpc"
	"github.com/braidobs/braid/internal/wire"
	"github.com/braidobs/braid/query/api/tempo"
	"github.com/braidobs/braid/storage"
)

// rpc serves the API over gRPC on loopback and returns a client.
func rpc(tb testing.TB, r storage.Reader) *grpc.ClientConn {
	tb.Helper()
	a := tempo.New(tempo.Deps{Config: tempo.DefaultConfig(), Reader: r, Now: func() time.Time { return time.Unix(1000, 0) }})
	return rawgrpc.Serve(tb, func(s *grpc.Server) { a.RegisterGRPC(s) })
}

// stream returns all messages that a method answers with.
func stream(ctx context.Context, conn *grpc.ClientConn, method string, req []byte) ([]string, error) {
	return rawgrpc.Call(ctx, conn, "/tempopb.StreamingQuerier/"+method, req)
}

// fieldsOf writes the fields of a message by their numbers, those of the messages at the given paths in braces. It leaves out
// what the query cost.
func fieldsOf(t *testing.T, m string, message map[string]bool, path string) string {
	t.Helper()
	var parts []string
	require.NoError(t, wire.Fields(m, func(f wire.Field) error {
		at := fmt.Sprintf("%s.%d", path, f.Num)
		switch {
		case at == ".2":
			require.Equal(t, wire.Bytes, f.Type)
		case message[at]:
			parts = append(parts, fmt.Sprintf("%d{%s}", f.Num, fieldsOf(t, f.S, message, at)))
		case f.Type == wire.Bytes:
			parts = append(parts, fmt.Sprintf("%d:%q", f.Num, f.S))
		case f.Type == wire.Fixed64:
			parts = append(parts, fmt.Sprintf("%d:%g", f.Num, math.Float64frombits(f.N)))
		default:
			parts = append(parts, fmt.Sprintf("%d:%d", f.Num, f.N))
		}
		return nil
	}))
	return strings.Join(parts, " ")
}

func messages(paths ...string) map[string]bool {
	out := make(map[string]bool)
	for _, p := range paths {
		out[p] = true
	}
	return out
}

// TestStreamingQuerier calls all methods; the numbers of fields are those of tempopb.
func TestStreamingQuerier(t *testing.T) {
	conn := rpc(t, store(t))
	req := func(f func(b []byte) []byte) []byte { return f(nil) }
	searched := messages(".1", ".1.6", ".1.7", ".1.6.1", ".1.7.1", ".1.6.1.5", ".1.7.1.5", ".1.6.1.5.2", ".1.7.1.5.2", ".1.8", ".1.8.2")
	instant := messages(".1", ".1.1", ".1.1.2")
	series := messages(".1", ".1.1", ".1.1.2", ".1.2", ".1.4", ".1.4.1", ".1.4.1.2")
	tests := []struct {
		method   string
		req      []byte
		messages map[string]bool
		want     string // of field 1, which is all but the metrics
	}{
		{
			"Search", req(func(b []byte) []byte {
				b = wire.AppendNumber(wire.AppendNumber(b, 4, 1), 5, 12)
				return wire.AppendNumber(wire.AppendText(wire.AppendNumber(b, 6, 25), 8, `{ span.http.code = 500 }`), 9, 1)
			}), searched,
			`1{1:"00000000000000000000000000000002" 2:"web" 3:"GET /cart" 4:20000000000 5:5000 ` +
				`6{1{1:"0000000000000001" 2:"GET /cart" 3:20000000000 4:5000000000 5{1:"http.code" 2{3:500}}} 2:2} ` +
				`7{1{1:"0000000000000001" 2:"GET /cart" 3:20000000000 4:5000000000 5{1:"http.code" 2{3:500}}} 2:2} ` +
				`8{1:"db" 2{1:1 2:1}} 8{1:"web" 2{1:1}}}`,
		},
		{
			"Search", req(func(b []byte) []byte { // by tags
				b = wire.AppendMessage(b, 1, func(b []byte) []byte { return wire.AppendText(wire.AppendText(b, 1, "http.code"), 2, "200") })
				b = wire.AppendMessage(b, 1, func(b []byte) []byte { return wire.AppendText(wire.AppendText(b, 1, "name"), 2, "GET /") })
				return wire.AppendNumber(wire.AppendNumber(b, 2, 900), 3, 1100)
			}), searched,
			`1{1:"00000000000000000000000000000001" 2:"web" 3:"GET /" 4:10000000000 5:1000 ` +
				`6{1{1:"0000000000000001" 2:"GET /" 3:10000000000 4:1000000000 5{1:"http.code" 2{3:200}}} 2:1} ` +
				`7{1{1:"0000000000000001" 2:"GET /" 3:10000000000 4:1000000000 5{1:"http.code" 2{3:200}}} 2:1} ` +
				`8{1:"db" 2{1:1}} 8{1:"web" 2{1:1}}}`,
		},
		{"SearchTags", req(func(b []byte) []byte { return wire.AppendText(b, 1, "resource") }), nil, `1:"service.name" 1:"zone"`},
		{"SearchTagsV2", req(func(b []byte) []byte {
			return wire.AppendNumber(wire.AppendText(wire.AppendText(b, 1, "span"), 2, `{ status = error }`), 5, 1)
		}), messages(".1"), `1{1:"span" 2:"http.code"}`},
		{"SearchTagValues", req(func(b []byte) []byte { return wire.AppendText(b, 1, "http.code") }), nil, `1:"200" 1:"500"`},
		{"SearchTagValuesV2", req(func(b []byte) []byte {
			return wire.AppendNumber(wire.AppendNumber(wire.AppendText(wire.AppendText(b, 1, "span.http.code"), 2, `{ status = error }`), 4, 1), 5, 40)
		}), messages(".1"), `1{1:"int" 2:"500"}`},
		{"MetricsQueryRange", req(func(b []byte) []byte {
			b = wire.AppendNumber(wire.AppendNumber(wire.AppendText(b, 1, `{ span.http.code = 500 } | count_over_time() by (span.http.code)`), 2, 10e9), 3, 30e9)
			return wire.AppendNumber(wire.AppendNumber(b, 4, 20e9), 16, 1)
		}), series, `1{1{1:"span.http.code" 2{3:500}} 2{1:0} 2{1:1 2:20000} 2{1:1 2:40000} 4{1{1:"trace:id" 2{1:"00000000000000000000000000000002"}} 2:1 3:21000}}`},
		{"MetricsQueryInstant", req(func(b []byte) []byte {
			return wire.AppendNumber(wire.AppendNumber(wire.AppendText(b, 1, `{ } | max_over_time(duration)`), 2, 1), 3, 40)
		}), instant, `1{1{1:"__name__" 2{1:"max_over_time"}} 2:5}`},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprint(tt.method, i), func(t *testing.T) {
			got, err := stream(t.Context(), conn, tt.method, tt.req)
			require.NoError(t, err)
			require.Len(t, got, 1)
			require.Equal(t, tt.want, fieldsOf(t, got[0], tt.messages, ""))
		})
	}
}

// The most recent traces are sent first, and all of them, however many messages that takes.
func TestSearchStreams(t *testing.T) {
	s := testkit.NewStore("c")
	var b telemetry.Batch
	b.Tenant = tenant
	for n := range byte(100) {
		b.Spans = append(b.Spans, span(n+1, 1, time.Duration(n)*time.Second, time.Duration(n+1)*time.Second, "x"))
	}
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
	require.NoError(t, err)
	conn := rpc(t, s)
	for limit, sizes := range map[uint64][]int{100: {20, 20, 20, 20, 20}, 30: {20, 10}, 7: {7}, 1000: {20, 20, 20, 20, 20}} {
		got, err := stream(t.Context(), conn, "Search", wire.AppendNumber(wire.AppendText(nil, 8, "{}"), 4, limit))
		require.NoError(t, err)
		next, looked := 100, uint64(0)
		for i, m := range got {
			n := 0
			require.NoError(t, wire.Fields(m, func(f wire.Field) error {
				if f.Num == 1 {
					id, _, err := wire.Next(f.S)
					require.NoError(t, err)
					require.Equal(t, fmt.Sprintf("%032x", next), id.S)
					next--
					n++
					return nil
				}
				metrics, _, err := wire.Next(f.S)
				require.Greater(t, metrics.N, looked, "what is looked at adds up")
				looked = metrics.N
				return err
			}))
			require.Equal(t, sizes[i], n)
		}
		require.Len(t, got, len(sizes))
	}
	open, _ := s.OpenViews()
	require.Zero(t, open)
}

func TestRPCErrors(t *testing.T) {
	conn := rpc(t, store(t))
	other := metadata.AppendToOutgoingContext(t.Context(), "x-scope-orgid", "other")
	got, err := stream(other, conn, "SearchTags", nil)
	require.NoError(t, err)
	require.NotContains(t, fieldsOf(t, got[0], nil, ""), "http.code", "tenants do not see each other")
	got, err = stream(other, conn, "Search", wire.AppendText(nil, 8, `{ name = "not mine" }`))
	require.NoError(t, err)
	require.Contains(t, got[0], "00000000000000000000000000000009")

	malformed := []byte{0x0a, 0xff, 0x01}
	for _, method := range []string{"Search", "SearchTags", "SearchTagsV2", "SearchTagValues", "SearchTagValuesV2", "MetricsQueryRange", "MetricsQueryInstant"} {
		_, err := stream(t.Context(), conn, method, malformed)
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%s: %v", method, err)
		require.ErrorContains(t, err, "malformed")
	}
	for _, tt := range []struct {
		method string
		req    []byte
		text   string
	}{
		{"Search", wire.AppendText(nil, 8, `{ name = }`), "line 1, col 10"},
		{"Search", wire.AppendNumber(wire.AppendText(nil, 8, `{}`), 4, 5000), "tempo.max_traces"},
		{"Search", wire.AppendMessage(nil, 1, func([]byte) []byte { return malformed }), "malformed"},
		{"SearchTagsV2", wire.AppendText(nil, 1, `galaxy`), "galaxy"},
		{"SearchTagValuesV2", wire.AppendText(nil, 1, `{`), "line 1, col 1"},
		{"SearchTagValuesV2", nil, "line 1, col 1"},
		{"MetricsQueryRange", nil, "parameter q is missing"},
		{"MetricsQueryInstant", wire.AppendText(nil, 1, `{}`), "for traces"},
	} {
		_, err := stream(t.Context(), conn, tt.method, tt.req)
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%s: %v", tt.method, err)
		require.ErrorContains(t, err, tt.text)
	}
	_, err = stream(t.Context(), rpc(t, broken{}), "Search", nil)
	require.Equal(t, codes.Internal, status.Code(err))
	require.NotContains(t, err.Error(), "fire")
}

func FuzzRPC(f *testing.F) {
	f.Add(wire.AppendNumber(wire.AppendText(nil, 8, `{ span.a = 1 }`), 4, 5))
	f.Add(wire.AppendNumber(wire.AppendText(nil, 1, `{ } | rate()`), 4, 5e9))
	f.Add(wire.AppendMessage(nil, 1, func(b []byte) []byte { return wire.AppendText(wire.AppendText(b, 1, "k"), 2, "v") }))
	s := testkit.NewStore("c")
	_, _, err := s.Write(f.Context(), testkit.NewGen(1, testkit.Options{}).Request(100))
	require.NoError(f, err)
	conn := rpc(f, s)
	f.Fuzz(func(t *testing.T, req []byte) {
		for _, method := range []string{"Search", "SearchTagsV2", "SearchTagValuesV2", "MetricsQueryRange", "MetricsQueryInstant"} {
			_, err := stream(t.Context(), conn, method, req)
			require.NotEqual(t, codes.Internal, status.Code(err), "%s: %v", method, err)
			require.NotEqual(t, codes.Unknown, status.Code(err), "%s: %v", method, err)
		}
	})
}
