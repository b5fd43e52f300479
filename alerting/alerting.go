// Package alerting evaluates rules and sends alerts: it puts together alerting/rules, which evaluates, and
// alerting/notify, which sends, and serves the part of Prometheus's API that tells about them.
package alerting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/braidobs/braid/alerting/notify"
	"github.com/braidobs/braid/alerting/rules"
	"github.com/braidobs/braid/alerting/slo"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

// Deps are what alerting depends on.
type Deps struct {
	Config   Config
	Engine   *promql.Engine
	Writer   storage.Writer
	Sources  []rules.Source  // of rule groups beside files
	Annotate notify.Annotate // nil for none
	Client   *http.Client    // for Alertmanagers; nil for one of its own
	Addr     string          // of the query listener, for links when Config names no external URL
	Errors   httpapi.Errors
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Now      func() time.Time
}

// Alerting evaluates rules and sends alerts.
type Alerting struct {
	tenant telemetry.Tenant
	rules  *rules.Manager
	notify *notify.Notifier
	parser parser.Parser
	errors httpapi.Errors
	log    *slog.Logger
}

// New returns an Alerting without rules; they are loaded when its part starts.
func New(d Deps) (*Alerting, error) {
	external, err := ExternalURL(d.Config, d.Addr)
	if err != nil {
		return nil, err
	}
	a := &Alerting{tenant: telemetry.Tenant(d.Config.Tenant), parser: d.Engine.Parser(), errors: d.Errors, log: d.Log}
	everywhere := labels.FromMap(d.Config.ExternalLabels)
	a.notify = notify.New(notify.Deps{
		Alertmanagers: d.Config.Alertmanagers, ExternalLabels: everywhere, ExternalURL: external.String(),
		Annotate: d.Annotate, Client: d.Client, Log: d.Log, Metrics: d.Metrics, Now: d.Now,
	})
	a.rules = rules.New(rules.Deps{
		Engine: d.Engine, Writer: d.Writer, Tenant: a.tenant, Files: d.Config.Rules, Sources: d.Sources,
		Interval: d.Config.EvaluationInterval.Std(), ResendDelay: d.Config.ResendDelay.Std(),
		ExternalURL: external, ExternalLabels: everywhere, Notify: a.notify.Notify,
		Log: d.Log, Metrics: d.Metrics, Now: d.Now,
	})
	return a, nil
}

// ExternalURL returns the URL under which people reach the server: the configured one or, without one, that of the query
// listener.
func ExternalURL(c Config, addr string) (*url.URL, error) {
	link := c.ExternalURL
	if link == "" {
		link = "http://" + reachable(addr)
	}
	u, err := externalURL(link)
	if err != nil {
		return nil, fmt.Errorf("the URL for links: %w", err)
	}
	return u, nil
}

// reachable returns an address that others can use: the host's name stands for all interfaces.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			host = "localhost"
		}
	}
	return net.JoinHostPort(host, port)
}

// Check reads the rules and objectives that a configuration names and returns all that is wrong with them.
func Check(c Config, p parser.Parser, log *slog.Logger) (*rules.Set, error) {
	var sources []rules.Source
	if len(c.SLOs) > 0 {
		sources = append(sources, slo.Source(p, slo.Options{Scale: c.SLOScale}, c.SLOs...))
	}
	return rules.Reading{Parser: p, Sources: sources, Log: log}.Load(c.Rules...)
}

// Reload reads all rules anew. When anything is wrong it returns all mistakes and the rules stay as they were.
func (a *Alerting) Reload() error {
	err := a.rules.Load()
	if err != nil {
		a.log.Error("rules were not loaded; those from before go on", "err", err)
	}
	return err
}

// Grace is how long Run may take to return.
const Grace = 20 * time.Second

// Start loads the rules. They are evaluated once Run runs.
func (a *Alerting) Start(context.Context) error { return a.rules.Load() }

// Run evaluates rules and sends alerts until ctx ends; alerts of the last evaluations are still sent.
func (a *Alerting) Run(ctx context.Context) error {
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	sent := make(chan error, 1)
	go func() { sent <- a.notify.Run(sending) }()
	err := a.rules.Run(ctx)
	stop()
	return errors.Join(err, <-sent)
}
