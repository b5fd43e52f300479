package watch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maskNames = unix.IN_CREATE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE
	maskFiles = maskNames | unix.IN_MODIFY
)

// Watcher is an inotify instance. Its methods are for two goroutines: one calls Read, the other the rest.
type Watcher struct {
	f *os.File
}

// New begins to watch nothing.
func New() (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("begin to watch directories (see the sysctl fs.inotify.max_user_instances): %w", err)
	}
	return &Watcher{f: os.NewFile(uintptr(fd), "inotify")}, nil
}

// Add watches a directory: for changes of names, or of the content of its files as well.
func (w *Watcher) Add(dir string, files bool) (wd int, err error) {
	mask := uint32(maskNames | unix.IN_ONLYDIR)
	if files {
		mask = maskFiles | unix.IN_ONLYDIR
	}
	c, err := w.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var werr error
	err = c.Control(func(fd uintptr) { wd, werr = unix.InotifyAddWatch(int(fd), dir, mask) })
	if errors.Is(werr, unix.ENOSPC) {
		werr = fmt.Errorf("no watches left, see the sysctl fs.inotify.max_user_watches: %w", werr)
	}
	return wd, errors.Join(err, werr)
}

// Read waits for events and calls fn for each. It returns an error once the watcher is closed.
func (w *Watcher) Read(buf []byte, fn func(Event)) error {
	n, err := w.f.Read(buf)
	if err != nil {
		return err
	}
	for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
		mask := binary.NativeEndian.Uint32(b[4:])
		size := int(binary.NativeEndian.Uint32(b[12:]))
		if size > len(b)-unix.SizeofInotifyEvent {
			break
		}
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size]), "\x00")
		fn(Event{
			WD: int(int32(binary.NativeEndian.Uint32(b))), Name: name, //nolint:gosec // the kernel's int
			Modify: mask&unix.IN_MODIFY != 0, Gone: mask&unix.IN_IGNORED != 0, Overflow: mask&unix.IN_Q_OVERFLOW != 0,
		})
		b = b[unix.SizeofInotifyEvent+size:]
	}
	return nil
}

// Close ends Read.
func (w *Watcher) Close() error { return w.f.Close() }
