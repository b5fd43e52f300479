package columns

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/part"
)

// End ends the open segment, if there is one.
func (w *Writer) End() error {
	if err := w.endPage(false); err != nil || len(w.done) == 0 {
		return err
	}
	b := &w.out
	b.Reset(w.w)
	b.Head = append(b.Head, version)
	b.Head = w.appendPages(b.Head)
	if err := w.dictionaries(); err != nil {
		return err
	}
	b.Add(w.order(), false)
	shape := w.filter.Shape(len(w.done))
	at := len(b.Body)
	b.Body = w.filter.Append(b.Body, shape)
	info := total(w.done)
	info.Traces = len(w.ids)
	w.w.Turn(w.pages + 1)
	lo, hi := appendInfo(nil, info), binary.AppendUvarint(nil, uint64(len(w.done)))
	hi = binary.AppendUvarint(hi, uint64(len(b.Head)))
	hi = binary.LittleEndian.AppendUint32(hi, part.Checksum(b.Head))
	for _, n := range []int{len(b.Head) + at, shape.Slots, shape.Pieces} {
		hi = binary.AppendUvarint(hi, uint64(n))
	}
	if err := w.w.Blob(1, b.Bytes(), string(lo), string(hi), false); err != nil {
		return err
	}
	w.reset()
	return nil
}

// appendInfo appends what is known of rows.
func appendInfo(dst []byte, x Info) []byte {
	dst = binary.AppendUvarint(dst, uint64(x.Rows))
	dst = binary.AppendUvarint(dst, uint64(x.Traces))
	dst = binary.AppendVarint(dst, x.Start)
	for _, n := range []int64{x.LastStart, x.LastFirst, x.Lo, x.Hi} {
		dst = binary.AppendVarint(dst, n-x.Start)
	}
	return dst
}

func readInfo(d *telemetry.Decoder) Info {
	rows, traces := d.Uvarint(), d.Uvarint()
	if rows == 0 || rows > maxSegmentRows || traces == 0 || traces > rows {
		d.Fail("%d rows, %d traces", rows, traces)
	}
	x := Info{Rows: int(rows), Traces: int(traces), Start: d.Varint()}
	for _, n := range []*int64{&x.LastStart, &x.LastFirst, &x.Lo, &x.Hi} {
		*n = d.Varint() + x.Start
	}
	return x
}

// maxSegmentRows bounds the rows of a segment.
const maxSegmentRows = MaxBlocks * part.MaxBlockRows

// total returns what pages span together.
func total(pages []pageInfo) Info {
	x := pages[0].Info
	for _, p := range pages[1:] {
		x.Rows, x.Traces = x.Rows+p.Rows, x.Traces+p.Traces
		if p.continued {
			x.Traces--
		}
		x.Start, x.LastStart, x.LastFirst = min(x.Start, p.Start), max(x.LastStart, p.LastStart), max(x.LastFirst, p.LastFirst)
		x.Lo, x.Hi = min(x.Lo, p.Lo), max(x.Hi, p.Hi)
	}
	return x
}

func (w *Writer) appendPages(dst []byte) []byte {
	for i := range w.done {
		p := &w.done[i]
		dst = appendInfo(dst, p.Info)
		flags := byte(0)
		if p.continued {
			flags = 1
		}
		dst = append(dst, flags)
		dst = binary.AppendVarint(dst, p.minDur)
		dst = binary.AppendVarint(dst, p.maxDur)
		dst = binary.AppendUvarint(dst, uint64(p.head))
		dst = binary.LittleEndian.AppendUint32(dst, p.crc)
	}
	return dst
}

// dictionaries writes keys with their values, tuples, resources and scopes.
func (w *Writer) dictionaries() error {
	b := &w.out
	b.Head = binary.AppendUvarint(b.Head, uint64(len(w.keys.list)))
	for _, k := range w.keys.list {
		b.Head = append(b.Head, byte(k.place))
		b.Head = telemetry.AppendString(b.Head, k.name)
		for _, pages := range []uint64{k.tupled, k.columned, k.anywhere, k.unindexed} {
			b.Head = binary.AppendUvarint(b.Head, pages)
		}
		b.Head = binary.AppendVarint(b.Head, k.lo)
		b.Head = binary.AppendVarint(b.Head, k.hi)
		b.Head = binary.AppendUvarint(b.Head, uint64(len(k.vals)))
		if len(k.vals) > 0 {
			b.Add(w.pack.Values(nil, k.vals), true)
		}
	}
	width := (len(w.done) + 7) / 8
	mask := func(dst []byte, m uint64) []byte {
		return append(dst, binary.LittleEndian.AppendUint64(nil, m)[:width]...)
	}
	for f := range w.tuples {
		t := &w.tuples[f]
		b.Head = binary.AppendUvarint(b.Head, uint64(len(t.ends)))
		if len(t.ends) == 0 {
			continue
		}
		w.buf = t.append(w.buf[:0])
		for _, m := range t.masks {
			w.buf = mask(w.buf, m)
		}
		b.Add(w.buf, true)
	}
	b.Head = binary.AppendUvarint(b.Head, uint64(len(w.resMasks)))
	b.Add(w.pack.Texts(nil, w.res.Strings()), true)
	w.buf = w.buf[:0]
	for _, m := range w.resMasks {
		w.buf = mask(w.buf, m)
	}
	b.Add(w.buf, true)
	scopes := w.scopes.Strings()
	b.Head = binary.AppendUvarint(b.Head, uint64(len(scopes)))
	b.Add(w.pack.Texts(nil, scopes), true)
	return nil
}

// append appends the tuples: the distinct lists of keys first, then for each tuple the number of its list, and its codes.
func (t *tuples) append(dst []byte) []byte {
	lists := make(map[string]uint64)
	var texts, key, rest []byte
	for i := range t.ends {
		es := t.of(uint32(i))
		key = binary.AppendUvarint(key[:0], uint64(len(es)))
		for _, e := range es {
			key = binary.AppendUvarint(key, e>>32)
		}
		n, ok := lists[string(key)]
		if !ok {
			n = uint64(len(lists))
			lists[string(key)] = n
			texts = append(texts, key...)
		}
		rest = binary.AppendUvarint(rest, n)
		for _, e := range es {
			rest = binary.AppendUvarint(rest, uint64(uint32(e)+1))
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(lists)))
	return append(append(dst, texts...), rest...)
}

// order returns the numbers of the traces in the order of their IDs.
func (w *Writer) order() []byte {
	ns := make([]int64, len(w.ids))
	for i := range ns {
		ns[i] = int64(i)
	}
	slices.SortFunc(ns, func(x, y int64) int { return bytes.Compare(w.ids[x][:], w.ids[y][:]) })
	return w.pack.Ints(nil, ns)
}

// Copy ends the open segment and writes another one as it is stored.
func (w *Writer) Copy(s *Segment) error {
	if err := w.End(); err != nil {
		return err
	}
	w.w.Turn(w.pages)
	for i := range s.pages {
		if err := w.w.Copy(s.part.pages, s.first+i); err != nil {
			return err
		}
	}
	w.w.Turn(w.pages + 1)
	return w.w.Copy(s.part.segments, s.number)
}

// Close ends the open segment.
func (w *Writer) Close() error { return w.End() }
