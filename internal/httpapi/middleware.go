package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Middleware wraps a handler.
type Middleware func(http.Handler) http.Handler

// Chain wraps h: the first middleware sees a request first.
func Chain(h http.Handler, mw ...Middleware) http.Handler {
	for _, m := range slices.Backward(mw) {
		h = m(h)
	}
	return h
}

// Router is an http.ServeMux that wraps the handler of every route, so that middleware knows the route: it is
// the Pattern of the request. Routes are added before it serves.
type Router struct {
	mux http.ServeMux
	mw  []Middleware
}

// NewRouter returns a router that wraps every handler in mw.
func NewRouter(mw ...Middleware) *Router { return &Router{mw: mw} }

// Handle adds a route in the syntax of http.ServeMux. Extra middleware stands inside that of the router.
func (rt *Router) Handle(pattern string, h http.Handler, extra ...Middleware) {
	rt.mux.Handle(pattern, Chain(Chain(h, extra...), rt.mw...))
}

// HandleFunc is Handle of a function.
func (rt *Router) HandleFunc(pattern string, h http.HandlerFunc, extra ...Middleware) {
	rt.Handle(pattern, h, extra...)
}

// ServeHTTP answers a request by the handler of its route.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) { rt.mux.ServeHTTP(w, r) }

// Metrics are the metrics of requests. A registry takes them once; the surfaces of a process share them.
type Metrics struct {
	now      func() time.Time
	duration *prometheus.HistogramVec
	grpc     *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	panics   prometheus.Counter
}

// NewMetrics registers the metrics of requests, timed by now.
func NewMetrics(reg prometheus.Registerer, now func() time.Time) *Metrics {
	f := promauto.With(reg)
	buckets := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	return &Metrics{
		now: now,
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "braid_httpapi_request_duration_seconds", Help: "How long HTTP requests took, by route.", Buckets: buckets,
		}, []string{"route", "method", "code"}),
		grpc: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "braid_httpapi_grpc_duration_seconds", Help: "How long gRPC calls took, by method.", Buckets: buckets,
		}, []string{"method", "code"}),
		inFlight: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "braid_httpapi_in_flight_requests", Help: "Requests that are being answered.",
		}, []string{"protocol"}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "braid_httpapi_panics_total", Help: "Handlers that panicked. Each is a bug.",
		}),
	}
}

// Requests measures requests: how long, by route, method and status.
func (m *Metrics) Requests() Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			g := m.inFlight.WithLabelValues("http")
			g.Inc()
			start := m.now()
			rec := &recorder{ResponseWriter: w}
			defer func() {
				g.Dec()
				m.duration.WithLabelValues(route(r), method(r), strconv.Itoa(rec.status())).
					Observe(m.now().Sub(start).Seconds())
			}()
			next.ServeHTTP(rec, r)
		})
	}
}

// Recover answers 500 when a handler panics, and logs the panic with its stack. An answer that had begun is cut
// off. It belongs inside Requests.
func (m *Metrics) Recover(s Surface, errs Errors) Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := &recorder{ResponseWriter: w}
			p := m.catch(func() { next.ServeHTTP(rec, r) })
			switch {
			case p == nil:
			case errors.Is(p, http.ErrAbortHandler):
				panic(http.ErrAbortHandler)
			case rec.code != 0:
				_ = errs.From(r.Context(), p) // logs it
				panic(http.ErrAbortHandler)
			default:
				errs.Text(w, r, s, p)
			}
		})
	}
}

// catch calls f and returns its panic, counted and with its stack, as an error.
func (m *Metrics) catch(f func()) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			err = http.ErrAbortHandler
		default:
			m.panics.Inc()
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	f()
	return nil
}

// LimitConcurrency refuses requests, as Overloaded, while n others are being answered.
func LimitConcurrency(n int, s Surface, errs Errors) Middleware {
	slots := make(chan struct{}, n)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				next.ServeHTTP(w, r)
			default:
				errs.Text(w, r, s, NewOverloaded(0, fmt.Sprintf("%d requests are being answered already", n)))
			}
		})
	}
}

// LimitBody makes reading more than n bytes of a body fail with an error that is TooLarge. Bytes are counted as
// they come, before they are decompressed.
func LimitBody(n int64) Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, n)
			next.ServeHTTP(w, r)
		})
	}
}

// recorder notes the status of an answer.
type recorder struct {
	http.ResponseWriter
	code int // 0 until the header is written
}

// WriteHeader notes the code.
func (r *recorder) WriteHeader(code int) {
	if r.code == 0 && code >= 200 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write notes that the header is written.
func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Flush sends what is buffered, when the connection can.
func (r *recorder) Flush() {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	_ = http.NewResponseController(r.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) status() int {
	if r.code == 0 {
		return http.StatusOK
	}
	return r.code
}

// route returns the route that a request was matched by, as a label.
func route(r *http.Request) string {
	if r.Pattern == "" {
		return "other"
	}
	return r.Pattern
}

// method returns the method as a label: a client can send any word.
func method(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch:
		return r.Method
	default:
		return "OTHER"
	}
}
