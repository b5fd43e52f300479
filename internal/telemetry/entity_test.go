package telemetry_test

import (
	"maps"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
)

func TestIdentityOf(t *testing.T) {
	want := telemetry.Identity{
		Cluster: "c", Namespace: "n", Pod: "p", PodUID: "u", Container: "k", Service: "s", ServiceNamespace: "sn", Instance: "i", Host: "h",
	}
	tests := []struct {
		name  string
		attrs map[string]string
		want  telemetry.Identity
	}{
		{"nothing", map[string]string{"http.route": "/"}, telemetry.Identity{}},
		{"empty values tell nothing", map[string]string{"k8s.pod.name": "", "pod": "p"}, telemetry.Identity{Pod: "p"}},
		{"OpenTelemetry", map[string]string{
			"k8s.cluster.name": "c", "k8s.namespace.name": "n", "k8s.pod.name": "p", "k8s.pod.uid": "u", "k8s.container.name": "k",
			"service.name": "s", "service.namespace": "sn", "service.instance.id": "i", "host.name": "h",
		}, want},
		{"its translation to Prometheus", map[string]string{
			"k8s_cluster_name": "c", "k8s_namespace_name": "n", "k8s_pod_name": "p", "k8s_pod_uid": "u", "k8s_container_name": "k",
			"job": "sn/s", "instance": "i", "host_name": "h",
		}, want},
		{"cAdvisor", map[string]string{"namespace": "n", "pod": "p", "container": "k", "node": "h"}, telemetry.Identity{Namespace: "n", Pod: "p", Container: "k", Host: "h"}},
		{"Fluent Bit", map[string]string{
			"kubernetes.namespace_name": "n", "kubernetes.pod_name": "p", "kubernetes.pod_id": "u", "kubernetes.container_name": "k", "kubernetes.host": "h",
		}, telemetry.Identity{Namespace: "n", Pod: "p", PodUID: "u", Container: "k", Host: "h"}},
		{"Vector", map[string]string{
			"kubernetes.pod_namespace": "n", "kubernetes.pod_name": "p", "kubernetes.pod_uid": "u", "kubernetes.container_name": "k",
		}, telemetry.Identity{Namespace: "n", Pod: "p", PodUID: "u", Container: "k"}},
		{"Promtail", map[string]string{"namespace": "n", "pod": "p", "container": "k", "app": "s", "cluster": "c"}, telemetry.Identity{Cluster: "c", Namespace: "n", Pod: "p", Container: "k", Service: "s"}},
		{"Alloy", map[string]string{"k8s_namespace_name": "n", "service_name": "s", "service_namespace": "sn"}, telemetry.Identity{Namespace: "n", Service: "s", ServiceNamespace: "sn"}},
		{"the most trusted name counts", map[string]string{"pod": "exporter", "kubernetes.pod_name": "shipper", "k8s.pod.name": "p", "job": "x", "service.name": "s"}, telemetry.Identity{Pod: "p", Service: "s"}},
		{"a job with more slashes is a name", map[string]string{"job": "a/b/c"}, telemetry.Identity{Service: "a/b/c"}},
		{"a job that ends in a slash", map[string]string{"job": "a/"}, telemetry.Identity{Service: "a/"}},
		{"service.name is never split", map[string]string{"service.name": "a/b"}, telemetry.Identity{Service: "a/b"}},
		{"job and a namespace of its own", map[string]string{"job": "a/b", "service_namespace": "sn"}, telemetry.Identity{Service: "a/b", ServiceNamespace: "sn"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var as []telemetry.Attr
			for k, v := range tt.attrs {
				as = append(as, str(k, v))
			}
			require.Equal(t, tt.want, telemetry.IdentityOf(telemetry.NewAttrs(as)))
			set := map[string]string{"__name__": "up", "code": "200"}
			maps.Copy(set, tt.attrs)
			r := telemetry.LabelResource(telemetry.NewLabelSet(labels.FromMap(set)))
			if tt.want == (telemetry.Identity{}) {
				require.Nil(t, r)
				return
			}
			require.Equal(t, tt.want, telemetry.IdentityOf(r.Attrs), "labels tell the same")
			_, ok := r.Attrs.Get("code")
			require.False(t, ok)
		})
	}
}

func TestServiceID(t *testing.T) {
	require.Empty(t, (&telemetry.Identity{ServiceNamespace: "n"}).ServiceID())
	require.Equal(t, "s", (&telemetry.Identity{Service: "s"}).ServiceID())
	require.Equal(t, "n/s", (&telemetry.Identity{Service: "s", ServiceNamespace: "n"}).ServiceID())
}

func TestPodKeyTakesTheDefaultCluster(t *testing.T) {
	_, ok := (&telemetry.Identity{Namespace: "n"}).PodKey("c")
	require.False(t, ok)
	k, ok := (&telemetry.Identity{Namespace: "n", Pod: "p"}).PodKey("c")
	require.True(t, ok)
	require.Equal(t, "c/n/p", k.String())
	k, _ = (&telemetry.Identity{Cluster: "d", Namespace: "n", Pod: "p"}).PodKey("c")
	require.Equal(t, "d/n/p", k.String())
}
