package loki_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zlib"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/loki"
	"github.com/braidobs/braid/internal/httpapi"
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
				out = append(out, fmt.Sprintf("%s %s %s %d %q %s", b.Tenant, b.Stream.Labels(), res, l.Time-now.UnixNano(), l.Body.Text(), l.Attrs.AppendJSON(nil)))
			}
		}
	}
	return strings.Join(out, "\n")
}

type rig struct {
	*writer
	server *loki.Server
}

func newRig(t require.TestingT, maxBody int64) *rig {
	c := ingest.DefaultConfig()
	require.NoError(t, c.Validate())
	r := &rig{writer: &writer{}}
	clock := func() time.Time { return now }
	r.server = loki.New(ingest.NewReceiver(ingest.ReceiverDeps{
		Pipeline: ingest.New(c, ingest.Deps{Writer: r.writer, Now: clock, Metrics: prometheus.NewRegistry()}), MaxBody: maxBody, Now: clock,
	}))
	return r
}

func (r *rig) send(contentType, encoding string, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, loki.PushPath, bytes.NewReader(body))
	req.Header.Set(httpapi.TenantHeader, "t")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	w := httptest.NewRecorder()
	r.server.ServeHTTP(w, req)
	return w
}

// stream and entry are a request as tests write it.
type stream struct {
	labels  string
	entries []entry
}

type entry struct {
	at   time.Time
	line string
	meta []string
}

func msg(num protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
}

