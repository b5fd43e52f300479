package traceql_test

import (
	"context"
	"iter"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql"
	"github.com/braidobs/braid/storage"
)

// metered is a view that tells of bytes that were read, and keeps to TraceQuery.MaxBytes.
type metered struct {
	ready
	read int64
}

func (v *metered) ReadStats() storage.ReadStats { return storage.ReadStats{Bytes: v.read} }

func (v *metered) Traces(ctx context.Context, q storage.TraceQuery) iter.Seq2[storage.TraceBlock, error] {
	return func(yield func(storage.TraceBlock, error) bool) {
		for b, err := range v.ready.Traces(ctx, q) {
			if v.read += 1000; q.MaxBytes > 0 && v.read > q.MaxBytes {
				yield(nil, storage.ErrReadLimit)
				return
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

func TestLimits(t *testing.T) {
	data := newReady(20_000)
	for _, tt := range []struct {
		query  string
		limits traceql.Limits
		want   string
	}{
		{`{ status = error }`, traceql.Limits{Bytes: 1500}, "more than 1500 bytes of parts"},
		{`{ status = error }`, traceql.Limits{Spans: 15_000}, "more than 15000 spans"},
		{`{ } | rate()`, traceql.Limits{Spans: 15_000, Points: 100, Series: 10}, "more than 15000 spans"},
		{`{ } | rate() by (resource.service.name)`, traceql.Limits{Points: 100, Series: 19}, "20 series, which is more than the limit of 19"},
		{`({ } | rate()) + ({ } | rate())`, traceql.Limits{Bytes: 2500, Points: 100, Series: 10}, "more than 2500 bytes of parts"},
		{`{ } | rate()`, traceql.Limits{Points: 60, Series: 10}, "61 points, which is more than the limit of 60"},
		{`{ } | quantile_over_time(duration, 0.5) by (span.user.id)`, traceql.Limits{Points: 11_000, Series: 1_000_000}, "computes more than 8000000 points"},
	} {
		q, err := traceql.Parse(tt.query)
		require.NoError(t, err)
		eng := traceql.Engine{Limits: tt.limits}
		v := &metered{ready: *data}
		step := int64(60e9)
		if tt.limits.Points > 10_000 {
			step = 1e9
		}
		if q.Metric() {
			_, err = eng.Metrics(t.Context(), v, traceql.MetricsQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano(), End: base.UnixNano() + 3600e9, Step: step})
		} else {
			_, err = eng.Search(t.Context(), v, traceql.SearchQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano(), End: base.UnixNano() + 3600e9, Limit: 20})
		}
		require.ErrorContains(t, err, tt.want, tt.query)
		require.Equal(t, httpapi.QueryLimit, httpapi.FromError(err).Kind)
	}
}

// TestManyServices counts the spans of a trace of a hundred services.
func TestManyServices(t *testing.T) {
	var rows []storage.SpanRow
	for i := range 300 {
		res := telemetry.NewResource("", telemetry.Attrs{{Key: "service.name", Value: telemetry.String("service" + strconv.Itoa(100+i%100))}})
		s := &telemetry.Span{TraceID: telemetry.TraceID{1}, SpanID: telemetry.SpanID{1, byte(i), byte(i >> 8)}, Start: base.UnixNano(), End: base.UnixNano() + 1}
		if i < 50 {
			s.Status = telemetry.StatusError
		}
		rows = append(rows, storage.SpanRow{Resource: res, Span: s})
	}
	b := storage.NewTraceRows(0)
	b.Add(rows)
	q, err := traceql.Parse(`{ }`)
	require.NoError(t, err)
	eng := traceql.Engine{Limits: traceql.DefaultLimits()}
	got, err := eng.Search(t.Context(), &ready{blocks: []*storage.TraceRows{b}}, traceql.SearchQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano(), End: base.UnixNano() + 1, Limit: 1})
	require.NoError(t, err)
	require.Len(t, got.Traces, 1)
	require.Len(t, got.Traces[0].Services, 100)
	for i, s := range got.Traces[0].Services {
		want := traceql.ServiceStats{Service: "service" + strconv.Itoa(100+i), Spans: 3}
		if i < 50 {
			want.Errors = 1
		}
		require.Equal(t, want, s)
	}
}

// A query ends with the block during which its context ended.
func TestStops(t *testing.T) {
	data := newReady(20_000)
	for _, text := range []string{`{ status = error }`, `{ } | rate()`, `{ } | compare({ status = error })`} {
		q, err := traceql.Parse(text)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		v := &stopping{ready: *data, cancel: cancel}
		eng := traceql.Engine{Limits: traceql.DefaultLimits()}
		if q.Metric() {
			_, err = eng.Metrics(ctx, v, traceql.MetricsQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano(), End: base.UnixNano() + 3600e9})
		} else {
			_, err = eng.Search(ctx, v, traceql.SearchQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano(), End: base.UnixNano() + 3600e9, Limit: 20})
		}
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 2, v.gave, "it ended with the block after")
		cancel()
	}
}

