package rules

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/braidobs/braid/internal/config"
)

// explainer finds all that is wrong with a rule file that Prometheus refuses. It walks the nodes of the YAML, so
// that each mistake has its place and one does not hide the next.
type explainer struct {
	file          string
	parser        parser.Parser
	ignoreUnknown bool

	list  []*Mistake
	count int
	group string // being looked at
	rule  string
}

func (e *explainer) add(n *yaml.Node, err error) {
	e.count++
	if len(e.list) >= maxMistakes {
		return
	}
	m := &Mistake{File: e.file, Group: e.group, Rule: e.rule, Err: err}
	if n != nil {
		m.Line, m.Col = n.Line, n.Column
	}
	e.list = append(e.list, m)
}

// full says that more mistakes would only be counted.
func (e *explainer) full() bool { return e.count > 10*maxMistakes }

func (e *explainer) err() error {
	slices.SortStableFunc(e.list, func(a, b *Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	var out config.Errors
	for _, m := range e.list {
		out.Add(m)
	}
	if more := e.count - len(e.list); more > 0 {
		out.Add(&Mistake{File: e.file, Err: fmt.Errorf("%d more mistakes", more)})
	}
	return out.Err()
}

// explain collects the mistakes; found is what Prometheus says, for the case that the walk finds nothing.
func (e *explainer) explain(content []byte, found []error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(content, &doc); err != nil {
		e.syntax(err)
		return
	}
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		e.root(doc.Content[0])
	}
	if e.count == 0 {
		for _, err := range found {
			e.syntax(err)
		}
	}
}

// syntax adds an error of the YAML decoder, which has its line in its text.
func (e *explainer) syntax(err error) {
	texts := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	if t, ok := errors.AsType[*yaml.TypeError](err); ok {
		texts = t.Errors
	}
	for _, text := range texts {
		var n *yaml.Node
		if g := regexp.MustCompile(`(?s)^(?:line (\d+): |(\d+):(\d+): )(.*)$`).FindStringSubmatch(text); g != nil {
			line, _ := strconv.Atoi(g[1] + g[2]) // digits; one of the two is empty
			col, _ := strconv.Atoi(g[3])         // or 0
			n, text = &yaml.Node{Line: line, Column: col}, g[4]
		}
		e.add(n, errors.New(text))
	}
}

// fields calls f for each key of a mapping, aliases and merge keys followed, and refuses keys that are not known.
func (e *explainer) fields(n *yaml.Node, what string, known map[string]func(*yaml.Node)) {
	n = follow(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		e.add(n, fmt.Errorf("%s must be a mapping, not %s", what, kind(n)))
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content) && !e.full(); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Tag == "!!merge" {
			continue // what it brings is checked where it stands, or by Prometheus
		}
		if line, ok := seen[k.Value]; ok {
			e.add(k, fmt.Errorf("key %q is there already, in line %d", k.Value, line))
			continue
		}
		seen[k.Value] = k.Line
		f, ok := known[k.Value]
		switch {
		case ok:
			f(v)
		case !e.ignoreUnknown:
			e.add(k, fmt.Errorf("unknown field %q in %s", k.Value, what))
		}
	}
}

// items calls f for each item of a list.
func (e *explainer) items(n *yaml.Node, what string, f func(*yaml.Node)) {
	n = follow(n)
	switch {
	case n.Kind == yaml.SequenceNode:
		for _, item := range n.Content {
			if e.full() {
				return
			}
			f(item)
		}
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
	default:
		e.add(n, fmt.Errorf("%s must be a list, not %s", what, kind(n)))
	}
}

func (e *explainer) root(n *yaml.Node) {
	names := make(map[string]int)
	e.fields(n, "a rule file", map[string]func(*yaml.Node){
		"groups": func(n *yaml.Node) {
			e.items(n, "groups", func(n *yaml.Node) { e.groupNode(n, names) })
		},
	})
}

func (e *explainer) groupNode(n *yaml.Node, names map[string]int) {
	n = follow(n)
	name := find(n, "name")
	if name != nil && name.Kind == yaml.ScalarNode {
		e.group = name.Value
	}
	defer func() { e.group = "" }()
	switch line, again := names[e.group]; {
	case n.Kind != yaml.MappingNode:
	case e.group == "":
		e.add(n, errors.New("the group has no name"))
	case again:
		e.add(name, fmt.Errorf("the group's name is repeated; it is in line %d already", line))
	default:
		names[e.group] = name.Line
	}
	number := 0
	e.fields(n, "a rule group", map[string]func(*yaml.Node){
		"name":         e.text("name"),
		"interval":     e.duration("interval"),
		"query_offset": e.duration("query_offset"),
		"limit": func(n *yaml.Node) {
			var i int
			if err := n.Decode(&i); err != nil {
				e.add(n, fmt.Errorf("limit: %q is not a whole number", follow(n).Value))
			}
		},
		"labels": e.labels("label"),
		"rules": func(n *yaml.Node) {
			e.items(n, "rules", func(n *yaml.Node) {
				number++
				e.ruleNode(n, number)
			})
		},
	})
}

