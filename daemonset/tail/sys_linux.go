package tail

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// fileNumbers returns the device and the inode of a file.
func fileNumbers(fi fs.FileInfo) (dev, ino uint64) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev), st.Ino //nolint:unconvert // the types differ by platform
	}
	return 0, 0
}

// birth returns when the file was created, as a number; 0 when the file system does not know.
func birth(f *os.File) uint64 {
	c, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	var st unix.Statx_t
	serr := errors.New("not called")
	err = c.Control(func(fd uintptr) {
		serr = unix.Statx(int(fd), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st)
	})
	if err != nil || serr != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return uint64(st.Btime.Sec)*1e9 + uint64(st.Btime.Nsec)
}

const (
	maskNames = unix.IN_CREATE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE
	maskFiles = maskNames | unix.IN_MODIFY
)

// watcher is an inotify instance. Its methods are for two goroutines: one calls read, the other the rest.
type watcher struct {
	f *os.File
}

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("begin to watch directories (see the sysctl fs.inotify.max_user_instances): %w", err)
	}
	return &watcher{f: os.NewFile(uintptr(fd), "inotify")}, nil
}

// add watches a directory: for changes of names, or of the content of its files as well.
func (w *watcher) add(dir string, files bool) (wd int, err error) {
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

// event is a change in a watched directory.
type event struct {
	wd       int
	name     string
	modify   bool // the content of name changed; otherwise a name came or went
	gone     bool // the watch has ended
	overflow bool // events are missing
}

// read waits for events and calls fn for each. It returns an error once the watcher is closed.
func (w *watcher) read(buf []byte, fn func(event)) error {
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
		fn(event{
			wd: int(int32(binary.NativeEndian.Uint32(b))), name: name, //nolint:gosec // the kernel's int
			modify: mask&unix.IN_MODIFY != 0, gone: mask&unix.IN_IGNORED != 0, overflow: mask&unix.IN_Q_OVERFLOW != 0,
		})
		b = b[unix.SizeofInotifyEvent+size:]
	}
	return nil
}

func (w *watcher) close() error { return w.f.Close() }
