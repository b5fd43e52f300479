package vfs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// CrashClone returns what the disk holds after a power loss at this moment, as a new file system in which all is
// durable; m goes on unchanged. What was synced is there. With a nil rng nothing else is. With one, each unsynced
// change is decided by itself: a change of a directory is kept or dropped; a write is kept, dropped (sometimes
// leaving zeros where it made the file longer) or torn between sectors; a truncation is kept or dropped.
//
// Equal states and equal rngs give equal clones. The cost is in the number of files and unsynced changes, not in
// the bytes: content is shared until one side changes it.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := cloner{rng: rng, nodes: map[memNode]memNode{}, kept: map[*dirOp]bool{}}
	return &Mem{root: c.dir(m.root), locks: map[string]struct{}{}, ticks: m.ticks}
}

// KillClone returns the file system as a new process finds it after kill -9 of the one that uses m, without a
// power loss: every change is seen, what was not synced is still not durable, no lock is held. m goes on
// unchanged. It is what finds a program that relies on bytes it read but that nobody has synced.
func (m *Mem) KillClone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := cloner{kill: true, nodes: map[memNode]memNode{}}
	return &Mem{root: c.dir(m.root), locks: map[string]struct{}{}, ticks: m.ticks}
}

type cloner struct {
	kill  bool
	rng   *rand.Rand
	nodes map[memNode]memNode // a file has several names, a directory may be in two places
	kept  map[*dirOp]bool
}

func (c *cloner) keep(op *dirOp) bool {
	if c.rng == nil {
		return false
	}
	k, ok := c.kept[op]
	if !ok {
		k = c.rng.IntN(2) == 0
		c.kept[op] = k
	}
	return k
}

func (c *cloner) node(n memNode) memNode {
	if got, ok := c.nodes[n]; ok {
		return got
	}
	switch n := n.(type) {
	case *memDir:
		return c.dir(n)
	case *memFile:
		f := c.file(n)
		c.nodes[n] = f
		return f
	default:
		panic(fmt.Sprintf("vfs: unknown node %T", n))
	}
}

func (c *cloner) dir(d *memDir) *memDir {
	out := newMemDir(d.modTime)
	c.nodes[d] = out
	entries := maps.Clone(d.durable)
	for _, e := range d.pending {
		if !c.kill && c.keep(e.op) {
			apply(entries, e.name, e.node)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) { // sorted: the order in which rng is used
		out.durable[name] = c.node(entries[name])
	}
	maps.Copy(out.entries, out.durable)
	if c.kill {
		for _, e := range d.pending {
			n := e.node
			if n != nil {
				n = c.node(n)
			}
			out.pending = append(out.pending, dirEdit{e.op, e.name, n})
			apply(out.entries, e.name, n)
		}
	}
	return out
}

func (c *cloner) file(f *memFile) *memFile {
	out := &memFile{synced: f.synced.share(), modTime: f.modTime}
	if c.kill {
		out.now = f.now.share()
		out.pending = slices.Clone(f.pending)
		return out
	}
	if c.rng != nil {
		for _, e := range f.pending {
			c.fileEdit(&out.synced, e)
		}
	}
	out.now = out.synced.share()
	return out
}

func (c *cloner) fileEdit(to *content, e fileEdit) {
	if e.data == nil {
		if c.rng.IntN(2) == 0 {
			to.truncate(e.off)
		}
		return
	}
	switch c.rng.IntN(4) {
	case 0: // dropped
		if c.rng.IntN(4) == 0 { // the size was on disk before the data
			to.size = max(to.size, e.off+int64(len(e.data)))
		}
	case 1, 2: // kept
		to.write(e.off, e.data)
	default: // torn: a prefix, or any sectors in any order
		prefix := c.rng.IntN(2) == 0
		for off, data := e.off, e.data; len(data) > 0; {
			n := int(min(int64(len(data)), SectorSize-off%SectorSize))
			switch keep := c.rng.IntN(4) > 0; {
			case keep:
				to.write(off, data[:n])
			case prefix:
				return
			}
			off, data = off+int64(n), data[n:]
		}
	}
}
