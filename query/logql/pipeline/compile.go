// Package pipeline runs the stages of LogQL over lines, one row after the other.
//
//	p, err := pipeline.Compile(log.Stages, pipeline.Options{})
//	var row pipeline.Row
//	row.Reset(&record, record.Body.Text())
//	keep, err := p.Process(&row)
//
// A row that stages cannot read is kept and carries the label __error__. What cannot go on at all, such as a template that
// loops, is an error of Process.
package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/query/logql/address"
	"github.com/braidobs/braid/query/logql/fields"
	"github.com/braidobs/braid/query/logql/pattern"
	"github.com/braidobs/braid/query/logql/regex"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/query/logql/template"
)

// Options are how a pipeline is compiled.
type Options struct {
	// Now is the time that templates tell as now; nil is 1970.
	Now func() time.Time
	// Stop, when not nil, says that nobody wants the results any more: what takes long then ends early, with a wrong one.
	Stop func() bool
	// Needed, when not nil, are the labels that matter behind the pipeline: parsers leave out what nothing reads.
	Needed []string
}

// Pipeline is compiled stages, for one goroutine at a time.
type Pipeline struct {
	steps []func(*Row) bool
	names map[string]string // of extracted labels, so that each is made once
}

// maxNames bounds the names that are remembered.
const maxNames = 10_000

// Error is what stops a pipeline.
type Error struct {
	syntax.Position
	Err error
}

