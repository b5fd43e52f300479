package columns

import (
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces/columns/piece"
)

// Layout says how large things are.
type Layout struct {
	// PageRows is about how many rows a page has: an eighth more at most, and less than half of part.MaxBlockRows.
	PageRows int
	// SegmentRows is how many rows a segment has when it is full.
	SegmentRows int
	// FullRows: a segment of so many rows is copied by merges; smaller neighbours become one.
	FullRows int64
}

// DefaultLayout has pages that decode in some ten microseconds a column, and segments large enough that what is looked up once in
// each costs little.
func DefaultLayout() Layout {
	return Layout{PageRows: 8192, SegmentRows: 448 << 10, FullRows: 96 << 10}
}

const (
	// pageText is about how many bytes of text a page holds.
	pageText = 4 << 20
	// tracePages is how many pages a trace has at most; the rest of it becomes fragments in other segments.
	tracePages = 32
)

// The tables of a part.
const (
	tablePages    = "pages"
	tableSegments = "segments"
)

func schema(name string) part.Schema {
	return part.Schema{Name: name, Columns: []part.Column{{Name: "blob", Type: part.Blob}}}
}

// Writer writes segments, one after the other, into tables of a part. It is for one caller at a time. It holds one page and the
// dictionaries of the open segment in memory.
type Writer struct {
	w        *part.Writer
	layout   Layout
	pages    int // number of the first table; segments is the next one
	page     page
	out      piece.Blob
	pack     piece.Encoder
	keys     keys
	heads    [families]key // stand before the first key of an item
	res      part.Resources
	scopes   part.Scopes
	resMasks []uint64
	tuples   [families]tuples
	done     []pageInfo // the pages that were written
	ids      []telemetry.TraceID
	filter   piece.FilterBuilder
	rows     int
	last     *telemetry.Resource // and its number
	lastRes  uint32
	maps     map[*Segment]*mapping
	buf      []byte
	strs     []string
	hashes   []uint64
}

// NewWriter begins the tables of traces in w.
func NewWriter(w *part.Writer, l Layout) *Writer {
	out := &Writer{w: w, layout: l}
	out.pages = w.Begin(schema(tablePages))
	w.Begin(schema(tableSegments))
	out.reset()
	return out
}

func (w *Writer) reset() {
	w.heads = [families]key{}
	w.keys, w.res, w.scopes, w.resMasks = keys{}, part.Resources{}, part.Scopes{}, w.resMasks[:0]
	for f := range w.tuples {
		w.tuples[f] = tuples{}
	}
	w.done, w.ids, w.rows, w.last, w.maps = w.done[:0], w.ids[:0], 0, nil, nil
	w.filter.Reset()
	w.page.reset()
}

// Rows returns the number of rows of the open segment.
func (w *Writer) Rows() int { return w.rows }

// Full says whether the open segment should end.
func (w *Writer) Full() bool {
	return w.rows >= w.layout.SegmentRows || len(w.done) >= MaxBlocks-2 || len(w.keys.list) > maxKeys
}

