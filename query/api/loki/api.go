// Package loki serves the HTTP API of Loki for reading logs: queries, labels and series, as Grafana's Loki data
// source and logcli ask for them. What it understands of LogQL is what package logql does.
//
//	api := loki.New(loki.Deps{Config: loki.DefaultConfig(), Reader: db, Observer: obs, Errors: errs, Now: time.Now, Version: v})
//	api.Register(router) // an httpapi.Router with httpapi.Tenant among its middleware
//
// It reads the tenant from the request's context. Errors are plain text.
package loki

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

const (
	// spoken is the version of Loki whose API this is: clients decide by it what they may use.
	spoken = "3.5.0"

	// maxSeconds is how many seconds fit into nanoseconds.
	maxSeconds = math.MaxInt64 / int64(time.Second)

	defaultLines  = 100
	defaultRange  = time.Hour     // of queries
	defaultLabels = 6 * time.Hour // of labels and series
)

// Config is what an operator can set.
type Config struct {
	MaxLines int `yaml:"max_lines" help:"How many log lines one query may return."`
}

// DefaultConfig allows 5000 lines.
func DefaultConfig() Config { return Config{MaxLines: 5000} }

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	if c.MaxLines <= 0 {
		e.Field("max_lines", errors.New("must be positive"))
	}
	return e.Err()
}

// Deps are what the API depends on.
type Deps struct {
	Config   Config
	Reader   storage.Reader
	Observer *query.Observer // nil for none
	Errors   httpapi.Errors
	Now      func() time.Time
	Version  string // of Braid
}

// API answers requests.
type API struct {
	Deps
	errors httpapi.Errors
}

// New returns the API.
func New(d Deps) *API { return &API{Deps: d, errors: query.Errors(d.Errors)} }

// Register adds the API's routes.
func (a *API) Register(rt *httpapi.Router) {
	for _, route := range []struct {
		pattern  string
		language query.Language
		post     bool
		f        func(*http.Request) ([]byte, error)
	}{
		{"/loki/api/v1/query", query.LogQL, true, a.query},
		{"/loki/api/v1/query_range", query.LogQL, true, a.queryRange},
		{"/loki/api/v1/labels", query.Labels, true, a.labelNames},
		{"/loki/api/v1/label/{name}/values", query.Labels, true, a.labelValues},
		{"/loki/api/v1/series", query.Labels, true, a.series},
		{"/loki/api/v1/status/buildinfo", query.Labels, false, a.buildInfo},
	} {
		rt.Handle("GET "+route.pattern, a.serve(route.language, route.f))
		if route.post {
			rt.Handle("POST "+route.pattern, a.serve(route.language, route.f))
		}
	}
}

func (a *API) serve(l query.Language, f func(*http.Request) ([]byte, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body []byte
		err := r.ParseForm()
		if err != nil {
			err = httpapi.BadDataf("malformed parameters: %w", err)
		} else {
			ctx := r.Context()
			done := a.Observer.Start(ctx, l, httpapi.TenantFrom(ctx), r.Form.Get("query"))
			body, err = f(r)
			done(err)
		}
		if err != nil {
			a.errors.Text(w, r, httpapi.Query, err)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		_, _ = w.Write(body) // the client may be gone
	})
}

// queryRange answers with the lines from start up to, but without, end.
func (a *API) queryRange(r *http.Request) ([]byte, error) {
	start, end, err := a.timeRange(r, defaultRange)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"step", "interval"} { // which matter to metrics only
		if s := r.Form.Get(name); s != "" {
			if _, err := parseDuration(s); err != nil {
				return nil, invalid(name, err)
			}
		}
	}
	q, err := logql.Parse(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	if q.Kind() != syntax.Lines {
		return nil, httpapi.BadDataf("parse error at line 1, col 1: range queries for numbers are not supported yet; ask for it as an instant query")
	}
	return a.streams(r, q, start, end)
}

