package file

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/braidobs/braid/storage/vfs"
	"github.com/braidobs/braid/storage/wal"
)

const (
	segmentSuffix = ".wal"
	tmpSuffix     = segmentSuffix + ".tmp"
	lockName      = "LOCK"
)

func segmentName(base wal.Position) string {
	return fmt.Sprintf("%020d%s", uint64(base), segmentSuffix)
}

// parseSegmentName is strict: only names that segmentName makes.
func parseSegmentName(name string) (wal.Position, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	base, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || segmentName(wal.Position(base)) != name {
		return 0, false
	}
	return wal.Position(base), true
}

// segment is a segment file as the log knows it.
type segment struct {
	base       wal.Position // by its name
	path       string
	size       int64
	header     segmentHeader // zero when headerErr
	headerErr  error         // what is wrong with the header
	lastAppend int64         // Unix milliseconds, of the youngest record; valid when known
	known      bool
}

// limitOf returns the end of the positions that count in segs[i]: records from there on are superseded by a later
// segment. end is the end of the log.
func limitOf(segs []segment, i int, end wal.Position) wal.Position {
	if i+1 == len(segs) {
		return end
	}
	next := segs[i+1]
	if next.headerErr == nil && next.header.prevEnd >= segs[i].base {
		return next.header.prevEnd
	}
	return next.base
}

// closedAt returns a time (Unix milliseconds) not before the last append to segs[i].
func closedAt(segs []segment, i int) int64 {
	if segs[i].known {
		return segs[i].lastAppend
	}
	for _, s := range segs[i+1:] {
		if s.headerErr == nil {
			return s.header.created
		}
	}
	return int64(^uint64(0) >> 1)
}

// readSegment opens the segment named by base and reads its header. A damaged header is in the result; the error
// is for what the log must not go on with.
func readSegment(o Options, base wal.Position) (segment, error) {
	s := segment{base: base, path: filepath.Join(o.Dir, segmentName(base))}
	f, err := o.FS.Open(s.path)
	if err != nil {
		return s, fmt.Errorf("open segment: %w", err)
	}
	defer f.Close()
	if s.size, err = f.Size(); err != nil {
		return s, fmt.Errorf("size of segment %s: %w", s.path, err)
	}
	b := make([]byte, segmentHeaderSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		s.headerErr = err
		return s, nil
	}
	h, err := parseSegmentHeader(b[:n])
	switch {
	case errors.Is(err, errNewer):
		return s, fmt.Errorf("segment %s: %w; start the version that wrote it", s.path, err)
	case err != nil:
		s.headerErr = err
	case h.shard != o.Shard:
		return s, fmt.Errorf("segment %s belongs to shard %d, not %d: %s is the directory of another log; "+
			"correct the configuration", s.path, h.shard, o.Shard, o.Dir)
	case h.base != base:
		s.headerErr = fmt.Errorf("segment header has base %d: the file was renamed", h.base)
	default:
		s.header = h
	}
	return s, nil
}

// createSegment makes a segment with its header durable and returns it open. It appears under its name whole,
// replacing one that holds no record that counts.
func createSegment(o Options, h segmentHeader) (vfs.File, segment, error) {
	path := filepath.Join(o.Dir, segmentName(h.base))
	tmp := filepath.Join(o.Dir, strings.TrimSuffix(segmentName(h.base), segmentSuffix)+tmpSuffix)
	f, err := o.FS.Create(tmp)
	if err != nil {
		return nil, segment{}, fmt.Errorf("create segment: %w", err)
	}
	_, err = f.Write(appendSegmentHeader(nil, h))
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = o.FS.Rename(tmp, path)
	}
	if err == nil {
		err = o.FS.SyncDir(o.Dir)
	}
	if err != nil {
		_ = f.Close()
		_ = o.FS.Remove(tmp) // what is left is removed when the log is opened next
		return nil, segment{}, fmt.Errorf("create segment %s: %w", path, err)
	}
	return f, segment{base: h.base, path: path, size: segmentHeaderSize, header: h, known: true}, nil
}
