package loki_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/api/loki"
	"github.com/braidobs/braid/storage"
)

// at is a time in the tests of what is counted over time.
func at(d time.Duration) int64 { return day().Add(d).UnixNano() }

func day() time.Time { return time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC) }

// shop returns a store with lines of two services, a minute apart each.
func shop(t *testing.T) *testkit.Store {
	t.Helper()
	s := testkit.NewStore("c")
	var cart, pay []telemetry.LogRecord
	for i := range 10 {
		when := at(time.Duration(i) * time.Minute)
		cart = append(cart, line(when, strings.Repeat(" ", i/5)+fmt.Sprintf(`{"level":"info","status":%d,"took":"%dms","who":{"name":"u%d","vip":true},"size":"1.5KB"}`, 200+i%2, i, i%3)))
		pay = append(pay, line(when+1, fmt.Sprintf(`level=warn msg="payment %d refused" amount=%d.5 code=x%d`, i, i, i%2)))
	}
	pay = append(pay, telemetry.LogRecord{Time: at(0) + 2, Body: telemetry.String("no fields here"), Attrs: telemetry.Attrs{str("order", "17")}})
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{
		{Tenant: tenant, Stream: set("app", "cart", "pod", "cart-0", "service_name", "cart"), Logs: cart[:5]},
		{Tenant: tenant, Stream: set("app", "cart", "pod", "cart-1", "service_name", "cart"), Logs: cart[5:]},
		{Tenant: tenant, Stream: set("app", "pay", "service_name", "pay"), Logs: pay},
		{Tenant: "other", Stream: set("app", "secret"), Logs: []telemetry.LogRecord{line(at(0), "not yours")}},
	}})
	require.NoError(t, err)
	return s
}

func ask(t *testing.T, h http.Handler, path string, params ...string) string {
	t.Helper()
	q := url.Values{"start": {strconv.FormatInt(at(0), 10)}, "end": {strconv.FormatInt(at(10*time.Minute), 10)}}
	for i := 0; i < len(params); i += 2 {
		q.Add(params[i], params[i+1])
	}
	w := do(t.Context(), h, http.MethodGet, path, q.Encode())
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.Equal(t, w.Body.Len() > 0 && w.Header().Get("Content-Type") != "application/x-ndjson", json.Valid(w.Body.Bytes()))
	return w.Body.String()
}