// query answers an instant query: a constant, or the lines of the hour up to its time.
func (a *API) query(r *http.Request) ([]byte, error) {
	at := a.Now().UnixNano()
	if s := r.Form.Get("time"); s != "" {
		var err error
		if at, err = parseTime(s); err != nil {
			return nil, invalid("time", err)
		}
	}
	q, err := logql.Parse(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	if q.Kind() != syntax.Lines {
		return a.number(r, q, at)
	}
	return a.streams(r, q, at-int64(defaultRange), at+1)
}

// number answers a query for one number.
func (a *API) number(r *http.Request, q logql.Expr, at int64) ([]byte, error) {
	ctx := r.Context()
	v, err := a.Reader.View(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Close() }()
	eng := logql.Engine{Limits: logql.DefaultLimits(), Now: a.Now}
	m, err := eng.Metric(ctx, v, logql.MetricQuery{Tenant: httpapi.TenantFrom(ctx), Expr: q, End: at})
	if err != nil {
		return nil, err
	}
	if len(m.Series) != 1 || m.Series[0].Labels != "" {
		return nil, httpapi.BadDataf("parse error at line 1, col 1: queries for series of numbers are not supported yet")
	}
	return appendConstant(nil, at, m.Series[0].Points[0].Value), nil
}

// streams reads the lines that q selects from start up to, but without, end.
func (a *API) streams(r *http.Request, q logql.Expr, start, end int64) ([]byte, error) {
	limit := min(defaultLines, a.Config.MaxLines)
	if s := r.Form.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err == nil && n <= 0 {
			err = errors.New("must be positive")
		}
		if err != nil {
			return nil, invalid("limit", err)
		}
		limit = n
	}
	if limit > a.Config.MaxLines {
		return nil, httpapi.BadDataf("max entries limit per query exceeded: limit %d is over loki.max_lines (%d)", limit, a.Config.MaxLines)
	}
	newest := true
	switch s := strings.ToLower(r.Form.Get("direction")); s {
	case "", "backward":
	case "forward":
		newest = false
	default:
		return nil, invalid("direction", errors.New("want forward or backward"))
	}
	began := a.Now()
	ctx := r.Context()
	res := newResult(categorized(r))
	v, err := a.Reader.View(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Close() }()
	eng := logql.Engine{Limits: logql.DefaultLimits(), Now: a.Now}
	lines, err := eng.Lines(ctx, v, logql.LinesQuery{
		Tenant: httpapi.TenantFrom(ctx), Expr: q, Start: start, End: end, Newest: newest, Limit: limit,
	})
	if err != nil {
		return nil, err
	}
	for i := range lines.Entries {
		res.add(&lines.Entries[i])
	}
	return res.appendTo(nil, v.Warnings(), a.Now().Sub(began)), nil
}

// categorized says whether the client wants structured metadata apart from the labels of the stream.
func categorized(r *http.Request) bool {
	for _, h := range r.Header.Values("X-Loki-Response-Encoding-Flags") {
		for flag := range strings.SplitSeq(h, ",") {
			if strings.TrimSpace(flag) == "categorize-labels" {
				return true
			}
		}
	}
	return false
}

// found returns the streams that the selectors match, each once; no selector means all streams.
func (a *API) found(r *http.Request, selectors []string) ([]telemetry.LabelSet, error) {
	start, end, err := a.timeRange(r, defaultLabels)
	if err != nil {
		return nil, err
	}
	var where []storage.Predicate
	for _, s := range selectors {
		ms, err := logql.ParseSelector(s)
		if err != nil {
			return nil, err
		}
		where = append(where, storage.StreamMatch(ms))
	}
	if len(where) == 0 {
		where = append(where, nil)
	}
	ctx := r.Context()
	v, err := a.Reader.View(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Close() }()
	var out []telemetry.LabelSet
	for _, p := range where {
		some, err := v.Streams(ctx, storage.LogQuery{Tenant: httpapi.TenantFrom(ctx), Start: start, End: end - 1, Where: p})
		if err != nil {
			return nil, err
		}
		for _, s := range some {
			out = append(out, telemetry.LabelSet(strings.Clone(string(s)))) // it outlives the view
		}
	}
	slices.SortFunc(out, func(a, b telemetry.LabelSet) int { return labels.Compare(a.Labels(), b.Labels()) })
	return slices.Compact(out), nil
}

