package metrics

import (
	"cmp"
	"math"
	"strconv"
	"strings"

	"github.com/braidobs/braid/internal/telemetry"
)

// key is what series are put in storage order by.
type key struct {
	name string  // of the metric
	rest string  // the other labels but le, in canonical form
	le   float64 // negative infinity for series without
	text string  // of le
}

func keyOf(ls telemetry.LabelSet) key {
	k := key{le: math.Inf(-1)}
	d := telemetry.NewDecoder(string(ls))
	// The rest is mostly what follows the name: it is built from pieces only when le lies in it.
	from, piece := 0, 0
	var b []byte
	cut := func(at, next int) {
		if at > from {
			b = append(b, ls[from:at]...)
			piece++
		}
		from = next
	}
	for d.Len() > 0 && d.Err() == nil {
		at := d.Offset()
		name, value := d.Str(), d.Str()
		switch name {
		case metricName:
			k.name = value
			cut(at, d.Offset())
		case bucketLabel:
			k.text, k.le = value, math.Inf(1)
			if f, err := strconv.ParseFloat(value, 64); err == nil && f == f {
				k.le = f
			}
			cut(at, d.Offset())
		}
	}
	if piece == 0 {
		k.rest = string(ls[from:])
		return k
	}
	cut(len(ls), len(ls))
	k.rest = string(b)
	return k
}

// compare orders keys; equal keys belong to equal labels.
func (k *key) compare(o *key) int {
	return cmp.Or(strings.Compare(k.name, o.name), strings.Compare(k.rest, o.rest), cmp.Compare(k.le, o.le), strings.Compare(k.text, o.text))
}
