package logql_test

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/storage"
)

// show writes a query in one form.
func show(q *logql.Query) string {
	if q.Constant != nil {
		return fmt.Sprint(*q.Constant)
	}
	var b strings.Builder
	b.WriteString("{")
	for i, m := range q.Matchers {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(m.String())
	}
	b.WriteString("}")
	for _, f := range q.Filters {
		op := "|"
		if f.Not {
			op = "!"
		}
		if f.Regexp {
			op += "~"
		} else {
			op += "="
		}
		fmt.Fprintf(&b, " %s %q", op, f.Alternatives[0])
		for _, a := range f.Alternatives[1:] {
			fmt.Fprintf(&b, " or %q", a)
		}
	}
	return b.String()
}

func TestParse(t *testing.T) {
	tests := []struct{ in, want string }{
		{`{app="shop"}`, `{app="shop"}`},
		{` { app = "shop" , env!="x",a=~"b|c",d !~ "e.*", } `, `{app="shop", env!="x", a=~"b|c", d!~"e.*"}`},
		{"{app=`a\\b\"`}", `{app="a\\b\""}`},
		{`{app="\u00e9\n\x41"}`, `{app="é\nA"}`},
		{`{a="b"}|="x"!="y"|~"z+"!~"w"`, `{a="b"} |= "x" != "y" |~ "z+" !~ "w"`},
		{"{a=\"b\"} # the shop\n |= `x` or \"y\" or\n`z` != \"q\" or \"r\"", `{a="b"} |= "x" or "y" or "z" != "q" or "r"`},
		{`{a="b"} |= ""`, `{a="b"} |= ""`},
		{`vector(1)+vector(1)`, `2`},
		{` vector( 2 ) * vector(3) - vector(1.5) / vector(-0.5)`, `9`},
		{`vector(1e3)`, `1000`},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			q, err := logql.Parse(tt.in)
			require.NoError(t, err)
			require.Equal(t, tt.want, show(q))
			if q.Constant == nil {
				again, err := logql.Parse(show(q))
				require.NoError(t, err)
				require.Equal(t, show(q), show(again))
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		in   string
		l, c int
		text string
	}{
		{``, 1, 1, "the query is empty"},
		{"# nothing\n  ", 2, 3, "the query is empty"},
		{`{}`, 1, 1, "at least one matcher"},
		{`{a=~".*"}`, 1, 1, `app=~".+"`},
		{`{a!="b"}`, 1, 1, "at least one matcher"},
		{`{a="b"`, 1, 7, "unexpected end of the query; want the name of a label"},
		{`{a "b"}`, 1, 4, `unexpected "\""; want =, !=, =~ or !~`},
		{`{a=b}`, 1, 4, `unexpected "b"; want a quoted text`},
		{`{a="b" c="d"}`, 1, 8, `unexpected "c"; want , or }`},
		{`{a="b",,}`, 1, 8, `unexpected ","; want the name of a label`},
		{`{1a="b"}`, 1, 2, `unexpected "1"; want the name of a label`},
		{`{a="b}`, 1, 4, "does not end"},
		{`{a="\q"}`, 1, 4, "unknown escape"},
		{"{a=\"\xff\"}", 1, 4, "not UTF-8"},
		{`{a=~"("}`, 1, 5, "missing closing )"},
		{"{a=\"b\"}\n |~ \"[\"", 2, 5, "missing closing ]"},
		{`{a="b"} |= x`, 1, 12, `unexpected "x"; want a quoted text`},
		{`{a="b"} |= "x" or`, 1, 18, "unexpected end of the query; want a quoted text"},
		{`{a="b"} |= ip("10.0.0.0/8")`, 1, 12, "ip() is not supported yet"},
		{`{a="b"} | json`, 1, 9, `the stage "json" is not supported yet`},
		{`{a="b"} |> "<_>"`, 1, 9, "pattern filters are not supported yet"},
		{`{a="b"} [5m]`, 1, 9, `unexpected "["`},
		{`{a="b"} foo`, 1, 9, `unexpected "foo"; want a line filter`},
		{`sum(rate({a="b"}[5m]))`, 1, 1, `"sum" is not supported yet`},
		{`vector(1)+1`, 1, 11, `"1" is not supported yet; want vector(number)`},
		{`vector(x)`, 1, 8, `unexpected "x"; want a number`},
		{`vector 1`, 1, 8, "want ("},
		{`vector(1`, 1, 9, "want )"},
		{`vector(1) == vector(1)`, 1, 11, "not supported yet after vector()"},
		{`{a="` + strings.Repeat("x", logql.MaxLength) + `"}`, 1, logql.MaxLength + 1, "longer than 131072 bytes"},
		{`{a=~"` + strings.Repeat("x", logql.MaxRegexp+1) + `"}`, 1, 5, "longer than 8192 bytes"},
		{`{a="b"} |~ "` + strings.Repeat("x", logql.MaxRegexp+1) + `"`, 1, 12, "longer than 8192 bytes"},
		{`{a="b"}` + strings.Repeat(`|="x"`, 1001), 1, 8 + 5*1001, "more than 1000 line filters"},
	}
	for _, tt := range tests {
		t.Run(tt.in[:min(len(tt.in), 30)], func(t *testing.T) {
			_, err := logql.Parse(tt.in)
			var e *logql.Error
			require.ErrorAs(t, err, &e)
			require.Contains(t, e.Message, tt.text)
			require.Equal(t, []int{tt.l, tt.c}, []int{e.Line, e.Column}, e.Error())
		})
	}
}

func TestParseSelector(t *testing.T) {
	ms, err := logql.ParseSelector(` {a="b"} `)
	require.NoError(t, err)
	require.Len(t, ms, 1)
	for _, in := range []string{"", `{a="b"} |= "x"`, `a="b"`, `{}`} {
		_, err = logql.ParseSelector(in)
		var e *logql.Error
		require.ErrorAs(t, err, &e)
	}
}

func block(lines ...string) *storage.LogBlock {
	b := new(storage.LogBlock)
	stream := telemetry.NewLabelSet(labels.FromStrings("a", "b"))
	for _, l := range lines {
		b.Append(stream, nil, &telemetry.LogRecord{Body: telemetry.String(l)}, storage.LogAll)
	}
	return b
}

func TestPredicate(t *testing.T) {
	b := block("error: timeout of cart", "info: all is well", "ERROR in db 42ms", "two\nlines", "", "bytes \xff")
	tests := []struct {
		in   string
		want []int
	}{
		{`{a="b"}`, []int{0, 1, 2, 3, 4, 5}},
		{`{a="c"}`, nil},
		{`{a=~"b|c", x=""}`, []int{0, 1, 2, 3, 4, 5}},
		{`{a="b"} |= "error"`, []int{0}},
		{`{a="b"} |= ""`, []int{0, 1, 2, 3, 4, 5}},
		{`{a="b"} != ""`, nil},
		{`{a="b"} |= "error" or "well"`, []int{0, 1}},
		{`{a="b"} != "error" or "well"`, []int{2, 3, 4, 5}},
		{`{a="b"} |~ "(?i)error"`, []int{0, 2}},
		{`{a="b"} |~ "error|info"`, []int{0, 1}},
		{`{a="b"} |~ "error|in.o"`, []int{0, 1}},
		{`{a="b"} |~ "error: .* cart$"`, []int{0}},
		{`{a="b"} !~ "[0-9]+ms" != "cart"`, []int{1, 3, 4, 5}},
		{`{a="b"} |~ "^$"`, []int{4}},
		{`{a="b"} |~ "(timeout)"`, []int{0}},
		{`{a="b"} |~ "two.lines"`, nil},
		{`{a="b"} |~ "db" or "well$"`, []int{1, 2}},
		{"{a=\"b\"} |~ \"\uFFFD\"", []int{5}},
		{`{a="b"} |= "\xff"`, []int{5}},
		{`{a="b"} |= "\uFFFD"`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			q, err := logql.Parse(tt.in)
			require.NoError(t, err)
			var got []int
			for i := range b.Len() {
				if b.Match(i, q.Predicate()) {
					got = append(got, i)
				}
			}
			require.Equal(t, tt.want, got)
		})
	}
}

