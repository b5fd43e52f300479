// Package traces keeps spans: in memory until they are flushed (Head), then in parts (Builder, Part). Spans are scanned as
// rows through a Source; package join reads whole traces, as columns.
//
// A part is a row of segments (package columns): what one flush brought, a trace after the other, each as a tree in
// pre-order. A merge copies large segments as they are and makes one of neighbouring small ones, in which the fragments of a
// trace become one. The fragments that are left are joined when traces are read.
package traces

import (
	"context"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Source is something that holds spans: a snapshot of a head or a part.
type Source interface {
	// Bounds returns the smallest and largest start held.
	Bounds() (lo, hi int64)
	// Scan calls emit with blocks of the rows that s selects, in no order. Emit may keep a block, and may narrow s.Start and
	// s.End.
	Scan(ctx context.Context, s *Scan, emit func(Rows) error) error
}

// Scan is what is read of a source.
type Scan struct {
	storage.SpanQuery
	// Masks are the deletes of the tenant.
	Masks []Mask
	// Cost, when not nil, counts what is read.
	Cost *storage.ReadStats

	late bool // blocks may come without columns, see Rows.load
}

func (s *Scan) opened(blocks, rows, bytes int64) { count(s.Cost, blocks, rows, bytes) }

func count(c *storage.ReadStats, blocks, rows, bytes int64) {
	if c != nil {
		c.Blocks += blocks
		c.Rows += rows
		c.Bytes += bytes
	}
}

// Rows is a block of rows with the place of each in its source: of rows that are equal in the order of rows, the one that
// arrived first has the smaller place.
type Rows struct {
	*storage.SpanBlock
	place func(row int) int64
	// load, when not nil, reads the columns of some rows: the block has IDs and times only.
	load func(rows []int) (*storage.SpanBlock, error)
}

// Mask is a delete as scans apply it: rows in the time range that match are invisible.
type Mask struct {
	Position   storage.Position // what came before it is covered
	Start, End int64
	traces     map[telemetry.TraceID]bool // nil for all
}

// NewMask turns a delete into the form of scans.
func NewMask(m *storage.Mask, at storage.Position) Mask {
	k := Mask{Position: at, Start: m.Start, End: m.End}
	if len(m.Traces) > 0 {
		k.traces = make(map[telemetry.TraceID]bool, len(m.Traces))
		for _, id := range m.Traces {
			k.traces[id] = !id.IsZero()
		}
	}
	return k
}

// covers says whether a span of the trace that starts at the time is invisible; it came before the mask.
func (k *Mask) covers(id telemetry.TraceID, start int64) bool {
	return start >= k.Start && start <= k.End && (k.traces == nil || k.traces[id])
}

// MayCover says whether a span of the trace can be invisible.
func (k *Mask) MayCover(id telemetry.TraceID) bool { return k.traces == nil || k.traces[id] }

// Covered says whether one of masks makes a span of the trace that starts at the time invisible; it came before them.
func Covered(masks []Mask, id telemetry.TraceID, start int64) bool {
	for i := range masks {
		if masks[i].covers(id, start) {
			return true
		}
	}
	return false
}

// since returns the masks that came after a position.
func since(masks []Mask, at storage.Position) []Mask {
	var some []Mask
	for i := range masks {
		if at < masks[i].Position {
			some = append(some, masks[i])
		}
	}
	return some
}
