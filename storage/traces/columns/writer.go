package columns

import (
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

// Layout says how large things are.
type Layout struct {
	// PageRows is how many rows a page has at most.
	PageRows int
	// SegmentRows is how many rows a segment has when it is full.
	SegmentRows int
	// FullRows: a segment of so many rows is copied by merges; smaller neighbours become one.
	FullRows int64
}

// DefaultLayout has pages that decode in some ten microseconds a column, and segments large enough that what is looked up once in each
// costs little.
func DefaultLayout() Layout {
	return Layout{PageRows: 8192, SegmentRows: 512 << 10, FullRows: 192 << 10}
}

// Writer writes segments, one after the other, into tables of a part. It is for one caller at a time. It holds one page and the
// dictionaries of the open segment in memory.
type Writer struct {
	w      *part.Writer
	layout Layout
}

// NewWriter begins the tables of traces in w.
func NewWriter(w *part.Writer, l Layout) *Writer { return &Writer{w: w, layout: l} }

// Add adds a trace to the open segment: its spans in the order of storage.Settler, with their parents. Traces come in the order of
// their first starts, then IDs. Strings of the spans are kept until the segment ends.
func (w *Writer) Add(rows []storage.SpanRow, parents []int32) error { return nil }

// AddFrom is Add for a trace of a block.
func (w *Writer) AddFrom(b *Block, trace int) error { return nil }

// Rows returns the number of rows of the open segment.
func (w *Writer) Rows() int { return 0 }

// Full says whether the open segment should end.
func (w *Writer) Full() bool { return false }

// End ends the open segment, if there is one.
func (w *Writer) End() error { return nil }

// Copy ends the open segment and writes another one as it is stored.
func (w *Writer) Copy(s *Segment) error { return nil }

// Close ends the open segment.
func (w *Writer) Close() error { return w.End() }
