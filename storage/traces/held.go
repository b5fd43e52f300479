package traces

import (
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces/packed"
)

// Held is a span in a snapshot of a head.
type Held struct {
	of  *Tenant
	row int32
}

// Rows appends the spans of the trace that start from lo to hi and that masks do not cover, in the order of arrival.
func (t *HeldTrace) Rows(dst []Held, lo, hi int64, masks []Mask) []Held {
	for _, row := range t.of.chain(nil, t.last) {
		start := t.of.rows[row].start
		if start < lo || start > hi || len(masks) > 0 && Covered(since(masks, t.of.at(row).pos), t.id, start) {
			continue
		}
		dst = append(dst, Held{t.of, row})
	}
	return dst
}

// EachRow calls f for the spans that start from lo to hi and that masks do not cover, in the order of arrival, with the number of
// the trace of each as Matching has it, until f returns false.
func (t *Tenant) EachRow(lo, hi int64, masks []Mask, f func(h Held, trace int) bool) {
	for i := range t.entries {
		e := &t.entries[i]
		if e.hi < lo || e.lo > hi {
			continue
		}
		own := masks
		if len(masks) > 0 {
			own = since(masks, e.pos)
		}
		for row := e.base; row < e.base+e.rows; row++ {
			r := &t.rows[row]
			if r.start < lo || r.start > hi || len(own) > 0 && Covered(own, t.traces[r.trace].id, r.start) {
				continue
			}
			if !f(Held{t, row}, int(r.trace)) {
				return
			}
		}
	}
}

// Start returns when the span starts.
func (h Held) Start() int64 { return h.of.rows[h.row].start }

// Trace returns the ID of its trace.
func (h Held) Trace() telemetry.TraceID { return h.of.traces[h.of.rows[h.row].trace].id }

// IDs returns its ID and that of its parent, zero for none.
func (h Held) IDs() (id, parent telemetry.SpanID) { return h.of.view.IDs(h.place()) }

// Duration returns how long it took, in nanoseconds.
func (h Held) Duration() int64 { return h.of.view.Duration(h.place()) }

func (h Held) place() packed.Place { return h.of.rows[h.row].at }

// Resource returns what sent it.
func (h Held) Resource() *telemetry.Resource { return h.of.at(h.row).res }

// Span sets s to the span and appends its attributes to as, which it returns.
func (h Held) Span(s *telemetry.Span, as telemetry.Attrs) telemetry.Attrs {
	return h.of.unpack(h.row, s, as)
}

// HeldColumns makes columns of spans of heads. It is for one caller at a time.
type HeldColumns struct {
	keys    map[heldKey]packed.Key
	numbers map[*Tenant]*numbers
	now     uint32 // how many columns were made
}

// heldKey is the name of an attribute in a snapshot.
type heldKey struct {
	of   *Tenant
	name string
}

// numbers are the codes of texts that a head holds once.
type numbers struct {
	codes []uint32
	of    []uint32 // HeldColumns.now of the column that the code is of
}

// Column returns the values of a key in rows, as storage.TraceBlock has them.
func (c *HeldColumns) Column(rows []Held, key storage.SpanKey) *storage.SpanColumn {
	c.now++
	m := maker{c: c, out: &storage.SpanColumn{}, codes: make(map[telemetry.Value]uint32)}
	switch {
	case key.Scope == storage.ResourceScope:
		m.resources(rows, key)
	case key.Scope == storage.RecordScope:
		m.attrs(rows, key.Name)
	case key.Scope == storage.FieldScope && (key.Field == storage.SpanKindField || key.Field == storage.SpanStatus):
		m.kinds(rows, key.Field == storage.SpanStatus)
	case key.Scope == storage.FieldScope && key.Field == storage.SpanName:
		m.texts(rows, (*packed.View).Name)
	case key.Scope == storage.FieldScope && key.Field == storage.SpanState:
		m.texts(rows, (*packed.View).State)
	case key.Scope == storage.FieldScope && key.Field == storage.SpanStatusMessage:
		m.texts(rows, (*packed.View).Message)
	default:
		m.others(rows, key)
	}
	return m.finish(len(rows))
}

