package loki

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

const (
	// gap stands for what varies in a pattern, as the filter |> writes it.
	gap = "<_>"
	// maxPatterns is how many patterns an answer has.
	maxPatterns = 300
	// maxPattern is how long one may be, in bytes.
	maxPattern = 1000
	// maxMined is how many lines without a template are taken apart for one answer.
	maxMined = 100_000
	// maxKept is how many patterns are counted at once.
	maxKept = 20_000
	// minPatternStep is the smallest step of an answer about patterns.
	minPatternStep = 10 * time.Second
)

// patternCount is how often a pattern comes in each step.
type patternCount struct {
	text  string
	total int64
	steps map[int64]int64 // by the second that the step begins
}

// patternCounts counts lines by the template that the store found for them.
type patternCounts struct {
	step  int64
	byKey map[string]*patternCount
	known map[*storage.Template]*patternCount
	mined int
}

// patterns tells what the lines of a selector look like: the templates by which the store keeps them, with how many lines
// each has in each step.
func (a *API) patterns(r *http.Request) (body []byte, err error) {
	s, err := a.timeRange(r, defaultRange)
	if err != nil {
		return nil, err
	}
	step, err := s.step(r)
	if err != nil {
		return nil, err
	}
	ms, err := matchersOf(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	c := &patternCounts{step: int64(max(step, minPatternStep)), byKey: make(map[string]*patternCount), known: make(map[*storage.Template]*patternCount)}
	err = a.view(ctx, func(v storage.View) error {
		for b, err := range v.Logs(ctx, storage.LogQuery{
			Tenant: httpapi.TenantFrom(ctx), Start: s.start, End: s.end - 1, Where: storage.StreamMatch(ms), Columns: storage.LogLines, Split: true,
		}) {
			if err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := c.add(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c.append(nil), nil
}

// add counts the rows of a block.
func (c *patternCounts) add(b *storage.LogBlock) error {
	if b.Lines == nil {
		for i := range b.Body {
			c.mine(b.Body[i].Text(), b.Time[i])
		}
		return nil
	}
	of := make([]*patternCount, len(b.Lines.Shapes))
	for k, shape := range b.Lines.Shapes {
		of[k] = c.template(shape.Template)
	}
	var line []byte
	for i, t := range b.Time {
		p := of[b.Lines.Shape[i]]
		if p != nil {
			p.count(t, c.step)
			continue
		}
		if c.mined >= maxMined {
			continue
		}
		var err error
		if line, err = b.Lines.AppendLine(line[:0], i); err != nil {
			return err
		}
		c.mine(string(line), t)
	}
	return nil
}

func (p *patternCount) count(t, step int64) {
	p.total++
	p.steps[(t-mod(t, step))/int64(time.Second)]++
}

func mod(t, step int64) int64 {
	m := t % step
	if m < 0 {
		m += step
	}
	return m
}

// template returns the counts of a template, nil when it is nothing but a gap.
func (c *patternCounts) template(t *storage.Template) *patternCount {
	if p, ok := c.known[t]; ok {
		return p
	}
	var b strings.Builder
	for i, text := range t.Text {
		b.WriteString(text)
		if i < len(t.Gaps) && !strings.HasSuffix(b.String(), gap) {
			b.WriteString(gap)
		}
	}
	p := c.of(b.String())
	c.known[t] = p
	return p
}

// of returns the counts of a pattern, nil when it says nothing or there are too many.
func (c *patternCounts) of(text string) *patternCount {
	if len(text) > maxPattern {
		text = strings.ToValidUTF8(text[:maxPattern], "") + gap
	}
	if strings.Trim(strings.ReplaceAll(text, gap, ""), " ") == "" {
		return nil
	}
	p := c.byKey[text]
	if p == nil && len(c.byKey) < maxKept {
		p = &patternCount{text: text, steps: make(map[int64]int64)}
		c.byKey[text] = p
	}
	return p
}

// mine counts a line that the store has no template for: words with digits in them are gaps.
func (c *patternCounts) mine(line string, t int64) {
	if c.mined++; c.mined > maxMined {
		return
	}
	if p := c.of(patternOf(line)); p != nil {
		p.count(t, c.step)
	}
}

// patternOf returns a line with gaps for the words that have digits.
func patternOf(line string) string {
	if len(line) > maxPattern {
		line = line[:maxPattern]
	}
	var b strings.Builder
	for i := 0; i < len(line); {
		start, digits := i, false
		for i < len(line) && (inWord(line[i]) || line[i] == ':' && i > start && line[i-1]-'0' <= 9) {
			digits = digits || line[i]-'0' <= 9
			i++
		}
		switch {
		case i == start:
			b.WriteByte(line[i])
			i++
		case !digits:
			b.WriteString(line[start:i])
		case !strings.HasSuffix(b.String(), gap):
			b.WriteString(gap)
		}
	}
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}

func inWord(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c-'0' <= 9 || c == '.' || c == '-' || c == '_' || c == '/' || c >= 0x80
}

// append appends the answer: the patterns with the most lines first.
func (c *patternCounts) append(dst []byte) []byte {
	all := make([]*patternCount, 0, len(c.byKey))
	for _, p := range c.byKey {
		if p.total > 0 {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(x, y *patternCount) int {
		return cmp.Or(cmp.Compare(y.total, x.total), cmp.Compare(x.text, y.text))
	})
	dst = append(dst, `{"status":"success","data":[`...)
	for i, p := range all[:min(len(all), maxPatterns)] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(append(dst, `{"pattern":`...), p.text)
		dst = append(dst, `,"samples":[`...)
		seconds := make([]int64, 0, len(p.steps))
		for sec := range p.steps {
			seconds = append(seconds, sec)
		}
		slices.Sort(seconds)
		for j, sec := range seconds {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendInt(append(dst, '['), sec, 10)
			dst = strconv.AppendInt(append(dst, ','), p.steps[sec], 10)
			dst = append(dst, ']')
		}
		dst = append(dst, "]}"...)
	}
	return append(dst, "]}"...)
}

// selected reads lines for answers about what is in lines: the newest of the range.
func (a *API) selected(r *http.Request, s span, limit int) (entries []logql.Entry, err error) {
	text := r.Form.Get("query")
	if isAll(text) {
		text = `{service_name=~".+"}`
	}
	e, err := logql.Parse(text)
	if err != nil {
		return nil, err
	}
	if e.Kind() != syntax.Lines {
		return nil, httpapi.BadDataf("the query is for numbers, and lines are wanted")
	}
	ctx := r.Context()
	err = a.view(ctx, func(v storage.View) error {
		out, err := a.engine.Lines(ctx, v, logql.LinesQuery{
			Tenant: httpapi.TenantFrom(ctx), Expr: e, Start: s.start, End: s.end, Newest: true, Limit: limit,
		})
		if err == nil {
			entries = out.Entries
		}
		return err
	})
	return entries, err
}
