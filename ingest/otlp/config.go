// Package otlp receives OTLP over gRPC and over HTTP, as protobuf and as JSON. Its wire format ends here: what leaves
// the package is batches of the telemetry model.
//
// Metrics become Prometheus series as Prometheus itself makes them of OTLP, with two differences: delta temporality
// is passed on (see telemetry.Series), and target_info has one sample a request, at the latest time of its points.
//
// A request is looked over before it is decoded, so that one that would need far more memory than its size, or
// nests without end, is refused and does not take the process with it.
package otlp

import (
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/otlptranslator"

	"github.com/braidobs/braid/internal/config"
)

// expansion is how many times the largest body a request may need in memory once it is decoded.
const expansion = 8

// Config is what an operator can set.
type Config struct {
	MaxBody                   config.Size `yaml:"max_body" help:"The largest request, compressed and decompressed."`
	MetricNames               string      `yaml:"metric_names" help:"How names of metrics and labels are translated: UnderscoreEscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes, NoUTF8EscapingWithSuffixes or NoTranslation."`
	PromoteResourceAttributes []string    `yaml:"promote_resource_attributes" help:"Resource attributes that become labels of metrics."`
	PromoteScopeMetadata      bool        `yaml:"promote_scope_metadata" help:"Whether the instrumentation scope becomes otel_scope_ labels of metrics."`
	CustomBuckets             bool        `yaml:"convert_histograms_to_nhcb" help:"Whether histograms with explicit buckets become native histograms with custom buckets."`
	StreamLabels              []string    `yaml:"stream_labels" help:"Resource attributes that become labels of LogQL streams."`
}

// DefaultConfig returns what Prometheus and Loki document as their defaults, and the pod and the service as labels
// of metrics.
func DefaultConfig() Config {
	return Config{
		MaxBody:     64 << 20,
		MetricNames: string(otlptranslator.UnderscoreEscapingWithSuffixes),
		PromoteResourceAttributes: []string{
			"deployment.environment.name", "k8s.cluster.name", "k8s.container.name", "k8s.namespace.name", "k8s.pod.name",
			"service.instance.id", "service.name", "service.namespace", "service.version",
		},
		StreamLabels: []string{
			"cloud.availability_zone", "cloud.region", "container.name", "deployment.environment",
			"deployment.environment.name", "k8s.cluster.name", "k8s.container.name", "k8s.cronjob.name",
			"k8s.daemonset.name", "k8s.deployment.name", "k8s.job.name", "k8s.namespace.name", "k8s.pod.name",
			"k8s.replicaset.name", "k8s.statefulset.name", "service.instance.id", "service.name", "service.namespace",
		},
	}
}

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	if c.MaxBody <= 0 {
		e.Field("max_body", errors.New("must be positive"))
	}
	if c.MaxBody > math.MaxInt32 {
		e.Field("max_body", fmt.Errorf("must be less than %s", config.Size(1<<31)))
	}
	switch otlptranslator.TranslationStrategyOption(c.MetricNames) {
	case otlptranslator.UnderscoreEscapingWithSuffixes, otlptranslator.UnderscoreEscapingWithoutSuffixes,
		otlptranslator.NoUTF8EscapingWithSuffixes, otlptranslator.NoTranslation:
	default:
		e.Field("metric_names", fmt.Errorf("%q is not a translation strategy", c.MetricNames))
	}
	for name, list := range map[string][]string{
		"promote_resource_attributes": c.PromoteResourceAttributes, "stream_labels": c.StreamLabels,
	} {
		for i, s := range list {
			if s == "" {
				e.Field(fmt.Sprintf("%s[%d]", name, i), errors.New("must not be empty"))
			}
		}
	}
	return e.Err()
}
