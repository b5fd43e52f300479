// Package fields takes lines apart into names and values: JSON and logfmt as LogQL's parsers read them, and the paths by
// which single values of JSON are named. It takes hostile lines: what it costs grows with the length of the line only.
package fields

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Step is a field of an object or an element of an array.
type Step struct {
	Key   string
	Index int // of an array; -1 for a field
}

// maxSteps bounds a path.
const maxSteps = 128

// ParsePath reads a path such as a.b["c d"][0].
func ParsePath(s string) ([]Step, error) {
	var out []Step
	for i := 0; i < len(s); {
		if len(out) >= maxSteps {
			return nil, fmt.Errorf("the path has more than %d steps", maxSteps)
		}
		switch s[i] {
		case '[':
			step, n, err := bracket(s[i:])
			if err != nil {
				return nil, err
			}
			out = append(out, step)
			i += n
		default:
			if s[i] == '.' {
				if len(out) == 0 || i+1 == len(s) {
					return nil, errors.New("the path has a point without a field")
				}
				i++
			} else if len(out) > 0 {
				return nil, fmt.Errorf("unexpected %q in the path; want . or [", s[i:min(i+8, len(s))])
			}
			n := i
			for n < len(s) && (s[n] == '_' || s[n] == '-' || s[n] >= '0' && s[n] <= '9' || s[n]|0x20 >= 'a' && s[n]|0x20 <= 'z' || s[n] >= 0x80) {
				n++
			}
			if n == i {
				return nil, fmt.Errorf("unexpected %q in the path; want a field such as a.b[0] or [\"a b\"]", s[i:min(i+8, len(s))])
			}
			out = append(out, Step{s[i:n], -1})
			i = n
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the path is empty")
	}
	return out, nil
}

// bracket reads [0] or ["key"] and returns its length.
func bracket(s string) (Step, int, error) {
	if len(s) > 1 && s[1] == '"' {
		q, err := strconv.QuotedPrefix(s[1:])
		if err == nil && strings.HasPrefix(s[1+len(q):], "]") {
			if key, err := strconv.Unquote(q); err == nil {
				return Step{key, -1}, len(q) + 2, nil
			}
		}
		return Step{}, 0, errors.New("the path has a [\"field\"] that does not end")
	}
	n := strings.IndexByte(s, ']')
	if n < 0 {
		return Step{}, 0, errors.New("the path has a [ without a ]")
	}
	i, err := strconv.Atoi(s[1:n])
	if err != nil || i < 0 {
		return Step{}, 0, fmt.Errorf("%q is not an index; want [0] or [\"field\"]", s[1:n])
	}
	return Step{"", i}, n + 1, nil
}

// CheckKey says why s cannot be a key of logfmt.
func CheckKey(s string) error {
	if s == "" || strings.ContainsAny(s, " \t\n=\"") {
		return errors.New("a key of logfmt is not empty and has no blanks, quotes or =")
	}
	return nil
}

// Name returns the name of a label for a key: bytes that may not stand in one become _, and one before a digit.
func Name(key string) string {
	ok := key != ""
	for i := range len(key) {
		ok = ok && (legal(key[i]) && (i > 0 || key[i] > '9'))
	}
	if ok || key == "" {
		return key
	}
	return string(AppendName(nil, key))
}

// AppendName appends Name of key to dst; behind other names nothing comes before a digit.
func AppendName(dst []byte, key string) []byte {
	if len(dst) == 0 && key != "" && key[0] >= '0' && key[0] <= '9' {
		dst = append(dst, '_')
	}
	for _, r := range key {
		if r < 0x80 && legal(byte(r)) {
			dst = append(dst, byte(r))
		} else {
			dst = append(dst, '_')
		}
	}
	return dst
}

func legal(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
