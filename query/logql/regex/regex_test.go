package regex_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/query/logql/regex"
)

func TestSize(t *testing.T) {
	for in, want := range map[string]int{
		"abc": 3, "a|b": 1, "[a-z]": 1, `\pL`: 1, "a{100}": 200, "(ab){3}": 12, "": 1, "x{1000}x{1000}": 4001,
	} {
		got, err := regex.Size(in)
		require.NoError(t, err)
		require.Equal(t, want, got, in)
	}
	_, err := regex.Size("a(")
	require.ErrorContains(t, err, "missing closing )")
}

// Lines so long that matching them asks whether to stop match as short ones do.
func TestLongLines(t *testing.T) {
	never := func() bool { return false }
	for _, expr := range []string{`^x`, `x$`, `(?P<a>b+)(?P<c>\xff|é)`, `\bend\b`, `(a|b|c){50}é`, `nothing`, `.`, `(?s)^.*$`, `\x{FFFD}`} {
		expr += "|q{400}r" // large, so that a line is long soon
		want := regexp.MustCompile(expr)
		re, err := regex.Compile(expr, never)
		require.NoError(t, err)
		require.Equal(t, want.SubexpNames(), re.Names())
		for _, pad := range []int{0, 10, 6000} {
			for _, line := range []string{"x", "bbbé end", "b\xff", "\n"} {
				for _, s := range []string{line, strings.Repeat("a", pad) + line, line + strings.Repeat("a", pad)} {
					require.Equal(t, want.MatchString(s), re.Match(s), "%s over %d bytes", expr, len(s))
					require.Equal(t, want.FindStringSubmatchIndex(s), re.Find(s), "%s over %d bytes", expr, len(s))
				}
			}
		}
	}
}

func TestStops(t *testing.T) {
	asked := 0
	re, err := regex.Compile(`(a|b|c){200}d`, func() bool { asked++; return asked > 5 })
	require.NoError(t, err)
	require.False(t, re.Match(strings.Repeat("a", 1<<16)+"d"))
	require.Equal(t, 6, asked)
	require.Nil(t, re.Find(strings.Repeat("a", 1<<16)+"d"))
}
