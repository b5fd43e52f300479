package tail

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/braidobs/braid/daemonset/tail/checkpoint"
	"github.com/braidobs/braid/daemonset/tail/line"
)

// headBytes is how much of a file's beginning identifies it at most.
const headBytes = 256

// skipStep bounds how much of a compressed file is passed over at once.
const skipStep = 4 << 20

// logFile is a file of a stream. The stream's mutex guards it.
type logFile struct {
	path string // as last seen; empty when it has no name any more
	rot  rotation
	dev  uint64
	ino  uint64  // of src; when it is closed, what it was last
	stat statKey // of what path names

	src        *os.File // nil when nothing is left to read, or the file is missing
	gz         *gzSource
	compressed bool
	drained    bool // all of a compressed file was read

	headKnown bool
	head      [16]byte
	unique    bool // no other file begins with this head
	headTime  int64
	format    line.Format
	id        [16]byte
	gen       uint64

	size    int64 // as last seen; of compressed files the bytes on disk
	read    int64 // offset to read on from
	resume  int64 // offset below which all is acknowledged
	sent    uint64
	acked   uint64
	done    bool
	loss    *Loss
	cut     bool // was truncated: src went to the file that took its place
	waiting int64
	since   time.Time // when size became waiting, or the name changed
}

// statKey tells whether a file has changed since it was looked at.
type statKey struct {
	dev, ino uint64
	size     int64
	mtime    time.Time
}

// entry is a name found in a directory.
type entry struct {
	path string
	rot  rotation
	stat statKey
}

// statEntry describes the file at path, following links; ok is false when there is no regular file.
func statEntry(path string, rot rotation) (entry, bool) {
	fi, err := os.Stat(path)
	if err != nil || !fi.Mode().IsRegular() {
		return entry{}, false
	}
	return entry{path: path, rot: rot, stat: statOf(fi)}, true
}

func statOf(fi fs.FileInfo) statKey {
	dev, ino := fileNumbers(fi)
	return statKey{dev: dev, ino: ino, size: fi.Size(), mtime: fi.ModTime()}
}

// openFile opens the file that e describes and learns its head. It does not exist when its name is by now that of another.
func openFile(e entry, want Source) (*logFile, error) {
	src, err := os.Open(e.path)
	if err != nil {
		return nil, err
	}
	fi, err := src.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: e.path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	f := &logFile{path: e.path, rot: e.rot, src: src, compressed: e.rot.compressed, waiting: -1}
	f.stat = statOf(fi)
	if f.stat.dev != e.stat.dev || f.stat.ino != e.stat.ino { // a rotation gave the name to another file
		return nil, errors.Join(&fs.PathError{Op: "open", Path: e.path, Err: fs.ErrNotExist}, src.Close())
	}
	f.dev, f.ino, f.size = f.stat.dev, f.stat.ino, f.stat.size
	if f.compressed {
		f.gz = &gzSource{f: src}
	}
	if err := f.learn(want, false); err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return f, nil
}

// learn reads the head once there is enough of it: the first line, or 256 bytes; with force, what there is.
func (f *logFile) learn(want Source, force bool) error {
	if f.headKnown {
		return nil
	}
	var buf [headBytes]byte
	n, err := f.readHead(buf[:])
	if err != nil {
		return err
	}
	head := buf[:n]
	whole := false
	if i := bytes.IndexByte(head, '\n'); i >= 0 {
		head, whole = head[:i+1], true
	} else if n < headBytes && (!force || n == 0) && !f.compressed {
		return nil
	}
	f.setHead(head, whole, want)
	return nil
}

