package slo

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/alerting/notify"
	"github.com/braidobs/braid/correlate/evidence"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/storage"
)

const (
	// gatherTime is how long the evidence of an alert may take; the alert is sent without what is missing then.
	gatherTime = 500 * time.Millisecond
	// settle is how long after its start an alert's evidence may still grow.
	settle = 10 * time.Minute
	// maxKept is how many alerts' evidence is kept.
	maxKept = 500
	// statePrefix is in front of the keys of evidence; behind it stands the fingerprint.
	statePrefix = "evidence/"
)

// Names of the annotations that carry evidence.
const (
	AnnotationEvidence = "evidence"
	AnnotationTraces   = "evidence_traces"
	AnnotationLogs     = "evidence_logs"
	AnnotationPods     = "evidence_pods"
)

// Explained is the evidence of one alert, as it is kept and served.
type Explained struct {
	Fingerprint string            `json:"fingerprint"`
	Labels      map[string]string `json:"labels"`
	StartsAt    time.Time         `json:"startsAt"`
	SLO         string            `json:"slo"`

	*evidence.Evidence
}

// ExplainerDeps are what an explainer depends on.
type ExplainerDeps struct {
	Manager   *Manager
	Collector *evidence.Collector
	State     storage.State
	URL       string // under which people reach the server
	Errors    httpapi.Errors
	Now       func() time.Time
	Log       *slog.Logger
}

// Explainer gathers the evidence of burn alerts when they begin to fire, keeps it, and writes it on them.
type Explainer struct {
	d  ExplainerDeps
	mu sync.Mutex // held while evidence is gathered, so that an alert's is gathered once
}

// NewExplainer returns an explainer.
func NewExplainer(d ExplainerDeps) *Explainer { return &Explainer{d: d} }

// Fingerprint returns how Alertmanager names an alert.
func Fingerprint(ls labels.Labels) string {
	set := make(model.LabelSet, ls.Len())
	ls.Range(func(l labels.Label) { set[model.LabelName(l.Name)] = model.LabelValue(l.Value) })
	return set.Fingerprint().String()
}

// Annotate implements notify.Annotate.
func (e *Explainer) Annotate(ctx context.Context, a *notify.Alert) {
	s := e.d.Manager.Find(a.Labels.Get(LabelSLO))
	if s == nil || a.Labels.Get(model.AlertNameLabel) != AlertName {
		return
	}
	x := e.explain(ctx, a, s)
	if x == nil {
		return
	}
	b := labels.NewBuilder(a.Annotations)
	b.Set(AnnotationEvidence, e.d.URL+"/api/v1/evidence/"+x.Fingerprint)
	for name, text := range map[string]string{AnnotationTraces: x.traces(), AnnotationLogs: x.logs(), AnnotationPods: x.pods()} {
		if text != "" {
			b.Set(name, text)
		}
	}
	a.Annotations = b.Labels()
}

// explain returns the evidence of an alert: what was gathered when it began to fire, or what is found now.
func (e *Explainer) explain(ctx context.Context, a *notify.Alert, s *SLO) *Explained {
	e.mu.Lock()
	defer e.mu.Unlock()
	fp := Fingerprint(a.Labels)
	first := e.kept(fp)
	if first != nil && !first.StartsAt.Equal(a.StartsAt) {
		first = nil
	}
	if a.Resolved || first != nil && !first.young(e.d.Now()) {
		return first
	}
	within, cancel := context.WithTimeout(ctx, gatherTime)
	defer cancel()
	end := e.d.Now()
	ev, err := e.d.Collector.Gather(within, evidence.Request{
		Tenant: e.d.Manager.Tenant(), Start: end.Add(-e.window(a)), End: end, Bad: s.BadSpans(),
	})
	if err != nil {
		e.d.Log.Warn("the evidence of an alert cannot be gathered; it is sent without", "slo", s.Name, "err", err)
		return first
	}
	if first != nil && len(ev.Traces)+len(ev.Logs) <= len(first.Traces)+len(first.Logs) {
		return first
	}
	x := &Explained{Fingerprint: fp, Labels: a.Labels.Map(), StartsAt: a.StartsAt, SLO: s.Name, Evidence: ev}
	if err := e.keep(ctx, x); err != nil {
		e.d.Log.Warn("the evidence of an alert cannot be kept", "slo", s.Name, "err", err)
	}
	return x
}

