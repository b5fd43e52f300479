package elastic_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/elastic"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// now is the time of the tests.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// writer is a storage.Writer that keeps what it is given.
type writer struct {
	requests []storage.Request
	err      error
}

func (w *writer) Write(_ context.Context, r storage.Request) (storage.Position, storage.Rejected, error) {
	if w.err != nil {
		return 0, storage.Rejected{}, w.err
	}
	w.requests = append(w.requests, r)
	return 1, r.Rejected, nil
}

// show returns what was written, one record a line.
func (w *writer) show() string {
	var out []string
	for _, r := range w.requests {
		for _, b := range r.Batches {
			for i := range b.Logs {
				l := &b.Logs[i]
				res := "-"
				if b.Resource != nil {
					res = string(b.Resource.Attrs.AppendJSON(nil))
				}
				out = append(out, fmt.Sprintf("%s %s %s %d %v %q %s", b.Stream.Labels(), res, time.Duration(l.Time-now.UnixNano()), l.Severity, l.TimeInferred, l.Body.Text(), l.Attrs.AppendJSON(nil)))
			}
		}
	}
	return strings.Join(out, "\n")
}

type rig struct {
	*writer
	bulk, hand *http.ServeMux
}

func newRig(t require.TestingT) *rig {
	c := ingest.DefaultConfig()
	require.NoError(t, c.Validate())
	r := &rig{writer: &writer{}, bulk: http.NewServeMux(), hand: http.NewServeMux()}
	clock := func() time.Time { return now }
	s := elastic.New(ingest.NewReceiver(ingest.ReceiverDeps{
		Pipeline: ingest.New(c, ingest.Deps{Writer: r.writer, Now: clock, Metrics: prometheus.NewRegistry()}), MaxBody: 1 << 20, Now: clock,
	}))
	for p, h := range s.Routes() {
		r.bulk.Handle(p, h)
	}
	for p, h := range s.Handshake() {
		r.hand.Handle(p, h)
	}
	return r
}

func (r *rig) do(method, path string, body []byte, header ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, bytes.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	if mux := r.bulk; elastic.IsHandshake(req.URL.Path) {
		r.hand.ServeHTTP(w, req)
	} else {
		mux.ServeHTTP(w, req)
	}
	return w
}

// answer is what clients read.
type answer struct {
	Took   *int
	Errors bool
	Items  []map[string]struct {
		Index  string `json:"_index"`
		ID     string `json:"_id"`
		Status int
		Error  *struct{ Type, Reason string }
	}
}

func read(t *testing.T, w *httptest.ResponseRecorder) answer {
	t.Helper()
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.Equal(t, "Elasticsearch", w.Header().Get("X-Elastic-Product"))
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var a answer
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a), w.Body)
	require.NotNil(t, a.Took)
	return a
}

