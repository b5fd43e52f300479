package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// resolver copies a tree of nodes, with aliases and references to the environment replaced by what they stand for.
type resolver struct {
	*mistakes
	env      func(string) (string, bool)
	expanded map[*yaml.Node]bool // scalars that held a reference
	nodes    int
	overflow bool // the tree is too large or too deep; the copy is incomplete
}

func (r *resolver) resolve(n *yaml.Node, path string, depth int) *yaml.Node {
	r.nodes++
	if r.overflow || r.nodes > maxNodes || depth > maxDepth {
		if !r.overflow {
			r.overflow = true
			r.add(path, n.Line, fmt.Errorf("is nested deeper than %d levels or has more than %d values, aliases included",
				maxDepth, maxNodes))
		}
		return n
	}
	if n.Kind == yaml.AliasNode {
		return r.resolve(n.Alias, path, depth+1)
	}
	out := &yaml.Node{Kind: n.Kind, Style: n.Style, Tag: n.Tag, Value: n.Value, Line: n.Line, Column: n.Column}
	if n.Style&yaml.TaggedStyle != 0 {
		r.add(path, n.Line, fmt.Errorf("tag %s is not allowed", n.Tag))
		out.Style &^= yaml.TaggedStyle
	}
	switch n.Kind {
	case yaml.ScalarNode:
		r.scalar(out, path)
	case yaml.SequenceNode:
		for i, c := range n.Content {
			out.Content = append(out.Content, r.resolve(c, join(path, fmt.Sprintf("[%d]", i)), depth+1))
		}
	case yaml.MappingNode:
		r.mapping(n, out, path, depth)
	default: // an empty document, an alias to one
		r.add(path, n.Line, errors.New("is not a value"))
		out.Kind, out.Tag = yaml.ScalarNode, "!!null"
	}
	return out
}

func (r *resolver) mapping(n, out *yaml.Node, path string, depth int) {
	lines := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			r.add(path, key.Line, errors.New("a key must be a plain word"))
			continue
		}
		if key.Tag == "!!merge" {
			r.add(join(path, key.Value), key.Line, errors.New("merge keys are not supported"))
			continue
		}
		if first, ok := lines[key.Value]; ok {
			r.add(join(path, key.Value), key.Line, fmt.Errorf("duplicate key, first on line %d", first))
			continue
		}
		lines[key.Value] = key.Line
		k := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key.Value, Line: key.Line, Column: key.Column}
		out.Content = append(out.Content, k, r.resolve(n.Content[i+1], join(path, key.Value), depth+1))
	}
}

func (r *resolver) scalar(n *yaml.Node, path string) {
	if !strings.Contains(n.Value, "$") {
		return
	}
	text, refs, errs := expand(n.Value, r.env)
	for _, err := range errs {
		r.add(path, n.Line, err)
	}
	n.Value = text
	if refs {
		r.expanded[n] = true
		if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
			n.Tag = "" // the type of a plain value follows from the text it has now
		}
	}
}

// expand replaces the references in text and says whether there were any.
func expand(text string, env func(string) (string, bool)) (out string, refs bool, errs []error) {
	name := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i+1 == len(text) {
			b.WriteString(text)
			return b.String(), refs, errs
		}
		b.WriteString(text[:i])
		switch text = text[i+1:]; text[0] {
		case '$':
			b.WriteByte('$')
			text = text[1:]
		case '{':
			end := strings.IndexByte(text, '}')
			if end < 0 {
				return b.String(), refs, append(errs, errors.New("${ without }; write $$ for a dollar sign"))
			}
			refs = true
			key, fallback, has := strings.Cut(text[1:end], ":-")
			text = text[end+1:]
			if !name.MatchString(key) {
				errs = append(errs, fmt.Errorf("${%s} is not a variable; write $${%s} for the text itself", key, key))
				continue
			}
			var val string
			var ok bool
			if env != nil {
				val, ok = env(key)
			}
			switch {
			case has && val == "":
				val = fallback
			case !ok && !has:
				errs = append(errs, fmt.Errorf("environment variable %s is not set", key))
			}
			b.WriteString(val)
		default:
			b.WriteByte('$')
		}
	}
}
