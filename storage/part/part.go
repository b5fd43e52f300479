// Package part is the immutable file that the three signals share: named tables of typed columns, cut into
// blocks of rows, each column of a block encoded, compressed with zstd and guarded by a CRC32C. A footer holds
// the schema, where every block lies, and the smallest and largest value of each.
//
// The format is described in docs/format/part.md. Files are read with bounds before allocations: a hostile
// file costs an error that names file and offset, never memory.
package part

import (
	"errors"
	"fmt"
	"hash/crc32"
)

// Type is the type of a column. The numbers are on disk.
type Type uint8

// The types of columns.
const (
	Int64   Type = 1
	Float64 Type = 2
	Bytes   Type = 3 // strings of any length
	Fixed   Type = 4 // byte strings of Width bytes
	Blob    Type = 5 // each block is bytes in a format of the table's own; the only column of its table
	Packed  Type = 6 // integers in blocks of packed bits (package column): faster to read than Int64, never compressed
)

// Column describes one column of a table.
type Column struct {
	Name  string
	Type  Type
	Width int // of a Fixed column: 1 to 32
}

// Schema describes one table.
type Schema struct {
	Name    string
	Columns []Column
}

// Vector is the values of one column in one block: the slice of its type is set, the others are nil.
type Vector struct {
	Ints   []int64 // of Int64 and Packed
	Floats []float64
	Strs   []string // may share memory with the block they were read from
	Fixed  []byte   // rows times width
}

const (
	// Version is the version of the format that this package writes.
	Version = 1
	// MaxBlockRows bounds the rows of a block.
	MaxBlockRows = 1 << 16
	// MaxBlockBytes bounds the decoded bytes of one column of one block.
	MaxBlockBytes = 128 << 20
	// MaxFooterBytes bounds the footer.
	MaxFooterBytes = 64 << 20

	headerMagic  = "BRDPART\x00"
	trailerMagic = "BRDPEND\x00"
	headerSize   = 16
	trailerSize  = 20
)

// ErrCorrupt is wrapped by every error about the content of a file.
var ErrCorrupt = errors.New("part is corrupt")

// CorruptError tells what is wrong with a file and where.
type CorruptError struct {
	File   string
	Offset int64
	What   string
}

// Error names the file, the offset and what the operator can do.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("part %s is corrupt at offset %d: %s; it is set aside and queries answer from the rest: restore the file from a replica or a backup, or delete it to accept the loss", e.File, e.Offset, e.What)
}

// Unwrap makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Unwrap() error { return ErrCorrupt }

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// blockMeta is where one column of one block lies and what it spans.
type blockMeta struct {
	offset   int64
	size     int // stored bytes
	raw      int // bytes before compression
	crc      uint32
	min, max string // order-preserving for Fixed; varint for Int64; empty without statistics
}

type tableMeta struct {
	schema Schema
	rows   []int // per block
	first  []int64
	total  int64
	blocks [][]blockMeta // by column, then block
}

// IsCorrupt says whether err is about the content of a file.
func IsCorrupt(err error) bool { return errors.Is(err, ErrCorrupt) }
