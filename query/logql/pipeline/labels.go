package pipeline

import (
	"slices"
	"strings"

	"github.com/braidobs/braid/internal/telemetry"
)

// The labels by which a row tells of a mistake on its way.
const (
	ErrorLabel   = "__error__"
	DetailsLabel = "__error_details__"
)

// The values of ErrorLabel.
const (
	ErrJSON     = "JSONParserErr"
	ErrLogfmt   = "LogfmtParserErr"
	ErrFilter   = "LabelFilterErr"
	ErrSample   = "SampleExtractionErr"
	ErrTemplate = "TemplateFormatErr"
)

// Label is a name and a value.
type Label struct{ Name, Value string }

// Record is what a row is made of. Resource, Scope and such may be missing when nothing asks for them.
type Record struct {
	Stream   telemetry.LabelSet
	Resource *telemetry.Resource
	telemetry.LogRecord
}

// Row is a line on its way through a pipeline. Its strings are parts of the record: they live as long.
type Row struct {
	Time int64
	Line string

	rec    *Record
	parsed []Label
	gone   []string // names of the stream's labels and of metadata that were removed
	err    string
	detail string
	fatal  error

	stream  telemetry.LabelSet
	base    []Label // the labels of stream
	meta    []Label
	loaded  bool // meta is filled
	scratch map[string]string
}

// Reset makes the row that of a record.
func (r *Row) Reset(rec *Record, line string) {
	r.Time, r.Line, r.rec = rec.Time, line, rec
	r.parsed, r.gone, r.err, r.detail, r.fatal, r.loaded = r.parsed[:0], r.gone[:0], "", "", nil, false
	if rec.Stream != r.stream || r.base == nil {
		r.stream = telemetry.LabelSet(strings.Clone(string(rec.Stream)))
		r.base = AppendLabels(r.base[:0], r.stream)
	}
}

// AppendLabels appends the labels of s to dst.
func AppendLabels(dst []Label, s telemetry.LabelSet) []Label {
	s.Range(func(name, value string) { dst = append(dst, Label{name, value}) })
	return dst
}

// metadata returns what the record has besides its stream and line.
func (r *Row) metadata() []Label {
	if !r.loaded {
		r.meta = AppendMetadata(r.meta[:0], r.rec)
		r.loaded = true
	}
	return r.meta
}

func find(ls []Label, name string) (string, bool) {
	for i := range ls {
		if ls[i].Name == name {
			return ls[i].Value, true
		}
	}
	return "", false
}

// Get returns the value of a label, and whether the row has it.
func (r *Row) Get(name string) (string, bool) {
	switch name {
	case ErrorLabel:
		return r.err, r.err != ""
	case DetailsLabel:
		return r.detail, r.detail != ""
	}
	if v, ok := find(r.parsed, name); ok {
		return v, true
	}
	if slices.Contains(r.gone, name) {
		return "", false
	}
	return r.origin(name)
}

// origin returns a label of the stream or of metadata.
func (r *Row) origin(name string) (string, bool) {
	if v, ok := find(r.base, name); ok {
		return v, true
	}
	return find(r.metadata(), name)
}

// Failed says whether the row carries an error.
func (r *Row) Failed() bool { return r.err != "" }

// Error returns the values of ErrorLabel and DetailsLabel.
func (r *Row) Error() (kind, details string) { return r.err, r.detail }

func (r *Row) fail(kind, details string) { r.err, r.detail = kind, details }

// extract adds a label that a parser found. One with the name of a label that the row came with gets another name, and
// what was extracted before stays.
func (r *Row) extract(name, value string) {
	if name == ErrorLabel {
		r.err = value
		return
	}
	if own, ok := r.origin(name); ok {
		if r.field(name) && strings.EqualFold(own, value) {
			return // it was found in the line on the way in
		}
		name += "_extracted"
	}
	if _, ok := find(r.parsed, name); !ok {
		r.parsed = append(r.parsed, Label{name, value})
	}
}

// field says whether the label is the trace or span ID of the record, and no attribute.
func (r *Row) field(name string) bool {
	if name != "trace_id" && name != "span_id" {
		return false
	}
	_, ok := r.rec.Attrs.Get(name)
	return !ok && r.rec.Stream.Get(name) == ""
}

// replace adds a label that a parser found, over what was extracted before.
func (r *Row) replace(name, value string) {
	if _, ok := r.origin(name); ok {
		name += "_extracted"
	}
	r.assign(name, value)
}

func (r *Row) assign(name, value string) {
	for i := range r.parsed {
		if r.parsed[i].Name == name {
			r.parsed[i].Value = value
			return
		}
	}
	r.parsed = append(r.parsed, Label{name, value})
}

// set makes value the value of a label, wherever it came from.
func (r *Row) set(name, value string) {
	r.assign(name, value)
	r.gone = append(r.gone, name)
}

// remove takes a label away.
func (r *Row) remove(name string) {
	switch name {
	case ErrorLabel:
		r.err = ""
	case DetailsLabel:
		r.detail = ""
	default:
		r.parsed = slices.DeleteFunc(r.parsed, func(l Label) bool { return l.Name == name })
		if !slices.Contains(r.gone, name) {
			r.gone = append(r.gone, name)
		}
	}
}

// AppendStream appends the labels of the stream that are left.
func (r *Row) AppendStream(dst []Label) []Label { return r.left(dst, r.base) }

// AppendStructured appends the structured metadata that is left, by name.
func (r *Row) AppendStructured(dst []Label) []Label { return r.left(dst, r.metadata()) }

func (r *Row) left(dst, from []Label) []Label {
	if len(r.gone) == 0 {
		return append(dst, from...)
	}
	for _, l := range from {
		if !slices.Contains(r.gone, l.Name) {
			dst = append(dst, l)
		}
	}
	return dst
}

// AppendParsed appends what stages extracted and set, and errors, by name.
func (r *Row) AppendParsed(dst []Label) []Label {
	n := len(dst)
	dst = append(dst, r.parsed...)
	if r.err != "" {
		dst = append(dst, Label{ErrorLabel, r.err})
	}
	if r.detail != "" {
		dst = append(dst, Label{DetailsLabel, r.detail})
	}
	SortLabels(dst[n:])
	return dst
}

// AppendAll appends all labels, by name.
func (r *Row) AppendAll(dst []Label) []Label {
	n := len(dst)
	dst = r.AppendParsed(r.AppendStructured(r.AppendStream(dst)))
	SortLabels(dst[n:])
	return dst
}

// SortLabels sorts by name.
func SortLabels(ls []Label) {
	slices.SortFunc(ls, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
}

// EncodeLabels appends labels that are sorted by name, as a telemetry.LabelSet has them.
func EncodeLabels(dst []byte, ls []Label) []byte {
	for _, l := range ls {
		dst = telemetry.AppendString(dst, l.Name)
		dst = telemetry.AppendString(dst, l.Value)
	}
	return dst
}
