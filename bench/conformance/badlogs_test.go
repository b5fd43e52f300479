package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/braidobs/braid/bench/harness"
)

// post sends a body to the query port and returns the answer.
func post(t *testing.T, s *harness.Server, path, contentType string, body []byte) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTP+path, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

// texts returns the lines that a selector finds, sorted.
func texts(t *testing.T, s *harness.Server, query string) []string {
	t.Helper()
	code, b := get(t, s, "", "/loki/api/v1/query_range?"+url.Values{"query": {query}, "limit": {"1000"}, "since": {"2h"}}.Encode())
	require.Equal(t, http.StatusOK, code, string(b))
	var out struct {
		Data struct {
			Result []struct{ Values [][]any }
		}
	}
	require.NoError(t, json.Unmarshal(b, &out))
	found := []string{}
	for _, st := range out.Data.Result {
		for _, v := range st.Values {
			found = append(found, v[1].(string))
		}
	}
	sort.Strings(found)
	return found
}

func field(num protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
}

// pushed returns a push request of one stream as it goes over the wire, with a second between its lines.
func pushed(labels string, at time.Time, lines ...string) []byte {
	b := field(1, []byte(labels))
	for i, line := range lines {
		sec := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(at.Unix()+int64(i)))
		b = append(b, field(2, append(field(1, sec), field(2, []byte(line))...))...)
	}
	return field(1, b)
}

func packedPush(streams ...[]byte) []byte { return s2.EncodeSnappy(nil, bytes.Join(streams, nil)) }

// junk is lines that break what is not careful. The ones that are too long come out cut.
func junk() map[string]string {
	var keys strings.Builder
	keys.WriteString(`{"k":0`)
	for i := range 10_000 {
		fmt.Fprintf(&keys, `,"k%d":{"v":%d}`, i, i)
	}
	return map[string]string{
		"empty": "", "NUL": "a\x00b\x00", "not UTF-8": "\xff\xfe\x80 caf\xe9", "ANSI": "\x1b[31mERROR\x1b[0m red", "newlines": "a\r\nb\n\n",
		"keys": keys.String() + "}", "depth": strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000), "brackets": strings.Repeat("[", 100_000),
		"quotes": strings.Repeat(`"\`, 10_000), "long": strings.Repeat("0123456789", 1<<20), "lone surrogate": `{"msg":"\ud83d"}`,
	}
}

// TestJunkLines pushes what breaks parsers: every line comes back as it was sent, or cut after a megabyte and marked.
func TestJunkLines(t *testing.T) {
	s := start(t, t.TempDir(), "")
	at := time.Now().Add(-time.Hour)
	for name, line := range junk() {
		code, text := post(t, s, "/loki/api/v1/push", typeV1, packedPush(pushed(`{app="junk", name="`+name+`"}`, at, line)))
		require.Equal(t, http.StatusNoContent, code, "%s: %s", name, text)
		want := line
		if len(want) > 1<<20 {
			want = want[:1<<20]
		}
		got := texts(t, s, `{name="`+name+`"}`)
		require.Len(t, got, 1, name)
		if got[0] != string([]rune(want)) { // JSON has no other way to show what is not UTF-8
			t.Errorf("%s: %d bytes came back differently as %d: %.100q", name, len(want), len(got[0]), got[0])
		}
	}
	x, err := s.Metric(t.Context(), "braid_ingest_cut_lines_total")
	require.NoError(t, err)
	require.InDelta(t, 1, x, 0)
	u, err := s.Usage()
	require.NoError(t, err)
	require.Less(t, u.PeakRSS, int64(512<<20))
}

// TestBadLogs sends one bad record between two good ones, every way in: the answer tells what is wrong, and the good
// ones are stored.
func TestBadLogs(t *testing.T) {
	s := start(t, t.TempDir(), "")
	now := time.Now().Truncate(time.Second)
	ms := func(at time.Time) string { return strconv.FormatInt(at.UnixMilli(), 10) }
	ns := func(at time.Time) string { return strconv.FormatInt(at.UnixNano(), 10) }
	old, late := now.AddDate(-1, 0, 0), now.AddDate(1, 0, 0)
	es := func(doc string) string {
		good := `{"create":{"_index":"es"}}` + "\n" + `{"@timestamp":` + ms(now) + `,"message":"good"}` + "\n"
		return good + `{"create":{"_index":"es"}}` + "\n" + doc + "\n" + good
	}
	lines := func(doc string) string {
		const good = `{"_msg":"good","app":"lines"}` + "\n"
		return good + doc + "\n" + good
	}
	push := func(stream string) string {
		good := `{"stream":{"app":"push"},"values":[["` + ns(now) + `","good"]]}`
		return `{"streams":[` + good + `,` + stream + `,` + good + `]}`
	}
	const (
		toPush, toElastic, toLines = "/loki/api/v1/push", "/_bulk", "/insert/jsonline"
		textJSON                   = "application/json"
	)
	tests := []struct {
		name, path, body, selector string
		code                       int
		want                       string
	}{
		{"push: old", toPush, push(`{"stream":{"app":"push"},"values":[["` + ns(old) + `","bad"]]}`), `{app="push"}`, 400, "older than the retention"},
		{"push: early", toPush, push(`{"stream":{"app":"push"},"values":[["` + ns(late) + `","bad"]]}`), `{app="push"}`, 400, "setting ingest.max_future"},
		{"push: labels", toPush, push(`{"stream":{"a b":"push"},"values":[["` + ns(now) + `","bad"]]}`), `{app="push"}`, 400, `stream {"a b":"push"}: "a b" is no name of a label`},
		{"push: no labels", toPush, push(`{"stream":{},"values":[["` + ns(now) + `","bad"]]}`), `{app="push"}`, 400, "at least one label"},
		{"push: no time", toPush, push(`{"stream":{"app":"push"},"values":[["soon","bad"]]}`), `{app="push"}`, 400, `"soon" of an entry is not a number`},
		{"elastic: old", toElastic, es(`{"@timestamp":` + ms(old) + `,"message":"bad"}`), `{index="es"}`, 200, `older than the retention`},
		{"elastic: no object", toElastic, es(`["bad"]`), `{index="es"}`, 200, `"status":400`},
		{"elastic: cut off", toElastic, es(`{"message":"bad`), `{index="es"}`, 200, `"errors":true`},
		{"lines: old", toLines, lines(`{"_msg":"bad","_time":` + ms(old) + `}`), `{app="lines"}`, 400, "1 lines were not stored"},
		{"lines: no object", toLines, lines(`"bad"`), `{app="lines"}`, 400, "line 2 is not a JSON object"},
	}
	want := make(map[string][]string)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// A space more makes a request of its own of each.
			code, text := post(t, s, tt.path+"?n="+strconv.Itoa(i), textJSON, []byte(tt.body+strings.Repeat(" ", i)))
			require.Equal(t, tt.code, code, text)
			require.Contains(t, text, tt.want)
			selector := tt.selector
			if tt.path == toLines {
				selector = `{service_name="lines"}`
			}
			want[selector] = append(want[selector], "good", "good")
			require.Equal(t, want[selector], texts(t, s, selector))
		})
	}
	require.Empty(t, texts(t, s, `{service_name=~".+"} |= "bad"`))
}

