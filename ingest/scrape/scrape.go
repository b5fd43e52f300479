// Package scrape reads /metrics of fixed targets with Prometheus's own scraper: its parsers of every exposition format,
// its limits, native histograms, exemplars, metadata, start timestamps and stale markers. A scrape is one write.
//
//	s, err := scrape.New(cfg, scrape.Deps{Pipeline: pipe, Tenant: telemetry.DefaultTenant, Log: log, Metrics: reg})
//	if err != nil {
//		return err
//	}
//	err = s.Run(ctx) // until ctx ends
//
// What the node agent has in common with it (jobs and their checks) is here as well; its targets change, and it sends
// OTLP.
package scrape

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	promscrape "github.com/prometheus/prometheus/scrape"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/telemetry"
)

// maxBody bounds the answer of a target.
const maxBody = 64 << 20

// Config is section "scrape" of the server's configuration.
type Config struct {
	Interval   config.Duration `yaml:"interval" help:"How often a target is scraped."`
	Timeout    config.Duration `yaml:"timeout" help:"How long a scrape may take."`
	MaxSamples int             `yaml:"max_samples" help:"The most samples of one scrape; more fail it."`
	Static     []Static        `yaml:"static" help:"What is scraped, job by job."`
}

// DefaultConfig scrapes nothing.
func DefaultConfig() Config {
	return Config{Interval: config.Duration(15 * time.Second), Timeout: config.Duration(10 * time.Second), MaxSamples: 200_000}
}

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	if c.Interval <= 0 {
		e.Field("interval", errors.New("must be positive"))
	}
	if c.Timeout <= 0 || c.Timeout > c.Interval {
		e.Field("timeout", errors.New("must be positive and at most interval"))
	}
	if c.MaxSamples <= 0 {
		e.Field("max_samples", errors.New("must be positive"))
	}
	Check(&e, c.Static)
	return e.Err()
}

// Deps are what a scraper depends on.
type Deps struct {
	Pipeline *ingest.Pipeline
	Tenant   telemetry.Tenant // whose the series are
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Scraper scrapes.
type Scraper struct {
	cfg     Config
	manager *promscrape.Manager
}

// New returns a scraper. The configuration must be valid.
func New(c Config, d Deps) (*Scraper, error) {
	var jobs []Job
	for _, s := range c.Static {
		jobs = append(jobs, Job{Name: s.Job, Path: s.Path, Scheme: s.Scheme})
	}
	parsed, err := Prometheus(Limits{
		Interval: c.Interval.Std(), Timeout: c.Timeout.Std(), MaxBody: maxBody, MaxSamples: c.MaxSamples, NativeHistograms: true,
	}, jobs)
	if err != nil {
		return nil, err
	}
	o := &promscrape.Options{AppendMetadata: true, ParseST: true, DiscoveryReloadInterval: model.Duration(time.Second)}
	manager, err := promscrape.NewManager(o, d.Log, nil, nil, newSink(d), d.Metrics)
	if err != nil {
		return nil, fmt.Errorf("scrape manager: %w", err)
	}
	if err := manager.ApplyConfig(parsed); err != nil {
		return nil, fmt.Errorf("scrape manager: %w", err)
	}
	return &Scraper{cfg: c, manager: manager}, nil
}

// Run scrapes until ctx ends; then scrapes under way are through.
func (s *Scraper) Run(ctx context.Context) error {
	targets := make(chan map[string][]*targetgroup.Group)
	done := make(chan error, 1)
	go func() { done <- s.manager.Run(targets) }()
	all := make(map[string][]*targetgroup.Group)
	for _, j := range s.cfg.Static {
		all[j.Job] = []*targetgroup.Group{j.Group()}
	}
	select {
	case targets <- all:
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case <-ctx.Done():
		s.manager.Stop()
		return <-done
	case err := <-done:
		return err
	}
}

// Target is what is scraped, and how it went last.
type Target struct {
	Job                string
	URL                string
	Discovered, Labels labels.Labels // before and after relabelling
	Health             string        // up, down or unknown
	Err                error         // of the last scrape
	Last               time.Time     // when it was; zero before the first one
	Took               time.Duration
	Interval, Timeout  string
	target             *promscrape.Target
}

// Family is a metric family as a target describes it.
type Family struct {
	Name string
	telemetry.Metadata
}

// Families returns what the target exposes, in the order of names.
func (t Target) Families() []Family {
	var out []Family
	for _, md := range t.target.ListMetadata() {
		out = append(out, Family{md.MetricFamily, metadataOf(md.Type, md.Unit, md.Help)})
	}
	slices.SortFunc(out, func(a, b Family) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Jobs returns the names of the jobs, sorted.
func (s *Scraper) Jobs() []string {
	var out []string
	for _, j := range s.cfg.Static {
		out = append(out, j.Job)
	}
	slices.Sort(out)
	return out
}

// Targets returns what is scraped, the jobs in the order of their names.
func (s *Scraper) Targets() []Target {
	var out []Target
	b := labels.NewBuilder(labels.EmptyLabels())
	active := s.manager.TargetsActive()
	for _, job := range slices.Sorted(maps.Keys(active)) {
		for _, t := range active[job] {
			out = append(out, Target{
				Job: job, URL: t.URL().String(), Discovered: t.DiscoveredLabels(b), Labels: t.Labels(b), Health: string(t.Health()), Err: t.LastError(),
				Last: t.LastScrape(), Took: t.LastScrapeDuration(), Interval: t.GetValue(model.ScrapeIntervalLabel), Timeout: t.GetValue(model.ScrapeTimeoutLabel),
				target: t,
			})
		}
	}
	return out
}
