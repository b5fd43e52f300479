package config

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// decoder writes resolved nodes into values, collecting mistakes.
type decoder struct {
	*mistakes
	lines    map[string]int // where each path was set
	expanded map[*yaml.Node]bool
}

func (d *decoder) fail(n *yaml.Node, path, format string, args ...any) {
	d.add(path, n.Line, fmt.Errorf(format, args...))
}

func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	d.lines[path] = n.Line
	if n.Kind == yaml.ScalarNode && !d.expanded[n] && n.ShortTag() == "!!null" {
		return
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(newValue(v.Type().Elem()).Addr())
		}
		d.value(n, v.Elem(), path)
		return
	}
	if v.Type() == reflect.TypeFor[yaml.Node]() {
		v.Set(reflect.ValueOf(*n))
		return
	}
	if v.CanAddr() {
		switch u := v.Addr().Interface().(type) {
		case yaml.Unmarshaler:
			d.custom(n, path, u.UnmarshalYAML(n))
			return
		case encoding.TextUnmarshaler:
			if n.Kind != yaml.ScalarNode {
				d.fail(n, path, "must be a single value, not %s", kind(n))
				return
			}
			d.custom(n, path, u.UnmarshalText([]byte(n.Value)))
			return
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Map:
		d.dict(n, v, path)
	default:
		if n.Kind != yaml.ScalarNode {
			d.fail(n, path, "must be a single value, not %s", kind(n))
			return
		}
		d.scalar(n, v, path)
	}
}

// custom records the error of a type that reads itself. Fields that it names get their path.
func (d *decoder) custom(n *yaml.Node, path string, err error) {
	if err == nil {
		return
	}
	if te, ok := errors.AsType[*yaml.TypeError](err); ok {
		for _, text := range te.Errors {
			d.fail(n, path, "%s", text)
		}
		return
	}
	d.place(path, err, func(string) int { return n.Line })
}

// place records err and what it joins, below path.
func (m *mistakes) place(path string, err error, line func(string) int) {
	for _, one := range flatten(err) {
		if f, ok := errors.AsType[*Mistake](one); ok {
			p := join(path, f.Path)
			m.add(p, line(p), f.Err)
			continue
		}
		m.add(path, line(path), one)
	}
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "must be a section of keys, not %s", kind(n))
		return
	}
	fields := fieldsOf(v)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		f, ok := find(fields, key.Value)
		if !ok {
			d.fail(key, join(path, key.Value), "unknown key%s", suggest(key.Value, fields))
			continue
		}
		d.value(val, f.value, join(path, f.name))
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, path, "must be a list, not %s", kind(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), 0, len(n.Content))
	for i, c := range n.Content {
		e := newValue(v.Type().Elem())
		d.value(c, e, join(path, "["+strconv.Itoa(i)+"]"))
		out = reflect.Append(out, e)
	}
	v.Set(out)
}

func (d *decoder) dict(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "must be a section of keys, not %s", kind(n))
		return
	}
	if v.Type().Key().Kind() != reflect.String {
		d.fail(n, path, "cannot be read into %s", v.Type())
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), v.Len()+len(n.Content)/2)
	for it := v.MapRange(); it.Next(); {
		out.SetMapIndex(it.Key(), it.Value())
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := reflect.ValueOf(n.Content[i].Value).Convert(v.Type().Key())
		e := newValue(v.Type().Elem())
		if old := out.MapIndex(k); old.IsValid() {
			e.Set(old)
		}
		d.value(n.Content[i+1], e, join(path, n.Content[i].Value))
		out.SetMapIndex(k, e)
	}
	v.Set(out)
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	text := n.Value
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		switch strings.ToLower(text) {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		default:
			d.fail(n, path, "%q is neither true nor false", text)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			d.fail(n, path, "%q is not a whole number%s", text, outOfRange(err))
			return
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			d.fail(n, path, "%q is not a whole number from 0%s", text, outOfRange(err))
			return
		}
		v.SetUint(u)
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			d.fail(n, path, "%q is not a number", text)
			return
		}
		v.SetFloat(f)
	default:
		d.fail(n, path, "cannot be read into %s", v.Type())
	}
}

func outOfRange(err error) string {
	if errors.Is(err, strconv.ErrRange) {
		return " that fits"
	}
	return ""
}

// validate calls the Validators of v and of what it holds, innermost first.
func (m *mistakes) validate(v reflect.Value, path string, lines map[string]int) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			m.validate(v.Elem(), path, lines)
		}
		return
	case reflect.Slice:
		for i := range v.Len() {
			m.validate(v.Index(i), join(path, "["+strconv.Itoa(i)+"]"), lines)
		}
	case reflect.Map:
		for _, k := range sortedKeys(v) {
			e := reflect.New(v.Type().Elem()).Elem() // addressable, for methods on the pointer
			e.Set(v.MapIndex(k))
			m.validate(e, join(path, k.String()), lines)
		}
	case reflect.Struct:
		for _, f := range fieldsOf(v) {
			m.validate(f.value, join(path, f.name), lines)
		}
	default:
	}
	if !v.CanAddr() || !v.Addr().CanInterface() {
		return
	}
	if val, ok := reflect.TypeAssert[Validator](v.Addr()); ok {
		if err := val.Validate(); err != nil {
			m.placeNew(path, err, lines)
		}
	}
}

// placeNew records what a Validator says of keys that have no mistake yet: a value that could not be read is its
// default, and what is said of it is noise.
func (m *mistakes) placeNew(path string, err error, lines map[string]int) {
	for _, one := range flatten(err) {
		p := path
		if f, ok := errors.AsType[*Mistake](one); ok {
			p = join(path, f.Path)
		}
		if p != "" && m.unread[p] {
			continue
		}
		m.place(path, one, func(p string) int { return lineOf(p, lines) })
	}
}

// lineOf returns the line of path, or of the nearest section around it that the file holds.
func lineOf(path string, lines map[string]int) int {
	for path != "" {
		if line, ok := lines[path]; ok {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

// newValue returns an addressable value of type t with its defaults.
func newValue(t reflect.Type) reflect.Value {
	p := reflect.New(t)
	if d, ok := reflect.TypeAssert[Defaulter](p); ok {
		d.SetDefaults()
	}
	return p.Elem()
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section of keys"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}
