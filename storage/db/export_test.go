package db

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	signalmetrics "github.com/braidobs/braid/storage/metrics"
)

// The formats alone, for golden files, fuzz targets and benchmarks.
var (
	EncodeMask   = encodeMask
	ErrRecord    = errRecord
	ErrManifest  = errManifest
	ErrState     = errState
	MaxRecordRaw = maxRecordRaw
)

// EncodeRequest writes a request that tells its series by their labels.
func EncodeRequest(req *storage.Request) []byte { return new(packing).encode(req, nil, nil) }

// Encode returns what EncodeRequest does, in memory that is used again.
func Encode() func(req *storage.Request) []byte {
	var p packing
	return func(req *storage.Request) []byte { return p.encode(req, nil, nil) }
}

// EncodeNumbered writes a request that tells its series by numbers, as the first of an era.
func EncodeNumbered(req *storage.Request) []byte {
	a := signalmetrics.NewActive(signalmetrics.Limits{PerTenant: 1 << 20, PerMetric: 1 << 20})
	return new(packing).encode(req, a.Recall(req.Batches), &numbers{era: 1})
}

// EncodeSetting writes a record of keyed state.
func EncodeSetting(key string, value []byte) []byte { return encodeSetting(setting{key, value}) }

// DecodeSetting returns the keyed state of a record.
func DecodeSetting(b []byte) (key string, value []byte, err error) {
	r, err := decodeRecord(b, &numbering{})
	if err != nil || r.setting == nil {
		return "", nil, err
	}
	return r.setting.key, r.setting.value, nil
}

// DecodeMarks returns the sources of a record: tenant, stream, file, position.
func DecodeMarks(b []byte) (marks []string, err error) {
	r, err := decodeRecord(b, &numbering{})
	for _, m := range r.marks {
		marks = append(marks, fmt.Sprintf("%s %s %s %d", m.tenant, m.stream, m.file, m.to))
	}
	return marks, err
}

// DecodeRecord returns the request or the delete of a record.
func DecodeRecord(b []byte) (*storage.Request, *storage.Mask, error) {
	r, err := decodeRecord(b, &numbering{})
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
		sources: newSources(1 << 20), state: newValues(),
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

// Sources returns how many streams of sources it knows, Values how many keys.
func (s *State) Sources() int { return s.d.sources.len() }

// Values returns how many keys have state.
func (s *State) Values() int { return len(s.d.state.known) }

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
