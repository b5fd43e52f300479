//go:build long

package tempo

import (
	"encoding/json"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/braidobs/braid/internal/wire"
)

// TestVulture lets tempo-vulture write traces and look whether they are found by their ID, by searches and by numbers.
func TestVulture(t *testing.T) {
	vulture, s := program(t, "TEMPO_VULTURE"), start(t)
	out := run(t, 5*time.Minute, vulture, "-validation-mode", "-validation-cycles=3", "-validation-timeout=4m", "-tempo-push-url=http://"+s.OTLPGRPC, "-tempo-query-url=http://"+s.HTTP,
		"-prometheus-listen-address=127.0.0.1:"+freePort(t), "-tempo-org-id=vulture", "-tempo-write-backoff-duration=2s", "-tempo-read-backoff-duration=2s",
		"-tempo-search-backoff-duration=2s", "-tempo-metrics-backoff-duration=2s", "-tempo-long-write-backoff-duration=2s")
	t.Log(out)
}

// TestTelemetrygen writes traces with telemetrygen over gRPC and HTTP, and reads each of them by its ID.
func TestTelemetrygen(t *testing.T) {
	gen, s := program(t, "TELEMETRYGEN"), start(t)
	const workers, traces, children = 4, 250, 7
	for service, to := range map[string][]string{
		"over-grpc": {"--otlp-endpoint=" + s.OTLPGRPC},
		"over-http": {"--otlp-endpoint=" + s.OTLPHTTP, "--otlp-http"},
	} {
		run(t, time.Minute, gen, append(to, "traces", "--otlp-insecure", "--service="+service, fmt.Sprint("--workers=", workers), fmt.Sprint("--traces=", traces),
			fmt.Sprint("--child-spans=", children), "--rate=0", "--span-links=1", "--status-code=Error", `--telemetry-attributes=n=5`)...)
		ids := make(map[string]bool)
		for cursor := ""; ; {
			var res struct{ Traces []struct{ TraceID string } }
			code, header, body := s.get(t, "default", "/api/search", url.Values{"q": {`{ resource.service.name = "` + service + `" }`}, "limit": {"300"}, "cursor": {cursor}}, "application/json")
			require.Equal(t, 200, code)
			require.NoError(t, json.Unmarshal(body, &res))
			for _, tr := range res.Traces {
				require.False(t, ids[tr.TraceID], "%s comes twice", tr.TraceID)
				ids[tr.TraceID] = true
			}
			if cursor = header.Get("Braid-Cursor"); cursor == "" {
				break
			}
		}
		require.Len(t, ids, workers*traces)
		for id := range ids {
			code, _, body := s.get(t, "default", "/api/v2/traces/"+id, nil, "application/protobuf")
			require.Equal(t, 200, code)
			f, _, err := wire.Next(string(body))
			require.NoError(t, err)
			td, err := new(ptrace.ProtoUnmarshaler).UnmarshalTraces([]byte(f.S))
			require.NoError(t, err)
			require.Equal(t, 1+children, td.SpanCount())
			for _, rs := range td.ResourceSpans().All() {
				for _, sp := range rs.ScopeSpans().At(0).Spans().All() {
					require.Equal(t, id, sp.TraceID().String())
					require.Equal(t, 1, sp.Links().Len())
				}
			}
			code, _, body = s.get(t, "default", "/api/traces/"+id, nil, "application/json")
			require.Equal(t, 200, code)
			require.True(t, json.Valid(body))
		}
	}
}
