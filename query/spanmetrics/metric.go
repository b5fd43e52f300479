package spanmetrics

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// source is what a metric is counted over.
type source uint8

const (
	ofSpans     source = iota // every span
	ofEdges                   // calls between services
	ofResources               // resources that sent spans
)

// measure is what is counted of a span or an edge.
type measure uint8

const (
	calls measure = iota
	failures
	sizes
	latency // of a span, or of an edge on the server's side
	clientLatency
	queueLatency // between the end of a producer and the start of a consumer
)

// part is which of the series of a histogram a name is.
type part uint8

const (
	plain part = iota
	bucket
	sum
	count
)

// metric is one name that is answered from spans.
type metric struct {
	name    string
	source  source
	measure measure
	part    part
}

// The labels.
const (
	labelService    = "service"
	labelSpanName   = "span_name"
	labelSpanKind   = "span_kind"
	labelStatusCode = "status_code"

	labelClient     = "client"
	labelServer     = "server"
	labelConnection = "connection_type"
)

// The values of connection_type; it is absent for a client's span with a server's below it.
const (
	connectionMessaging = "messaging_system"
	connectionDatabase  = "database"
	connectionVirtual   = "virtual_node"
)

// userNode is the client of a server's span without a parent.
const userNode = "user"

// prefix begins all names.
const prefix = "traces_"

// metrics returns all names, sorted.
func metrics() []metric {
	histogram := func(name string, s source, m measure) []metric {
		return []metric{{name + "_bucket", s, m, bucket}, {name + "_count", s, m, count}, {name + "_sum", s, m, sum}}
	}
	return slices.Concat(
		histogram("traces_service_graph_request_client_seconds", ofEdges, clientLatency),
		[]metric{{"traces_service_graph_request_failed_total", ofEdges, failures, plain}},
		histogram("traces_service_graph_request_messaging_system_seconds", ofEdges, queueLatency),
		histogram("traces_service_graph_request_server_seconds", ofEdges, latency),
		[]metric{
			{"traces_service_graph_request_total", ofEdges, calls, plain},
			{"traces_spanmetrics_calls_total", ofSpans, calls, plain},
		},
		histogram("traces_spanmetrics_latency", ofSpans, latency),
		[]metric{
			{"traces_spanmetrics_size_total", ofSpans, sizes, plain},
			{"traces_target_info", ofResources, calls, plain},
		},
	)
}

// bounds returns the upper bounds of the buckets in nanoseconds, and how the label le has them. The last is +Inf and has no
// bound.
func (m metric) bounds() (nanos []int64, le []string) {
	if m.source == ofEdges {
		return []int64{1e8, 2e8, 4e8, 8e8, 16e8, 32e8, 64e8, 128e8}, []string{"0.1", "0.2", "0.4", "0.8", "1.6", "3.2", "6.4", "12.8", "+Inf"}
	}
	return []int64{2e6, 4e6, 8e6, 16e6, 32e6, 64e6, 128e6, 256e6, 512e6, 1024e6, 2048e6, 4096e6, 8192e6, 16384e6},
		[]string{"0.002", "0.004", "0.008", "0.016", "0.032", "0.064", "0.128", "0.256", "0.512", "1.024", "2.048", "4.096", "8.192", "16.384", "+Inf"}
}

// labels returns the names of the labels that the metric has without being asked for more.
func (m metric) labels() []string {
	switch m.source {
	case ofEdges:
		return []string{labelClient, labelServer, labelConnection}
	case ofSpans:
		return []string{labelService, labelSpanName, labelSpanKind, labelStatusCode}
	case ofResources:
		return []string{model.JobLabel, model.InstanceLabel}
	default:
		return nil
	}
}

// metadata describes the family of a name.
func metadata(family string) (telemetry.Metadata, bool) {
	for _, m := range metrics() {
		name := m.name
		if m.part != plain {
			name = name[:strings.LastIndexByte(name, '_')]
		}
		if name != family {
			continue
		}
		switch {
		case m.part != plain:
			return telemetry.Metadata{Type: telemetry.MetricHistogram, Unit: "seconds", Help: "Durations, from the spans that are stored."}, true
		case m.source == ofResources:
			return telemetry.Metadata{Type: telemetry.MetricGauge, Help: "The attributes of a resource that sent spans."}, true
		default:
			return telemetry.Metadata{Type: telemetry.MetricCounter, Help: "Counted from the spans that are stored."}, true
		}
	}
	return telemetry.Metadata{}, false
}

// selected returns the metrics whose names matchers ask for. They must say so: with a name, a choice of names, or a pattern
// that begins with the prefix of all of them.
func selected(ms []*labels.Matcher) []metric {
	asked := false
	for _, m := range ms {
		if m.Name != model.MetricNameLabel {
			continue
		}
		switch m.Type {
		case labels.MatchEqual:
			asked = asked || strings.HasPrefix(m.Value, prefix)
		case labels.MatchRegexp:
			asked = asked || strings.HasPrefix(m.Prefix(), prefix) ||
				slices.ContainsFunc(m.SetMatches(), func(s string) bool { return strings.HasPrefix(s, prefix) })
		case labels.MatchNotEqual, labels.MatchNotRegexp:
		}
	}
	if !asked {
		return nil
	}
	return slices.DeleteFunc(metrics(), func(x metric) bool {
		return slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return m.Name == model.MetricNameLabel && !m.Matches(x.name) })
	})
}

// peers are the attributes that name what a client's span without a server's below it called, the first that it has.
func peers() []storage.SpanKey {
	return []storage.SpanKey{record("peer.service"), record("db.namespace"), record("db.name"), record("db.system.name"), record("db.system")}
}

func record(name string) storage.SpanKey {
	return storage.SpanKey{Scope: storage.RecordScope, Name: name}
}

func serviceKey() storage.SpanKey {
	return storage.SpanKey{Scope: storage.ResourceScope, Name: "service.name"}
}
