package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The format is described byte by byte in docs/format/agent-checkpoint.md.
const (
	magic         = "BRAIDTCP"
	formatVersion = 1
	headerSize    = 16
	frameSize     = 8 // length and checksum in front of each record

	kindPut    = 1
	kindDelete = 2

	flagDone = 1

	// Limits of what is read back; the tailer stays far below them.
	maxRecord = 1 << 20
	maxID     = 512
	maxKey    = 16
	maxFiles  = 10_000
	minFile   = 16 + 16 + 7 // bytes of a file with every number below 128
)

var errNewer = errors.New("written by a newer version of braid-agent")

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // the package keeps the table

func appendHeader(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, formatVersion, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli()))
}

func parseHeader(b []byte) error {
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		return errors.New("no header")
	}
	if crc32.Checksum(b[:12], castagnoli()) != binary.LittleEndian.Uint32(b[12:]) {
		return errors.New("the header has a wrong checksum")
	}
	if b[8] != formatVersion {
		return fmt.Errorf("format version %d, this is %d: %w", b[8], formatVersion, errNewer)
	}
	return nil
}

// appendFrame appends a record: its length, the checksum of length and payload, the payload.
func appendFrame(dst, payload []byte) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	sum := crc32.Update(crc32.Checksum(dst[start:], castagnoli()), castagnoli(), payload)
	dst = binary.LittleEndian.AppendUint32(dst, sum)
	return append(dst, payload...)
}

// parseFrame returns the payload of the record at the start of b and what comes after it.
func parseFrame(b []byte) (payload, rest []byte, err error) {
	if len(b) < frameSize {
		return nil, nil, fmt.Errorf("%d of %d bytes of a record's frame", len(b), frameSize)
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxRecord || int(n) > len(b)-frameSize {
		return nil, nil, fmt.Errorf("a record of %d bytes where %d are left", n, len(b)-frameSize)
	}
	payload = b[frameSize : frameSize+n]
	if crc32.Update(crc32.Checksum(b[:4], castagnoli()), castagnoli(), payload) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, nil, errors.New("a record has a wrong checksum")
	}
	return payload, b[frameSize+n:], nil
}

func appendPut(dst []byte, s Stream) []byte {
	dst = append(dst, kindPut)
	dst = appendString(dst, s.ID)
	dst = binary.AppendUvarint(dst, uint64(len(s.Key)))
	for _, k := range s.Key {
		dst = appendString(dst, k)
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Files)))
	for _, f := range s.Files {
		dst = append(dst, f.Head[:]...)
		dst = append(dst, f.ID[:]...)
		var flags uint64
		if f.Done {
			flags |= flagDone
		}
		for _, n := range []uint64{flags, f.Dev, f.Ino, f.Generation, f.Resume, f.Acked, f.Size} {
			dst = binary.AppendUvarint(dst, n)
		}
	}
	return dst
}

func appendDelete(dst []byte, id string) []byte {
	return appendString(append(dst, kindDelete), id)
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// decode reads a record. A record of an unknown kind is an error: the version would be a newer one.
func decode(b []byte) (s Stream, deleted bool, err error) {
	r := reader{b: b}
	kind := r.byte()
	s.ID = r.string(maxID)
	switch kind {
	case kindDelete:
		deleted = true
	case kindPut:
		if n := r.count(maxKey, 1); n > 0 {
			s.Key = make([]string, n)
		}
		for i := range s.Key {
			s.Key[i] = r.string(maxRecord)
		}
		if n := r.count(maxFiles, minFile); n > 0 {
			s.Files = make([]File, n)
		}
		for i := range s.Files {
			f := &s.Files[i]
			copy(f.Head[:], r.bytes(len(f.Head)))
			copy(f.ID[:], r.bytes(len(f.ID)))
			flags := r.uvarint()
			if flags&^flagDone != 0 {
				r.bad = true
			}
			f.Done = flags&flagDone != 0
			for _, n := range []*uint64{&f.Dev, &f.Ino, &f.Generation, &f.Resume, &f.Acked, &f.Size} {
				*n = r.uvarint()
			}
		}
	default:
		r.bad = true
	}
	if r.bad || len(r.b) > 0 || s.ID == "" {
		return Stream{}, false, errors.New("a record cannot be read")
	}
	return s, deleted, nil
}

// reader takes values off the front of b; after the first that is not there, bad is set and all are zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads how many elements of at least size bytes follow.
func (r *reader) count(limit, size int) int {
	n := r.uvarint()
	if n > uint64(limit) || n > uint64(len(r.b)/size) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) string(limit int) string {
	return string(r.bytes(r.count(limit, 1)))
}