// TestNoLogs sends what is no request at all.
func TestNoLogs(t *testing.T) {
	s := start(t, t.TempDir(), "otlp: {max_body: 1MiB}\n")
	whole := pushed(`{app="x"}`, time.Now(), "bad")
	tests := []struct {
		name, path, contentType string
		body                    []byte
		want                    int
	}{
		{"push: type", "/loki/api/v1/push", "text/plain", whole, http.StatusUnsupportedMediaType},
		{"push: not packed", "/loki/api/v1/push", typeV1, whole, http.StatusBadRequest},
		{"push: cut off", "/loki/api/v1/push", typeV1, s2.EncodeSnappy(nil, whole[:len(whole)-2]), http.StatusBadRequest},
		{"push: noise", "/loki/api/v1/push", typeV1, s2.EncodeSnappy(nil, bytes.Repeat([]byte{0xff, 0x0a, 0x7f}, 500)), http.StatusBadRequest},
		{"push: unpacked above the limit", "/loki/api/v1/push", typeV1, s2.EncodeSnappy(nil, make([]byte, 2<<20)), http.StatusRequestEntityTooLarge},
		{"push: a million empty entries", "/loki/api/v1/push", typeV1, s2.EncodeSnappy(nil, field(1, append(field(1, []byte(`{a="b"}`)), bytes.Repeat([]byte{0x12, 0}, 1<<19-20)...))), http.StatusRequestEntityTooLarge},
		{"push: JSON that does not end", "/loki/api/v1/push", "application/json", []byte(`{"streams":` + strings.Repeat("[", 500_000)), http.StatusBadRequest},
		{"elastic: no action", "/_bulk", "application/json", []byte("hello\nworld\n"), http.StatusBadRequest},
		{"elastic: too large", "/elastic/_bulk", "application/json", make([]byte, 2<<20), http.StatusRequestEntityTooLarge},
		{"lines: no JSON", "/insert/jsonline", "text/plain", []byte("hello\nworld\n"), http.StatusBadRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, text := post(t, s, tt.path, tt.contentType, tt.body)
			require.Equal(t, tt.want, code, text)
			require.NotEmpty(t, text)
		})
	}
	require.Empty(t, texts(t, s, `{service_name=~".+"}`))
	u, err := s.Usage()
	require.NoError(t, err)
	require.Less(t, u.PeakRSS, int64(256<<20), "no memory was taken for what was promised")
}

