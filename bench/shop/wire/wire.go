// Package wire holds what the shop's services say to each other: JSON over HTTP for the cart, gRPC for checkout and
// database. The gRPC messages travel as google.protobuf.Struct, so the services need no generated code.
package wire

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// Product is a thing to buy.
type Product struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	PriceCents int64  `json:"price_cents"`
}

// Item is a product in a cart.
type Item struct {
	Product  string `json:"product"`
	Quantity int64  `json:"quantity"`
}

// Cart is what a user wants to buy. It is the body of PUT and GET /cart/{user}.
type Cart struct {
	Items []Item `json:"items"`
}

// CheckoutRequest is the body of POST /checkout.
type CheckoutRequest struct {
	User  string `json:"user"`
	Items []Item `json:"items"`
}

// OrderRequest asks for an order of what is in the user's cart.
type OrderRequest struct {
	User string `json:"user"`
}

// OrderReply is a placed order. It is also the answer of POST /checkout.
type OrderReply struct {
	Order      string `json:"order"`
	TotalCents int64  `json:"total_cents"`
}

// The statements that the database knows.
const (
	SelectProducts = "select_products"
	SelectProduct  = "select_product"
	InsertOrder    = "insert_order"
	CountOrders    = "count_orders"
)

// QueryRequest is one prepared statement with its arguments.
type QueryRequest struct {
	Statement  string `json:"statement"`
	Product    string `json:"product,omitempty"`
	User       string `json:"user,omitempty"`
	TotalCents int64  `json:"total_cents,omitempty"`
}

// QueryReply is the answer to any statement.
type QueryReply struct {
	Products []Product `json:"products,omitempty"`
	Order    string    `json:"order,omitempty"`
	Count    int64     `json:"count,omitempty"`
}

const (
	databaseService = "shop.v1.Database"
	checkoutService = "shop.v1.Checkout"
)

// DatabaseServer answers queries.
type DatabaseServer interface {
	Query(ctx context.Context, req QueryRequest) (QueryReply, error)
}

// CheckoutServer places orders.
type CheckoutServer interface {
	PlaceOrder(ctx context.Context, req OrderRequest) (OrderReply, error)
}

// RegisterDatabase adds shop.v1.Database to a gRPC server.
func RegisterDatabase(s grpc.ServiceRegistrar, impl DatabaseServer) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: databaseService,
		HandlerType: (*DatabaseServer)(nil),
		Methods:     []grpc.MethodDesc{method(databaseService, "Query", DatabaseServer.Query)},
	}, impl)
}

// RegisterCheckout adds shop.v1.Checkout to a gRPC server.
func RegisterCheckout(s grpc.ServiceRegistrar, impl CheckoutServer) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: checkoutService,
		HandlerType: (*CheckoutServer)(nil),
		Methods:     []grpc.MethodDesc{method(checkoutService, "PlaceOrder", CheckoutServer.PlaceOrder)},
	}, impl)
}

// Query calls shop.v1.Database/Query.
func Query(ctx context.Context, conn grpc.ClientConnInterface, req QueryRequest) (QueryReply, error) {
	return invoke[QueryRequest, QueryReply](ctx, conn, "/"+databaseService+"/Query", req)
}

// PlaceOrder calls shop.v1.Checkout/PlaceOrder.
func PlaceOrder(ctx context.Context, conn grpc.ClientConnInterface, req OrderRequest) (OrderReply, error) {
	return invoke[OrderRequest, OrderReply](ctx, conn, "/"+checkoutService+"/PlaceOrder", req)
}

func invoke[Req, Reply any](ctx context.Context, conn grpc.ClientConnInterface, name string, req Req) (Reply, error) {
	var reply Reply
	in, err := pack(req)
	if err != nil {
		return reply, err
	}
	out := new(structpb.Struct)
	if err := conn.Invoke(ctx, name, in, out); err != nil {
		return reply, err // carries the gRPC code, which callers look at
	}
	err = unpack(out, &reply)
	return reply, err
}

func method[Server, Req, Reply any](
	service, name string, call func(Server, context.Context, Req) (Reply, error),
) grpc.MethodDesc {
	handle := func(impl any, ctx context.Context, decode func(any) error, wrap grpc.UnaryServerInterceptor) (any, error) {
		in := new(structpb.Struct)
		if err := decode(in); err != nil {
			return nil, err
		}
		run := func(ctx context.Context, in any) (any, error) {
			var req Req
			if err := unpack(in.(*structpb.Struct), &req); err != nil {
				return nil, status.Error(codes.InvalidArgument, err.Error())
			}
			reply, err := call(impl.(Server), ctx, req)
			if err != nil {
				return nil, err
			}
			return pack(reply)
		}
		if wrap == nil {
			return run(ctx, in)
		}
		return wrap(ctx, in, &grpc.UnaryServerInfo{Server: impl, FullMethod: "/" + service + "/" + name}, run)
	}
	return grpc.MethodDesc{MethodName: name, Handler: handle}
}

// pack turns a message into a Struct. Integers are exact to 2^53.
func pack[T any](v T) (*structpb.Struct, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	out := new(structpb.Struct)
	if err := out.UnmarshalJSON(b); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return out, nil
}

func unpack[T any](in *structpb.Struct, v *T) error {
	b, err := in.MarshalJSON()
	if err != nil {
		return fmt.Errorf("decode %T: %w", *v, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %T: %w", *v, err)
	}
	return nil
}
