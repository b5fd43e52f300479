package columns

import (
	"sync"
	"sync/atomic"

	"github.com/braidobs/braid/storage/traces/columns/piece"
)

// Cache keeps codes of pages as they lie unpacked, up to a number of bytes: which resource, which tuple and which parent each row
// has. That is what a search looks at first, 3 to 4 bytes a row, and unpacking it costs more than the look. It is safe for
// concurrent use.
//
// What is read once must not drive out what is read again and again: of what comes when it is full, one in a few takes the
// place of others, which are chosen by chance.
type Cache struct {
	limit int64
	parts atomic.Uint32

	mu    sync.Mutex // guards all below
	known map[cacheKey]piece.View
	bytes int64
	came  int // when it was full
}

// oneOf is how many views come to a full cache for one that is kept.
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
)

// NewCache returns an empty one.
func NewCache(limit int64) *Cache { return &Cache{limit: limit, known: make(map[cacheKey]piece.View)} }

// Keep makes the part keep codes in c. It must be called before the part is read.
func (p *Part) Keep(c *Cache) { p.cache, p.number = c, c.parts.Add(1) }

func (c *Cache) get(key cacheKey) (piece.View, bool) {
	if c == nil {
		return piece.View{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.known[key]
	return v, ok
}

// put keeps a view, or does not.
func (c *Cache) put(key cacheKey, v *piece.View) {
	if c == nil {
		return
	}
	size := v.Size()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.known[key]; ok || size > c.limit {
		return
	}
	if c.bytes+size > c.limit {
		if c.came++; c.came%oneOf != 0 {
			return
		}
		for k, old := range c.known { // in any order
			delete(c.known, k)
			if c.bytes -= old.Size(); c.bytes+size <= c.limit {
				break
			}
		}
	}
	c.known[key] = v.Clone()
	c.bytes += size
}
