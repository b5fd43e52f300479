package logs

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
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
	rd    part.RowReader
	times []int64
	text  *lines.Block
	attrs []attrColumn
	known bool // attrs are there
	buf   []byte
}

func (p *Part) openBlock(c candidate, s *Scan) (*blockReader, error) {
	t := p.p.Table("rows")
	r := &blockReader{p: p, g: c.g, b: c.b, n: t.BlockRows(c.b), s: s, rd: part.RowReader{Table: t, Block: c.b}}
	r.times = r.rd.Read("time").Ints
	s.opened(1, r.n, 8*r.n)
	return r, r.rd.Err
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
	if r.text, err = r.s.Decoder.Open(b, templates, func() ([]int64, error) { return r.times, nil }); err != nil {
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
	return r.corrupt("lines", b.Contains(r.s.needle(r.g, text), keep))
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

// selected returns the rows that the scan selects, ascending.
func (r *blockReader) selected(ctx context.Context, c candidate, allowed []bool) ([]int, error) {
	if c.lo >= r.s.Start && c.hi <= r.s.End && len(r.s.Masks) == 0 && onlyStreams(r.s.Where) {
		all, err := r.allowed(allowed)
		if all || err != nil {
			return r.s.upTo(r.n), err
		}
	}
	keep := lines.EmptySet(r.n)
	any := false
	for i, at := range r.times {
		if at >= r.s.Start && at <= r.s.End {
			keep.Add(i)
			any = true
		}
	}
	if !any {
		return nil, nil
	}
	if allowed != nil {
		if err := r.byStream(keep, func(n uint32) bool { return allowed[n] }); err != nil {
			return nil, err
		}
	}
	if err := r.filter(ctx, r.s.Where, keep, allowed != nil); err != nil {
		return nil, err
	}
	for i := range r.s.Masks {
		m := &r.s.Masks[i]
		hidden := slices.Clone(keep)
		keep.Each(func(row int) {
			if r.times[row] < m.Start || r.times[row] > m.End {
				hidden.Remove(row)
			}
		})
		if err := r.filter(ctx, m.Where, hidden, false); err != nil {
			return nil, err
		}
		keep.AndNot(hidden)
	}
	rows := make([]int, 0, keep.Count())
	keep.Each(func(row int) { rows = append(rows, row) })
	return rows, nil
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
	lo, hi, ok := r.rd.Table.Ints("stream", r.b)
	if !ok || lo < 0 || hi >= int64(len(r.g.streams)) {
		return false, r.rd.Table.Corrupt("stream", r.b, "streams %d to %d of %d", lo, hi, len(r.g.streams))
	}
	return !slices.ContainsFunc(r.g.streams[lo:hi+1], func(n uint32) bool { return !streams[n] }), nil
}

// byStream keeps the rows of the streams that f accepts.
func (r *blockReader) byStream(keep lines.Set, f func(n uint32) bool) error {
	lo, hi, ok := r.rd.Table.Ints("stream", r.b)
	if ok && lo == hi && lo >= 0 && lo < int64(len(r.g.streams)) {
		if !f(r.g.streams[lo]) {
			clear(keep)
		}
		return nil
	}
	ns, err := r.rd.Table.Indexes("stream", r.b, len(r.g.streams))
	if err != nil {
		return err
	}
	last, good := int64(-1), false
	for i, n := range ns {
		if n != last {
			last, good = n, f(r.g.streams[n])
		}
		if !good {
			keep.Remove(i)
		}
	}
	return nil
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
		return r.byStream(keep, func(n uint32) bool { return storage.MatchLabels(r.p.streams[n], p) })
	case storage.ResourceIn:
		return r.byIndex("resource", r.g.res, keep, func(n uint32) bool { return r.p.res[n] != nil && slices.Contains(p, r.p.res[n].ID) })
	case storage.SeverityRange:
		ns := r.rd.Read("severity").Ints
		keep.Each(func(row int) {
			if r.rd.Err == nil && (uint8(ns[row]) < p.Min || uint8(ns[row]) > p.Max) {
				keep.Remove(row)
			}
		})
		return r.rd.Err
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
		return r.corrupt("lines", text.Match(p, keep))
	default:
		clear(keep) // a predicate about spans
		return nil
	}
}

// byIndex keeps rows by a column of indexes into a dictionary of the segment.
func (r *blockReader) byIndex(column string, dict []uint32, keep lines.Set, f func(n uint32) bool) error {
	ns, err := r.rd.Table.Indexes(column, r.b, len(dict))
	if err != nil {
		return err
	}
	last, good := int64(-1), false
	for i, n := range ns {
		if n != last {
			last, good = n, f(dict[n])
		}
		if !good {
			keep.Remove(i)
		}
	}
	return nil
}

func (r *blockReader) byTrace(ids storage.TraceIn, keep lines.Set) error {
	ats := r.rd.Read("trace_at").Ints
	traces := r.rd.Read("trace").Fixed
	if r.rd.Err != nil {
		return r.rd.Err
	}
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
	err := union(inLine, len(ids), func(i int, some lines.Set) error {
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
		return r.rd.Table.Corrupt("trace_at", r.b, "an ID at %d of a line of %d bytes", at, len(line))
	}
	if _, err := hex.Decode(id, line[at-1:end]); err != nil {
		return r.rd.Table.Corrupt("trace_at", r.b, "an ID at %d: %v", at, err)
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

// mapped returns the given rows of a column of indexes, as numbers of the part's dictionary.
func (r *blockReader) mapped(column string, rows []int, dict []uint32) []uint32 {
	if r.rd.Err != nil {
		return nil
	}
	ns, err := r.rd.Table.Indexes(column, r.b, len(dict))
	if err != nil {
		r.rd.Err = err
		return nil
	}
	return part.Pick(rows, ns, func(n int64) uint32 { return dict[n] })
}

// fill reads the columns cols of the given rows.
func (r *blockReader) fill(rows []int, cols storage.LogColumns) (*storage.LogBlock, error) {
	blk := &storage.LogBlock{Streams: r.p.streams, Resources: r.p.res, Scopes: r.p.scopes, Time: r.times}
	rd := &r.rd
	if len(rows) < r.n {
		blk.Time = part.Pick(rows, r.times, part.Same[int64])
	}
	if cols&storage.LogStream != 0 {
		blk.Stream = r.mapped("stream", rows, r.g.streams)
	}
	if cols&storage.LogResource != 0 {
		blk.Resource = r.mapped("resource", rows, r.g.res)
	}
	if cols&storage.LogScope != 0 {
		blk.Scope = r.mapped("scope", rows, r.g.scopes)
	}
	if cols&storage.LogSeverity != 0 {
		blk.Severity = part.Pick(rows, rd.Read("severity").Ints, func(n int64) uint8 { return uint8(n) })
		blk.SeverityText = part.Pick(rows, rd.Read("severity_text").Strs, part.Same[string])
	}
	if cols&storage.LogObserved != 0 {
		blk.Observed = part.Pick(rows, rd.Read("observed").Ints, part.Same[int64])
		for i, late := range part.Pick(rows, rd.Read("late").Ints, part.Same[int64]) {
			if late != 0 && rd.Err == nil {
				blk.Observed[i] += blk.Time[i]
			}
		}
		blk.EventName = part.Pick(rows, rd.Read("event").Strs, part.Same[string])
		blk.Dropped = part.Pick(rows, rd.Read("dropped").Ints, func(n int64) uint32 { return uint32(n) })
		blk.Inferred = part.Pick(rows, rd.Read("inferred").Ints, func(n int64) bool { return n != 0 })
	}
	if rd.Err != nil {
		return nil, rd.Err
	}
	if cols&storage.LogAttrs != 0 {
		as, err := r.columns()
		if err != nil {
			return nil, err
		}
		if blk.Attrs, err = attrsOf(as, rows, r.n); err != nil {
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
		if len(rows) < r.n {
			some = make([]uint32, len(rows))
			for i, row := range rows {
				some[i] = uint32(row)
			}
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

// bodies fills the bodies of the given rows.
func (r *blockReader) bodies(blk *storage.LogBlock, rows []int) error {
	text, err := r.lines()
	if err != nil {
		return err
	}
	values := r.rd.Read("value").Strs
	if r.rd.Err != nil {
		return r.rd.Err
	}
	ends := make([]int, len(rows))
	var arena []byte
	for i, row := range rows {
		if values[row] == "" {
			if arena, err = text.AppendLine(arena, row); err != nil {
				return r.corrupt("lines", err)
			}
		}
		ends[i] = len(arena)
	}
	all := unsafe.String(unsafe.SliceData(arena), len(arena))
	blk.Body = make([]telemetry.Value, len(rows))
	from := 0
	for i, row := range rows {
		if values[row] == "" {
			blk.Body[i] = telemetry.String(all[from:ends[i]])
			from = ends[i]
			continue
		}
		d := telemetry.NewDecoder(values[row])
		blk.Body[i] = d.Value()
		if d.Err() != nil {
			return r.rd.Table.Corrupt("value", r.b, "row %d: %v", row, d.Err())
		}
	}
	return nil
}

// ids fills trace IDs, span IDs and flags.
func (r *blockReader) ids(blk *storage.LogBlock, rows []int) error {
	traces, spans := r.rd.Read("trace").Fixed, r.rd.Read("span").Fixed
	traceAt, spanAt := r.rd.Read("trace_at").Ints, r.rd.Read("span_at").Ints
	blk.Flags = part.Pick(rows, r.rd.Read("flags").Ints, func(n int64) uint32 { return uint32(n) })
	if r.rd.Err != nil {
		return r.rd.Err
	}
	blk.TraceID, blk.SpanID = make([]telemetry.TraceID, len(rows)), make([]telemetry.SpanID, len(rows))
	for i, row := range rows {
		copy(blk.TraceID[i][:], traces[row*16:])
		copy(blk.SpanID[i][:], spans[row*8:])
		if traceAt[row] <= 0 && spanAt[row] <= 0 {
			continue
		}
		text, err := r.lines()
		if err != nil {
			return err
		}
		if r.buf, err = text.AppendLine(r.buf[:0], row); err != nil {
			return r.corrupt("lines", err)
		}
		if at := traceAt[row]; at > 0 {
			if err := r.parseID(r.buf, at, blk.TraceID[i][:]); err != nil {
				return err
			}
		}
		if at := spanAt[row]; at > 0 {
			if err := r.parseID(r.buf, at, blk.SpanID[i][:]); err != nil {
				return err
			}
		}
	}
	return nil
}
