package prometheus

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/model/timestamp"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/storage"
)

// Admin is what operators may do to the store over HTTP.
type Admin struct {
	Store storage.Admin
	// Clean writes the store anew without what was deleted.
	Clean func(ctx context.Context) error
	// Snapshot copies the store into a folder of its own and returns the folder's name.
	Snapshot func(ctx context.Context) (name string, err error)
	// Deleted is called after series were deleted; nil for nothing.
	Deleted func()
}

func errAdminDisabled() error { return httpapi.Errorf(httpapi.Unavailable, "admin APIs disabled") }

func (a *API) deleteSeries(r *http.Request) (result, error) {
	if a.Admin == nil {
		return result{}, errAdminDisabled()
	}
	if len(r.Form["match[]"]) == 0 {
		return result{}, httpapi.BadDataf("no match[] parameter provided")
	}
	start, end, err := rangeParams(r)
	if err != nil {
		return result{}, err
	}
	sets, err := a.parseMatchers(r)
	if err != nil {
		return result{}, invalidMatch(err)
	}
	m := storage.Mask{
		Tenant: httpapi.TenantFrom(r.Context()), Signal: storage.Metrics, Start: timestamp.FromTime(start), End: timestamp.FromTime(end),
	}
	if m.Start > m.End {
		return result{}, invalid("end", errEndBeforeStart())
	}
	for _, ms := range sets { // each is durable on its own
		m.Matchers = ms
		if _, err := a.Admin.Store.Delete(r.Context(), m); err != nil {
			return result{}, fmt.Errorf("delete series: %w", err)
		}
	}
	if a.Admin.Deleted != nil {
		a.Admin.Deleted()
	}
	return result{}, nil
}

func (a *API) cleanTombstones(r *http.Request) (result, error) {
	if a.Admin == nil {
		return result{}, errAdminDisabled()
	}
	if err := a.Admin.Clean(r.Context()); err != nil {
		return result{}, fmt.Errorf("clean tombstones: %w", err)
	}
	return result{}, nil
}

func (a *API) snapshot(r *http.Request) (result, error) {
	if a.Admin == nil {
		return result{}, errAdminDisabled()
	}
	// Prometheus leaves out its head when asked to; here the head is flushed for a snapshot, and nothing is left out.
	if s := r.FormValue("skip_head"); s != "" {
		if _, err := strconv.ParseBool(s); err != nil {
			return result{}, invalid("skip_head", fmt.Errorf("unable to parse boolean: %w", err))
		}
	}
	name, err := a.Admin.Snapshot(r.Context())
	if err != nil {
		return result{}, fmt.Errorf("create snapshot: %w", err)
	}
	return jsonResult(map[string]string{"name": name})
}