func (f *logFile) readHead(buf []byte) (int, error) {
	var n int
	var err error
	if f.gz != nil {
		n, err = f.gz.readAt(buf, 0)
		f.gz.reset()
	} else {
		n, err = f.src.ReadAt(buf, 0)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// replaced says that the open file begins with something else than it did.
func (f *logFile) replaced() bool {
	if !f.headKnown || f.src == nil || f.compressed {
		return false
	}
	var buf [headBytes]byte
	n, err := f.readHead(buf[:])
	head := buf[:n]
	if i := bytes.IndexByte(head, '\n'); i >= 0 {
		head = head[:i+1]
	}
	sum := sha256.Sum256(head)
	return err == nil && [16]byte(sum[:16]) != f.head
}

func (f *logFile) setHead(head []byte, whole bool, want Source) {
	f.headKnown = true
	sum := sha256.Sum256(head)
	copy(f.head[:], sum[:])
	text := bytes.TrimRight(head, "\r\n")
	detected, ok := line.Detect(text)
	var p line.Parser
	switch {
	case want.Format == "cri":
		f.format = line.CRI
	case want.Format == "docker":
		f.format = line.Docker
	case want.Format == "raw":
		f.format = line.Raw
	case ok:
		f.format = detected
	case want.Name == "": // a container's log whose first line is torn
		f.format = line.CRI
	}
	if ok && (detected == line.CRI || whole) {
		l := p.Parse(detected, bytes.Clone(text))
		f.unique = l.Time != 0 && !l.Torn
		f.headTime = l.Time
	}
	if f.id != [16]byte{} {
		return // known from the checkpoint
	}
	f.id = f.head
	if !f.unique {
		b := append([]byte(nil), f.head[:]...)
		b = binary.LittleEndian.AppendUint64(b, f.ino)
		b = binary.LittleEndian.AppendUint64(b, birth(f.src))
		b = binary.LittleEndian.AppendUint64(b, f.gen)
		sum = sha256.Sum256(b)
		copy(f.id[:], sum[:])
	}
}

// name is what the backend knows the file by.
func (f *logFile) name() string { return hex.EncodeToString(f.id[:]) }

// absent says that the file has more to read and was not found.
func (f *logFile) absent() bool { return f.src == nil && !f.done && f.loss == nil }

// deleted says that the file has no name any more.
func (f *logFile) deleted() bool { return f.path == "" }

func (f *logFile) display() string {
	if f.deleted() {
		return "(deleted)"
	}
	return filepath.Base(f.path)
}

// behind is how many bytes are not acknowledged, as far as is known.
func (f *logFile) behind() int64 {
	switch {
	case f.done:
		return 0
	case f.compressed && f.drained && f.resume >= f.read:
		return 0
	case f.compressed:
		return f.size
	default:
		return max(0, f.size-f.resume)
	}
}

// hidden is how many bytes are not read and behind the descriptor of a file without a name.
func (f *logFile) hidden() int64 {
	switch {
	case !f.deleted() || f.src == nil || f.done:
		return 0
	case f.compressed && f.drained:
		return 0
	case f.compressed:
		return f.size
	default:
		return max(0, f.size-f.read)
	}
}

func (f *logFile) close() {
	if f.src != nil {
		_ = f.src.Close() // was only read
		f.src, f.gz = nil, nil
	}
}

// readInto reads from offset read on; end says that a compressed file has no more than that.
func (f *logFile) readInto(buf []byte) (n int, end bool, err error) {
	if f.gz == nil {
		n, err = f.src.ReadAt(buf, f.read)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return n, false, err
	}
	n, err = f.gz.readAt(buf, f.read)
	if errors.Is(err, io.EOF) {
		return n, true, nil
	}
	return n, false, err
}

// take gives f the descriptor and the name of other, which has the same content.
func (f *logFile) take(other *logFile) {
	f.path, f.rot, f.stat = other.path, other.rot, other.stat
	switch {
	case f.done || f.src != nil:
		other.close()
	default:
		f.src, f.gz, f.compressed, f.size = other.src, other.gz, other.compressed, other.size
		f.dev, f.ino = other.dev, other.ino
		f.drained, f.cut, f.waiting = false, false, -1
		f.format, f.unique, f.headTime, f.headKnown = other.format, other.unique, other.headTime, true
	}
}

// state is what the checkpoint keeps of f.
func (f *logFile) state() checkpoint.File {
	size := f.size
	if f.compressed {
		size = f.read
	}
	return checkpoint.File{
		Head: f.head, ID: f.id, Dev: f.dev, Ino: f.ino, Generation: f.gen,
		Resume: uint64(f.resume), Acked: f.acked, Size: uint64(max(size, f.resume)), Done: f.done,
	}
}

// restored makes a file of a checkpoint; it is missing until it is found.
func restored(c checkpoint.File) *logFile {
	resume := int64(min(c.Resume, 1<<62))
	return &logFile{
		headKnown: true, head: c.Head, id: c.ID, dev: c.Dev, ino: c.Ino, gen: c.Generation,
		size: int64(min(c.Size, 1<<62)), read: resume, resume: resume, sent: c.Acked, acked: c.Acked, done: c.Done, waiting: -1,
	}
}

// gzSource reads a compressed file at rising offsets.
type gzSource struct {
	f    *os.File
	zr   *gzip.Reader
	pos  int64  // of the next byte out of zr
	rest []byte // the bytes before pos that were read and not used
	end  bool
}

// errSkipping says that the offset is not reached yet: call again.
var errSkipping = errors.New("passing over what was read before")

func (g *gzSource) reset() { g.zr, g.pos, g.rest, g.end = nil, 0, nil, false }

// readAt fills buf from offset off. It returns io.EOF together with the last bytes.
func (g *gzSource) readAt(buf []byte, off int64) (n int, err error) {
	if g.zr == nil || off < g.pos-int64(len(g.rest)) {
		g.reset()
		if _, err := g.f.Seek(0, io.SeekStart); err != nil {
			return 0, err
		}
		if g.zr, err = gzip.NewReader(g.f); err != nil {
			g.zr = nil
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	if off > g.pos {
		g.rest = nil
		n, err := io.CopyN(io.Discard, g.zr, min(off-g.pos, skipStep))
		g.pos += n
		switch {
		case errors.Is(err, io.EOF): // shorter than what was read before: there is nothing more
			g.end = true
			return 0, io.EOF
		case err != nil:
			return 0, err
		case g.pos < off:
			return 0, errSkipping
		}
	}
	n = copy(buf, g.rest[int64(len(g.rest))-(g.pos-off):])
	if left := g.pos - off - int64(n); left > 0 {
		g.rest = g.rest[int64(len(g.rest))-left:]
		return n, nil
	}
	for n < len(buf) && !g.end {
		m, err := g.zr.Read(buf[n:])
		n += m
		g.pos += int64(m)
		if errors.Is(err, io.EOF) {
			g.end = true
		} else if err != nil {
			return n, err
		}
	}
	g.rest = nil
	if g.end {
		return n, io.EOF
	}
	return n, nil
}

// keep takes note of bytes that were read last and not used; the next read begins with them.
func (g *gzSource) keep(b []byte) { g.rest = append(bytes.Clone(b), g.rest...) }
