// Package dir keeps objects as files in a directory of a local disk: the object a/b/c is the file a/b/c below the
// root. Beside the objects the root holds LOCK (one process at a time) and tmp/ (objects being written, cleared by
// Open); these two are therefore no first segments of names.
//
// An object is written to tmp/, synced, and then renamed (Put) or linked (PutIfAbsent) to its name, whose directory
// is synced: four or five waits for the disk. Missing directories are created durably before. A Delete that leaves a
// directory empty removes it; publishing and removing exclude each other by dirs, so no Put loses its directory.
//
// Lock order: dirs before mu.
package dir

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/braidobs/braid/storage/blob"
	"github.com/braidobs/braid/storage/vfs"
)

const (
	tmpName  = "tmp"
	lockName = "LOCK"
)

// Store is a directory of objects. Make one with [Open].
type Store struct {
	fs   vfs.FS
	root string
	lock io.Closer
	seq  atomic.Uint64 // numbers the files in tmp/

	// dirs is held for reading while an object is published into its directory, and for writing while an empty
	// directory is removed.
	dirs sync.RWMutex

	mu      sync.Mutex          // guards durable
	durable map[string]struct{} // directories that are there and whose entries are durable; guarded by mu
}

var _ blob.Store = (*Store)(nil)

// Open opens the store in root, creating it when absent, and removes what earlier processes have left in tmp/. It is
// an error when another process has it open.
func Open(fsys vfs.FS, root string) (*Store, error) {
	root = filepath.Clean(root)
	s := &Store{fs: fsys, root: root, durable: map[string]struct{}{}}
	if err := vfs.MkdirAllSync(fsys, root); err != nil {
		return nil, fmt.Errorf("open object store: %w", err)
	}
	lock, err := fsys.Lock(filepath.Join(root, lockName))
	if err != nil {
		return nil, fmt.Errorf("open object store: %w", err)
	}
	s.lock = lock
	if err := s.clear(); err != nil {
		return nil, errors.Join(fmt.Errorf("open object store %s: %w", root, err), lock.Close())
	}
	return s, nil
}

func (s *Store) clear() error {
	tmp := filepath.Join(s.root, tmpName)
	if err := s.fs.MkdirAll(tmp); err != nil {
		return err
	}
	names, err := s.fs.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.fs.RemoveAll(filepath.Join(tmp, name)); err != nil {
			return err
		}
	}
	s.durable[s.root] = struct{}{}
	return nil
}

// Close releases the lock. Calls under way must have returned; readers stay valid.
func (s *Store) Close() error { return s.lock.Close() }

// begin checks what every call checks and returns the file of name.
func (s *Store) begin(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := blob.CheckName(name); err != nil {
		return "", err
	}
	if first, _, _ := strings.Cut(name, "/"); first == tmpName || first == lockName {
		return "", fmt.Errorf("%w: %q begins with a reserved name", blob.ErrInvalidName, name)
	}
	return filepath.Join(s.root, filepath.FromSlash(name)), nil
}

// Put implements [blob.Store]. write gets a buffered writer, which fails when ctx is done.
func (s *Store) Put(ctx context.Context, name string, write func(w io.Writer) error) error {
	path, err := s.begin(ctx, name)
	if err != nil {
		return fmt.Errorf("put object: %w", err)
	}
	tmp, err := s.writeTmp(ctx, write)
	if err != nil {
		return fmt.Errorf("put object %s: %w", name, err)
	}
	err = s.publish(path, func() error { return s.fs.Rename(tmp, path) })
	if err != nil {
		_ = s.fs.Remove(tmp) // what is left is removed by Open
		return fmt.Errorf("put object %s: %w", name, err)
	}
	return nil
}

// PutIfAbsent implements [blob.Store].
func (s *Store) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	path, err := s.begin(ctx, name)
	if err != nil {
		return fmt.Errorf("put object: %w", err)
	}
	tmp, err := s.writeTmp(ctx, func(w io.Writer) error { _, err := w.Write(data); return err })
	if err != nil {
		return fmt.Errorf("put object %s: %w", name, err)
	}
	exists := false
	err = s.publish(path, func() error {
		err := s.fs.Link(tmp, path)
		if exists = errors.Is(err, fs.ErrExist); exists {
			return nil // the directory is synced nevertheless: the winner may not have come to it
		}
		return err
	})
	_ = s.fs.Remove(tmp) // what is left is removed by Open
	if err == nil && exists {
		err = blob.ErrExists
	}
	if err != nil {
		return fmt.Errorf("put object %s: %w", name, err)
	}
	return nil
}

// writeTmp writes a synced file in tmp/ and returns its path.
func (s *Store) writeTmp(ctx context.Context, write func(w io.Writer) error) (path string, err error) {
	path = filepath.Join(s.root, tmpName, strconv.FormatUint(s.seq.Add(1), 10))
	f, err := s.fs.CreateExclusive(path)
	if err != nil {
		return "", err
	}
	w := bufio.NewWriterSize(contextWriter{ctx, f}, 64<<10)
	written := false // stays false when write panics
	defer func() {
		cerr := f.Close()
		if err == nil {
			err = cerr
		}
		if err != nil || !written {
			_ = s.fs.Remove(path)
		}
	}()
	err = write(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	written = true
	return path, err
}

type contextWriter struct {
	ctx context.Context //nolint:containedctx // lives as long as one call
	w   io.Writer
}

func (w contextWriter) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(b)
}

