package extract

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strconv"
)

func isRange(err error) bool { return errors.Is(err, strconv.ErrRange) }

// severityOf returns the number in OpenTelemetry of a level by its name, or 0.
func severityOf(name []byte) int {
	var low [16]byte
	if len(name) == 0 || len(name) > len(low) {
		return 0
	}
	for i, c := range name {
		if c-'A' <= 'Z'-'A' {
			c += 'a' - 'A'
		}
		low[i] = c
	}
	switch string(low[:len(name)]) {
	case "trace", "trc", "finest", "verbose", "vrb":
		return 1
	case "finer":
		return 3
	case "debug", "dbg", "d", "fine":
		return 5
	case "config":
		return 8
	case "info", "information", "informational", "inf", "i":
		return 9
	case "notice":
		return 10
	case "warn", "warning", "wrn", "w":
		return 13
	case "error", "err", "e", "severe":
		return 17
	case "critical", "crit", "dpanic":
		return 18
	case "alert":
		return 19
	case "fatal", "ftl", "f", "panic", "emergency", "emerg":
		return 21
	default:
		return 0
	}
}

// severityOfNumber returns the number in OpenTelemetry of a numeric level: 10 to 60 of pino and bunyan, 0 to 7 of
// syslog, -1 of zap.
func severityOfNumber(n int64) int {
	switch {
	case n == -1:
		return 5
	case n >= 0 && n <= 7:
		return [...]int{21, 19, 18, 17, 13, 10, 9, 5}[n]
	case n >= 10 && n < 70:
		return [...]int{1, 5, 9, 13, 17, 21}[n/10-1]
	default:
		return 0
	}
}

func level(v Value) (severity int, text []byte) {
	switch v.Kind {
	case Int:
		severity = severityOfNumber(v.Int)
	case String:
		severity = severityOf(bytes.TrimSpace(v.Bytes))
		if severity == 0 && len(v.Bytes) > 0 && len(v.Bytes) <= 2 {
			if n, err := strconv.ParseInt(string(v.Bytes), 10, 8); err == nil {
				severity = severityOfNumber(n)
			}
		}
	case Float, Bool, JSON:
	}
	if severity == 0 {
		return 0, nil
	}
	return severity, v.Bytes
}

// levelInText looks for a level in the first 80 bytes of plain text: a word in capitals, or one in brackets or before a
// colon.
func levelInText(b []byte) (severity int, text []byte) {
	b = b[:min(len(b), 80)]
	letter := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
	for i := 0; i < len(b); {
		if !letter(b[i]) {
			i++
			continue
		}
		start, capitals := i, true
		for i < len(b) && letter(b[i]) {
			capitals = capitals && b[i] <= 'Z'
			i++
		}
		word := b[start:i:i]
		if len(word) < 3 || len(word) > 13 || start > 0 && (b[start-1] == '_' || b[start-1]-'0' <= 9) {
			continue
		}
		marked := i < len(b) && (b[i] == ':' || b[i] == ']' || b[i] == '>' || b[i] == '|') ||
			start > 0 && (b[start-1] == '[' || b[start-1] == '<')
		if !capitals && !marked {
			continue
		}
		if s := severityOf(word); s > 0 {
			return s, word
		}
	}
	return 0, nil
}

