package storage_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// spansOf reads "id<parent@start" for each span; no parent is 0.
func spansOf(text string) []storage.SpanRow {
	var rows []storage.SpanRow
	for f := range strings.FieldsSeq(text) {
		var id, parent byte
		var start int64
		if _, err := fmt.Sscanf(f, "%d<%d@%d", &id, &parent, &start); err != nil {
			panic(err)
		}
		rows = append(rows, storage.SpanRow{Span: &telemetry.Span{SpanID: telemetry.SpanID{7: id}, ParentID: telemetry.SpanID{7: parent}, Start: start}})
	}
	return rows
}

func TestSettle(t *testing.T) {
	tests := []struct{ name, in, order, parents string }{
		{"one", "1<0@5", "1", "[-1]"},
		{"children by start", "3<1@9 2<1@4 1<0@1", "1 2 3", "[-1 0 0]"},
		{"descendants before siblings", "1<0@1 2<1@2 3<1@3 4<2@9", "1 2 4 3", "[-1 0 1 0]"},
		{"child before its parent in time", "1<0@5 2<1@1", "1 2", "[-1 0]"},
		{"lost parent", "1<0@5 2<9@1", "2 1", "[-2 -1]"},
		{"two roots", "1<0@5 2<0@4 3<1@6", "2 1 3", "[-1 -1 1]"},
		{"its own parent", "1<1@5", "1", "[-2]"},
		{"circle", "1<3@5 2<1@6 3<2@4 4<3@9", "3 1 2 4", "[-2 0 1 0]"},
		{"circle behind a root", "1<0@8 2<3@5 3<2@6", "1 2 3", "[-1 -2 1]"},
		{"the same ID twice", "1<0@5 1<0@3 2<1@6", "1 2 1", "[-1 0 -1]"},
		{"no ID", "0<0@1 0<0@2 1<0@3", "0 0 1", "[-1 -1 -1]"},
	}
	var s storage.Settler
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows := spansOf(tt.in)
			parents := s.Settle(rows)
			var order []string
			for _, r := range rows {
				order = append(order, strconv.Itoa(int(r.Span.SpanID[7])))
			}
			require.Equal(t, tt.order, strings.Join(order, " "))
			require.Equal(t, tt.parents, fmt.Sprint(parents))
		})
	}
}

// TestSettleAny: whatever the parents are, each span comes once, after its parent, before what is no descendant of it, and
// another order of the same spans settles in the same way.
func TestSettleAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "n")
		var rows []storage.SpanRow
		for i := range n {
			rows = append(rows, storage.SpanRow{Span: &telemetry.Span{
				SpanID: telemetry.SpanID{byte(i + 1)}, ParentID: telemetry.SpanID{rapid.ByteRange(0, byte(n+2)).Draw(t, "parent")},
				Start: rapid.Int64Range(0, 5).Draw(t, "start"),
			}})
		}
		other := rapid.Permutation(rows).Draw(t, "other")
		var s storage.Settler
		parents := slices.Clone(s.Settle(rows))
		require.Equal(t, parents, s.Settle(other))
		require.Equal(t, rows, other)
		seen := make(map[telemetry.SpanID]bool)
		var path []int // rows from a root to the one before
		for i, r := range rows {
			require.False(t, seen[r.Span.SpanID])
			seen[r.Span.SpanID] = true
			p := int(parents[i])
			if p < 0 {
				require.Equal(t, p == storage.NoParent, r.Span.ParentID.IsZero())
				path = []int{i}
				continue
			}
			at := slices.Index(path, p)
			require.GreaterOrEqual(t, at, 0, "the parent of row %d is no ancestor of the row before", i)
			require.Equal(t, r.Span.ParentID, rows[p].Span.SpanID)
			path = append(path[:at+1], i)
		}
		require.Len(t, seen, n)
	})
}
