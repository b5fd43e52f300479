package otlp_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/api/otlp"
)

func value(depth int) *rapid.Generator[telemetry.Value] {
	return rapid.Custom(func(t *rapid.T) telemetry.Value {
		switch rapid.IntRange(0, 7).Draw(t, "kind") {
		case 0:
			return telemetry.Value{}
		case 1:
			return telemetry.Bool(rapid.Bool().Draw(t, "bool"))
		case 2:
			return telemetry.Int(rapid.Int64().Draw(t, "int"))
		case 3:
			return telemetry.Double(rapid.Float64().Draw(t, "double"))
		case 4:
			return telemetry.Bytes(rapid.SliceOfN(rapid.Byte(), 1, 5).Draw(t, "bytes"))
		case 5:
			if depth > 0 {
				return telemetry.Array(rapid.SliceOfN(value(depth-1), 1, 3).Draw(t, "array"))
			}
		case 6:
			if depth > 0 {
				return telemetry.Map(attrs(depth-1, 1).Draw(t, "map"))
			}
		}
		return telemetry.String(rapid.String().Draw(t, "text"))
	})
}

func attrs(depth, least int) *rapid.Generator[telemetry.Attrs] {
	return rapid.Custom(func(t *rapid.T) telemetry.Attrs {
		var as []telemetry.Attr
		for range rapid.IntRange(least, 3).Draw(t, "n") {
			as = append(as, telemetry.Attr{Key: rapid.SampledFrom([]string{"a", "b.c", "ü"}).Draw(t, "key"), Value: value(depth).Draw(t, "value")})
		}
		return telemetry.NewAttrs(as)
	})
}

