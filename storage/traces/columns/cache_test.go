package columns

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage/traces/columns/piece"
)

// TestCache puts more into a cache than it may hold, and requires that it holds about as much, and something of all times.
func TestCache(t *testing.T) {
	raw := make([]byte, 1001)
	raw[0] = 2 // a byte for each code
	for i := range raw {
		raw[i] |= byte(i & 2)
	}
	v, err := piece.ViewOf(&piece.Memory{}, raw, 1000, 256)
	require.NoError(t, err)
	fit := 10
	c := NewCache(int64(fit) * v.Size())
	held := func(from, to int) (n int) {
		for i := from; i < to; i++ {
			if got, ok := c.get(cacheKey{page: uint32(i)}); ok {
				require.Equal(t, v, got.view)
				n++
			}
		}
		return n
	}
	put := func(from, to int) {
		for i := from; i < to; i++ {
			if c.admits(v.Size()) {
				c.put(cacheKey{page: uint32(i)}, cached{view: v}, v.Size())
			}
		}
	}
	put(0, fit)
	c.put(cacheKey{}, cached{view: v}, v.Size())
	require.Equal(t, fit, held(0, fit))
	put(fit, fit+oneOf-1)
	require.Equal(t, fit, held(0, fit), "few do not drive out others")
	put(100, 100+100*oneOf)
	require.Equal(t, fit, held(0, 1000))
	require.Less(t, held(0, fit), fit)
	require.Equal(t, int64(fit)*v.Size(), c.bytes)
	require.False(t, c.admits(c.limit+1))
	var none *Cache
	require.False(t, none.admits(1))
	_, ok := none.get(cacheKey{})
	require.False(t, ok)
}
