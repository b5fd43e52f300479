// Package rules evaluates Prometheus rule files: recording rules write series, alerting rules keep their state and
// tell a notifier. The evaluation is Prometheus's own rule manager; this package gives it the files, all or none of
// them, the engine to ask and the store to write to.
//
//	m := rules.New(rules.Deps{Engine: engine, Writer: db, Tenant: "default", Files: []string{"rules/*.yml"}, ...})
//	if err := m.Load(); err != nil { // every mistake, each with its place
//	}
//	err := m.Run(ctx) // until ctx ends
//
// An alert that waits for the end of its `for` goes on waiting after a restart: its state is read back from the
// series ALERTS_FOR_STATE, which each evaluation writes.
package rules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	stock "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	promrules "github.com/prometheus/prometheus/rules"

	"github.com/braidobs/braid/internal/selfobs"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

const (
	// outageTolerance is how old the state of an alert may be to be restored, as Prometheus has it.
	outageTolerance = time.Hour
	// forGracePeriod is how long an alert waits at least after its state was restored; alerts with a shorter `for`
	// begin anew. As Prometheus has it.
	forGracePeriod = 10 * time.Minute
	// grace is how long the evaluations under way may go on when Run has to stop.
	grace = 5 * time.Second
)

// Deps are what a manager depends on.
type Deps struct {
	Engine  *promql.Engine
	Writer  storage.Writer
	Tenant  telemetry.Tenant
	Files   []string // patterns
	Sources []Source

	Interval       time.Duration // of groups that name none
	ResendDelay    time.Duration
	ExternalURL    *url.URL
	ExternalLabels labels.Labels
	Notify         promrules.NotifyFunc

	Log     *slog.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time
}

// Manager evaluates rules. Its methods may be called concurrently.
type Manager struct {
	deps   Deps
	out    *appendable
	loader *loader
	stock  *promrules.Manager
	cancel context.CancelFunc // of every evaluation

	reload sync.Mutex // held while rules are loaded

	success     prometheus.Gauge
	successTime prometheus.Gauge
}

// New returns a manager without rules.
func New(d Deps) *Manager {
	f := promauto.With(d.Metrics)
	ctx, cancel := context.WithCancel(selfobs.Suppress(context.Background())) // evaluations do not trace themselves
	m := &Manager{
		deps: d, out: newAppendable(d.Writer, d.Tenant), loader: &loader{parser: d.Engine.Parser()}, cancel: cancel,
		success: f.NewGauge(prometheus.GaugeOpts{
			Name: "braid_alerting_reload_success", Help: "Whether the last load of the rules found no mistake.",
		}),
		successTime: f.NewGauge(prometheus.GaugeOpts{
			Name: "braid_alerting_reload_success_timestamp_seconds", Help: "When rules were last loaded without a mistake.",
		}),
	}
	m.stock = promrules.NewManager(d.options(ctx, m.out, m.loader))
	return m
}

// options returns what Prometheus's manager is made with.
func (d Deps) options(ctx context.Context, out *appendable, l *loader) *promrules.ManagerOptions {
	return &promrules.ManagerOptions{
		NameValidationScheme: model.UTF8Validation,
		ExternalURL:          d.ExternalURL,
		QueryFunc:            Query(d.Engine, d.Tenant),
		NotifyFunc:           d.Notify,
		Context:              ctx,
		Appendable:           out,
		Queryable:            d.Engine.Queryable(d.Tenant),
		Logger:               d.Log,
		Registerer:           d.Metrics,
		OutageTolerance:      outageTolerance,
		ForGracePeriod:       forGracePeriod,
		ResendDelay:          d.ResendDelay,
		GroupLoader:          l,
		Parser:               d.Engine.Parser(),
	}
}

