package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Errors is several mistakes as one error, a line each.
type Errors []error

// Add appends err unless it is nil. The mistakes of a joined error are added one by one.
func (e *Errors) Add(err error) {
	if err == nil {
		return
	}
	*e = append(*e, flatten(err)...)
}

// Field adds err, unless it is nil, as a mistake of the named key.
func (e *Errors) Field(name string, err error) { e.Add(Field(name, err)) }

// Err returns e, or nil when it is empty.
func (e Errors) Err() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// Error returns the mistakes, a line each.
func (e Errors) Error() string {
	var b strings.Builder
	for i, err := range e {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

// Unwrap makes errors.Is and errors.As look at every mistake.
func (e Errors) Unwrap() []error { return e }

// Join returns those of errs that are not nil as one error of type Errors, or nil.
func Join(errs ...error) error {
	var e Errors
	for _, err := range errs {
		e.Add(err)
	}
	return e.Err()
}

// Field returns err as a mistake of the key name, as it is called in the YAML, or nil when err is nil. Names
// nest: Field("logs", Field("limit", err)) is a mistake of logs.limit. A joined error is named one by one.
func Field(name string, err error) error {
	if err == nil {
		return nil
	}
	var out Errors
	for _, one := range flatten(err) {
		if m, ok := errors.AsType[*Mistake](one); ok {
			out = append(out, &Mistake{File: m.File, Line: m.Line, Path: join(name, m.Path), Err: m.Err})
			continue
		}
		out = append(out, &Mistake{Path: name, Err: one})
	}
	if len(out) == 1 {
		return out[0]
	}
	return out
}

// Mistake is one thing that is wrong with a configuration.
type Mistake struct {
	File string // empty outside Load
	Line int    // from 1; 0 when the mistake has no line
	Path string // keys from the root, as in storage.tenants[2].name; empty for the whole file
	Err  error
}

// Error returns file:line: path: what is wrong.
func (m *Mistake) Error() string {
	var b strings.Builder
	if m.File != "" {
		b.WriteString(m.File)
		if m.Line > 0 {
			b.WriteString(":" + strconv.Itoa(m.Line))
		}
		b.WriteString(": ")
	}
	if m.Path != "" {
		b.WriteString(m.Path + ": ")
	}
	b.WriteString(m.Err.Error())
	return b.String()
}

// Unwrap returns what is wrong, without the place.
func (m *Mistake) Unwrap() error { return m.Err }

func flatten(err error) []error {
	if m, ok := err.(interface{ Unwrap() []error }); ok { // only the outermost level
		var out []error
		for _, one := range m.Unwrap() {
			if one != nil {
				out = append(out, flatten(one)...)
			}
		}
		return out
	}
	return []error{err}
}

// join appends a key to a path; an index, as in [2], follows without a dot.
func join(path, key string) string {
	if path == "" || key == "" || key[0] == '[' {
		return path + key
	}
	return path + "." + key
}

// mistakes collects what is wrong with one file.
type mistakes struct {
	file   string
	list   []*Mistake
	seen   map[string]bool
	paths  map[string]bool // paths that have a mistake
	unread map[string]bool // paths that could not be read, set before Validators are asked
	count  int
}

func (m *mistakes) add(path string, line int, err error) {
	if m.seen == nil {
		m.seen, m.paths = make(map[string]bool), make(map[string]bool)
	}
	key := path + "\x00" + err.Error()
	if m.seen[key] {
		return
	}
	m.count++
	if len(m.list) >= maxMistakes {
		return
	}
	m.seen[key], m.paths[path] = true, true
	m.list = append(m.list, &Mistake{File: m.file, Line: line, Path: path, Err: err})
}

// err returns the mistakes in the order of the file, those without a line last.
func (m *mistakes) err() error {
	slices.SortStableFunc(m.list, func(a, b *Mistake) int {
		if (a.Line == 0) != (b.Line == 0) {
			return cmp.Compare(b.Line, a.Line)
		}
		return cmp.Compare(a.Line, b.Line)
	})
	var e Errors
	for _, one := range m.list {
		e = append(e, one)
	}
	if more := m.count - len(m.list); more > 0 {
		e = append(e, &Mistake{File: m.file, Err: fmt.Errorf("%d more mistakes", more)})
	}
	return e.Err()
}
