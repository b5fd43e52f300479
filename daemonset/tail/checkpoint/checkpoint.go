// Package checkpoint keeps how far each log stream has been acknowledged, in one file that only grows until it is
// written anew.
//
// What is lost here is read and sent again, and the backend keeps it from being stored twice. So a state that is
// too old is harmless, and the store may go on with less than it had: a damaged end of the file is cut at the last
// good record, and without a file all begins at the oldest log.
package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"

	"github.com/braidobs/braid/storage/vfs"
)

const (
	fileName = "tail.checkpoint"
	lockName = "tail.lock"

	// maxFileBytes bounds what is read at the start: a million streams of two files have less.
	maxFileBytes = 256 << 20
	// slack is how much larger than four times what counts the file may grow before it is written anew.
	slack = 256 << 10
)

// Stream is a log stream and the files it consists of, oldest first.
type Stream struct {
	ID    string   // at most 512 bytes, not empty
	Key   []string // the parts of the stream's name, at most 16
	Files []File
}

// File is a file of a stream.
type File struct {
	Head       [16]byte // hash of the file's beginning
	ID         [16]byte // what the backend knows it by
	Dev, Ino   uint64
	Generation uint64 // how often the file was truncated
	Resume     uint64 // the offset to read on from
	Acked      uint64 // the highest position that was acknowledged
	Size       uint64 // as last seen
	Done       bool   // nothing comes any more, and all is acknowledged
}

// Store holds the states. It is not for concurrent use.
type Store struct {
	fs      vfs.FS
	path    string
	lock    io.Closer
	live    map[string][]byte // the last put of each stream, framed
	liveLen int64
	pending []byte // framed records that are not in the file
	file    vfs.File
	size    int64
	rewrite bool // the next Sync begins a new file
}

// Open reads the states in dir and returns them by the ID of the stream. A file that cannot be read at all is set
// aside; one of a newer version is an error.
func Open(fsys vfs.FS, dir string, log *slog.Logger) (*Store, map[string]Stream, error) {
	if err := vfs.MkdirAllSync(fsys, dir); err != nil {
		return nil, nil, fmt.Errorf("open the checkpoint: %w", err)
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, nil, fmt.Errorf("open the checkpoint: %w", err)
	}
	s := &Store{fs: fsys, path: filepath.Join(dir, fileName), lock: lock, live: map[string][]byte{}, rewrite: true}
	streams, err := s.load(log)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open the checkpoint %s: %w", s.path, err), lock.Close())
	}
	return s, streams, nil
}

func (s *Store) load(log *slog.Logger) (map[string]Stream, error) {
	streams := map[string]Stream{}
	b, err := vfs.ReadFile(s.fs, s.path, maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return streams, nil
	}
	if err != nil && !errors.Is(err, vfs.ErrTooBig) {
		return nil, err
	}
	if err == nil {
		err = parseHeader(b)
	}
	if errors.Is(err, errNewer) {
		return nil, err
	}
	if err != nil {
		log.Error("the checkpoint cannot be read: every log is read from its oldest file on, the backend keeps what it has",
			"file", s.path, "set_aside", s.path+".damaged", "err", err)
		return streams, s.fs.Rename(s.path, s.path+".damaged")
	}
	rest := b[headerSize:]
	for len(rest) > 0 {
		payload, next, err := parseFrame(rest)
		var st Stream
		var deleted bool
		if err == nil {
			st, deleted, err = decode(payload)
		}
		if err != nil {
			log.Warn("the checkpoint ends in a damaged record: going on with what is before it",
				"file", s.path, "offset", len(b)-len(rest), "bytes", len(rest), "err", err)
			break
		}
		if deleted {
			s.remove(st.ID)
			delete(streams, st.ID)
		} else {
			s.keep(st.ID, appendFrame(nil, payload))
			streams[st.ID] = st
		}
		rest = next
	}
	return streams, nil
}

func (s *Store) keep(id string, frame []byte) {
	s.liveLen += int64(len(frame) - len(s.live[id]))
	s.live[id] = frame
}

func (s *Store) remove(id string) {
	s.liveLen -= int64(len(s.live[id]))
	delete(s.live, id)
}

// Put replaces the state of a stream, from the next Sync on.
func (s *Store) Put(st Stream) {
	frame := appendFrame(nil, appendPut(nil, st))
	s.keep(st.ID, frame)
	s.pending = append(s.pending, frame...)
}

// Delete forgets a stream, from the next Sync on.
func (s *Store) Delete(id string) {
	if _, ok := s.live[id]; !ok {
		return
	}
	s.remove(id)
	s.pending = appendFrame(s.pending, appendDelete(nil, id))
}

// Sync makes what was put durable. After an error the file keeps an older state, and the next Sync writes all of it
// anew.
func (s *Store) Sync() error {
	if len(s.pending) == 0 && !s.rewrite {
		return nil
	}
	if s.rewrite || s.size+int64(len(s.pending)) > 4*s.liveLen+slack {
		return s.compact()
	}
	_, err := s.file.Write(s.pending)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		s.rewrite = true // nothing is known about the end of the file
		s.pending = nil
		return fmt.Errorf("append to the checkpoint: %w", err)
	}
	s.size += int64(len(s.pending))
	s.pending = s.pending[:0]
	return nil
}

// compact writes a file of what counts and puts it in the place of the old one.
func (s *Store) compact() error {
	s.pending = nil
	s.rewrite = true
	if s.file != nil {
		err := s.file.Close()
		s.file = nil
		if err != nil {
			return fmt.Errorf("close the checkpoint: %w", err)
		}
	}
	b := make([]byte, 0, headerSize+s.liveLen)
	b = appendHeader(b)
	for _, id := range slices.Sorted(maps.Keys(s.live)) {
		b = append(b, s.live[id]...)
	}
	if err := vfs.WriteFileAtomic(s.fs, s.path, b); err != nil {
		return fmt.Errorf("write the checkpoint anew: %w", err)
	}
	f, err := s.fs.OpenReadWrite(s.path)
	if err != nil {
		return fmt.Errorf("write the checkpoint anew: %w", err)
	}
	if _, err := io.CopyN(io.Discard, f, int64(len(b))); err != nil { // writes go to the end
		return errors.Join(fmt.Errorf("write the checkpoint anew: %w", err), f.Close())
	}
	s.file, s.size, s.rewrite = f, int64(len(b)), false
	return nil
}

// Close syncs and releases the store.
func (s *Store) Close() error {
	err := s.Sync()
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
	}
	return errors.Join(err, s.lock.Close())
}
