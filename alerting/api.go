package alerting

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	promrules "github.com/prometheus/prometheus/rules"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/query"
)

// The JSON of Prometheus's API: names and shapes are its.
type (
	answer struct {
		Status string `json:"status"`
		Data   any    `json:"data"`
	}
	ruleDiscovery struct {
		Groups []ruleGroup `json:"groups"`
		Next   string      `json:"groupNextToken,omitempty"`
	}
	ruleGroup struct {
		Name           string    `json:"name"`
		File           string    `json:"file"`
		Rules          []any     `json:"rules"` // alertingRule or recordingRule
		Interval       float64   `json:"interval"`
		Limit          int       `json:"limit"`
		EvaluationTime float64   `json:"evaluationTime"`
		LastEvaluation time.Time `json:"lastEvaluation"`
	}
	alertingRule struct {
		State          string               `json:"state"`
		Name           string               `json:"name"`
		Query          string               `json:"query"`
		Duration       float64              `json:"duration"`
		KeepFiringFor  float64              `json:"keepFiringFor"`
		Labels         labels.Labels        `json:"labels"`
		Annotations    labels.Labels        `json:"annotations"`
		Alerts         []alert              `json:"alerts"`
		Health         promrules.RuleHealth `json:"health"`
		LastError      string               `json:"lastError,omitempty"`
		EvaluationTime float64              `json:"evaluationTime"`
		LastEvaluation time.Time            `json:"lastEvaluation"`
		Type           string               `json:"type"`
	}
	recordingRule struct {
		Name           string               `json:"name"`
		Query          string               `json:"query"`
		Labels         labels.Labels        `json:"labels"`
		Health         promrules.RuleHealth `json:"health"`
		LastError      string               `json:"lastError,omitempty"`
		EvaluationTime float64              `json:"evaluationTime"`
		LastEvaluation time.Time            `json:"lastEvaluation"`
		Type           string               `json:"type"`
	}
	alert struct {
		Labels          labels.Labels `json:"labels"`
		Annotations     labels.Labels `json:"annotations"`
		State           string        `json:"state"`
		ActiveAt        time.Time     `json:"activeAt"`
		KeepFiringSince *time.Time    `json:"keepFiringSince,omitempty"`
		Value           string        `json:"value"`
	}
	alertDiscovery struct {
		Alerts []alert `json:"alerts"`
	}
	alertmanagerDiscovery struct {
		Active  []alertmanager `json:"activeAlertmanagers"`
		Dropped []alertmanager `json:"droppedAlertmanagers"`
	}
	alertmanager struct {
		URL string `json:"url"`
	}
)

// Register adds the routes: what Prometheus has about rules and alerts, the target of the links in alerts, and the
// reload.
func (a *Alerting) Register(rt *httpapi.Router) {
	for path, f := range map[string]func(*http.Request) (any, error){
		"/api/v1/rules": a.serveRules, "/api/v1/alerts": a.serveAlerts, "/api/v1/alertmanagers": a.serveAlertmanagers,
	} {
		rt.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			data, err := f(r)
			if err != nil {
				query.Errors(a.errors).Prometheus(w, r, err)
				return
			}
			httpapi.WriteJSON(w, http.StatusOK, answer{"success", data})
		})
	}
	rt.HandleFunc("GET /graph", a.serveGraph)
	rt.HandleFunc("POST /-/reload", a.serveReload)
	rt.HandleFunc("PUT /-/reload", a.serveReload)
}

