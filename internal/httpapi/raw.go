package httpapi

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that RawCodec falls back to
	"google.golang.org/grpc/mem"
)

// RawMessage is a message of protobuf as it is on the wire.
type RawMessage []byte

// RawCodec leaves raw messages alone, and others to protobuf: for services that read and write messages themselves, so that
// a malformed one gets an answer of ours. Servers get it with grpc.ForceServerCodecV2.
type RawCodec struct{ encoding.CodecV2 }

// NewRawCodec returns the codec.
func NewRawCodec() RawCodec { return RawCodec{encoding.GetCodecV2("proto")} }

// Marshal implements encoding.CodecV2.
func (c RawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*RawMessage); ok {
		return mem.BufferSlice{mem.SliceBuffer(*m)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c RawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(*RawMessage); ok {
		*m = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// RawService is a gRPC service on raw messages.
type RawService struct {
	Name   string // with its package
	Unary  map[string]func(ctx context.Context, req []byte) ([]byte, error)
	Stream map[string]func(ctx context.Context, req []byte, send func([]byte) error) error // one request, many answers
}

// Register adds the service to a server that has a RawCodec.
func (s RawService) Register(r grpc.ServiceRegistrar) {
	d := &grpc.ServiceDesc{ServiceName: s.Name, HandlerType: (*any)(nil)}
	for name, f := range s.Unary {
		full := "/" + s.Name + "/" + name
		handle := func(ctx context.Context, req any) (any, error) {
			out, err := f(ctx, *req.(*RawMessage)) //nolint:forcetypeassert // made below
			return (*RawMessage)(&out), err
		}
		d.Methods = append(d.Methods, grpc.MethodDesc{
			MethodName: name,
			Handler: func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
				req := new(RawMessage)
				if err := dec(req); err != nil {
					return nil, err
				}
				if interceptor == nil {
					return handle(ctx, req)
				}
				return interceptor(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, handle)
			},
		})
	}
	for name, f := range s.Stream {
		d.Streams = append(d.Streams, grpc.StreamDesc{
			StreamName: name, ServerStreams: true,
			Handler: func(_ any, ss grpc.ServerStream) error {
				req := new(RawMessage)
				if err := ss.RecvMsg(req); err != nil {
					return err
				}
				return f(ss.Context(), *req, func(b []byte) error { return ss.SendMsg((*RawMessage)(&b)) })
			},
		})
	}
	r.RegisterService(d, s)
}
