package instrument

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Identity says which pod a service pretends to run in. Every signal of the service carries it.
type Identity struct {
	Service     string
	Version     string
	InstanceID  string // a new UUID per process: a restarted container is another instance of the same pod
	Namespace   string
	Pod         string
	PodUID      string
	Container   string
	Deployment  string
	Node        string
	Cluster     string
	Environment string
	Extra       map[string]string // wins over everything above
}

// NewIdentity names the pod of a service. The names of the pod, its UID and its node follow from the arguments alone,
// so two runs with one seed produce the same pods; only the instance ID is new each time.
func NewIdentity(service, instance, version string, seed uint64) Identity {
	template := digest("template", service, version, 0)
	pod := digest("pod", service, instance+"/"+version, seed)
	uid, err := uuid.FromBytes(pod[16:32])
	if err != nil {
		panic(err) // 16 bytes are always a UUID
	}
	uid[6] = uid[6]&0x0f | 0x40 // version 4, as Kubernetes makes them
	uid[8] = uid[8]&0x3f | 0x80
	return Identity{
		Service:     service,
		Version:     version,
		InstanceID:  uuid.NewString(),
		Namespace:   "shop",
		Pod:         service + "-" + safeEncode(template[:9]) + "-" + safeEncode(pod[:5]),
		PodUID:      uid.String(),
		Container:   service,
		Deployment:  service,
		Node:        fmt.Sprintf("node-%d", 1+pod[6]%3),
		Cluster:     "demo",
		Environment: "demo",
	}
}

// Resource returns the identity as an OpenTelemetry resource, with the attributes of the SDK itself.
func (i Identity) Resource() (*resource.Resource, error) {
	attrs := []attribute.KeyValue{
		semconv.ServiceName(i.Service),
		semconv.ServiceVersion(i.Version),
		semconv.ServiceInstanceID(i.InstanceID),
		semconv.K8SNamespaceName(i.Namespace),
		semconv.K8SPodName(i.Pod),
		semconv.K8SPodUID(i.PodUID),
		semconv.K8SContainerName(i.Container),
		semconv.K8SDeploymentName(i.Deployment),
		semconv.K8SNodeName(i.Node),
		semconv.K8SClusterName(i.Cluster),
		attribute.String("deployment.environment.name", i.Environment),
	}
	for key, value := range i.Extra {
		attrs = append(attrs, attribute.String(key, value)) // the last value of a key wins
	}
	base, err := resource.Merge(resource.NewSchemaless(sdkAttributes()...), resource.NewWithAttributes(semconv.SchemaURL, attrs...))
	if err != nil {
		return nil, fmt.Errorf("merge resource attributes: %w", err)
	}
	return base, nil
}

// sdkAttributes are what the SDK says about itself (telemetry.sdk.*).
func sdkAttributes() []attribute.KeyValue {
	var out []attribute.KeyValue
	for _, kv := range resource.Default().Attributes() {
		switch kv.Key {
		case semconv.TelemetrySDKNameKey, semconv.TelemetrySDKLanguageKey, semconv.TelemetrySDKVersionKey:
			out = append(out, kv)
		}
	}
	return out
}

func digest(kind, service, rest string, seed uint64) [sha256.Size]byte {
	text := binary.BigEndian.AppendUint64([]byte(kind+"\x00"+service+"\x00"+rest+"\x00"), seed)
	return sha256.Sum256(text)
}

// safeEncode writes bytes in the alphabet that Kubernetes uses in generated names: no vowels, no look-alikes.
func safeEncode(b []byte) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	out := make([]byte, len(b))
	for i, c := range b {
		out[i] = alphabet[int(c)%len(alphabet)]
	}
	return string(out)
}
