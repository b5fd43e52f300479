package loki

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/query/logql/fields"
	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/query/logql/syntax"
)

const (
	// sampledLines is how many of the newest lines are looked at for fields, unless more or fewer are asked for.
	sampledLines = 1000
	// maxSampledLines bounds what can be asked for.
	maxSampledLines = 10_000
	// maxFields is how many fields an answer has.
	maxFields = 1000
)

// detected is a field of lines.
type detected struct {
	name    string
	kind    string // "" until a value was seen
	parsers []string
	path    []string // of JSON
	values  map[string]bool
}

// detection gathers fields.
type detection struct{ byName map[string]*detected }

// add notes a value.
func (d *detection) add(name, value, parser string, path []string) {
	if name == "" || value == "" {
		return
	}
	f := d.byName[name]
	if f == nil {
		if len(d.byName) >= maxFields {
			return
		}
		f = &detected{name: name, values: make(map[string]bool), path: slices.Clone(path)}
		d.byName[name] = f
	}
	if parser != "" && !slices.Contains(f.parsers, parser) {
		f.parsers = append(f.parsers, parser)
	}
	if f.values[value] {
		return
	}
	f.values[value] = true
	f.kind = widened(f.kind, typeOf(value))
}

// widened returns the type of values of both types.
func widened(a, b string) string {
	switch {
	case a == "" || a == b:
		return b
	case a == "int" && b == "float" || a == "float" && b == "int":
		return "float"
	default:
		return "string"
	}
}

// typeOf returns what Loki calls the type of a value.
func typeOf(s string) string {
	if _, err := strconv.ParseInt(s, 10, 64); err == nil {
		return "int"
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return "float"
	}
	if s == "true" || s == "false" {
		return "boolean"
	}
	if s[0]-'0' <= 9 || s[0] == '-' || s[0] == '.' {
		if _, err := pipeline.ParseValue(syntax.DurationValue, s); err == nil {
			return "duration"
		}
		if _, err := pipeline.ParseValue(syntax.BytesValue, s); err == nil {
			return "bytes"
		}
	}
	return "string"
}

// detect reads lines and gathers their fields: metadata, what the query extracts, and, where it extracts nothing, what a
// line in JSON or logfmt has.
func (a *API) detect(r *http.Request) (*detection, int, error) {
	s, err := a.timeRange(r, defaultRange)
	if err != nil {
		return nil, 0, err
	}
	n, err := number(r, "line_limit", sampledLines)
	if err != nil {
		return nil, 0, err
	}
	entries, err := a.selected(r, s, min(n, maxSampledLines))
	if err != nil {
		return nil, 0, err
	}
	d := &detection{byName: make(map[string]*detected)}
	for i := range entries {
		d.line(&entries[i])
	}
	limit, err := number(r, "limit", maxFields)
	if err != nil {
		limit = maxFields
	}
	return d, limit, nil
}

func (d *detection) line(e *logql.Entry) {
	for _, l := range e.Structured {
		d.add(l.Name, l.Value, "", nil)
	}
	parser := "logfmt"
	isJSON := strings.HasPrefix(strings.TrimLeft(e.Line, " \t"), "{")
	if isJSON {
		parser = "json"
	}
	for _, l := range e.Parsed {
		if !strings.HasPrefix(l.Name, "__") {
			d.add(l.Name, l.Value, parser, nil)
		}
	}
	if isJSON {
		var members map[string]any
		dec := json.NewDecoder(strings.NewReader(e.Line))
		dec.UseNumber()
		if dec.Decode(&members) == nil {
			d.object(members, nil, nil)
		}
		return
	}
	if len(e.Parsed) > 0 || !strings.Contains(e.Line, "=") {
		return
	}
	_ = fields.Logfmt(e.Line, true, func(key, value string) error { // a line that is none says little
		d.add(fields.Name(key), value, parser, nil)
		return nil
	})
}

// maxNesting is how deep objects are looked into.
const maxNesting = 10

// object notes the members of an object with their paths.
func (d *detection) object(members map[string]any, path []string, prefix []byte) {
	for key, value := range members {
		name := fields.AppendName(slices.Clone(prefix), key)
		at := append(slices.Clip(path), key)
		switch v := value.(type) {
		case map[string]any:
			if len(at) < maxNesting {
				d.object(v, at, append(name, '_'))
			}
		case string:
			d.add(string(name), v, "json", at)
		case json.Number:
			d.add(string(name), v.String(), "json", at)
		case bool:
			d.add(string(name), strconv.FormatBool(v), "json", at)
		}
	}
}

// detectedFields tells the fields of lines, with their types and the number of their values.
func (a *API) detectedFields(r *http.Request) ([]byte, error) {
	d, limit, err := a.detect(r)
	if err != nil {
		return nil, err
	}
	all := make([]*detected, 0, len(d.byName))
	for _, f := range d.byName {
		all = append(all, f)
	}
	slices.SortFunc(all, func(x, y *detected) int { return cmp.Compare(x.name, y.name) })
	dst := []byte(`{"fields":[`)
	for i, f := range all[:min(len(all), limit)] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(append(dst, `{"label":`...), f.name)
		dst = append(dst, `,"type":"`+f.kind+`","cardinality":`...)
		dst = strconv.AppendInt(dst, int64(len(f.values)), 10)
		dst = append(dst, `,"parsers":`...)
		if f.parsers == nil {
			dst = append(dst, "null"...)
		} else {
			dst = appendTexts(dst, f.parsers)
		}
		if len(f.path) > 0 {
			dst = appendTexts(append(dst, `,"jsonPath":`...), f.path)
		}
		dst = append(dst, '}')
	}
	dst = append(dst, `],"limit":`...)
	return append(strconv.AppendInt(dst, int64(limit), 10), '}'), nil
}

// detectedValues tells the values of one field.
func (a *API) detectedValues(r *http.Request) ([]byte, error) {
	d, limit, err := a.detect(r)
	if err != nil {
		return nil, err
	}
	var values []string
	if f := d.byName[r.PathValue("name")]; f != nil {
		for v := range f.values {
			values = append(values, v)
		}
		slices.Sort(values)
	}
	dst := append([]byte(`{"limit":`), strconv.Itoa(limit)...)
	dst = appendTexts(append(dst, `,"values":`...), values[:min(len(values), limit)])
	return append(dst, '}'), nil
}

func appendTexts(dst []byte, ss []string) []byte {
	dst = append(dst, '[')
	for i, s := range ss {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, s)
	}
	return append(dst, ']')
}
