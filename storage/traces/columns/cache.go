package columns

import (
	"sync"
	"sync/atomic"

	"github.com/braidobs/braid/storage/traces/columns/piece"
)

// Cache keeps what is asked of pages again and again, up to a number of bytes: codes as they lie unpacked (which resource, which
// tuple and which parent each row has), and heads with the IDs of traces. That is what a search looks at first, 3 to 5 bytes a
// row, and getting it costs more than the look. It is safe for concurrent use.
//
// What is read once must not drive out what is read again and again: of what comes when it is full, one in a few takes the
// place of others, which are chosen by chance.
type Cache struct {
	limit int64
	parts atomic.Uint32

	mu    sync.Mutex // guards all below
	known map[cacheKey]cached
	bytes int64
	came  int // when it was full
}

// cached is a view of codes, or the head of a page.
type cached struct {
	view piece.View
	head *pageHead
	size int64
}

// oneOf is how many come to a full cache for one that is kept.
const oneOf = 4

type cacheKey struct {
	part uint32
	page uint32
	what codesOf
}

// codesOf is what codes of a page are about.
type codesOf uint8

const (
	codesOfTuples codesOf = iota // of spans
	codesOfResources
	codesOfParents
	headOfPage // not codes
)

// NewCache returns an empty one.
func NewCache(limit int64) *Cache { return &Cache{limit: limit, known: make(map[cacheKey]cached)} }

// Keep makes the part keep codes in c. It must be called before the part is read.
func (p *Part) Keep(c *Cache) { p.cache, p.number = c, c.parts.Add(1) }

// Size returns the bytes held.
func (c *Cache) Size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

func (c *Cache) get(key cacheKey) (cached, bool) {
	if c == nil {
		return cached{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.known[key]
	return v, ok
}

// admits says whether something of a size is worth to be put.
func (c *Cache) admits(size int64) bool {
	if c == nil || size > c.limit {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes+size <= c.limit {
		return true
	}
	c.came++
	return c.came%oneOf == 0
}

// put keeps something that it admits, which must not be changed.
func (c *Cache) put(key cacheKey, v cached, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.known[key]; ok {
		return
	}
	for k, old := range c.known { // in any order
		if c.bytes+size <= c.limit {
			break
		}
		delete(c.known, k)
		c.bytes -= old.size
	}
	v.size = size
	c.known[key] = v
	c.bytes += size
}
