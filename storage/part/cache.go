package part

import (
	"github.com/VictoriaMetrics/fastcache"
)

// Cache keeps unpacked column blocks off the Go heap. The key carries the part's name, and parts never
// change, so entries never go stale. A nil Cache caches nothing.
type Cache struct {
	c *fastcache.Cache
}

// maxCached is the largest block worth caching; beyond it the copy costs more than unpacking saves.
const maxCached = 4 << 20

// NewCache returns a cache of the given size in bytes, 32 MiB at least (fastcache's own minimum).
func NewCache(size int) *Cache { return &Cache{c: fastcache.New(size)} }

// get returns a copy of the block, which has the given size. fastcache's Get drops everything from 64 KiB on,
// SetBig and GetBig do not.
func (c *Cache) get(key []byte, size int) ([]byte, bool) {
	if size > maxCached {
		return nil, false
	}
	b := c.c.GetBig(make([]byte, 0, size), key)
	return b, len(b) == size && size > 0
}

func (c *Cache) set(key, raw []byte) {
	if c == nil || len(raw) > maxCached || len(raw) == 0 {
		return
	}
	c.c.SetBig(key, raw)
}

// Reset gives the memory back.
func (c *Cache) Reset() {
	if c != nil {
		c.c.Reset()
	}
}

// Stats returns lookups and misses so far.
func (c *Cache) Stats() (gets, misses uint64) {
	var s fastcache.Stats
	c.c.UpdateStats(&s)
	return s.GetBigCalls, s.Misses
}
