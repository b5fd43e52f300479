package metrics

import (
	"context"
	"errors"
	"slices"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/column"
	"github.com/braidobs/braid/storage/part"
)

// lookup answers questions about the labels of a part. It keeps what it unpacked, and is for one caller at a time.
type lookup struct {
	p      *Part
	ix     *index
	table  *part.Table      // of the values
	values map[int][]string // of its blocks
	coded  [][]string       // labels in canonical form, by place and rank, "" when not built yet
	group  group
	arena  []byte
}

func newLookup(p *Part, ix *index) *lookup {
	return &lookup{p: p, ix: ix, table: p.p.Table(tableValues), values: make(map[int][]string), coded: make([][]string, len(ix.names))}
}

// block returns the values of a block.
func (l *lookup) block(b int) ([]string, error) {
	if vs, ok := l.values[b]; ok {
		return vs, nil
	}
	t := l.table
	blob, err := t.Blob(b)
	if err != nil {
		return nil, err
	}
	d := telemetry.NewDecoderBytes(blob)
	n := t.BlockRows(b)
	vs := make([]string, 0, min(n, len(blob)))
	prev := ""
	for range n {
		same := d.Uvarint()
		rest := d.Str()
		if d.Err() == nil && same > uint64(len(prev)) {
			d.Fail("%d shared bytes of %d", same, len(prev))
		}
		if d.Err() != nil {
			return nil, t.Corrupt("data", b, "%v", d.Err())
		}
		v := rest
		if same > 0 {
			v = prev[:same] + rest
		}
		if v <= prev {
			return nil, t.Corrupt("data", b, "values out of order")
		}
		vs = append(vs, v)
		prev = v
	}
	l.values[b] = vs
	return vs, nil
}

// value returns the value of a label with a rank, from 1.
func (l *lookup) value(place int, rank int64) (string, error) {
	n := &l.ix.names[place]
	t := l.table
	if rank < 1 || rank > int64(n.values) {
		return "", t.Corrupt("data", n.block, "value %d of %d of label %s", rank, n.values, n.name)
	}
	row := t.FirstRow(n.block) + rank - 1
	b := n.block
	if row >= t.FirstRow(b)+int64(t.BlockRows(b)) {
		b = t.BlockOf(row)
	}
	vs, err := l.block(b)
	if err != nil {
		return "", err
	}
	return vs[row-t.FirstRow(b)], nil
}

// each calls f for all values of a label, in order, with their ranks.
func (l *lookup) each(place int, f func(rank int64, value string) error) error {
	n := &l.ix.names[place]
	rank := int64(1)
	for b := n.block; rank <= int64(n.values); b++ {
		vs, err := l.block(b)
		if err != nil {
			return err
		}
		for _, v := range vs {
			if rank > int64(n.values) {
				break
			}
			if err := f(rank, v); err != nil {
				return err
			}
			rank++
		}
	}
	return nil
}

