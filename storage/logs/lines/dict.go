package lines

import (
	"errors"
	"fmt"
	"strings"

	"github.com/braidobs/braid/storage"
)

// Limits of templates.
const (
	// MaxGaps bounds the gaps of one template.
	MaxGaps = 256
	// MaxTemplate bounds the encoded form of one template.
	MaxTemplate = 8 << 10
	// MaxTemplates bounds the templates of a part.
	MaxTemplates = 1 << 16
	// maxDictBytes bounds the encoded forms of the templates of a part.
	maxDictBytes = 16 << 20
	// maxOnce bounds the templates that were met in one block only.
	maxOnce = 1 << 16
)

// gapMark stands before the kind of a gap in the encoded form of a template. Text never holds it.
const gapMark = 0

// wholeLine is the encoded template of lines that are kept as they are.
const wholeLine = "\x00\x00"

// Dict is the templates of one part while it is written, numbered from 0. It is for one goroutine.
type Dict struct {
	numbers map[string]uint32
	keys    []string
	bytes   int
	once    map[uint64]struct{} // hashes of templates that one line had so far
}

// NewDict returns a dictionary with the template of whole lines.
func NewDict() *Dict {
	return &Dict{
		numbers: map[string]uint32{wholeLine: 0},
		keys:    []string{wholeLine},
		once:    make(map[uint64]struct{}),
	}
}

// Templates returns the encoded forms in the order of their numbers, for ParseTemplate. They are valid until the dictionary is
// changed.
func (d *Dict) Templates() []string { return d.keys }

// Bytes returns the bytes of the encoded forms.
func (d *Dict) Bytes() int { return d.bytes }

// add returns the number of a template; false when it is new and there is no room.
func (d *Dict) add(key string) (uint32, bool) {
	if n, ok := d.numbers[key]; ok {
		return n, true
	}
	if len(d.keys) >= MaxTemplates || d.bytes+len(key) > maxDictBytes {
		return 0, false
	}
	key = strings.Clone(key)
	n := uint32(len(d.keys))
	d.numbers[key] = n
	d.keys = append(d.keys, key)
	d.bytes += len(key)
	return n, true
}

// again says whether a template that one line of a block has was met in another block, and remembers it.
func (d *Dict) again(key string) bool {
	h := hashString(key)
	if _, ok := d.once[h]; ok {
		return true
	}
	if len(d.once) < maxOnce {
		d.once[h] = struct{}{}
	}
	return false
}

// AppendTemplate appends the encoded form of t: its text, with a zero byte and the kind for each gap.
func AppendTemplate(dst []byte, t *storage.Template) []byte {
	for i, text := range t.Text {
		dst = append(dst, text...)
		if i < len(t.Gaps) {
			dst = append(dst, gapMark, byte(t.Gaps[i]))
		}
	}
	return dst
}

// ParseTemplate parses what AppendTemplate wrote. The template refers to s.
func ParseTemplate(s string) (*storage.Template, error) {
	if len(s) > MaxTemplate {
		return nil, fmt.Errorf("a template of %d bytes is larger than %d", len(s), MaxTemplate)
	}
	n := strings.Count(s, "\x00") // an upper bound: the kind of a gap may be zero, too
	if n > 2*MaxGaps {
		return nil, fmt.Errorf("a template has more than %d gaps", MaxGaps)
	}
	t := &storage.Template{Text: make([]string, 0, n+1), Gaps: make([]storage.Gap, 0, n)}
	whole := s == wholeLine
	for {
		i := strings.IndexByte(s, gapMark)
		if i < 0 {
			t.Text = append(t.Text, s)
			return t, nil
		}
		if i+1 >= len(s) {
			return nil, errors.New("a template ends within a gap")
		}
		g := storage.Gap(s[i+1])
		if g > storage.GapTime || g == storage.GapLine && !whole {
			return nil, fmt.Errorf("a template has a gap of kind %d", g)
		}
		if len(t.Gaps) == MaxGaps {
			return nil, fmt.Errorf("a template has more than %d gaps", MaxGaps)
		}
		t.Text, t.Gaps = append(t.Text, s[:i]), append(t.Gaps, g)
		s = s[i+2:]
	}
}
