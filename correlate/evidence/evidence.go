// Package evidence gathers what explains that an objective is missed: example traces of bad events, what was logged in
// them, and the pods that ran them with what changed there. Everything is bounded in number and time, and carries the
// query that reproduces it.
package evidence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	prompromql "github.com/prometheus/prometheus/promql"

	"github.com/braidobs/braid/correlate"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

// What one answer holds at most.
const (
	MaxTraces = 5
	MaxLogs   = 10
	MaxPods   = 10
	// maxCandidates is how many bad spans are looked at, the newest first.
	maxCandidates = 1000
	maxTraceSpans = 5000
	maxTraceLogs  = 1000
	maxBody       = 1 << 10 // bytes of a line
	// minWindow is the least over which a change of a pod's CPU or memory is measured.
	minWindow = 30 * time.Second
	// around is how long before and after the bad events the pods are known by what they send.
	around = 5 * time.Minute
)

// Request says what to explain.
type Request struct {
	Tenant     telemetry.Tenant
	Start, End time.Time         // of the bad events
	Bad        storage.Predicate // which spans are bad
}

// Evidence explains a missed objective.
type Evidence struct {
	Start string `json:"start"` // RFC 3339
	End   string `json:"end"`
	// BadSpans is how many bad spans were looked at; there may be more.
	BadSpans int     `json:"badSpans"`
	Traces   []Trace `json:"traces"`
	Logs     []Log   `json:"logs"` // of these traces, the most severe first
	Pods     []Pod   `json:"pods"` // that ran them
	// Incomplete says what is missing, and why.
	Incomplete []string `json:"incomplete,omitempty"`
	TookMillis float64  `json:"tookMillis"`
}

// Trace is an example: the slowest of the bad spans with one cause.
type Trace struct {
	TraceID       string  `json:"traceID"`
	Service       string  `json:"service"`
	Span          string  `json:"span"` // its name
	Status        string  `json:"status"`
	Message       string  `json:"message,omitempty"`
	Start         string  `json:"start"`
	DurationMilli float64 `json:"durationMs"`
	// Alike is how many of the bad spans have the same service, name and message.
	Alike int    `json:"alike"`
	Query string `json:"query"` // the path of the trace
	Join  string `json:"join"`  // the path of everything about the trace
}

// Log is a line of one of the traces.
type Log struct {
	TraceID  string `json:"traceID"`
	Time     string `json:"time"`
	Severity string `json:"severity,omitempty"`
	Service  string `json:"service,omitempty"`
	Pod      string `json:"pod,omitempty"`
	Body     string `json:"body"`
	Query    string `json:"query"`
}

// Pod is a pod that ran some of the traces.
type Pod struct {
	correlate.Entity

	Spans int `json:"spans"` // of these traces
	// Slowest is the longest time that a span of the pod took by itself, without the spans below it.
	SlowestMilli float64 `json:"slowestSelfMs"`
	Restarts     *Change `json:"restarts,omitempty"`
	CPU          *Change `json:"cpu,omitempty"`    // cores
	Memory       *Change `json:"memory,omitempty"` // bytes
	Query        string  `json:"query"`
}

// Change compares the time of the bad events with as long before it.
type Change struct {
	Before *float64 `json:"before"`
	Now    *float64 `json:"now"`
	// Query is PromQL; it gives Before at BeforeTime and Now at NowTime (RFC 3339).
	Query      string `json:"query"`
	BeforeTime string `json:"beforeTime"`
	NowTime    string `json:"nowTime"`
}

// Collector gathers evidence. It is safe for concurrent use.
type Collector struct {
	reader storage.Reader
	engine *promql.Engine
	now    func() time.Time
	took   prometheus.Histogram
	cut    prometheus.Counter
}

