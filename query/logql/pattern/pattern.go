// Package pattern matches lines by the patterns of LogQL: texts with gaps, <ip> - <user> [<_>] "<method> <path> <_>".
package pattern

import (
	"errors"
	"fmt"
	"strings"
)

// MaxLength bounds a pattern, in bytes.
const MaxLength = 8 << 10

// Pattern is a parsed pattern: literals and captures by turns. It is safe for concurrent use.
type Pattern struct {
	// Literals are the texts around the captures: one more than there are captures; the first and the last may be empty.
	Literals []string
	// Names are those of the captures, "" for <_>.
	Names []string
}

// Parse reads a pattern with at least one named capture. Captures may not touch each other.
func Parse(s string) (*Pattern, error) {
	p, err := parse(s)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, name := range p.Names {
		if name != "" && seen[name] {
			return nil, fmt.Errorf("the capture <%s> stands in the pattern twice", name)
		}
		seen[name] = seen[name] || name != ""
	}
	if !anyNamed(seen) {
		return nil, errors.New("the pattern has no capture such as <status>")
	}
	return p, nil
}

func anyNamed(seen map[string]bool) bool {
	for name, ok := range seen {
		if name != "" && ok {
			return true
		}
	}
	return false
}

// ParseLine reads the pattern of a line filter, whose captures are all <_>.
func ParseLine(s string) (*Pattern, error) {
	p, err := parse(s)
	if err != nil {
		return nil, err
	}
	for _, name := range p.Names {
		if name != "" {
			return nil, fmt.Errorf("the pattern of a filter takes no names: write <_> for <%s>", name)
		}
	}
	return p, nil
}

func parse(s string) (*Pattern, error) {
	if len(s) > MaxLength {
		return nil, fmt.Errorf("the pattern is longer than %d bytes", MaxLength)
	}
	p := &Pattern{}
	literal := 0
	for i := 0; i < len(s); {
		n := capture(s[i:])
		if n == 0 {
			i++
			continue
		}
		if literal == i && len(p.Names) > 0 {
			return nil, errors.New("two captures of the pattern touch each other; put a text between them")
		}
		p.Literals = append(p.Literals, s[literal:i])
		name := s[i+1 : i+n-1]
		if name == "_" {
			name = ""
		}
		p.Names = append(p.Names, name)
		i += n
		literal = i
	}
	p.Literals = append(p.Literals, s[literal:])
	return p, nil
}

// capture returns the length of <name> at the beginning of s, 0 for none.
func capture(s string) int {
	if s[0] != '<' {
		return 0
	}
	for n := 1; n < len(s); n++ {
		switch c := s[n]; {
		case c == '>' && n > 1:
			return n + 1
		case c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || n > 1 && c >= '0' && c <= '9':
		default:
			return 0
		}
	}
	return 0
}

// Match calls f with the number and the text of each named capture, in their order. Where a literal is missing, the
// capture before it is the rest of the line, and the last.
func (p *Pattern) Match(line string, f func(i int, value string)) {
	if !strings.HasPrefix(line, p.Literals[0]) {
		return
	}
	line = line[len(p.Literals[0]):]
	for i, name := range p.Names {
		next := p.Literals[i+1]
		n := -1
		if next != "" {
			n = strings.Index(line, next)
		}
		value := line
		if n >= 0 {
			value, line = line[:n], line[n+len(next):]
		}
		if name != "" {
			f(i, value)
		}
		if n < 0 {
			return
		}
	}
}

// Test says whether the whole line has the form of the pattern. Each gap is at least one byte and ends where the text
// behind it stands first.
func (p *Pattern) Test(line string) bool {
	if !strings.HasPrefix(line, p.Literals[0]) {
		return false
	}
	line = line[len(p.Literals[0]):]
	for _, next := range p.Literals[1:] {
		if next == "" { // only the last may be empty
			return line != ""
		}
		n := strings.Index(line, next)
		if n <= 0 {
			return false
		}
		line = line[n+len(next):]
	}
	return line == ""
}
