package tempo_test

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/api/tempo"
	"github.com/braidobs/braid/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenant = telemetry.DefaultTenant

func handler(r storage.Reader, cfg tempo.Config) http.Handler {
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	tempo.New(tempo.Deps{Config: cfg, Reader: r, Now: func() time.Time { return time.Unix(1000, 0) }}).Register(rt)
	return rt
}

func get(ctx context.Context, h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", http.NoBody)
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(target, "?")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func id(n byte) telemetry.TraceID { return telemetry.TraceID{15: n} }

func service(name string) *telemetry.Resource {
	return telemetry.NewResource("", telemetry.Attrs{{Key: "service.name", Value: telemetry.String(name)}, {Key: "zone", Value: telemetry.String("z")}})
}

// span of a trace n; ids rise, and 1 is the root.
func span(n, i byte, start, end time.Duration, name string, attrs ...telemetry.Attr) telemetry.Span {
	s := telemetry.Span{
		TraceID: id(n), SpanID: telemetry.SpanID{7: i}, Start: int64(start), End: int64(end), Name: name,
		Kind: telemetry.SpanKindServer, Attrs: telemetry.NewAttrs(attrs),
	}
	if i != 1 {
		s.ParentID = telemetry.SpanID{7: 1}
	}
	return s
}

func store(t *testing.T) *testkit.Store {
	t.Helper()
	code := func(n int64) telemetry.Attr { return telemetry.Attr{Key: "http.code", Value: telemetry.Int(n)} }
	user := telemetry.Attr{Key: "user", Value: telemetry.String("a \"b\"")}
	failed := span(2, 2, 21*time.Second, 22*time.Second, "db", code(500), user)
	failed.Status = telemetry.StatusError
	s := testkit.NewStore("c")
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{
		{Tenant: tenant, Resource: service("web"), Spans: []telemetry.Span{
			span(1, 1, 10*time.Second, 11*time.Second, "GET /", code(200)),
			span(2, 1, 20*time.Second, 25*time.Second, "GET /cart", code(500)),
		}},
		{Tenant: tenant, Resource: service("db"), Spans: []telemetry.Span{
			failed,
			span(1, 2, 10*time.Second, 10*time.Second+3*time.Millisecond, "db", code(200)),
			span(3, 2, 30*time.Second, 31*time.Second, "late", code(200)),
		}},
		{Tenant: "other", Spans: []telemetry.Span{span(9, 1, 1, 2, "not mine")}},
	}})
	require.NoError(t, err)
	return s
}

func TestEcho(t *testing.T) {
	w := get(t.Context(), handler(store(t), tempo.DefaultConfig()), "/api/echo")
	require.Equal(t, "echo", w.Body.String())
}

// TestTraceIsWhatWasSent writes generated spans and reads their traces back in all four forms.
func TestTraceIsWhatWasSent(t *testing.T) {
	g := testkit.NewGen(3, testkit.Options{Signals: []storage.Signal{storage.Traces}, Tenants: []telemetry.Tenant{tenant}})
	s := testkit.NewStore("c")
	want := make(map[telemetry.TraceID]int)
	for range 20 {
		req := g.Request(20)
		for _, b := range req.Batches {
			for i := range b.Spans {
				want[b.Spans[i].TraceID]++
			}
		}
		_, _, err := s.Write(t.Context(), req)
		require.NoError(t, err)
	}
	h := handler(s, tempo.DefaultConfig())
	for tid, n := range want {
		v1 := get(t.Context(), h, "/api/traces/"+tid.String(), "Accept", "application/protobuf")
		require.Equal(t, http.StatusOK, v1.Code)
		require.Equal(t, "application/protobuf", v1.Header().Get("Content-Type"))
		td, err := new(ptrace.ProtoUnmarshaler).UnmarshalTraces(v1.Body.Bytes())
		require.NoError(t, err)
		require.Equal(t, n, td.SpanCount())

		v2 := get(t.Context(), h, "/api/v2/traces/"+tid.String(), "Accept", "application/protobuf").Body.Bytes()
		require.Equal(t, byte(0x0a), v2[0], "field 1 with a length")
		d := telemetry.NewDecoder(string(v2[1:]))
		require.Len(t, d.Str(), v1.Body.Len())
		require.Zero(t, d.Len())
		require.Equal(t, v1.Body.String(), string(v2[len(v2)-v1.Body.Len():]))

		var out struct{ Trace json.RawMessage }
		require.NoError(t, json.Unmarshal(get(t.Context(), h, "/api/v2/traces/"+tid.String()).Body.Bytes(), &out))
		fromJSON, err := new(ptrace.JSONUnmarshaler).UnmarshalTraces(out.Trace)
		require.NoError(t, err)
		require.Equal(t, n, fromJSON.SpanCount())
		var old struct{ Batches []any }
		require.NoError(t, json.Unmarshal(get(t.Context(), h, "/api/traces/"+tid.String()).Body.Bytes(), &old))
		require.Len(t, old.Batches, td.ResourceSpans().Len())
	}
	open, _ := s.OpenViews()
	require.Zero(t, open)
}

