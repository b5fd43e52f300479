package lines

import (
	"fmt"

	"github.com/braidobs/braid/storage"
)

// Templates is the templates of the segments of a part, each once. It is for one goroutine; what Add returns is for any
// number of them.
type Templates struct {
	all     []*storage.Template
	keys    []string
	numbers map[string]uint32
}

// Numbering is the templates of one segment, and which of the part's they are.
type Numbering struct {
	List []*storage.Template // of the segment, by their numbers in it
	all  []*storage.Template // of the part, as far as they were known
	keys []string            // their encoded forms
	of   []uint32            // by number in the segment: the number in all
	in   []int32             // the other way round, from 1; 0 is none
}

// Add parses the encoded templates of a segment. Equal ones are one for all segments.
func (t *Templates) Add(keys []string) (*Numbering, error) {
	if t.numbers == nil {
		t.numbers = make(map[string]uint32)
	}
	n := &Numbering{List: make([]*storage.Template, len(keys)), of: make([]uint32, len(keys))}
	for i, k := range keys {
		at, known := t.numbers[k]
		if !known {
			p, err := ParseTemplate(k)
			if err != nil {
				return nil, fmt.Errorf("template %d: %w", i, err)
			}
			at = uint32(len(t.all))
			t.all, t.keys = append(t.all, p), append(t.keys, k)
			t.numbers[k] = at
		}
		n.List[i], n.of[i] = t.all[at], at
	}
	n.all, n.keys = t.all, t.keys
	n.in = make([]int32, len(t.all))
	for i, at := range n.of {
		n.in[at] = int32(i + 1)
	}
	return n, nil
}

// local returns the number in the segment of a template of the part.
func (n *Numbering) local(template uint32) (uint32, bool) {
	switch {
	case n == nil:
		return template, true
	case int(template) >= len(n.in) || n.in[template] == 0:
		return 0, false
	default:
		return uint32(n.in[template] - 1), true
	}
}
