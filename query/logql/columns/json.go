package columns

import (
	"errors"

	"github.com/braidobs/braid/query/logql/fields"
	"github.com/braidobs/braid/storage"
)

var (
	errUnknown   = errors.New("it depends on what stands in the gaps")
	errMalformed = errors.New("each line is malformed")
)

const (
	maxDepth = 64
	maxKey   = 1 << 10
)

// JSON returns what fields.JSON finds in the lines of a template, as far as want wants it, and false when that depends on
// what stands in the gaps.
func JSON(t *storage.Template, want func(name string) bool) (*Fields, bool) {
	y, ok := symbolsOf(t)
	if !ok {
		return nil, false
	}
	w := &jsonWalker{symbols: y, want: want, out: &Fields{Values: make(map[string]Value)}}
	i := w.blank(0)
	if i == len(y.s) {
		w.out.Failed = true
		return w.out, true
	}
	if y.s[i] != '{' {
		if y.s[i].gap() && !w.starts(y.s[i]) {
			return nil, false
		}
		w.out.Failed = true
		return w.out, true
	}
	switch _, err := w.object(i, nil, 0); {
	case errors.Is(err, errUnknown):
		return nil, false
	case err != nil:
		w.out.Failed = true
	}
	return w.out, true
}

type jsonWalker struct {
	*symbols
	want func(string) bool
	out  *Fields
}

// starts says whether a gap surely begins with a letter or a digit.
func (w *jsonWalker) starts(s symbol) bool {
	k := w.kind(s)
	return k == storage.GapDigits || k == storage.GapWord || k == storage.GapNumber
}

func (w *jsonWalker) blank(i int) int {
	for i < len(w.s) && (w.s[i] == ' ' || w.s[i] == '\t' || w.s[i] == '\n' || w.s[i] == '\r') {
		i++
	}
	return i
}

// wrong returns the error for a symbol that is not what must stand there.
func (w *jsonWalker) wrong(i int) error {
	if i < len(w.s) && w.s[i].gap() {
		return errUnknown
	}
	return errMalformed
}

// closing returns the quote that closes the one at i.
func (w *jsonWalker) closing(i int) (int, error) {
	for i++; i < len(w.s); i++ {
		switch s := w.s[i]; {
		case s.gap():
			if !quotable(w.kind(s)) {
				return 0, errUnknown
			}
		case s == '\\':
			n := 2
			if i+1 < len(w.s) && w.s[i+1] == 'u' {
				n = 6
			}
			for j := i; j < min(i+n, len(w.s)); j++ {
				if w.s[j].gap() {
					return 0, errUnknown
				}
				if j > i+1 && w.s[j] == '"' { // too short an escape: it is the quote that ends here
					break
				}
			}
			i++
		case s == '"':
			return i, nil
		}
	}
	return 0, errMalformed
}

// object reads the object at i and returns what is behind it.
func (w *jsonWalker) object(i int, prefix []byte, depth int) (int, error) {
	if depth >= maxDepth {
		return 0, errUnknown
	}
	i = w.blank(i + 1)
	if i < len(w.s) && w.s[i] == '}' {
		return i + 1, nil
	}
	for {
		if i >= len(w.s) || w.s[i] != '"' {
			return 0, w.wrong(i)
		}
		end, err := w.closing(i)
		if err != nil {
			return 0, err
		}
		raw, n := w.text(i+1, end)
		if n != end {
			return 0, errUnknown // a gap in the key
		}
		key, ok := fields.Unquote(raw)
		if !ok {
			return 0, errMalformed
		}
		if i = w.blank(end + 1); i >= len(w.s) || w.s[i] != ':' {
			return 0, w.wrong(i)
		}
		if i, err = w.member(w.blank(i+1), key, prefix, depth); err != nil {
			return 0, err
		}
		if i = w.blank(i); i >= len(w.s) {
			return 0, errMalformed
		}
		switch w.s[i] {
		case '}':
			return i + 1, nil
		case ',':
			i = w.blank(i + 1)
		default:
			return 0, w.wrong(i)
		}
	}
}

// member reads the value at i and returns what is behind it.
func (w *jsonWalker) member(i int, key string, prefix []byte, depth int) (int, error) {
	if i >= len(w.s) {
		return 0, errMalformed
	}
	name := prefix
	if key != "" {
		name = append([]byte(nil), prefix...)
		if len(prefix) > 0 {
			name = append(name, '_')
		}
		name = fields.AppendName(name, key)
	}
	if len(name) > maxKey {
		return 0, errUnknown
	}
	wanted := key != "" && w.want(string(name))
	switch s := w.s[i]; {
	case s == '"':
		end, err := w.closing(i)
		if err != nil {
			return 0, err
		}
		if wanted {
			if v, ok := w.value(i+1, end, fields.Unquote); ok {
				w.out.add(string(name), v)
			}
		}
		return end + 1, nil
	case s == '{':
		return w.object(i, name, depth+1)
	case s == '[':
		return w.array(i)
	case w.numeric(s, true):
		n := i + 1
		for n < len(w.s) && w.numeric(w.s[n], false) {
			n++
		}
		if n < len(w.s) && w.s[n].gap() {
			return 0, errUnknown
		}
		if wanted {
			v, _ := w.value(i, n, asIs)
			w.out.add(string(name), v)
		}
		return n, nil
	case s.gap():
		return 0, errUnknown
	}
	for _, word := range [...]string{"true", "false", "null"} {
		match := true
		for j := range len(word) {
			switch {
			case i+j >= len(w.s) || !w.s[i+j].gap() && w.s[i+j] != symbol(word[j]):
				match = false
			case w.s[i+j].gap():
				return 0, errUnknown
			}
			if !match {
				break
			}
		}
		if match {
			if wanted && word != "null" {
				w.out.add(string(name), Value{{Text: word, Gap: -1}})
			}
			return i + len(word), nil
		}
	}
	return 0, errMalformed
}

// numeric says whether a symbol surely continues, or begins, a number.
func (w *jsonWalker) numeric(s symbol, first bool) bool {
	switch {
	case s.gap():
		k := w.kind(s)
		return k == storage.GapDigits || k == storage.GapNumber
	case s >= '0' && s <= '9' || s == '-':
		return true
	default:
		return !first && (s == '.' || s == 'e' || s == 'E' || s == '+')
	}
}

// array returns what is behind the array at i, looking at brackets and quotes only.
func (w *jsonWalker) array(i int) (int, error) {
	depth := 0
	for ; i < len(w.s); i++ {
		switch s := w.s[i]; {
		case s.gap():
			switch w.kind(s) {
			case storage.GapDigits, storage.GapWord, storage.GapNumber, storage.GapTime:
			default:
				return 0, errUnknown
			}
		case s == '"':
			end, err := w.closing(i)
			if err != nil {
				return 0, err
			}
			i = end
		case s == '{' || s == '[':
			depth++
		case s == '}' || s == ']':
			if depth--; depth == 0 {
				return i + 1, nil
			}
		}
	}
	return 0, errMalformed
}
