// Package runner starts the demo shop as real processes, one per service, and stops them again. It is what the demo,
// the fault corpus and the end-to-end tests drive the shop with.
package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/braidobs/braid/bench/shop/fault"
	"github.com/braidobs/braid/bench/shop/load"
)

// The names of the processes, which Inject and AdminURL take.
const (
	Database       = "database"
	Cart           = "cart"
	Checkout       = "checkout"
	CheckoutCanary = "checkout-canary" // with Options.Canary
	Frontend       = "frontend"
	Load           = "load" // with Options.RPS > 0
)

// Options say what to start. Binary, OTLPGRPC and OTLPHTTP are required.
type Options struct {
	Binary   string // path of the shop binary
	OTLPGRPC string // host:port of the OTLP/gRPC receiver
	OTLPHTTP string // host:port of the OTLP/HTTP receiver
	Headers  map[string]string

	RPS     float64 // of the load process; 0 starts none
	Canary  bool    // a second checkout pod, with service.version 1.1.0, that takes every other order
	Version string  // of everything else; 1.0.0 when empty
	Seed    uint64  // of pod names, catalogue and load; 1 when 0

	MetricInterval time.Duration       // 2 s when 0
	LogJSON        bool                // log records also as JSON on Stderr
	Grace          time.Duration       // between SIGTERM and SIGKILL, per process; 10 s when 0
	Args           []string            // more flags, for every service process
	ArgsOf         map[string][]string // more flags, for one service process
	Stdout         io.Writer           // of all processes, line by line; discarded when nil
	Stderr         io.Writer
	StderrOf       func(name string) io.Writer // of one process, instead of Stderr; nil for none
}

// canaryVersion is the service.version of the canary.
const canaryVersion = "1.1.0"

// startLimit is how long one process may take to be ready.
const startLimit = 20 * time.Second

// Shop is a running shop. Stop must be called.
type Shop struct {
	grace  time.Duration
	client *http.Client
	procs  []*process // in the order of their start

	failOnce sync.Once
	failed   chan struct{}
}

// Process is what a caller may know of one process.
type Process struct {
	Name  string
	PID   int
	Pod   string
	HTTP  string // host:port, empty if the process does not serve it
	GRPC  string
	Admin string
}

// Start starts the database, the cart, the checkouts, the frontend and then the load, each when what it calls is ready.
// ctx bounds the start only. When a process does not get ready, Start stops the others and returns why.
func Start(ctx context.Context, opts Options) (*Shop, error) {
	if opts.Binary == "" || opts.OTLPGRPC == "" || opts.OTLPHTTP == "" {
		return nil, errors.New("start shop: Binary, OTLPGRPC and OTLPHTTP must be set")
	}
	if opts.Grace == 0 {
		opts.Grace = 10 * time.Second
	}
	if opts.Version == "" {
		opts.Version = "1.0.0"
	}
	s := &Shop{
		grace: opts.Grace, failed: make(chan struct{}),
		client: &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second},
	}
	if err := s.start(ctx, opts); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), opts.Grace)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("start shop: %w", err), s.Stop(stop))
	}
	return s, nil
}

func (s *Shop) start(ctx context.Context, opts Options) error {
	stdout, all := shared(opts.Stdout), shared(opts.Stderr)
	service := func(name, role, version string, args ...string) (Process, error) {
		args = slices.Concat(commonArgs(opts), []string{"-role", role, "-instance", name, "-version", version}, opts.Args, opts.ArgsOf[name], args)
		stderr := all
		if opts.StderrOf != nil {
			stderr = opts.StderrOf(name)
		}
		return s.launch(ctx, opts.Binary, name, args, stdout, stderr)
	}
	db, err := service(Database, "database", opts.Version)
	if err != nil {
		return err
	}
	cart, err := service(Cart, "cart", opts.Version)
	if err != nil {
		return err
	}
	peers := []string{"-cart", cart.HTTP, "-database", db.GRPC}
	first, err := service(Checkout, "checkout", opts.Version, peers...)
	if err != nil {
		return err
	}
	checkouts := []string{first.GRPC}
	if opts.Canary {
		canary, err := service(CheckoutCanary, "checkout", canaryVersion, peers...)
		if err != nil {
			return err
		}
		checkouts = append(checkouts, canary.GRPC)
	}
	front, err := service(Frontend, "frontend", opts.Version, append(peers, "-checkout", strings.Join(checkouts, ","))...)
	if err != nil {
		return err
	}
	if opts.RPS <= 0 {
		return nil
	}
	_, err = s.launch(ctx, opts.Binary, Load, []string{
		"-stop-with-stdin", "-role", "load", "-target", front.HTTP, "-seed", seed(opts),
		"-rps", strconv.FormatFloat(opts.RPS, 'g', -1, 64),
	}, stdout, all)
	return err
}

