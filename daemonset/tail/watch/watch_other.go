//go:build !linux

package watch

import "errors"

// Watcher does not exist on this system.
type Watcher struct{}

// New returns an error.
func New() (*Watcher, error) { return nil, errors.ErrUnsupported }

// Add returns an error.
func (*Watcher) Add(string, bool) (int, error) { return 0, errors.ErrUnsupported }

// Read returns an error.
func (*Watcher) Read([]byte, func(Event)) error { return errors.ErrUnsupported }

// Close does nothing.
func (*Watcher) Close() error { return nil }
