package app

import (
	"errors"
	"time"

	"github.com/braidobs/braid/alerting"
	"github.com/braidobs/braid/correlate"
	"github.com/braidobs/braid/correlate/sampling"
	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/ingest/remotewrite"
	"github.com/braidobs/braid/ingest/scrape"
	"github.com/braidobs/braid/ingest/syslog"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/selfobs"
	"github.com/braidobs/braid/query/api/loki"
	"github.com/braidobs/braid/query/api/tempo"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage/db"
)

// Config is the whole configuration of a process.
type Config struct {
	Data        string             `yaml:"data" help:"The folder that everything is kept in."`
	Memory      config.Size        `yaml:"memory" help:"How much memory the process aims to stay below; 0 is what the control group allows. The environment variable GOMEMLIMIT goes first."`
	Server      Server             `yaml:"server" help:"Where the process listens."`
	Storage     db.Config          `yaml:"storage" help:"The store."`
	Ingest      ingest.Config      `yaml:"ingest" help:"Limits of what is written."`
	OTLP        otlp.Config        `yaml:"otlp" help:"The OTLP receiver."`
	RemoteWrite remotewrite.Config `yaml:"remote_write" help:"The receiver of Prometheus remote write."`
	Syslog      syslog.Config      `yaml:"syslog" help:"The receiver of syslog."`
	Scrape      scrape.Config      `yaml:"scrape" help:"Targets whose metrics are read."`
	PromQL      promql.Config      `yaml:"promql" help:"The PromQL engine."`
	Loki        loki.Config        `yaml:"loki" help:"Queries of logs."`
	Tempo       tempo.Config       `yaml:"tempo" help:"Trace by ID and search."`
	Correlate   correlate.Config   `yaml:"correlate" help:"Joins of the signals."`
	Sampling    sampling.Config    `yaml:"sampling" help:"What is kept of traces that are not new any more."`
	Alerting    alerting.Config    `yaml:"alerting" help:"Rules and alerts."`
	Self        selfobs.Config     `yaml:"self" help:"Logs, metrics and traces of Braid itself."`
}

// Server says where the process listens and how many requests it works on at once.
type Server struct {
	HTTP       config.Addr     `yaml:"http" help:"Query APIs, metrics and health."`
	OTLPGRPC   config.Addr     `yaml:"otlp_grpc" help:"OTLP over gRPC."`
	OTLPHTTP   config.Addr     `yaml:"otlp_http" help:"OTLP over HTTP."`
	Writes     int             `yaml:"writes" help:"How many write requests are worked on at once; others wait."`
	WriteQueue int             `yaml:"write_queue" help:"How many write requests may wait; more are refused for now."`
	Queries    int             `yaml:"queries" help:"How many queries are answered at once; more are refused for now."`
	AdminAPI   bool            `yaml:"admin_api" help:"Whether series can be deleted and snapshots taken over HTTP."`
	Drain      config.Duration `yaml:"drain" help:"How long requests under way may take when the process stops."`
}

// Validate returns all mistakes.
func (s Server) Validate() error {
	var errs config.Errors
	for _, f := range []struct {
		name string
		n    int
	}{{"writes", s.Writes}, {"write_queue", s.WriteQueue}, {"queries", s.Queries}} {
		if f.n < 1 {
			errs.Field(f.name, errors.New("must be positive"))
		}
	}
	return errs.Err()
}

// DefaultConfig returns a configuration that works without a file. It listens on loopback alone.
func DefaultConfig() Config {
	return Config{
		Data: "./braid-data",
		Server: Server{
			HTTP: "127.0.0.1:9090", OTLPGRPC: "127.0.0.1:4317", OTLPHTTP: "127.0.0.1:4318",
			Writes: 8, WriteQueue: 256, Queries: 64, Drain: config.Duration(5 * time.Second),
		},
		Storage: db.DefaultConfig(), Ingest: ingest.DefaultConfig(), OTLP: otlp.DefaultConfig(), RemoteWrite: remotewrite.DefaultConfig(), Syslog: syslog.DefaultConfig(), Scrape: scrape.DefaultConfig(), PromQL: promql.DefaultConfig(),
		Loki: loki.DefaultConfig(), Tempo: tempo.DefaultConfig(), Correlate: correlate.DefaultConfig(), Alerting: alerting.DefaultConfig(),
		Self: selfobs.DefaultConfig(),
	}
}

// Validate returns all mistakes that lie between sections.
func (c Config) Validate() error {
	var errs config.Errors
	if c.Data == "" {
		errs.Field("data", errors.New("must name a folder"))
	}
	return errs.Err()
}
