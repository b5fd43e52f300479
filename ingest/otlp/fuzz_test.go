package otlp_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/otlp"
)

// fuzz sends whatever body: it must be answered, and what is stored of it must survive the log.
func fuzz(f *testing.F, sig signalCase) {
	f.Helper()
	for _, n := range []int{0, 1, 3} {
		f.Add(sig.proto(n), false)
		f.Add(sig.json(n), true)
	}
	f.Add([]byte(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"x","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"scale":9,"count":"3","positive":{"offset":-1,"bucketCounts":["1","2"]}}]}}]}]}]}`), true)
	f.Add([]byte(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"x","histogram":{"aggregationTemporality":1,"dataPoints":[{"startTimeUnixNano":"9","count":"3","bucketCounts":["1","2"],"explicitBounds":[1],"exemplars":[{"asDouble":1}]}]}}]}]}]}`), true)
	f.Add([]byte(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"x","summary":{"dataPoints":[{"count":"3","quantileValues":[{"quantile":0.5}]}]}}]}]}]}`), true)
	f.Add([]byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"kvlistValue":{"values":[{"key":"a","value":{"arrayValue":{"values":[{}]}}}]}}}]}]}]}`), true)
	f.Fuzz(func(t *testing.T, body []byte, text bool) {
		ct := typeProto
		if text {
			ct = typeText
		}
		for _, window := range []bool{true, false} {
			r := newRecorder(t, func(ic *ingest.Config, oc *otlp.Config) {
				ic.TimeWindow = window
				oc.MaxBody = 1 << 20
				if len(body)%2 == 0 {
					oc.MetricNames, oc.CustomBuckets, oc.PromoteScopeMetadata = "NoTranslation", true, true
				}
			})
			w := r.answer(sig.signal, ct, body)
			switch w.Code {
			case http.StatusOK:
				n, _, err := sig.partial(ct, w.Body.Bytes())
				require.NoError(t, err)
				require.GreaterOrEqual(t, n, int64(0))
			case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
			default:
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
			for _, req := range r.writer.written() {
				roundTrip(t, req.Batches)
			}
		}
	})
}

func FuzzTraces(f *testing.F)  { fuzz(f, signals()[0]) }
func FuzzLogs(f *testing.F)    { fuzz(f, signals()[1]) }
func FuzzMetrics(f *testing.F) { fuzz(f, signals()[2]) }
