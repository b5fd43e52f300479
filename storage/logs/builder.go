package logs

import (
	"context"
	"math"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs/lines"
	"github.com/braidobs/braid/storage/part"
)

// Builder makes one part, of one tenant and one day: either of the records of a head (Add) or of other parts (AddPart).
type Builder struct {
	ctx     context.Context //nolint:containedctx // of the merge that the builder is for
	layout  Layout
	dec     *lines.Decoder
	streams map[telemetry.LabelSet]*streamRows
	inputs  []input
	rows    int64
	bytes   int64
	lo, hi  int64
}

// input is a part that is merged.
type input struct {
	p     *Part
	masks []Mask
}

// NewBuilder returns an empty builder; dec reads the parts that are merged. Write ends with the error of ctx when that is cancelled.
func NewBuilder(ctx context.Context, l Layout, dec *lines.Decoder) *Builder {
	return &Builder{ctx: ctx, layout: l, dec: dec, streams: make(map[telemetry.LabelSet]*streamRows), lo: math.MaxInt64, hi: math.MinInt64}
}

// Add adds one record, which it keeps. Records of a stream with the same time stay in the order of Add.
func (b *Builder) Add(stream telemetry.LabelSet, res *telemetry.Resource, r *telemetry.LogRecord) {
	s := b.streams[stream]
	if s == nil {
		s = &streamRows{stream: stream}
		b.streams[stream] = s
	}
	s.rows = append(s.rows, headRow{res: res, rec: r})
	b.count(r)
}

func (b *Builder) count(r *telemetry.LogRecord) {
	b.rows++
	b.bytes += int64(r.Size())
	b.lo, b.hi = min(b.lo, r.Time), max(b.hi, r.Time)
}

// AddPart adds everything of p that no mask covers. Parts come in the order of their arrival, and are read when the
// builder writes.
func (b *Builder) AddPart(p *Part, masks []Mask) error {
	b.inputs = append(b.inputs, input{p: p, masks: p.pending(masks)})
	return p.load()
}

// Empty says whether there is nothing worth a part; with parts to merge, that is known after Write.
func (b *Builder) Empty() bool { return b.rows == 0 }

// Rows returns the number of records, their size in memory, and the smallest and largest time; with parts to merge, they
// are known after Write.
func (b *Builder) Rows() (rows, bytes, lo, hi int64) { return b.rows, b.bytes, b.lo, b.hi }

// Write writes the tables of docs/format/part.md, section logs. The builder is spent.
func (b *Builder) Write(w *part.Writer) error {
	sw := newSegmentWriter(w, b.layout)
	if err := b.flush(sw, b.streams); err != nil {
		return err
	}
	if err := b.merge(sw); err != nil {
		return err
	}
	return sw.close()
}

// flush writes rows as segments.
func (b *Builder) flush(sw *segmentWriter, streams map[telemetry.LabelSet]*streamRows) error {
	for i, s := range sortedStreams(streams) {
		if i%64 == 0 && b.ctx.Err() != nil {
			return b.ctx.Err()
		}
		for i := range s.rows {
			if err := sw.add(s.stream, s.rows[i].res, s.rows[i].rec); err != nil {
				return err
			}
			if sw.full() {
				if err := sw.end(); err != nil {
					return err
				}
			}
		}
	}
	return sw.end()
}

// merge copies full segments that no mask covers and gathers the rows of the others. Rows are only gathered from
// neighbours: so segments stay in the order of arrival.
func (b *Builder) merge(sw *segmentWriter) error {
	pool := make(map[telemetry.LabelSet]*streamRows)
	pooled := int64(0)
	spill := func() error {
		err := b.flush(sw, pool)
		clear(pool)
		pooled = 0
		return err
	}
	take := func(r Rows) error {
		recs := make([]telemetry.LogRecord, r.Len())
		for i := range recs {
			recs[i] = r.Record(i)
			b.count(&recs[i])
			name := r.StreamOf(i)
			s := pool[name]
			if s == nil {
				s = &streamRows{stream: name}
				pool[name] = s
			}
			s.rows = append(s.rows, headRow{res: r.ResourceOf(i), rec: &recs[i], place: r.place(i)})
			pooled += int64(recs[i].Size())
		}
		return nil
	}
	for _, in := range b.inputs {
		scan := Scan{LogQuery: storage.LogQuery{Start: math.MinInt64, End: math.MaxInt64, Columns: storage.LogAll}, Masks: in.masks, Decoder: b.dec}
		if in.p.legacy != nil {
			if err := in.p.legacy.Scan(b.ctx, &scan, take); err != nil {
				return err
			}
		}
		for i := range in.p.segments {
			g := &in.p.segments[i]
			if err := b.ctx.Err(); err != nil {
				return err
			}
			whole := len(in.masks) == 0 && (g.rows >= b.layout.FullRows || g.text >= b.layout.FullText)
			if whole || pooled >= 8*b.layout.FullText {
				if err := spill(); err != nil {
					return err
				}
			}
			if !whole {
				if err := in.p.scanSegment(b.ctx, g, &scan, take); err != nil {
					return err
				}
				continue
			}
			if err := sw.copy(in.p, g); err != nil {
				return err
			}
			lo, hi := in.p.span(g)
			b.rows += g.rows
			b.bytes += g.text + g.rows*rowSize
			b.lo, b.hi = min(b.lo, lo), max(b.hi, hi)
		}
	}
	return spill()
}

// rowSize is about what a record takes in memory beside its text.
const rowSize = 216
