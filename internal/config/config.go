// Package config reads one YAML file into structs, strictly.
//
// A key that no struct field asks for is a mistake, and so are a duplicate key, a value of the wrong type, and
// whatever a Validator finds. All mistakes of a file are reported at once, each with its line and its path:
//
//	braid.yaml:12: storage.retention: must be positive
//
// Scalar values may refer to the environment: ${NAME} must be set, ${NAME:-text} falls back to text when NAME is
// unset or empty, and $$ is one dollar sign. References are replaced after the YAML is parsed, so a variable can
// change a value and never the structure of the file. Keys are not expanded.
//
// Keys that are missing, or present without a value, keep what the struct held before: a caller fills in its
// defaults, then loads over them. Lists are replaced, maps are merged by key.
//
// Fields are named by their yaml tag (`yaml:"retention"`, `yaml:",inline"`, `yaml:"-"`); the help tag becomes the
// comment above the key that Example writes.
//
// Input is bounded: one document of at most MaxBytes, with bounded depth and a bounded number of nodes after
// aliases are expanded. Merge keys (<<) and explicit tags (!!binary) are refused.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"strconv"

	"gopkg.in/yaml.v3"
)

// MaxBytes is the size of the largest file that is read.
const MaxBytes = 1 << 20

const (
	maxDepth    = 64
	maxNodes    = 100_000 // after aliases are expanded
	maxMistakes = 50      // reported; the rest is counted
)

// Validator is implemented by configuration structs that can be wrong as a whole. Load calls it, innermost first,
// on every struct that it reaches, whether the file mentions it or not; a struct does not call the Validate of
// its own fields. Mistakes are returned together, as Errors, each named with Field.
type Validator interface{ Validate() error }

// Defaulter is implemented by structs that are made by Load itself: elements of lists and maps, and structs
// behind nil pointers. SetDefaults is called on the zero value before the file's keys are read into it.
type Defaulter interface{ SetDefaults() }

// Load reads YAML from r over what into, a pointer to a struct, already holds, and validates the result. The name
// stands in front of every mistake; it is the file's name as the operator knows it. The error is of type Errors,
// holding a *Mistake each, except when r itself fails. After an error the struct is partly filled and must not be
// used.
func Load(r io.Reader, name string, into any) error {
	return Loader{Env: os.LookupEnv}.Load(r, name, into)
}

// LoadFile is Load of the file at path.
func LoadFile(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err // names the path
	}
	defer f.Close()
	return Load(f, path, into)
}

// Loader is Load with an environment of one's own.
type Loader struct {
	// Env looks up a variable as os.LookupEnv does. Nil is an empty environment.
	Env func(name string) (value string, ok bool)
}

// Load does what the function Load does, with the variables of l.Env.
func (l Loader) Load(r io.Reader, name string, into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("load %s: destination is %T, not a pointer to a struct", name, into)
	}
	b, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	m := mistakes{file: name}
	if len(b) > MaxBytes {
		m.add("", 0, fmt.Errorf("is larger than %s", Size(MaxBytes)))
		return m.err()
	}
	root := m.parse(b)
	if m.count > 0 {
		return m.err()
	}
	lines := make(map[string]int)
	if root != nil {
		res := resolver{env: l.Env, mistakes: &m, expanded: make(map[*yaml.Node]bool)}
		root = res.resolve(root, "", 0)
		if res.overflow {
			return m.err()
		}
		d := decoder{mistakes: &m, lines: lines, expanded: res.expanded}
		d.value(root, v.Elem(), "")
	}
	m.unread = maps.Clone(m.paths)
	m.validate(v.Elem(), "", lines)
	return m.err()
}

// Validate calls the Validator of every struct that v, a pointer to a struct, reaches: what Load does after
// reading. The error is of type Errors.
func Validate(v any) error {
	m := mistakes{}
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return fmt.Errorf("validate: %T is not a pointer to a struct", v)
	}
	m.validate(rv.Elem(), "", nil)
	return m.err()
}

// parse returns the root node of the only document, or nil when there is none.
func (m *mistakes) parse(b []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		m.syntax(err)
		return nil
	}
	var next yaml.Node
	switch err := dec.Decode(&next); {
	case errors.Is(err, io.EOF):
	case err != nil:
		m.syntax(err)
	default:
		m.add("", next.Line, errors.New("a second document is not allowed"))
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil
	}
	return doc.Content[0]
}

// syntax records an error of the YAML parser, which carries its line in its text.
func (m *mistakes) syntax(err error) {
	text := err.Error()
	if g := regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`).FindStringSubmatch(text); g != nil {
		line, _ := strconv.Atoi(g[1]) // no line is line 0
		m.add("", line, errors.New(g[2]))
		return
	}
	m.add("", 0, err)
}