func TestBulk(t *testing.T) {
	const at = `"@timestamp":"2026-03-01T11:59:00.123Z"`
	tests := []struct{ name, path, in, want string }{
		{
			"filebeat", "/_bulk",
			`{"create":{"_index":"filebeat-8.17.0-2026.03.01"}}` + "\n" +
				`{` + at + `,"message":"hello \"w\"","log":{"level":"warn","offset":7},"host":{"name":"h"},"kubernetes":{"pod":{"name":"p"},"namespace":"n","labels":{"app":"shop"},"container":{"name":"c"}},"tags":["a","b"],"ok":true,"took":1.5}` + "\n",
			`{container="c", index="filebeat-8.17.0-2026.03.01", namespace="n", pod="p", service_name="shop"} {"host.name":"h","kubernetes.container.name":"c","kubernetes.labels.app":"shop","kubernetes.namespace":"n","kubernetes.pod.name":"p"} ` +
				`-59.877s 13 false "hello \"w\"" {"log.level":"warn","log.offset":7,"ok":true,"tags":"[\"a\",\"b\"]","took":1.5}`,
		},
		{
			"index of the path, no newline at the end", "/elastic/app-logs/_bulk", `{"index":{}}` + "\n" + `{"timestamp":1772366340123,"msg":"x","hostname":"h"}`,
			`{host="h", index="app-logs", service_name="app-logs"} {"service_name":"app-logs"} -59.877s 0 false "x" {"hostname":"h"}`,
		},
		{
			"whole document", "/_bulk", `{"index":{"_index":"2026"}}` + "\r\n" + `{` + at + `,"level":"error","service":{"name":"s"}}` + "\r\n\r\n",
			`{index="2026", service_name="s"} {"service.name":"s"} -59.877s 17 false "{\"@timestamp\":\"2026-03-01T11:59:00.123Z\",\"level\":\"error\",\"service\":{\"name\":\"s\"}}" {}`,
		},
		{
			"no time", "/_bulk", `{"index":{"_index":"i"}}` + "\n" + `{"log":"line\n","time":"later"}`,
			`{index="i", service_name="i"} {"service_name":"i"} 0s 0 true "line\n" {"time":"later"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			a := read(t, r.do(http.MethodPost, tt.path, []byte(tt.in)))
			require.False(t, a.Errors)
			require.Len(t, a.Items, 1)
			for _, it := range a.Items[0] {
				require.Equal(t, http.StatusCreated, it.Status)
			}
			require.Equal(t, tt.want, r.show())
			require.Equal(t, strings.Contains(tt.want, " true "), r.requests[0].Key == storage.Key{}, "what has no time of its own is no retry")
		})
	}
	t.Run("gzip, PUT, the type of Elasticsearch 8", func(t *testing.T) {
		r := newRig(t)
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write([]byte(tests[0].in))
		require.NoError(t, err)
		require.NoError(t, z.Close())
		w := r.do(http.MethodPut, "/_bulk", b.Bytes(), "Content-Encoding", "gzip", "Accept", "application/vnd.elasticsearch+json;compatible-with=8")
		require.Equal(t, http.StatusOK, w.Code)
		require.Equal(t, "application/vnd.elasticsearch+json;compatible-with=8", w.Header().Get("Content-Type"))
		require.Equal(t, tests[0].want, r.show())
	})
}

// Each document has an answer of its own, in the order of the request; what is wrong with one does not touch the others.
func TestItems(t *testing.T) {
	r := newRig(t)
	const good = `{"@timestamp":"2026-03-01T11:59:00Z","message":"good"}`
	var in strings.Builder
	add := func(action, doc string) {
		in.WriteString(action + "\n")
		if doc != "" {
			in.WriteString(doc + "\n")
		}
	}
	var many strings.Builder
	many.WriteString(`{"message":"x"`)
	for i := range 300 {
		fmt.Fprintf(&many, `,"k%d":1`, i)
	}
	add(`{"index":{"_index":"a","_id":"one"}}`, good)
	add(`{"delete":{"_index":"a","_id":"one"}}`, "")
	add(`{"update":{"_index":"a","_id":"one"}}`, `{"doc":{}}`)
	add(`{"create":{"_index":"a"}}`, `[1]`)
	add(`{"create":{"_index":"a"}}`, `{"@timestamp":"1999-01-01T00:00:00Z","message":"bad"}`)
	add(`{"create":{"_index":"a"}}`, `{"@timestamp":"2027-01-01T00:00:00Z","message":"bad"}`)
	add(`{"create":{}}`, good)
	add(`{"create":{"_index":"a"}}`, `{"message":"bad","kubernetes":{"pod":{"name":"`+strings.Repeat("x", 70_000)+`"}}}`)
	add(`{"create":{"_index":"a"}}`, many.String()+"}")
	add(`{"create":{"_index":"a"}}`, good)
	a := read(t, r.do(http.MethodPost, "/_bulk", []byte(in.String())))
	require.True(t, a.Errors)
	var got []string
	for _, it := range a.Items {
		require.Len(t, it, 1)
		for action, x := range it {
			line := fmt.Sprintf("%s %s %s %d", action, x.Index, x.ID, x.Status)
			if x.Error != nil {
				line += " " + x.Error.Type + ": " + x.Error.Reason
			}
			got = append(got, line)
		}
	}
	require.Equal(t, []string{
		"index a one 201",
		"delete a one 400 illegal_argument_exception: delete is not supported: logs are only appended",
		"update a one 400 illegal_argument_exception: update is not supported: logs are only appended",
		"create a 3 400 document_parsing_exception: the document is not a JSON object",
		"create a 4 400 document_parsing_exception: the time of a log record is older than the retention of 30d (setting storage.retention)",
		"create a 5 400 document_parsing_exception: the time of a log record is more than 1h in the future (setting ingest.max_future)",
		"create  6 400 illegal_argument_exception: the name of an index must have 1 to 255 bytes",
		"create a 7 400 document_parsing_exception: a label has a value longer than 64KiB (setting ingest.max_label_value)",
		"create a 8 201",
		"create a 9 201",
	}, got)
	require.Contains(t, r.show(), `k299`, "a document with more fields than are kept is its own line")
	require.NotContains(t, r.show(), "bad")
	require.Len(t, r.requests, 1)
}

func TestRefused(t *testing.T) {
	tests := []struct {
		name, method, in string
		want             int
		text             string
	}{
		{"method", http.MethodGet, ``, http.StatusMethodNotAllowed, "use POST"},
		{"no action", http.MethodPost, "hello\n{}", http.StatusBadRequest, "line 1 is no action"},
		{"unknown action", http.MethodPost, `{"get":{}}`, http.StatusBadRequest, `unknown action \"get\"`},
		{"two actions", http.MethodPost, `{"index":{},"create":{}}`, http.StatusBadRequest, "2 actions"},
		{"no document", http.MethodPost, `{"index":{"_index":"a"}}`, http.StatusBadRequest, "no document after it"},
		{"too large", http.MethodPost, strings.Repeat("x", 2<<20), http.StatusRequestEntityTooLarge, "larger than"},
		{"many small documents", http.MethodPost, strings.Repeat("{\"index\":{}}\n{}\n", 60_000), http.StatusRequestEntityTooLarge, "too much memory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			w := r.do(tt.method, "/_bulk", []byte(tt.in))
			require.Equal(t, tt.want, w.Code, w.Body)
			require.Contains(t, w.Body.String(), tt.text)
			require.True(t, json.Valid(w.Body.Bytes()))
			require.Equal(t, "Elasticsearch", w.Header().Get("X-Elastic-Product"))
			require.Empty(t, r.requests)
		})
	}
	r := newRig(t)
	r.err = &storage.Overloaded{RetryAfter: time.Second}
	w := r.do(http.MethodPost, "/_bulk", []byte("{\"index\":{\"_index\":\"a\"}}\n{}\n"))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Contains(t, w.Body.String(), "es_rejected_execution_exception")
}

func TestHandshake(t *testing.T) {
	r := newRig(t)
	for _, ask := range []string{
		"GET /elastic", "GET /elastic/", "HEAD /elastic/", "GET /_license", "GET /_license?human=false", "GET /_xpack", "GET /_cluster/health", "GET /_nodes/http", "GET /_cat/templates/logstash",
		"HEAD /_ilm/policy/filebeat", "GET /_ilm/policy/filebeat", "PUT /_ilm/policy/filebeat", "HEAD /_index_template/filebeat", "GET /_index_template/filebeat",
		"PUT /_index_template/filebeat", "PUT /_component_template/x", "GET /_template/x", "GET /_ingest/pipeline/x", "PUT /_ingest/pipeline/x", "GET /_data_stream/x",
		"PUT /_data_stream/x", "GET /elastic/_license", "HEAD /elastic/filebeat-8", "GET /elastic/_index_template/a\"b",
	} {
		method, path, _ := strings.Cut(ask, " ")
		w := r.do(method, strings.ReplaceAll(path, `"`, "%22"), nil)
		require.Equal(t, http.StatusOK, w.Code, ask)
		require.Equal(t, "Elasticsearch", w.Header().Get("X-Elastic-Product"), ask)
		if method != http.MethodHead {
			require.True(t, json.Valid(w.Body.Bytes()), "%s: %s", ask, w.Body)
		}
	}
	var info struct{ Version struct{ Number string } }
	require.NoError(t, json.Unmarshal(r.do(http.MethodGet, "/elastic/", nil).Body.Bytes(), &info))
	require.Equal(t, "8.17.0", info.Version.Number)
	req := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	require.True(t, elastic.Asked(req))
	req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	require.False(t, elastic.Asked(req))
}

func FuzzBulk(f *testing.F) {
	f.Add([]byte(`{"create":{"_index":"filebeat-8.17.0"}}` + "\n" + `{"@timestamp":"2026-03-01T11:59:00.123Z","message":"a","log":{"level":"warn"},"host":{"name":"h"},"x":[1,{"a":"\u00e9"}],"trace":{"id":"0123456789abcdef"}}` + "\n"))
	f.Add([]byte(`{"delete":{"_index":"a"}}` + "\n" + `{"index":{"_id":"1"}}` + "\n" + `{"time":1772366340,"kubernetes":{"labels":{"app":"x"}},"a":{"b":{"c":{"d":{"e":{"f":1}}}}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := newRig(t)
		w := r.do(http.MethodPost, "/i/_bulk", body)
		require.Contains(t, []int{http.StatusOK, http.StatusBadRequest, http.StatusRequestEntityTooLarge}, w.Code, w.Body)
		require.True(t, json.Valid(w.Body.Bytes()), w.Body)
		for _, req := range r.requests {
			for i := range req.Batches {
				b := &req.Batches[i]
				require.NoError(t, b.Stream.Check())
				require.NotEmpty(t, b.Stream.Get("service_name"))
				d := telemetry.NewDecoder(string(telemetry.AppendBatch(nil, b)))
				back := d.Batch()
				require.NoError(t, d.Err())
				require.Len(t, back.Logs, len(b.Logs))
			}
		}
	})
}
