package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/braidobs/braid/storage/wal"
)

// damage is a stretch of a segment that is not a sequence of valid records.
type damage struct {
	off      int64
	from, to wal.Position // the positions that are missing; in a tail to is not known and equals from
	tail     bool         // no valid record follows
	err      error
}

// scanner walks the records of one segment. It never allocates more than a window or the longest record that the
// file can hold.
type scanner struct {
	window
	base, limit wal.Position // the scan ends before limit
	from        wal.Position // payloads of records below it are neither checked nor given to record
	seed        uint32
	// readErrors makes what the disk cannot read a damage; otherwise it ends the scan with the error.
	readErrors bool

	record func(h recordHeader, payload []byte) error
	header func(h recordHeader) // every valid header: records, damaged ones, marks
	damage func(d damage)

	next wal.Position // position that would come next
	end  int64        // offset after the last valid record
}

// run scans from the first record on.
func (s *scanner) run(ctx context.Context) error {
	off := int64(segmentHeaderSize)
	s.next, s.end = s.base, off
	for off < s.size && s.next < s.limit {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, why, err := s.one(off)
		if err != nil {
			return err
		}
		if why == nil {
			off += n
			s.end = off
			continue
		}
		at, pos, err := s.resync(ctx, off+n)
		if err != nil {
			return err
		}
		d := damage{off: off, from: s.next, to: pos, err: why}
		if at < 0 {
			d.to, d.tail = d.from, true
		}
		s.damage(d)
		if at < 0 {
			return nil
		}
		off, s.next = at, pos
	}
	return nil
}

// one deals with the record at off and returns its length. When there is no valid header it says why, and n is
// from where on it makes sense to look for one. A valid header with a bad payload is reported here.
func (s *scanner) one(off int64) (n int64, why, err error) {
	h, why, err := s.headerAt(off)
	switch {
	case err != nil:
		return 0, nil, err
	case why != nil:
		return 1, why, nil
	case h.pos < s.next:
		return 1, fmt.Errorf("record at position %d where %d is due", h.pos, s.next), nil
	case h.pos > s.next:
		return 0, fmt.Errorf("record at position %d where %d is due", h.pos, s.next), nil
	case s.rest(off) < int64(h.length):
		return 1, fmt.Errorf("file ends inside a record of %d bytes", h.length), nil
	}
	s.header(h)
	n = recordHeaderSize + int64(h.length)
	if h.mark {
		return n, nil, nil
	}
	if h.pos >= s.from {
		payload, err := s.at(off+recordHeaderSize, int(h.length))
		if err != nil && !s.readErrors {
			return 0, nil, err
		}
		if err == nil && payloadSum(s.seed, h.pos, payload) != h.payloadSum {
			err = errors.New("record has a wrong checksum")
		}
		if err != nil {
			s.damage(damage{off: off, from: h.pos, to: h.pos + 1, err: err})
		} else if err := s.record(h, payload); err != nil {
			return 0, nil, err
		}
	}
	s.next++
	return n, nil, nil
}

// rest is the number of bytes that can follow the record header at off.
func (s *scanner) rest(off int64) int64 { return s.size - off - recordHeaderSize }

// headerAt parses the record header at off: why says that there is none, err that the disk failed.
func (s *scanner) headerAt(off int64) (h recordHeader, why, err error) {
	if s.rest(off) < 0 {
		return h, fmt.Errorf("record header has %d of %d bytes", s.size-off, recordHeaderSize), nil
	}
	b, err := s.at(off, recordHeaderSize)
	if err != nil {
		if s.readErrors {
			return h, err, nil
		}
		return h, nil, err
	}
	h, why = parseRecordHeader(b, s.seed)
	return h, why, nil
}

// resync finds the first valid header at or after off whose position is not below the next one. at < 0 says that
// there is none.
func (s *scanner) resync(ctx context.Context, off int64) (at int64, pos wal.Position, err error) {
	const block = 4096
	skip := int64(block)
	for s.rest(off) >= 0 {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		b, err := s.peek(off, recordHeaderSize)
		if err != nil {
			if !s.readErrors {
				return 0, 0, err
			}
			// Step over the bad blocks, ever faster: each attempt on a dying disk can take seconds.
			off = (off/block)*block + skip
			skip *= 2
			continue
		}
		i := bytes.Index(b, []byte(magicPrefix))
		if i < 0 {
			off += int64(max(1, len(b)-len(magicPrefix)+1))
			continue
		}
		off += int64(i)
		h, why, err := s.headerAt(off)
		if err != nil {
			return 0, 0, err
		}
		if why == nil && h.pos >= s.next && s.rest(off) >= int64(h.length) {
			return off, h.pos, nil
		}
		off++
	}
	return -1, 0, nil
}
