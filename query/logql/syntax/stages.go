package syntax

import (
	"regexp"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/query/logql/address"
	"github.com/braidobs/braid/query/logql/fields"
	"github.com/braidobs/braid/query/logql/pattern"
	"github.com/braidobs/braid/query/logql/template"
)

// log reads a selector and stages.
func (p *parser) log() (Expr, error) {
	ms, err := p.selector()
	if err != nil {
		return nil, err
	}
	return p.stages(&Log{Matchers: ms})
}

// selector reads {name="value", ...}.
func (p *parser) selector() ([]*labels.Matcher, error) {
	open := p.peek()
	if !p.take("{") {
		return nil, p.fail(open, "unexpected %s; want a selector such as {app=\"shop\"}", open.describe())
	}
	var ms []*labels.Matcher
	for {
		if len(ms) > 0 && !p.peek().is("}") {
			if t := p.peek(); !p.take(",") {
				return nil, p.fail(t, "unexpected %s; want , or }", t.describe())
			}
		}
		if p.take("}") {
			break
		}
		name, err := p.wantName()
		if err != nil {
			return nil, err
		}
		m, err := p.matcher(name.s)
		if err != nil {
			return nil, err
		}
		if err := p.part(name); err != nil {
			return nil, err
		}
		ms = append(ms, m)
	}
	for _, m := range ms {
		if !m.Matches("") {
			return ms, nil
		}
	}
	return nil, p.fail(open, "the selector needs at least one matcher that does not match an empty value: app=~\".+\" rather than app=~\".*\"")
}

// matcher reads an operator and a text.
func (p *parser) matcher(name string) (*labels.Matcher, error) {
	op := p.next()
	var t labels.MatchType
	switch {
	case op.is("=~"):
		t = labels.MatchRegexp
	case op.is("!~"):
		t = labels.MatchNotRegexp
	case op.is("!="):
		t = labels.MatchNotEqual
	case op.is("="):
		t = labels.MatchEqual
	default:
		return nil, p.fail(op, "unexpected %s; want =, !=, =~ or !~", op.describe())
	}
	value, err := p.wantText()
	if err != nil {
		return nil, err
	}
	if t == labels.MatchRegexp || t == labels.MatchNotRegexp {
		if err := p.checkRegexp(value, "^(?s:"+value.s+")$"); err != nil {
			return nil, err
		}
	}
	m, err := labels.NewMatcher(t, name, value.s)
	if err != nil {
		return nil, p.fail(value, "%v", err)
	}
	return m, nil
}

// stageFollows says whether a stage is next.
func (p *parser) stageFollows() bool {
	t := p.peek()
	if t.kind != operator {
		return false
	}
	switch t.s {
	case "|", "|=", "|~", "|>", "!~", "!>":
		return true
	case "!=":
		a := p.ahead(1)
		return a.kind == text || a.word("ip") && p.ahead(2).is("(")
	default:
		return false
	}
}

func (p *parser) stages(l *Log) (Expr, error) {
	for p.stageFollows() {
		t := p.peek()
		if err := p.part(t); err != nil {
			return nil, err
		}
		if t.is("|") && p.ahead(1).word("unwrap") {
			return nil, p.fail(p.ahead(1), "unwrap is for metrics: sum_over_time({...} | unwrap label [5m])")
		}
		s, err := p.stage()
		if err != nil {
			return nil, err
		}
		l.Stages = append(l.Stages, s)
	}
	return l, nil
}

func (p *parser) stage() (Stage, error) {
	if !p.peek().is("|") {
		return p.lineFilter()
	}
	p.next()
	t := p.peek()
	if p.comparisonFollows() {
		return p.labelFilter()
	}
	if t.kind == ident {
		switch t.s {
		case "json":
			p.next()
			fs, err := p.extractions(true)
			return &JSON{fs}, err
		case "logfmt":
			return p.logfmt()
		case "regexp":
			p.next()
			re, err := p.namedRegexp()
			return &Regexp{re}, err
		case "pattern":
			p.next()
			s, err := p.wantText()
			if err != nil {
				return nil, err
			}
			if _, err := pattern.Parse(s.s); err != nil {
				return nil, p.fail(s, "%v", err)
			}
			return &Pattern{s.s}, nil
		case "unpack":
			p.next()
			return &Unpack{}, nil
		case "decolorize":
			p.next()
			return &Decolorize{}, nil
		case "line_format":
			p.next()
			s, err := p.template()
			return &LineFormat{s.s, position(p.src, s.at)}, err
		case "label_format":
			return p.labelFormat()
		case "drop":
			p.next()
			ls, err := p.namesOrMatches()
			return &Drop{ls}, err
		case "keep":
			p.next()
			ls, err := p.namesOrMatches()
			return &Keep{ls}, err
		case "distinct":
			return nil, p.fail(t, "the stage distinct is not supported")
		}
	}
	return p.labelFilter()
}

