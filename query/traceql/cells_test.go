package traceql_test

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql"
	"github.com/braidobs/braid/storage"
)

// cell is a point of a series, computed span by span.
type cell struct {
	values   []float64
	exemplar traceql.Exemplar
}

// fussy is a block that returns durations only of the rows that are asked for.
type fussy struct{ storage.TraceBlock }

func (b fussy) DurationsOf(set []uint64) ([]int64, error) {
	all, err := b.Durations()
	out := slices.Clone(all)
	for i := range out {
		if set[i/64]>>(i%64)&1 == 0 {
			out[i] = -12345
		}
	}
	return out, err
}

// cellBlocks returns blocks of spans in a range of ten minutes and a little before and behind: some blocks lie in one minute, others
// in several; IDs of traces often begin alike; some spans have no service.
func cellBlocks(rng *rand.Rand) (*ready, []storage.SpanRow) {
	v := &ready{}
	var all []storage.SpanRow
	services := make([]*telemetry.Resource, 6)
	for i := range services[1:] {
		services[i+1] = telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{{Key: "service.name", Value: telemetry.String(fmt.Sprintf("s%d", i))}}))
	}
	for n := range 12 {
		b := storage.NewTraceRows(math.MaxInt64)
		from, length := base.Add(time.Duration(rng.IntN(10))*time.Minute+time.Second), 50*time.Second
		lacking, kinds := 1, 1+rng.IntN(len(services)-1)
		switch rng.IntN(3) {
		case 0:
			length = 3 * time.Minute
		case 1:
			from = from.Add(-70 * time.Second)
		}
		if n%4 == 0 {
			lacking = 0
		}
		for t := range 1 + rng.IntN(60) {
			id := telemetry.TraceID{0: byte(rng.IntN(8)), 8: byte(rng.IntN(4)), 14: byte(n), 15: byte(t + 1)}
			if rng.IntN(2) == 0 {
				id[1] = byte(rng.IntN(256))
			}
			rows := make([]storage.SpanRow, 1+rng.IntN(12))
			start := from.UnixNano() + rng.Int64N(int64(length))
			for i := range rows {
				s := &telemetry.Span{TraceID: id, SpanID: telemetry.SpanID{7: byte(i + 1)}, Name: pick(rng, "a", "b"), Start: start + rng.Int64N(1e9)}
				s.End = s.Start - 1e8 + rng.Int64N(1e9)
				rows[i] = storage.SpanRow{Resource: services[lacking+rng.IntN(kinds)], Span: s}
			}
			b.Add(rows)
			all = append(all, rows...)
		}
		v.blocks = append(v.blocks, b)
	}
	return v, all
}

