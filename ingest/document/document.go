// Package document makes log records of JSON documents, for protocols whose records are nothing but JSON: which field is
// the time, which the line, and which tell what produced it.
package document

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/extract"
	"github.com/braidobs/braid/internal/telemetry"
)

// Names are the fields that mean something. The first that is there and can be read goes; without any, those that
// package extract knows.
type Names struct {
	Time, Message []string
	// Stream are the fields that become labels of the stream; nil for those that Labels finds.
	Stream []string
}

// Reader reads documents one by one and gathers their records. It is for one request and not for concurrent use.
type Reader struct {
	names  Names
	now    time.Time
	parser extract.Parser
	fields extract.Fields
	doc    []byte
	keys   map[string]string // of attributes, so that each is held once

	labels   []labels.Label
	scratch  []byte
	batches  []telemetry.Batch
	known    map[string]int // batches by stream and resource
	timeless bool
}

// NewReader returns a reader. Documents without a time get now.
func NewReader(n Names, now time.Time) *Reader {
	return &Reader{names: n, now: now, keys: make(map[string]string), known: make(map[string]int)}
}

// Read reads a document and says whether it is one: a JSON object. It is valid until the next.
func (r *Reader) Read(doc []byte) bool {
	r.doc = doc
	return r.parser.Document(doc, &r.fields)
}

// find returns the position of a field among the attributes, or -1. Members of objects have names joined by dots.
func (r *Reader) find(name string) int {
	for i := range r.fields.Attributes {
		if string(r.fields.Attributes[i].Key) == name {
			return i
		}
	}
	return -1
}

// Text returns the text of the first of these fields that has one.
func (r *Reader) Text(names ...string) string {
	for _, name := range names {
		if i := r.find(name); i >= 0 && len(r.fields.Attributes[i].Value.Bytes) > 0 {
			return strings.ToValidUTF8(string(r.fields.Attributes[i].Value.Bytes), "\uFFFD")
		}
	}
	return ""
}

// Record returns the record of the document. A document without a message is its line as a whole, and so is one that
// has more fields than extract keeps; the fields of others are attributes. Of all, those are that tell what produced it.
func (r *Reader) Record() telemetry.LogRecord {
	f := &r.fields
	out := telemetry.LogRecord{
		Time: f.Time, Severity: uint8(f.Severity), TraceID: f.TraceID, SpanID: f.SpanID,
	}
	if out.TraceID.IsZero() {
		out.SpanID = telemetry.SpanID{}
	}
	at := r.find(string(f.TimeKey))
	for _, name := range r.names.Time {
		if i := r.find(name); i >= 0 {
			if ns, ok := r.parser.Time(f.Attributes[i].Value); ok {
				out.Time, at = ns, i
				break
			}
		}
	}
	if out.Time == 0 {
		out.Time, out.TimeInferred, at = r.now.UnixNano(), true, -1
		r.timeless = true
	}
	message := -1
	if f.MessageKey != nil {
		message = r.find(string(f.MessageKey))
	}
	for _, name := range r.names.Message {
		if i := r.find(name); i >= 0 && len(f.Attributes[i].Value.Bytes) > 0 {
			message = i
			break
		}
	}
	whole := message < 0 || f.Dropped > 0
	if whole {
		out.Body = telemetry.String(string(r.doc))
	} else {
		out.Body = telemetry.String(string(f.Attributes[message].Value.Bytes))
	}
	as := make([]telemetry.Attr, 0, len(f.Attributes))
	for i := range f.Attributes {
		if i != at && i != message && (!whole || isResource(string(f.Attributes[i].Key))) {
			as = append(as, telemetry.Attr{Key: r.key(f.Attributes[i].Key), Value: value(&f.Attributes[i].Value)})
		}
	}
	out.Attrs = telemetry.NewAttrs(as)
	return out
}

// key returns the key as a string that outlives the document.
func (r *Reader) key(b []byte) string {
	if k, ok := r.keys[string(b)]; ok {
		return k
	}
	k := string(b)
	if len(r.keys) < 10_000 {
		r.keys[k] = k
	}
	return k
}

