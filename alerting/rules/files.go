package rules

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/braidobs/braid/internal/config"
)

// MaxFileBytes is the size of the largest rule file that is read.
const MaxFileBytes = 16 << 20

// maxMistakes bounds the mistakes that are told of one file; the rest is counted.
const maxMistakes = 100

// Generated is rule groups that do not come from a file but from something that turns into rules, such as an SLO.
type Generated struct {
	Name   string // stands for the file's name and is unique, such as slo:checkout
	Groups []rulefmt.RuleGroup
}

// Source makes rule groups. It is asked at every load and returns all that is wrong with its own input.
type Source func() ([]Generated, error)

// Set is rule groups that have no mistakes.
type Set struct {
	names  []string // of files, sorted
	groups map[string]*rulefmt.RuleGroups
	// Unmatched are the patterns that match no file.
	Unmatched []string
}

// Names returns the names of the files, sorted.
func (s *Set) Names() []string { return slices.Clone(s.names) }

// Groups returns the groups of a file.
func (s *Set) Groups(name string) []rulefmt.RuleGroup { return s.groups[name].Groups }

// Rules returns the number of rules.
func (s *Set) Rules() (n int) {
	for _, g := range s.groups {
		for i := range g.Groups {
			n += len(g.Groups[i].Rules)
		}
	}
	return n
}

func (s *Set) add(name string, g *rulefmt.RuleGroups) {
	s.groups[name] = g
	s.names = append(s.names, name)
}

// Reading says how rule files are read.
type Reading struct {
	Parser        parser.Parser
	Sources       []Source
	IgnoreUnknown bool         // fields that are not known are no mistake
	Log           *slog.Logger // gets what is odd but no mistake; nil drops it
}

// Load reads the rule files that the patterns match, and what the sources make. When anything is wrong it returns
// all mistakes, each a *Mistake unless a source made it, as config.Errors. A pattern without * ? [ names a file
// that must exist; one that matches nothing is told in the set.
func (r Reading) Load(patterns ...string) (*Set, error) {
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	var errs config.Errors
	set := &Set{groups: make(map[string]*rulefmt.RuleGroups)}
	files, unmatched, err := expand(patterns)
	errs.Add(err)
	set.Unmatched = unmatched
	for _, f := range files {
		b, err := read(f)
		if err != nil {
			errs.Add(&Mistake{File: f, Err: err})
			continue
		}
		groups, err := r.Parse(f, b)
		errs.Add(err)
		set.add(f, groups)
	}
	for _, source := range r.Sources {
		made, err := source()
		errs.Add(err)
		for _, g := range made {
			errs.Add(r.take(set, g))
		}
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	slices.Sort(set.names)
	return set, nil
}

// take checks generated groups as if they came from a file.
func (r Reading) take(set *Set, g Generated) error {
	if set.groups[g.Name] != nil {
		return &Mistake{File: g.Name, Err: errors.New("the name is used twice")}
	}
	b, err := yaml.Marshal(rulefmt.RuleGroups{Groups: g.Groups})
	if err != nil {
		return &Mistake{File: g.Name, Err: err}
	}
	groups, err := r.Parse(g.Name, b)
	if err != nil {
		var errs config.Errors
		errs.Add(err)
		for _, one := range errs {
			if m, ok := errors.AsType[*Mistake](one); ok {
				m.Line, m.Col = 0, 0 // there is no such file to look at
			}
		}
		return errs
	}
	set.add(g.Name, groups)
	return nil
}

// Parse reads the content of one rule file. Prometheus decides whether it is right; when it is not, all mistakes
// are told with their places.
func (r Reading) Parse(name string, content []byte) (*rulefmt.RuleGroups, error) {
	log := r.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if len(content) > MaxFileBytes {
		return nil, &Mistake{File: name, Err: fmt.Errorf("is larger than %s", config.Size(MaxFileBytes))}
	}
	groups, errs := rulefmt.Parse(content, r.IgnoreUnknown, model.UTF8Validation, r.Parser, log.With("file", name))
	if len(errs) == 0 {
		return groups, nil
	}
	e := explainer{file: name, parser: r.Parser, ignoreUnknown: r.IgnoreUnknown}
	e.explain(content, errs)
	return nil, e.err()
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, plain(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, plain(err)
	}
	return b, nil
}

// plain takes the file's name out of an error of the file system, for the mistake has it already.
func plain(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// expand returns the files that patterns match, each once, sorted.
func expand(patterns []string) (files, unmatched []string, err error) {
	var errs config.Errors
	found := make(map[string]bool)
	for _, p := range patterns {
		if !strings.ContainsAny(p, `*?[`) {
			found[p] = true
			continue
		}
		matches, err := filepath.Glob(p)
		if err != nil {
			errs.Add(&Mistake{File: p, Err: fmt.Errorf("is no pattern: %w", err)})
			continue
		}
		if len(matches) == 0 {
			unmatched = append(unmatched, p)
		}
		for _, m := range matches {
			found[m] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), unmatched, errs.Err()
}

// Duplicates describes the rules that have the same name and labels as another one and so write the same series.
// They are not wrong, but seldom meant.
func (s *Set) Duplicates() []string {
	type place struct{ file, group string }
	seen := make(map[string][]place)
	var order []string
	for _, f := range s.names {
		for _, g := range s.groups[f].Groups {
			for _, r := range g.Rules {
				kind, name := "record", r.Record
				if r.Alert != "" {
					kind, name = "alert", r.Alert
				}
				all := maps.Clone(g.Labels)
				if all == nil {
					all = make(map[string]string)
				}
				maps.Copy(all, r.Labels)
				key := fmt.Sprintf("%s %q with labels %v", kind, name, all) // a map prints in the order of its keys
				if seen[key] == nil {
					order = append(order, key)
				}
				seen[key] = append(seen[key], place{f, g.Name})
			}
		}
	}
	var out []string
	for _, key := range order {
		if places := seen[key]; len(places) > 1 {
			text := make([]string, len(places))
			for i, p := range places {
				text[i] = fmt.Sprintf("%s group %q", p.file, p.group)
			}
			out = append(out, key+" is there more than once: "+strings.Join(text, ", "))
		}
	}
	return out
}