func num(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

// protobuf encodes a push request as Loki's clients do.
func protobuf(streams ...stream) (out []byte) {
	for _, s := range streams {
		b := msg(1, []byte(s.labels))
		for _, e := range s.entries {
			eb := msg(1, append(num(1, uint64(e.at.Unix())), num(2, uint64(e.at.Nanosecond()))...))
			eb = append(eb, msg(2, []byte(e.line))...)
			for i := 0; i < len(e.meta); i += 2 {
				eb = append(eb, msg(3, append(msg(1, []byte(e.meta[i])), msg(2, []byte(e.meta[i+1]))...))...)
			}
			eb = append(eb, msg(4, msg(1, []byte("parsed")))...) // which is of answers
			b = append(b, msg(2, eb)...)
		}
		b = append(b, num(3, 12345)...) // the hash
		out = append(out, msg(1, b)...)
	}
	return out
}

const typeProto, typeJSON = "application/x-protobuf", "application/json"

func TestPush(t *testing.T) {
	at := now.Add(-time.Minute).Add(123456789)
	binary := "bin \x00\xff \x1b[31m red"
	body := protobuf(
		stream{`{app="shop", pod='p\'0'}`, []entry{{at, "one", nil}, {at.Add(1), "", []string{"trace_id", "abc", "n", "1"}}, {at.Add(-time.Hour), binary, nil}}},
		stream{`{ service_name="x" , level=` + "`a\\b`" + ` , }`, []entry{{at, "two", nil}}},
		stream{`{host="h"}`, []entry{{at, "three", nil}}},
		stream{`{app="shop", pod="p'0"}`, []entry{{at.Add(2), "four", nil}}},
		stream{labels: `{empty="x"}`},
	)
	const want = `t {app="shop", pod="p'0", service_name="shop"} {"app":"shop","pod":"p'0","service_name":"shop"} -59876543211 "one" {}
t {app="shop", pod="p'0", service_name="shop"} {"app":"shop","pod":"p'0","service_name":"shop"} -59876543210 "" {"n":"1","trace_id":"abc"}
t {app="shop", pod="p'0", service_name="shop"} {"app":"shop","pod":"p'0","service_name":"shop"} -3659876543211 "bin \x00\xff \x1b[31m red" {}
t {app="shop", pod="p'0", service_name="shop"} {"app":"shop","pod":"p'0","service_name":"shop"} -59876543209 "four" {}
t {level="a\\b", service_name="x"} {"service_name":"x"} -59876543211 "two" {}
t {host="h", service_name="unknown_service"} - -59876543211 "three" {}`
	for _, ct := range []string{typeProto, ""} {
		for _, enc := range []string{"snappy", ""} {
			r := newRig(t, 1<<20)
			for range 2 { // the second time the labels are known
				w := r.send(ct, enc, s2.EncodeSnappy(nil, body))
				require.Equal(t, http.StatusNoContent, w.Code, w.Body)
				require.Empty(t, w.Body.Bytes())
			}
			require.Len(t, r.requests, 2)
			require.Equal(t, r.requests[0].Key, r.requests[1].Key)
			require.NotZero(t, r.requests[0].Key)
			r.requests = r.requests[:1]
			require.Equal(t, want, r.show())
		}
	}
}

func ns(d time.Duration) string { return strconv.FormatInt(now.Add(d).UnixNano(), 10) }

func TestPushJSON(t *testing.T) {
	body := `{ "x":[{"a":[1,null,{"b":true}]}], "streams" : [
		{"values":[["` + ns(-2) + `","a \"q\" \u00e9\n",{"k\t":"v\\"}],[` + ns(-1) + `,"b",{},9],["` + ns(0) + `", "c"]],"stream":{"app":"a\u0062","z":""}},
		{"stream":{"service":"s","app":"no"},"values":[["` + ns(1) + `","d"]],"hash":1},
		{"stream":{"e":"f"},"values":[]}
	]} `
	const want = `t {app="ab", service_name="ab"} {"app":"ab","service_name":"ab"} -2 "a \"q\" é\n" {"k\t":"v\\"}
t {app="ab", service_name="ab"} {"app":"ab","service_name":"ab"} -1 "b" {}
t {app="ab", service_name="ab"} {"app":"ab","service_name":"ab"} 0 "c" {}
t {app="no", service="s", service_name="s"} {"app":"no","service_name":"s"} 1 "d" {}`
	pack := func(w interface {
		Write([]byte) (int, error)
		Close() error
	}, out *bytes.Buffer,
	) []byte {
		_, err := w.Write([]byte(body))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return out.Bytes()
	}
	var g, z, f bytes.Buffer
	fw, err := flate.NewWriter(&f, 1)
	require.NoError(t, err)
	for enc, b := range map[string][]byte{
		"": []byte(body), "gzip": pack(gzip.NewWriter(&g), &g), "deflate": pack(zlib.NewWriter(&z), &z), "Deflate": pack(fw, &f),
	} {
		r := newRig(t, 1<<20)
		w := r.send("application/json; charset=utf-8", enc, b)
		require.Equal(t, http.StatusNoContent, w.Code, w.Body)
		require.Equal(t, want, r.show())
	}
}

// What is wrong with a stream or an entry is told, and what stands beside it is stored.
func TestPartly(t *testing.T) {
	good := stream{`{app="good"}`, []entry{{now, "good", nil}}}
	var many strings.Builder
	for i := range 70 {
		fmt.Fprintf(&many, `l%d="x",`, i)
	}
	tests := []struct{ name, labels, want string }{
		{"no braces", `app="x"`, `stream app="x": no braces`},
		{"no labels", `{}`, "stream {}: at least one label is required"},
		{"empty labels", `{a=""}`, "at least one label"},
		{"no value", `{app=}`, "no quoted value at byte 5"},
		{"no quote", `{app="x}`, "no quoted value"},
		{"no equals", `{app "x"}`, "no = after a name at byte 5"},
		{"no comma", `{app="x" b="y"}`, "no comma after a label at byte 9"},
		{"name", `{1a="x"}`, "no name of a label at byte 1"},
		{"escape", `{a="\q"}`, "wrong escape"},
		{"twice", `{a="1", a="2"}`, "given twice"},
		{"too many", "{" + many.String() + "}", "setting ingest.max_labels"},
		{"not UTF-8", "{a=\"\xff\"}", "not valid UTF-8"},
		{"too long", `{a="` + strings.Repeat("x", 65<<10) + `"}`, "setting ingest.max_label_value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, 1<<20)
			w := r.send(typeProto, "", s2.EncodeSnappy(nil, protobuf(stream{tt.labels, []entry{{now, "bad", nil}, {now, "bad", nil}}}, good)))
			require.Equal(t, http.StatusBadRequest, w.Code)
			require.Contains(t, w.Body.String(), "2 of 3 entries were not stored, the others were: stream ")
			require.Contains(t, w.Body.String(), tt.want)
			require.Contains(t, r.show(), `"good"`)
			require.NotContains(t, r.show(), "bad")
		})
	}
	r := newRig(t, 1<<20)
	w := r.send(typeJSON, "", []byte(`{"streams":[{"stream":{"a.b":"x"},"values":[["1","bad"]]},{"stream":{"app":"x"},"values":[["`+ns(0)+`","good"],["soon","bad"],["1","bad"],["`+ns(2*time.Hour)+`","bad"]]}]}`))
	require.Equal(t, http.StatusBadRequest, w.Code)
	for _, want := range []string{`4 of 5 entries`, `"a.b" is no name of a label`, `"soon" of an entry is not a number`, "older than the retention", "more than 1h in the future"} {
		require.Contains(t, w.Body.String(), want)
	}
	require.Contains(t, r.show(), `"good"`)
	require.NotContains(t, r.show(), "bad")
}

