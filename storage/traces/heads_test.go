package traces_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/join"
)

// heldSpan is a span of a head, and the position that it came at.
type heldSpan struct {
	storage.SpanRow
	at storage.Position
}

// genHead returns a head with all kinds of spans of one tenant, and these.
func genHead(seed uint64, requests int) (h *traces.Head, rows []heldSpan) {
	h = traces.NewHead()
	g := testkit.NewGen(seed, testkit.Options{Tenants: []telemetry.Tenant{"t"}, Signals: []storage.Signal{storage.Traces}})
	for pos := range requests {
		req := g.Request(8)
		for i := range req.Batches {
			b := &req.Batches[i]
			for k := range b.Spans {
				rows = append(rows, heldSpan{storage.SpanRow{Resource: b.Resource, Span: &b.Spans[k]}, storage.Position(pos)})
			}
			h.Append(storage.Position(pos), b)
		}
	}
	return h, rows
}

func spanKeys() []storage.SpanKey {
	var keys []storage.SpanKey
	for _, f := range []storage.SpanField{
		storage.SpanName, storage.SpanKindField, storage.SpanStatus, storage.SpanStatusMessage, storage.SpanParent, storage.SpanIDField,
		storage.SpanState, storage.ScopeName, storage.ScopeVersion, storage.EventName, storage.EventTime, storage.LinkTrace, storage.LinkSpan,
	} {
		keys = append(keys, storage.Field(f))
	}
	for _, name := range []string{"service.name", "user.id", "http.response.status_code", "extra", "a.b", "library", "exception.type", "absent"} {
		for _, scope := range []storage.AttrScope{
			storage.RecordScope, storage.ResourceScope, storage.InstrumentationScope, storage.EventScope, storage.LinkScope, storage.AnyScope,
		} {
			keys = append(keys, storage.SpanKey{Scope: scope, Name: name})
		}
	}
	return keys
}

// traceText is all that a block says of a trace, row by row.
func traceText(t *testing.T, b storage.TraceBlock, trace int) (out []string) {
	t.Helper()
	first, err := b.First()
	require.NoError(t, err)
	starts, err := b.Starts()
	require.NoError(t, err)
	durations, err := b.Durations()
	require.NoError(t, err)
	parents, err := b.Parents()
	require.NoError(t, err)
	lo, hi := b.Bounds()
	var rows []int
	for i := first[trace]; i < first[trace+1]; i++ {
		parent := parents[i]
		if parent >= 0 {
			parent -= first[trace]
		}
		require.GreaterOrEqual(t, starts[i], lo)
		require.LessOrEqual(t, starts[i]+max(durations[i], 0), hi)
		out = append(out, fmt.Sprint(starts[i], durations[i], parent))
		rows = append(rows, int(i))
	}
	for _, key := range spanKeys() {
		c, err := b.Column(key)
		require.NoError(t, err)
		for i := range c.Len() {
			row := int32(i)
			if c.Rows != nil {
				row = c.Rows[i]
			}
			if row >= first[trace] && row < first[trace+1] {
				out = append(out, fmt.Sprintf("%d %v %x", row-first[trace], key, telemetry.AppendValue(nil, c.Value(i))))
			}
		}
	}
	for _, cols := range []storage.SpanColumns{storage.SpanAll, storage.SpanEvents | storage.SpanResource, storage.SpanLinks | storage.SpanNames, storage.SpanMessages, 0} {
		blk, err := b.Spans(rows, cols)
		require.NoError(t, err)
		for i := range rows {
			s := blk.Span(i)
			out = append(out, spanText(0, blk.ResourceOf(i), &s))
		}
	}
	return out
}

