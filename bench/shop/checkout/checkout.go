// Package checkout is the shop's checkout service: it turns a cart into an order, over gRPC.
package checkout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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

// Deps are what a checkout service needs.
type Deps struct {
	Telemetry *instrument.Telemetry
	Faults    *fault.Switch
	Cart      cart.Client
	Database  grpc.ClientConnInterface
	Slow      time.Duration // an order that takes longer is logged
	Now       func() time.Time
}

// Service answers shop.v1.Checkout.
type Service struct {
	deps   Deps
	orders metric.Int64Counter
	value  metric.Float64Histogram
}

var _ wire.CheckoutServer = (*Service)(nil)

// New returns a checkout service.
func New(deps Deps) (*Service, error) {
	orders, err := deps.Telemetry.Meter.Int64Counter("orders",
		metric.WithUnit("{order}"), metric.WithDescription("Orders by outcome."))
	value, err2 := deps.Telemetry.Meter.Float64Histogram("order.value",
		metric.WithUnit("{euro}"), metric.WithDescription("Total of each placed order."),
		metric.WithExplicitBucketBoundaries(10, 25, 50, 100, 250, 500, 1000, 2500))
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("create checkout instruments: %w", err)
	}
	return &Service{deps: deps, orders: orders, value: value}, nil
}

// Server returns the gRPC server.
func (s *Service) Server() *grpc.Server {
	srv := s.deps.Telemetry.GRPCServer(grpc.UnaryInterceptor(s.intercept))
	wire.RegisterCheckout(srv, s)
	return srv
}

// intercept counts the outcome of every order, faults included.
func (s *Service) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	reply, err := s.deps.Faults.Unary(ctx, req, info, next)
	outcome := "placed"
	if err != nil {
		outcome = "failed"
	}
	s.orders.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
	return reply, err
}

// PlaceOrder orders what is in the user's cart and empties it.
func (s *Service) PlaceOrder(ctx context.Context, req wire.OrderRequest) (wire.OrderReply, error) {
	span, log := trace.SpanFromContext(ctx), s.deps.Telemetry.Log
	span.SetAttributes(attribute.String("app.user.id", req.User))
	start := s.deps.Now()
	reply, err := s.place(ctx, req.User)
	took := s.deps.Now().Sub(start)
	if err != nil {
		span.RecordError(err)
		span.SetStatus(otelcodes.Error, err.Error())
		log.ErrorContext(ctx, "order failed", "user", req.User, "duration_ms", took.Milliseconds(), "err", err)
		return wire.OrderReply{}, status.Error(code(err), err.Error())
	}
	span.SetAttributes(attribute.String("app.order.id", reply.Order), attribute.Int64("app.order.total_cents", reply.TotalCents))
	s.value.Record(ctx, float64(reply.TotalCents)/100)
	if took > s.deps.Slow {
		log.WarnContext(ctx, "checkout took too long", "order", reply.Order, "user", req.User,
			"duration_ms", took.Milliseconds(), "threshold_ms", s.deps.Slow.Milliseconds())
	}
	log.InfoContext(ctx, "order placed", "order", reply.Order, "user", req.User, "total_cents", reply.TotalCents)
	return reply, nil
}

func (s *Service) place(ctx context.Context, user string) (wire.OrderReply, error) {
	content, err := s.deps.Cart.Get(ctx, user)
	if err != nil {
		return wire.OrderReply{}, err
	}
	var total int64
	for _, item := range content.Items {
		found, err := wire.Query(ctx, s.deps.Database, wire.QueryRequest{Statement: wire.SelectProduct, Product: item.Product})
		if err != nil {
			return wire.OrderReply{}, fmt.Errorf("look up product %q: %w", item.Product, err)
		}
		for _, p := range found.Products {
			total += p.PriceCents * item.Quantity
		}
	}
	if err := s.charge(ctx, total); err != nil {
		return wire.OrderReply{}, err
	}
	order, err := wire.Query(ctx, s.deps.Database, wire.QueryRequest{Statement: wire.InsertOrder, User: user, TotalCents: total})
	if err != nil {
		return wire.OrderReply{}, fmt.Errorf("store order: %w", err)
	}
	if err := s.deps.Cart.Delete(ctx, user); err != nil {
		return wire.OrderReply{}, err
	}
	return wire.OrderReply{Order: order.Order, TotalCents: total}, nil
}

// charge stands for the payment: it takes a moment and has a span of its own.
func (s *Service) charge(ctx context.Context, cents int64) error {
	ctx, span := s.deps.Telemetry.Tracer.Start(ctx, "charge card", trace.WithAttributes(attribute.Int64("app.payment.cents", cents)))
	defer span.End()
	timer := time.NewTimer(5 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		span.SetStatus(otelcodes.Error, ctx.Err().Error())
		return fmt.Errorf("charge card: %w", ctx.Err())
	case <-timer.C:
		return nil
	}
}

// code maps an error of a dependency to what the caller is told.
func code(err error) codes.Code {
	var answer *cart.StatusError
	switch {
	case errors.As(err, &answer) && answer.Code == http.StatusNotFound:
		return codes.FailedPrecondition // nothing to order
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	var wrapped interface{ GRPCStatus() *status.Status }
	if errors.As(err, &wrapped) && wrapped.GRPCStatus().Code() == codes.NotFound {
		return codes.InvalidArgument // the cart has a product that does not exist
	}
	return codes.Internal
}
