package columns

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces/columns/piece"
)

// tuples are the distinct sets of keys with codes that the items of a family have in a segment.
type tuples struct {
	entries []uint64
	ends    []int32
	masks   []uint64 // pages that have the tuple
	byHash  map[uint64]uint32
}

func (t *tuples) of(i uint32) []uint64 {
	from := int32(0)
	if i > 0 {
		from = t.ends[i-1]
	}
	return t.entries[from:t.ends[i]]
}

// add returns the number of a tuple with hash h.
func (t *tuples) add(h uint64, entries []uint64) uint32 {
	for ; ; h++ {
		n, ok := t.byHash[h]
		if ok && slices.Equal(t.of(n), entries) {
			return n
		}
		if !ok {
			break
		}
	}
	if t.byHash == nil {
		t.byHash = make(map[uint64]uint32)
	}
	n := uint32(len(t.ends))
	t.byHash[h] = n
	t.entries = append(t.entries, entries...)
	t.ends = append(t.ends, int32(len(t.entries)))
	t.masks = append(t.masks, 0)
	return n
}

// endPage writes the open page. With more, the trace that was added last goes on in the next one.
func (w *Writer) endPage(more bool) error {
	p := &w.page
	if p.rows == 0 {
		return nil
	}
	p.finishTrace()
	for _, k := range p.touched {
		k.mode = k.decide()
	}
	w.unfold()
	b := &w.out
	b.Reset(w.w)
	head := binary.AppendUvarint(nil, uint64(p.rows))
	head = binary.AppendUvarint(head, uint64(len(p.ids)))
	b.Head = append(b.Head, head...)
	w.buf = w.buf[:0]
	for _, id := range p.ids {
		w.buf = append(w.buf, id[:]...)
	}
	b.Add(w.buf, false)
	b.Add(w.pack.Ints(nil, p.counts), false)
	b.Add(p.spanIDs, false)
	w.pack.Codes(b, p.parents)
	b.Add(p.lost, false)
	b.Add(w.pack.Ints(nil, p.starts), false)
	b.Add(w.pack.Ints(nil, p.durs), false)
	w.pack.Codes(b, p.res)
	for f := range families {
		w.items(f)
	}
	for i, id := range p.ids {
		if i > 0 || !p.info.continued {
			w.ids = append(w.ids, id)
		}
		w.filter.Add(traceHash(id))
	}
	slices.SortFunc(p.touched, func(x, y *key) int { return int(x.id) - int(y.id) })
	columns := 0
	for _, k := range p.touched {
		if k.mode != folded {
			columns++
		}
	}
	b.Head = binary.AppendUvarint(b.Head, uint64(columns))
	for _, k := range p.touched {
		w.column(k)
		k.n, k.own, k.codes = 0, k.own[:0], k.codes[:0]
	}
	w.filter.End()
	return w.writePage(more)
}

func (w *Writer) writePage(more bool) error {
	p, b := &w.page, &w.out
	info := p.info
	info.Traces = len(p.ids)
	info.head, info.crc = len(b.Head), part.Checksum(b.Head)
	w.w.Turn(w.pages)
	if err := w.w.Blob(p.rows, b.Bytes(), "", "", false); err != nil {
		return err
	}
	w.done = append(w.done, info)
	id := p.ids[len(p.ids)-1]
	p.reset()
	if more {
		p.ids, p.counts = append(p.ids, id), append(p.counts, 0)
		p.info.continued = true
	}
	return nil
}

// items writes which tuples the items of a family have, and what else each has.
func (w *Writer) items(f family) {
	p, b := &w.page, &w.out
	it := &p.items[f]
	if f != spans {
		b.Head = binary.AppendUvarint(b.Head, uint64(it.len()))
		if it.len() == 0 {
			return
		}
		b.Add(w.pack.Ints(nil, it.rows), false)
	}
	codes := make([]uint32, it.len())
	bit := uint64(1) << len(w.done)
	for i := range codes {
		es := it.of(i)
		h := uint64(0)
		for n, e := range es {
			k := w.keys.list[e>>32]
			code := uint32(e)
			switch {
			case k.mode == folded || code == own:
			case k.mode == coded:
				k.codes = append(k.codes, code)
				e |= own
			default:
				k.own = append(k.own, k.vals[code])
				e |= own
			}
			es[n] = e
			h = piece.Mix(h ^ e)
		}
		codes[i] = w.tuples[f].add(h, es)
		w.tuples[f].masks[codes[i]] |= bit
	}
	w.pack.Codes(b, codes)
	switch f {
	case events:
		b.Add(w.pack.Ints(nil, p.times), false)
	case links:
		b.Add(p.linked, true)
	default:
	}
}

