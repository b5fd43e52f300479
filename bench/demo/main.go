// Command demo starts Braid and a small shop that sends it traces, metrics and logs, makes the shop's database
// slow, and prints what Braid joins to one slow trace. It runs until it is interrupted and then stops all of it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/braidobs/braid/bench/shop/fault"
	"github.com/braidobs/braid/bench/shop/runner"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is what is running.
type demo struct {
	out    io.Writer
	base   string // URL of Braid's query port
	client *http.Client
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "the `folder` with the binaries braid and shop")
	data := flags.String("data", "", "the `folder` for Braid's data; empty is a temporary one, deleted at the end")
	once := flags.Bool("once", false, "stop after the answer instead of waiting for Ctrl-C")
	rps := flags.Float64("rps", 20, "orders a second")
	patience := flags.Duration("patience", 2*time.Minute, "how long to wait for the answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *data == "" {
		if *data, err = os.MkdirTemp("", "braid-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(*data)) }()
	}
	start := time.Now()
	ports, err := freePorts(ctx, 9090, 4317, 4318)
	if err != nil {
		return err
	}
	d := &demo{out: out, base: "http://" + ports[0], client: &http.Client{Timeout: 10 * time.Second}}
	braid, err := startBraid(ctx, filepath.Join(*bin, "braid"), *data, ports)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, braid.stop()) }()
	wait, cancel := context.WithTimeout(ctx, *patience)
	defer cancel()
	if err := d.poll(wait, braid.died, func() bool { return d.get(wait, "/-/ready", nil) == nil }); err != nil {
		return fmt.Errorf("wait for Braid, see %s: %w", braid.log, err)
	}
	fmt.Fprintf(out, "Braid listens on %s, its log is %s\n", d.base, braid.log)
	shop, err := runner.Start(wait, runner.Options{
		Binary: filepath.Join(*bin, "shop"), OTLPGRPC: ports[1], OTLPHTTP: ports[2], RPS: *rps, MetricInterval: time.Second,
		Args: []string{"-batch-delay=200ms"},
	})
	if err != nil {
		return fmt.Errorf("start the shop: %w", err)
	}
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		err = errors.Join(err, shop.Stop(stopCtx))
		fmt.Fprintln(out, "The shop and Braid are stopped.")
	}()
	fmt.Fprintf(out, "The shop sells at %s\n", shop.FrontendURL())
	if _, err := shop.Inject(wait, runner.Database, fault.Fault{Kind: fault.SlowDatabase, Delay: fault.Duration(800 * time.Millisecond), Ratio: 0.3}); err != nil {
		return fmt.Errorf("make the database slow: %w", err)
	}
	fmt.Fprintln(out, "The database is slow now (800 ms for three queries in ten). Looking for a slow order ...")
	var tr trace
	err = d.poll(wait, braid.died, func() bool { return d.slowTrace(wait, &tr) })
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("find a slow trace: %w", err)
	}
	d.print(&tr, time.Since(start))
	if *once {
		return nil
	}
	fmt.Fprintln(out, "\nThe shop goes on selling. Ctrl-C stops everything.")
	select {
	case <-ctx.Done():
	case <-shop.Failed():
		return errors.New("a process of the shop ended")
	case <-braid.died:
		return fmt.Errorf("the server ended, see %s", braid.log)
	}
	return nil
}

// poll calls done four times a second until it is true.
func (d *demo) poll(ctx context.Context, died <-chan struct{}, done func() bool) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-died:
			return errors.New("the process ended")
		case <-tick.C:
		}
	}
	return nil
}

// get asks Braid for JSON.
func (d *demo) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s: %s: %s", path, resp.Status, b)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// slowTrace looks for a slow order whose join is complete: all four services, their log lines, and series of the
// database's pod.
func (d *demo) slowTrace(ctx context.Context, tr *trace) bool {
	var found struct {
		Traces []struct {
			TraceID string `json:"traceID"`
		} `json:"traces"`
	}
	q := url.Values{"minDuration": {"700ms"}, "tags": {"service.name=database"}, "limit": {"5"}}
	if err := d.get(ctx, "/api/search?"+q.Encode(), &found); err != nil {
		return false
	}
	for _, f := range found.Traces {
		var answer struct {
			Data trace `json:"data"`
		}
		if err := d.get(ctx, "/api/v1/correlate/trace/"+f.TraceID, &answer); err != nil {
			continue
		}
		if t := &answer.Data; len(t.Services) >= 4 && len(t.Logs) >= 3 && t.told() {
			*tr = *t
			return true
		}
	}
	return false
}

// process is Braid.
type process struct {
	cmd  *exec.Cmd
	log  string
	died chan struct{}
	err  error // valid once died is closed
}

func startBraid(ctx context.Context, binary, data string, ports []string) (*process, error) {
	config := fmt.Sprintf("data: %q\nserver:\n  http: %s\n  otlp_grpc: %s\n  otlp_http: %s\n", filepath.Join(data, "braid"), ports[0], ports[1], ports[2])
	file := filepath.Join(data, "braid.yaml")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p := &process{log: filepath.Join(data, "braid.log"), died: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	// It is stopped by stop, after the shop, and not by ctx. A group of its own keeps Ctrl-C from it.
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), binary, "-config", file)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start Braid: %w", err), log.Close())
	}
	go func() {
		p.err = errors.Join(p.cmd.Wait(), log.Close())
		close(p.died)
	}()
	return p, nil
}

// stop asks the process to end and waits for that.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	t := time.NewTimer(20 * time.Second)
	defer t.Stop()
	select {
	case <-p.died:
		return p.err
	case <-t.C:
		return errors.Join(errors.New("the server did not stop in 20 s and was killed"), p.cmd.Process.Kill())
	}
}

// freePorts returns loopback addresses with the wanted ports where they are free, and others where not.
func freePorts(ctx context.Context, wanted ...int) ([]string, error) {
	var out []string
	var lc net.ListenConfig
	for _, port := range wanted {
		ln, err := lc.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			if ln, err = lc.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
				return nil, err
			}
		}
		out = append(out, ln.Addr().String())
		if err := ln.Close(); err != nil {
			return nil, err
		}
	}
	return out, nil
}
