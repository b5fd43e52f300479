// Package jsonlines receives logs as JSON, one object a line: what is left when a sender knows no protocol. Path and
// parameters are those of VictoriaLogs, so that what is set up for it works.
package jsonlines

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/document"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Path is the route.
const Path = "/insert/jsonline"

// protocol is what metrics call it.
const protocol = "jsonlines"

// reasonLine is the reason for which lines are refused here.
const reasonLine = "malformed_document"

// Server answers requests. It may be used concurrently.
type Server struct{ rc *ingest.Receiver }

// New returns a server.
func New(rc *ingest.Receiver) *Server { return &Server{rc: rc} }

// Routes returns the handlers by their patterns.
func (s *Server) Routes() map[string]http.Handler { return map[string]http.Handler{Path: s} }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.rc.Serve(w, r, protocol, storage.Logs, http.StatusNoContent, s.insert)
}

// names returns the fields that a request names, by parameters or, like VictoriaLogs, by headers.
func names(r *http.Request) document.Names {
	q := r.URL.Query()
	list := func(param, header string) (out []string) {
		value := q.Get(param)
		if value == "" {
			value = r.Header.Get(header)
		}
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.TrimSpace(name); name != "" {
				out = append(out, name)
			}
		}
		return out
	}
	n := document.Names{Time: list("_time_field", "VL-Time-Field"), Message: list("_msg_field", "VL-Msg-Field"), Stream: list("_stream_fields", "VL-Stream-Fields")}
	n.Time = append(n.Time, "_time")
	n.Message = append(n.Message, "_msg")
	return n
}

// insert reads and stores a request, and returns the size of its decompressed body.
func (s *Server) insert(r *http.Request) (size int, err error) {
	tenant, err := s.rc.Tenant(r)
	if err != nil {
		return 0, err
	}
	err = s.rc.Read(r, false, func(body []byte) error {
		size = len(body)
		docs := document.NewReader(names(r), s.rc.Now())
		room := s.rc.NewRoom()
		if err := room.Take(0, len(body)); err != nil {
			return err
		}
		var rejected storage.Rejected
		lines, bad := 0, 0
		for rest := body; len(rest) > 0; {
			var line []byte
			line, rest, _ = bytes.Cut(rest, []byte("\n"))
			lines++
			if line = bytes.TrimSpace(line); len(line) == 0 {
				continue
			}
			if err := room.Take(1, 4*len(line)); err != nil {
				return err
			}
			if !docs.Read(line) {
				bad++
				rejected.Reason("line %d is not a JSON object", lines)
				continue
			}
			rec := docs.Record()
			docs.Add(docs.Labels(""), rec)
		}
		if bad > 0 {
			s.rc.Pipeline.Refuse(storage.Logs, reasonLine, bad)
			rejected.Logs = bad
		}
		batches, timeless := docs.Batches()
		var key storage.Key
		if !timeless {
			key = ingest.KeyOf(tenant, "jsonlines?"+r.URL.RawQuery, body)
		}
		return s.store(r, tenant, key, batches, rejected)
	})
	return size, err
}

func (s *Server) store(r *http.Request, tenant telemetry.Tenant, key storage.Key, batches []telemetry.Batch, rejected storage.Rejected) error {
	rejected, err := s.rc.Pipeline.Write(r.Context(), tenant, key, batches, rejected)
	if err != nil {
		return err
	}
	if rejected.Total()+len(rejected.Reasons) > 0 {
		return httpapi.BadDataf("%d lines were not stored, the others were: %s", rejected.Logs, strings.Join(rejected.Reasons, "; "))
	}
	return nil
}
