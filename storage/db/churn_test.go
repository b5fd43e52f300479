package db_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/vfs"
)

// TestChurn replaces all series every five minutes, as deployments do: what is known in memory is what was written to in
// the last quarter of an hour, whatever came before, and all of it is found.
func TestChurn(t *testing.T) {
	const generations, series, every = 30, 100, 5 * time.Minute
	ctx := t.Context()
	m := newMachine(vfs.NewMem())
	require.NoError(t, m.open(ctx))
	defer m.stop()
	most := 0
	for g := range generations {
		b := telemetry.Batch{Tenant: tenant}
		for i := range series {
			b.Series = append(b.Series, telemetry.Series{
				Labels:  labelSet("__name__", "m", "generation", strconv.Itoa(g), "i", strconv.Itoa(i)),
				Samples: []telemetry.Sample{{T: m.clock.Now().UnixMilli(), V: float64(g)}},
			})
		}
		_, rejected, err := m.db.Write(ctx, storage.Request{Batches: []telemetry.Batch{b}})
		require.NoError(t, err)
		require.Zero(t, rejected.Total())
		require.NoError(t, m.db.Flush(ctx))
		m.clock.set(m.clock.Now().Add(every))
		most = max(most, m.db.ActiveSeries())
	}
	require.LessOrEqual(t, most, 6*series)
	require.GreaterOrEqual(t, most, 3*series, "series stay for 15 minutes")
	view, err := m.db.View(ctx, 0)
	require.NoError(t, err)
	defer view.Close()
	for g := range generations {
		n := 0
		err := view.Columns(ctx, storage.SeriesQuery{
			Tenant: tenant, Start: start.UnixMilli(), End: m.clock.Now().UnixMilli(),
			Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "generation", strconv.Itoa(g))},
		}, func(b *storage.SeriesBlock) error {
			n++
			require.Equal(t, []int64{start.Add(time.Duration(g) * every).UnixMilli()}, b.Times)
			require.Equal(t, []float64{float64(g)}, b.Values)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, series, n)
	}
}

// TestViewOverSweep holds a view over two flushes: it finds what it found before.
func TestViewOverSweep(t *testing.T) {
	ctx := t.Context()
	m := newMachine(vfs.NewMem())
	require.NoError(t, m.open(ctx))
	defer m.stop()
	write := func(name string) {
		at := m.clock.Now().UnixMilli()
		_, _, err := m.db.Write(ctx, storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{
			{Labels: labelSet("__name__", name), Samples: []telemetry.Sample{{T: at, V: 1}}},
		}}}})
		require.NoError(t, err)
	}
	write("old")
	m.clock.set(start.Add(16 * time.Minute)) // a head that was begun a while ago
	view, err := m.db.View(ctx, 0)
	require.NoError(t, err)
	defer view.Close()
	count := func() int {
		sets, err := view.LabelSets(ctx, storage.SeriesQuery{
			Tenant: tenant, Start: start.UnixMilli() - 1000, End: start.UnixMilli() + 1000,
			Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "old")},
		})
		require.NoError(t, err)
		return len(sets)
	}
	require.Equal(t, 1, count())
	write("new")
	require.NoError(t, m.db.Flush(ctx))
	require.Equal(t, 1, count())
	write("newer") // seconds later: a burst fills the next head
	require.NoError(t, m.db.Flush(ctx))
	require.Equal(t, 1, count())
}