// comparisonFollows says whether a name and the operator of a label filter are next, even if the name is that of a stage.
func (p *parser) comparisonFollows() bool {
	if p.peek().kind != ident {
		return false
	}
	switch a := p.ahead(1); {
	case a.kind != operator:
		return false
	default:
		switch a.s {
		case "=", "==", "=~", ">", ">=", "<", "<=":
			return true
		}
		return false
	}
}

func (p *parser) lineFilter() (Stage, error) {
	op := p.next()
	f := &LineFilter{Op: LineOp(op.s)}
	for {
		t := p.next()
		var err error
		switch {
		case t.word("ip") && p.peek().is("("):
			if f.Op != Contains && f.Op != ContainsNot {
				return nil, p.fail(t, "ip() goes with |= and != only")
			}
			p.next()
			if t, err = p.address(); err != nil {
				return nil, err
			}
			f.Alternatives = append(f.Alternatives, Alternative{IP: true, Text: t.s})
		case t.kind == text:
			switch f.Op {
			case MatchesRegexp, NotRegexp:
				err = p.checkRegexp(t, t.s)
			case Like, NotLike:
				if _, e := pattern.ParseLine(t.s); e != nil {
					err = p.fail(t, "%v", e)
				}
			default:
			}
			if err != nil {
				return nil, err
			}
			f.Alternatives = append(f.Alternatives, Alternative{Text: t.s})
		default:
			return nil, p.fail(t, "unexpected %s; want a quoted text", t.describe())
		}
		if err := p.part(t); err != nil {
			return nil, err
		}
		if !p.peek().word("or") || p.ahead(1).kind != text && (!p.ahead(1).word("ip") || !p.ahead(2).is("(")) {
			return f, nil
		}
		p.next()
	}
}

// address reads the rest of ip("...").
func (p *parser) address() (token, error) {
	t, err := p.wantText()
	if err != nil {
		return t, err
	}
	if _, err := address.Parse(t.s); err != nil {
		return t, p.fail(t, "%v", err)
	}
	return t, p.want(")")
}

// extractions reads a, b="path"; none is fine.
func (p *parser) extractions(json bool) ([]Extraction, error) {
	var out []Extraction
	for {
		if len(out) > 0 && !p.take(",") {
			return out, nil
		}
		name := p.peek()
		if name.kind != ident {
			if len(out) == 0 {
				return nil, nil
			}
			return nil, p.fail(name, "unexpected %s; want the name of a label", name.describe())
		}
		p.next()
		path := token{text, name.at, name.s}
		if p.take("=") {
			var err error
			if path, err = p.wantText(); err != nil {
				return nil, err
			}
		}
		if json {
			if _, err := fields.ParsePath(path.s); err != nil {
				return nil, p.fail(path, "%v", err)
			}
		} else if err := fields.CheckKey(path.s); err != nil {
			return nil, p.fail(path, "%v", err)
		}
		if err := p.part(name); err != nil {
			return nil, err
		}
		out = append(out, Extraction{name.s, path.s})
	}
}

func (p *parser) logfmt() (Stage, error) {
	p.next()
	l := &Logfmt{}
	for p.peek().kind == flag {
		switch t := p.next(); t.s {
		case "--strict":
			l.Strict = true
		case "--keep-empty":
			l.KeepEmpty = true
		default:
			return nil, p.fail(t, "unknown flag %s; want --strict or --keep-empty", t.describe())
		}
	}
	var err error
	l.Fields, err = p.extractions(false)
	return l, err
}

func (p *parser) namedRegexp() (string, error) {
	t, err := p.wantText()
	if err != nil {
		return "", err
	}
	if err := p.checkRegexp(t, t.s); err != nil {
		return "", err
	}
	seen := make(map[string]bool)
	for _, name := range regexp.MustCompile(t.s).SubexpNames() {
		if name == "" {
			continue
		}
		if seen[name] {
			return "", p.fail(t, "the group %s stands here twice", name)
		}
		seen[name] = true
	}
	if len(seen) == 0 {
		return "", p.fail(t, "the regular expression has no named group such as (?P<status>\\d+)")
	}
	return t.s, nil
}

// template reads a quoted template.
func (p *parser) template() (token, error) {
	t, err := p.wantText()
	if err != nil {
		return t, err
	}
	if _, err := template.Parse(t.s, nil); err != nil {
		return t, p.fail(t, "%v", err)
	}
	return t, nil
}

