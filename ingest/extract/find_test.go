package extract_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/ingest/extract"
)

func TestFind(t *testing.T) {
	const trace, span = "0123456789abcdef0123456789abcdef", "0123456789abcdef"
	tests := []struct {
		name, in string
		severity int
		trace    string
		span     string
	}{
		{name: "empty"},
		{name: "plain", in: "hello error world"},
		{name: "plain level", in: "2026-01-31 14:05:05 ERROR something", severity: 17},
		{name: "apache", in: "[Thu Nov 10 10:00:00 2026] [notice] caught SIGTERM", severity: 10},
		{name: "spring", in: "2026-01-31 14:05:05.123  WARN 1 --- [main] o.a.C : x", severity: 13},
		{name: "text with trace", in: "INFO done [trace_id=" + trace + " span_id=" + span + "]", severity: 9, trace: trace, span: span},
		{name: "text with traceId", in: "a trace of traces: traceId: " + strings.ToUpper(trace) + ", spanId: " + span, trace: trace, span: span},
		{name: "text with a short trace", in: "x traceid=" + span, trace: strings.Repeat("0", 16) + span},
		{name: "text with too much", in: "tracetracetracetracetracetrace trace_id=" + trace},
		{name: "no trace", in: "race trace trace_id span_id=" + span},
		{name: "json", in: `{"ts":"x","level":"warn","msg":"a \"level\":\"error\" \\","trace_id":"` + trace + `","span_id":"` + span + `","n":1}`, severity: 13, trace: trace, span: span},
		{name: "json with spaces", in: ` { "a" : [ { "level" : "fatal" } ] , "severity" : "INFO" } `, severity: 9},
		{name: "json, the first", in: `{"lvl":"odd","severity":"warn","level":"debug","log.level":"fatal"}`, severity: 13},
		{name: "json numbers", in: `{"level":30,"time":1769868305123}`, severity: 9},
		{name: "json nested", in: `{"log":{"file":"x","level":"error"},"trace":{"id":"` + trace + `"},"span":{"id":"` + span + `"}}`, severity: 17, trace: trace, span: span},
		{name: "json other nesting", in: `{"http":{"level":"error"},"log":{"levels":"error","level":3}}`},
		{name: "json cut off", in: `{"level":"error","msg":"x`, severity: 17},
		{name: "json wrong", in: `{"level":"error" oops "severity":"x"}`, severity: 17},
		{name: "json escapes", in: `{"\"level":"error","a":"\\","level":"info"}`, severity: 9},
		{name: "json, quotes and escapes everywhere", in: `{"a":"","b":"\\","c":"\"","d":"1234567\"90","e":"12345678","f":"1234567\\","g":"123456789012345678901234567890\u0022x","level":"error"}`, severity: 17},
		{name: "json null", in: `{"level":null,"severity":"WARNING"}`, severity: 13},
		{name: "open", in: `{`},
		{name: "open string", in: `{"level`},
		{name: "no value", in: `{"level":`},
		{name: "traceparent", in: `{"traceparent":"00-` + trace + `-` + span + `-01"}`, trace: trace, span: span},
		{name: "traceparent comes second", in: `{"trace_id":"` + span + span + `","traceparent":"00-` + trace + `-` + span + `-01"}`, trace: span + span},
		{name: "datadog", in: `{"dd.trace_id":"1234567890123456","dd.span_id":81985529216486895}`, trace: "0000000000000000000462d53c8abac0", span: span},
		{name: "bad ids", in: `{"trace_id":"` + strings.Repeat("0", 32) + `","span_id":"xyz"}`},
		{name: "logfmt", in: `time=2026-01-31T14:05:05.123Z level=info msg="level=error \" x" trace_id=` + trace + ` span_id=` + span, severity: 9, trace: trace, span: span},
		{name: "logfmt without level", in: `a=b WARN c`, severity: 13},
		{name: "logfmt cut off", in: `level=warn msg="x`, severity: 13},
		{name: "klog", in: `W0131 14:05:05.123456       7 file.go:12] hello] world`, severity: 13},
		{name: "nearly klog", in: `W0131 14:05:05.12345x       7 file.go:12] hello`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := extract.Find(tt.in)
			require.Equal(t, tt.severity, got.Severity)
			require.Equal(t, tt.trace, unlessZero(got.TraceID[:]))
			require.Equal(t, tt.span, unlessZero(got.SpanID[:]))
		})
	}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for i := range tests {
			extract.Find(tests[i].in)
		}
	}))
}

