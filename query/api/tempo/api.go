// Package tempo serves the HTTP API of Tempo for reading traces: a trace by its ID, the search by tags, and what
// Grafana's Tempo data source asks for besides. TraceQL is not understood yet.
//
//	api := tempo.New(tempo.Deps{Config: tempo.DefaultConfig(), Reader: db, Observer: obs, Errors: errs, Now: time.Now})
//	api.Register(router) // an httpapi.Router with httpapi.Tenant among its middleware
//
// It reads the tenant from the request's context. Errors are plain text.
package tempo

import (
	"errors"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/storage"
)

// around is how far from a hint, or from a span that was found, the other spans of its trace are looked for.
const around = int64(time.Hour)

// Config is what an operator can set.
type Config struct {
	MaxTraces int `yaml:"max_traces" help:"How many traces one search may return."`
	MaxSpans  int `yaml:"max_spans" help:"How many spans a trace may have to be returned whole."`
}

// DefaultConfig allows 1000 traces and 500,000 spans.
func DefaultConfig() Config { return Config{MaxTraces: 1000, MaxSpans: 500_000} }

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	if c.MaxTraces <= 0 {
		e.Field("max_traces", errors.New("must be positive"))
	}
	if c.MaxSpans <= 0 {
		e.Field("max_spans", errors.New("must be positive"))
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
	rt.HandleFunc("GET /api/echo", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("echo")) })
	rt.Handle("GET /api/traces/{id}", a.serve(query.Trace, a.traceV1))
	rt.Handle("GET /api/v2/traces/{id}", a.serve(query.Trace, a.traceV2))
	rt.Handle("GET /api/search", a.serve(query.Search, a.search))
	rt.Handle("GET /api/search/tags", a.serve(query.Labels, a.tags))
	rt.Handle("GET /api/search/tag/{tag}/values", a.serve(query.Labels, a.tagValues))
}

// answer is the body of a response.
type answer struct {
	contentType string
	body        []byte
}

const (
	typeJSON  = "application/json"
	typeProto = "application/protobuf"
)

func (a *API) serve(l query.Language, f func(r *http.Request, p params) (answer, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		done := a.Observer.Start(ctx, l, httpapi.TenantFrom(ctx), r.URL.RequestURI())
		values, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			err = httpapi.BadDataf("malformed parameters: %w", err)
		}
		var ans answer
		if err == nil {
			ans, err = f(r, params(values))
		}
		done(err)
		if err != nil {
			a.errors.Text(w, r, httpapi.Query, err)
			return
		}
		w.Header().Set("Content-Type", ans.contentType)
		_, _ = w.Write(ans.body) // the client may be gone
	})
}

// params are the parameters of a request. Mistakes name the parameter.
type params url.Values

func (p params) get(name string) string { return url.Values(p).Get(name) }

// number returns a whole number between lo and hi, or absent.
func (p params) number(name string, absent, lo, hi int) (int, error) {
	s := p.get(name)
	if s == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < lo || n > hi {
		return 0, httpapi.BadDataf("invalid %s %q: want a whole number from %d to %d", name, s, lo, hi)
	}
	return n, nil
}

// seconds returns a time in nanoseconds that is given in Unix seconds, or absent.
func (p params) seconds(name string, absent int64) (int64, error) {
	s := p.get(name)
	if s == "" {
		return absent, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/int64(time.Second) {
		return 0, httpapi.BadDataf("invalid %s %q: want Unix seconds", name, s)
	}
	return n * int64(time.Second), nil
}

// timeRange returns start and end in nanoseconds, each of them the end of time when it is absent or zero.
func (p params) timeRange() (start, end int64, err error) {
	if start, err = p.seconds("start", 0); err != nil {
		return 0, 0, err
	}
	if end, err = p.seconds("end", 0); err != nil {
		return 0, 0, err
	}
	if end == 0 {
		end = math.MaxInt64
	}
	if end < start {
		return 0, 0, httpapi.BadDataf("invalid end %q: it is before start %q", p.get("end"), p.get("start"))
	}
	return start, end, nil
}

// duration returns a length of time in nanoseconds, or absent.
func (p params) duration(name string, absent int64) (int64, error) {
	s := p.get(name)
	if s == "" {
		return absent, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, httpapi.BadDataf("invalid %s %q: want a duration such as 100ms or 1.5s", name, s)
	}
	return int64(d), nil
}

func before(t, d int64) int64 {
	if t < math.MinInt64+d {
		return math.MinInt64
	}
	return t - d
}

func after(t, d int64) int64 {
	if t > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + d
}

// tagRows is how many of the newest spans are looked at for tags.
const tagRows = 20_000

func (a *API) tags(r *http.Request, p params) (answer, error) {
	seen := make(map[string]bool)
	err := a.newest(r, p, func(b *storage.SpanBlock, i int) {
		for _, at := range b.Attrs[i] {
			seen[at.Key] = true
		}
		if res := b.ResourceOf(i); res != nil {
			for _, at := range res.Attrs {
				seen[at.Key] = true
			}
		}
	})
	for _, f := range intrinsics() {
		seen[f.name] = true
	}
	return list(`{"tagNames":[`, seen), err
}

func (a *API) tagValues(r *http.Request, p params) (answer, error) {
	tag := r.PathValue("tag")
	seen := make(map[string]bool)
	err := a.newest(r, p, func(b *storage.SpanBlock, i int) {
		if f, ok := intrinsic(tag); ok {
			s := b.Span(i)
			seen[f.text(&s)] = true
			return
		}
		if v, ok := b.Attrs[i].Get(tag); ok {
			seen[v.Text()] = true
		}
		if res := b.ResourceOf(i); res != nil {
			if v, ok := res.Attrs.Get(tag); ok {
				seen[v.Text()] = true
			}
		}
	})
	return list(`{"tagValues":[`, seen), err
}

// newest calls f for the newest spans.
func (a *API) newest(r *http.Request, p params, f func(*storage.SpanBlock, int)) error {
	start, end, err := p.timeRange()
	if err != nil {
		return err
	}
	ctx := r.Context()
	v, err := a.Reader.View(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }()
	for b, err := range v.Spans(ctx, storage.SpanQuery{
		Tenant: httpapi.TenantFrom(ctx), Start: start, End: end, Order: storage.NewestFirst, Limit: tagRows,
		Columns: storage.SpanAttrs | storage.SpanResource | storage.SpanNames,
	}) {
		if err != nil {
			return err
		}
		for i := range b.Len() {
			f(b, i)
		}
	}
	return nil
}

func list(head string, seen map[string]bool) answer {
	names := make([]string, 0, len(seen))
	for n := range seen {
		names = append(names, n)
	}
	slices.Sort(names)
	body := []byte(head)
	for i, n := range names {
		if i > 0 {
			body = append(body, ',')
		}
		body = telemetry.AppendJSONString(body, n)
	}
	return answer{typeJSON, append(body, "]}"...)}
}

// wantsProto says whether the client asks for protobuf.
func wantsProto(r *http.Request) bool {
	return slices.ContainsFunc(r.Header.Values("Accept"), func(s string) bool { return strings.Contains(s, typeProto) })
}
