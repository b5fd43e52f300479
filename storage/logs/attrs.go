package logs

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/column"
	"github.com/braidobs/braid/storage/part"
)

// The forms of an attribute's values in a block. The numbers are on disk.
const (
	attrStrings = 1 // all are strings
	attrInts    = 2 // all are integers
	attrValues  = 3 // each in its binary form
)

// attrWriter gathers the attributes of the rows of a block, a column for each key.
type attrWriter struct {
	cols map[string]*attrRows
	ints column.Encoder
	buf  []byte
	nums []int64
	strs []string
}

type attrRows struct {
	rows []int64
	vals []telemetry.Value
}

func (w *attrWriter) add(row int, as telemetry.Attrs) {
	for i := range as {
		c := w.cols[as[i].Key]
		if c == nil {
			if w.cols == nil {
				w.cols = make(map[string]*attrRows)
			}
			c = &attrRows{}
			w.cols[as[i].Key] = c
		}
		c.rows = append(c.rows, int64(row))
		c.vals = append(c.vals, as[i].Value)
	}
}

// append appends the columns of n rows, by key, and forgets them.
func (w *attrWriter) append(dst []byte, n int) []byte {
	dst = telemetry.AppendUvarint(dst, uint64(len(w.cols)))
	for _, key := range slices.Sorted(maps.Keys(w.cols)) {
		c := w.cols[key]
		dst = telemetry.AppendString(dst, key)
		w.buf = w.buf[:0]
		form := w.values(c)
		if len(c.rows) < n {
			w.buf = w.ints.Ints(w.buf, c.rows, nil)
		}
		switch form {
		case attrInts:
			w.buf = w.ints.Ints(w.buf, w.nums, nil)
		default:
			w.buf = part.AppendStrings(w.buf, w.strs)
		}
		dst = append(dst, form)
		dst = telemetry.AppendUvarint(dst, uint64(len(c.rows)))
		dst = telemetry.AppendUvarint(dst, uint64(len(w.buf)))
		dst = append(dst, w.buf...)
	}
	clear(w.cols)
	return dst
}

// values fills nums or strs with the values of a column and returns their form.
func (w *attrWriter) values(c *attrRows) byte {
	w.nums, w.strs = w.nums[:0], w.strs[:0]
	kind := c.vals[0].Kind()
	for _, v := range c.vals {
		if v.Kind() != kind {
			kind = telemetry.KindMap
			break
		}
	}
	switch kind {
	case telemetry.KindString:
		for _, v := range c.vals {
			w.strs = append(w.strs, v.Str())
		}
		return attrStrings
	case telemetry.KindInt:
		for _, v := range c.vals {
			w.nums = append(w.nums, v.Int())
		}
		return attrInts
	default:
		for _, v := range c.vals {
			w.strs = append(w.strs, string(telemetry.AppendValue(nil, v)))
		}
		return attrValues
	}
}

// attrColumn is the values of one key in a block.
type attrColumn struct {
	key  string
	form byte
	n    int    // rows that have it
	raw  string // what is not decoded yet

	loaded bool
	rows   []int64 // ascending; nil when all have it
	strs   []string
	nums   []int64
}

// readAttrs reads the directory of what attrWriter wrote for n rows; it shares raw's memory.
func readAttrs(raw string, n int) ([]attrColumn, error) {
	d := telemetry.NewDecoder(raw)
	cols := make([]attrColumn, d.Count(4))
	for i := range cols {
		c := &cols[i]
		c.key = d.Str()
		c.form = d.Byte()
		rows := d.Uvarint()
		c.raw = d.Str()
		switch {
		case d.Err() != nil:
		case c.form < attrStrings || c.form > attrValues:
			d.Fail("unknown form %d of attribute %q", c.form, c.key)
		case rows == 0 || rows > uint64(n):
			d.Fail("attribute %q of %d rows in %d", c.key, rows, n)
		case i > 0 && cols[i-1].key >= c.key:
			d.Fail("attribute %q after %q", c.key, cols[i-1].key)
		}
		if d.Err() != nil {
			return nil, d.Err()
		}
		c.n = int(rows)
	}
	if d.Len() > 0 {
		d.Fail("%d bytes too many", d.Len())
	}
	return cols, d.Err()
}

