package tempo_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/api/tempo"
	"github.com/braidobs/braid/storage"
)

// kinds is a store with a span that has attributes of all scopes and types.
func kinds(t *testing.T) *testkit.Store {
	t.Helper()
	sp := telemetry.Span{
		TraceID: id(1), SpanID: telemetry.SpanID{1}, Kind: telemetry.SpanKindClient, Start: 5e9, End: 9e9, Name: "n",
		Scope: &telemetry.Scope{Name: "lib", Version: "1", Attrs: telemetry.Attrs{{Key: "in.scope", Value: telemetry.String("s")}}},
		Attrs: telemetry.NewAttrs(telemetry.Attrs{
			{Key: "b", Value: telemetry.Bool(true)},
			{Key: "f", Value: telemetry.Double(1.5)},
			{Key: "g", Value: telemetry.Double(3)},
			{Key: "i", Value: telemetry.Int(-1)},
			{Key: "t", Value: telemetry.String("x")},
			{Key: "a b", Value: telemetry.Array([]telemetry.Value{telemetry.String("one"), telemetry.String("two")})},
		}),
		Events: []telemetry.Event{{Time: 6e9, Name: "ev", Attrs: telemetry.Attrs{{Key: "in.event", Value: telemetry.String("e")}}}},
		Links:  []telemetry.Link{{TraceID: id(2), Attrs: telemetry.Attrs{{Key: "in.link", Value: telemetry.Int(7)}}}},
	}
	s := testkit.NewStore("c")
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Resource: service("web"), Spans: []telemetry.Span{sp}}}})
	require.NoError(t, err)
	return s
}

func TestTags(t *testing.T) {
	few, all := handler(store(t), tempo.DefaultConfig()), handler(kinds(t), tempo.DefaultConfig())
	filter := func(q string) string { return "q=" + url.QueryEscape(q) }
	tests := []struct {
		name   string
		h      http.Handler
		target string
		want   string // without metrics
	}{
		{"names", few, "/api/search/tags", `{"tagNames":["duration","http.code","kind","name","rootName","rootServiceName","service.name","status","statusMessage","traceDuration","user","zone"]}`},
		{"names of a scope", few, "/api/search/tags?scope=resource", `{"tagNames":["service.name","zone"]}`},
		{"scopes", all, "/api/v2/search/tags", `{"scopes":[
			{"name":"span","tags":["a b","b","f","g","i","t"]},{"name":"resource","tags":["service.name","zone"]},{"name":"event","tags":["in.event"]},
			{"name":"link","tags":["in.link"]},{"name":"instrumentation","tags":["in.scope"]},
			{"name":"intrinsic","tags":["duration","event:name","event:timeSinceStart","instrumentation:name","instrumentation:version","kind","name","rootName","rootServiceName",
			"span:duration","span:kind","span:name","span:status","span:statusMessage","status","statusMessage","trace:duration","trace:rootName","trace:rootService","traceDuration"]}]}`},
		{"one scope", all, "/api/v2/search/tags?scope=event", `{"scopes":[{"name":"event","tags":["in.event"]}]}`},
		{"two of each", all, "/api/v2/search/tags?scope=span&limit=2", `{"scopes":[{"name":"span","tags":["a b","b"]}]}`},
		{"of some spans", few, "/api/v2/search/tags?scope=span&" + filter(`{ name = "GET /" }`), `{"scopes":[{"name":"span","tags":["http.code"]}]}`},
		{"values", few, "/api/search/tag/http.code/values", `{"tagValues":["200","500"]}`},
		{"values of services", few, "/api/search/tag/service.name/values", `{"tagValues":["db","web"]}`},
		{"values of status", few, "/api/search/tag/status/values", `{"tagValues":["error","ok","unset"]}`},
		{"values in a scope", few, "/api/search/tag/resource.service.name/values", `{"tagValues":["db","web"]}`},
		{"typed", few, "/api/v2/search/tag/span.http.code/values", `{"tagValues":[{"type":"int","value":"200"},{"type":"int","value":"500"}]}`},
		{"limit", few, "/api/v2/search/tag/span.http.code/values?limit=1", `{"tagValues":[{"type":"int","value":"200"}]}`},
		{"keywords", few, "/api/v2/search/tag/status/values", `{"tagValues":[{"type":"keyword","value":"unset"},{"type":"keyword","value":"ok"},{"type":"keyword","value":"error"}]}`},
		{"of spans that a filter leaves", few, "/api/v2/search/tag/name/values?" + filter(`{ status = error }`), `{"tagValues":[{"type":"string","value":"db"}]}`},
		{"half a filter", few, "/api/v2/search/tag/name/values?" + filter(`{ status = error && name = `), `{"tagValues":[{"type":"string","value":"db"}]}`},
		{"durations", all, "/api/v2/search/tag/duration/values", `{"tagValues":[{"type":"duration","value":"4s"}]}`},
		{"texts of an array", all, "/api/v2/search/tag/span." + `"a b"` + "/values", `{"tagValues":[{"type":"string","value":"one"},{"type":"string","value":"two"}]}`},
		{"float", all, "/api/v2/search/tag/span.f/values", `{"tagValues":[{"type":"float","value":"1.5"}]}`},
		{"float without a fraction", all, "/api/v2/search/tag/span.g/values", `{"tagValues":[{"type":"float","value":"3.0"}]}`},
		{"bool", all, "/api/v2/search/tag/.b/values", `{"tagValues":[{"type":"bool","value":"true"}]}`},
		{"event", all, "/api/v2/search/tag/event.in.event/values", `{"tagValues":[{"type":"string","value":"e"}]}`},
		{"link", all, "/api/v2/search/tag/link.in.link/values", `{"tagValues":[{"type":"int","value":"7"}]}`},
		{"instrumentation", all, "/api/v2/search/tag/instrumentation.in.scope/values", `{"tagValues":[{"type":"string","value":"s"}]}`},
		{"nobody has it", few, "/api/v2/search/tag/span.nope/values", `{"tagValues":[]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := get(t.Context(), tt.h, tt.target)
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			got := make(map[string]any)
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
			require.Contains(t, got, "metrics")
			delete(got, "metrics")
			text, err := json.Marshal(got)
			require.NoError(t, err)
			require.JSONEq(t, tt.want, string(text))
		})
	}
	for target, text := range map[string]string{
		"/api/search/tags?start=x":                    `invalid start "x"`,
		"/api/v2/search/tags?scope=galaxy":            `invalid scope "galaxy"`,
		"/api/v2/search/tags?limit=-1":                `invalid limit "-1"`,
		"/api/v2/search/tag/span.a/values?end=x":      `invalid end "x"`,
		"/api/v2/search/tag/span.a/values?limit=many": `invalid limit "many"`,
		"/api/v2/search/tag/{x}/values":               "parse error at line 1, col 1",
	} {
		w := get(t.Context(), few, target)
		require.Equal(t, http.StatusBadRequest, w.Code, target)
		require.Contains(t, w.Body.String(), text)
		require.NotContains(t, strings.TrimSpace(w.Body.String()), "\n")
	}
}
