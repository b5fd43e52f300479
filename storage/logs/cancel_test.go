package logs_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs"
)

// A scan with a filter that takes long ends soon after its context, within a block.
func TestScanStops(t *testing.T) {
	w := newWorld(t, 1)
	b := logs.NewBuilder(t.Context(), logs.DefaultLayout(), w.dec)
	head := logs.NewHead()
	batch := telemetry.Batch{Tenant: telemetry.DefaultTenant, Stream: w.streams[0]}
	for i := range 2000 {
		r := telemetry.LogRecord{Time: int64(i), Body: telemetry.String(strings.Repeat("x", i%7+1))}
		batch.Logs = append(batch.Logs, r)
	}
	for i := range batch.Logs {
		b.Add(batch.Stream, nil, &batch.Logs[i])
	}
	head.Append(1, &batch)
	part := w.write(b)
	for name, src := range map[string]logs.Source{"part": part, "head": head.Snapshot().Tenant(telemetry.DefaultTenant)} {
		for _, order := range []storage.Order{storage.Unordered, storage.NewestFirst} {
			t.Run(name, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				seen := 0
				var at time.Time
				q := storage.LogQuery{
					Tenant: telemetry.DefaultTenant, End: 1 << 40, Columns: storage.LogAll, Order: order,
					Where: storage.LineMatch(func(string) bool {
						if seen++; seen == 20 {
							at = time.Now()
							cancel()
						}
						return true
					}),
				}
				err := src.Scan(ctx, &logs.Scan{LogQuery: q, Decoder: w.dec}, func(logs.Rows) error { return nil })
				require.ErrorIs(t, err, context.Canceled)
				require.Less(t, time.Since(at), 100*time.Millisecond)
				require.Equal(t, 20, seen, "no line is looked at behind the end")
			})
		}
	}
}

// A scan may be told how much it may read.
func TestScanReadLimit(t *testing.T) {
	w := newWorld(t, 2)
	p := w.batch(400, logs.Layout{BlockRows: 20, BlockText: 1 << 20, SegmentBlocks: 100})
	cost := &storage.ReadStats{}
	all := storage.LogQuery{Tenant: telemetry.DefaultTenant, Start: -1 << 62, End: 1 << 62, Columns: storage.LogAll}
	require.NoError(t, p.Scan(t.Context(), &logs.Scan{LogQuery: all, Decoder: w.dec, Cost: cost}, func(logs.Rows) error { return nil }))
	some := all
	some.MaxBytes = cost.Bytes / 3
	less := &storage.ReadStats{}
	err := p.Scan(t.Context(), &logs.Scan{LogQuery: some, Decoder: w.dec, Cost: less}, func(logs.Rows) error { return nil })
	require.ErrorIs(t, err, storage.ErrReadLimit)
	require.Less(t, less.Bytes, cost.Bytes/2)
}
