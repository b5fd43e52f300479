package db_test

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/vfs"
)

func TestReadYourWritesInEveryLayout(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	acked := map[int]bool{}
	write := func(from, to int) {
		for n := from; n < to; n++ {
			_, rejected, err := m.db.Write(t.Context(), numbered(n, start.Add(time.Duration(n)*time.Second)))
			require.NoError(t, err)
			require.Zero(t, rejected.Total())
			acked[n] = true
			f, _ := read(t, m.db)
			require.Equal(t, 1, f.logs[n])
		}
	}
	same := func() {
		f, warnings := read(t, m.db)
		require.Empty(t, warnings)
		check(t, f, acked, nil, 200)
	}
	write(0, 20)
	same()
	for i := range 6 {
		require.NoError(t, m.db.Flush(t.Context()))
		write(20+i*10, 30+i*10)
		same()
	}
	st, err := m.db.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, 6, st.Signals[storage.Logs].Parts)
	require.NoError(t, m.db.Maintain(t.Context()))
	same()
	st, err = m.db.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, st.Signals[storage.Logs].Parts, "small parts are merged")
	m.stop()
	require.NoError(t, m.open(t.Context()))
	same()
	require.NoError(t, m.db.Close(t.Context()))
	require.NoError(t, m.blobs.Close())
	require.NoError(t, m.open(t.Context()))
	same()
}

func TestRetryIsStoredOnce(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	for range 3 {
		_, _, err := m.db.Write(t.Context(), numbered(1, start))
		require.NoError(t, err)
	}
	require.NoError(t, m.db.Flush(t.Context()))
	_, _, err := m.db.Write(t.Context(), numbered(1, start))
	require.NoError(t, err)
	m.stop()
	require.NoError(t, m.open(t.Context()), "the keys are in the log")
	_, _, err = m.db.Write(t.Context(), numbered(1, start))
	require.NoError(t, err)
	f, _ := read(t, m.db)
	require.Equal(t, map[int]int{1: 1}, f.logs)
	require.Equal(t, map[int]int{1: 1}, f.spans)
	m.clock.set(start.Add(6 * time.Minute))
	_, _, err = m.db.Write(t.Context(), numbered(2, start))
	require.NoError(t, err)
	_, _, err = m.db.Write(t.Context(), numbered(1, start))
	require.NoError(t, err)
	f, _ = read(t, m.db)
	require.Equal(t, 2, f.logs[1], "the window has passed")
}

func TestViewIsASnapshot(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	for n := range 10 {
		_, _, err := m.db.Write(t.Context(), numbered(n, start))
		require.NoError(t, err)
	}
	v, err := m.db.View(t.Context(), 10)
	require.NoError(t, err)
	defer v.Close()
	count := func() (n int) {
		for b, err := range v.Logs(t.Context(), storage.LogQuery{Tenant: tenant, End: math.MaxInt64, Columns: storage.LogBody}) {
			require.NoError(t, err)
			n += b.Len()
		}
		return n
	}
	require.Equal(t, 10, count())
	for n := 10; n < 60; n++ {
		_, _, err := m.db.Write(t.Context(), numbered(n, start))
		require.NoError(t, err)
		if n%10 == 0 {
			require.NoError(t, m.db.Flush(t.Context()))
		}
	}
	require.NoError(t, m.db.Maintain(t.Context()))
	_, err = m.db.Delete(t.Context(), storage.Mask{Tenant: tenant, Signal: storage.Logs, End: math.MaxInt64})
	require.NoError(t, err)
	require.NoError(t, m.db.Maintain(t.Context()))
	require.Equal(t, 10, count(), "nothing that happens later shows")
	f, _ := read(t, m.db)
	require.Empty(t, f.logs)
	require.Len(t, f.spans, 60)
}

