package daemonset

import (
	"errors"
	"fmt"
	"time"

	"github.com/braidobs/braid/daemonset/forward"
	"github.com/braidobs/braid/daemonset/kube"
	"github.com/braidobs/braid/daemonset/scrape"
	"github.com/braidobs/braid/daemonset/tail"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/selfobs"
)

// Config is the configuration of the agent.
type Config struct {
	State      string         `yaml:"state" help:"The folder for positions, the queue and the last table of pods. It must survive a restart."`
	Cluster    string         `yaml:"cluster" help:"The attribute k8s.cluster.name of everything; empty for none."`
	Server     Server         `yaml:"server" help:"Where the agent listens."`
	Backend    forward.Config `yaml:"backend" help:"Where everything goes."`
	Logs       tail.Config    `yaml:"logs" help:"Log files."`
	Scrape     scrape.Config  `yaml:"scrape" help:"Metrics that are scraped."`
	OTLP       OTLP           `yaml:"otlp" help:"What instrumented processes send to the agent."`
	Kubernetes kube.Config    `yaml:"kubernetes" help:"The pods of the node."`
	Self       selfobs.Config `yaml:"self" help:"Logs of the agent itself."`
	Memory     config.Size    `yaml:"memory" help:"How much memory the process aims to stay below; 0 is what the control group allows. The environment variable GOMEMLIMIT goes first."`
}

// Server is section "server" of the configuration.
type Server struct {
	HTTP     config.Addr     `yaml:"http" help:"Own metrics, health and the status page."`
	OTLPGRPC string          `yaml:"otlp_grpc" help:"OTLP over gRPC; empty for none."`
	OTLPHTTP string          `yaml:"otlp_http" help:"OTLP over HTTP; empty for none."`
	Drain    config.Duration `yaml:"drain" help:"How long requests under way may take when the agent stops."`
}

// OTLP is section "otlp" of the configuration.
type OTLP struct {
	MaxBody      config.Size `yaml:"max_body" help:"The largest request, compressed and decompressed."`
	RefuseForged bool        `yaml:"refuse_forged" help:"Whether records are refused that name another pod than the one whose address they come from."`
}

// DefaultConfig returns what a node with nothing configured does: it reads the logs of pods, if there are any, and sends
// them to a Braid on the same machine.
func DefaultConfig() Config {
	return Config{
		State:   "./braid-agent-data",
		Server:  Server{HTTP: "127.0.0.1:9095", Drain: config.Duration(10 * time.Second)},
		Backend: forward.DefaultConfig(), Logs: tail.DefaultConfig(), Scrape: scrape.DefaultConfig(),
		OTLP: OTLP{MaxBody: 16 << 20}, Self: selfobs.DefaultConfig(),
	}
}

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	if c.State == "" {
		e.Field("state", errors.New("must name a folder"))
	}
	return e.Err()
}

// Validate returns all mistakes.
func (s Server) Validate() error {
	var e config.Errors
	for _, f := range []struct{ name, addr string }{{"otlp_grpc", s.OTLPGRPC}, {"otlp_http", s.OTLPHTTP}} {
		if f.addr == "" {
			continue
		}
		if _, err := config.ParseAddr(f.addr); err != nil {
			e.Field(f.name, err)
		}
	}
	if s.Drain < 0 {
		e.Field("drain", errors.New("must not be negative"))
	}
	return e.Err()
}

// Validate returns all mistakes.
func (o OTLP) Validate() error {
	var e config.Errors
	if o.MaxBody <= 0 || o.MaxBody > 1<<30 {
		e.Field("max_body", fmt.Errorf("must be positive and at most %s", config.Size(1<<30)))
	}
	return e.Err()
}
