package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
)

// maxBody bounds what a page sends.
const maxBody = 4 << 20

// Handler answers as Grafana does: queries, health and resources of the data source in pc, with the plugin's front end
// from the folder dist and the page from the folder web.
func (h *Host) Handler(pc backend.PluginContext, dist, web string) http.Handler {
	uid := pc.DataSourceInstanceSettings.UID
	front := "/public/plugins/" + pc.PluginID + "/"
	mux := http.NewServeMux()
	mux.Handle(front, http.StripPrefix(front, http.FileServer(http.Dir(dist))))
	mux.Handle("/", http.FileServer(http.Dir(web)))
	mux.HandleFunc("POST /api/ds/query", func(w http.ResponseWriter, r *http.Request) { h.query(w, r, pc) })
	mux.HandleFunc("GET /api/datasources/uid/"+uid+"/health", func(w http.ResponseWriter, r *http.Request) {
		a, err := h.CheckHealth(r.Context(), pc)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		code, status := http.StatusOK, "OK"
		if a.GetStatus() != pluginv2.CheckHealthResponse_OK {
			code, status = http.StatusBadRequest, "ERROR"
		}
		write(w, code, map[string]string{"status": status, "message": a.GetMessage()})
	})
	paths := "/api/datasources/uid/" + uid + "/resources/"
	mux.HandleFunc(paths, func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, paths)
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a, err := h.Resource(r.Context(), &backend.CallResourceRequest{PluginContext: pc, Path: path, URL: path + "?" + r.URL.RawQuery, Method: r.Method, Body: body})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		for k, vs := range a.Headers {
			w.Header()[http.CanonicalHeaderKey(k)] = vs
		}
		w.WriteHeader(a.Status)
		_, _ = w.Write(a.Body) // the page may be gone
	})
	return mux
}

// query answers 200, 400 when the only query failed, and 207 when some of several did.
func (h *Host) query(w http.ResponseWriter, r *http.Request, pc backend.PluginContext) {
	req, err := readQueries(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	req.PluginContext = pc
	out, err := h.QueryData(r.Context(), req)
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
