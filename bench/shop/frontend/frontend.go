// Package frontend is the shop's public face: HTTP in, cart over HTTP and checkout and database over gRPC behind it.
package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/braidobs/braid/bench/shop/cart"
	"github.com/braidobs/braid/bench/shop/fault"
	"github.com/braidobs/braid/bench/shop/instrument"
	"github.com/braidobs/braid/bench/shop/wire"
)

const maxBody = 64 << 10

// Deps are what a frontend needs.
type Deps struct {
	Telemetry *instrument.Telemetry
	Faults    *fault.Switch
	Cart      cart.Client
	Checkout  []grpc.ClientConnInterface // at least one; used in turn
	Database  grpc.ClientConnInterface
	Timeout   time.Duration // of one request
}

// Service is the frontend.
type Service struct {
	deps  Deps
	views metric.Int64Counter
	turn  atomic.Uint64
}

// New returns a frontend.
func New(deps Deps) (*Service, error) {
	views, err := deps.Telemetry.Meter.Int64Counter("product.views",
		metric.WithUnit("{view}"), metric.WithDescription("Product pages served."))
	if err != nil {
		return nil, fmt.Errorf("create frontend instruments: %w", err)
	}
	return &Service{deps: deps, views: views}, nil
}

// Handler serves GET /products, GET /product/{id} and POST /checkout.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, handle := range map[string]func(context.Context, http.ResponseWriter, *http.Request) error{
		"GET /products":     s.products,
		"GET /product/{id}": s.product,
		"POST /checkout":    s.checkout,
	} {
		mux.Handle(pattern, s.deps.Faults.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), s.deps.Timeout)
			defer cancel()
			if err := handle(ctx, w, r); err != nil {
				s.fail(ctx, w, pattern, err)
			}
		})))
	}
	return s.deps.Telemetry.HTTPServer(mux)
}

func (s *Service) products(ctx context.Context, w http.ResponseWriter, _ *http.Request) error {
	reply, err := wire.Query(ctx, s.deps.Database, wire.QueryRequest{Statement: wire.SelectProducts})
	if err != nil {
		return fmt.Errorf("list products: %w", err)
	}
	s.deps.Telemetry.Log.InfoContext(ctx, "products listed", "count", len(reply.Products))
	answer(w, reply.Products)
	return nil
}

func (s *Service) product(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	reply, err := wire.Query(ctx, s.deps.Database, wire.QueryRequest{Statement: wire.SelectProduct, Product: id})
	if err != nil {
		return fmt.Errorf("look up product %q: %w", id, err)
	}
	if len(reply.Products) != 1 {
		return fmt.Errorf("look up product %q: %d rows", id, len(reply.Products))
	}
	s.views.Add(ctx, 1, metric.WithAttributes(attribute.String("product.id", id)))
	s.deps.Telemetry.Log.InfoContext(ctx, "product viewed", "product", id)
	answer(w, reply.Products[0])
	return nil
}

func (s *Service) checkout(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	var req wire.CheckoutRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&req); err != nil {
		return status.Errorf(codes.InvalidArgument, "parse checkout: %v", err)
	}
	if req.User == "" {
		return status.Error(codes.InvalidArgument, "user: must not be empty")
	}
	trace.SpanFromContext(ctx).SetAttributes(attribute.String("app.user.id", req.User))
	if err := s.deps.Cart.Put(ctx, req.User, wire.Cart{Items: req.Items}); err != nil {
		return err
	}
	conn := s.deps.Checkout[s.turn.Add(1)%uint64(len(s.deps.Checkout))]
	reply, err := wire.PlaceOrder(ctx, conn, wire.OrderRequest{User: req.User})
	if err != nil {
		return fmt.Errorf("place order: %w", err)
	}
	s.deps.Telemetry.Log.InfoContext(ctx, "checkout done", "order", reply.Order, "user", req.User)
	answer(w, reply)
	return nil
}

// fail answers an error and records it: as an error when it is ours, as a warning when it is the client's.
func (s *Service) fail(ctx context.Context, w http.ResponseWriter, route string, err error) {
	code := httpCode(err)
	http.Error(w, err.Error(), code)
	if code < http.StatusInternalServerError {
		s.deps.Telemetry.Log.WarnContext(ctx, "request refused", "route", route, "status", code, "err", err)
		return
	}
	span := trace.SpanFromContext(ctx)
	span.RecordError(err)
	span.SetStatus(otelcodes.Error, err.Error())
	s.deps.Telemetry.Log.ErrorContext(ctx, "request failed", "route", route, "status", code, "err", err)
}

func httpCode(err error) int {
	var refused *cart.StatusError
	if errors.As(err, &refused) && refused.Code == http.StatusBadRequest {
		return http.StatusBadRequest
	}
	var remote interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &remote) {
		return http.StatusInternalServerError
	}
	switch remote.GRPCStatus().Code() {
	case codes.InvalidArgument:
		return http.StatusBadRequest
	case codes.NotFound:
		return http.StatusNotFound
	case codes.FailedPrecondition:
		return http.StatusConflict
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}

func answer[T any](w http.ResponseWriter, v T) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone: nobody to tell
}
