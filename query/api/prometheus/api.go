// Package prometheus serves the HTTP API of Prometheus for queries: what Grafana's Prometheus data source,
// promtool and the tools that speak to Prometheus expect.
//
//	api := prometheus.New(prometheus.Deps{Engine: eng, Reader: db, Observer: obs, Errors: errs, Now: time.Now, Version: v})
//	api.Register(router) // an httpapi.Router with httpapi.Tenant among its middleware
//
// It reads the tenant from the request's context. Rules and alerts are served by package alerting.
package prometheus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	stock "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

// spoken is the version of Prometheus whose API this is: clients decide by it what they may use.
const spoken = "3.15.0"

// maxPoints bounds the points of one series in an answer, as Prometheus does.
const maxPoints = 11_000

// maxNotes bounds the warnings and the infos of an answer, as Prometheus does.
const maxNotes = 10

// Deps are what the API depends on.
type Deps struct {
	Engine   *promql.Engine
	Reader   storage.Reader
	Observer *query.Observer // nil for none
	Errors   httpapi.Errors
	Now      func() time.Time
	Version  string  // of Braid
	Targets  Targets // nil: nothing is scraped
	Admin    *Admin  // nil: not allowed
	Status   Status
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
	const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
	for _, route := range []struct {
		path    string
		f       handler
		methods []string
	}{
		{"query", a.query, []string{get, post}},
		{"query_range", a.queryRange, []string{get, post}},
		{"query_exemplars", a.exemplars, []string{get, post}},
		{"format_query", a.formatQuery, []string{get, post}},
		{"parse_query", a.parseQuery, []string{get, post}},
		{"series", a.series, []string{get, post}},
		{"labels", a.labelNames, []string{get, post}},
		{"label/{name}/values", a.labelValues, []string{get}},
		{"metadata", a.metadata, []string{get}},
		{"targets", a.targets, []string{get}},
		{"targets/metadata", a.targetMetadata, []string{get}},
		{"scrape_pools", a.pools, []string{get}},
		{"status/buildinfo", a.buildInfo, []string{get}},
		{"status/config", a.config, []string{get}},
		{"status/flags", a.flags, []string{get}},
		{"status/runtimeinfo", a.runtimeInfo, []string{get}},
		{"status/walreplay", a.walReplay, []string{get}},
		{"status/tsdb", a.explore, []string{get}},
		{"status/active_queries", a.running, []string{get}},
		{"status/active_queries/{id}", a.stop, []string{del}},
		{"admin/tsdb/delete_series", a.deleteSeries, []string{post, put}},
		{"admin/tsdb/clean_tombstones", a.cleanTombstones, []string{post, put}},
		{"admin/tsdb/snapshot", a.snapshot, []string{post, put}},
	} {
		for _, m := range route.methods {
			rt.Handle(m+" /api/v1/"+route.path, a.serve(route.f))
		}
	}
	rt.Handle("POST /api/v1/read", http.HandlerFunc(a.remoteRead))
	rt.Handle("GET /federate", http.HandlerFunc(a.federate))
}

// result is what a handler answers: data writes the JSON of the member data; without it there is nothing to say (204).
type result struct {
	data  func(dst []byte) []byte
	notes annotations.Annotations
	expr  string // that the notes' positions are about
	done  func() // nil, or to be called once data was written
}

type handler func(r *http.Request) (result, error)

func (a *API) serve(f handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			a.errors.Prometheus(w, r, httpapi.BadDataf("error parsing form values: %w", err))
			return
		}
		res, err := f(r)
		if res.done != nil {
			defer res.done()
		}
		if err != nil {
			a.errors.Prometheus(w, r, err)
			return
		}
		if res.data == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		body := []byte(`{"status":"success","data":`)
		body = res.data(body)
		warnings, infos := res.notes.AsStrings(res.expr, maxNotes, maxNotes)
		body = appendNotes(body, `,"warnings":`, warnings)
		body = appendNotes(body, `,"infos":`, infos)
		body = append(body, '}')
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // the client may be gone
	})
}