// column writes the column of a key that has one of its own in the page.
func (w *Writer) column(k *key) {
	b := &w.out
	bit := uint64(1) << len(w.done)
	switch k.mode {
	case folded:
		k.tupled |= bit
		return
	case coded:
		k.columned |= bit
		w.columnHead(k, formCodes, len(k.codes))
		w.pack.Codes(b, k.codes)
		seen := make([]bool, len(k.vals))
		for _, c := range k.codes {
			if seen[c] {
				continue
			}
			seen[c] = true
			if v := k.vals[c]; v.Kind() == telemetry.KindString {
				w.filter.Add(w.valueHash(k.place, k.name, v.Str()))
			} else {
				k.unindexed |= bit
			}
		}
		return
	case plain:
	}
	if len(k.vals) > k.mark {
		k.rollback()
	}
	k.columned |= bit
	k.anywhere |= bit
	switch piece.KindOf(k.own) {
	case telemetry.KindInt:
		w.columnHead(k, formInts, len(k.own))
		ns := make([]int64, len(k.own))
		lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
		for i, v := range k.own {
			ns[i] = v.Int()
			lo, hi = min(lo, ns[i]), max(hi, ns[i])
		}
		if k.unindexed == 0 {
			k.lo, k.hi = lo, hi
		}
		k.lo, k.hi = min(k.lo, lo), max(k.hi, hi)
		k.unindexed |= bit
		b.Add(w.pack.Ints(nil, ns), false)
	case telemetry.KindString:
		w.strings(k)
	default:
		k.unindexed |= bit
		k.lo, k.hi = math.MinInt64, math.MaxInt64
		w.columnHead(k, formValues, len(k.own))
		distinct, codes := dedupe(k.own)
		b.Head = binary.AppendUvarint(b.Head, uint64(len(distinct)))
		b.Add(w.pack.Values(nil, distinct), true)
		w.pack.Codes(b, codes)
	}
}

func (w *Writer) columnHead(k *key, form byte, n int) {
	w.out.Head = binary.AppendUvarint(w.out.Head, uint64(k.id))
	w.out.Head = append(w.out.Head, form)
	w.out.Head = binary.AppendUvarint(w.out.Head, uint64(n))
}

// strings writes a column of strings, each distinct one once. Mostly all are distinct, which their hashes tell.
func (w *Writer) strings(k *key) {
	b := &w.out
	w.columnHead(k, formStrings, len(k.own))
	w.strs, w.hashes = w.strs[:0], w.hashes[:0]
	for _, v := range k.own {
		w.strs = append(w.strs, v.Str())
		w.hashes = append(w.hashes, w.valueHash(k.place, k.name, v.Str()))
	}
	slices.Sort(w.hashes)
	w.hashes = slices.Compact(w.hashes)
	for _, h := range w.hashes {
		w.filter.Add(h)
	}
	strs := w.strs
	var codes []uint32
	if len(w.hashes) < len(strs) {
		strs, codes = dedupe(w.strs)
	}
	b.Head = binary.AppendUvarint(b.Head, uint64(len(strs)))
	b.Add(w.pack.Texts(nil, strs), true)
	if len(strs) < len(w.strs) {
		w.pack.Codes(b, codes)
		return
	}
	b.Add(nil, false)
}

// dedupe returns the distinct values and the place among them of each.
func dedupe[T comparable](vs []T) (distinct []T, codes []uint32) {
	at := make(map[T]uint32)
	codes = make([]uint32, len(vs))
	for i, v := range vs {
		c, ok := at[v]
		if !ok {
			c = uint32(len(distinct))
			at[v] = c
			distinct = append(distinct, v)
		}
		codes[i] = c
	}
	return distinct, codes
}

// Limits of tuples in a page: up to one for fewRows rows folding is worth it whatever it folds. Beyond, a key that makes
// independentBy times as many of them as there would be without it gets a column.
const (
	fewRows       = 32
	independentBy = 2
)

// unfold takes keys out of the tuples of the page whose values have little to do with the others.
func (w *Writer) unfold() {
	for f := range families {
		it := &w.page.items[f]
		limit := max(it.len()/fewRows, 64)
		for w.unfoldOne(it, limit) {
		}
	}
}

// unfoldOne takes one key out of the tuples, if there are more than limit, and says so.
func (w *Writer) unfoldOne(it *items, limit int) bool {
	sample := make(map[uint64]int32) // hashes of tuples, and an item that has it
	for i := range it.len() {
		h := uint64(0)
		for _, e := range it.of(i) {
			h += piece.Mix(w.inTuple(e))
		}
		if _, ok := sample[h]; !ok {
			sample[h] = int32(i)
		}
	}
	if len(sample) <= limit {
		return false
	}
	var best *key
	least := len(sample)
	without := make(map[uint64]struct{}, len(sample))
	for _, k := range w.page.touched {
		if k.mode != folded || len(k.vals) < 3 {
			continue
		}
		clear(without)
		for h, i := range sample {
			for _, e := range it.of(int(i)) {
				if uint32(e>>32) == k.id {
					h -= piece.Mix(e)
					h += piece.Mix(e | own)
				}
			}
			without[h] = struct{}{}
		}
		if len(without) < least {
			best, least = k, len(without)
		}
	}
	if best == nil || least*independentBy > len(sample) {
		return false
	}
	best.mode = coded
	return true
}

// inTuple returns what of an entry goes into the tuple.
func (w *Writer) inTuple(e uint64) uint64 {
	if w.keys.list[e>>32].mode != folded {
		return e | own
	}
	return e
}
