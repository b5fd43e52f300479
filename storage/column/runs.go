package column

// Runs calls f with runs of equal values of what Encoder.Ints wrote without ref, in order; neighbouring runs may have the
// same value. It costs little where the same value stands hundreds of times. It returns what follows.
func Runs(src []byte, n int, f func(n int, v int64) error) ([]byte, error) {
	if len(src) == 0 {
		return nil, corrupt("no predictor")
	}
	p, shift := int(src[0]&3), int(src[0]>>2)
	x, src, err := varint(src[1:])
	if err != nil {
		return nil, err
	}
	if p == predRef {
		return nil, corrupt("a reference to no column")
	}
	run, step := 1, int64(0)
	var buf [block]int64
	for left := n - 1; left > 0; {
		k := min(block, left)
		left -= k
		if p == predDelta && len(src) > 0 && src[0] == blockZero {
			run, src = run+k, src[1:]
			continue
		}
		r := buf[:k]
		if src, err = unpackBlock(src, r, shift); err != nil {
			return nil, err
		}
		for _, d := range r {
			v := d
			switch p {
			case predDelta:
				v = x + d
			case predSlope:
				step += d
				v = x + step
			}
			if v == x {
				run++
				continue
			}
			if err := f(run, x); err != nil {
				return nil, err
			}
			x, run = v, 1
		}
	}
	return src, f(run, x)
}