func (p *parser) labelFormat() (Stage, error) {
	p.next()
	f := &LabelFormat{}
	seen := make(map[string]bool)
	for {
		name, err := p.wantName()
		if err != nil {
			return nil, err
		}
		if name.s == "__error__" || name.s == "__error_details__" {
			return nil, p.fail(name, "the label %s cannot be set", name.s)
		}
		if seen[name.s] {
			return nil, p.fail(name, "the label %s is set twice; use two stages", name.s)
		}
		seen[name.s] = true
		if err := p.want("="); err != nil {
			return nil, err
		}
		a := Assignment{Label: name.s}
		if t := p.peek(); t.kind == ident {
			p.next()
			a.Rename = t.s
		} else {
			t, err := p.template()
			if err != nil {
				return nil, err
			}
			a.Text, a.Pos = t.s, position(p.src, t.at)
		}
		if err := p.part(name); err != nil {
			return nil, err
		}
		f.Assignments = append(f.Assignments, a)
		if !p.take(",") {
			return f, nil
		}
	}
}

// namesOrMatches reads a, b="c".
func (p *parser) namesOrMatches() ([]NameOrMatch, error) {
	var out []NameOrMatch
	for {
		name, err := p.wantName()
		if err != nil {
			return nil, err
		}
		n := NameOrMatch{Name: name.s}
		if a := p.peek(); a.is("=") || a.is("=~") || (a.is("!=") || a.is("!~")) && p.ahead(1).kind == text && p.matcherEnds() {
			if n.Match, err = p.matcher(name.s); err != nil {
				return nil, err
			}
		}
		if err := p.part(name); err != nil {
			return nil, err
		}
		out = append(out, n)
		if !p.take(",") {
			return out, nil
		}
	}
}

// matcherEnds says whether != or !~ with its text belongs to the name before it: a line filter of alternatives does not.
func (p *parser) matcherEnds() bool { return !p.ahead(2).word("or") }

func (p *parser) labelFilter() (Stage, error) {
	t, err := p.or()
	if err != nil {
		return nil, err
	}
	return &LabelFilter{t}, nil
}

func (p *parser) or() (Test, error) {
	if err := p.enter(p.peek()); err != nil {
		return nil, err
	}
	defer p.leave()
	l, err := p.and()
	if err != nil {
		return nil, err
	}
	for p.peek().word("or") {
		p.next()
		r, err := p.and()
		if err != nil {
			return nil, err
		}
		l = &Or{l, r}
	}
	return l, nil
}

func (p *parser) and() (Test, error) {
	l, err := p.test()
	if err != nil {
		return nil, err
	}
	for {
		t := p.peek()
		switch {
		case t.word("and"), t.is(","):
			p.next()
		case t.kind == ident && !t.word("or"), t.is("("):
		default:
			return l, nil
		}
		r, err := p.test()
		if err != nil {
			return nil, err
		}
		l = &And{l, r}
	}
}

func (p *parser) test() (Test, error) {
	if err := p.part(p.peek()); err != nil {
		return nil, err
	}
	if p.take("(") {
		t, err := p.or()
		if err != nil {
			return nil, err
		}
		return t, p.want(")")
	}
	name := p.next()
	if name.kind != ident {
		return nil, p.fail(name, "unexpected %s; want a stage or a label filter", name.describe())
	}
	op, v := p.peek(), p.ahead(1)
	if op.kind != operator {
		return nil, p.fail(name, "unexpected %s; want a stage, or a label filter such as %s=\"value\"", name.describe(), name.s)
	}
	switch {
	case v.kind == text:
		m, err := p.matcher(name.s)
		if err != nil {
			return nil, err
		}
		return &Match{m}, nil
	case v.word("ip") && p.ahead(2).is("("):
		p.next()
		if !op.is("=") && !op.is("!=") {
			return nil, p.fail(op, "unexpected %s; ip() goes with = and != only", op.describe())
		}
		p.next()
		p.next()
		t, err := p.address()
		if err != nil {
			return nil, err
		}
		return &IP{name.s, op.s == "!=", t.s}, nil
	}
	p.next()
	c := &Compare{Name: name.s, Op: op.s}
	switch op.s {
	case "=":
		c.Op = "=="
	case "==", "!=", ">", ">=", "<", "<=":
	default:
		return nil, p.fail(op, "unexpected %s; want a comparison such as = or >", op.describe())
	}
	return c, p.value(c)
}

// value reads what a label is compared with.
func (p *parser) value(c *Compare) error {
	sign, prefix := 1.0, ""
	if p.take("-") {
		sign, prefix = -1, "-"
	} else {
		p.take("+")
	}
	t := p.next()
	c.Text = prefix + t.s
	switch t.kind {
	case number:
		v, err := parseNumber(t.s)
		if err != nil {
			break
		}
		c.Value = sign * v
		return nil
	case quantity:
		if d, err := ParseDuration(t.s); err == nil {
			c.Type, c.Value = DurationValue, sign*float64(d)
			return nil
		}
		if b, err := template.Bytes(t.s); err == nil {
			c.Type, c.Value = BytesValue, sign*b
			return nil
		}
	default:
	}
	return p.fail(t, "unexpected %s; want a text, a number, a duration such as 10s or a size such as 5MB", t.describe())
}
