package logs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs/lines"
	"github.com/braidobs/braid/storage/part"
)

// Part is a part of logs, open for reading.
type Part struct {
	p      *part.Part
	to     storage.Position
	lo, hi int64

	mu       sync.Mutex // guards what load makes, and templates while they are read
	loaded   atomic.Bool
	legacy   *rowsPart // a part of the first layout; nil for others
	segments []segment
	streams  []telemetry.LabelSet // of all segments, each once
	res      []*telemetry.Resource
	scopes   []*telemetry.Scope
	shapes   lines.Templates // of the segments that were asked for lines
}

var _ Source = (*Part)(nil)

// segment is a run of blocks with dictionaries of its own.
type segment struct {
	at         [tabSegments]blockRange // in each table
	rows, text int64
	streams    []uint32 // number in Part.streams of each stream of the segment
	res        []uint32
	scopes     []uint32
	templates  atomic.Pointer[lines.Numbering]
	index      atomic.Pointer[lines.Index]
}

type blockRange struct{ from, to int }

// OpenPart returns the logs of p, whose records all came before to and have times from lo to hi.
func OpenPart(p *part.Part, to storage.Position, lo, hi int64) *Part {
	return &Part{p: p, to: to, lo: lo, hi: hi}
}

// Bounds implements Source.
func (p *Part) Bounds() (int64, int64) { return p.lo, p.hi }

// Resources returns the resources of the part.
func (p *Part) Resources() ([]*telemetry.Resource, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	if p.legacy != nil {
		return p.legacy.resources, nil
	}
	return p.res, nil
}

// load reads the dictionaries once. A try that failed is made again: the error may be one of the disk.
func (p *Part) load() error {
	if p.loaded.Load() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded.Load() {
		return nil
	}
	if isLegacy(p.p) {
		l := &rowsPart{p: p.p}
		if err := l.load(); err != nil {
			return err
		}
		p.legacy = l
		p.loaded.Store(true)
		return nil
	}
	for _, s := range schemas() {
		if err := p.p.Table(s.Name).Check(s.Columns); err != nil {
			return err
		}
	}
	segments, err := p.readSegments()
	if err != nil {
		return err
	}
	var (
		streams   part.Dict[string, telemetry.LabelSet]
		resources part.Dict[telemetry.ResourceID, *telemetry.Resource]
		scopes    part.Scopes
	)
	var scs []*telemetry.Scope
	for i := range segments {
		g := &segments[i]
		names, err := p.strings(g, tabStreams)
		if err != nil {
			return err
		}
		g.streams = make([]uint32, len(names))
		for k, n := range names {
			s := telemetry.LabelSet(n)
			if err := s.Check(); err != nil {
				return p.p.Table("streams").Corrupt("value", g.at[tabStreams].from, "stream %d: %v", k, err)
			}
			g.streams[k] = streams.Add(n, s)
		}
		ss, err := p.strings(g, tabResources)
		if err != nil {
			return err
		}
		rs, err := p.p.Resources(ss)
		if err != nil {
			return err
		}
		g.res = make([]uint32, len(rs))
		for k, r := range rs {
			var id telemetry.ResourceID
			if r != nil {
				id = r.ID
			}
			g.res[k] = resources.Add(id, r)
		}
		if ss, err = p.strings(g, tabScopes); err != nil {
			return err
		}
		of, err := p.p.Scopes(ss)
		if err != nil {
			return err
		}
		g.scopes = make([]uint32, len(of))
		for k, s := range of {
			n := scopes.Add(s)
			g.scopes[k] = n
			if int(n) == len(scs) {
				scs = append(scs, s)
			}
		}
	}
	p.segments, p.streams, p.res, p.scopes = segments, streams.Values, resources.Values, scs
	p.loaded.Store(true)
	return nil
}

// readSegments reads where the segments lie and checks that they are all there is.
func (p *Part) readSegments() ([]segment, error) {
	t := p.p.Table("segments")
	var segments []segment
	var at [tabSegments]int
	tables := schemas()
	for b := range t.Blocks() {
		cols := make([][]int64, len(segmentColumns()))
		for i, c := range segmentColumns() {
			v, err := t.Read(c.Name, b)
			if err != nil {
				return nil, err
			}
			cols[i] = v.Ints
		}
		for row := range cols[0] {
			segments = append(segments, segment{rows: cols[6][row], text: cols[7][row]})
			g := &segments[len(segments)-1]
			for table := range at {
				c := 0
				switch table {
				case tabStreams:
					c = 1
				case tabResources:
					c = 2
				case tabScopes:
					c = 3
				case tabTemplates:
					c = 4
				case tabIndex:
					c = 5
				}
				n := cols[c][row]
				if all := p.p.Table(tables[table].Name).Blocks(); n < 0 || n > int64(all-at[table]) || table == tabRows && n == 0 {
					return nil, t.Corrupt(segmentColumns()[c].Name, b, "segment %d has %d blocks of table %s, which has %d", row, n, tables[table].Name, all)
				}
				g.at[table] = blockRange{at[table], at[table] + int(n)}
				at[table] += int(n)
			}
			if err := p.checkSegment(g); err != nil {
				return nil, err
			}
		}
	}
	for table, n := range at {
		if all := p.p.Table(tables[table].Name).Blocks(); n != all {
			return nil, t.Corrupt("blocks", 0, "segments have %d blocks of table %s, which has %d", n, tables[table].Name, all)
		}
	}
	return segments, nil
}

