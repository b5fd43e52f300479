package sampling_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/correlate/sampling"
	"github.com/braidobs/braid/internal/config"
)

func TestParsePolicy(t *testing.T) {
	p, err := sampling.ParsePolicy(nil)
	require.NoError(t, err)
	require.Equal(t, sampling.DefaultPolicy(), p)
	p, err = sampling.ParsePolicy([]byte("after: 48h\none_in: 50\nerrors: false\nlogs: false\nexemplars: false\nslow: 0.999\nrare: 5\n"))
	require.NoError(t, err)
	require.Equal(t, sampling.Policy{After: config.Duration(48 * time.Hour), OneIn: 50, Slow: 0.999, Rare: 5}, p)
	_, err = sampling.ParsePolicy([]byte("after: 1m\none_in: 0\nslow: 2\nrare: -1\n"))
	for _, part := range []string{"after", "one_in", "slow", "rare"} {
		require.ErrorContains(t, err, part)
	}
	_, err = sampling.ParsePolicy([]byte("one_on: 3\n"))
	require.ErrorContains(t, err, "one_on")
}
