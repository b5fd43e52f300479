package syntax

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/braidobs/braid/internal/httpapi"
)

// Position is a place in a query, from 1.
type Position struct{ Line, Column int }

// Fault says what is wrong with a query.
type Fault uint8

// The faults.
const (
	Malformed   Fault = iota // it does not follow the grammar
	Meaningless              // it follows the grammar, but its types or values make no sense
	Unsupported              // it makes sense, but is not answered
)

// String returns how messages name the fault.
func (f Fault) String() string {
	switch f {
	case Meaningless:
		return "invalid query"
	case Unsupported:
		return "unsupported query"
	default:
		return "parse error"
	}
}

// Error is a mistake in a query.
type Error struct {
	Position
	Fault   Fault
	Message string
}

// Error tells where and what.
func (e *Error) Error() string {
	return fmt.Sprintf("%s at line %d, col %d: %s", e.Fault, e.Line, e.Column, e.Message)
}

// ErrorKind makes it the client's mistake.
func (e *Error) ErrorKind() httpapi.Kind { return httpapi.BadData }

type kind uint8

const (
	end      kind = iota
	ident         // a name: duration, span:name, count
	field         // an attribute with its scope
	text          // a quoted text
	number        // 1, 1.5e3, .5
	length        // a duration: 5m, 1.5s
	operator      // punctuation
)

type token struct {
	kind  kind
	at    int    // offset
	s     string // the text of it; of a quoted text what it stands for; of a field its name
	src   string // of a field: as it was written
	scope string // of a field: "", "span", "parent.resource", ...
}

// is says whether t is this operator.
func (t token) is(op string) bool { return t.kind == operator && t.s == op }

// word says whether t is this name.
func (t token) word(name string) bool { return t.kind == ident && t.s == name }

// describe returns what t is, for messages.
func (t token) describe() string {
	s := t.s
	switch t.kind {
	case end:
		return "the end of the query"
	case text:
		return "the text " + strconv.QuoteToGraphic(cut(s))
	case field:
		s = t.src
	default:
	}
	return strconv.QuoteToGraphic(cut(s))
}

func cut(s string) string { return s[:min(len(s), 40)] }

// position returns where offset at is in src.
func position(src string, at int) Position {
	before := src[:min(at, len(src))]
	return Position{1 + strings.Count(before, "\n"), 1 + len(before) - (strings.LastIndexByte(before, '\n') + 1)}
}

func mistake(src string, at int, format string, args ...any) error {
	return &Error{position(src, at), Malformed, fmt.Sprintf(format, args...)}
}

// operators, longest first.
func operators() [36]string {
	return [36]string{
		"!>>", "!<<", "&>>", "&<<",
		"!>", "!<", "!~", "!=", "&&", "&>", "&<", "&~", "||", "=~", ">=", "<=", ">>", "<<",
		"=", ">", "<", "~", "!", "|", "{", "}", "(", ")", "+", "-", "*", "/", "%", "^", ",", ":",
	}
}

// scan returns the tokens of src; the last is the end.
func scan(src string) ([]token, error) {
	if !utf8.ValidString(src) {
		return nil, mistake(src, 0, "the query is not UTF-8")
	}
	var out []token
	ops := operators()
next:
	for i := 0; ; {
		i = skip(src, i)
		if i >= len(src) {
			return append(out, token{kind: end, at: len(src)}), nil
		}
		c := src[i]
		var t token
		var err error
		n := 0
		switch {
		case c == '"' || c == '`':
			t, n, err = quoted(src, i)
		case letter(c):
			t, n, err = name(src, i)
		case digit(c):
			t, n, err = numeric(src, i)
		case c == '.' && i+1 < len(src) && digit(src[i+1]):
			if t, n, err = numeric(src, i); err != nil || i+n < len(src) && inName(src[i+n:]) {
				t, n, err = attribute(src, i, "", i)
			}
		case c == '.':
			t, n, err = attribute(src, i, "", i)
		}
		if err != nil {
			return nil, err
		}
		if n > 0 {
			out = append(out, t)
			i += n
			continue
		}
		for _, op := range ops {
			if strings.HasPrefix(src[i:], op) {
				out = append(out, token{kind: operator, at: i, s: op})
				i += len(op)
				continue next
			}
		}
		r, _ := utf8.DecodeRuneInString(src[i:])
		return nil, mistake(src, i, "unexpected character %s", strconv.QuoteRuneToGraphic(r))
	}
}

