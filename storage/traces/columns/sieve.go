package columns

import (
	"bytes"
	"math/bits"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/traces/columns/piece"
)

// Test tells which rows of a segment may match a predicate: all that do pass it, and maybe others. It is for one goroutine.
type Test struct {
	s *Segment
	// A row passes when all of these hold.
	pages  uint64      // it lies in one of them
	tuples []uint8     // 1 for those that it may have; nil for any
	res    []uint8     // the same for its resource
	timed  bool        // its duration is between lo and hi
	lo, hi int64       //
	items  []*itemTest // it is such an item, or has one
	either [][]*Test   // it passes one of each
}

// itemTest is passed by items of a family whose tuple is among some and which have a value that is wanted, if the tuple leaves
// the value to a column.
type itemTest struct {
	family family
	key    uint32
	tuples []uint8 // nil for any; of spans see Test.tuples
	match  match
	dict   []verdict // of values of the segment's dictionary, once asked for
}

// verdict says whether a value is wanted.
type verdict uint8

const (
	unknown verdict = iota
	wanted
	unwanted
)

// Blocks returns the blocks that may hold a row that passes, as bits.
func (t *Test) Blocks() uint64 { return t.s.ofPages(t.pages) }

// Any says whether all rows of the blocks pass.
func (t *Test) Any() bool {
	return t.tuples == nil && t.res == nil && !t.timed && t.items == nil && t.either == nil
}

// and makes t one that is passed by what passes both.
func (t *Test) and(o *Test) {
	t.pages &= o.pages
	t.tuples, t.res = both(t.tuples, o.tuples), both(t.res, o.res)
	switch {
	case !t.timed:
		t.timed, t.lo, t.hi = o.timed, o.lo, o.hi
	case o.timed:
		t.lo, t.hi = max(t.lo, o.lo), min(t.hi, o.hi)
	}
	t.items = append(slices.Clip(t.items), o.items...)
	t.either = append(slices.Clip(t.either), o.either...)
}

// both returns what is in two lists of which nil has all.
func both(a, b []uint8) []uint8 {
	if a == nil || b == nil {
		return append(a, b...)
	}
	out := make([]uint8, len(a))
	for i := range out {
		out[i] = a[i] & b[i]
	}
	return out
}

// either returns a test that is passed by what passes one of ts.
func (s *Segment) either(ts []*Test) *Test {
	out := &Test{s: s}
	some := ts[:0]
	onlyTuples, onlyRes := true, true
	for _, t := range ts {
		if t.pages == 0 {
			continue
		}
		if t.Any() && t.pages == s.allPages() {
			return t
		}
		some = append(some, t)
		out.pages |= t.pages
		rest := t.timed || t.items != nil || t.either != nil
		onlyTuples = onlyTuples && t.tuples != nil && t.res == nil && !rest
		onlyRes = onlyRes && t.res != nil && t.tuples == nil && !rest
	}
	if len(some) == 1 {
		return some[0]
	}
	if len(some) == 0 {
		return out
	}
	out.tuples, out.res = some[0].tuples, some[0].res
	for _, t := range some[1:] {
		out.tuples, out.res = one(out.tuples, t.tuples), one(out.res, t.res)
	}
	if !onlyTuples && !onlyRes {
		out.either = [][]*Test{some}
	}
	return out
}

// one returns what is in one of two lists of which nil has all.
func one(a, b []uint8) []uint8 {
	if a == nil || b == nil {
		return nil
	}
	out := make([]uint8, len(a))
	for i := range out {
		out[i] = a[i] | b[i]
	}
	return out
}

// Sieve returns the traces of the block that have a row that passes t, as bits by number; nil when there is none.
func (b *Block) Sieve(t *Test) ([]uint64, error) {
	var out []uint64
	for _, p := range b.pages {
		set := b.mem.Sets.Get((p.info.Rows + 63) / 64)
		some, err := p.passing(t, set)
		if err != nil {
			return nil, err
		}
		if !some {
			continue
		}
		first, err := b.First()
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = make([]uint64, (len(first)+62)/64)
		}
		trace := 0
		for w, x := range set {
			for ; x != 0; x &= x - 1 {
				row := int32(p.base + w<<6 + bits.TrailingZeros64(x))
				if row < first[trace+1] && row >= first[trace] && out[trace>>6]>>(trace&63)&1 != 0 {
					continue
				}
				for first[trace+1] <= row {
					trace++
				}
				out[trace>>6] |= 1 << (trace & 63)
			}
		}
	}
	return out, nil
}

// passing makes set the rows of the page that pass t, and says whether there are any.
func (p *pageReader) passing(t *Test, set []uint64) (bool, error) {
	if t.pages>>(p.Block-p.s.first)&1 == 0 {
		return false, nil
	}
	filled, err := p.coded(t, set)
	if err != nil {
		return false, err
	}
	if filled && empty(set) {
		return false, nil
	}
	if !filled {
		clear(set)
		piece.Fill(set, p.info.Rows)
	}
	if t.timed {
		durs, err := p.durationsOf(set)
		if err != nil {
			return false, err
		}
		keep(set, func(row int) bool { return durs[row] >= t.lo && durs[row] <= t.hi })
	}
	for _, it := range t.items {
		if err := p.having(it, set); err != nil {
			return false, err
		}
	}
	for _, ts := range t.either {
		if empty(set) {
			break
		}
		sum, some := p.b.mem.Sets.Get(len(set)), p.b.mem.Sets.Get(len(set))
		clear(sum)
		for _, o := range ts {
			ok, err := p.passing(o, some)
			if err != nil {
				return false, err
			}
			for i := range sum {
				if ok {
					sum[i] |= some[i]
				}
			}
		}
		for i := range set {
			set[i] &= sum[i]
		}
	}
	return !empty(set), nil
}

