package part

import (
	"github.com/braidobs/braid/internal/telemetry"
)

// blockBytes is about how many bytes of text a block of a dictionary holds.
const blockBytes = 256 << 10

// Dict numbers distinct values in the order in which they come.
type Dict[K comparable, V any] struct {
	Values []V
	pos    map[K]uint32
}

// Add returns the number of the value with key k, which is v when it is new.
func (d *Dict[K, V]) Add(k K, v V) uint32 {
	if i, ok := d.pos[k]; ok {
		return i
	}
	if d.pos == nil {
		d.pos = make(map[K]uint32)
	}
	i := uint32(len(d.Values))
	d.Values = append(d.Values, v)
	d.pos[k] = i
	return i
}

// Resources is a dictionary of resources; nil is a value of its own.
type Resources struct {
	dict Dict[telemetry.ResourceID, *telemetry.Resource]
}

// Add returns the number of r.
func (d *Resources) Add(r *telemetry.Resource) uint32 {
	if r == nil {
		return d.dict.Add(telemetry.ResourceID{}, nil)
	}
	return d.dict.Add(r.ID, r)
}

// Strings returns the dictionary as Part.Resources reads it.
func (d *Resources) Strings() []string {
	ss := make([]string, len(d.dict.Values))
	for i, r := range d.dict.Values {
		if r != nil {
			ss[i] = string(telemetry.AppendUvarint(telemetry.AppendResource([]byte{1}, r), uint64(r.Dropped)))
		}
	}
	return ss
}

// Write writes the dictionary as table "resources".
func (d *Resources) Write(w *Writer) error { return WriteStrings(w, "resources", d.Strings()) }

// ReadResources reads what Resources.Write wrote.
func ReadResources(p *Part) ([]*telemetry.Resource, error) {
	ss, err := ReadStrings(p, "resources")
	if err != nil {
		return nil, err
	}
	return p.Resources(ss)
}

// Resources reads what Resources.Strings gave.
func (p *Part) Resources(ss []string) ([]*telemetry.Resource, error) {
	rs := make([]*telemetry.Resource, len(ss))
	for i, s := range ss {
		if s == "" {
			continue
		}
		d := telemetry.NewDecoder(s[1:])
		if rs[i] = d.Resource(); rs[i] != nil {
			rs[i].Dropped = uint32(d.Uvarint())
		}
		if d.Err() != nil {
			return nil, p.corrupt(0, "resource %d: %v", i, d.Err())
		}
	}
	return rs, nil
}

// Scopes is a dictionary of scopes, equal ones once; nil is a value of its own.
type Scopes struct {
	dict Dict[string, *telemetry.Scope]
	seen map[*telemetry.Scope]uint32
}

// Add returns the number of s.
func (d *Scopes) Add(s *telemetry.Scope) uint32 {
	if i, ok := d.seen[s]; ok {
		return i
	}
	key := ""
	if s != nil {
		key = string(telemetry.AppendScope(nil, s))
	}
	i := d.dict.Add(key, s)
	if d.seen == nil {
		d.seen = make(map[*telemetry.Scope]uint32)
	}
	d.seen[s] = i
	return i
}

// Strings returns the dictionary as Part.Scopes reads it.
func (d *Scopes) Strings() []string {
	ss := make([]string, len(d.dict.Values))
	for i, s := range d.dict.Values {
		if s != nil {
			ss[i] = string(telemetry.AppendScope(nil, s))
		}
	}
	return ss
}

// Write writes the dictionary as table "scopes".
func (d *Scopes) Write(w *Writer) error { return WriteStrings(w, "scopes", d.Strings()) }

// ReadScopes reads what Scopes.Write wrote.
func ReadScopes(p *Part) ([]*telemetry.Scope, error) {
	ss, err := ReadStrings(p, "scopes")
	if err != nil {
		return nil, err
	}
	return p.Scopes(ss)
}

// Scopes reads what Scopes.Strings gave.
func (p *Part) Scopes(ss []string) ([]*telemetry.Scope, error) {
	scs := make([]*telemetry.Scope, len(ss))
	for i, s := range ss {
		if s == "" {
			continue
		}
		d := telemetry.NewDecoder(s)
		scs[i] = d.Scope()
		if d.Err() != nil {
			return nil, p.corrupt(0, "scope %d: %v", i, d.Err())
		}
	}
	return scs, nil
}

// StringsSchema is the schema of a table with one column "value".
func StringsSchema(table string) Schema { return Schema{Name: table, Columns: stringColumns()} }

func stringColumns() []Column { return []Column{{Name: "value", Type: Bytes}} }

// WriteStrings writes a table with one column "value".
func WriteStrings(w *Writer, table string, ss []string) error {
	w.Begin(StringsSchema(table))
	_, err := w.Strings(ss)
	return err
}

// Strings writes blocks of a table with one column "value" and returns how many there were.
func (w *Writer) Strings(ss []string) (blocks int, err error) {
	for at := 0; at < len(ss); {
		n := Chunk(len(ss)-at, func(i int) int { return len(ss[at+i]) })
		if err := w.Block(n, Vector{Strs: ss[at : at+n]}); err != nil {
			return blocks, err
		}
		at += n
		blocks++
	}
	return blocks, nil
}

// ReadStrings reads what WriteStrings wrote.
func ReadStrings(p *Part, table string) ([]string, error) {
	t := p.Table(table)
	return t.Strings(0, t.Blocks())
}

// Strings returns the values of blocks from up to, but without, to of a table with one column "value".
func (t *Table) Strings(from, to int) ([]string, error) {
	if err := t.Check(stringColumns()); err != nil {
		return nil, err
	}
	var ss []string
	for b := from; b < to; b++ {
		v, err := t.Read("value", b)
		if err != nil {
			return nil, err
		}
		ss = append(ss, v.Strs...)
	}
	return ss, nil
}

// BlockRows is how many rows a block has unless they are large.
const BlockRows = 8192

// Chunk returns how many of the next n rows make one block, given the bytes of each.
func Chunk(n int, size func(i int) int) int {
	n = min(n, BlockRows)
	for i, sum := 0, 0; i < n; i++ {
		if sum += size(i); sum > blockBytes && i > 0 {
			return i
		}
	}
	return n
}

// Indexes checks that every number of v points into a dictionary of n values.
func (t *Table) Indexes(column string, b, n int) ([]int64, error) {
	v, err := t.Read(column, b)
	if err != nil {
		return nil, err
	}
	for _, i := range v.Ints {
		if i < 0 || i >= int64(n) {
			return nil, t.p.corrupt(t.meta.blocks[t.cols[column]][b].offset, "table %s, column %s, block %d: index %d into %d values", t.name, column, b, i, n)
		}
	}
	return v.Ints, nil
}

// Corrupt returns an error about the content of block b of a column.
func (t *Table) Corrupt(column string, b int, format string, args ...any) error {
	off := int64(0)
	if c, ok := t.cols[column]; ok && b < len(t.meta.blocks[c]) {
		off = t.meta.blocks[c][b].offset
	}
	return t.p.corrupt(off, "table "+t.name+", column "+column+": "+format, args...)
}
