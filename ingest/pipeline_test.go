package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// store is a storage.Writer that keeps the last request.
type store struct {
	last  *storage.Request
	extra storage.Rejected
	err   error
}

func (s *store) Write(_ context.Context, r storage.Request) (storage.Position, storage.Rejected, error) {
	if s.err != nil {
		return 0, storage.Rejected{}, s.err
	}
	s.last = &r
	out := r.Rejected
	out.Add(s.extra)
	return 1, out, nil
}

func newPipeline(t *testing.T, s *store, change func(*ingest.Config)) (*ingest.Pipeline, *prometheus.Registry) {
	t.Helper()
	c := ingest.DefaultConfig()
	if change != nil {
		change(&c)
	}
	require.NoError(t, c.Validate())
	reg := prometheus.NewRegistry()
	return ingest.New(c, ingest.Deps{Writer: s, Now: func() time.Time { return now }, Metrics: reg}), reg
}

func span(change func(s *telemetry.Span)) telemetry.Span {
	s := telemetry.Span{Start: now.UnixNano(), Name: "op"}
	if change != nil {
		change(&s)
	}
	return s
}

func set(kv ...string) telemetry.LabelSet { return telemetry.NewLabelSet(labels.FromStrings(kv...)) }

func manyAttrs(n int) telemetry.Attrs {
	var as []telemetry.Attr
	for i := range n {
		as = append(as, telemetry.Attr{Key: fmt.Sprintf("k%06d", i), Value: telemetry.Int(1)})
	}
	return telemetry.NewAttrs(as)
}

func longName() telemetry.Attrs { return telemetry.Attrs{{Key: strings.Repeat("x", 1025)}} }