func commonArgs(opts Options) []string {
	args := []string{"-stop-with-stdin", "-otlp-grpc", opts.OTLPGRPC, "-otlp-http", opts.OTLPHTTP, "-seed", seed(opts)}
	if opts.MetricInterval > 0 {
		args = append(args, "-metric-interval", opts.MetricInterval.String())
	}
	if opts.LogJSON {
		args = append(args, "-log-json")
	}
	for key, value := range opts.Headers {
		args = append(args, "-header", key+"="+value)
	}
	return args
}

func seed(opts Options) string { return strconv.FormatUint(max(opts.Seed, 1), 10) }

// Processes returns what runs, in the order of the start.
func (s *Shop) Processes() []Process {
	out := make([]Process, len(s.procs))
	for i, p := range s.procs {
		out[i] = p.info
	}
	return out
}

// FrontendURL is where the shop is, without a slash at the end.
func (s *Shop) FrontendURL() string {
	p, err := s.find(Frontend)
	if err != nil {
		panic(err) // Start always starts one
	}
	return "http://" + p.info.HTTP
}

// AdminURL is the admin address of a process, without a slash at the end; empty for one that has none.
func (s *Shop) AdminURL(name string) string {
	p, err := s.find(name)
	if err != nil || p.info.Admin == "" {
		return ""
	}
	return "http://" + p.info.Admin
}

// MetricsURL is the Prometheus exposition of the database.
func (s *Shop) MetricsURL() string { return s.AdminURL(Database) + "/metrics" }

// Inject switches a fault on in a process and returns what is on there.
func (s *Shop) Inject(ctx context.Context, name string, f fault.Fault) (fault.State, error) {
	body, err := json.Marshal(f)
	if err != nil {
		return fault.State{}, fmt.Errorf("encode fault: %w", err)
	}
	return s.fault(ctx, http.MethodPost, name, body)
}

// ClearFaults switches everything off in a process.
func (s *Shop) ClearFaults(ctx context.Context, name string) error {
	_, err := s.fault(ctx, http.MethodDelete, name, nil)
	return err
}

// Faults returns what is on in a process.
func (s *Shop) Faults(ctx context.Context, name string) (fault.State, error) {
	return s.fault(ctx, http.MethodGet, name, nil)
}

func (s *Shop) fault(ctx context.Context, method, name string, body []byte) (st fault.State, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s fault of %s: %w", method, name, err)
		}
	}()
	base := s.AdminURL(name)
	if base == "" {
		return st, errors.New("no such process, or it takes no faults")
	}
	req, err := http.NewRequestWithContext(ctx, method, base+"/fault", bytes.NewReader(body))
	if err != nil {
		return st, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return st, err
	}
	if resp.StatusCode != http.StatusOK {
		return st, fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(answer))
	}
	return st, json.Unmarshal(answer, &st)
}

// Failed is closed when a process ends that was not told to. Stop returns why.
func (s *Shop) Failed() <-chan struct{} { return s.failed }

// Stop stops the processes one after the other, the last started first: SIGTERM, then SIGKILL when the grace or ctx is
// over. It returns when all have ended, with an error for each that did not end cleanly. Calling it again is harmless.
func (s *Shop) Stop(ctx context.Context) error {
	var errs []error
	for _, p := range slices.Backward(s.procs) {
		if err := p.stop(ctx, s.grace); err != nil {
			errs = append(errs, fmt.Errorf("stop %s (pid %d): %w", p.info.Name, p.info.PID, err))
		}
	}
	s.client.CloseIdleConnections()
	return errors.Join(errs...)
}

// LoadSummary is what the load process did. It is there once the process has ended.
func (s *Shop) LoadSummary() (load.Summary, bool) {
	p, err := s.find(Load)
	if err != nil {
		return load.Summary{}, false
	}
	select {
	case <-p.done:
	default:
		return load.Summary{}, false
	}
	var sum load.Summary
	if err := json.Unmarshal(p.out.lastLine(), &sum); err != nil || sum.Status == nil {
		return load.Summary{}, false
	}
	return sum, true
}

func (s *Shop) find(name string) (*process, error) {
	for _, p := range s.procs {
		if p.info.Name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no process %q", name)
}
