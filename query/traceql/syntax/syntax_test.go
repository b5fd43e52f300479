package syntax_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/query/traceql/syntax"
)

func TestParse(t *testing.T) {
	tests := []struct{ in, want string }{
		{"{}", "{ }"},
		{"{ .a = 1 && span.b != `x` || !resource.c }", "{ ((.a = 1) && (span.b != \"x\")) || (!resource.c) }"},
		{"{ -1 ^ 2 ^ 3 * -.a - 4h < 2 }", "{ ((((-1) ^ (2 ^ 3)) * (-.a)) - 4h0m0s) < 2 }"},
		{"{.a>.5}&&{.b<1e3}", "{ .a > 0.5 } && { .b < 1000.0 }"},
		{"{} > {} >> {} | count() > 1", "({ } > { }) >> { } | count() > 1"},
		{"{ parent.duration > 1s && parent.span.duration = 2 && parent.x = nil }", "{ ((parent.duration > 1s) && (parent.span.duration = 2)) && (parent.x = nil) }"},
		{"({} | by(.a) | avg(duration) >= 2 * 3ms) || {}", "({ } | by(.a) | avg(duration) >= 6ms) || { }"},
		{"(count() > 1) && {}", "(count() > 1) && { }"},
		{"{} | max(.a) - min(.a) > 3", "{ } | (max(.a) - min(.a)) > 3"},
		{"({} | count()) > ({ .a } | count())", "({ } | count()) > ({ .a } | count())"},
		{"{} | select(name, span:kind, .a) with(most_recent=true)", "{ } | select(name, span:kind, .a) with(most_recent=true)"},
		{"{} | rate() by (.a, name) > -3 | topk(5) with(sample=0.1)", "{ } | rate() by(.a, name) > -3 | topk(5) with(sample=0.1)"},
		{"100 * ({}|rate()) / ({}|count_over_time()) > 1 / 2.0", "(100 * ({ } | rate())) / ({ } | count_over_time()) > 0.5"},
		{"{} | quantile_over_time(duration, .9, 1) | bottomk(2)", "{ } | quantile_over_time(duration, 0.9, 1) | bottomk(2)"},
		{"{} | compare({status=error}, 5, 1, 2)", "{ } | compare({ status = error }, 5, 1, 2)"},
		{"{ span.a.\"b c\".d = \"\\n\\\\\" }", "{ span.\"a.b c.d\" = \"\\n\\\\\" }"},
		{"{ .\"span.a\" = 1 && .\"5\" = 2 }", "{ (.\"span.a\" = 1) && (.\"5\" = 2) }"},
		{"{ // a comment }\n /* and another */ .http-x/y+z = minInt }", "{ .http-x/y+z = minInt }"},
		{"{ span:id = `a\"b` } !~ { event:timeSinceStart > -5s }", "{ span:id = \"a\\\"b\" } !~ { event:timeSinceStart > (-5s) }"},
	}
	for _, tt := range tests {
		q, err := syntax.Parse(tt.in)
		require.NoError(t, err, tt.in)
		require.NoError(t, syntax.Check(q), tt.in)
		require.Equal(t, tt.want, q.String())
		again, err := syntax.Parse(tt.want)
		require.NoError(t, err, tt.want)
		require.Equal(t, tt.want, again.String())
	}
}

