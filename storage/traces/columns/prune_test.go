package columns_test

import (
	"math/bits"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces/columns"
)

// predicate draws one about some rows, mostly one that some of them match.
func predicate(t *rapid.T, rows []storage.SpanRow, depth int) storage.Predicate {
	row := rapid.SampledFrom(rows).Draw(t, "row")
	kinds := 9
	if depth > 0 {
		kinds = 12
	}
	some := func() (out []storage.Predicate) {
		for range rapid.IntRange(0, 3).Draw(t, "operands") {
			out = append(out, predicate(t, rows, depth-1))
		}
		return out
	}
	scope := rapid.SampledFrom([]storage.AttrScope{storage.AnyScope, storage.RecordScope, storage.InstrumentationScope, storage.ResourceScope})
	kind := rapid.SampledFrom([]labels.MatchType{labels.MatchEqual, labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp, labels.MatchNotRegexp})
	switch rapid.IntRange(0, kinds-1).Draw(t, "predicate") {
	case 0:
		return storage.TraceIn{row.Span.TraceID, {15: 9}}
	case 1:
		d := row.Span.End - row.Span.Start
		return storage.DurationRange{Min: d, Max: d}
	case 2:
		if row.Resource == nil {
			return storage.ResourceIn{}
		}
		return storage.ResourceIn{row.Resource.ID}
	case 3:
		f := rapid.SampledFrom([]storage.SpanField{storage.SpanName, storage.SpanKindField, storage.SpanStatus, storage.SpanStatusMessage, storage.SpanParent}).Draw(t, "field")
		text := rapid.SampledFrom([]string{row.Span.Name, row.Span.Kind.String(), row.Span.Status.String(), row.Span.StatusMessage}).Draw(t, "text")
		return storage.FieldMatch{Field: f, M: matcher(t, kind.Draw(t, "match"), "", text)}
	case 4:
		name := nameOf(t, row)
		text := row.Span.Attrs.Text(name)
		return storage.AttrMatch{Scope: scope.Draw(t, "scope"), M: matcher(t, kind.Draw(t, "match"), name, text)}
	case 9:
		return storage.And(some())
	case 10:
		return storage.Or(some())
	case 11:
		return storage.Not{P: predicate(t, rows, depth-1)}
	default:
		key := rapid.SampledFrom(keysOf()).Draw(t, "key")
		if key.Scope != storage.FieldScope {
			key.Name = nameOf(t, row)
		}
		if n := len(row.Span.Attrs); n > 0 && rapid.Bool().Draw(t, "own") {
			key = storage.SpanKey{Scope: storage.RecordScope, Name: row.Span.Attrs[rapid.IntRange(0, n-1).Draw(t, "attribute")].Key}
		} else if n := len(row.Span.Events); n > 0 && rapid.Bool().Draw(t, "event") {
			if as := row.Span.Events[n-1].Attrs; len(as) > 0 {
				key = storage.SpanKey{Scope: storage.EventScope, Name: as[len(as)-1].Key}
			}
		}
		var vs []telemetry.Value
		key.Each(row.Resource, row.Span, func(v telemetry.Value) { vs = append(vs, v) })
		if len(vs) == 0 || rapid.IntRange(0, 9).Draw(t, "other") == 0 {
			vs = []telemetry.Value{telemetry.String("nowhere")}
		}
		v := rapid.SampledFrom(vs).Draw(t, "value")
		m := storage.ValueMatch{Key: key, Accept: func(x telemetry.Value) bool { return x == v }}
		if rapid.Bool().Draw(t, "equal") {
			m.Equal = []telemetry.Value{v}
		}
		return m
	}
}

func matcher(t *rapid.T, kind labels.MatchType, name, text string) *labels.Matcher {
	if kind == labels.MatchRegexp || kind == labels.MatchNotRegexp {
		text = rapid.SampledFrom([]string{".*", ".+", "a|b", "[0-9]+", ""}).Draw(t, "expression")
	}
	return labels.MustNewMatcher(kind, name, text)
}

func nameOf(t *rapid.T, row storage.SpanRow) string {
	names := []string{"none", "a"}
	for _, a := range row.Span.Attrs {
		names = append(names, a.Key)
	}
	if row.Resource != nil {
		for _, a := range row.Resource.Attrs {
			names = append(names, a.Key)
		}
	}
	return rapid.SampledFrom(names).Draw(t, "name")
}

