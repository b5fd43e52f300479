// Package logql reads LogQL as far as Braid answers it: stream selectors with line filters, and vector(1)+vector(1),
// the question by which Grafana tests a data source. A query compiles to a storage.Predicate.
//
//	q, err := logql.Parse(`{app="shop"} |= "timeout" !~ "health|ready"`)
//	rows := view.Logs(ctx, storage.LogQuery{Where: q.Predicate(), ...})
//
// Everything else of LogQL is refused with an error that names its position.
package logql

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/storage"
)

const (
	// MaxLength bounds a query, in bytes.
	MaxLength = 128 << 10
	// MaxRegexp bounds a regular expression, in bytes.
	MaxRegexp = 8 << 10
	// maxFilters bounds the line filters of a query, their alternatives counted.
	maxFilters = 1000
)

// Query is a parsed query.
type Query struct {
	// Matchers select streams.
	Matchers []*labels.Matcher
	// Filters are applied to lines in this order; all must hold.
	Filters []Filter
	// Constant is the value of a query that selects nothing, such as vector(1)+vector(1); nil for others.
	Constant *float64
}

// Filter keeps lines by their text.
type Filter struct {
	// Not inverts: no alternative may match.
	Not bool
	// Regexp says that alternatives are regular expressions.
	Regexp bool
	// Alternatives are the texts of which one must match.
	Alternatives []string

	compiled []*regexp.Regexp // as many as alternatives, when they are regular expressions
}

// Error is a mistake in a query, or something that is not supported yet.
type Error struct {
	Line, Column int // from 1
	Message      string
}

// Error tells where and what.
func (e *Error) Error() string {
	return fmt.Sprintf("parse error at line %d, col %d: %s", e.Line, e.Column, e.Message)
}

// ErrorKind makes it the client's mistake.
func (e *Error) ErrorKind() httpapi.Kind { return httpapi.BadData }

// Parse reads a query. Errors are of the type *Error.
func Parse(s string) (*Query, error) {
	p := parser{s: s}
	q, err := p.query()
	if err != nil {
		return nil, err
	}
	return q, nil
}

// ParseSelector reads a stream selector, such as {app="shop"}, and nothing behind it. Errors are of the type *Error.
func ParseSelector(s string) ([]*labels.Matcher, error) {
	p := parser{s: s}
	p.space()
	ms, err := p.selector()
	if err != nil {
		return nil, err
	}
	if p.space(); p.i < len(s) {
		return nil, p.fail(p.i, "unexpected %s after the selector", p.word())
	}
	return ms, nil
}

// parser reads from s at i. Its methods return nil errors of the type *Error as nil.
type parser struct {
	s string
	i int
}

func (p *parser) fail(at int, format string, args ...any) error {
	before := p.s[:min(at, len(p.s))]
	line := 1 + strings.Count(before, "\n")
	return &Error{Line: line, Column: 1 + len(before) - (strings.LastIndexByte(before, '\n') + 1), Message: fmt.Sprintf(format, args...)}
}

// space skips blanks and comments.
func (p *parser) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		case '#':
			n := strings.IndexByte(p.s[p.i:], '\n')
			if n < 0 {
				p.i = len(p.s)
				return
			}
			p.i += n
		default:
			return
		}
	}
}

// word returns what stands at i, for messages.
func (p *parser) word() string {
	if p.i >= len(p.s) {
		return "end of the query"
	}
	n := len(p.name())
	if n == 0 {
		n = 1
	}
	return strconv.QuoteToGraphic(p.s[p.i:min(p.i+min(n, 40), len(p.s))])
}

// name returns the identifier at i, "" when there is none.
func (p *parser) name() string {
	n := p.i
	for n < len(p.s) && (p.s[n] == '_' || p.s[n] >= 'a' && p.s[n] <= 'z' || p.s[n] >= 'A' && p.s[n] <= 'Z' || n > p.i && p.s[n] >= '0' && p.s[n] <= '9') {
		n++
	}
	return p.s[p.i:n]
}

// take moves past text when it stands at i.
func (p *parser) take(text string) bool {
	if strings.HasPrefix(p.s[p.i:], text) {
		p.i += len(text)
		return true
	}
	return false
}

func (p *parser) query() (*Query, error) {
	if len(p.s) > MaxLength {
		return nil, p.fail(MaxLength, "the query is longer than %d bytes", MaxLength)
	}
	p.space()
	switch {
	case p.i == len(p.s):
		return nil, p.fail(p.i, "the query is empty; want a selector such as {app=\"shop\"}")
	case p.s[p.i] == '{':
		return p.logs()
	case p.name() == "vector":
		return p.constant()
	default:
		return nil, p.fail(p.i, "%s is not supported yet; want a selector such as {app=\"shop\"} with line filters", p.word())
	}
}

