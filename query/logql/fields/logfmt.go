package fields

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// errStop is what a visitor returns to end a walk without an error.
var errStop = errors.New("stop")

// Stop ends a walk early without an error.
func Stop() error { return errStop }

// Logfmt calls f with the pairs of a line in logfmt, a key without = with an empty value. What is malformed is left out up
// to the next blank, or, when strict, ends the walk with an error. An error of f ends it, too.
func Logfmt(line string, strict bool, f func(key, value string) error) error {
	for i := 0; ; {
		for i < len(line) && line[i] <= ' ' {
			i++
		}
		if i == len(line) {
			return nil
		}
		key, value, n, err := pair(line, i)
		if err != nil {
			if strict {
				return err
			}
			for i = n; i < len(line) && line[i] > ' '; {
				i++
			}
			continue
		}
		i = n
		if err := f(key, value); err != nil {
			if errors.Is(err, errStop) {
				return nil
			}
			return err
		}
	}
}

// pair reads key=value at i and returns the offset behind it, or where it is malformed.
func pair(line string, i int) (key, value string, n int, err error) {
	n = i
	for n < len(line) && line[n] > ' ' && line[n] != '=' && line[n] != '"' {
		n++
	}
	key = line[i:n]
	switch {
	case n < len(line) && line[n] == '"', n < len(line) && line[n] == '=' && n == i:
		return "", "", n, malformed(line, n)
	case !utf8.ValidString(key):
		return "", "", n, fmt.Errorf("the key at byte %d is not UTF-8", i)
	case n == len(line) || line[n] <= ' ':
		return key, "", n, nil
	}
	n++
	if n < len(line) && line[n] == '"' {
		end := closing(line, n)
		if end < 0 {
			return "", "", len(line), fmt.Errorf("the quoted value at byte %d does not end", n)
		}
		value, ok := Unquote(line[n+1 : end])
		if !ok {
			return "", "", end + 1, fmt.Errorf("the quoted value at byte %d has an unknown escape", n)
		}
		return key, value, end + 1, nil
	}
	begin := n
	for n < len(line) && line[n] > ' ' {
		if line[n] == '=' || line[n] == '"' {
			return "", "", n, malformed(line, n)
		}
		n++
	}
	return key, line[begin:n], n, nil
}

func malformed(line string, n int) error {
	return fmt.Errorf("unexpected %q at byte %d", line[n], n)
}

// closing returns the offset of the quote that closes the one at i, -1 for none.
func closing(s string, i int) int {
	for i++; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// Unquote resolves the escapes of JSON.
func Unquote(s string) (string, bool) {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s, true
	}
	b := append(make([]byte, 0, len(s)), s[:i]...)
	for i < len(s) {
		c := s[i]
		if c != '\\' {
			b = append(b, c)
			i++
			continue
		}
		if i+1 == len(s) {
			return "", false
		}
		i += 2
		switch c = s[i-1]; c {
		case '"', '\\', '/', '\'':
			b = append(b, c)
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, n := unicodeEscape(s[i:])
			if n == 0 {
				return "", false
			}
			b = utf8.AppendRune(b, r)
			i += n
		default:
			return "", false
		}
	}
	return string(b), true
}

// unicodeEscape reads the four digits behind \u, with those of the second half of a pair, and returns how many bytes it
// read; lone halves become U+FFFD.
func unicodeEscape(s string) (rune, int) {
	if len(s) < 4 {
		return 0, 0
	}
	v, err := strconv.ParseUint(s[:4], 16, 16)
	if err != nil {
		return 0, 0
	}
	r := rune(v)
	if r < 0xd800 || r > 0xdfff {
		return r, 4
	}
	if r < 0xdc00 && len(s) >= 10 && s[4] == '\\' && s[5] == 'u' {
		if w, err := strconv.ParseUint(s[6:10], 16, 16); err == nil && w >= 0xdc00 && w <= 0xdfff {
			return (r-0xd800)<<10 + rune(w) - 0xdc00 + 0x10000, 10
		}
	}
	return utf8.RuneError, 4
}
