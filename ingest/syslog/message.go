package syslog

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/braidobs/braid/ingest/stamp"
	"github.com/braidobs/braid/internal/telemetry"
)

// message is what one message says. What is empty was not told.
type message struct {
	priority            int   // facility * 8 + severity; -1 when there is none
	time                int64 // Unix nanoseconds; 0 when there is none
	host, app           string
	procID, msgID, body string
	data                []telemetry.Attr
}

// parser reads messages of RFC 5424 and RFC 3164. It is not for concurrent use.
type parser struct{ clock stamp.Parser }

// parse reads a message. Whatever the bytes, a message comes out: where they are not what the standards say, the rest is
// the body. Times without a year or a zone are the latest ones before tomorrow in the zone of now.
func (p *parser) parse(b []byte, now time.Time) message {
	m := message{priority: -1}
	rest, ok := priority(b, &m)
	if ok && bytes.HasPrefix(rest, []byte("1 ")) && p.rfc5424(rest[2:], &m) {
		return m
	}
	m = message{priority: m.priority}
	p.rfc3164(rest, &m, now)
	return m
}

// priority reads <134>.
func priority(b []byte, m *message) (rest []byte, ok bool) {
	if len(b) < 3 || b[0] != '<' {
		return b, false
	}
	n := 0
	for i := 1; i < len(b) && i < 5; i++ {
		if b[i] == '>' && i > 1 && n < 192 {
			m.priority = n
			return b[i+1:], true
		}
		if b[i]-'0' > 9 {
			return b, false
		}
		n = n*10 + int(b[i]-'0')
	}
	return b, false
}

// word returns what stands before the first space; in RFC 5424 a - says that there is nothing.
func word(b []byte) (w, rest []byte, ok bool) {
	w, rest, ok = bytes.Cut(b, []byte(" "))
	if string(w) == "-" {
		w = nil
	}
	return w, rest, ok
}

// text returns a copy that is valid UTF-8.
func text(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

// rfc5424 reads TIMESTAMP HOST APP PROCID MSGID DATA MESSAGE.
func (p *parser) rfc5424(b []byte, m *message) bool {
	at, b, ok := word(b)
	if !ok {
		return false
	}
	if at != nil {
		ns, n, ok := p.clock.Read(at)
		if !ok || n != len(at) {
			return false
		}
		m.time = ns
	}
	for _, into := range []*string{&m.host, &m.app, &m.procID, &m.msgID} {
		var w []byte
		if w, b, ok = word(b); !ok {
			return false
		}
		*into = text(w)
	}
	if b, ok = structured(b, m); !ok {
		return false
	}
	b = bytes.TrimPrefix(b, []byte(" "))
	m.body = string(bytes.TrimPrefix(b, []byte("\uFEFF")))
	return true
}

// structured reads - or [id name="value" ...][...].
func structured(b []byte, m *message) (rest []byte, ok bool) {
	if len(b) > 0 && b[0] == '-' {
		return b[1:], len(b) == 1 || b[1] == ' '
	}
	if len(b) == 0 || b[0] != '[' {
		return b, false
	}
	for len(b) > 0 && b[0] == '[' {
		end := bytes.IndexAny(b, " ]")
		if end <= 1 {
			return b, false
		}
		id := text(b[1:end])
		for b = b[end:]; ; {
			b = bytes.TrimLeft(b, " ")
			if len(b) == 0 {
				return b, false
			}
			if b[0] == ']' {
				b = b[1:]
				break
			}
			name, after, found := bytes.Cut(b, []byte(`="`))
			if !found || len(name) == 0 || bytes.ContainsAny(name, " ]\"") {
				return b, false
			}
			value, after, found := quoted(after)
			if !found {
				return b, false
			}
			m.data = append(m.data, telemetry.Attr{Key: id + "." + text(name), Value: telemetry.String(value)})
			b = after
		}
	}
	return b, true
}

// quoted reads up to a quote that has no backslash before it.
func quoted(b []byte) (value string, rest []byte, ok bool) {
	var out []byte
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '"':
			return text(out), b[i+1:], true
		case b[i] == '\\' && i+1 < len(b) && (b[i+1] == '"' || b[i+1] == '\\' || b[i+1] == ']'):
			i++
			out = append(out, b[i])
		default:
			out = append(out, b[i])
		}
	}
	return "", nil, false
}

