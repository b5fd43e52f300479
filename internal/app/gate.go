package app

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
)

type telemetryBatch = telemetry.Batch

// gate lets a few write requests work at once and a few more wait, so that the memory of decoded requests is
// bounded whatever the number of senders.
type gate struct {
	working chan struct{}
	waiting chan struct{}
	refused prometheus.Counter
}

func newGate(work, wait int, reg prometheus.Registerer) *gate {
	g := &gate{working: make(chan struct{}, work), waiting: make(chan struct{}, wait), refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "braid_app_writes_refused_total", Help: "Write requests refused because server.write_queue others waited.",
	})}
	reg.MustRegister(g.refused)
	return g
}

// enter waits for a place. The caller must leave when err is nil.
func (g *gate) enter(ctx context.Context) error {
	select {
	case g.working <- struct{}{}:
		return nil
	default:
	}
	select {
	case g.waiting <- struct{}{}:
	default:
		g.refused.Inc()
		return httpapi.NewOverloaded(time.Second, fmt.Sprintf("%d write requests wait already (limit server.write_queue)", cap(g.waiting)))
	}
	defer func() { <-g.waiting }()
	select {
	case g.working <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) leave() { <-g.working }

// HTTP returns the gate as middleware: the body is read inside it.
func (g *gate) HTTP(errs httpapi.Errors) httpapi.Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := g.enter(r.Context()); err != nil {
				errs.Text(w, r, httpapi.Ingest, err)
				return
			}
			defer g.leave()
			next.ServeHTTP(w, r)
		})
	}
}

// Unary returns the gate as an interceptor.
func (g *gate) Unary() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		if err := g.enter(ctx); err != nil {
			return nil, err
		}
		defer g.leave()
		return h(ctx, req)
	}
}
