// Package loki serves the HTTP API of Loki for reading logs: queries, labels, series, volumes, patterns, detected fields,
// tailing and deletes, as Grafana's Loki data source, Logs Drilldown, logcli and loki-canary ask for them. The language is
// that of package logql.
//
//	api := loki.New(loki.Deps{Config: loki.DefaultConfig(), Reader: db, Follower: db, Observer: obs, Errors: errs, Now: time.Now, Version: v})
//	api.Register(router)         // an httpapi.Router with httpapi.Tenant among its middleware
//	api.RegisterStreams(another) // one without limits for queries that end: tails stay open
//
// Beside Loki's there are routes under /api/v1/logs: an export of any number of lines, a search through everything, and
// the lines around a line. It reads the tenant from the request's context. Errors are plain text.
package loki

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/storage"
)

const (
	// spoken is the version of Loki whose API this is: clients decide by it what they may use.
	spoken = "3.5.0"

	// maxSeconds is how many seconds fit into nanoseconds.
	maxSeconds = math.MaxInt64 / int64(time.Second)

	// queryTimeout is how long a query may take; exports may take as long as somebody reads them.
	queryTimeout = 2 * time.Minute

	defaultLines  = 100
	defaultRange  = time.Hour     // of queries
	defaultLabels = 6 * time.Hour // of labels and series
)

// Config is what an operator can set.
type Config struct {
	MaxLines int         `yaml:"max_lines" help:"How many log lines one answer may have; a cursor leads to the next."`
	MaxBytes config.Size `yaml:"max_bytes" help:"How many bytes of parts, compressed, one query may read; 0 for any number."`
}

// DefaultConfig allows 5000 lines, read from any number of bytes.
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
	Follower storage.LogFollower // nil: nothing can be tailed
	Admin    storage.Admin       // nil: deletes are not allowed
	Observer *query.Observer     // nil for none
	Errors   httpapi.Errors
	Now      func() time.Time
	Version  string // of Braid
}

// API answers requests.
type API struct {
	Deps
	errors httpapi.Errors
	engine logql.Engine
	tails  chan struct{} // a place for each tail
}

// New returns the API.
func New(d Deps) *API {
	limits := logql.DefaultLimits()
	limits.Bytes = int64(d.Config.MaxBytes)
	return &API{
		Deps: d, errors: query.Errors(d.Errors), tails: make(chan struct{}, maxTails),
		engine: logql.Engine{Limits: limits, Now: d.Now},
	}
}

// handler answers a request; no body is 204.
type handler func(r *http.Request) (body []byte, err error)

// Register adds the API's routes, but for those that stay open.
func (a *API) Register(rt *httpapi.Router) {
	const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
	for _, route := range []struct {
		path     string
		language query.Language
		f        handler
		methods  []string
	}{
		{"query", query.LogQL, a.query, []string{get, post}},
		{"query_range", query.LogQL, a.queryRange, []string{get, post}},
		{"labels", query.Labels, a.labelNames, []string{get, post}},
		{"label", query.Labels, a.labelNames, []string{get, post}},
		{"label/{name}/values", query.Labels, a.labelValues, []string{get, post}},
		{"series", query.Labels, a.series, []string{get, post}},
		{"index/stats", query.Labels, a.indexStats, []string{get, post}},
		{"index/volume", query.LogQL, a.volume, []string{get, post}},
		{"index/volume_range", query.LogQL, a.volumeRange, []string{get, post}},
		{"patterns", query.LogQL, a.patterns, []string{get, post}},
		{"detected_fields", query.LogQL, a.detectedFields, []string{get, post}},
		{"detected_field/{name}/values", query.LogQL, a.detectedValues, []string{get, post}},
		{"detected_labels", query.Labels, a.detectedLabels, []string{get, post}},
		{"drilldown-limits", query.Labels, a.drilldownLimits, []string{get}},
		{"format_query", query.Labels, a.formatQuery, []string{get, post}},
		{"status/buildinfo", query.Labels, a.buildInfo, []string{get}},
		{"delete", query.Labels, a.remove, []string{post, put}},
		{"delete", query.Labels, a.removals, []string{get}},
		{"delete", query.Labels, a.undo, []string{del}},
	} {
		for _, m := range route.methods {
			rt.Handle(m+" /loki/api/v1/"+route.path, a.serve(route.language, route.f))
		}
	}
	rt.Handle("GET /loki/api/v1/rules", http.HandlerFunc(a.noRules))
	rt.Handle("GET /prometheus/api/v1/rules", fixed(`{"status":"success","data":{"groups":[]}}`))
	rt.Handle("GET /prometheus/api/v1/alerts", fixed(`{"status":"success","data":{"alerts":[]}}`))
	rt.Handle("GET /api/v1/logs/search", a.serve(query.LogQL, a.search))
	rt.Handle("GET /api/v1/logs/context", a.serve(query.LogQL, a.around))
	rt.Handle("GET /api/v1/logs/export", http.HandlerFunc(a.export))
}

