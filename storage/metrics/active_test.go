package metrics_test

import (
	"context"
	"math"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/metrics"
)

func labelSet(pairs ...string) telemetry.LabelSet {
	return telemetry.NewLabelSet(labels.FromStrings(pairs...))
}

// brings returns a batch with one sample for each label set.
func brings(tenant telemetry.Tenant, t int64, sets ...telemetry.LabelSet) telemetry.Batch {
	b := telemetry.Batch{Tenant: tenant}
	for _, s := range sets {
		b.Series = append(b.Series, telemetry.Series{Labels: s, Samples: []telemetry.Sample{{T: t, V: float64(t)}}})
	}
	return b
}

func many(metric string, n int) []telemetry.LabelSet {
	out := make([]telemetry.LabelSet, n)
	for i := range out {
		out[i] = labelSet("__name__", metric, "i", strconv.Itoa(i))
	}
	return out
}

func nobody(telemetry.Tenant, *telemetry.Resource, int64, int64) {}

func TestLimits(t *testing.T) {
	full := telemetry.Series{
		Labels: labelSet("__name__", "m", "i", "new"), Samples: []telemetry.Sample{{T: 7}, {T: 9}},
		Histograms: []telemetry.HistogramSample{{T: 12, H: tsdbutil.GenerateTestHistogram(1)}}, Exemplars: []exemplar.Exemplar{{Ts: 1}},
		Metadata: &telemetry.Metadata{Help: "h"},
	}
	derived := telemetry.Series{Labels: labelSet("__name__", "target_info", "i", "new"), Samples: []telemetry.Sample{{T: 5}}, Derived: true}
	tests := []struct {
		name    string
		limits  metrics.Limits
		before  []telemetry.LabelSet
		in      []telemetry.Batch
		want    []metrics.Overflow
		reason  string // begins the reason of the first
		entries int
		active  int
	}{
		{"below the limits", metrics.Limits{PerTenant: 3, PerMetric: 3}, many("m", 2), []telemetry.Batch{brings("a", 5, many("m", 3)...)}, nil, "", 3, 3},
		{
			"of a metric",
			metrics.Limits{PerTenant: 100, PerMetric: 3},
			many("m", 2),
			[]telemetry.Batch{brings("a", 5, append(many("m", 5), many("n", 3)...)...)},
			[]metrics.Overflow{{Tenant: "a", Metric: "m", Setting: "storage.max_series_per_metric", Limit: 3, Samples: 2, Last: 5}},
			"metric m has more than 3 active series (setting storage.max_series_per_metric)", 6, 6,
		},
		{
			"of a tenant",
			metrics.Limits{PerTenant: 4, PerMetric: 3},
			many("m", 2),
			[]telemetry.Batch{brings("a", 5, many("n", 3)...), brings("b", 5, many("n", 3)...)},
			[]metrics.Overflow{{Tenant: "a", Metric: "n", Setting: "storage.max_series", Limit: 4, Samples: 1, Last: 5}},
			"the tenant has more than 4 active series (setting storage.max_series)", 5, 7,
		},
		{
			"known series go on", metrics.Limits{PerTenant: 2, PerMetric: 2}, many("m", 2), []telemetry.Batch{brings("a", 5, many("m", 2)...)}, nil, "", 2, 2,
		},
		{
			"without a name only the tenant counts",
			metrics.Limits{PerTenant: 10, PerMetric: 1},
			nil,
			[]telemetry.Batch{brings("a", 5, labelSet("x", "1"), labelSet("x", "2"))},
			nil, "", 2, 2,
		},
		{
			"all that it brings",
			metrics.Limits{PerTenant: 10, PerMetric: 1},
			many("m", 1),
			[]telemetry.Batch{{Tenant: "a", Series: []telemetry.Series{full}}},
			[]metrics.Overflow{{Tenant: "a", Metric: "m", Setting: "storage.max_series_per_metric", Limit: 1, Samples: 3, Last: 12}},
			"metric m has", 0, 1,
		},
		{
			"derived series are counted elsewhere",
			metrics.Limits{PerTenant: 1, PerMetric: 10},
			many("m", 1),
			[]telemetry.Batch{{Tenant: "a", Series: []telemetry.Series{derived}}},
			[]metrics.Overflow{{Tenant: "a", Metric: "target_info", Setting: "storage.max_series", Limit: 1, Last: 5}},
			"the tenant has", 0, 1,
		},
		{
			"metrics are told apart",
			metrics.Limits{PerTenant: 2, PerMetric: 10},
			many("m", 2),
			[]telemetry.Batch{brings("a", 5, many("n", 2)...), brings("a", 6, many("o", 1)...), brings("a", 8, many("n", 1)...)},
			[]metrics.Overflow{
				{Tenant: "a", Metric: "n", Setting: "storage.max_series", Limit: 2, Samples: 3, Last: 8},
				{Tenant: "a", Metric: "o", Setting: "storage.max_series", Limit: 2, Samples: 1, Last: 6},
			},
			"the tenant has", 0, 2,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := metrics.NewActive(tt.limits)
			_, over := a.Resolve([]telemetry.Batch{brings("a", 1, tt.before...)}, nil)
			require.Empty(t, over)
			es, over := a.Resolve(tt.in, nil)
			require.Equal(t, tt.want, over)
			if len(over) > 0 {
				require.Contains(t, over[0].Reason(), tt.reason)
			}
			i, entries := 0, 0
			for _, b := range tt.in {
				for _, s := range b.Series {
					if e := es[i]; e != nil {
						entries++
						require.Equal(t, s.Labels, e.Labels())
						require.NotEmpty(t, s.Samples)
					} else {
						require.Empty(t, len(s.Samples)+len(s.Histograms)+len(s.Exemplars))
						require.Nil(t, s.Metadata)
					}
					i++
				}
			}
			require.Len(t, es, i)
			require.Equal(t, tt.entries, entries)
			require.Equal(t, tt.active, a.Len())
		})
	}
}

