// Package scrape reads /metrics of the targets of a node with Prometheus's own scraper: its parsers, relabelling,
// limits, native histograms and stale markers. Targets are those of the configuration, the annotated pods of the node
// and its kubelet. A scrape becomes OTLP metrics that carry Prometheus's own names, which the backend keeps as they are
// (see otlp.PrometheusType), staleness to the sample.
package scrape

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	promscrape "github.com/prometheus/prometheus/scrape"

	"github.com/braidobs/braid/daemonset/kube"
)

// Deps are what a scraper depends on.
type Deps struct {
	Send    Send
	Pods    *kube.Table // nil for none
	Node    string      // the name of the node, for the labels of its kubelet
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Scraper scrapes.
type Scraper struct {
	cfg     Config
	d       Deps
	manager *promscrape.Manager
}

// New returns a scraper. The configuration must be valid.
func New(c Config, d Deps) (*Scraper, error) {
	parsed, err := c.prometheus()
	if err != nil {
		return nil, err
	}
	s := &Scraper{cfg: c, d: d}
	// Targets are handed over when they change: the manager need not collect changes for long.
	o := &promscrape.Options{AppendMetadata: true, ParseST: true, DiscoveryReloadInterval: model.Duration(1e9)}
	if s.manager, err = promscrape.NewManager(o, d.Log, nil, nil, newSink(d), d.Metrics); err != nil {
		return nil, fmt.Errorf("scrape manager: %w", err)
	}
	if err := s.manager.ApplyConfig(parsed); err != nil {
		return nil, fmt.Errorf("scrape manager: %w", err)
	}
	return s, nil
}

// Run scrapes until ctx ends; then the last scrapes, and their stale markers, are through.
func (s *Scraper) Run(ctx context.Context) error {
	targets := make(chan map[string][]*targetgroup.Group)
	done := make(chan error, 1)
	go func() { done <- s.manager.Run(targets) }()
	for {
		var changed <-chan struct{}
		if s.d.Pods != nil {
			changed = s.d.Pods.Changed()
		}
		select {
		case <-ctx.Done():
			s.manager.Stop()
			return <-done
		case err := <-done:
			return err
		case targets <- s.groups():
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// Status describes the targets, for the agent's status page.
type Status struct {
	Job    string `json:"job"`
	URL    string `json:"url"`
	Health string `json:"health"` // up, down or unknown
	Error  string `json:"error,omitempty"`
}

// Targets returns the targets and how they do.
func (s *Scraper) Targets() []Status {
	out := []Status{}
	for job, ts := range s.manager.TargetsActive() {
		for _, t := range ts {
			st := Status{Job: job, URL: t.URL().String(), Health: string(t.Health())}
			if err := t.LastError(); err != nil {
				st.Error = err.Error()
			}
			out = append(out, st)
		}
	}
	return out
}

func (s *Scraper) groups() map[string][]*targetgroup.Group {
	out := map[string][]*targetgroup.Group{}
	for _, j := range s.cfg.Static {
		out[j.Job] = []*targetgroup.Group{j.Group()}
	}
	if u, err := url.Parse(s.cfg.Kubelet); err == nil && s.cfg.Kubelet != "" {
		labels := model.LabelSet{model.AddressLabel: model.LabelValue(u.Host), model.JobLabel: jobKubelet}
		if s.d.Node != "" {
			labels["node"] = model.LabelValue(s.d.Node)
			labels[model.InstanceLabel] = model.LabelValue(s.d.Node)
		}
		for job, path := range map[string]string{jobKubelet: "/metrics", jobCadvsor: "/metrics/cadvisor"} {
			l := labels.Clone()
			l["metrics_path"] = model.LabelValue(path)
			out[job] = []*targetgroup.Group{{Source: job, Targets: []model.LabelSet{l}}}
		}
	}
	if s.cfg.Pods && s.d.Pods != nil {
		g := &targetgroup.Group{Source: jobPods}
		for _, p := range s.d.Pods.All() {
			g.Targets = append(g.Targets, podTargets(p)...)
		}
		out[jobPods] = []*targetgroup.Group{g}
	}
	return out
}

// podTargets returns the targets of a pod that is annotated with prometheus.io/scrape: the port of its annotation, or
// every port that its containers declare.
func podTargets(p *kube.Pod) []model.LabelSet {
	const prefix = "prometheus.io/"
	if p.Annotations[prefix+"scrape"] != "true" || !p.Running || len(p.IPs) == 0 {
		return nil
	}
	target := func(container string, port int32) model.LabelSet {
		l := model.LabelSet{
			model.AddressLabel: model.LabelValue(net.JoinHostPort(p.IPs[0].String(), strconv.Itoa(int(port)))),
			model.JobLabel:     model.LabelValue(p.Service(container)), "namespace": model.LabelValue(p.Namespace), "pod": model.LabelValue(p.Name),
		}
		if container != "" {
			l["container"] = model.LabelValue(container)
		}
		if p.Node != "" {
			l["node"] = model.LabelValue(p.Node)
		}
		if path := p.Annotations[prefix+"path"]; path != "" {
			l[model.MetricsPathLabel] = model.LabelValue(path)
		}
		if scheme := p.Annotations[prefix+"scheme"]; scheme == "http" || scheme == "https" {
			l[model.SchemeLabel] = model.LabelValue(scheme)
		}
		return l
	}
	only, err := strconv.ParseInt(p.Annotations[prefix+"port"], 10, 32)
	var out []model.LabelSet
	for _, c := range p.Containers {
		for _, port := range c.Ports {
			if err != nil || int32(only) == port.Number {
				out = append(out, target(c.Name, port.Number))
			}
		}
	}
	if err == nil && len(out) == 0 && only > 0 && only < 1<<16 {
		out = append(out, target("", int32(only)))
	}
	return out
}