func fixed(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write([]byte(body))
	})
}

// noRules says, as Loki does, that there are none: those of Braid are in the API of package alerting.
func (a *API) noRules(w http.ResponseWriter, r *http.Request) {
	a.errors.Text(w, r, httpapi.Query, httpapi.NotFoundf("no rule groups found"))
}

const contentType = "application/json; charset=UTF-8"

func (a *API) serve(l query.Language, f handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
		defer cancel()
		r = r.WithContext(ctx)
		var body []byte
		err := r.ParseForm()
		if err != nil {
			err = httpapi.BadDataf("malformed parameters: %w", err)
		} else {
			done := a.Observer.Start(ctx, l, httpapi.TenantFrom(ctx), described(r))
			body, err = f(r)
			done(err)
		}
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			a.errors.Text(w, r, httpapi.Query, &httpapi.Error{
				Kind: httpapi.Timeout, Err: err,
				Message: fmt.Sprintf("the query took longer than %s, which is the limit: narrow its time range or its selector", queryTimeout),
			})
		case err != nil:
			a.errors.Text(w, r, httpapi.Query, err)
		case body == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set("Content-Type", contentType)
			_, _ = w.Write(body) // the client may be gone
		}
	})
}

// described returns the query as the query log has it: with the tags by which clients say what it is for, as a comment.
func described(r *http.Request) string {
	text := r.Form.Get("query")
	if tags := r.Header.Get("X-Query-Tags"); tags != "" && len(tags) <= 1<<10 {
		text += " # " + strings.Map(func(c rune) rune {
			if c < ' ' {
				return ' '
			}
			return c
		}, tags)
	}
	return text
}

// view calls f with a view of the store.
func (a *API) view(ctx context.Context, f func(v storage.View) error) error {
	v, err := a.Reader.View(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }()
	return f(v)
}

func invalid(param string, err error) error {
	return httpapi.BadDataf("invalid parameter %q: %w", param, err)
}

// span is a range of time in nanoseconds, without end.
type span struct{ start, end int64 }

// timeRange returns the times that start, end and since tell.
func (a *API) timeRange(r *http.Request, absent time.Duration) (span, error) {
	now := a.Now().UnixNano()
	s := span{end: now}
	var err error
	if t := r.Form.Get("end"); t != "" {
		if s.end, err = parseTime(t); err != nil {
			return s, invalid("end", err)
		}
	}
	since := int64(absent)
	if t := r.Form.Get("since"); t != "" {
		d, err := parseDuration(t)
		if err != nil {
			return s, invalid("since", err)
		}
		since = int64(d)
	}
	s.start = min(s.end, now) - since
	if t := r.Form.Get("start"); t != "" {
		if s.start, err = parseTime(t); err != nil {
			return s, invalid("start", err)
		}
	}
	if s.end < s.start {
		return s, invalid("end", errors.New("it is before start"))
	}
	return s, nil
}

// step returns the parameter step, or what Loki takes without one.
func (s span) step(r *http.Request) (time.Duration, error) {
	if t := r.Form.Get("step"); t != "" {
		d, err := parseDuration(t)
		if err == nil && d <= 0 {
			err = errors.New("must be positive")
		}
		if err != nil {
			return 0, invalid("step", err)
		}
		return d, nil
	}
	return max(time.Duration((s.end-s.start)/int64(250*time.Second))*time.Second, time.Second), nil
}

// number returns a parameter that is a positive number.
func number(r *http.Request, name string, absent int) (int, error) {
	t := r.Form.Get(name)
	if t == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(t)
	if err == nil && n <= 0 {
		err = errors.New("must be positive")
	}
	if err != nil {
		return 0, invalid(name, err)
	}
	return n, nil
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