// A line that is long or nests without end costs time in proportion to it.
func TestFindBounds(t *testing.T) {
	for _, in := range []string{
		strings.Repeat(`{"a":`, 100_000), strings.Repeat(`[`, 1<<20), `{"a":"` + strings.Repeat(`\`, 1<<20), `{` + strings.Repeat(`"k":1,`, 100_000) + `"level":"warn"}`,
		strings.Repeat("trace", 200_000), strings.Repeat("a=", 500_000), `{"log":` + strings.Repeat(`{"level":"x"},`, 50_000),
	} {
		got := extract.Find(in)
		require.Zero(t, got.TraceID)
	}
}

func TestDocument(t *testing.T) {
	var p extract.Parser
	var got extract.Fields
	require.True(t, p.Document([]byte(`{"@timestamp":"2026-01-31T14:05:05.123Z","log":{"level":"warn"},"message":"hi","n":1,"trace":{"id":"`+strings.Repeat("ab", 16)+`"}}`), &got))
	require.Equal(t, at, got.Time)
	require.Equal(t, "@timestamp", string(got.TimeKey))
	require.Equal(t, "message", string(got.MessageKey))
	require.Equal(t, "hi", string(got.Message))
	require.Equal(t, 13, got.Severity)
	require.Equal(t, strings.Repeat("ab", 16), hex.EncodeToString(got.TraceID[:]))
	require.Equal(t, `@timestamp="2026-01-31T14:05:05.123Z" log.level="warn" message="hi" n=1 trace.id="`+strings.Repeat("ab", 16)+`"`, show(got.Attributes))
	for _, in := range []string{``, `[]`, `{"a":1} x`, `{"a"`, `1`, `level=info a=b`} {
		require.False(t, p.Document([]byte(in), &got), in)
		require.Empty(t, got.Attributes)
	}
	ns, ok := p.Time(extract.Value{Kind: extract.Int, Bytes: []byte("1769868305123")})
	require.True(t, ok)
	require.Equal(t, at, ns)
}

func FuzzFind(f *testing.F) {
	f.Add(`{"ts":"2026-01-31T14:05:05.123Z","level":30,"a":{"b":[1,"\u00e9"]},"trace":{"id":"0123456789abcdef"}}`)
	f.Add(`time=1769868305 level=info msg="a \"b\"" traceparent=00-0123456789abcdef0123456789abcdef-0123456789abcdef-01`)
	f.Add(`E0131 14:05:05.123456       7 file.go:12] hello`)
	f.Add(`WARN x traceId: 0123456789abcdef0123456789abcdef spanId`)
	f.Fuzz(func(t *testing.T, line string) {
		was := strings.Clone(line)
		got := extract.Find(line)
		require.Equal(t, was, line)
		require.LessOrEqual(t, got.Severity, 24)
		require.GreaterOrEqual(t, got.Severity, 0)
		require.Equal(t, got, extract.Find(line))
	})
}

func BenchmarkFind(b *testing.B) {
	for name, in := range map[string]string{
		"json":           `{"level":"info","ts":"2026-01-31T14:05:05.123456789Z","caller":"server/handler.go:123","msg":"request done","method":"GET","path":"/api/v1/query_range","status":200,"duration":0.0123,"trace_id":"0123456789abcdef0123456789abcdef"}`,
		"json, no trace": `{"ts":"2026-01-31T14:05:05.123456789Z","level":"info","caller":"server/handler.go:123","msg":"request done","method":"GET","path":"/api/v1/query_range","status":200,"duration":0.0123}`,
		"logfmt":         `ts=2026-01-31T14:05:05.123456789Z level=info caller=server/handler.go:123 msg="request done" method=GET path=/api/v1/query_range status=200 duration=12.3ms`,
		"klog":           `I0131 14:05:05.123456       7 handler.go:123] request done method GET path /api/v1/query_range status 200 in 12.3ms`,
		"plain":          `2026-01-31 14:05:05.123 INFO 1 --- [nio-8080-exec-1] c.e.d.Handler : request done GET /api/v1/query_range 200 in 12.3ms`,
		"access":         `10.2.3.4 - - [31/Jan/2026:14:05:05 +0000] "GET /api/v1/query_range HTTP/1.1" 200 5316 "https://example.com/dashboards" "Mozilla/5.0 (X11; Linux x86_64)"`,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				extract.Find(in)
			}
		})
	}
}