// Add adds a trace to the open segment: its spans in the order of storage.Settler, with their parents. Traces come in the order of
// their first starts, then IDs. Strings of the spans are kept until the segment ends.
func (w *Writer) Add(rows []storage.SpanRow, parents []int32) error {
	for from := 0; from < len(rows); {
		n, err := w.begin(rows[from].Span.TraceID, len(rows)-from)
		if err != nil {
			return err
		}
		for i := range n {
			s := rows[from+i].Span
			p := int(parents[from+i])
			if p >= 0 {
				if p -= from; p < 0 {
					p = storage.LostParent
				}
			}
			if err := w.row(i, p, s.ParentID, s.SpanID, s.Start, s.End-s.Start, w.resource(rows[from+i].Resource)); err != nil {
				return err
			}
			w.values(s)
			if i+1 < n && (w.page.rows >= w.pageRows() || w.page.text > 2*pageText) {
				if err := w.endPage(true); err != nil {
					return err
				}
				if len(w.done) >= MaxBlocks-1 { // large attributes: the rest becomes a fragment
					n = i + 1
					break
				}
			}
		}
		if from += n; from < len(rows) {
			if err := w.End(); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin begins a trace of n rows, or a fragment of it, and returns how many rows that may have.
func (w *Writer) begin(id telemetry.TraceID, n int) (int, error) {
	limit := tracePages * w.layout.PageRows
	if len(w.done)+min(n, limit)/w.layout.PageRows+1 >= MaxBlocks {
		if err := w.End(); err != nil {
			return 0, err
		}
	}
	p := &w.page
	if p.rows > 0 && (p.rows+n > w.pageRows() || p.text > pageText) || p.rows >= w.layout.PageRows {
		if err := w.endPage(false); err != nil {
			return 0, err
		}
	}
	p.begin(id)
	return min(n, limit), nil
}

// pageRows is how many rows a page may have so that a trace is not cut.
func (w *Writer) pageRows() int { return w.layout.PageRows + w.layout.PageRows/8 }

func (w *Writer) resource(r *telemetry.Resource) uint32 {
	if r != nil && r == w.last {
		return w.lastRes
	}
	n := w.res.Add(r)
	w.noteResource(n)
	w.last, w.lastRes = r, n
	return n
}

func (w *Writer) noteResource(n uint32) {
	if int(n) == len(w.resMasks) {
		w.resMasks = append(w.resMasks, 0)
	}
}

// row adds what each row has; i is its number in the trace.
func (w *Writer) row(i, parent int, parentID, id telemetry.SpanID, start, duration int64, res uint32) error {
	p := &w.page
	code, err := p.parent(i, parent)
	if err != nil {
		return err
	}
	if parent == storage.LostParent {
		p.lost = append(p.lost, parentID[:]...)
	}
	p.parents = append(p.parents, code)
	p.spanIDs = append(p.spanIDs, id[:]...)
	p.starts = append(p.starts, start)
	p.durs = append(p.durs, duration)
	p.res = append(p.res, res)
	w.resMasks[res] |= 1 << len(w.done)
	p.rows++
	p.counts[len(p.counts)-1]++
	p.info.add(start, duration, p.info.Rows == 0)
	p.firstStart = min(p.firstStart, start)
	w.rows++
	return nil
}

// values adds the fields and attributes of a span.
func (w *Writer) values(s *telemetry.Span) {
	it := item{w: w, to: &w.page.items[spans], last: &w.heads[spans]}
	it.put(spanField, fieldName, telemetry.String(s.Name))
	it.put(spanField, fieldKind, telemetry.Int(int64(s.Kind)))
	it.put(spanField, fieldStatus, telemetry.Int(int64(s.Status)))
	it.put(spanField, fieldScope, telemetry.Int(int64(w.scopes.Add(s.Scope))))
	it.text(spanField, fieldMessage, s.StatusMessage)
	it.text(spanField, fieldState, s.State)
	it.number(spanField, fieldFlags, s.Flags)
	it.number(spanField, fieldDropped, s.DroppedAttrs)
	it.number(spanField, fieldEvents, s.DroppedEvents)
	it.number(spanField, fieldLinks, s.DroppedLinks)
	it.attrs(spanAttr, s.Attrs)
	row := int64(w.page.rows - 1)
	for i := range s.Events {
		e := &s.Events[i]
		it := item{w: w, to: &w.page.items[events], last: &w.heads[events]}
		it.to.rows = append(it.to.rows, row)
		w.page.times = append(w.page.times, e.Time-s.Start)
		w.page.text += 32
		it.put(eventField, fieldName, telemetry.String(e.Name))
		it.number(eventField, fieldDropped, e.Dropped)
		it.attrs(eventAttr, e.Attrs)
	}
	for i := range s.Links {
		l := &s.Links[i]
		it := item{w: w, to: &w.page.items[links], last: &w.heads[links]}
		it.to.rows = append(it.to.rows, row)
		w.page.linked = append(append(w.page.linked, l.TraceID[:]...), l.SpanID[:]...)
		w.page.text += 64
		it.text(linkField, fieldState, l.State)
		it.number(linkField, fieldFlags, l.Flags)
		it.number(linkField, fieldDropped, l.Dropped)
		it.attrs(linkAttr, l.Attrs)
	}
}

// item is an item of the page that is being added.
type item struct {
	w    *Writer
	to   *items
	last *key
}

func (it *item) put(p place, name string, v telemetry.Value) {
	it.last = it.w.keys.after(it.last, p, name)
	it.w.put(it.to, it.last, v)
}

func (it *item) text(p place, name, text string) {
	if text != "" {
		it.put(p, name, telemetry.String(text))
	}
}

func (it *item) number(p place, name string, n uint32) {
	if n != 0 {
		it.put(p, name, telemetry.Int(int64(n)))
	}
}

// attrs adds attributes, which come last.
func (it *item) attrs(p place, as telemetry.Attrs) {
	for i := range as {
		it.put(p, as[i].Key, as[i].Value)
	}
	it.to.end()
}

// put adds a value of an item of the page.
func (w *Writer) put(f *items, k *key, v telemetry.Value) {
	w.touch(k)
	if k.mode == plain {
		k.own = append(k.own, v)
		f.entries = append(f.entries, uint64(k.id)<<32|own)
		w.page.text += v.Size() - valueSize
		return
	}
	n := len(k.vals)
	f.entries = append(f.entries, uint64(k.id)<<32|uint64(k.of(v)))
	if len(k.vals) > n {
		w.page.text += v.Size() - valueSize
	}
}

// touch notes that the page has a value of a key.
func (w *Writer) touch(k *key) {
	if k.n == 0 {
		w.page.touched = append(w.page.touched, k)
		k.mark, k.markText = len(k.vals), k.text
	}
	k.n++
}

// pageInfo is what the segment says of a page.
type pageInfo struct {
	Info
	continued      bool // begins with more of the trace before
	minDur, maxDur int64
	head           int // bytes
	crc            uint32
}

func (x *pageInfo) add(start, duration int64, first bool) {
	end := start + duration
	if first {
		*x = pageInfo{Info: Info{Start: start, LastStart: start, LastFirst: x.LastFirst, Lo: min(start, end), Hi: max(start, end)}, continued: x.continued, minDur: duration, maxDur: duration}
	}
	x.Rows++
	x.Start, x.LastStart = min(x.Start, start), max(x.LastStart, start)
	x.Lo, x.Hi = min(x.Lo, start, end), max(x.Hi, start, end)
	x.minDur, x.maxDur = min(x.minDur, duration), max(x.maxDur, duration)
}

// page is the open page.
type page struct {
	rows       int
	text       int
	info       pageInfo
	firstStart int64 // of the trace that was added last
	ids        []telemetry.TraceID
	counts     []int64 // rows of each trace
	parents    []uint32
	chain      []int32 // ancestors of the row before and itself, numbered in the trace
	lost       []byte
	spanIDs    []byte
	starts     []int64
	durs       []int64
	res        []uint32
	times      []int64 // of events
	linked     []byte  // IDs of links
	items      [families]items
	touched    []*key
}

// items are the spans, events or links of the page: what each has, as codes of keys.
type items struct {
	entries []uint64 // key in the upper half, code in the lower
	ends    []int32
	rows    []int64 // of events and links: the row that each belongs to
}

func (f *items) end() { f.ends = append(f.ends, int32(len(f.entries))) }

func (f *items) len() int { return len(f.ends) }

// of returns the entries of item i.
func (f *items) of(i int) []uint64 {
	from := int32(0)
	if i > 0 {
		from = f.ends[i-1]
	}
	return f.entries[from:f.ends[i]]
}

func (p *page) reset() {
	chain, firstStart := p.chain, p.firstStart
	*p = page{
		ids: p.ids[:0], counts: p.counts[:0], parents: p.parents[:0], lost: p.lost[:0], spanIDs: p.spanIDs[:0], starts: p.starts[:0],
		durs: p.durs[:0], res: p.res[:0], times: p.times[:0], linked: p.linked[:0], items: p.items, touched: p.touched[:0],
		chain: chain, firstStart: firstStart,
	}
	for f := range p.items {
		p.items[f] = items{entries: p.items[f].entries[:0], ends: p.items[f].ends[:0], rows: p.items[f].rows[:0]}
	}
}

func (p *page) begin(id telemetry.TraceID) {
	p.finishTrace()
	p.ids = append(p.ids, id)
	p.counts = append(p.counts, 0)
	p.chain = p.chain[:0]
	p.firstStart = math.MaxInt64
}

// finishTrace notes the first start of the trace that was added last.
func (p *page) finishTrace() {
	if len(p.ids) == 0 {
		return
	}
	if len(p.ids) == 1 || p.firstStart > p.info.LastFirst {
		p.info.LastFirst = p.firstStart
	}
}

// The codes of parents: none, one that is not there, and from parentUp on how many ancestors to go up from the row before.
const (
	parentNone = 0
	parentLost = 1
	parentUp   = 2
)

// parent returns the code of row i's parent, both numbered in the trace.
func (p *page) parent(i, parent int) (uint32, error) {
	up := 0
	switch parent {
	case storage.NoParent, storage.LostParent:
		p.chain = append(p.chain[:0], int32(i))
		if parent == storage.LostParent {
			return parentLost, nil
		}
		return parentNone, nil
	}
	for n := len(p.chain); n > 0 && int(p.chain[n-1]) != parent; n-- {
		up++
	}
	if up == len(p.chain) {
		return 0, fmt.Errorf("row %d of a trace does not come after its parent, row %d, and that one's descendants", i, parent)
	}
	p.chain = append(p.chain[:len(p.chain)-up], int32(i))
	return uint32(parentUp + up), nil
}

// traceHash and valueHash are what the filter has.
func traceHash(id telemetry.TraceID) uint64 { return xxhash.Sum64(id[:]) }

func (w *Writer) valueHash(p place, name, text string) uint64 {
	w.buf = appendHashed(w.buf[:0], p, name, text)
	return xxhash.Sum64(w.buf)
}

func appendHashed(dst []byte, p place, name, text string) []byte {
	return append(append(append(append(dst, byte(p)), name...), 0), text...)
}
