// Package elastic receives logs as Elasticsearch does: the bulk API, and what shippers ask before they use it. The
// protocol ends here; a document becomes a log record.
//
// Shippers point at the root of the port, or at the path /elastic, where the questions are answered that have too common
// a path for the root.
package elastic

import (
	"net/http"
	"strings"

	"github.com/braidobs/braid/ingest"
)

// Prefix is the path below which everything is served.
const Prefix = "/elastic"

// version is what shippers are told to speak with.
const version = "8.17.0"

// protocol is what metrics call it.
const protocol = "elastic"

// Server answers bulk requests and handshakes. It may be used concurrently.
type Server struct{ rc *ingest.Receiver }

// New returns a server.
func New(rc *ingest.Receiver) *Server { return &Server{rc: rc} }

// Routes returns the handlers by their patterns: those of writes.
func (s *Server) Routes() map[string]http.Handler {
	bulk := answering(http.HandlerFunc(s.bulk))
	out := make(map[string]http.Handler)
	for _, at := range []string{"", Prefix} {
		out[at+"/_bulk"], out[at+"/{index}/_bulk"] = bulk, bulk
	}
	return out
}

// IsHandshake says whether a path is one of Handshake. The patterns of Routes and Handshake do not go into one
// http.ServeMux, where a template that is called _bulk could mean either.
func IsHandshake(path string) bool {
	below, under := strings.CutPrefix(path, Prefix)
	if under && (below == "" || below[0] == '/') {
		return !strings.HasSuffix(below, "/_bulk")
	}
	return strings.HasPrefix(path, "/_") && !strings.HasSuffix(path, "/_bulk")
}

// Handshake returns the handlers by their patterns of what shippers ask: it needs neither the store nor much time.
func (s *Server) Handshake() map[string]http.Handler {
	out := make(map[string]http.Handler)
	for _, at := range []string{"", Prefix} {
		for _, name := range []string{
			"_license", "_xpack", "_nodes", "_nodes/", "_cluster/health", "_cat/", "_ilm/", "_index_template/", "_component_template/",
			"_template/", "_ingest/", "_data_stream/",
		} {
			out[at+"/"+name] = answering(http.HandlerFunc(s.stub))
		}
	}
	out[Prefix] = s.Info()
	out[Prefix+"/{$}"] = s.Info()
	out[Prefix+"/{index}"] = answering(http.HandlerFunc(s.stub)) // whether an index is there
	return out
}

// Info returns the handler of what Elasticsearch says at its root.
func (s *Server) Info() http.Handler {
	return answering(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		write(w, http.StatusOK, `{"name":"braid","cluster_name":"braid","cluster_uuid":"braidbraidbraidbraid00","version":{"number":"`+version+
			`","build_flavor":"default","build_type":"docker","build_hash":"0000000000000000000000000000000000000000","build_date":"2024-12-01T00:00:00.000000000Z","build_snapshot":false,`+
			`"lucene_version":"9.12.0","minimum_wire_compatibility_version":"7.17.0","minimum_index_compatibility_version":"7.0.0"},"tagline":"You Know, for Search"}`)
	}))
}

// Asked says whether a request for the root of the port is of a client of Elasticsearch and not of a browser.
func Asked(r *http.Request) bool { return !strings.Contains(r.Header.Get("Accept"), "text/html") }

// answering adds the headers without which clients refuse to go on.
func answering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Elastic-Product", "Elasticsearch")
		h.Set("Content-Type", "application/json")
		if strings.Contains(r.Header.Get("Accept"), "vnd.elasticsearch") {
			h.Set("Content-Type", "application/vnd.elasticsearch+json;compatible-with=8")
		}
		next.ServeHTTP(w, r)
	})
}

func write(w http.ResponseWriter, code int, body string) {
	w.WriteHeader(code)
	_, _ = w.Write([]byte(body)) // a client that is gone is not an error
}

// stub answers questions about what Braid does not have, so that shippers go on: a policy or a template is always there,
// and one that is put is taken and forgotten.
func (s *Server) stub(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, Prefix), "/")
	group, name, _ := strings.Cut(path, "/")
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		name = name[i+1:]
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		write(w, http.StatusOK, `{"acknowledged":true}`)
		return
	}
	switch group {
	case "_license":
		write(w, http.StatusOK, `{"license":{"status":"active","uid":"00000000-0000-0000-0000-000000000000","type":"basic","issue_date_in_millis":0,"max_nodes":1000,"issued_to":"braid","issuer":"elasticsearch","start_date_in_millis":-1}}`)
	case "_xpack":
		write(w, http.StatusOK, `{"build":{"hash":"0","date":"2024-12-01T00:00:00.000000000Z"},"license":{"uid":"00000000-0000-0000-0000-000000000000","type":"basic","mode":"basic","status":"active"},"features":{"ilm":{"available":true,"enabled":true},"security":{"available":true,"enabled":false}},"tagline":"You know, for X"}`)
	case "_nodes":
		write(w, http.StatusOK, `{"_nodes":{"total":1,"successful":1,"failed":0},"cluster_name":"braid","nodes":{}}`)
	case "_cluster":
		write(w, http.StatusOK, `{"cluster_name":"braid","status":"green","timed_out":false,"number_of_nodes":1,"number_of_data_nodes":1,"active_primary_shards":1,"active_shards":1,"relocating_shards":0,"initializing_shards":0,"unassigned_shards":0}`)
	case "_cat":
		write(w, http.StatusOK, `[]`)
	case "_data_stream":
		write(w, http.StatusOK, `{"data_streams":[{"name":`+quote(name)+`,"timestamp_field":{"name":"@timestamp"},"indices":[],"generation":1,"status":"GREEN","template":"braid"}]}`)
	case "_index_template", "_component_template":
		list := strings.TrimPrefix(group, "_") + "s"
		write(w, http.StatusOK, `{`+quote(list)+`:[{"name":`+quote(name)+`,`+quote(strings.TrimPrefix(group, "_"))+`:{"index_patterns":[]}}]}`)
	case "_ilm":
		write(w, http.StatusOK, `{`+quote(name)+`:{"version":1,"policy":{"phases":{"hot":{"min_age":"0ms","actions":{}}}}}}`)
	default: // _template, _ingest/pipeline
		write(w, http.StatusOK, `{`+quote(name)+`:{"version":1,"processors":[],"index_patterns":[]}}`)
	}
}
