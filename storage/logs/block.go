package logs

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"unsafe"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs/lines"
	"github.com/braidobs/braid/storage/part"
)

// blockReader reads one block of a part: what decides about its rows, then the columns that are wanted.
type blockReader struct {
	p     *Part
	g     *segment
	b     int
	n     int // rows
	s     *Scan
	t     *part.Table
	mem   *memory
	times []int64 // once they are known
	text  *lines.Block
	attrs []attrColumn
	known bool // attrs are there
	buf   []byte
}

func (p *Part) openBlock(c candidate, s *Scan) *blockReader {
	t := p.p.Table("rows")
	r := &blockReader{p: p, g: c.g, b: c.b, n: t.BlockRows(c.b), s: s, t: t, mem: s.memory()}
	s.opened(1, r.n, 8*r.n)
	return r
}

// allTimes returns the times of all rows.
func (r *blockReader) allTimes() ([]int64, error) {
	if r.times == nil {
		var err error
		if r.mem.times, err = r.t.ReadInts("time", r.b, r.mem.times, &r.mem.Scratch); err != nil {
			return nil, err
		}
		r.times = r.mem.times
	}
	return r.times, nil
}

// lines opens the bodies.
func (r *blockReader) lines() (*lines.Block, error) {
	if r.text != nil {
		return r.text, nil
	}
	templates, err := r.p.templatesOf(r.g)
	if err != nil {
		return nil, err
	}
	t := r.p.p.Table("lines")
	b, err := t.Blob(r.b)
	if err != nil {
		return nil, err
	}
	r.s.opened(0, 0, len(b))
	if r.text, err = r.s.Decoder.Open(b, templates.List, r.allTimes); err != nil {
		return nil, t.Corrupt("blob", r.b, "%v", err)
	}
	if r.text.Rows() != r.n {
		return nil, t.Corrupt("blob", r.b, "%d lines, want %d", r.text.Rows(), r.n)
	}
	return r.text, nil
}

// contains keeps the rows whose line contains a text.
func (r *blockReader) contains(text string, keep lines.Set) error {
	b, err := r.lines()
	if err != nil {
		return err
	}
	return r.corrupt("lines", b.Contains(r.s.needle(r.p, r.g, text), keep))
}

// corrupt says where malformed lines or attributes lie.
func (r *blockReader) corrupt(table string, err error) error {
	if err == nil || part.IsCorrupt(err) {
		return err
	}
	return r.p.p.Table(table).Corrupt("blob", r.b, "%v", err)
}

// columns opens the attributes.
func (r *blockReader) columns() ([]attrColumn, error) {
	if r.known {
		return r.attrs, nil
	}
	t := r.p.p.Table("attrs")
	b, err := t.Blob(r.b)
	if err != nil {
		return nil, err
	}
	r.s.opened(0, 0, len(b))
	if r.attrs, err = readAttrs(unsafe.String(unsafe.SliceData(b), len(b)), r.n); err != nil {
		return nil, r.corrupt("attrs", err)
	}
	r.known = true
	return r.attrs, nil
}

// selected returns the rows that the scan selects, ascending, nil for all, and whether there are any.
func (r *blockReader) selected(ctx context.Context, c candidate, allowed []bool) (rows []int, any bool, err error) {
	whole := c.lo >= r.s.Start && c.hi <= r.s.End
	if whole && len(r.s.Masks) == 0 && onlyStreams(r.s.Where) {
		all, err := r.allowed(allowed)
		if all || err != nil {
			return nil, true, err
		}
	}
	keep := slices.Grow(r.mem.keep[:0], (r.n+63)/64)[:(r.n+63)/64]
	r.mem.keep = keep
	keep.Fill(r.n)
	if !whole {
		times, err := r.allTimes()
		if err != nil {
			return nil, false, err
		}
		for i, at := range times {
			if at < r.s.Start || at > r.s.End {
				keep.Remove(i)
			}
		}
		if !keep.Any() {
			return nil, false, nil
		}
	}
	if allowed != nil {
		if err := r.byIndex("stream", r.g.streams, keep, func(n uint32) bool { return allowed[n] }); err != nil {
			return nil, false, err
		}
	}
	if err := r.filter(ctx, r.s.Where, keep, allowed != nil); err != nil {
		return nil, false, err
	}
	if err := r.unmask(ctx, keep); err != nil {
		return nil, false, err
	}
	n := keep.Count()
	if n == 0 || n == r.n {
		return nil, n > 0, nil
	}
	rows = slices.Grow(r.mem.rows[:0], n)
	keep.Each(func(row int) { rows = append(rows, row) })
	r.mem.rows = rows
	return rows, true, nil
}

