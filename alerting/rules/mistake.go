package rules

import (
	"strconv"
	"strings"
)

// Mistake is one thing that is wrong with a rule file.
type Mistake struct {
	File      string
	Line, Col int    // from 1; 0 when there is none
	Group     string // the group's name; empty when it lies outside of groups
	Rule      string // the name of the alert or record
	Err       error
}

// Error returns file:line:column: group and rule: what is wrong.
func (m *Mistake) Error() string {
	var b strings.Builder
	b.WriteString(m.File)
	if m.Line > 0 {
		b.WriteString(":" + strconv.Itoa(m.Line))
		if m.Col > 0 {
			b.WriteString(":" + strconv.Itoa(m.Col))
		}
	}
	b.WriteString(": ")
	if m.Group != "" {
		b.WriteString("group " + strconv.Quote(m.Group))
		if m.Rule != "" {
			b.WriteString(", rule " + strconv.Quote(m.Rule))
		}
		b.WriteString(": ")
	}
	b.WriteString(m.Err.Error())
	return b.String()
}

// Unwrap returns what is wrong, without the place.
func (m *Mistake) Unwrap() error { return m.Err }
