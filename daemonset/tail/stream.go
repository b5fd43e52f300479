package tail

import (
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/braidobs/braid/daemonset/tail/checkpoint"
	"github.com/braidobs/braid/daemonset/tail/line"
)

const (
	// settle is how long a file that was rotated or deleted may still be written to: the runtime opens the new one
	// first.
	settle = 10 * time.Second
	// tailSettle is the same for a last line without a newline, which holds the newer files up.
	tailSettle = 2 * time.Second
	// copySettle is how long a file that begins like the live one is taken for a copy that is being made before the
	// live one is truncated.
	copySettle = time.Minute
	// absentSettle is how long a file that is not open may be missing before it is given up, and blindSettle the same
	// while there are files that cannot be opened.
	absentSettle = time.Second
	blindSettle  = time.Minute
	// silence is how long the end of a record is waited for.
	silence = 5 * time.Second
	// endedSilence is the same once the container has ended or its log is gone.
	endedSilence = time.Second
)

// stream is one log stream.
type stream struct {
	key    StreamKey
	id     string
	source Source // of plain files; the zero one for pods
	dir    string // of the live file
	live   string // its name in dir

	log       *slog.Logger
	metrics   *metrics
	partial   *gauge
	maxRecord int
	maxOpen   int64
	now       func() time.Time

	mu       sync.Mutex // guards all below
	files    []*logFile // oldest first
	pieces   [2]piece   // of stdout and stderr
	carry    carry
	parser   line.Parser
	cur      *logFile // what was read last
	lastTime int64    // of the last record read
	rescan   bool     // the directory is to be listed: a file was truncated
	dirty    bool     // the checkpoint is older
	pending  bool     // something waits for time to pass
	warned   bool     // of a file that cannot be opened
	closed   bool     // nothing is read any more

	nRead, nAcked, nLost, nRecords int64

	sched schedState // guarded by scheduler.mu
}

// piece is a record whose end has not come.
type piece struct {
	open      bool
	file      *logFile // where it begins
	start     int64
	buf       []byte
	size      int
	time      int64 // of the first piece
	lastTime  int64
	last      time.Time // when the last piece was read
	truncated bool
	torn      bool
}

// carry is a line that is longer than what is read at once.
type carry struct {
	open  bool
	file  *logFile
	start int64
	buf   []byte // its beginning
	size  int64
	last  time.Time
}

// restore takes over the files of a checkpoint.
func (s *stream) restore(c checkpoint.Stream) {
	for _, f := range c.Files {
		s.files = append(s.files, restored(f))
	}
}

// state is what the checkpoint keeps of s. Files of which nothing can have been sent are left out.
func (s *stream) state() checkpoint.Stream {
	st := checkpoint.Stream{ID: s.id, Key: s.key.fields()}
	for _, f := range s.files {
		if f.headKnown {
			st.Files = append(st.Files, f.state())
		}
	}
	return st
}

