// Package ruletest runs unit tests of rules that are written in the format of promtool: series that are made up,
// rule files, and the alerts and query results that are expected at given times.
//
// Rules are evaluated by the same manager and against the same store as in the server; the store is handed over and
// is a new one for every test.
package ruletest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v3"

	"github.com/braidobs/braid/alerting/rules"
	"github.com/braidobs/braid/internal/config"
)

// file is a test file.
type file struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval,omitempty"`
	GroupEvalOrder     []string       `yaml:"group_eval_order"`
	Tests              []test         `yaml:"tests"`
	FuzzyCompare       bool           `yaml:"fuzzy_compare,omitempty"`
}

// test is one test: series and what is expected of them.
type test struct {
	Name           string         `yaml:"name,omitempty"`
	Interval       model.Duration `yaml:"interval"` // between the samples of the series
	InputSeries    []series       `yaml:"input_series"`
	Alerts         []alertCase    `yaml:"alert_rule_test,omitempty"`
	Exprs          []exprCase     `yaml:"promql_expr_test,omitempty"`
	ExternalLabels labels.Labels  `yaml:"external_labels,omitempty"`
	ExternalURL    string         `yaml:"external_url,omitempty"`
	StartTimestamp timestamp      `yaml:"start_timestamp,omitempty"`
}

type series struct {
	Series string `yaml:"series"`
	Values string `yaml:"values"`
}

type alertCase struct {
	EvalTime  model.Duration `yaml:"eval_time"`
	Alertname string         `yaml:"alertname"`
	ExpAlerts []struct {
		Labels      map[string]string `yaml:"exp_labels"`
		Annotations map[string]string `yaml:"exp_annotations"`
	} `yaml:"exp_alerts"`
}

type exprCase struct {
	Expr       string         `yaml:"expr"`
	EvalTime   model.Duration `yaml:"eval_time"`
	ExpSamples []struct {
		Labels    string  `yaml:"labels"`
		Value     float64 `yaml:"value"`
		Histogram string  `yaml:"histogram"`
	} `yaml:"exp_samples"`
}

// timestamp is a time in seconds since 1970 or in RFC 3339.
type timestamp struct{ time.Time }

// UnmarshalYAML implements yaml.Unmarshaler.
func (t *timestamp) UnmarshalYAML(n *yaml.Node) error {
	if f, err := strconv.ParseFloat(n.Value, 64); err == nil && math.Abs(f) < 1e12 {
		whole, frac := math.Modf(f)
		t.Time = time.Unix(int64(whole), int64(frac*float64(time.Second))).UTC()
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, n.Value)
	if err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is neither a time in RFC 3339 nor in seconds since 1970", n.Line, n.Value)}}
	}
	t.Time = at
	return nil
}

// Failure is one thing that a test found, or that is wrong with its file.
type Failure struct {
	File string
	Line int    // from 1; 0 when there is none
	Test string // its name; empty for the whole file
	Err  error
}

// Error returns file:line: test: what is wrong.
func (f *Failure) Error() string {
	text := f.File
	if f.Line > 0 {
		text += ":" + strconv.Itoa(f.Line)
	}
	if f.Test != "" {
		text += ": test " + strconv.Quote(f.Test)
	}
	return text + ": " + f.Err.Error()
}

// Unwrap returns what is wrong, without the place.
func (f *Failure) Unwrap() error { return f.Err }

// parsed is a test file with the places of its parts.
type parsed struct {
	file
	name string
	root *yaml.Node
}

// parse reads a test file. Unknown keys and keys that are there twice are mistakes.
func parse(name string, content []byte) (*parsed, error) {
	p := &parsed{name: name, root: &yaml.Node{}}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	if err := dec.Decode(&p.file); err != nil && !errors.Is(err, io.EOF) {
		return nil, p.explain(err)
	}
	if err := yaml.Unmarshal(content, p.root); err != nil {
		return nil, p.explain(err)
	}
	if len(p.root.Content) == 1 {
		p.root = p.root.Content[0]
	}
	var errs config.Errors
	if p.EvaluationInterval == 0 {
		p.EvaluationInterval = model.Duration(time.Minute)
	}
	seen := make(map[string]bool)
	for i, g := range p.GroupEvalOrder {
		if seen[g] {
			errs.Add(&Failure{File: name, Line: p.line("group_eval_order", i), Err: fmt.Errorf("group name repeated in evaluation order: %s", g)})
		}
		seen[g] = true
	}
	for i := range p.Tests {
		t := &p.Tests[i]
		if t.Interval == 0 {
			t.Interval = p.EvaluationInterval
		}
		if t.Name == "" {
			t.Name = "unnamed#" + strconv.Itoa(i)
		}
	}
	return p, errs.Err()
}

// explain turns an error of the YAML decoder into failures with lines.
func (p *parsed) explain(err error) error {
	texts := []string{err.Error()}
	if t, ok := errors.AsType[*yaml.TypeError](err); ok {
		texts = t.Errors
	}
	var errs config.Errors
	for _, text := range texts {
		f := &Failure{File: p.name, Err: errors.New(text)}
		if g := regexp.MustCompile(`(?s)^(?:yaml: )?line (\d+): (.*)$`).FindStringSubmatch(text); g != nil {
			f.Line, _ = strconv.Atoi(g[1]) // digits
			f.Err = errors.New(g[2])
		}
		errs.Add(f)
	}
	return errs.Err()
}

// line returns where the part of the file is that keys and indices lead to, 0 when there is none.
func (p *parsed) line(path ...any) int {
	n := p.root
	for _, step := range path {
		for n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		switch step := step.(type) {
		case int:
			if n.Kind == yaml.SequenceNode && step < len(n.Content) {
				next = n.Content[step]
			}
		case string:
			for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == step {
					next = n.Content[i+1]
				}
			}
		}
		if next == nil {
			return 0
		}
		n = next
	}
	return n.Line
}

// ruleFiles returns the rule files that the test file names, relative to its folder.
func (p *parsed) ruleFiles(log *slog.Logger) (found []string, err error) {
	for _, pattern := range p.RuleFiles {
		if pattern != "" && !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(p.name), pattern)
		}
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return nil, &Failure{File: p.name, Line: p.line("rule_files"), Err: fmt.Errorf("%s is no pattern: %w", pattern, err)}
		}
		if len(matches) == 0 {
			log.Warn("no file matches the pattern", "file", p.name, "pattern", pattern)
		}
		found = append(found, matches...)
	}
	return found, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, rules.MaxFileBytes+1))
	if err == nil && len(b) > rules.MaxFileBytes {
		err = &Failure{File: name, Err: fmt.Errorf("is larger than %s", config.Size(rules.MaxFileBytes))}
	}
	return b, err
}
