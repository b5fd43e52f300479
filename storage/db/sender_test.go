package db_test

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/db"
	"github.com/braidobs/braid/storage/vfs"
)

// sender is what a node agent is to the store: it reads numbered lines from two files, one after the other, sends
// pieces of any size, and after a crash goes on from a checkpoint that lies behind what was acknowledged.
type sender struct {
	rng   *rand.Rand
	acked int   // lines
	next  int   // the line after the last that was sent
	ck    int   // the checkpoint
	tried []int // checkpoints since then that were not acknowledged: each may hold or not
}

const (
	senderTenant = telemetry.Tenant("agent")
	perFile      = 40
	senderKey    = "sender/checkpoint"
)

// piece is lines [from, to) of one file.
func piece(from, to int) telemetry.Batch {
	b := telemetry.Batch{
		Tenant: senderTenant, Resource: testResource, Stream: labelSet("service_name", "shop"),
		Source: &telemetry.Source{Stream: "pod", File: strconv.Itoa(from / perFile), From: uint64(from % perFile), To: uint64((to-1)%perFile) + 1},
	}
	for n := from; n < to; n++ {
		b.Logs = append(b.Logs, telemetry.LogRecord{Time: start.UnixNano() + int64(n), Body: telemetry.String(strconv.Itoa(n))})
		b.Source.Ends = append(b.Source.Ends, uint64(n%perFile)+1)
	}
	return b
}

// send sends the next piece, of at most ten lines of one file.
func (s *sender) send(t require.TestingT, d *db.DB) bool {
	to := min(s.next+1+s.rng.IntN(10), (s.next/perFile+1)*perFile)
	_, rejected, err := d.Write(context.Background(), storage.Request{Batches: []telemetry.Batch{piece(s.next, to)}})
	if err != nil {
		return false
	}
	require.Zero(t, rejected.Total())
	s.next = to
	s.acked = max(s.acked, to)
	if s.rng.IntN(3) == 0 {
		s.tried = append(s.tried, s.next)
		if d.Set(context.Background(), senderKey, []byte(strconv.Itoa(s.next))) == nil {
			s.ck, s.tried = s.next, nil
		}
	}
	return true
}

// restart goes back to a place at or before the checkpoint, in the same file or the one before.
func (s *sender) restart() { s.next = max(0, s.ck-s.rng.IntN(perFile/2)) }

func (s *sender) check(t require.TestingT, d *db.DB) {
	ctx := context.Background()
	v, err := d.View(ctx, 0)
	require.NoError(t, err)
	defer v.Close()
	var got []int
	for b, err := range v.Logs(ctx, storage.LogQuery{Tenant: senderTenant, Start: math.MinInt64, End: math.MaxInt64, Columns: storage.LogAll, Order: storage.OldestFirst}) {
		require.NoError(t, err)
		for i := range b.Len() {
			n, err := strconv.Atoi(b.Body[i].Str())
			require.NoError(t, err)
			got = append(got, n)
		}
	}
	require.GreaterOrEqual(t, len(got), s.acked, "no acknowledged line is lost")
	for i, n := range got {
		require.Equal(t, i, n, "each line once, in order")
	}
	if ck := d.Get(senderKey); ck != nil {
		n, err := strconv.Atoi(string(ck))
		require.NoError(t, err)
		if !slices.Contains(s.tried, n) {
			require.Equal(t, s.ck, n, "acknowledged state is kept")
		}
	} else {
		require.Zero(t, s.ck)
	}
}

