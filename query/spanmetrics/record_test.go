package spanmetrics_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/spanmetrics"
	"github.com/braidobs/braid/storage"
)

// each calls f with each sample of all metrics of spans.
func each(t *testing.T, r storage.Reader, start, end int64, f func(series string, at int64, bits uint64)) {
	t.Helper()
	v, err := r.View(t.Context(), 0)
	require.NoError(t, err)
	defer v.Close()
	set := v.Series(t.Context(), storage.SeriesQuery{
		Tenant: tenant, Start: start, End: end, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", "traces_.+")},
	})
	for set.Next() {
		s := set.At()
		it, name := s.Iterator(nil), s.Labels().String()
		for it.Next() == chunkenc.ValFloat {
			at, v := it.At()
			f(name, at, math.Float64bits(v))
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
}

// failing is a writer that fails every third time.
type failing struct {
	storage.Writer
	n int
}

func (f *failing) Write(ctx context.Context, req storage.Request) (storage.Position, storage.Rejected, error) {
	if f.n++; f.n%3 == 0 {
		return 0, storage.Rejected{}, errors.New("not now")
	}
	return f.Writer.Write(ctx, req)
}

// TestRecordedIsTheView writes the series of an hour around midnight minute by minute, with writes that fail among them, and
// compares each sample with the view from the beginning of its day.
func TestRecordedIsTheView(t *testing.T) {
	midnight := time.Unix(0, begin).UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
	shift := midnight.Add(-30*time.Minute).UnixNano() - begin
	rows := randomTraces(rand.New(rand.NewPCG(1, 1)), 10)
	for _, r := range rows {
		r.Span.Start, r.Span.End = r.Span.Start+shift, r.Span.End+shift
	}
	spans, series := testkit.NewStore(""), testkit.NewStore("")
	now := midnight.Add(-40 * time.Minute)
	rec := spanmetrics.NewRecorder(spanmetrics.RecorderDeps{
		Reader: spans, Writer: &failing{Writer: series}, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler),
	})
	_, _, err := spanmetrics.Writer{Writer: spans, Recorder: rec}.Write(t.Context(), requestOf(rows))
	require.NoError(t, err)
	failed := 0
	for ; now.Before(midnight.Add(40 * time.Minute)); now = now.Add(time.Minute + 7*time.Second) {
		if err := rec.Record(t.Context()); err != nil {
			failed++
		}
	}
	require.Greater(t, failed, 3)
	views := spanmetrics.New(spans, spanmetrics.Options{})
	compared := 0
	for _, day := range []time.Time{midnight.Add(-24 * time.Hour), midnight} {
		first, last := day.UnixMilli()+1, min(day.Add(24*time.Hour).UnixMilli(), now.UnixMilli())
		written := make(map[string]map[int64]uint64)
		each(t, series, first, last, func(name string, at int64, bits uint64) {
			if written[name] == nil {
				written[name] = make(map[int64]uint64)
			}
			written[name][at] = bits
		})
		each(t, views, first, last, func(name string, at int64, bits uint64) {
			if written[name] == nil {
				require.Failf(t, "not written", "%s", name)
			}
			if got, ok := written[name][at]; ok {
				if got != bits {
					require.Failf(t, "another value", "%s at %d is %v, want %v", name, at, math.Float64frombits(got), math.Float64frombits(bits))
				}
				delete(written[name], at)
				compared++
			}
		})
		for name, rest := range written {
			for at, bits := range rest { // of yesterday's series the view has none, and what is written is zero
				if bits != 0 && !strings.Contains(name, "target_info") {
					require.Failf(t, "not in the view", "%s at %d is %v", name, at, math.Float64frombits(bits))
				}
			}
		}
	}
	require.Greater(t, compared, 10_000)

	// Both answer the same where nothing but both ends of the window matters.
	at := midnight.Add(20 * time.Minute).UnixNano()
	for _, expr := range []string{
		"sum by (client, server) (increase(traces_service_graph_request_total[40m]))", "sum by (service) (increase(traces_spanmetrics_calls_total[10m]))",
	} {
		requireClose(t, instant(t, newEngine(t, views), expr, at), instant(t, newEngine(t, spanmetrics.New(series, spanmetrics.Options{})), expr, at), 1e-5, expr)
	}
}

func TestRecorderStops(t *testing.T) {
	rec := spanmetrics.NewRecorder(spanmetrics.RecorderDeps{Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, rec.Run(ctx))
}
