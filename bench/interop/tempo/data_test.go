//go:build long

package tempo

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// The tenants: the traces of whole have all their spans, those of broken lack some.
const (
	whole  = "whole"
	broken = "broken"
)

const (
	traceCount = 250
	window     = time.Minute // in which traces start
)

func traceID(n int) (id pcommon.TraceID) {
	binary.BigEndian.PutUint64(id[:], 0xabc0_0000_0000_0001+uint64(n))
	binary.BigEndian.PutUint64(id[8:], uint64(n)*0x9e3779b97f4a7c15+1)
	return id
}

func spanID(trace, n int) (id pcommon.SpanID) {
	binary.BigEndian.PutUint64(id[:], 0x1000_0000_0000_0000|uint64(trace)<<16|uint64(n+1))
	return id
}

// generate makes traces that start at base and the minute after it: of a few services, with attributes of all types, events,
// links and scopes. With lost, a few spans are left out, so that others have no parent and some traces no root.
func generate(base time.Time, lost bool) ptrace.Traces {
	rng := rand.New(rand.NewPCG(7, 11))
	out := ptrace.NewTraces()
	for tr := range traceCount {
		n := 1 + rng.IntN(24)
		at := base.Add(time.Duration(rng.IntN(int(window/time.Millisecond))) * time.Millisecond)
		starts := make([]time.Time, n)
		for i := range n {
			parent := -1
			if i > 0 {
				parent = rng.IntN(i)
				if i > 4 && rng.IntN(2) == 0 {
					parent = i - 1
				}
				at = starts[parent]
			}
			starts[i] = at.Add(time.Duration(1+rng.IntN(40_000)) * time.Microsecond)
			rs := out.ResourceSpans().AppendEmpty()
			fillResource(rng, rs.Resource().Attributes())
			ss := rs.ScopeSpans().AppendEmpty()
			fillScope(rng, ss.Scope())
			sp := ss.Spans().AppendEmpty()
			sp.SetTraceID(traceID(tr))
			sp.SetSpanID(spanID(tr, i))
			if parent >= 0 {
				sp.SetParentSpanID(spanID(tr, parent))
			}
			fillSpan(rng, sp, starts[i])
			if drop := rng.IntN(8) == 0; lost && drop && n > 1 {
				out.ResourceSpans().RemoveIf(func(r ptrace.ResourceSpans) bool { return r == rs })
			}
		}
	}
	return out
}

func fillResource(rng *rand.Rand, as pcommon.Map) {
	as.PutStr("service.name", []string{"frontend", "cart", "shipping", "db"}[rng.IntN(4)])
	if rng.IntN(3) > 0 {
		as.PutStr("region", []string{"eu", "us"}[rng.IntN(2)])
	}
	if rng.IntN(4) == 0 {
		as.PutStr("foo", []string{"bar", "baz"}[rng.IntN(2)])
	}
	as.PutInt("replica", rng.Int64N(3))
}

func fillScope(rng *rand.Rand, s pcommon.InstrumentationScope) {
	s.SetName([]string{"http", "sql"}[rng.IntN(2)])
	s.SetVersion(fmt.Sprintf("1.%d", rng.IntN(3)))
	if rng.IntN(3) == 0 {
		s.Attributes().PutStr("lib", []string{"x", "y"}[rng.IntN(2)])
	}
}

func fillSpan(rng *rand.Rand, sp ptrace.Span, at time.Time) {
	sp.SetName([]string{"GET /", "GET /cart", "POST /order", "query", "wait"}[rng.IntN(5)])
	sp.SetKind(ptrace.SpanKind(1 + rng.IntN(5)))
	sp.SetStartTimestamp(pcommon.NewTimestampFromTime(at))
	sp.SetEndTimestamp(pcommon.NewTimestampFromTime(at.Add(time.Duration(1+rng.IntN(900_000)) * time.Microsecond)))
	switch rng.IntN(6) {
	case 0:
		sp.Status().SetCode(ptrace.StatusCodeError)
		sp.Status().SetMessage([]string{"timeout", "refused"}[rng.IntN(2)])
	case 1:
		sp.Status().SetCode(ptrace.StatusCodeOk)
	}
	as := sp.Attributes()
	if rng.IntN(2) == 0 {
		as.PutInt("code", []int64{200, 404, 500, 503}[rng.IntN(4)])
	}
	if rng.IntN(2) == 0 {
		as.PutStr("foo", []string{"bar", "baz", "qux"}[rng.IntN(3)])
	}
	if rng.IntN(3) == 0 {
		as.PutDouble("load", float64(rng.IntN(16))/4)
	}
	if rng.IntN(3) == 0 {
		as.PutBool("hit", rng.IntN(2) == 0)
	}
	as.PutInt("size", 2+rng.Int64N(5000))
	if rng.IntN(4) == 0 {
		as.PutStr("code.text", strconv.Itoa(rng.IntN(9)))
	}
	if rng.IntN(6) == 0 {
		s := as.PutEmptySlice("tags")
		for range 1 + rng.IntN(3) {
			s.AppendEmpty().SetStr([]string{"a", "b", "c"}[rng.IntN(3)])
		}
	}
	if rng.IntN(6) == 0 {
		s := as.PutEmptySlice("numbers")
		for range 1 + rng.IntN(3) {
			s.AppendEmpty().SetInt(rng.Int64N(4))
		}
	}
	if rng.IntN(5) == 0 {
		as.PutStr("with blank", "yes")
	}
	for range rng.IntN(5) / 2 {
		e := sp.Events().AppendEmpty()
		e.SetName([]string{"exception", "log"}[rng.IntN(2)])
		e.SetTimestamp(pcommon.NewTimestampFromTime(at.Add(time.Duration(rng.IntN(5000)) * time.Microsecond)))
		if rng.IntN(2) == 0 {
			e.Attributes().PutStr("message", []string{"out of memory", "timeout"}[rng.IntN(2)])
		}
		if rng.IntN(3) == 0 {
			e.Attributes().PutInt("attempt", rng.Int64N(4))
		}
	}
	if rng.IntN(6) == 0 {
		l := sp.Links().AppendEmpty()
		l.SetTraceID(traceID(rng.IntN(traceCount)))
		l.SetSpanID(spanID(rng.IntN(traceCount), 0))
		l.Attributes().PutStr("why", []string{"batch", "retry"}[rng.IntN(2)])
	}
}
