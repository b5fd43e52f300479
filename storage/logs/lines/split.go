package lines

import (
	"strings"

	"github.com/braidobs/braid/storage"
)

// Classes of bytes. A delimiter ends what may become one variable; a joint does not.
const (
	isDigit byte = 1 << iota
	isHex        // a-f, A-F
	isAlpha      // every other letter
	isHigh       // not ASCII
	isDelim
	isJoint
	isSlash
	isControl // below 0x20, and 0x7f; a delimiter as well
)

const isAlnum = isDigit | isHex | isAlpha

// classTable returns the class of every byte.
func classTable() (c [256]byte) {
	for b := range c {
		switch {
		case b < 0x20 || b == 0x7f:
			c[b] = isDelim | isControl
		case b >= '0' && b <= '9':
			c[b] = isDigit
		case b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F':
			c[b] = isHex
		case b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z':
			c[b] = isAlpha
		case b >= 0x80:
			c[b] = isHigh
		case b == '/':
			c[b] = isSlash
		case strings.IndexByte(" \"'`,;=()[]{}<>|\\", byte(b)) >= 0:
			c[b] = isDelim
		default:
			c[b] = isJoint
		}
	}
	return c
}

// splitter cuts lines into the encoded form of a template and variables. Its buffers are reused.
type splitter struct {
	class [256]byte
	line  string
	done  int // the line up to here is in key
	key   []byte
	vars  []string

	stampAt int // where the last line had its timestamp
}

func newSplitter() *splitter { return &splitter{class: classTable()} }

// maxSplit bounds the lines that are cut: longer ones are rarely alike.
const maxSplit = 64 << 10

// split sets key and vars. The variables refer to the line.
func (s *splitter) split(line string) {
	s.key, s.vars = s.key[:0], s.vars[:0]
	if len(line) == 0 || len(line) > maxSplit || strings.IndexByte(line, gapMark) >= 0 {
		s.whole(line)
		return
	}
	s.line, s.done = line, 0
	if line[0] == '{' && line[len(line)-1] == '}' {
		s.json()
	} else {
		s.words(s.stamp(), len(line))
	}
	if len(s.key)+len(line)-s.done > MaxTemplate || len(s.vars) > MaxGaps {
		s.whole(line)
		return
	}
	s.key = append(s.key, line[s.done:]...)
}

func (s *splitter) whole(line string) {
	s.key, s.vars = append(s.key[:0], wholeLine...), append(s.vars[:0], line)
}

// gap makes line[a:b] a variable.
func (s *splitter) gap(kind storage.Gap, a, b int) {
	s.key = append(append(s.key, s.line[s.done:a]...), gapMark, byte(kind))
	s.vars = append(s.vars, s.line[a:b])
	s.done = b
}

// stamp cuts out a timestamp near the start of the line and returns where the rest begins.
func (s *splitter) stamp() int {
	if at := s.stampAt; at < len(s.line) && s.starts(at) {
		if n := matchStamp(s.line[at:]); n > 0 {
			s.words(0, at)
			s.gap(storage.GapTime, at, at+n)
			return at + n
		}
	}
	for i := range min(len(s.line), 64) {
		if c := s.line[i]; (c <= '9' && c >= '0' || c >= 'A' && c <= 'Z') && s.starts(i) {
			if n := matchStamp(s.line[i:]); n > 0 {
				s.stampAt = i
				s.words(0, i)
				s.gap(storage.GapTime, i, i+n)
				return i + n
			}
		}
	}
	return 0
}

// starts says whether a token may begin at i. A klog line has its letter right before the time.
func (s *splitter) starts(i int) bool {
	return i == 0 || s.class[s.line[i-1]]&isAlnum == 0 || i == 1 && strings.IndexByte("IWEFD", s.line[0]) >= 0
}

