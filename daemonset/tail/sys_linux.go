package tail

import (
	"errors"
	"io/fs"
	"os"
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
