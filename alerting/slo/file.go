package slo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/braidobs/braid/alerting/rules"
	"github.com/braidobs/braid/internal/config"
)

const (
	// windowVariable is what expressions name the window by.
	windowVariable = "$window"
	// maxFileBytes is the size of the largest file that is read.
	maxFileBytes = 4 << 20
	// maxSLOs bounds the objectives: each is evaluated over seven windows.
	maxSLOs = 1000
)

// rawFile is a file in the short form.
type rawFile struct {
	SLOs []rawSLO `yaml:"slos"`
}

type rawSLO struct {
	Name        string            `yaml:"name"`
	Service     string            `yaml:"service"`
	Description string            `yaml:"description"`
	Objective   float64           `yaml:"objective"` // percent
	Period      string            `yaml:"period"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
	Alerts      *bool             `yaml:"alerts"`
	SLI         struct {
		Metrics *rawMetrics `yaml:"metrics"`
		Spans   *rawSpans   `yaml:"spans"`
	} `yaml:"sli"`
}

type rawMetrics struct {
	Good  string `yaml:"good"`
	Bad   string `yaml:"bad"`
	Total string `yaml:"total"`
}

type rawSpans struct {
	Total *rawFilter `yaml:"total"`
	Good  *rawFilter `yaml:"good"`
	Bad   *rawFilter `yaml:"bad"`
}

type rawFilter struct {
	Service     string            `yaml:"service"`
	Name        string            `yaml:"name"`
	Kind        string            `yaml:"kind"`
	Status      string            `yaml:"status"`
	MinDuration string            `yaml:"min_duration"`
	MaxDuration string            `yaml:"max_duration"`
	Attributes  map[string]string `yaml:"attributes"`
}

// Reader reads files of objectives.
type Reader struct {
	Parser parser.Parser // of PromQL
}

// Load reads the files that the patterns match. It returns all that is wrong with them, each a *rules.Mistake, as
// config.Errors. A pattern without * ? [ names a file that must exist.
func (r Reader) Load(patterns ...string) ([]SLO, error) {
	var errs config.Errors
	var out []SLO
	for _, p := range patterns {
		files, err := filepath.Glob(p)
		if err != nil {
			errs.Add(&rules.Mistake{File: p, Err: err})
			continue
		}
		if len(files) == 0 && !strings.ContainsAny(p, "*?[") {
			files = []string{p}
		}
		for _, f := range files {
			b, err := readFile(f)
			if err != nil {
				errs.Add(&rules.Mistake{File: f, Err: err})
				continue
			}
			some, err := r.Parse(f, b)
			errs.Add(err)
			out = append(out, some...)
		}
	}
	if len(out) > maxSLOs {
		errs.Add(fmt.Errorf("there are %d objectives, at most %d are allowed", len(out), maxSLOs))
	}
	seen := make(map[string]*SLO)
	for i := range out {
		s := &out[i]
		if first := seen[s.Name]; first != nil {
			errs.Add(&rules.Mistake{File: s.File, Line: s.Line, Err: fmt.Errorf("objective %q is defined already, in %s:%d", s.Name, first.File, first.Line)})
			continue
		}
		seen[s.Name] = s
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b SLO) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(b) > maxFileBytes {
		err = fmt.Errorf("the file is larger than %s", config.Size(maxFileBytes))
	}
	return b, err
}

// file collects the mistakes of one file.
type file struct {
	name   string
	parser parser.Parser
	errs   config.Errors
}

// mistake notes what is wrong at the value that the path leads to, or at the last part of the path that is there.
func (f *file) mistake(at *yaml.Node, path []string, err error) {
	for _, p := range path {
		next := child(at, p)
		if next == nil {
			break
		}
		at = next
	}
	m := &rules.Mistake{File: f.name, Err: err}
	if at != nil {
		m.Line, m.Col = at.Line, at.Column
	}
	f.errs.Add(m)
}

// child returns the value of a key of a mapping, or an element of a sequence.
func child(n *yaml.Node, name string) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil {
		return nil
	}
	if n.Kind == yaml.SequenceNode {
		if i, err := strconv.Atoi(name); err == nil && i < len(n.Content) {
			return n.Content[i]
		}
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// Parse reads the content of a file: documents in the short form, or of OpenSLO.
func (r Reader) Parse(name string, content []byte) ([]SLO, error) {
	f := &file{name: name, parser: r.Parser}
	docs, err := documents(content)
	if err != nil {
		f.yaml(err)
		return nil, f.errs.Err()
	}
	var out []SLO
	open := openslo{file: f}
	for _, d := range docs {
		if child(d, "apiVersion") != nil {
			open.add(d)
			continue
		}
		var raw rawFile
		if !f.strict(d, &raw) {
			continue
		}
		if len(raw.SLOs) == 0 {
			f.mistake(d, []string{"slos"}, errors.New("there is no list slos with an objective in it, nor an apiVersion of OpenSLO"))
		}
		for i := range raw.SLOs {
			n := child(child(d, "slos"), strconv.Itoa(i))
			out = append(out, f.slo(n, &raw.SLOs[i]))
		}
	}
	out = append(out, open.slos()...)
	slices.SortStableFunc(f.errs, func(a, b error) int { return lineOf(a) - lineOf(b) })
	if err := f.errs.Err(); err != nil {
		return nil, err
	}
	return out, nil
}

func lineOf(err error) int {
	if m, ok := errors.AsType[*rules.Mistake](err); ok {
		return m.Line
	}
	return 0
}

// documents splits a YAML stream.
func documents(content []byte) ([]*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(content))
	var out []*yaml.Node
	for {
		var n yaml.Node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if len(n.Content) == 1 && n.Content[0].Tag != "!!null" {
			out = append(out, n.Content[0])
		}
	}
}

// strict decodes a document into a struct whose fields are all that may be there, and notes all that is wrong.
func (f *file) strict(n *yaml.Node, into any) bool {
	// Only a decoder of text tells unknown fields; their places are looked up in the node.
	b, err := yaml.Marshal(n)
	if err != nil {
		f.yaml(err)
		return false
	}
	if err := n.Decode(into); err != nil {
		f.yaml(err)
		return false
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		f.unknown(n, err)
		return false
	}
	return true
}

// yaml notes the errors of the YAML parser, which name lines.
func (f *file) yaml(err error) {
	list := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	if te, ok := errors.AsType[*yaml.TypeError](err); ok {
		list = te.Errors
	}
	for _, text := range list {
		line, what := splitLine(text)
		f.errs.Add(&rules.Mistake{File: f.name, Line: line, Err: errors.New(what)})
	}
}

var unknownField = regexp.MustCompile(`field (\S+) not found in type`)

// unknown notes fields that are not known, where they are in the document.
func (f *file) unknown(n *yaml.Node, err error) {
	te, ok := errors.AsType[*yaml.TypeError](err)
	if !ok {
		f.yaml(err)
		return
	}
	names := make(map[string]bool)
	for _, text := range te.Errors {
		if m := unknownField.FindStringSubmatch(text); m != nil {
			names[m[1]] = true
		} else {
			_, what := splitLine(text)
			f.errs.Add(&rules.Mistake{File: f.name, Line: n.Line, Err: errors.New(what)})
		}
	}
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		for i, c := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 0 && names[c.Value] {
				f.errs.Add(&rules.Mistake{File: f.name, Line: c.Line, Col: c.Column, Err: fmt.Errorf("field %q is not known", c.Value)})
			}
			walk(c)
		}
	}
	walk(n)
}

// splitLine takes "line 3: " off a message.
func splitLine(s string) (int, string) {
	rest, ok := strings.CutPrefix(s, "line ")
	if num, what, found := strings.Cut(rest, ": "); ok && found {
		if n, err := strconv.Atoi(num); err == nil {
			return n, what
		}
	}
	return 0, s
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// slo checks one objective of the short form.
func (f *file) slo(n *yaml.Node, raw *rawSLO) SLO {
	bad := func(err error, path ...string) { f.mistake(n, path, err) }
	s := SLO{
		Name: raw.Name, Service: raw.Service, Description: raw.Description, Objective: raw.Objective / 100, File: f.name, Line: n.Line,
		Labels: raw.Labels, Annotations: raw.Annotations, NoAlerts: raw.Alerts != nil && !*raw.Alerts,
	}
	if raw.Period == "" {
		raw.Period = "30d"
	}
	var err error
	if s.Period, err = period(raw.Period); err != nil {
		bad(err, "period")
	}
	f.common(n, &s, []string{"name"}, []string{"objective"}, []string{"labels"})
	switch m, sp := raw.SLI.Metrics, raw.SLI.Spans; {
	case m != nil && sp == nil:
		s.SLI.Metrics = &MetricSLI{Good: m.Good, Bad: m.Bad, Total: m.Total}
		f.metrics(n, s.SLI.Metrics, map[string][]string{"good": {"sli", "metrics", "good"}, "bad": {"sli", "metrics", "bad"}, "total": {"sli", "metrics", "total"}})
	case sp != nil && m == nil:
		s.SLI.Spans = f.spans(n, sp, s.Service)
	default:
		bad(errors.New("sli must have exactly one of metrics and spans"), "sli")
	}
	return s
}

// common checks what both forms have.
func (f *file) common(n *yaml.Node, s *SLO, name, objective, lbls []string) {
	if !validName.MatchString(s.Name) {
		f.mistake(n, name, fmt.Errorf("name %q must be 1 to 63 of a-z, 0-9, '.', '_' and '-', and begin and end with a letter or digit", s.Name))
	}
	if !(s.Objective > 0 && s.Objective < 1) {
		f.mistake(n, objective, fmt.Errorf("the objective must lie between 0 and 100 percent, both excluded, not %v", s.Objective*100))
	}
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		if !model.UTF8Validation.IsValidLabelName(k) || slices.Contains([]string{"slo", "service", "severity", model.AlertNameLabel, model.MetricNameLabel}, k) {
			f.mistake(n, append(lbls, k), fmt.Errorf("%q cannot be the name of a label of an objective", k))
		}
	}
}

func period(s string) (time.Duration, error) {
	d, err := model.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("period %q: %w", s, err)
	}
	if time.Duration(d) < 24*time.Hour || time.Duration(d) > 366*24*time.Hour {
		return 0, fmt.Errorf("period %q must be from 1d to 366d", s)
	}
	return time.Duration(d), nil
}

// metrics checks the expressions of an SLI on metrics.
func (f *file) metrics(n *yaml.Node, m *MetricSLI, paths map[string][]string) {
	if (m.Good == "") == (m.Bad == "") {
		f.mistake(n, paths["total"][:len(paths["total"])-1], errors.New("exactly one of good and bad must be given"))
	}
	if m.Total == "" {
		f.mistake(n, paths["total"][:len(paths["total"])-1], errors.New("total must be given"))
	}
	for _, e := range []struct {
		name string
		expr *string
	}{{"good", &m.Good}, {"bad", &m.Bad}, {"total", &m.Total}} {
		if *e.expr == "" {
			continue
		}
		out, err := f.expr(*e.expr)
		if err != nil {
			f.mistake(n, paths[e.name], fmt.Errorf("%s: %w", e.name, err))
			continue
		}
		*e.expr = out
	}
}

// expr checks an expression. A bare counter, such as requests_total{code="500"}, is counted and added up.
func (f *file) expr(expr string) (string, error) {
	for _, alias := range []string{"{{.window}}", "{{ .window }}", "${window}"} {
		expr = strings.ReplaceAll(expr, alias, windowVariable)
	}
	expr = strings.TrimSpace(expr)
	parsed, err := f.parser.ParseExpr(strings.ReplaceAll(expr, windowVariable, "5m"))
	if err != nil {
		return "", err
	}
	if sel, ok := parsed.(*parser.VectorSelector); ok {
		return "sum(increase(" + sel.String() + "[" + windowVariable + "]))", nil
	}
	if !strings.Contains(expr, windowVariable) {
		return "", fmt.Errorf("the expression must name its window as %s, such as sum(increase(requests_total[%s])), or be a bare counter", windowVariable, windowVariable)
	}
	if t := parsed.Type(); t != parser.ValueTypeVector {
		return "", fmt.Errorf("the expression must give an instant vector, not a %s", parser.DocumentedType(t))
	}
	return expr, nil
}

// spans checks an SLI on spans.
func (f *file) spans(n *yaml.Node, raw *rawSpans, service string) *SpanSLI {
	out := &SpanSLI{}
	at := func(more ...string) []string { return append([]string{"sli", "spans"}, more...) }
	if (raw.Good == nil) == (raw.Bad == nil) {
		f.mistake(n, at(), errors.New("exactly one of good and bad must be given"))
	}
	if raw.Total == nil {
		raw.Total = &rawFilter{}
	}
	out.Total = f.filter(n, raw.Total, at("total"))
	if out.Total.Service == "" {
		out.Total.Service = service
	}
	if raw.Good != nil {
		g := f.filter(n, raw.Good, at("good"))
		out.Good = &g
	}
	if raw.Bad != nil {
		b := f.filter(n, raw.Bad, at("bad"))
		out.Bad = &b
	}
	if t := out.Total; t.Service == "" && t.Name == "" && t.Kind == "" && len(t.Attributes) == 0 {
		f.mistake(n, at("total"), errors.New("total matches every span: name a service, a name, a kind or an attribute"))
	}
	return out
}

func (f *file) filter(n *yaml.Node, raw *rawFilter, path []string) Filter {
	out := Filter{Service: raw.Service, Name: raw.Name, Kind: raw.Kind, Status: raw.Status, Attributes: raw.Attributes}
	oneOf := func(field, v string, all ...string) {
		if v != "" && !slices.Contains(all, v) {
			f.mistake(n, append(slices.Clone(path), field), fmt.Errorf("%s %q is not one of %s", field, v, strings.Join(all, ", ")))
		}
	}
	oneOf("kind", raw.Kind, "internal", "server", "client", "producer", "consumer")
	oneOf("status", raw.Status, "unset", "ok", "error")
	duration := func(field, v string, into *time.Duration) {
		if v == "" {
			return
		}
		d, err := time.ParseDuration(v)
		if err == nil && d <= 0 {
			err = errors.New("it must be positive")
		}
		if err != nil {
			f.mistake(n, append(slices.Clone(path), field), fmt.Errorf("%s %q: %w", field, v, err))
		}
		*into = d
	}
	duration("min_duration", raw.MinDuration, &out.MinDuration)
	duration("max_duration", raw.MaxDuration, &out.MaxDuration)
	if out.MaxDuration > 0 && out.MinDuration > out.MaxDuration {
		f.mistake(n, append(slices.Clone(path), "max_duration"), errors.New("max_duration is less than min_duration"))
	}
	return out
}
