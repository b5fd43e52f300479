package traces_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/join"
)

// oddSpan returns a span with anything that a span may have.
func oddSpan(rng *rand.Rand) telemetry.Span {
	word := func() string {
		return []string{"", "a", "b", "status", strings.Repeat("long", 300), fmt.Sprint(rng.Uint32())}[rng.IntN(6)]
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
