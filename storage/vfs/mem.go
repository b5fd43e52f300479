package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Mem is a file system in memory that models what a disk keeps: see the package comment. Relative and absolute
// names are the same (both start at the one root), the root exists, ModTime comes from a clock of its own that
// ticks once per change, and there is always space ([DiskFull] takes it away).
//
// The model is pessimistic where file systems differ: syncing a file does not make its name durable, syncing a
// directory makes neither the content of its files nor its own name durable, unsynced changes may survive in any
// combination, and a rename between two directories is durable in each by itself. A rename inside one directory
// is atomic.
type Mem struct {
	mu    sync.Mutex // guards all below and every node
	root  *memDir
	locks map[string]struct{}
	ticks int64
}

var _ FS = (*Mem)(nil)

// NewMem returns an empty file system.
func NewMem() *Mem {
	return &Mem{root: newMemDir(time.Time{}), locks: map[string]struct{}{}}
}

// memNode is a *memDir or a *memFile.
type memNode interface{ isNode() }

type memDir struct {
	entries map[string]memNode // as a running program sees them
	durable map[string]memNode // as of the last SyncDir
	pending []dirEdit          // durable + pending = entries
	modTime time.Time
}

func (*memDir) isNode() {}

// dirEdit sets or (node nil) removes one name. The edits of one operation share op and survive together, unless
// they are in two directories of which one was synced.
type dirEdit struct {
	op   *dirOp
	name string
	node memNode
}

type dirOp struct{ kind OpKind }

func newMemDir(at time.Time) *memDir {
	return &memDir{entries: map[string]memNode{}, durable: map[string]memNode{}, modTime: at}
}

func (d *memDir) edit(op *dirOp, name string, node memNode, at time.Time) {
	apply(d.entries, name, node)
	d.pending = append(d.pending, dirEdit{op, name, node})
	d.modTime = at
}

func apply(entries map[string]memNode, name string, node memNode) {
	if node == nil {
		delete(entries, name)
		return
	}
	entries[name] = node
}

func pathErr(op, name string, errno syscall.Errno) error {
	return &fs.PathError{Op: op, Path: name, Err: errno}
}

// tick advances the clock; mu is held.
func (m *Mem) tick() time.Time {
	m.ticks++
	return time.UnixMilli(946684800000 + m.ticks).UTC()
}

func splitName(name string) []string {
	name = strings.TrimPrefix(filepath.ToSlash(filepath.Clean(name)), "/")
	if name == "." || name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

// lookup finds the node of name; mu is held.
func (m *Mem) lookup(op, name string) (memNode, error) {
	var n memNode = m.root
	for _, s := range splitName(name) {
		d, ok := n.(*memDir)
		if !ok {
			return nil, pathErr(op, name, syscall.ENOTDIR)
		}
		if n, ok = d.entries[s]; !ok {
			return nil, pathErr(op, name, syscall.ENOENT)
		}
	}
	return n, nil
}

// parent finds the directory of name and the last element of name; mu is held.
func (m *Mem) parent(op, name string) (*memDir, string, error) {
	segs := splitName(name)
	if len(segs) == 0 {
		return nil, "", pathErr(op, name, syscall.EINVAL)
	}
	n, err := m.lookup(op, strings.Join(segs[:len(segs)-1], "/"))
	if err != nil {
		return nil, "", pathErr(op, name, syscall.ENOENT)
	}
	d, ok := n.(*memDir)
	if !ok {
		return nil, "", pathErr(op, name, syscall.ENOTDIR)
	}
	return d, segs[len(segs)-1], nil
}

// Create implements [FS].
func (m *Mem) Create(name string) (File, error) { return m.create(name, false) }

// CreateExclusive implements [FS].
func (m *Mem) CreateExclusive(name string) (File, error) { return m.create(name, true) }

func (m *Mem) create(name string, exclusive bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent("create", name)
	if err != nil {
		return nil, err
	}
	switch n := d.entries[base].(type) {
	case *memDir:
		return nil, pathErr("create", name, syscall.EISDIR)
	case *memFile:
		if exclusive {
			return nil, pathErr("create", name, syscall.EEXIST)
		}
		n.truncate(0, m.tick())
		return &memHandle{fs: m, file: n, name: name}, nil
	}
	at := m.tick()
	f := newMemFile(at)
	d.edit(&dirOp{OpCreate}, base, f, at)
	return &memHandle{fs: m, file: f, name: name}, nil
}

// Open implements [FS].
func (m *Mem) Open(name string) (File, error) { return m.open(name, true) }

// OpenReadWrite implements [FS].
func (m *Mem) OpenReadWrite(name string) (File, error) { return m.open(name, false) }

func (m *Mem) open(name string, readOnly bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup("open", name)
	if err != nil {
		return nil, err
	}
	f, ok := n.(*memFile)
	if !ok {
		return nil, pathErr("open", name, syscall.EISDIR)
	}
	return &memHandle{fs: m, file: f, name: name, readOnly: readOnly}, nil
}

// Remove implements [FS].
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent("remove", name)
	if err != nil {
		return err
	}
	switch n := d.entries[base].(type) {
	case nil:
		return pathErr("remove", name, syscall.ENOENT)
	case *memDir:
		if len(n.entries) > 0 {
			return pathErr("remove", name, syscall.ENOTEMPTY)
		}
	}
	d.edit(&dirOp{OpRemove}, base, nil, m.tick())
	return nil
}