// stopping is a view whose reader goes away once it got the first block.
type stopping struct {
	ready
	cancel func()
	gave   int
}

func (v *stopping) SpanKeys(context.Context, storage.TraceQuery) ([]storage.SpanKey, error) {
	return []storage.SpanKey{{Scope: storage.RecordScope, Name: "user.id"}}, nil
}

func (v *stopping) Traces(context.Context, storage.TraceQuery) iter.Seq2[storage.TraceBlock, error] {
	return func(yield func(storage.TraceBlock, error) bool) {
		for {
			v.gave++
			if !yield(v.blocks[0], nil) {
				return
			}
			v.cancel()
		}
	}
}

// Recent traces are found without looking at old ones.
func TestReadsNoMoreThanItNeeds(t *testing.T) {
	_, all := spread(t, 40)
	q, err := traceql.Parse(`{ name = "a" }`)
	require.NoError(t, err)
	eng := traceql.Engine{Limits: traceql.DefaultLimits()}
	var ids []string
	seen := int64(0)
	sq := traceql.SearchQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano(), End: base.UnixNano() + 3600e9, Limit: 5, Spans: 1}
	for page := 0; ; page++ {
		res, err := eng.Search(t.Context(), all, sq)
		require.NoError(t, err)
		seen += res.Stats.Traces
		require.LessOrEqual(t, res.Stats.Traces, int64(5+3), "page %d", page)
		for _, tr := range res.Traces {
			ids = append(ids, tr.ID.String())
		}
		if sq.After = res.Next; res.Next == nil {
			break
		}
	}
	require.Len(t, ids, 40)
	for i, id := range ids {
		require.Equal(t, telemetry.TraceID{15: byte(40 - i)}.String(), id)
	}
	_, err = traceql.ParseCursor("x")
	require.Error(t, err)
}

// spread returns a view of traces of one span, a second apart, each in a block of its own, the newest first.
func spread(t *testing.T, n int) (int, storage.View) {
	t.Helper()
	v := &ready{}
	for i := n; i > 0; i-- {
		start := base.UnixNano() + int64(i)*1e9
		b := storage.NewTraceRows(start)
		b.Add([]storage.SpanRow{{Resource: telemetry.NewResource("", nil), Span: &telemetry.Span{TraceID: telemetry.TraceID{15: byte(i)}, SpanID: telemetry.SpanID{7: 1}, Name: "a", Start: start, End: start + 1}}})
		v.blocks = append(v.blocks, b)
	}
	return n, &bounded{v}
}

// bounded leaves out blocks that start behind the end of a query.
type bounded struct{ *ready }

