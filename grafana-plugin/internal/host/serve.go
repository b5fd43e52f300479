package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
)

// maxBody bounds what a page sends.
const maxBody = 4 << 20

// site is Grafana's HTTP API with one data source.
type site struct {
	host *Host
	mu   sync.Mutex // guards pc
	pc   backend.PluginContext
}

// Handler answers as Grafana does: queries, health, resources and settings of the data source in pc, with the plugin's
// front end from the folder dist and the page from the folder web.
func (h *Host) Handler(pc backend.PluginContext, dist, web string) http.Handler {
	s := &site{host: h, pc: pc}
	base := "/api/datasources/uid/" + pc.DataSourceInstanceSettings.UID
	front := "/public/plugins/" + pc.PluginID + "/"
	mux := http.NewServeMux()
	mux.Handle("GET "+front, http.StripPrefix(front, http.FileServer(http.Dir(dist))))
	mux.Handle("GET /", http.FileServer(http.Dir(web)))
	mux.HandleFunc("POST /api/ds/query", s.query)
	mux.HandleFunc("PUT "+base, s.save)
	mux.HandleFunc("GET "+base+"/health", s.health)
	mux.HandleFunc("GET "+base+"/resources/{path...}", s.resource)
	return mux
}

func (s *site) context() backend.PluginContext {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pc
}

// save takes the settings as Grafana does: a secret that is not named stays, and the plugin gets a new instance.
func (s *site) save(w http.ResponseWriter, r *http.Request) {
	var in struct {
		URL            string            `json:"url"`
		BasicAuth      bool              `json:"basicAuth"`
		BasicAuthUser  string            `json:"basicAuthUser"`
		JSONData       json.RawMessage   `json:"jsonData"`
		SecureJSONData map[string]string `json:"secureJsonData"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *s.pc.DataSourceInstanceSettings
	next.URL, next.BasicAuthEnabled, next.BasicAuthUser, next.JSONData = in.URL, in.BasicAuth, in.BasicAuthUser, in.JSONData
	next.DecryptedSecureJSONData = maps.Clone(next.DecryptedSecureJSONData)
	if next.DecryptedSecureJSONData == nil {
		next.DecryptedSecureJSONData = make(map[string]string)
	}
	maps.Copy(next.DecryptedSecureJSONData, in.SecureJSONData)
	next.Updated = next.Updated.Add(time.Second)
	s.pc.DataSourceInstanceSettings = &next
	write(w, http.StatusOK, map[string]string{"message": "Datasource updated"})
}

func (s *site) health(w http.ResponseWriter, r *http.Request) {
	a, err := s.host.CheckHealth(r.Context(), s.context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	code, status := http.StatusOK, "OK"
	if a.GetStatus() != pluginv2.CheckHealthResponse_OK {
		code, status = http.StatusBadRequest, "ERROR"
	}
	write(w, code, map[string]string{"status": status, "message": a.GetMessage()})
}

func (s *site) resource(w http.ResponseWriter, r *http.Request) {
	path := r.PathValue("path")
	a, err := s.host.Resource(r.Context(), &backend.CallResourceRequest{PluginContext: s.context(), Path: path, URL: path + "?" + r.URL.RawQuery, Method: r.Method})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for k, vs := range a.Headers {
		w.Header()[http.CanonicalHeaderKey(k)] = vs
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // the page may be gone
}

// query answers 200, 400 when the only query failed, and 207 when some of several did.
func (s *site) query(w http.ResponseWriter, r *http.Request) {
	req, err := readQueries(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	req.PluginContext = s.context()
	out, err := s.host.QueryData(r.Context(), req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	code := http.StatusOK
	for _, a := range out.Responses {
		if a.Error != nil {
			code = http.StatusBadRequest
			if len(out.Responses) > 1 {
				code = http.StatusMultiStatus
			}
		}
	}
	write(w, code, out)
}

func readQueries(body io.Reader) (*backend.QueryDataRequest, error) {
	var in struct {
		From    string            `json:"from"`
		To      string            `json:"to"`
		Queries []json.RawMessage `json:"queries"`
	}
	if err := json.NewDecoder(body).Decode(&in); err != nil {
		return nil, err
	}
	from, err1 := millis(in.From)
	to, err2 := millis(in.To)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	req := &backend.QueryDataRequest{}
	for _, raw := range in.Queries {
		var q struct {
			RefID         string  `json:"refId"`
			QueryType     string  `json:"queryType"`
			MaxDataPoints int64   `json:"maxDataPoints"`
			IntervalMS    float64 `json:"intervalMs"`
		}
		if err := json.Unmarshal(raw, &q); err != nil {
			return nil, fmt.Errorf("query: %w", err)
		}
		req.Queries = append(req.Queries, backend.DataQuery{
			RefID: q.RefID, QueryType: q.QueryType, MaxDataPoints: q.MaxDataPoints, JSON: raw,
			Interval: time.Duration(q.IntervalMS * float64(time.Millisecond)), TimeRange: backend.TimeRange{From: from, To: to},
		})
	}
	return req, nil
}

// millis reads a time as Grafana's front end sends it.
func millis(s string) (time.Time, error) {
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("time %q: %w", s, err)
	}
	return time.UnixMilli(ms).UTC(), nil
}

func write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the page may be gone
}