func TestSourcesAreStoredOnce(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	write := func(bs ...telemetry.Batch) {
		t.Helper()
		_, _, err := m.db.Write(t.Context(), storage.Request{Batches: bs})
		require.NoError(t, err)
	}
	write(piece(0, 10))
	write(piece(0, 10)) // the same again
	write(piece(5, 15)) // cut differently
	write(piece(40, 45))
	write(piece(12, 20), piece(40, 50)) // the older file goes on
	write(piece(3, 4))
	lines := func() (got []int) {
		v, err := m.db.View(t.Context(), 0)
		require.NoError(t, err)
		defer v.Close()
		for b, err := range v.Logs(t.Context(), storage.LogQuery{Tenant: senderTenant, Start: math.MinInt64, End: math.MaxInt64, Columns: storage.LogAll, Order: storage.OldestFirst}) {
			require.NoError(t, err)
			for i := range b.Len() {
				n, err := strconv.Atoi(b.Body[i].Str())
				require.NoError(t, err)
				got = append(got, n)
			}
		}
		return got
	}
	var want []int
	for n := range 50 {
		if n < 20 || n >= 40 {
			want = append(want, n)
		}
	}
	require.Equal(t, want, lines())

	// A batch without ends counts as a whole, and its marks survive a flush and a restart.
	whole := func() telemetry.Batch {
		b := piece(60, 61)
		b.Source = &telemetry.Source{Stream: "spool", File: "1", From: 0, To: 1}
		return b
	}
	write(whole(), whole())
	want = append(want, 60, 60)
	require.NoError(t, m.db.Flush(t.Context()))
	m.stop()
	require.NoError(t, m.open(t.Context()))
	write(whole())
	write(piece(0, 20), piece(40, 50))
	require.Equal(t, want, lines())

	// Many at once: each line once.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { write(piece(50, 55), piece(20, 30)) })
	}
	wg.Wait()
	require.Len(t, lines(), len(want)+15)
}

func TestSourcesAreBounded(t *testing.T) {
	m := newMachine(vfs.NewMem())
	m.cfg.MaxSources = 2
	requireOpen(t, m)
	write := func(stream string) {
		t.Helper()
		b := piece(0, 1)
		b.Source.Stream = stream
		_, _, err := m.db.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
		require.NoError(t, err)
	}
	count := func() int {
		f := 0
		v, err := m.db.View(t.Context(), 0)
		require.NoError(t, err)
		defer v.Close()
		for b, err := range v.Logs(t.Context(), storage.LogQuery{Tenant: senderTenant, Start: math.MinInt64, End: math.MaxInt64}) {
			require.NoError(t, err)
			f += b.Len()
		}
		return f
	}
	write("b")
	write("a")
	write("b") // nothing new: its age does not change
	require.Equal(t, 2, count())
	write("c") // b is forgotten
	m.stop()
	require.NoError(t, m.open(t.Context()))
	write("c")
	write("a")
	require.Equal(t, 3, count())
	write("b")
	require.Equal(t, 4, count())
}

func TestState(t *testing.T) {
	m := newMachine(vfs.NewMem())
	m.cfg.MaxState = storage.MaxStateValue
	requireOpen(t, m)
	ctx := t.Context()
	require.Nil(t, m.db.Get("a/1"))
	require.NoError(t, m.db.Set(ctx, "a/1", []byte("one")))
	require.NoError(t, m.db.Set(ctx, "a/2", []byte("two")))
	require.NoError(t, m.db.Set(ctx, "b", []byte("three")))
	require.NoError(t, m.db.Set(ctx, "a/1", nil))
	require.NoError(t, m.db.Set(ctx, "none", nil))
	for i := range 3 {
		require.Equal(t, []string{"a/2"}, m.db.Keys("a/"))
		require.Equal(t, []string{"a/2", "b"}, m.db.Keys(""))
		require.Equal(t, "two", string(m.db.Get("a/2")))
		if i == 1 {
			require.NoError(t, m.db.Flush(ctx))
			m.clock.set(m.clock.Now().Add(time.Hour))
			require.NoError(t, m.db.Maintain(ctx))
		}
		m.stop()
		require.NoError(t, m.open(ctx))
	}
	require.ErrorContains(t, m.db.Set(ctx, "", []byte("x")), "1 to 1024 bytes")
	require.ErrorContains(t, m.db.Set(ctx, "x", make([]byte, storage.MaxStateValue+1)), "at most")
	full := m.db.Set(ctx, "x", make([]byte, storage.MaxStateValue-100))
	require.ErrorIs(t, full, storage.ErrStateFull)
	require.NoError(t, m.db.Set(ctx, "x", make([]byte, storage.MaxStateValue-1000)))
	require.ErrorIs(t, m.db.Set(ctx, "y", make([]byte, 1000)), storage.ErrStateFull)
	require.NoError(t, m.db.Set(ctx, "x", make([]byte, 10)), "less is never refused")
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, m.db.Set(canceled, "x", nil), context.Canceled)
	require.NoError(t, m.db.Close(ctx))
	require.ErrorIs(t, m.db.Set(ctx, "x", nil), storage.ErrClosed)
	m.db = nil
	require.NoError(t, m.blobs.Close())
}
