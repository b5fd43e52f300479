package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
)

// queue holds alerts that wait. Of too many the oldest go.
type queue struct {
	work    chan struct{} // has a value when there may be something to take
	length  prometheus.Gauge
	dropped prometheus.Counter

	mu     sync.Mutex // guards alerts
	alerts []*Alert
}

func newQueue(length prometheus.Gauge, dropped prometheus.Counter) *queue {
	return &queue{work: make(chan struct{}, 1), length: length, dropped: dropped}
}

// add appends alerts; it never waits.
func (q *queue) add(alerts []*Alert) {
	q.mu.Lock()
	q.alerts = append(q.alerts, alerts...)
	q.cut()
	q.mu.Unlock()
	select {
	case q.work <- struct{}{}:
	default:
	}
}

// back puts alerts in front again.
func (q *queue) back(alerts []*Alert) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.alerts = append(alerts, q.alerts...)
	q.cut()
}

// cut drops the oldest alerts over the capacity. q.mu is held.
func (q *queue) cut() {
	if over := len(q.alerts) - Capacity; over > 0 {
		q.dropped.Add(float64(over))
		q.alerts = append([]*Alert(nil), q.alerts[over:]...)
	}
	q.length.Set(float64(len(q.alerts)))
}

// take returns what one request carries, or nothing.
func (q *queue) take() []*Alert {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(batch, len(q.alerts))
	out := q.alerts[:n:n]
	q.alerts = q.alerts[n:]
	if len(q.alerts) == 0 {
		q.alerts = nil
	}
	q.length.Set(float64(len(q.alerts)))
	return out
}

// empty calls do with what is queued until nothing is left or ctx ends.
func (q *queue) empty(ctx context.Context, do func(context.Context, []*Alert)) {
	for ctx.Err() == nil {
		alerts := q.take()
		if len(alerts) == 0 {
			return
		}
		do(ctx, alerts)
	}
}

// serve is empty whenever something comes, until ctx ends.
func (q *queue) serve(ctx context.Context, do func(context.Context, []*Alert)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.work:
			q.empty(ctx, do)
		}
	}
}

// Run sends until ctx ends. What is queued then is still sent, if that takes no more than a few seconds.
func (n *Notifier) Run(ctx context.Context) error {
	n.work(ctx, (*queue).serve)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if n.incoming != nil {
		n.incoming.empty(last, n.annotated)
	}
	n.work(last, (*queue).empty)
	for _, p := range n.peers {
		p.q.dropRest()
	}
	n.hooks.Wait()
	return nil
}

// work runs a loop over each queue and waits for all of them.
func (n *Notifier) work(ctx context.Context, loop func(*queue, context.Context, func(context.Context, []*Alert))) {
	var wg sync.WaitGroup
	if n.incoming != nil {
		wg.Go(func() { loop(n.incoming, ctx, n.annotated) })
	}
	for _, p := range n.peers {
		wg.Go(func() {
			loop(p.q, ctx, func(ctx context.Context, alerts []*Alert) { n.send(ctx, p, alerts) })
		})
	}
	wg.Wait()
}

// dropRest counts what is still queued as dropped.
func (q *queue) dropRest() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped.Add(float64(len(q.alerts)))
	q.alerts = nil
	q.length.Set(0)
}

// annotated lets the hook annotate alerts and hands them on.
func (n *Notifier) annotated(ctx context.Context, alerts []*Alert) {
	ctx, cancel := context.WithTimeout(ctx, AnnotateTime)
	defer cancel()
	var wg sync.WaitGroup
	for i := range alerts {
		select {
		case n.slots <- struct{}{}:
		case <-ctx.Done():
			n.m.late.Inc()
			continue
		}
		wg.Go(func() { n.annotate(ctx, alerts, i) })
	}
	wg.Wait()
	n.hand(alerts)
}

// annotate replaces alerts[i] by what the hook makes of it, unless that takes too long. It gives the slot back when
// the hook has returned.
func (n *Notifier) annotate(ctx context.Context, alerts []*Alert, i int) {
	a := *alerts[i]
	done := make(chan struct{})
	n.hooks.Go(func() {
		defer func() { <-n.slots }()
		defer close(done)
		n.deps.Annotate(ctx, &a)
	})
	select {
	case <-done:
		a.Labels = alerts[i].Labels
		alerts[i] = &a
	case <-ctx.Done():
		n.m.late.Inc()
	}
}

// postable is an alert in the API of Alertmanager.
type postable struct {
	Labels       labels.Labels `json:"labels"`
	Annotations  labels.Labels `json:"annotations"`
	StartsAt     time.Time     `json:"startsAt"`
	EndsAt       time.Time     `json:"endsAt"`
	GeneratorURL string        `json:"generatorURL"`
}

// send sends alerts to one Alertmanager. What it does not take is dropped, but kept when ctx ended meanwhile.
func (n *Notifier) send(ctx context.Context, p *peer, alerts []*Alert) {
	name := p.url.alerts()
	start := n.deps.Now()
	err := n.post(ctx, p, alerts)
	switch {
	case err == nil:
		n.m.latency.WithLabelValues(name).Observe(n.deps.Now().Sub(start).Seconds())
		n.m.sent.WithLabelValues(name).Add(float64(len(alerts)))
	case ctx.Err() != nil:
		p.q.back(alerts)
	default:
		n.m.errors.WithLabelValues(name).Add(float64(len(alerts)))
		p.q.dropped.Add(float64(len(alerts)))
		n.deps.Log.WarnContext(ctx, "an Alertmanager did not take alerts; those that go on are sent again",
			"alertmanager", name, "alerts", len(alerts), "err", err)
	}
}

func (n *Notifier) post(ctx context.Context, p *peer, alerts []*Alert) error {
	out := make([]postable, len(alerts))
	for i, a := range alerts {
		out[i] = postable{Labels: a.Labels, Annotations: a.Annotations, StartsAt: a.StartsAt.UTC(), EndsAt: a.EndsAt.UTC(), GeneratorURL: a.GeneratorURL}
	}
	body, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("encode alerts: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url.alerts(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Braid")
	if user := p.url.u.User; user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	resp, err := n.deps.Client.Do(req)
	if err != nil {
		return err // names the URL
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("status %s: %q", resp.Status, bytes.TrimSpace(answer[:min(len(answer), 300)]))
	}
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}