func TestMistakes(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", "parse error at line 1, col 1: the query is empty"},
		{"{ .a = }", `parse error at line 1, col 8: unexpected "}"; want a field or a constant`},
		{"{ .a = 1", "parse error at line 1, col 9: unexpected the end of the query; want }"},
		{"{\n  attr = 1 }", `parse error at line 2, col 3: "attr" is neither an intrinsic nor a constant; an attribute begins with a dot or a scope, as in .attr or span.attr`},
		{"{ . }", `parse error at line 1, col 4: want the name of an attribute behind "."`},
		{"{ .a = \"x }", "parse error at line 1, col 8: the quoted text does not end"},
		{"{ .a = \"\\q\" }", "col 9: the quoted text has an unknown escape"},
		{"{ .\"a\\n\" = 1 }", "col 6: the quoted name has an unknown escape"},
		{"{ .a = 99999999999999999999 }", "is too large for a number"},
		{"{ duration > 5x }", `"5x" is no duration`},
		{"{ .a >> 1 }", "it stands between sets of spans, not inside of one"},
		{"{} ? {}", "unexpected character '?'"},
		{"{} + {}", "the operator + is not defined for a set of spans and a set of spans"},
		{"{} | count()", "unexpected the end of the query; want a comparison"},
		{"count() > 3 && {}", "put the comparison in parentheses"},
		{"coalesce()", "a query cannot begin with coalesce()"},
		{"rate()", "rate needs spans before it"},
		{"{} | rate() + 5", "for arithmetic put each query in parentheses"},
		{"{} | rate() | count() > 1", "only topk and bottomk can follow series"},
		{"({} | rate()) % 2", "% is not defined for series"},
		{"({} | rate()) * 2s", "series are not computed with durations"},
		{"({} | rate()) > 1s * 2", "there is no arithmetic of durations here"},
		{"({} | rate()) > 1 / 0", "a number is divided by zero"},
		{"{} | compare({}) by(name)", "compare does not go with by"},
		{"{} | compare({}, 1, 2)", "needs both a start and an end"},
		{"{ 1 }", "invalid query at line 1, col 3: 1 is no condition: it is of type integer"},
		{"{ .a && name = 1 }", "invalid query at line 1, col 14: the operator = is not defined for string and integer"},
		{"{ status > ok }", "the operator > is not defined for status and status"},
		{"{ .a =~ 2 }", "=~ matches a text with a quoted regular expression"},
		{"{ .a =~ \"(\" }", "invalid regular expression"},
		{"{ .a =~ \"" + strings.Repeat("a", syntax.MaxRegexp+1) + "\" }", "longer than 8192 bytes"},
		{"{ span:status = nil }", "span:status is never nil"},
		{"{ !name = \"x\" }", "! needs a condition"},
		{"{ -true }", "- needs a number"},
		{"{} | avg(name) > 1", "avg needs numbers, and name is of type string"},
		{"{} | sum(3) > 1", "sum needs something about the spans"},
		{"{} | by(1)", "by needs something about the spans"},
		{"{} | rate() | topk(0)", "keep at least 1"},
		{"{} | quantile_over_time(duration, 2)", "a quantile is from 0 to 1, not 2"},
		{"{} | compare({}) | topk(1)", "topk cannot follow compare"},
		{"{} | rate() with(sample=2)", "the hint sample is"},
		{strings.Repeat("(", 300) + "{}", "nested deeper than 200"},
		{"{ " + strings.Repeat("!", 300) + ".a }", "nested deeper than 200"},
		{"{ .a" + strings.Repeat(" + .a", 700) + " = 1 }", "more than 500 operators in a row"},
		{strings.Repeat(" ", syntax.MaxLength+1), "longer than"},
	}
	for _, tt := range tests {
		q, err := syntax.Parse(tt.in)
		if err == nil {
			err = syntax.Check(q)
		}
		require.ErrorContains(t, err, tt.want, tt.in)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"{}", "{ .a = 1 } >> { span.\"x y\" =~ `a.*` } | by(name) | count() > 2 | select(.b)",
		"({} | rate() by(.a)) / ({} | count_over_time()) * -2.5 > 1 | topk(3) with(exemplars=10)",
		"{ parent.status = error && -(-5) ^ -.x > 1.5h } | compare({ true }, 3)", "({} | count()) - 1 > (avg(duration))",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := syntax.Parse(s)
		if err != nil {
			return
		}
		want := syntax.Check(q)
		again, err := syntax.Parse(q.String())
		if len(q.String()) > syntax.MaxLength {
			return
		}
		require.NoError(t, err, q.String())
		require.Equal(t, q.String(), again.String())
		if got := syntax.Check(again); (want == nil) != (got == nil) {
			t.Fatalf("%s: %v, then %v", q, want, got)
		}
	})
}

func TestSalvage(t *testing.T) {
	tests := []struct{ in, want string }{
		{`{ .a = 1 }`, `{ .a = 1 }`},
		{`{ resource.cluster = }`, ""},
		{`{ .a = 1 && resource.cluster = }`, `{ .a = 1 }`},
		{`{ .a = 1 && name`, `{ .a = 1 }`},
		{`{ .a = 1 && (.b = 2 || .c = ) && .d != nil`, `{ (.a = 1) && (.d != nil) }`},
		{`{ .a = 1 && .x = || .b = 2 }`, `{ (.a = 1) || (.b = 2) }`},
		{`{ .a = 1 || .x = }`, ""},
		{`{ .a = 1 } && { .b = 2 }`, ""},
		{`{ .a = 1 && } && { .b = 2 }`, ""},
		{`.a = 1`, ""},
		{`{ .a = "`, ""},
		{`{}`, `{ }`},
	}
	for _, tt := range tests {
		f := syntax.Salvage(tt.in)
		if tt.want == "" {
			require.Nil(t, f, tt.in)
			continue
		}
		require.NotNil(t, f, tt.in)
		require.Equal(t, tt.want, f.String())
	}
}

func TestParseField(t *testing.T) {
	for in, want := range map[string]string{"name": "name", "span:name": "name", ".a": ".a", "resource.service.name": "resource.service.name", "span:childCount": "span:childCount", "parent.name": "parent.name"} {
		f, err := syntax.ParseField(in)
		require.NoError(t, err)
		require.Equal(t, want, syntax.Label(f))
	}
	for _, in := range []string{"", "1", "a", ".a = 1", "{", "span."} {
		_, err := syntax.ParseField(in)
		require.Error(t, err, in)
	}
}