func TestTraceContent(t *testing.T) {
	res := telemetry.NewResource("schema", telemetry.Attrs{{Key: "m", Value: telemetry.Map(telemetry.Attrs{{Key: "k", Value: telemetry.Array([]telemetry.Value{telemetry.Bool(true), {}})}})}})
	res.Dropped = 4
	sp := telemetry.Span{
		TraceID: id(1), SpanID: telemetry.SpanID{1}, ParentID: telemetry.SpanID{2}, Kind: telemetry.SpanKindClient, Status: telemetry.StatusError,
		Flags: 257, Start: 5, End: 9, Name: "n", State: "a=b", StatusMessage: "bad",
		Scope:        &telemetry.Scope{Name: "sc", Version: "1", SchemaURL: "u", Dropped: 7, Attrs: telemetry.Attrs{{Key: "s", Value: telemetry.Double(1.5)}}},
		Attrs:        telemetry.Attrs{{Key: "b", Value: telemetry.Bytes([]byte{1, 2})}, {Key: "i", Value: telemetry.Int(-1)}},
		Events:       []telemetry.Event{{Time: 6, Name: "e", Dropped: 1, Attrs: telemetry.Attrs{{Key: "x", Value: telemetry.String("y")}}}},
		Links:        []telemetry.Link{{TraceID: id(2), SpanID: telemetry.SpanID{3}, State: "c=d", Flags: 1, Dropped: 2}},
		DroppedAttrs: 1, DroppedEvents: 2, DroppedLinks: 3,
	}
	s := testkit.NewStore("c")
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Resource: res, Spans: []telemetry.Span{sp}}}})
	require.NoError(t, err)
	require.JSONEq(t, `{"trace":{"resourceSpans":[{"schemaUrl":"schema",
		"resource":{"droppedAttributesCount":4,"attributes":[{"key":"m","value":{"kvlistValue":{"values":[{"key":"k","value":{"arrayValue":{"values":[{"boolValue":true},{}]}}}]}}}]},
		"scopeSpans":[{"schemaUrl":"u","scope":{"name":"sc","version":"1","droppedAttributesCount":7,"attributes":[{"key":"s","value":{"doubleValue":1.5}}]},
		"spans":[{"traceId":"00000000000000000000000000000001","spanId":"0100000000000000","parentSpanId":"0200000000000000","traceState":"a=b","flags":257,
		"name":"n","kind":3,"startTimeUnixNano":"5","endTimeUnixNano":"9","droppedAttributesCount":1,"droppedEventsCount":2,"droppedLinksCount":3,
		"attributes":[{"key":"b","value":{"bytesValue":"AQI="}},{"key":"i","value":{"intValue":"-1"}}],
		"events":[{"timeUnixNano":"6","name":"e","droppedAttributesCount":1,"attributes":[{"key":"x","value":{"stringValue":"y"}}]}],
		"links":[{"traceId":"00000000000000000000000000000002","spanId":"0300000000000000","traceState":"c=d","flags":1,"droppedAttributesCount":2}],
		"status":{"code":2,"message":"bad"}}]}]}]}}`, get(t.Context(), handler(s, tempo.DefaultConfig()), "/api/v2/traces/1").Body.String())
}