// logs reads a selector and line filters.
func (p *parser) logs() (*Query, error) {
	ms, err := p.selector()
	if err != nil {
		return nil, err
	}
	q := &Query{Matchers: ms}
	total := 0
	for {
		if p.space(); p.i == len(p.s) {
			return q, nil
		}
		f, err := p.filter()
		if err != nil {
			return nil, err
		}
		if total += len(f.Alternatives); total > maxFilters {
			return nil, p.fail(p.i, "more than %d line filters", maxFilters)
		}
		q.Filters = append(q.Filters, f)
	}
}

// selector reads {name="value", ...}.
func (p *parser) selector() ([]*labels.Matcher, error) {
	open := p.i
	if !p.take("{") {
		return nil, p.fail(p.i, "unexpected %s; want a selector such as {app=\"shop\"}", p.word())
	}
	var ms []*labels.Matcher
	for {
		p.space()
		if len(ms) > 0 && p.i < len(p.s) && p.s[p.i] != '}' {
			if !p.take(",") {
				return nil, p.fail(p.i, "unexpected %s; want , or }", p.word())
			}
			p.space()
		}
		if p.take("}") {
			break
		}
		m, err := p.matcher()
		if err != nil {
			return nil, err
		}
		ms = append(ms, m)
	}
	for _, m := range ms {
		if !m.Matches("") {
			return ms, nil
		}
	}
	return nil, p.fail(open, "the selector needs at least one matcher that does not match an empty value: app=~\".+\" rather than app=~\".*\"")
}

func (p *parser) matcher() (*labels.Matcher, error) {
	name := p.name()
	if name == "" {
		return nil, p.fail(p.i, "unexpected %s; want the name of a label", p.word())
	}
	p.i += len(name)
	p.space()
	at := p.i
	var t labels.MatchType
	switch {
	case p.take("=~"):
		t = labels.MatchRegexp
	case p.take("!~"):
		t = labels.MatchNotRegexp
	case p.take("!="):
		t = labels.MatchNotEqual
	case p.take("="):
		t = labels.MatchEqual
	default:
		return nil, p.fail(at, "unexpected %s; want =, !=, =~ or !~", p.word())
	}
	p.space()
	at = p.i
	value, err := p.text()
	if err != nil {
		return nil, err
	}
	if (t == labels.MatchRegexp || t == labels.MatchNotRegexp) && len(value) > MaxRegexp {
		return nil, p.fail(at, "the regular expression is longer than %d bytes", MaxRegexp)
	}
	m, err := labels.NewMatcher(t, name, value)
	if err != nil {
		return nil, p.fail(at, "%v", err)
	}
	return m, nil
}

// text reads a quoted string: "with escapes" or `as it is`.
func (p *parser) text() (string, error) {
	if p.i >= len(p.s) || p.s[p.i] != '"' && p.s[p.i] != '`' {
		return "", p.fail(p.i, "unexpected %s; want a quoted text", p.word())
	}
	quoted, err := strconv.QuotedPrefix(p.s[p.i:])
	if err != nil {
		return "", p.fail(p.i, "the quoted text does not end, or has an unknown escape")
	}
	if !utf8.ValidString(quoted) { // Unquote would replace what is not
		return "", p.fail(p.i, "the quoted text is not UTF-8; write other bytes as \\xff")
	}
	if quoted[0] == '`' { // strconv.Unquote drops carriage returns
		p.i += len(quoted)
		return quoted[1 : len(quoted)-1], nil
	}
	out, err := strconv.Unquote(quoted)
	if err != nil {
		return "", p.fail(p.i, "the quoted text has an unknown escape")
	}
	p.i += len(quoted)
	return out, nil
}

// filter reads a line filter: an operator and a text, with alternatives.
func (p *parser) filter() (Filter, error) {
	var f Filter
	at := p.i
	switch {
	case p.take("|="):
	case p.take("!="):
		f.Not = true
	case p.take("|~"):
		f.Regexp = true
	case p.take("!~"):
		f.Not, f.Regexp = true, true
	case p.take("|>"), p.take("!>"):
		return f, p.fail(at, "pattern filters are not supported yet; want |=, !=, |~ or !~")
	case p.take("|"):
		p.space()
		return f, p.fail(at, "the stage %s is not supported yet; want a line filter: |=, !=, |~ or !~", p.word())
	default:
		return f, p.fail(at, "unexpected %s; want a line filter: |=, !=, |~ or !~", p.word())
	}
	for {
		p.space()
		at := p.i
		if p.name() == "ip" {
			return f, p.fail(at, "ip() is not supported yet; want a quoted text")
		}
		s, err := p.text()
		if err != nil {
			return f, err
		}
		if f.Regexp {
			if len(s) > MaxRegexp {
				return f, p.fail(at, "the regular expression is longer than %d bytes", MaxRegexp)
			}
			re, err := regexp.Compile(s)
			if err != nil {
				return f, p.fail(at, "%v", err)
			}
			f.compiled = append(f.compiled, re)
		}
		f.Alternatives = append(f.Alternatives, s)
		if p.space(); p.name() != "or" {
			return f, nil
		}
		p.i += len("or")
	}
}