// unmask removes the rows from keep that are deleted.
func (r *blockReader) unmask(ctx context.Context, keep lines.Set) error {
	for i := range r.s.Masks {
		m := &r.s.Masks[i]
		hidden := slices.Clone(keep)
		times, err := r.allTimes()
		if err != nil {
			return err
		}
		keep.Each(func(row int) {
			if times[row] < m.Start || times[row] > m.End {
				hidden.Remove(row)
			}
		})
		if err := r.filter(ctx, m.Where, hidden, false); err != nil {
			return err
		}
		keep.AndNot(hidden)
	}
	return nil
}

// onlyStreams says whether p is about streams and nothing else.
func onlyStreams(p storage.Predicate) bool {
	switch p := p.(type) {
	case nil, storage.StreamMatch:
		return true
	case storage.And:
		return !slices.ContainsFunc(p, func(q storage.Predicate) bool { return !onlyStreams(q) })
	default:
		return false
	}
}

// allowed says whether all streams between the smallest and largest of the block are; nil means all there are.
func (r *blockReader) allowed(streams []bool) (bool, error) {
	if streams == nil {
		return true, nil
	}
	lo, hi, ok := r.t.Ints("stream", r.b)
	if !ok || lo < 0 || hi >= int64(len(r.g.streams)) {
		return false, r.t.Corrupt("stream", r.b, "streams %d to %d of %d", lo, hi, len(r.g.streams))
	}
	return !slices.ContainsFunc(r.g.streams[lo:hi+1], func(n uint32) bool { return !streams[n] }), nil
}

// cost orders predicates: those that cost least come first.
func costOf(p storage.Predicate) int {
	switch p := p.(type) {
	case nil, storage.StreamMatch, storage.ResourceIn, storage.SeverityRange:
		return 0
	case storage.TraceIn:
		return 1
	case storage.LineContains:
		return 2
	case storage.AttrMatch:
		return 3
	case storage.LineMatch:
		return 6
	case storage.Not:
		return 1 + costOf(p.P)
	case storage.And:
		return listCost(p)
	case storage.Or:
		return 1 + listCost(p)
	default:
		return 0
	}
}

func listCost(ps []storage.Predicate) int {
	c := 0
	for _, q := range ps {
		c = max(c, costOf(q))
	}
	return c
}

// filter keeps the rows that match. With streams, conditions of the top on streams have been applied.
func (r *blockReader) filter(ctx context.Context, p storage.Predicate, keep lines.Set, streams bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch p := p.(type) {
	case nil:
		return nil
	case storage.And:
		order := slices.SortedStableFunc(slices.Values(p), func(a, b storage.Predicate) int { return cmp.Compare(costOf(a), costOf(b)) })
		for _, q := range order {
			if !keep.Any() {
				return nil
			}
			if err := r.filter(ctx, q, keep, streams); err != nil {
				return err
			}
		}
		return nil
	case storage.Or:
		return union(keep, len(p), func(i int, some lines.Set) error { return r.filter(ctx, p[i], some, false) })
	case storage.Not:
		some := slices.Clone(keep)
		if err := r.filter(ctx, p.P, some, false); err != nil {
			return err
		}
		keep.AndNot(some)
		return nil
	case storage.StreamMatch:
		if streams {
			return nil
		}
		return r.byIndex("stream", r.g.streams, keep, func(n uint32) bool { return storage.MatchLabels(r.p.streams[n], p) })
	case storage.ResourceIn:
		return r.byIndex("resource", r.g.res, keep, func(n uint32) bool { return r.p.res[n] != nil && slices.Contains(p, r.p.res[n].ID) })
	case storage.SeverityRange:
		ns, err := r.ints("severity")
		if err != nil {
			return err
		}
		keep.Each(func(row int) {
			if uint8(ns[row]) < p.Min || uint8(ns[row]) > p.Max {
				keep.Remove(row)
			}
		})
		return nil
	case storage.TraceIn:
		return r.byTrace(p, keep)
	case storage.AttrMatch:
		return r.byAttr(p, keep)
	case storage.LineContains:
		return r.contains(string(p), keep)
	case storage.LineMatch:
		text, err := r.lines()
		if err != nil {
			return err
		}
		// It may take long for a single line.
		if err := r.corrupt("lines", text.Match(func(line string) bool { return ctx.Err() == nil && p(line) }, keep)); err != nil {
			return err
		}
		return ctx.Err()
	default:
		clear(keep) // a predicate about spans
		return nil
	}
}

