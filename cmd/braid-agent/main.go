// Command braid-agent is the node agent: it reads logs, scrapes metrics, takes OTLP and sends it all to Braid.
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

	"github.com/braidobs/braid/daemonset"
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
		fmt.Fprintln(os.Stderr, "braid-agent:", err)
		os.Exit(1)
	}
}

const usage = `braid-agent reads the logs of a node's containers, scrapes metrics, takes OTLP and sends it all to Braid.

  braid-agent [run] [flags]    run (what braid-agent does without a command)
  braid-agent check [flags]    check the configuration and print it whole, defaults included
  braid-agent version          print the version

Without a configuration it reads /var/log/pods, if there is one, and sends to http://127.0.0.1:4318:

  braid-agent -backend http://braid.example:4318

Flags:
`

func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	command := "run"
	if len(args) > 0 && len(args[0]) > 0 && args[0][0] != '-' {
		command, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("braid-agent "+command, flag.ContinueOnError)
	flags.SetOutput(errOut)
	file := flags.String("config", "", "the configuration `file`, YAML")
	state := flags.String("state", "", "the `folder` for positions and queues (setting state)")
	backend := flags.String("backend", "", "the `URL` of the backend's OTLP/HTTP port (setting backend.endpoint)")
	level := flags.String("log.level", "", "debug, info, warn or error (setting self.level)")
	show := flags.Bool("version", false, "print the version")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if len(args) > 0 && (args[0] == "-h" || args[0] == "-help" || args[0] == "--help") {
		flags.SetOutput(out) // asked for
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see braid-agent -help", flags.Arg(0))
	}
	if *show || command == "version" {
		_, err := fmt.Fprintf(out, "braid-agent %s %s/%s %s\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
		return err
	}
	cfg := daemonset.DefaultConfig()
	if *file != "" {
		if err := config.LoadFile(*file, &cfg); err != nil {
			return err
		}
	}
	if *state != "" {
		cfg.State = *state
	}
	if *backend != "" {
		cfg.Backend.Endpoint = *backend
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
		return config.Example(out, cfg)
	case "run":
		a, err := daemonset.New(cfg, daemonset.Options{Version: version, Banner: out, Log: errOut, Now: time.Now, SelfUID: os.Getenv("POD_UID")})
		if err != nil {
			return err
		}
		return a.Run(ctx)
	default:
		return fmt.Errorf("unknown command %q; see braid-agent -help", command)
	}
}
