package testkit_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/storage"
)

const tenant = telemetry.DefaultTenant

func write(t *testing.T, s *testkit.Store, bs ...telemetry.Batch) storage.Position {
	t.Helper()
	pos, rejected, err := s.Write(t.Context(), storage.Request{Batches: bs})
	require.NoError(t, err)
	require.Zero(t, rejected.Total())
	return pos
}

func view(t *testing.T, s *testkit.Store) storage.View {
	t.Helper()
	v, err := s.View(t.Context(), 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	return v
}

func set(pairs ...string) telemetry.LabelSet {
	return telemetry.NewLabelSet(labels.FromStrings(pairs...))
}

func line(at int64, text string) telemetry.LogRecord {
	return telemetry.LogRecord{Time: at, Body: telemetry.String(text)}
}

func TestGenIsDeterministic(t *testing.T) {
	dump := func(seed uint64) []string {
		s, g := testkit.NewStore("c"), testkit.NewGen(seed, testkit.Options{})
		for range 20 {
			_, _, err := s.Write(t.Context(), g.Request(30))
			require.NoError(t, err)
		}
		return testkit.Dump(t, s, tenant)
	}
	one := dump(1)
	require.Equal(t, one, dump(1))
	require.NotEqual(t, one, dump(2))
	for _, kind := range []string{"span ", "log ", "sample ", "exemplar ", "metadata ", "evidence ", "entity "} {
		require.True(t, slices.ContainsFunc(one, func(l string) bool { return len(l) > len(kind) && l[:len(kind)] == kind }), kind)
	}
}

func TestGenHistogramsAreValid(t *testing.T) {
	g := testkit.NewGen(3, testkit.Options{Signals: []storage.Signal{storage.Metrics}})
	n := 0
	for _, b := range g.Request(500).Batches {
		for _, s := range b.Series {
			require.NoError(t, s.Labels.Check())
			for _, p := range s.Histograms {
				n++
				if p.H != nil {
					require.NoError(t, p.H.Validate())
				} else {
					require.NoError(t, p.FH.Validate())
				}
			}
		}
	}
	require.Positive(t, n)
}

func TestCloneSharesNothingAndLosesNothing(t *testing.T) {
	req := testkit.NewGen(7, testkit.Options{}).Request(200)
	a, b := testkit.NewStore("c"), testkit.NewStore("c")
	_, _, err := a.Write(t.Context(), testkit.Clone(req))
	require.NoError(t, err)
	_, _, err = b.Write(t.Context(), req)
	require.NoError(t, err)
	require.Equal(t, testkit.Dump(t, b, tenant), testkit.Dump(t, a, tenant))
}

func TestNumbers(t *testing.T) {
	s, g := testkit.NewStore("c"), testkit.NewGen(5, testkit.Options{Numbered: true, Tenants: []telemetry.Tenant{tenant}})
	for range 10 {
		_, _, err := s.Write(t.Context(), g.Request(20))
		require.NoError(t, err)
	}
	found, err := testkit.Numbers(t.Context(), view(t, s), tenant)
	require.NoError(t, err)
	want := []uint64{}
	for n := uint64(1); n < g.Next(); n++ {
		want = append(want, n)
	}
	require.Equal(t, want, found)
}

func TestSameKeyIsStoredOnce(t *testing.T) {
	s := testkit.NewStore("c")
	req := testkit.NewGen(1, testkit.Options{}).Request(10)
	first, _, err := s.Write(t.Context(), testkit.Clone(req))
	require.NoError(t, err)
	once := testkit.Dump(t, s, tenant)
	again, _, err := s.Write(t.Context(), req)
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Equal(t, once, testkit.Dump(t, s, tenant))
}

func TestDeltaIsRejected(t *testing.T) {
	s := testkit.NewStore("c")
	_, rejected, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{
		{Labels: set("__name__", "d"), Delta: true, Samples: []telemetry.Sample{{T: 1}}},
	}}}})
	require.NoError(t, err)
	require.Equal(t, 1, rejected.Samples)
}

