package ingest

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
)

// ServiceName is the label of streams by which Grafana's Logs Drilldown tells services apart.
const ServiceName = "service_name"

// UnknownService is the service of streams that tell none.
const UnknownService = "unknown_service"

// servedBy returns the labels that name a service, the first one that is there goes. It is what Loki documents for
// discover_service_name.
func servedBy() [12]string {
	return [...]string{
		"service", "app", "application", "name", "app_kubernetes_io_name", "container", "container_name", "k8s_container_name",
		"component", "workload", "job", "k8s_job_name",
	}
}

// Stream returns the LogQL stream with the labels ls, in any order, which it sorts; those with an empty value are left
// out, and without any it is empty. One without the label service_name gets it from the first of the labels by which Loki
// finds it, else as unknown_service. Labels that are given twice stay so: CheckLabels finds them.
func Stream(ls []labels.Label) telemetry.LabelSet {
	get := func(name string) string {
		for i := range ls {
			if ls[i].Name == name && ls[i].Value != "" {
				return ls[i].Value
			}
		}
		return ""
	}
	size := 0
	for i := range ls {
		if ls[i].Value != "" {
			size += len(ls[i].Name) + len(ls[i].Value) + 4
		}
	}
	if size == 0 {
		return ""
	}
	if get(ServiceName) == "" {
		service := UnknownService
		for _, name := range servedBy() {
			if v := get(name); v != "" {
				service = v
				break
			}
		}
		ls = append(ls, labels.Label{Name: ServiceName, Value: service})
	}
	slices.SortStableFunc(ls, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	set := make([]byte, 0, size+64)
	for i := range ls {
		if ls[i].Value != "" {
			set = telemetry.AppendString(telemetry.AppendString(set, ls[i].Name), ls[i].Value)
		}
	}
	return telemetry.LabelSet(set)
}

// StreamResource returns what the labels of a stream tell about who produced it, for records that come with no resource
// of their own; nil when they tell nothing.
func StreamResource(stream telemetry.LabelSet) *telemetry.Resource {
	if stream.Get(ServiceName) != UnknownService {
		return telemetry.LabelResource(stream)
	}
	var known []byte
	stream.Range(func(name, value string) {
		if name != ServiceName {
			known = telemetry.AppendString(telemetry.AppendString(known, name), value)
		}
	})
	return telemetry.LabelResource(telemetry.LabelSet(known))
}