// RemoveAll implements [FS].
func (m *Mem) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent("remove", name)
	if err != nil {
		return ignoreNotExist(err)
	}
	n, ok := d.entries[base]
	if !ok {
		return nil
	}
	m.removeBelow(n)
	d.edit(&dirOp{OpRemoveAll}, base, nil, m.tick())
	return nil
}

func (m *Mem) removeBelow(n memNode) {
	d, ok := n.(*memDir)
	if !ok {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(d.entries)) {
		m.removeBelow(d.entries[name])
		d.edit(&dirOp{OpRemoveAll}, name, nil, m.tick())
	}
}

// Rename implements [FS].
func (m *Mem) Rename(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, oldBase, err := m.parent("rename", oldName)
	if err != nil {
		return err
	}
	to, newBase, err := m.parent("rename", newName)
	if err != nil {
		return err
	}
	n, ok := from.entries[oldBase]
	if !ok {
		return pathErr("rename", oldName, syscall.ENOENT)
	}
	target := to.entries[newBase]
	if target == n {
		return nil
	}
	if dir, ok := n.(*memDir); ok {
		if target != nil {
			return pathErr("rename", newName, syscall.EEXIST)
		}
		if within(dir, to) {
			return pathErr("rename", newName, syscall.EINVAL)
		}
	} else if _, ok := target.(*memDir); ok {
		return pathErr("rename", newName, syscall.EISDIR)
	}
	op, at := &dirOp{OpRename}, m.tick()
	from.edit(op, oldBase, nil, at)
	to.edit(op, newBase, n, at)
	return nil
}

func within(root, d *memDir) bool {
	if root == d {
		return true
	}
	for _, n := range root.entries {
		if sub, ok := n.(*memDir); ok && within(sub, d) {
			return true
		}
	}
	return false
}

// Link implements [FS].
func (m *Mem) Link(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup("link", oldName)
	if err != nil {
		return err
	}
	if _, ok := n.(*memFile); !ok {
		return pathErr("link", oldName, syscall.EPERM)
	}
	d, base, err := m.parent("link", newName)
	if err != nil {
		return err
	}
	if d.entries[base] != nil {
		return pathErr("link", newName, syscall.EEXIST)
	}
	d.edit(&dirOp{OpLink}, base, n, m.tick())
	return nil
}

// MkdirAll implements [FS].
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.root
	for _, s := range splitName(dir) {
		switch n := d.entries[s].(type) {
		case *memDir:
			d = n
		case *memFile:
			return pathErr("mkdir", dir, syscall.ENOTDIR)
		default:
			at := m.tick()
			sub := newMemDir(at)
			d.edit(&dirOp{OpMkdir}, s, sub, at)
			d = sub
		}
	}
	return nil
}

// dir finds a directory; mu is held.
func (m *Mem) dir(op, name string) (*memDir, error) {
	n, err := m.lookup(op, name)
	if err != nil {
		return nil, err
	}
	d, ok := n.(*memDir)
	if !ok {
		return nil, pathErr(op, name, syscall.ENOTDIR)
	}
	return d, nil
}

// ReadDir implements [FS].
func (m *Mem) ReadDir(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir("readdir", dir)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(d.entries)), nil
}

// Stat implements [FS].
func (m *Mem) Stat(name string) (FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup("stat", name)
	if err != nil {
		return FileInfo{}, err
	}
	switch n := n.(type) {
	case *memDir:
		return FileInfo{Dir: true, ModTime: n.modTime}, nil
	case *memFile:
		return FileInfo{Size: n.now.size, ModTime: n.modTime}, nil
	default:
		panic(fmt.Sprintf("vfs: unknown node %T", n))
	}
}

// SyncDir implements [FS].
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir("syncdir", dir)
	if err != nil {
		return err
	}
	for _, e := range d.pending {
		apply(d.durable, e.name, e.node)
	}
	d.pending = nil
	return nil
}

// Lock implements [FS]. Locks are of the running system: a clone has none.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	key := strings.Join(splitName(name), "/")
	_, held := m.locks[key]
	if !held {
		m.locks[key] = struct{}{}
	}
	m.mu.Unlock()
	if held {
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	l := &memLock{fs: m, key: key}
	f, err := m.OpenReadWrite(name)
	if err != nil {
		f, err = m.Create(name)
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, f.Close()
}

type memLock struct {
	fs   *Mem
	key  string
	once sync.Once
}

func (l *memLock) Close() error {
	err := fs.ErrClosed
	l.once.Do(func() {
		l.fs.mu.Lock()
		defer l.fs.mu.Unlock()
		delete(l.fs.locks, l.key)
		err = nil
	})
	return err
}

// FreeBytes implements [FS]: one tebibyte, always.
func (m *Mem) FreeBytes(dir string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.dir("statfs", dir); err != nil {
		return 0, err
	}
	return 1 << 40, nil
}

// FlipBit inverts one bit of the stored file, on the disk and in the eyes of the running program: a medium that
// decays. It reports whether the file has such a byte.
func (m *Mem) FlipBit(name string, offset int64, bit uint) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup("flip", name)
	if err != nil {
		return false
	}
	f, ok := n.(*memFile)
	if !ok || offset < 0 || offset >= f.now.size {
		return false
	}
	f.now.flip(offset, bit)
	if offset < f.synced.size {
		f.synced.flip(offset, bit)
	}
	return true
}