// Error tells where and what.
func (e *Error) Error() string { return fmt.Sprintf("at line %d, col %d: %v", e.Line, e.Column, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrorKind makes it the client's mistake.
func (e *Error) ErrorKind() httpapi.Kind { return httpapi.QueryLimit }

// Compile prepares stages. They come from the syntax package, so that errors are faults of ours.
func Compile(stages []syntax.Stage, o Options) (*Pipeline, error) {
	p := &Pipeline{names: make(map[string]string)}
	needed := func(int) map[string]bool { return nil }
	if o.Needed != nil {
		reads, all := make([]map[string]bool, len(stages)), make([]bool, len(stages))
		later, any := set(o.Needed), false
		for i := len(stages) - 1; i >= 0; i-- {
			reads[i], all[i] = later, any
			names, every := readBy(stages[i])
			later, any = union(later, names), any || every
		}
		needed = func(i int) map[string]bool {
			if all[i] {
				return nil
			}
			return reads[i]
		}
	}
	for i, s := range stages {
		step, err := p.compile(s, needed(i), o)
		if err != nil {
			return nil, fmt.Errorf("compile stage %d: %w", i+1, err)
		}
		p.steps = append(p.steps, step)
	}
	return p, nil
}

// Process runs the stages over a row and says whether it is kept.
func (p *Pipeline) Process(r *Row) (bool, error) {
	for _, step := range p.steps {
		if !step(r) {
			return false, r.fatal
		}
	}
	return true, nil
}

func set(names []string) map[string]bool {
	out := make(map[string]bool, len(names))
	for _, n := range names {
		out[n] = true
	}
	return out
}

func union(a map[string]bool, names []string) map[string]bool {
	if len(names) == 0 {
		return a
	}
	out := set(names)
	for n := range a {
		out[n] = true
	}
	return out
}

// readBy returns the labels that a stage reads, and whether it may read any.
func readBy(s syntax.Stage) ([]string, bool) {
	switch s := s.(type) {
	case *syntax.LabelFilter:
		return NamesOf(s.Test), false
	case *syntax.LineFormat:
		t, err := template.Parse(s.Text, nil)
		if err != nil {
			return nil, true
		}
		names, ok := t.Labels()
		return names, !ok
	case *syntax.LabelFormat:
		var out []string
		for _, a := range s.Assignments {
			if a.Rename != "" {
				out = append(out, a.Rename)
				continue
			}
			t, err := template.Parse(a.Text, nil)
			if err != nil {
				return nil, true
			}
			names, ok := t.Labels()
			if !ok {
				return nil, true
			}
			out = append(out, names...)
		}
		return out, false
	case *syntax.Drop:
		return namesIn(s.Labels), false
	case *syntax.Keep:
		return namesIn(s.Labels), false
	default:
		return nil, false
	}
}

func namesIn(ls []syntax.NameOrMatch) []string {
	var out []string
	for _, l := range ls {
		out = append(out, l.Name)
	}
	return out
}

// NamesOf returns the labels that a test reads.
func NamesOf(t syntax.Test) []string {
	switch t := t.(type) {
	case *syntax.And:
		return append(NamesOf(t.L), NamesOf(t.R)...)
	case *syntax.Or:
		return append(NamesOf(t.L), NamesOf(t.R)...)
	case *syntax.Match:
		return []string{t.M.Name}
	case *syntax.Compare:
		return []string{t.Name}
	case *syntax.IP:
		return []string{t.Name}
	default:
		return nil
	}
}

// Reads returns the labels that the stages, and what comes behind them, take from the streams and metadata of rows, and
// whether they may take any.
func Reads(stages []syntax.Stage, behind []string) ([]string, bool) {
	out := slices.Clone(behind)
	parses := false
	for _, s := range stages {
		names, any := readBy(s)
		if any {
			return nil, true
		}
		out = append(out, names...)
		parses = parses || Extracts(s)
	}
	if parses { // whether a label is called x or x_extracted depends on there being an x
		for _, n := range out {
			if base, ok := strings.CutSuffix(n, "_extracted"); ok {
				out = append(out, base)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), false
}

// Extracts says whether a stage is a parser.
func Extracts(s syntax.Stage) bool {
	switch s.(type) {
	case *syntax.JSON, *syntax.Logfmt, *syntax.Regexp, *syntax.Pattern, *syntax.Unpack:
		return true
	default:
		return false
	}
}

// wanted says whether an extracted label may matter.
func wanted(needed map[string]bool, name string) bool {
	return needed == nil || needed[name] || needed[name+"_extracted"] || name == ErrorLabel
}

// name returns the label for a name that a parser made.
func (p *Pipeline) name(b []byte) string {
	if s, ok := p.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(p.names) < maxNames {
		p.names[s] = s
	}
	return s
}

// key is name for the key of a field.
func (p *Pipeline) key(key string) string {
	if s, ok := p.names[key]; ok {
		return s
	}
	s := fields.Name(key)
	if len(p.names) < maxNames {
		p.names[strings.Clone(key)] = strings.Clone(s)
	}
	return s
}

func (p *Pipeline) compile(s syntax.Stage, needed map[string]bool, o Options) (func(*Row) bool, error) {
	switch s := s.(type) {
	case *syntax.LineFilter:
		keep, err := LineFilter(s, o.Stop)
		if err != nil {
			return nil, err
		}
		return func(r *Row) bool { return keep(r.Line) }, nil
	case *syntax.JSON:
		return p.json(s, needed)
	case *syntax.Logfmt:
		return p.logfmt(s, needed), nil
	case *syntax.Regexp:
		re, err := regex.Compile(s.Text, o.Stop)
		if err != nil {
			return nil, err
		}
		return capture(re, needed), nil
	case *syntax.Pattern:
		pt, err := pattern.Parse(s.Text)
		if err != nil {
			return nil, err
		}
		return func(r *Row) bool {
			pt.Match(r.Line, func(i int, value string) {
				if wanted(needed, pt.Names[i]) {
					r.extract(pt.Names[i], value)
				}
			})
			return true
		}, nil
	case *syntax.Unpack:
		return p.unpack(needed), nil
	case *syntax.Decolorize:
		return func(r *Row) bool {
			r.Line = decolorize(r.Line)
			return true
		}, nil
	case *syntax.LineFormat:
		t, err := template.Parse(s.Text, o.Now)
		if err != nil {
			return nil, err
		}
		t.StopWhen(o.Stop)
		return func(r *Row) bool {
			line, ok := r.execute(t, s.Pos)
			if ok {
				r.Line = line
			}
			return r.fatal == nil
		}, nil
	case *syntax.LabelFormat:
		return labelFormat(s, o)
	case *syntax.Drop:
		return drop(s), nil
	case *syntax.Keep:
		return keep(s), nil
	case *syntax.LabelFilter:
		t, err := compileTest(s.Test)
		if err != nil {
			return nil, err
		}
		return t, nil
	default:
		return nil, fmt.Errorf("unknown stage %T", s)
	}
}

// LineFilter returns the function that says which lines a filter keeps. It is safe for concurrent use; for stop see Options.
func LineFilter(f *syntax.LineFilter, stop func() bool) (func(line string) bool, error) {
	var any []func(string) bool
	for _, a := range f.Alternatives {
		switch {
		case a.IP:
			set, err := address.Parse(a.Text)
			if err != nil {
				return nil, err
			}
			any = append(any, set.Within)
		case f.Op == syntax.MatchesRegexp || f.Op == syntax.NotRegexp:
			re, err := regex.Compile(a.Text, stop)
			if err != nil {
				return nil, err
			}
			any = append(any, re.Match)
		case f.Op == syntax.Like || f.Op == syntax.NotLike:
			p, err := pattern.ParseLine(a.Text)
			if err != nil {
				return nil, err
			}
			any = append(any, p.Test)
		default:
			any = append(any, func(line string) bool { return strings.Contains(line, a.Text) })
		}
	}
	want := !f.Op.Negative()
	if len(any) == 1 {
		one := any[0]
		return func(line string) bool { return one(line) == want }, nil
	}
	return func(line string) bool {
		return slices.ContainsFunc(any, func(f func(string) bool) bool { return f(line) }) == want
	}, nil
}

func (p *Pipeline) json(s *syntax.JSON, needed map[string]bool) (func(*Row) bool, error) {
	if len(s.Fields) == 0 {
		return func(r *Row) bool {
			err := fields.JSON(r.Line, func(name []byte, value string) error {
				if n := p.name(name); wanted(needed, n) {
					r.extract(n, value)
				}
				return nil
			})
			if err != nil {
				r.fail(ErrJSON, err.Error())
			}
			return true
		}, nil
	}
	paths := make([][]fields.Step, len(s.Fields))
	for i, f := range s.Fields {
		var err error
		if paths[i], err = fields.ParsePath(f.Path); err != nil {
			return nil, err
		}
	}
	return func(r *Row) bool {
		line := strings.TrimLeft(r.Line, " \t\r\n")
		if line == "" {
			return true
		}
		if line[0] != '{' && line[0] != '[' && line[0] != '"' {
			r.fail(ErrJSON, fields.ErrNotObject.Error())
			return true
		}
		for i, f := range s.Fields {
			value, ok := fields.Lookup(line, paths[i])
			r.named(f.Label, value, ok)
		}
		return true
	}, nil
}

// named adds a label that was asked for by name: with an empty value where the line does not have it.
func (r *Row) named(label, value string, found bool) {
	if !found {
		if _, ok := r.origin(label); ok {
			return
		}
		if _, ok := find(r.parsed, label); ok {
			return
		}
	}
	r.replace(label, value)
}

func (p *Pipeline) logfmt(s *syntax.Logfmt, needed map[string]bool) func(*Row) bool {
	if len(s.Fields) == 0 {
		return func(r *Row) bool {
			err := fields.Logfmt(r.Line, s.Strict, func(key, value string) error {
				if value == "" && !s.KeepEmpty {
					return nil
				}
				if n := p.key(key); wanted(needed, n) {
					r.extract(n, value)
				}
				return nil
			})
			if err != nil {
				r.fail(ErrLogfmt, err.Error())
			}
			return true
		}
	}
	values, found := make([]string, len(s.Fields)), make([]bool, len(s.Fields))
	return func(r *Row) bool {
		clear(found)
		clear(values)
		err := fields.Logfmt(r.Line, s.Strict, func(key, value string) error {
			for i := range s.Fields {
				if s.Fields[i].Path == key {
					values[i], found[i] = value, true
				}
			}
			return nil
		})
		if err != nil {
			r.fail(ErrLogfmt, err.Error())
		}
		for i, f := range s.Fields {
			r.named(f.Label, values[i], found[i])
		}
		return true
	}
}

func capture(re *regex.Regexp, needed map[string]bool) func(*Row) bool {
	names := re.Names()
	return func(r *Row) bool {
		at := re.Find(r.Line)
		if at == nil {
			return true
		}
		for i, name := range names {
			if name == "" || !wanted(needed, name) {
				continue
			}
			value := ""
			if at[2*i] >= 0 {
				value = r.Line[at[2*i]:at[2*i+1]]
			}
			r.extract(name, value)
		}
		return true
	}
}

// entry is the field of packed lines that has the line.
const entry = "_entry"

func (p *Pipeline) unpack(needed map[string]bool) func(*Row) bool {
	var found []Label
	return func(r *Row) bool {
		if r.Line == "" {
			return true
		}
		found = found[:0]
		line, packed := "", false
		err := fields.Strings(r.Line, func(key, value string) {
			if key == entry {
				line, packed = value, true
				return
			}
			found = append(found, Label{p.key(key), value})
		})
		if err != nil {
			r.fail(ErrJSON, err.Error())
			return true
		}
		if !packed {
			return true
		}
		for _, l := range found {
			if wanted(needed, l.Name) {
				r.extract(l.Name, l.Value)
			}
		}
		r.Line = line
		return true
	}
}

// decolorize removes the sequences that begin with ESC [ and end with a letter.
func decolorize(s string) string {
	if !strings.Contains(s, "\x1b[") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == 0x1b && i+1 < len(s) && s[i+1] == '[' {
			n := i + 2
			for n < len(s) && s[n] >= 0x20 && s[n] <= 0x3f {
				n++
			}
			if n < len(s) && s[n] >= 0x40 && s[n] <= 0x7e {
				i = n
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// execute runs a template; false means that it failed.
func (r *Row) execute(t *template.Template, at syntax.Position) (string, bool) {
	out, err := t.Execute(r.Line, r.Time, func(name string) string {
		v, _ := r.Get(name)
		return v
	}, r.all)
	if err == nil {
		return out, true
	}
	if errors.Is(err, template.ErrLimit) {
		r.fatal = &Error{at, err}
	} else {
		r.fail(ErrTemplate, err.Error())
	}
	return "", false
}

// all returns all labels for a template.
func (r *Row) all() map[string]string {
	if r.scratch == nil {
		r.scratch = make(map[string]string)
	}
	clear(r.scratch)
	for _, l := range r.AppendAll(nil) {
		r.scratch[l.Name] = l.Value
	}
	return r.scratch
}

func labelFormat(s *syntax.LabelFormat, o Options) (func(*Row) bool, error) {
	ts := make([]*template.Template, len(s.Assignments))
	for i, a := range s.Assignments {
		if a.Rename != "" {
			continue
		}
		var err error
		if ts[i], err = template.Parse(a.Text, o.Now); err != nil {
			return nil, err
		}
		ts[i].StopWhen(o.Stop)
	}
	return func(r *Row) bool {
		for i, a := range s.Assignments {
			if a.Rename != "" {
				if v, ok := r.Get(a.Rename); ok {
					r.set(a.Label, v)
					if a.Rename != a.Label {
						r.remove(a.Rename)
					}
				}
				continue
			}
			v, ok := r.execute(ts[i], a.Pos)
			if r.fatal != nil {
				return false
			}
			if ok {
				r.set(a.Label, v)
			}
		}
		return true
	}, nil
}

func drop(s *syntax.Drop) func(*Row) bool {
	return func(r *Row) bool {
		for _, l := range s.Labels {
			if l.Match == nil {
				r.remove(l.Name)
			} else if v, ok := r.Get(l.Name); ok && l.Match.Matches(v) {
				r.remove(l.Name)
			}
		}
		return true
	}
}

func keep(s *syntax.Keep) func(*Row) bool {
	var all []Label
	return func(r *Row) bool {
		all = r.AppendAll(all[:0])
		for _, l := range all {
			if l.Name != ErrorLabel && l.Name != DetailsLabel && !kept(s.Labels, l) {
				r.remove(l.Name)
			}
		}
		return true
	}
}

func kept(ls []syntax.NameOrMatch, l Label) bool {
	return slices.ContainsFunc(ls, func(n syntax.NameOrMatch) bool {
		return n.Name == l.Name && (n.Match == nil || n.Match.Matches(l.Value))
	})
}
