package correlate

import (
	"math"
	"net/http"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
)

// API serves the joins over HTTP. See docs/api/correlate.md.
type API struct {
	c    *Correlator
	errs httpapi.Errors
}

// NewAPI returns the API of c.
func NewAPI(c *Correlator, errs httpapi.Errors) *API { return &API{c: c, errs: errs} }

// Register adds the routes.
func (a *API) Register(rt *httpapi.Router) {
	rt.HandleFunc("GET /api/v1/correlate/trace/{id}", a.trace)
	rt.HandleFunc("GET /api/v1/correlate/resource", a.resource)
	rt.HandleFunc("GET /api/v1/traces/{id}/critical-path", a.criticalPath)
	rt.HandleFunc("GET /api/v1/traces/diff", a.diff)
}

func (a *API) criticalPath(w http.ResponseWriter, r *http.Request) {
	id, err := telemetry.ParseTraceID(r.PathValue("id"))
	if err != nil {
		a.errs.Prometheus(w, r, httpapi.BadDataf("%v", err))
		return
	}
	p, err := a.c.CriticalPath(r.Context(), httpapi.TenantFrom(r.Context()), id)
	a.answer(w, r, p, err)
}

func (a *API) diff(w http.ResponseWriter, r *http.Request) {
	var ids [2]telemetry.TraceID
	for i, name := range []string{"a", "b"} {
		var err error
		if ids[i], err = telemetry.ParseTraceID(r.URL.Query().Get(name)); err != nil {
			a.errs.Prometheus(w, r, httpapi.BadDataf("%s: %v", name, err))
			return
		}
	}
	d, err := a.c.Diff(r.Context(), httpapi.TenantFrom(r.Context()), ids[0], ids[1])
	a.answer(w, r, d, err)
}

func (a *API) trace(w http.ResponseWriter, r *http.Request) {
	id, err := telemetry.ParseTraceID(r.PathValue("id"))
	if err != nil {
		a.errs.Prometheus(w, r, httpapi.BadDataf("%v", err))
		return
	}
	t, err := a.c.Trace(r.Context(), httpapi.TenantFrom(r.Context()), id)
	a.answer(w, r, t, err)
}

func (a *API) resource(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	name, kind := q.Get("name"), telemetry.EntityKind(q.Get("kind"))
	switch kind {
	case "", telemetry.EntityContainer, telemetry.EntityPod, telemetry.EntityInstance, telemetry.EntityService, telemetry.EntityHost:
	default:
		a.errs.Prometheus(w, r, httpapi.BadDataf("kind: %q is none of container, pod, instance, service, host", kind))
		return
	}
	if name == "" {
		a.errs.Prometheus(w, r, httpapi.BadDataf("name: give any name of a pod, container, service, instance or host"))
		return
	}
	now := a.c.now()
	start, err := parseTime("start", q.Get("start"), now.Add(-time.Hour).UnixNano())
	if err != nil {
		a.errs.Prometheus(w, r, err)
		return
	}
	end, err := parseTime("end", q.Get("end"), now.UnixNano())
	if err == nil && start > end {
		err = httpapi.BadDataf("start: lies after end")
	}
	if err != nil {
		a.errs.Prometheus(w, r, err)
		return
	}
	out, err := a.c.Resource(r.Context(), httpapi.TenantFrom(r.Context()), kind, name, start, end)
	a.answer(w, r, out, err)
}

func (a *API) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		a.errs.Prometheus(w, r, err)
		return
	}
	httpapi.WriteJSON(w, http.StatusOK, map[string]any{"status": "success", "data": v})
}

func parseRFC3339(name, s string) (int64, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 1678 || t.Year() > 2261 {
		return 0, httpapi.BadDataf("%s: %q is no time: give seconds, nanoseconds or RFC 3339", name, s)
	}
	return min(t.UnixNano(), math.MaxInt64), nil
}