func (v *bounded) Traces(ctx context.Context, q storage.TraceQuery) iter.Seq2[storage.TraceBlock, error] {
	return func(yield func(storage.TraceBlock, error) bool) {
		for b, err := range v.ready.Traces(ctx, q) {
			if lo, _ := b.Bounds(); lo > q.End {
				continue
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

// Quantiles of many values are within 1 % of the exact ones, those of few values beside them are exact.
func TestQuantilesOfManyValues(t *testing.T) {
	b := storage.NewTraceRows(0)
	const n = 20_000
	name := func(i int) string {
		if i < n-400 {
			return "many" + strconv.Itoa(i%3)
		}
		return "few" + strconv.Itoa(i%2)
	}
	for i := range n {
		b.Add([]storage.SpanRow{{Resource: telemetry.NewResource("", nil), Span: &telemetry.Span{
			TraceID: telemetry.TraceID{14: byte(i >> 8), 15: byte(i), 13: 1}, SpanID: telemetry.SpanID{7: 1}, Start: base.UnixNano() + 1, End: base.UnixNano() + 1 + int64(i)*1e6,
			Name:  name(i),
			Attrs: telemetry.Attrs{{Key: "v", Value: telemetry.Double(float64(i-n/2) / 7)}},
		}}})
	}
	v := &ready{blocks: []*storage.TraceRows{b}}
	eng := traceql.Engine{Limits: traceql.DefaultLimits()}
	for _, p := range []float64{0, 0.01, 0.25, 0.5, 0.9, 0.99, 1} {
		for text, want := range map[string]float64{
			"duration": p * (n - 1) / 1e3,
			"span.v":   (p*(n-1) - n/2) / 7,
		} {
			q, err := traceql.Parse("{} | quantile_over_time(" + text + ", " + strconv.FormatFloat(p, 'f', -1, 64) + ")")
			require.NoError(t, err)
			res, err := eng.Metrics(t.Context(), v, traceql.MetricsQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano(), End: base.UnixNano() + 1e9})
			require.NoError(t, err)
			require.InDelta(t, want, res.Series[0].Points[0].Value, 0.005*max(want, -want)+1e-3, "%s of %s", text, p)
			q, err = traceql.Parse("{} | quantile_over_time(" + text + ", " + strconv.FormatFloat(p, 'f', -1, 64) + ") by(name)")
			require.NoError(t, err)
			res, err = eng.Metrics(t.Context(), v, traceql.MetricsQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano(), End: base.UnixNano() + 1e9})
			require.NoError(t, err)
			require.Len(t, res.Series, 5)
			for i, s := range res.Series[:2] {
				few := n - 400 + float64(i) + p*398
				if want = few / 1e3; text == "span.v" {
					want = (few - n/2) / 7
				}
				require.InDelta(t, want, s.Points[0].Value, 1e-6)
			}
			want = p * (n - 401) / 1e3
			if text == "span.v" {
				want = (p*(n-401) - n/2) / 7
			}
			for _, s := range res.Series[2:] {
				require.InDelta(t, want, s.Points[0].Value, 0.005*max(want, -want)+1, "%s of %s", text, p)
			}
		}
	}
}

// Groups by fields with many values are told apart.
func TestManyGroups(t *testing.T) {
	v := newReady(20_000)
	want := map[string]float64{}
	for _, b := range v.blocks {
		for _, r := range spanRows(b, 0, b.Len()) {
			want[r.Span.Attrs.Text("user.id")+" "+r.Resource.Attrs.Text("service.name")+" "+r.Span.Name]++
		}
	}
	require.Greater(t, len(want), 10_000)
	q, err := traceql.Parse(`{ } | count_over_time() by (span.user.id, resource.service.name, name)`)
	require.NoError(t, err)
	eng := traceql.Engine{Limits: traceql.Limits{Series: 100_000}}
	res, err := eng.Metrics(t.Context(), v, traceql.MetricsQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano() - 1, End: base.UnixNano() + 7200e9})
	require.NoError(t, err)
	require.Len(t, res.Series, len(want))
	for _, s := range res.Series {
		k := s.Labels[0].Value.Text() + " " + s.Labels[1].Value.Text() + " " + s.Labels[2].Value.Text()
		require.Equal(t, int(want[k]), int(s.Points[0].Value), k)
	}
}
