package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/selfobs"
)

// health answers by the name of the service that is asked for.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	seen chan string
}

func (h *health) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return &grpc_health_v1.HealthCheckResponse{}, h.answer(ctx, r.GetService())
}

func (h *health) Watch(r *grpc_health_v1.HealthCheckRequest, s grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	return h.answer(s.Context(), r.GetService())
}

func (h *health) answer(ctx context.Context, service string) error {
	seen := string(httpapi.TenantFrom(ctx))
	if selfobs.Suppressed(ctx) {
		seen += " suppressed"
	}
	h.seen <- seen
	switch service {
	case "panic":
		panic("oh no")
	case "overloaded":
		return httpapi.NewOverloaded(0, "later")
	case "secret":
		return errors.New("secret")
	default:
		return nil
	}
}

func TestGRPC(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	var log bytes.Buffer
	spans := tracetest.NewSpanRecorder()
	g := httpapi.GRPC{
		Surface: httpapi.Query,
		Errors:  httpapi.Errors{Log: slog.New(slog.NewTextHandler(&log, nil))},
		Metrics: httpapi.NewMetrics(reg, fixed),
		Tracer:  sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
	}
	rpc := grpc.NewServer(g.Options()...)
	h := &health{seen: make(chan string, 1)}
	grpc_health_v1.RegisterHealthServer(rpc, h)
	srv := httpapi.NewServer(httpapi.ServerOptions{
		Addr:    "127.0.0.1:0",
		Handler: httpapi.WithGRPC(rpc, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "http") })),
	})
	require.NoError(t, srv.Listen(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx) }()
	conn, err := grpc.NewClient(srv.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	client := grpc_health_v1.NewHealthClient(conn)

	tests := []struct {
		name, service, tenant, seen string
		code                        codes.Code
	}{
		{"ok", "", "", "default", codes.OK},
		{"tenant", "", "acme", "acme", codes.OK},
		{"self", "", "_self", "_self suppressed", codes.OK},
		{"bad tenant", "", "a|b", "", codes.InvalidArgument},
		{"overloaded", "overloaded", "", "default", codes.Unavailable},
		{"panic", "panic", "", "default", codes.Internal},
		{"secret", "secret", "", "default", codes.Internal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx := t.Context()
			if tt.tenant != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "X-Scope-OrgID", tt.tenant)
			}
			check := func(err error) {
				require.Equal(t, tt.code, status.Code(err), "%v", err)
				require.NotContains(t, status.Convert(err).Message(), "oh no")
				require.NotContains(t, status.Convert(err).Message(), "secret")
				require.Len(t, status.Convert(err).Details(), map[bool]int{true: 1}[tt.code == codes.Unavailable])
				if tt.seen != "" {
					require.Equal(t, tt.seen, <-h.seen)
				}
			}
			req := &grpc_health_v1.HealthCheckRequest{Service: tt.service}
			_, err := client.Check(ctx, req)
			check(err)
			s, err := client.Watch(ctx, req)
			require.NoError(t, err)
			_, err = s.Recv()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			check(err)
		})
	}
	tr := &http.Transport{}
	require.Equal(t, "http", fetch(t, tr, srv.Addr()))
	tr.CloseIdleConnections()
	require.NoError(t, conn.Close())
	cancel()
	require.NoError(t, <-served)
	rpc.Stop()

	require.Contains(t, log.String(), "oh no")
	require.Contains(t, log.String(), "secret")
	require.Len(t, spans.Ended(), 10) // not those of _self, not those refused
	require.Equal(t, "grpc.health.v1.Health/Check", spans.Ended()[0].Name())
	n, err := testutil.GatherAndCount(reg, "braid_httpapi_grpc_duration_seconds")
	require.NoError(t, err)
	require.Equal(t, 8, n)
}

func TestGRPCUnimplemented(t *testing.T) {
	g := httpapi.GRPC{Metrics: httpapi.NewMetrics(prometheus.NewRegistry(), fixed)}
	_, err := g.Unary()(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/a/b"}, func(context.Context, any) (any, error) {
		return nil, status.Error(codes.Unimplemented, "not here")
	})
	require.Equal(t, codes.Unimplemented, status.Code(err))
}
