package loki

import (
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// result gathers lines by their labels.
type result struct {
	categorized bool
	streams     map[telemetry.LabelSet]*stream
	lines       int
	bytes       int
}

type stream struct {
	labels  telemetry.LabelSet
	entries []entry
}

type entry struct {
	time int64
	line string
	meta []pair // when it is told apart from the labels
}

// pair is a name and a value.
type pair struct{ name, value string }

func newResult(categorized bool) *result {
	return &result{categorized: categorized, streams: make(map[telemetry.LabelSet]*stream)}
}

// add adds row i of the block.
func (r *result) add(b *storage.LogBlock, i int) {
	set := b.StreamOf(i)
	rec := b.Record(i)
	meta := metadata(set, b.ResourceOf(i), &rec)
	e := entry{time: rec.Time, line: strings.Clone(rec.Body.Text())}
	key := set
	if r.categorized {
		e.meta = meta
	} else {
		key = merge(set, meta)
	}
	s := r.streams[key]
	if s == nil {
		key = telemetry.LabelSet(strings.Clone(string(key))) // it outlives the block
		s = &stream{labels: key}
		r.streams[key] = s
	}
	s.entries = append(s.entries, e)
	r.lines++
	r.bytes += len(e.line)
}

// metadata returns what Loki calls structured metadata: everything of a record that is neither a label of its
// stream nor its line, by name. Names become those of labels. Of several things with one name the record's own
// fields win over its attributes, and those over the resource's; an attribute of the record whose name is a label
// of the stream gets the suffix _extracted.
func metadata(set telemetry.LabelSet, res *telemetry.Resource, r *telemetry.LogRecord) []pair {
	found := make(map[string]string)
	put := func(name, value string) {
		if value != "" {
			found[name] = strings.Clone(value)
		}
	}
	if res != nil {
		for _, at := range res.Attrs {
			if name := labelName(at.Key); set.Get(name) == "" {
				put(name, at.Value.Text())
			}
		}
	}
	if sc := r.Scope; sc != nil {
		for _, at := range sc.Attrs {
			if name := labelName(at.Key); set.Get(name) == "" {
				put(name, at.Value.Text())
			}
		}
	}
	for _, at := range r.Attrs {
		name := labelName(at.Key)
		switch value := at.Value.Text(); set.Get(name) {
		case value:
		case "":
			put(name, value)
		default:
			put(name+"_extracted", value)
		}
	}
	own := func(name, value string) {
		if set.Get(name) == "" {
			put(name, value)
		}
	}
	if sc := r.Scope; sc != nil {
		own("scope_name", sc.Name)
		own("scope_version", sc.Version)
	}
	own("event_name", r.EventName)
	own("severity_text", r.SeverityText)
	if r.Severity != 0 {
		own("severity_number", strconv.Itoa(int(r.Severity)))
	}
	if !r.TraceID.IsZero() {
		own("trace_id", r.TraceID.String())
	}
	if !r.SpanID.IsZero() {
		own("span_id", r.SpanID.String())
	}
	own("detected_level", level(set, r, found))
	out := make([]pair, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		out = append(out, pair{name, found[name]})
	}
	return out
}

// level returns the level of a record in the words of Loki: by its severity, else by a label or attribute that
// tells one, else unknown.
func level(set telemetry.LabelSet, r *telemetry.LogRecord, meta map[string]string) string {
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
	for _, name := range []string{"level", "LEVEL", "Level", "severity", "SEVERITY", "Severity", "lvl", "log_level"} {
		if l := word(set.Get(name)); l != "" {
			return l
		}
		if l := word(meta[name]); l != "" {
			return l
		}
	}
	return "unknown"
}

// word returns the level that a word stands for, "" for none.
func word(s string) string {
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

// labelName turns the key of an attribute into the name of a label: what may not stand in one becomes _.
func labelName(key string) string {
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

// merge returns the labels of a stream with more, which have other names.
func merge(set telemetry.LabelSet, more []pair) telemetry.LabelSet {
	var all []pair
	set.Range(func(name, value string) { all = append(all, pair{name, value}) })
	all = append(all, more...)
	sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })
	var b []byte
	for _, p := range all {
		b = telemetry.AppendString(b, p.name)
		b = telemetry.AppendString(b, p.value)
	}
	return telemetry.LabelSet(b)
}

func appendString(dst []byte, s string) []byte { return telemetry.AppendJSONString(dst, s) }

func appendLabels(dst []byte, set telemetry.LabelSet) []byte {
	dst = append(dst, '{')
	first := true
	set.Range(func(name, value string) {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(appendString(dst, name), ':')
		dst = appendString(dst, value)
	})
	return append(dst, '}')
}

// appendTo appends the answer to a query.
func (r *result) appendTo(dst []byte, warnings []string, took time.Duration) []byte {
	dst = append(dst, `{"status":"success",`...)
	if len(warnings) > 0 {
		dst = append(dst, `"warnings":[`...)
		for i, w := range warnings {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, w)
		}
		dst = append(dst, `],`...)
	}
	dst = append(dst, `"data":{"resultType":"streams",`...)
	if r.categorized {
		dst = append(dst, `"encodingFlags":["categorize-labels"],`...)
	}
	dst = append(dst, `"result":[`...)
	for i, key := range slices.Sorted(maps.Keys(r.streams)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		s := r.streams[key]
		dst = appendLabels(append(dst, `{"stream":`...), s.labels)
		dst = append(dst, `,"values":[`...)
		for j := range s.entries {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = r.appendEntry(dst, &s.entries[j])
		}
		dst = append(dst, "]}"...)
	}
	dst = append(dst, `],"stats":`...)
	dst = r.appendStats(dst, took)
	return append(dst, "}}"...)
}

