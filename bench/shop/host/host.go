// Package host runs the servers of one shop service: it listens, says where, and stops within a time limit.
package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// Config says where to listen. Port 0 takes a free one.
type Config struct {
	HTTP  string
	GRPC  string
	Admin string
	Grace time.Duration // for requests in flight when stopping
}

// Service is what to serve. HTTP and GRPC may be nil.
type Service struct {
	HTTP       http.Handler
	GRPC       *grpc.Server
	Admin      http.Handler
	Background []func(context.Context) error // run until their context ends
}

// Ready is the line of JSON that a process writes to its standard output once it serves.
type Ready struct {
	Role     string `json:"role"`
	Instance string `json:"instance"`
	Version  string `json:"version,omitempty"`
	Pod      string `json:"pod,omitempty"`
	PID      int    `json:"pid"`
	HTTP     string `json:"http,omitempty"`
	GRPC     string `json:"grpc,omitempty"`
	Admin    string `json:"admin,omitempty"`
}

// Serve listens, calls ready with the addresses, and serves until ctx ends or a server fails. Then it stops taking
// requests, waits up to the grace for those in flight, and returns with everything stopped.
func Serve(ctx context.Context, cfg Config, svc Service, ready func(Ready) error) error {
	var at Ready
	var listeners [3]net.Listener
	for i, l := range []struct {
		name, addr string
		wanted     bool
		bound      *string
	}{
		{"http", cfg.HTTP, svc.HTTP != nil, &at.HTTP},
		{"grpc", cfg.GRPC, svc.GRPC != nil, &at.GRPC},
		{"admin", cfg.Admin, true, &at.Admin},
	} {
		if !l.wanted {
			continue
		}
		var lc net.ListenConfig
		listener, err := lc.Listen(ctx, "tcp", l.addr)
		if err != nil {
			for _, open := range listeners[:i] {
				if open != nil {
					err = errors.Join(err, open.Close())
				}
			}
			return fmt.Errorf("listen for %s on %s: %w", l.name, l.addr, err)
		}
		listeners[i], *l.bound = listener, listener.Addr().String()
	}

	group, ctx := errgroup.WithContext(ctx)
	if svc.HTTP != nil {
		serveHTTP(ctx, group, listeners[0], svc.HTTP, cfg.Grace)
	}
	if svc.GRPC != nil {
		serveGRPC(ctx, group, listeners[1], svc.GRPC, cfg.Grace)
	}
	serveHTTP(ctx, group, listeners[2], svc.Admin, cfg.Grace)
	for _, run := range svc.Background {
		group.Go(func() error { return run(ctx) })
	}
	group.Go(func() error { return ready(at) })
	return group.Wait()
}

func serveHTTP(ctx context.Context, group *errgroup.Group, l net.Listener, h http.Handler, grace time.Duration) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	group.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if err := srv.Shutdown(stop); err != nil {
			if err := srv.Close(); err != nil { // the grace is over: cut what is left
				return fmt.Errorf("close http on %s: %w", l.Addr(), err)
			}
		}
		return nil
	})
}

func serveGRPC(ctx context.Context, group *errgroup.Group, l net.Listener, srv *grpc.Server, grace time.Duration) {
	group.Go(func() error {
		if err := srv.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve grpc on %s: %w", l.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		cut := time.AfterFunc(grace, srv.Stop) // makes GracefulStop return
		defer cut.Stop()
		srv.GracefulStop()
		return nil
	})
}
