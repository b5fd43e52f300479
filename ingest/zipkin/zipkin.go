// Package zipkin receives spans in the formats of Zipkin's API v2, JSON and protobuf, at Zipkin's path.
package zipkin

import (
	"mime"
	"net/http"
	"strings"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Path is the route.
const Path = "/api/v2/spans"

// protocol is what metrics call it.
const protocol = "zipkin"

// reasonSpan is the reason for which spans are refused here.
const reasonSpan = "invalid_id"

// Server answers requests. It may be used concurrently.
type Server struct{ rc *ingest.Receiver }

// New returns a server.
func New(rc *ingest.Receiver) *Server { return &Server{rc: rc} }

// Routes returns the handlers by their patterns.
func (s *Server) Routes() map[string]http.Handler { return map[string]http.Handler{Path: s} }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.rc.Serve(w, r, protocol, storage.Traces, http.StatusAccepted, s.post)
}

// post reads and stores a request, and returns the size of its decompressed body.
func (s *Server) post(r *http.Request) (size int, err error) {
	tenant, err := s.rc.Tenant(r)
	if err != nil {
		return 0, err
	}
	err = s.rc.Read(r, false, func(body []byte) error {
		size = len(body)
		d := &decoder{room: s.rc.NewRoom(), now: s.rc.Now(), batches: make(map[telemetry.ResourceID]int)}
		if err := d.room.Take(0, len(body)); err != nil {
			return err
		}
		if isProtobuf(r) {
			err = d.protobuf(string(body))
		} else {
			err = d.json(body)
		}
		if err != nil {
			return err
		}
		if d.rejected.Spans > 0 {
			s.rc.Pipeline.Refuse(storage.Traces, reasonSpan, d.rejected.Spans)
		}
		var key storage.Key
		if !d.timeless {
			key = ingest.KeyOf(tenant, protocol, body)
		}
		return s.store(r, tenant, key, d)
	})
	return size, err
}

func isProtobuf(r *http.Request) bool {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && (t == "application/x-protobuf" || t == "application/protobuf")
}

// store writes what was decoded. What was stored stays stored when some spans were not, as with all ways in.
func (s *Server) store(r *http.Request, tenant telemetry.Tenant, key storage.Key, d *decoder) error {
	rejected, err := s.rc.Pipeline.Write(r.Context(), tenant, key, d.list, d.rejected)
	if err != nil {
		return err
	}
	if rejected.Total()+len(rejected.Reasons) > 0 {
		return httpapi.BadDataf("%d spans were not stored, the others were: %s", rejected.Spans, strings.Join(rejected.Reasons, "; "))
	}
	return nil
}