func (a *API) query(r *http.Request) (result, error) {
	limit, err := limitParam(r)
	if err != nil {
		return result{}, err
	}
	at, err := timeParam(r, "time", a.Now())
	if err != nil {
		return result{}, err
	}
	return a.run(r, limit, promql.Request{End: at})
}

func (a *API) queryRange(r *http.Request) (result, error) {
	limit, err := limitParam(r)
	if err != nil {
		return result{}, err
	}
	start, err := parseTime(r.FormValue("start"))
	if err != nil {
		return result{}, invalid("start", err)
	}
	end, err := parseTime(r.FormValue("end"))
	if err != nil {
		return result{}, invalid("end", err)
	}
	if end.Before(start) {
		return result{}, invalid("end", errEndBeforeStart())
	}
	step, err := parseDuration(r.FormValue("step"))
	if err != nil {
		return result{}, invalid("step", err)
	}
	if step <= 0 {
		return result{}, invalid("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	}
	if end.Sub(start)/step > maxPoints {
		return result{}, httpapi.BadDataf("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)")
	}
	return a.run(r, limit, promql.Request{Start: start, End: end, Step: step})
}

// run answers the query of a request, instant or range.
func (a *API) run(r *http.Request, limit int, q promql.Request) (result, error) {
	ctx := r.Context()
	cancel := func() {}
	if s := r.FormValue("timeout"); s != "" {
		d, err := parseDuration(s)
		if err != nil {
			return result{}, invalid("timeout", err)
		}
		ctx, cancel = context.WithTimeout(ctx, d)
	}
	defer cancel()
	if s := r.FormValue("lookback_delta"); s != "" {
		d, err := parseDuration(s)
		if err != nil {
			return result{}, httpapi.BadDataf("error parsing lookback delta duration: %w", err)
		}
		q.Lookback = d
	}
	statistics := r.FormValue("stats")
	q.Tenant, q.Expr, q.PerStepStats = httpapi.TenantFrom(ctx), r.FormValue("query"), statistics == "all"
	ans, err := a.Engine.Query(withOrigin(ctx, r), q)
	if err != nil {
		return result{}, err
	}
	value, notes := ans.Value, ans.Warnings
	if cut, ok := truncate(value, limit); ok {
		value = cut
		notes.Add(errTruncated())
	}
	return result{notes: notes, expr: q.Expr, done: ans.Close, data: func(dst []byte) []byte {
		return appendQueryData(dst, value, ans, statistics)
	}}, nil
}

// withOrigin tells the query log where a query comes from.
func withOrigin(ctx context.Context, r *http.Request) context.Context {
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	return stock.NewOriginContext(ctx, map[string]any{
		"httpRequest": map[string]string{"clientIP": client, "method": r.Method, "path": r.URL.Path},
		"tenant":      string(httpapi.TenantFrom(ctx)),
	})
}

func errTruncated() error { return errors.New("results truncated due to limit") }

func (a *API) exemplars(r *http.Request) (result, error) {
	start, end, err := rangeParams(r)
	if err != nil {
		return result{}, err
	}
	if end.Before(start) {
		return result{}, httpapi.BadDataf("end timestamp must not be before start timestamp")
	}
	expr, err := a.Engine.Parser().ParseExpr(r.FormValue("query"))
	if err != nil {
		return result{}, httpapi.BadDataf("%w", err)
	}
	return a.read(r, func(ctx context.Context, v storage.View) (result, error) {
		found, err := exemplarsOf(ctx, v, expr, storage.SeriesQuery{
			Tenant: httpapi.TenantFrom(ctx), Start: timestamp.FromTime(start), End: timestamp.FromTime(end),
		})
		return result{data: func(dst []byte) []byte { return appendExemplars(dst, found) }}, err
	})
}

// read runs f with a view of the store; the view's warnings become the answer's.
func (a *API) read(r *http.Request, f func(ctx context.Context, v storage.View) (result, error)) (res result, err error) {
	ctx := r.Context()
	done := a.Observer.Start(ctx, query.Labels, httpapi.TenantFrom(ctx), r.Form.Encode())
	defer func() { done(err) }()
	v, err := a.Reader.View(ctx, 0)
	if err != nil {
		return result{}, err
	}
	res, err = f(ctx, v)
	for _, w := range v.Warnings() {
		res.notes.Add(errors.New(w))
	}
	res.done = func() { _ = v.Close() }
	return res, err
}

// selection is what the label endpoints have in common.
type selection struct {
	storage.SeriesQuery // with a limit one higher than asked for, to know whether something is cut
	matchers            [][]*labels.Matcher
	limit               int
}

// selection reads the parameters of the label endpoints; explain puts what is wrong with match[] into words.
func (a *API) selection(r *http.Request, explain func(error) error) (s selection, err error) {
	if s.limit, err = limitParam(r); err != nil {
		return s, err
	}
	start, end, err := rangeParams(r)
	if err != nil {
		return s, err
	}
	s.Tenant, s.Start, s.End = httpapi.TenantFrom(r.Context()), timestamp.FromTime(start), timestamp.FromTime(end)
	if s.limit > 0 && s.limit < math.MaxInt {
		s.Limit = s.limit + 1
	}
	if s.matchers, err = a.parseMatchers(r); err != nil {
		return s, explain(err)
	}
	for _, ms := range s.matchers {
		if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return m != nil && !m.Matches("") }) {
			return s, explain(errors.New("match[] must contain at least one non-empty matcher"))
		}
	}
	return s, nil
}