// NewCollector returns a collector.
func NewCollector(r storage.Reader, e *promql.Engine, now func() time.Time, reg prometheus.Registerer) *Collector {
	c := &Collector{
		reader: r, engine: e, now: now,
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "braid_evidence_seconds", Help: "Time to gather the evidence of an alert.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 11)}),
		cut:  prometheus.NewCounter(prometheus.CounterOpts{Name: "braid_evidence_incomplete_total", Help: "Evidence that was not whole when its time was over."}),
	}
	reg.MustRegister(c.took, c.cut)
	return c
}

// Gather gathers until ctx ends; what it has then it returns, and says what is missing. An error means that there is
// nothing.
func (c *Collector) Gather(ctx context.Context, r Request) (*Evidence, error) {
	began := c.now()
	ev := &Evidence{
		Start: stamp(r.Start.UnixNano()), End: stamp(r.End.UnixNano()), Traces: []Trace{}, Logs: []Log{}, Pods: []Pod{},
	}
	err := c.gather(ctx, r, ev)
	took := c.now().Sub(began)
	ev.TookMillis = float64(took.Microseconds()) / 1000
	c.took.Observe(took.Seconds())
	if err != nil && ctx.Err() == nil {
		return nil, err
	}
	if err != nil {
		c.cut.Inc()
		ev.Incomplete = append(ev.Incomplete, "the time for gathering was over: "+err.Error())
	}
	return ev, nil
}

// involved is what is known of one trace while it is put together.
type involved struct {
	resources map[telemetry.ResourceID]int // spans of each
	self      map[telemetry.ResourceID]int64
	from, to  int64
}

func (c *Collector) gather(ctx context.Context, r Request, ev *Evidence) error {
	v, err := c.reader.View(ctx, 0)
	if err != nil {
		return fmt.Errorf("open a view: %w", err)
	}
	defer v.Close()
	ids, err := c.traces(ctx, v, r, ev)
	if err != nil || len(ids) == 0 {
		return err
	}
	in, err := c.spans(ctx, v, r, ids)
	if err != nil {
		return err
	}
	podOf, err := c.pods(ctx, v, r, in, ev)
	if err != nil {
		return err
	}
	if err := c.logs(ctx, v, r, ids, in, podOf, ev); err != nil {
		return err
	}
	return c.changes(ctx, v, r, ev, podOf)
}

// candidate is a bad span.
type candidate struct {
	trace                  telemetry.TraceID
	start, duration        int64
	service, name, message string
	status                 telemetry.StatusCode
}

// traces picks the examples: of each cause the slowest, the most frequent causes first.
func (c *Collector) traces(ctx context.Context, v storage.View, r Request, ev *Evidence) (storage.TraceIn, error) {
	type cause struct{ service, name, message string }
	worst := make(map[cause]candidate)
	count := make(map[cause]int)
	var all []candidate
	q := storage.SpanQuery{
		Tenant: r.Tenant, Start: r.Start.UnixNano(), End: r.End.UnixNano(), Where: r.Bad, Order: storage.NewestFirst, Limit: maxCandidates,
		Columns: storage.SpanResource | storage.SpanNames | storage.SpanMessages | storage.NeedsOfSpans(r.Bad),
	}
	for b, err := range v.Spans(ctx, q) {
		if err != nil {
			return nil, fmt.Errorf("look for bad spans: %w", err)
		}
		for i := range b.Len() {
			x := candidate{
				trace: b.TraceID[i], start: b.Start[i], duration: b.Duration[i], name: strings.Clone(b.Name[i]),
				message: strings.Clone(b.StatusMessage[i]), status: b.Status[i], service: serviceOf(b.ResourceOf(i)),
			}
			k := cause{x.service, x.name, x.message}
			if count[k]++; count[k] == 1 || x.duration > worst[k].duration {
				worst[k] = x
			}
			all = append(all, x)
		}
	}
	ev.BadSpans = len(all)
	causes := make([]cause, 0, len(worst))
	for k := range worst {
		causes = append(causes, k)
	}
	slices.SortFunc(causes, func(a, b cause) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a.service, b.service), cmp.Compare(a.name, b.name), cmp.Compare(a.message, b.message))
	})
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(b.duration, a.duration) })
	picked := make([]candidate, 0, len(causes)+len(all))
	for _, k := range causes {
		picked = append(picked, worst[k])
	}
	picked = append(picked, all...) // few causes: more of the slowest
	var ids storage.TraceIn
	for _, x := range picked {
		if len(ids) == MaxTraces {
			break
		}
		if x.trace.IsZero() || slices.Contains(ids, x.trace) {
			continue
		}
		ids = append(ids, x.trace)
		ev.Traces = append(ev.Traces, Trace{
			TraceID: x.trace.String(), Service: x.service, Span: x.name, Status: x.status.String(), Message: shorten(x.message),
			Start: stamp(x.start), DurationMilli: float64(x.duration) / 1e6, Alike: count[cause{x.service, x.name, x.message}],
			Query: "/api/v2/traces/" + x.trace.String(), Join: "/api/v1/correlate/trace/" + x.trace.String(),
		})
	}
	return ids, nil
}

