package lines_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs/lines"
)

// tester is a test of any kind, also one of rapid.
type tester interface {
	require.TestingT
	Helper()
}

// templatesOf parses the templates of a dictionary.
func templatesOf(tb tester, d *lines.Dict) []*storage.Template {
	tb.Helper()
	var out []*storage.Template
	for _, s := range d.Templates() {
		tm, err := lines.ParseTemplate(s)
		require.NoError(tb, err)
		require.Equal(tb, s, string(lines.AppendTemplate(nil, tm)))
		out = append(out, tm)
	}
	return out
}

func timesOf(times []int64) func() ([]int64, error) {
	return func() ([]int64, error) { return times, nil }
}

// encode makes a block of rows.
func encode(e *lines.Encoder, r *rows) []byte {
	for i, l := range r.lines {
		e.Add(l, r.times[i])
	}
	return e.Append(nil)
}

// same requires that the block has the lines, and that all variables keep the promises of their gaps.
func same(tb tester, b *lines.Block, want []string) {
	tb.Helper()
	require.Equal(tb, len(want), b.Rows())
	var buf []byte
	for i, l := range want {
		var err error
		buf, err = b.AppendLine(buf[:0], i)
		require.NoError(tb, err)
		if string(buf) != l {
			require.Equal(tb, l, string(buf), "row %d", i)
		}
	}
	all := b.Lines(nil)
	for _, s := range all.Shapes {
		for g, kind := range s.Template.Gaps {
			v, err := s.Load(g)
			require.NoError(tb, err)
			for row := range s.Rows {
				text := string(v.Append(nil, row))
				if !promised(kind, text) {
					require.Fail(tb, "a gap breaks its promise", "gap of kind %d: %q in %q", kind, text, s.Template.Text)
				}
			}
		}
	}
	for i, l := range want {
		var err error
		buf, err = all.AppendLine(buf[:0], i)
		require.NoError(tb, err)
		if string(buf) != l {
			require.Equal(tb, l, string(buf), "row %d", i)
		}
	}
}

// promised says whether a text is what storage.Gap promises, written down a second time.
func promised(kind storage.Gap, text string) bool {
	if text == "" {
		return kind == storage.GapLine || kind == storage.GapQuoted
	}
	const digits, letters = "0123456789", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	switch kind {
	case storage.GapLine:
		return true
	case storage.GapQuoted:
		for _, c := range []byte(text) {
			if c < 0x20 || c == '"' || c == '\\' {
				return false
			}
		}
		return true
	case storage.GapDigits:
		return strings.Trim(text, digits) == ""
	case storage.GapWord:
		return strings.Trim(text, digits+letters) == ""
	case storage.GapTime:
		return strings.Trim(text, digits+letters+" +-:.,/") == ""
	case storage.GapNumber:
		return number(text)
	case storage.GapPlain:
		for _, c := range []byte(text) {
			if c < 0x21 || c == '"' || c == '\\' || c == '=' || c == 0x7f {
				return false
			}
		}
		return true
	default:
		return false
	}
}

// number says whether t is a number of JSON.
func number(t string) bool {
	var n json.Number
	return json.Unmarshal([]byte(t), &n) == nil && t[0] != '"' && t[0] != ' ' && t[len(t)-1] != ' '
}

