package config

import (
	"encoding"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Print writes v, a struct or a pointer to one, as YAML that Load reads back to the same values. Secrets are
// written as ***, dollar signs as $$.
func Print(w io.Writer, v any) error { return write(w, v, false) }

// Example is Print with the help of every field as a comment above its key: with the defaults, the reference of a
// configuration.
func Example(w io.Writer, v any) error { return write(w, v, true) }

// Keys returns the path of every key of v, a struct or a pointer to one, that holds a value and not a section.
// Keys of elements of lists and maps are not counted.
func Keys(v any) []string {
	var out []string
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v = reflect.New(v.Type().Elem())
			}
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct || isText(v) {
			out = append(out, path)
			return
		}
		for _, f := range fieldsOf(v) {
			walk(f.value, join(path, f.name))
		}
	}
	walk(addressable(v), "")
	return out
}

func write(w io.Writer, v any, help bool) error {
	n, err := encode(addressable(v), help)
	if err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return enc.Close()
}

// addressable returns v, behind its pointer, in a place that methods on the pointer can be called on.
func addressable(v any) reflect.Value {
	rv := reflect.ValueOf(v)
	if rv.Kind() == reflect.Pointer && !rv.IsNil() {
		return rv.Elem()
	}
	p := reflect.New(rv.Type()).Elem()
	p.Set(rv)
	return p
}

func isText(v reflect.Value) bool {
	p := reflect.New(v.Type()).Interface()
	_, text := p.(encoding.TextMarshaler)
	_, node := p.(*yaml.Node)
	return text || node
}

func encode(v reflect.Value, help bool) (*yaml.Node, error) {
	null := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return null, nil
		}
		v = v.Elem()
	}
	if !v.CanAddr() {
		p := reflect.New(v.Type()).Elem()
		p.Set(v)
		v = p
	}
	switch m := v.Addr().Interface().(type) {
	case *yaml.Node:
		if m.Kind == 0 {
			return null, nil
		}
		return m, nil
	case encoding.TextMarshaler:
		b, err := m.MarshalText()
		if err != nil {
			return nil, err
		}
		return text(string(b)), nil
	case yaml.Marshaler:
		n := &yaml.Node{}
		if err := n.Encode(m); err != nil {
			return nil, err
		}
		return n, nil
	}
	plain := func(s string) (*yaml.Node, error) { // its tag follows from its text
		return &yaml.Node{Kind: yaml.ScalarNode, Value: s}, nil
	}
	switch v.Kind() {
	case reflect.String:
		return text(v.String()), nil
	case reflect.Bool:
		return plain(strconv.FormatBool(v.Bool()))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return plain(strconv.FormatInt(v.Int(), 10))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return plain(strconv.FormatUint(v.Uint(), 10))
	case reflect.Float32, reflect.Float64:
		return plain(strconv.FormatFloat(v.Float(), 'g', -1, v.Type().Bits()))
	case reflect.Struct, reflect.Slice, reflect.Map:
		return encodeMany(v, help)
	default:
		return nil, fmt.Errorf("%s cannot be written", v.Type())
	}
}

func encodeMany(v reflect.Value, help bool) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	put := func(name, comment string, v reflect.Value) error {
		c, err := encode(v, help)
		if err != nil {
			return Field(name, err)
		}
		k := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}
		if help {
			k.HeadComment = comment
		}
		n.Content = append(n.Content, k, c)
		return nil
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range fieldsOf(v) {
			if err := put(f.name, f.help, f.value); err != nil {
				return nil, err
			}
		}
	case reflect.Map:
		for _, k := range sortedKeys(v) {
			if err := put(k.String(), "", v.MapIndex(k)); err != nil {
				return nil, err
			}
		}
	default:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		for i := range v.Len() {
			c, err := encode(v.Index(i), help)
			if err != nil {
				return nil, Field("["+strconv.Itoa(i)+"]", err)
			}
			n.Content = append(n.Content, c)
		}
	}
	if len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
	return n, nil
}

func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(strings.ReplaceAll(s, "$", "$$"))
	if n.Style&yaml.LiteralStyle != 0 {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
