package scrape

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	promconfig "github.com/prometheus/prometheus/config"

	"github.com/braidobs/braid/ingest/scrape"
	"github.com/braidobs/braid/internal/config"
)

// Config is section "scrape" of the agent's configuration.
type Config struct {
	Interval    config.Duration `yaml:"interval" help:"How often a target is scraped."`
	Timeout     config.Duration `yaml:"timeout" help:"How long a scrape may take."`
	Static      []Static        `yaml:"static" help:"Targets that are always there."`
	Pods        bool            `yaml:"pods" help:"Whether pods with the annotation prometheus.io/scrape are scraped; prometheus.io/port, path, scheme are read too."`
	Kubelet     string          `yaml:"kubelet" help:"The URL of the node's kubelet, whose own metrics and those of containers are scraped; empty for neither."`
	TokenFile   string          `yaml:"token_file" help:"The token for the kubelet."`
	CAFile      string          `yaml:"ca_file" help:"The certificates that vouch for the kubelet; empty for none: its certificate is not checked."`
	MaxBody     config.Size     `yaml:"max_body" help:"The largest answer of a target; a larger one fails the scrape."`
	MaxSamples  int             `yaml:"max_samples" help:"The most samples of one scrape; more fail it."`
	NativeTypes bool            `yaml:"native_histograms" help:"Whether native histograms are asked for."`
}

// Static is a job with fixed targets.
type Static = scrape.Static

// DefaultConfig scrapes annotated pods, where there are any, as often as Prometheus's examples do.
func DefaultConfig() Config {
	return Config{
		Interval: config.Duration(15 * time.Second), Timeout: config.Duration(10 * time.Second), Pods: true,
		TokenFile: "/var/run/secrets/kubernetes.io/serviceaccount/token",
		MaxBody:   64 << 20, MaxSamples: 200_000, NativeTypes: true,
	}
}

// Names of the jobs that are not in the configuration.
const (
	jobPods    = "pods"
	jobKubelet = "kubelet"
	jobCadvsor = "cadvisor"
)

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	if c.Interval <= 0 {
		e.Field("interval", errors.New("must be positive"))
	}
	if c.Timeout <= 0 || c.Timeout > c.Interval {
		e.Field("timeout", errors.New("must be positive and at most interval"))
	}
	if c.MaxBody <= 0 {
		e.Field("max_body", errors.New("must be positive"))
	}
	if c.MaxSamples <= 0 {
		e.Field("max_samples", errors.New("must be positive"))
	}
	if u, err := url.Parse(c.Kubelet); c.Kubelet != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/") {
		e.Field("kubelet", fmt.Errorf("%q is no URL such as https://10.0.0.1:10250", c.Kubelet))
	}
	scrape.Check(&e, c.Static, jobPods, jobKubelet, jobCadvsor)
	if e.Err() == nil {
		if _, err := c.prometheus(); err != nil {
			e.Add(err)
		}
	}
	return e.Err()
}

// prometheus returns the configuration as Prometheus has it, which checks it too.
func (c Config) prometheus() (*promconfig.Config, error) {
	jobs := []scrape.Job{{Name: jobPods}}
	for _, s := range c.Static {
		jobs = append(jobs, scrape.Job{Name: s.Job, Path: s.Path, Scheme: s.Scheme})
	}
	if c.Kubelet != "" {
		u, err := url.Parse(c.Kubelet)
		if err != nil {
			return nil, fmt.Errorf("kubelet: %w", err)
		}
		more := map[string]any{}
		if u.Scheme == "https" {
			tls := map[string]any{"insecure_skip_verify": true}
			if c.CAFile != "" {
				tls = map[string]any{"ca_file": c.CAFile}
			}
			more["tls_config"] = tls
			if c.TokenFile != "" {
				more["authorization"] = map[string]any{"credentials_file": c.TokenFile}
			}
		}
		jobs = append(jobs,
			scrape.Job{Name: jobKubelet, Path: "/metrics", Scheme: u.Scheme, More: more},
			scrape.Job{Name: jobCadvsor, Path: "/metrics/cadvisor", Scheme: u.Scheme, More: more})
	}
	return scrape.Prometheus(scrape.Limits{
		Interval: c.Interval.Std(), Timeout: c.Timeout.Std(), MaxBody: c.MaxBody.Bytes(), MaxSamples: c.MaxSamples, NativeHistograms: c.NativeTypes,
	}, jobs)
}