// spans finds what ran the traces, and how long each span took by itself.
func (c *Collector) spans(ctx context.Context, v storage.View, r Request, ids storage.TraceIn) (*involved, error) {
	in := &involved{resources: make(map[telemetry.ResourceID]int), self: make(map[telemetry.ResourceID]int64), from: math.MaxInt64, to: math.MinInt64}
	type key struct {
		t telemetry.TraceID
		s telemetry.SpanID
	}
	type span struct {
		res      telemetry.ResourceID
		duration int64
		parent   telemetry.SpanID
	}
	spans := make(map[key]span)
	q := storage.SpanQuery{
		Tenant: r.Tenant, Start: r.Start.Add(-time.Hour).UnixNano(), End: r.End.Add(time.Hour).UnixNano(), Where: ids,
		Columns: storage.SpanResource, Order: storage.OldestFirst, Limit: maxTraceSpans,
	}
	for b, err := range v.Spans(ctx, q) {
		if err != nil {
			return nil, fmt.Errorf("read the spans of the examples: %w", err)
		}
		for i := range b.Len() {
			in.from, in.to = min(in.from, b.Start[i]), max(in.to, b.Start[i]+b.Duration[i])
			if res := b.ResourceOf(i); res != nil {
				in.resources[res.ID]++
				spans[key{b.TraceID[i], b.SpanID[i]}] = span{res.ID, b.Duration[i], b.ParentID[i]}
			}
		}
	}
	below := make(map[key]int64)
	for k, s := range spans {
		if !s.parent.IsZero() {
			below[key{k.t, s.parent}] += s.duration
		}
	}
	for k, s := range spans {
		in.self[s.res] = max(in.self[s.res], s.duration-below[k])
	}
	return in, nil
}

// pods adds the pods behind the resources, those that took longest themselves first, and returns which pod each resource
// speaks for.
func (c *Collector) pods(ctx context.Context, v storage.View, r Request, in *involved, ev *Evidence) (map[telemetry.ResourceID]*telemetry.Entity, error) {
	ids := make([]telemetry.ResourceID, 0, len(in.resources))
	for id := range in.resources {
		ids = append(ids, id)
	}
	// Series of the pod may begin after the trace, and end before it.
	found, err := correlate.Involved(ctx, v, r.Tenant, ids, min(in.from, r.Start.UnixNano())-int64(around), max(in.to, r.End.UnixNano())+int64(around))
	if err != nil {
		return nil, fmt.Errorf("find the pods: %w", err)
	}
	of := make(map[telemetry.ResourceID]*telemetry.Entity)
	for i := range found {
		e := &found[i]
		if e.Key.Kind != telemetry.EntityPod {
			continue
		}
		p := Pod{Entity: correlate.EntityOf(e), Query: "/api/v1/correlate/resource?" + url.Values{
			"name": {e.Key.ID}, "kind": {string(e.Key.Kind)}, "start": {seconds(r.Start)}, "end": {seconds(r.End)},
		}.Encode()}
		for _, res := range e.Resources {
			of[res.Resource.ID] = e
			p.Spans += in.resources[res.Resource.ID]
			p.SlowestMilli = max(p.SlowestMilli, float64(in.self[res.Resource.ID])/1e6)
		}
		ev.Pods = append(ev.Pods, p)
	}
	slices.SortStableFunc(ev.Pods, func(a, b Pod) int { return cmp.Compare(b.SlowestMilli, a.SlowestMilli) })
	if len(ev.Pods) > MaxPods {
		ev.Incomplete = append(ev.Incomplete, fmt.Sprintf("%d more pods ran the traces", len(ev.Pods)-MaxPods))
		ev.Pods = ev.Pods[:MaxPods]
	}
	return of, nil
}