// each calls f for each set of matchers, once without any when there are none.
func (s *selection) each(f func(storage.SeriesQuery) error) error {
	if len(s.matchers) == 0 {
		return f(s.SeriesQuery)
	}
	for _, ms := range s.matchers {
		q := s.SeriesQuery
		q.Matchers = ms
		if err := f(q); err != nil {
			return err
		}
	}
	return nil
}

// strings answers with the sorted union of what f finds.
func (a *API) strings(r *http.Request, f func(ctx context.Context, v storage.View, q storage.SeriesQuery) ([]string, error)) (result, error) {
	s, err := a.selection(r, func(err error) error { return httpapi.BadDataf("%w", err) })
	if err != nil {
		return result{}, err
	}
	return a.read(r, func(ctx context.Context, v storage.View) (result, error) {
		var all []string
		err := s.each(func(q storage.SeriesQuery) error {
			some, err := f(ctx, v, q)
			all = append(all, some...)
			return err
		})
		slices.Sort(all)
		all = slices.Compact(all)
		var res result
		if s.limit > 0 && len(all) > s.limit {
			all = all[:s.limit]
			res.notes.Add(errTruncated())
		}
		res.data = func(dst []byte) []byte { return appendStrings(dst, all) }
		return res, err
	})
}

func (a *API) labelNames(r *http.Request) (result, error) {
	return a.strings(r, func(ctx context.Context, v storage.View, q storage.SeriesQuery) ([]string, error) {
		return v.LabelNames(ctx, q)
	})
}

func (a *API) labelValues(r *http.Request) (result, error) {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return result{}, httpapi.BadDataf("invalid label name: %q", name)
	}
	return a.strings(r, func(ctx context.Context, v storage.View, q storage.SeriesQuery) ([]string, error) {
		return v.LabelValues(ctx, name, q)
	})
}

