package db_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/vfs"
)

// TestMetadataAloneSurvives sends metadata without samples, as remote write 1.0 does.
func TestMetadataAloneSurvives(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	tell := func(metric, help string) {
		_, _, err := m.db.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{{
			Labels: labelSet("__name__", metric), Metadata: &telemetry.Metadata{Type: telemetry.MetricGauge, Help: help},
		}}}}})
		require.NoError(t, err)
	}
	ask := func(want ...string) {
		t.Helper()
		v, err := m.db.View(t.Context(), 0)
		require.NoError(t, err)
		defer func() { require.NoError(t, v.Close()) }()
		got, err := v.Metadata(t.Context(), tenant, "")
		require.NoError(t, err)
		require.Len(t, got, len(want))
		for _, name := range want {
			require.Len(t, got[name], 1)
		}
		require.Empty(t, v.Warnings())
	}
	want := []string{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		tell(name, "Help.")
		want = append(want, name)
		ask(want...)
		require.NoError(t, m.db.Flush(t.Context()))
		ask(want...)
	}
	require.NoError(t, m.db.Maintain(t.Context()))
	ask(want...)
	st, err := m.db.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, st.Signals[storage.Metrics].Parts)
	m.stop()
	require.NoError(t, m.open(t.Context()))
	ask(want...)
}

// TestMetadataOfASnapshot looks through a view that is older than a change of the metadata.
func TestMetadataOfASnapshot(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	tell := func(help string) {
		_, _, err := m.db.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{{
			Labels: labelSet("__name__", "a"), Metadata: &telemetry.Metadata{Help: help}, Samples: []telemetry.Sample{{T: start.UnixMilli()}},
		}}}}})
		require.NoError(t, err)
	}
	tell("one")
	v, err := m.db.View(t.Context(), 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, v.Close()) }()
	tell("two")
	got, err := v.Metadata(t.Context(), tenant, "a")
	require.NoError(t, err)
	require.Equal(t, map[string][]telemetry.Metadata{"a": {{Help: "one"}}}, got)
}
