//go:build long

package promql_test

import (
	"strconv"
	"testing"
)

func TestColumnsEqualEngineLong(t *testing.T) {
	for seed := range uint64(400) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			compareColumns(t, 1000+seed, 200)
		})
	}
}
