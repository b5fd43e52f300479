package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/braidobs/braid/storage/blob"
)

// Link gives an object of another store the same name in this one without copying it: the two share the content. It
// says whether it could: the other store must be a directory of the same file system. An object of that name must not
// be there.
func (s *Store) Link(ctx context.Context, from blob.Store, name string) (ok bool, err error) {
	other, ok := from.(*Store)
	if !ok || other.fs != s.fs {
		return false, nil
	}
	path, err := s.begin(ctx, name)
	if err != nil {
		return false, fmt.Errorf("link object: %w", err)
	}
	source, err := other.begin(ctx, name)
	if err != nil {
		return false, fmt.Errorf("link object: %w", err)
	}
	err = s.publish(path, func() error { return s.fs.Link(source, path) })
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrExist):
		return false, fmt.Errorf("link object %s: %w", name, blob.ErrExists)
	case errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("link object %s: %w", name, other.absent(source, err))
	default:
		return false, nil // another disk, or a file system without links: the caller copies
	}
}
