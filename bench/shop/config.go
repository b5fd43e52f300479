// Package shop is a small shop of four real services, instrumented with the OpenTelemetry SDK, that can be told to
// misbehave. It is the demo of this project and the source of its fault corpus.
//
// Each role runs as a process of its own (cmd/shop, started by hand or by package runner); the role all runs every
// service in one process, each with its own listeners, pod identity and SDK.
package shop

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/braidobs/braid/bench/shop/fault"
	"github.com/braidobs/braid/bench/shop/instrument"
	"github.com/braidobs/braid/bench/shop/load"
)

// Role is what a process is.
type Role string

// The roles.
const (
	Frontend Role = "frontend"
	Cart     Role = "cart"
	Checkout Role = "checkout"
	Database Role = "database"
	Load     Role = "load"
	All      Role = "all"
)

// Config is what a process does. Addresses are host:port; port 0 takes a free one.
type Config struct {
	Role     Role
	Instance string // tells replicas of a role apart; the role when empty
	Version  string // service.version
	Seed     uint64 // of pod names, catalogue, latencies and load

	HTTP  string // where to listen
	GRPC  string
	Admin string

	CartAddr      string   // peers
	CheckoutAddrs []string // used in turn
	DatabaseAddr  string

	OTLPGRPC       string
	OTLPHTTP       string
	Headers        map[string]string
	MetricInterval time.Duration
	BatchDelay     time.Duration
	LogMirror      bool
	OTLPLogs       bool
	Resource       map[string]string // overrides of resource attributes

	SlowQuery    time.Duration
	SlowCheckout time.Duration
	Timeout      time.Duration // of one request to the frontend
	Grace        time.Duration // for requests in flight, and then again for the last export

	Load load.Config // for the roles load and, if its rate is not 0, all
}

// DefaultConfig returns the settings of flags that are not given.
func DefaultConfig() Config {
	return Config{
		Version:        "1.0.0",
		Seed:           1,
		HTTP:           "127.0.0.1:0",
		GRPC:           "127.0.0.1:0",
		Admin:          "127.0.0.1:0",
		OTLPGRPC:       "127.0.0.1:4317",
		OTLPHTTP:       "127.0.0.1:4318",
		Headers:        map[string]string{},
		Resource:       map[string]string{},
		MetricInterval: 2 * time.Second,
		BatchDelay:     500 * time.Millisecond,
		SlowQuery:      250 * time.Millisecond,
		SlowCheckout:   500 * time.Millisecond,
		Timeout:        10 * time.Second,
		Grace:          3 * time.Second,
		OTLPLogs:       true,
		Load:           load.Config{RPS: 10, MaxInFlight: 256, Timeout: 10 * time.Second},
	}
}

