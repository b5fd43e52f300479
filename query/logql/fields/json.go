package fields

import (
	"errors"
	"strings"
)

const (
	// maxDepth bounds how deep objects and arrays stand in each other.
	maxDepth = 512
	// maxKey bounds the name that the keys of nested objects make together.
	maxKey = 4 << 10
)

var (
	// ErrNotObject is returned for lines that are no JSON object.
	ErrNotObject = errors.New("the line is not a JSON object")
	errMalformed = errors.New("the JSON is malformed")
	errDeep      = errors.New("the JSON is nested too deep")
)

// Type is what a value of JSON is.
type Type uint8

// The types.
const (
	Null Type = iota
	Bool
	Number
	String
	Object
	Array
)

// JSON calls f with the fields of a line that is a JSON object, those of nested objects with the keys joined by _, as
// names of labels. Nulls and arrays are left out. It calls f for what comes before a mistake, and returns it then.
// Behind the object anything may follow. name is valid until f returns; the value may be part of line.
func JSON(line string, f func(name []byte, value string) error) error {
	i := blank(line, 0)
	if i == len(line) || line[i] != '{' {
		return ErrNotObject
	}
	w := walker{s: line, f: f}
	_, err := w.object(i, 0)
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

func blank(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r') {
		i++
	}
	return i
}

type walker struct {
	s    string
	name []byte
	f    func(name []byte, value string) error
}

// object reads the object at i and returns the offset behind it.
func (w *walker) object(i, depth int) (int, error) {
	prefix := len(w.name)
	return Members(w.s, i, func(key string, t Type, begin, end int) (int, error) {
		if depth >= maxDepth {
			return 0, errDeep
		}
		w.name = w.name[:prefix]
		if t == Null || t == Array || key == "" && t != Object {
			return skipped(w.s, t, begin, end)
		}
		if len(w.name)+len(key) > maxKey {
			return skipped(w.s, t, begin, end)
		}
		if key != "" {
			if prefix > 0 {
				w.name = append(w.name, '_')
			}
			w.name = AppendName(w.name, key)
		}
		if t == Object {
			return w.object(begin, depth+1)
		}
		value := w.s[begin:end]
		if t == String {
			var ok bool
			if value, ok = Unquote(w.s[begin+1 : end-1]); !ok {
				return end, nil
			}
		}
		return end, w.f(w.name, value)
	})
}

func skipped(s string, t Type, begin, end int) (int, error) {
	if t == Object || t == Array {
		return compound(s, begin)
	}
	return end, nil
}

// Members calls f with the members of the object at i: the key, the type of the value and where it stands. The end of
// objects and arrays is not known: f must return it. It returns the offset behind the object.
func Members(s string, i int, f func(key string, t Type, begin, end int) (int, error)) (int, error) {
	i = blank(s, i+1)
	if i < len(s) && s[i] == '}' {
		return i + 1, nil
	}
	for {
		if i >= len(s) || s[i] != '"' {
			return 0, errMalformed
		}
		end := closing(s, i)
		if end < 0 {
			return 0, errMalformed
		}
		key, ok := Unquote(s[i+1 : end])
		if !ok {
			return 0, errMalformed
		}
		if i = blank(s, end+1); i >= len(s) || s[i] != ':' {
			return 0, errMalformed
		}
		var err error
		if i, err = value(s, blank(s, i+1), func(t Type, begin, end int) (int, error) { return f(key, t, begin, end) }); err != nil {
			return 0, err
		}
		if i = blank(s, i); i >= len(s) {
			return 0, errMalformed
		}
		switch s[i] {
		case '}':
			return i + 1, nil
		case ',':
			i = blank(s, i+1)
		default:
			return 0, errMalformed
		}
	}
}

// value looks at the value at i and returns what f does for it: the offset behind.
func value(s string, i int, f func(t Type, begin, end int) (int, error)) (int, error) {
	if i >= len(s) {
		return 0, errMalformed
	}
	switch c := s[i]; {
	case c == '"':
		end := closing(s, i)
		if end < 0 {
			return 0, errMalformed
		}
		return f(String, i, end+1)
	case c == '{':
		return f(Object, i, 0)
	case c == '[':
		return f(Array, i, 0)
	case c == '-' || c >= '0' && c <= '9':
		n := i + 1
		for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.' || s[n] == 'e' || s[n] == 'E' || s[n] == '+' || s[n] == '-') {
			n++
		}
		return f(Number, i, n)
	case strings.HasPrefix(s[i:], "true"):
		return f(Bool, i, i+4)
	case strings.HasPrefix(s[i:], "false"):
		return f(Bool, i, i+5)
	case strings.HasPrefix(s[i:], "null"):
		return f(Null, i, i+4)
	default:
		return 0, errMalformed
	}
}

// compound returns the offset behind the object or array at i, looking at brackets and quotes only.
func compound(s string, i int) (int, error) {
	depth := 0
	for ; i < len(s); i++ {
		switch s[i] {
		case '"':
			if i = closing(s, i); i < 0 {
				return 0, errMalformed
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1, nil
			}
		}
	}
	return 0, errMalformed
}

// Lookup returns the value at a path of a JSON document: texts without quotes, objects and arrays as they stand, and
// false for nulls and what is not there.
func Lookup(line string, path []Step) (string, bool) {
	i := blank(line, 0)
	for n, step := range path {
		if i >= len(line) {
			return "", false
		}
		last := n == len(path)-1
		var out string
		found, at := false, 0
		visit := func(t Type, begin, end int) {
			switch {
			case t == Null:
			case !last:
				at, found = begin, true
			case t == String:
				out, found = Unquote(line[begin+1 : end-1])
			case t == Object || t == Array:
				if n, err := compound(line, begin); err == nil {
					out, found = line[begin:n], true
				}
			default:
				out, found = line[begin:end], true
			}
		}
		switch {
		case line[i] == '{' && step.Index < 0:
			_, _ = Members(line, i, func(key string, t Type, begin, end int) (int, error) {
				if key == step.Key {
					visit(t, begin, end)
					return 0, errStop
				}
				return skipped(line, t, begin, end)
			})
		case line[i] == '[' && step.Index >= 0:
			element(line, i, step.Index, visit)
		}
		if !found || last {
			return out, found
		}
		i = at
	}
	return "", false
}

// element calls f for an element of the array at i.
func element(s string, i, index int, f func(t Type, begin, end int)) {
	i = blank(s, i+1)
	if i < len(s) && s[i] == ']' {
		return
	}
	for n := 0; ; n++ {
		var err error
		i, err = value(s, i, func(t Type, begin, end int) (int, error) {
			if n == index {
				f(t, begin, end)
				return 0, errStop
			}
			return skipped(s, t, begin, end)
		})
		if i = blank(s, i); err != nil || i >= len(s) || s[i] != ',' {
			return
		}
		i = blank(s, i+1)
	}
}

// Strings calls f with the members of a JSON object that are texts, all or none of them: a mistake is found before.
func Strings(line string, f func(key, value string)) error {
	i := blank(line, 0)
	if i == len(line) || line[i] != '{' {
		return ErrNotObject
	}
	type member struct{ key, value string }
	var found []member
	_, err := Members(line, i, func(key string, t Type, begin, end int) (int, error) {
		if t == String {
			if value, ok := Unquote(line[begin+1 : end-1]); ok {
				found = append(found, member{key, value})
			}
		}
		return skipped(line, t, begin, end)
	})
	if err != nil {
		return err
	}
	for _, m := range found {
		f(m.key, m.value)
	}
	return nil
}
