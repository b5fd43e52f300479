package httpapi

import (
	"context"
	"errors"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// GRPC is for gRPC servers what the middleware is for HTTP: tenant, panics, metrics, traces and the table of
// errors.
type GRPC struct {
	Surface Surface
	Errors  Errors
	Metrics *Metrics
	Tracer  trace.TracerProvider // nil for no traces
}

// Options returns the options that make a server use both interceptors.
func (g GRPC) Options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(g.Unary()), grpc.ChainStreamInterceptor(g.Stream())}
}

// Unary returns the interceptor of calls with one request.
func (g GRPC) Unary() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (resp any, err error) {
		err = g.call(ctx, info.FullMethod, func(ctx context.Context) (err error) {
			resp, err = h(ctx, req)
			return err
		})
		if err != nil {
			return nil, err
		}
		return resp, nil
	}
}

// Stream returns the interceptor of calls with a stream of messages.
func (g GRPC) Stream() grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return g.call(ss.Context(), info.FullMethod, func(ctx context.Context) error {
			return h(srv, &stream{ServerStream: ss, ctx: ctx})
		})
	}
}

// call runs one call and maps its error.
func (g GRPC) call(ctx context.Context, name string, f func(context.Context) error) (err error) {
	gauge := g.Metrics.inFlight.WithLabelValues("grpc")
	gauge.Inc()
	start := g.Metrics.now()
	defer func() {
		gauge.Dec()
		g.Metrics.grpc.WithLabelValues(name, status.Code(err).String()).Observe(g.Metrics.now().Sub(start).Seconds())
	}()
	md, _ := metadata.FromIncomingContext(ctx)
	tenant, err := ParseTenant(md.Get(TenantHeader), g.Surface)
	if err != nil {
		return g.Errors.GRPC(ctx, err)
	}
	ctx = WithTenant(ctx, tenant)
	if g.Tracer != nil {
		var span trace.Span
		ctx, span = startRPC(ctx, g.Tracer.Tracer(scope), strings.TrimPrefix(name, "/"), md)
		defer func() {
			span.SetAttributes(attribute.Int("rpc.grpc.status_code", int(status.Code(err))))
			if serverFault(status.Code(err)) {
				span.SetStatus(otelcodes.Error, status.Code(err).String())
			}
			span.End()
		}()
	}
	var failed error
	if p := g.Metrics.catch(func() { failed = f(ctx) }); p != nil {
		failed = p
	}
	return g.Errors.GRPC(ctx, failed)
}

// serverFault says whether a code is an error of the server's span, as the semantic conventions have it.
func serverFault(c codes.Code) bool {
	switch c {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	default:
		return false
	}
}

// stream is a stream with a context of its own.
type stream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // what grpc.ServerStream asks for
}

// Context returns the context of the call.
func (s *stream) Context() context.Context { return s.ctx }

// fromStatus returns the error that a gRPC status made by others stands for. UNKNOWN stands for nothing.
func fromStatus(err error) error {
	if errors.As(err, new(*Error)) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	e := &Error{Message: st.Message(), Err: err}
	switch st.Code() {
	case codes.InvalidArgument, codes.OutOfRange:
		e.Kind = BadData
	case codes.Unauthenticated, codes.PermissionDenied:
		e.Kind = Unauthorized
	case codes.NotFound:
		e.Kind = NotFound
	case codes.ResourceExhausted:
		e.Kind = TenantLimit
	case codes.FailedPrecondition:
		e.Kind = Execution
	case codes.Unavailable:
		e.Kind = Unavailable
	case codes.DeadlineExceeded:
		e.Kind = Timeout
	case codes.Canceled:
		e.Kind = Canceled
	default:
		return err
	}
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			e.RetryAfter = r.GetRetryDelay().AsDuration()
		}
	}
	return e
}