func TestTraceByID(t *testing.T) {
	h := handler(store(t), tempo.DefaultConfig())
	tests := []struct {
		target string
		code   int
		text   string
	}{
		{"/api/v2/traces/1", 200, "GET /"},
		{"/api/v2/traces/0001?start=5&end=15", 200, "GET /"},
		{"/api/v2/traces/1?start=5000&end=6000", 404, "not found"},
		{"/api/traces/9", 404, "trace 00000000000000000000000000000009 not found"},
		{"/api/v2/traces/xyz", 400, `trace ID "xyz"`},
		{"/api/traces/000000000000000000000000000000001", 400, "1 to 32"},
		{"/api/traces/1?start=x", 400, `invalid start "x"`},
		{"/api/traces/1?start=2&end=1", 400, "invalid end"},
	}
	for _, tt := range tests {
		t.Run(tt.target, func(t *testing.T) {
			w := get(t.Context(), h, tt.target)
			require.Equal(t, tt.code, w.Code, w.Body)
			require.Contains(t, w.Body.String(), tt.text)
		})
	}
	cfg := tempo.DefaultConfig()
	cfg.MaxSpans = 1
	w := get(t.Context(), handler(store(t), cfg), "/api/traces/1")
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	require.Contains(t, w.Body.String(), "tempo.max_spans (1)")
}

type found struct {
	Traces []struct {
		TraceID, RootServiceName, RootTraceName, StartTimeUnixNano string
		DurationMs                                                 int
		SpanSet                                                    struct {
			Matched int
			Spans   []struct {
				SpanID, StartTimeUnixNano, DurationNanos string
				Attributes                               []map[string]any
			}
		}
		SpanSets []any
	}
	Metrics struct{ InspectedTraces int }
	// Complete and Cursor say whether there is more, and where.
	Complete bool   `json:"-"`
	Cursor   string `json:"-"`
}

func (f *found) ids() (out []string) {
	for _, tr := range f.Traces {
		out = append(out, tr.TraceID)
	}
	return out
}

func search(t *testing.T, h http.Handler, params string) found {
	t.Helper()
	w := get(t.Context(), h, "/api/search?"+params)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	var out found
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out))
	out.Complete, out.Cursor = w.Header().Get("Braid-Complete") == "true", w.Header().Get("Braid-Cursor")
	return out
}

func TestSearch(t *testing.T) {
	s := store(t)
	h := handler(s, tempo.DefaultConfig())
	tests := []struct {
		name, params string
		want         []byte
	}{
		{"all", "", []byte{3, 2, 1}},
		{"empty TraceQL", "q=%7B%20%7D", []byte{3, 2, 1}},
		{"limit", "limit=2", []byte{3, 2}},
		{"time", "start=12&end=25", []byte{2}},
		{"service", "tags=service.name%3Dweb", []byte{2, 1}},
		{"resource", "tags=zone%3Dz", []byte{3, 2, 1}},
		{"attribute", "tags=http.code%3D500", []byte{2}},
		{"two of one span", "tags=" + url.QueryEscape(`http.code=500  user="a \"b\""`), []byte{2}},
		{"two of different spans", "tags=" + url.QueryEscape(`name="GET /cart" user="a \"b\""`), nil},
		{"name", "tags=name%3Ddb", []byte{2, 1}},
		{"status", "tags=status%3Derror", []byte{2}},
		{"kind", "tags=kind%3Dserver&limit=1", []byte{3}},
		{"min", "minDuration=1001ms", []byte{2}},
		{"max", "maxDuration=1s", []byte{3, 1}},
		{"both", "minDuration=900ms&maxDuration=2s&tags=name%3Ddb", []byte{1}},
		{"nothing", "tags=name%3Dnothing", nil},
		{"number as text", "tags=http.code%3D0500", nil},
		{"unknown status", "tags=status%3Dbad", nil},
		{"TraceQL", "q=" + url.QueryEscape(`{ resource.service.name = "db" && span.http.code >= 500 }`), []byte{2}},
		{"structure", "q=" + url.QueryEscape(`{ resource.service.name = "web" } > { status = error }`), []byte{2}},
		{"pipeline", "q=" + url.QueryEscape(`{ } | count() > 1`), []byte{2, 1}},
		{"tags are not looked at beside TraceQL", "q=%7B%7D&tags=nonsense", []byte{3, 2, 1}},
		{"under way in the range", "start=11&end=12", []byte{1}},
		{"nanoseconds", "start=19000000000&end=21000000000", []byte{2}},
		{"fractions of a second", "start=25.5&end=30.5", []byte{3}},
		{"RFC 3339", "start=1970-01-01T00:00:26Z&end=1970-01-01T00:00:40.5Z", []byte{3}},
		{"no end", "start=26&end=0", []byte{3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []byte
			for _, tr := range search(t, h, tt.params).Traces {
				b, err := hex.DecodeString(tr.TraceID)
				require.NoError(t, err)
				got = append(got, b[15])
			}
			require.Equal(t, tt.want, got)
		})
	}
	open, _ := s.OpenViews()
	require.Zero(t, open)
}

