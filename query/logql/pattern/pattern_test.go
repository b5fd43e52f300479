package pattern_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/query/logql/pattern"
)

// What is captured stands in the line in that order, and a line that a filter accepts has all literals in order.
func FuzzPattern(f *testing.F) {
	f.Add("<a> - <_> [<b>]", "1 - 2 [3]")
	f.Add("x<_>y", "xzy")
	f.Add("<_>\x00<c>", "\xff\x00\xfe")
	f.Fuzz(func(t *testing.T, text, line string) {
		if p, err := pattern.Parse(text); err == nil {
			rest, last := line, -1
			p.Match(line, func(i int, value string) {
				require.Greater(t, i, last)
				last = i
				n := strings.Index(rest, value)
				require.GreaterOrEqual(t, n, 0)
				rest = rest[n:]
				if value != "" {
					rest = rest[len(value):]
				}
			})
		}
		if p, err := pattern.ParseLine(text); err == nil && p.Test(line) {
			rest := line
			for i, s := range p.Literals {
				n := strings.Index(rest, s)
				require.GreaterOrEqual(t, n, 0)
				if i == 0 {
					require.Zero(t, n)
				}
				rest = rest[n+len(s):]
			}
		}
	})
}