func TestLimits(t *testing.T) {
	ms := now.UnixMilli()
	sample := []telemetry.Sample{{T: ms}}
	tests := []struct {
		name   string
		batch  telemetry.Batch
		want   storage.Rejected // counts only
		reason string
		metric string // the label reason
		kept   int
	}{
		{"a span", telemetry.Batch{Spans: []telemetry.Span{span(nil)}}, storage.Rejected{}, "", "", 1},
		{
			"old span",
			telemetry.Batch{Spans: []telemetry.Span{span(nil), span(func(s *telemetry.Span) { s.Start = 1 })}},
			storage.Rejected{Spans: 1},
			"the time of a span is older than the retention of 30d (setting storage.retention)", "too_old", 1,
		},
		{
			"future span",
			telemetry.Batch{Spans: []telemetry.Span{span(func(s *telemetry.Span) { s.Start += 2 * int64(time.Hour) })}},
			storage.Rejected{Spans: 1},
			"more than 1h in the future (setting ingest.max_future)", "too_far_in_future", 0,
		},
		{
			"span attributes",
			telemetry.Batch{Spans: []telemetry.Span{span(func(s *telemetry.Span) { s.Attrs = manyAttrs(257) })}},
			storage.Rejected{Spans: 1},
			"a span has more than 256 attributes (setting ingest.max_attributes)", "too_many_attributes", 0,
		},
		{
			"event attributes",
			telemetry.Batch{Spans: []telemetry.Span{span(func(s *telemetry.Span) { s.Events = []telemetry.Event{{Attrs: manyAttrs(257)}} })}},
			storage.Rejected{Spans: 1},
			"an event has more", "too_many_attributes", 0,
		},
		{
			"link name",
			telemetry.Batch{Spans: []telemetry.Span{span(func(s *telemetry.Span) { s.Links = []telemetry.Link{{Attrs: longName()}} })}},
			storage.Rejected{Spans: 1},
			"a name longer than 1KiB (setting ingest.max_name)", "name_too_long", 0,
		},
		{"scope", telemetry.Batch{Spans: []telemetry.Span{
			span(func(s *telemetry.Span) { s.Scope = &telemetry.Scope{Attrs: manyAttrs(300)} }), span(nil),
		}}, storage.Rejected{Spans: 1}, "a scope has more", "too_many_attributes", 1},
		{
			"resource",
			telemetry.Batch{Resource: telemetry.NewResource("", manyAttrs(300)), Spans: []telemetry.Span{span(nil), span(nil)}},
			storage.Rejected{Spans: 2},
			"a resource has more", "too_many_attributes", 0,
		},
		{
			"log size",
			telemetry.Batch{Logs: []telemetry.LogRecord{{Time: now.UnixNano(), Body: telemetry.Bytes([]byte(strings.Repeat("x", 2<<20)))}}},
			storage.Rejected{Logs: 1},
			"a log record is larger than 2MiB (setting ingest.max_record)", "record_too_large", 0,
		},
		{
			"stream",
			telemetry.Batch{Stream: set("a", strings.Repeat("x", 65<<10)), Logs: []telemetry.LogRecord{{Time: now.UnixNano()}}},
			storage.Rejected{Logs: 1},
			"a value longer than 64KiB (setting ingest.max_label_value)", "label_value_too_long", 0,
		},
		{
			"samples",
			telemetry.Batch{Series: []telemetry.Series{{Labels: set("a", "b"), Samples: []telemetry.Sample{{T: ms}, {T: 1}, {T: ms + 4e6}}}}},
			storage.Rejected{Samples: 2},
			"the time of a sample is older", "too_old", 1,
		},
		{"derived", telemetry.Batch{Series: []telemetry.Series{
			{Labels: set("__name__", "x_sum"), Derived: true, Samples: []telemetry.Sample{{T: 1}}},
			{Labels: set("__name__", "x_count"), Samples: []telemetry.Sample{{T: 1}}},
		}}, storage.Rejected{Samples: 1}, "older", "too_old", 0},
		{"histogram size", telemetry.Batch{Series: []telemetry.Series{{Labels: set("a", "b"), Histograms: []telemetry.HistogramSample{
			{T: ms, H: &histogram.Histogram{PositiveBuckets: make([]int64, 400_000)}},
		}}}}, storage.Rejected{Samples: 1}, "a histogram is larger", "record_too_large", 0},
		{"no labels", telemetry.Batch{Series: []telemetry.Series{{Samples: sample}}}, storage.Rejected{Samples: 1}, "has no labels", "no_labels", 0},
		{
			"broken labels",
			telemetry.Batch{Series: []telemetry.Series{{Labels: "\x01b\x01x\x01a\x01x", Samples: sample}}},
			storage.Rejected{Samples: 1},
			"given twice", "malformed", 0,
		},
		{
			"not UTF-8",
			telemetry.Batch{Series: []telemetry.Series{{Labels: set("a", "\xff"), Samples: sample}}},
			storage.Rejected{Samples: 1},
			"not valid UTF-8", "not_utf8", 0,
		},
		{"exemplar", telemetry.Batch{Series: []telemetry.Series{{
			Labels: set("a", "b"), Samples: []telemetry.Sample{{T: ms}},
			Exemplars: []exemplar.Exemplar{{HasTs: true, Ts: 1}, {HasTs: true, Ts: ms}},
		}}}, storage.Rejected{}, "the time of an exemplar is older", "", 1},
		{
			"exemplars alone",
			telemetry.Batch{Series: []telemetry.Series{{Labels: set("a", "b"), Exemplars: []exemplar.Exemplar{{HasTs: true, Ts: ms}}}}},
			storage.Rejected{},
			"", "", 0,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &store{}
			p, reg := newPipeline(t, s, nil)
			got, err := p.Write(t.Context(), "team", storage.Key{1}, []telemetry.Batch{tt.batch}, storage.Rejected{})
			require.NoError(t, err)
			require.Equal(t, [3]int{tt.want.Spans, tt.want.Logs, tt.want.Samples}, [3]int{got.Spans, got.Logs, got.Samples})
			require.Contains(t, strings.Join(got.Reasons, "; "), tt.reason)
			kept := 0
			if s.last != nil {
				require.Equal(t, storage.Key{1}, s.last.Key)
				require.Equal(t, got.Total(), s.last.Rejected.Total())
				for _, b := range s.last.Batches {
					require.Equal(t, telemetry.Tenant("team"), b.Tenant)
					kept += len(b.Spans) + len(b.Logs)
					for _, sr := range b.Series {
						kept += len(sr.Samples) + len(sr.Histograms)
					}
				}
			}
			require.Equal(t, tt.kept, kept)
			if tt.metric != "" {
				signal := "traces"
				if tt.want.Logs > 0 {
					signal = "logs"
				} else if tt.want.Samples > 0 {
					signal = "metrics"
				}
				require.Positive(t, counter(t, reg, "braid_ingest_rejected_total", signal, tt.metric))
			}
		})
	}
}