// logs adds the most severe lines of the traces.
func (c *Collector) logs(ctx context.Context, v storage.View, r Request, ids storage.TraceIn, in *involved, podOf map[telemetry.ResourceID]*telemetry.Entity, ev *Evidence) error {
	type line struct {
		Log
		severity uint8
		at       int64
	}
	var lines []line
	q := storage.LogQuery{
		Tenant: r.Tenant, Start: in.from - int64(time.Minute), End: in.to + int64(time.Minute), Where: ids, Columns: storage.LogAll,
		Order: storage.OldestFirst, Limit: maxTraceLogs,
	}
	for b, err := range v.Logs(ctx, q) {
		if err != nil {
			return fmt.Errorf("read the lines of the examples: %w", err)
		}
		for i := range b.Len() {
			rec := b.Record(i)
			l := line{severity: rec.Severity, at: rec.Time, Log: Log{
				TraceID: rec.TraceID.String(), Time: stamp(rec.Time), Severity: strings.Clone(rec.SeverityText), Body: shorten(rec.Body.Text()),
				Query: "/loki/api/v1/query_range?" + url.Values{
					"query": {b.StreamOf(i).Labels().String() + " |= " + strconv.Quote(rec.TraceID.String())}, "start": {strconv.FormatInt(rec.Time, 10)}, "end": {strconv.FormatInt(rec.Time+1, 10)},
				}.Encode(),
			}}
			if res := b.ResourceOf(i); res != nil {
				l.Service = serviceOf(res)
				if e := podOf[res.ID]; e != nil {
					l.Pod = e.Pod.Name
				}
			}
			lines = append(lines, l)
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Or(cmp.Compare(b.severity, a.severity), cmp.Compare(a.at, b.at)) })
	for i := range min(len(lines), MaxLogs) {
		ev.Logs = append(ev.Logs, lines[i].Log)
	}
	return nil
}

// kind is a figure of a pod: the metrics that tell it, the best known first.
type kind struct {
	names   []string
	counter bool // a rate is taken
	into    func(p *Pod) **Change
}

func kinds() []kind {
	return []kind{
		{[]string{"container_cpu_usage_seconds_total", "process_cpu_seconds_total", "process_cpu_time_seconds_total", "k8s_pod_cpu_time_seconds_total"}, true, func(p *Pod) **Change { return &p.CPU }},
		{[]string{"container_cpu_usage", "k8s_pod_cpu_usage"}, false, func(p *Pod) **Change { return &p.CPU }},
		{[]string{"container_memory_working_set_bytes", "process_resident_memory_bytes", "process_memory_usage_bytes", "k8s_pod_memory_working_set_bytes", "go_memory_used_bytes", "process_runtime_go_mem_heap_alloc_bytes"}, false, func(p *Pod) **Change { return &p.Memory }},
		{[]string{"kube_pod_container_status_restarts_total", "k8s_container_restarts"}, false, func(p *Pod) **Change { return &p.Restarts }},
	}
}

