package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/braidobs/braid/bench/harness"
)

// export sends spans in the JSON of OTLP, or the same in protobuf, and returns the answer as JSON.
func export(t *testing.T, s *harness.Server, protobuf bool, spans ...string) (int, string) {
	t.Helper()
	body := []byte(`{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"bad"}}]},"scopeSpans":[{"spans":[` +
		strings.Join(spans, ",") + `]}]}]}`)
	contentType := "application/json"
	if protobuf {
		req := ptraceotlp.NewExportRequest()
		require.NoError(t, req.UnmarshalJSON(body))
		var err error
		body, err = req.MarshalProto()
		require.NoError(t, err)
		contentType = "application/x-protobuf"
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.OTLPHTTP+"/v1/traces", bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	if protobuf && resp.StatusCode == http.StatusOK {
		out := ptraceotlp.NewExportResponse()
		require.NoError(t, out.UnmarshalProto(b))
		b, err = out.MarshalJSON()
		require.NoError(t, err)
	}
	return resp.StatusCode, string(b)
}

// stored is a span as it is returned.
type stored struct {
	SpanID, ParentSpanID, EndTimeUnixNano string
	Attributes                            []struct{ Value struct{ StringValue string } }
	Events                                []struct{ Name string }
}

// spansOf returns the spans of a trace.
func spansOf(t *testing.T, s *harness.Server, id string) (out []stored) {
	t.Helper()
	code, b := get(t, s, "", "/api/v2/traces/"+id)
	if code == http.StatusNotFound {
		return nil
	}
	require.Equal(t, http.StatusOK, code, string(b))
	var got struct {
		Trace struct {
			ResourceSpans []struct {
				ScopeSpans []struct{ Spans []stored }
			}
		}
	}
	require.NoError(t, json.Unmarshal(b, &got))
	for _, r := range got.Trace.ResourceSpans {
		for _, sc := range r.ScopeSpans {
			out = append(out, sc.Spans...)
		}
	}
	return out
}

// TestBadSpans sends what breaks readers of traces beside a good span, in both encodings: what is refused is named and counted, what
// is kept comes back as it was sent, and the good span is stored.
func TestBadSpans(t *testing.T) {
	s := start(t, t.TempDir(), "storage: {flush_interval: 2s}\n")
	now := time.Now().Truncate(time.Second)
	ns := func(at time.Time) string { return strconv.FormatInt(at.UnixNano(), 10) }
	span := func(trace, id, parent, more string) string {
		return `{"traceId":"` + trace + `","spanId":"` + id + `","parentSpanId":"` + parent + `","name":"x","startTimeUnixNano":"` + ns(now) + `","endTimeUnixNano":"` + ns(now.Add(time.Second)) + `"` + more + `}`
	}
	attrs := func(n, size int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf(`{"key":"k%d","value":{"stringValue":%q}}`, i, strings.Repeat("v", size))
		}
		return `,"attributes":[` + strings.Join(list, ",") + `]`
	}
	events := func(n int, more string) string {
		list := make([]string, n)
		for i := range list {
			list[i] = `{"timeUnixNano":"` + ns(now) + `","name":"e` + strconv.Itoa(i) + `"` + more + `}`
		}
		return `,"events":[` + strings.Join(list, ",") + `]`
	}
	const good, a, b = "00000000000000aa", "000000000000000a", "000000000000000b"
	at := func(when time.Time) string { return `,"startTimeUnixNano":"` + ns(when) + `"` }
	deep := `,"attributes":[{"key":"k","value":` + strings.Repeat(`{"arrayValue":{"values":[`, 40) + `{"intValue":"1"}` + strings.Repeat(`]}}`, 40) + `}]`
	tests := []struct {
		name  string
		spans func(trace string) []string
		want  string // refused with; all are kept when empty
		check func(t *testing.T, got map[string]stored)
	}{
		{"no trace ID", func(string) []string { return []string{span("", a, "", "")} }, "no valid trace ID", nil},
		{"trace ID of zeros", func(string) []string { return []string{span(strings.Repeat("0", 32), a, "", "")} }, "no valid trace ID", nil},
		{"no span ID", func(id string) []string { return []string{span(id, "", "", "")} }, "no valid span ID", nil},
		{"old", func(id string) []string { return []string{span(id, a, "", at(now.AddDate(-1, 0, 0)))} }, "older than the retention", nil},
		{"early", func(id string) []string { return []string{span(id, a, "", at(now.AddDate(1, 0, 0)))} }, "setting ingest.max_future", nil},
		{"300 attributes", func(id string) []string { return []string{span(id, a, "", attrs(300, 1))} }, "setting ingest.max_attributes", nil},
		{"attribute of 3 MiB", func(id string) []string { return []string{span(id, a, "", attrs(1, 3<<20))} }, "setting ingest.max_record", nil},
		{"10,000 events with attributes", func(id string) []string { return []string{span(id, a, "", events(10_000, attrs(1, 100)))} }, "setting ingest.max_record", nil},
		{"deep", func(id string) []string { return []string{span(id, a, "", deep)} }, "deep", nil},
		{"lost parent", func(id string) []string { return []string{span(id, a, "00000000000000ff", "")} }, "", func(t *testing.T, got map[string]stored) {
			t.Helper()
			require.Equal(t, "00000000000000ff", got[a].ParentSpanID)
		}},
		{"own parent", func(id string) []string { return []string{span(id, a, a, "")} }, "", func(t *testing.T, got map[string]stored) {
			t.Helper()
			require.Equal(t, a, got[a].ParentSpanID)
		}},
		{"circle", func(id string) []string { return []string{span(id, a, b, ""), span(id, b, a, "")} }, "", func(t *testing.T, got map[string]stored) {
			t.Helper()
			require.Equal(t, []string{b, a}, []string{got[a].ParentSpanID, got[b].ParentSpanID})
		}},
		{"the same ID twice", func(id string) []string { return []string{span(id, a, "", ""), span(id, a, good, "")} }, "", nil},
		{"ends before it starts", func(id string) []string {
			return []string{span(id, a, "", `,"endTimeUnixNano":"`+ns(now.Add(-time.Hour))+`"`)}
		}, "", func(t *testing.T, got map[string]stored) {
			t.Helper()
			require.Equal(t, ns(now.Add(-time.Hour)), got[a].EndTimeUnixNano)
		}},
		{"attribute of 64 KiB", func(id string) []string { return []string{span(id, a, "", attrs(1, 64<<10))} }, "", func(t *testing.T, got map[string]stored) {
			t.Helper()
			require.Len(t, got[a].Attributes[0].Value.StringValue, 64<<10)
		}},
		{"10,000 events", func(id string) []string { return []string{span(id, a, "", events(10_000, ""))} }, "", func(t *testing.T, got map[string]stored) {
			t.Helper()
			require.Len(t, got[a].Events, 10_000)
			require.Equal(t, "e9999", got[a].Events[9999].Name)
		}},
	}
	kept := make(map[string]int) // spans by trace
	for i, tt := range tests {
		for n, encoding := range []string{"JSON", "protobuf"} {
			t.Run(tt.name+"/"+encoding, func(t *testing.T) {
				id := fmt.Sprintf("%032x", 2*i+n+1)
				spans := tt.spans(id)
				code, text := export(t, s, n == 1, append(spans, span(id, good, "", ""))...)
				require.Equal(t, http.StatusOK, code, text)
				kept[id] = 1
				if tt.want != "" {
					require.Contains(t, text, tt.want)
					require.Contains(t, text, `"rejectedSpans":"1"`)
				} else {
					require.NotContains(t, text, "rejectedSpans")
					kept[id] += len(spans)
				}
				if tt.check == nil {
					return
				}
				got := make(map[string]stored)
				for _, sp := range spansOf(t, s, id) {
					got[sp.SpanID] = sp
				}
				tt.check(t, got)
			})
		}
	}
	look := func(when string) {
		for id, n := range kept {
			require.Len(t, spansOf(t, s, id), n, "%s: trace %s", when, id)
		}
		for _, q := range []string{`{ } >> { }`, `{ } << { }`, `{ } ~ { }`, `{ nestedSetParent < 0 }`, `{ duration < 0s }`, `{ trace:duration >= 0s } | count() > 0`} {
			code, b := get(t, s, "", "/api/search?"+url.Values{"q": {q}, "limit": {"100"}}.Encode())
			require.Equal(t, http.StatusOK, code, "%s: %s: %s", when, q, b)
		}
	}
	look("in memory")
	require.NoError(t, s.Flushed(t.Context(), "traces"))
	look("on disk")
	u, err := s.Usage()
	require.NoError(t, err)
	require.Less(t, u.PeakRSS, int64(400<<20))
}

// TestNoSpans sends what is no request at all.
func TestNoSpans(t *testing.T) {
	s := start(t, t.TempDir(), "otlp: {max_body: 1MiB}\n")
	for _, tt := range []struct {
		name, body string
		want       int
	}{
		{"a short trace ID", `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"abcd","spanId":"000000000000000a"}]}]}]}`, http.StatusBadRequest},
		{"a trace ID that is none", `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz","spanId":"000000000000000a"}]}]}]}`, http.StatusBadRequest},
		{"cut off", `{"resourceSpans":[{"scopeSpans":[`, http.StatusBadRequest},
		{"nested", `{"resourceSpans":` + strings.Repeat("[", 500_000), http.StatusBadRequest},
		{"too large", `{"resourceSpans":[` + strings.Repeat(" ", 2<<20) + `]}`, http.StatusRequestEntityTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.OTLPHTTP+"/v1/traces", strings.NewReader(tt.body))
			require.NoError(t, err)
			req.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, tt.want, resp.StatusCode, string(b))
			require.NotEmpty(t, b)
		})
	}
}