// serveReload loads the rules anew; the answer names every mistake.
func (a *Alerting) serveReload(w http.ResponseWriter, _ *http.Request) {
	if err := a.Reload(); err != nil {
		http.Error(w, "The rules were not loaded; those from before go on:\n"+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "The rules are loaded.")
}

// serveGraph leads from the link in an alert, which has the form of Prometheus's, to the answer to its expression.
func (a *Alerting) serveGraph(w http.ResponseWriter, r *http.Request) {
	expr := r.URL.Query().Get("g0.expr")
	w.Header().Set("Location", "api/v1/query?"+url.Values{"query": {expr}}.Encode()) // relative: there may be a prefix
	w.WriteHeader(http.StatusFound)
}

// mine says whether the request is of the tenant that the rules belong to; others see none.
func (a *Alerting) mine(r *http.Request) bool { return httpapi.TenantFrom(r.Context()) == a.tenant }

func (a *Alerting) serveAlertmanagers(r *http.Request) (any, error) {
	out := alertmanagerDiscovery{Active: []alertmanager{}, Dropped: []alertmanager{}}
	if a.mine(r) {
		for _, u := range a.notify.Alertmanagers() {
			out.Active = append(out.Active, alertmanager{u})
		}
	}
	return out, nil
}

func (a *Alerting) serveAlerts(r *http.Request) (any, error) {
	out := alertDiscovery{Alerts: []alert{}}
	if !a.mine(r) {
		return out, nil
	}
	for _, g := range a.rules.Groups() {
		for _, rule := range g.Rules() {
			if ar, ok := rule.(*promrules.AlertingRule); ok {
				out.Alerts = append(out.Alerts, active(ar)...)
			}
		}
	}
	return out, nil
}

// active returns the alerts of a rule in the order of their labels.
func active(r *promrules.AlertingRule) []alert {
	out := []alert{}
	for _, x := range r.ActiveAlerts() {
		one := alert{
			Labels: x.Labels, Annotations: x.Annotations, State: x.State.String(), ActiveAt: x.ActiveAt,
			Value: strconv.FormatFloat(x.Value, 'e', -1, 64),
		}
		if !x.KeepFiringSince.IsZero() {
			one.KeepFiringSince = &x.KeepFiringSince
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b alert) int { return labels.Compare(a.Labels, b.Labels) })
	return out
}

// selection is what a request for rules asks for.
type selection struct {
	names, groups, files []string // any when empty
	matchers             [][]*labels.Matcher
	alerts, records      bool
	excludeAlerts        bool
	limit                int // groups; 0 for all
	token                string
}

func (a *Alerting) selection(r *http.Request) (s selection, err error) {
	if err := r.ParseForm(); err != nil {
		return s, httpapi.BadDataf("error parsing form values: %w", err)
	}
	invalid := func(param string, err error) error { return httpapi.BadDataf("invalid parameter %q: %w", param, err) }
	s.names, s.groups, s.files = r.Form["rule_name[]"], r.Form["rule_group[]"], r.Form["file[]"]
	if s.matchers, err = a.parser.ParseMetricSelectors(r.Form["match[]"]); err != nil {
		return s, httpapi.BadDataf("%w", err)
	}
	for _, ms := range s.matchers {
		if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			return s, httpapi.BadDataf("match[] must contain at least one non-empty matcher")
		}
	}
	q := r.URL.Query()
	switch typ := strings.ToLower(q.Get("type")); typ {
	case "":
		s.alerts, s.records = true, true
	case "alert":
		s.alerts = true
	case "record":
		s.records = true
	default:
		return s, invalid("type", fmt.Errorf("not supported value %q", typ))
	}
	if v := strings.ToLower(q.Get("exclude_alerts")); v != "" {
		if s.excludeAlerts, err = strconv.ParseBool(v); err != nil {
			return s, invalid("exclude_alerts", fmt.Errorf("error converting exclude_alerts: %w", err))
		}
	}
	limit := q.Get("group_limit")
	s.token = q.Get("group_next_token")
	switch {
	case limit == "" && s.token != "":
		return s, invalid("group_next_token", errors.New("group_limit needs to be present in order to paginate over the groups"))
	case limit != "":
		n, err := strconv.ParseInt(limit, 10, 32)
		if err != nil {
			return s, invalid("group_limit", fmt.Errorf("group_limit needs to be a valid number: %w", err))
		}
		if n <= 0 {
			return s, invalid("group_limit", errors.New("group_limit needs to be greater than 0"))
		}
		s.limit = int(n)
	}
	return s, nil
}

func (a *Alerting) serveRules(r *http.Request) (any, error) {
	s, err := a.selection(r)
	if err != nil {
		return nil, err
	}
	out := ruleDiscovery{Groups: []ruleGroup{}}
	found := s.token == ""
	if a.mine(r) {
		for _, g := range a.rules.Groups() {
			if found = found || s.token == token(g); !found {
				continue
			}
			some := s.group(g)
			if len(some.Rules) == 0 {
				continue
			}
			if s.limit > 0 && len(out.Groups) == s.limit {
				out.Next = token(g)
				break
			}
			out.Groups = append(out.Groups, some)
		}
	}
	if !found {
		return nil, httpapi.BadDataf("invalid parameter %q: invalid group_next_token '%v'. were rule groups changed?", "group_next_token", s.token)
	}
	return out, nil
}

// token names a group in the page before it, as Prometheus does.
func token(g *promrules.Group) string {
	sum := sha256.Sum256([]byte(g.File() + ";" + g.Name()))
	return hex.EncodeToString(sum[:])
}

// group returns a group with those of its rules that are asked for.
func (s *selection) group(g *promrules.Group) ruleGroup {
	out := ruleGroup{
		Name: g.Name(), File: g.File(), Rules: []any{}, Interval: g.Interval().Seconds(), Limit: g.Limit(),
		EvaluationTime: g.GetEvaluationTime().Seconds(), LastEvaluation: g.GetLastEvaluation(),
	}
	if len(s.groups) > 0 && !slices.Contains(s.groups, g.Name()) || len(s.files) > 0 && !slices.Contains(s.files, g.File()) {
		return out
	}
	for _, r := range g.Rules(s.matchers...) {
		if len(s.names) > 0 && !slices.Contains(s.names, r.Name()) {
			continue
		}
		last := ""
		if err := r.LastError(); err != nil {
			last = err.Error()
		}
		switch r := r.(type) {
		case *promrules.AlertingRule:
			if !s.alerts {
				continue
			}
			one := alertingRule{
				State: r.State().String(), Name: r.Name(), Query: r.Query().String(), Duration: r.HoldDuration().Seconds(),
				KeepFiringFor: r.KeepFiringFor().Seconds(), Labels: r.Labels(), Annotations: r.Annotations(), Health: r.Health(), LastError: last,
				EvaluationTime: r.GetEvaluationDuration().Seconds(), LastEvaluation: r.GetEvaluationTimestamp(), Type: "alerting",
			}
			if !s.excludeAlerts {
				one.Alerts = active(r)
			}
			out.Rules = append(out.Rules, one)
		case *promrules.RecordingRule:
			if !s.records {
				continue
			}
			out.Rules = append(out.Rules, recordingRule{
				Name: r.Name(), Query: r.Query().String(), Labels: r.Labels(), Health: r.Health(), LastError: last,
				EvaluationTime: r.GetEvaluationDuration().Seconds(), LastEvaluation: r.GetEvaluationTimestamp(), Type: "recording",
			})
		}
	}
	return out
}
