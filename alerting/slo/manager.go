package slo

import (
	"context"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/value"
	prompromql "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"golang.org/x/sync/errgroup"

	"github.com/braidobs/braid/alerting/rules"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/promql"
)

// Deps are what a manager depends on.
type Deps struct {
	Files   []string // of objectives, paths or patterns
	Options Options
	Tenant  telemetry.Tenant
	Engine  *promql.Engine
	Counter *Counter // told of the objectives; nil for none
	Errors  httpapi.Errors
	Now     func() time.Time
}

// Source returns a source of the rules of the objectives in files, for a check of them.
func Source(p parser.Parser, o Options, files ...string) rules.Source {
	return func() ([]rules.Generated, error) {
		slos, err := Reader{Parser: p}.Load(files...)
		return generate(slos, o), err
	}
}

func generate(slos []SLO, o Options) []rules.Generated {
	out := make([]rules.Generated, len(slos))
	for i := range slos {
		out[i] = slos[i].Rules(o)
	}
	return out
}

// Manager knows the objectives. Its methods may be called concurrently.
type Manager struct {
	d    Deps
	slos atomic.Pointer[[]SLO]
}

// NewManager returns a manager without objectives; they are read when Source is asked.
func NewManager(d Deps) *Manager {
	m := &Manager{d: d}
	m.slos.Store(&[]SLO{})
	return m
}

// Source implements rules.Source: it reads the files anew and returns their rules.
func (m *Manager) Source() ([]rules.Generated, error) {
	slos, err := Reader{Parser: m.d.Engine.Parser()}.Load(m.d.Files...)
	if err != nil {
		return nil, err
	}
	m.slos.Store(&slos)
	if m.d.Counter != nil {
		m.d.Counter.Set(slos)
	}
	return generate(slos, m.d.Options), nil
}

// SLOs returns the objectives in the order of their names; they must not be changed.
func (m *Manager) SLOs() []SLO { return *m.slos.Load() }

// Find returns an objective, or nil.
func (m *Manager) Find(name string) *SLO {
	for i := range m.SLOs() {
		if s := &m.SLOs()[i]; s.Name == name {
			return s
		}
	}
	return nil
}

// Options returns how objectives turn into rules.
func (m *Manager) Options() Options { return m.d.Options }

// Tenant returns whose events are counted.
func (m *Manager) Tenant() telemetry.Tenant { return m.d.Tenant }

// Status is how an objective does.
type Status struct {
	Name        string            `json:"name"`
	Service     string            `json:"service,omitempty"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Objective   float64           `json:"objective"` // the share of events that is to be good
	Period      string            `json:"period"`
	File        string            `json:"file"`

	// Events of the period. Without any all that follows is null: not measured is not good.
	Total *float64 `json:"total"`
	Bad   *float64 `json:"bad"`
	// ErrorBudget is the share of events that may be bad, Remaining the share of the budget that is left; it falls below 0.
	ErrorBudget float64  `json:"errorBudget"`
	Remaining   *float64 `json:"errorBudgetRemaining"`
	Burn        []Burn   `json:"burn"`
	// Firing are the severities whose burn rates are above their factors now.
	Firing  []Severity        `json:"firing"`
	Queries map[string]string `json:"queries"` // PromQL that reproduces the figures
}

// Burn is the burn rate over one window.
type Burn struct {
	Window string   `json:"window"`
	Ratio  *float64 `json:"errorRatio"` // null without events
	Rate   *float64 `json:"burnRate"`   // the ratio divided by the error budget
	Query  string   `json:"query"`
}

// evaluations is how many objectives are evaluated at once for one answer.
const evaluations = 4

// Status evaluates objectives now.
func (m *Manager) Status(ctx context.Context, slos []SLO) ([]Status, error) {
	out := make([]Status, len(slos))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(evaluations)
	for i := range slos {
		g.Go(func() (err error) {
			out[i], err = m.status(ctx, &slos[i])
			return err
		})
	}
	return out, g.Wait()
}

func (m *Manager) status(ctx context.Context, s *SLO) (Status, error) {
	scale := m.d.Options.Scale
	bad, total := s.Counts(scaled(s.Period, scale))
	st := Status{
		Name: s.Name, Service: s.Service, Description: s.Description, Labels: s.Labels, Objective: s.Objective, Period: promDuration(s.Period), File: s.File,
		ErrorBudget: s.Budget(), Burn: []Burn{}, Firing: []Severity{}, Queries: map[string]string{"bad": bad, "total": total},
	}
	var err error
	if st.Total, err = m.number(ctx, total); err != nil {
		return st, err
	}
	if st.Total != nil && *st.Total > 0 {
		if st.Bad, err = m.number(ctx, bad); err != nil {
			return st, err
		}
		if st.Bad != nil {
			left := 1 - *st.Bad / *st.Total / s.Budget()
			st.Remaining = &left
		}
	}
	rates := make(map[time.Duration]float64)
	for _, w := range distinct() {
		b := Burn{Window: promDuration(w), Query: s.Expr(scaled(w, scale))}
		if b.Ratio, err = m.number(ctx, b.Query); err != nil {
			return st, err
		}
		if b.Ratio != nil {
			rate := *b.Ratio / s.Budget()
			b.Rate, rates[w] = &rate, rate
		}
		st.Burn = append(st.Burn, b)
	}
	for _, w := range Windows() {
		f := w.Factor(s.Period)
		if rates[w.Long] > f && rates[w.Short] > f && (len(st.Firing) == 0 || st.Firing[len(st.Firing)-1] != w.Severity) {
			st.Firing = append(st.Firing, w.Severity)
		}
	}
	return st, nil
}

// number evaluates an expression that gives one number; nil when it has no value.
func (m *Manager) number(ctx context.Context, expr string) (*float64, error) {
	a, err := m.d.Engine.Query(ctx, promql.Request{Tenant: m.d.Tenant, Expr: expr, End: m.d.Now()})
	if err != nil {
		return nil, err
	}
	defer a.Close()
	v, ok := a.Value.(prompromql.Vector)
	if !ok || len(v) == 0 {
		return nil, nil //nolint:nilnil // there are no events
	}
	f := 0.0
	for _, s := range v {
		f += s.F
	}
	if value.IsStaleNaN(f) || math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, nil //nolint:nilnil // there are no events
	}
	return &f, nil
}

// Register adds GET /api/v1/slos.
func (m *Manager) Register(rt *httpapi.Router) { rt.HandleFunc("GET /api/v1/slos", m.serve) }

func (m *Manager) serve(w http.ResponseWriter, r *http.Request) {
	slos := m.SLOs()
	if httpapi.TenantFrom(r.Context()) != m.d.Tenant {
		slos = nil
	}
	if name := r.URL.Query().Get("name"); name != "" {
		s := m.Find(name)
		if s == nil || len(slos) == 0 {
			m.d.Errors.Prometheus(w, r, httpapi.NotFoundf("there is no objective %q", name))
			return
		}
		slos = []SLO{*s}
	}
	out, err := m.Status(r.Context(), slos)
	if err != nil {
		m.d.Errors.Prometheus(w, r, err)
		return
	}
	httpapi.WriteJSON(w, http.StatusOK, map[string]any{"status": "success", "data": map[string]any{"slos": out}})
}
