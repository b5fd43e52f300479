package columns_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage/traces/columns"
)

// TestDurationsOf reads the durations of some rows, of blocks of one page and of several.
func TestDurationsOf(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, rows := range []int{37, 700, 100_000} {
		layout := columns.DefaultLayout()
		layout.PageRows = min(layout.PageRows, rows)
		p := open(t, write(t, layout, newShop().traces(3000)))
		s, err := p.Segment(0)
		require.NoError(t, err)
		for k := range s.Blocks() {
			b, err := s.Block(k)
			require.NoError(t, err)
			all, err := b.Durations()
			require.NoError(t, err)
			for range 3 {
				set := make([]uint64, (len(all)+63)/64)
				for i := range set {
					set[i] = r.Uint64() & r.Uint64()
				}
				b, err := s.Block(k)
				require.NoError(t, err)
				some, err := b.DurationsOf(set)
				require.NoError(t, err)
				require.Len(t, some, len(all))
				for i, n := range all {
					if set[i/64]>>(i%64)&1 == 1 {
						require.Equal(t, n, some[i])
					}
				}
				again, err := b.Durations()
				require.NoError(t, err)
				require.Equal(t, all, again)
			}
		}
	}
}
