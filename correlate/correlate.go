// Package correlate joins the three signals by what is known of their producers: the logs of a trace, the pods
// that ran it and their series; everything that a pod, container, service or host sent. The joins follow the
// trace ID and the identity that the store recorded; no query is guessed.
package correlate

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Config is section "correlate" of the configuration.
type Config struct {
	Window    config.Duration `yaml:"window" help:"How long before and after a trace its logs and series are looked for."`
	MaxSpans  int             `yaml:"max_spans" help:"How many spans of a trace one answer holds."`
	MaxLogs   int             `yaml:"max_logs" help:"How many log records of a trace one answer holds."`
	MaxSeries int             `yaml:"max_series" help:"How many series of each entity one answer holds."`
}

// DefaultConfig returns what an answer holds unless configured.
func DefaultConfig() Config {
	return Config{Window: config.Duration(5 * time.Minute), MaxSpans: 10_000, MaxLogs: 1_000, MaxSeries: 12}
}

// Validate returns all mistakes.
func (c Config) Validate() error {
	var errs config.Errors
	for _, f := range []struct {
		name string
		n    int
	}{{"max_spans", c.MaxSpans}, {"max_logs", c.MaxLogs}, {"max_series", c.MaxSeries}} {
		if f.n < 1 {
			errs.Field(f.name, fmt.Errorf("must be positive, not %d", f.n))
		}
	}
	return errs.Err()
}

// Correlator answers joins. It is safe for concurrent use.
type Correlator struct {
	cfg    Config
	reader storage.Reader
	now    func() time.Time
	took   *prometheus.HistogramVec
}

// New returns a correlator over reader. A nil registerer keeps its metrics to itself.
func New(cfg Config, reader storage.Reader, now func() time.Time, reg prometheus.Registerer) *Correlator {
	c := &Correlator{cfg: cfg, reader: reader, now: now, took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "braid_correlate_seconds", Help: "Time to answer a join.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
	}, []string{"join"})}
	if reg != nil {
		reg.MustRegister(c.took)
	}
	return c
}

// Entity is a producer of telemetry in an answer.
type Entity struct {
	Kind      telemetry.EntityKind `json:"kind"`
	ID        string               `json:"id"`
	Cluster   string               `json:"cluster,omitempty"`
	Namespace string               `json:"namespace,omitempty"`
	Pod       string               `json:"pod,omitempty"`
	PodUID    string               `json:"podUID,omitempty"`
	Container string               `json:"container,omitempty"`
	Service   string               `json:"service,omitempty"`
	Instance  string               `json:"instance,omitempty"`
	Host      string               `json:"host,omitempty"`
}

// EntityOf returns an entity as answers have it.
func EntityOf(e *telemetry.Entity) Entity {
	out := Entity{Kind: e.Key.Kind, ID: e.Key.ID}
	id := &e.Identity
	switch e.Key.Kind {
	case telemetry.EntityPod, telemetry.EntityContainer:
		out.Cluster, out.Namespace, out.Pod, out.PodUID, out.Host = e.Pod.Cluster, e.Pod.Namespace, e.Pod.Name, id.PodUID, id.Host
		out.Service, out.Instance = id.ServiceID(), id.Instance
		if e.Key.Kind == telemetry.EntityContainer {
			out.Container = id.Container
		}
	case telemetry.EntityInstance:
		out.Service, out.Instance = id.ServiceID(), id.Instance
	case telemetry.EntityService:
		out.Service = id.ServiceID()
	case telemetry.EntityHost:
		out.Host = id.Host
	}
	return out
}

// spans of time in which resources speak for an entity.
type speakers map[telemetry.ResourceID][]telemetry.ResourceSpan

func speakersOf(e *telemetry.Entity) speakers {
	s := make(speakers, len(e.Resources))
	for _, r := range e.Resources {
		s[r.Resource.ID] = append(s[r.Resource.ID], r)
	}
	return s
}

func (s speakers) ids() storage.ResourceIn {
	ids := make(storage.ResourceIn, 0, len(s))
	for id := range s {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b telemetry.ResourceID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

// covers says whether a record of resource r at time t (nanoseconds) belongs to the entity: a resource known by
// its pod's name alone may have belonged to another pod before.
func (s speakers) covers(r *telemetry.Resource, t int64) bool {
	if r == nil {
		return false
	}
	return slices.ContainsFunc(s[r.ID], func(x telemetry.ResourceSpan) bool { return t >= x.Start && t <= x.End })
}

// pivotal are the kinds of entities that a trace's answer lists, in this order.
func pivotal() []telemetry.EntityKind {
	return []telemetry.EntityKind{telemetry.EntityPod, telemetry.EntityService}
}

// Involved returns the pods and services behind resources.
func Involved(ctx context.Context, v storage.View, t telemetry.Tenant, ids []telemetry.ResourceID, from, to int64) ([]telemetry.Entity, error) {
	var out []telemetry.Entity
	if len(ids) == 0 {
		return nil, nil
	}
	for _, kind := range pivotal() {
		es, err := v.Entities(ctx, t, telemetry.Query{Start: from, End: to, Kind: kind, Resources: ids})
		if err != nil {
			return nil, err
		}
		for _, e := range es {
			// Those were found by the resources of the trace; their other resources join now.
			full, err := v.Entities(ctx, t, telemetry.Query{Start: from, End: to, Kind: kind, Name: e.Key.ID})
			if err != nil {
				return nil, err
			}
			for _, f := range full {
				if f.Key == e.Key {
					e = f
				}
			}
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b telemetry.Entity) int {
		return cmp.Compare(slices.Index(pivotal(), a.Key.Kind), slices.Index(pivotal(), b.Key.Kind))
	})
	return out, nil
}

// bounded cuts a time so that arithmetic on it cannot overflow.
func bounded(t int64) int64 {
	const far = math.MaxInt64 / 4
	return min(max(t, -far), far)
}