// rfc3164 reads Jan  2 15:04:05 HOST TAG[PID]: MESSAGE, also with a time of RFC 3339 or with a year.
func (p *parser) rfc3164(b []byte, m *message, now time.Time) {
	m.body = string(b)
	var rest []byte
	if ns, n, ok := p.clock.Read(b); ok {
		m.time, rest = ns, b[n:]
	} else if at, n, ok := bsdTime(b, now); ok {
		m.time, rest = at.UnixNano(), b[n:]
	} else {
		return
	}
	rest = bytes.TrimPrefix(rest, []byte(":")) // as Cisco has it
	rest = bytes.TrimLeft(rest, " ")
	m.body = string(rest)
	host, after, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return
	}
	if !isTag(host) {
		m.host, rest = text(host), after
		m.body = string(rest)
	}
	tag, after, ok := bytes.Cut(rest, []byte(":"))
	if !ok || !isTag(append(slices.Clip(tag), ':')) {
		return
	}
	m.body = string(bytes.TrimPrefix(after, []byte(" ")))
	app, pid, ok := bytes.Cut(tag, []byte("["))
	m.app = text(app)
	if ok {
		m.procID = text(bytes.TrimSuffix(pid, []byte("]")))
	}
}

// isTag says whether a word is app: or app[12]: and no host.
func isTag(w []byte) bool {
	w, ok := bytes.CutSuffix(w, []byte(":"))
	if !ok || len(w) == 0 || len(w) > 128 {
		return false
	}
	for i, c := range w {
		switch {
		case c|0x20 >= 'a' && c|0x20 <= 'z', c-'0' <= 9, c == '_', c == '-', c == '.', c == '/', c == '%', c == '(', c == ')':
		case c == '[' && i > 0, c == ']' && i == len(w)-1:
		default:
			return false
		}
	}
	return true
}

// bsdTime reads Jan  2 15:04:05, also with a fraction or a year before or after the time of day, and returns how many bytes it has.
func bsdTime(b []byte, now time.Time) (at time.Time, n int, ok bool) {
	for _, layout := range []string{"Jan _2 15:04:05", "Jan _2 2006 15:04:05", "2006 Jan _2 15:04:05"} {
		if len(b) < len(layout) {
			continue
		}
		at, err := time.ParseInLocation(layout, string(b[:len(layout)]), now.Location())
		if err != nil {
			continue
		}
		n = len(layout)
		if n+1 < len(b) && b[n] == '.' && b[n+1]-'0' <= 9 {
			n++
			for unit := 100 * time.Millisecond; n < len(b) && b[n]-'0' <= 9; n++ {
				at = at.Add(time.Duration(b[n]-'0') * unit)
				unit /= 10
			}
		}
		if at.Year() == 0 {
			limit := now.Add(24 * time.Hour)
			at = at.AddDate(limit.Year(), 0, 0)
			if at.After(limit) {
				at = at.AddDate(-1, 0, 0)
			}
		}
		return at, n, true
	}
	return time.Time{}, 0, false
}

// severity returns the number in OpenTelemetry and the keyword of a severity.
func (m *message) severity() (n uint8, keyword string) {
	if m.priority < 0 {
		return 0, ""
	}
	keywords := [...]string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}
	return [...]uint8{21, 19, 18, 17, 13, 10, 9, 5}[m.priority%8], keywords[m.priority%8]
}

// facility returns the keyword of the facility.
func (m *message) facility() string {
	if m.priority < 0 {
		return ""
	}
	return [...]string{
		"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit", "console", "cron2",
		"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
	}[m.priority/8]
}