// sieves compares what passes the test of p with a look at each row.
func sieves(t require.TestingT, s *columns.Segment, ts []trace, p storage.Predicate) (matching int) {
	blocks, err := s.Where(p)
	require.NoError(t, err)
	test, err := s.Test(p)
	require.NoError(t, err)
	require.Equal(t, blocks, test.Blocks())
	at := 0
	for k := range s.Blocks() {
		blk, err := s.BlockIn(k, &columns.Memory{})
		require.NoError(t, err)
		traces, err := blk.Sieve(test)
		require.NoError(t, err)
		for n := range s.BlockInfo(k).Traces {
			b := &storage.SpanBlock{}
			for _, r := range ts[at].rows {
				b.Append(r.Resource, r.Span, storage.SpanAll)
			}
			at++
			passes := traces != nil && traces[n/64]>>(n%64)&1 == 1
			if slices.ContainsFunc(all(b.Len()), func(i int) bool { return b.Match(i, p) }) {
				matching++
				require.NotZero(t, blocks>>k&1, "block %d of %d has a row that matches %v", k, s.Blocks(), p)
				require.True(t, passes, "trace %d of block %d has a row that matches %v", n, k, p)
			} else if exact(p) {
				require.False(t, passes, "trace %d of block %d has no row that matches %v", n, k, p)
			}
		}
	}
	return matching
}

// neverLoses compares what pruning leaves with a look at each row.
func neverLoses(t *rapid.T, s *columns.Segment, ts []trace) {
	rows := flat(ts)
	p := predicate(t, rows, 2)
	blocks, err := s.Where(p)
	require.NoError(t, err)
	need, err := s.Prune([]storage.Predicate{p, predicate(t, rows, 0)})
	require.NoError(t, err)
	require.Zero(t, need&^blocks)
	sieves(t, s, ts, p)
}

// exact says whether rows pass the test of p only if they match: each of these looks at all there is to know.
func exact(p storage.Predicate) bool {
	inexact := func(q storage.Predicate) bool { return !exact(q) }
	switch p := p.(type) {
	case storage.And:
		return !slices.ContainsFunc(p, inexact)
	case storage.Or:
		return !slices.ContainsFunc(p, inexact)
	case storage.DurationRange, storage.ResourceIn:
		return true
	case storage.AttrMatch:
		return !p.M.Matches("") && p.Scope != storage.AnyScope
	case storage.ValueMatch:
		if p.Key.Scope == storage.AnyScope || p.Accept(telemetry.String("")) {
			return false
		}
		switch p.Key.Field {
		case storage.SpanParent, storage.SpanIDField, storage.EventTime, storage.LinkTrace, storage.LinkSpan:
			return false
		default:
			return true
		}
	default:
		return false
	}
}

func TestPruneNeverLoses(t *testing.T) {
	l := columns.Layout{PageRows: 3, SegmentRows: 1000, FullRows: 500}
	rapid.Check(t, func(r *rapid.T) {
		ts := settle(odd(r))
		s, err := open(t, write(t, l, ts)).Segment(0)
		require.NoError(r, err)
		neverLoses(r, s, ts)
	})
	ts := newShop().traces(4000)
	s, err := open(t, write(t, columns.Layout{PageRows: 128, SegmentRows: 1 << 20, FullRows: 1000}, ts)).Segment(0)
	require.NoError(t, err)
	require.Greater(t, s.Blocks(), 20)
	rapid.Check(t, func(r *rapid.T) { neverLoses(r, s, ts) })
}

