package db

import (
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

var _ storage.LogFollower = (*DB)(nil)

// follower is told of the logs of a tenant.
type follower struct {
	tenant telemetry.Tenant
	f      func(*telemetry.Batch)
}

// FollowLogs implements storage.LogFollower.
func (d *DB) FollowLogs(tenant telemetry.Tenant, f func(*telemetry.Batch)) (stop func()) {
	fo := &follower{tenant: tenant, f: f}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.followers = append(slices.Clip(d.followers), fo)
	return func() {
		d.mu.Lock() // which tell is called under
		defer d.mu.Unlock()
		d.followers = slices.DeleteFunc(slices.Clone(d.followers), func(o *follower) bool { return o == fo })
	}
}

// tell hands new logs to those who follow them. It needs mu.
func (d *DB) tell(req *storage.Request) {
	for i := range req.Batches {
		b := &req.Batches[i]
		if len(b.Logs) == 0 {
			continue
		}
		for _, fo := range d.followers {
			if fo.tenant == b.Tenant {
				fo.f(b)
			}
		}
	}
}
