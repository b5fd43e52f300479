package otlp

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/braidobs/braid/storage"
)

// equalToPdata checks that the walker makes of a request what decoding and translating makes of it, unless it says that it
// is unusual, which ordinary requests must not be.
func equalToPdata(t *testing.T, body []byte, ordinary bool) {
	t.Helper()
	g := newGuard(DefaultConfig(), newLayout())
	if look(storage.Traces, protobuf, body, g) != nil {
		return
	}
	got, err := walkTraces(body, g.attrs)
	if err != nil {
		require.ErrorIs(t, err, errUnusual)
		require.False(t, ordinary, "an ordinary request is left to pdata")
		return
	}
	p, err := decode(storage.Traces, protobuf, body)
	require.NoError(t, err)
	want := translateTraces(p.Traces)
	require.Equal(t, want.rejected, got.rejected)
	require.Equal(t, want.refused, got.refused)
	require.Equal(t, want.timeless, got.timeless)
	require.Len(t, got.batches, len(want.batches))
	for i := range want.batches {
		require.Equal(t, want.batches[i].Resource, got.batches[i].Resource)
		require.Equal(t, want.batches[i].Source, got.batches[i].Source)
		require.Len(t, got.batches[i].Spans, len(want.batches[i].Spans))
		for j := range want.batches[i].Spans {
			require.Equal(t, want.batches[i].Spans[j], got.batches[i].Spans[j])
		}
	}
}

// randomTraces returns a request with everything that spans can have.
func randomTraces(r *rand.Rand) ptrace.Traces {
	text := func() string {
		return []string{"", "a", "http.request.method", "GET", "münchen", "\x00\xff"}[r.IntN(6)]
	}
	var value func(v pcommon.Value, depth int)
	value = func(v pcommon.Value, depth int) {
		switch r.IntN(8) {
		case 0:
			v.SetStr(text())
		case 1:
			v.SetBool(r.IntN(2) == 0)
		case 2:
			v.SetInt(r.Int64() - math.MaxInt64/2)
		case 3:
			v.SetDouble(r.NormFloat64())
		case 4:
			v.SetEmptyBytes().FromRaw([]byte(text()))
		case 5:
			s := v.SetEmptySlice()
			for range r.IntN(3) * depth {
				value(s.AppendEmpty(), depth-1)
			}
		case 6:
			m := v.SetEmptyMap()
			for range r.IntN(3) * depth {
				value(m.PutEmpty(text()), depth-1)
			}
		}
	}
	attrs := func(m pcommon.Map) {
		for range r.IntN(4) {
			value(m.PutEmpty(text()), 2)
		}
	}
	id := func() (t pcommon.TraceID, s pcommon.SpanID) {
		if r.IntN(8) > 0 {
			t[r.IntN(16)], s[r.IntN(8)] = byte(r.Uint32()), byte(r.Uint32())
		}
		return t, s
	}
	td := ptrace.NewTraces()
	for range r.IntN(4) {
		rs := td.ResourceSpans().AppendEmpty()
		attrs(rs.Resource().Attributes())
		rs.Resource().SetDroppedAttributesCount(r.Uint32N(2))
		rs.SetSchemaUrl(text())
		for range r.IntN(3) {
			ss := rs.ScopeSpans().AppendEmpty()
			ss.Scope().SetName(text())
			ss.Scope().SetVersion(text())
			ss.SetSchemaUrl(text())
			attrs(ss.Scope().Attributes())
			for range r.IntN(5) {
				s := ss.Spans().AppendEmpty()
				trace, span := id()
				s.SetTraceID(trace)
				s.SetSpanID(span)
				_, span = id()
				s.SetParentSpanID(span)
				s.SetName(text())
				s.SetKind(ptrace.SpanKind(r.IntN(8) - 1))
				s.SetStartTimestamp(pcommon.Timestamp(r.Uint64() >> r.IntN(64)))
				s.SetEndTimestamp(pcommon.Timestamp(r.Uint64() >> r.IntN(64)))
				s.TraceState().FromRaw(text())
				s.SetFlags(r.Uint32N(300))
				s.Status().SetCode(ptrace.StatusCode(r.IntN(5) - 1))
				s.Status().SetMessage(text())
				s.SetDroppedAttributesCount(r.Uint32N(3))
				s.SetDroppedEventsCount(r.Uint32N(3))
				s.SetDroppedLinksCount(r.Uint32N(3))
				attrs(s.Attributes())
				for range r.IntN(3) {
					e := s.Events().AppendEmpty()
					e.SetTimestamp(pcommon.Timestamp(r.Uint64()))
					e.SetName(text())
					e.SetDroppedAttributesCount(r.Uint32N(2))
					attrs(e.Attributes())
					l := s.Links().AppendEmpty()
					trace, span := id()
					l.SetTraceID(trace)
					l.SetSpanID(span)
					l.SetFlags(r.Uint32N(3))
					l.TraceState().FromRaw(text())
					l.SetDroppedAttributesCount(r.Uint32N(2))
					attrs(l.Attributes())
				}
			}
		}
	}
	return td
}

