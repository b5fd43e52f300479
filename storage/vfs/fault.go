package vfs

import (
	"fmt"
	"io"
	"path/filepath"
	"sync"
)

// OpKind is the kind of an operation on a file system.
type OpKind uint8

// The operations, in the order of the methods of [FS] and [File].
const (
	OpCreate OpKind = iota + 1
	OpOpen
	OpRemove
	OpRemoveAll
	OpRename
	OpLink
	OpMkdir
	OpReadDir
	OpStat
	OpSyncDir
	OpLock
	OpFreeBytes
	OpRead
	OpWrite
	OpSync
	OpTruncate
	OpSize
	OpClose
)

// Changes reports whether the operation can change what the disk holds after a crash.
func (k OpKind) Changes() bool {
	switch k {
	case OpCreate, OpRemove, OpRemoveAll, OpRename, OpLink, OpMkdir, OpSyncDir, OpLock, OpWrite, OpSync, OpTruncate:
		return true
	default:
		return false
	}
}

// String returns the name of the operation.
func (k OpKind) String() string {
	names := [...]string{
		OpCreate: "create", OpOpen: "open", OpRemove: "remove", OpRemoveAll: "removeall", OpRename: "rename",
		OpLink: "link", OpMkdir: "mkdir", OpReadDir: "readdir", OpStat: "stat", OpSyncDir: "syncdir",
		OpLock: "lock", OpFreeBytes: "freebytes", OpRead: "read", OpWrite: "write", OpSync: "sync",
		OpTruncate: "truncate", OpSize: "size", OpClose: "close",
	}
	if int(k) >= len(names) || names[k] == "" {
		return fmt.Sprintf("op(%d)", uint8(k))
	}
	return names[k]
}

// Op is one operation, as a [Hook] sees it before it is done.
type Op struct {
	Kind   OpKind
	Name   string // of the file or directory
	To     string // of Rename and Link: the new name
	Offset int64  // of reads and writes; of Truncate the size
	Len    int    // of reads and writes
	Seq    uint64 // 1 for the first operation on this Fault
}

// Action is what becomes of an operation. The zero Action lets it pass.
type Action struct {
	// Err fails the operation, which is then not done, except for the first Short bytes of a read or write.
	Err   error
	Short int
	// Late makes the operation be done and fail with Err nevertheless: an fdatasync that had written all.
	Late bool
	// Flip inverts bit FlipBit of byte FlipByte (counted from Op.Offset) of what is read or written.
	Flip     bool
	FlipByte int
	FlipBit  uint
	// Free is the answer of FreeBytes when FreeSet.
	Free    uint64
	FreeSet bool
}

// Hook is called before every operation. Calls never overlap with each other nor with an operation, so a hook can
// take a consistent clone of the disk; it must not use the Fault it belongs to.
type Hook func(op Op) Action

// Fault is a file system that does what its hooks say with the operations of another one. It is safe for
// concurrent use; its operations are done one after the other.
type Fault struct {
	fs FS

	mu    sync.Mutex // guards seq, hooks and the order of operations
	seq   uint64
	hooks []Hook
}

var _ FS = (*Fault)(nil)

// NewFault wraps fsys. Every hook sees every operation; the first Action that is not zero counts.
func NewFault(fsys FS, hooks ...Hook) *Fault { return &Fault{fs: fsys, hooks: hooks} }

// SetHooks replaces the hooks.
func (f *Fault) SetHooks(hooks ...Hook) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks = hooks
}

// Ops returns the number of operations so far.
func (f *Fault) Ops() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq
}

// ask numbers op and calls the hooks; mu is held.
func (f *Fault) ask(op Op) Action {
	f.seq++
	op.Seq = f.seq
	var act Action
	for _, h := range f.hooks {
		if a := h(op); act.Err == nil && !act.Flip && !act.FreeSet {
			act = a
		}
	}
	if act.Err != nil {
		act.Err = fmt.Errorf("%s %s: %w", op.Kind, op.Name, act.Err)
	}
	return act
}

// do runs an operation without data.
func (f *Fault) do(op Op, run func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	act := f.ask(op)
	if act.Err != nil && !act.Late {
		return act.Err
	}
	if err := run(); err != nil {
		return err
	}
	return act.Err
}

func (f *Fault) file(op Op, open func(string) (File, error)) (File, error) {
	var file File
	err := f.do(op, func() (err error) {
		file, err = open(op.Name)
		return err
	})
	if err != nil {
		if file != nil {
			_ = file.Close()
		}
		return nil, err
	}
	return &faultFile{fs: f, file: file}, nil
}

// Create implements [FS].
func (f *Fault) Create(name string) (File, error) {
	return f.file(Op{Kind: OpCreate, Name: name}, f.fs.Create)
}

// CreateExclusive implements [FS].
func (f *Fault) CreateExclusive(name string) (File, error) {
	return f.file(Op{Kind: OpCreate, Name: name}, f.fs.CreateExclusive)
}

// Open implements [FS].
func (f *Fault) Open(name string) (File, error) {
	return f.file(Op{Kind: OpOpen, Name: name}, f.fs.Open)
}

// OpenReadWrite implements [FS].
func (f *Fault) OpenReadWrite(name string) (File, error) {
	return f.file(Op{Kind: OpOpen, Name: name}, f.fs.OpenReadWrite)
}

// Remove implements [FS].
func (f *Fault) Remove(name string) error {
	return f.do(Op{Kind: OpRemove, Name: name}, func() error { return f.fs.Remove(name) })
}

