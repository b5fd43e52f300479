package columns

import (
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

// Info says what some rows span.
type Info struct {
	Rows, Traces int
	Start        int64 // smallest start of a row, which is that of the first trace
	LastStart    int64 // largest start of a row
	LastFirst    int64 // first start of the last trace
	Lo, Hi       int64 // all rows start and end between these
}

// Part is the segments of a part. It is safe for concurrent use.
type Part struct{ p *part.Part }

// Has says whether p has traces in the layout of this package.
func Has(p *part.Part) bool { return false }

// Open checks that p is what a Writer wrote, as far as the footer tells.
func Open(p *part.Part) (*Part, error) { return &Part{p: p}, nil }

// Len returns the number of segments.
func (p *Part) Len() int { return 0 }

// Info says what segment i spans, without reading it.
func (p *Part) Info(i int) Info { return Info{} }

// Segment reads the head of segment i. What it loads later on stays with it: see Size.
func (p *Part) Segment(i int) (*Segment, error) { return &Segment{}, nil }

// Segment is whole traces in the order of their first starts, then IDs. It is safe for concurrent use.
type Segment struct{}

// Size returns about how many bytes of memory the segment holds now.
func (s *Segment) Size() int64 { return 0 }

// Info says what the segment spans.
func (s *Segment) Info() Info { return Info{} }

// Blocks returns the number of blocks, MaxBlocks at most.
func (s *Segment) Blocks() int { return 0 }

// BlockInfo says what block i spans.
func (s *Segment) BlockInfo(i int) Info { return Info{} }

// Block returns block i. It reads nothing yet.
func (s *Segment) Block(i int) (*Block, error) { return &Block{}, nil }

// Prune returns the blocks that may hold a trace that has for each predicate a row that matches it, as bits.
func (s *Segment) Prune(need []storage.Predicate) (uint64, error) { return 0, nil }

// Where returns the blocks that may hold a row that matches p, as bits.
func (s *Segment) Where(p storage.Predicate) (uint64, error) { return 0, nil }

// Find returns the block that has a trace, and the trace's number in it; -1 and -1 when there is none.
func (s *Segment) Find(id telemetry.TraceID) (block, trace int, err error) { return -1, -1, nil }

// TraceIDs returns the IDs of all traces, sorted. They are read from the file each time.
func (s *Segment) TraceIDs() ([]telemetry.TraceID, error) { return nil, nil }

// Keys returns the keys of attributes that rows of the segment have.
func (s *Segment) Keys() ([]storage.SpanKey, error) { return nil, nil }

// Values calls f with each distinct value that a key has in the segment until f returns false.
func (s *Segment) Values(key storage.SpanKey, f func(telemetry.Value) bool) error { return nil }

// Resources returns the resources of the rows; one may be nil. They must not be changed.
func (s *Segment) Resources() ([]*telemetry.Resource, error) { return nil, nil }

// Scopes returns the scopes of the rows; one may be nil. They must not be changed.
func (s *Segment) Scopes() ([]*telemetry.Scope, error) { return nil, nil }

// Block is whole traces of a segment, as storage.TraceBlock says; only Rest is for the caller to add. Nothing that it returns is used
// again. It is for one goroutine at a time.
type Block struct{}

// Bytes returns how many bytes of the file were read so far.
func (b *Block) Bytes() int64 { return 0 }

// Len implements storage.TraceBlock.
func (b *Block) Len() int { return 0 }

// Bounds implements storage.TraceBlock.
func (b *Block) Bounds() (lo, hi int64) { return 0, 0 }

// First implements storage.TraceBlock.
func (b *Block) First() ([]int32, error) { return nil, nil }

// Traces implements storage.TraceBlock.
func (b *Block) Traces() ([]telemetry.TraceID, error) { return nil, nil }

// Starts implements storage.TraceBlock.
func (b *Block) Starts() ([]int64, error) { return nil, nil }

// Durations implements storage.TraceBlock.
func (b *Block) Durations() ([]int64, error) { return nil, nil }

// Parents implements storage.TraceBlock.
func (b *Block) Parents() ([]int32, error) { return nil, nil }

// Column implements storage.TraceBlock.
func (b *Block) Column(key storage.SpanKey) (*storage.SpanColumn, error) { return nil, nil }

// Spans implements storage.TraceBlock.
func (b *Block) Spans(rows []int, cols storage.SpanColumns) (*storage.SpanBlock, error) {
	return nil, nil
}