func TestSearchAnswer(t *testing.T) {
	h := handler(store(t), tempo.DefaultConfig())
	require.JSONEq(t, `{"traces":[
		{"traceID":"00000000000000000000000000000002","rootServiceName":"web","rootTraceName":"GET /cart","startTimeUnixNano":"20000000000","durationMs":5000,
		 "spanSet":{"spans":[{"spanID":"0000000000000001","name":"GET /cart","startTimeUnixNano":"20000000000","durationNanos":"5000000000","attributes":[{"key":"http.code","value":{"intValue":"500"}}]}],"matched":2},
		 "spanSets":[{"spans":[{"spanID":"0000000000000001","name":"GET /cart","startTimeUnixNano":"20000000000","durationNanos":"5000000000","attributes":[{"key":"http.code","value":{"intValue":"500"}}]}],"matched":2}],
		 "serviceStats":{"db":{"spanCount":1,"errorCount":1},"web":{"spanCount":1,"errorCount":0}}}],
		"metrics":{"inspectedTraces":3,"inspectedSpans":"5","inspectedBytes":"0","totalBlocks":1,"completedJobs":1,"totalJobs":1}}`,
		get(t.Context(), h, "/api/search?tags=http.code%3D500&spss=1").Body.String())
	late := search(t, h, "tags=name%3Dlate").Traces[0]
	require.Equal(t, "<root span not yet received>", late.RootServiceName)
	require.Empty(t, late.RootTraceName)
	require.Empty(t, search(t, h, "spss=0").Traces[0].SpanSets)
}

// TestSearchAgainstScan compares with what a plain look at all traces gives.
func TestSearchAgainstScan(t *testing.T) {
	g := testkit.NewGen(11, testkit.Options{Signals: []storage.Signal{storage.Traces}, Tenants: []telemetry.Tenant{tenant}, Step: 50 * time.Millisecond})
	s := testkit.NewStore("c")
	type trace struct {
		start, end int64
		match      bool
	}
	all := make(map[string]*trace)
	for range 100 {
		req := g.Request(40)
		for _, b := range req.Batches {
			for i := range b.Spans {
				sp := &b.Spans[i]
				tr := all[sp.TraceID.String()]
				if tr == nil {
					tr = &trace{start: sp.Start, end: sp.End}
					all[sp.TraceID.String()] = tr
				}
				tr.start, tr.end = min(tr.start, sp.Start), max(tr.end, sp.End)
				tr.match = tr.match || sp.Status == telemetry.StatusError
			}
		}
		_, _, err := s.Write(t.Context(), req)
		require.NoError(t, err)
	}
	h := handler(s, tempo.DefaultConfig())
	var want []string
	for tid, tr := range all {
		if tr.match && tr.end-tr.start >= int64(time.Second) && tr.end-tr.start <= int64(2*time.Second) {
			want = append(want, tid)
		}
	}
	slices.SortFunc(want, func(a, b string) int {
		return cmp.Or(cmp.Compare(all[b].start, all[a].start), strings.Compare(a, b))
	})
	require.Greater(t, len(want), 100)
	for _, params := range []string{
		"tags=status%3Derror&minDuration=1s&maxDuration=2s",
		"q=" + url.QueryEscape("{ status = error && traceDuration >= 1s && traceDuration <= 2s }"),
	} {
		for _, limit := range []int{1, 7, 100, 900} {
			f := search(t, h, fmt.Sprintf("%s&limit=%d", params, limit))
			require.Equal(t, want[:min(limit, len(want))], f.ids(), "limit %d of %d", limit, len(want))
			require.Equal(t, limit >= len(want), f.Complete)
			require.Equal(t, f.Complete, f.Cursor == "")
		}
		for _, limit := range []int{29, 64} { // every trace once, in the same order
			var got []string
			for cursor := ""; ; {
				f := search(t, h, fmt.Sprintf("%s&limit=%d&cursor=%s", params, limit, cursor))
				got = append(got, f.ids()...)
				if cursor = f.Cursor; f.Complete {
					break
				}
				require.Len(t, f.Traces, limit)
			}
			require.Equal(t, want, got)
		}
	}
}

