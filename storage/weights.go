package storage

import (
	"math"

	"github.com/braidobs/braid/internal/telemetry"
)

// MaxWeight bounds how many spans one span stands for: what a sender says of itself cannot make others disappear.
const MaxWeight = 1 << 16

// weightOf returns for how many spans one with a trace state stands.
func weightOf(state string) float64 { return min(1/telemetry.Probability(state), MaxWeight) }

// Weight returns for how many spans row i stands, as a whole number: what Weights tells of blocks of traces. It needs the column
// SpanMessages.
func (b *SpanBlock) Weight(i int) int64 { return int64(math.Round(weightOf(b.State[i]))) }

// WeightKey is the column that Weights reads.
func WeightKey() SpanKey { return Field(SpanState) }

// Weights returns for how many spans each row of a block stands, by the probability with which its trace was kept (see
// telemetry.Probability); nil when each stands for itself.
func Weights(b TraceBlock) ([]float64, error) {
	c, err := b.Column(WeightKey())
	if err != nil || c.Ints != nil {
		return nil, err
	}
	var of []float64 // of the values of the dictionary
	for i, v := range c.Dict {
		w := weightOf(v.Str())
		if w == 1 {
			continue
		}
		if of == nil {
			of = make([]float64, len(c.Dict))
			for k := range of {
				of[k] = 1
			}
		}
		of[i] = w
	}
	if of == nil {
		return nil, nil
	}
	out := make([]float64, b.Len())
	for i := range out {
		out[i] = 1
	}
	for i, code := range c.Code {
		row := i
		if c.Rows != nil {
			row = int(c.Rows[i])
		}
		out[row] = of[code]
	}
	return out, nil
}
