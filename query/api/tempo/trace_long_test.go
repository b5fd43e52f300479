//go:build long

package tempo_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/query/api/tempo"
)

func TestTracePagesOfLongTrace(t *testing.T) {
	const n = 100_000
	seen, pages := pagesOf(t, handler(long(t, n), tempo.DefaultConfig()), 4096)
	require.Len(t, seen, n)
	require.Equal(t, 25, pages)
}
