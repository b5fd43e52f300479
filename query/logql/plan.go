package logql

import (
	resyntax "regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/query/logql/pattern"
	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/query/logql/regex"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

// plan is a query for lines, divided between the store and us.
type plan struct {
	where  storage.Predicate
	stages []syntax.Stage // what the store leaves to us
}

// minLiteral is how long a value must be for the store to look for it where a filter of labels demands it: shorter ones
// are in too many lines.
const minLiteral = 8

// planOf gives to the store the selector and all filters of lines that stand before the line is changed. It also demands
// what filters of labels behind parsers imply about the line. For stop see pipeline.Options.
func planOf(l *syntax.Log, stop func() bool) (*plan, error) {
	where := storage.And{storage.StreamMatch(l.Matchers)}
	p := &plan{}
	parsed, slashes, lined, labeled := false, false, false, false // what happened so far
	for _, s := range l.Stages {
		switch s := s.(type) {
		case *syntax.LineFilter:
			if lined {
				break
			}
			w, err := filterPredicate(s, stop)
			if err != nil {
				return nil, err
			}
			if w != nil {
				where = append(where, w)
			}
			continue
		case *syntax.LineFormat, *syntax.Unpack, *syntax.Decolorize:
			lined = true
		case *syntax.JSON, *syntax.Logfmt:
			parsed, slashes = true, true
		case *syntax.Regexp, *syntax.Pattern:
			parsed = true
		case *syntax.LabelFormat, *syntax.Drop, *syntax.Keep:
			labeled = true
		case *syntax.LabelFilter:
			if parsed && !lined && !labeled {
				if w := implied(s.Test, slashes); w != nil {
					where = append(where, w)
				}
			}
		}
		p.stages = append(p.stages, s)
	}
	p.where = where
	return p, nil
}

// implied returns a condition on rows that the test implies, nil for none. Behind a parser a label has the value where the
// line contains it, or contains an escape, or where the row came with the label.
func implied(t syntax.Test, slashes bool) storage.Predicate {
	switch t := t.(type) {
	case *syntax.And:
		l, r := implied(t.L, slashes), implied(t.R, slashes)
		switch {
		case l == nil:
			return r
		case r == nil:
			return l
		default:
			return storage.And{l, r}
		}
	case *syntax.Or:
		l, r := implied(t.L, slashes), implied(t.R, slashes)
		if l == nil || r == nil {
			return nil
		}
		return storage.Or{l, r}
	case *syntax.Match:
		// Names with _ may stand for attributes with other names.
		if t.M.Type != labels.MatchEqual || len(t.M.Value) < minLiteral || strings.Contains(t.M.Name, "_") || !utf8.ValidString(t.M.Value) {
			return nil
		}
		out := storage.Or{
			storage.LineContains(t.M.Value),
			storage.StreamMatch{t.M},
			storage.AttrMatch{Scope: storage.AnyScope, M: t.M},
			storage.AttrMatch{Scope: storage.ResourceScope, M: t.M},
			storage.AttrMatch{Scope: storage.InstrumentationScope, M: t.M},
		}
		if slashes {
			out = append(out, storage.LineContains(`\`))
		}
		return out
	default:
		return nil
	}
}

// filterPredicate returns what the store must do for a filter of lines, nil when all lines pass.
func filterPredicate(f *syntax.LineFilter, stop func() bool) (storage.Predicate, error) {
	var any storage.Or
	for _, a := range f.Alternatives {
		one := &syntax.LineFilter{Op: f.Op, Alternatives: []syntax.Alternative{a}}
		p, err := alternative(one, a, stop)
		if err != nil {
			return nil, err
		}
		any = append(any, p)
	}
	var out storage.Predicate = any
	if len(any) == 1 {
		out = any[0]
	}
	switch {
	case f.Op.Negative():
		return storage.Not{P: out}, nil
	case isAll(out):
		return nil, nil
	default:
		return out, nil
	}
}

func isAll(p storage.Predicate) bool {
	c, ok := p.(storage.LineContains)
	return ok && c == ""
}

// alternative returns what a line must be to match, whether the operator is negative or not.
func alternative(f *syntax.LineFilter, a syntax.Alternative, stop func() bool) (storage.Predicate, error) {
	positive := &syntax.LineFilter{Op: f.Op, Alternatives: f.Alternatives}
	switch f.Op {
	case syntax.ContainsNot:
		positive.Op = syntax.Contains
	case syntax.NotRegexp:
		positive.Op = syntax.MatchesRegexp
	case syntax.NotLike:
		positive.Op = syntax.Like
	default:
	}
	if positive.Op == syntax.Contains && !a.IP {
		return storage.LineContains(a.Text), nil
	}
	if positive.Op == syntax.MatchesRegexp {
		re, err := regex.Compile(a.Text, stop)
		if err != nil {
			return nil, err
		}
		return regexpPredicate(a.Text, re), nil
	}
	match, err := pipeline.LineFilter(positive, stop)
	if err != nil {
		return nil, err
	}
	var out storage.And
	if positive.Op == syntax.Like {
		p, err := pattern.ParseLine(a.Text)
		if err != nil {
			return nil, err
		}
		for _, s := range p.Literals {
			if s != "" {
				out = append(out, storage.LineContains(s))
			}
		}
	}
	if len(out) == 0 {
		return storage.LineMatch(match), nil
	}
	return append(out, storage.LineMatch(match)), nil
}

// regexpPredicate finds the texts that every matching line contains, so that the store can skip what lacks them.
func regexpPredicate(s string, re *regex.Regexp) storage.Predicate {
	match := storage.LineMatch(re.Match)
	parsed, err := resyntax.Parse(s, resyntax.Perl)
	if err != nil {
		return match
	}
	parsed = parsed.Simplify()
	if text, ok := literal(parsed); ok {
		return storage.LineContains(text)
	}
	if parsed.Op == resyntax.OpAlternate {
		var all storage.Or
		for _, sub := range parsed.Sub {
			text, ok := literal(sub)
			if !ok {
				all = nil
				break
			}
			all = append(all, storage.LineContains(text))
		}
		if all != nil {
			return all
		}
	}
	p := demanded(parsed)
	if p == nil {
		return match
	}
	if and, ok := p.(storage.And); ok {
		return append(slices.Clone(and), match)
	}
	return storage.And{p, match}
}

// demanded returns what every line contains that matches re, nil for nothing in particular.
func demanded(re *resyntax.Regexp) storage.Predicate {
	if text, ok := literal(re); ok {
		if text == "" {
			return nil
		}
		return storage.LineContains(text)
	}
	switch re.Op {
	case resyntax.OpCapture, resyntax.OpPlus:
		return demanded(re.Sub[0])
	case resyntax.OpRepeat:
		if re.Min > 0 {
			return demanded(re.Sub[0])
		}
	case resyntax.OpConcat:
		var out storage.And
		for _, sub := range re.Sub {
			switch p := demanded(sub).(type) {
			case nil:
			case storage.And:
				out = append(out, p...)
			default:
				out = append(out, p)
			}
		}
		if len(out) > 0 {
			return out
		}
	case resyntax.OpAlternate:
		var out storage.Or
		for _, sub := range re.Sub {
			p := demanded(sub)
			if p == nil {
				return nil
			}
			out = append(out, p)
		}
		return out
	default:
	}
	return nil
}

// literal returns the text that re stands for, when it is nothing but that. U+FFFD is no such text: in an expression it
// also matches bytes that are not UTF-8.
func literal(re *resyntax.Regexp) (string, bool) {
	switch {
	case re.Op == resyntax.OpEmptyMatch:
		return "", true
	case re.Op == resyntax.OpLiteral && re.Flags&resyntax.FoldCase == 0 && !slices.Contains(re.Rune, utf8.RuneError):
		return string(re.Rune), true
	case re.Op == resyntax.OpCapture:
		return literal(re.Sub[0])
	default:
		return "", false
	}
}
