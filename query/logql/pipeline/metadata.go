package pipeline

import (
	"strconv"
	"strings"

	"github.com/braidobs/braid/storage"
)

// LevelLabel is the label that tells the level of each row.
const LevelLabel = "detected_level"

// AppendMetadata appends what LogQL calls structured metadata, by name: everything of a record that is neither a label of
// its stream nor its line. Names become those of labels. Of several things with one name the record's own fields win over
// its attributes, and those over the scope's and the resource's; an attribute of the record whose name is a label of the
// stream with another value gets the suffix _extracted.
func AppendMetadata(dst []Label, r *Record) []Label {
	n := len(dst)
	put := func(name, value string) {
		if value == "" {
			return
		}
		for i := n; i < len(dst); i++ {
			if dst[i].Name == name {
				dst[i].Value = value
				return
			}
		}
		dst = append(dst, Label{name, value})
	}
	own := func(name, value string) {
		if value != "" && r.Stream.Get(name) == "" {
			put(name, value)
		}
	}
	if r.Resource != nil {
		for _, at := range r.Resource.Attrs {
			own(LabelName(at.Key), at.Value.Text())
		}
	}
	if sc := r.Scope; sc != nil {
		for _, at := range sc.Attrs {
			own(LabelName(at.Key), at.Value.Text())
		}
	}
	for _, at := range r.Attrs {
		name := LabelName(at.Key)
		switch value := at.Value.Text(); r.Stream.Get(name) {
		case value:
		case "":
			put(name, value)
		default:
			put(name+"_extracted", value)
		}
	}
	if sc := r.Scope; sc != nil {
		own("scope_name", sc.Name)
		own("scope_version", sc.Version)
	}
	own("event_name", r.EventName)
	own("severity_text", r.SeverityText)
	if r.Severity != 0 && r.SeverityText != "" { // else it was found on the way in: detected_level tells it
		own("severity_number", strconv.Itoa(int(r.Severity)))
	}
	if !r.TraceID.IsZero() {
		own("trace_id", r.TraceID.String())
	}
	if !r.SpanID.IsZero() {
		own("span_id", r.SpanID.String())
	}
	if r.Stream.Get(LevelLabel) == "" {
		put(LevelLabel, level(r, dst[n:]))
	}
	SortLabels(dst[n:])
	return dst
}

// Needs returns the columns that Get of a label reads, besides what stages extract.
func Needs(name string) storage.LogColumns {
	need := storage.LogStream | storage.LogAttrs | storage.LogResource | storage.LogScope
	switch name {
	case LevelLabel, "severity_text", "severity_number":
		need |= storage.LogSeverity
	case "trace_id", "span_id":
		need |= storage.LogTraceID
	case "event_name":
		need |= storage.LogObserved
	}
	return need
}

// IsField says whether a label tells a field of the record that is no attribute.
func IsField(name string) bool {
	switch name {
	case LevelLabel, "scope_name", "scope_version", "event_name", "severity_text", "severity_number", "trace_id", "span_id":
		return true
	default:
		return false
	}
}

// level returns the level of a record in the words of Loki: by its severity, else by a label or attribute that tells one,
// else unknown.
func level(r *Record, meta []Label) string {
	switch n := r.Severity; {
	case n == 0 || n > 24:
	case n <= 4:
		return "trace"
	case n <= 8:
		return "debug"
	case n <= 12:
		return "info"
	case n <= 16:
		return "warn"
	case n <= 20:
		return "error"
	default:
		return "fatal"
	}
	if l := word(r.SeverityText); l != "" {
		return l
	}
	for _, name := range [...]string{"level", "LEVEL", "Level", "severity", "SEVERITY", "Severity", "lvl", "log_level"} {
		if l := word(r.Stream.Get(name)); l != "" {
			return l
		}
		if v, ok := find(meta, name); ok {
			if l := word(v); l != "" {
				return l
			}
		}
	}
	return "unknown"
}

// word returns the level that a word stands for, "" for none.
func word(s string) string {
	if s == "" || len(s) > 13 {
		return ""
	}
	switch strings.ToLower(s) {
	case "trace", "trc":
		return "trace"
	case "debug", "dbg":
		return "debug"
	case "info", "inf", "information", "informational", "notice":
		return "info"
	case "warn", "wrn", "warning":
		return "warn"
	case "error", "err":
		return "error"
	case "critical", "crit", "alert":
		return "critical"
	case "fatal", "emerg", "emergency", "panic":
		return "fatal"
	default:
		return ""
	}
}

// LabelName turns the key of an attribute into the name of a label: what may not stand in one becomes _.
func LabelName(key string) string {
	ok := key != ""
	for i := range len(key) {
		ok = ok && legal(key[i], i)
	}
	if ok {
		return key
	}
	var b strings.Builder
	for i, c := range []byte(key) {
		switch {
		case legal(c, i):
			b.WriteByte(c)
		case i == 0 && c >= '0' && c <= '9':
			b.WriteByte('_')
			b.WriteByte(c)
		case c < 0x80 || c >= 0xc0: // one for each character
			b.WriteByte('_')
		}
	}
	if b.Len() == 0 {
		return "_"
	}
	return b.String()
}

func legal(c byte, i int) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9'
}

// RecordOf fills r with row i of a block; columns that the block lacks are zero.
func RecordOf(r *Record, b *storage.LogBlock, i int) {
	r.LogRecord = b.Record(i)
	r.Stream, r.Resource = b.StreamIf(i), b.ResourceOf(i)
}