// What is no request at all is refused as a whole.
func TestRefused(t *testing.T) {
	whole := protobuf(stream{`{app="good"}`, []entry{{now, "good", []string{"a", "b"}}}})
	snappy := func(b []byte) []byte { return s2.EncodeSnappy(nil, b) }
	tests := []struct {
		name, contentType, encoding string
		body                        []byte
		want                        int
	}{
		{"type", "text/plain", "", whole, http.StatusUnsupportedMediaType},
		{"encoding", typeProto, "gzip", snappy(whole), http.StatusUnsupportedMediaType},
		{"JSON encoding", typeJSON, "br", []byte(`{}`), http.StatusUnsupportedMediaType},
		{"not packed", typeProto, "", whole, http.StatusBadRequest},
		{"cut", typeProto, "", snappy(whole)[:10], http.StatusBadRequest},
		{"cut inside", typeProto, "", snappy(whole[:len(whole)-3]), http.StatusBadRequest},
		{"a number for a stream", typeProto, "", snappy(num(1, 7)), http.StatusBadRequest},
		{"a number for labels", typeProto, "", snappy(msg(1, num(1, 7))), http.StatusBadRequest},
		{"a number for a line", typeProto, "", snappy(msg(1, append(msg(1, []byte(`{a="b"}`)), msg(2, num(2, 7))...))), http.StatusBadRequest},
		{"a group", typeProto, "", snappy([]byte{0x0b, 0x0c}), http.StatusBadRequest},
		{"a fixed field that is cut", typeProto, "", snappy([]byte{0x4d, 1, 2}), http.StatusBadRequest},
		{"too large", typeProto, "", snappy(make([]byte, 2<<20)), http.StatusRequestEntityTooLarge},
		{"many empty entries", typeProto, "", snappy(msg(1, append(msg(1, []byte(`{a="b"}`)), bytes.Repeat([]byte{0x12, 0}, 1<<18)...))), http.StatusRequestEntityTooLarge},
		{"JSON", typeJSON, "", []byte(`{"streams":[{"stream":{"a":"b"},"values":[["1","x"]]}`), http.StatusBadRequest},
		{"JSON and more", typeJSON, "", []byte(`{"streams":[]} x`), http.StatusBadRequest},
		{"JSON of another kind", typeJSON, "", []byte(`{"streams":{"a":"b"}}`), http.StatusBadRequest},
		{"JSON line of another kind", typeJSON, "", []byte(`{"streams":[{"stream":{"a":"b"},"values":[["1",2]]}]}`), http.StatusBadRequest},
		{"JSON without a line", typeJSON, "", []byte(`{"streams":[{"stream":{"a":"b"},"values":[["1"]]}]}`), http.StatusBadRequest},
		{"JSON without end", typeJSON, "", []byte(`{"a":` + strings.Repeat("[", 100_000)), http.StatusBadRequest},
		{"many empty JSON entries", typeJSON, "", []byte(`{"streams":[{"stream":{"a":"b"},"values":[` + strings.Repeat(`0,`, 1<<18) + `0]}]}`), http.StatusRequestEntityTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, 1<<20)
			w := r.send(tt.contentType, tt.encoding, tt.body)
			require.Equal(t, tt.want, w.Code, w.Body)
			require.NotEmpty(t, w.Body.String())
			require.Empty(t, r.requests)
		})
	}
	r := newRig(t, 1<<20)
	req := httptest.NewRequest(http.MethodGet, loki.PushPath, http.NoBody)
	w := httptest.NewRecorder()
	r.server.ServeHTTP(w, req)
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	require.Equal(t, http.MethodPost, w.Header().Get("Allow"))
	require.Equal(t, http.StatusNoContent, r.send(typeJSON, "", []byte(`{"streams":[]}`)).Code)
	r.err = &storage.Overloaded{RetryAfter: time.Second}
	w = r.send(typeProto, "", snappy(whole))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
}

