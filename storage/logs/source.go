package logs

import (
	"context"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs/lines"
)

// Source is something that holds log records: a snapshot of a head or a part.
type Source interface {
	// Bounds returns the smallest and largest time held.
	Bounds() (lo, hi int64)
	// Scan calls emit with blocks of the rows that s selects, in no order. A block may be kept by emit, which may narrow
	// s.Start and s.End.
	Scan(ctx context.Context, s *Scan, emit func(Rows) error) error
	// Streams calls f for each stream with rows in the time range of s.
	Streams(ctx context.Context, s *Scan, f func(telemetry.LabelSet)) error
}

// Scan is what is read of a source.
type Scan struct {
	storage.LogQuery
	// Masks are the deletes of the tenant.
	Masks []Mask
	// Cost, when not nil, counts what is read.
	Cost *storage.ReadStats

	// Decoder opens blocks of lines.
	Decoder *lines.Decoder

	numbers []int // 0, 1, 2 ...
	needles map[needleOf]*lines.Needle
}

// needleOf is a text that is looked for in the lines of a segment.
type needleOf struct {
	g    *segment
	text string
}

// needle returns what is known about a text and the templates of a segment, which are loaded.
func (s *Scan) needle(g *segment, text string) *lines.Needle {
	k := needleOf{g, text}
	n := s.needles[k]
	if n == nil {
		if s.needles == nil {
			s.needles = make(map[needleOf]*lines.Needle)
		}
		n = lines.NewNeedle(text, *g.templates.Load())
		s.needles[k] = n
	}
	return n
}

// upTo returns the numbers below n, which must not be changed.
func (s *Scan) upTo(n int) []int {
	for i := len(s.numbers); i < n; i++ {
		s.numbers = append(s.numbers, i)
	}
	return s.numbers[:n]
}

func (s *Scan) opened(blocks, rows, bytes int) {
	if s.Cost != nil {
		s.Cost.Blocks += int64(blocks)
		s.Cost.Rows += int64(rows)
		s.Cost.Bytes += int64(bytes)
	}
}

// needs returns the columns that deciding about a row takes.
func (s *Scan) needs() storage.LogColumns {
	need := storage.NeedsOfLogs(s.Where)
	for i := range s.Masks {
		need |= storage.NeedsOfLogs(s.Masks[i].Where)
	}
	return need
}

// Rows is a block of rows with the place of each in its source: of rows of a stream with the same time, the one that
// arrived first has the smaller place.
type Rows struct {
	*storage.LogBlock
	place func(row int) int64
}

// Mask is a delete as scans apply it: rows in the time range that match are invisible.
type Mask struct {
	Position   storage.Position // what came before it is covered
	Start, End int64
	Where      storage.Predicate
}

// NewMask turns a delete into the form of scans.
func NewMask(m *storage.Mask, at storage.Position) Mask {
	var w storage.And
	if len(m.Matchers) > 0 {
		w = append(w, storage.StreamMatch(m.Matchers))
	}
	if m.Contains != "" {
		w = append(w, storage.LineContains(m.Contains))
	}
	if len(m.Traces) > 0 {
		w = append(w, storage.TraceIn(m.Traces))
	}
	return Mask{Position: at, Start: m.Start, End: m.End, Where: w}
}

// streamsOf narrows the streams by what p demands of all rows; nil means all.
func streamsOf(p storage.Predicate, streams []telemetry.LabelSet) []bool {
	switch p := p.(type) {
	case storage.StreamMatch:
		ok := make([]bool, len(streams))
		for i, s := range streams {
			ok[i] = storage.MatchLabels(s, p)
		}
		return ok
	case storage.And:
		var all []bool
		for _, q := range p {
			ok := streamsOf(q, streams)
			if all == nil {
				all = ok
				continue
			}
			for i := range ok {
				all[i] = all[i] && ok[i]
			}
		}
		return all
	default:
		return nil
	}
}
