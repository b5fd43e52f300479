// Package mem is a catalog in memory, for tests that open a store hundreds of times and for machines where the
// catalog's files are not worth their memory.
package mem

import (
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/braidobs/braid/storage/catalog"
)

// Catalog keeps everything in a map.
type Catalog struct {
	mu sync.RWMutex // guards m
	m  map[string][]byte
}

var _ catalog.Catalog = (*Catalog)(nil)

// New returns an empty catalog.
func New() *Catalog { return &Catalog{m: make(map[string][]byte)} }

// Get implements catalog.Catalog.
func (c *Catalog) Get(key string) ([]byte, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v, ok := c.m[key]
	if !ok {
		return nil, catalog.ErrNotFound
	}
	return slices.Clone(v), nil
}

// Set implements catalog.Catalog.
func (c *Catalog) Set(key string, value []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m[key] = slices.Clone(value)
	return nil
}

// Delete implements catalog.Catalog.
func (c *Catalog) Delete(keys ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range keys {
		delete(c.m, k)
	}
	return nil
}

// Scan implements catalog.Catalog.
func (c *Catalog) Scan(prefix string) iter.Seq2[catalog.Entry, error] {
	return func(yield func(catalog.Entry, error) bool) {
		c.mu.RLock()
		var es []catalog.Entry
		for k, v := range c.m {
			if strings.HasPrefix(k, prefix) {
				es = append(es, catalog.Entry{Key: k, Value: slices.Clone(v)})
			}
		}
		c.mu.RUnlock()
		slices.SortFunc(es, func(a, b catalog.Entry) int { return strings.Compare(a.Key, b.Key) })
		for _, e := range es {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Close implements catalog.Catalog.
func (c *Catalog) Close() error { return nil }
