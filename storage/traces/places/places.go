// Package places tells where the spans of traces lie: in which blocks, and which traces lie in several.
package places

import (
	"cmp"
	"hash/maphash"
	"math/bits"

	"github.com/braidobs/braid/internal/telemetry"
)

// Place is where spans of a trace lie: trace number Trace in a block of a unit, whatever a unit is to the caller.
type Place struct{ Unit, Block, Trace int32 }

// Compare orders places by unit, block, and trace.
func Compare(a, b Place) int {
	return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Block, b.Block), cmp.Compare(a.Trace, b.Trace))
}

// Table tells where each of many traces lies, 28 bytes a trace and up to half of its slots free. It is for one goroutine until
// nothing is added any more.
type Table struct {
	// More has the traces in several places.
	More map[telemetry.TraceID][]Place

	seed  maphash.Seed
	slots []slot // a power of two; unit -1 is free
	n     int
}

type slot struct {
	id telemetry.TraceID
	Place
}

// New returns an empty table for about so many traces.
func New(traces int) *Table {
	size := 1 << bits.Len(uint(traces+traces/2+8))
	t := &Table{seed: maphash.MakeSeed(), slots: make([]slot, size), More: make(map[telemetry.TraceID][]Place)}
	for i := range t.slots {
		t.slots[i].Unit = -1
	}
	return t
}

func (t *Table) slot(id *telemetry.TraceID) *slot {
	mask := uint64(len(t.slots) - 1)
	for h := maphash.Bytes(t.seed, id[:]); ; h++ {
		if s := &t.slots[h&mask]; s.Unit < 0 || s.id == *id {
			return s
		}
	}
}

// Add notes a place of a trace.
func (t *Table) Add(id *telemetry.TraceID, p Place) {
	s := t.slot(id)
	if s.Unit >= 0 {
		t.also(id, s, p)
		return
	}
	if t.n >= len(t.slots)*3/4 { // more than were announced
		old := t.slots
		t.slots = make([]slot, 2*len(old))
		for i := range t.slots {
			t.slots[i].Unit = -1
		}
		for i := range old {
			if old[i].Unit >= 0 {
				*t.slot(&old[i].id) = old[i]
			}
		}
		s = t.slot(id)
	}
	s.id, s.Place = *id, p
	t.n++
}

// also notes one more place of a trace.
func (t *Table) also(id *telemetry.TraceID, s *slot, p Place) {
	ps := t.More[*id]
	if ps == nil {
		ps = append(ps, s.Place)
	}
	t.More[*id] = append(ps, p)
}

// Probe notes a place of a trace that is in the table, and of no other.
func (t *Table) Probe(id *telemetry.TraceID, p Place) {
	if s := t.slot(id); s.Unit >= 0 {
		t.also(id, s, p)
	}
}

// Find returns the places of a trace.
func (t *Table) Find(id *telemetry.TraceID) []Place {
	s := t.slot(id)
	if s.Unit < 0 {
		return nil
	}
	if ps := t.More[*id]; ps != nil {
		return ps
	}
	return []Place{s.Place}
}

// Size returns about how many bytes the table holds.
func (t *Table) Size() int64 { return int64(len(t.slots))*28 + int64(len(t.More))*200 }
