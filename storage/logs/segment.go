package logs

import (
	"bytes"
	"cmp"
	"math/bits"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/logs/lines"
	"github.com/braidobs/braid/storage/part"
)

// Layout says how large things are in parts.
type Layout struct {
	// BlockRows and BlockText are about how many rows and bytes of text a block holds.
	BlockRows, BlockText int
	// SegmentBlocks is how many blocks a segment holds at most.
	SegmentBlocks int
	// FullRows and FullText: a segment of so many rows or so much text is copied by merges; smaller neighbours become one.
	FullRows, FullText int64
}

// DefaultLayout has blocks of a megabyte, small enough that a query decodes little that it does not want, and as many of them in a
// segment as the word index has in one.
func DefaultLayout() Layout {
	return Layout{BlockRows: blockRows, BlockText: 1 << 20, SegmentBlocks: lines.SegmentBlocks, FullRows: 64 << 10, FullText: 8 << 20}
}

const blockRows = 8192

// indexPiece is how many bytes of the word index are read and checked at once: a look-up needs a few hundred here and there.
const indexPiece = 4 << 10

// rowColumns are the columns of table "rows".
func rowColumns() []part.Column {
	return []part.Column{
		{Name: "stream", Type: part.Packed},
		{Name: "time", Type: part.Packed},
		{Name: "resource", Type: part.Packed},
		{Name: "scope", Type: part.Packed},
		{Name: "severity", Type: part.Packed},
		{Name: "severity_text", Type: part.Bytes},
		{Name: "trace", Type: part.Fixed, Width: 16}, // zeros for none, and where the line tells it
		{Name: "span", Type: part.Fixed, Width: 8},
		{Name: "trace_at", Type: part.Packed}, // where in the line the ID stands in hexadecimal, from 1; 0 for nowhere
		{Name: "span_at", Type: part.Packed},
		{Name: "flags", Type: part.Packed},
		{Name: "observed", Type: part.Packed}, // less time where late is 1
		{Name: "late", Type: part.Packed},     // the same in all rows of a block
		{Name: "event", Type: part.Bytes},
		{Name: "dropped", Type: part.Packed},
		{Name: "inferred", Type: part.Packed},
		{Name: "value", Type: part.Bytes}, // the binary form of a body that is no string
	}
}

// segmentColumns are the columns of table "segments": how many blocks of the other tables each segment has, and how
// large it is. Blocks of "lines" and "attrs" go with those of "rows".
func segmentColumns() []part.Column {
	names := []string{"blocks", "streams", "resources", "scopes", "templates", "index", "rows", "text"}
	cols := make([]part.Column, len(names))
	for i, n := range names {
		cols[i] = part.Column{Name: n, Type: part.Int64}
	}
	return cols
}

// The tables of a part, in this order.
const (
	tabRows = iota
	tabLines
	tabAttrs
	tabIndex
	tabStreams
	tabResources
	tabScopes
	tabTemplates
	tabSegments
)

func schemas() []part.Schema {
	blob := func(name string) part.Schema {
		return part.Schema{Name: name, Columns: []part.Column{{Name: "blob", Type: part.Blob}}}
	}
	return []part.Schema{
		{Name: "rows", Columns: rowColumns()},
		blob("lines"), blob("attrs"), blob("index"),
		part.StringsSchema("streams"), part.StringsSchema("resources"), part.StringsSchema("scopes"), part.StringsSchema("templates"),
		{Name: "segments", Columns: segmentColumns()},
	}
}

// segmentWriter writes segments, one after the other. Rows of a segment come sorted by stream and time.
type segmentWriter struct {
	w       *part.Writer
	layout  Layout
	base    int // number of the first table
	streams []string
	res     part.Resources
	scopes  part.Scopes
	dict    *lines.Dict
	enc     *lines.Encoder
	index   *lines.IndexBuilder
	indexed bytes.Buffer
	attrs   attrWriter
	v       []part.Vector
	n       int // rows and text of the block
	text    int
	blocks  int
	rows    int64 // of the segment
	size    int64
	buf     []byte
	hexes   []byte
	hashes  []uint64 // of what the index is to find in the block
	at, sat int      // where IDs stood in the line before

	table []part.Vector // of "segments"
	count int
}

func newSegmentWriter(w *part.Writer, l Layout) *segmentWriter {
	s := &segmentWriter{w: w, layout: l, v: make([]part.Vector, len(rowColumns())), table: make([]part.Vector, len(segmentColumns()))}
	for i, sc := range schemas() {
		if n := w.Begin(sc); i == 0 {
			s.base = n
		}
	}
	s.reset()
	return s
}

