// Package cart is the shop's cart service: what each user wants to buy, kept in memory, over HTTP.
package cart

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/braidobs/braid/bench/shop/fault"
	"github.com/braidobs/braid/bench/shop/instrument"
	"github.com/braidobs/braid/bench/shop/wire"
)

// The bounds of what is kept.
const (
	maxCarts = 10_000
	maxItems = 100
	maxBody  = 64 << 10
)

// Deps are what a cart service needs.
type Deps struct {
	Telemetry *instrument.Telemetry
	Faults    *fault.Switch
}

// Service holds the carts.
type Service struct {
	deps  Deps
	items metric.Int64UpDownCounter

	mu    sync.Mutex // guards carts
	carts map[string]wire.Cart
}

// New returns a service without carts.
func New(deps Deps) (*Service, error) {
	items, err := deps.Telemetry.Meter.Int64UpDownCounter("cart.items",
		metric.WithUnit("{item}"), metric.WithDescription("Items in all carts."))
	if err != nil {
		return nil, fmt.Errorf("create cart instruments: %w", err)
	}
	return &Service{deps: deps, items: items, carts: map[string]wire.Cart{}}, nil
}

// Handler serves PUT, GET and DELETE /cart/{user}.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("PUT /cart/{user}", s.deps.Faults.HTTP(http.HandlerFunc(s.put)))
	mux.Handle("GET /cart/{user}", s.deps.Faults.HTTP(http.HandlerFunc(s.get)))
	mux.Handle("DELETE /cart/{user}", s.deps.Faults.HTTP(http.HandlerFunc(s.remove)))
	return s.deps.Telemetry.HTTPServer(mux)
}

func (s *Service) put(w http.ResponseWriter, r *http.Request) {
	ctx, user := r.Context(), r.PathValue("user")
	var cart wire.Cart
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&cart); err != nil {
		s.deps.Telemetry.Log.WarnContext(ctx, "cart is not readable", "user", user, "err", err)
		http.Error(w, "parse cart: "+err.Error(), http.StatusBadRequest)
		return
	}
	if len(cart.Items) == 0 || len(cart.Items) > maxItems {
		http.Error(w, fmt.Sprintf("a cart holds 1 to %d items", maxItems), http.StatusBadRequest)
		return
	}
	old, ok := s.swap(user, cart)
	if !ok {
		s.deps.Telemetry.Log.ErrorContext(ctx, "too many carts", "limit", maxCarts)
		http.Error(w, "too many carts", http.StatusServiceUnavailable)
		return
	}
	trace.SpanFromContext(ctx).SetAttributes(attribute.String("app.user.id", user), attribute.Int("app.cart.items", len(cart.Items)))
	s.items.Add(ctx, int64(len(cart.Items)-len(old.Items)))
	s.deps.Telemetry.Log.InfoContext(ctx, "cart saved", "user", user, "items", len(cart.Items))
	w.WriteHeader(http.StatusNoContent)
}

func (s *Service) get(w http.ResponseWriter, r *http.Request) {
	ctx, user := r.Context(), r.PathValue("user")
	s.mu.Lock()
	cart, ok := s.carts[user]
	s.mu.Unlock()
	if !ok {
		s.deps.Telemetry.Log.WarnContext(ctx, "cart is empty", "user", user)
		http.Error(w, "no cart", http.StatusNotFound)
		return
	}
	s.deps.Telemetry.Log.InfoContext(ctx, "cart read", "user", user, "items", len(cart.Items))
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(cart) // the client has gone: nobody to tell
}

func (s *Service) remove(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	old := s.carts[r.PathValue("user")]
	delete(s.carts, r.PathValue("user"))
	s.mu.Unlock()
	s.items.Add(r.Context(), -int64(len(old.Items)))
	w.WriteHeader(http.StatusNoContent)
}

// swap replaces a cart and returns the old one; false when there is no room.
func (s *Service) swap(user string, cart wire.Cart) (wire.Cart, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, exists := s.carts[user]
	if !exists && len(s.carts) >= maxCarts {
		return wire.Cart{}, false
	}
	s.carts[user] = cart
	return old, true
}
