// Package badger is the catalog on disk, in one Badger database per process. Its folder may be deleted while
// the process is down: the store then rebuilds it from the manifests.
package badger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"strings"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/braidobs/braid/storage/catalog"
)

// Catalog is a Badger database.
type Catalog struct {
	db  *badgerdb.DB
	log *slog.Logger
}

var _ catalog.Catalog = (*Catalog)(nil)

// Open opens or creates the database in dir. One that cannot be opened is set aside and begun anew, because
// everything in it can be rebuilt.
func Open(dir string, log *slog.Logger) (*Catalog, error) {
	db, err := badgerdb.Open(optionsFor(dir, log))
	if err == nil {
		return &Catalog{db: db, log: log}, nil
	}
	// Badger has no error of its own for a folder that another process has open.
	if _, statErr := os.Stat(dir); statErr != nil || strings.Contains(err.Error(), "directory lock") {
		return nil, fmt.Errorf("open catalog %s: %w", dir, err)
	}
	log.Warn("catalog cannot be opened and is rebuilt", "dir", dir, "err", err)
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("remove catalog %s: %w", dir, err)
	}
	if db, err = badgerdb.Open(optionsFor(dir, log)); err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", dir, err)
	}
	return &Catalog{db: db, log: log}, nil
}

// optionsFor keeps the database small: a catalog holds some megabytes, and Badger's defaults reserve hundreds.
func optionsFor(dir string, log *slog.Logger) badgerdb.Options {
	return badgerdb.DefaultOptions(dir).
		WithLogger(logger{log}).
		WithMemTableSize(4 << 20).
		WithNumMemtables(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(4).
		WithValueThreshold(64 << 10).
		WithValueLogFileSize(16 << 20).
		WithBaseTableSize(2 << 20).
		WithBlockCacheSize(1 << 20).
		WithIndexCacheSize(1 << 20).
		WithCompression(options.None).
		WithNumCompactors(2).
		WithDetectConflicts(false).
		WithMetricsEnabled(false)
}

// Get implements catalog.Catalog.
func (c *Catalog) Get(key string) ([]byte, error) {
	var v []byte
	err := c.db.View(func(tx *badgerdb.Txn) error {
		item, err := tx.Get([]byte(key))
		if err != nil {
			return err
		}
		v, err = item.ValueCopy(nil)
		return err
	})
	if errors.Is(err, badgerdb.ErrKeyNotFound) {
		return nil, catalog.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read %s from the catalog: %w", key, err)
	}
	return v, nil
}

// Set implements catalog.Catalog.
func (c *Catalog) Set(key string, value []byte) error {
	err := c.db.Update(func(tx *badgerdb.Txn) error { return tx.Set([]byte(key), value) })
	if err != nil {
		return fmt.Errorf("write %s to the catalog: %w", key, err)
	}
	return nil
}

// Delete implements catalog.Catalog.
func (c *Catalog) Delete(keys ...string) error {
	wb := c.db.NewWriteBatch()
	defer wb.Cancel()
	for _, k := range keys {
		if err := wb.Delete([]byte(k)); err != nil {
			return fmt.Errorf("delete %s from the catalog: %w", k, err)
		}
	}
	if err := wb.Flush(); err != nil {
		return fmt.Errorf("delete from the catalog: %w", err)
	}
	return nil
}

// Scan implements catalog.Catalog.
func (c *Catalog) Scan(prefix string) iter.Seq2[catalog.Entry, error] {
	return func(yield func(catalog.Entry, error) bool) {
		err := c.db.View(func(tx *badgerdb.Txn) error {
			it := tx.NewIterator(badgerdb.IteratorOptions{Prefix: []byte(prefix), PrefetchValues: true, PrefetchSize: 100})
			defer it.Close()
			for it.Rewind(); it.Valid(); it.Next() {
				v, err := it.Item().ValueCopy(nil)
				if err != nil {
					return err
				}
				if !yield(catalog.Entry{Key: string(it.Item().KeyCopy(nil)), Value: v}, nil) {
					return nil
				}
			}
			return nil
		})
		if err != nil {
			yield(catalog.Entry{}, fmt.Errorf("scan the catalog: %w", err))
		}
	}
}

// Maintain reclaims space every interval until ctx ends.
func (c *Catalog) Maintain(ctx context.Context, every time.Duration) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := c.db.RunValueLogGC(0.5); err != nil && !errors.Is(err, badgerdb.ErrNoRewrite) && !errors.Is(err, badgerdb.ErrRejected) {
				c.log.Warn("catalog cannot reclaim space", "err", err)
			}
		}
	}
}

// Close implements catalog.Catalog.
func (c *Catalog) Close() error {
	if err := c.db.Close(); err != nil {
		return fmt.Errorf("close the catalog: %w", err)
	}
	return nil
}

// logger passes what Badger has to complain about to slog; its chatter is dropped.
type logger struct{ log *slog.Logger }

func (l logger) Errorf(f string, a ...any) { l.log.Error("badger", "message", fmt.Sprintf(f, a...)) }

func (l logger) Warningf(f string, a ...any) { l.log.Warn("badger", "message", fmt.Sprintf(f, a...)) }
func (l logger) Infof(string, ...any)        {}
func (l logger) Debugf(string, ...any)       {}
