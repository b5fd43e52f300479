package lines

import (
	"slices"
	"strings"

	"github.com/braidobs/braid/storage"
)

// Limits of what is worked out about a needle and a template; beyond them lines are rebuilt.
const (
	maxWays  = 64
	maxSteps = 1 << 14
)

// Needle is a text that lines are searched for, and what is known about it and the templates of one part. It is for one
// goroutine at a time.
type Needle struct {
	text      string
	class     [256]byte
	templates []*storage.Template
	keys      []string   // encoded forms of the templates, or nil
	numbering *Numbering // of the segment that is looked at; nil when it has these templates
	plans     []*plan    // by number of template, as far as they are worked out
	simple    [2]*plan   // nowhere, and inside
	spare     plan
	asked     query
	pieces    map[part]*piece

	prefix [storage.GapTime + 1]int       // how many bytes of the text a variable of each kind may begin with
	before [256]bool                      // bytes of the text that others of it follow
	behind [storage.GapTime + 1][256]bool // bytes that can follow a variable of each kind that the text begins in
}

// plan says how lines of a template can contain a needle.
type plan struct {
	always  bool // in the text of the template
	rebuild bool // there are too many ways
	inside  bool // in a variable of a kind that may hold all of it
	ways    []way
}

// way is one place of the needle in a template: all of it must hold.
type way []part

// part is what a variable must be like.
type part struct {
	gap  int
	mode mode
	text string
	mask byte // classes of the bytes of text
}

// mode is how a part of a needle lies in a variable.
type mode uint8

const (
	inside mode = iota // anywhere
	atEnd
	atStart
	equal
)

// NewNeedle returns a needle for a segment with these templates. They may be none, and told by In.
func NewNeedle(text string, templates []*storage.Template) *Needle {
	n := &Needle{text: text, class: classTable(), templates: templates, pieces: make(map[part]*piece)}
	n.simple = [2]*plan{{}, {inside: true}}
	n.asked.all = text == ""
	for i := range max(0, len(text)-1) {
		n.before[text[i]] = true
	}
	for kind := range n.prefix {
		k := 0
		for k < len(text) && allows(storage.Gap(kind), text[k], &n.class) {
			k++
		}
		n.prefix[kind] = k
		for m := 1; m < len(text) && m <= k; m++ {
			n.behind[kind][text[m]] = true
		}
	}
	return n
}

// In turns the needle to a segment of the part that it is for, and returns it.
func (n *Needle) In(s *Numbering) *Needle {
	n.numbering = s
	if len(s.all) > len(n.templates) {
		n.templates, n.keys = s.all, s.keys
	}
	return n
}

// in returns the part for the needle in the variable of a gap.
func (n *Needle) in(gap int) part {
	p := part{gap: gap, mode: inside, text: n.text}
	for i := range len(n.text) {
		p.mask |= n.class[n.text[i]]
	}
	return p
}

// CanContain says whether lines of a template can contain the needle, by the number of the template in the segment.
func (n *Needle) CanContain(template int) bool {
	p := n.plan(template)
	return p.always || p.rebuild || p.inside || len(p.ways) > 0
}

// plan returns the plan of a template of the segment.
func (n *Needle) plan(template int) *plan {
	if n.numbering != nil {
		template = int(n.numbering.of[template])
	}
	n.learn()
	return n.plans[template]
}

// learn works out the plans of all templates that are known.
func (n *Needle) learn() {
	if len(n.plans) == len(n.templates) {
		return
	}
	n.plans = slices.Grow(n.plans, len(n.templates)-len(n.plans))
	for i := len(n.plans); i < len(n.templates); i++ {
		key := ""
		if n.keys != nil {
			key = n.keys[i]
		}
		p := n.work(n.templates[i], key)
		switch { // most are alike: they share one
		case p.always || p.rebuild || len(p.ways) > 0:
			own := *p
			p = &own
			n.ask(uint32(i), p)
		case p.inside:
			p = n.simple[1]
		default:
			p = n.simple[0]
		}
		if p.inside && n.asked.inside == nil {
			n.asked.inside = n.piece(n.in(0))
		}
		n.plans = append(n.plans, p)
	}
}

// planner collects the ways of a needle in a template.
type planner struct {
	n     *Needle
	t     *storage.Template
	p     *plan
	parts []part
	steps int
}

