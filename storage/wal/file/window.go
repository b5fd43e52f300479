package file

import (
	"errors"
	"fmt"
	"io"

	"github.com/braidobs/braid/storage/vfs"
)

// windowSize is what is read at a time. A longer record makes the buffer grow to its length, which the caller has
// checked against the size of the file.
const windowSize = 256 << 10

// window reads a file through a buffer.
type window struct {
	f    vfs.File
	size int64

	buf []byte // the bytes at off
	off int64
}

func (w *window) reset(f vfs.File, size int64) {
	w.f, w.size, w.buf, w.off = f, size, w.buf[:0], 0
}

// at returns the n bytes at off, valid until the next call. They must lie inside the file.
func (w *window) at(off int64, n int) ([]byte, error) {
	b, err := w.peek(off, n)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// peek returns n or more bytes at off, or those up to the end of the file, valid until the next call.
func (w *window) peek(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), w.size-off))
	if i := off - w.off; i >= 0 && i+int64(n) <= int64(len(w.buf)) {
		return w.buf[i:], nil
	}
	want := int(min(int64(max(n, windowSize)), w.size-off))
	if cap(w.buf) < want {
		w.buf = make([]byte, want)
	}
	w.buf, w.off = w.buf[:want], off
	got, err := w.f.ReadAt(w.buf, off)
	w.buf = w.buf[:got]
	if got >= n {
		return w.buf, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("read at offset %d: %w", off+int64(got), err)
}
