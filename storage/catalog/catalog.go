// Package catalog is the contract of the store's memory of small things that can be rebuilt: what the manifests
// say, so that a start need not read thousands of files. It is never the truth: an empty catalog costs a
// rebuild and nothing else.
package catalog

import (
	"errors"
	"iter"
)

// ErrNotFound is returned by Get for a key that is not there.
var ErrNotFound = errors.New("not in the catalog")

// Catalog keeps values by key. It is safe for concurrent use.
type Catalog interface {
	// Get returns the value of key, or ErrNotFound. The caller may keep it.
	Get(key string) ([]byte, error)
	// Set keeps value under key. It need not survive a crash.
	Set(key string, value []byte) error
	// Delete forgets keys; unknown ones are no error.
	Delete(keys ...string) error
	// Scan returns keys with a prefix in byte order, and their values.
	Scan(prefix string) iter.Seq2[Entry, error]
	// Close releases everything; what was set may be found again by the next process.
	Close() error
}

// Entry is a key and its value.
type Entry struct {
	Key   string
	Value []byte
}
