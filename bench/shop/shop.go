package shop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/braidobs/braid/bench/shop/cart"
	"github.com/braidobs/braid/bench/shop/checkout"
	"github.com/braidobs/braid/bench/shop/database"
	"github.com/braidobs/braid/bench/shop/fault"
	"github.com/braidobs/braid/bench/shop/frontend"
	"github.com/braidobs/braid/bench/shop/host"
	"github.com/braidobs/braid/bench/shop/instrument"
	"github.com/braidobs/braid/bench/shop/load"
)

// Env is what a process gives to Run.
type Env struct {
	Stdout io.Writer // ready lines, and the summary of load
	Stderr io.Writer // log records as JSON, with Config.LogMirror
	Now    func() time.Time
}

// services are the four services with how they export: each OTLP transport is used by one.
func services() map[Role]profile {
	return map[Role]profile{
		Frontend: {transport: instrument.GRPC, faults: []fault.Kind{fault.ErrorBurst, fault.LeakingPod}},
		Cart: {
			transport: instrument.HTTPProtobufGzip, delta: true,
			faults: []fault.Kind{fault.ErrorBurst, fault.LeakingPod},
		},
		Checkout: {transport: instrument.HTTPJSON, faults: []fault.Kind{fault.ErrorBurst, fault.LeakingPod}},
		Database: {
			transport: instrument.GRPCGzip, exponential: []string{database.QueryDuration},
			faults: []fault.Kind{fault.ErrorBurst, fault.LeakingPod, fault.SlowDatabase},
		},
	}
}

// Run does what the configured role does until ctx ends, then stops: requests in flight get the grace, the last export
// too. It returns nil after a clean stop. Telemetry that could not be delivered is not an error.
func Run(ctx context.Context, cfg Config, env Env) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("invalid settings:\n%w", err)
	}
	out := &lines{w: env.Stdout}
	if env.Stderr != nil {
		env.Stderr = &lines{w: env.Stderr}
	}
	switch cfg.Role {
	case Load:
		return runLoad(ctx, cfg, env, out)
	case All:
		return runAll(ctx, cfg, env, out)
	default:
		return runService(ctx, cfg, env, func(r host.Ready) error { return out.json(r) })
	}
}

// runService runs one of the four services.
func runService(ctx context.Context, cfg Config, env Env, ready func(host.Ready) error) (err error) {
	if cfg.Instance == "" {
		cfg.Instance = string(cfg.Role)
	}
	how := services()[cfg.Role]
	id := instrument.NewIdentity(string(cfg.Role), cfg.Instance, cfg.Version, cfg.Seed)
	id.Extra = cfg.Resource
	var mirror io.Writer
	if cfg.LogMirror {
		mirror = env.Stderr
	}
	telemetry, err := instrument.New(ctx, instrument.Config{
		Identity: id, Transport: how.transport, OTLPGRPC: cfg.OTLPGRPC, OTLPHTTP: cfg.OTLPHTTP, Headers: cfg.Headers,
		MetricInterval: cfg.MetricInterval, BatchDelay: cfg.BatchDelay, Delta: how.delta, Exponential: how.exponential,
		LogMirror: mirror, OnlyMirror: !cfg.OTLPLogs, Now: env.Now,
	})
	if err != nil {
		return err
	}
	defer func() {
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Grace)
		defer cancel()
		// The endpoint may be down; the shop itself has stopped as it should.
		_ = telemetry.Shutdown(flush)
	}()
	faults := fault.New(fault.Config{
		Role: string(cfg.Role), Version: cfg.Version, Kinds: how.faults, Seed: cfg.Seed, Log: telemetry.Log,
	})
	service, closePeers, err := build(cfg, env, telemetry, faults)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closePeers()) }()
	service.Background = append(service.Background, faults.Run)
	return host.Serve(ctx, host.Config{HTTP: cfg.HTTP, GRPC: cfg.GRPC, Admin: cfg.Admin, Grace: cfg.Grace}, service,
		func(r host.Ready) error {
			r.Role, r.Instance, r.Version, r.Pod, r.PID = string(cfg.Role), cfg.Instance, cfg.Version, id.Pod, os.Getpid()
			return ready(r)
		})
}

