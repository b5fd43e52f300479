package traces_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/join"
)

// oddSpan returns a span with anything that a span may have.
func oddSpan(rng *rand.Rand) telemetry.Span {
	word := func() string {
		return []string{"", "a", "b", "status", strings.Repeat("long", 300), strconv.FormatUint(uint64(rng.Uint32()), 10)}[rng.IntN(6)]
	}
	value := func() telemetry.Value {
		switch rng.IntN(8) {
		case 0:
			return telemetry.Int(rng.Int64N(9) - 4)
		case 1:
			return telemetry.Bool(rng.IntN(2) == 0)
		case 2:
			return telemetry.Double(1.5)
		case 3:
			return telemetry.Array([]telemetry.Value{telemetry.String("x"), telemetry.Int(1)})
		case 4:
			return telemetry.Value{}
		default:
			return telemetry.String(word())
		}
	}
	attrs := func() telemetry.Attrs {
		var as []telemetry.Attr
		for range rng.IntN(5) {
			as = append(as, telemetry.Attr{Key: word(), Value: value()})
		}
		return telemetry.NewAttrs(as)
	}
	s := telemetry.Span{
		TraceID: telemetry.TraceID{15: byte(rng.IntN(9) + 1)}, SpanID: telemetry.SpanID{7: byte(rng.IntN(40))}, Name: word(), Kind: telemetry.SpanKind(rng.IntN(6)),
		Status: telemetry.StatusCode(rng.IntN(3)), Start: start + rng.Int64N(20), Attrs: attrs(),
	}
	s.End = s.Start + rng.Int64N(9) - 2
	if rng.IntN(2) == 0 {
		s.ParentID = telemetry.SpanID{7: byte(rng.IntN(40))}
	}
	if rng.IntN(3) == 0 {
		s.State, s.StatusMessage, s.Flags, s.DroppedAttrs, s.DroppedLinks = word(), word(), uint32(rng.IntN(3)), uint32(rng.IntN(300)), uint32(rng.IntN(2))
	}
	if rng.IntN(3) == 0 {
		s.Scope = &telemetry.Scope{Name: word(), Version: word(), Attrs: attrs()}
	}
	for range rng.IntN(3) * rng.IntN(2) {
		s.Events = append(s.Events, telemetry.Event{Time: s.Start + rng.Int64N(5), Name: word(), Attrs: attrs()})
		s.Links = append(s.Links, telemetry.Link{TraceID: s.TraceID, SpanID: s.SpanID, Attrs: attrs()})
	}
	return s
}

// valuesOf writes the values that a block has of a key, by row.
func valuesOf(t *testing.T, b storage.TraceBlock, key storage.SpanKey) []string {
	t.Helper()
	c, err := b.Column(key)
	require.NoError(t, err)
	out := make([]string, b.Len())
	for i := range c.Len() {
		row := i
		if c.Rows != nil {
			row = int(c.Rows[i])
		}
		v := c.Value(i)
		out[row] += fmt.Sprintf("%d %s;", v.Kind(), v.Text())
	}
	if c.Rows == nil {
		require.Equal(t, b.Len(), c.Len(), "%v: each row has one", key)
	}
	return out
}