// TestCells compares points and exemplars with those that come of each span by itself.
func TestCells(t *testing.T) {
	start, end, step := base.UnixNano(), base.Add(10*time.Minute).UnixNano(), int64(time.Minute)
	lo, hi := start-step, end // behind the first, up to the second
	service := func(r storage.SpanRow) string {
		if r.Resource == nil {
			return "nil"
		}
		s, _ := r.Resource.Attrs.Get("service.name")
		return s.Str()
	}
	one := func(storage.SpanRow) string { return "" }
	length := func(r storage.SpanRow) float64 { return max(float64(r.Span.End-r.Span.Start)/1e9, 0) }
	any := func(storage.SpanRow) bool { return true }
	text := func(v traceql.Value) string {
		switch v.Value.Kind() {
		case telemetry.KindString:
			return v.Value.Str()
		case telemetry.KindInt:
			return time.Duration(v.Value.Int()).String()
		default:
			return "nil"
		}
	}
	sum := func(vs []float64) (s float64) {
		for _, v := range vs {
			s += v
		}
		return s
	}
	count := func(vs []float64) float64 { return float64(len(vs)) }
	tests := []struct {
		query   string
		by      func(storage.SpanRow) string
		keep    func(storage.SpanRow) bool
		point   func([]float64) float64
		follows bool // exemplars have the value of the point
	}{
		{`{} | count_over_time()`, one, any, count, true},
		{`{} | count_over_time() by(resource.service.name)`, service, any, count, true},
		{`{ name = "a" } | count_over_time() by(resource.service.name)`, service, func(r storage.SpanRow) bool { return r.Span.Name == "a" }, count, true},
		{`{} | count_over_time() by(name, resource.service.name)`, func(r storage.SpanRow) string { return r.Span.Name + "," + service(r) }, any, count, true},
		{`{} | count_over_time() by(duration)`, func(r storage.SpanRow) string { return time.Duration(max(r.Span.Duration(), 0)).String() }, any, count, true},
		{`{} | sum_over_time(duration) by(resource.service.name)`, service, any, sum, false},
		{`{ name = "a" } | sum_over_time(duration)`, one, func(r storage.SpanRow) bool { return r.Span.Name == "a" }, sum, false},
		{`{ name = "a" && duration > 100ms } | sum_over_time(duration)`, one, func(r storage.SpanRow) bool { return r.Span.Name == "a" && length(r) > .1 }, sum, false},
		{`{} | max_over_time(duration)`, one, any, slices.Max[[]float64], false},
		{`{} | quantile_over_time(duration, 1) by(name)`, func(r storage.SpanRow) string { return r.Span.Name }, any, slices.Max[[]float64], false},
	}
	limits := traceql.DefaultLimits()
	limits.Series = 10_000
	eng := traceql.Engine{Limits: limits}
	for seed := range uint64(20) {
		v, all := cellBlocks(rand.New(rand.NewPCG(seed, 1)))
		v.fussy = seed%2 == 0
		for _, tt := range tests {
			want := make(map[string]map[int64]*cell)
			for _, r := range all {
				if r.Span.Start <= lo || r.Span.Start > hi || !tt.keep(r) {
					continue
				}
				of := want[tt.by(r)]
				if of == nil {
					of = make(map[int64]*cell)
					want[tt.by(r)] = of
				}
				at := lo + ((r.Span.Start-lo-1)/step+1)*step
				e := traceql.Exemplar{Time: r.Span.Start, Value: length(r), Trace: r.Span.TraceID}
				c := of[at]
				if c == nil {
					c = &cell{exemplar: e}
					of[at] = c
				}
				c.values = append(c.values, length(r))
				if cmp.Or(bytes.Compare(e.Trace[:], c.exemplar.Trace[:]), cmp.Compare(e.Time, c.exemplar.Time), cmp.Compare(e.Value, c.exemplar.Value)) < 0 {
					c.exemplar = e
				}
			}
			q, err := traceql.Parse(tt.query)
			require.NoError(t, err, tt.query)
			res, err := eng.Metrics(t.Context(), v, traceql.MetricsQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: start, End: end, Step: step, Exemplars: 1 << 20})
			require.NoError(t, err, tt.query)
			for _, s := range res.Series {
				key := ""
				for _, l := range s.Labels {
					switch {
					case l.Key == "__name__" || l.Key == "p":
					case key != "":
						key += "," + text(l.Value)
					default:
						key = text(l.Value)
					}
				}
				of := want[key]
				delete(want, key)
				exemplars := s.Exemplars
				for _, p := range s.Points {
					c := of[p.Time]
					if c == nil {
						require.Zero(t, p.Value, "%s: %s at %d", tt.query, key, p.Time)
						continue
					}
					require.InDelta(t, tt.point(c.values), p.Value, 1e-9*max(p.Value, 1), "%s: %s at %d", tt.query, key, p.Time)
					require.NotEmpty(t, exemplars)
					if tt.follows {
						c.exemplar.Value = p.Value
					}
					require.Equal(t, c.exemplar.Trace, exemplars[0].Trace, "%s: %s at %d", tt.query, key, p.Time)
					require.Equal(t, c.exemplar.Time, exemplars[0].Time, tt.query)
					require.InDelta(t, c.exemplar.Value, exemplars[0].Value, 1e-9, tt.query)
					exemplars = exemplars[1:]
					delete(of, p.Time)
				}
				require.Empty(t, of, "%s: %s", tt.query, key)
				require.Empty(t, exemplars)
			}
			require.Empty(t, want, tt.query)
		}
	}
}
