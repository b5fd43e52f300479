package promql

import (
	"errors"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/braidobs/braid/internal/config"
)

// Config is what an operator can set.
type Config struct {
	Timeout      config.Duration `yaml:"timeout" help:"How long one query may take."`
	MaxSamples   int             `yaml:"max_samples" help:"How many samples one query may hold in memory at once."`
	Lookback     config.Duration `yaml:"lookback" help:"How old the last sample of a series may be to be its value."`
	MaxSeries    int             `yaml:"max_series" help:"How many series one query may read; 0 is any number."`
	MaxRead      config.Size     `yaml:"max_read" help:"How many bytes of parts one query may read; 0 is any number."`
	Concurrency  int             `yaml:"concurrency" help:"How many queries run at once; others wait for their turn."`
	PerTenant    int             `yaml:"tenant_concurrency" help:"How many queries of one tenant run at once; others wait for their turn. 0 is as many as concurrency."`
	QueryLog     string          `yaml:"query_log" help:"A file that gets a line of JSON for each query; empty for none."`
	Columns      bool            `yaml:"columns" help:"Whether known shapes of queries are computed on columns of samples; the answers are the same without, only slower. Experimental queries never are."`
	CacheBytes   config.Size     `yaml:"cache_bytes" help:"How many bytes of answers of range queries are kept, so that the next refresh computes new steps only; 0 for none."`
	Experimental bool            `yaml:"experimental" help:"Whether experimental functions and syntax of PromQL are understood, start timestamps count in rate and its like, and the name of a metric goes at the end of a query."`
}

// DefaultConfig has the values of Prometheus for what Prometheus limits.
func DefaultConfig() Config {
	return Config{
		Timeout: config.Duration(2 * time.Minute), MaxSamples: 50_000_000, Lookback: config.Duration(5 * time.Minute), Concurrency: 20,
		MaxSeries: 2_000_000, MaxRead: 8 << 30, Columns: true, CacheBytes: 32 << 20,
	}
}

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	if c.Timeout <= 0 {
		e.Field("timeout", errors.New("must be positive"))
	}
	if c.MaxSamples <= 0 {
		e.Field("max_samples", errors.New("must be positive"))
	}
	if c.Lookback <= 0 {
		e.Field("lookback", errors.New("must be positive"))
	}
	if c.Concurrency <= 0 {
		e.Field("concurrency", errors.New("must be positive"))
	}
	for _, f := range []struct {
		name string
		n    int64
	}{{"max_series", int64(c.MaxSeries)}, {"max_read", c.MaxRead.Bytes()}, {"cache_bytes", c.CacheBytes.Bytes()}, {"tenant_concurrency", int64(c.PerTenant)}} {
		if f.n < 0 {
			e.Field(f.name, errors.New("must not be negative"))
		}
	}
	return e.Err()
}

// Parser returns the parser of the dialect, for what reads PromQL without an engine.
func (c Config) Parser() parser.Parser {
	return parser.NewParser(parser.Options{
		EnableExperimentalFunctions: c.Experimental, ExperimentalDurationExpr: true,
		EnableExtendedRangeSelectors: c.Experimental, EnableBinopFillModifiers: c.Experimental,
	})
}
