package logs

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs/lines"
	"github.com/braidobs/braid/storage/part"
)

// Scan implements Source.
func (p *Part) Scan(ctx context.Context, s *Scan, emit func(Rows) error) error {
	if err := p.load(); err != nil {
		return err
	}
	masks := s.Masks
	if len(masks) > 0 {
		defer func() { s.Masks = masks }()
		s.Masks = p.pending(masks)
	}
	if p.legacy != nil {
		return p.legacy.Scan(ctx, s, emit)
	}
	allowed := streamsOf(s.Where, p.streams)
	if allowed != nil && !slices.Contains(allowed, true) {
		return nil
	}
	var todo []candidate
	for i := range p.segments {
		var err error
		if todo, err = p.candidates(todo, &p.segments[i], s, allowed); err != nil {
			return err
		}
	}
	switch s.Order {
	case storage.Unordered:
	case storage.NewestFirst:
		slices.SortStableFunc(todo, func(a, b candidate) int { return cmp.Compare(b.hi, a.hi) })
	case storage.OldestFirst:
		slices.SortStableFunc(todo, func(a, b candidate) int { return cmp.Compare(a.lo, b.lo) })
	}
	return p.scanBlocks(ctx, s, allowed, todo, emit)
}

// scanSegment emits the rows of one segment, which s selects.
func (p *Part) scanSegment(ctx context.Context, g *segment, s *Scan, emit func(Rows) error) error {
	some, err := p.candidates(nil, g, s, nil)
	if err != nil {
		return err
	}
	return p.scanBlocks(ctx, s, nil, some, emit)
}

// candidate is a block that may hold rows.
type candidate struct {
	g      *segment
	b      int
	lo, hi int64
}

// candidates appends the blocks of a segment that may hold rows of s, as far as statistics know.
func (p *Part) candidates(some []candidate, g *segment, s *Scan, allowed []bool) ([]candidate, error) {
	t := p.p.Table("rows")
	for b := g.at[tabRows].from; b < g.at[tabRows].to; b++ {
		lo, hi, ok := t.Ints("time", b)
		if !ok {
			return nil, t.Corrupt("time", b, "block %d has no smallest and largest time", b)
		}
		if hi < s.Start || lo > s.End {
			continue
		}
		if allowed != nil {
			if first, last, ok := t.Ints("stream", b); ok && first >= 0 && last < int64(len(g.streams)) &&
				!slices.ContainsFunc(g.streams[first:last+1], func(n uint32) bool { return allowed[n] }) {
				continue
			}
		}
		some = append(some, candidate{g: g, b: b, lo: lo, hi: hi})
	}
	return some, nil
}

// worth returns the blocks of a segment that may hold rows of s, as far as the index knows; nil is all.
func (p *Part) worth(g *segment, s *Scan) (lines.Set, error) {
	if !indexed(s.Where) {
		return nil, nil
	}
	set := lines.NewSet(g.at[tabRows].to - g.at[tabRows].from)
	return set, p.narrow(g, s, s.Where, set)
}

// indexed says whether the index can rule out blocks by p.
func indexed(p storage.Predicate) bool {
	switch p := p.(type) {
	case storage.And:
		return slices.ContainsFunc(p, indexed)
	case storage.Or:
		return !slices.ContainsFunc(p, func(q storage.Predicate) bool { return !indexed(q) })
	case storage.LineContains:
		return p != ""
	case storage.TraceIn, storage.ResourceIn:
		return true
	case storage.AttrMatch:
		return p.M.Type == labels.MatchEqual && p.M.Value != "" && (p.Scope == storage.RecordScope || p.Scope == storage.AnyScope)
	default:
		return false
	}
}