// TestLimitsLeaveOthersAlone requires that a head holds exactly the series that were not refused, and that no limit
// stands in the way of the store's own series nor of what the log gives back.
func TestLimitsLeaveOthersAlone(t *testing.T) {
	a := metrics.NewActive(metrics.Limits{PerTenant: 5, PerMetric: 3})
	h := a.NewHead(0, 0)
	in := []telemetry.Batch{brings("a", 5, append(many("m", 9), many("n", 9)...)...)}
	es, over := a.Resolve(in, nil)
	require.Len(t, over, 2)
	h.Append(in, es, nobody)
	sel, err := h.Snapshot().Tenant("a").Select(t.Context(), &storage.SeriesQuery{Start: 0, End: 9}, metrics.Samples, nil)
	require.NoError(t, err)
	var got []telemetry.LabelSet
	for i := range sel.Len() {
		d, err := sel.Read(i, &metrics.Buffer{})
		require.NoError(t, err)
		require.Equal(t, []float64{5}, d.V)
		got = append(got, d.Labels)
	}
	require.ElementsMatch(t, append(many("m", 3), many("n", 2)...), got)
	own := labelSet("__name__", "own")
	require.Equal(t, own, a.Reserve("a", own).Labels())
	e := a.Reserve("a", own)
	require.Same(t, e, a.Reserve("a", own))
	require.Len(t, a.Recall([]telemetry.Batch{brings("a", 5, many("m", 9)...)}), 9)
	require.Equal(t, 5+1+6, a.Len())
}

func TestSweep(t *testing.T) {
	tests := []struct {
		name   string
		before int64
		oldest uint32
		want   int // of 60 series of head 1, 40 of heads 1 and 2, and 20 of head 2 alone
	}{
		{"all heads are there", math.MaxInt64, 1, 120},
		{"the first is gone", math.MaxInt64, 2, 60},
		{"all are gone", math.MaxInt64, 3, 0},
		{"gone, but young", 100, 3, 120},
		{"the second is young", 150, 3, 60},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := metrics.NewActive(metrics.Limits{PerTenant: 200, PerMetric: 200})
			all := many("m", 120)
			write := func(h *metrics.Head, at int64, sets ...telemetry.LabelSet) {
				b := []telemetry.Batch{brings("a", at, sets...)}
				es, over := a.Resolve(b, nil)
				require.Empty(t, over)
				h.Append(b, es, nobody)
			}
			write(a.NewHead(0, 100), 1000, all[:100]...)
			second := a.NewHead(10, 200)
			write(second, 2000, all[60:]...)
			a.Sweep(tt.before, tt.oldest)
			require.Equal(t, tt.want, a.Len())
			// All may come back; none is mixed up with another.
			heads := make(map[*metrics.Head][2][]int64)
			if tt.oldest <= 2 {
				write(second, 3000, all...)
				heads[second] = [2][]int64{{3000}, {2000, 3000}}
			}
			third := a.NewHead(20, 300)
			write(third, 4000, all...)
			heads[third] = [2][]int64{{4000}, {4000}}
			require.Equal(t, 120, a.Len())
			for h, times := range heads {
				for i, s := range all {
					want := times[0]
					if i >= 60 {
						want = times[1]
					}
					q := &storage.SeriesQuery{Start: 0, End: 9999, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "i", s.Get("i"))}}
					sel, err := h.Snapshot().Tenant("a").Select(t.Context(), q, metrics.Samples, nil)
					require.NoError(t, err)
					m := metrics.Merge([]metrics.Selection{sel}, func(_ int, err error) error { return err })
					require.NoError(t, m.Each(context.Background(), func(d *metrics.Data) error {
						require.Equal(t, s, d.Labels)
						require.Equal(t, want, d.T)
						return nil
					}))
				}
			}
		})
	}
}