func TestVolumes(t *testing.T) {
	h := handler(shop(t), day().Add(time.Hour))
	require.JSONEq(t, `{"streams":3,"chunks":0,"bytes":1429,"entries":21}`, ask(t, h, "index/stats", "query", `{app=~".+"}`))
	require.JSONEq(t, `{"streams":1,"chunks":0,"bytes":544,"entries":11}`, ask(t, h, "index/stats", "query", `{app="pay"} |= "filters are not looked at"`))
	require.JSONEq(t, `{"streams":0,"chunks":0,"bytes":0,"entries":0}`, ask(t, h, "index/stats", "query", `{app="none"}`))
	end := `1772601000`
	tests := []struct {
		name   string
		params []string
		want   string
	}{
		{"by the labels of the selector", []string{"query", `{app=~".+"}`}, `[{"metric":{"app":"cart"},"value":[` + end + `,"885"]},{"metric":{"app":"pay"},"value":[` + end + `,"544"]}]`},
		{"by target labels", []string{"query", `{app="cart"}`, "targetLabels", "pod,app"}, `[{"metric":{"app":"cart","pod":"cart-1"},"value":[` + end + `,"445"]},{"metric":{"app":"cart","pod":"cart-0"},"value":[` + end + `,"440"]}]`},
		{"everything", []string{"query", `{}`, "limit", "1"}, `[{"metric":{"app":"pay","service_name":"pay"},"value":[` + end + `,"544"]}]`},
		{"names of labels", []string{"query", `{}`, "aggregateBy", "labels"}, `[{"metric":{"app":""},"value":[` + end + `,"1429"]},{"metric":{"service_name":""},"value":[` + end + `,"1429"]},{"metric":{"pod":""},"value":[` + end + `,"885"]}]`},
		{"names of target labels", []string{"query", `{}`, "aggregateBy", "labels", "targetLabels", "pod"}, `[{"metric":{"pod":""},"value":[` + end + `,"885"]}]`},
		{"nothing", []string{"query", `{app="none"}`}, `[]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.JSONEq(t, `{"resultType":"vector","result":`+tt.want+`}`, data(t, []byte(ask(t, h, "index/volume", tt.params...))))
		})
	}
	require.JSONEq(t, `{"resultType":"matrix","result":[{"metric":{"pod":"cart-1"},"values":[[1772601000,"445"]]},{"metric":{"pod":"cart-0"},"values":[[1772600700,"440"]]}]}`,
		data(t, []byte(ask(t, h, "index/volume_range", "query", `{pod=~".+"}`, "step", "5m"))))
}

func TestPatterns(t *testing.T) {
	h := handler(shop(t), day().Add(time.Hour))
	var out struct {
		Data []struct {
			Pattern string
			Samples [][2]int64
		}
	}
	require.NoError(t, json.Unmarshal([]byte(ask(t, h, "patterns", "query", `{app="pay"}`, "step", "5m")), &out))
	require.Len(t, out.Data, 2)
	require.Equal(t, `level=warn msg="payment <_> refused" amount=<_> code=<_>`, out.Data[0].Pattern)
	require.Equal(t, [][2]int64{{1772600400, 5}, {1772600700, 5}}, out.Data[0].Samples)
	require.Equal(t, "no fields here", out.Data[1].Pattern)
	// A pattern is a filter.
	require.Contains(t, ask(t, h, "query_range", "query", "{app=\"pay\"} |> `"+out.Data[0].Pattern+"`"), "payment 9 refused")
}

func TestDetected(t *testing.T) {
	h := handler(shop(t), day().Add(time.Hour))
	require.JSONEq(t, `{"detectedLabels":[{"label":"app","cardinality":2},{"label":"pod","cardinality":2},{"label":"service_name","cardinality":2}]}`, ask(t, h, "detected_labels"))
	require.JSONEq(t, `{"fields":[
		{"label":"detected_level","type":"string","cardinality":1,"parsers":null},
		{"label":"level","type":"string","cardinality":1,"parsers":["json"],"jsonPath":["level"]},
		{"label":"size","type":"bytes","cardinality":1,"parsers":["json"],"jsonPath":["size"]},
		{"label":"status","type":"int","cardinality":2,"parsers":["json"],"jsonPath":["status"]},
		{"label":"took","type":"duration","cardinality":10,"parsers":["json"],"jsonPath":["took"]},
		{"label":"who_name","type":"string","cardinality":3,"parsers":["json"],"jsonPath":["who","name"]},
		{"label":"who_vip","type":"boolean","cardinality":1,"parsers":["json"],"jsonPath":["who","vip"]}
	],"limit":1000}`, ask(t, h, "detected_fields", "query", `{app="cart"}`))
	require.JSONEq(t, `{"fields":[
		{"label":"amount","type":"float","cardinality":10,"parsers":["logfmt"]},
		{"label":"code","type":"string","cardinality":2,"parsers":["logfmt"]},
		{"label":"detected_level","type":"string","cardinality":1,"parsers":null},
		{"label":"level","type":"string","cardinality":1,"parsers":["logfmt"]},
		{"label":"msg","type":"string","cardinality":10,"parsers":["logfmt"]},
		{"label":"order","type":"int","cardinality":1,"parsers":null}
	],"limit":1000}`, ask(t, h, "detected_fields", "query", `{app="pay"}`))
	require.JSONEq(t, `{"limit":1000,"values":["x0","x1"]}`, ask(t, h, "detected_field/code/values", "query", `{app="pay"}`))
	require.JSONEq(t, `{"limit":1000,"values":["x1"]}`, ask(t, h, "detected_field/code/values", "query", `{app="pay"} | logfmt | code="x1"`))
	require.JSONEq(t, `{"limit":1000,"values":[]}`, ask(t, h, "detected_field/none/values", "query", `{app="pay"}`))
	require.JSONEq(t, `{"limit":2,"values":["0ms","1ms"]}`, ask(t, h, "detected_field/took/values", "query", `{app="cart"}`, "limit", "2"))
}

func TestFixed(t *testing.T) {
	h := handler(shop(t), day())
	require.JSONEq(t, `{"status":"success","data":"{app=\"x\"} |= \"y\" | json"}`, ask(t, h, "format_query", "query", `{app="x"}|="y"|json`))
	var limits struct {
		Limits map[string]any
		On     bool `json:"pattern_ingester_enabled"`
	}
	require.NoError(t, json.Unmarshal([]byte(ask(t, h, "drilldown-limits")), &limits))
	require.True(t, limits.On)
	require.Equal(t, true, limits.Limits["volume_enabled"])
	require.JSONEq(t, `{"status":"success","data":{"groups":[]}}`, ask(t, h, "../../../prometheus/api/v1/rules"))
	require.JSONEq(t, `{"status":"success","data":{"alerts":[]}}`, ask(t, h, "../../../prometheus/api/v1/alerts"))
	w := do(t.Context(), h, http.MethodGet, "rules", "")
	require.Equal(t, http.StatusNotFound, w.Code)
	require.Contains(t, w.Body.String(), "no rule groups found")
}

func TestExport(t *testing.T) {
	s := shop(t)
	h := handler(s, day().Add(time.Hour))
	const path = "../../../api/v1/logs/export"
	lines := func(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }
	got := lines(ask(t, h, path, "query", `{app="pay"} | logfmt | code="x1" | line_format "{{.amount}}" | keep code`))
	require.Len(t, got, 5)
	require.JSONEq(t, fmt.Sprintf(`{"ns":"%d","time":"2026-03-04T05:01:00.000000001Z","line":"1.5","labels":{"code":"x1"}}`, at(time.Minute)+1), got[0])
	require.Contains(t, got[4], `"9.5"`)
	got = lines(ask(t, h, path, "query", `{app=~".+"}`, "direction", "backward", "limit", "2"))
	require.Len(t, got, 2)
	require.Contains(t, got[0], "payment 9 refused")
	require.Len(t, lines(ask(t, h, path, "text", "refused", "text", "payment")), 10)
	require.Empty(t, ask(t, h, path, "query", `{app="none"}`))
	s.Warn("part 7 is corrupt")
	got = lines(ask(t, h, path, "query", `{app="cart"}`))
	require.JSONEq(t, `{"warnings":["part 7 is corrupt"]}`, got[10])
}

// TestPages reads a query page by page with the cursor of each answer.
func TestPages(t *testing.T) {
	h := handler(shop(t), day().Add(time.Hour))
	for _, direction := range []string{"forward", "backward"} {
		var got []string
		cursor := ""
		for range 10 {
			var out struct {
				Data struct {
					Cursor string
					Result []struct{ Values [][2]string }
				}
			}
			require.NoError(t, json.Unmarshal([]byte(ask(t, h, "query_range", "query", `{app=~".+"}`, "limit", "4", "direction", direction, "cursor", cursor)), &out))
			for _, st := range out.Data.Result {
				for _, v := range st.Values {
					got = append(got, v[1])
				}
			}
			if cursor = out.Data.Cursor; cursor == "" {
				break
			}
		}
		require.Len(t, got, 21, direction)
		seen := make(map[string]bool)
		for _, text := range got {
			require.False(t, seen[text], text)
			seen[text] = true
		}
	}
}

func TestSearchAndContext(t *testing.T) {
	h := handler(shop(t), day().Add(time.Hour))
	require.Equal(t, 2, strings.Count(ask(t, h, "../../../api/v1/logs/search", "text", "refused", "limit", "2"), "payment"))
	require.Contains(t, ask(t, h, "../../../api/v1/logs/search", "text", "fields", "text", "here"), "no fields here")
	require.JSONEq(t, `{"resultType":"streams","result":[]}`, data(t, []byte(ask(t, h, "../../../api/v1/logs/search", "text", "not yours"))))
	var out struct {
		Data struct{ Before, After []struct{ Line, NS string } }
	}
	when := strconv.FormatInt(at(5*time.Minute)+1, 10)
	require.NoError(t, json.Unmarshal([]byte(ask(t, h, "../../../api/v1/logs/context", "query", `{app="pay"}`, "time", when, "before", "2", "after", "3")), &out))
	require.Len(t, out.Data.Before, 2)
	require.Contains(t, out.Data.Before[0].Line, "payment 4 refused")
	require.Len(t, out.Data.After, 3)
	require.Equal(t, when, out.Data.After[0].NS)
	require.Contains(t, out.Data.After[2].Line, "payment 7 refused")
	require.NoError(t, json.Unmarshal([]byte(ask(t, h, "../../../api/v1/logs/context", "query", `{app="pay"}`, "time", when, "before", "0", "within", "30s")), &out))
	require.Empty(t, out.Data.Before)
	require.Len(t, out.Data.After, 1)
}

// admin is a storage.Admin that keeps what it is told.
type admin struct {
	storage.Admin
	masks []storage.Mask
}

func (a *admin) Delete(_ context.Context, m storage.Mask) (uint64, error) {
	m.ID = uint64(len(a.masks) + 1)
	a.masks = append(a.masks, m)
	return m.ID, nil
}

func (a *admin) Receipts(context.Context, telemetry.Tenant) (out []storage.Receipt, err error) {
	for _, m := range a.masks {
		out = append(out, storage.Receipt{Mask: m})
	}
	return append(out, storage.Receipt{Mask: storage.Mask{ID: 9, Signal: storage.Metrics}}), nil
}

func TestDelete(t *testing.T) {
	adm := &admin{}
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	loki.New(loki.Deps{Config: loki.DefaultConfig(), Reader: shop(t), Admin: adm, Now: day}).Register(rt)
	query := url.QueryEscape(`{app="pay", pod!="x"} |= "pay\"ment"`)
	w := do(t.Context(), rt, http.MethodPost, "delete", "query="+query+"&start=1772600000&end=1772600400.5")
	require.Equal(t, http.StatusNoContent, w.Code, w.Body)
	require.Len(t, adm.masks, 1)
	m := adm.masks[0]
	require.Equal(t, storage.Logs, m.Signal)
	require.Equal(t, tenant, m.Tenant)
	require.Equal(t, `pay"ment`, m.Contains)
	require.Equal(t, `[app="pay" pod!="x"]`, fmt.Sprint(m.Matchers))
	require.Equal(t, [2]int64{1772600000e9, 1772600400.5e9}, [2]int64{m.Start, m.End})
	require.Equal(t, http.StatusNoContent, do(t.Context(), rt, http.MethodPut, "delete", "query="+url.QueryEscape(`{app="cart"}`)).Code)
	require.Equal(t, [2]int64{0, day().UnixNano()}, [2]int64{adm.masks[1].Start, adm.masks[1].End})
	require.JSONEq(t, `[
		{"request_id":"1","start_time":1772600000,"end_time":1772600400.5,"query":"{app=\"pay\", pod!=\"x\"} |= `+"`"+`pay\"ment`+"`"+`","status":"processed","created_at":1772600400.5},
		{"request_id":"2","start_time":0,"end_time":1772600400,"query":"{app=\"cart\"}","status":"processed","created_at":1772600400}
	]`, do(t.Context(), rt, http.MethodGet, "delete", "").Body.String())
	for _, tt := range []struct {
		method, params string
		want           int
	}{
		{http.MethodPost, "query=" + url.QueryEscape(`{app="a"} != "x"`), http.StatusBadRequest},
		{http.MethodPost, "query=" + url.QueryEscape(`{app="a"} |= "x" |= "y"`), http.StatusBadRequest},
		{http.MethodPost, "query=" + url.QueryEscape(`{app="a"} | json`), http.StatusBadRequest},
		{http.MethodPost, "query=" + url.QueryEscape(`rate({app="a"}[1m])`), http.StatusBadRequest},
		{http.MethodPost, "query=" + url.QueryEscape(`{app="a"}`) + "&start=x", http.StatusBadRequest},
		{http.MethodPost, "query=" + url.QueryEscape(`{app="a"}`) + "&start=9&end=8", http.StatusBadRequest},
		{http.MethodDelete, "request_id=1", http.StatusBadRequest},
		{http.MethodDelete, "request_id=9", http.StatusNotFound},
		{http.MethodDelete, "request_id=x", http.StatusBadRequest},
	} {
		require.Equal(t, tt.want, do(t.Context(), rt, tt.method, "delete", tt.params).Code, tt.params)
	}
	require.Len(t, adm.masks, 2)
	for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodDelete} {
		w := do(t.Context(), handler(shop(t), day()), method, "delete", "query="+query)
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Contains(t, w.Body.String(), "server.admin_api")
	}
}

// live is a store that tells of its logs.
type live struct {
	*testkit.Store
	mu        sync.Mutex // guards followers
	followers map[int]func(*telemetry.Batch)
}

func (l *live) FollowLogs(t telemetry.Tenant, f func(*telemetry.Batch)) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := len(l.followers)
	l.followers[id] = func(b *telemetry.Batch) {
		if b.Tenant == t {
			f(b)
		}
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.followers[id] = nil
	}
}