// work works out the plan of a template, whose encoded form is key or not known. It is valid until the next call.
func (n *Needle) work(t *storage.Template, key string) *plan {
	p := &n.spare
	*p = plan{}
	if key == "" || strings.Contains(key, n.text) { // the key has all text, and more
		for _, text := range t.Text {
			if strings.Contains(text, n.text) {
				p.always = true
				return p
			}
		}
	}
	w := planner{n: n, t: t, p: p}
	for g, kind := range t.Gaps {
		// It begins in the text before the gap ...
		text := t.Text[g]
		if text != "" && n.before[text[len(text)-1]] {
			for m := min(len(text), len(n.text)-1); m >= 1; m-- {
				if n.text[m-1] == text[len(text)-1] && strings.HasSuffix(text, n.text[:m]) {
					w.begin(g, n.text[m:])
				}
			}
		}
		// ... or in the variable.
		p.inside = p.inside || n.prefix[kind] == len(n.text)
		behind := t.Text[g+1]
		if behind != "" && !n.behind[kind][behind[0]] {
			continue
		}
		for m := 1; m < len(n.text) && m <= n.prefix[kind]; m++ {
			if behind == "" || behind[0] == n.text[m] {
				w.text(part{gap: g, mode: atEnd, text: n.text[:m]}, n.text[m:])
			}
		}
	}
	if p.rebuild {
		p.ways = nil
	}
	return p
}

// begin goes on at the start of the variable of a gap.
func (w *planner) begin(g int, rest string) {
	if g >= len(w.t.Gaps) {
		return
	}
	kind := w.t.Gaps[g]
	if w.n.fits(kind, rest) {
		w.found(part{gap: g, mode: atStart, text: rest})
	}
	for m := range len(rest) {
		if m > 0 && !allows(kind, rest[m-1], &w.n.class) {
			return
		}
		w.text(part{gap: g, mode: equal, text: rest[:m]}, rest[m:])
	}
}

// text goes on in the text behind the variable of p.
func (w *planner) text(p part, rest string) {
	if w.steps++; w.steps > maxSteps {
		w.p.rebuild = true
		return
	}
	text := w.t.Text[p.gap+1]
	if len(rest) <= len(text) {
		if strings.HasPrefix(text, rest) {
			w.found(p)
		}
		return
	}
	if strings.HasPrefix(rest, text) && p.gap+1 < len(w.t.Gaps) {
		w.parts = append(w.parts, p)
		w.begin(p.gap+1, rest[len(text):])
		w.parts = w.parts[:len(w.parts)-1]
	}
}

func (w *planner) found(p part) {
	if len(w.p.ways) == maxWays {
		w.p.rebuild = true
		return
	}
	way := append(append(make(way, 0, len(w.parts)+1), w.parts...), p)
	for i := range way {
		for _, c := range []byte(way[i].text) {
			way[i].mask |= w.n.class[c]
		}
	}
	w.p.ways = append(w.p.ways, way)
}

func (n *Needle) fits(kind storage.Gap, text string) bool {
	for i := range len(text) {
		if !allows(kind, text[i], &n.class) {
			return false
		}
	}
	return true
}

// allows says whether a variable of a kind may hold c: the promises of storage.Gap.
func allows(kind storage.Gap, c byte, class *[256]byte) bool {
	switch kind {
	case storage.GapDigits:
		return class[c] == isDigit
	case storage.GapWord:
		return class[c]&isAlnum != 0
	case storage.GapNumber:
		return class[c] == isDigit || strings.IndexByte("+-.eE", c) >= 0
	case storage.GapPlain:
		return c > ' ' && c != '"' && c != '\\' && c != '=' && c != 0x7f
	case storage.GapQuoted:
		return c >= ' ' && c != '"' && c != '\\'
	case storage.GapTime:
		return class[c]&isAlnum != 0 || strings.IndexByte(" +-:.,/", c) >= 0
	default:
		return true
	}
}

// Contains removes the rows from keep whose line does not contain the needle, which must be one for the templates that the
// block was opened with. Only where the needle can lie in more ways than can be told apart lines are rebuilt.
func (b *Block) Contains(n *Needle, keep Set) error {
	live := make([]bool, len(b.shapes)) // shapes with rows in keep
	if keep.Count() == len(b.shapeOf) {
		for i := range live {
			live[i] = true
		}
	} else {
		keep.Each(func(row int) { live[b.shapeOf[row]] = true })
	}
	kept, dropped := false, false
	for i, s := range b.shapes {
		if !live[i] {
			continue
		}
		p := n.plan(int(s.number))
		if p.always {
			kept = true
			continue
		}
		if p.rebuild {
			kept = true
			if err := b.rebuilt(n.text, b.rowsOf(s), keep); err != nil {
				return err
			}
			continue
		}
		hits, err := b.hits(n, s, p)
		if err != nil {
			return err
		}
		if hits == nil {
			live[i], dropped = false, true
			continue
		}
		kept = true
		for k, row := range b.rowsOf(s) {
			if !hits[k] {
				keep.Remove(int(row))
			}
		}
	}
	switch {
	case !kept:
		clear(keep)
	case dropped:
		for row, s := range b.shapeOf {
			if !live[s] {
				keep.Remove(row)
			}
		}
	}
	return nil
}

