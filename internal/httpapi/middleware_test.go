package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/selfobs"
	"github.com/braidobs/braid/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fixed() time.Time { return time.Unix(1000, 0) }

func TestParseTenant(t *testing.T) {
	long := strings.Repeat("a", 65)
	tests := []struct {
		in      []string
		surface httpapi.Surface
		want    telemetry.Tenant
		err     string
	}{
		{nil, httpapi.Ingest, "default", ""},
		{[]string{""}, httpapi.Ingest, "default", ""},
		{[]string{"acme-1_X"}, httpapi.Ingest, "acme-1_X", ""},
		{[]string{"a", "a"}, httpapi.Query, "a", ""},
		{[]string{"a", "b"}, httpapi.Query, "", "more than once"},
		{[]string{"a|b"}, httpapi.Query, "", "several tenants"},
		{[]string{"a b"}, httpapi.Query, "", "1 to 64"},
		{[]string{"../x"}, httpapi.Query, "", "1 to 64"},
		{[]string{long}, httpapi.Query, "", "1 to 64"},
		{[]string{long[:64]}, httpapi.Query, telemetry.Tenant(long[:64]), ""},
		{[]string{"_self"}, httpapi.Query, "_self", ""},
		{[]string{"_self"}, httpapi.Ingest, "", "not written"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.in, tt.surface), func(t *testing.T) {
			got, err := httpapi.ParseTenant(tt.in, tt.surface)
			require.Equal(t, tt.want, got)
			if tt.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.err)
			require.Equal(t, httpapi.BadData, httpapi.FromError(err).Kind)
		})
	}
}

func TestTenantMiddleware(t *testing.T) {
	h := httpapi.Tenant(httpapi.Ingest, httpapi.Errors{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, string(httpapi.TenantFrom(r.Context())))
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, "default", w.Body.String())
	r.Header.Set("X-Scope-OrgID", "_self")
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, 400, w.Code)
	require.Empty(t, httpapi.TenantFrom(t.Context()))
}

func TestRouterAndMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	var log bytes.Buffer
	errs := httpapi.Errors{Log: slog.New(slog.NewTextHandler(&log, nil))}
	m := httpapi.NewMetrics(reg, fixed)
	rt := httpapi.NewRouter(m.Requests(), m.Recover(httpapi.Query, errs), httpapi.Tenant(httpapi.Query, errs))
	rt.HandleFunc("GET /items/{id}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.PathValue("id"))
		httpapi.WriteJSON(w, 500, "ignored: the header is written")
	})
	rt.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("oh no") })
	rt.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "begun")
		w.(http.Flusher).Flush()
		panic(errors.New("late"))
	})
	rt.HandleFunc("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	rt.Handle("/extra", http.NotFoundHandler(), httpapi.LimitBody(1))

	get := func(method, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		rt.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w
	}
	require.Contains(t, get("GET", "/items/7").Body.String(), "7")
	w := get("BREW", "/panic")
	require.Equal(t, 500, w.Code)
	require.NotContains(t, w.Body.String(), "oh no")
	require.Contains(t, log.String(), "oh no")
	require.Contains(t, log.String(), "middleware_test.go") // the stack
	require.PanicsWithError(t, http.ErrAbortHandler.Error(), func() { get("GET", "/late") })
	require.PanicsWithError(t, http.ErrAbortHandler.Error(), func() { get("GET", "/abort") })
	require.Equal(t, 404, get("GET", "/extra").Code)

	var labels []string
	mfs, err := reg.Gather()
	require.NoError(t, err)
	for _, mf := range mfs {
		if mf.GetName() != "braid_httpapi_request_duration_seconds" {
			continue
		}
		for _, m := range mf.GetMetric() {
			var s []string
			for _, l := range m.GetLabel() {
				s = append(s, l.GetValue())
			}
			labels = append(labels, strings.Join(s, " "))
		}
	}
	require.ElementsMatch(t, []string{
		"200 GET GET /items/{id}", "500 OTHER /panic", "200 GET /late", "200 GET /abort", "404 GET /extra",
	}, labels)
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP braid_httpapi_in_flight_requests Requests that are being answered.
# TYPE braid_httpapi_in_flight_requests gauge
braid_httpapi_in_flight_requests{protocol="http"} 0
# HELP braid_httpapi_panics_total Handlers that panicked. Each is a bug.
# TYPE braid_httpapi_panics_total counter
braid_httpapi_panics_total 2
`), "braid_httpapi_in_flight_requests", "braid_httpapi_panics_total"))
}

func TestLimitConcurrency(t *testing.T) {
	enter, leave := make(chan struct{}), make(chan struct{})
	h := httpapi.LimitConcurrency(1, httpapi.Ingest, httpapi.Errors{})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		enter <- struct{}{}
		<-leave
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	}()
	<-enter
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	require.Equal(t, 503, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	close(leave)
	<-done
}

func TestLimitBody(t *testing.T) {
	h := httpapi.LimitBody(4)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			httpapi.Errors{}.Text(w, r, httpapi.Ingest, err)
		}
	}))
	for body, code := range map[string]int{"1234": 200, "12345": 413} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
		require.Equal(t, code, w.Code)
	}
}

func TestCompression(t *testing.T) {
	large := strings.Repeat(`{"a":"b"}`, 1000)
	tests := []struct {
		name     string
		accept   string
		handler  http.HandlerFunc
		code     int
		want     string
		encoding string
	}{
		{"large JSON", "gzip", write("application/json", 200, large), 200, large, "gzip"},
		{"in pieces", "br, gzip;q=0.5", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			w.Header().Set("Content-Length", "9000")
			w.WriteHeader(http.StatusTeapot)
			for i := 0; i < len(large); i += 900 {
				_, _ = io.WriteString(w, large[i:i+900])
			}
		}, 418, large, "gzip"},
		{"any", "*", write("text/plain", 200, large), 200, large, "gzip"},
		{"detected", "gzip", write("", 200, large), 200, large, "gzip"},
		{"small", "gzip", write("application/json", 201, "{}"), 201, "{}", ""},
		{"not accepted", "", write("application/json", 200, large), 200, large, ""},
		{"refused", "*, gzip;q=0", write("application/json", 200, large), 200, large, ""},
		{"refused by zero", "gzip; q=0.0", write("application/json", 200, large), 200, large, ""},
		{"image", "gzip", write("image/png", 200, large), 200, large, ""},
		{"part", "gzip", write("text/plain", 206, large), 206, large, ""},
		{"encoded already", "gzip", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "x")
			write("text/plain", 200, large)(w, r)
		}, 200, large, "x"},
		{"only a status", "gzip", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, 204, "", ""},
		{"nothing", "gzip", func(http.ResponseWriter, *http.Request) {}, 200, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(httpapi.Compression()(tt.handler))
			defer srv.Close()
			for range 2 { // the second time with a writer from the pool
				resp := get(t, srv, tt.accept)
				defer resp.Body.Close()
				require.Equal(t, tt.code, resp.StatusCode)
				require.Equal(t, tt.encoding, resp.Header.Get("Content-Encoding"))
				require.Equal(t, "Accept-Encoding", resp.Header.Get("Vary"))
				body := io.Reader(resp.Body)
				if tt.encoding == "gzip" {
					z, err := gzip.NewReader(body)
					require.NoError(t, err)
					body = z
				}
				b, err := io.ReadAll(body)
				require.NoError(t, err)
				require.Equal(t, tt.want, string(b))
			}
		})
	}
}

func TestCompressionFlush(t *testing.T) {
	next := make(chan struct{})
	srv := httptest.NewServer(httpapi.Compression()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "line %d\n", i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			select {
			case <-next:
			case <-r.Context().Done():
			}
		}
	})))
	defer srv.Close()
	resp := get(t, srv, "gzip")
	defer resp.Body.Close()
	z, err := gzip.NewReader(resp.Body)
	require.NoError(t, err)
	buf := make([]byte, 7)
	for i := range 3 {
		_, err := io.ReadFull(z, buf) // arrives before the handler goes on
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("line %d\n", i), string(buf))
		next <- struct{}{}
	}
}

func TestCompressionPanic(t *testing.T) {
	srv := httptest.NewServer(httpapi.Compression()(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte("abc"), 10_000))
		panic(http.ErrAbortHandler)
	})))
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
	require.NoError(t, err)
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := srv.Client().Do(req)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	require.Error(t, err, "an answer that was cut off looks whole")
}

func write(contentType string, code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

func get(t *testing.T, srv *httptest.Server, accept string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
	require.NoError(t, err)
	req.Header.Set("Accept-Encoding", accept) // set, so that the transport does not decompress
	if accept == "" {
		req.Header.Set("Accept-Encoding", "identity")
	}
	resp, err := srv.Client().Do(req)
	require.NoError(t, err)
	return resp
}

func TestTrace(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	rec := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec))
	var suppressed bool
	var inner trace.SpanContext
	rt := httpapi.NewRouter(httpapi.Trace(tp))
	rt.HandleFunc("GET /x/{id}", func(w http.ResponseWriter, r *http.Request) {
		suppressed, inner = selfobs.Suppressed(r.Context()), trace.SpanContextFromContext(r.Context())
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	call := func(change func(r *http.Request)) {
		r := httptest.NewRequest(http.MethodGet, "/x/1", nil)
		change(r)
		rt.ServeHTTP(httptest.NewRecorder(), r)
	}
	call(func(r *http.Request) { r.Header.Set("traceparent", parent) })
	require.Len(t, rec.Ended(), 1)
	s := rec.Ended()[0]
	require.Equal(t, "GET /x/{id}", s.Name())
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", s.SpanContext().TraceID().String())
	require.Equal(t, "b7ad6b7169203331", s.Parent().SpanID().String())
	require.Equal(t, inner.SpanID(), s.SpanContext().SpanID())
	require.Equal(t, trace.SpanKindServer, s.SpanKind())
	require.Equal(t, "Service Unavailable", s.Status().Description)
	require.False(t, suppressed)

	call(func(r *http.Request) { r.Header.Set("X-Scope-OrgID", "_self") })
	require.True(t, suppressed)
	call(func(r *http.Request) { *r = *r.WithContext(selfobs.Suppress(r.Context())) })
	require.True(t, suppressed)
	require.Len(t, rec.Ended(), 1)
}

func TestServer(t *testing.T) {
	inFlight, finish := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/proto", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		close(inFlight)
		<-finish
		_, _ = io.WriteString(w, "done")
	})
	srv := httpapi.NewServer(httpapi.ServerOptions{Addr: "127.0.0.1:0", Handler: mux})
	require.Empty(t, srv.Addr())
	require.NoError(t, srv.Close())
	require.NoError(t, srv.Listen(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx) }()

	for _, h2 := range []bool{false, true} {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(!h2)
		tr.Protocols.SetUnencryptedHTTP2(h2)
		require.Equal(t, map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2], fetch(t, tr, srv.Addr()+"/proto"))
		tr.CloseIdleConnections()
	}

	slow := make(chan string, 1)
	tr := &http.Transport{}
	go func() { slow <- fetch(t, tr, srv.Addr()+"/slow") }()
	<-inFlight
	cancel()
	close(finish)
	require.Equal(t, "done", <-slow)
	require.NoError(t, <-served)
	tr.CloseIdleConnections()
	require.NoError(t, srv.Close())
}

func TestServerCutsOff(t *testing.T) {
	inFlight := make(chan struct{})
	srv := httpapi.NewServer(httpapi.ServerOptions{
		Addr: "127.0.0.1:0", Drain: 10 * time.Millisecond,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1") // never sent, so that no answer of the handler counts as whole
			close(inFlight)
			<-r.Context().Done()
		}),
	})
	part := srv.Part("http")
	require.NoError(t, part.Start(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- part.Run(ctx) }()
	tr := &http.Transport{}
	failed := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+srv.Addr(), nil)
		if err == nil {
			var resp *http.Response
			if resp, err = tr.RoundTrip(req); err == nil {
				_, err = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
			}
		}
		failed <- err
	}()
	<-inFlight
	cancel()
	require.NoError(t, <-served)
	require.Error(t, <-failed)
	tr.CloseIdleConnections()
	require.NoError(t, part.Stop(t.Context()))
}

func TestServerAddressTaken(t *testing.T) {
	a := httpapi.NewServer(httpapi.ServerOptions{Addr: "127.0.0.1:0"})
	require.NoError(t, a.Listen(t.Context()))
	b := httpapi.NewServer(httpapi.ServerOptions{Addr: config.Addr(a.Addr())})
	require.ErrorContains(t, b.Listen(t.Context()), a.Addr())
	require.NoError(t, a.Close())
}

func fetch(t *testing.T, tr *http.Transport, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+url, nil)
	if err != nil {
		return err.Error()
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