func TestRoundTrip(t *testing.T) {
	const at = 1_760_000_000_123_456_789
	long := strings.Repeat("x1 ", 400_000)
	tests := []struct {
		name string
		in   []string
	}{
		{"none", nil},
		{"empty lines", []string{"", "", ""}},
		{"one", []string{"hello"}},
		{"zero bytes", []string{"a\x00b 12", "a\x00b 13", "\x00\x00", "\x00"}},
		{"not UTF-8", []string{"\xff\xfe 1 \x80", "\xff\xfe 2 \x80", "\xc3 3"}},
		{"colours", []string{"\x1b[31merror\x1b[0m 1", "\x1b[31merror\x1b[0m 2"}},
		{"long", []string{long, long + "1"}},
		{"leading zeros", []string{"n=007", "n=008", "n=1", "x 007 0", "x 0 00"}},
		{"numbers", []string{`{"a":1}`, `{"a":-0}`, `{"a":-0.0}`, `{"a":1e9}`, `{"a":01}`, `{"a":1.50}`, `{"a":99999999999999999999}`, `{"a":-9223372036854775808}`}},
		{"decimals", []string{"1.5 a", "2.25 a", "3 a", "0.05 a", "10.000 a", "1.0.0 a"}},
		{"JSON", []string{`{"a":"b","c":"d e","f":["g",1,true,null,{"h":"\u00e9\n 12"}]}`, `{"a":"","c":"d e","f":["",2,true,null,{"h":"\u00e9\n 13"}]}`}},
		{"broken JSON", []string{`{"a}`, `{"a":"b\"}`, `{"a":"b"`, `{}`, `{"}`, `{":12}`, `{"a":12"b":13}`}},
		{"logfmt", []string{`a=1 b=x c="d e" d= e`, `a=2 b=y c="d e" d= e`, `a=" b`, `a=\" b`, `==`, `a==b`, `a=b=c`, `level=info x=1`, `level=error x=1`}},
		{"escapes", []string{`\`, `\\`, `a\`, `\u`, `\u12`, `{"a":"\u"}`, `{"a":"x \"}`}},
		{"paths", []string{"GET /a/b/1?x=1&y=2", "GET /a?x=1&y=3", "/", "//", "a/b", "http://a.b/c-1"}},
		{"joints", []string{"...1", "1...", "-", "--1--", "a-1-b2c", "1.2.3.4:80", "1.2.3.4", "1.2.3.4.5", "1:2:3", "v1.2.3-rc.1"}},
		{"timestamps", []string{
			"2025-10-09T08:53:20.123456Z a", "2025-10-09T08:53:20.123456+02:00 a", "2025-10-09 08:53:20,123 a", "2025/10/09 08:53:20 a",
			"I1009 08:53:20.123456 1 a", "Oct  9 08:53:20 a", "Oct 09 08:53:20 a", "Thu Oct 09 08:53:20 2025 a", "Fri Oct 09 08:53:20 2025 a",
			"[09/Oct/2025:08:53:20 +0000] a", "25/10/09 08:53:20 a", "10-09 08:53:20.123 a", "251009 085320 a", "1760000000.123456 a", "1760000000123 a",
			"0000-00-00T00:00:00Z a", "2025-02-30T00:00:00Z a", "9999-12-31T23:59:59.999999999Z a", "2025-10-09T24:00:00Z a", "Feb 29 00:00:00 a",
		}},
		{"trimmed fractions", []string{"2025-10-09T08:53:20.1Z a", "2025-10-09T08:53:20.123Z a", "2025-10-09T08:53:20Z a", "2025-10-09T08:53:20.10Z a"}},
	}
	for _, tt := range tests {
		for _, times := range []int{1, 5} { // alone, and so often that templates are worth it
			t.Run(fmt.Sprintf("%s %d", tt.name, times), func(t *testing.T) {
				r := &rows{}
				for range times {
					for i, l := range tt.in {
						r.lines, r.times = append(r.lines, l), append(r.times, at+int64(i)*1e9)
					}
				}
				d := lines.NewDict()
				e := lines.NewEncoder(d)
				for range 2 { // the encoder is used again
					b := encode(e, r)
					blk, err := lines.NewDecoder().Open(b, templatesOf(t, d), timesOf(r.times))
					require.NoError(t, err)
					same(t, blk, r.lines)
				}
			})
		}
	}
}

func TestKinds(t *testing.T) {
	for kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			d := lines.NewDict()
			e := lines.NewEncoder(d)
			for seed := range uint64(3) {
				r := generate(kind, seed, 500)
				b := encode(e, r)
				blk, err := lines.NewDecoder().Open(b, templatesOf(t, d), timesOf(r.times))
				require.NoError(t, err)
				same(t, blk, r.lines)
			}
			t.Logf("%d templates", len(d.Templates()))
		})
	}
}