// json cuts a line that looks like a JSON object: keys are text, strings without blanks and escapes and numbers are
// variables, sentences are cut into words. Nothing depends on the line being valid.
func (s *splitter) json() {
	t := s.line
	for i := 0; i < len(t); {
		c := t[i]
		switch {
		case c == '"':
			j, mask, blank := i+1, byte(0), false
			for j < len(t) && t[j] != '"' {
				switch t[j] {
				case '\\':
					mask |= isControl // not one variable
					j++
				case ' ':
					blank = true
				default:
					mask |= s.class[t[j]]
				}
				j++
			}
			if j >= len(t) {
				s.words(i+1, len(t))
				return
			}
			k := j + 1
			for k < len(t) && t[k] == ' ' {
				k++
			}
			switch {
			case k < len(t) && t[k] == ':':
			case mask&isControl == 0 && mask&isDigit != 0 && j-i-1 <= maxStamp && matchStamp(t[i+1:j]) == j-i-1:
				s.gap(storage.GapTime, i+1, j)
			case mask&isControl == 0 && !blank:
				s.gap(storage.GapQuoted, i+1, j)
			default:
				s.words(i+1, j)
			}
			i = j + 1
		case c >= '0' && c <= '9' || c == '-':
			j := i + jsonNumber(t[i:])
			if j > i && i > 0 && strings.IndexByte(":,[ \t", t[i-1]) >= 0 && j < len(t) && strings.IndexByte(",]} \t", t[j]) >= 0 {
				s.gap(storage.GapNumber, i, j)
				i = j
				continue
			}
			for j = i + 1; j < len(t) && s.class[t[j]]&isDelim == 0; {
				j++
			}
			s.words(i, j)
			i = j
		default:
			i++
		}
	}
}

// jsonNumber returns how many bytes at the start of t are a number as JSON writes it, 0 when there is none.
func jsonNumber(t string) int {
	i := 0
	if i < len(t) && t[i] == '-' {
		i++
	}
	n := digits(t[i:])
	if n == 0 || n > 1 && t[i] == '0' {
		return 0
	}
	i += n
	if i < len(t) && t[i] == '.' {
		n := digits(t[i+1:])
		if n == 0 {
			return 0
		}
		i += 1 + n
	}
	if i < len(t) && (t[i] == 'e' || t[i] == 'E') {
		j := i + 1
		if j < len(t) && (t[j] == '+' || t[j] == '-') {
			j++
		}
		n := digits(t[j:])
		if n == 0 {
			return 0
		}
		i = j + n
	}
	return i
}

func digits(t string) int {
	for i := range len(t) {
		if t[i] < '0' || t[i] > '9' {
			return i
		}
	}
	return len(t)
}

// words cuts line[i:end] as free text: tokens with digits, paths, and values behind = become variables.
func (s *splitter) words(i, end int) {
	t := s.line[:end]
	for i < end {
		c := s.class[t[i]]
		if c&isDelim == 0 {
			a, mask := i, byte(0)
			for {
				mask |= c
				i++
				if i >= end {
					break
				}
				if c = s.class[t[i]]; c&isDelim != 0 {
					break
				}
			}
			if mask&(isDigit|isSlash) != 0 {
				s.chunk(a, i, mask)
			}
			continue
		}
		switch t[i] {
		case '\\': // an escape belongs to the text
			if i+1 < end && t[i+1] == 'u' {
				i += 4
			}
			i += 2
		case '=':
			i++
			if i >= 2 && s.class[t[i-2]]&isAlnum != 0 {
				i = s.value(i, end)
			}
		default:
			i++
		}
	}
}

// value cuts the unquoted value of a key that begins at i and returns where it ends.
func (s *splitter) value(i, end int) int {
	t := s.line
	if i >= end || strings.IndexByte("[({<'|;,", t[i]) >= 0 {
		return i
	}
	if t[i] == '"' {
		j := i + 1
		for j < end && t[j] != '"' && t[j] != '\\' && t[j] != ' ' && s.class[t[j]]&isControl == 0 {
			j++
		}
		if j < end && t[j] == '"' {
			s.gap(storage.GapQuoted, i+1, j)
			return j + 1
		}
		return i
	}
	j, mask := i, byte(0)
	for j < end && t[j] > ' ' && t[j] != '"' && t[j] != '\\' && t[j] != '=' && t[j] != 0x7f {
		mask |= s.class[t[j]]
		j++
	}
	b := j
	for b > i && strings.IndexByte(",;)]}>", t[b-1]) >= 0 {
		b--
	}
	if b == i || b-i <= 8 && mask&^(isHex|isAlpha) == 0 && levelKey(t[:i-1]) {
		return b
	}
	s.gap(storage.GapPlain, i, b)
	return b
}

