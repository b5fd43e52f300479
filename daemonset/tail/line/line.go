// Package line reads one line of a container log: the text format of the CRI (containerd, CRI-O), the JSON lines of
// docker's json-file driver, or a line that is nothing but its text.
//
// It works on bytes in place and allocates nothing. Input is hostile: whatever the bytes, a line comes out, and the
// next line is not affected.
package line

import (
	"bytes"

	"github.com/braidobs/braid/ingest/stamp"
)

// Format is how the lines of a file are written.
type Format uint8

// The formats.
const (
	Raw    Format = iota // text
	CRI                  // 2026-01-02T15:04:05.123456789Z stdout F text
	Docker               // {"log":"text\n","stream":"stdout","time":"2026-01-02T15:04:05.123456789Z"}
)

// String returns the name of the format as the configuration has it.
func (f Format) String() string {
	switch f {
	case CRI:
		return "cri"
	case Docker:
		return "docker"
	case Raw:
		return "raw"
	default:
		return "unknown"
	}
}

// Line is what a line says.
type Line struct {
	Body []byte // a part of what was parsed
	Time int64  // Unix nanoseconds; 0 when the line has none, or one outside the years 1678 to 2262
	// Skipped is how many bytes in front of the header were not readable: what was left of an earlier line.
	Skipped int
	Stderr  bool
	Partial bool // the next line of the same output goes on with the text
	Torn    bool // the line did not begin with a header, see Parser.Parse
}

// Parser reads lines. It keeps the last date it has seen, so each stream needs its own for the best speed; the
// result does not depend on it. The zero value is ready.
type Parser struct {
	clock stamp.Parser
}

// Detect tells the format of a file from its first bytes: those up to the first newline, or the first 256 when there
// is none among them.
func Detect(head []byte) (f Format, ok bool) {
	var p Parser
	var l Line
	if p.header(head, &l) {
		return CRI, true
	}
	if bytes.HasPrefix(head, []byte(dockerStart)) {
		return Docker, true
	}
	return Raw, false
}

// Parse reads the line b, which is without its newline. It writes over b when text of JSON has to be unescaped.
//
// A line of the CRI or of docker that does not begin with a header (the runtime was cut off in the middle of a
// write, or the file was truncated) is torn: it is read from the last valid header in it. One without any is its own
// text.
func (p *Parser) Parse(f Format, b []byte) Line {
	var l Line
	switch f {
	case CRI:
		if p.header(b, &l) {
			return l
		}
		return p.resyncCRI(b)
	case Docker:
		if p.docker(b, &l) {
			return l
		}
		return p.resyncDocker(b)
	case Raw:
	}
	l.Body = trimCR(b)
	return l
}

// trimCR takes the carriage return before the newline away, as the runtimes do.
func trimCR(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\r' {
		return b[:n-1]
	}
	return b
}
