// Package otlp takes what instrumented pods send to the agent of their node, writes on it which pod it is from, and
// queues it for the backend. The pod is the one that the sender names by UID or container ID, or else the one whose
// address the connection comes from. Attributes that a sender has set are never changed.
package otlp

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/braidobs/braid/daemonset/forward"
	"github.com/braidobs/braid/daemonset/kube"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/storage"
)

// Deps are what an identifier depends on.
type Deps struct {
	Pods     *kube.Table
	Compress func(body []byte) []byte
	Put      func(ctx context.Context, r forward.Request) error
	// RefuseForged rejects resources that claim to be of another pod than the one that the connection comes from.
	RefuseForged bool
	// Static are attributes of every resource that does not have them: the node, the cluster.
	Static  []kube.Attr
	Metrics prometheus.Registerer
}

// Identifier is the Forward of an ingest/otlp.Server.
type Identifier struct {
	d         Deps
	resources *prometheus.CounterVec
}

// New returns an identifier.
func New(d Deps) *Identifier {
	i := &Identifier{d: d, resources: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "braid_agent_otlp_resources_total",
		Help: "Resources received, by how their pod was found: uid, container, address, none, or forged when they were refused.",
	}, []string{"identity"})}
	d.Metrics.MustRegister(i.resources)
	return i
}

// Forward identifies and queues one request. It returns when the request is durable.
func (i *Identifier) Forward(ctx context.Context, p otlp.Payload) (storage.Rejected, error) {
	var body []byte
	var err error
	before, n := 0, 0
	forged := func(r pcommon.Resource) bool { return !i.identify(r.Attributes(), p.Peer) }
	switch p.Signal {
	case storage.Traces:
		before = p.Traces.SpanCount()
		p.Traces.ResourceSpans().RemoveIf(func(r ptrace.ResourceSpans) bool { return forged(r.Resource()) })
		if n = p.Traces.SpanCount(); n > 0 {
			body, err = ptraceotlp.NewExportRequestFromTraces(p.Traces).MarshalProto()
		}
	case storage.Logs:
		before = p.Logs.LogRecordCount()
		p.Logs.ResourceLogs().RemoveIf(func(r plog.ResourceLogs) bool { return forged(r.Resource()) })
		if n = p.Logs.LogRecordCount(); n > 0 {
			body, err = plogotlp.NewExportRequestFromLogs(p.Logs).MarshalProto()
		}
	case storage.Metrics:
		before = p.Metrics.DataPointCount()
		p.Metrics.ResourceMetrics().RemoveIf(func(r pmetric.ResourceMetrics) bool { return forged(r.Resource()) })
		if n = p.Metrics.DataPointCount(); n > 0 {
			body, err = pmetricotlp.NewExportRequestFromMetrics(p.Metrics).MarshalProto()
		}
	}
	rejected := rejectedOf(p.Signal, before-n)
	if err != nil {
		return storage.Rejected{}, fmt.Errorf("encode the request: %w", err)
	}
	if n == 0 {
		return rejected, nil
	}
	return rejected, i.d.Put(ctx, forward.Request{Signal: p.Signal, Tenant: p.Tenant, Body: i.d.Compress(body), Records: n})
}

func rejectedOf(s storage.Signal, n int) (r storage.Rejected) {
	if n == 0 {
		return r
	}
	r.Reason("a resource names another pod than the one that sent it (setting otlp.refuse_forged of the agent)")
	switch s {
	case storage.Traces:
		r.Spans = n
	case storage.Logs:
		r.Logs = n
	case storage.Metrics:
		r.Samples = n
	}
	return r
}

// identify adds what is known of the pod that a resource is of. It returns false when the resource is refused.
func (i *Identifier) identify(as pcommon.Map, peer netip.Addr) bool {
	from := i.d.Pods.ByIP(peer)
	pod, container, how := from, "", "address"
	if uid := text(as, "k8s.pod.uid"); uid != "" {
		pod, how = i.d.Pods.ByUID(uid), "uid"
		if i.d.RefuseForged && from != nil && from.UID != uid {
			i.resources.WithLabelValues("forged").Inc()
			return false
		}
	} else if id := text(as, "container.id"); id != "" {
		if p, name := i.d.Pods.ByContainer(id); p != nil {
			pod, container, how = p, name, "container"
		}
	}
	if pod != nil && i.d.RefuseForged && contradicts(as, pod) {
		i.resources.WithLabelValues("forged").Inc()
		return false
	}
	if pod == nil {
		how = "none"
	} else {
		if container == "" {
			container = text(as, "k8s.container.name")
		}
		if container == "" && len(pod.Containers) == 1 {
			container = pod.Containers[0].Name
		}
		for _, a := range pod.Attrs(container) {
			add(as, a)
		}
	}
	for _, a := range i.d.Static {
		add(as, a)
	}
	i.resources.WithLabelValues(how).Inc()
	return true
}

// contradicts says whether a resource claims another name than its pod has.
func contradicts(as pcommon.Map, p *kube.Pod) bool {
	for _, c := range []kube.Attr{{Key: "k8s.namespace.name", Value: p.Namespace}, {Key: "k8s.pod.name", Value: p.Name}} {
		if claimed := text(as, c.Key); claimed != "" && claimed != c.Value {
			return true
		}
	}
	return false
}

func text(as pcommon.Map, key string) string {
	v, ok := as.Get(key)
	if !ok || v.Type() != pcommon.ValueTypeStr {
		return ""
	}
	return v.Str()
}

// add sets an attribute that is missing; the name that SDKs give a service without one counts as missing.
func add(as pcommon.Map, a kube.Attr) {
	old, ok := as.Get(a.Key)
	if ok && (a.Key != "service.name" || !strings.HasPrefix(old.AsString(), "unknown_service")) {
		return
	}
	if a.Value != "" {
		as.PutStr(a.Key, a.Value)
	}
}
