package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/lifecycle"
)

// ServerOptions say how to listen. Zero values of all but Addr and Handler have defaults.
type ServerOptions struct {
	Addr              config.Addr
	Handler           http.Handler
	Log               *slog.Logger  // errors of connections, as warnings; default: dropped
	ReadHeaderTimeout time.Duration // default 10 s
	IdleTimeout       time.Duration // default 2 min
	MaxHeaderBytes    int           // default 64 KiB
	Drain             time.Duration // how long requests in flight may take when stopping; default 10 s
}

// Server is an HTTP server for HTTP/1.1 and, without TLS, HTTP/2 with prior knowledge, so that gRPC can share its
// port (see WithGRPC).
type Server struct {
	opts ServerOptions
	http http.Server
	ln   net.Listener // set by Listen
}

// NewServer returns a server that does not listen yet.
func NewServer(o ServerOptions) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.ReadHeaderTimeout = or(o.ReadHeaderTimeout, 10*time.Second)
	o.IdleTimeout = or(o.IdleTimeout, 2*time.Minute)
	o.MaxHeaderBytes = or(o.MaxHeaderBytes, 64<<10)
	o.Drain = or(o.Drain, 10*time.Second)
	s := &Server{opts: o}
	s.http = http.Server{
		Handler:           o.Handler,
		ReadHeaderTimeout: o.ReadHeaderTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		Protocols:         new(http.Protocols),
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	return s
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Listen takes the address. Connections wait until Serve.
func (s *Server) Listen(ctx context.Context) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", s.opts.Addr.String())
	if err != nil {
		return err // names the address
	}
	s.ln = ln
	return nil
}

// Addr returns the address that the server listens on, with the port that a port 0 became. It is empty before
// Listen.
func (s *Server) Addr() string {
	if s.ln == nil {
		return ""
	}
	return s.ln.Addr().String()
}

// Serve answers requests until ctx ends, then takes no more, waits for those in flight for as long as Drain, and
// cuts off the rest. Listen comes first. The contexts of requests do not end with ctx but when they are cut off.
func (s *Server) Serve(ctx context.Context) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	s.http.BaseContext = func(net.Listener) context.Context { return base }
	done := make(chan error, 1)
	go func() { done <- s.http.Serve(s.ln) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve on %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(base, s.opts.Drain)
	defer cancel()
	err := s.http.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		s.opts.Log.WarnContext(ctx, "requests in flight are cut off", "addr", s.Addr(), "after", s.opts.Drain)
		cut()
		err = s.http.Close()
	}
	if served := <-done; err == nil && !errors.Is(served, http.ErrServerClosed) {
		err = served
	}
	if err != nil {
		return fmt.Errorf("stop serving on %s: %w", s.Addr(), err)
	}
	return nil
}

// Close closes the listener of a server that does not Serve.
func (s *Server) Close() error {
	if s.ln == nil {
		return nil
	}
	if err := s.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Part returns the server as a part of a process.
func (s *Server) Part(name string) lifecycle.Part {
	return lifecycle.Part{
		Name:  name,
		Start: s.Listen,
		Run:   s.Serve,
		Stop:  func(context.Context) error { return s.Close() },
		Grace: s.opts.Drain + time.Second,
	}
}

// WithGRPC returns a handler that gives gRPC requests to rpc, a *grpc.Server, and the others to h.
func WithGRPC(rpc, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ct := r.Header.Get("Content-Type")
		if r.ProtoMajor == 2 && (ct == "application/grpc" || strings.HasPrefix(ct, "application/grpc+") ||
			strings.HasPrefix(ct, "application/grpc;")) {
			rpc.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}