// maker makes a column.
type maker struct {
	c     *HeldColumns
	out   *storage.SpanColumn
	codes map[telemetry.Value]uint32
	last  *Tenant
	known *numbers // of last
}

// finish leaves out the rows where each has a value.
func (m *maker) finish(rows int) *storage.SpanColumn {
	all := m.out.Len() == rows
	for i := 0; all && i < len(m.out.Rows); i++ {
		all = m.out.Rows[i] == int32(i)
	}
	switch {
	case all:
		m.out.Rows = nil
	case m.out.Rows == nil:
		m.out.Rows = []int32{}
	}
	return m.out
}

func (m *maker) put(row int, code uint32) {
	m.out.Rows, m.out.Code = append(m.out.Rows, int32(row)), append(m.out.Code, code)
}

func (m *maker) code(v telemetry.Value) uint32 {
	code, ok := m.codes[v]
	if !ok {
		code = uint32(len(m.out.Dict))
		m.codes[v] = code
		m.out.Dict = append(m.out.Dict, v)
	}
	return code
}

// text puts a text, which is mostly known by its number.
func (m *maker) text(row int, of *Tenant, t packed.Text) {
	if t.Number == packed.None {
		m.put(row, m.code(t.Value))
		return
	}
	if of != m.last {
		m.last, m.known = of, m.c.of(of)
	}
	n := m.known
	if n.of[t.Number] != m.c.now {
		n.of[t.Number], n.codes[t.Number] = m.c.now, m.code(t.Value)
	}
	m.put(row, n.codes[t.Number])
}

// of returns the numbers of a snapshot.
func (c *HeldColumns) of(t *Tenant) *numbers {
	n := c.numbers[t]
	if n == nil {
		texts := t.view.Texts()
		n = &numbers{codes: make([]uint32, texts), of: make([]uint32, texts)}
		if c.numbers == nil {
			c.numbers = make(map[*Tenant]*numbers)
		}
		c.numbers[t] = n
	}
	return n
}

func (m *maker) texts(rows []Held, field func(*packed.View, packed.Place) packed.Text) {
	for i, h := range rows {
		m.text(i, h.of, field(&h.of.view, h.place()))
	}
}

func (m *maker) attrs(rows []Held, name string) {
	var of *Tenant
	var key packed.Key
	for i, h := range rows {
		if h.of != of {
			of, key = h.of, m.c.key(h.of, name)
		}
		if t, ok := of.view.Attr(h.place(), key); ok {
			m.text(i, of, t)
		}
	}
}

func (c *HeldColumns) key(of *Tenant, name string) packed.Key {
	k, ok := c.keys[heldKey{of, name}]
	if !ok {
		k = of.view.Key(name)
		if c.keys == nil {
			c.keys = make(map[heldKey]packed.Key)
		}
		c.keys[heldKey{of, name}] = k
	}
	return k
}

func (m *maker) kinds(rows []Held, status bool) {
	m.out.Ints = make([]int64, len(rows))
	for i, h := range rows {
		kind, code := h.of.view.Kind(h.place())
		if m.out.Ints[i] = int64(kind); status {
			m.out.Ints[i] = int64(code)
		}
	}
}

// resources puts the values of a key of resources, of which neighbours mostly have the same.
func (m *maker) resources(rows []Held, key storage.SpanKey) {
	type value struct {
		code uint32
		ok   bool
	}
	known := make(map[*telemetry.Resource]value)
	var last *telemetry.Resource
	var v value
	for i, h := range rows {
		if res := h.Resource(); i == 0 || res != last {
			var ok bool
			if v, ok = known[res]; !ok {
				if res != nil {
					var x telemetry.Value
					if x, v.ok = res.Attrs.Get(key.Name); v.ok {
						v.code = m.code(x)
					}
				}
				known[res] = v
			}
			last = res
		}
		if v.ok {
			m.put(i, v.code)
		}
	}
}

// others unpacks the spans.
func (m *maker) others(rows []Held, key storage.SpanKey) {
	var s telemetry.Span
	var as telemetry.Attrs
	for i, h := range rows {
		as = h.Span(&s, as[:0])
		key.Each(h.Resource(), &s, func(v telemetry.Value) { m.put(i, m.code(v)) })
	}
}