// TestSyslog sends good and bad messages over UDP and TCP.
func TestSyslog(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	require.NoError(t, ln.Close())
	s := start(t, t.TempDir(), "syslog: {listen: ['udp://"+addr+"', 'tcp://"+addr+"']}\n")
	at := time.Now().UTC().Format(time.RFC3339)
	send := func(network string, messages ...string) {
		c, err := new(net.Dialer).DialContext(t.Context(), network, addr)
		require.NoError(t, err)
		for _, m := range messages {
			_, err := io.WriteString(c, m)
			require.NoError(t, err)
		}
		require.NoError(t, c.Close())
	}
	send("udp", "<11>1 "+at+" h sys 1 - - udp good", "<11>1 nonsense", "", "\x00\xff")
	send("tcp", "<11>1 "+at+" h sys 1 - - tcp good\n", "\n\n<11>\n", "4294967295 <11>never read")
	send("tcp", "<11>1 "+at+" h sys 1 - - tcp later\n<11>1 1999-01-01T00:00:00Z h sys 1 - - old\n")
	require.Eventually(t, func() bool { return len(texts(t, s, `{service_name="sys"}`)) == 3 }, 10*time.Second, 50*time.Millisecond)
	require.Equal(t, []string{"tcp good", "tcp later", "udp good"}, texts(t, s, `{service_name="sys"}`))
	dropped := func(reason string) float64 {
		x, err := s.Metric(context.WithoutCancel(t.Context()), "braid_syslog_dropped_total", `reason="`+reason+`"`)
		require.NoError(t, err)
		return x
	}
	require.InDelta(t, 1, dropped("bad_frame"), 0)
	require.InDelta(t, 1, dropped("refused"), 0)
}

// TestLogsJoin sends the logs of one pod every way that knows pods: they are one entity, and each record is at its trace.
func TestLogsJoin(t *testing.T) {
	s := start(t, t.TempDir(), "")
	const id = "0af7651916cd43dd8448eb211c80319c"
	now := time.Now().UTC()
	stamp := now.Format(time.RFC3339Nano)
	for _, way := range []struct {
		path, body string
		want       int
	}{
		{"/loki/api/v1/push", `{"streams":[{"stream":{"namespace":"prod","pod":"cart-0","container":"cart"},"values":[["` + strconv.FormatInt(now.UnixNano(), 10) + `","level=error trace_id=` + id + `"]]}]}`, http.StatusNoContent},
		{"/_bulk", `{"create":{"_index":"x"}}` + "\n" + `{"@timestamp":"` + stamp + `","message":"from beats","log":{"level":"error"},"trace":{"id":"` + id + `"},"kubernetes":{"namespace":"prod","pod":{"name":"cart-0"},"container":{"name":"cart"}}}` + "\n", http.StatusOK},
		{"/insert/jsonline?_stream_fields=namespace,pod,container", `{"_time":"` + stamp + `","_msg":"from lines","level":"error","traceId":"` + id + `","namespace":"prod","pod":"cart-0","container":"cart"}`, http.StatusNoContent},
	} {
		code, text := post(t, s, way.path, "application/json", []byte(way.body))
		require.Equal(t, way.want, code, text)
	}
	code, body := get(t, s, "", "/api/v1/correlate/resource?name=cart-0")
	require.Equal(t, http.StatusOK, code)
	var out struct {
		Data struct {
			Entities []struct {
				Kind, Namespace, Pod string
				Logs                 struct {
					Records    int
					BySeverity map[string]int
				}
			}
		}
	}
	require.NoError(t, json.Unmarshal(body, &out), string(body))
	require.Len(t, out.Data.Entities, 1)
	e := out.Data.Entities[0]
	require.Equal(t, "pod prod cart-0", e.Kind+" "+e.Namespace+" "+e.Pod)
	require.Equal(t, 3, e.Logs.Records)
	require.Equal(t, map[string]int{"ERROR": 3}, e.Logs.BySeverity)
	require.Len(t, texts(t, s, `{service_name=~".+"} | trace_id="`+id+`" | detected_level="error"`), 3)
}
