package vfs

import (
	"io"
	"io/fs"
	"slices"
	"syscall"
	"time"
)

const (
	pageSize = 4096
	// SectorSize is the unit that a disk writes atomically: an unsynced write is torn at multiples of it.
	SectorSize = 512
	// memMaxFile bounds a file of Mem, so that a wild offset is an error and not a huge table of pages.
	memMaxFile = 1 << 34
)

// owner is the token of the content that may change a page in place. It has a size, or all would be equal.
type owner struct{ _ byte }

type page struct {
	b     [pageSize]byte
	owner *owner
}

// content is a sequence of bytes in pages. A nil page is zeros. Copies made by share are independent: what is
// common is copied when one of them changes.
type content struct {
	pages  []*page
	size   int64
	shared bool   // the slice pages is also in another content
	owner  *owner // pages with this owner are in no other content
}

// share returns a copy, at the cost of a few words.
func (c *content) share() content {
	c.shared = true
	c.owner = new(owner)
	return content{pages: c.pages, size: c.size, shared: true, owner: new(owner)}
}

func (c *content) unshare() {
	if c.shared {
		c.pages = slices.Clone(c.pages)
		c.shared = false
	}
}

// page returns page i for writing.
func (c *content) page(i int64) *page {
	c.unshare()
	for int64(len(c.pages)) <= i {
		c.pages = append(c.pages, nil)
	}
	p := c.pages[i]
	if p == nil {
		p = &page{owner: c.owner}
	} else if p.owner != c.owner {
		p = &page{b: p.b, owner: c.owner}
	}
	c.pages[i] = p
	return p
}

func (c *content) write(off int64, b []byte) {
	for len(b) > 0 {
		n := copy(c.page(off / pageSize).b[off%pageSize:], b)
		b, off = b[n:], off+int64(n)
	}
	c.size = max(c.size, off)
}

func (c *content) read(off int64, b []byte) int {
	if off >= c.size {
		return 0
	}
	b = b[:min(int64(len(b)), c.size-off)]
	total := len(b)
	for len(b) > 0 {
		var n int
		if i := off / pageSize; i < int64(len(c.pages)) && c.pages[i] != nil {
			n = copy(b, c.pages[i].b[off%pageSize:])
		} else {
			n = int(min(int64(len(b)), pageSize-off%pageSize))
			clear(b[:n])
		}
		b, off = b[n:], off+int64(n)
	}
	return total
}

func (c *content) truncate(size int64) {
	if size < c.size {
		c.unshare()
		keep := (size + pageSize - 1) / pageSize
		if int64(len(c.pages)) > keep {
			clear(c.pages[keep:])
			c.pages = c.pages[:keep]
		}
		if rest := size % pageSize; rest > 0 && size/pageSize < int64(len(c.pages)) {
			clear(c.page(size / pageSize).b[rest:])
		}
	}
	c.size = size
}

func (c *content) flip(off int64, bit uint) {
	c.page(off / pageSize).b[off%pageSize] ^= 1 << (bit % 8)
}

// memFile is one inode; its names are entries of directories.
type memFile struct {
	now     content    // as a running program sees it
	synced  content    // as of the last Sync
	pending []fileEdit // synced + pending = now
	modTime time.Time
}

func (*memFile) isNode() {}

// fileEdit is a write of data at off or (data nil) a truncation to off.
type fileEdit struct {
	off  int64
	data []byte
}

func newMemFile(at time.Time) *memFile {
	return &memFile{
		now:     content{owner: new(owner)},
		synced:  content{owner: new(owner)},
		modTime: at,
	}
}

func (f *memFile) write(off int64, b []byte, at time.Time) {
	f.now.write(off, b)
	f.pending = append(f.pending, fileEdit{off, append([]byte{}, b...)})
	f.modTime = at
}

func (f *memFile) truncate(size int64, at time.Time) {
	f.now.truncate(size)
	f.pending = append(f.pending, fileEdit{off: size})
	f.modTime = at
}

func (f *memFile) sync() {
	if len(f.pending) == 0 {
		return
	}
	f.synced = f.now.share()
	f.pending = nil
}

// memHandle is an open memFile.
type memHandle struct {
	fs       *Mem
	file     *memFile
	name     string
	readOnly bool
	closed   bool  // guarded by fs.mu
	pos      int64 // guarded by fs.mu
}

var _ File = (*memHandle)(nil)

// check locks the file system, or returns an error; unlocking is the caller's.
func (h *memHandle) check(op string, writes bool) error {
	h.fs.mu.Lock()
	switch {
	case h.closed:
		h.fs.mu.Unlock()
		return &fs.PathError{Op: op, Path: h.name, Err: fs.ErrClosed}
	case writes && h.readOnly:
		h.fs.mu.Unlock()
		return pathErr(op, h.name, syscall.EBADF)
	}
	return nil
}

func (h *memHandle) Read(b []byte) (int, error) {
	if err := h.check("read", false); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	n := h.file.now.read(h.pos, b)
	h.pos += int64(n)
	if n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (h *memHandle) ReadAt(b []byte, off int64) (int, error) {
	if err := h.check("read", false); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	if off < 0 {
		return 0, pathErr("read", h.name, syscall.EINVAL)
	}
	n := h.file.now.read(off, b)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *memHandle) Write(b []byte) (int, error) {
	if err := h.check("write", true); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	n, err := h.writeAt(b, h.pos)
	h.pos += int64(n)
	return n, err
}

func (h *memHandle) WriteAt(b []byte, off int64) (int, error) {
	if err := h.check("write", true); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	return h.writeAt(b, off)
}

// writeAt writes; fs.mu is held.
func (h *memHandle) writeAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, pathErr("write", h.name, syscall.EINVAL)
	}
	if off > memMaxFile-int64(len(b)) {
		return 0, pathErr("write", h.name, syscall.EFBIG)
	}
	if len(b) > 0 {
		h.file.write(off, b, h.fs.tick())
	}
	return len(b), nil
}

func (h *memHandle) Sync() error {
	if err := h.check("fdatasync", false); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	h.file.sync()
	return nil
}

func (h *memHandle) Truncate(size int64) error {
	if err := h.check("truncate", true); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	if size < 0 {
		return pathErr("truncate", h.name, syscall.EINVAL)
	}
	if size > memMaxFile {
		return pathErr("truncate", h.name, syscall.EFBIG)
	}
	h.file.truncate(size, h.fs.tick())
	return nil
}

func (h *memHandle) Size() (int64, error) {
	if err := h.check("stat", false); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	return h.file.now.size, nil
}

func (h *memHandle) Name() string { return h.name }

func (h *memHandle) Close() error {
	if err := h.check("close", false); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	h.closed = true
	return nil
}