func (l *live) put(t *testing.T, b telemetry.Batch) {
	t.Helper()
	_, _, err := l.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
	require.NoError(t, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.followers {
		if f != nil {
			f(&b)
		}
	}
}

func (l *live) following() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.followers {
		if f != nil {
			n++
		}
	}
	return n
}

func TestTail(t *testing.T) {
	s := &live{Store: shop(t), followers: make(map[int]func(*telemetry.Batch))}
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	loki.New(loki.Deps{Config: loki.DefaultConfig(), Reader: s, Follower: s, Now: func() time.Time { return day().Add(10 * time.Minute).Add(time.Since(began)) }}).RegisterStreams(rt)
	server := httptest.NewServer(rt)
	defer server.Close()
	type message struct {
		Streams []struct {
			Stream map[string]string
			Values [][]any
		}
		Dropped []any `json:"dropped_entries"`
	}
	open := func(params string, header http.Header) (*websocket.Conn, func(n int) []string) {
		c, resp, err := websocket.Dial(t.Context(), strings.Replace(server.URL, "http", "ws", 1)+"/loki/api/v1/tail?"+params, &websocket.DialOptions{HTTPHeader: header})
		require.NoError(t, err)
		if resp.Body != nil {
			_ = resp.Body.Close()
		}
		return c, func(n int) (out []string) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			for len(out) < n {
				_, b, err := c.Read(ctx)
				require.NoError(t, err)
				var m message
				require.NoError(t, json.Unmarshal(b, &m))
				for _, st := range m.Streams {
					for _, v := range st.Values {
						out = append(out, v[1].(string))
						if len(v) > 2 {
							out[len(out)-1] += fmt.Sprint(v[2])
						}
					}
				}
			}
			require.Len(t, out, n)
			return out
		}
	}
	query := url.QueryEscape(`{app="pay"} |= "refused" | logfmt | line_format "{{.msg}}"`)
	c, read := open("query="+query+"&limit=2&start="+strconv.FormatInt(at(0), 10), nil)
	require.Equal(t, []string{"payment 8 refused", "payment 9 refused"}, read(2), "the newest lines, the oldest first")
	stream := set("app", "pay", "service_name", "pay")
	refused := func(n int, late time.Duration) telemetry.LogRecord {
		return line(at(10*time.Minute-late)+int64(n), fmt.Sprintf(`msg="payment %d refused"`, n))
	}
	s.put(t, telemetry.Batch{Tenant: tenant, Stream: stream, Logs: []telemetry.LogRecord{refused(11, 0), line(at(10*time.Minute), "other"), refused(10, time.Second)}})
	s.put(t, telemetry.Batch{Tenant: tenant, Stream: set("app", "cart"), Logs: []telemetry.LogRecord{refused(12, 0)}})
	s.put(t, telemetry.Batch{Tenant: "other", Stream: stream, Logs: []telemetry.LogRecord{refused(13, 0)}})
	require.Equal(t, []string{"payment 10 refused", "payment 11 refused"}, read(2))
	s.put(t, telemetry.Batch{Tenant: tenant, Stream: stream, Logs: []telemetry.LogRecord{refused(11, 0)}})
	require.Equal(t, []string{"payment 11 refused"}, read(1), "equal lines that came later are others")

	held, readHeld := open("query="+url.QueryEscape(`{app="pay"}`)+"&delay_for=1&start="+strconv.FormatInt(at(20*time.Minute), 10), http.Header{"X-Loki-Response-Encoding-Flags": {"categorize-labels"}})
	require.Eventually(t, func() bool { return s.following() == 2 }, 5*time.Second, time.Millisecond)
	s.put(t, telemetry.Batch{Tenant: tenant, Stream: stream, Logs: []telemetry.LogRecord{line(at(21*time.Minute), "second"), refused(14, 0)}})
	s.put(t, telemetry.Batch{Tenant: tenant, Stream: stream, Logs: []telemetry.LogRecord{line(at(20*time.Minute), "first")}})
	require.Equal(t, []string{"firstmap[structuredMetadata:map[detected_level:unknown]]", "secondmap[structuredMetadata:map[detected_level:unknown]]"}, readHeld(2), "what comes within the delay is put in order")
	require.NoError(t, held.Close(websocket.StatusNormalClosure, ""))
	require.NoError(t, c.Close(websocket.StatusNormalClosure, ""))
	require.Eventually(t, func() bool { return s.following() == 0 }, 5*time.Second, time.Millisecond)
	views, _ := s.OpenViews()
	require.Zero(t, views)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/loki/api/v1/tail?query="+query, nil)
	require.NoError(t, err)
	for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": "http://elsewhere.example"} {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusForbidden, resp.StatusCode, "a page of another origin must not read along")
	http.DefaultClient.CloseIdleConnections()
}