// refresh takes note of what is in the directory: list has the files of the stream, oldest first. With skipOld, files
// older than that are not read. It says whether there is something to read.
func (s *stream) refresh(list []entry, skipOld time.Time) (work bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.rescan = false
	now := s.now()
	found := make([]*logFile, len(list)) // by entry
	seen := map[*logFile]bool{}
	gens := map[[2]uint64]uint64{} // of inodes
	for _, f := range s.files {
		if f.src != nil {
			s.learn(f, false)
		}
		node := [2]uint64{f.dev, f.ino}
		gens[node] = max(gens[node], f.gen)
	}
	for i, e := range list {
		if f := s.known(e, seen); f != nil {
			found[i], seen[f] = f, true
			if f.path != e.path || f.rot != e.rot {
				f.since = now
			}
			changed := f.stat != e.stat
			f.path, f.rot, f.stat = e.path, e.rot, e.stat
			if changed && f.replaced() {
				at := slices.Index(s.files, f)
				s.truncated(at)
				delete(seen, f)
				found[i], seen[s.files[at+1]] = s.files[at+1], true
			}
		}
	}
	blind := false
	for i, e := range list {
		if found[i] != nil {
			continue
		}
		if s.rescan { // an older file is under another name by now: this one waits for it
			break
		}
		f, err := openFile(e, s.source)
		if errors.Is(err, fs.ErrNotExist) { // renamed or compressed meanwhile
			s.rescan, blind = true, true
			continue
		}
		if err != nil {
			if !s.warned {
				s.log.Warn("log file cannot be opened, trying again", "stream", s.id, "file", e.path, "err", err)
			}
			s.warned, blind = true, true
			continue
		}
		old, wait := s.same(f, seen, now)
		switch {
		case wait, !f.headKnown && !f.rot.live && now.Sub(e.stat.mtime) < copySettle: // it is being written
			f.close()
		case old != nil:
			if seen[old] { // the plain and the compressed form of one file
				f.close()
				continue
			}
			if !f.compressed && f.size > old.resume {
				old.done = false
			}
			old.take(f)
			old.since = now
			seen[old] = true
			s.dirty = true
		default:
			f.since = now
			if gen, ok := gens[[2]uint64{f.dev, f.ino}]; ok { // truncated, or the inode is used again
				s.renew(f, gen+1)
			}
			if e.stat.mtime.Before(skipOld) {
				s.skip(f)
			}
			s.insert(f, list[i+1:], found[i+1:])
			found[i], seen[f] = f, true
			s.dirty = true
		}
	}
	rotated := len(seen) > 0
	for _, f := range s.files {
		if seen[f] {
			continue
		}
		if !f.deleted() || f.since.IsZero() {
			f.path, f.since = "", now
			f.rot.live = false
			f.stat = statKey{}
		}
		switch away := now.Sub(f.since); {
		case !f.absent():
		case away < absentSettle || blind && away < blindSettle:
			s.pending = true // newer files wait
		default:
			s.missing(f, rotated)
		}
	}
	s.tidy(now)
	return s.waits() || slices.ContainsFunc(s.files, func(f *logFile) bool {
		return f.loss != nil || f.src != nil && (f.compressed && !f.drained || !f.compressed && f.stat.size != f.read || f.deleted())
	})
}

// known finds the file that e names, without looking into it.
func (s *stream) known(e entry, seen map[*logFile]bool) *logFile {
	for _, f := range s.files {
		switch {
		case seen[f] || f.cut:
		case f.src != nil && f.compressed == e.rot.compressed: // an inode is not used again while it is open
			if f.ino == e.stat.ino && f.dev == e.stat.dev {
				return f
			}
		case !f.deleted() && f.stat == e.stat:
			return f
		}
	}
	return nil
}

// same finds the file that the newly opened f is: by its head. With wait, f is not to be touched yet.
func (s *stream) same(f *logFile, seen map[*logFile]bool, now time.Time) (old *logFile, wait bool) {
	if !f.headKnown {
		return nil, false
	}
	for _, o := range s.files {
		if !o.headKnown || o.head != f.head || o.src != nil && o.src == f.src {
			continue
		}
		sameNode := o.ino == f.ino && o.dev == f.dev
		switch {
		case sameNode && !f.compressed && f.size < o.resume: // truncated while nobody looked
			return nil, false
		case f.unique, sameNode:
			if o.rot.live && seen[o] && !f.rot.live && !f.compressed {
				return nil, true // a copy in the making: the live one is going to be truncated
			}
			return o, false
		case !seen[o] && (f.compressed || o.src == nil && !o.done):
			return o, false
		case o.rot.live && !f.compressed && now.Sub(f.stat.mtime) < copySettle:
			return nil, true
		}
	}
	return nil, false
}

// renew gives f the name of another generation of its inode.
func (s *stream) renew(f *logFile, gen uint64) {
	f.gen = gen
	if f.headKnown {
		f.id, f.headKnown = [16]byte{}, false
		s.learn(f, true)
	}
}

// learn reads the head of f when there is enough of it.
func (s *stream) learn(f *logFile, force bool) {
	if err := f.learn(s.source, force); err != nil {
		s.log.Warn("log file cannot be read", "stream", s.id, "file", f.path, "err", err)
	}
}

// skip marks all that f has as read and acknowledged.
func (s *stream) skip(f *logFile) {
	if f.compressed {
		f.done, f.drained = true, true
		f.close()
		return
	}
	f.read, f.resume = f.size, f.size
	f.sent = uint64(f.size) << 1
	f.acked = f.sent
}

// insert puts f in front of the first file that comes after it in its directory.
func (s *stream) insert(f *logFile, after []entry, found []*logFile) {
	for i := range after {
		if at := slices.Index(s.files, found[i]); found[i] != nil && at >= 0 {
			s.files = slices.Insert(s.files, at, f)
			return
		}
	}
	s.files = append(s.files, f)
}

