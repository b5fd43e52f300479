package otlp

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/telemetry"
)

// How a sender says where its records come from (see telemetry.Source): by attributes of a resource and of its log
// records, which are not stored, or for the whole request by ingest.SourceHeader.
const (
	sourcePrefix = "braid.source."
	// SourceStream and the others are attributes of a resource.
	SourceStream = sourcePrefix + "stream"
	SourceFile   = sourcePrefix + "file"
	SourceFrom   = sourcePrefix + "from"
	SourceTo     = sourcePrefix + "to"
	// SourceEnd is an attribute of a log record.
	SourceEnd = sourcePrefix + "end"
	// SourceHeader is the header of HTTP and, in lower case, the metadata of gRPC.
	SourceHeader = ingest.SourceHeader
)

// PrometheusType is the key in a metric's metadata by which the agent says that the metric was scraped: its name and
// the names of its attributes are Prometheus's already, and its value is the type of the family. A histogram with
// explicit buckets is then a native one with custom buckets.
const PrometheusType = "braid.prometheus.type"

// takeSource removes what the attributes of a resource say about its source.
func takeSource(as telemetry.Attrs) (telemetry.Attrs, *telemetry.Source, error) {
	first := -1
	for i := range as {
		if strings.HasPrefix(as[i].Key, sourcePrefix) {
			first = i
			break
		}
	}
	if first < 0 {
		return as, nil, nil
	}
	src := &telemetry.Source{}
	rest := as[:first:first]
	for _, a := range as[first:] {
		var err error
		switch a.Key {
		case SourceStream:
			src.Stream = a.Value.Text()
		case SourceFile:
			src.File = a.Value.Text()
		case SourceFrom:
			src.From, err = position(a)
		case SourceTo:
			src.To, err = position(a)
		default:
			rest = append(rest, a)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return rest, src, nil
}

// takeEnd removes the position after a log record from its attributes.
func takeEnd(as telemetry.Attrs) (rest telemetry.Attrs, end uint64, ok bool, err error) {
	for i := range as {
		if as[i].Key == SourceEnd {
			end, err = position(as[i])
			return append(as[:i:i], as[i+1:]...), end, true, err
		}
	}
	return as, 0, false, nil
}

func position(a telemetry.Attr) (uint64, error) {
	if a.Value.Kind() != telemetry.KindInt || a.Value.Int() < 0 {
		return 0, fmt.Errorf("%s must be a whole number, not %q", a.Key, printable(a.Value.Text()))
	}
	return uint64(a.Value.Int()), nil
}

func httpSource(r *http.Request) (*telemetry.Source, error) {
	return ingest.ParseSource(r.Header.Values(SourceHeader))
}

func grpcSource(ctx context.Context) (*telemetry.Source, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	return ingest.ParseSource(md.Get(SourceHeader))
}

// agentStream returns the LogQL stream of a log that an agent reads: few labels, the same on every cluster.
func agentStream(as telemetry.Attrs) telemetry.LabelSet {
	var ls labelSet
	set := func(name, attr string) {
		if v, ok := as.Get(attr); ok {
			ls.set(name, strings.ToValidUTF8(v.Text(), "\uFFFD"))
		}
	}
	set("service_name", serviceName)
	if ls.get("service_name") == "" {
		ls.set("service_name", unknownService)
	}
	set("namespace", "k8s.namespace.name")
	set("pod", "k8s.pod.name")
	set("container", "k8s.container.name")
	if ls.get("pod") == "" {
		set("host", "host.name")
		set("filename", "log.file.path")
	}
	return telemetry.LabelSet(ls.appendTo(nil))
}