// rebuilt is Contains for the given rows.
func (b *Block) rebuilt(text string, rows []uint32, keep Set) error {
	var buf []byte
	var err error
	for _, row := range rows {
		if !keep.Has(int(row)) {
			continue
		}
		if buf, err = b.AppendLine(buf[:0], int(row)); err != nil {
			return err
		}
		if !strings.Contains(string(buf), text) {
			keep.Remove(int(row))
		}
	}
	return nil
}

// hits says for each row of a shape whether one of the ways holds; nil is none.
func (b *Block) hits(n *Needle, s *blockShape, p *plan) ([]bool, error) {
	var hits []bool
	ways := p.ways
	if p.inside {
		ways = slices.Clone(ways)
		for gap, kind := range s.template.Gaps {
			if n.prefix[kind] == len(n.text) {
				ways = append(ways, way{n.in(gap)})
			}
		}
	}
next:
	for _, w := range ways {
		for _, q := range w {
			c := &s.cols[q.gap]
			if q.mask&^c.mask != 0 || len(q.text) > c.top {
				continue next
			}
		}
		var now []bool
		for _, q := range w {
			v, err := b.values(s, q.gap)
			if err != nil {
				return nil, err
			}
			if now = v.where(&q, now); now == nil {
				continue next
			}
		}
		if hits == nil {
			hits = now
			continue
		}
		for i, ok := range now {
			hits[i] = hits[i] || ok
		}
	}
	return hits, nil
}

func (p *part) matches(v string) bool {
	switch p.mode {
	case inside:
		return strings.Contains(v, p.text)
	case atEnd:
		return strings.HasSuffix(v, p.text)
	case atStart:
		return strings.HasPrefix(v, p.text)
	default:
		return v == p.text
	}
}

// where returns the rows where the column is as p wants it, and that among has (nil has all of them); nil is none.
func (v *values) where(p *part, among []bool) []bool {
	out := among
	if out == nil {
		out = make([]bool, v.n)
		for i := range out {
			out[i] = true
		}
	}
	any := false
	switch {
	case v.Dict != nil:
		ok := make([]bool, len(v.Dict))
		some := false
		for i, t := range v.Dict {
			ok[i] = p.matches(t)
			some = some || ok[i]
		}
		if !some {
			return nil
		}
		for i, c := range v.Code {
			out[i] = out[i] && ok[c]
			any = any || out[i]
		}
	case v.Ints != nil:
		if p.mask == isDigit && v.Scale == 0 && len(p.text) < maxRunDigits {
			return v.searchInts(p, out)
		}
		var buf [24]byte
		for i, n := range v.Ints {
			out[i] = out[i] && p.matches(string(storage.AppendDecimal(buf[:0], n, v.Scale)))
			any = any || out[i]
		}
	default:
		if p.mode == inside || len(p.text) > 4 { // all texts at once
			return v.search(p, out)
		}
		for i, t := range v.Texts {
			out[i] = out[i] && p.matches(t)
			any = any || out[i]
		}
	}
	if !any {
		return nil
	}
	return out
}

// searchInts is where for integers and a part of digits.
func (v *values) searchInts(p *part, out []bool) []bool {
	want, size := uint64(0), uint64(1)
	for i := range len(p.text) {
		want, size = want*10+uint64(p.text[i]-'0'), size*10
	}
	// With fewer digits a number cannot have them.
	least := size / 10
	if p.text == "0" {
		least = 0
	}
	any := false
	for i, n := range v.Ints {
		if !out[i] {
			continue
		}
		u, neg := uint64(n), n < 0
		if neg {
			u = -u
		}
		ok := false
		switch p.mode {
		case equal:
			ok = !neg && u == want && u >= least
		case atEnd:
			ok = u >= least && u%size == want
		case atStart:
			for u >= size {
				u /= 10
			}
			ok = !neg && u >= least && u == want
		default:
			for ok = u >= least && u%size == want; !ok && u >= 10*max(least, 1); {
				u /= 10
				ok = u%size == want
			}
		}
		out[i] = ok
		any = any || ok
	}
	if !any {
		return nil
	}
	return out
}

// search is where for texts that are cut from one.
func (v *values) search(p *part, out []bool) []bool {
	any := false
	row, start, at := 0, 0, 0 // texts[row] begins at start; the search goes on at at
	for {
		i := strings.Index(v.text[at:], p.text)
		if i < 0 {
			break
		}
		hit := at + i
		for start+len(v.Texts[row]) <= hit {
			out[row] = false
			start += len(v.Texts[row])
			row++
		}
		t := v.Texts[row]
		ok := hit+len(p.text) <= start+len(t)
		if ok && p.mode != inside {
			ok = p.matches(t)
		}
		if ok || p.mode != inside {
			out[row] = out[row] && ok
			any = any || out[row]
			start += len(t)
			row++
			at = start
			if row == len(v.Texts) {
				break
			}
			continue
		}
		at = hit + 1 // across the end of the text
	}
	for ; row < len(v.Texts); row++ {
		out[row] = false
	}
	if !any {
		return nil
	}
	return out
}
