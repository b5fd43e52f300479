package line

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// dockerStart is how each line of the json-file driver begins.
const dockerStart = `{"log":"`

// maxNesting bounds what is skipped over: the driver writes attributes one level deep.
const maxNesting = 8

// docker reads an object of the json-file driver. Keys may come in any order; others than log, stream and time are
// skipped.
func (p *Parser) docker(b []byte, l *Line) bool {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return false
	}
	i++
	var log []byte
	found, escaped := false, false
	for {
		i = skipSpace(b, i)
		key, next, _, ok := jsonString(b, i)
		if !ok {
			return false
		}
		i = skipSpace(b, next)
		if i >= len(b) || b[i] != ':' {
			return false
		}
		i = skipSpace(b, i+1)
		if i < len(b) && b[i] == '"' {
			val, next, esc, ok := jsonString(b, i)
			if !ok {
				return false
			}
			switch string(key) {
			case "log":
				log, escaped, found = val, esc, true
			case "stream":
				l.Stderr = string(val) == "stderr"
			case "time":
				l.Time = 0
				if ns, n, ok := p.clock.Read(val); ok && n == len(val) {
					l.Time = ns
				}
			}
			i = next
		} else if i, ok = skipValue(b, i); !ok {
			return false
		}
		i = skipSpace(b, i)
		if i >= len(b) {
			return false
		}
		if b[i] == '}' {
			break
		}
		if b[i] != ',' {
			return false
		}
		i++
	}
	if !found || skipSpace(b, i+1) != len(b) {
		return false
	}
	if escaped {
		log = unescape(log)
	}
	if n := len(log); n > 0 && log[n-1] == '\n' {
		l.Body = trimCR(log[:n-1])
		return true
	}
	l.Body, l.Partial = log, true
	return true
}

// resyncDocker reads a line from the last object in it.
func (p *Parser) resyncDocker(b []byte) Line {
	for rest := b; ; {
		i := bytes.LastIndex(rest, []byte(dockerStart))
		if i < 0 {
			return Line{Body: trimCR(b), Torn: true}
		}
		var l Line
		if p.docker(b[i:], &l) {
			l.Torn, l.Skipped = true, i
			return l
		}
		if len(rest)-i > 1<<20 { // what follows is no object and too long to look at again and again
			return Line{Body: trimCR(b), Torn: true}
		}
		rest = rest[:i]
	}
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// jsonString returns what is between the quotes at b[i], the index after them, and whether it has escapes.
func jsonString(b []byte, i int) (s []byte, next int, escaped, ok bool) {
	if i >= len(b) || b[i] != '"' {
		return nil, 0, false, false
	}
	start := i + 1
	for at := start; ; {
		n := bytes.IndexByte(b[at:], '"')
		if n < 0 {
			return nil, 0, false, false
		}
		at += n
		slashes := 0
		for at-1-slashes >= start && b[at-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			s = b[start:at]
			return s, at + 1, bytes.IndexByte(s, '\\') >= 0, true
		}
		at++
	}
}

// skipValue steps over a value that is no string.
func skipValue(b []byte, i int) (int, bool) {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			_, next, _, ok := jsonString(b, i)
			if !ok {
				return 0, false
			}
			i = next
			continue
		case '{', '[':
			if depth++; depth > maxNesting {
				return 0, false
			}
		case '}', ']':
			if depth == 0 {
				return i, true
			}
			if depth--; depth == 0 {
				return i + 1, true
			}
		case ',':
			if depth == 0 {
				return i, true
			}
		}
		i++
	}
	return 0, false
}

// unescape writes the text of a JSON string over it. The text is never longer than the string. An escape that JSON
// does not know stays as it is; half of a surrogate pair becomes U+FFFD.
func unescape(b []byte) []byte {
	r := bytes.IndexByte(b, '\\')
	if r < 0 {
		return b
	}
	w := r
	for r < len(b) {
		c := b[r]
		if c != '\\' || r+1 >= len(b) {
			b[w] = c
			w, r = w+1, r+1
			continue
		}
		e := b[r+1]
		switch e {
		case '"', '\\', '/':
		case 'n':
			e = '\n'
		case 't':
			e = '\t'
		case 'r':
			e = '\r'
		case 'b':
			e = '\b'
		case 'f':
			e = '\f'
		case 'u':
			v, ok := hex4(b, r+2)
			if !ok {
				b[w] = '\\'
				w, r = w+1, r+1
				continue
			}
			r += 6
			if utf16.IsSurrogate(v) {
				low := rune(-1)
				if r+1 < len(b) && b[r] == '\\' && b[r+1] == 'u' {
					if second, ok := hex4(b, r+2); ok {
						low = second
					}
				}
				if v = utf16.DecodeRune(v, low); v != utf8.RuneError {
					r += 6
				}
			}
			w += utf8.EncodeRune(b[w:], v)
			continue
		default:
			b[w] = '\\'
			w, r = w+1, r+1
			continue
		}
		b[w] = e
		w, r = w+1, r+2
	}
	return b[:w]
}

func hex4(b []byte, i int) (rune, bool) {
	if i+4 > len(b) {
		return 0, false
	}
	var v rune
	for _, c := range b[i : i+4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		v = v<<4 | rune(c)
	}
	return v, true
}