// TestHandles requires that a handle is used as long as the series is known, and never leads to the series of another
// tenant or to one that was forgotten.
func TestHandles(t *testing.T) {
	a := metrics.NewActive(metrics.Limits{PerTenant: 100, PerMetric: 100})
	known := &telemetry.Interned{Labels: labelSet("__name__", "m")}
	resolve := func(tenant telemetry.Tenant) *metrics.Entry {
		b := brings(tenant, 5, known.Labels)
		b.Series[0].Known = known
		es, over := a.Resolve([]telemetry.Batch{b}, nil)
		require.Empty(t, over)
		require.Len(t, es, 1)
		require.Equal(t, known.Labels, es[0].Labels())
		return es[0]
	}
	first := resolve("a")
	require.Same(t, first, resolve("a"))
	require.Same(t, first, known.Handle(), "the second time leaves it")
	other := resolve("b")
	require.NotSame(t, first, other)
	require.Same(t, first, resolve("a"))
	require.Same(t, other, resolve("b"))
	require.Equal(t, 2, a.Len())

	a.Sweep(math.MaxInt64, math.MaxUint32)
	require.Equal(t, 0, a.Len())
	again := resolve("a")
	require.NotSame(t, first, again, "what was forgotten is not found by its handle")
	require.Same(t, again, resolve("a"))
	require.Equal(t, 1, a.Len())

	// Of those that stay the handle goes on to work.
	h := a.NewHead(0, 0)
	b := []telemetry.Batch{brings("a", 5, append(many("n", 50), known.Labels)...)}
	es, _ := a.Resolve(b, nil)
	h.Append([]telemetry.Batch{brings("a", 5, known.Labels)}, es[50:], nobody)
	a.Sweep(math.MaxInt64, h.Number())
	require.Equal(t, 1, a.Len())
	require.Same(t, again, resolve("a"))
}

func TestNumbersOfAnEra(t *testing.T) {
	a := metrics.NewActive(metrics.Limits{PerTenant: 100, PerMetric: 100})
	x, y := a.Reserve("a", labelSet("__name__", "x")), a.Reserve("a", labelSet("__name__", "y"))
	for _, tt := range []struct {
		e     *metrics.Entry
		era   uint64
		next  uint32
		want  uint32
		fresh bool
	}{{x, 1, 0, 0, true}, {x, 1, 1, 0, false}, {y, 1, 1, 1, true}, {y, 2, 0, 0, true}, {x, 2, 1, 1, true}, {y, 2, 2, 0, false}} {
		n, fresh := tt.e.Number(tt.era, tt.next)
		require.Equal(t, tt.want, n)
		require.Equal(t, tt.fresh, fresh)
	}
}

// TestMetadata requires the last that a snapshot sees, kept through parts and merges.
func TestMetadata(t *testing.T) {
	a := metrics.NewActive(metrics.Limits{PerTenant: 100, PerMetric: 100})
	h := a.NewHead(0, 0)
	tell := func(name string, typ telemetry.MetricType, help string) {
		b := brings("a", 5, labelSet("__name__", name))
		b.Series[0].Metadata = &telemetry.Metadata{Type: typ, Help: help}
		es, _ := a.Resolve([]telemetry.Batch{b}, nil)
		h.Append([]telemetry.Batch{b}, es, nobody)
	}
	read := func(src metrics.Source, metric string) map[string]string {
		out := make(map[string]string)
		require.NoError(t, src.Metadata(metric, func(n string, m telemetry.Metadata) { out[n] = m.Help }))
		return out
	}
	tell("x_total", telemetry.MetricCounter, "one")
	old := h.Snapshot().Tenant("a")
	tell("x_total", telemetry.MetricCounter, "two")
	tell("y_bucket", telemetry.MetricHistogram, "three")
	now := h.Snapshot().Tenant("a")
	require.Equal(t, map[string]string{"x_total": "one"}, read(old, ""))
	require.Equal(t, map[string]string{"x_total": "two", "y": "three"}, read(now, ""))
	require.Equal(t, map[string]string{"y": "three"}, read(now, "y"))
	require.Empty(t, read(now, "absent"))
	b := metrics.NewBuilder(t.Context())
	b.AddDay(now, 0)
	require.NoError(t, now.Metadata("", b.AddMetadata))
	first := written(t, b, 10)
	require.Equal(t, map[string]string{"x_total": "two", "y": "three"}, read(first, ""))
	b = metrics.NewBuilder(t.Context())
	require.NoError(t, b.AddPart(first, nil))
	b.AddMetadata("y", telemetry.Metadata{Help: "four"})
	require.Equal(t, map[string]string{"y": "four"}, read(written(t, b, 10), "y"))
	b = metrics.NewBuilder(t.Context())
	b.AddMetadata("z", telemetry.Metadata{Help: "alone"})
	require.False(t, b.Empty())
}
