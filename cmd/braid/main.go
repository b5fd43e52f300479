// Command braid is the server: it receives, stores and answers. Without arguments it serves with working defaults
// on loopback and keeps its data in ./braid-data.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/braidobs/braid/internal/app"
	"github.com/braidobs/braid/internal/config"
)

// version is set when a release is built.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "braid:", err)
		os.Exit(1)
	}
}

const usage = `braid receives OTLP and Prometheus remote write, stores metrics, logs and traces, and answers PromQL, LogQL and joins.

  braid [serve] [flags]    serve (what braid does without a command)
  braid check [flags]      check the configuration, rules and objectives, and print it whole, defaults included
  braid rules check|test   check rule files, run their unit tests; see braid rules -help
  braid slo check|rules    check objectives, print what they turn into; see braid slo -help
  braid import prometheus  send the blocks of a Prometheus to a running braid; see braid import -help
  braid version            print the version

Flags:
`

func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	command := "serve"
	if len(args) > 0 && len(args[0]) > 0 && args[0][0] != '-' {
		command, args = args[0], args[1:]
	}
	switch command {
	case "rules":
		return rules(ctx, args, out, errOut)
	case "slo":
		return slos(args, out, errOut)
	case "import":
		return imports(ctx, args, out, errOut)
	}
	flags := flag.NewFlagSet("braid "+command, flag.ContinueOnError)
	flags.SetOutput(errOut)
	file := flags.String("config", "", "the configuration `file`, YAML")
	data := flags.String("data", "", "the `folder` that everything is kept in (setting data)")
	level := flags.String("log.level", "", "debug, info, warn or error (setting self.level)")
	show := flags.Bool("version", false, "print the version")
	flags.Usage = func() {
		fmt.Fprint(errOut, usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see braid -help", flags.Arg(0))
	}
	if *show || command == "version" {
		_, err := fmt.Fprintf(out, "braid %s %s/%s %s\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
		return err
	}
	cfg := app.DefaultConfig()
	if *file != "" {
		if err := config.LoadFile(*file, &cfg); err != nil {
			return err
		}
	}
	if *data != "" {
		cfg.Data = *data
	}
	if *level != "" {
		if err := cfg.Self.Level.UnmarshalText([]byte(*level)); err != nil {
			return fmt.Errorf("flag -log.level: %w", err)
		}
	}
	switch command {
	case "check":
		if err := config.Validate(&cfg); err != nil {
			return err
		}
		if err := app.CheckRules(cfg, nil); err != nil {
			return err
		}
		return config.Example(out, cfg)
	case "serve":
		reload := make(chan os.Signal, 1)
		signal.Notify(reload, syscall.SIGHUP)
		defer signal.Stop(reload)
		a, err := app.New(cfg, app.Options{Version: version, Banner: out, Log: errOut, Now: time.Now, Reload: reload})
		if err != nil {
			return err
		}
		return a.Run(ctx)
	default:
		return fmt.Errorf("unknown command %q; see braid -help", command)
	}
}
