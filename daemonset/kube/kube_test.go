package kube_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braidobs/braid/daemonset/kube"
	"github.com/braidobs/braid/storage/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// apiServer lists and watches pods as the API server does, as far as an informer asks.
type apiServer struct {
	mu       sync.Mutex // guards what follows
	pods     []corev1.Pod
	events   chan map[string]any
	selector []string
	auth     []string
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.mu.Lock()
	s.selector = append(s.selector, q.Get("fieldSelector"))
	s.auth = append(s.auth, r.Header.Get("Authorization"))
	pods := s.pods
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path != "/api/v1/pods" {
		http.NotFound(w, r)
		return
	}
	if q.Get("watch") == "" {
		_ = json.NewEncoder(w).Encode(corev1.PodList{
			TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: pods,
		})
		return
	}
	if q.Get("sendInitialEvents") != "" { // an API server without streaming lists
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonInvalid, Code: 422})
		return
	}
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-s.events:
			_ = json.NewEncoder(w).Encode(e)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

func pod(uid, name, ip string, change ...func(*corev1.Pod)) corev1.Pod {
	p := corev1.Pod{
		TypeMeta:   metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid), Namespace: "shop", Name: name, ResourceVersion: "1", Labels: map[string]string{}, Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "main", Image: "cart:1", Env: []corev1.EnvVar{{Name: "SECRET", Value: "x"}}, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: ip}}, StartTime: &metav1.Time{Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://abc"}},
		},
	}
	for _, f := range change {
		f(&p)
	}
	return p
}