// publish runs enter, which creates path, in a directory that is durable, and makes the entry durable.
func (s *Store) publish(path string, enter func() error) error {
	s.dirs.RLock()
	defer s.dirs.RUnlock()
	parent := filepath.Dir(path)
	if err := s.ensure(parent); err != nil {
		return err
	}
	if err := enter(); err != nil {
		return err
	}
	return s.fs.SyncDir(parent)
}

// ensure makes dir and its parents up to the root durable; dirs is held. Concurrent calls for one directory do it
// twice.
func (s *Store) ensure(dir string) error {
	s.mu.Lock()
	_, ok := s.durable[dir]
	s.mu.Unlock()
	if ok {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := s.ensure(parent); err != nil {
		return err
	}
	if err := s.fs.MkdirAll(dir); err != nil {
		return err
	}
	// An earlier process may have created it and been killed before this.
	if err := s.fs.SyncDir(parent); err != nil {
		return err
	}
	s.mu.Lock()
	s.durable[dir] = struct{}{}
	s.mu.Unlock()
	return nil
}

// Get implements [blob.Store].
func (s *Store) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	path, err := s.begin(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("get object: %w", err)
	}
	b, err := vfs.ReadFile(s.fs, path, limit)
	if errors.Is(err, vfs.ErrTooBig) {
		err = fmt.Errorf("%w: the limit is %d bytes", blob.ErrTooBig, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("get object %s: %w", name, s.absent(path, err))
	}
	return b, nil
}

// Open implements [blob.Store].
func (s *Store) Open(ctx context.Context, name string) (blob.Reader, error) {
	path, err := s.begin(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open object: %w", err)
	}
	f, err := s.fs.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open object %s: %w", name, s.absent(path, err))
	}
	info, err := s.fs.Stat(path)
	if err == nil && info.Dir {
		_ = f.Close()
		return nil, fmt.Errorf("open object %s: %w", name, blob.ErrNotFound)
	}
	size, err := f.Size()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open object %s: %w", name, err)
	}
	return reader{f, size}, nil
}

type reader struct {
	vfs.File
	size int64
}

func (r reader) Size() int64 { return r.size }

// absent replaces err by ErrNotFound when path is no file.
func (s *Store) absent(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return blob.ErrNotFound
	}
	info, serr := s.fs.Stat(path)
	switch {
	case errors.Is(serr, fs.ErrNotExist), serr == nil && info.Dir:
		return blob.ErrNotFound
	case serr != nil: // below a file: not a directory
		if info, err := s.fs.Stat(filepath.Dir(path)); err == nil && !info.Dir {
			return blob.ErrNotFound
		}
	}
	return err
}

// Delete implements [blob.Store]. It removes directories that it leaves empty, but the root.
func (s *Store) Delete(ctx context.Context, name string) error {
	path, err := s.begin(ctx, name)
	if err != nil {
		return fmt.Errorf("delete object: %w", err)
	}
	if info, err := s.fs.Stat(path); err == nil && info.Dir {
		return nil // a folder of objects is not one
	}
	parent := filepath.Dir(path)
	if err := s.fs.Remove(path); err != nil {
		if errors.Is(s.absent(path, err), blob.ErrNotFound) {
			return nil
		}
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	if err := s.fs.SyncDir(parent); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	s.prune(parent)
	return nil
}

// prune removes dir and its parents as far as they are empty. It is not durable: an empty directory that comes back
// after a crash holds no object.
func (s *Store) prune(dir string) {
	for ; dir != s.root; dir = filepath.Dir(dir) {
		if names, err := s.fs.ReadDir(dir); err != nil || len(names) > 0 {
			return // without the lock, which waits for all that publish
		}
		s.dirs.Lock()
		err := s.fs.Remove(dir) // fails when not empty
		if err == nil {
			s.mu.Lock()
			delete(s.durable, dir)
			s.mu.Unlock()
		}
		s.dirs.Unlock()
		if err != nil {
			return
		}
	}
}

// List implements [blob.Store]. Its memory is that of the names of one path of directories.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		err := s.walk(ctx, "", prefix, yield)
		if err != nil && !errors.Is(err, errStopped) {
			yield(blob.Info{}, fmt.Errorf("list objects %s: %w", prefix, err))
		}
	}
}

var errStopped = errors.New("the caller wants no more")

type entry struct {
	name string // ends in "/" for a directory, so that the order is that of whole names
	size int64
}

// walk yields the objects below folder, which is "" or ends in "/".
func (s *Store) walk(ctx context.Context, folder, prefix string, yield func(blob.Info, error) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path := filepath.Join(s.root, filepath.FromSlash(folder))
	names, err := s.fs.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries := make([]entry, 0, len(names))
	for _, name := range names {
		full := folder + name
		if folder == "" && (name == tmpName || name == lockName) || blob.CheckName(full) != nil {
			continue
		}
		if !strings.HasPrefix(full, prefix) && !strings.HasPrefix(prefix, full+"/") {
			continue
		}
		info, err := s.fs.Stat(filepath.Join(path, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		switch {
		case info.Dir:
			entries = append(entries, entry{name: full + "/"})
		case strings.HasPrefix(full, prefix):
			entries = append(entries, entry{full, info.Size})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for _, e := range entries {
		if strings.HasSuffix(e.name, "/") {
			if err := s.walk(ctx, e.name, prefix, yield); err != nil {
				return err
			}
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !yield(blob.Info{Name: e.name, Size: e.size}, nil) {
			return errStopped
		}
	}
	return nil
}