// TestPushDown looks at what the store can use to skip blocks.
func TestPushDown(t *testing.T) {
	filter := func(in string) storage.Predicate {
		q, err := logql.Parse(`{a="b"} ` + in)
		require.NoError(t, err)
		return q.Predicate().(storage.And)[1]
	}
	require.Equal(t, storage.LineContains("plain"), filter(`|~ "plain"`))
	require.Equal(t, storage.Not{P: storage.LineContains("plain")}, filter(`!~ "(plain)"`))
	require.Equal(t, storage.Or{storage.LineContains("one"), storage.LineContains("six")}, filter(`|~ "one|six"`))
	and, ok := filter(`|~ "took \\d+ms"`).(storage.And)
	require.True(t, ok)
	require.Equal(t, storage.LineContains("took "), and[0])
	require.Equal(t, storage.LineContains("ms"), and[1])
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{app="shop", x=~"a|b"} |= "x" or "y" !~ "z+"`, "{a=`b`} # c\n != \"d\"", `vector(1)+vector(1)`, `sum(rate({a="b"}[1m]))`,
		`{a="b"} | json | x > 5`, `{a="b"} |= ip("::1")`, `{a="\u00ff"} |~ "(?i)a{1,3}$"`,
	} {
		f.Add(s, "a line with took 5ms")
	}
	f.Fuzz(func(t *testing.T, in, line string) {
		q, err := logql.Parse(in)
		if err != nil {
			var e *logql.Error
			require.ErrorAs(t, err, &e)
			require.Positive(t, e.Line)
			require.Positive(t, e.Column)
			require.LessOrEqual(t, e.Column, len(in)+1)
			return
		}
		if q.Constant != nil {
			_ = math.IsNaN(*q.Constant)
			return
		}
		again, err := logql.Parse(show(q))
		require.NoError(t, err, show(q))
		require.Equal(t, show(q), show(again))
		want := true // by the plain meaning of the filters
		for _, fl := range q.Filters {
			any := false
			for _, a := range fl.Alternatives {
				if fl.Regexp {
					any = any || regexp.MustCompile(a).MatchString(line)
				} else {
					any = any || strings.Contains(line, a)
				}
			}
			want = want && any != fl.Not
		}
		p := q.Predicate().(storage.And)
		require.Equal(t, want, block(line).Match(0, p[1:]))
	})
}
