// Package tempo serves the API of Tempo for reading traces, over HTTP and gRPC: a trace by its ID, searches and numbers in
// TraceQL, and which attributes there are.
//
//	api := tempo.New(tempo.Deps{Config: tempo.DefaultConfig(), Reader: db, Observer: obs, Errors: errs, Now: time.Now})
//	api.Register(router)  // an httpapi.Router with httpapi.Tenant among its middleware
//	api.RegisterGRPC(rpc) // a grpc.Server with httpapi.RawCodec
//
// It reads the tenant from the request's context. Errors are plain text.
package tempo

import (
	"context"
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
	"github.com/braidobs/braid/query/traceql"
	"github.com/braidobs/braid/storage"
)

const (
	// around is how far from a hint of when a trace was its spans are looked for.
	around = int64(time.Hour)
	// timeout is how long a query may take.
	timeout = 2 * time.Minute
)

// Config is what an operator can set.
type Config struct {
	MaxTraces int `yaml:"max_traces" help:"How many traces one search may return."`
	MaxSpans  int `yaml:"max_spans" help:"How many spans a trace may have to be returned whole."`
	// SpanMetrics is for whoever assembles the process: see package spanmetrics.
	SpanMetrics bool `yaml:"span_metrics" help:"Whether the metrics of spans, which any query can have computed, are written as series, too."`
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
	for _, r := range []struct {
		path     string
		language query.Language
		f        func(c *call) (answer, error)
	}{
		{"/api/traces/{id}", query.Trace, a.traceV1},
		{"/api/v2/traces/{id}", query.Trace, a.traceV2},
		{"/api/search", query.TraceQL, a.search},
		{"/api/metrics/query_range", query.TraceQL, a.queryRange},
		{"/api/metrics/query", query.TraceQL, a.queryInstant},
		{"/api/search/tags", query.Labels, a.tagsV1},
		{"/api/v2/search/tags", query.Labels, a.tagsV2},
		{"/api/search/tag/{tag}/values", query.Labels, a.valuesV1},
		{"/api/v2/search/tag/{tag}/values", query.Labels, a.valuesV2},
	} {
		rt.Handle("GET "+r.path, a.serve(r.language, r.f))
	}
}

// call is one request.
type call struct {
	ctx    context.Context //nolint:containedctx // of the request, which the call is
	view   storage.View
	tenant telemetry.Tenant
	params params
	r      *http.Request // nil over gRPC
}

// answer is the body of a response.
type answer struct {
	contentType string
	body        []byte
	page        *page // of answers that may be a part of what there is
}

// page says where the next page begins; "" is for the last one. It is told in headers: clients of Tempo refuse fields that they
// do not know.
type page struct{ cursor string }

// The headers of pages.
const (
	headerComplete = "Braid-Complete"
	headerCursor   = "Braid-Cursor"
)

const (
	typeJSON  = "application/json"
	typeProto = "application/protobuf"
)

func (a *API) serve(l query.Language, f func(c *call) (answer, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var ans answer
		err := a.query(r.Context(), l, r.URL.RequestURI(), func(c *call) (err error) {
			values, err := url.ParseQuery(r.URL.RawQuery)
			if err != nil {
				return httpapi.BadDataf("malformed parameters: %w", err)
			}
			c.params, c.r = params(values), r
			ans, err = f(c)
			return err
		})
		if err != nil {
			a.errors.Text(w, r, httpapi.Query, err)
			return
		}
		w.Header().Set("Content-Type", ans.contentType)
		if p := ans.page; p != nil {
			w.Header().Set(headerComplete, strconv.FormatBool(p.cursor == ""))
			if p.cursor != "" {
				w.Header().Set(headerCursor, p.cursor)
			}
		}
		_, _ = w.Write(ans.body) // the client may be gone
	})
}

// query calls f with a view of the store, for a query that is counted and timed and may not take too long.
func (a *API) query(ctx context.Context, l query.Language, text string, f func(c *call) error) (err error) {
	tenant := httpapi.TenantFrom(ctx)
	done := a.Observer.Start(ctx, l, tenant, text)
	defer func() { done(err) }()
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	v, err := a.Reader.View(limited, 0)
	if err == nil {
		defer func() { _ = v.Close() }()
		err = f(&call{ctx: limited, view: v, tenant: tenant})
	}
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return httpapi.Errorf(httpapi.Timeout, "the query took longer than %s, which is the limit: narrow its time range", timeout)
	}
	return err
}

// engine returns what evaluates TraceQL.
func (a *API) engine() *traceql.Engine { return &traceql.Engine{Limits: traceql.DefaultLimits()} }

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

// time returns a time in nanoseconds, or absent. It is given in Unix seconds, in nanoseconds when the number is too large for
// that, or as RFC 3339.
func (p params) time(name string, absent int64) (int64, error) {
	s := p.get(name)
	if s == "" {
		return absent, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		if n > math.MaxInt64/int64(time.Second) {
			return n, nil
		}
		return n * int64(time.Second), nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0 && f < math.MaxInt64/1e9 {
		return int64(f * 1e9), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UnixNano(), nil
	}
	return 0, httpapi.BadDataf("invalid %s %q: want Unix seconds", name, s)
}

// timeRange returns start and end in nanoseconds, each of them the end of time when it is absent or zero.
func (p params) timeRange() (start, end int64, err error) {
	if start, err = p.time("start", 0); err != nil {
		return 0, 0, err
	}
	if end, err = p.time("end", 0); err != nil {
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

// wantsProto says whether the client asks for protobuf.
func wantsProto(r *http.Request) bool {
	return slices.ContainsFunc(r.Header.Values("Accept"), func(s string) bool { return strings.Contains(s, typeProto) })
}