func (s *segmentWriter) reset() {
	s.streams, s.res, s.scopes, s.blocks, s.rows, s.size = nil, part.Resources{}, part.Scopes{}, 0, 0, 0
	s.dict = lines.NewDict()
	s.enc = lines.NewEncoder(s.dict)
	s.indexed.Reset()
	s.index = lines.NewIndexBuilder(&s.indexed)
}

func (s *segmentWriter) turn(table int) { s.w.Turn(s.base + table) }

// add adds the next row of the segment.
func (s *segmentWriter) add(stream telemetry.LabelSet, res *telemetry.Resource, r *telemetry.LogRecord) error {
	if n := len(s.streams); n == 0 || s.streams[n-1] != string(stream) {
		s.streams = append(s.streams, string(stream))
	}
	line, value := r.Body.Str(), ""
	if r.Body.Kind() != telemetry.KindString {
		line, value = r.Body.Text(), string(telemetry.AppendValue(nil, r.Body))
	}
	traceAt := s.idAt(line, r.TraceID[:], r.TraceID.IsZero(), &s.at)
	spanAt := s.idAt(line, r.SpanID[:], r.SpanID.IsZero(), &s.sat)
	var traceID telemetry.TraceID
	var spanID telemetry.SpanID
	if traceAt == 0 {
		traceID = r.TraceID
	}
	if spanAt == 0 {
		spanID = r.SpanID
	}
	if !r.TraceID.IsZero() {
		s.hashes = append(s.hashes, traceHash(r.TraceID))
	}
	for i := range r.Attrs {
		s.hashes = append(s.hashes, s.attrHash(r.Attrs[i].Key, r.Attrs[i].Value.Text()))
	}
	inferred := int64(0)
	if r.TimeInferred {
		inferred = 1
	}
	v := s.v
	for i, n := range []int64{int64(len(s.streams) - 1), r.Time, int64(s.res.Add(res)), int64(s.scopes.Add(r.Scope)), int64(r.Severity)} {
		v[i].Ints = append(v[i].Ints, n)
	}
	v[5].Strs = append(v[5].Strs, r.SeverityText)
	v[6].Fixed = append(v[6].Fixed, traceID[:]...)
	v[7].Fixed = append(v[7].Fixed, spanID[:]...)
	v[8].Ints = append(v[8].Ints, int64(traceAt))
	v[9].Ints = append(v[9].Ints, int64(spanAt))
	v[10].Ints = append(v[10].Ints, int64(r.Flags))
	v[11].Ints = append(v[11].Ints, r.Observed)
	v[12].Ints = append(v[12].Ints, 0)
	v[13].Strs = append(v[13].Strs, r.EventName)
	v[14].Ints = append(v[14].Ints, int64(r.Dropped))
	v[15].Ints = append(v[15].Ints, inferred)
	v[16].Strs = append(v[16].Strs, value)
	s.attrs.add(s.n, r.Attrs)
	s.enc.Add(line, r.Time)
	s.n++
	s.text += len(line) + len(value)
	if s.n >= s.layout.BlockRows || s.text >= s.layout.BlockText || len(s.attrs.cols) > maxAttrKeys {
		return s.endBlock()
	}
	return nil
}

// idAt returns where the hexadecimal form of an ID stands in a line, from 1, and 0 when it does not. Guess is where it
// was found last.
func (s *segmentWriter) idAt(line string, id []byte, zero bool, guess *int) int {
	if zero || len(line) < 2*len(id) {
		return 0
	}
	const digits = "0123456789abcdef"
	s.hexes = s.hexes[:0]
	for _, b := range id {
		s.hexes = append(s.hexes, digits[b>>4], digits[b&15])
	}
	if g := *guess; g+len(s.hexes) <= len(line) && line[g:g+len(s.hexes)] == string(s.hexes) {
		return g + 1
	}
	at := strings.Index(line, string(s.hexes))
	if at < 0 {
		return 0
	}
	*guess = at
	return at + 1
}

func traceHash(id telemetry.TraceID) uint64 { return xxhash.Sum64(id[:]) }

func (s *segmentWriter) attrHash(key, text string) uint64 {
	s.buf = appendAttrKey(s.buf[:0], key, text)
	return xxhash.Sum64(s.buf)
}

func appendAttrKey(dst []byte, key, text string) []byte {
	return append(append(append(dst, key...), 0), text...)
}