// TestHeldColumns compares the columns of spans in heads with those of the same spans in rows.
func TestHeldColumns(t *testing.T) {
	keys := []storage.SpanKey{storage.WeightKey()}
	for f := storage.SpanName; f <= storage.LinkSpan; f++ {
		keys = append(keys, storage.Field(f))
	}
	for _, name := range []string{"", "a", "b", "status", "nothing", "service.name"} {
		for s := storage.AnyScope; s <= storage.LinkScope; s++ {
			keys = append(keys, storage.SpanKey{Scope: s, Name: name})
		}
	}
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		resources := []*telemetry.Resource{nil, telemetry.NewResource("", telemetry.Attrs{text("service.name", "shop")}), telemetry.NewResource("", telemetry.Attrs{text("a", "x")})}
		var (
			srcs []traces.Source
			rows []storage.SpanRow
		)
		for pos := range 2 { // a head that is written, and the one after it
			h := traces.NewHead()
			for range 6 {
				b := telemetry.Batch{Tenant: "t", Resource: resources[rng.IntN(3)]}
				for range 1 + rng.IntN(20) {
					b.Spans = append(b.Spans, oddSpan(rng))
					b.Spans[len(b.Spans)-1].TraceID[0] = byte(pos) // none is in both
				}
				for i := range b.Spans {
					s := b.Spans[i]
					rows = append(rows, storage.SpanRow{Resource: b.Resource, Span: &s})
				}
				h.Append(storage.Position(pos), &b)
			}
			srcs = append(srcs, h.Snapshot().Tenant("t"))
		}
		for _, fragments := range []bool{false, true} {
			query := all()
			query.Fragments = fragments
			seen := 0
			for b, err := range join.Read(t.Context(), srcs, query, join.NewShared(0), fail) {
				require.NoError(t, err)
				seen += b.Len()
				want := storage.NewTraceRows(0)
				ids, err := b.Traces()
				require.NoError(t, err)
				if fragments { // a head, in the order of arrival
					for _, r := range rows {
						if r.Span.TraceID[0] == ids[0][0] {
							want.Add([]storage.SpanRow{r})
						}
					}
				} else {
					for _, id := range ids {
						want.Add(ofTrace(rows, id))
					}
				}
				require.Equal(t, want.Len(), b.Len())
				for _, pair := range [][2]func(storage.TraceBlock) (any, error){
					{func(b storage.TraceBlock) (any, error) { return b.Starts() }},
					{func(b storage.TraceBlock) (any, error) { return b.Durations() }},
					{func(b storage.TraceBlock) (any, error) { return b.Parents() }},
					{func(b storage.TraceBlock) (any, error) { return b.First() }},
				} {
					x, err := pair[0](want)
					require.NoError(t, err)
					y, err := pair[0](b)
					require.NoError(t, err)
					require.Equal(t, x, y)
				}
				for _, key := range keys {
					require.Equal(t, valuesOf(t, want, key), valuesOf(t, b, key), "seed %d: %+v", seed, key)
				}
				some := []int{0, b.Len() - 1, b.Len() / 2}
				x, err := want.Spans(some, storage.SpanAll)
				require.NoError(t, err)
				y, err := b.Spans(some, storage.SpanAll)
				require.NoError(t, err)
				for i := range some {
					xs, ys := x.Span(i), y.Span(i)
					require.Equal(t, spanText(0, x.ResourceOf(i), &xs), spanText(0, y.ResourceOf(i), &ys))
				}
				lo, hi := b.Bounds()
				from, to := want.Bounds()
				require.True(t, lo <= from && hi >= to)
			}
			require.Equal(t, len(rows), seen)
		}
	}
}

// ofTrace returns the rows of a trace, in the order of arrival.
func ofTrace(rows []storage.SpanRow, id telemetry.TraceID) (out []storage.SpanRow) {
	for _, r := range rows {
		if r.Span.TraceID == id {
			out = append(out, r)
		}
	}
	return out
}