// load decodes the column, which belongs to a block of n rows.
func (c *attrColumn) load(n int) error {
	if c.loaded {
		return nil
	}
	src := []byte(c.raw)
	var err error
	if c.n < n {
		rows := make([]int64, c.n)
		if src, err = column.Ints(src, rows, nil); err != nil {
			return fmt.Errorf("attribute %q: %w", c.key, err)
		}
		last := int64(-1)
		for _, r := range rows {
			if r <= last || r >= int64(n) {
				return fmt.Errorf("attribute %q of row %d after %d", c.key, r, last)
			}
			last = r
		}
		c.rows = rows
	}
	if c.form == attrInts {
		c.nums = make([]int64, c.n)
		if src, err = column.Ints(src, c.nums, nil); err == nil && len(src) > 0 {
			err = fmt.Errorf("%d bytes too many", len(src))
		}
	} else {
		c.strs, err = part.Strings(string(src), c.n)
	}
	if err != nil {
		return fmt.Errorf("attribute %q: %w", c.key, err)
	}
	c.loaded = true
	return nil
}

// value returns the value at place i of the column.
func (c *attrColumn) value(i int) (telemetry.Value, error) {
	switch c.form {
	case attrStrings:
		return telemetry.String(c.strs[i]), nil
	case attrInts:
		return telemetry.Int(c.nums[i]), nil
	default:
		d := telemetry.NewDecoder(c.strs[i])
		v := d.Value()
		if d.Err() == nil && d.Len() > 0 {
			d.Fail("%d bytes too many", d.Len())
		}
		return v, d.Err()
	}
}

// text returns the text of the value at place i.
func (c *attrColumn) text(i int) (string, error) {
	if c.form == attrStrings {
		return c.strs[i], nil
	}
	v, err := c.value(i)
	return v.Text(), err
}

// matches calls f for each row that has the attribute with whether its text matches.
func (c *attrColumn) matches(m *labels.Matcher, f func(row int, ok bool)) error {
	memo := make(map[string]bool)
	for i := range c.n {
		row := i
		if c.rows != nil {
			row = int(c.rows[i])
		}
		text, err := c.text(i)
		if err != nil {
			return fmt.Errorf("attribute %q: %w", c.key, err)
		}
		ok, known := memo[text]
		if !known {
			ok = m.Matches(text)
			if len(memo) < 1024 {
				memo[text] = ok
			}
		}
		f(row, ok)
	}
	return nil
}

// attrsOf fills out with the attributes of the given rows, ascending, of a block of n rows; nil is all of them.
func attrsOf(out []telemetry.Attrs, cols []attrColumn, rows []int, n int) error {
	clear(out)
	if len(cols) == 0 {
		return nil
	}
	at := make([]int32, n) // place of each row in out, from 1
	for i := range out {
		at[row(rows, i)] = int32(i + 1)
	}
	total := 0
	counts := make([]int32, len(out))
	each := func(c *attrColumn, f func(place, i int)) {
		for i := range c.n {
			row := i
			if c.rows != nil {
				row = int(c.rows[i])
			}
			if p := at[row]; p > 0 {
				f(int(p-1), i)
			}
		}
	}
	for i := range cols {
		if err := cols[i].load(n); err != nil {
			return err
		}
		each(&cols[i], func(p, _ int) { counts[p]++; total++ })
	}
	if total == 0 {
		return nil
	}
	arena := make([]telemetry.Attr, total)
	for i, k := range counts {
		if k > 0 {
			out[i], arena = telemetry.Attrs(arena[:0:k]), arena[k:]
		}
	}
	for i := range cols {
		c := &cols[i]
		var err error
		key := strings.Clone(c.key)
		each(c, func(p, k int) {
			v, e := c.value(k)
			if e != nil && err == nil {
				err = fmt.Errorf("attribute %q: %w", c.key, e)
			}
			out[p] = append(out[p], telemetry.Attr{Key: key, Value: v})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// maxAttrKeys is how many keys the attributes of one block may have: with more, it ends.
const maxAttrKeys = math.MaxUint16
