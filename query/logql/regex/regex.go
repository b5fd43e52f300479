// Package regex is regular expressions of bounded cost: their size is known before they are compiled, and their matching
// can be stopped.
package regex

import (
	"math"
	"regexp"
	"regexp/syntax"
	"strings"
)

// Size returns what an expression comes to, in characters and operators, when repetitions such as a{100} are written out:
// what it costs to compile, and for each byte that it is matched with.
func Size(s string) (int, error) {
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return 0, err
	}
	return written(re), nil
}

func written(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral {
		n = len(re.Rune)
	}
	for _, sub := range re.Sub {
		n += written(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, math.MaxInt32)
}

// Regexp is a regular expression over lines of any length, whose matching can be stopped within a few milliseconds.
type Regexp struct {
	re   *regexp.Regexp
	size int // a byte of a line costs about so many steps at most
	stop func() bool
}

const (
	// direct is how many steps may be made without asking whether to stop.
	direct = 2 << 20
	// askEvery is how many steps are made between questions.
	askEvery = 64 << 10
)

// Compile prepares s. When stop says true, nobody wants results any more: they are then wrong ones. Nil never stops.
func Compile(s string, stop func() bool) (*Regexp, error) {
	size, err := Size(s)
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(s)
	return &Regexp{re: re, size: max(size, 1), stop: stop}, err
}

// Names returns the names of the groups, empty for those without; the first is the whole match.
func (r *Regexp) Names() []string { return r.re.SubexpNames() }

// Match says whether some part of a line matches. It is safe for concurrent use.
func (r *Regexp) Match(line string) bool {
	switch {
	case r.stop == nil || len(line) < direct/r.size:
		return r.re.MatchString(line)
	case r.stop():
		return false
	default:
		return r.re.MatchReader(r.reader(line))
	}
}

// Find returns where the leftmost match and its groups begin and end, nil for no match.
func (r *Regexp) Find(line string) []int {
	switch {
	case r.stop == nil || len(line) < direct/r.size:
		return r.re.FindStringSubmatchIndex(line)
	case r.stop():
		return nil
	default:
		return r.re.FindReaderSubmatchIndex(r.reader(line))
	}
}

func (r *Regexp) reader(line string) *stoppable {
	return &stoppable{Reader: strings.NewReader(line), every: max(askEvery/r.size, 1), stop: r.stop}
}

// stoppable is a line that ends where its reader is to stop.
type stoppable struct {
	*strings.Reader
	n, every int
	stop     func() bool
}

// ReadRune implements io.RuneReader.
func (s *stoppable) ReadRune() (rune, int, error) {
	if s.n++; s.n >= s.every {
		if s.n = 0; s.stop() {
			s.Reset("")
		}
	}
	return s.Reader.ReadRune()
}