func TestWalkTraces(t *testing.T) {
	for seed := range uint64(300) {
		body, err := ptraceotlp.NewExportRequestFromTraces(randomTraces(rand.New(rand.NewPCG(seed, 1)))).MarshalProto()
		require.NoError(t, err)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { equalToPdata(t, body, true) })
	}
}

// FuzzWalkTraces: whatever the bytes are, the walker agrees with pdata or leaves them to it.
func FuzzWalkTraces(f *testing.F) {
	for seed := range uint64(20) {
		body, err := ptraceotlp.NewExportRequestFromTraces(randomTraces(rand.New(rand.NewPCG(seed, 2)))).MarshalProto()
		require.NoError(f, err)
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) { equalToPdata(t, body, false) })
}

// benchBody is a request of 1,000 spans as a web service sends them.
func benchBody(tb testing.TB) []byte {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	rs.Resource().Attributes().PutStr("service.name", "checkout")
	rs.Resource().Attributes().PutStr("k8s.pod.name", "checkout-6d5f9c-x2x7p")
	ss := rs.ScopeSpans().AppendEmpty()
	ss.Scope().SetName("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp")
	for i := range 1000 {
		s := ss.Spans().AppendEmpty()
		var id [16]byte
		for j := range id {
			id[j] = byte(r.Uint32())
		}
		s.SetTraceID(id)
		s.SetSpanID(pcommon.SpanID(id[4:12]))
		s.SetParentSpanID(pcommon.SpanID(id[8:]))
		s.SetName("POST /api/v1/orders/{id}")
		s.SetKind(ptrace.SpanKindServer)
		s.SetStartTimestamp(pcommon.Timestamp(1_700_000_000_000_000_000 + i))
		s.SetEndTimestamp(pcommon.Timestamp(1_700_000_000_010_000_000 + i))
		a := s.Attributes()
		a.PutStr("http.request.method", "POST")
		a.PutStr("http.route", "/api/v1/orders/{id}")
		a.PutInt("http.response.status_code", 200)
		a.PutStr("server.address", "checkout.shop.svc")
		a.PutInt("server.port", 8080)
		a.PutInt("network.peer.port", int64(r.IntN(60000)))
		a.PutStr("user.id", fmt.Sprint("user-", r.IntN(100000)))
		a.PutStr("user_agent.original", "grpc-go/1.71.0")
	}
	body, err := ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()
	require.NoError(tb, err)
	return body
}

// BenchmarkTraces makes batches of a request of 1,000 spans.
func BenchmarkTraces(b *testing.B) {
	body := benchBody(b)
	b.Run("guard", func(b *testing.B) {
		l := newLayout()
		b.ReportAllocs()
		for b.Loop() {
			require.NoError(b, look(storage.Traces, protobuf, body, newGuard(DefaultConfig(), l)))
		}
	})
	b.Run("walk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := walkTraces(body, 8002)
			require.NoError(b, err)
		}
	})
	b.Run("pdata", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p, err := decode(storage.Traces, protobuf, body)
			require.NoError(b, err)
			translateTraces(p.Traces)
		}
	})
}
