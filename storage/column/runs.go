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
		if p == predDelta {
			if steps, rest, ok := fewSteps(src, k, shift, buf[:0]); ok {
				at := 0
				for i := 0; i < len(steps); i += 2 {
					run += int(steps[i]) - at
					if err := f(run, x); err != nil {
						return nil, err
					}
					x, run, at = x+steps[i+1], 1, int(steps[i])+1
				}
				run, src = run+k-at, rest
				continue
			}
		}
		if p == predNone && len(src) > 0 && (src[0] == blockZero || src[0] == 0) { // one value
			v, rest := int64(0), src[1:]
			if src[0] == 0 {
				if v, rest, err = varint(rest); err != nil {
					return nil, err
				}
			}
			if v <<= shift; v != x {
				if err := f(run, x); err != nil {
					return nil, err
				}
				x, run = v, 0
			}
			run, src = run+k, rest
			continue
		}
		r := buf[:k]
		if src, err = unpackBlock(src, r, int64(1)<<shift); err != nil {
			return nil, err
		}
		switch p {
		case predDelta:
			v := x
			for i, d := range r {
				v += d
				r[i] = v
			}
		case predSlope:
			v := x
			for i, d := range r {
				step += d
				v += step
				r[i] = v
			}
		}
		for i := 0; i < k; {
			from := i
			for i < k && r[i] == x {
				i++
			}
			run += i - from
			if i == k {
				break
			}
			if err := f(run, x); err != nil {
				return nil, err
			}
			x, run = r[i], 0
		}
	}
	return src, f(run, x)
}

// fewSteps appends to dst, in pairs, which of k residuals are not zero, and these, when the block at the start of src tells
// just that.
func fewSteps(src []byte, k, shift int, dst []int64) (steps []int64, rest []byte, ok bool) {
	if len(src) < 3 || src[0] != blockExceptions || src[1] != 0 || 2*int(src[2]) > cap(dst) {
		return nil, nil, false
	}
	rest = src[3:]
	last := int64(-1)
	for range src[2] {
		if len(rest) == 0 {
			return nil, nil, false
		}
		at := int64(rest[0])
		d, behind, err := varint(rest[1:])
		if err != nil || at <= last || at >= int64(k) {
			return nil, nil, false
		}
		dst, rest, last = append(dst, at, d<<shift), behind, at
	}
	return dst, rest, true
}