// Still returns the groups of a set, in the order of the files and of the groups in them, for a caller that
// evaluates them by hand, at times of its own: a test of rules. Nothing of d.Files and d.Sources is read.
func Still(ctx context.Context, d Deps, set *Set) ([]*promrules.Group, error) {
	m := promrules.NewManager(d.options(ctx, newAppendable(d.Writer, d.Tenant), &loader{parser: d.Engine.Parser(), set: set}))
	groups, errs := m.LoadGroups(d.Interval, d.ExternalLabels, d.external(), nil, false, set.names...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	var out []*promrules.Group
	for _, name := range set.names {
		for _, g := range set.groups[name].Groups {
			group := groups[promrules.GroupKey(name, g.Name)]
			for _, r := range group.Rules() {
				if a, ok := r.(*promrules.AlertingRule); ok {
					a.SetRestored(true) // there is no state to wait for
				}
			}
			out = append(out, group)
		}
	}
	return out, nil
}

// external returns the URL that templates get.
func (d Deps) external() string {
	if d.ExternalURL == nil {
		return ""
	}
	return d.ExternalURL.String()
}

// Query returns the function by which rules ask the engine about a tenant.
func Query(e *promql.Engine, t telemetry.Tenant) promrules.QueryFunc {
	return func(ctx context.Context, expr string, at time.Time) (stock.Vector, error) {
		a, err := e.Query(ctx, promql.Request{Tenant: t, Expr: expr, End: at})
		if err != nil {
			return nil, err
		}
		defer a.Close()
		switch v := a.Value.(type) {
		case stock.Vector:
			out := make(stock.Vector, len(v))
			for i, s := range v { // what the answer holds is valid until it is closed
				s.Metric = s.Metric.Copy()
				if s.H != nil {
					s.H = s.H.Copy()
				}
				out[i] = s
			}
			return out, nil
		case stock.Scalar:
			return stock.Vector{stock.Sample{T: v.T, F: v.V, Metric: labels.EmptyLabels()}}, nil
		default:
			return nil, errors.New("rule result is not a vector or scalar")
		}
	}
}

// Load reads all rules anew and goes over to them; groups that did not change go on as they are. When anything is
// wrong it returns all mistakes and the rules stay as they were.
func (m *Manager) Load() error {
	m.reload.Lock()
	defer m.reload.Unlock()
	err := m.load()
	if err != nil {
		m.success.Set(0)
		return err
	}
	m.success.Set(1)
	m.successTime.Set(float64(m.deps.Now().UnixNano()) / 1e9)
	return nil
}

func (m *Manager) load() error {
	set, err := Reading{Parser: m.deps.Engine.Parser(), Sources: m.deps.Sources, Log: m.deps.Log}.Load(m.deps.Files...)
	if err != nil {
		return err
	}
	for _, p := range set.Unmatched {
		m.deps.Log.Warn("no rule file matches the pattern", "pattern", p)
	}
	m.loader.set = set
	if err := m.stock.Update(m.deps.Interval, set.names, m.deps.ExternalLabels, m.deps.external(), nil); err != nil {
		return fmt.Errorf("go over to the new rules: %w", err)
	}
	m.deps.Log.Info("rules loaded", "files", len(set.names), "rules", set.Rules())
	return nil
}

// Run evaluates until ctx ends. Evaluations that are under way then may finish within a few seconds.
func (m *Manager) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() {
		m.stock.Run() // returns when Stop was called
		close(stopped)
	}()
	<-ctx.Done()
	m.Stop()
	<-stopped
	return nil
}

// Stop ends evaluation for good. Run calls it; a manager that is never run needs it when rules were loaded.
func (m *Manager) Stop() {
	t := time.AfterFunc(grace, m.cancel)
	m.stock.Stop()
	t.Stop()
	m.cancel()
	m.out.wait()
}

// Groups returns the rule groups, sorted by file and name.
func (m *Manager) Groups() []*promrules.Group { return m.stock.RuleGroups() }

// loader hands the rule manager what was read before.
type loader struct {
	parser parser.Parser
	set    *Set
}

var _ promrules.GroupLoader = (*loader)(nil)

// Load implements promrules.GroupLoader.
func (l *loader) Load(name string, _ bool, _ model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	return l.set.groups[name], nil
}

// Parse implements promrules.GroupLoader.
func (l *loader) Parse(expr string) (parser.Expr, error) { return l.parser.ParseExpr(expr) }
