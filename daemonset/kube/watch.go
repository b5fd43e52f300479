package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/storage/vfs"
)

// Config is section "kubernetes" of the agent's configuration.
type Config struct {
	Node      string `yaml:"node" help:"The name of the agent's node; empty outside Kubernetes."`
	API       string `yaml:"api" help:"The URL of the API server; empty for the one of the cluster that the agent runs in."`
	TokenFile string `yaml:"token_file" help:"The token for api; empty for that of the agent's service account."`
	CAFile    string `yaml:"ca_file" help:"The certificates that vouch for api; empty for those of the service account."`
}

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	if c.Node == "" && c.API != "" {
		e.Field("node", errors.New("must be given with api"))
	}
	if u, err := url.Parse(c.API); c.API != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		e.Field("api", fmt.Errorf("%q is no URL", c.API))
	}
	return e.Err()
}

// Enabled says whether there is a Kubernetes to watch.
func (c Config) Enabled() bool { return c.Node != "" }

const (
	maxTableFile = 64 << 20
	saveEvery    = 10 * time.Second
)

// Deps are what a watcher depends on.
type Deps struct {
	Table   *Table
	FS      vfs.FS
	File    string // where the last table is kept; empty for nowhere
	InUse   func(*Pod) bool
	Now     func() time.Time
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Watcher keeps a table up to date.
type Watcher struct {
	cfg    Config
	d      Deps
	client *rest.RESTClient
	events *prometheus.CounterVec
}

// NewWatcher returns a watcher and fills the table from disk. It fails when the agent is to watch and has no way to.
func NewWatcher(cfg Config, d Deps) (*Watcher, error) {
	w := &Watcher{cfg: cfg, d: d, events: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "braid_kube_events_total", Help: "Changes of the node's pods seen.",
	}, []string{"event"})}
	d.Metrics.MustRegister(w.events, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "braid_kube_pods", Help: "Pods of the node that are known.",
	}, func() float64 { return float64(len(d.Table.All())) }))
	rc, err := w.restConfig()
	if err != nil {
		return nil, err
	}
	if w.client, err = rest.RESTClientFor(rc); err != nil {
		return nil, fmt.Errorf("client of the Kubernetes API: %w", err)
	}
	w.load()
	return w, nil
}

func (w *Watcher) restConfig() (*rest.Config, error) {
	rc := &rest.Config{Host: w.cfg.API, BearerTokenFile: w.cfg.TokenFile, TLSClientConfig: rest.TLSClientConfig{CAFile: w.cfg.CAFile}}
	if w.cfg.API == "" {
		var err error
		if rc, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("setting kubernetes.node is given, but the agent does not run in a cluster and kubernetes.api is empty: %w", err)
		}
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("scheme of the Kubernetes API: %w", err)
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	rc.APIPath, rc.GroupVersion = "/api", &corev1.SchemeGroupVersion
	rc.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	rc.ContentType = runtime.ContentTypeProtobuf
	rc.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	rc.UserAgent = "braid-agent"
	rc.QPS, rc.Burst = 5, 10
	return rc, nil
}

// Run watches until ctx ends. A failing API server is tried again for ever.
func (w *Watcher) Run(ctx context.Context) error {
	lw := cache.NewListWatchFromClient(w.client, "pods", metav1.NamespaceAll, fields.OneTermEqualSelector("spec.nodeName", w.cfg.Node))
	lw.DisableChunking = true
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw, ObjectType: &corev1.Pod{}, Transform: strip,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { w.put("add", o) },
			UpdateFunc: func(_, o any) { w.put("update", o) },
			DeleteFunc: w.remove,
		},
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		informer.RunWithContext(ctx)
	}()
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			w.reconcile()
			w.d.Table.setSynced()
		}
	}()
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	dirty := w.d.Table.Changed()
	for {
		select {
		case <-ctx.Done():
			<-done
			<-synced
			return w.save()
		case <-save.C:
			w.d.Table.Purge(w.d.Now(), w.d.InUse)
			select {
			case <-dirty:
				dirty = w.d.Table.Changed()
				if err := w.save(); err != nil {
					w.d.Log.Warn("the table of pods cannot be saved; a restart without the API server will not know them", "err", err)
				}
			default:
			}
		}
	}
}

