package db_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/db"
	"github.com/braidobs/braid/storage/vfs"
)

// keptOf is the decision of the tests: every fourth trace is dropped, the next kept for two, the others as they are.
func keptOf(id telemetry.TraceID) float64 {
	switch id[15] % 4 {
	case 0:
		return 0
	case 1:
		return 0.5
	default:
		return 1
	}
}

// statesOf returns the trace states of the spans by trace, one after the other.
func statesOf(t *testing.T, d *db.DB) map[telemetry.TraceID][]string {
	t.Helper()
	v, err := d.View(t.Context(), 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, v.Close()) }()
	out := make(map[telemetry.TraceID][]string)
	for b, err := range v.Spans(t.Context(), storage.SpanQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Columns: storage.SpanAll}) {
		require.NoError(t, err)
		for i := range b.Len() {
			out[b.TraceID[i]] = append(out[b.TraceID[i]], b.State[i])
		}
	}
	require.Empty(t, v.Warnings())
	return out
}

// TestSampleTraces samples a day whose traces lie in several parts, crashes at any time on the way, and samples again: either
// nothing happened or all of it, and what came after the decision stays.
func TestSampleTraces(t *testing.T) {
	const traces, parts = 40, 3
	disk := vfs.NewMem()
	m := newMachine(disk)
	requireOpen(t, m)
	write := func(first, n int) {
		b := telemetry.Batch{Tenant: tenant, Resource: testResource}
		for i := first; i < first+n; i++ {
			b.Spans = append(b.Spans, telemetry.Span{
				TraceID: telemetry.TraceID{1, 15: byte(i % traces)}, SpanID: telemetry.SpanID{byte(i >> 8), byte(i), 1}, State: "a=b",
				Start: start.UnixNano() + int64(i), End: start.UnixNano() + int64(i) + 5,
			})
		}
		_, _, err := m.db.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
		require.NoError(t, err)
	}
	for p := range parts {
		write(p*traces, traces) // so each trace has a span in each part
		require.NoError(t, m.db.Flush(t.Context()))
	}
	v, err := m.db.View(t.Context(), 0)
	require.NoError(t, err)
	upTo := v.(storage.ChangeReader).Position()
	require.NoError(t, v.Close())
	days := m.db.TraceDays()
	require.Equal(t, []storage.TraceDay{{Tenant: tenant, Day: start.Unix() / 86400}}, days)
	write(1000*traces, 4) // of traces 0 to 3, later
	require.NoError(t, m.db.Flush(t.Context()))

	check := func(d *db.DB, sampled bool) {
		got := statesOf(t, d)
		for i := range traces {
			id := telemetry.TraceID{1, 15: byte(i)}
			want := []string{}
			for range parts {
				switch p := keptOf(id); {
				case !sampled || p == 1:
					want = append(want, "a=b")
				case p > 0:
					want = append(want, "ot=th:8,a=b")
				}
			}
			if i < 4 {
				want = append(want, "a=b")
			}
			require.ElementsMatch(t, want, got[id], "trace %d", i)
		}
	}
	check(m.db, false)
	require.NoError(t, m.db.SampleTraces(t.Context(), days[0], upTo, keptOf))
	check(m.db, true)
	m.stop()
	requireOpen(t, m)
	check(m.db, true)
	require.NoError(t, m.db.SampleTraces(t.Context(), storage.TraceDay{Tenant: "nobody", Day: 1}, upTo, keptOf))
}
