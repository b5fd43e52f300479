package file

import (
	"context"
	"fmt"
	"time"

	"github.com/braidobs/braid/storage/wal"
)

// replay is one pass over the log.
type replay struct {
	ctx   context.Context //nolint:containedctx // lives as long as one call
	o     Options
	from  wal.Position
	fn    func(pos wal.Position, at time.Time, rec []byte) error
	holes []wal.Hole
	s     scanner // its buffer is used for all segments
}

// segment replays the records of seg below limit.
func (r *replay) segment(seg segment, limit wal.Position) error {
	if seg.headerErr != nil && limit >= r.from {
		r.hole(seg, 0, seg.base, seg.base, seg.headerErr)
	}
	first := max(seg.base, r.from)
	if first >= limit {
		return nil
	}
	f, err := r.o.FS.Open(seg.path)
	if err != nil {
		r.hole(seg, 0, first, limit, err)
		return r.ctx.Err()
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		r.hole(seg, 0, first, limit, err)
		return r.ctx.Err()
	}
	tail := false
	r.s.base, r.s.limit, r.s.from = seg.base, limit, r.from
	r.s.seed = recordSeed(r.o.Shard, seg.base)
	r.s.readErrors = true
	r.s.record = func(h recordHeader, payload []byte) error {
		if err := r.fn(h.pos, time.UnixMilli(h.at).UTC(), payload); err != nil {
			return fmt.Errorf("replay position %d: %w", h.pos, err)
		}
		return nil
	}
	r.s.header = func(recordHeader) {}
	r.s.damage = func(d damage) {
		to := min(d.to, limit)
		if d.tail {
			to, tail = limit, true
		}
		if to > r.from || to == d.from && d.from >= r.from {
			r.hole(seg, d.off, max(d.from, r.from), to, d.err)
		}
	}
	r.s.reset(f, size)
	if err := r.s.run(r.ctx); err != nil {
		return err
	}
	if !tail && r.s.next < limit {
		r.hole(seg, r.s.end, max(r.s.next, r.from), limit, fmt.Errorf("file ends after %d bytes", size))
	}
	return nil
}

func (r *replay) hole(seg segment, off int64, from, to wal.Position, err error) {
	r.holes = append(r.holes, wal.Hole{
		File: seg.path, Offset: off, From: from, To: to,
		Err: fmt.Errorf("%w: restore the file from a copy while the server is stopped, or accept the loss; "+
			"the records after it are not affected", err),
	})
}