// missing gives a file up that is neither open nor in its directory. A file that was all acknowledged as far as is
// known is only worth a word when others have taken its place: the container went on writing.
func (s *stream) missing(f *logFile, rotated bool) {
	reason := RotatedAway
	if f.cut {
		reason = Truncated
	}
	cut := f.cut || slices.ContainsFunc(s.files, func(o *logFile) bool { return o != f && o.ino == f.ino && o.dev == f.dev && o.src != nil })
	lost := max(0, f.size-f.read)
	if lost == 0 && (cut || !rotated || s.openIn(f)) {
		f.resume, f.done = f.read, !s.openIn(f)
		s.dirty = true
		return
	}
	s.lose(f, reason, lost)
}

// lose puts a loss in the place of what is left of f.
func (s *stream) lose(f *logFile, reason Reason, bytes int64) {
	f.loss = &Loss{Reason: reason, Bytes: bytes, After: s.lastTime}
	if i := slices.Index(s.files, f); i >= 0 && i+1 < len(s.files) {
		f.loss.Before = s.files[i+1].headTime
	}
	s.count(reason, bytes)
	s.log.Warn("bytes of a log are lost", "stream", s.id, "reason", string(reason), "bytes", bytes)
	f.close()
}

func (s *stream) count(reason Reason, bytes int64) {
	s.nLost += bytes
	s.metrics.lost[reason].Add(float64(bytes))
}

// openIn says whether a record that is not whole begins in f.
func (s *stream) openIn(f *logFile) bool {
	for i := range s.pieces {
		if s.pieces[i].open && s.pieces[i].file == f {
			return true
		}
	}
	return s.carry.open && s.carry.file == f
}

// tidy closes files that nothing more comes from, and forgets those that are gone.
func (s *stream) tidy(now time.Time) {
	s.files = slices.DeleteFunc(s.files, func(f *logFile) bool {
		acked := f.loss == nil && f.resume >= f.read && !s.openIn(f)
		switch {
		case !acked:
			return false
		case f.done:
		case f.compressed && f.drained:
			f.done = true
		case f.compressed || f.rot.live || f.src == nil:
			return false
		default: // plain, rotated or deleted
			if fi, err := f.src.Stat(); err == nil {
				f.size = fi.Size()
			}
			if f.size > f.resume || now.Sub(f.since) < settle && !f.deleted() || now.Sub(f.since) < tailSettle {
				s.pending = true
				return false
			}
			f.done = true
		}
		f.close()
		s.dirty = true
		return f.deleted()
	})
}

// finished says that the stream has no file and nothing under way.
func (s *stream) finished() bool {
	return len(s.files) == 0 && !s.carry.open && !s.pieces[0].open && !s.pieces[1].open
}

// wantsScan says whether the directory has to be listed for reading to go on.
func (s *stream) wantsScan() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rescan
}

// measure learns how large open files are by now, also while nothing is read.
func (s *stream) measure() {
	for _, f := range s.files {
		if f.src == nil || f.compressed {
			continue
		}
		if fi, err := f.src.Stat(); err == nil && fi.Size() > f.size {
			f.size = fi.Size()
			s.dirty = true
		}
	}
}

// held is how many bytes that were not read are behind descriptors of files without a name.
func (s *stream) held() (n int64) {
	for _, f := range s.files {
		n += f.hidden()
	}
	return n
}

// dropHeld gives up the oldest file without a name and returns how many bytes that were.
func (s *stream) dropHeld() int64 {
	for _, f := range s.files {
		n := f.hidden()
		if n <= 0 {
			continue
		}
		s.learn(f, true)
		if !f.compressed {
			f.read = f.size
		}
		f.drained = true
		s.lose(f, HeldFull, n)
		return n
	}
	return 0
}

// status describes the stream.
func (s *stream) status() StreamStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := StreamStatus{Key: s.key, Read: s.nRead, Acked: s.nAcked, Lost: s.nLost, Records: s.nRecords, Held: s.held()}
	for _, f := range s.files {
		st.Files = append(st.Files, f.display())
		st.Lag += f.behind()
	}
	return st
}

// close releases the descriptors.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for i := range s.pieces {
		s.partial.add(-int64(len(s.pieces[i].buf)))
		s.pieces[i] = piece{}
	}
	s.partial.add(-int64(len(s.carry.buf)))
	s.carry = carry{}
	for _, f := range s.files {
		f.close()
	}
}
