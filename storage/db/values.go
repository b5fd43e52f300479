package db

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/wal"
)

// valueOverhead is what an entry is accounted with beside its bytes.
const valueOverhead = 64

// setting is what a record says about keyed state: an empty value removes the key.
type setting struct {
	key   string
	value []byte
}

// values is the keyed state, folded from the log.
type values struct {
	known map[string][]byte
	size  int
}

func newValues() values { return values{known: make(map[string][]byte)} }

func (v *values) sizeWith(s setting) int {
	n := v.size
	if old, ok := v.known[s.key]; ok {
		n -= len(s.key) + len(old) + valueOverhead
	}
	if len(s.value) > 0 {
		n += len(s.key) + len(s.value) + valueOverhead
	}
	return n
}

func (v *values) set(s setting) {
	v.size = v.sizeWith(s)
	if len(s.value) == 0 {
		delete(v.known, s.key)
		return
	}
	v.known[s.key] = s.value
}

func (v *values) appendTo(dst []byte) []byte {
	dst = telemetry.AppendUvarint(dst, uint64(len(v.known)))
	for _, k := range slices.Sorted(maps.Keys(v.known)) {
		dst = appendSetting(dst, setting{k, v.known[k]})
	}
	return dst
}

func (v *values) load(d *telemetry.Decoder) {
	for range d.Count(2) {
		s := readSetting(d)
		if d.Err() != nil {
			return
		}
		v.set(s)
	}
}

func appendSetting(dst []byte, s setting) []byte {
	dst = telemetry.AppendString(dst, s.key)
	return telemetry.AppendString(dst, string(s.value))
}

func readSetting(d *telemetry.Decoder) setting {
	s := setting{key: d.Str(), value: []byte(d.Str())}
	if len(s.key) > storage.MaxStateKey || len(s.value) > storage.MaxStateValue {
		d.Fail("a key of %d bytes with a value of %d bytes", len(s.key), len(s.value))
	}
	return s
}

// Set implements storage.State.
func (d *DB) Set(ctx context.Context, key string, value []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.closed.Load() {
		return storage.ErrClosed
	}
	if key == "" || len(key) > storage.MaxStateKey {
		return fmt.Errorf("a key of state must have 1 to %d bytes, not %d", storage.MaxStateKey, len(key))
	}
	if len(value) > storage.MaxStateValue {
		return fmt.Errorf("the state of %q has %d bytes, at most %d are allowed", key, len(value), storage.MaxStateValue)
	}
	s := setting{key, slices.Clone(value)}
	d.mu.Lock()
	size, before := d.state.sizeWith(s), d.state.size
	d.mu.Unlock()
	if size > int(d.cfg.MaxState) && size > before {
		d.m.stateFull.Inc()
		return fmt.Errorf("%w: %d bytes", storage.ErrStateFull, size)
	}
	out := make(chan error, 1)
	d.wal.Append(encodeSetting(s), func(p wal.Position, err error) {
		if err == nil {
			d.mu.Lock()
			d.state.set(s)
			d.advance(storage.Position(p) + 1)
			d.mu.Unlock()
		}
		out <- err
	})
	if err := <-out; err != nil {
		if errors.Is(err, wal.ErrClosed) {
			return storage.ErrClosed
		}
		return fmt.Errorf("set the state of %q: %w", key, d.refuse(err))
	}
	return nil
}

// Get implements storage.State.
func (d *DB) Get(key string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.known[key]
}

// Keys implements storage.State.
func (d *DB) Keys(prefix string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var keys []string
	for k := range d.state.known {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}
