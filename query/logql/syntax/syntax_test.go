package syntax_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/query/logql/syntax"
)

// queries returns all queries of the golden files.
func queries(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob("../testdata/*.txt")
	require.NoError(tb, err)
	var out []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(tb, err)
		for block := range strings.SplitSeq(string(b), "\n\n") {
			head, rest, _ := strings.Cut(block, "\n")
			if strings.HasPrefix(head, "#") || strings.HasPrefix(head, "load") {
				continue
			}
			q, _, _ := strings.Cut(rest, "\n----")
			out = append(out, q)
		}
	}
	require.Greater(tb, len(out), 250)
	return out
}

// roundTrip requires that a query is the same after it was written and read again.
func roundTrip(tb testing.TB, e syntax.Expr) {
	tb.Helper()
	one := e.String()
	again, err := syntax.Parse(one)
	require.NoError(tb, err, one)
	require.Equal(tb, one, again.String())
	laid := syntax.Format(e)
	again, err = syntax.Parse(laid)
	require.NoError(tb, err, laid)
	require.Equal(tb, one, again.String())
	require.Equal(tb, laid, syntax.Format(again))
	require.Equal(tb, e.Kind(), again.Kind())
}

// What is written of a query is that query.
func TestRoundTrip(t *testing.T) {
	n := 0
	for _, q := range queries(t) {
		if e, err := syntax.Parse(q); err == nil {
			roundTrip(t, e)
			n++
		}
	}
	require.Greater(t, n, 200)
}

func TestLimits(t *testing.T) {
	for name, tt := range map[string]struct{ query, want string }{
		"length":      {`{a="` + strings.Repeat("x", syntax.MaxLength) + `"}`, "longer than"},
		"regexp":      {`{a="b"} |~ "` + strings.Repeat("x", syntax.MaxRegexp+1) + `"`, "longer than"},
		"matcher":     {`{a=~"` + strings.Repeat("x", syntax.MaxRegexp+1) + `"}`, "longer than"},
		"stages":      {`{a="b"}` + strings.Repeat(` |= "x"`, 3000), "more than"},
		"depth":       {strings.Repeat("(", 3000) + "1" + strings.Repeat(")", 3000), "nested deeper"},
		"tests":       {`{a="b"} | ` + strings.Repeat("(", 3000) + `a="b"` + strings.Repeat(")", 3000), "nested deeper"},
		"operators":   {"1" + strings.Repeat("+1", 3000), "operators in a row"},
		"powers":      {"1" + strings.Repeat("^1", 3000), "nested deeper"},
		"signs":       {strings.Repeat("- ", 3000) + "vector(1)", "nested deeper"},
		"parentheses": {"rate(" + strings.Repeat("(", 3000) + `{a="b"}[1m]`, "nested deeper"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := syntax.Parse(tt.query)
			var e *syntax.Error
			require.ErrorAs(t, err, &e)
			require.Contains(t, e.Message, tt.want)
		})
	}
}

func TestDurations(t *testing.T) {
	for in, want := range map[string]string{
		"5m": "5m", "1h30m": "1h30m", "90s": "1m30s", "1.5h": "1h30m", "1w": "7d", "1y": "365d", "100ms": "100ms", "0s": "0s", "1d12h": "1d12h",
		"10us": "10us", "7ns": "7ns", "1.5d": "1d12h",
	} {
		d, err := syntax.ParseDuration(in)
		require.NoError(t, err, in)
		require.Equal(t, want, syntax.FormatDuration(d))
	}
	for _, in := range []string{"", "5", "m", "5x", "1e9y", "5m3", "--1m"} {
		_, err := syntax.ParseDuration(in)
		require.Error(t, err, in)
	}
}

// Parse takes anything, and what it takes can be written and read again.
func FuzzParse(f *testing.F) {
	for _, q := range queries(f) {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		e, err := syntax.Parse(q)
		if err != nil {
			var at *syntax.Error
			require.ErrorAs(t, err, &at)
			require.Positive(t, at.Line)
			require.Positive(t, at.Column)
			return
		}
		roundTrip(t, e)
	})
}