// skip returns the offset behind blanks and comments.
func skip(src string, i int) int {
	for i < len(src) {
		r, n := utf8.DecodeRuneInString(src[i:])
		switch {
		case unicode.IsSpace(r):
			i += n
		case strings.HasPrefix(src[i:], "//"):
			n := strings.IndexByte(src[i:], '\n')
			if n < 0 {
				return len(src)
			}
			i += n
		case strings.HasPrefix(src[i:], "/*"):
			n := strings.Index(src[i+2:], "*/")
			if n < 0 {
				return len(src)
			}
			i += n + 4
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
	quote := src[i]
	if quote == '`' {
		n := strings.IndexByte(src[i+1:], '`')
		if n < 0 {
			return token{}, 0, mistake(src, i, "the quoted text does not end")
		}
		return token{kind: text, at: i, s: src[i+1 : i+1+n]}, n + 2, nil
	}
	var b strings.Builder
	rest := src[i+1:]
	for rest != "" && rest[0] != '"' {
		r, multibyte, tail, err := strconv.UnquoteChar(rest, '"')
		if err != nil {
			return token{}, 0, mistake(src, len(src)-len(rest), "the quoted text has an unknown escape; write \\\\ for a backslash, or quote the text with `")
		}
		if r < utf8.RuneSelf || !multibyte {
			b.WriteByte(byte(r))
		} else {
			b.WriteRune(r)
		}
		rest = tail
	}
	if rest == "" {
		return token{}, 0, mistake(src, i, "the quoted text does not end")
	}
	return token{kind: text, at: i, s: b.String()}, len(src) - i - len(rest) + 1, nil
}

// name reads a name at i, and what follows it when it is the scope of an attribute.
func name(src string, i int) (token, int, error) {
	n := i + 1
	for n < len(src) && (letter(src[n]) || digit(src[n])) {
		n++
	}
	word := src[i:n]
	if n < len(src) && src[n] == '.' {
		switch word {
		case "parent":
			for _, scope := range []string{"span", "resource"} {
				if strings.HasPrefix(src[n:], "."+scope+".") {
					return attribute(src, n+1+len(scope), "parent."+scope, i)
				}
			}
			return attribute(src, n, word, i)
		case "span", "resource", "event", "link", "instrumentation":
			return attribute(src, n, word, i)
		}
	}
	if n+1 < len(src) && src[n] == ':' && letter(src[n+1]) { // span:name
		for n++; n < len(src) && (letter(src[n]) || digit(src[n])); n++ {
		}
	}
	return token{kind: ident, at: i, s: src[i:n]}, n - i, nil
}

// inName says whether the first character of s can be part of the name of an attribute.
func inName(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return !unicode.IsSpace(r) && !strings.ContainsRune("{}()=~!<>&|^,\"`", r)
}

// attribute reads the name of an attribute behind the dot at dot. Parts of it may be quoted.
func attribute(src string, dot int, scope string, at int) (token, int, error) {
	var b strings.Builder
	i := dot + 1
	for i < len(src) {
		if src[i] == '"' {
			n, err := quotedName(src, i, &b)
			if err != nil {
				return token{}, 0, err
			}
			i = n
			continue
		}
		if !inName(src[i:]) {
			break
		}
		_, n := utf8.DecodeRuneInString(src[i:])
		b.WriteString(src[i : i+n])
		i += n
	}
	if b.Len() == 0 {
		return token{}, 0, mistake(src, i, "want the name of an attribute behind %q", src[at:dot+1])
	}
	return token{kind: field, at: at, s: b.String(), src: src[at:i], scope: scope}, i - at, nil
}

// quotedName reads a quoted part of a name at i, in which only \" and \\ are escapes, and returns the offset behind it.
func quotedName(src string, i int, b *strings.Builder) (int, error) {
	for n := i + 1; n < len(src); n++ {
		switch src[n] {
		case '"':
			return n + 1, nil
		case '\\':
			n++
			if n == len(src) || src[n] != '"' && src[n] != '\\' {
				return 0, mistake(src, n-1, "the quoted name has an unknown escape; known are \\\" and \\\\")
			}
		}
		b.WriteByte(src[n])
	}
	return 0, mistake(src, i, "the quoted name does not end")
}

// numeric reads a number or a duration at i.
func numeric(src string, i int) (token, int, error) {
	n := i
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
			n = m
		}
	}
	k := number
	for n < len(src) && (letter(src[n]) || digit(src[n]) || src[n] == '.' || strings.HasPrefix(src[n:], "µ") || strings.HasPrefix(src[n:], "μ")) {
		k = length
		if src[n] >= utf8.RuneSelf {
			n++
		}
		n++
	}
	if strings.Count(src[i:n], ".") > 1 && k == number {
		return token{}, 0, mistake(src, i, "%q is no number", cut(src[i:n]))
	}
	return token{kind: k, at: i, s: src[i:n]}, n - i, nil
}
