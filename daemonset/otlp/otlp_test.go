package otlp_test

import (
	"context"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/braidobs/braid/daemonset/forward"
	"github.com/braidobs/braid/daemonset/kube"
	agentotlp "github.com/braidobs/braid/daemonset/otlp"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/storage"
)

var (
	cartIP = netip.MustParseAddr("10.0.0.1")
	other  = netip.MustParseAddr("10.0.0.9")
)

func pods() *kube.Table {
	t := kube.NewTable()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	t.Put(&kube.Pod{UID: "u1", Namespace: "shop", Name: "cart-1", IPs: []netip.Addr{cartIP}, OwnerKind: "Deployment", OwnerName: "cart", Start: at, Containers: []kube.Container{{Name: "main", ID: "c1"}}})
	t.Put(&kube.Pod{UID: "u2", Namespace: "shop", Name: "db-1", OwnerName: "db", Start: at, Containers: []kube.Container{{Name: "a", ID: "c2"}, {Name: "b", ID: "c3"}}})
	return t
}

// send sends one record with the given attributes in each signal and returns the attributes that each was queued with.
func send(t *testing.T, refuse bool, peer netip.Addr, attrs map[string]string) (got []map[string]any, rejected int) {
	t.Helper()
	var queued []forward.Request
	id := agentotlp.New(agentotlp.Deps{
		Pods: pods(), RefuseForged: refuse, Static: []kube.Attr{{Key: "k8s.cluster.name", Value: "c"}}, Metrics: prometheus.NewRegistry(),
		Compress: func(b []byte) []byte { return b },
		Put: func(_ context.Context, r forward.Request) error {
			queued = append(queued, r)
			return nil
		},
	})
	fill := func(m pcommon.Map) {
		for k, v := range attrs {
			m.PutStr(k, v)
		}
	}
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	fill(rs.Resource().Attributes())
	rs.ScopeSpans().AppendEmpty().Spans().AppendEmpty()
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	fill(rl.Resource().Attributes())
	rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	fill(rm.Resource().Attributes())
	rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptyGauge().DataPoints().AppendEmpty()
	for _, p := range []otlp.Payload{{Signal: storage.Traces, Traces: td}, {Signal: storage.Logs, Logs: ld}, {Signal: storage.Metrics, Metrics: md}} {
		p.Tenant, p.Peer = "team", peer
		r, err := id.Forward(t.Context(), p)
		require.NoError(t, err)
		rejected += r.Total()
	}
	for _, r := range queued {
		require.EqualValues(t, "team", r.Tenant)
		require.Equal(t, 1, r.Records)
		switch r.Signal {
		case storage.Traces:
			m := ptraceotlp.NewExportRequest()
			require.NoError(t, m.UnmarshalProto(r.Body))
			got = append(got, m.Traces().ResourceSpans().At(0).Resource().Attributes().AsRaw())
		case storage.Logs:
			m := plogotlp.NewExportRequest()
			require.NoError(t, m.UnmarshalProto(r.Body))
			got = append(got, m.Logs().ResourceLogs().At(0).Resource().Attributes().AsRaw())
		case storage.Metrics:
			m := pmetricotlp.NewExportRequest()
			require.NoError(t, m.UnmarshalProto(r.Body))
			got = append(got, m.Metrics().ResourceMetrics().At(0).Resource().Attributes().AsRaw())
		}
	}
	return got, rejected
}

func TestIdentity(t *testing.T) {
	cart := map[string]any{
		"service.name": "cart", "k8s.namespace.name": "shop", "k8s.pod.name": "cart-1", "k8s.pod.uid": "u1", "k8s.deployment.name": "cart",
		"k8s.container.name": "main", "container.id": "c1", "k8s.cluster.name": "c",
	}
	with := func(base map[string]any, kv ...any) map[string]any {
		out := map[string]any{}
		maps.Copy(out, base)
		for i := 0; i < len(kv); i += 2 {
			out[kv[i].(string)] = kv[i+1]
		}
		return out
	}
	db := map[string]any{"service.name": "db", "k8s.namespace.name": "shop", "k8s.pod.name": "db-1", "k8s.pod.uid": "u2", "k8s.cluster.name": "c"}
	for _, tt := range []struct {
		name   string
		refuse bool
		peer   netip.Addr
		attrs  map[string]string
		want   map[string]any // nil: refused
	}{
		{"by address", true, cartIP, nil, cart},
		{"unknown address", true, other, map[string]string{"a": "b"}, map[string]any{"a": "b", "k8s.cluster.name": "c"}},
		{"the SDK's name for no name", true, cartIP, map[string]string{"service.name": "unknown_service:app"}, cart},
		{"what is set stays", true, cartIP, map[string]string{"service.name": "mine", "k8s.cluster.name": "d"}, with(cart, "service.name", "mine", "k8s.cluster.name", "d")},
		{"by UID", true, other, map[string]string{"k8s.pod.uid": "u2"}, db},
		{"by container", true, other, map[string]string{"container.id": "c3"}, with(db, "container.id", "c3", "k8s.container.name", "b")},
		{"UID of another pod", false, cartIP, map[string]string{"k8s.pod.uid": "u2"}, db},
		{"forged UID", true, cartIP, map[string]string{"k8s.pod.uid": "u2"}, nil},
		{"forged name", true, cartIP, map[string]string{"k8s.pod.name": "db-1"}, nil},
		{"forged namespace", true, cartIP, map[string]string{"k8s.namespace.name": "kube-system"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, rejected := send(t, tt.refuse, tt.peer, tt.attrs)
			if tt.want == nil {
				require.Empty(t, got)
				require.Equal(t, 3, rejected)
				return
			}
			require.Zero(t, rejected)
			require.Equal(t, []map[string]any{tt.want, tt.want, tt.want}, got)
		})
	}
}