// TestSieve looks for what stands in tuples, in columns of each form, in resources and in events, together and apart.
func TestSieve(t *testing.T) {
	ts := newShop().traces(4000)
	for _, tr := range ts { // each event has a text of its own, so that these are in a column
		for i := range tr.rows {
			if sp := tr.rows[i].Span; i%9 == 0 {
				sp.Events = append(sp.Events, telemetry.Event{Name: "log", Attrs: telemetry.Attrs{text("message", sp.SpanID.String())}}, telemetry.Event{Name: "log"})
			}
		}
	}
	s, err := open(t, write(t, columns.Layout{PageRows: 1024, SegmentRows: 1 << 20, FullRows: 1000}, ts)).Segment(0)
	require.NoError(t, err)
	require.Greater(t, s.Blocks(), 2)
	server := ts[20].rows[0]
	key := func(scope storage.AttrScope, name string) storage.SpanKey {
		return storage.SpanKey{Scope: scope, Name: name}
	}
	is := func(k storage.SpanKey) storage.ValueMatch {
		var v telemetry.Value
		k.Each(server.Resource, server.Span, func(x telemetry.Value) {
			if v.IsZero() {
				v = x
			}
		})
		return storage.ValueMatch{Key: k, Accept: func(x telemetry.Value) bool { return x == v }, Equal: []telemetry.Value{v}}
	}
	like := func(k storage.SpanKey) storage.ValueMatch { // without saying which values
		m := is(k)
		m.Equal = nil
		return m
	}
	name, kind, pod := storage.Field(storage.SpanName), storage.Field(storage.SpanKindField), key(storage.ResourceScope, "k8s.pod.name")
	user, port, message := key(storage.RecordScope, "user.id"), key(storage.RecordScope, "client.port"), key(storage.EventScope, "message")
	agent := key(storage.RecordScope, "user_agent.original")
	d := server.Span.End - server.Span.Start
	tests := []struct {
		name string
		p    storage.Predicate
	}{
		{"tuples", is(name)},
		{"tuples or tuples", storage.Or{is(name), is(agent)}},
		{"tuples and tuples", storage.And{is(name), is(agent)}},
		{"resources", is(pod)},
		{"texts", is(user)},
		{"texts that are not said", like(user)},
		{"texts of an attribute", storage.AttrMatch{Scope: storage.RecordScope, M: labels.MustNewMatcher(labels.MatchEqual, "user.id", server.Span.Attrs.Text("user.id"))}},
		{"integers", is(port)},
		{"integers in a range", storage.ValueMatch{Key: port, Accept: func(v telemetry.Value) bool { return v.Int() > 50_000 }}},
		{"events", is(message)},
		{"texts of events that are not said", like(message)},
		{"durations", storage.And{storage.DurationRange{Min: 0, Max: d}, storage.DurationRange{Min: d - 10, Max: 1 << 60}}},
		{"all at once", storage.And{is(name), is(pod), is(user), is(port), is(message), storage.DurationRange{Min: d, Max: d}}},
		{"one or another", storage.And{storage.Or{is(pod), is(port)}, storage.Or{is(user), is(message), storage.DurationRange{Min: d, Max: d}}, is(kind)}},
		{"resources or resources", storage.Or{is(pod), is(key(storage.ResourceScope, "k8s.node.name"))}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := sieves(t, s, ts, tt.p)
			require.Positive(t, n)
			require.Less(t, n, len(ts))
		})
	}
}

// TestPruneLeavesLittle looks for what is in few blocks.
func TestPruneLeavesLittle(t *testing.T) {
	ts := newShop().traces(8000)
	s, err := open(t, write(t, columns.Layout{PageRows: 256, SegmentRows: 1 << 20, FullRows: 1000}, ts)).Segment(0)
	require.NoError(t, err)
	var request telemetry.Value
	for _, r := range ts[10].rows {
		if v, ok := r.Span.Attrs.Get("request.id"); ok {
			request = v
		}
	}
	attr := func(name string) storage.SpanKey { return storage.SpanKey{Scope: storage.RecordScope, Name: name} }
	is := func(key storage.SpanKey, v telemetry.Value) storage.Predicate {
		return storage.ValueMatch{Key: key, Accept: func(x telemetry.Value) bool { return x == v }, Equal: []telemetry.Value{v}}
	}
	tests := []struct {
		name string
		need storage.Predicate
		most int // blocks
	}{
		{"a request", is(attr("request.id"), request), 3},
		{"no request", is(attr("request.id"), telemetry.String("none")), 2},
		{"text that no request has", storage.AttrMatch{Scope: storage.RecordScope, M: labels.MustNewMatcher(labels.MatchEqual, "request.id", "none")}, 2},
		{"no such attribute", is(attr("nothing"), telemetry.Int(1)), 0},
		{"no such service", is(storage.SpanKey{Scope: storage.ResourceScope, Name: "service.name"}, telemetry.String("none")), 0},
		{"no such status", is(attr("http.response.status_code"), telemetry.Int(418)), 0},
		{"no such port", is(attr("client.port"), telemetry.Int(80)), 0},
		{"a trace", storage.TraceIn{ts[10].id()}, 2},
		{"no trace", storage.TraceIn{{1, 2, 3}}, 2},
		{"no such name", storage.FieldMatch{Field: storage.SpanName, M: labels.MustNewMatcher(labels.MatchEqual, "", "none")}, 0},
		{"too long", storage.DurationRange{Min: 1 << 60, Max: 1 << 61}, 0},
		{"what no span is at once", storage.And{is(attr("db.system"), telemetry.String("postgresql")), is(attr("http.response.status_code"), telemetry.Int(500))}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			blocks, err := s.Prune([]storage.Predicate{tt.need})
			require.NoError(t, err)
			require.LessOrEqual(t, bits.OnesCount64(blocks), tt.most)
		})
	}
	p := open(t, write(t, columns.DefaultLayout(), ts[:50]))
	for _, tr := range ts[:50] {
		ok, err := p.MayHold(0, tr.id())
		require.NoError(t, err)
		require.True(t, ok)
	}
}