// ints returns a column of numbers, valid until the next one is read.
func (r *blockReader) ints(column string) ([]int64, error) {
	var err error
	r.mem.ints, err = r.t.ReadInts(column, r.b, r.mem.ints, &r.mem.Scratch)
	return r.mem.ints, err
}

// runs calls f with each run of rows that have the same number in a column of indexes into a dictionary of the segment.
func (r *blockReader) runs(column string, dict []uint32, f func(from, to int, n uint32)) error {
	lo, hi, ok := r.t.Ints(column, r.b)
	if ok && lo == hi && lo >= 0 && lo < int64(len(dict)) {
		f(0, r.n, dict[lo])
		return nil
	}
	at := 0
	return r.t.Runs(column, r.b, &r.mem.Scratch, func(size int, v int64) error {
		if v < 0 || v >= int64(len(dict)) {
			return fmt.Errorf("index %d into %d values", v, len(dict))
		}
		f(at, at+size, dict[v])
		at += size
		return nil
	})
}

// byIndex keeps rows by a column of indexes into a dictionary of the segment.
func (r *blockReader) byIndex(column string, dict []uint32, keep lines.Set, f func(n uint32) bool) error {
	return r.runs(column, dict, func(from, to int, n uint32) {
		if !f(n) {
			keep.RemoveRange(from, to)
		}
	})
}

func (r *blockReader) byTrace(ids storage.TraceIn, keep lines.Set) error {
	ats, err := r.ints("trace_at")
	if err != nil {
		return err
	}
	ats = slices.Clone(ats)
	vs, err := r.t.ReadRows("trace", r.b, nil, &r.mem.Scratch)
	if err != nil {
		return err
	}
	traces := vs.Fixed
	inLine := slices.Clone(keep)
	keep.Each(func(row int) {
		if ats[row] > 0 {
			keep.Remove(row)
			return
		}
		inLine.Remove(row)
		id := telemetry.TraceID(traces[row*16 : row*16+16])
		if id.IsZero() || !slices.Contains(ids, id) {
			keep.Remove(row)
		}
	})
	if !inLine.Any() {
		return nil
	}
	err = union(inLine, len(ids), func(i int, some lines.Set) error {
		return r.contains(hex.EncodeToString(ids[i][:]), some)
	})
	if err != nil {
		return err
	}
	inLine.Each(func(row int) {
		var id telemetry.TraceID
		if err == nil {
			err = r.idInLine(row, ats[row], id[:])
		}
		if slices.Contains(ids, id) && !id.IsZero() {
			keep.Add(row)
		}
	})
	return err
}

// idInLine reads the ID that stands in a line.
func (r *blockReader) idInLine(row int, at int64, id []byte) error {
	text, err := r.lines()
	if err != nil {
		return err
	}
	if r.buf, err = text.AppendLine(r.buf[:0], row); err != nil {
		return r.corrupt("lines", err)
	}
	return r.parseID(r.buf, at, id)
}

func (r *blockReader) parseID(line []byte, at int64, id []byte) error {
	end := at - 1 + int64(2*len(id))
	if end > int64(len(line)) {
		return r.t.Corrupt("trace_at", r.b, "an ID at %d of a line of %d bytes", at, len(line))
	}
	if _, err := hex.Decode(id, line[at-1:end]); err != nil {
		return r.t.Corrupt("trace_at", r.b, "an ID at %d: %v", at, err)
	}
	return nil
}