// RemoveAll implements [FS].
func (f *Fault) RemoveAll(name string) error {
	return f.do(Op{Kind: OpRemoveAll, Name: name}, func() error { return f.fs.RemoveAll(name) })
}

// Rename implements [FS].
func (f *Fault) Rename(oldName, newName string) error {
	return f.do(Op{Kind: OpRename, Name: oldName, To: newName}, func() error { return f.fs.Rename(oldName, newName) })
}

// Link implements [FS].
func (f *Fault) Link(oldName, newName string) error {
	return f.do(Op{Kind: OpLink, Name: oldName, To: newName}, func() error { return f.fs.Link(oldName, newName) })
}

// MkdirAll implements [FS].
func (f *Fault) MkdirAll(dir string) error {
	return f.do(Op{Kind: OpMkdir, Name: dir}, func() error { return f.fs.MkdirAll(dir) })
}

// ReadDir implements [FS].
func (f *Fault) ReadDir(dir string) (names []string, err error) {
	err = f.do(Op{Kind: OpReadDir, Name: dir}, func() (err error) {
		names, err = f.fs.ReadDir(dir)
		return err
	})
	return names, err
}

// Stat implements [FS].
func (f *Fault) Stat(name string) (info FileInfo, err error) {
	err = f.do(Op{Kind: OpStat, Name: name}, func() (err error) {
		info, err = f.fs.Stat(name)
		return err
	})
	return info, err
}

// SyncDir implements [FS].
func (f *Fault) SyncDir(dir string) error {
	return f.do(Op{Kind: OpSyncDir, Name: dir}, func() error { return f.fs.SyncDir(dir) })
}

// Lock implements [FS].
func (f *Fault) Lock(name string) (l io.Closer, err error) {
	err = f.do(Op{Kind: OpLock, Name: name}, func() (err error) {
		l, err = f.fs.Lock(name)
		return err
	})
	if err != nil {
		if l != nil {
			_ = l.Close()
		}
		return nil, err
	}
	return l, nil
}

// FreeBytes implements [FS].
func (f *Fault) FreeBytes(dir string) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	act := f.ask(Op{Kind: OpFreeBytes, Name: dir})
	switch {
	case act.Err != nil:
		return 0, act.Err
	case act.FreeSet:
		return act.Free, nil
	default:
		return f.fs.FreeBytes(dir)
	}
}

// faultFile asks before each operation on a file. It keeps the offset of Read and Write, so that the hook sees
// it.
type faultFile struct {
	fs   *Fault
	file File
	pos  int64 // guarded by fs.mu
}

var _ File = (*faultFile)(nil)

func (f *faultFile) Name() string { return f.file.Name() }

func (f *faultFile) Read(b []byte) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n, err := f.readAt(b, f.pos)
	f.pos += int64(n)
	if n > 0 && err == io.EOF { //nolint:errorlint // io.EOF is returned bare
		err = nil
	}
	return n, err
}

func (f *faultFile) ReadAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.readAt(b, off)
}

// readAt reads; fs.mu is held.
func (f *faultFile) readAt(b []byte, off int64) (int, error) {
	act := f.fs.ask(Op{Kind: OpRead, Name: f.Name(), Offset: off, Len: len(b)})
	if act.Err != nil && !act.Late {
		b = b[:min(len(b), act.Short)]
		if len(b) == 0 {
			return 0, act.Err
		}
	}
	n, err := f.file.ReadAt(b, off)
	if act.Flip && act.FlipByte < n {
		b[act.FlipByte] ^= 1 << (act.FlipBit % 8)
	}
	if act.Err != nil {
		err = act.Err
	}
	return n, err
}

func (f *faultFile) Write(b []byte) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n, err := f.writeAt(b, f.pos)
	f.pos += int64(n)
	return n, err
}

func (f *faultFile) WriteAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.writeAt(b, off)
}

// writeAt writes; fs.mu is held.
func (f *faultFile) writeAt(b []byte, off int64) (int, error) {
	act := f.fs.ask(Op{Kind: OpWrite, Name: f.Name(), Offset: off, Len: len(b)})
	if act.Err != nil && !act.Late {
		b = b[:min(len(b), act.Short)]
		if len(b) == 0 {
			return 0, act.Err
		}
	}
	if act.Flip && act.FlipByte < len(b) {
		b = append([]byte(nil), b...)
		b[act.FlipByte] ^= 1 << (act.FlipBit % 8)
	}
	n, err := f.file.WriteAt(b, off)
	if err == nil {
		err = act.Err
	}
	return n, err
}

func (f *faultFile) Sync() error {
	return f.fs.do(Op{Kind: OpSync, Name: f.Name()}, f.file.Sync)
}

func (f *faultFile) Truncate(size int64) error {
	return f.fs.do(Op{Kind: OpTruncate, Name: f.Name(), Offset: size}, func() error { return f.file.Truncate(size) })
}

func (f *faultFile) Size() (size int64, err error) {
	err = f.fs.do(Op{Kind: OpSize, Name: f.Name()}, func() (err error) {
		size, err = f.file.Size()
		return err
	})
	return size, err
}

// Close closes the file whatever the hook says, so that nothing leaks.
func (f *faultFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	act := f.fs.ask(Op{Kind: OpClose, Name: f.Name()})
	if err := f.file.Close(); err != nil {
		return err
	}
	return act.Err
}

// match reports whether a name is meant by pattern: a pattern of path.Match, tried on the whole name and on its
// last element; "" means every name.
func match(pattern, name string) bool {
	if pattern == "" {
		return true
	}
	whole, _ := filepath.Match(pattern, name)
	last, _ := filepath.Match(pattern, filepath.Base(name))
	return whole || last
}