func TestDeleteHidesAtOnceAndIsRewritten(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	for n := range 30 {
		_, _, err := m.db.Write(t.Context(), numbered(n, start))
		require.NoError(t, err)
		if n == 14 {
			require.NoError(t, m.db.Flush(t.Context()))
		}
	}
	part0 := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "part", "0")}
	for _, mask := range []storage.Mask{
		{Tenant: tenant, Signal: storage.Logs, End: math.MaxInt64, Matchers: part0},
		{Tenant: tenant, Signal: storage.Metrics, End: math.MaxInt64, Matchers: part0},
		{Tenant: tenant, Signal: storage.Traces, End: math.MaxInt64, Traces: []telemetry.TraceID{traceID(0), traceID(29)}},
	} {
		_, err := m.db.Delete(t.Context(), mask)
		require.NoError(t, err)
	}
	gone := func() {
		f, _ := read(t, m.db)
		for n := range 30 {
			want := 1
			if n%3 == 0 {
				want = 0
			}
			require.Equal(t, want, f.logs[n], "log %d", n)
			require.Equal(t, want, f.samples[n], "sample %d", n)
		}
		require.Len(t, f.spans, 28)
	}
	gone()
	_, _, err := m.db.Write(t.Context(), numbered(33, start))
	require.NoError(t, err)
	f, _ := read(t, m.db)
	require.Equal(t, 1, f.logs[33], "what comes after a delete is not covered")
	m.stop()
	require.NoError(t, m.open(t.Context()))
	gone2 := func() {
		f, _ := read(t, m.db)
		require.Len(t, f.logs, 21)
		require.Equal(t, 1, f.logs[33])
		require.Len(t, f.samples, 21)
	}
	gone2()
	require.NoError(t, m.db.Maintain(t.Context()))
	gone2()
	rs, err := m.db.Receipts(t.Context(), tenant)
	require.NoError(t, err)
	require.Len(t, rs, 3)
	for _, r := range rs {
		require.Empty(t, r.Pending)
		require.NotEmpty(t, r.Rewritten)
	}
	m.stop()
	require.NoError(t, m.open(t.Context()))
	gone2()
	again, err := m.db.Receipts(t.Context(), tenant)
	require.NoError(t, err)
	require.Equal(t, rs[0].Rewritten, again[0].Rewritten)
}

func TestRetentionDropsWholeDays(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	for n := range 5 {
		_, _, err := m.db.Write(t.Context(), numbered(n, start.Add(time.Duration(n)*24*time.Hour)))
		require.NoError(t, err)
	}
	require.NoError(t, m.db.Flush(t.Context()))
	m.clock.set(start.Add(m.cfg.Retention.Std() + 2*24*time.Hour))
	require.NoError(t, m.db.Maintain(t.Context()))
	f, _ := read(t, m.db)
	require.Equal(t, map[int]int{2: 1, 3: 1, 4: 1}, f.logs)
	require.Equal(t, map[int]int{2: 1, 3: 1, 4: 1}, f.spans)
	require.Empty(t, f.samples, "all samples are of the first day")
	m.stop()
	require.NoError(t, m.open(t.Context()))
	f, _ = read(t, m.db)
	require.Len(t, f.logs, 3)
}

func TestBackPressureAndRecoveryFromIt(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	acked := map[int]bool{}
	n := 0
	for ; n < 10_000; n++ {
		_, _, err := m.db.Write(t.Context(), numbered(n, start))
		if err != nil {
			var over *storage.Overloaded
			require.ErrorAs(t, err, &over)
			require.ErrorContains(t, err, "storage.head_bytes")
			require.Positive(t, over.RetryAfter)
			break
		}
		acked[n] = true
	}
	require.Greater(t, n, 100)
	require.Less(t, n, 10_000, "the head is bounded")
	require.NoError(t, m.db.Maintain(t.Context()))
	_, _, err := m.db.Write(t.Context(), numbered(n, start))
	require.NoError(t, err)
	acked[n] = true
	f, _ := read(t, m.db)
	check(t, f, acked, nil, n+1)
}

