package part

import (
	"bytes"
	"sort"

	"github.com/braidobs/braid/internal/telemetry"
)

// WriteTraceIndex writes a table of trace IDs, which are sorted here, each with numbers of its own: columns
// "id" and then one Int64 column per name.
func WriteTraceIndex(w *Writer, table string, ids []telemetry.TraceID, names []string, numbers ...[]int64) error {
	cols := indexColumns(names...)
	w.Begin(Schema{Name: table, Columns: cols})
	order := make([]int, len(ids))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return bytes.Compare(ids[order[a]][:], ids[order[b]][:]) < 0 })
	for at := 0; at < len(order); {
		n := min(len(order)-at, BlockRows)
		vs := make([]Vector, len(cols))
		for _, i := range order[at : at+n] {
			vs[0].Fixed = append(vs[0].Fixed, ids[i][:]...)
			for c := range names {
				vs[c+1].Ints = append(vs[c+1].Ints, numbers[c][i])
			}
		}
		if err := w.Block(n, vs...); err != nil {
			return err
		}
		at += n
	}
	return nil
}

func indexColumns(names ...string) []Column {
	cols := []Column{{Name: "id", Type: Fixed, Width: 16}}
	for _, n := range names {
		cols = append(cols, Column{Name: n, Type: Int64})
	}
	return cols
}

// LookupTraces calls f with the numbers of the first column for every entry of one of ids.
func LookupTraces(p *Part, table, number string, ids []telemetry.TraceID, f func(id telemetry.TraceID, n int64)) error {
	t := p.Table(table)
	if err := t.Check(indexColumns(number)); err != nil {
		return err
	}
	for b := range t.Blocks() {
		lo, hi, ok := t.Fixed("id", b)
		var col, num Vector
		for _, id := range ids {
			if ok && (string(id[:]) < lo || string(id[:]) > hi) {
				continue
			}
			if col.Fixed == nil {
				var err error
				if col, err = t.Read("id", b); err != nil {
					return err
				}
				if num, err = t.Read(number, b); err != nil {
					return err
				}
			}
			n := t.BlockRows(b)
			i := sort.Search(n, func(i int) bool { return bytes.Compare(col.Fixed[i*16:i*16+16], id[:]) >= 0 })
			for ; i < n && bytes.Equal(col.Fixed[i*16:i*16+16], id[:]); i++ {
				f(id, num.Ints[i])
			}
		}
	}
	return nil
}
