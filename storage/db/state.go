package db

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// The snapshot of the state that is folded from all records: magic, version, CRC32C of the rest, then the masks,
// the delta accumulators, the directories and, since version 2, the marks of sources and the keyed state. See
// docs/format/state.md.
const (
	stateMagic   = "BRDSTATE"
	stateVersion = 2
)

var errState = errors.New("snapshot is corrupt")

// appendState needs mu.
func (d *DB) appendState(dst []byte) []byte {
	dst = telemetry.AppendUvarint(dst, uint64(len(d.masks)))
	for i := range d.masks {
		dst = telemetry.AppendUvarint(dst, uint64(d.masks[i].at))
		dst = appendMask(dst, &d.masks[i].Mask)
	}
	dst = d.committed.AppendTo(dst)
	tenants := make([]telemetry.Tenant, 0, len(d.dirs))
	for t := range d.dirs {
		tenants = append(tenants, t)
	}
	slices.Sort(tenants)
	dst = telemetry.AppendUvarint(dst, uint64(len(tenants)))
	for _, t := range tenants {
		dst = telemetry.AppendString(dst, string(t))
		dst = d.dirs[t].AppendTo(dst)
	}
	dst = d.sources.appendTo(dst)
	dst = d.state.appendTo(dst)
	head := append([]byte(stateMagic), stateVersion)
	sum := crc32.Checksum(dst, crc32.MakeTable(crc32.Castagnoli))
	head = append(head, byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
	return append(head, dst...)
}

// loadState reads what appendState wrote. It needs mu, or to be alone.
func (d *DB) loadState(name string, b []byte) error {
	n := len(stateMagic) + 5
	if len(b) < n || !strings.HasPrefix(string(b[:n]), stateMagic) || b[len(stateMagic)] < 1 || b[len(stateMagic)] > stateVersion {
		return fmt.Errorf("%w: %s at offset 0: no snapshot of version 1 to %d starts like this", errState, name, stateVersion)
	}
	sum := uint32(b[n-4]) | uint32(b[n-3])<<8 | uint32(b[n-2])<<16 | uint32(b[n-1])<<24
	if sum != crc32.Checksum(b[n:], crc32.MakeTable(crc32.Castagnoli)) {
		return fmt.Errorf("%w: %s at offset %d: the checksum does not match", errState, name, n-4)
	}
	in := telemetry.NewDecoderBytes(b[n:])
	for range in.Count(8) {
		m := mask{at: storage.Position(in.Uvarint())}
		m.Mask = *readMask(in)
		if in.Err() != nil {
			break
		}
		d.masks = append(d.masks, m)
	}
	err := d.committed.Load(in)
	for range in.Count(2) {
		t := telemetry.Tenant(in.Str())
		if err != nil || in.Err() != nil {
			break
		}
		err = d.dir(t).Load(in)
	}
	if err == nil && in.Err() == nil && b[len(stateMagic)] >= 2 {
		d.sources.load(in)
		d.state.load(in)
	}
	if err == nil {
		err = in.Err()
	}
	if err != nil {
		return fmt.Errorf("%w: %s at offset %d: %w", errState, name, n+in.Offset(), err)
	}
	return nil
}
