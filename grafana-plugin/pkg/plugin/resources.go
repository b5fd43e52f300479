package plugin

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
)

// maxNames bounds the names of one answer: they fill a list to choose from.
const maxNames = 10000

// resources are the paths that editors and variables ask for: names and values, each answer a list of strings. There is
// no path that goes anywhere else.
func (d *Datasource) resources() http.Handler {
	mux := http.NewServeMux()
	named := func(path func(name string) string) func(url.Values) (string, error) {
		return func(in url.Values) (string, error) {
			name := in.Get("name")
			if name == "" || name == "." || name == ".." || len(name) > 1024 {
				return "", badRequest("name must have 1 to 1024 bytes")
			}
			return path(url.PathEscape(name)), nil
		}
	}
	fixed := func(path string) func(url.Values) (string, error) {
		return func(url.Values) (string, error) { return path, nil }
	}
	mux.HandleFunc("GET /metrics", d.names(fixed("/api/v1/label/__name__/values"), "match[]"))
	mux.HandleFunc("GET /labels", d.names(fixed("/api/v1/labels"), "match[]"))
	mux.HandleFunc("GET /label-values", d.names(named(func(n string) string { return "/api/v1/label/" + n + "/values" }), "match[]"))
	mux.HandleFunc("GET /log-labels", d.names(fixed("/loki/api/v1/labels"), "query"))
	mux.HandleFunc("GET /log-label-values", d.names(named(func(n string) string { return "/loki/api/v1/label/" + n + "/values" }), "query"))
	mux.HandleFunc("GET /trace-tags", d.names(fixed("/api/search/tags")))
	mux.HandleFunc("GET /trace-tag-values", d.names(named(func(n string) string { return "/api/search/tag/" + n + "/values" })))
	return mux
}

// names asks for a list. Beside start and end only the parameters named are passed on.
func (d *Datasource) names(path func(url.Values) (string, error), params ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		list, err := d.list(r, path, append(params, "start", "end"))
		if err != nil {
			status := backend.StatusInternal
			if f, ok := errors.AsType[*failure](err); ok {
				status = f.status
			}
			answer(w, int(status), map[string]string{"message": err.Error()})
			return
		}
		answer(w, http.StatusOK, list)
	}
}

func (d *Datasource) list(r *http.Request, path func(url.Values) (string, error), params []string) ([]string, error) {
	if d.broken != nil {
		return nil, badRequest("%w", d.broken)
	}
	in := r.URL.Query()
	p, err := path(in)
	if err != nil {
		return nil, err
	}
	out := url.Values{}
	for _, name := range params {
		if vs, ok := in[name]; ok {
			out[name] = vs
		}
	}
	body, err := d.client.get(r.Context(), p, out)
	if err != nil {
		return nil, err
	}
	var a struct {
		Data      []string `json:"data"`
		TagNames  []string `json:"tagNames"`
		TagValues []string `json:"tagValues"`
	}
	if err := d.client.decode(body, &a); err != nil {
		return nil, err
	}
	list := slices.Concat([]string{}, a.Data, a.TagNames, a.TagValues)
	return list[:min(len(list), maxNames)], nil
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // whoever asked may be gone
}