func (r *result) appendEntry(dst []byte, e *entry) []byte {
	dst = append(dst, `["`...)
	dst = strconv.AppendInt(dst, e.time, 10)
	dst = append(dst, `",`...)
	dst = appendString(dst, e.line)
	if r.categorized {
		dst = append(dst, ",{"...)
		for i, p := range e.meta {
			if i == 0 {
				dst = append(dst, `"structuredMetadata":{`...)
			} else {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, p.name), ':')
			dst = appendString(dst, p.value)
		}
		if len(e.meta) > 0 {
			dst = append(dst, '}')
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// appendStats appends the statistics of what was returned.
func (r *result) appendStats(dst []byte, took time.Duration) []byte {
	perSecond := func(n int) int64 {
		if took <= 0 {
			return 0
		}
		return int64(float64(n) / took.Seconds())
	}
	dst = append(dst, `{"summary":{"bytesProcessedPerSecond":`...)
	dst = strconv.AppendInt(dst, perSecond(r.bytes), 10)
	dst = append(dst, `,"linesProcessedPerSecond":`...)
	dst = strconv.AppendInt(dst, perSecond(r.lines), 10)
	dst = append(dst, `,"totalBytesProcessed":`...)
	dst = strconv.AppendInt(dst, int64(r.bytes), 10)
	dst = append(dst, `,"totalLinesProcessed":`...)
	dst = strconv.AppendInt(dst, int64(r.lines), 10)
	dst = append(dst, `,"execTime":`...)
	dst = strconv.AppendFloat(dst, took.Seconds(), 'f', -1, 64)
	dst = append(dst, `,"queueTime":0,"subqueries":0,"totalEntriesReturned":`...)
	dst = strconv.AppendInt(dst, int64(r.lines), 10)
	return append(dst, "}}"...)
}

// appendConstant appends the answer to a query that is a number.
func appendConstant(dst []byte, at int64, v float64) []byte {
	dst = append(dst, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[`...)
	dst = strconv.AppendFloat(dst, float64(at/1e6)/1e3, 'f', -1, 64)
	dst = append(dst, `,"`...)
	dst = strconv.AppendFloat(dst, v, 'f', -1, 64)
	dst = append(dst, `"]}],"stats":`...)
	dst = new(result).appendStats(dst, 0)
	return append(dst, "}}"...)
}

func appendNames(dst []byte, seen map[string]bool) []byte {
	dst = append(dst, `{"status":"success","data":[`...)
	for i, n := range slices.Sorted(maps.Keys(seen)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, n)
	}
	return append(dst, "]}"...)
}

func appendSeries(dst []byte, sets []telemetry.LabelSet) []byte {
	dst = append(dst, `{"status":"success","data":[`...)
	for i, s := range sets {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendLabels(dst, s)
	}
	return append(dst, "]}"...)
}