// narrow removes from set the blocks of a segment that cannot hold rows of p.
func (p *Part) narrow(g *segment, s *Scan, where storage.Predicate, set lines.Set) error {
	if !indexed(where) {
		return nil
	}
	switch w := where.(type) {
	case storage.And:
		for _, q := range w {
			if err := p.narrow(g, s, q, set); err != nil {
				return err
			}
		}
		return nil
	case storage.Or:
		return union(set, len(w), func(i int, some lines.Set) error { return p.narrow(g, s, w[i], some) })
	case storage.ResourceIn:
		for _, n := range g.res {
			if r := p.res[n]; r != nil && slices.Contains(w, r.ID) {
				return nil
			}
		}
		clear(set)
		return nil
	}
	x, err := s.index(p, g)
	if err != nil {
		return err
	}
	var found lines.Set
	switch w := where.(type) {
	case storage.LineContains:
		if _, err = p.templatesOf(g); err == nil {
			found, err = x.Blocks(s.needle(p, g, string(w)))
		}
	case storage.TraceIn:
		return union(set, len(w), func(i int, some lines.Set) error {
			found, err := x.Hashed(traceHash(w[i]))
			if err == nil {
				some.And(found)
			}
			return p.badIndex(g, err)
		})
	case storage.AttrMatch:
		if w.Scope == storage.AnyScope && p.elsewhere(g, w.M.Name) {
			return nil
		}
		found, err = x.Hashed(xxhash.Sum64(appendAttrKey(nil, w.M.Name, w.M.Value)))
	}
	if err != nil {
		return p.badIndex(g, err)
	}
	set.And(found)
	return nil
}

// elsewhere says whether resources or scopes of the segment have an attribute.
func (p *Part) elsewhere(g *segment, key string) bool {
	return slices.ContainsFunc(g.res, func(n uint32) bool {
		if p.res[n] == nil {
			return false
		}
		_, ok := p.res[n].Attrs.Get(key)
		return ok
	}) || slices.ContainsFunc(g.scopes, func(n uint32) bool {
		if p.scopes[n] == nil {
			return false
		}
		_, ok := p.scopes[n].Attrs.Get(key)
		return ok
	})
}

// union narrows set to what any of n alternatives leaves of it.
func union(set lines.Set, n int, narrow func(i int, some lines.Set) error) error {
	left := slices.Clone(set)
	clear(set)
	for i := range n {
		some := slices.Clone(left)
		if err := narrow(i, some); err != nil {
			return err
		}
		set.Or(some)
		left.AndNot(some)
	}
	return nil
}

// maxOpen bounds the blocks that stay decoded until the rows that are wanted are known.
const maxOpen = 16

func (p *Part) scanBlocks(ctx context.Context, s *Scan, allowed []bool, todo []candidate, emit func(Rows) error) error {
	worth := make(map[*segment]lines.Set)
	open := 0
	for _, c := range todo {
		if c.hi < s.Start || c.lo > s.End { // by now
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.MaxBytes > 0 && s.Cost != nil && s.Cost.Bytes > s.MaxBytes {
			return fmt.Errorf("%d bytes: %w", s.Cost.Bytes, storage.ErrReadLimit)
		}
		set, known := worth[c.g]
		if !known {
			var err error
			if set, err = p.worth(c.g, s); err != nil {
				return err
			}
			worth[c.g] = set
		}
		if set != nil && !set.Has(c.b-c.g.at[tabRows].from) {
			continue
		}
		rd := p.openBlock(c, s)
		rows, any, err := rd.selected(ctx, c, allowed)
		if err != nil {
			return err
		}
		if !any {
			continue
		}
		first := int64(c.b) << 16
		out := Rows{place: func(i int) int64 {
			if rows != nil {
				i = rows[i]
			}
			return first + int64(i)
		}}
		cols := s.Columns
		if s.late {
			cols &= storage.LogStream
		}
		if out.LogBlock, err = rd.fill(rows, cols); err != nil {
			return err
		}
		if s.late {
			if open++; open > maxOpen {
				rd.times, rd.text, rd.attrs, rd.known = nil, nil, nil, false
			}
			wanted := s.Columns
			out.load = func(some []int) (*storage.LogBlock, error) {
				rd.mem = &memory{}
				if rows != nil {
					some = part.Pick(some, rows, part.Same[int])
				}
				return rd.fill(some, wanted)
			}
		}
		if err := emit(out); err != nil {
			return err
		}
	}
	return nil
}