// levelKey says whether t ends with a key whose few values are better text than a variable.
func levelKey(t string) bool {
	for _, k := range [...]string{"level", "lvl", "severity"} {
		if strings.HasSuffix(t, k) {
			return len(t) == len(k) || t[len(t)-len(k)-1] == ' '
		}
	}
	return false
}

// chunk cuts line[a:b], which holds no delimiter, but digits or a slash.
func (s *splitter) chunk(a, b int, mask byte) {
	t := s.line
	for s.class[t[a]]&isJoint != 0 {
		a++
	}
	for s.class[t[b-1]]&isJoint != 0 {
		b--
	}
	if mask&isSlash != 0 {
		s.gap(storage.GapPlain, a, b)
		return
	}
	if mask&isJoint == 0 {
		s.token(a, b, mask)
		return
	}
	// Tokens that are joined: one variable when one of them mixes letters and digits, else token by token.
	whole, dots, all := false, 0, true
	for i := a; i < b && !whole; {
		j, m := i, byte(0)
		for j < b && s.class[t[j]]&isJoint == 0 {
			m |= s.class[t[j]]
			j++
		}
		if m&isDigit != 0 && m&^isDigit != 0 {
			lead, trail, n := shape(t[i:j])
			whole = lead+trail == 0 || n != max(lead, trail) || m&(isAlpha|isHigh) == 0 && j-i >= 6
		}
		all = all && m == isDigit
		for j < b && s.class[t[j]]&isJoint != 0 {
			if t[j] == '.' {
				dots++
			}
			j++
		}
		i = j
	}
	if whole || all && dots == 3 {
		s.gap(storage.GapPlain, a, b)
		return
	}
	for i := a; i < b; {
		if s.class[t[i]]&isJoint != 0 {
			i++
			continue
		}
		j, m := i, byte(0)
		for j < b && s.class[t[j]]&isJoint == 0 {
			m |= s.class[t[j]]
			j++
		}
		if m&isDigit == 0 {
			i = j
			continue
		}
		if m == isDigit && j < b && t[j] == '.' { // 12.5 and 12.5ms
			if n := digits(t[j+1 : b]); n > 0 && (t[i] != '0' || j-i == 1) && (j+1+n == b || t[j+1+n] != '.') {
				s.gap(storage.GapNumber, i, j+1+n)
				i = j + 1 + n
				for i < b && s.class[t[i]]&isJoint == 0 && s.class[t[i]]&isDigit == 0 {
					i++ // the unit
				}
				continue
			}
		}
		s.token(i, j, m)
		i = j
	}
}

// shape returns how many digits t begins and ends with, and how many it has.
func shape(t string) (lead, trail, n int) {
	for i := range len(t) {
		if t[i] >= '0' && t[i] <= '9' {
			if n == i {
				lead++
			}
			n++
			trail++
		} else {
			trail = 0
		}
	}
	return lead, trail, n
}

// token cuts line[a:b], letters and digits of the classes in mask.
func (s *splitter) token(a, b int, mask byte) {
	if mask == isDigit {
		s.gap(storage.GapDigits, a, b)
		return
	}
	lead, trail, n := shape(s.line[a:b])
	hex := mask&(isAlpha|isHigh) == 0 && b-a >= 6
	switch {
	case hex:
		s.gap(storage.GapWord, a, b)
	case n == lead: // 45ms
		s.gap(storage.GapDigits, a, a+n)
	case n == trail: // v1
		s.gap(storage.GapDigits, b-n, b)
	case mask&isHigh != 0:
		s.gap(storage.GapPlain, a, b)
	default:
		s.gap(storage.GapWord, a, b)
	}
}