func counter(t *testing.T, reg *prometheus.Registry, name string, values ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			found := 0
			for _, l := range m.GetLabel() {
				for _, v := range values {
					if l.GetValue() == v {
						found++
					}
				}
			}
			if found == len(values) {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// TestOneDataPoint requires that the series of one data point share their fate at the limit of labels.
func TestOneDataPoint(t *testing.T) {
	for _, n := range []int{62, 63, 64, 65} {
		kv := []string{}
		for i := range n - 1 {
			kv = append(kv, fmt.Sprintf("k%d", i), "v")
		}
		with := func(more ...string) telemetry.LabelSet { return set(append(append([]string{}, kv...), more...)...) }
		points := []telemetry.Sample{{T: now.UnixMilli()}}
		s := &store{}
		p, _ := newPipeline(t, s, nil)
		got, err := p.Write(t.Context(), "team", storage.Key{}, []telemetry.Batch{{Series: []telemetry.Series{
			{Labels: with("__name__", "x_sum"), Derived: true, Samples: append([]telemetry.Sample{}, points...)},
			{Labels: with("__name__", "x_count"), Samples: append([]telemetry.Sample{}, points...)},
			{Labels: with("__name__", "x_bucket", "le", "1"), Derived: true, Samples: append([]telemetry.Sample{}, points...)},
		}}}, storage.Rejected{})
		require.NoError(t, err)
		if n > 64 {
			require.Equal(t, 1, got.Samples)
			require.Nil(t, s.last)
			continue
		}
		require.Zero(t, got.Samples)
		require.Len(t, s.last.Batches[0].Series, 3)
	}
}

func TestRejectedAddUp(t *testing.T) {
	s := &store{extra: storage.Rejected{Spans: 1, Reasons: []string{"the store"}}}
	p, reg := newPipeline(t, s, nil)
	got, err := p.Write(t.Context(), "team", storage.Key{}, []telemetry.Batch{{Spans: []telemetry.Span{span(nil), span(func(s *telemetry.Span) { s.Start = 0 })}}},
		storage.Rejected{Spans: 2, Reasons: []string{"the protocol"}})
	require.NoError(t, err)
	require.Equal(t, 4, got.Spans)
	require.Equal(t, []string{"the protocol", "the time of a span is older than the retention of 30d (setting storage.retention)", "the store"}, got.Reasons)
	require.InDelta(t, 1, counter(t, reg, "braid_ingest_records_total", "traces"), 0)
}

func TestTenants(t *testing.T) {
	p, _ := newPipeline(t, &store{}, func(c *ingest.Config) { c.MaxTenants = 2 })
	write := func(tenant telemetry.Tenant) error {
		_, err := p.Write(t.Context(), tenant, storage.Key{}, nil, storage.Rejected{})
		return err
	}
	require.NoError(t, write("a"))
	require.NoError(t, write("b"))
	require.NoError(t, write("a"))
	err := write("c")
	require.ErrorContains(t, err, "ingest.max_tenants")
	require.Equal(t, httpapi.TenantLimit, httpapi.FromError(err).Kind)
	require.Equal(t, httpapi.BadData, httpapi.FromError(write("no spaces")).Kind)
}

func TestKeyOf(t *testing.T) {
	k := ingest.KeyOf("a", "b", []byte("c"))
	require.Equal(t, k, ingest.KeyOf("a", "b", []byte("c")))
	for _, other := range []storage.Key{
		ingest.KeyOf("ab", "", []byte("c")), ingest.KeyOf("a", "bc", nil), ingest.KeyOf("b", "b", []byte("c")), ingest.KeyOf("a", "b", []byte("d")),
	} {
		require.NotEqual(t, k, other)
	}
	require.NotEqual(t, storage.Key{}, ingest.KeyOf("", "", nil))
}

func TestClassify(t *testing.T) {
	e := ingest.Classify(fmt.Errorf("x: %w", &storage.Overloaded{Reason: "full", RetryAfter: 2 * time.Second}))
	require.Equal(t, httpapi.Overloaded, e.Kind)
	require.Equal(t, 2*time.Second, e.RetryAfter)
	require.Equal(t, httpapi.TooLarge, ingest.Classify(storage.ErrTooLarge).Kind)
	require.Equal(t, httpapi.Unavailable, ingest.Classify(storage.ErrClosed).Kind)
	require.Equal(t, httpapi.Overloaded, ingest.Classify(storage.ErrOverloaded).Kind)
	require.Nil(t, ingest.Classify(errors.New("other")))
	p, _ := newPipeline(t, &store{err: storage.ErrClosed}, nil)
	_, err := p.Write(t.Context(), "a", storage.Key{}, []telemetry.Batch{{Spans: []telemetry.Span{span(nil)}}}, storage.Rejected{})
	require.ErrorIs(t, err, storage.ErrClosed)
}

func TestConfig(t *testing.T) {
	c := ingest.DefaultConfig()
	require.NoError(t, config.Load(strings.NewReader("time_window: false\nmax_record: 2MiB\nmax_future: 2h\n"), "x", &c))
	require.False(t, c.TimeWindow)
	require.Equal(t, config.Size(2<<20), c.MaxRecord)
	err := config.Load(strings.NewReader("max_tenants: 0\nmax_labels: -1\nmax_label_value: 1GiB\n"), "x", &c)
	require.ErrorContains(t, err, "max_tenants: must be positive")
	require.ErrorContains(t, err, "max_labels: must be positive")
	require.ErrorContains(t, err, "max_label_value: must be at most")
}

func TestMetricsLint(t *testing.T) {
	p, reg := newPipeline(t, &store{}, nil)
	p.Observe("http", storage.Logs, "200", 100)
	p.Refuse(storage.Logs, "too_deep", 2)
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.InDelta(t, 100, counter(t, reg, "braid_ingest_bytes_total", "http", "logs"), 0)
}