func TestDeltaBecomesCumulativeAndSurvives(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	delta := func(sec int, v float64) storage.Rejected {
		at := start.UnixMilli() + int64(sec)*1000
		_, rejected, err := m.db.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{{
			Labels: labelSet("__name__", "d"), Delta: true, Samples: []telemetry.Sample{{T: at, ST: at - 1000, V: v}},
		}}}}})
		require.NoError(t, err)
		return rejected
	}
	require.Zero(t, delta(1, 10).Total())
	require.Zero(t, delta(2, 5).Total())
	require.Equal(t, 1, delta(2, 5).Samples, "out of order")
	m.stop()
	require.NoError(t, m.open(t.Context()))
	require.Zero(t, delta(3, 1).Total())
	require.NoError(t, m.db.Flush(t.Context()))
	m.stop()
	require.NoError(t, m.open(t.Context()))
	require.Equal(t, 1, delta(1, 7).Samples, "state comes from the snapshot")
	require.Zero(t, delta(4, 2).Total())
	v, err := m.db.View(t.Context(), 0)
	require.NoError(t, err)
	defer v.Close()
	set := v.Series(t.Context(), storage.SeriesQuery{Tenant: tenant, End: math.MaxInt64})
	require.True(t, set.Next())
	var got []float64
	it := set.At().Iterator(nil)
	for it.Next() != 0 {
		_, x := it.At()
		got = append(got, x)
		require.Equal(t, start.UnixMilli(), it.AtST())
	}
	require.Equal(t, []float64{10, 15, 16, 18}, got)
}

func TestEntitiesJoinSignals(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	_, _, err := m.db.Write(t.Context(), numbered(1, start))
	require.NoError(t, err)
	_, _, err = m.db.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{{
		Labels:  labelSet("__name__", "container_cpu", "namespace", "default", "pod", "shop-1", "container", "app"),
		Samples: []telemetry.Sample{{T: start.UnixMilli(), V: 1}},
	}}}}})
	require.NoError(t, err)
	ask := func() {
		v, err := m.db.View(t.Context(), 0)
		require.NoError(t, err)
		defer v.Close()
		for _, name := range []string{"0123", "shop-1", "default/shop-1"} {
			es, err := v.Entities(t.Context(), tenant, telemetry.Query{Kind: telemetry.EntityPod, Name: name})
			require.NoError(t, err)
			require.Len(t, es, 1, name)
			require.Equal(t, "0123", es[0].Key.ID)
			require.Len(t, es[0].Resources, 2, "the application's and cAdvisor's are one pod")
			var ids []telemetry.ResourceID
			for _, r := range es[0].Resources {
				ids = append(ids, r.Resource.ID)
			}
			sets, err := v.LabelSets(t.Context(), storage.SeriesQuery{Tenant: tenant, End: math.MaxInt64, Resources: ids})
			require.NoError(t, err)
			require.Len(t, sets, 2)
		}
	}
	ask()
	require.NoError(t, m.db.Flush(t.Context()))
	ask()
	m.stop()
	require.NoError(t, m.open(t.Context()))
	ask()
}

// TestCheckpointHoldsTheLastFlush restarts after each flush: the one that a checkpoint was made with counts as well.
func TestCheckpointHoldsTheLastFlush(t *testing.T) {
	m := newMachine(vfs.NewMem())
	m.checkpointEvery = 3
	requireOpen(t, m)
	acked := map[int]bool{}
	for n := range 20 {
		_, _, err := m.db.Write(t.Context(), numbered(n, start))
		require.NoError(t, err)
		acked[n] = true
		require.NoError(t, m.db.Flush(t.Context()))
		m.stop()
		require.NoError(t, m.open(t.Context()))
		f, warnings := read(t, m.db)
		require.Empty(t, warnings)
		check(t, f, acked, nil, n+1)
	}
}
