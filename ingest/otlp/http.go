package otlp

import (
	"mime"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/storage"
)

// maxPooled is the largest buffer that is kept for the next request.
const maxPooled = 4 << 20

const (
	typeProtobuf = "application/x-protobuf"
	typeJSON     = "application/json"
)

// Routes returns the handlers of OTLP/HTTP by their patterns: /v1/traces, /v1/metrics and /v1/logs. They read the
// tenant from its header when no middleware did, and answer every method, others than POST with 405.
func (s *Server) Routes() map[string]http.Handler {
	return map[string]http.Handler{
		"/v1/traces":  s.Handler(storage.Traces),
		"/v1/metrics": s.Handler(storage.Metrics),
		"/v1/logs":    s.Handler(storage.Logs),
	}
}

// Aliases returns the same handlers at the paths where Prometheus and Loki have them: /api/v1/otlp/v1/metrics and
// /otlp/v1/logs.
func (s *Server) Aliases() map[string]http.Handler {
	return map[string]http.Handler{
		"/api/v1/otlp/v1/metrics": s.Handler(storage.Metrics),
		"/otlp/v1/logs":           s.Handler(storage.Logs),
	}
}

// Handler returns the handler of one signal.
func (s *Server) Handler(signal storage.Signal) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, size := s.serve(w, r, signal)
		s.pipeline.Observe("http", signal, strconv.Itoa(code), size)
	})
}

// serve answers one request and returns the code of the answer and the size of the decompressed body.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, signal storage.Signal) (code, size int) {
	enc, known := formOf(r.Header.Get("Content-Type"))
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return writeStatus(w, enc, http.StatusMethodNotAllowed, &spb.Status{
			Code: int32(codes.Unimplemented), Message: "method " + printable(r.Method) + " is not allowed; use POST",
		}), 0
	}
	if !known {
		return s.fail(w, r, enc, httpapi.Errorf(httpapi.UnsupportedMedia,
			"Content-Type %q is not supported; use application/x-protobuf or application/json", printable(r.Header.Get("Content-Type")))), 0
	}
	t, err := tenant(r.Context(), r.Header.Values(httpapi.TenantHeader))
	if err != nil {
		return s.fail(w, r, enc, err), 0
	}
	source, err := httpSource(r)
	if err != nil {
		return s.fail(w, r, enc, err), 0
	}
	buf, _ := s.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	body, err := s.bodies.Read(r, (*buf)[:0])
	if err != nil {
		s.buffers.Put(buf)
		return s.fail(w, r, enc, err), 0
	}
	rejected, err := s.export(r.Context(), incoming{signal: signal, tenant: t, peer: address(r.RemoteAddr), source: source, enc: enc, body: body})
	size = len(body)
	if *buf = body; cap(body) <= maxPooled {
		s.buffers.Put(buf)
	}
	if err != nil {
		return s.fail(w, r, enc, err), size
	}
	out, err := answer(signal, enc, rejected)
	if err != nil {
		return s.fail(w, r, enc, err), size
	}
	write(w, enc, http.StatusOK, out)
	return http.StatusOK, size
}

// address returns the address of a host and port, or the zero one.
func address(hostPort string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// formOf returns the encoding that a content type names. Errors about unknown ones are written as JSON.
func formOf(contentType string) (form, bool) {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		// A parameter that is malformed does not matter.
		t, _, _ = strings.Cut(contentType, ";")
		t = strings.ToLower(strings.TrimSpace(t))
	}
	switch t {
	case typeProtobuf, "application/protobuf":
		return protobuf, true
	case typeJSON:
		return jsonText, true
	default:
		return jsonText, false
	}
}

// fail answers with err as a google.rpc.Status.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, enc form, err error) int {
	e, code := s.errors.Header(w, r, httpapi.Ingest, err)
	st := &spb.Status{Code: int32(e.Kind.GRPCCode()), Message: e.Message}
	if e.RetryAfter > 0 {
		if d, err := anypb.New(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)}); err == nil {
			st.Details = append(st.Details, d)
		}
	}
	return writeStatus(w, enc, code, st)
}

func writeStatus(w http.ResponseWriter, enc form, code int, st *spb.Status) int {
	marshal := proto.Marshal
	if enc == jsonText {
		marshal = protojson.Marshal
	}
	st.Message = strings.ToValidUTF8(st.GetMessage(), "\uFFFD")
	b, err := marshal(st)
	if err != nil {
		b = nil // the code says enough
	}
	write(w, enc, code, b)
	return code
}

func write(w http.ResponseWriter, enc form, code int, body []byte) {
	t := typeProtobuf
	if enc == jsonText {
		t = typeJSON
	}
	w.Header().Set("Content-Type", t)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body) // a client that is gone is not an error
}
