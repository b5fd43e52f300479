package prometheus

import (
	"net/http"
	"strconv"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
)

// running answers with the tenant's queries under way.
func (a *API) running(r *http.Request) (result, error) {
	type query struct {
		ID      string    `json:"id"`
		Query   string    `json:"query"`
		Start   time.Time `json:"start"`
		End     time.Time `json:"end"`
		Step    float64   `json:"step"` // seconds; 0: an instant query at end
		Began   time.Time `json:"began"`
		Seconds float64   `json:"seconds"` // since it began
	}
	now := a.Now()
	out := []query{}
	for _, q := range a.Engine.Running(httpapi.TenantFrom(r.Context())) {
		start := q.Request.Start
		if q.Request.Step == 0 {
			start = q.Request.End
		}
		out = append(out, query{
			ID: strconv.FormatUint(q.ID, 10), Query: q.Request.Expr, Start: start.UTC(), End: q.Request.End.UTC(), Step: q.Request.Step.Seconds(),
			Began: q.Began.UTC(), Seconds: now.Sub(q.Began).Seconds(),
		})
	}
	return jsonResult(map[string]any{"queries": out})
}

// stop ends one of them.
func (a *API) stop(r *http.Request) (result, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return result{}, invalid("id", err)
	}
	if !a.Engine.Stop(httpapi.TenantFrom(r.Context()), id) {
		return result{}, httpapi.NotFoundf("no query with the ID %d is running", id)
	}
	return result{}, nil
}
