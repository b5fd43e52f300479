package database

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/braidobs/braid/bench/shop/wire"
)

// statement is what the simulated database knows about a prepared statement.
type statement struct {
	operation string        // db.operation.name
	table     string        // db.collection.name
	text      string        // db.query.text
	latency   time.Duration // without load; each run takes between half and one and a half of it
}

func statements() map[string]statement {
	return map[string]statement{
		wire.SelectProducts: {"SELECT", "products", "SELECT id, name, price_cents FROM products ORDER BY id", 12 * time.Millisecond},
		wire.SelectProduct:  {"SELECT", "products", "SELECT id, name, price_cents FROM products WHERE id = $1", 3 * time.Millisecond},
		wire.InsertOrder:    {"INSERT", "orders", "INSERT INTO orders (user_id, total_cents) VALUES ($1, $2) RETURNING id", 15 * time.Millisecond},
		wire.CountOrders:    {"SELECT", "orders", "SELECT count(*) FROM orders", 30 * time.Millisecond},
	}
}

// store keeps the catalogue and counts orders. Orders themselves are not kept: the shop may run for days.
type store struct {
	products []wire.Product
	byID     map[string]wire.Product

	mu     sync.Mutex // guards the rest
	orders int64
	dice   *rand.Rand
}

func newStore(seed uint64) *store {
	s := &store{byID: map[string]wire.Product{}, dice: rand.New(rand.NewPCG(seed, 0xdb))}
	for i, name := range []string{
		"walnut desk", "reading lamp", "office chair", "wool rug", "bookshelf", "coat rack", "side table", "mirror",
		"floor lamp", "sofa", "bench", "stool", "wardrobe", "cabinet", "clock", "vase", "curtain", "cushion", "blanket", "candle",
	} {
		p := wire.Product{ID: fmt.Sprintf("p%02d", i+1), Name: name, PriceCents: 999 + s.dice.Int64N(40_000)}
		s.products = append(s.products, p)
		s.byID[p.ID] = p
	}
	return s
}

// latency is how long this run of a statement takes.
func (s *store) latency(base time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return base/2 + time.Duration(s.dice.Int64N(int64(base)))
}

func (s *store) run(req wire.QueryRequest) (wire.QueryReply, error) {
	switch req.Statement {
	case wire.SelectProducts:
		return wire.QueryReply{Products: s.products}, nil
	case wire.SelectProduct:
		p, ok := s.byID[req.Product]
		if !ok {
			return wire.QueryReply{}, status.Errorf(codes.NotFound, "no product %q", req.Product)
		}
		return wire.QueryReply{Products: []wire.Product{p}}, nil
	case wire.InsertOrder:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.orders++
		return wire.QueryReply{Order: fmt.Sprintf("o%08d", s.orders)}, nil
	case wire.CountOrders:
		s.mu.Lock()
		defer s.mu.Unlock()
		return wire.QueryReply{Count: s.orders}, nil
	default:
		return wire.QueryReply{}, status.Errorf(codes.InvalidArgument, "no statement %q", req.Statement)
	}
}

// wait returns after d, or when ctx ends with its error.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