func (a *API) series(r *http.Request) (result, error) {
	if len(r.Form["match[]"]) == 0 {
		return result{}, httpapi.BadDataf("no match[] parameter provided")
	}
	s, err := a.selection(r, invalidMatch)
	if err != nil {
		return result{}, err
	}
	return a.read(r, func(ctx context.Context, v storage.View) (result, error) {
		var all []labels.Labels
		err := s.each(func(q storage.SeriesQuery) error {
			sets, err := v.LabelSets(ctx, q)
			for _, ls := range sets {
				all = append(all, ls.Labels())
			}
			return err
		})
		slices.SortFunc(all, labels.Compare)
		all = slices.CompactFunc(all, labels.Equal)
		var res result
		if s.limit > 0 && len(all) > s.limit {
			all = all[:s.limit]
			res.notes.Add(errTruncated())
		}
		res.data = func(dst []byte) []byte { return appendLabelSets(dst, all) }
		return res, err
	})
}

func (a *API) metadata(r *http.Request) (result, error) {
	number := func(name string) (int, error) {
		s := r.FormValue(name)
		if s == "" {
			return -1, nil
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0, httpapi.BadDataf("%s must be a number", name)
		}
		return n, nil
	}
	limit, err := number("limit")
	if err != nil {
		return result{}, err
	}
	perMetric, err := number("limit_per_metric")
	if err != nil {
		return result{}, err
	}
	return a.read(r, func(ctx context.Context, v storage.View) (result, error) {
		found, err := v.Metadata(ctx, httpapi.TenantFrom(ctx), r.FormValue("metric"))
		return result{data: func(dst []byte) []byte { return appendMetadata(dst, found, limit, perMetric) }}, err
	})
}

// buildInfo tells the version of the API. Without features Grafana takes the server for a Prometheus; with some it
// would look for Mimir's ruler.
func (a *API) buildInfo(*http.Request) (result, error) {
	return result{data: func(dst []byte) []byte {
		for i, kv := range [][2]string{
			{"version", spoken}, {"revision", a.Version}, {"branch", "braid"}, {"buildUser", ""}, {"buildDate", ""}, {"goVersion", runtime.Version()},
		} {
			dst = append(dst, "{,"[min(i, 1)])
			dst = appendString(dst, kv[0])
			dst = append(dst, ':')
			dst = appendString(dst, kv[1])
		}
		return append(dst, `,"features":{}}`...)
	}}, nil
}

func invalid(param string, err error) error {
	return httpapi.BadDataf("invalid parameter %q: %w", param, err)
}

func invalidMatch(err error) error { return invalid("match[]", err) }

func limitParam(r *http.Request) (int, error) {
	s := r.FormValue("limit")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err == nil && n < 0 {
		err = errors.New("limit must be non-negative")
	}
	if err != nil {
		return 0, invalid("limit", err)
	}
	return n, nil
}

// minTime and maxTime are the ends of time in the API of Prometheus.
func minTime() time.Time { return time.Unix(math.MinInt64/1000+62135596801, 0).UTC() }

func maxTime() time.Time { return time.Unix(math.MaxInt64/1000-62135596801, 999999999).UTC() }

func rangeParams(r *http.Request) (start, end time.Time, err error) {
	if start, err = timeParam(r, "start", minTime()); err != nil {
		return start, end, err
	}
	end, err = timeParam(r, "end", maxTime())
	return start, end, err
}

func timeParam(r *http.Request, name string, absent time.Time) (time.Time, error) {
	s := r.FormValue(name)
	if s == "" {
		return absent, nil
	}
	t, err := parseTime(s)
	if err != nil {
		return t, invalid(name, fmt.Errorf("invalid time value for '%s': %w", name, err))
	}
	return t, nil
}

func parseTime(s string) (time.Time, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
		whole, frac := math.Modf(f)
		frac = math.Round(frac*1000) / 1000
		return time.Unix(int64(whole), int64(frac*float64(time.Second))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, t := range []time.Time{minTime(), maxTime()} { // have years that time.Parse does not read
		if s == t.Format(time.RFC3339Nano) {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}

func parseDuration(s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		ns := f * float64(time.Second)
		if math.IsNaN(ns) || ns > float64(math.MaxInt64) || ns < float64(math.MinInt64) {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", s)
		}
		return time.Duration(ns), nil
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
}