// young says whether what an alert began to fire by may still be on its way: lines come after their spans. It is then
// gathered again when the alert is sent again, and kept if there is more.
func (x *Explained) young(now time.Time) bool {
	return now.Sub(x.StartsAt) < settle && (len(x.Logs) == 0 || len(x.Traces) < evidence.MaxTraces)
}

// window is how far back bad events are looked for: the longest of the short windows that the alert fires by.
func (e *Explainer) window(a *notify.Alert) time.Duration {
	var longest time.Duration
	for _, w := range Windows() {
		if string(w.Severity) == a.Labels.Get(LabelSeverity) {
			longest = max(longest, w.Short)
		}
	}
	if longest == 0 {
		longest = Windows()[0].Short
	}
	return max(scaled(longest, e.d.Manager.Options().Scale), time.Minute)
}

func (e *Explainer) kept(fp string) *Explained {
	b := e.d.State.Get(statePrefix + fp)
	if b == nil {
		return nil
	}
	x := new(Explained)
	if err := json.Unmarshal(b, x); err != nil || x.Evidence == nil {
		e.d.Log.Warn("kept evidence is malformed; it is gathered anew", "fingerprint", fp, "err", err)
		return nil
	}
	return x
}

// keep stores evidence, and lets go of the oldest when there is too much.
func (e *Explainer) keep(ctx context.Context, x *Explained) error {
	b, err := json.Marshal(x)
	if err != nil {
		return fmt.Errorf("encode evidence: %w", err)
	}
	keys := e.d.State.Keys(statePrefix)
	if len(keys) >= maxKept {
		type aged struct {
			key string
			at  time.Time
		}
		all := make([]aged, len(keys))
		for i, k := range keys {
			all[i].key = k
			if old := e.kept(strings.TrimPrefix(k, statePrefix)); old != nil {
				all[i].at = old.StartsAt
			}
		}
		slices.SortFunc(all, func(a, b aged) int { return a.at.Compare(b.at) })
		for _, old := range all[:len(all)-maxKept+1] {
			if err := e.d.State.Set(ctx, old.key, nil); err != nil {
				return err
			}
		}
	}
	return e.d.State.Set(ctx, statePrefix+x.Fingerprint, b)
}

func (x *Explained) traces() string {
	var out []string
	for _, t := range x.Traces {
		out = append(out, fmt.Sprintf("%s (%s %s, %.0f ms)", t.TraceID, t.Service, t.Span, t.DurationMilli))
	}
	return strings.Join(out, "\n")
}

func (x *Explained) logs() string {
	var out []string
	for _, l := range x.Logs[:min(len(x.Logs), evidence.MaxTraces)] {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s: %s", l.Time, l.Severity, l.Pod, l.Body)))
	}
	return strings.Join(out, "\n")
}

func (x *Explained) pods() string {
	var out []string
	for _, p := range x.Pods[:min(len(x.Pods), evidence.MaxTraces)] {
		facts := []string{fmt.Sprintf("%s/%s: %.0f ms by itself", p.Namespace, p.Pod, p.SlowestMilli)}
		for _, c := range []struct {
			name   string
			change *evidence.Change
		}{{"CPU", p.CPU}, {"memory", p.Memory}} {
			if ch := c.change; ch != nil && ch.Now != nil && ch.Before != nil && *ch.Before > 0 {
				facts = append(facts, fmt.Sprintf("%s %+.0f %%", c.name, (*ch.Now / *ch.Before - 1)*100))
			}
		}
		if ch := p.Restarts; ch != nil && ch.Now != nil && ch.Before != nil {
			facts = append(facts, fmt.Sprintf("restarts %+.0f", *ch.Now-*ch.Before))
		}
		out = append(out, strings.Join(facts, ", "))
	}
	return strings.Join(out, "\n")
}

// Register adds GET /api/v1/evidence/{fingerprint}.
func (e *Explainer) Register(rt *httpapi.Router) {
	rt.HandleFunc("GET /api/v1/evidence/{fingerprint}", e.serve)
}

func (e *Explainer) serve(w http.ResponseWriter, r *http.Request) {
	fp := r.PathValue("fingerprint")
	var x *Explained
	if httpapi.TenantFrom(r.Context()) == e.d.Manager.Tenant() && len(fp) <= 16 {
		x = e.kept(fp)
	}
	if x == nil {
		e.d.Errors.Prometheus(w, r, httpapi.NotFoundf("there is no evidence of an alert with fingerprint %q", fp))
		return
	}
	httpapi.WriteJSON(w, http.StatusOK, map[string]any{"status": "success", "data": x})
}