// rank returns the rank of a value of a label, 0 when there is no such value.
func (l *lookup) rank(place int, value string) (int64, error) {
	n := &l.ix.names[place]
	t := l.table
	first := t.FirstRow(n.block)
	lo, hi := n.block, t.BlockOf(first+int64(n.values)-1)
	for lo < hi { // the last block that begins at or before value
		mid := (lo + hi + 1) / 2
		if begin, _ := t.Limits(mid); begin <= value {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	// The footer has the beginning of the first value only: of several blocks with the same beginning, the last whose
	// first value is not beyond the one looked for.
	begin, _ := t.Limits(lo)
	least := lo
	for least > n.block {
		if before, _ := t.Limits(least - 1); before != begin {
			break
		}
		least--
	}
	for low := least; low <= lo; {
		mid := (low + lo) / 2
		vs, err := l.block(mid)
		if err != nil {
			return 0, err
		}
		if vs[0] <= value {
			low = mid + 1
		} else {
			lo = mid - 1
		}
	}
	if lo < n.block {
		return 0, nil
	}
	vs, err := l.block(lo)
	if err != nil {
		return 0, err
	}
	at, found := slices.BinarySearch(vs, value)
	if !found {
		return 0, nil
	}
	return min(t.FirstRow(lo)-first+int64(at)+1, int64(n.values)), nil
}

// want is what a matcher demands of the rank of one label.
type want struct {
	place   int
	rank    int64  // when allowed is nil
	allowed []bool // by rank, 0 for no value
}

func (w *want) ok(rank int64) bool {
	if w.allowed == nil {
		return rank == w.rank
	}
	return rank >= 0 && rank < int64(len(w.allowed)) && w.allowed[rank]
}

// wants turns matchers into what they demand of ranks; none says that no series can match.
func (l *lookup) wants(ms []*labels.Matcher) (ws []want, none bool, err error) {
	for _, m := range ms {
		place, ok := l.ix.byName[m.Name]
		if !ok {
			if !m.Matches("") {
				return nil, true, nil
			}
			continue
		}
		if m.Type == labels.MatchEqual && m.Value != "" {
			rank, err := l.rank(place, m.Value)
			if err != nil || rank == 0 {
				return nil, true, err
			}
			ws = append(ws, want{place: place, rank: rank})
			continue
		}
		allowed := make([]bool, 1, min(l.ix.names[place].values+1, 1<<16))
		allowed[0] = m.Matches("")
		any, all := allowed[0], allowed[0]
		err := l.each(place, func(_ int64, v string) error {
			ok := m.Matches(v)
			allowed = append(allowed, ok)
			any, all = any || ok, all && ok
			return nil
		})
		if err != nil || !any {
			return nil, true, err
		}
		if !all {
			ws = append(ws, want{place: place, allowed: allowed})
		}
	}
	return ws, false, nil
}

// group is a block of the index that is being read.
type group struct {
	block   int
	n       int
	places  []int    // of the labels that its series have
	packed  [][]byte // the column of each
	ranks   [][]int64
	has     []bool // which columns were unpacked
	lo, hi  []int64
	rest    []byte
	bounded bool
}

// open reads a block of the index.
func (l *lookup) open(b int) error {
	t := l.p.p.Table(tableIndex)
	g := &l.group
	blob, err := t.Blob(b)
	if err != nil {
		return err
	}
	*g = group{block: b, n: t.BlockRows(b), places: g.places[:0], packed: g.packed[:0], ranks: g.ranks, has: g.has[:0], lo: g.lo, hi: g.hi}
	d := telemetry.NewDecoderBytes(blob)
	for range d.Count(2) {
		place, col := d.Uvarint(), d.Str()
		if d.Err() == nil && (place >= uint64(len(l.ix.names)) || len(g.places) > 0 && int(place) <= g.places[len(g.places)-1]) {
			d.Fail("label %d out of place", place)
		}
		if d.Err() != nil {
			break
		}
		g.places = append(g.places, int(place))
		g.packed = append(g.packed, unsafe.Slice(unsafe.StringData(col), len(col)))
		g.has = append(g.has, false)
	}
	if err := d.Err(); err != nil {
		return t.Corrupt("data", b, "%v", err)
	}
	g.rest = blob[d.Offset():]
	for len(g.ranks) < len(g.places) {
		g.ranks = append(g.ranks, nil)
	}
	return nil
}

func (l *lookup) corrupt(err error) error {
	return l.p.p.Table(tableIndex).Corrupt("data", l.group.block, "%v", err)
}

// ints returns a slice of n numbers, s if it is large enough.
func ints(s []int64, n int) []int64 {
	if cap(s) < n {
		return make([]int64, n, max(n, groupSeries))
	}
	return s[:n]
}

// column returns the ranks that the series of the open group have of a label, nil when they have none.
func (l *lookup) column(place int) ([]int64, error) {
	g := &l.group
	for i, p := range g.places {
		if p == place {
			return l.columnAt(i)
		}
	}
	return nil, nil
}

func (l *lookup) columnAt(i int) ([]int64, error) {
	g := &l.group
	if !g.has[i] {
		g.ranks[i] = ints(g.ranks[i], g.n)
		if _, err := column.Ints(g.packed[i], g.ranks[i], nil); err != nil {
			return nil, l.corrupt(err)
		}
		g.has[i] = true
	}
	return g.ranks[i], nil
}

// bounds returns the first and last time of the series of the open group.
func (l *lookup) bounds() (lo, hi []int64, err error) {
	g := &l.group
	if !g.bounded {
		g.lo, g.hi = ints(g.lo, g.n), ints(g.hi, g.n)
		rest, err := column.Ints(g.rest, g.lo, nil)
		if err == nil {
			_, err = column.Ints(rest, g.hi, g.lo)
		}
		if err != nil {
			return nil, nil, l.corrupt(err)
		}
		g.bounded = true
	}
	return g.lo, g.hi, nil
}

// skip says whether the names of the metrics of a block of the index rule it out, and whether the times of all of its
// series reach into a time range.
func (l *lookup) skip(b int, ws []want, q *storage.SeriesQuery) (out, all bool) {
	s, e := l.p.p.Table(tableIndex).Limits(b)
	lo, begun, ok1 := readBound(s)
	hi, ended, ok2 := readBound(e)
	if !ok1 || !ok2 {
		return false, false
	}
	if place, ok := l.ix.byName[metricName]; ok {
		for i := range ws {
			if ws[i].place == place && ws[i].allowed == nil && (ws[i].rank < lo || ws[i].rank > hi) {
				return true, false
			}
		}
	}
	return false, begun <= q.End && ended >= q.Start
}

// match calls f for each block of the index with matching series, which is open then, with their rows.
func (l *lookup) match(ctx context.Context, q *storage.SeriesQuery, anyTime bool, f func(first int64, rows []int) error) error {
	ws, none, err := l.wants(q.Matchers)
	if err != nil || none {
		return err
	}
	t := l.p.p.Table(tableIndex)
	var rows []int
	for b := range t.Blocks() {
		out, all := l.skip(b, ws, q)
		if out {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.open(b); err != nil {
			return err
		}
		rows = rows[:0]
		for i := range l.group.n {
			rows = append(rows, i)
		}
		for i := range ws {
			if rows, err = l.filter(&ws[i], rows); err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
		}
		if len(rows) == 0 {
			continue
		}
		if !anyTime && !all {
			lo, hi, err := l.bounds()
			if err != nil {
				return err
			}
			kept := rows[:0]
			for _, r := range rows {
				if lo[r] <= hi[r] && lo[r] <= q.End && hi[r] >= q.Start {
					kept = append(kept, r)
				}
			}
			if rows = kept; len(rows) == 0 {
				continue
			}
		}
		if err := f(t.FirstRow(b), rows); err != nil {
			return err
		}
	}
	return nil
}

func (l *lookup) filter(w *want, rows []int) ([]int, error) {
	col, err := l.column(w.place)
	if err != nil {
		return nil, err
	}
	kept := rows[:0]
	for _, r := range rows {
		rank := int64(0)
		if col != nil {
			rank = col[r]
		}
		if w.ok(rank) {
			kept = append(kept, r)
		}
	}
	return kept, nil
}

// label returns a label in canonical form.
func (l *lookup) label(place int, rank int64) (string, error) {
	v, err := l.value(place, rank)
	if err != nil {
		return "", err
	}
	n := &l.ix.names[place]
	if l.coded[place] == nil {
		l.coded[place] = make([]string, n.values+1)
	}
	b := telemetry.AppendString(make([]byte, 0, len(n.name)+len(v)+6), n.name)
	b = telemetry.AppendString(b, v)
	l.coded[place][rank] = unsafe.String(unsafe.SliceData(b), len(b))
	return l.coded[place][rank], nil
}

// labels returns the labels of a row of the open group.
func (l *lookup) labels(row int) (telemetry.LabelSet, error) {
	g := &l.group
	const slab = 64 << 10
	if cap(l.arena)-len(l.arena) < 4<<10 {
		l.arena = make([]byte, 0, slab)
	}
	at := len(l.arena)
	b := l.arena
	for i, place := range g.places {
		col, err := l.columnAt(i)
		if err != nil {
			return "", err
		}
		rank := col[row]
		if rank == 0 {
			continue
		}
		if coded := l.coded[place]; uint64(rank) < uint64(len(coded)) && coded[rank] != "" {
			b = append(b, coded[rank]...)
			continue
		}
		label, err := l.label(place, rank)
		if err != nil {
			return "", err
		}
		b = append(b, label...)
	}
	l.arena = b
	b = b[at:len(b):len(b)]
	return telemetry.LabelSet(unsafe.String(unsafe.SliceData(b), len(b))), nil
}

// eachLegacy calls f for the labels of the matching series of a part of the first layout.
func (p *Part) eachLegacy(ctx context.Context, q *storage.SeriesQuery, f func(telemetry.LabelSet)) error {
	sel, err := p.selectLegacy(ctx, q, 0, nil)
	if err != nil {
		return err
	}
	for i := range sel.data {
		f(sel.data[i].Labels)
	}
	return nil
}

// LabelNames implements Source.
func (p *Part) LabelNames(ctx context.Context, q *storage.SeriesQuery, f func(string)) error {
	if p.legacy() {
		return p.eachLegacy(ctx, q, func(ls telemetry.LabelSet) { ls.Range(func(name, _ string) { f(name) }) })
	}
	ix, err := p.open()
	if err != nil {
		return err
	}
	if len(q.Matchers) == 0 && q.Start <= p.lo && q.End >= p.hi {
		for i := range ix.names {
			f(ix.names[i].name)
		}
		return nil
	}
	l := newLookup(p, ix)
	seen := make([]bool, len(ix.names))
	left := len(ix.names)
	err = l.match(ctx, q, false, func(_ int64, rows []int) error {
		for i, place := range l.group.places {
			if seen[place] {
				continue
			}
			col, err := l.columnAt(i)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if col[r] != 0 {
					seen[place] = true
					left--
					f(ix.names[place].name)
					break
				}
			}
		}
		if left == 0 {
			return errAll
		}
		return nil
	})
	if errors.Is(err, errAll) {
		return nil
	}
	return err
}

// errAll ends a search that has found all there is.
var errAll = errors.New("nothing is left to be found")

// LabelValues implements Source.
func (p *Part) LabelValues(ctx context.Context, name string, q *storage.SeriesQuery, f func(string)) error {
	if p.legacy() {
		return p.eachLegacy(ctx, q, func(ls telemetry.LabelSet) {
			if v := ls.Get(name); v != "" {
				f(v)
			}
		})
	}
	ix, err := p.open()
	if err != nil {
		return err
	}
	place, ok := ix.byName[name]
	if !ok {
		return nil
	}
	l := newLookup(p, ix)
	if len(q.Matchers) == 0 && q.Start <= p.lo && q.End >= p.hi {
		return l.each(place, func(_ int64, v string) error { f(v); return nil })
	}
	if name == metricName && len(q.Matchers) == 0 {
		return l.metricNames(ctx, q, place, f)
	}
	seen := make(map[int64]bool)
	err = l.match(ctx, q, false, func(_ int64, rows []int) error {
		col, err := l.column(place)
		if err != nil || col == nil {
			return err
		}
		last := int64(0)
		for _, r := range rows {
			if rank := col[r]; rank != last {
				last = rank
				seen[rank] = true
			}
		}
		if len(seen) > ix.names[place].values { // no value is one, too
			return errAll
		}
		return nil
	})
	if err != nil && !errors.Is(err, errAll) {
		return err
	}
	for rank := range seen {
		if rank == 0 {
			continue
		}
		v, err := l.value(place, rank)
		if err != nil {
			return err
		}
		f(v)
	}
	return nil
}

// metricNames calls f for the names of the metrics with series in a time range. Series are sorted by them.
func (l *lookup) metricNames(ctx context.Context, q *storage.SeriesQuery, place int, f func(string)) error {
	t := l.p.p.Table(tableIndex)
	last := int64(0)
	for b := range t.Blocks() {
		s, e := t.Limits(b)
		lo, _, ok1 := readBound(s)
		hi, _, ok2 := readBound(e)
		if ok1 && ok2 && lo == last && hi == last {
			continue // the only name in it is known already
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		_, all := l.skip(b, nil, q)
		if err := l.open(b); err != nil {
			return err
		}
		col, err := l.column(place)
		if err != nil {
			return err
		}
		var los, his []int64
		if !all {
			if los, his, err = l.bounds(); err != nil {
				return err
			}
		}
		for i, rank := range col {
			if rank == last || rank == 0 || !all && (los[i] > his[i] || los[i] > q.End || his[i] < q.Start) {
				continue
			}
			last = rank
			v, err := l.value(place, rank)
			if err != nil {
				return err
			}
			f(v)
		}
	}
	return nil
}