// byAttr keeps the rows with an attribute that matches: of the record, else of its scope, else of its resource.
func (r *blockReader) byAttr(p storage.AttrMatch, keep lines.Set) error {
	left := slices.Clone(keep) // rows that have not got the attribute so far
	clear(keep)
	if p.Scope == storage.AnyScope || p.Scope == storage.RecordScope {
		cols, err := r.columns()
		if err != nil {
			return err
		}
		if i, ok := slices.BinarySearchFunc(cols, p.M.Name, func(c attrColumn, key string) int { return cmp.Compare(c.key, key) }); ok {
			c := &cols[i]
			if err := c.load(r.n); err != nil {
				return r.corrupt("attrs", err)
			}
			err := c.matches(p.M, func(row int, ok bool) {
				if !left.Has(row) {
					return
				}
				left.Remove(row)
				if ok {
					keep.Add(row)
				}
			})
			if err != nil {
				return r.corrupt("attrs", err)
			}
		}
	}
	place := func(column string, dict []uint32, attrs func(n uint32) telemetry.Attrs) error {
		if !left.Any() || !slices.ContainsFunc(dict, func(n uint32) bool { _, ok := attrs(n).Get(p.M.Name); return ok }) {
			return nil
		}
		has, good := slices.Clone(left), slices.Clone(left)
		err := r.byIndex(column, dict, has, func(n uint32) bool { _, ok := attrs(n).Get(p.M.Name); return ok })
		if err != nil {
			return err
		}
		err = r.byIndex(column, dict, good, func(n uint32) bool {
			v, ok := attrs(n).Get(p.M.Name)
			return ok && p.M.Matches(v.Text())
		})
		keep.Or(good)
		left.AndNot(has)
		return err
	}
	if p.Scope == storage.AnyScope || p.Scope == storage.InstrumentationScope {
		err := place("scope", r.g.scopes, func(n uint32) telemetry.Attrs {
			if s := r.p.scopes[n]; s != nil {
				return s.Attrs
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if p.Scope == storage.AnyScope || p.Scope == storage.ResourceScope {
		err := place("resource", r.g.res, func(n uint32) telemetry.Attrs {
			if s := r.p.res[n]; s != nil {
				return s.Attrs
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if p.M.Matches("") {
		keep.Or(left)
	}
	return nil
}

// mapped fills dst with the given rows of a column of indexes, as numbers of the part's dictionary; nil is all rows.
func (r *blockReader) mapped(dst []uint32, column string, rows []int, dict []uint32) ([]uint32, error) {
	size := r.n
	if rows != nil {
		size = len(rows)
	}
	dst = slices.Grow(dst[:0], size)[:size]
	at := 0
	err := r.runs(column, dict, func(from, to int, n uint32) {
		if rows != nil {
			from = at
			at += sort.SearchInts(rows[at:], to)
			to = at
		}
		for i := range dst[from:to] {
			dst[from+i] = n
		}
	})
	return dst, err
}

// columnReader reads rows of columns of one block. Its first error sticks: after it everything is empty.
type columnReader struct {
	r    *blockReader
	rows []int // nil is all
	err  error
}

func (c *columnReader) read(column string) (v part.Vector) {
	if c.err == nil {
		v, c.err = c.r.t.ReadRows(column, c.r.b, c.rows, &c.r.mem.Scratch)
	}
	return v
}

func (c *columnReader) mapped(dst *[]uint32, column string, dict []uint32) []uint32 {
	if c.err == nil {
		*dst, c.err = c.r.mapped(*dst, column, c.rows, dict)
	}
	return *dst
}

func numbers[T uint8 | uint32](ns []int64) []T {
	out := make([]T, len(ns))
	for i, n := range ns {
		out[i] = T(n)
	}
	return out
}

// fill reads the columns cols of the given rows, ascending; nil is all rows.
func (r *blockReader) fill(rows []int, cols storage.LogColumns) (*storage.LogBlock, error) {
	blk := &storage.LogBlock{Streams: r.p.streams, Resources: r.p.res, Scopes: r.p.scopes}
	var err error
	if blk.Time, err = r.allTimes(); err != nil {
		return nil, err
	}
	if rows != nil {
		blk.Time = r.mem.time[:0]
		for _, row := range rows {
			blk.Time = append(blk.Time, r.times[row])
		}
		r.mem.time = blk.Time
	}
	c := columnReader{r: r, rows: rows}
	if cols&storage.LogStream != 0 {
		blk.Stream = c.mapped(&r.mem.stream, "stream", r.g.streams)
	}
	if cols&storage.LogResource != 0 {
		blk.Resource = c.mapped(&r.mem.resource, "resource", r.g.res)
	}
	if cols&storage.LogScope != 0 {
		blk.Scope = c.mapped(&r.mem.scope, "scope", r.g.scopes)
	}
	if cols&storage.LogSeverity != 0 {
		blk.Severity = numbers[uint8](c.read("severity").Ints)
		blk.SeverityText = c.read("severity_text").Strs
	}
	if cols&storage.LogObserved != 0 {
		blk.Observed = c.read("observed").Ints
		for i, late := range c.read("late").Ints {
			if late != 0 && c.err == nil {
				blk.Observed[i] += blk.Time[i]
			}
		}
		blk.EventName = c.read("event").Strs
		blk.Dropped = numbers[uint32](c.read("dropped").Ints)
		inferred := c.read("inferred").Ints
		blk.Inferred = make([]bool, len(inferred))
		for i, n := range inferred {
			blk.Inferred[i] = n != 0
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	if cols&storage.LogAttrs != 0 {
		as, err := r.columns()
		if err != nil {
			return nil, err
		}
		blk.Attrs = slices.Grow(r.mem.attrs[:0], blk.Len())[:blk.Len()]
		r.mem.attrs = blk.Attrs
		if err = attrsOf(blk.Attrs, as, rows, r.n); err != nil {
			return nil, r.corrupt("attrs", err)
		}
	}
	if cols&storage.LogBody != 0 {
		if err := r.bodies(blk, rows); err != nil {
			return nil, err
		}
	} else if cols&storage.LogLines != 0 {
		text, err := r.lines()
		if err != nil {
			return nil, err
		}
		var some []uint32 // nil means all
		if rows != nil {
			some = r.mem.chosen[:0]
			for _, row := range rows {
				some = append(some, uint32(row))
			}
			r.mem.chosen = some
		}
		blk.Lines = text.Lines(some)
	}
	if cols&storage.LogTraceID != 0 {
		if err := r.ids(blk, rows); err != nil {
			return nil, err
		}
	}
	return blk, nil
}

// row returns the row of the block that row i of the given ones is.
func row(rows []int, i int) int {
	if rows == nil {
		return i
	}
	return rows[i]
}

// bodies fills the bodies of the given rows.
func (r *blockReader) bodies(blk *storage.LogBlock, rows []int) error {
	text, err := r.lines()
	if err != nil {
		return err
	}
	c := columnReader{r: r, rows: rows}
	values := c.read("value").Strs
	if c.err != nil {
		return c.err
	}
	ends := make([]int, len(values))
	var arena []byte
	for i, v := range values {
		if v == "" {
			if arena, err = text.AppendLine(arena, row(rows, i)); err != nil {
				return r.corrupt("lines", err)
			}
		}
		ends[i] = len(arena)
	}
	all := unsafe.String(unsafe.SliceData(arena), len(arena))
	blk.Body = make([]telemetry.Value, len(values))
	from := 0
	for i, v := range values {
		if v == "" {
			blk.Body[i] = telemetry.String(all[from:ends[i]])
			from = ends[i]
			continue
		}
		d := telemetry.NewDecoder(v)
		blk.Body[i] = d.Value()
		if d.Err() != nil {
			return r.t.Corrupt("value", r.b, "row %d: %v", row(rows, i), d.Err())
		}
	}
	return nil
}

// ids fills trace IDs, span IDs and flags.
func (r *blockReader) ids(blk *storage.LogBlock, rows []int) error {
	c := columnReader{r: r, rows: rows}
	traces, spans := c.read("trace").Fixed, c.read("span").Fixed
	traceAt, spanAt := c.read("trace_at").Ints, c.read("span_at").Ints
	blk.Flags = numbers[uint32](c.read("flags").Ints)
	if c.err != nil {
		return c.err
	}
	blk.TraceID, blk.SpanID = make([]telemetry.TraceID, len(traceAt)), make([]telemetry.SpanID, len(traceAt))
	for i := range traceAt {
		copy(blk.TraceID[i][:], traces[i*16:])
		copy(blk.SpanID[i][:], spans[i*8:])
		if traceAt[i] <= 0 && spanAt[i] <= 0 {
			continue
		}
		text, err := r.lines()
		if err != nil {
			return err
		}
		if r.buf, err = text.AppendLine(r.buf[:0], row(rows, i)); err != nil {
			return r.corrupt("lines", err)
		}
		if at := traceAt[i]; at > 0 {
			if err := r.parseID(r.buf, at, blk.TraceID[i][:]); err != nil {
				return err
			}
		}
		if at := spanAt[i]; at > 0 {
			if err := r.parseID(r.buf, at, blk.SpanID[i][:]); err != nil {
				return err
			}
		}
	}
	return nil
}
