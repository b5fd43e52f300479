package extract

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// object reads a line that is one JSON object.
func (p *Parser) object(b []byte, out *Fields) bool {
	s := scanner{p: p, b: b, out: out}
	s.space()
	if !s.members(nil, 1) {
		return false
	}
	s.space()
	if s.i != len(b) {
		return false
	}
	p.finish(out)
	return true
}

// scanner walks over JSON. Its methods return false where the JSON is wrong.
type scanner struct {
	p   *Parser
	b   []byte
	i   int
	out *Fields
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\n' || s.b[s.i] == '\r') {
		s.i++
	}
}

func (s *scanner) next(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// members reads an object and adds its values under prefix.
func (s *scanner) members(prefix []byte, depth int) bool {
	if !s.next('{') {
		return false
	}
	s.space()
	if s.next('}') {
		return true
	}
	for {
		s.space()
		key, ok := s.text()
		if !ok {
			return false
		}
		s.space()
		if !s.next(':') {
			return false
		}
		s.space()
		if prefix != nil {
			key = s.join(prefix, key)
		}
		if !s.value(key, depth) {
			return false
		}
		s.space()
		if s.next('}') {
			return true
		}
		if !s.next(',') {
			return false
		}
	}
}

// join makes the flattened key. One that is too long comes out too long, and is dropped, without growing further.
func (s *scanner) join(prefix, key []byte) []byte {
	if len(prefix) > maxKeyBytes {
		return prefix
	}
	if len(s.p.scratch) > 4*maxKeys*maxKeyBytes+len(s.b) { // keys that repeat or are not kept
		return s.b[:maxKeyBytes+1]
	}
	start := len(s.p.scratch)
	s.p.scratch = append(s.p.scratch, prefix...)
	s.p.scratch = append(s.p.scratch, '.')
	s.p.scratch = append(s.p.scratch, key[:min(len(key), maxKeyBytes)]...)
	return s.p.scratch[start:len(s.p.scratch):len(s.p.scratch)]
}

func (s *scanner) value(key []byte, depth int) bool {
	if s.i >= len(s.b) {
		return false
	}
	switch c := s.b[s.i]; c {
	case '"':
		v, ok := s.text()
		if ok {
			s.p.add(s.out, key, Value{Kind: String, Bytes: v})
		}
		return ok
	case '{':
		if depth < maxDepth && len(s.out.Attributes) < maxKeys {
			return s.members(key, depth+1)
		}
		return s.raw(key)
	case '[':
		return s.raw(key)
	case 't':
		return s.word(key, "true", Value{Kind: Bool, Bool: true})
	case 'f':
		return s.word(key, "false", Value{Kind: Bool})
	case 'n':
		return s.word(nil, "null", Value{})
	default:
		return s.number(key)
	}
}

func (s *scanner) word(key []byte, w string, v Value) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	v.Bytes = s.b[s.i : s.i+len(w)]
	s.i += len(w)
	if key != nil {
		s.p.add(s.out, key, v)
	}
	return true
}

// raw steps over an array or object and adds it as it is. Inside, only strings and the balance of brackets are looked
// at.
func (s *scanner) raw(key []byte) bool {
	start, depth := s.i, 0
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '"':
			if _, _, ok := s.quoted(); !ok {
				return false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				s.i++
				s.p.add(s.out, key, Value{Kind: JSON, Bytes: s.b[start:s.i]})
				return true
			}
		}
		s.i++
	}
	return false
}

func (s *scanner) number(key []byte) bool {
	start := s.i
	whole := true
	for s.i < len(s.b) {
		c := s.b[s.i]
		if c == '.' || c == 'e' || c == 'E' || c == '+' {
			whole = false
		} else if c-'0' > 9 && c != '-' {
			break
		}
		s.i++
	}
	v, ok := number(s.b[start:s.i], whole)
	if ok {
		s.p.add(s.out, key, v)
	}
	return ok
}

// number reads a number as JSON has it.
func number(b []byte, whole bool) (Value, bool) {
	digits := bytes.TrimPrefix(b, []byte("-"))
	if len(digits) == 0 || digits[0]-'0' > 9 || len(digits) > 1 && digits[0] == '0' && digits[1]-'0' <= 9 || len(b) > 512 {
		return Value{}, false
	}
	if whole {
		if n, err := strconv.ParseInt(string(b), 10, 64); err == nil {
			return Value{Kind: Int, Int: n, Bytes: b}, true
		}
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return Value{Kind: String, Bytes: b}, isRange(err) // too large for a float: as it was written
	}
	return Value{Kind: Float, Float: f, Bytes: b}, true
}

// quoted steps over a string and returns what is between its quotes and whether it has escapes.
func (s *scanner) quoted() (in []byte, escaped, ok bool) {
	start := s.i + 1
	for i, c := range s.b[start:min(start+24, len(s.b))] { // short strings are the rule
		if c == '\\' {
			break
		}
		if c == '"' {
			s.i = start + i + 1
			return s.b[start : start+i : start+i], false, true
		}
	}
	for at := start; ; {
		n := bytes.IndexByte(s.b[at:], '"')
		if n < 0 {
			return nil, false, false
		}
		at += n
		slashes := 0
		for at-1-slashes >= start && s.b[at-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			in = s.b[start:at:at]
			s.i = at + 1
			return in, bytes.IndexByte(in, '\\') >= 0, true
		}
		at++
	}
}

// text reads a string; one with escapes is written to the scratch buffer.
func (s *scanner) text() ([]byte, bool) {
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return nil, false
	}
	in, escaped, ok := s.quoted()
	if !ok || !escaped {
		return in, ok
	}
	start := len(s.p.scratch)
	s.p.scratch, ok = Unescape(s.p.scratch, in)
	return s.p.scratch[start:len(s.p.scratch):len(s.p.scratch)], ok
}

// Unescape appends the text of a JSON string, of which b is what stands between the quotes, to dst. It is never longer
// than b. A surrogate without its other half becomes U+FFFD; an escape that JSON does not have makes ok false.
func Unescape(dst, b []byte) (text []byte, ok bool) {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return append(dst, b...), true
		}
		dst = append(dst, b[:i]...)
		if b = b[i+1:]; len(b) == 0 {
			return dst, false
		}
		c := b[0]
		b = b[1:]
		switch c {
		case '"', '\\', '/', '\'':
			dst = append(dst, c)
		case 'n':
			dst = append(dst, '\n')
		case 't':
			dst = append(dst, '\t')
		case 'r':
			dst = append(dst, '\r')
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'u':
			r, ok := hex4(b)
			if !ok {
				return dst, false
			}
			b = b[4:]
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if len(b) >= 6 && b[0] == '\\' && b[1] == 'u' {
					if second, ok := hex4(b[2:]); ok {
						low = second
					}
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					b = b[6:]
				}
			}
			dst = utf8.AppendRune(dst, r)
		default:
			return dst, false
		}
	}
	return dst, true
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		n, ok := nibble(c)
		if !ok {
			return 0, false
		}
		r = r<<4 | rune(n)
	}
	return r, true
}

func nibble(c byte) (byte, bool) {
	switch {
	case c-'0' <= 9:
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	default:
		return 0, false
	}
}
