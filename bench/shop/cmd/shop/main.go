// Command shop runs one role of the demo shop: frontend, cart, checkout, database, load, or all of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"go.opentelemetry.io/otel"

	"github.com/braidobs/braid/bench/shop"
)

// rpcSemconv makes the gRPC instrumentation emit rpc.server.duration beside its successor rpc.server.call.duration.
const rpcSemconv = "OTEL_SEMCONV_STABILITY_OPT_IN"

func main() {
	if err := run(os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "shop:", err)
		}
		os.Exit(1)
	}
}

func run(args []string) error {
	cfg := shop.DefaultConfig()
	fs := flag.NewFlagSet("shop", flag.ContinueOnError)
	cfg.Flags(fs)
	stopWithStdin := fs.Bool("stop-with-stdin", false, "stop when standard input ends: the process never outlives its parent")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if _, set := os.LookupEnv(rpcSemconv); !set {
		if err := os.Setenv(rpcSemconv, "rpc/dup"); err != nil {
			return fmt.Errorf("set %s: %w", rpcSemconv, err)
		}
	}
	otel.SetErrorHandler(&exportErrors{log: slog.New(slog.NewJSONHandler(os.Stderr, nil)), role: string(cfg.Role)})

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *stopWithStdin {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		// Nothing can interrupt a read of standard input: this goroutine may end with the process.
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // an unreadable input has ended too
			cancel()
		}()
	}
	return shop.Run(ctx, cfg, shop.Env{Stdout: os.Stdout, Stderr: os.Stderr, Now: time.Now})
}

// exportErrors reports what the SDK could not deliver, at most once in ten seconds: an endpoint that is down makes an
// error per export.
type exportErrors struct {
	log  *slog.Logger
	role string

	mu   sync.Mutex // guards last
	last time.Time
}

// Handle implements otel.ErrorHandler.
func (e *exportErrors) Handle(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := time.Now(); now.Sub(e.last) > 10*time.Second {
		e.last = now
		e.log.Warn("telemetry is not delivered", "role", e.role, "err", err)
	}
}
