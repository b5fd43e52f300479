package places_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/traces/places"
)

// TestTableAnswersLikeAMap adds places of random traces, more than were announced, and some that count only if their trace is there.
func TestTableAnswersLikeAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := places.New(rapid.IntRange(0, 10).Draw(t, "announced"))
		want := make(map[telemetry.TraceID][]places.Place)
		for n := range rapid.IntRange(0, 100).Draw(t, "places") {
			id := telemetry.TraceID{5: rapid.Byte().Draw(t, "trace")}
			at := places.Place{Unit: int32(n), Block: int32(n + 1), Trace: int32(n + 2)}
			if rapid.Bool().Draw(t, "probe") {
				tab.Probe(&id, at)
				if want[id] == nil {
					continue
				}
			} else {
				tab.Add(&id, at)
			}
			want[id] = append(want[id], at)
		}
		several := 0
		for id, at := range want {
			require.Equal(t, at, tab.Find(&id))
			if len(at) > 1 {
				several++
			}
		}
		require.Len(t, tab.More, several)
		require.Nil(t, tab.Find(&telemetry.TraceID{1}))
	})
}