// Blocks of heads say what blocks of the same spans say.
func TestBlocksOfHeads(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		h, rows := genHead(seed, 40)
		mid := rows[len(rows)/2].Span
		mask := traces.NewMask(&storage.Mask{Start: rows[len(rows)/4].Span.Start, End: mid.Start + 1000}, 25)
		few := traces.NewMask(&storage.Mask{Start: math.MinInt64, End: math.MaxInt64, Traces: []telemetry.TraceID{mid.TraceID}}, 1000)
		for name, c := range map[string]struct {
			lo, hi int64
			masks  []traces.Mask
		}{
			"all":    {math.MinInt64, math.MaxInt64, nil},
			"range":  {rows[10].Span.Start, mid.Start, nil},
			"masked": {math.MinInt64, math.MaxInt64, []traces.Mask{mask, few}},
			"none":   {math.MinInt64, math.MinInt64, nil},
		} {
			byID := make(map[telemetry.TraceID][]storage.SpanRow)
			for _, r := range rows {
				s := r.Span
				gone := slices.ContainsFunc(c.masks, func(m traces.Mask) bool {
					return r.at < m.Position && traces.Covered([]traces.Mask{m}, s.TraceID, s.Start)
				})
				if s.Start >= c.lo && s.Start <= c.hi && !gone {
					byID[s.TraceID] = append(byID[s.TraceID], r.SpanRow)
				}
			}
			want, got := make(map[telemetry.TraceID][]string), make(map[telemetry.TraceID][]string)
			for id, some := range byID {
				b := storage.NewTraceRows(0)
				b.Add(some)
				want[id] = traceText(t, b, 0)
			}
			q := all()
			q.Lo, q.Hi, q.Masks = c.lo, c.hi, c.masks
			for b, err := range join.Read(t.Context(), []traces.Source{h.Snapshot().Tenant("t")}, q, join.NewShared(0), fail) {
				require.NoError(t, err)
				ids, err := b.Traces()
				require.NoError(t, err)
				for i, id := range ids {
					require.NotContains(t, got, id)
					got[id] = traceText(t, b, i)
				}
			}
			require.Equal(t, name != "none", len(want) > 0)
			require.Len(t, got, len(want), name)
			for id := range want {
				require.Equal(t, want[id], got[id], name)
			}
		}
	}
}

// Which traces of a head match: those that have a row that does.
func TestMatchingOfHeads(t *testing.T) {
	t.Parallel()
	h, rows := genHead(3, 60)
	head := h.Snapshot().Tenant("t")
	var preds []storage.Predicate
	for _, key := range spanKeys() {
		var first telemetry.Value
		for _, r := range rows {
			key.Each(r.Resource, r.Span, func(v telemetry.Value) { first = v })
		}
		preds = append(preds, storage.ValueMatch{Key: key, Accept: func(v telemetry.Value) bool { return v == first }})
	}
	var both []storage.Predicate
	for i, p := range preds {
		q := preds[(i*7+3)%len(preds)]
		both = append(both, storage.And{p, q}, storage.Or{p, q}, storage.And{p, storage.And{storage.Not{P: q}, storage.DurationRange{Min: 5, Max: math.MaxInt64}}})
	}
	preds = append(append(preds, both...), nil, storage.ResourceIn{rows[0].Resource.ID}, storage.And{})
	for i, p := range preds {
		want := make(map[telemetry.TraceID]bool)
		matching := 0
		for _, r := range rows {
			b := &storage.SpanBlock{}
			b.Append(r.Resource, r.Span, storage.SpanAll)
			if b.Match(0, p) {
				want[r.Span.TraceID] = true
				matching++
			}
		}
		found := head.Matching(p)
		for _, tr := range head.Traces() {
			_, n := tr.Of()
			id := tr.ID()
			require.Equal(t, want[id], found[n], "predicate %d: %v", i, p)
		}
		q := traces.Scan{SpanQuery: storage.SpanQuery{Start: math.MinInt64, End: math.MaxInt64, Where: p, Columns: storage.SpanAll}}
		b, err := traces.Collect(t.Context(), []traces.Source{head}, q, fail)
		require.NoError(t, err)
		require.Equal(t, matching, b.Len(), "predicate %d: %v", i, p)
	}
}

// BenchmarkMatching finds the traces of a head of 180,000 spans with a row that matches.
func BenchmarkMatching(b *testing.B) {
	h, shop := traces.NewHead(), newShop(1)
	shop.fill(h, 180_000)
	_, spans := h.Size()
	snap := h.Snapshot()
	head := snap.Tenant(snap.Tenants()[0])
	is := func(key storage.SpanKey, v telemetry.Value) storage.Predicate {
		return storage.ValueMatch{Key: key, Accept: func(x telemetry.Value) bool { return x == v }}
	}
	record := func(name string) storage.SpanKey { return storage.SpanKey{Scope: storage.RecordScope, Name: name} }
	service := is(storage.SpanKey{Scope: storage.ResourceScope, Name: "service.name"}, telemetry.String("service-03"))
	code := is(record("http.response.status_code"), telemetry.Int(500))
	for name, p := range map[string]storage.Predicate{
		"attribute": code,
		"unmatched": is(record("http.response.status_code"), telemetry.Int(1)),
		"absent":    is(record("nobody.has.it"), telemetry.Int(1)),
		"name":      is(storage.Field(storage.SpanName), telemetry.String("nothing")),
		"status":    is(storage.Field(storage.SpanStatus), telemetry.Int(9)),
		"service":   storage.And{code, service},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				head.Matching(p)
			}
			perSpan(b, spans)
		})
	}
}
