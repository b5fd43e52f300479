package jsonlines_test

import (
	"bytes"
	"context"
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
	"github.com/braidobs/braid/ingest/jsonlines"
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
				out = append(out, fmt.Sprintf("%s %s %q %s", b.Stream.Labels(), time.Duration(l.Time-now.UnixNano()), l.Body.Text(), l.Attrs.AppendJSON(nil)))
			}
		}
	}
	return strings.Join(out, "\n")
}

type rig struct {
	*writer
	server *jsonlines.Server
}

func newRig(t require.TestingT) *rig {
	c := ingest.DefaultConfig()
	require.NoError(t, c.Validate())
	r := &rig{writer: &writer{}}
	clock := func() time.Time { return now }
	r.server = jsonlines.New(ingest.NewReceiver(ingest.ReceiverDeps{
		Pipeline: ingest.New(c, ingest.Deps{Writer: r.writer, Now: clock, Metrics: prometheus.NewRegistry()}), MaxBody: 1 << 20, Now: clock,
	}))
	return r
}

func (r *rig) send(query string, body []byte, header ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, jsonlines.Path+query, bytes.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.server.ServeHTTP(w, req)
	return w
}

func TestLines(t *testing.T) {
	const in = `{"_time":"2026-03-01T11:59:59Z","_msg":"one","app":"shop","k8s":{"pod":"p"},"n":1}` + "\r\n\n" +
		`{"ts":1772366398.5,"text":"two","app":"shop","empty":""}`
	tests := []struct {
		name, query string
		header      []string
		want        string
	}{
		{
			"as it is", "", nil,
			`{service_name="shop"} -1s "one" {"app":"shop","n":1}` + "\n" +
				`{service_name="shop"} -1.5s "{\"ts\":1772366398.5,\"text\":\"two\",\"app\":\"shop\",\"empty\":\"\"}" {}`,
		},
		{
			"by parameters", "?_msg_field=text,_msg&_time_field=ts,_time&_stream_fields=app,k8s.pod,no", nil,
			`{app="shop", k8s_pod="p", service_name="shop"} -1s "one" {"app":"shop","k8s.pod":"p","n":1}` + "\n" +
				`{app="shop", service_name="shop"} -1.5s "two" {"app":"shop","empty":""}`,
		},
		{
			"by headers", "",
			[]string{"VL-Msg-Field", "text", "VL-Stream-Fields", "n"},
			`{n="1", service_name="unknown_service"} -1s "one" {"app":"shop","k8s.pod":"p","n":1}` + "\n" +
				`{service_name="unknown_service"} -1.5s "two" {"app":"shop","empty":""}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var z bytes.Buffer
			g := gzip.NewWriter(&z)
			_, err := g.Write([]byte(in))
			require.NoError(t, err)
			require.NoError(t, g.Close())
			for enc, body := range map[string][]byte{"": []byte(in), "gzip": z.Bytes()} {
				r := newRig(t)
				w := r.send(tt.query, body, append([]string{"Content-Encoding", enc}, tt.header...)...)
				require.Equal(t, http.StatusNoContent, w.Code, w.Body)
				require.Equal(t, tt.want, r.show())
				require.NotZero(t, r.requests[0].Key)
			}
		})
	}
}

func TestPartly(t *testing.T) {
	r := newRig(t)
	w := r.send("", []byte(`{"_time":"0","_msg":"now"}`+"\n[1]\nhello\n"+`{"_time":"1999-01-01T00:00:00Z","_msg":"bad"}`+"\n"))
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Equal(t, "3 lines were not stored, the others were: line 2 is not a JSON object; line 3 is not a JSON object; "+
		"the time of a log record is older than the retention of 30d (setting storage.retention)\n", w.Body.String())
	require.Equal(t, `{service_name="unknown_service"} 0s "now" {"_time":"0"}`, r.show())
	require.Zero(t, r.requests[0].Key, "a line without a time is no retry")

	for _, tt := range []struct {
		in   []byte
		want int
	}{
		{make([]byte, 2<<20), http.StatusRequestEntityTooLarge},
		{[]byte(strings.Repeat("{}\n", 100_000)), http.StatusRequestEntityTooLarge},
		{[]byte(strings.Repeat("x\n", 10)), http.StatusBadRequest},
		{nil, http.StatusNoContent},
	} {
		r := newRig(t)
		require.Equal(t, tt.want, r.send("", tt.in).Code)
		require.Empty(t, r.requests)
	}
	r = newRig(t)
	req := httptest.NewRequest(http.MethodPut, jsonlines.Path, http.NoBody)
	w = httptest.NewRecorder()
	r.server.ServeHTTP(w, req)
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	r.err = storage.ErrOverloaded
	require.Equal(t, http.StatusServiceUnavailable, r.send("", []byte(`{"_msg":"x"}`)).Code)
}

func FuzzLines(f *testing.F) {
	f.Add("_msg_field=m&_stream_fields=a.b,c", []byte(`{"m":"x","a":{"b":1},"c":[{}],"_time":"2026-03-01T11:59:59Z"}`+"\n"+`{"log":{"level":"warn"},"kubernetes":{"pod_name":"p"}}`))
	f.Fuzz(func(t *testing.T, query string, body []byte) {
		r := newRig(t)
		req := httptest.NewRequest(http.MethodPost, jsonlines.Path, bytes.NewReader(body))
		req.URL.RawQuery = query
		w := httptest.NewRecorder()
		r.server.ServeHTTP(w, req)
		require.Contains(t, []int{http.StatusNoContent, http.StatusBadRequest, http.StatusRequestEntityTooLarge}, w.Code, w.Body)
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
