// Package columns works out once for a template what LogQL's parsers find in each of its lines: which label is a text of
// the template, which is a gap, and which a mix of both. What it returns is provably what parsing the rebuilt line gives;
// where that depends on what stands in the gaps, it says so, and lines must be rebuilt.
package columns

import (
	"strings"

	"github.com/braidobs/braid/storage"
)

// Part is a piece of a value: a text, or a gap of the template.
type Part struct {
	Text string
	Gap  int // -1 for a text
}

// Value is what a label is, in each line of a template: its parts one after the other.
type Value []Part

// Constant returns the text of a value that is the same in all lines.
func (v Value) Constant() (string, bool) {
	switch {
	case len(v) == 0:
		return "", true
	case len(v) == 1 && v[0].Gap < 0:
		return v[0].Text, true
	default:
		return "", false
	}
}

// Gap returns the gap that the value is.
func (v Value) Gap() (int, bool) {
	if len(v) == 1 && v[0].Gap >= 0 {
		return v[0].Gap, true
	}
	return 0, false
}

// Fields is what a parser finds in the lines of a template.
type Fields struct {
	// Failed says that the parser fails on each of the lines; what it finds before counts.
	Failed bool
	// Values are the labels that were asked for and that the lines have.
	Values map[string]Value
}

func (f *Fields) add(name string, v Value) {
	if _, ok := f.Values[name]; !ok {
		f.Values[name] = v
	}
}

// symbol is a byte of a template, or firstGap plus the number of a gap.
type symbol int32

const firstGap symbol = 256

func (s symbol) gap() bool { return s >= firstGap }

// symbols is a template as one sequence.
type symbols struct {
	s     []symbol
	kinds []storage.Gap
}

// maxSymbols bounds the templates that are looked at.
const maxSymbols = 64 << 10

func symbolsOf(t *storage.Template) (*symbols, bool) {
	out := &symbols{kinds: t.Gaps}
	for i, text := range t.Text {
		for j := range len(text) {
			out.s = append(out.s, symbol(text[j]))
		}
		if i < len(t.Gaps) {
			out.s = append(out.s, firstGap+symbol(i))
		}
	}
	return out, len(out.s) <= maxSymbols
}

func (y *symbols) kind(s symbol) storage.Gap { return y.kinds[s-firstGap] }

// value returns the parts from i up to, without, end; each text goes through f, which may refuse it.
func (y *symbols) value(i, end int, f func(string) (string, bool)) (Value, bool) {
	var out Value
	for i < end {
		if y.s[i].gap() {
			out = append(out, Part{Gap: int(y.s[i] - firstGap)})
			i++
			continue
		}
		text, n := y.text(i, end)
		i = n
		s, ok := f(text)
		if !ok {
			return nil, false
		}
		if s != "" {
			out = append(out, Part{Text: s, Gap: -1})
		}
	}
	return out, true
}

// text returns the bytes from i up to the next gap, and where that is.
func (y *symbols) text(i, end int) (string, int) {
	var b strings.Builder
	for i < end && !y.s[i].gap() {
		b.WriteByte(byte(y.s[i]))
		i++
	}
	return b.String(), i
}

func asIs(s string) (string, bool) { return s, true }

// quotable says whether the variables of a kind have neither quotes nor backslashes nor control characters.
func quotable(g storage.Gap) bool {
	switch g {
	case storage.GapDigits, storage.GapWord, storage.GapNumber, storage.GapPlain, storage.GapQuoted, storage.GapTime:
		return true
	default:
		return false
	}
}

// solid says whether the variables of a kind are never empty and have no blanks, quotes, backslashes or =.
func solid(g storage.Gap) bool {
	switch g {
	case storage.GapDigits, storage.GapWord, storage.GapNumber, storage.GapPlain:
		return true
	default:
		return false
	}
}