// build makes the service of a role. The returned function closes the connections to its peers.
func build(cfg Config, env Env, t *instrument.Telemetry, faults *fault.Switch) (host.Service, func() error, error) {
	admin := http.NewServeMux()
	admin.Handle("/fault", faults)
	admin.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	svc := host.Service{Admin: admin}
	peers := peers{telemetry: t}
	switch cfg.Role {
	case Frontend:
		deps := frontend.Deps{
			Telemetry: t, Faults: faults, Cart: peers.cart(cfg), Database: peers.grpc(cfg.DatabaseAddr), Timeout: cfg.Timeout,
		}
		for _, addr := range cfg.CheckoutAddrs {
			deps.Checkout = append(deps.Checkout, peers.grpc(addr))
		}
		front, err := frontend.New(deps)
		if err := errors.Join(err, peers.err); err != nil {
			return svc, nil, errors.Join(err, peers.close())
		}
		svc.HTTP = front.Handler()
	case Cart:
		carts, err := cart.New(cart.Deps{Telemetry: t, Faults: faults})
		if err != nil {
			return svc, nil, err
		}
		svc.HTTP = carts.Handler()
	case Checkout:
		orders, err := checkout.New(checkout.Deps{
			Telemetry: t, Faults: faults, Cart: peers.cart(cfg), Database: peers.grpc(cfg.DatabaseAddr),
			Slow: cfg.SlowCheckout, Now: env.Now,
		})
		if err := errors.Join(err, peers.err); err != nil {
			return svc, nil, errors.Join(err, peers.close())
		}
		svc.GRPC = orders.Server()
	case Database:
		db, err := database.New(database.Deps{
			Telemetry: t, Faults: faults, SlowQuery: cfg.SlowQuery, Seed: cfg.Seed, Now: env.Now,
		})
		if err != nil {
			return svc, nil, err
		}
		svc.GRPC = db.Server()
		admin.Handle("GET /metrics", db.Metrics())
	default:
		return svc, nil, fmt.Errorf("%s is not a service", cfg.Role)
	}
	return svc, peers.close, nil
}

// peers opens clients and closes them again. The first error stays in err.
type peers struct {
	telemetry *instrument.Telemetry
	http      []*http.Client
	conns     []*grpc.ClientConn
	err       error
}

func (p *peers) cart(cfg Config) cart.Client {
	client := p.telemetry.HTTPClient(cfg.Timeout)
	p.http = append(p.http, client)
	return cart.Client{HTTP: client, Addr: cfg.CartAddr}
}

func (p *peers) grpc(addr string) grpc.ClientConnInterface {
	conn, err := p.telemetry.GRPCClient(addr)
	if err != nil {
		p.err = errors.Join(p.err, err)
		return nil
	}
	p.conns = append(p.conns, conn)
	return conn
}

func (p *peers) close() error {
	for _, client := range p.http {
		client.CloseIdleConnections()
	}
	var errs []error
	for _, conn := range p.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

func runLoad(ctx context.Context, cfg Config, env Env, out *lines) error {
	if err := out.json(host.Ready{Role: string(Load), Instance: string(Load), PID: os.Getpid()}); err != nil {
		return err
	}
	run := cfg.Load
	run.Seed, run.Timeout, run.Grace = cfg.Seed, cfg.Timeout, cfg.Grace
	summary, err := load.Run(ctx, run, env.Now)
	if err != nil {
		return err
	}
	return out.json(summary)
}

// runAll runs the four services, and load if its rate is not 0, in this process. Each stops only after everything that
// calls it has.
func runAll(ctx context.Context, cfg Config, env Env, out *lines) (err error) {
	var group errgroup.Group
	failed, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var stops []func()
	defer func() {
		for _, stop := range slices.Backward(stops) {
			stop()
		}
		err = errors.Join(err, group.Wait())
	}()

	at := map[Role]host.Ready{}
	for _, role := range []Role{Database, Cart, Checkout, Frontend, Load} {
		one := cfg
		one.Role, one.Instance = role, string(role)
		one.CartAddr, one.DatabaseAddr = at[Cart].HTTP, at[Database].GRPC
		one.CheckoutAddrs, one.Load.Target = []string{at[Checkout].GRPC}, at[Frontend].HTTP
		if role != Frontend {
			one.HTTP, one.GRPC, one.Admin = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
		}
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		ready, done := make(chan host.Ready, 1), make(chan struct{})
		stops = append(stops, func() { cancel(); <-done })
		group.Go(func() error {
			defer close(done)
			var err error
			switch {
			case role != Load:
				err = runService(own, one, env, func(r host.Ready) error {
					if err := out.json(r); err != nil {
						return err
					}
					ready <- r // has room for it
					return nil
				})
			case cfg.Load.RPS > 0:
				ready <- host.Ready{}
				err = runLoad(own, one, env, out)
			default:
				ready <- host.Ready{}
			}
			if err != nil {
				fail(err)
			}
			return err
		})
		select {
		case at[role] = <-ready:
		case <-failed.Done():
			return nil // group.Wait has the error, if it was not just ctx
		}
	}
	<-failed.Done()
	return nil
}

// lines lets several goroutines write whole lines.
type lines struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (l *lines) json(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode line: %w", err)
	}
	if _, err := l.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write line: %w", err)
	}
	return nil
}