func (s *segmentWriter) endBlock() error {
	if s.n == 0 {
		return nil
	}
	lateness(s.v[1].Ints, s.v[11].Ints, s.v[12].Ints)
	s.turn(tabRows)
	if err := s.w.Block(s.n, s.v...); err != nil {
		return err
	}
	s.turn(tabLines)
	s.buf = s.enc.Append(s.buf[:0])
	if err := s.w.Blob(s.n, s.buf, "", "", false); err != nil {
		return err
	}
	words := s.enc.Words()
	slices.Sort(s.hashes)
	for _, h := range slices.Compact(s.hashes) {
		words.Hash(h)
	}
	if err := s.index.Add(words); err != nil {
		return err
	}
	s.turn(tabAttrs)
	s.buf = s.attrs.append(s.buf[:0], s.n)
	if err := s.w.Blob(s.n, s.buf, "", "", true); err != nil {
		return err
	}
	for i := range s.v {
		s.v[i] = part.Vector{Ints: s.v[i].Ints[:0], Strs: s.v[i].Strs[:0], Fixed: s.v[i].Fixed[:0]}
	}
	s.blocks++
	s.rows += int64(s.n)
	s.size += int64(s.text)
	s.n, s.text, s.hashes = 0, 0, s.hashes[:0]
	return nil
}

// lateness turns observed times into differences to times, where those change less from row to row: senders set them for
// each record, or for each batch, or not at all.
func lateness(times, observed, late []int64) {
	var own, diff int
	for i := 1; i < len(times); i++ {
		own += bits.Len64(uint64(max(observed[i]-observed[i-1], observed[i-1]-observed[i])))
		a, b := observed[i]-times[i], observed[i-1]-times[i-1]
		diff += bits.Len64(uint64(max(a-b, b-a)))
	}
	if own <= diff {
		return
	}
	for i := range observed {
		observed[i] -= times[i]
		late[i] = 1
	}
}

// full says whether the segment should end after the row that was added.
func (s *segmentWriter) full() bool { return s.blocks >= s.layout.SegmentBlocks && s.n == 0 }

// end ends the segment, if there is one.
func (s *segmentWriter) end() error {
	if err := s.endBlock(); err != nil || s.blocks == 0 {
		return err
	}
	counts := []int{s.blocks}
	for _, d := range []struct {
		table int
		ss    []string
	}{{tabStreams, s.streams}, {tabResources, s.res.Strings()}, {tabScopes, s.scopes.Strings()}, {tabTemplates, s.dict.Templates()}} {
		s.turn(d.table)
		n, err := s.w.Strings(d.ss)
		if err != nil {
			return err
		}
		counts = append(counts, n)
	}
	if _, err := s.index.Close(); err != nil {
		return err
	}
	s.turn(tabIndex)
	n := 0
	for b := s.indexed.Bytes(); len(b) > 0; n++ {
		piece := b[:min(len(b), indexPiece)]
		if err := s.w.Blob(1, piece, "", "", false); err != nil {
			return err
		}
		b = b[len(piece):]
	}
	s.segment(append(counts, n), s.rows, s.size)
	s.reset()
	return nil
}

// segment adds a row to table "segments".
func (s *segmentWriter) segment(counts []int, rows, text int64) {
	for i, n := range counts {
		s.table[i].Ints = append(s.table[i].Ints, int64(n))
	}
	s.table[6].Ints = append(s.table[6].Ints, rows)
	s.table[7].Ints = append(s.table[7].Ints, text)
	s.count++
}

// copy writes a segment of another part as it is.
func (s *segmentWriter) copy(p *Part, g *segment) error {
	if err := s.end(); err != nil {
		return err
	}
	names := schemas()
	for table, at := range g.at {
		s.turn(table)
		from := p.p.Table(names[table].Name)
		for b := at.from; b < at.to; b++ {
			if err := s.w.Copy(from, b); err != nil {
				return err
			}
		}
	}
	n := func(table int) int { return g.at[table].to - g.at[table].from }
	s.segment([]int{n(tabRows), n(tabStreams), n(tabResources), n(tabScopes), n(tabTemplates), n(tabIndex)}, g.rows, g.text)
	return nil
}

// close ends the part.
func (s *segmentWriter) close() error {
	if err := s.end(); err != nil {
		return err
	}
	s.turn(tabSegments)
	for at := 0; at < s.count; {
		n := min(s.count-at, part.BlockRows)
		v := make([]part.Vector, len(s.table))
		for i := range v {
			v[i].Ints = s.table[i].Ints[at : at+n]
		}
		if err := s.w.Block(n, v...); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// sortedStreams returns the streams of a builder in order, each sorted by time.
func sortedStreams(m map[telemetry.LabelSet]*streamRows) []*streamRows {
	out := make([]*streamRows, 0, len(m))
	for _, s := range m {
		s.sort()
		out = append(out, s)
	}
	slices.SortFunc(out, func(x, y *streamRows) int { return cmp.Compare(x.stream, y.stream) })
	return out
}