// changes compares CPU, memory and restarts of each pod with those before.
func (c *Collector) changes(ctx context.Context, v storage.View, r Request, ev *Evidence, podOf map[telemetry.ResourceID]*telemetry.Entity) error {
	window := max(r.End.Sub(r.Start), minWindow).Round(time.Millisecond)
	before := r.End.Add(-window)
	for i := range ev.Pods {
		p := &ev.Pods[i]
		var ids []telemetry.ResourceID
		for id, e := range podOf {
			if e.Key.Kind == p.Kind && e.Key.ID == p.ID {
				ids = append(ids, id)
			}
		}
		sets, err := v.LabelSets(ctx, storage.SeriesQuery{Tenant: r.Tenant, Start: before.Add(-window).UnixMilli(), End: r.End.UnixMilli(), Resources: ids})
		if err != nil {
			return fmt.Errorf("find the series of pod %s: %w", p.ID, err)
		}
		for _, k := range kinds() {
			sel := selector(sets, k.names)
			if sel == "" || *k.into(p) != nil {
				continue
			}
			ch := &Change{Query: "sum(avg_over_time(" + sel + "[" + model.Duration(window).String() + "]))", NowTime: stamp(r.End.UnixNano()), BeforeTime: stamp(before.UnixNano())}
			if k.counter {
				ch.Query = strings.Replace(ch.Query, "avg_over_time", "rate", 1)
			}
			if *k.into(p) = ch; k.names[0] == "kube_pod_container_status_restarts_total" {
				ch.Query = "sum(" + sel + ")"
			}
			if ch.Now, err = c.number(ctx, r.Tenant, ch.Query, r.End); err != nil {
				return err
			}
			if ch.Before, err = c.number(ctx, r.Tenant, ch.Query, before); err != nil {
				return err
			}
		}
	}
	return nil
}

// selector returns a selector of the series of the first metric that there is: by all labels that they share.
func selector(sets []telemetry.LabelSet, names []string) string {
	for _, name := range names {
		var shared map[string]string
		for _, s := range sets {
			if s.Get(model.MetricNameLabel) != name || name == "container_cpu_usage_seconds_total" && s.Get("container") == "" && s.Get("cpu") == "" {
				continue
			}
			own := s.Labels().Map()
			if shared == nil {
				shared = own
				continue
			}
			for k, v := range shared {
				if own[k] != v {
					delete(shared, k)
				}
			}
		}
		if shared != nil {
			return labels.FromMap(shared).String()
		}
	}
	return ""
}

// number evaluates an expression that gives one number, or none.
func (c *Collector) number(ctx context.Context, t telemetry.Tenant, expr string, at time.Time) (*float64, error) {
	a, err := c.engine.Query(ctx, promql.Request{Tenant: t, Expr: expr, End: at})
	if err != nil {
		return nil, fmt.Errorf("evaluate %s: %w", expr, err)
	}
	defer a.Close()
	v, ok := a.Value.(prompromql.Vector)
	if !ok {
		return nil, errors.New("the expression gives no vector")
	}
	if len(v) == 0 || math.IsNaN(v[0].F) || math.IsInf(v[0].F, 0) {
		return nil, nil //nolint:nilnil // there is none
	}
	return &v[0].F, nil
}

func serviceOf(r *telemetry.Resource) string {
	if r == nil {
		return ""
	}
	v, _ := r.Attrs.Get("service.name")
	return strings.Clone(v.Text())
}

// shorten returns the beginning of a long text, cut between characters.
func shorten(s string) string {
	if len(s) > maxBody {
		s = strings.ToValidUTF8(s[:maxBody], "") + "..."
	}
	return strings.Clone(s)
}

func stamp(nanos int64) string { return time.Unix(0, nanos).UTC().Format(time.RFC3339Nano) }

func seconds(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
