// Package remotewrite receives Prometheus remote write, versions 1.0 and 2.0. The wire format ends here: it is walked
// where it lies and never unmarshalled, and the labels of a series that was sent before cost a hash and a look-up.
//
// What of a request cannot be stored is answered with 400 and a reason, and the rest is stored: a sender must not
// repeat such a request. 429 and 5xx ask for a repetition, which is stored once.
package remotewrite

import (
	"errors"
	"fmt"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// The headers of version 2 that tell what was stored.
const (
	SamplesWritten    = "X-Prometheus-Remote-Write-Samples-Written"
	HistogramsWritten = "X-Prometheus-Remote-Write-Histograms-Written"
	ExemplarsWritten  = "X-Prometheus-Remote-Write-Exemplars-Written"
)

// Refused is a header of answers with 400: how many samples were not stored. Where it is missing nothing was.
const Refused = "Braid-Refused"

// maxPooled is the largest buffer that is kept for the next request.
const maxPooled = 8 << 20

// Config is what an operator can set.
type Config struct {
	MaxBody config.Size `yaml:"max_body" help:"The largest remote write request, compressed and decompressed."`
}

// DefaultConfig returns the limit that Prometheus has.
func DefaultConfig() Config { return Config{MaxBody: 32 << 20} }

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	if c.MaxBody <= 0 {
		e.Field("max_body", errors.New("must be positive"))
	}
	if c.MaxBody > math.MaxInt32/expansion {
		e.Field("max_body", fmt.Errorf("must be less than %s", config.Size(1<<31/expansion)))
	}
	return e.Err()
}

// Deps are what a server depends on.
type Deps struct {
	Pipeline *ingest.Pipeline
	Errors   httpapi.Errors // asked before ingest.Classify
	Now      func() time.Time
}

// Server answers remote write requests. It may be used concurrently.
type Server struct {
	config   Config
	pipeline *ingest.Pipeline
	errors   httpapi.Errors
	now      func() time.Time
	bodies   *httpapi.Bodies
	workers  sync.Pool // of *worker
}

// worker is what one request needs and the next can use.
type worker struct {
	compressed, body []byte
	decoder          decoder
}

// New returns a server. The configuration must be valid.
func New(c Config, d Deps) *Server {
	first := d.Errors.Classify
	d.Errors.Classify = func(err error) *httpapi.Error {
		if first != nil {
			if out := first(err); out != nil {
				return out
			}
		}
		return ingest.Classify(err)
	}
	return &Server{config: c, pipeline: d.Pipeline, errors: d.Errors, now: d.Now, bodies: httpapi.NewBodies(c.MaxBody.Bytes())}
}

// ImportPath is where requests are sent that are pieces of something larger, which ingest.SourceHeader numbers: what
// was acknowledged is not stored again, however late it is sent again. Apart from that it is remote write.
const ImportPath = "/api/v1/import"

// Routes returns the handlers by their patterns, /api/v1/write and ImportPath. They read the tenant from its header
// when no middleware did.
func (s *Server) Routes() map[string]http.Handler {
	numbered := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(ingest.SourceHeader) == "" {
			s.errors.Text(w, r, httpapi.Ingest, httpapi.BadDataf("header %s is missing: it numbers what is imported", ingest.SourceHeader))
			return
		}
		s.ServeHTTP(w, r)
	}
	return map[string]http.Handler{"/api/v1/write": s, ImportPath: http.HandlerFunc(numbered)}
}

// version is one of the protocol, 0 when it is not known.
type version uint8

// protocol is the name of the version in metrics.
func (v version) protocol() string {
	if v == 2 {
		return "remote_write_2"
	}
	return "remote_write_1"
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v, err := versionOf(r)
	out := outcome{}
	if err == nil {
		out, err = s.write(r, v)
	}
	if err == nil && out.rejected.Total()+len(out.rejected.Reasons) > 0 {
		err = partly(out.rejected)
		w.Header().Set(Refused, strconv.Itoa(out.rejected.Samples))
	}
	if v == 2 {
		h := w.Header()
		h.Set(SamplesWritten, strconv.Itoa(out.written.Samples))
		h.Set(HistogramsWritten, strconv.Itoa(out.written.Histograms))
		h.Set(ExemplarsWritten, strconv.Itoa(out.written.Exemplars))
	}
	code := http.StatusNoContent
	if err == nil {
		w.WriteHeader(code)
	} else {
		var e *httpapi.Error
		e, code = s.errors.Header(w, r, httpapi.Ingest, err)
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			code = http.StatusMethodNotAllowed
		}
		http.Error(w, strings.ToValidUTF8(e.Message, "\uFFFD"), code)
	}
	s.pipeline.Observe(v.protocol(), storage.Metrics, strconv.Itoa(code), out.size)
}

