package storage

import "github.com/braidobs/braid/internal/telemetry"

// ChangeReader is what a View may offer besides: it tells how far what was computed over an earlier view still holds.
type ChangeReader interface {
	// Position is a place in the sequence of writes up to which the view shows everything.
	Position() Position
	// OldestChange returns the smallest time, in milliseconds, of all samples of the tenant that the view shows or hides
	// otherwise than a view at since: written, deleted, or dropped by retention after it. It may be smaller than the
	// truth, never larger, and is math.MaxInt64 when nothing changed. ok is false when the store does not know
	// that far back any more; since is the Position of a view of the same open store.
	OldestChange(tenant telemetry.Tenant, since Position) (t int64, ok bool)
}
