package traces_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/join"
)

// columnsOf returns what the columns of a read say of each trace, or an error; it ends after a number of blocks.
func columnsOf(ctx context.Context, srcs []traces.Source, q join.Query, shared *join.Shared, blocks int) (map[telemetry.TraceID]string, error) {
	out := make(map[telemetry.TraceID]string)
	keys := []storage.SpanKey{
		storage.Field(storage.SpanName), storage.Field(storage.SpanKindField),
		{Scope: storage.ResourceScope, Name: "service.name"},
		{Scope: storage.RecordScope, Name: "http.request.id"},
		{Scope: storage.RecordScope, Name: "network.peer.port"},
	}
	for b, err := range join.Read(ctx, srcs, q, shared, fail) {
		if err != nil {
			return nil, err
		}
		ids, err := b.Traces()
		if err != nil {
			return nil, err
		}
		first, err := b.First()
		if err != nil {
			return nil, err
		}
		starts, err := b.Starts()
		if err != nil {
			return nil, err
		}
		durations, err := b.Durations()
		if err != nil {
			return nil, err
		}
		parents, err := b.Parents()
		if err != nil {
			return nil, err
		}
		cols := make([]storage.ColumnReader, len(keys))
		for i, k := range keys {
			c, err := b.Column(k)
			if err != nil {
				return nil, err
			}
			cols[i] = c.Reader()
		}
		for k, id := range ids {
			text := ""
			for row := first[k]; row < first[k+1]; row++ {
				text = fmt.Sprint(text, " ", starts[row], durations[row], min(parents[row], 0))
				for i := range cols {
					text = fmt.Sprint(text, ",", cols[i].At(row).Text())
				}
			}
			out[id] = text
		}
		if blocks--; blocks == 0 {
			return out, nil
		}
	}
	return out, nil
}

// TestReadsAtOnce: reads that run at the same time, and end early or not, do not see each other's memory.
func TestReadsAtOnce(t *testing.T) {
	files := many(t, newShelf(t, small()), 4)
	shared := join.NewShared(0)
	want, err := columnsOf(t.Context(), sources(files...), all(), shared, -1)
	require.NoError(t, err)
	require.NotEmpty(t, want)
	g, ctx := errgroup.WithContext(t.Context())
	for n := range 6 {
		g.Go(func() error {
			for round := range 4 {
				q := all()
				q.Fragments = n == 5
				if n%2 == 1 {
					q.Order = storage.NewestFirst
				}
				blocks := -1
				if round%2 == 1 {
					blocks = 1 + n
				}
				got, err := columnsOf(ctx, sources(files...), q, shared, blocks)
				if err != nil {
					return err
				}
				for id, text := range got {
					if !q.Fragments && text != want[id] {
						return fmt.Errorf("trace %s: %s, want %s", id, text, want[id])
					}
				}
				if !q.Fragments && blocks < 0 && len(got) != len(want) {
					return fmt.Errorf("%d traces, want %d", len(got), len(want))
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
}