func spanOf(t *rapid.T) telemetry.Span {
	word := rapid.SampledFrom([]string{"", "x", `"quoted"\`})
	count := rapid.Uint32Range(0, 300)
	s := telemetry.Span{
		TraceID: telemetry.TraceID{15: 1}, SpanID: telemetry.SpanID{7: rapid.Byte().Draw(t, "id")}, ParentID: telemetry.SpanID{7: rapid.Byte().Draw(t, "parent")},
		Kind: telemetry.SpanKind(rapid.IntRange(0, 5).Draw(t, "kind")), Status: telemetry.StatusCode(rapid.IntRange(0, 2).Draw(t, "status")),
		Flags: count.Draw(t, "flags"), Start: rapid.Int64Range(0, math.MaxInt64).Draw(t, "start"), End: rapid.Int64Range(0, math.MaxInt64).Draw(t, "end"),
		Name: word.Draw(t, "name"), State: word.Draw(t, "state"), StatusMessage: word.Draw(t, "message"), Attrs: attrs(2, 0).Draw(t, "attrs"),
		DroppedAttrs: count.Draw(t, "dropped"), DroppedEvents: count.Draw(t, "dropped"), DroppedLinks: count.Draw(t, "dropped"),
	}
	for range rapid.IntRange(0, 2).Draw(t, "events") {
		s.Events = append(s.Events, telemetry.Event{Time: rapid.Int64Range(0, 9).Draw(t, "time"), Name: word.Draw(t, "name"), Attrs: attrs(1, 0).Draw(t, "attrs"), Dropped: count.Draw(t, "dropped")})
		s.Links = append(s.Links, telemetry.Link{
			TraceID: telemetry.TraceID{1}, SpanID: telemetry.SpanID{2}, State: word.Draw(t, "state"), Flags: count.Draw(t, "flags"),
			Attrs: attrs(1, 0).Draw(t, "attrs"), Dropped: count.Draw(t, "dropped"),
		})
	}
	return s
}

// TestTraces: pdata reads the same spans from both encodings, and they are those that were added.
func TestTraces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var proto, text otlp.Traces
		text.JSON = true
		var resources []*telemetry.Resource
		for range 3 {
			resources = append(resources, telemetry.NewResource(rapid.SampledFrom([]string{"", "https://x"}).Draw(t, "schema"), attrs(1, 0).Draw(t, "attrs")))
		}
		resources[2].Dropped = 3
		resources = append(resources, nil)
		scopes := []*telemetry.Scope{nil, {Name: "a", Version: "1", SchemaURL: "https://y", Dropped: 2, Attrs: attrs(1, 0).Draw(t, "attrs")}, {Name: "b"}}
		n := rapid.IntRange(0, 6).Draw(t, "spans")
		for range n {
			s := spanOf(t)
			s.Scope = rapid.SampledFrom(scopes).Draw(t, "scope")
			res := rapid.SampledFrom(resources).Draw(t, "resource")
			proto.Add(res, &s)
			text.Add(res, &s)
		}
		require.Equal(t, n, proto.Len())
		fromProto, err := new(ptrace.ProtoUnmarshaler).UnmarshalTraces(proto.Append(nil))
		require.NoError(t, err)
		fromText, err := new(ptrace.JSONUnmarshaler).UnmarshalTraces(text.Append(nil))
		require.NoError(t, err, "%s", text.Append(nil))
		require.Equal(t, n, fromProto.SpanCount())
		a, err := new(ptrace.JSONMarshaler).MarshalTraces(fromProto)
		require.NoError(t, err)
		b, err := new(ptrace.JSONMarshaler).MarshalTraces(fromText)
		require.NoError(t, err)
		require.Equal(t, string(a), string(b))
	})
}

// TestEverything: no field is lost.
func TestEverything(t *testing.T) {
	s := telemetry.Span{
		TraceID: telemetry.TraceID{1, 15: 2}, SpanID: telemetry.SpanID{3}, ParentID: telemetry.SpanID{4}, Kind: telemetry.SpanKindClient, Status: telemetry.StatusError,
		Flags: 257, Start: 5, End: 6, Name: "n", State: "a=b", StatusMessage: "m", DroppedAttrs: 7, DroppedEvents: 8, DroppedLinks: 9,
		Scope:  &telemetry.Scope{Name: "s", Version: "v", SchemaURL: "u", Dropped: 10, Attrs: telemetry.Attrs{{Key: "k", Value: telemetry.Int(-1)}}},
		Attrs:  telemetry.Attrs{{Key: "l", Value: telemetry.Array([]telemetry.Value{telemetry.Bool(true), telemetry.Double(math.Inf(1))})}},
		Events: []telemetry.Event{{Time: 11, Name: "e", Dropped: 12, Attrs: telemetry.Attrs{{Key: "b", Value: telemetry.Bytes([]byte{1})}}}},
		Links:  []telemetry.Link{{TraceID: telemetry.TraceID{13}, SpanID: telemetry.SpanID{14}, State: "c=d", Flags: 15, Dropped: 16, Attrs: telemetry.Attrs{{Key: "x", Value: telemetry.Map(telemetry.Attrs{{Key: "y", Value: telemetry.Value{}}})}}}},
	}
	res := telemetry.NewResource("ru", telemetry.Attrs{{Key: "service.name", Value: telemetry.String("shop")}})
	res.Dropped = 17
	var tr otlp.Traces
	tr.Add(res, &s)
	td, err := new(ptrace.ProtoUnmarshaler).UnmarshalTraces(tr.Append(nil))
	require.NoError(t, err)
	rs := td.ResourceSpans().At(0)
	require.Equal(t, "ru", rs.SchemaUrl())
	require.Equal(t, uint32(17), rs.Resource().DroppedAttributesCount())
	require.Equal(t, map[string]any{"service.name": "shop"}, rs.Resource().Attributes().AsRaw())
	ss := rs.ScopeSpans().At(0)
	require.Equal(t, "u", ss.SchemaUrl())
	require.Equal(t, "s v 10", ss.Scope().Name()+" "+ss.Scope().Version()+" 10")
	require.Equal(t, uint32(10), ss.Scope().DroppedAttributesCount())
	got := ss.Spans().At(0)
	require.Equal(t, pcommon.TraceID(s.TraceID), got.TraceID())
	require.Equal(t, pcommon.SpanID(s.SpanID), got.SpanID())
	require.Equal(t, pcommon.SpanID(s.ParentID), got.ParentSpanID())
	require.Equal(t, ptrace.SpanKindClient, got.Kind())
	require.Equal(t, ptrace.StatusCodeError, got.Status().Code())
	require.Equal(t, "m", got.Status().Message())
	require.Equal(t, "a=b", got.TraceState().AsRaw())
	require.Equal(t, uint32(257), got.Flags())
	require.Equal(t, []uint32{7, 8, 9}, []uint32{got.DroppedAttributesCount(), got.DroppedEventsCount(), got.DroppedLinksCount()})
	require.Equal(t, []any{true, math.Inf(1)}, got.Attributes().AsRaw()["l"])
	require.Equal(t, uint32(12), got.Events().At(0).DroppedAttributesCount())
	require.Equal(t, map[string]any{"b": []byte{1}}, got.Events().At(0).Attributes().AsRaw())
	l := got.Links().At(0)
	require.Equal(t, pcommon.TraceID{13}, l.TraceID())
	require.Equal(t, uint32(15), l.Flags())
	require.Equal(t, uint32(16), l.DroppedAttributesCount())
	require.Equal(t, map[string]any{"x": map[string]any{"y": nil}}, l.Attributes().AsRaw())
}