// reconcile marks as deleted what the table has from disk and the API server has not.
func (w *Watcher) reconcile() {
	for _, p := range w.d.Table.All() {
		if p.stale {
			w.d.Table.Delete(p.UID, w.d.Now())
		}
	}
}

// strip removes what is not used before it is cached.
func strip(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	p.ManagedFields, p.Finalizers = nil, nil
	p.Spec.Volumes, p.Spec.Affinity, p.Spec.Tolerations, p.Spec.EphemeralContainers = nil, nil, nil, nil
	p.Status.Conditions = nil
	delete(p.Annotations, "kubectl.kubernetes.io/last-applied-configuration")
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			list[i] = corev1.Container{Name: list[i].Name, Image: list[i].Image, Ports: list[i].Ports}
		}
	}
	return p, nil
}

func (w *Watcher) put(event string, o any) {
	if p, ok := o.(*corev1.Pod); ok {
		w.events.WithLabelValues(event).Inc()
		w.d.Table.Put(podOf(p))
	}
}

func (w *Watcher) remove(o any) {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	if p, ok := o.(*corev1.Pod); ok {
		w.events.WithLabelValues("delete").Inc()
		w.d.Table.Delete(string(p.UID), w.d.Now())
	}
}

// podOf keeps of a pod what the agent needs.
func podOf(p *corev1.Pod) *Pod {
	out := &Pod{
		UID: string(p.UID), Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork,
		Labels: p.Labels, Annotations: p.Annotations, Running: p.Status.Phase == corev1.PodRunning,
	}
	if p.Status.StartTime != nil {
		out.Start = p.Status.StartTime.Time
	}
	for _, k := range []string{"kubernetes.io/config.mirror", "kubernetes.io/config.hash"} {
		if out.Mirror == "" {
			out.Mirror = p.Annotations[k]
		}
	}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out.IPs = append(out.IPs, a.Unmap().WithZone(""))
		}
	}
	ids := make(map[string]string)
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range list {
			_, id, _ := strings.Cut(list[i].ContainerID, "://")
			ids[list[i].Name] = id
		}
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			c := Container{Name: list[i].Name, Image: list[i].Image, ID: ids[list[i].Name]}
			for _, port := range list[i].Ports {
				c.Ports = append(c.Ports, Port{Name: port.Name, Number: port.ContainerPort})
			}
			out.Containers = append(out.Containers, c)
		}
	}
	out.OwnerKind, out.OwnerName = owner(p)
	return out
}

// owner returns what a pod belongs to in the end. The names of ReplicaSets and Jobs end with what their makers add:
// the hash of the template, the minute of the schedule.
func owner(p *corev1.Pod) (kind, name string) {
	ref := metav1.GetControllerOf(p)
	if ref == nil {
		return "", ""
	}
	switch ref.Kind {
	case "ReplicaSet":
		if base, ok := strings.CutSuffix(ref.Name, "-"+p.Labels["pod-template-hash"]); ok && p.Labels["pod-template-hash"] != "" {
			return "Deployment", base
		}
	case "Job":
		if i := strings.LastIndexByte(ref.Name, '-'); i > 0 && len(ref.Name)-i-1 >= 8 && strings.Trim(ref.Name[i+1:], "0123456789") == "" {
			return "CronJob", ref.Name[:i]
		}
	case "Node": // a static pod
		return "", ""
	}
	return ref.Kind, ref.Name
}

// load reads the last table. One that cannot be read is as good as none.
func (w *Watcher) load() {
	if w.d.File == "" {
		return
	}
	b, err := vfs.ReadFile(w.d.FS, w.d.File, maxTableFile)
	var pods []*Pod
	if err == nil {
		err = json.Unmarshal(b, &pods)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOENT) {
			w.d.Log.Warn("the last table of pods cannot be read", "file", w.d.File, "err", err)
		}
		return
	}
	for _, p := range pods {
		if p != nil && p.UID != "" {
			p.stale = true
			w.d.Table.Put(p)
		}
	}
}

func (w *Watcher) save() error {
	if w.d.File == "" {
		return nil
	}
	b, err := json.Marshal(w.d.Table.All())
	if err != nil {
		return fmt.Errorf("encode the table of pods: %w", err)
	}
	return vfs.WriteFileAtomic(w.d.FS, w.d.File, b)
}