func value(v *extract.Value) telemetry.Value {
	switch v.Kind {
	case extract.Int:
		return telemetry.Int(v.Int)
	case extract.Float:
		return telemetry.Double(v.Float)
	case extract.Bool:
		return telemetry.Bool(v.Bool)
	default:
		return telemetry.String(string(v.Bytes))
	}
}

// isResource says whether a field tells what produced the document.
func isResource(key string) bool {
	group, _, nested := strings.Cut(key, ".")
	if !nested {
		return false
	}
	switch group {
	case "agent", "cloud", "container", "host", "k8s", "kubernetes", "orchestrator", "service":
		return true
	default:
		return false
	}
}

// Labels returns the labels of the document's stream and those in more: the fields that Names has for it, or service_name,
// namespace, pod and container as the shippers of Kubernetes call them, and without a pod the host. Of a document
// without a service, service is the name of one; if it is empty the service is unknown.
func (r *Reader) Labels(service string, more ...labels.Label) telemetry.LabelSet {
	if service == "" {
		service = ingest.UnknownService
	}
	r.labels = append(r.labels[:0], more...)
	add := func(label string, fields ...string) bool {
		v := r.Text(fields...)
		if v != "" {
			r.labels = append(r.labels, labels.Label{Name: label, Value: v})
		}
		return v != ""
	}
	if r.names.Stream != nil {
		for _, name := range r.names.Stream {
			add(labelName(name), name)
		}
		if s := ingest.Stream(r.labels); s != "" {
			return s
		}
		return ingest.Stream([]labels.Label{{Name: ingest.ServiceName, Value: service}})
	}
	found := add(ingest.ServiceName, "service.name", "service_name", "kubernetes.labels.app_kubernetes_io/name", "kubernetes.labels.app", "app", "application",
		"kubernetes.container.name", "kubernetes.container_name", "container.name", "container_name", "data_stream.dataset")
	if !found {
		r.labels = append(r.labels, labels.Label{Name: ingest.ServiceName, Value: service})
	}
	add("namespace", "kubernetes.namespace", "kubernetes.namespace_name", "namespace")
	pod := add("pod", "kubernetes.pod.name", "kubernetes.pod_name", "pod")
	add("container", "kubernetes.container.name", "kubernetes.container_name", "container.name", "container_name")
	if !pod {
		add("host", "host.name", "host.hostname", "hostname", "host", "kubernetes.host")
	}
	return ingest.Stream(r.labels)
}

// labelName turns the name of a field into that of a label.
func labelName(name string) string {
	out := []byte(name)
	for i, c := range out {
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (c-'0' > 9 || i == 0) {
			out[i] = '_'
		}
	}
	return string(out)
}

// Add adds a record of the document that was read to the batch of its stream and resource. With fields for the stream
// its labels are the resource, else the fields about host, container, pod and service are, and leave the attributes.
func (r *Reader) Add(stream telemetry.LabelSet, rec telemetry.LogRecord) {
	var of []telemetry.Attr
	if r.names.Stream == nil {
		for _, a := range rec.Attrs {
			if isResource(a.Key) {
				of = append(of, a)
			}
		}
		if len(of) > 0 {
			rec.Attrs = slices.DeleteFunc(rec.Attrs, func(a telemetry.Attr) bool { return isResource(a.Key) })
		}
	}
	r.scratch = telemetry.AppendAttrs(telemetry.AppendString(r.scratch[:0], string(stream)), of)
	i, ok := r.known[string(r.scratch)]
	if !ok {
		i = len(r.batches)
		r.known[string(r.scratch)] = i
		res := ingest.StreamResource(stream)
		if len(of) > 0 {
			res = telemetry.NewResource("", of)
		}
		r.batches = append(r.batches, telemetry.Batch{Stream: stream, Resource: res})
	}
	b := &r.batches[i]
	b.Logs = append(b.Logs, rec)
}

// Batches returns what was added, and whether a record had no time of its own.
func (r *Reader) Batches() (bs []telemetry.Batch, timeless bool) { return r.batches, r.timeless }