func TestSearchErrors(t *testing.T) {
	h := handler(store(t), tempo.DefaultConfig())
	for params, text := range map[string]string{
		"q=%7B%20name%20%3D%20":         "parse error at line 1, col 10",
		"q=%7B%7D%20%7C%20rate()":       "the query is for numbers",
		"q=%7Bduration%3D%22a%22%7D":    "invalid query at line 1, col 10: the operator = is not defined",
		"cursor=x":                      `invalid cursor "x"`,
		"limit=0":                       `invalid limit "0"`,
		"limit=x":                       `invalid limit "x"`,
		"limit=1001":                    "tempo.max_traces (1000)",
		"spss=-1":                       `invalid spss "-1"`,
		"start=-1":                      `invalid start "-1"`,
		"end=soon":                      `invalid end "soon"`,
		"end=NaN":                       `invalid end "NaN"`,
		"start=5&end=4":                 "invalid end",
		"minDuration=5":                 `invalid minDuration "5"`,
		"maxDuration=-5s":               `invalid maxDuration "-5s"`,
		"minDuration=2s&maxDuration=1s": "below minDuration",
		"tags=a":                        "invalid tags at character 1",
		"tags=a%3D1%20%3Db":             "invalid tags at character 5",
		"tags=a%3D%22open":              "invalid tags at character 3",
		"tags=a%3D%22b%22c":             "invalid tags at character 6",
		"tags=%zz":                      "malformed parameters",
	} {
		w := get(t.Context(), h, "/api/search?"+params)
		require.Equal(t, http.StatusBadRequest, w.Code, params)
		require.Contains(t, w.Body.String(), text)
	}
}

type broken struct{}

func (broken) View(context.Context, storage.Position) (storage.View, error) {
	return nil, errors.New("disk on fire")
}

func TestFaultsAreHidden(t *testing.T) {
	h := handler(broken{}, tempo.DefaultConfig())
	for _, target := range []string{
		"/api/traces/1", "/api/search", "/api/search/tags", "/api/v2/search/tag/name/values", "/api/metrics/query?q=%7B%7D%7Crate()",
	} {
		w := get(t.Context(), h, target)
		require.Equal(t, http.StatusInternalServerError, w.Code)
		require.NotContains(t, w.Body.String(), "fire")
	}
}

func TestConfig(t *testing.T) {
	require.NoError(t, tempo.DefaultConfig().Validate())
	err := tempo.Config{}.Validate()
	require.ErrorContains(t, err, "max_traces")
	require.ErrorContains(t, err, "max_spans")
}

func FuzzQuery(f *testing.F) {
	f.Add(`tags=a%3D1&limit=5&minDuration=1s`)
	f.Add(`q=%7B%7D&start=1&end=2&spss=1`)
	f.Add(`q=%7B%7D%7Crate()&start=1&end=20&step=5&exemplars=3&cursor=AAAA`)
	f.Add("tags=" + url.QueryEscape(`service.name="x y" status=error`))
	s := testkit.NewStore("c")
	_, _, err := s.Write(f.Context(), testkit.NewGen(1, testkit.Options{}).Request(100))
	require.NoError(f, err)
	h := handler(s, tempo.DefaultConfig())
	f.Fuzz(func(t *testing.T, params string) {
		for _, path := range []string{
			"/api/search", "/api/v2/traces/1", "/api/v2/search/tags", "/api/v2/search/tag/span.a/values", "/api/metrics/query", "/api/metrics/query_range",
		} {
			w := get(t.Context(), h, path+"?"+params)
			require.NotEqual(t, http.StatusInternalServerError, w.Code, w.Body)
			if w.Code == http.StatusOK {
				require.True(t, json.Valid(w.Body.Bytes()), w.Body)
			}
		}
		open, _ := s.OpenViews()
		require.Zero(t, open)
	})
}
