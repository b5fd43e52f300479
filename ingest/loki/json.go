package loki

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/ingest/extract"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
)

// errText is the error of a text that stops being JSON of the shape it should have.
var errText = errors.New("unexpected text")

// maxDepth is how deep members may nest that mean nothing here.
const maxDepth = 64

// scanner walks over JSON.
type scanner struct {
	s     string
	i     int
	arena []byte // texts with escapes; it never grows beyond its capacity
}

// json decodes a push request: {"streams":[{"stream":{...},"values":[["nanoseconds","line",{...}]]}]}.
func (d *decoder) json(body string) error {
	s := &scanner{s: body}
	err := s.object(func(key string) error {
		if key != "streams" {
			return s.skip(0)
		}
		return s.array(func() error { return d.jsonStream(s) })
	})
	if s.space(); err == nil && s.i != len(body) {
		err = errText
	}
	if errors.Is(err, errText) {
		return httpapi.BadDataf("the request is not JSON of the form {\"streams\":[{\"stream\":{...},\"values\":[[...]]}]} at byte %d", s.i)
	}
	return err
}

// jsonStream reads a stream. Its labels may stand behind its values, so both are stepped over first.
func (d *decoder) jsonStream(s *scanner) error {
	set, values, n := "", -1, 0
	err := s.object(func(key string) error {
		s.space()
		start := s.i
		switch key {
		case "stream":
			err := s.object(func(string) error { _, err := s.text(); return err })
			set = s.s[start:s.i]
			return err
		case "values":
			values = start
			return s.array(func() error { n++; return s.skip(0) })
		default:
			return s.skip(0)
		}
	})
	if err != nil || n == 0 {
		return err
	}
	if err := d.room.Take(n, 0); err != nil {
		return err
	}
	end := s.i
	batch := d.stream(set, n, d.jsonLabels)
	if batch == nil {
		return nil
	}
	s.i = values
	err = s.array(func() error {
		r, ok, err := d.jsonEntry(s)
		if ok {
			batch.Logs = append(batch.Logs, r)
		}
		return err
	})
	if err == nil {
		s.i = end
	}
	return err
}

// jsonLabels adds the labels of an object to d.labels.
func (d *decoder) jsonLabels(text string) error {
	s := &scanner{s: text}
	if text == "" {
		return nil
	}
	return s.object(func(key string) error {
		if nameLen(key) != len(key) || key == "" {
			return fmt.Errorf("%q is no name of a label", shown(key))
		}
		value, err := s.text()
		d.labels = append(d.labels, labels.Label{Name: key, Value: value})
		return err
	})
}

// jsonEntry reads ["nanoseconds", "line", {metadata}].
func (d *decoder) jsonEntry(s *scanner) (r telemetry.LogRecord, ok bool, err error) {
	var as []telemetry.Attr
	n := 0
	stamp := ""
	err = s.array(func() error {
		n++
		switch n {
		case 1:
			if s.peek() == '"' {
				stamp, err = s.text()
				return err
			}
			s.space()
			start := s.i
			if err := s.skip(0); err != nil {
				return err
			}
			stamp = s.s[start:s.i]
			return nil
		case 2:
			line, err := s.text()
			r.Body = telemetry.String(line)
			return err
		case 3:
			return s.object(func(key string) error {
				value, err := s.text()
				as = append(as, telemetry.Attr{Key: key, Value: telemetry.String(value)})
				if err != nil {
					return err
				}
				return d.room.Take(0, 64)
			})
		default:
			return s.skip(0)
		}
	})
	if err != nil {
		return r, false, err
	}
	if n < 2 {
		return r, false, errText
	}
	if r.Time, err = strconv.ParseInt(stamp, 10, 64); err != nil {
		d.refuse(reasonTime, 1, "the time %q of an entry is not a number of nanoseconds", shown(stamp))
		return r, false, nil
	}
	r.Attrs = meta(as)
	return r, true, nil
}

func (s *scanner) space() {
	for s.i < len(s.s) && (s.s[s.i] == ' ' || s.s[s.i] == '\t' || s.s[s.i] == '\n' || s.s[s.i] == '\r') {
		s.i++
	}
}

// peek returns the next byte that is no space, 0 at the end.
func (s *scanner) peek() byte {
	if s.space(); s.i < len(s.s) {
		return s.s[s.i]
	}
	return 0
}

func (s *scanner) next(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

// object calls member in front of the value of each member, which it must read.
func (s *scanner) object(member func(key string) error) error {
	if !s.next('{') {
		return errText
	}
	if s.next('}') {
		return nil
	}
	for {
		key, err := s.text()
		if err != nil {
			return err
		}
		if !s.next(':') {
			return errText
		}
		if err := member(key); err != nil {
			return err
		}
		if s.next('}') {
			return nil
		}
		if !s.next(',') {
			return errText
		}
	}
}

// array calls element in front of each element, which it must read.
func (s *scanner) array(element func() error) error {
	if !s.next('[') {
		return errText
	}
	if s.next(']') {
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if s.next(']') {
			return nil
		}
		if !s.next(',') {
			return errText
		}
	}
}

// quoted steps over a string and returns what is between its quotes, and whether it has escapes.
func (s *scanner) quoted() (in string, escaped bool, err error) {
	if !s.next('"') {
		return "", false, errText
	}
	start := s.i
	for {
		n := strings.IndexByte(s.s[s.i:], '"')
		if n < 0 {
			return "", false, errText
		}
		s.i += n
		slashes := 0
		for s.i-1-slashes >= start && s.s[s.i-1-slashes] == '\\' {
			slashes++
		}
		s.i++
		if slashes%2 == 0 {
			in = s.s[start : s.i-1]
			return in, strings.IndexByte(in, '\\') >= 0, nil
		}
	}
}

// text reads a string.
func (s *scanner) text() (string, error) {
	in, escaped, err := s.quoted()
	if err != nil || !escaped {
		return in, err
	}
	if s.arena == nil {
		s.arena = make([]byte, 0, len(s.s))
	}
	if cap(s.arena)-len(s.arena) < len(in) { // what is read twice
		s.arena = make([]byte, 0, len(s.s))
	}
	start := len(s.arena)
	out, ok := extract.Unescape(s.arena, unsafe.Slice(unsafe.StringData(in), len(in)))
	if !ok {
		return "", errText
	}
	s.arena = out
	return unsafe.String(unsafe.SliceData(out[start:]), len(out)-start), nil // nothing writes there again
}

// skip steps over a value.
func (s *scanner) skip(depth int) error {
	if depth > maxDepth {
		return errText
	}
	switch s.peek() {
	case '"':
		_, _, err := s.quoted()
		return err
	case '{':
		s.i++
		if s.next('}') {
			return nil
		}
		for {
			if _, _, err := s.quoted(); err != nil {
				return err
			}
			if !s.next(':') {
				return errText
			}
			if err := s.skip(depth + 1); err != nil {
				return err
			}
			if s.next('}') {
				return nil
			}
			if !s.next(',') {
				return errText
			}
		}
	case '[':
		return s.array(func() error { return s.skip(depth + 1) })
	default:
		start := s.i
		for s.i < len(s.s) && strings.IndexByte("+-.0123456789abcdefghijklmnopqrstuvwxyzE", s.s[s.i]) >= 0 {
			s.i++
		}
		if s.i == start {
			return errText
		}
		return nil
	}
}