// time reads RFC 3339, also with a space, a comma, or without a zone (taken for UTC), and seconds, milliseconds,
// microseconds or nanoseconds since 1970, told apart by their size.
func (p *Parser) time(v Value) (int64, bool) {
	switch v.Kind {
	case Int, Float:
		return epoch(v.Bytes)
	case Bool, JSON:
		return 0, false
	case String:
	}
	b := v.Bytes
	if ns, n, ok := p.clock.Read(b); ok && n == len(b) {
		return ns, ns != 0
	}
	if len(b) < len("2006-01-02 15:04:05") || len(b) > 40 {
		return epoch(b)
	}
	if b[4] != '-' || b[10] != ' ' && b[10] != 'T' {
		return epoch(b)
	}
	var buf [48]byte
	w := append(buf[:0], b...)
	w[10] = 'T'
	if len(w) > 19 && w[19] == ',' {
		w[19] = '.'
	}
	switch n := len(w); {
	case w[n-1] == 'Z':
	case w[n-3] == ':' && (w[n-6] == '+' || w[n-6] == '-'):
	case w[n-5] == '+' || w[n-5] == '-' && n > 19: // +0200
		w = append(w, 0)
		copy(w[n-1:], w[n-2:n])
		w[n-2] = ':'
	default:
		w = append(w, 'Z')
	}
	ns, n, ok := p.clock.Read(w)
	return ns, ok && n == len(w) && ns != 0
}

// epoch reads a number of units since 1970.
func epoch(b []byte) (int64, bool) {
	whole, frac, _ := bytes.Cut(b, []byte("."))
	if len(whole) < 9 || len(whole) > 19 {
		if f, err := strconv.ParseFloat(string(b), 64); err == nil && len(b) <= 32 && f >= 1e8 && f < 1e11 { // 1.7e9
			return int64(math.Round(f*1e6)) * 1000, true // what a float still tells apart
		}
		return 0, false
	}
	var n int64
	for _, c := range whole {
		if c-'0' > 9 || n > (math.MaxInt64-9)/10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	unit := int64(1)
	switch {
	case n < 1e11:
		unit = 1e9
	case n < 1e14:
		unit = 1e6
	case n < 1e17:
		unit = 1e3
	}
	if n > math.MaxInt64/unit-1 || n < 1e8 {
		return 0, false
	}
	ns := n * unit
	for _, c := range frac {
		if c-'0' > 9 {
			return 0, false
		}
		unit /= 10
		ns += int64(c-'0') * unit
	}
	return ns, true
}

// traceID reads 32 or 16 hex digits, or a decimal number.
func traceID(v Value, decimal bool) (id [16]byte, ok bool) {
	b := v.Bytes
	if v.Kind != String && (v.Kind != Int && v.Kind != Float || !decimal) {
		return id, false
	}
	if i := bytes.LastIndexByte(b, '/'); i >= 0 { // projects/x/traces/id
		b = b[i+1:]
	}
	if decimal && len(b) <= 20 {
		if n, err := strconv.ParseUint(string(b), 10, 64); err == nil {
			binary.BigEndian.PutUint64(id[8:], n)
			return id, n != 0
		}
	}
	switch len(b) {
	case 32:
		ok = hex(id[:], b)
	case 16:
		ok = hex(id[8:], b)
	}
	if !ok {
		return [16]byte{}, false
	}
	return id, id != [16]byte{}
}

func spanID(v Value, decimal bool) (id [8]byte, ok bool) {
	b := v.Bytes
	if v.Kind != String && (v.Kind != Int && v.Kind != Float || !decimal) {
		return id, false
	}
	if decimal && len(b) <= 20 {
		if n, err := strconv.ParseUint(string(b), 10, 64); err == nil {
			binary.BigEndian.PutUint64(id[:], n)
			return id, n != 0
		}
	}
	if len(b) != 16 || !hex(id[:], b) {
		return [8]byte{}, false
	}
	return id, id != [8]byte{}
}

// traceparent reads the header of W3C: version-trace-span-flags.
func traceparent(b []byte) (trace [16]byte, span [8]byte, ok bool) {
	if len(b) < 55 || b[2] != '-' || b[35] != '-' || b[52] != '-' {
		return trace, span, false
	}
	if !hex(trace[:], b[3:35]) || !hex(span[:], b[36:52]) || trace == [16]byte{} || span == [8]byte{} {
		return [16]byte{}, [8]byte{}, false
	}
	return trace, span, true
}

func hex(dst, b []byte) bool {
	for i := range dst {
		hi, ok1 := nibble(b[2*i])
		lo, ok2 := nibble(b[2*i+1])
		if !ok1 || !ok2 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}
