package otlp

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // registers gzip
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/storage"
)

// ServerOptions returns the options of a gRPC server that receives OTLP: the largest message, and the codec that hands
// messages over as they were sent. Interceptors are the business of the assembly.
func (s *Server) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(int(s.config.MaxBody)), grpc.ForceServerCodecV2(httpapi.NewRawCodec())}
}

// Register adds the three services of OTLP to a gRPC server that was made with ServerOptions.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	for name, signal := range map[string]storage.Signal{
		"trace.v1.TraceService": storage.Traces, "metrics.v1.MetricsService": storage.Metrics, "logs.v1.LogsService": storage.Logs,
	} {
		service := "opentelemetry.proto.collector." + name
		r.RegisterService(&grpc.ServiceDesc{
			ServiceName: service,
			HandlerType: (*any)(nil),
			Methods:     []grpc.MethodDesc{{MethodName: "Export", Handler: s.method("/"+service+"/Export", signal)}},
			Metadata:    "opentelemetry/proto/collector/" + signal.String() + "/v1",
		}, s)
	}
}

// method returns the handler of Export.
func (s *Server) method(name string, signal storage.Signal) grpc.MethodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		handle := func(ctx context.Context, _ any) (any, error) {
			out, size, err := s.call(ctx, signal, dec)
			code := codes.OK
			if err != nil {
				err = s.errors.From(ctx, err)
				code = status.Code(err)
			}
			s.pipeline.Observe("grpc", signal, code.String(), size)
			if err != nil {
				return nil, err
			}
			return out, nil
		}
		if interceptor == nil {
			return handle(ctx, nil)
		}
		return interceptor(ctx, nil, &grpc.UnaryServerInfo{Server: srv, FullMethod: name}, handle)
	}
}

func (s *Server) call(ctx context.Context, signal storage.Signal, dec func(any) error) (*httpapi.RawMessage, int, error) {
	var body httpapi.RawMessage
	if err := dec(&body); err != nil {
		return nil, 0, &httpapi.Error{Kind: httpapi.BadData, Message: "the request is malformed: " + printable(status.Convert(err).Message()), Err: err}
	}
	t, err := grpcTenant(ctx)
	if err != nil {
		return nil, len(body), err
	}
	source, err := grpcSource(ctx)
	if err != nil {
		return nil, len(body), err
	}
	req := incoming{signal: signal, tenant: t, source: source, enc: protobuf, body: body}
	if p, ok := peer.FromContext(ctx); ok {
		req.peer = address(p.Addr.String())
	}
	rejected, err := s.export(ctx, req)
	if err != nil {
		return nil, len(body), err
	}
	b, err := answer(signal, protobuf, rejected)
	if err != nil {
		return nil, len(body), err
	}
	return (*httpapi.RawMessage)(&b), len(body), nil
}

// RegisterCompression makes gRPC servers and clients of this process know zstd, with bounded memory; gzip they know
// already. gRPC keeps its compressors in a map without a lock, so it is called once, before anything is served or
// dialled. It does nothing when there is a zstd already.
func RegisterCompression() {
	if encoding.GetCompressor("zstd") == nil {
		encoding.RegisterCompressor(&zstdCompressor{})
	}
}

// maxWindow is the largest zstd window that is accepted. Encoders use 8 MiB up to level 19.
const maxWindow = 8 << 20

type zstdCompressor struct {
	encoders sync.Pool // of *zstd.Encoder
	decoders sync.Pool // of *zstd.Decoder
}

// Name is what grpc-encoding calls it.
func (c *zstdCompressor) Name() string { return "zstd" }

// Compress returns a writer that compresses to w.
func (c *zstdCompressor) Compress(w io.Writer) (io.WriteCloser, error) {
	z, _ := c.encoders.Get().(*zstd.Encoder)
	if z == nil {
		var err error
		z, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
		if err != nil {
			return nil, fmt.Errorf("open zstd encoder: %w", err)
		}
	}
	z.Reset(w)
	return &zstdWriter{Encoder: z, pool: &c.encoders}, nil
}

type zstdWriter struct {
	*zstd.Encoder
	pool *sync.Pool
}

// Close ends the frame.
func (w *zstdWriter) Close() error {
	err := w.Encoder.Close()
	w.Reset(nil)
	w.pool.Put(w.Encoder)
	return err
}

// Decompress returns a reader of what r holds.
func (c *zstdCompressor) Decompress(r io.Reader) (io.Reader, error) {
	z, _ := c.decoders.Get().(*zstd.Decoder)
	if z == nil {
		var err error
		z, err = zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1), // no goroutines
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow),
			zstd.WithDecoderMaxMemory(maxWindow), // of a frame that is its own window
		)
		if err != nil {
			return nil, fmt.Errorf("open zstd decoder: %w", err)
		}
	}
	if err := z.Reset(r); err != nil {
		c.decoders.Put(z)
		return nil, err
	}
	return &zstdReader{Decoder: z, pool: &c.decoders}, nil
}

type zstdReader struct {
	*zstd.Decoder
	pool *sync.Pool
	once sync.Once
}

// Close gives the decoder back. gRPC calls it.
func (r *zstdReader) Close() error {
	r.once.Do(func() {
		_ = r.Reset(nil) // keeps nothing of the request
		r.pool.Put(r.Decoder)
	})
	return nil
}
