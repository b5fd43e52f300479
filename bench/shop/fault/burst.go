package fault

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errBurst is what a service in an error burst fails with.
var errBurst = errors.New("price rounding: currency table has no entry for EUR")

// HTTP wraps a handler so that error_burst answers 500 in its place.
func (s *Switch) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, hit := s.Hit(ErrorBurst, ""); hit {
			s.fail(r.Context(), r.Method+" "+r.URL.Path)
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Unary is a gRPC interceptor with which error_burst answers INTERNAL.
func (s *Switch) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if _, hit := s.Hit(ErrorBurst, ""); hit {
		s.fail(ctx, info.FullMethod)
		return nil, status.Error(codes.Internal, "internal error")
	}
	return next(ctx, req)
}

// fail leaves the traces of an unexpected error: the span's status and exception event, and a log record with a stack.
func (s *Switch) fail(ctx context.Context, operation string) {
	stack := string(debug.Stack())
	span := trace.SpanFromContext(ctx)
	span.RecordError(errBurst, trace.WithAttributes(attribute.String("exception.stacktrace", stack)))
	span.SetStatus(otelcodes.Error, errBurst.Error())
	s.cfg.Log.ErrorContext(ctx, "request failed", "operation", operation, "err", errBurst, "exception.stacktrace", stack)
}