func FuzzProtobuf(f *testing.F) {
	f.Add(protobuf(stream{`{app="shop", pod='p\'0'}`, []entry{{now, "one", []string{"a", "b"}}}}, stream{"{a=`b`}", []entry{{now, "", nil}}}))
	f.Add(msg(1, append(msg(1, []byte(`{a="b"}`)), msg(2, append(msg(1, num(1, 1<<63)), msg(2, nil)...))...)))
	f.Fuzz(func(t *testing.T, body []byte) { fuzz(t, typeProto, s2.EncodeSnappy(nil, body)) })
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"streams":[{"values":[["1767225600000000000","a \u00e9\ud83d",{"k":"\\"}],[1,"b"]],"stream":{"a":"b"}}],"x":[{"y":-1e9}]}`))
	f.Fuzz(func(t *testing.T, body []byte) { fuzz(t, typeJSON, body) })
}

// fuzz sends a body: it is answered, and what is stored of it can be written to the log and read back.
func fuzz(t *testing.T, contentType string, body []byte) {
	t.Helper()
	r := newRig(t, 1<<20)
	w := r.send(contentType, "", body)
	require.Contains(t, []int{http.StatusNoContent, http.StatusBadRequest, http.StatusRequestEntityTooLarge}, w.Code, w.Body)
	for _, req := range r.requests {
		for i := range req.Batches {
			b := &req.Batches[i]
			require.NoError(t, b.Stream.Check())
			require.NotEmpty(t, b.Stream.Get("service_name"))
			d := telemetry.NewDecoder(string(telemetry.AppendBatch(nil, b)))
			back := d.Batch()
			require.NoError(t, d.Err())
			require.Equal(t, b.Logs, back.Logs)
		}
	}
}

func BenchmarkPush(b *testing.B) {
	var streams []stream
	size := 0
	for i := range 20 {
		s := stream{labels: labels.FromStrings("app", "shop", "pod", fmt.Sprintf("shop-%d", i), "namespace", "prod").String()}
		for j := range 120 {
			line := fmt.Sprintf(`{"level":"info","ts":"2026-01-31T14:05:05.123456789Z","caller":"server/handler.go:123","msg":"request done","method":"GET","path":"/api/v1/item/%d","status":200,"duration":0.0123}`, j)
			size += len(line)
			s.entries = append(s.entries, entry{now.Add(time.Duration(j)), line, nil})
		}
		streams = append(streams, s)
	}
	body := s2.EncodeSnappy(nil, protobuf(streams...))
	r := newRig(b, 64<<20)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if w := r.send(typeProto, "snappy", body); w.Code != http.StatusNoContent {
			b.Fatal(w.Body)
		}
		r.requests = r.requests[:0]
	}
}
