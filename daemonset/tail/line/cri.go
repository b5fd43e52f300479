package line

import "bytes"

// minStamp and maxStamp are the lengths of 2026-01-02T15:04:05Z and of one with nanoseconds and an offset.
const (
	minStamp = len("2006-01-02T15:04:05Z")
	maxStamp = len("2006-01-02T15:04:05.999999999+07:00")
)

// header reads a line that begins with a header of the CRI.
func (p *Parser) header(b []byte, l *Line) bool {
	ns, n, ok := p.clock.Read(b)
	if !ok || len(b) < n+len(" stdout F") {
		return false
	}
	switch rest := b[n:]; {
	case string(rest[:8]) == " stdout ":
		l.Stderr = false
	case string(rest[:8]) == " stderr ":
		l.Stderr = true
	default:
		return false
	}
	n += 8
	switch b[n] {
	case 'F':
		l.Partial = false
	case 'P':
		l.Partial = true
	default:
		return false
	}
	n++
	if n < len(b) && b[n] == ':' { // more tags
		end := bytes.IndexByte(b[n:], ' ')
		if end < 0 {
			end = len(b) - n
		}
		n += end
	}
	switch {
	case n == len(b): // some versions of conmon end an empty line without the space
	case b[n] == ' ':
		n++
	default:
		return false
	}
	l.Time = ns
	l.Body = b[n:]
	return true
}

// resyncCRI reads a line from the last header in it.
func (p *Parser) resyncCRI(b []byte) Line {
	for rest := b; ; {
		i := bytes.LastIndex(rest, []byte(" std"))
		if i < 0 {
			return Line{Body: trimCR(b), Torn: true}
		}
		for n := minStamp; n <= maxStamp && n <= i; n++ {
			at := b[i-n:]
			if at[4] != '-' || at[10] != 'T' {
				continue
			}
			var l Line
			if _, got, ok := p.clock.Read(at); ok && got == n && p.header(at, &l) {
				l.Torn, l.Skipped = true, i-n
				return l
			}
		}
		rest = rest[:i]
	}
}