// checkSegment checks that the tables of blocks agree in their rows.
func (p *Part) checkSegment(g *segment) error {
	rows := p.p.Table("rows")
	sum := int64(0)
	for b := g.at[tabRows].from; b < g.at[tabRows].to; b++ {
		n := rows.BlockRows(b)
		sum += int64(n)
		for _, table := range []string{"lines", "attrs"} {
			if t := p.p.Table(table); t.BlockRows(b) != n {
				return t.Corrupt("blob", b, "block %d has %d rows, want %d", b, t.BlockRows(b), n)
			}
		}
	}
	if sum != g.rows || g.text < 0 {
		return p.p.Table("segments").Corrupt("rows", 0, "a segment has %d rows, want %d", sum, g.rows)
	}
	return nil
}

// strings returns a dictionary of a segment.
func (p *Part) strings(g *segment, table int) ([]string, error) {
	return p.p.Table(schemas()[table].Name).Strings(g.at[table].from, g.at[table].to)
}

// templatesOf returns the templates of a segment; equal ones of a part are one.
func (p *Part) templatesOf(g *segment) (*lines.Numbering, error) {
	if ts := g.templates.Load(); ts != nil {
		return ts, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if ts := g.templates.Load(); ts != nil {
		return ts, nil
	}
	ss, err := p.strings(g, tabTemplates)
	if err != nil {
		return nil, err
	}
	ts, err := p.shapes.Add(ss)
	if err != nil {
		return nil, p.p.Table("templates").Corrupt("value", g.at[tabTemplates].from, "%v", err)
	}
	g.templates.Store(ts)
	return ts, nil
}

// indexOf returns the word index of a segment.
func (p *Part) indexOf(g *segment) (*lines.Index, error) {
	if x := g.index.Load(); x != nil {
		return x, nil
	}
	r := &indexReader{t: p.p.Table("index"), at: g.at[tabIndex]}
	size := int64(0)
	if n := r.at.to - r.at.from; n > 0 {
		last, err := r.t.Blob(r.at.to - 1)
		if err != nil {
			return nil, err
		}
		size = int64(n-1)*indexPiece + int64(len(last))
	}
	x, err := lines.OpenIndex(r, size)
	if err == nil && x.Len() != g.at[tabRows].to-g.at[tabRows].from {
		err = fmt.Errorf("%w: it is about %d blocks", lines.ErrCorrupt, x.Len())
	}
	if err != nil {
		return nil, p.badIndex(g, err)
	}
	g.index.Store(x)
	return x, nil
}

// badIndex says where a word index that is wrong lies.
func (p *Part) badIndex(g *segment, err error) error {
	if err == nil || part.IsCorrupt(err) || !errors.Is(err, lines.ErrCorrupt) {
		return err
	}
	return p.p.Table("index").Corrupt("blob", g.at[tabIndex].from, "%v", err)
}

// indexReader reads the word index of a segment in pieces, which are checked.
type indexReader struct {
	t    *part.Table
	at   blockRange
	seen map[int][]byte // pieces that were read; nil when they are not kept
}

// ReadAt implements io.ReaderAt.
func (r *indexReader) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		i := int((off + int64(n)) / indexPiece)
		if off < 0 || i >= r.at.to-r.at.from {
			return n, lines.ErrCorrupt
		}
		piece, known := r.seen[i]
		if !known {
			var err error
			if piece, err = r.t.Blob(r.at.from + i); err != nil {
				return n, err
			}
			if r.seen != nil {
				r.seen[i] = piece
			}
		}
		from := int(off+int64(n)) - i*indexPiece
		if from >= len(piece) {
			return n, lines.ErrCorrupt
		}
		n += copy(b[n:], piece[from:])
	}
	return n, nil
}

// span returns the smallest and largest time of a segment.
func (p *Part) span(g *segment) (lo, hi int64) {
	lo, hi = math.MaxInt64, math.MinInt64
	for b := g.at[tabRows].from; b < g.at[tabRows].to; b++ {
		l, h, ok := p.p.Table("rows").Ints("time", b)
		if !ok {
			return p.lo, p.hi
		}
		lo, hi = min(lo, l), max(hi, h)
	}
	return lo, hi
}

// pending returns the masks that the part was not rewritten for.
func (p *Part) pending(masks []Mask) []Mask {
	var some []Mask
	for _, m := range masks {
		if p.to <= m.Position && m.Start <= p.hi && m.End >= p.lo {
			some = append(some, m)
		}
	}
	return some
}

// Streams implements Source.
func (p *Part) Streams(ctx context.Context, s *Scan, f func(telemetry.LabelSet)) error {
	if err := p.load(); err != nil {
		return err
	}
	all := p.streams
	if p.legacy != nil {
		all = p.legacy.streams
	}
	if len(p.pending(s.Masks)) == 0 && s.Start <= p.lo && s.End >= p.hi {
		for _, name := range all {
			f(name)
		}
		return nil
	}
	scan := *s
	scan.Columns, scan.Order = storage.LogStream, storage.Unordered
	seen := make([]bool, len(all))
	return p.Scan(ctx, &scan, func(b Rows) error {
		for _, i := range b.Stream {
			if !seen[i] {
				seen[i] = true
				f(b.Streams[i])
			}
		}
		return nil
	})
}
