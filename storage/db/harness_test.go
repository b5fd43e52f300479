package db_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/blob/dir"
	"github.com/braidobs/braid/storage/catalog/mem"
	"github.com/braidobs/braid/storage/db"
	"github.com/braidobs/braid/storage/logs"
	"github.com/braidobs/braid/storage/traces/columns"
	"github.com/braidobs/braid/storage/vfs"
	"github.com/braidobs/braid/storage/wal"
	"github.com/braidobs/braid/storage/wal/file"
)

const tenant = telemetry.DefaultTenant

// start is when the tests begin.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is a clock that tests move.
type clock struct{ nanos atomic.Int64 }

func clockAt(t time.Time) *clock {
	c := &clock{}
	c.set(t)
	return c
}

func (c *clock) set(t time.Time) { c.nanos.Store(t.UnixNano()) }

func (c *clock) Now() time.Time { return time.Unix(0, c.nanos.Load()).UTC() }

// machine is a store on a file system that a test can crash.
type machine struct {
	fs    vfs.FS
	clock *clock
	cfg   db.Config
	db    *db.DB
	blobs *dir.Store

	checkpointEvery int // 0 for the default
	sharedTraces    int // 0 for the default
}

func testConfig() db.Config {
	cfg := db.DefaultConfig()
	cfg.HeadBytes = 1 << 20
	cfg.CacheBytes = 0
	return cfg
}

func newMachine(fs vfs.FS) *machine {
	return &machine{fs: fs, clock: clockAt(start), cfg: testConfig()}
}

// open opens the store on the machine's disk, with an empty catalog: it is a cache.
func (m *machine) open(ctx context.Context) error {
	blobs, err := dir.Open(m.fs, "data/blobs")
	if err != nil {
		return err
	}
	d, err := db.Open(ctx, m.cfg, db.Deps{
		OpenLog: func(at wal.Position) (wal.Log, error) {
			return file.Open(ctx, file.Options{FS: m.fs, Dir: "data/wal", Shard: 1, SegmentBytes: 2 << 10, AtLeast: at, Now: m.clock.Now})
		},
		Blobs: blobs, Catalog: mem.New(), Now: m.clock.Now, CheckpointEvery: m.checkpointEvery, MergeMetricsFrom: 4,
		// Small, so that there are segments of several blocks, some of which are copied.
		Logs:         logs.Layout{BlockRows: 7, BlockText: 1 << 10, SegmentBlocks: 3, FullRows: 12, FullText: 4 << 10},
		SharedTraces: m.sharedTraces,
		Traces:       columns.Layout{PageRows: 7, SegmentRows: 40, FullRows: 20},
	})
	if err != nil {
		return errors.Join(err, blobs.Close())
	}
	m.db, m.blobs = d, blobs
	return nil
}

// stop releases what a crash leaves in this process.
func (m *machine) stop() {
	if m.db != nil {
		_ = m.db.Abandon() // its disk may be gone
		_ = m.blobs.Close()
		m.db = nil
	}
}

func traceID(n int) (t telemetry.TraceID) {
	copy(t[:], fmt.Sprintf("trace%011d", n))
	return t
}

var testResource = telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{
	{Key: "service.name", Value: telemetry.String("shop")},
	{Key: "k8s.pod.name", Value: telemetry.String("shop-1")},
	{Key: "k8s.namespace.name", Value: telemetry.String("default")},
	{Key: "k8s.pod.uid", Value: telemetry.String("0123")},
}))

func labelSet(pairs ...string) telemetry.LabelSet {
	return telemetry.NewLabelSet(labels.FromStrings(pairs...))
}

// numbered returns a request with the number n in each of the three signals.
func numbered(n int, at time.Time) storage.Request {
	stream := labelSet("service_name", "shop", "part", strconv.Itoa(n%3))
	b := telemetry.Batch{
		Tenant: tenant, Resource: testResource, Stream: stream,
		Spans: []telemetry.Span{{TraceID: traceID(n), SpanID: telemetry.SpanID{1}, Name: "span " + strconv.Itoa(n), Start: at.UnixNano(), End: at.UnixNano() + 5e6}},
		Logs: []telemetry.LogRecord{{
			Time: at.UnixNano(), Observed: at.UnixNano(), Body: telemetry.String("line " + strconv.Itoa(n)), TraceID: traceID(n),
			Attrs: telemetry.NewAttrs([]telemetry.Attr{{Key: "n", Value: telemetry.Int(int64(n))}}),
		}},
		Series: []telemetry.Series{{
			Labels:  labelSet("__name__", "numbers", "part", strconv.Itoa(n%3)),
			Samples: []telemetry.Sample{{T: start.UnixMilli() + int64(n), V: float64(n)}},
		}},
	}
	var key storage.Key
	copy(key[:], fmt.Sprintf("key%013d", n))
	return storage.Request{Key: key, Batches: []telemetry.Batch{b}}
}

// found is how often each number is there.
type found struct{ spans, logs, samples map[int]int }

func read(t require.TestingT, r storage.Reader) (f found, warnings []string) {
	ctx := context.Background()
	f = found{spans: map[int]int{}, logs: map[int]int{}, samples: map[int]int{}}
	v, err := r.View(ctx, 0)
	require.NoError(t, err)
	defer v.Close()
	last := map[telemetry.LabelSet]int64{}
	for b, err := range v.Logs(ctx, storage.LogQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Columns: storage.LogAll, Order: storage.OldestFirst}) {
		require.NoError(t, err)
		for i := range b.Len() {
			require.LessOrEqual(t, last[b.StreamOf(i)], b.Time[i], "a stream is in the order of time")
			last[b.StreamOf(i)] = b.Time[i]
			n, err := strconv.Atoi(b.Body[i].Str()[len("line "):])
			require.NoError(t, err)
			f.logs[n]++
		}
	}
	for b, err := range v.Spans(ctx, storage.SpanQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Columns: storage.SpanAll}) {
		require.NoError(t, err)
		for i := range b.Len() {
			n, err := strconv.Atoi(b.Name[i][len("span "):])
			require.NoError(t, err)
			f.spans[n]++
		}
	}
	set := v.Series(ctx, storage.SeriesQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "numbers")}})
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			_, n := it.At()
			f.samples[int(n)]++
		}
	}
	require.NoError(t, set.Err())
	return f, v.Warnings()
}

// check requires that what was acknowledged is there exactly once, and the rest zero times or once. Numbers that
// were deleted are not there.
func check(t require.TestingT, f found, acked, deleted map[int]bool, tries int) {
	for n := range tries {
		for signal, m := range map[string]map[int]int{"spans": f.spans, "logs": f.logs, "samples": f.samples} {
			switch {
			case deleted[n]:
				if signal == "logs" {
					require.Zero(t, m[n], "%s: number %d was deleted", signal, n)
				}
			case acked[n]:
				require.Equal(t, 1, m[n], "%s: number %d was acknowledged", signal, n)
			default:
				require.LessOrEqual(t, m[n], 1, "%s: number %d", signal, n)
			}
		}
		if !deleted[n] {
			require.Equal(t, f.spans[n], f.logs[n], "number %d: a request is atomic", n)
			require.Equal(t, f.spans[n], f.samples[n], "number %d: a request is atomic", n)
		}
	}
}

func testRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

func requireOpen(t *testing.T, m *machine) {
	t.Helper()
	require.NoError(t, m.open(t.Context()))
	t.Cleanup(m.stop)
}