// partly is the answer to a request of which something could not be stored.
func partly(r storage.Rejected) error {
	text := strings.Join(r.Reasons, "; ")
	if r.Samples == 0 {
		return httpapi.BadDataf("not everything was stored: %s", text)
	}
	return httpapi.BadDataf("%d samples were not stored, the others were: %s", r.Samples, text)
}

// versionOf tells which version a request has from its headers.
func versionOf(r *http.Request) (version, error) {
	if r.Method != http.MethodPost {
		return 0, httpapi.Errorf(httpapi.BadData, "method %q is not allowed; use POST", r.Method)
	}
	v := version(1) // also of a request without a type
	if t := r.Header.Get("Content-Type"); t != "" {
		name, params, err := mime.ParseMediaType(t)
		if err != nil || name != "application/x-protobuf" {
			return 0, httpapi.Errorf(httpapi.UnsupportedMedia, "Content-Type %s is not supported; use application/x-protobuf", text([]byte(t)))
		}
		switch params["proto"] {
		case "", "prometheus.WriteRequest":
		case "io.prometheus.write.v2.Request":
			v = 2
		default:
			return 0, httpapi.Errorf(httpapi.UnsupportedMedia,
				"message %s is not supported; use prometheus.WriteRequest or io.prometheus.write.v2.Request", text([]byte(params["proto"])))
		}
	}
	if e := strings.Join(r.Header.Values("Content-Encoding"), ","); e != "" && !strings.EqualFold(e, "snappy") {
		return v, httpapi.Errorf(httpapi.UnsupportedMedia, "Content-Encoding %s is not supported; use snappy", text([]byte(e)))
	}
	return v, nil
}

// outcome is what became of a request.
type outcome struct {
	written  ingest.Written
	rejected storage.Rejected
	size     int // of the decompressed body
}

// write reads, decodes and stores a request.
func (s *Server) write(r *http.Request, v version) (outcome, error) {
	tenant := httpapi.TenantFrom(r.Context())
	if tenant == "" {
		var err error
		if tenant, err = httpapi.ParseTenant(r.Header.Values(httpapi.TenantHeader), httpapi.Ingest); err != nil {
			return outcome{}, err
		}
	}
	source, err := ingest.ParseSource(r.Header.Values(ingest.SourceHeader))
	if err != nil {
		return outcome{}, err
	}
	w, _ := s.workers.Get().(*worker)
	if w == nil {
		w = &worker{decoder: decoder{
			pipeline: s.pipeline, interner: s.pipeline.Labels(), refused: make(map[string]int), seen: make(map[described]struct{}),
		}}
	}
	defer s.release(w)
	key, err := s.read(r, w, tenant, v)
	if err != nil {
		return outcome{}, err
	}
	out := outcome{size: len(w.body)}
	s.pipeline.Labels().Age(s.now())
	series, rejected, err := s.decode(w, v)
	if err != nil {
		return out, err
	}
	if err := r.Context().Err(); err != nil {
		return out, err
	}
	if len(series) == 0 {
		out.rejected = rejected
		return out, nil
	}
	batches := []telemetry.Batch{{Series: series, Source: source}}
	out.written, out.rejected, err = s.pipeline.WriteSeries(r.Context(), tenant, key, batches, rejected)
	return out, err
}

// read fills the worker's buffers with the body and returns the key of the request.
func (s *Server) read(r *http.Request, w *worker, tenant telemetry.Tenant, v version) (storage.Key, error) {
	plain := r.WithContext(r.Context())
	plain.Header = nil // its encoding is part of the protocol
	body, err := s.bodies.Read(plain, w.compressed[:0])
	if err != nil {
		return storage.Key{}, err
	}
	w.compressed = body
	if w.body, err = s.bodies.Snappy(body, w.body[:0]); err != nil {
		return storage.Key{}, err
	}
	return ingest.KeyOf(tenant, "prometheus/write/"+strconv.Itoa(int(v)), body), nil
}

// decode turns the body into series.
func (s *Server) decode(w *worker, v version) ([]telemetry.Series, storage.Rejected, error) {
	d := &w.decoder
	d.begin(int(s.config.MaxBody))
	decode := d.version1
	if v == 2 {
		decode = d.version2
	}
	err := decode(w.body)
	s.pipeline.Labels().Count(d.hits, d.misses)
	if errors.Is(err, errWire) {
		return nil, storage.Rejected{}, httpapi.BadDataf("%w", err)
	}
	if err != nil {
		return nil, storage.Rejected{}, err
	}
	for reason, n := range d.refused {
		s.pipeline.Refuse(storage.Metrics, reason, n)
	}
	return d.series, d.rejected, nil
}

// release keeps what the next request can use.
func (s *Server) release(w *worker) {
	w.decoder.end()
	if cap(w.compressed) > maxPooled {
		w.compressed = nil
	}
	if cap(w.body) > maxPooled {
		w.body = nil
	}
	s.workers.Put(w)
}