// constant reads sums, differences, products and quotients of vector(number), from left to right, products first.
func (p *parser) constant() (*Query, error) {
	sum, product := 0.0, 0.0
	for op := byte('+'); ; {
		v, err := p.vector()
		if err != nil {
			return nil, err
		}
		switch op {
		case '+':
			sum, product = sum+product, v
		case '-':
			sum, product = sum+product, -v
		case '*':
			product *= v
		case '/':
			product /= v
		}
		if p.space(); p.i == len(p.s) {
			sum += product
			return &Query{Constant: &sum}, nil
		}
		op = p.s[p.i]
		if strings.IndexByte("+-*/", op) < 0 {
			return nil, p.fail(p.i, "%s is not supported yet after vector(); want +, -, * or /", p.word())
		}
		p.i++
		p.space()
	}
}

func (p *parser) vector() (float64, error) {
	if p.name() != "vector" {
		return 0, p.fail(p.i, "%s is not supported yet; want vector(number)", p.word())
	}
	p.i += len("vector")
	p.space()
	if !p.take("(") {
		return 0, p.fail(p.i, "unexpected %s; want (", p.word())
	}
	p.space()
	n := strings.IndexAny(p.s[p.i:], ") \t\r\n")
	if n < 0 {
		n = len(p.s) - p.i
	}
	v, err := strconv.ParseFloat(p.s[p.i:p.i+n], 64)
	if err != nil {
		return 0, p.fail(p.i, "unexpected %s; want a number", p.word())
	}
	p.i += n
	p.space()
	if !p.take(")") {
		return 0, p.fail(p.i, "unexpected %s; want )", p.word())
	}
	return v, nil
}

// Predicate returns what the query demands of log rows.
func (q *Query) Predicate() storage.Predicate {
	out := storage.And{storage.StreamMatch(q.Matchers)}
	for _, f := range q.Filters {
		if p := f.predicate(); p != nil {
			out = append(out, p)
		}
	}
	return out
}

func (f *Filter) predicate() storage.Predicate {
	var any storage.Or
	for i, s := range f.Alternatives {
		var p storage.Predicate = storage.LineContains(s)
		if f.Regexp {
			p = regexpPredicate(s, f.compiled[i])
		}
		any = append(any, p)
	}
	var out storage.Predicate = any
	if len(any) == 1 {
		out = any[0]
	}
	switch {
	case f.Not:
		return storage.Not{P: out}
	case out == storage.Predicate(storage.LineContains("")):
		return nil
	default:
		return out
	}
}

// regexpPredicate finds the texts that every matching line contains, so that the store can skip what lacks them.
func regexpPredicate(s string, re *regexp.Regexp) storage.Predicate {
	match := storage.LineMatch(re.MatchString)
	parsed, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return match
	}
	parsed = parsed.Simplify()
	if text, ok := literal(parsed); ok {
		return storage.LineContains(text)
	}
	if parsed.Op == syntax.OpAlternate {
		var all storage.Or
		for _, sub := range parsed.Sub {
			text, ok := literal(sub)
			if !ok {
				return match
			}
			all = append(all, storage.LineContains(text))
		}
		return all
	}
	var out storage.And
	if parsed.Op == syntax.OpConcat {
		for _, sub := range parsed.Sub {
			if text, ok := literal(sub); ok && text != "" {
				out = append(out, storage.LineContains(text))
			}
		}
	}
	if len(out) == 0 {
		return match
	}
	return append(out, match)
}

// literal returns the text that re stands for, when it is nothing but that. U+FFFD is no such text: in an
// expression it also matches bytes that are not UTF-8.
func literal(re *syntax.Regexp) (string, bool) {
	switch {
	case re.Op == syntax.OpEmptyMatch:
		return "", true
	case re.Op == syntax.OpLiteral && re.Flags&syntax.FoldCase == 0 && !slices.Contains(re.Rune, utf8.RuneError):
		return string(re.Rune), true
	case re.Op == syntax.OpCapture:
		return literal(re.Sub[0])
	default:
		return "", false
	}
}