// TestHeldMatching compares what a head says of predicates, and what a scan of it finds, with a look at each span.
func TestHeldMatching(t *testing.T) {
	matcher := func(kind labels.MatchType, name, value string) *labels.Matcher {
		return labels.MustNewMatcher(kind, name, value)
	}
	is := func(want telemetry.Value) func(telemetry.Value) bool {
		return func(v telemetry.Value) bool { return v == want }
	}
	field := func(f storage.SpanField, v telemetry.Value) storage.Predicate {
		return storage.ValueMatch{Key: storage.Field(f), Accept: is(v)}
	}
	attr := func(s storage.AttrScope, name string, v telemetry.Value) storage.Predicate {
		return storage.ValueMatch{Key: storage.SpanKey{Scope: s, Name: name}, Accept: is(v)}
	}
	shop := telemetry.NewResource("", telemetry.Attrs{text("service.name", "shop")})
	ps := []storage.Predicate{
		nil,
		storage.ResourceIn{shop.ID},
		storage.TraceIn{{15: 1}, {15: 5}, {}},
		storage.DurationRange{Min: 0, Max: 3},
		storage.FieldMatch{Field: storage.SpanName, M: matcher(labels.MatchRegexp, "", "a|b|long.*")},
		storage.FieldMatch{Field: storage.SpanStatusMessage, M: matcher(labels.MatchEqual, "", "")},
		storage.FieldMatch{Field: storage.SpanKindField, M: matcher(labels.MatchNotEqual, "", "server")},
		storage.FieldMatch{Field: storage.SpanStatus, M: matcher(labels.MatchEqual, "", "error")},
		storage.FieldMatch{Field: storage.SpanParent, M: matcher(labels.MatchEqual, "", "")},
		storage.AttrMatch{Scope: storage.ResourceScope, M: matcher(labels.MatchEqual, "service.name", "shop")},
		storage.AttrMatch{Scope: storage.RecordScope, M: matcher(labels.MatchEqual, "a", "")},
		storage.AttrMatch{Scope: storage.AnyScope, M: matcher(labels.MatchEqual, "a", "x")},
		field(storage.SpanName, telemetry.String("b")), field(storage.SpanStatusMessage, telemetry.String("a")), field(storage.SpanKindField, telemetry.Int(2)),
		field(storage.SpanStatus, telemetry.Int(1)), field(storage.EventName, telemetry.String("a")), field(storage.SpanState, telemetry.String("b")),
		attr(storage.RecordScope, "a", telemetry.String("b")), attr(storage.RecordScope, "status", telemetry.Int(1)), attr(storage.RecordScope, "", telemetry.Value{}),
		attr(storage.ResourceScope, "service.name", telemetry.String("shop")), attr(storage.InstrumentationScope, "a", telemetry.String("a")),
		attr(storage.AnyScope, "a", telemetry.String("x")), attr(storage.LinkScope, "b", telemetry.String("a")),
	}
	for i := range len(ps) - 1 {
		ps = append(ps, storage.And{ps[i], ps[len(ps)-1-i]}, storage.Or{ps[i], storage.And{ps[(i*7)%20], ps[(i*3)%20]}}, storage.Not{P: ps[i]})
	}
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 2))
		h := traces.NewHead()
		var rows []storage.SpanRow
		for range 8 {
			b := telemetry.Batch{Tenant: "t", Resource: []*telemetry.Resource{nil, shop}[rng.IntN(2)]}
			for range 1 + rng.IntN(20) {
				b.Spans = append(b.Spans, oddSpan(rng))
			}
			for i := range b.Spans {
				s := b.Spans[i]
				rows = append(rows, storage.SpanRow{Resource: b.Resource, Span: &s})
			}
			h.Append(1, &b)
		}
		head := h.Snapshot().Tenant("t")
		for _, p := range ps {
			want, found := make(map[telemetry.TraceID]bool), 0
			for _, r := range rows {
				one := &storage.SpanBlock{}
				one.Append(r.Resource, r.Span, storage.SpanAll)
				if p == nil || one.Match(0, p) {
					want[r.Span.TraceID] = true
					found++
				}
			}
			got := head.Matching(p)
			for _, tr := range head.Traces() {
				_, n := tr.Of()
				require.Equal(t, want[tr.ID()], got[n], "seed %d: %#v", seed, p)
			}
			scan := traces.Scan{SpanQuery: storage.SpanQuery{Start: math.MinInt64, End: math.MaxInt64, Order: storage.OldestFirst, Columns: storage.SpanAll, Where: p}}
			blk, err := traces.Collect(t.Context(), []traces.Source{head}, scan, fail)
			require.NoError(t, err)
			require.Equal(t, found, blk.Len(), "seed %d: %#v", seed, p)
		}
	}
}
