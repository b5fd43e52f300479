package db_test

import (
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/blob/dir"
	"github.com/braidobs/braid/storage/vfs"
)

// TestSnapshot takes snapshots while records are written, onto the same disk and onto another, and opens them.
func TestSnapshot(t *testing.T) {
	for _, name := range []string{"the same disk", "another disk"} {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewMem()
			m := newMachine(disk)
			requireOpen(t, m)
			const before, deleted, total = 60, 7, 200
			write := func(n int) {
				_, _, err := m.db.Write(t.Context(), numbered(n, start.Add(time.Duration(n)*time.Second)))
				require.NoError(t, err)
			}
			for n := range before {
				write(n)
				if n == 20 {
					require.NoError(t, m.db.Flush(t.Context()))
				}
			}
			_, err := m.db.Delete(t.Context(), storage.Mask{
				Tenant: tenant, Signal: storage.Metrics, Start: start.UnixMilli() + deleted, End: start.UnixMilli() + deleted,
				Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "numbers")},
			})
			require.NoError(t, err)
			require.NoError(t, m.db.Set(t.Context(), "key", []byte("value")))

			copied := newMachine(vfs.NewMem())
			root := "data/blobs"
			if name == "the same disk" {
				copied.fs, root = disk, "snapshot"
			}
			to, err := dir.Open(copied.fs, root)
			require.NoError(t, err)
			var writers sync.WaitGroup
			writers.Go(func() {
				for n := before; n < total; n++ {
					write(n)
				}
			})
			require.NoError(t, m.db.Snapshot(t.Context(), to))
			require.NoError(t, to.Close())
			writers.Wait()
			m.stop() // what comes must not depend on it

			if name == "the same disk" { // the machine looks for it at its own place
				require.NoError(t, disk.RemoveAll("data"))
				require.NoError(t, disk.MkdirAll("data"))
				require.NoError(t, disk.Rename("snapshot", "data/blobs"))
			}
			requireOpen(t, copied)
			f, warnings := read(t, copied.db)
			require.Empty(t, warnings)
			for n := range before {
				want := 1
				if n == deleted {
					want = 0
				}
				require.Equal(t, []int{1, 1, want}, []int{f.spans[n], f.logs[n], f.samples[n]}, "number %d", n)
			}
			last := before
			for ; last < total && f.spans[last] == 1; last++ { // a prefix of what was written meanwhile
				require.Equal(t, []int{1, 1}, []int{f.logs[last], f.samples[last]}, "number %d", last)
			}
			for n := last; n < total; n++ {
				require.Equal(t, []int{0, 0, 0}, []int{f.spans[n], f.logs[n], f.samples[n]}, "number %d", n)
			}
			require.Equal(t, "value", string(copied.db.Get("key")))
			_, _, err = copied.db.Write(t.Context(), numbered(1000, start))
			require.NoError(t, err, "the copy takes writes")
			require.NoError(t, copied.db.Close(t.Context()))
		})
	}
}
