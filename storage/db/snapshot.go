package db

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/blob"
)

// linker is a blob.Store that can give an object of another store a second name instead of a copy; ok is false when it
// cannot.
type linker interface {
	Link(ctx context.Context, from blob.Store, name string) (ok bool, err error)
}

// Snapshot puts everything acknowledged before the call into an empty object store: opened with an empty log it is this
// store as it was. What is in memory is flushed for it. Objects are linked where the destination can do that, and
// copied otherwise; until the last of them is there, flushes and merges wait.
func (d *DB) Snapshot(ctx context.Context, to blob.Store) error {
	if d.closed.Load() {
		return storage.ErrClosed
	}
	d.flushMu.Lock()
	defer d.flushMu.Unlock()
	if err := d.flushAll(ctx); err != nil { // most of it, while writes go on
		return err
	}
	if d.holed() {
		return errors.New("snapshot: data is missing from this store, see the log: restore it first")
	}
	// One position for all: a chain that ends before another would be a hole.
	d.order.Lock()
	d.appending.Wait()
	d.mu.Lock()
	at, now := d.applied, d.deps.Now()
	for _, s := range signals() {
		if d.frozen[s] == nil && d.heads[s].from < at {
			d.turnHead(s, at, now)
		}
	}
	meta := d.chains[chainMeta]
	state := d.appendState(nil)
	d.mu.Unlock()
	d.order.Unlock()
	for _, s := range signals() {
		d.mu.Lock()
		frozen := d.frozen[s] != nil
		d.mu.Unlock()
		if !frozen {
			continue
		}
		if err := d.flush(ctx, s); err != nil {
			return err
		}
	}
	if err := d.copyTo(ctx, to); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if meta.to == at {
		return nil
	}
	name := fmt.Sprintf("meta/%020d.state", at)
	err := to.Put(ctx, name, func(w io.Writer) error { _, err := w.Write(state); return err })
	if err != nil {
		return fmt.Errorf("snapshot: write %s: %w", name, err)
	}
	b, err := encodeManifest(&flushManifest{Shard: shard, Chain: chainMeta.String(), From: meta.to, To: at, Snapshot: name, Time: now})
	if err != nil {
		return err
	}
	if err := to.PutIfAbsent(ctx, commitName(chainMeta, meta.to), b); err != nil {
		return fmt.Errorf("snapshot: commit: %w", err)
	}
	return nil
}

// copyTo copies the manifests, the live parts and what else there is. It needs flushMu.
func (d *DB) copyTo(ctx context.Context, to blob.Store) error {
	v := d.hold()
	defer v.release(ctx, d)
	live := make(map[string]bool)
	v.each(func(h *partHandle) { live[h.meta.Name] = true })
	link, _ := to.(linker)
	for info, err := range d.deps.Blobs.List(ctx, "") {
		if err != nil {
			return fmt.Errorf("list the objects: %w", err)
		}
		if strings.HasPrefix(info.Name, "parts/") && !live[info.Name] {
			continue
		}
		if link != nil {
			ok, err := link.Link(ctx, d.deps.Blobs, info.Name)
			if err != nil {
				return err
			}
			if ok {
				continue
			}
		}
		if err := copyBlob(ctx, d.deps.Blobs, to, info.Name); err != nil {
			return err
		}
	}
	return nil
}

func copyBlob(ctx context.Context, from, to blob.Store, name string) error {
	r, err := from.Open(ctx, name)
	if err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	defer r.Close()
	return to.Put(ctx, name, func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(r, 0, r.Size()))
		return err
	})
}
