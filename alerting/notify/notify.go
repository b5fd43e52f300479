// Package notify sends alerts to Alertmanagers through version 2 of their API.
//
// Every Alertmanager gets every alert, each through a queue of its own: one that is slow, hangs or is away delays
// neither the evaluation of rules nor the others. What does not fit into a queue pushes out the oldest, and what an
// Alertmanager does not take is dropped, both counted: alerts that go on firing are sent again and again by the rule
// manager, and resolved ones for 15 minutes, so nothing is lost for good.
//
// A hook may add to alerts what explains them. It runs beside the evaluation as well, and when it has not finished
// in time alerts go out without.
package notify

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"
	promrules "github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/util/strutil"
)

const (
	// Capacity is how many alerts one queue holds, as in Prometheus.
	Capacity = 10_000
	// batch is how many alerts one request carries at most.
	batch = 256
	// Timeout is how long an Alertmanager may take to answer.
	Timeout = 10 * time.Second
	// AnnotateTime is how long the hook may take for the alerts that a rule sends at once.
	AnnotateTime = time.Second
	// annotators is how many alerts are annotated at once.
	annotators = 8
	// maxAnswer is how much of an Alertmanager's answer is read.
	maxAnswer = 4 << 10
	// drain is how long the queues may take to empty when the process stops.
	drain = 3 * time.Second
)

// Alert is what is sent.
type Alert struct {
	Labels       labels.Labels
	Annotations  labels.Labels
	StartsAt     time.Time
	EndsAt       time.Time // when it was resolved, or until when it counts as firing if nothing more is heard of it
	GeneratorURL string

	Expr     string // the expression of the rule
	Resolved bool
}

// Annotate adds to the annotations of an alert that is about to be sent. It is called for every alert each time that
// it is sent, for several at once, and must return when ctx ends; the alert is sent whatever it does. Labels must
// not be changed: they are what the alert is known by.
type Annotate func(ctx context.Context, a *Alert)

// Deps are what a notifier depends on.
type Deps struct {
	Alertmanagers  []URL
	ExternalLabels labels.Labels // given to alerts that have no such label
	ExternalURL    string        // in front of the links to what fires
	Annotate       Annotate      // nil for none
	Client         *http.Client  // nil for one of its own
	Log            *slog.Logger
	Metrics        prometheus.Registerer
	Now            func() time.Time
}

// Notifier sends alerts. Its methods may be called concurrently.
type Notifier struct {
	deps     Deps
	incoming *queue        // in front of the hook; nil without one
	slots    chan struct{} // hooks that run
	hooks    sync.WaitGroup
	peers    []*peer
	m        *metrics
}

// metrics have the names that they have in Prometheus.
type metrics struct {
	sent, errors, dropped *prometheus.CounterVec
	queueLength           *prometheus.GaugeVec
	latency               *prometheus.HistogramVec
	late                  prometheus.Counter
}

// peer is one Alertmanager.
type peer struct {
	url URL
	q   *queue
}

// New returns a notifier. It sends nothing before Run.
func New(d Deps) *Notifier {
	f := promauto.With(d.Metrics)
	by := []string{"alertmanager"}
	n := &Notifier{deps: d, slots: make(chan struct{}, annotators), m: &metrics{
		sent:        f.NewCounterVec(prometheus.CounterOpts{Name: "prometheus_notifications_sent_total", Help: "Alerts sent to an Alertmanager."}, by),
		errors:      f.NewCounterVec(prometheus.CounterOpts{Name: "prometheus_notifications_errors_total", Help: "Alerts that an Alertmanager did not take."}, by),
		dropped:     f.NewCounterVec(prometheus.CounterOpts{Name: "prometheus_notifications_dropped_total", Help: "Alerts dropped: the queue was full, the Alertmanager did not take them, or the process stopped."}, by),
		queueLength: f.NewGaugeVec(prometheus.GaugeOpts{Name: "prometheus_notifications_queue_length", Help: "Alerts that wait to be sent."}, by),
		latency: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "prometheus_notifications_latency_histogram_seconds", Help: "How long an Alertmanager took to take alerts.",
			Buckets: []float64{.005, .025, .1, .25, .5, 1, 2.5, 5, 10},
		}, by),
		late: f.NewCounter(prometheus.CounterOpts{Name: "braid_notify_annotate_late_total", Help: "Alerts whose annotations were not ready in time."}),
	}}
	f.NewGauge(prometheus.GaugeOpts{Name: "prometheus_notifications_queue_capacity", Help: "How many alerts may wait for one Alertmanager."}).Set(Capacity)
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "prometheus_notifications_alertmanagers_discovered", Help: "Alertmanagers that alerts are sent to."},
		func() float64 { return float64(len(n.peers)) })
	for _, u := range d.Alertmanagers {
		if slices.ContainsFunc(n.peers, func(p *peer) bool { return p.url.alerts() == u.alerts() }) {
			continue // one that is named twice gets alerts once
		}
		name := u.alerts()
		n.m.sent.WithLabelValues(name)
		n.m.errors.WithLabelValues(name)
		n.peers = append(n.peers, &peer{url: u, q: newQueue(n.m.queueLength.WithLabelValues(name), n.m.dropped.WithLabelValues(name))})
	}
	if d.Annotate != nil {
		n.incoming = newQueue(n.m.queueLength.WithLabelValues("annotate"), n.m.dropped.WithLabelValues("annotate"))
	}
	if d.Client == nil {
		n.deps.Client = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: 5 * time.Minute}}
	}
	return n
}

// Alertmanagers returns where alerts are posted, without passwords.
func (n *Notifier) Alertmanagers() []string {
	out := make([]string, len(n.peers))
	for i, p := range n.peers {
		out[i] = p.url.alerts()
	}
	return out
}

// Notify queues alerts; it is what the rule manager calls, and it never waits.
func (n *Notifier) Notify(_ context.Context, expr string, alerts ...*promrules.Alert) {
	if len(alerts) == 0 || len(n.peers) == 0 && n.incoming == nil {
		return
	}
	out := make([]*Alert, len(alerts))
	for i, a := range alerts {
		b := labels.NewBuilder(a.Labels)
		n.deps.ExternalLabels.Range(func(l labels.Label) {
			if !a.Labels.Has(l.Name) {
				b.Set(l.Name, l.Value)
			}
		})
		out[i] = &Alert{
			Labels: b.Labels(), Annotations: a.Annotations, StartsAt: a.FiredAt, EndsAt: a.ValidUntil,
			GeneratorURL: n.deps.ExternalURL + strutil.TableLinkForExpression(expr), Expr: expr,
		}
		if !a.ResolvedAt.IsZero() {
			out[i].EndsAt, out[i].Resolved = a.ResolvedAt, true
		}
	}
	if n.incoming != nil {
		n.incoming.add(out)
		return
	}
	n.hand(out)
}

// hand gives alerts to every Alertmanager.
func (n *Notifier) hand(alerts []*Alert) {
	for _, p := range n.peers {
		p.q.add(alerts)
	}
}