var began = time.Now()

// A reader that does not keep up is told what it missed.
func TestTailDrops(t *testing.T) {
	s := &live{Store: testkit.NewStore("c"), followers: make(map[int]func(*telemetry.Batch))}
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	loki.New(loki.Deps{Config: loki.DefaultConfig(), Reader: s, Follower: s, Now: day}).RegisterStreams(rt)
	server := httptest.NewServer(rt)
	defer server.Close()
	c, resp, err := websocket.Dial(t.Context(), strings.Replace(server.URL, "http", "ws", 1)+"/loki/api/v2alpha/tail?query="+url.QueryEscape(`{app="a"}`), nil)
	require.NoError(t, err)
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	c.SetReadLimit(64 << 20)
	require.Eventually(t, func() bool { return s.following() == 1 }, 5*time.Second, time.Millisecond)
	big := strings.Repeat("x", 9<<20)
	for i := range 5 {
		s.put(t, telemetry.Batch{Tenant: tenant, Stream: set("app", "a"), Logs: []telemetry.LogRecord{line(day().UnixNano()+int64(i), big)}})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	lines, dropped := 0, 0
	for lines+dropped < 5 {
		_, b, err := c.Read(ctx)
		require.NoError(t, err)
		lines += strings.Count(string(b), "xxx\"]")
		dropped += strings.Count(string(b), `"timestamp":"`)
	}
	require.Equal(t, 5, lines+dropped)
	require.NotZero(t, dropped)
	require.NoError(t, c.CloseNow())
	require.Eventually(t, func() bool { return s.following() == 0 }, 5*time.Second, time.Millisecond)
}
