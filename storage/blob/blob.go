// Package blob is the contract of the object store: named, immutable byte sequences, written once, read at any
// offset. Parts, manifests and snapshots are objects.
//
// Package dir keeps objects in a local directory, package blobtest is the acceptance suite of implementations.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

var (
	// ErrNotFound is found in the error for an object that is not there.
	ErrNotFound = errors.New("object not found")
	// ErrExists is found in the error of PutIfAbsent for an object that is there.
	ErrExists = errors.New("object exists")
	// ErrTooBig is found in the error of Get for an object over the limit of the caller.
	ErrTooBig = errors.New("object is larger than allowed")
	// ErrInvalidName is found in the error for a name that CheckName refuses.
	ErrInvalidName = errors.New("invalid object name")
)

// Store is a set of objects. It is safe for concurrent use.
//
// Names are paths: segments of letters, digits and "._=-" joined by "/", see [CheckName]. A name must not be a
// folder of another one ("a" and "a/b"). All names mentioned in errors are object names.
type Store interface {
	// Put makes name durable with the content that write writes, replacing an object of that name. Readers and a
	// crash see the whole object or nothing (or the whole earlier one). An error of write is returned, wrapped,
	// and leaves nothing. After an error of the store itself the object is there as a whole or not at all.
	Put(ctx context.Context, name string, write func(w io.Writer) error) error

	// PutIfAbsent makes the small object name durable with content data, or returns ErrExists when there is one
	// of that name; that one is durable then. Of many concurrent calls, in any number of processes, one succeeds.
	// After any other error the object may be there, with this data.
	PutIfAbsent(ctx context.Context, name string, data []byte) error

	// Get returns the content of name: ErrNotFound if absent, ErrTooBig if longer than limit.
	Get(ctx context.Context, name string, limit int64) ([]byte, error)

	// Open opens name for reading at offsets: ErrNotFound if absent. A reader stays valid when the object is
	// deleted or replaced.
	Open(ctx context.Context, name string) (Reader, error)

	// List yields the objects whose names begin with prefix, in the order of their names as strings. An object put
	// or deleted meanwhile may be yielded or not. An error ends the sequence.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]

	// Delete removes name, durably. An absent object is not an error.
	Delete(ctx context.Context, name string) error
}

// Reader reads one object. Close releases it.
type Reader interface {
	io.ReaderAt
	io.Closer
	// Size returns the length of the object.
	Size() int64
}

// Info describes an object in a list.
type Info struct {
	Name string
	Size int64
}

const (
	maxName    = 1024
	maxSegment = 255
)

// CheckName returns an error that satisfies errors.Is(err, ErrInvalidName) unless name is 1 to 1024 bytes of
// segments joined by "/", each 1 to 255 of [A-Za-z0-9._=-] and not "." or "..".
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%w: length %d is not in 1 to %d", ErrInvalidName, len(name), maxName)
	}
	for seg := range strings.SplitSeq(name, "/") {
		if seg == "" || len(seg) > maxSegment || seg == "." || seg == ".." {
			return fmt.Errorf("%w: %q has the segment %q", ErrInvalidName, name, seg)
		}
		for _, c := range []byte(seg) {
			if !valid(c) {
				return fmt.Errorf("%w: %q has the character %q", ErrInvalidName, name, c)
			}
		}
	}
	return nil
}

func valid(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '.' || c == '_' || c == '=' || c == '-'
}
