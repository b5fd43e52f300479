package logs

import (
	"context"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs/lines"
	"github.com/braidobs/braid/storage/part"
)

// Source is something that holds log records: a snapshot of a head or a part.
type Source interface {
	// Bounds returns the smallest and largest time held.
	Bounds() (lo, hi int64)
	// Scan calls emit with blocks of the rows that s selects, in no order. Emit may narrow s.Start and s.End. It may keep
	// a block if s has an order; else the block is valid until emit returns.
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

	needles map[needleOf]*lines.Needle
	asked   *segment // whose index is x
	x       *lines.Index
	own     *memory // of an unordered scan
	late    bool    // blocks of parts may come without columns, see Rows.load
}

// needleOf is a text that is looked for in the lines of a part.
type needleOf struct {
	p    *Part
	text string
}

// needle returns what is known about a text and the templates of a segment, which are loaded. It is valid until the next
// call.
func (s *Scan) needle(p *Part, g *segment, text string) *lines.Needle {
	k := needleOf{p, text}
	n := s.needles[k]
	if n == nil {
		if s.needles == nil {
			s.needles = make(map[needleOf]*lines.Needle)
		}
		n = lines.NewNeedle(text, nil)
		s.needles[k] = n
	}
	return n.In(g.templates.Load())
}

// index returns the word index of a segment. It keeps what it reads until the index of another segment is asked for.
func (s *Scan) index(p *Part, g *segment) (*lines.Index, error) {
	if s.asked != g {
		x, err := p.indexOf(g)
		if err != nil {
			return nil, err
		}
		r := &indexReader{t: p.p.Table("index"), at: g.at[tabIndex], seen: make(map[int][]byte)}
		s.asked, s.x = g, x.Through(r)
	}
	return s.x, nil
}

// memory is what blocks are read into.
type memory struct {
	part.Scratch
	times, ints             []int64
	time                    []int64
	stream, resource, scope []uint32
	attrs                   []telemetry.Attrs
	keep                    lines.Set
	rows                    []int
	chosen                  []uint32
}

// memory returns what the next block is read into: without an order blocks follow each other in the same place.
func (s *Scan) memory() *memory {
	if s.Order != storage.Unordered {
		return &memory{}
	}
	if s.own == nil {
		s.own = &memory{}
	}
	return s.own
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
	// load, when not nil, reads the columns of some rows, ascending: the block has times and streams only.
	load func(rows []int) (*storage.LogBlock, error)
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
