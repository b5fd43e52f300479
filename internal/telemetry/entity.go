package telemetry

import (
	"slices"
	"strings"
)

// EntityKind says what kind of thing an entity is.
type EntityKind string

// The kinds of entities, from the most to the least specific.
const (
	EntityContainer EntityKind = "container"
	EntityPod       EntityKind = "pod"
	EntityInstance  EntityKind = "instance" // one instance of a service
	EntityService   EntityKind = "service"
	EntityHost      EntityKind = "host"
)

// EntityKey names what produced telemetry. A pod's ID is its UID, or cluster/namespace/name where no UID is
// known for the time in question; a container's is its pod's ID and its name; an instance's is the service's
// and its instance ID; a service's is namespace/name, or the name alone; a host's is its name.
type EntityKey struct {
	Kind EntityKind `json:"kind"`
	ID   string     `json:"id"`
}

// String returns kind and ID, as the API takes them.
func (k EntityKey) String() string { return string(k.Kind) + ":" + k.ID }

// PodKey is the name of a pod; at any one time it belongs to at most one pod.
type PodKey struct{ Cluster, Namespace, Name string }

// String returns cluster/namespace/name.
func (k PodKey) String() string { return k.Cluster + "/" + k.Namespace + "/" + k.Name }

// Identity is the evidence about its producer that a record carries, under whatever names its sender uses.
type Identity struct {
	Cluster, Namespace, Pod, PodUID string
	Container                       string
	Service, ServiceNamespace       string
	Instance                        string
	Host                            string
}

// field is one thing an attribute can tell about identity.
type field uint8

const (
	fieldNone field = iota
	fieldCluster
	fieldNamespace
	fieldPod
	fieldPodUID
	fieldContainer
	fieldService
	fieldServiceNamespace
	fieldInstance
	fieldHost
	fieldCount
)

// aliasOf returns what the attribute or label name tells, and how far it is trusted: where a record carries
// several aliases of one field the lowest rank counts. The names are those of the OpenTelemetry conventions,
// of their Prometheus translation, of cAdvisor and kube-state-metrics, and of the log shippers (Promtail,
// Alloy, Fluent Bit, Vector). They feed identity only: nothing is ever stored under another name.
func aliasOf(name string) (field, int) {
	switch name {
	case "k8s.cluster.name", "k8s_cluster_name":
		return fieldCluster, 0
	case "cluster", "cluster_name":
		return fieldCluster, 1
	case "k8s.namespace.name", "k8s_namespace_name":
		return fieldNamespace, 0
	case "kubernetes.namespace_name", "kubernetes_namespace_name", "kubernetes.namespace", "kubernetes_namespace", "kubernetes.pod_namespace", "kubernetes_pod_namespace", "pod_namespace":
		return fieldNamespace, 1
	case "namespace", "namespace_name":
		return fieldNamespace, 2
	case "k8s.pod.name", "k8s_pod_name":
		return fieldPod, 0
	case "kubernetes.pod_name", "kubernetes_pod_name", "kubernetes.pod.name", "kubernetes.pod":
		return fieldPod, 1
	case "pod", "pod_name":
		return fieldPod, 2
	case "k8s.pod.uid", "k8s_pod_uid":
		return fieldPodUID, 0
	case "kubernetes.pod_id", "kubernetes_pod_id", "kubernetes.pod_uid", "kubernetes_pod_uid", "kubernetes.pod.uid", "pod_uid", "pod_id":
		return fieldPodUID, 1
	case "k8s.container.name", "k8s_container_name":
		return fieldContainer, 0
	case "kubernetes.container_name", "kubernetes_container_name", "kubernetes.container.name":
		return fieldContainer, 1
	case "container", "container_name", "container.name":
		return fieldContainer, 2
	case "service.name", "service_name":
		return fieldService, 0
	case "job":
		return fieldService, 1
	case "app", "app_kubernetes_io_name":
		return fieldService, 2
	case "service.namespace", "service_namespace":
		return fieldServiceNamespace, 0
	case "service.instance.id", "service_instance_id":
		return fieldInstance, 0
	case "instance":
		return fieldInstance, 1
	case "host.name", "host_name":
		return fieldHost, 0
	case "k8s.node.name", "k8s_node_name":
		return fieldHost, 1
	case "kubernetes.host", "kubernetes_host", "node", "nodename", "hostname":
		return fieldHost, 2
	default:
		return fieldNone, 0
	}
}

