package scrape

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"go.yaml.in/yaml/v3"

	"github.com/braidobs/braid/internal/config"
)

// Static is a job with fixed targets.
type Static struct {
	Job     string            `yaml:"job" help:"The label job."`
	Targets []string          `yaml:"targets" help:"Addresses, each host:port."`
	Path    string            `yaml:"path" help:"The path, /metrics when empty."`
	Scheme  string            `yaml:"scheme" help:"http or https, http when empty."`
	Labels  map[string]string `yaml:"labels" help:"Labels of all series of the job."`
}

// Group returns the targets as the scraper takes them.
func (s Static) Group() *targetgroup.Group {
	g := &targetgroup.Group{Source: s.Job, Labels: model.LabelSet{}}
	for k, v := range s.Labels {
		g.Labels[model.LabelName(k)] = model.LabelValue(v)
	}
	for _, t := range s.Targets {
		g.Targets = append(g.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(t)})
	}
	return g
}

// Check adds the mistakes of jobs to e, as those of field static. The names in taken are those of other jobs.
func Check(e *config.Errors, jobs []Static, taken ...string) {
	for i, s := range jobs {
		field := func(name string, err error) { e.Field(fmt.Sprintf("static[%d].%s", i, name), err) }
		if s.Job == "" || slices.Contains(taken, s.Job) {
			field("job", fmt.Errorf("%q is empty, or taken by another job", s.Job))
		}
		taken = append(slices.Clip(taken), s.Job)
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
}

// Limits hold for every job.
type Limits struct {
	Interval, Timeout time.Duration
	MaxBody           int64 // bytes
	MaxSamples        int
	NativeHistograms  bool
}

// Job is a job as the configuration of Prometheus has it.
type Job struct {
	Name, Path, Scheme string         // the defaults of Prometheus when empty
	More               map[string]any // further fields
}

// Prometheus returns the jobs as a configuration of Prometheus, which checks them too.
func Prometheus(l Limits, jobs []Job) (*promconfig.Config, error) {
	type object map[string]any
	list := []object{}
	for _, j := range jobs {
		out := object{"job_name": j.Name}
		maps.Copy(out, j.More)
		if j.Path != "" {
			out["metrics_path"] = j.Path
		}
		if j.Scheme != "" {
			out["scheme"] = j.Scheme
		}
		list = append(list, out)
	}
	text, err := yaml.Marshal(object{
		"global": object{
			"scrape_interval": l.Interval.String(), "scrape_timeout": l.Timeout.String(),
			"body_size_limit": fmt.Sprintf("%dB", l.MaxBody), "sample_limit": l.MaxSamples,
			"scrape_native_histograms": l.NativeHistograms, "label_limit": 64, "label_name_length_limit": 1 << 10, "label_value_length_limit": 64 << 10,
		},
		"scrape_configs": list,
	})
	if err != nil {
		return nil, fmt.Errorf("make the configuration of the scrapes: %w", err)
	}
	c, err := promconfig.Load(string(text), slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, fmt.Errorf("configuration of the scrapes: %w", err)
	}
	return c, nil
}