func TestViewsAreImmutable(t *testing.T) {
	s := testkit.NewStore("c")
	write(t, s, telemetry.Batch{Tenant: tenant, Stream: set("a", "1"), Logs: []telemetry.LogRecord{line(1, "one")}})
	v := view(t, s)
	pos := write(t, s, telemetry.Batch{Tenant: tenant, Stream: set("a", "1"), Logs: []telemetry.LogRecord{line(2, "two")}})
	require.Equal(t, []string{"one"}, lines(t, v, storage.LogQuery{Order: storage.OldestFirst}))
	later, err := s.View(t.Context(), pos)
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two"}, lines(t, later, storage.LogQuery{Order: storage.OldestFirst}))
	require.NoError(t, later.Close())
	require.NoError(t, later.Close())
	_, err = later.LabelNames(t.Context(), storage.SeriesQuery{})
	require.ErrorIs(t, err, storage.ErrClosed)
	open, ever := s.OpenViews()
	require.Equal(t, []int{1, 2}, []int{open, ever})
	_, err = s.View(t.Context(), pos+1)
	require.ErrorContains(t, err, "never written")
}

func lines(t *testing.T, v storage.View, q storage.LogQuery) []string {
	t.Helper()
	q.Tenant, q.Columns = tenant, storage.LogBody
	if q.End == 0 {
		q.End = math.MaxInt64
	}
	var out []string
	for b, err := range v.Logs(t.Context(), q) {
		require.NoError(t, err)
		require.Nil(t, b.Stream)
		for i := range b.Len() {
			out = append(out, b.Body[i].Text())
		}
	}
	return out
}

func TestLogs(t *testing.T) {
	s := testkit.NewStore("c")
	a, b := set("app", "a"), set("app", "b")
	write(t, s,
		telemetry.Batch{Tenant: tenant, Stream: a, Logs: []telemetry.LogRecord{line(5, "a5"), line(1, "a1"), line(5, "a5 again")}},
		telemetry.Batch{Tenant: tenant, Stream: b, Logs: []telemetry.LogRecord{line(3, "b3"), line(9, "b9")}},
		telemetry.Batch{Tenant: "other", Stream: b, Logs: []telemetry.LogRecord{line(3, "not mine")}})
	onlyA := storage.StreamMatch{labels.MustNewMatcher(labels.MatchEqual, "app", "a")}
	v := view(t, s)
	tests := []struct {
		name string
		q    storage.LogQuery
		want []string
	}{
		{"oldest first", storage.LogQuery{Order: storage.OldestFirst}, []string{"a1", "b3", "a5", "a5 again", "b9"}},
		{"newest first", storage.LogQuery{Order: storage.NewestFirst}, []string{"b9", "a5 again", "a5", "b3", "a1"}},
		{"limit", storage.LogQuery{Order: storage.NewestFirst, Limit: 2}, []string{"b9", "a5 again"}},
		{"both ends included", storage.LogQuery{Order: storage.OldestFirst, Start: 3, End: 5}, []string{"b3", "a5", "a5 again"}},
		{"unordered is by stream", storage.LogQuery{Limit: 1}, []string{"a1", "a5", "a5 again", "b3", "b9"}},
		{"stream", storage.LogQuery{Where: onlyA, Order: storage.OldestFirst}, []string{"a1", "a5", "a5 again"}},
		{"line", storage.LogQuery{Where: storage.And{onlyA, storage.LineContains("again")}}, []string{"a5 again"}},
		{"not", storage.LogQuery{Where: storage.Not{P: storage.LineContains("a")}, Order: storage.OldestFirst}, []string{"b3", "b9"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, lines(t, v, tt.q)) })
	}
	streams, err := v.Streams(t.Context(), storage.LogQuery{Tenant: tenant, Start: 4, End: 5, Where: storage.LineContains("nothing of streams")})
	require.NoError(t, err)
	require.Equal(t, []telemetry.LabelSet{a}, streams)
	streams, err = v.Streams(t.Context(), storage.LogQuery{Tenant: tenant, End: 9})
	require.NoError(t, err)
	require.Equal(t, []telemetry.LabelSet{a, b}, streams)
}

