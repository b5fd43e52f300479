package storage

import "github.com/braidobs/braid/internal/telemetry"

// MaxWeight bounds how many spans one span stands for: what a sender says of itself cannot make others disappear.
const MaxWeight = 1 << 16

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
		p := telemetry.Probability(v.Str())
		if p == 1 {
			continue
		}
		if of == nil {
			of = make([]float64, len(c.Dict))
			for k := range of {
				of[k] = 1
			}
		}
		of[i] = min(1/p, MaxWeight)
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