func TestWatch(t *testing.T) {
	api := &apiServer{events: make(chan map[string]any)}
	api.pods = []corev1.Pod{pod("u1", "cart-abc-1", "10.0.0.1", func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "cart-abc", Controller: &yes}}
		p.Labels["pod-template-hash"] = "abc"
	})}
	srv := httptest.NewServer(api)
	defer srv.Close()
	disk := vfs.NewMem()
	require.NoError(t, vfs.MkdirAllSync(disk, "state"))
	start := func(url string) (*kube.Table, func()) {
		table := kube.NewTable()
		w, err := kube.NewWatcher(kube.Config{Node: "n1", API: url}, kube.Deps{
			Table: table, FS: disk, File: "state/pods.json", InUse: func(*kube.Pod) bool { return false },
			Now: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		return table, func() {
			cancel()
			require.NoError(t, <-done)
		}
	}
	table, stop := start(srv.URL)
	require.Eventually(t, table.Synced, 20*time.Second, time.Millisecond)
	p := table.ByIP(netip.MustParseAddr("::ffff:10.0.0.1"))
	require.NotNil(t, p)
	require.Equal(t, "u1", p.UID)
	require.Equal(t, []kube.Attr{
		{"service.name", "cart"},
		{"k8s.namespace.name", "shop"},
		{"k8s.pod.name", "cart-abc-1"},
		{"k8s.pod.uid", "u1"},
		{"k8s.node.name", "n1"},
		{"k8s.deployment.name", "cart"},
		{"k8s.container.name", "main"},
		{"container.id", "abc"},
		{"container.image.name", "cart:1"},
	}, p.Attrs("main"))

	changed := table.Changed()
	api.events <- map[string]any{"type": "ADDED", "object": pod("u2", "db-0", "10.0.0.2")}
	<-changed
	require.NotNil(t, table.ByName("shop", "db-0"))
	api.events <- map[string]any{"type": "DELETED", "object": pod("u1", "cart-abc-1", "10.0.0.1")}
	require.Eventually(t, func() bool { return len(table.All()) == 1 }, 20*time.Second, time.Millisecond)
	require.NotNil(t, table.ByUID("u1"), "its last lines may be on their way")
	// The address goes to the next pod at once.
	api.events <- map[string]any{"type": "ADDED", "object": pod("u3", "cart-abc-2", "10.0.0.1")}
	require.Eventually(t, func() bool { return table.ByIP(netip.MustParseAddr("10.0.0.1")).UID == "u3" }, 20*time.Second, time.Millisecond)
	stop()
	for _, s := range api.selector {
		require.Equal(t, "spec.nodeName=n1", s)
	}
	b, err := vfs.ReadFile(disk, "state/pods.json", 1<<20)
	require.NoError(t, err)
	require.NotContains(t, string(b), "SECRET")

	// Without the API server the last state serves.
	table, stop = start("http://127.0.0.1:1")
	require.False(t, table.Synced())
	require.Equal(t, "u3", table.ByIP(netip.MustParseAddr("10.0.0.1")).UID)
	stop()

	// What went meanwhile is noticed.
	api.mu.Lock()
	api.pods = []corev1.Pod{pod("u3", "cart-abc-2", "10.0.0.1")}
	api.mu.Unlock()
	table, stop = start(srv.URL)
	require.Eventually(t, func() bool { return table.Synced() && len(table.All()) == 1 }, 20*time.Second, time.Millisecond)
	stop()

	require.NoError(t, vfs.WriteFileAtomic(disk, "state/pods.json", []byte("{broken")))
	table, stop = start("http://127.0.0.1:1")
	require.Empty(t, table.All())
	stop()
}

func TestTable(t *testing.T) {
	table := kube.NewTable()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ip := netip.MustParseAddr("10.0.0.1")
	table.Put(&kube.Pod{UID: "old", Namespace: "a", Name: "web-0", IPs: []netip.Addr{ip}, Start: at})
	table.Put(&kube.Pod{UID: "host", Namespace: "a", Name: "proxy", IPs: []netip.Addr{ip}, HostNetwork: true, Start: at.Add(time.Hour)})
	require.Equal(t, "old", table.ByIP(ip).UID)
	table.Put(&kube.Pod{UID: "new", Namespace: "a", Name: "web-0", IPs: []netip.Addr{ip}, Start: at.Add(time.Minute), Mirror: "hash"})
	require.Equal(t, "new", table.ByIP(ip).UID)
	require.Equal(t, "new", table.ByName("a", "web-0").UID)
	require.Equal(t, "new", table.ByUID("hash").UID)
	table.Delete("new", at)
	require.Equal(t, "old", table.ByIP(ip).UID, "one that is there goes first")
	table.Purge(at.Add(time.Hour), func(p *kube.Pod) bool { return p.UID == "new" })
	require.NotNil(t, table.ByUID("new"), "a stream of it is read still")
	table.Purge(at.Add(time.Hour), func(*kube.Pod) bool { return false })
	require.Nil(t, table.ByUID("new"))
	require.Nil(t, table.ByIP(netip.Addr{}))
}

func TestService(t *testing.T) {
	p := &kube.Pod{Name: "pod", Namespace: "ns", UID: "u", Annotations: map[string]string{}, Labels: map[string]string{}}
	require.Equal(t, "pod", p.Service("c"))
	p.OwnerName = "owner"
	require.Equal(t, "owner", p.Service("c"))
	p.Labels["app.kubernetes.io/name"] = "name"
	require.Equal(t, "name", p.Service("c"))
	p.Labels["app.kubernetes.io/instance"] = "instance"
	require.Equal(t, "instance", p.Service("c"))
	p.Annotations["resource.opentelemetry.io/service.name"] = "annotated"
	p.Annotations["resource.opentelemetry.io/team"] = "payments"
	require.Equal(t, "annotated", p.Service("c"))
	require.Contains(t, p.Attrs("c"), kube.Attr{Key: "team", Value: "payments"})
	require.False(t, p.Excluded())
	p.Annotations["fluentbit.io/exclude"] = "true"
	require.True(t, p.Excluded())
}

func TestConfig(t *testing.T) {
	require.NoError(t, kube.Config{}.Validate())
	require.ErrorContains(t, kube.Config{API: "https://x"}.Validate(), "node")
	require.ErrorContains(t, kube.Config{Node: "n", API: "x"}.Validate(), "no URL")
	_, err := kube.NewWatcher(kube.Config{Node: "n"}, kube.Deps{Table: kube.NewTable(), Metrics: prometheus.NewRegistry()})
	require.ErrorContains(t, err, "kubernetes.api is empty")
}