// collector picks the most trusted value of each field.
type collector struct {
	val  [fieldCount]string
	rank [fieldCount]int
	job  string
}

func (c *collector) add(name, value string) {
	f, rank := aliasOf(name)
	if f == fieldNone || value == "" {
		return
	}
	if name == "job" {
		c.job = value
	}
	if c.val[f] == "" || rank < c.rank[f] {
		c.val[f], c.rank[f] = value, rank
	}
}

func (c *collector) identity() Identity {
	id := Identity{
		Cluster: c.val[fieldCluster], Namespace: c.val[fieldNamespace], Pod: c.val[fieldPod], PodUID: c.val[fieldPodUID],
		Container: c.val[fieldContainer], Service: c.val[fieldService], ServiceNamespace: c.val[fieldServiceNamespace],
		Instance: c.val[fieldInstance], Host: c.val[fieldHost],
	}
	// The OTLP translation writes service.namespace/service.name into job.
	if id.Service == c.job && id.ServiceNamespace == "" {
		if ns, name, ok := strings.Cut(c.job, "/"); ok && ns != "" && name != "" && !strings.Contains(name, "/") {
			id.ServiceNamespace, id.Service = ns, name
		}
	}
	return id
}

// IdentityOf returns what the attributes of a resource tell.
func IdentityOf(as Attrs) Identity {
	var c collector
	for i := range as {
		if f, _ := aliasOf(as[i].Key); f != fieldNone {
			c.add(as[i].Key, as[i].Value.Text())
		}
	}
	return c.identity()
}

// LabelResource returns a resource made of those labels of s that tell identity, or nil when none does. It is
// how series without a resource of their own (remote write, scrape) take part in joins.
func LabelResource(s LabelSet) *Resource {
	var as []Attr
	s.Range(func(name, value string) {
		if f, _ := aliasOf(name); f != fieldNone {
			as = append(as, Attr{Key: name, Value: String(value)})
		}
	})
	if len(as) == 0 {
		return nil
	}
	return NewResource("", NewAttrs(as))
}

// PodKey returns the pod's name, if it has one.
func (id *Identity) PodKey(defaultCluster string) (PodKey, bool) {
	if id.Pod == "" {
		return PodKey{}, false
	}
	c := id.Cluster
	if c == "" {
		c = defaultCluster
	}
	return PodKey{Cluster: c, Namespace: id.Namespace, Name: id.Pod}, true
}

// ServiceID returns the ID of the service's entity, "" without one.
func (id *Identity) ServiceID() string {
	if id.Service == "" || id.ServiceNamespace == "" {
		return id.Service
	}
	return id.ServiceNamespace + "/" + id.Service
}

// keys returns the entities of the identity, given the ID of its pod ("" without one).
func (id *Identity) keys(pod string) []EntityKey {
	var ks []EntityKey
	if pod != "" && id.Container != "" {
		ks = append(ks, EntityKey{EntityContainer, pod + "/" + id.Container})
	}
	if pod != "" {
		ks = append(ks, EntityKey{EntityPod, pod})
	}
	svc := id.ServiceID()
	if svc != "" && id.Instance != "" {
		ks = append(ks, EntityKey{EntityInstance, svc + "/" + id.Instance})
	}
	if svc != "" {
		ks = append(ks, EntityKey{EntityService, svc})
	}
	if id.Host != "" {
		ks = append(ks, EntityKey{EntityHost, id.Host})
	}
	return ks
}

// names returns every name under which somebody may ask for the entity k of this identity.
func (id *Identity) names(k EntityKey, pod PodKey) []string {
	switch k.Kind {
	case EntityPod:
		return []string{k.ID, pod.Name, pod.Namespace + "/" + pod.Name, pod.String()}
	case EntityContainer:
		return []string{k.ID, id.Container, pod.Name + "/" + id.Container, pod.Namespace + "/" + pod.Name + "/" + id.Container}
	case EntityInstance:
		return []string{k.ID, id.Instance}
	case EntityService:
		return []string{k.ID, id.Service}
	case EntityHost:
		return []string{k.ID}
	default:
		return nil
	}
}

// Named says whether the entity k may be asked for as name.
func (id *Identity) Named(k EntityKey, pod PodKey, name string) bool {
	return slices.Contains(id.names(k, pod), name)
}
