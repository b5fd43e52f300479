package file

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/braidobs/braid/storage/wal"
)

// The format is described byte by byte in docs/format/wal.md.
const (
	formatVersion = 1

	segmentMagic      = "BRAIDWAL"
	segmentHeaderSize = 44

	magicPrefix      = "BRW"
	dataMagic        = magicPrefix + "d"
	markMagic        = magicPrefix + "m"
	recordHeaderSize = 40

	// maxPayload is the largest record of the format; what a log accepts is a setting below it.
	maxPayload = 256 << 20
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // the package keeps the table

func sum(seed uint32, b []byte) uint32 { return crc32.Update(seed, castagnoli(), b) }

// segmentHeader is the start of a segment file.
type segmentHeader struct {
	shard   uint32
	base    wal.Position // of the first record in this file
	prevEnd wal.Position // end of the log when this segment was begun: [prevEnd, base) was skipped on purpose
	created int64        // Unix milliseconds
}

func appendSegmentHeader(dst []byte, h segmentHeader) []byte {
	start := len(dst)
	dst = append(dst, segmentMagic...)
	dst = append(dst, formatVersion, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, h.shard)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.base))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.prevEnd))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.created))
	return binary.LittleEndian.AppendUint32(dst, sum(0, dst[start:]))
}

// errNewer says that a header is whole and of a version after ours.
var errNewer = errors.New("written by a newer version of braid")

func parseSegmentHeader(b []byte) (segmentHeader, error) {
	if len(b) < segmentHeaderSize {
		return segmentHeader{}, fmt.Errorf("segment header has %d of %d bytes", len(b), segmentHeaderSize)
	}
	b = b[:segmentHeaderSize]
	if string(b[:8]) != segmentMagic {
		return segmentHeader{}, errors.New("segment header has no magic number")
	}
	if sum(0, b[:40]) != binary.LittleEndian.Uint32(b[40:]) {
		return segmentHeader{}, errors.New("segment header has a wrong checksum")
	}
	if b[8] != formatVersion {
		return segmentHeader{}, fmt.Errorf("segment has format version %d, this is %d: %w", b[8], formatVersion, errNewer)
	}
	h := segmentHeader{
		shard:   binary.LittleEndian.Uint32(b[12:]),
		base:    wal.Position(binary.LittleEndian.Uint64(b[16:])),
		prevEnd: wal.Position(binary.LittleEndian.Uint64(b[24:])),
		created: int64(binary.LittleEndian.Uint64(b[32:])),
	}
	if h.prevEnd > h.base {
		return segmentHeader{}, fmt.Errorf("segment header has base %d below the previous end %d", h.base, h.prevEnd)
	}
	return h, nil
}

// recordHeader is the start of a record. A mark is a record without payload and without a position of its own
// (pos is that of the next record): it only carries syncedTo.
type recordHeader struct {
	mark       bool
	length     uint32
	pos        wal.Position
	at         int64        // Unix milliseconds
	syncedTo   wal.Position // all positions below it were durable when this was written
	payloadSum uint32
}

// recordSeed starts the checksums of the records of one segment, so that bytes of another one are never valid.
func recordSeed(shard uint32, base wal.Position) uint32 {
	var b [12]byte
	binary.LittleEndian.PutUint32(b[:], shard)
	binary.LittleEndian.PutUint64(b[4:], uint64(base))
	return sum(0, b[:])
}

func payloadSum(seed uint32, pos wal.Position, payload []byte) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(pos))
	return sum(sum(seed, b[:]), payload)
}

func appendRecord(dst []byte, seed uint32, h recordHeader, payload []byte) []byte {
	start := len(dst)
	if h.mark {
		dst = append(dst, markMagic...)
	} else {
		dst = append(dst, dataMagic...)
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.pos))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.at))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.syncedTo))
	dst = binary.LittleEndian.AppendUint32(dst, payloadSum(seed, h.pos, payload))
	dst = binary.LittleEndian.AppendUint32(dst, sum(seed, dst[start:]))
	return append(dst, payload...)
}

func parseRecordHeader(b []byte, seed uint32) (recordHeader, error) {
	if len(b) < recordHeaderSize {
		return recordHeader{}, fmt.Errorf("record header has %d of %d bytes", len(b), recordHeaderSize)
	}
	b = b[:recordHeaderSize]
	var h recordHeader
	switch string(b[:4]) {
	case dataMagic:
	case markMagic:
		h.mark = true
	default:
		return recordHeader{}, errors.New("record header has no magic number")
	}
	if sum(seed, b[:36]) != binary.LittleEndian.Uint32(b[36:]) {
		return recordHeader{}, errors.New("record header has a wrong checksum")
	}
	h.length = binary.LittleEndian.Uint32(b[4:])
	h.pos = wal.Position(binary.LittleEndian.Uint64(b[8:]))
	h.at = int64(binary.LittleEndian.Uint64(b[16:]))
	h.syncedTo = wal.Position(binary.LittleEndian.Uint64(b[24:]))
	h.payloadSum = binary.LittleEndian.Uint32(b[32:])
	switch {
	case h.length > maxPayload || h.mark && h.length > 0:
		return recordHeader{}, fmt.Errorf("record header has an impossible length %d", h.length)
	case h.syncedTo > h.pos:
		return recordHeader{}, fmt.Errorf("record header of position %d says that %d is durable", h.pos, h.syncedTo)
	}
	return h, nil
}
