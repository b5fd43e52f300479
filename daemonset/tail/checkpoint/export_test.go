package checkpoint

import (
	"encoding/binary"
	"hash/crc32"
)

// HeaderOf is the header of a file of some version.
func HeaderOf(version byte) []byte {
	b := appendHeader(nil)
	b[8] = version
	binary.LittleEndian.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli()))
	return b
}

// Frame is a record with any payload.
func Frame(payload []byte) []byte { return appendFrame(nil, payload) }