func TestSpans(t *testing.T) {
	s := testkit.NewStore("c")
	res := telemetry.NewResource("", telemetry.Attrs{{Key: "service.name", Value: telemetry.String("cart")}})
	id := telemetry.TraceID{1}
	write(t, s, telemetry.Batch{Tenant: tenant, Resource: res, Spans: []telemetry.Span{
		{TraceID: id, SpanID: telemetry.SpanID{1}, Start: 10, End: 30, Name: "a"},
		{TraceID: telemetry.TraceID{2}, SpanID: telemetry.SpanID{2}, Start: 20, End: 21, Name: "b"},
	}})
	var names []string
	for b, err := range view(t, s).Spans(t.Context(), storage.SpanQuery{
		Tenant: tenant, End: 100, Columns: storage.SpanNames, Order: storage.NewestFirst,
		Where: storage.AttrMatch{Scope: storage.ResourceScope, M: labels.MustNewMatcher(labels.MatchEqual, "service.name", "cart")},
	}) {
		require.NoError(t, err)
		require.Nil(t, b.Attrs)
		names = append(names, b.Name...)
	}
	require.Equal(t, []string{"b", "a"}, names)
}

func TestSeries(t *testing.T) {
	s := testkit.NewStore("c")
	m := set("__name__", "m_bucket", "pod", "p")
	res := telemetry.NewResource("", telemetry.Attrs{{Key: "k8s.pod.uid", Value: telemetry.String("u")}, {Key: "service.name", Value: telemetry.String("s")}})
	write(t, s,
		telemetry.Batch{Tenant: tenant, Series: []telemetry.Series{{
			Labels: m, Samples: []telemetry.Sample{{T: 2000, V: 2}, {T: 1000, V: 1}},
			Metadata: &telemetry.Metadata{Type: telemetry.MetricHistogram, Help: "h"},
		}}},
		telemetry.Batch{Tenant: tenant, Resource: res, Series: []telemetry.Series{
			{Labels: m, Samples: []telemetry.Sample{{T: 2000, V: 22}}},
			{Labels: set("__name__", "only"), Exemplars: []exemplar.Exemplar{{Ts: 1500, Value: 7, Labels: labels.FromStrings("trace_id", "t")}}},
		}})
	v := view(t, s)
	q := storage.SeriesQuery{Tenant: tenant, End: 10_000}
	ss := v.Series(t.Context(), q)
	require.True(t, ss.Next())
	it := ss.At().Iterator(nil)
	require.Equal(t, chunkenc.ValFloat, it.Seek(1500))
	at, f := it.At()
	require.Equal(t, []float64{2000, 22}, []float64{float64(at), f})
	require.Equal(t, chunkenc.ValNone, it.Next())
	require.False(t, ss.Next())

	names, err := v.LabelNames(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, []string{"__name__", "pod"}, names)
	meta, err := v.Metadata(t.Context(), tenant, "m")
	require.NoError(t, err)
	require.Len(t, meta["m"], 1)
	ex, err := v.Exemplars(t.Context(), q)
	require.NoError(t, err)
	require.Len(t, ex, 1)
	vouched, err := v.SeriesResources(t.Context(), q)
	require.NoError(t, err)
	require.Len(t, vouched[m], 2)
	only, err := v.LabelSets(t.Context(), storage.SeriesQuery{Tenant: tenant, End: 1500, Resources: []telemetry.ResourceID{res.ID}})
	require.NoError(t, err)
	require.Empty(t, only, "the resource vouches from 2 s on")
	es, err := v.Entities(t.Context(), tenant, telemetry.Query{Kind: telemetry.EntityPod})
	require.NoError(t, err)
	require.Len(t, es, 2)
}

func TestCanceled(t *testing.T) {
	s := testkit.NewStore("c")
	write(t, s, testkit.Batch(1, 100))
	v := view(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := testkit.DumpView(ctx, v, tenant)
	require.ErrorIs(t, err, context.Canceled)
	_, _, err = s.Write(ctx, storage.Request{})
	require.ErrorIs(t, err, context.Canceled)
}
