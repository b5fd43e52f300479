package columns

import (
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// maxHashed bounds the values of a dictionary that are looked up in the filter one by one.
const maxHashed = 128

// Prune returns the blocks that may hold a trace that has for each predicate a row that matches it, as bits.
func (s *Segment) Prune(need []storage.Predicate) (uint64, error) {
	out := s.ofPages(s.allPages())
	for _, p := range need {
		some, err := s.Where(p)
		if out &= some; err != nil || out == 0 {
			return 0, err
		}
	}
	return out, nil
}

// Where returns the blocks that may hold a row that matches p, as bits.
func (s *Segment) Where(p storage.Predicate) (uint64, error) {
	t, err := s.Test(p)
	if err != nil {
		return 0, err
	}
	return t.Blocks(), nil
}

// Test returns what rows that match p pass.
func (s *Segment) Test(p storage.Predicate) (*Test, error) {
	t, err := s.test(p)
	if err != nil || t.tuples == nil || t.pages == 0 {
		return t, err
	}
	set, err := s.tuplesOf(spans)
	if err != nil {
		return nil, err
	}
	t.pages &= pagesWith(t.tuples, set.masks)
	return t, nil
}

func pagesWith(some []uint8, masks []uint64) (pages uint64) {
	for i, ok := range some {
		if ok != 0 {
			pages |= masks[i]
		}
	}
	return pages
}

func (s *Segment) test(p storage.Predicate) (*Test, error) {
	all := &Test{s: s, pages: s.allPages()}
	switch p := p.(type) {
	case storage.And:
		for _, q := range p {
			t, err := s.test(q)
			if err != nil {
				return nil, err
			}
			all.and(t)
		}
		return all, nil
	case storage.Or:
		ts := make([]*Test, 0, len(p))
		for _, q := range p {
			t, err := s.test(q)
			if err != nil {
				return nil, err
			}
			ts = append(ts, t)
		}
		return s.either(ts), nil
	case storage.ResourceIn:
		return s.byResource(func(_ int, r *telemetry.Resource) bool { return r != nil && slices.Contains(p, r.ID) })
	case storage.TraceIn:
		out := &Test{s: s}
		for _, id := range p {
			if id.IsZero() {
				continue
			}
			pages, err := s.hashed(traceHash(id))
			if err != nil {
				return nil, err
			}
			out.pages |= pages
		}
		return out, nil
	case storage.DurationRange:
		out := &Test{s: s, timed: true, lo: p.Min, hi: p.Max}
		for i := range s.pages {
			if x := &s.pages[i]; x.maxDur >= p.Min && x.minDur <= p.Max {
				out.pages |= 1 << i
			}
		}
		return out, nil
	case storage.ValueMatch:
		return s.byValue(p.Key, match{accept: p.Accept, equal: p.Equal})
	case storage.FieldMatch:
		return s.byField(p)
	case storage.AttrMatch:
		if p.M.Matches("") {
			return all, nil
		}
		m := match{accept: func(v telemetry.Value) bool { return p.M.Matches(v.Text()) }}
		if p.M.Type == labels.MatchEqual {
			m.text = &p.M.Value
		}
		return s.byValue(storage.SpanKey{Scope: p.Scope, Name: p.M.Name}, m)
	default: // Not, nil, and predicates about logs
		return all, nil
	}
}

// match is what values are wanted.
type match struct {
	accept func(telemetry.Value) bool
	equal  []telemetry.Value // if not nil, all of them
	text   *string           // if not nil, the text of all of them
}

func (s *Segment) byField(p storage.FieldMatch) (*Test, error) {
	m := match{accept: func(v telemetry.Value) bool { return p.M.Matches(v.Text()) }}
	switch p.Field {
	case storage.SpanName, storage.SpanStatusMessage:
		if p.M.Type == labels.MatchEqual {
			m.text = &p.M.Value
		}
	case storage.SpanKindField:
		m.accept = func(v telemetry.Value) bool { return p.M.Matches(telemetry.SpanKind(v.Int()).String()) }
	case storage.SpanStatus:
		m.accept = func(v telemetry.Value) bool { return p.M.Matches(telemetry.StatusCode(v.Int()).String()) }
	default:
		return &Test{s: s, pages: s.allPages()}, nil
	}
	return s.byValue(storage.Field(p.Field), m)
}

// byValue says which rows may have a value of a key that m takes.
func (s *Segment) byValue(key storage.SpanKey, m match) (*Test, error) {
	if name, ok := keyOf(key); ok {
		return s.byKey(name, m)
	}
	switch key.Scope {
	case storage.ResourceScope:
		d, err := s.resourceValues(key)
		if err != nil {
			return nil, err
		}
		accepted := make([]bool, len(d.dict))
		for i, v := range d.dict {
			accepted[i] = m.accept(v)
		}
		return s.byResource(func(i int, _ *telemetry.Resource) bool { return d.code[i] != absent && accepted[d.code[i]] })
	case storage.InstrumentationScope:
		return s.byScope(key, m)
	case storage.FieldScope:
		if key.Field == storage.ScopeName || key.Field == storage.ScopeVersion {
			return s.byScope(key, m)
		}
	case storage.AnyScope:
		var ts []*Test
		for _, scope := range []storage.AttrScope{storage.RecordScope, storage.InstrumentationScope, storage.ResourceScope} {
			t, err := s.byValue(storage.SpanKey{Scope: scope, Name: key.Name}, m)
			if err != nil {
				return nil, err
			}
			ts = append(ts, t)
		}
		return s.either(ts), nil
	default:
	}
	return &Test{s: s, pages: s.allPages()}, nil
}

// byResource says which rows may have a resource that f takes.
func (s *Segment) byResource(f func(i int, r *telemetry.Resource) bool) (*Test, error) {
	res, err := s.Resources()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	masks := s.masks
	s.mu.Unlock()
	out := &Test{s: s, res: make([]uint8, len(res))}
	for i, r := range res {
		if f(i, r) {
			out.pages |= masks[i]
			out.res[i] = 1
		}
	}
	return out, nil
}

// byScope says which rows may have a scope with a value that m takes.
func (s *Segment) byScope(key storage.SpanKey, m match) (*Test, error) {
	d, err := s.scopeValues(key)
	if err != nil {
		return nil, err
	}
	accepted := make([]bool, len(d.dict))
	for i, v := range d.dict {
		accepted[i] = m.accept(v)
	}
	return s.byKey(keyName{spanField, fieldScope}, match{accept: func(v telemetry.Value) bool {
		n := v.Int()
		return n < 0 || n >= int64(len(d.code)) || d.code[n] != absent && accepted[d.code[n]]
	}})
}

// byKey says which rows may have a value of a key of the segment that m takes.
func (s *Segment) byKey(name keyName, m match) (*Test, error) {
	k, ok := s.byName[name]
	if name.filled() && m.accept(telemetry.String("")) {
		return &Test{s: s, pages: s.allPages()}, nil
	}
	if !ok {
		return &Test{s: s}, nil
	}
	meta := &s.keys[k]
	out := &Test{s: s, items: []*itemTest{{family: name.family(), key: k, match: m}}}
	if meta.n > foldValues && meta.tupled == 0 && m.few() {
		// What is looked for may be among many values: the filter knows without them.
		pages, err := s.equal(meta, m)
		out.pages = pages & meta.columned
		return out, err
	}
	vals, err := s.values(k)
	if err != nil {
		return nil, err
	}
	accepted := make([]bool, len(vals))
	count := 0
	for i, v := range vals {
		if accepted[i] = m.accept(v); accepted[i] {
			count++
		}
	}
	if count == 0 && meta.columned == 0 {
		return &Test{s: s}, nil
	}
	t, err := s.tuplesOf(name.family())
	if err != nil {
		return nil, err
	}
	l, err := s.lookup(k)
	if err != nil {
		return nil, err
	}
	with := make([]uint8, len(l)) // tuples that may match
	outside := uint64(0)
	for i, c := range l {
		switch {
		case c == absent:
		case c == own:
			with[i] = 1
			outside |= t.masks[i]
		case accepted[c]:
			with[i] = 1
			out.pages |= t.masks[i]
		}
	}
	if outside != 0 {
		some, err := s.outside(k, m, vals, accepted, count)
		if err != nil {
			return nil, err
		}
		out.pages |= outside & some
	}
	if name.family() == spans {
		out.tuples = with
	} else {
		out.items[0].tuples = with
	}
	if meta.columned == 0 && name.family() == spans {
		out.items = nil
	}
	return out, nil
}

// outside returns the pages whose column of a key may have a value that m takes.
func (s *Segment) outside(k uint32, m match, vals []telemetry.Value, accepted []bool, count int) (uint64, error) {
	meta := &s.keys[k]
	out := uint64(0)
	// Pages whose columns have codes of the dictionary.
	if count > maxHashed {
		out = s.allPages()
	} else {
		for i, ok := range accepted {
			if !ok {
				continue
			}
			if vals[i].Kind() != telemetry.KindString {
				out |= meta.unindexed
				continue
			}
			pages, err := s.hashedValue(meta, vals[i].Str())
			if err != nil {
				return 0, err
			}
			out |= pages
		}
	}
	if meta.anywhere == 0 {
		return out, nil
	}
	// Pages with values that the dictionary does not have.
	if !m.few() {
		return out | meta.anywhere, nil
	}
	pages, err := s.equal(meta, m)
	return out | pages, err
}

// few says whether the values that m takes are known, and few enough to look up each.
func (m *match) few() bool { return m.text != nil || m.equal != nil && len(m.equal) <= maxHashed }

// equal returns the pages whose column of a key may have one of the values of m, which are few.
func (s *Segment) equal(meta *keyMeta, m match) (uint64, error) {
	if m.text != nil {
		pages, err := s.hashedValue(meta, *m.text)
		return pages | meta.unindexed, err
	}
	out := uint64(0)
	for _, v := range m.equal {
		switch {
		case v.Kind() == telemetry.KindString:
			pages, err := s.hashedValue(meta, v.Str())
			if err != nil {
				return 0, err
			}
			out |= pages
			if meta.lo == minInt && meta.hi == maxInt { // values of all kinds, maybe strings among them
				out |= meta.unindexed
			}
		case v.Kind() != telemetry.KindInt || meta.n > 0 || v.Int() >= meta.lo && v.Int() <= meta.hi:
			out |= meta.unindexed
		}
	}
	return out, nil
}

const (
	minInt = -1 << 63
	maxInt = 1<<63 - 1
)

func (s *Segment) hashedValue(k *keyMeta, text string) (uint64, error) {
	return s.hashed(xxhash.Sum64(appendHashed(nil, k.place, k.name, text)))
}

// Values calls f with each distinct value that a key has in the segment until f returns false. It reads the columns of those pages
// whose values the dictionaries do not have.
func (s *Segment) Values(key storage.SpanKey, f func(telemetry.Value) bool) error {
	seen := make(map[telemetry.Value]bool)
	more := true
	put := func(v telemetry.Value) {
		if more && !seen[v] {
			seen[v] = true
			more = f(v)
		}
	}
	columns := func(blocks uint64) error {
		for ; blocks != 0 && more; blocks &= blocks - 1 {
			b, err := s.Block(bits.TrailingZeros64(blocks))
			if err != nil {
				return err
			}
			c, err := b.Column(key)
			if err != nil {
				return err
			}
			for i := 0; i < c.Len() && more; i++ {
				put(c.Value(i))
			}
		}
		return nil
	}
	if name, ok := keyOf(key); ok && !name.filled() {
		k, ok := s.byName[name]
		if !ok {
			return nil
		}
		vals, err := s.values(k)
		if err != nil {
			return err
		}
		for _, v := range vals {
			put(v)
		}
		return columns(s.ofPages(s.keys[k].anywhere & s.allPages()))
	}
	var d *derived
	var err error
	switch {
	case key.Scope == storage.ResourceScope:
		d, err = s.resourceValues(key)
	case key.Scope == storage.InstrumentationScope, key.Scope == storage.FieldScope && (key.Field == storage.ScopeName || key.Field == storage.ScopeVersion):
		d, err = s.scopeValues(key)
	default:
		return columns(s.ofPages(s.allPages()))
	}
	if err != nil {
		return err
	}
	for _, v := range d.dict {
		put(v)
	}
	return nil
}
