package syntax

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/braidobs/braid/internal/httpapi"
)

// Position is a place in a query, from 1.
type Position struct{ Line, Column int }

// Error is a mistake in a query.
type Error struct {
	Position
	Message string
}

// Error tells where and what.
func (e *Error) Error() string {
	return fmt.Sprintf("parse error at line %d, col %d: %s", e.Line, e.Column, e.Message)
}

// ErrorKind makes it the client's mistake.
func (e *Error) ErrorKind() httpapi.Kind { return httpapi.BadData }

type kind uint8

const (
	end      kind = iota
	ident         // a name
	text          // a quoted text
	number        // 1.5e3, 0x1f
	quantity      // a number with a unit: 5m, 20MB
	operator      // punctuation
	flag          // --strict
)

type token struct {
	kind kind
	at   int    // offset
	s    string // the text of it; of a quoted text what it stands for
}

// is says whether t is this operator.
func (t token) is(op string) bool { return t.kind == operator && t.s == op }

// word says whether t is this name.
func (t token) word(name string) bool { return t.kind == ident && t.s == name }

// describe returns what t is, for messages.
func (t token) describe() string {
	switch t.kind {
	case end:
		return "the end of the query"
	case text:
		s := t.s
		if len(s) > 40 {
			s = s[:40]
		}
		return "the text " + strconv.QuoteToGraphic(s)
	default:
		return strconv.QuoteToGraphic(t.s[:min(len(t.s), 40)])
	}
}

// position returns where offset at is in src.
func position(src string, at int) Position {
	before := src[:min(at, len(src))]
	return Position{1 + strings.Count(before, "\n"), 1 + len(before) - (strings.LastIndexByte(before, '\n') + 1)}
}

func mistake(src string, at int, format string, args ...any) error {
	return &Error{position(src, at), fmt.Sprintf(format, args...)}
}

// operators, longest first.
func operators() [22]string {
	return [22]string{
		"|=", "|~", "|>", "!=", "!~", "!>", "==", "=~", ">=", "<=",
		"|", "=", ">", "<", "{", "}", "(", ")", "[", "]", ",", "@",
	}
}

// scan returns the tokens of src; the last is the end.
func scan(src string) ([]token, error) {
	var out []token
	ops := operators()
next:
	for i := 0; ; {
		i = skip(src, i)
		if i == len(src) {
			return append(out, token{kind: end, at: i}), nil
		}
		c := src[i]
		switch {
		case c == '"' || c == '`':
			t, n, err := quoted(src, i)
			if err != nil {
				return nil, err
			}
			out = append(out, t)
			i += n
			continue
		case letter(c):
			n := i + 1
			for n < len(src) && (letter(src[n]) || digit(src[n])) {
				n++
			}
			out = append(out, token{ident, i, src[i:n]})
			i = n
			continue
		case digit(c), c == '.' && i+1 < len(src) && digit(src[i+1]):
			t := numeric(src, i)
			out = append(out, t)
			i += len(t.s)
			continue
		case c == '-' && strings.HasPrefix(src[i:], "--") && i+2 < len(src) && letter(src[i+2]):
			n := i + 2
			for n < len(src) && (letter(src[n]) || src[n] == '-') {
				n++
			}
			out = append(out, token{flag, i, src[i:n]})
			i = n
			continue
		}
		for _, op := range ops {
			if strings.HasPrefix(src[i:], op) {
				out = append(out, token{operator, i, op})
				i += len(op)
				continue next
			}
		}
		if strings.IndexByte("+-*/%^", c) >= 0 {
			out = append(out, token{operator, i, src[i : i+1]})
			i++
			continue
		}
		r, _ := utf8.DecodeRuneInString(src[i:])
		return nil, mistake(src, i, "unexpected character %s", strconv.QuoteRuneToGraphic(r))
	}
}

// skip returns the offset behind blanks and comments.
func skip(src string, i int) int {
	for i < len(src) {
		switch src[i] {
		case ' ', '\t', '\n', '\r':
			i++
		case '#':
			n := strings.IndexByte(src[i:], '\n')
			if n < 0 {
				return len(src)
			}
			i += n
		default:
			return i
		}
	}
	return i
}

func letter(c byte) bool { return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func digit(c byte) bool { return c >= '0' && c <= '9' }

// quoted reads a text at i: "with escapes" or `as it is`.
func quoted(src string, i int) (token, int, error) {
	q, err := strconv.QuotedPrefix(src[i:])
	if err != nil {
		return token{}, 0, mistake(src, i, "the quoted text does not end, or has an unknown escape")
	}
	if !utf8.ValidString(q) { // Unquote would replace what is not
		return token{}, 0, mistake(src, i, "the quoted text is not UTF-8; write other bytes as \\xff")
	}
	if q[0] == '`' { // strconv.Unquote drops carriage returns
		return token{text, i, q[1 : len(q)-1]}, len(q), nil
	}
	s, err := strconv.Unquote(q)
	if err != nil {
		return token{}, 0, mistake(src, i, "the quoted text has an unknown escape")
	}
	return token{text, i, s}, len(q), nil
}

// numeric reads a number at i, with the unit that follows it.
func numeric(src string, i int) token {
	n := i
	if strings.HasPrefix(src[i:], "0x") || strings.HasPrefix(src[i:], "0X") {
		for n += 2; n < len(src) && (digit(src[n]) || letter(src[n])); n++ {
		}
		return token{number, i, src[i:n]}
	}
	for n < len(src) && (digit(src[n]) || src[n] == '.') {
		n++
	}
	if n < len(src) && (src[n] == 'e' || src[n] == 'E') {
		m := n + 1
		if m < len(src) && (src[m] == '+' || src[m] == '-') {
			m++
		}
		if m < len(src) && digit(src[m]) {
			for m < len(src) && digit(src[m]) {
				m++
			}
			return token{number, i, src[i:m]}
		}
	}
	k := number
	for n < len(src) && (letter(src[n]) || digit(src[n]) || src[n] == '.' || strings.HasPrefix(src[n:], "µ") || strings.HasPrefix(src[n:], "μ")) {
		k = quantity
		if src[n] >= utf8.RuneSelf {
			n++
		}
		n++
	}
	return token{k, i, src[i:n]}
}
