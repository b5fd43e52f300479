// Package template executes the templates of LogQL's line_format and label_format: Go's text/template with functions for
// texts, numbers and times, bounded in steps and in what they write, so that one that loops ends with ErrLimit.
package template

import (
	"errors"
	"fmt"
	"strings"
	"text/template"
	"text/template/parse"
	"time"
)

const (
	// MaxLength bounds a template, in bytes.
	MaxLength = 64 << 10
	// MaxOutput bounds what one execution writes, in bytes.
	MaxOutput = 1 << 20
	// MaxSteps bounds one execution: calls of functions, rounds of loops and kilobytes of results.
	MaxSteps = 50_000
)

var (
	// ErrLimit is wrapped by errors of executions that are over MaxOutput or MaxSteps.
	ErrLimit = errors.New("the template writes or loops too much")

	errStopped = fmt.Errorf("stopped: %w", ErrLimit)
)

// Template is a parsed template, for one goroutine at a time.
type Template struct {
	t   *template.Template
	run *run
	// field is the only label of a template that is nothing but {{.label}} with texts around it.
	simple []part
}

// part is a text, or the value of a label.
type part struct {
	text  string
	label bool
}

// run is what functions see of an execution.
type run struct {
	line  string
	time  int64
	steps int
	now   func() time.Time
	stop  func() bool // nil never stops
	out   strings.Builder
}

// StopWhen makes executions end early, with ErrLimit, once stop says that nobody wants their results.
func (t *Template) StopWhen(stop func() bool) { t.run.stop = stop }

// Parse reads a template. now is the time that the function now tells; nil is 1970.
func Parse(s string, now func() time.Time) (*Template, error) {
	if len(s) > MaxLength {
		return nil, fmt.Errorf("the template is longer than %d bytes", MaxLength)
	}
	if now == nil {
		now = func() time.Time { return time.Unix(0, 0).UTC() }
	}
	r := &run{now: now}
	t, err := template.New("line").Option("missingkey=zero").Funcs(functions(r)).Parse(s)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	step, err := template.New("step").Funcs(functions(r)).Parse("{{__step__}}")
	if err != nil {
		return nil, fmt.Errorf("prepare the template: %w", err)
	}
	for _, one := range t.Templates() {
		if one.Tree != nil && one.Root != nil {
			count(one.Root, step.Root.Nodes[0])
			if one.Name() != "line" {
				one.Root.Nodes = append([]parse.Node{step.Root.Nodes[0].Copy()}, one.Root.Nodes...)
			}
		}
	}
	out := &Template{t: t, run: r}
	if t.Tree != nil && t.Root != nil {
		out.simple = simple(t.Root)
	}
	return out, nil
}

// count puts step at the beginning of what loops repeat.
func count(n parse.Node, step parse.Node) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, c := range n.Nodes {
			count(c, step)
		}
	case *parse.IfNode:
		count(n.List, step)
		count(n.ElseList, step)
	case *parse.WithNode:
		count(n.List, step)
		count(n.ElseList, step)
	case *parse.RangeNode:
		count(n.List, step)
		count(n.ElseList, step)
		n.List.Nodes = append([]parse.Node{step.Copy()}, n.List.Nodes...)
	}
}

// simple returns the parts of a template that has texts and {{.label}} only, nil for others.
func simple(root *parse.ListNode) []part {
	out := []part{}
	for _, n := range root.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
			out = append(out, part{string(n.Text), false})
		case *parse.ActionNode:
			if len(n.Pipe.Decl) > 0 || len(n.Pipe.Cmds) != 1 || len(n.Pipe.Cmds[0].Args) != 1 {
				return nil
			}
			f, ok := n.Pipe.Cmds[0].Args[0].(*parse.FieldNode)
			if !ok || len(f.Ident) != 1 {
				return nil
			}
			out = append(out, part{f.Ident[0], true})
		default:
			return nil
		}
	}
	return out
}

// Labels returns the names of the labels that the template reads, and whether these are all: with false it may read any.
func (t *Template) Labels() ([]string, bool) {
	if t.simple == nil {
		return nil, false
	}
	var out []string
	for _, p := range t.simple {
		if p.label {
			out = append(out, p.text)
		}
	}
	return out, true
}

// Execute returns what the template makes of a line. get returns the value of a label, all returns all labels.
func (t *Template) Execute(line string, at int64, get func(name string) string, all func() map[string]string) (string, error) {
	r := t.run
	r.out.Reset()
	if t.simple != nil {
		for _, p := range t.simple {
			s := p.text
			if p.label {
				s = get(s)
			}
			if r.out.Len()+len(s) > MaxOutput {
				return "", fmt.Errorf("it writes more than %d bytes for one line: %w", MaxOutput, ErrLimit)
			}
			r.out.WriteString(s)
		}
		return r.out.String(), nil
	}
	r.line, r.time, r.steps = line, at, 0
	if err := t.t.Execute(r, all()); err != nil {
		for e := err; e != nil; e = errors.Unwrap(e) {
			if errors.Unwrap(e) == ErrLimit { //nolint:errorlint // without what package template says around it
				return "", e
			}
		}
		return "", err
	}
	return r.out.String(), nil
}

// Write implements io.Writer for the template's output.
func (r *run) Write(b []byte) (int, error) {
	if r.out.Len()+len(b) > MaxOutput {
		return 0, fmt.Errorf("it writes more than %d bytes for one line: %w", MaxOutput, ErrLimit)
	}
	return r.out.Write(b)
}

// step counts work in proportion to n bytes.
func (r *run) step(n int) error {
	if r.steps += 1 + n>>10; r.steps > MaxSteps {
		return fmt.Errorf("it makes more than %d steps for one line: %w", MaxSteps, ErrLimit)
	}
	if r.stop != nil && r.stop() {
		return errStopped
	}
	return nil
}

// text charges a result for its size.
func (r *run) text(s string) (string, error) {
	if len(s) > maxText {
		return "", errText
	}
	return s, r.step(len(s))
}
