package columns

import (
	"encoding/binary"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/schema"

	"github.com/braidobs/braid/internal/telemetry"
)

// pair takes the first label off the canonical bytes of a label set. end is where its value ends; ok is false when the
// bytes are not canonical.
func pair(s string) (name, value string, end int, ok bool) {
	name, at, ok := text(s, 0)
	if !ok {
		return "", "", 0, false
	}
	value, at, ok = text(s, at)
	return name, value, at, ok
}

// text reads one string with its length before it.
func text(s string, at int) (t string, end int, ok bool) {
	if at < len(s) && s[at] < 0x80 {
		end = at + 1 + int(s[at])
		if end > len(s) {
			return "", 0, false
		}
		return s[at+1 : end], end, true
	}
	var long [binary.MaxVarintLen64]byte
	n, w := binary.Uvarint(long[:copy(long[:], s[min(at, len(s)):])])
	if w <= 0 || n > uint64(len(s)-at-w) {
		return "", 0, false
	}
	end = at + w + int(n)
	return s[at+w : end], end, true
}

// grouping tells which labels of a series are those of its group.
type grouping struct {
	names   []string // sorted
	without bool
	all     bool // each series is its own group: the labels as they are, but for the name if drop is set
	drop    bool // the metric's name is gone before the grouping
}

// lastMeta is the last name that is metadata.
const lastMeta = model.MetricUnitLabel

// appendKey appends the canonical bytes of the labels of s's group. meta is set when the labels hold metadata that
// functions drop together with the name; ok is false when s is not canonical.
func (g *grouping) appendKey(dst []byte, s string) (key []byte, meta, ok bool) {
	names := g.names
	for len(s) > 0 {
		name, _, end, ok := pair(s)
		if !ok {
			return dst, false, false
		}
		isName := false
		if strings.HasPrefix(name, "__") && schema.IsMetadataLabel(name) {
			isName = name == model.MetricNameLabel
			meta = meta || !isName
		}
		for len(names) > 0 && names[0] < name {
			names = names[1:]
		}
		listed := len(names) > 0 && names[0] == name
		keep := listed
		if g.all {
			keep = true
		} else if g.without {
			keep = !listed && !isName
		}
		if keep && (!isName || !g.drop) {
			dst = append(dst, s[:end]...)
		}
		if len(names) == 0 && !g.all && !g.without && name > lastMeta {
			break // nothing of interest comes after it
		}
		s = s[end:]
	}
	return dst, meta, true
}

// less tells whether the labels of a come before those of b, in the order of labels.Compare.
func less(a, b telemetry.LabelSet) bool { return compare(string(a), string(b)) < 0 }

func compare(a, b string) int {
	n := min(len(a), len(b))
	d := 0
	for d+8 <= n && a[d:d+8] == b[d:d+8] {
		d += 8
	}
	for d < n && a[d] == b[d] {
		d++
	}
	if d == len(a) && d == len(b) {
		return 0
	}
	for len(a) > 0 && len(b) > 0 {
		nameA, valueA, endA, okA := pair(a)
		nameB, valueB, endB, okB := pair(b)
		if !okA || !okB {
			return strings.Compare(a, b)
		}
		if endA > d || endB > d { // the difference is in these labels
			if c := strings.Compare(nameA, nameB); c != 0 {
				return c
			}
			if c := strings.Compare(valueA, valueB); c != 0 {
				return c
			}
		}
		a, b, d = a[endA:], b[endB:], d-endA
	}
	return len(a) - len(b)
}
