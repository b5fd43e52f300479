package app

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

// TestBuiltinTests runs the test files of Prometheus's engine over the engine that stores, its disk in memory, in
// layouts that differ in where the samples of a load lie.
func TestBuiltinTests(t *testing.T) {
	for _, layout := range []struct {
		name string
		// pieces is into how many writes a load is cut, each with samples of all series; flush says after which of
		// them the head becomes parts.
		pieces int
		flush  func(piece int) bool
	}{
		{"head", 1, func(int) bool { return false }},
		{"parts", 1, func(int) bool { return true }},
		{"head after parts", 4, func(piece int) bool { return piece < 3 }},
		{"every other piece a part", 5, func(piece int) bool { return piece%2 == 0 }},
	} {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			cfg := promql.DefaultConfig()
			cfg.Experimental, cfg.MaxSamples = true, promqltest.DefaultMaxSamplesPerQuery
			engine, err := promql.New(promql.Deps{Config: cfg})
			require.NoError(t, err)
			promqltest.RunBuiltinTestsWithStorage(t, engine.Prometheus(), func(tb testing.TB) promstorage.Storage {
				tb.Helper()
				store, err := openMemory(context.WithoutCancel(tb.Context()), func() time.Time { return time.Unix(0, 0) })
				require.NoError(tb, err)
				reads, err := promql.New(promql.Deps{Config: cfg, Reader: store})
				require.NoError(tb, err)
				return &suiteStore{Queryable: reads.Queryable(telemetry.DefaultTenant), store: store, pieces: layout.pieces, flush: layout.flush}
			})
		})
	}
}

// suiteStore is a store as a suite of Prometheus wants it: it reads through the engine's Queryable and writes what an
// appender collected as requests.
type suiteStore struct {
	promstorage.Queryable
	promstorage.ChunkQueryable // of these the suite uses none
	promstorage.Appendable
	store  *memoryStore
	pieces int
	flush  func(piece int) bool
}

// StartTime implements promstorage.Storage.
func (s *suiteStore) StartTime() (int64, error) { return 0, nil }

// Close implements promstorage.Storage.
func (s *suiteStore) Close() error { return s.store.Close(context.Background()) }

// AppenderV2 implements promstorage.AppendableV2.
func (s *suiteStore) AppenderV2(ctx context.Context) promstorage.AppenderV2 {
	return &suiteAppender{ctx: ctx, s: s, known: make(map[telemetry.LabelSet]int)}
}

type suiteAppender struct {
	ctx    context.Context //nolint:containedctx // Commit has none
	s      *suiteStore
	known  map[telemetry.LabelSet]int
	series []telemetry.Series
}

// Append implements promstorage.AppenderV2.
func (a *suiteAppender) Append(
	_ promstorage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, _ promstorage.AppendV2Options,
) (promstorage.SeriesRef, error) {
	key := telemetry.NewLabelSet(ls)
	i, ok := a.known[key]
	if !ok {
		i = len(a.series)
		a.known[key] = i
		a.series = append(a.series, telemetry.Series{Labels: key})
	}
	se := &a.series[i]
	switch {
	case h != nil:
		se.Histograms = append(se.Histograms, telemetry.HistogramSample{T: t, ST: st, H: h.Copy()})
	case fh != nil:
		se.Histograms = append(se.Histograms, telemetry.HistogramSample{T: t, ST: st, FH: fh.Copy()})
	default:
		se.Samples = append(se.Samples, telemetry.Sample{T: t, ST: st, V: v})
	}
	return promstorage.SeriesRef(i + 1), nil
}

// Commit implements promstorage.AppenderTransaction.
func (a *suiteAppender) Commit() error {
	for piece := range a.s.pieces {
		var batch telemetry.Batch
		batch.Tenant = telemetry.DefaultTenant
		for i := range a.series {
			se := telemetry.Series{
				Labels:     a.series[i].Labels,
				Samples:    cut(a.series[i].Samples, piece, a.s.pieces),
				Histograms: cut(a.series[i].Histograms, piece, a.s.pieces),
			}
			if len(se.Samples)+len(se.Histograms) > 0 {
				batch.Series = append(batch.Series, se)
			}
		}
		if len(batch.Series) > 0 {
			_, rejected, err := a.s.store.Write(a.ctx, storage.Request{Batches: []telemetry.Batch{batch}})
			if err != nil {
				return err
			}
			if rejected.Total() > 0 {
				return errors.New(rejected.Reasons[0])
			}
		}
		if a.s.flush(piece) {
			if err := a.s.store.Flush(a.ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// cut returns one of so many pieces.
func cut[T any](all []T, piece, pieces int) []T {
	return all[len(all)*piece/pieces : len(all)*(piece+1)/pieces]
}

// Rollback implements promstorage.AppenderTransaction.
func (*suiteAppender) Rollback() error { return nil }