// Flags defines a flag for each setting; what is in c is its default.
func (c *Config) Flags(fs *flag.FlagSet) {
	fs.Func("role", "frontend, cart, checkout, database, load or all", func(s string) error {
		c.Role = Role(s)
		return nil
	})
	fs.StringVar(&c.Instance, "instance", c.Instance, "name that tells replicas of a role apart (default: the role)")
	fs.StringVar(&c.Version, "version", c.Version, "service.version")
	fs.Uint64Var(&c.Seed, "seed", c.Seed, "seed of pod names, catalogue, latencies and load")
	fs.StringVar(&c.HTTP, "http", c.HTTP, "address to serve HTTP on (frontend, cart)")
	fs.StringVar(&c.GRPC, "grpc", c.GRPC, "address to serve gRPC on (checkout, database)")
	fs.StringVar(&c.Admin, "admin", c.Admin, "address to serve /fault, /healthz and (database) /metrics on")
	fs.StringVar(&c.CartAddr, "cart", c.CartAddr, "address of the cart (frontend, checkout)")
	fs.Func("checkout", "address of the checkout, several separated by commas (frontend)", func(s string) error {
		c.CheckoutAddrs = strings.Split(s, ",")
		return nil
	})
	fs.StringVar(&c.DatabaseAddr, "database", c.DatabaseAddr, "address of the database (frontend, checkout)")
	fs.StringVar(&c.OTLPGRPC, "otlp-grpc", c.OTLPGRPC, "OTLP/gRPC endpoint (frontend, database)")
	fs.StringVar(&c.OTLPHTTP, "otlp-http", c.OTLPHTTP, "OTLP/HTTP endpoint (cart, checkout)")
	fs.Func("header", "key=value sent with each export, for example X-Scope-OrgID=demo; repeatable", pair(c.Headers))
	fs.DurationVar(&c.MetricInterval, "metric-interval", c.MetricInterval, "time between metric exports")
	fs.DurationVar(&c.BatchDelay, "batch-delay", c.BatchDelay, "longest wait of a span or log record before its export")
	fs.BoolVar(&c.LogMirror, "log-json", c.LogMirror, "also write log records to standard error, as lines of JSON")
	fs.BoolVar(&c.OTLPLogs, "otlp-logs", c.OTLPLogs, "export log records; false with -log-json leaves them to whoever collects standard error")
	fs.Func("resource", "key=value resource attribute, overrides the made-up one; repeatable", pair(c.Resource))
	fs.DurationVar(&c.SlowQuery, "slow-query", c.SlowQuery, "a query that takes longer is logged (database)")
	fs.DurationVar(&c.SlowCheckout, "slow-checkout", c.SlowCheckout, "an order that takes longer is logged (checkout)")
	fs.DurationVar(&c.Timeout, "timeout", c.Timeout, "time limit of one request (frontend, load)")
	fs.DurationVar(&c.Grace, "grace", c.Grace, "on stop: time limit for requests in flight, then for the last export")
	fs.StringVar(&c.Load.Target, "target", c.Load.Target, "address of the frontend (load)")
	fs.Float64Var(&c.Load.RPS, "rps", c.Load.RPS, "requests a second (load, all; 0 in all: none)")
	fs.DurationVar(&c.Load.Duration, "duration", c.Load.Duration, "how long to drive (load; 0: until stopped)")
	fs.IntVar(&c.Load.MaxInFlight, "max-in-flight", c.Load.MaxInFlight, "requests over it are dropped and counted (load)")
}

func pair(into map[string]string) func(string) error {
	return func(s string) error {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return fmt.Errorf("%q is not key=value", s)
		}
		into[key] = value
		return nil
	}
}

// Validate returns all mistakes, each with the name of its flag.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, name, message string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %s", name, message))
		}
	}
	_, isService := services()[c.Role]
	check(isService || c.Role == Load || c.Role == All, "role", fmt.Sprintf("%q is not one of %s, load, all", c.Role,
		strings.Join(slices.Sorted(func(yield func(string) bool) {
			for role := range maps.Keys(services()) {
				if !yield(string(role)) {
					return
				}
			}
		}), ", ")))
	address := func(name, addr string, wanted bool) {
		if wanted {
			_, _, err := net.SplitHostPort(addr)
			check(err == nil, name, fmt.Sprintf("%q is not host:port", addr))
		}
	}
	traced := isService || c.Role == All
	address("http", c.HTTP, traced)
	address("grpc", c.GRPC, traced)
	address("admin", c.Admin, traced)
	address("otlp-grpc", c.OTLPGRPC, traced)
	address("otlp-http", c.OTLPHTTP, traced)
	address("cart", c.CartAddr, c.Role == Frontend || c.Role == Checkout)
	address("database", c.DatabaseAddr, c.Role == Frontend || c.Role == Checkout)
	address("target", c.Load.Target, c.Role == Load)
	if c.Role == Frontend {
		check(len(c.CheckoutAddrs) > 0, "checkout", "must be set")
		for _, addr := range c.CheckoutAddrs {
			address("checkout", addr, true)
		}
	}
	check(c.MetricInterval > 0, "metric-interval", "must be positive")
	check(c.BatchDelay > 0, "batch-delay", "must be positive")
	check(c.Timeout > 0, "timeout", "must be positive")
	check(c.Grace > 0, "grace", "must be positive")
	check(c.Load.RPS > 0 || c.Role != Load && c.Load.RPS == 0, "rps", "must be positive")
	check(c.Load.Duration >= 0, "duration", "must not be negative")
	check(c.Load.MaxInFlight > 0, "max-in-flight", "must be positive")
	return errors.Join(errs...)
}

// profile is how a service exports, and what it can be told to do wrong.
type profile struct {
	transport   instrument.Transport
	delta       bool
	exponential []string
	faults      []fault.Kind
}
