// Package rawgrpc calls methods of gRPC with messages as they are on the wire, for tests of services that write them themselves.
package rawgrpc

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/braidobs/braid/internal/httpapi"
)

// Serve serves what register registers, on loopback and as the server does, and returns a client. Both end with the test.
func Serve(tb testing.TB, register func(*grpc.Server)) *grpc.ClientConn {
	tb.Helper()
	side := httpapi.GRPC{Surface: httpapi.Query, Metrics: httpapi.NewMetrics(prometheus.NewRegistry(), func() time.Time { return time.Unix(0, 0) })}
	server := grpc.NewServer(append(side.Options(), grpc.ForceServerCodecV2(httpapi.NewRawCodec()))...)
	register(server)
	var lc net.ListenConfig
	ln, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ln) }()
	tb.Cleanup(func() {
		server.Stop()
		<-done
	})
	return Dial(tb, ln.Addr().String())
}

// Dial returns a client of the server at host:port, which ends with the test.
func Dial(tb testing.TB, addr string) *grpc.ClientConn {
	tb.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(httpapi.NewRawCodec())))
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, conn.Close()) })
	return conn
}

// Call returns all messages that a method, such as /package.Service/Method, answers a request with.
func Call(ctx context.Context, conn *grpc.ClientConn, method string, req []byte) (out []string, err error) {
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return nil, err
	}
	if err := s.SendMsg((*httpapi.RawMessage)(&req)); err != nil && !errors.Is(err, io.EOF) { // which RecvMsg explains
		return nil, err
	}
	if err := s.CloseSend(); err != nil {
		return nil, err
	}
	for {
		var m httpapi.RawMessage
		if err := s.RecvMsg(&m); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return out, err
		}
		out = append(out, string(m))
	}
}
