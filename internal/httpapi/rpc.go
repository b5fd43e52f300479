package httpapi

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/lifecycle"
)

// RPCServer is a gRPC server with a listener of its own.
type RPCServer struct {
	addr   config.Addr
	server *grpc.Server
	drain  time.Duration
	ln     net.Listener
}

// NewRPCServer returns a server that listens at addr once it is started. When it stops, calls under way have drain to
// end.
func NewRPCServer(addr config.Addr, s *grpc.Server, drain time.Duration) *RPCServer {
	return &RPCServer{addr: addr, server: s, drain: drain}
}

// Addr returns where the server listens, or "" before it does.
func (s *RPCServer) Addr() string {
	if s.ln == nil {
		return ""
	}
	return s.ln.Addr().String()
}

// Listen binds the address.
func (s *RPCServer) Listen(ctx context.Context) error {
	var lc net.ListenConfig
	var err error
	if s.ln, err = lc.Listen(ctx, "tcp", string(s.addr)); err != nil {
		return fmt.Errorf("listen for gRPC: %w", err)
	}
	return nil
}

// Serve serves until ctx ends, then lets the calls under way end.
func (s *RPCServer) Serve(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(s.ln) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	drained := make(chan struct{})
	go func() { s.server.GracefulStop(); close(drained) }()
	t := time.NewTimer(s.drain)
	defer t.Stop()
	select {
	case <-drained:
	case <-t.C:
		s.server.Stop()
		<-drained
	}
	return <-done
}

// Part returns the server as a part of a process.
func (s *RPCServer) Part(name string) lifecycle.Part {
	return lifecycle.Part{
		Name: name, Start: s.Listen, Run: s.Serve, Grace: s.drain + time.Second,
		Stop: func(context.Context) error { s.server.Stop(); return nil },
	}
}