func (e *explainer) ruleNode(n *yaml.Node, number int) {
	n = follow(n)
	e.rule = "number " + strconv.Itoa(number)
	for _, key := range []string{"record", "alert"} {
		if v := find(n, key); v != nil && v.Value != "" {
			e.rule = v.Value
		}
	}
	defer func() { e.rule = "" }()
	before := e.count
	e.fields(n, "a rule", map[string]func(*yaml.Node){
		"record": e.text("record"), "alert": e.text("alert"), "expr": e.text("expr"),
		"for": e.duration("for"), "keep_firing_for": e.duration("keep_firing_for"),
		"labels": e.labels("label"), "annotations": e.labels("annotation"),
	})
	if n.Kind != yaml.MappingNode || e.full() {
		return
	}
	// The rest is Prometheus's to judge. What was found above is left out, or decoding would fail on it.
	if e.count > before {
		n = e.decodable(n)
	}
	var rule rulefmt.Rule
	var node rulefmt.RuleNode
	if rule.Expr == "" && (n.Decode(&rule) != nil || n.Decode(&node) != nil) {
		return
	}
	for _, w := range rule.Validate(node, model.UTF8Validation, e.parser) {
		e.add(e.place(n, &w), w.Unwrap())
	}
}

// decodable returns a copy of the mapping with only those fields that decode.
func (e *explainer) decodable(n *yaml.Node) *yaml.Node {
	out := *n
	out.Content = nil
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		one := yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: n.Content[i : i+2]}
		var rule rulefmt.Rule
		if !seen[n.Content[i].Value] && one.Decode(&rule) == nil {
			seen[n.Content[i].Value] = true
			out.Content = append(out.Content, n.Content[i], n.Content[i+1])
		}
	}
	return &out
}

// place finds out where in a rule a mistake lies that Prometheus told: the error begins with the place, or names
// the label or annotation.
func (e *explainer) place(rule *yaml.Node, w *rulefmt.WrappedError) *yaml.Node {
	text, cause := w.Error(), w.Unwrap().Error()
	if g := regexp.MustCompile(`^(\d+):(\d+): (?:(\d+):(\d+): )?`).FindStringSubmatch(strings.TrimSuffix(text, cause)); g != nil {
		for _, at := range [][]string{g[1:3], g[3:5]} {
			line, _ := strconv.Atoi(at[0]) // digits, or empty
			col, _ := strconv.Atoi(at[1])
			if line > 0 {
				return &yaml.Node{Line: line, Column: col}
			}
		}
		return rule
	}
	for _, p := range []struct{ text, field string }{
		{`label "`, "labels"},
		{`annotation "`, "annotations"},
		{"invalid label name: ", "labels"},
		{"invalid label value: ", "labels"},
		{"invalid annotation name: ", "annotations"},
	} {
		rest, ok := strings.CutPrefix(cause, p.text)
		m := find(rule, p.field)
		if !ok || m == nil {
			continue
		}
		for i := 0; i+1 < len(m.Content); i += 2 {
			name, value := m.Content[i].Value, m.Content[i+1].Value
			if strings.HasSuffix(p.text, `"`) && strings.HasPrefix(rest, name+`"`) || rest == name || rest == value {
				return m.Content[i]
			}
		}
	}
	return rule
}

func (e *explainer) text(name string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		var s string
		if err := n.Decode(&s); err != nil {
			e.add(n, fmt.Errorf("%s must be a text, not %s", name, kind(follow(n))))
		}
	}
}

func (e *explainer) duration(name string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		var d model.Duration
		if err := n.Decode(&d); err != nil {
			e.add(n, fmt.Errorf("%s: %q is not a duration such as 30s, 5m or 1d", name, follow(n).Value))
		}
	}
}

// labels checks a mapping of texts. The names and values of the labels of a group are checked here, for Prometheus
// tells their mistakes without a place; those of a rule it is asked about.
func (e *explainer) labels(what string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		n = follow(n)
		var m map[string]string
		if err := n.Decode(&m); err != nil {
			if n.Kind != yaml.MappingNode {
				e.add(n, fmt.Errorf("%ss must be a mapping, not %s", what, kind(n)))
				return
			}
			e.fields(n, what+"s", e.texts(n))
			return
		}
		if e.rule != "" {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], follow(n.Content[i+1])
			if !model.UTF8Validation.IsValidLabelName(k.Value) || k.Value == model.MetricNameLabel {
				e.add(k, fmt.Errorf("invalid label name: %s", k.Value))
			}
			if !model.LabelValue(v.Value).IsValid() {
				e.add(v, fmt.Errorf("invalid label value: %q", v.Value))
			}
		}
	}
}

func (e *explainer) texts(n *yaml.Node) map[string]func(*yaml.Node) {
	known := make(map[string]func(*yaml.Node))
	for i := 0; i+1 < len(n.Content); i += 2 {
		known[n.Content[i].Value] = e.text(n.Content[i].Value)
	}
	return known
}

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for i := 0; n.Kind == yaml.AliasNode && n.Alias != nil && i < 10; i++ {
		n = n.Alias
	}
	return n
}

// find returns the value of a key of a mapping, or nil.
func find(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return follow(n.Content[i+1])
		}
	}
	return nil
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		return strconv.Quote(n.Value)
	}
}
