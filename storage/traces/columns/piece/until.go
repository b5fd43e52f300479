package piece

import (
	"fmt"

	"github.com/braidobs/braid/storage/column"
)

// packed is how many numbers package column packs together, behind the first one.
const packed = 128

// Until is Ints for at least the first k of n integers, 0 < k <= n; it returns no others. What is behind them is not looked at.
func Until(m *Memory, b []byte, n, k int) ([]int64, error) {
	k = min(n, 1+(k+packed-2)/packed*packed)
	if k == n {
		return Ints(m, b, n)
	}
	if len(b) == 0 || n > packed*(len(b)+2) {
		return nil, fmt.Errorf("%d integers cannot fit in %d bytes", n, len(b))
	}
	scale := b[0]
	if scale > 3 {
		return nil, fmt.Errorf("scale %d", scale)
	}
	out := m.wide.Get(k)
	if _, err := column.Scaled(pad(b)[1:], out, [...]int64{1, 1e3, 1e6, 1e9}[scale]); err != nil {
		return nil, err
	}
	return out, nil
}