// narrowed returns the streams that the parameter query, a selector, leaves; without it all.
func (a *API) narrowed(r *http.Request) ([]telemetry.LabelSet, error) {
	s := strings.TrimSpace(r.Form.Get("query"))
	if s == "" || strings.Join(strings.Fields(s), "") == "{}" {
		return a.found(r, nil)
	}
	return a.found(r, []string{s})
}

func (a *API) labelNames(r *http.Request) ([]byte, error) {
	sets, err := a.narrowed(r)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, s := range sets {
		s.Range(func(name, _ string) { seen[name] = true })
	}
	return appendNames(nil, seen), nil
}

func (a *API) labelValues(r *http.Request) ([]byte, error) {
	sets, err := a.narrowed(r)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, s := range sets {
		if v := s.Get(r.PathValue("name")); v != "" {
			seen[v] = true
		}
	}
	return appendNames(nil, seen), nil
}

func (a *API) series(r *http.Request) ([]byte, error) {
	selectors := append(slices.Clone(r.Form["match[]"]), r.Form["match"]...)
	if len(selectors) == 1 && strings.Join(strings.Fields(selectors[0]), "") == "{}" {
		selectors = nil // which is how all streams are asked for
	}
	sets, err := a.found(r, selectors)
	if err != nil {
		return nil, err
	}
	return appendSeries(nil, sets), nil
}

// buildInfo tells the version of the API.
func (a *API) buildInfo(*http.Request) ([]byte, error) {
	return fmt.Appendf(nil, `{"version":%q,"revision":%q,"branch":"braid","buildUser":"","buildDate":"","goVersion":%q}`,
		spoken, a.Version, runtime.Version()), nil
}

func invalid(param string, err error) error {
	return httpapi.BadDataf("invalid parameter %q: %w", param, err)
}

// timeRange returns the times that start, end and since tell, in nanoseconds.
func (a *API) timeRange(r *http.Request, absent time.Duration) (start, end int64, err error) {
	now := a.Now().UnixNano()
	end = now
	if s := r.Form.Get("end"); s != "" {
		if end, err = parseTime(s); err != nil {
			return 0, 0, invalid("end", err)
		}
	}
	since := int64(absent)
	if s := r.Form.Get("since"); s != "" {
		d, err := parseDuration(s)
		if err != nil {
			return 0, 0, invalid("since", err)
		}
		since = int64(d)
	}
	start = min(end, now) - since
	if s := r.Form.Get("start"); s != "" {
		if start, err = parseTime(s); err != nil {
			return 0, 0, invalid("start", err)
		}
	}
	if end < start {
		return 0, 0, invalid("end", errors.New("it is before start"))
	}
	return start, end, nil
}

// parseTime reads Unix nanoseconds, Unix seconds (up to ten digits, or with a fraction) or RFC 3339.
func parseTime(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if len(strings.TrimPrefix(s, "-")) > 10 {
			return max(n, math.MinInt64/2), nil // so that lengths of time can be taken off
		}
		if n < -maxSeconds || n > maxSeconds {
			return 0, fmt.Errorf("%q seconds are beyond the year 2261", s)
		}
		return n * int64(time.Second), nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(f) < float64(maxSeconds) {
		whole, frac := math.Modf(f)
		return int64(whole)*int64(time.Second) + int64(math.Round(frac*1e9)), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 1678 || t.Year() > 2261 {
		return 0, fmt.Errorf("%q is neither Unix nanoseconds, Unix seconds nor RFC 3339", s)
	}
	return t.UnixNano(), nil
}

// parseDuration reads seconds or a duration such as 5m or 1500ms.
func parseDuration(s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0 && f < float64(maxSeconds) {
		return time.Duration(f * float64(time.Second)), nil
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 30s or 1h", s)
	}
	return d, nil
}