// coded makes set the rows whose tuple and resource pass t, and says whether there is anything to pass; if not, set is as it was.
func (p *pageReader) coded(t *Test, set []uint64) (bool, error) {
	var views [2]*piece.View
	some := [2][]uint8{t.tuples, t.res}
	for i, what := range [...]codesOf{codesOfTuples, codesOfResources} {
		if some[i] == nil {
			continue
		}
		var err error
		if views[i], err = p.view(what); err != nil {
			return false, err
		}
	}
	first, then := 0, 1
	if views[0] == nil || views[1] != nil && views[1].Width() < views[0].Width() {
		first, then = 1, 0 // it costs less to look at all of these
	}
	if views[first] == nil {
		return false, nil
	}
	if views[first].Mark(some[first], set) && views[then] != nil {
		views[then].Keep(some[then], set)
	}
	return true, nil
}

func empty(set []uint64) bool {
	for _, x := range set {
		if x != 0 {
			return false
		}
	}
	return true
}

// keep leaves in a set what f takes.
func keep(set []uint64, f func(i int) bool) {
	for w, x := range set {
		for ; x != 0; x &= x - 1 {
			if i := bits.TrailingZeros64(x); !f(w<<6 + i) {
				set[w] &^= 1 << i
			}
		}
	}
}

// having leaves in a set the rows that are such items, or have one.
func (p *pageReader) having(it *itemTest, set []uint64) error {
	if it.family == spans {
		return p.valued(it, set)
	}
	if err := p.load(); err != nil {
		return err
	}
	codes, err := p.tuples(it.family)
	if err != nil {
		return err
	}
	items := p.b.mem.Sets.Get((len(codes) + 63) / 64)
	clear(items)
	for i, c := range codes {
		if it.tuples == nil || it.tuples[c] != 0 {
			items[i>>6] |= 1 << (i & 63)
		}
	}
	if err := p.valued(it, items); err != nil {
		return err
	}
	of, err := p.rowsOf(it.family)
	if err != nil {
		return err
	}
	rows := p.b.mem.Sets.Get(len(set))
	clear(rows)
	keep(items, func(i int) bool {
		rows[of[i]>>6] |= 1 << (of[i] & 63)
		return true
	})
	for i := range set {
		set[i] &= rows[i]
	}
	return nil
}

// valued takes from a set the items whose column has a value that is not wanted, or that have no value at all where their tuple was
// not looked at.
func (p *pageReader) valued(it *itemTest, set []uint64) error {
	if p.s.keys[it.key].columned>>(p.Block-p.s.first)&1 == 0 || empty(set) {
		return nil
	}
	if err := p.load(); err != nil {
		return err
	}
	k, err := p.column(it.key)
	if err != nil {
		return err
	}
	if k == nil {
		return p.Bad("columns", "the page has no column of key %q", p.s.keys[it.key].name)
	}
	has := p.b.mem.Sets.Get(len(set))
	clear(has)
	if ok, err := p.among(it, k); err != nil {
		return err
	} else if ok {
		if err := p.decode(k); err != nil {
			return err
		}
		dict := it.dict
		if k.form != formCodes || dict == nil {
			dict = make([]verdict, len(k.vals))
		}
		if k.form == formCodes {
			it.dict = dict
		}
		for i := range k.n {
			item := i
			if k.at != nil {
				item = int(k.at[i])
			}
			if set[item>>6]>>(item&63)&1 == 0 {
				continue
			}
			ok := false
			if k.ints != nil {
				ok = it.match.accept(telemetry.Int(k.ints[i]))
			} else {
				c := k.code[i]
				if dict[c] == unknown {
					dict[c] = unwanted
					if it.match.accept(k.vals[c]) {
						dict[c] = wanted
					}
				}
				ok = dict[c] == wanted
			}
			if ok {
				has[item>>6] |= 1 << (item & 63)
			}
		}
	}
	for i := range set {
		set[i] &= has[i]
	}
	return nil
}

// among says whether one of the values that are wanted may be in a column: where they are few, and the column has strings as they
// are, its bytes are searched before they are taken apart.
func (p *pageReader) among(it *itemTest, k *keyRows) (bool, error) {
	if k.form != formStrings || !it.match.few() || k.code != nil {
		return true, nil
	}
	raw, err := p.texts(k)
	if err != nil {
		return false, err
	}
	if it.match.text != nil {
		return bytes.Contains(raw, []byte(*it.match.text)), nil
	}
	for _, v := range it.match.equal {
		if v.Kind() == telemetry.KindString && bytes.Contains(raw, []byte(v.Str())) {
			return true, nil
		}
	}
	return false, nil
}
