package telemetry

import (
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
)

// LabelSet is the canonical form of a set of labels: names in byte order, each name and value with its
// length as a uvarint. Equal sets are equal strings, so it serves as the key of a series or a stream. Labels
// with an empty value are left out, as Prometheus does.
type LabelSet string

// Handle is what a store knows a series by.
type Handle interface{ SeriesHandle() }

// Interned is labels that come again and again, held once in memory. It is safe for concurrent use.
type Interned struct {
	Labels LabelSet
	handle atomic.Pointer[Handle]
}

// Handle returns what a store left for the next time that the labels come, or nil.
func (i *Interned) Handle() Handle {
	if h := i.handle.Load(); h != nil {
		return *h
	}
	return nil
}

// Leave leaves a handle, which must not change, for the next time that the labels come.
func (i *Interned) Leave(h *Handle) { i.handle.Store(h) }

// NewLabelSet returns the canonical form of ls.
func NewLabelSet(ls labels.Labels) LabelSet {
	var b []byte
	ls.Range(func(l labels.Label) {
		if l.Value == "" {
			return
		}
		b = AppendString(b, l.Name)
		b = AppendString(b, l.Value)
	})
	return LabelSet(b)
}

// Labels returns the labels in Prometheus's type.
func (s LabelSet) Labels() labels.Labels {
	var b labels.ScratchBuilder
	d := NewDecoder(string(s))
	for d.Len() > 0 && d.Err() == nil {
		name := d.Str()
		b.Add(name, d.Str())
	}
	return b.Labels()
}

// Get returns the value of the label name, "" when it is absent.
func (s LabelSet) Get(name string) string {
	d := NewDecoder(string(s))
	for d.Len() > 0 && d.Err() == nil {
		n, v := d.Str(), d.Str()
		if n == name {
			return v
		}
	}
	return ""
}

// Range calls f for each label in the order of their names.
func (s LabelSet) Range(f func(name, value string)) {
	d := NewDecoder(string(s))
	for d.Len() > 0 {
		name, value := d.Str(), d.Str()
		if d.Err() != nil {
			return
		}
		f(name, value)
	}
}

// Check says whether s is canonical: whole, sorted, without repeated names or empty values.
func (s LabelSet) Check() error {
	d := NewDecoder(string(s))
	prev := ""
	for i := 0; d.Len() > 0 && d.err == nil; i++ {
		name, value := d.Str(), d.Str()
		if d.err == nil && (value == "" || name == "" || i > 0 && name <= prev) {
			d.Fail("label %q is out of order or empty", name)
		}
		prev = name
	}
	return d.err
}
