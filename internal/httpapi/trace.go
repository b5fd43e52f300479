package httpapi

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/braidobs/braid/internal/selfobs"
	"github.com/braidobs/braid/internal/telemetry"
)

const scope = "github.com/braidobs/braid/internal/httpapi"

// Trace puts a server span around every request, a child of the one that a traceparent header names. Requests for
// the tenant _self, and those under a suppressed context, have none: they run suppressed. It belongs inside a
// Router.
func Trace(tp trace.TracerProvider) Middleware {
	tracer := tp.Tracer(scope)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx := r.Context()
			if selfobs.Suppressed(ctx) || r.Header.Get(TenantHeader) == string(telemetry.SelfTenant) {
				next.ServeHTTP(w, r.WithContext(selfobs.Suppress(ctx)))
				return
			}
			ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(r.Header))
			ctx, span := tracer.Start(ctx, spanName(r), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
				attribute.String("http.request.method", method(r)),
				attribute.String("http.route", route(r)),
				attribute.String("url.path", r.URL.Path),
			))
			rec := &recorder{ResponseWriter: w}
			defer func() {
				span.SetAttributes(attribute.Int("http.response.status_code", rec.status()))
				if rec.status() >= http.StatusInternalServerError {
					span.SetStatus(codes.Error, http.StatusText(rec.status()))
				}
				span.End()
			}()
			next.ServeHTTP(rec, r.WithContext(ctx))
		})
	}
}

// spanName is the route with its method: routes are often registered with one.
func spanName(r *http.Request) string {
	name := route(r)
	if m := method(r); len(name) <= len(m) || name[:len(m)] != m {
		return m + " " + name
	}
	return name
}

// startRPC is Trace for a gRPC call.
func startRPC(ctx context.Context, tracer trace.Tracer, name string, md map[string][]string) (context.Context, trace.Span) {
	if selfobs.Suppressed(ctx) || TenantFrom(ctx) == telemetry.SelfTenant {
		ctx = selfobs.Suppress(ctx)
		return ctx, trace.SpanFromContext(context.Background())
	}
	ctx = propagation.TraceContext{}.Extract(ctx, metadataCarrier(md))
	return tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("rpc.system", "grpc"),
		attribute.String("rpc.method", name),
	))
}

// metadataCarrier reads propagation headers from gRPC metadata, whose keys are in lower case.
type metadataCarrier map[string][]string

// Get returns the first value.
func (c metadataCarrier) Get(key string) string {
	if v := c[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set replaces the values.
func (c metadataCarrier) Set(key, value string) { c[key] = []string{value} }

// Keys returns all keys.
func (c metadataCarrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}
