package db

import (
	"context"
	"log/slog"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	signalmetrics "github.com/braidobs/braid/storage/metrics"
)

// The formats alone, for golden files, fuzz targets and benchmarks.
var (
	EncodeRequest = encodeRequest
	EncodeMask    = encodeMask
	ErrRecord     = errRecord
	ErrManifest   = errManifest
	ErrState      = errState
	MaxRecordRaw  = maxRecordRaw
)

// DecodeRecord returns the request or the delete of a record.
func DecodeRecord(b []byte) (*storage.Request, *storage.Mask, error) {
	r, err := decodeRecord(b)
	return r.req, r.mask, err
}

// Manifest is any of the manifests.
type Manifest interface {
	flushManifest | changeManifest | checkpoint
}

// The manifests.
type (
	FlushManifest  = flushManifest
	ChangeManifest = changeManifest
	Checkpoint     = checkpoint
)

// DecodeManifest reads a manifest.
func DecodeManifest[M Manifest](name string, b []byte) (*M, error) {
	m := new(M)
	return m, decodeManifest(name, b, m)
}

// EncodeManifest writes a manifest.
func EncodeManifest[M Manifest](m *M) ([]byte, error) { return encodeManifest(m) }

// State is a store that has nothing but what a snapshot holds.
type State struct{ d *DB }

// NewState returns an empty one.
func NewState() *State {
	return &State{&DB{
		cfg: Config{MaxResources: 1 << 20}, log: slog.New(slog.DiscardHandler),
		committed: signalmetrics.NewDeltas(1 << 20), dirs: make(map[telemetry.Tenant]*telemetry.Directory),
	}}
}

// Load reads a snapshot.
func (s *State) Load(name string, b []byte) error { return s.d.loadState(name, b) }

// Encode writes a snapshot.
func (s *State) Encode() []byte { return s.d.appendState(nil) }

// Counts returns how many deletes, delta series and tenants it holds.
func (s *State) Counts() (masks, deltas, tenants int) {
	return len(s.d.masks), s.d.committed.Len(), len(s.d.dirs)
}

// Abandon releases memory and goroutines without flushing, as a crash would: tests reopen the same files.
func (d *DB) Abandon() error {
	if d.closed.Swap(true) {
		return nil
	}
	err := d.wal.Close()
	d.mu.Lock()
	d.closing = true
	old := d.current
	d.mu.Unlock()
	old.release(context.Background(), d)
	d.dec.Close()
	d.cache.Reset()
	return err
}
