package telemetry_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
)

func TestProbability(t *testing.T) {
	tests := []struct {
		state string
		want  float64
	}{
		{"", 1},
		{"a=b", 1},
		{"ot=th:0", 1},
		{"ot=th:8", 0.5},
		{"ot=th:c", 0.25},
		{"ot=th:c;rv:12345678901234", 0.25},
		{"a=b, ot=rv:12345678901234;th:c", 0.25},
		{"ot=th:ffffffffffffff", 1 / float64(1<<56)},
		{"ot=th:", 1},
		{"ot=th:xyz", 1},
		{"ot=th:123456789012345", 1},
		{"x=th:8", 1},
	}
	for _, tt := range tests {
		require.InEpsilon(t, tt.want, telemetry.Probability(tt.state), 1e-15, tt.state)
	}
}

func TestWithProbability(t *testing.T) {
	tests := []struct {
		state string
		p     float64
		want  string
	}{
		{"", 1, ""},
		{"a=b", 2, "a=b"},
		{"", 0.5, "ot=th:8"},
		{"a=b", 0.25, "ot=th:c,a=b"},
		{"a=b,ot=th:8;rv:01,c=d", 0.5, "ot=th:c;rv:01,a=b,c=d"},
	}
	for _, tt := range tests {
		require.Equal(t, tt.want, telemetry.WithProbability(tt.state, tt.p))
	}
	rapid.Check(t, func(t *rapid.T) {
		p, q := rapid.Float64Range(0.0001, 1).Draw(t, "p"), rapid.Float64Range(0.0001, 1).Draw(t, "q")
		got := telemetry.Probability(telemetry.WithProbability(telemetry.WithProbability("k=v", p), q))
		require.InEpsilon(t, p*q, got, 1e-6)
	})
}
