// Package kube knows the pods of the agent's node: by one watch of the API server restricted to the node, by name, UID
// and address, with what a record of them is to carry. Nothing waits for it: without Kubernetes, or while the API
// server is away, it knows what it knew, the last state from disk included.
package kube

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Pod is what is kept of a pod.
type Pod struct {
	UID         string            `json:"uid"`
	Mirror      string            `json:"mirror,omitempty"` // of a static pod: the UID that its log folder has
	Namespace   string            `json:"namespace"`
	Name        string            `json:"name"`
	Node        string            `json:"node,omitempty"`
	IPs         []netip.Addr      `json:"ips,omitempty"`
	HostNetwork bool              `json:"hostNetwork,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	OwnerKind   string            `json:"ownerKind,omitempty"` // Deployment, StatefulSet, ...: what the pod belongs to in the end
	OwnerName   string            `json:"ownerName,omitempty"`
	Containers  []Container       `json:"containers,omitempty"`
	Start       time.Time         `json:"start,omitzero"`
	Running     bool              `json:"running,omitempty"`
	Gone        time.Time         `json:"gone,omitzero"` // when it was deleted; kept until nobody needs it

	stale bool // from disk, not seen since the start
}

// Container is a container of a pod.
type Container struct {
	Name  string `json:"name"`
	Image string `json:"image,omitempty"`
	ID    string `json:"id,omitempty"` // without the runtime's prefix
	Ports []Port `json:"ports,omitempty"`
}

// Port is a declared port of a container.
type Port struct {
	Name   string `json:"name,omitempty"`
	Number int32  `json:"number"`
}

// Attr is an attribute of a resource.
type Attr struct{ Key, Value string }

const (
	annotationPrefix = "resource.opentelemetry.io/"
	// maxPods bounds the table; a node has some hundreds.
	maxPods = 10_000
	// keepGone is how long a deleted pod is kept in any case: its last lines and requests are on their way.
	keepGone = 2 * time.Minute
)

// Table is the pods of a node. It is safe for concurrent use.
type Table struct {
	mu      sync.Mutex      // guards what follows
	pods    map[string]*Pod // by UID; a pod is never changed, but replaced
	byName  map[[2]string]*Pod
	byIP    map[netip.Addr]*Pod
	changed chan struct{} // closed and replaced when something changes
	synced  bool
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{pods: map[string]*Pod{}, byName: map[[2]string]*Pod{}, byIP: map[netip.Addr]*Pod{}, changed: make(chan struct{})}
}

// Changed returns a channel that is closed at the next change.
func (t *Table) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// Synced says whether the table has been filled from the API server since the start.
func (t *Table) Synced() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.synced
}

func (t *Table) setSynced() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.synced = true
	t.touch()
}

// touch needs mu.
func (t *Table) touch() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Put adds or replaces a pod, which the table then owns.
func (t *Table) Put(p *Pod) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.pods[p.UID]; !known && len(t.pods) >= maxPods {
		return
	}
	t.pods[p.UID] = p
	t.index()
}

// Delete notes that a pod was deleted.
func (t *Table) Delete(uid string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.pods[uid]
	if old == nil || !old.Gone.IsZero() {
		return
	}
	p := *old
	p.Gone, p.Running = now, false
	t.pods[uid] = &p
	t.index()
}

// Purge forgets pods that were deleted a while ago and that inUse does not name.
func (t *Table) Purge(now time.Time, inUse func(*Pod) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.pods)
	maps.DeleteFunc(t.pods, func(_ string, p *Pod) bool { return !p.Gone.IsZero() && now.Sub(p.Gone) > keepGone && !inUse(p) })
	if len(t.pods) != n {
		t.index()
	}
}

// index needs mu. Of several pods with a name or an address the one that is there counts, then the youngest.
func (t *Table) index() {
	clear(t.byName)
	clear(t.byIP)
	for _, p := range t.pods {
		name := [2]string{p.Namespace, p.Name}
		if p.before(t.byName[name]) {
			t.byName[name] = p
		}
		if p.HostNetwork {
			continue
		}
		for _, ip := range p.IPs {
			if p.before(t.byIP[ip]) {
				t.byIP[ip] = p
			}
		}
	}
	t.touch()
}

// before says whether p is a better answer than o.
func (p *Pod) before(o *Pod) bool {
	if o == nil {
		return true
	}
	if p.Gone.IsZero() != o.Gone.IsZero() {
		return p.Gone.IsZero()
	}
	if c := p.Start.Compare(o.Start); c != 0 {
		return c > 0
	}
	return p.UID > o.UID
}

// ByUID returns the pod with a UID, that of the folder of a static pod included, or nil. It must not be changed.
func (t *Table) ByUID(uid string) *Pod {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.pods[uid]; p != nil {
		return p
	}
	for _, p := range t.pods {
		if p.Mirror != "" && p.Mirror == uid {
			return p
		}
	}
	return nil
}

// ByContainer returns the pod with a container, by the container's ID, and the container's name; or nil.
func (t *Table) ByContainer(id string) (*Pod, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.pods {
		for i := range p.Containers {
			if p.Containers[i].ID == id {
				return p, p.Containers[i].Name
			}
		}
	}
	return nil, ""
}

// ByName returns the pod with a name, or nil.
func (t *Table) ByName(namespace, name string) *Pod {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byName[[2]string{namespace, name}]
}

// ByIP returns the pod with an address, or nil. Pods in the network of the host have none of their own.
func (t *Table) ByIP(ip netip.Addr) *Pod {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byIP[ip.Unmap().WithZone("")]
}

// All returns the pods that are there, by namespace and name.
func (t *Table) All() []*Pod {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*Pod, 0, len(t.pods))
	for _, p := range t.pods {
		if p.Gone.IsZero() {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return out
}

// Container returns the container with a name, or nil.
func (p *Pod) Container(name string) *Container {
	for i := range p.Containers {
		if p.Containers[i].Name == name {
			return &p.Containers[i]
		}
	}
	return nil
}

// Service returns the service name of a container by the order that OpenTelemetry names: annotation, the labels
// app.kubernetes.io/instance and name, what owns the pod, the pod, the container.
func (p *Pod) Service(container string) string {
	return cmp.Or(p.Annotations[annotationPrefix+"service.name"], p.Labels["app.kubernetes.io/instance"],
		p.Labels["app.kubernetes.io/name"], p.OwnerName, p.Name, container)
}

// Attrs returns what a record of the pod carries, in OpenTelemetry's names; container may be empty.
func (p *Pod) Attrs(container string) []Attr {
	out := []Attr{
		{"service.name", p.Service(container)}, {"k8s.namespace.name", p.Namespace}, {"k8s.pod.name", p.Name}, {"k8s.pod.uid", p.UID},
	}
	add := func(key, value string) {
		if value != "" {
			out = append(out, Attr{key, value})
		}
	}
	add("k8s.node.name", p.Node)
	add("service.version", p.Labels["app.kubernetes.io/version"])
	switch p.OwnerKind {
	case "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicaSet":
		add("k8s."+strings.ToLower(p.OwnerKind)+".name", p.OwnerName)
	}
	if c := p.Container(container); c != nil {
		add("k8s.container.name", c.Name)
		add("container.id", c.ID)
		add("container.image.name", c.Image)
	} else {
		add("k8s.container.name", container)
	}
	for _, k := range slices.Sorted(maps.Keys(p.Annotations)) {
		if name, ok := strings.CutPrefix(k, annotationPrefix); ok && name != "service.name" && p.Annotations[k] != "" {
			out = slices.DeleteFunc(out, func(a Attr) bool { return a.Key == name })
			add(name, p.Annotations[k])
		}
	}
	return out
}

// Excluded says whether an annotation asks to leave the pod's logs alone.
func (p *Pod) Excluded() bool {
	for _, k := range []string{"braid.dev/exclude", "fluentbit.io/exclude", "vector.dev/exclude"} {
		if p.Annotations[k] == "true" {
			return true
		}
	}
	return p.Annotations["io.opentelemetry.discovery.logs/enabled"] == "false"
}
