package scrape

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	promconfig "github.com/prometheus/prometheus/config"
	"go.yaml.in/yaml/v3"

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
type Static struct {
	Job     string            `yaml:"job" help:"The label job."`
	Targets []string          `yaml:"targets" help:"Addresses, each host:port."`
	Path    string            `yaml:"path" help:"The path, /metrics when empty."`
	Scheme  string            `yaml:"scheme" help:"http or https, http when empty."`
	Labels  map[string]string `yaml:"labels" help:"Labels of all series of the job."`
}

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
	known := []string{jobPods, jobKubelet, jobCadvsor}
	for i, s := range c.Static {
		field := func(name string, err error) { e.Field(fmt.Sprintf("static[%d].%s", i, name), err) }
		if s.Job == "" || slices.Contains(known, s.Job) {
			field("job", fmt.Errorf("%q is empty, or taken by another job", s.Job))
		}
		known = append(known, s.Job)
		if len(s.Targets) == 0 {
			field("targets", errors.New("must name at least one"))
		}
		for _, t := range s.Targets {
			if _, err := config.ParseAddr(t); err != nil {
				field("targets", err)
			}
		}
		if s.Scheme != "" && s.Scheme != "http" && s.Scheme != "https" {
			field("scheme", fmt.Errorf("%q is neither http nor https", s.Scheme))
		}
		if s.Path != "" && s.Path[0] != '/' {
			field("path", fmt.Errorf("%q must begin with /", s.Path))
		}
		for name := range s.Labels {
			if !model.UTF8Validation.IsValidLabelName(name) {
				field("labels", fmt.Errorf("%q is no name of a label", name))
			}
		}
	}
	if e.Err() == nil {
		if _, err := c.prometheus(); err != nil {
			e.Add(err)
		}
	}
	return e.Err()
}

// object is a mapping of YAML.
type object map[string]any

// prometheus returns the configuration as Prometheus has it, which checks it too.
func (c Config) prometheus() (*promconfig.Config, error) {
	job := func(name, path, scheme string, more object) object {
		out := object{"job_name": name}
		maps.Copy(out, more)
		if path != "" {
			out["metrics_path"] = path
		}
		if scheme != "" {
			out["scheme"] = scheme
		}
		return out
	}
	jobs := []object{job(jobPods, "", "", nil)}
	for _, s := range c.Static {
		jobs = append(jobs, job(s.Job, s.Path, s.Scheme, nil))
	}
	if c.Kubelet != "" {
		u, err := url.Parse(c.Kubelet)
		if err != nil {
			return nil, fmt.Errorf("kubelet: %w", err)
		}
		more := object{}
		if u.Scheme == "https" {
			tls := object{"insecure_skip_verify": true}
			if c.CAFile != "" {
				tls = object{"ca_file": c.CAFile}
			}
			more["tls_config"] = tls
			if c.TokenFile != "" {
				more["authorization"] = object{"credentials_file": c.TokenFile}
			}
		}
		jobs = append(jobs, job(jobKubelet, "/metrics", u.Scheme, more), job(jobCadvsor, "/metrics/cadvisor", u.Scheme, more))
	}
	text, err := yaml.Marshal(object{
		"global": object{
			"scrape_interval": c.Interval.Std().String(), "scrape_timeout": c.Timeout.Std().String(),
			"body_size_limit": fmt.Sprintf("%dB", c.MaxBody.Bytes()), "sample_limit": c.MaxSamples,
			"scrape_native_histograms": c.NativeTypes, "label_limit": 64, "label_name_length_limit": 1 << 10, "label_value_length_limit": 64 << 10,
		},
		"scrape_configs": jobs,
	})
	if err != nil {
		return nil, fmt.Errorf("make the configuration of the scrapes: %w", err)
	}
	return load(string(text))
}
