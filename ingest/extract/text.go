package extract

import "bytes"

// isKeyByte says what a key of logfmt may have in it.
func isKeyByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c-'0' <= 9 || c == '_' || c == '.' || c == '-' || c == '/' || c == '@'
}

// startsLogfmt says whether the line begins with key=.
func startsLogfmt(b []byte) bool {
	for i, c := range b[:min(len(b), 64)] {
		if c == '=' {
			return i > 0
		}
		if !isKeyByte(c) {
			return false
		}
	}
	return false
}

// pairs reads a line of key=value. It is one when it has at least two pairs, and no more words than pairs.
func (p *Parser) pairs(b []byte, out *Fields) bool {
	found, words := 0, 0
	for i := 0; i < len(b); {
		if b[i] == ' ' || b[i] == '\t' {
			i++
			continue
		}
		start := i
		for i < len(b) && isKeyByte(b[i]) {
			i++
		}
		if i == start || i >= len(b) || b[i] != '=' { // a word
			for i < len(b) && b[i] != ' ' && b[i] != '\t' {
				i++
			}
			words++
			continue
		}
		key := b[start:i:i]
		i++
		var v Value
		if i < len(b) && b[i] == '"' {
			s := scanner{p: p, b: b, i: i, out: out}
			text, ok := s.text()
			if !ok {
				return false
			}
			v, i = Value{Kind: String, Bytes: text}, s.i
		} else {
			start = i
			for i < len(b) && b[i] != ' ' && b[i] != '\t' {
				i++
			}
			v = bare(b[start:i:i])
		}
		found++
		p.add(out, key, v)
	}
	if found < 2 || words > found {
		return false
	}
	p.finish(out)
	return true
}

// bare reads a value without quotes.
func bare(b []byte) Value {
	switch {
	case string(b) == "true":
		return Value{Kind: Bool, Bool: true, Bytes: b}
	case string(b) == "false":
		return Value{Kind: Bool, Bytes: b}
	case len(b) > 0 && len(b) <= 20 && (b[0]-'0' <= 9 || b[0] == '-'):
		whole := true
		for _, c := range b[1:] {
			if c == '.' {
				whole = false
			} else if c-'0' > 9 {
				return Value{Kind: String, Bytes: b}
			}
		}
		if v, ok := number(b, whole); ok {
			return v
		}
	}
	return Value{Kind: String, Bytes: b}
}

// isKlog says whether the line begins as Kubernetes' own components write: I0131 14:05:05.123456.
func isKlog(b []byte) bool {
	const like = "I0131 14:05:05.123456 "
	if len(b) < len(like) || b[0] != 'I' && b[0] != 'W' && b[0] != 'E' && b[0] != 'F' {
		return false
	}
	for i := 1; i < len(like); i++ {
		if digit := like[i]-'0' <= 9; digit && b[i]-'0' > 9 || !digit && b[i] != like[i] {
			return false
		}
	}
	return true
}

// klog reads I0131 14:05:05.123456   7 file.go:1] message. The time has no year and is left to the container runtime's.
func (p *Parser) klog(b []byte, out *Fields) {
	out.Severity, out.SeverityText = severityOf(b[:1]), b[:1:1]
	head, msg, ok := bytes.Cut(b, []byte("] "))
	if !ok {
		return
	}
	out.Message = msg
	rest := head[len("I0131 14:05:05.123456 "):]
	thread, caller, ok := bytes.Cut(bytes.TrimLeft(rest, " "), []byte(" "))
	if !ok {
		return
	}
	p.add(out, p.name("thread.id"), bare(thread))
	p.add(out, p.name("caller"), Value{Kind: String, Bytes: caller})
}

// name puts a key into the scratch buffer.
func (p *Parser) name(key string) []byte {
	start := len(p.scratch)
	p.scratch = append(p.scratch, key...)
	return p.scratch[start:len(p.scratch):len(p.scratch)]
}
