// Package vfs is the file system as the storage engine sees it. Every file operation of the engine goes through
// [FS], so that tests can replace the disk by one that loses power, fills up, or lies:
//
//   - [OS] is the real one.
//   - [Mem] is in memory and keeps apart what a program has written from what a disk would have kept: content is
//     durable after [File.Sync], a name (created, renamed, linked, removed) after [FS.SyncDir] of its directory.
//     [Mem.CrashClone] is the disk after a power loss at this moment.
//   - [Fault] wraps any FS and lets a [Hook] see, count, change and fail every operation.
//
// # How to crash a program
//
// Run the work on a Fault whose hook crashes at the n-th change, then open what is left and check it:
//
//	disk := vfs.NewMem()
//	rng := rand.New(rand.NewPCG(seed, n))
//	crash := vfs.CrashAt(disk, n, rng)
//	work(vfs.NewFault(disk, crash.Hook)) // from the n-th change on every operation returns ErrCrashed
//	check(crash.Disk())                  // must hold all that work was told is durable
//
// Run it for n = 1, 2, 3, ... until work is no longer interrupted ([Crash.Crashed] is false), and for some seeds
// each. A failure is reproduced by its (seed, n), as long as work itself is deterministic. With a nil rng the disk
// keeps only what was synced; with one it also keeps, drops or tears each unsynced change by chance, which is
// what finds a missing checksum or a missing SyncDir.
package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
)

// ErrLocked is found in the error of [FS.Lock] when another holder has the lock.
var ErrLocked = errors.New("locked by another process")

// ErrTooBig is found in the error of [ReadFile] when the file is larger than the caller allows.
var ErrTooBig = errors.New("file is larger than allowed")

// FS is a file system. It is safe for concurrent use. Errors satisfy errors.Is with fs.ErrNotExist, fs.ErrExist
// and syscall.ENOSPC where these are the cause, and name the file.
//
// No operation is durable by itself: see [File.Sync] for content and SyncDir for names.
type FS interface {
	// Create opens name for reading and writing, creating it or cutting it to length zero.
	Create(name string) (File, error)
	// CreateExclusive is Create for a name that must not exist (fs.ErrExist).
	CreateExclusive(name string) (File, error)
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// OpenReadWrite opens an existing file for reading and writing, content unchanged, offset at its start.
	OpenReadWrite(name string) (File, error)
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// RemoveAll removes name and what is below it. An absent name is not an error.
	RemoveAll(name string) error
	// Rename moves oldName to newName, atomically replacing a file of that name.
	Rename(oldName, newName string) error
	// Link gives the file oldName the second name newName. It fails with fs.ErrExist when newName exists, which
	// makes it the way to create a file with its content if absent.
	Link(oldName, newName string) error
	// MkdirAll creates dir and its parents. An existing directory is not an error.
	MkdirAll(dir string) error
	// ReadDir returns the names in dir, sorted.
	ReadDir(dir string) ([]string, error)
	// Stat describes name.
	Stat(name string) (FileInfo, error)
	// SyncDir makes the names in dir durable: those created, renamed, linked and removed so far.
	SyncDir(dir string) error
	// Lock takes the exclusive lock that name stands for, creating the file when absent. It does not wait: a held
	// lock is ErrLocked, for a second call in the same process as well. The lock ends with Close or the process.
	Lock(name string) (io.Closer, error)
	// FreeBytes returns the space that the process can still fill in the file system of dir.
	FreeBytes(dir string) (uint64, error)
}

// File is an open file. Reads at the end return io.EOF as the io interfaces say. Read and Write share an offset
// and are not for concurrent use; the others are.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	// Sync makes the content and the size durable (fdatasync), not the name. After an error nothing is known
	// about what was written since the last Sync that succeeded, and a second Sync may succeed without having
	// written it: do not retry, write the data to a new file.
	Sync() error
	// Truncate cuts or extends (with zeros) the file. The offset stays.
	Truncate(size int64) error
	// Size returns the length of the file.
	Size() (int64, error)
	// Name returns the name the file was opened by.
	Name() string
}

// FileInfo is what Stat returns.
type FileInfo struct {
	Size    int64 // bytes; 0 for a directory
	Dir     bool
	ModTime time.Time
}

// ReadFile returns the content of name, or ErrTooBig when that is more than limit bytes.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("read %s: %d bytes, the limit is %d: %w", name, size, limit, ErrTooBig)
	}
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

// WriteFileAtomic makes name durable with content data: after a crash at any moment the file has its old content
// (or is absent) or the new one. It uses the temporary name+".tmp" and is not for concurrent use on one name.
func WriteFileAtomic(fsys FS, name string, data []byte) error {
	tmp := name + ".tmp"
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, ignoreNotExist(fsys.Remove(tmp)))
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// MkdirAllSync creates dir and its missing parents, each durable before the next is begun, and syncs the entry of
// the deepest one that was there before: a process killed in the middle of this call leaves nothing that the
// next call does not make durable.
func MkdirAllSync(fsys FS, dir string) error {
	dir = filepath.Clean(dir)
	var missing []string
	for {
		info, err := fsys.Stat(dir)
		if err == nil && !info.Dir {
			return fmt.Errorf("create directory %s: it is a file: %w", dir, fs.ErrExist)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, dir)
		parent := filepath.Dir(dir)
		if parent == dir {
			return err
		}
		dir = parent
	}
	if parent := filepath.Dir(dir); parent != dir {
		// A parent that cannot be read cannot be synced, and is not one that an earlier call created.
		if err := fsys.SyncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	for _, m := range slices.Backward(missing) {
		if err := fsys.MkdirAll(m); err != nil {
			return err
		}
		if err := fsys.SyncDir(filepath.Dir(m)); err != nil {
			return err
		}
	}
	return nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
