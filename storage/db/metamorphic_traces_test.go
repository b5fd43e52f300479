package db_test

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/vfs"
)

// spanKeys are keys that queries ask for.
func spanKeys() []storage.SpanKey {
	keys := []storage.SpanKey{
		{Scope: storage.RecordScope, Name: "http.request.method"},
		{Scope: storage.RecordScope, Name: "http.response.status_code"},
		{Scope: storage.RecordScope, Name: "extra"},
		{Scope: storage.RecordScope, Name: "a.b"},
		{Scope: storage.RecordScope, Name: "absent"},
		{Scope: storage.ResourceScope, Name: "service.name"},
		{Scope: storage.ResourceScope, Name: "k8s.pod.name"},
		{Scope: storage.InstrumentationScope, Name: "library"},
		{Scope: storage.EventScope, Name: "extra"},
		{Scope: storage.EventScope, Name: "http.request.method"},
		{Scope: storage.LinkScope, Name: "http.request.method"},
		{Scope: storage.AnyScope, Name: "service.name"},
		{Scope: storage.AnyScope, Name: "extra"},
	}
	for f := storage.SpanName; f <= storage.LinkSpan; f++ {
		keys = append(keys, storage.Field(f))
	}
	return keys
}

// storedKeys are those of spanKeys that a column can be asked for.
func storedKeys() []storage.SpanKey {
	return slices.DeleteFunc(spanKeys(), func(k storage.SpanKey) bool { return k.Scope == storage.AnyScope })
}

// valueMatch returns a match of values that spans have, or do not.
func (w *twin) valueMatch() storage.Predicate {
	key := pick(w.rng, spanKeys())
	some := []telemetry.Value{
		telemetry.String(pick(w.rng, []string{"GET", "POST", "cart", "cart-1", "GET /", "checkout", "", "plain", "exception"})),
		telemetry.Int(pick(w.rng, []int64{0, 1, 2, 3, 200, 404, 500})),
	}
	if w.rng.IntN(2) == 0 {
		return storage.ValueMatch{Key: key, Equal: some, Accept: func(v telemetry.Value) bool { return slices.Contains(some, v) }}
	}
	n := w.rng.IntN(6)
	return storage.ValueMatch{Key: key, Accept: func(v telemetry.Value) bool { return len(v.Text()) > n }}
}

// wholeTrace is a trace as text: each span with its place, parent and all that it has.
type wholeTrace struct {
	id    telemetry.TraceID
	start int64
	spans []string
	match []bool // by predicate
}

// readTraces reads traces, and checks that what a block says about them is one.
func readTraces(t *testing.T, v storage.View, q storage.TraceQuery, text string) []wholeTrace {
	t.Helper()
	var out []wholeTrace
	rest := int64(math.MaxInt64)
	for b, err := range v.Traces(t.Context(), q) {
		require.NoError(t, err, text)
		first, err := b.First()
		require.NoError(t, err)
		ids, err := b.Traces()
		require.NoError(t, err)
		starts, err := b.Starts()
		require.NoError(t, err)
		lengths, err := b.Durations()
		require.NoError(t, err)
		parents, err := b.Parents()
		require.NoError(t, err)
		require.NotZero(t, b.Len())
		require.Len(t, first, len(ids)+1)
		require.Equal(t, b.Len(), int(first[len(ids)]))
		lo, hi := b.Bounds()
		rows := make([]int, b.Len())
		for i := range rows {
			rows[i] = i
		}
		all, err := b.Spans(rows, storage.SpanAll)
		require.NoError(t, err)
		require.Equal(t, b.Len(), all.Len())
		for k, id := range ids {
			tr := wholeTrace{id: id, start: math.MaxInt64, match: make([]bool, len(q.Need))}
			for i := int(first[k]); i < int(first[k+1]); i++ {
				s := all.Span(i)
				require.Equal(t, []any{id, s.Start, s.End - s.Start}, []any{s.TraceID, starts[i], lengths[i]}, text)
				require.True(t, lo <= s.Start && lo <= s.End && s.Start <= hi && s.End <= hi || s.End < s.Start, text)
				require.Less(t, parents[i], int32(i))
				tr.start = min(tr.start, s.Start)
				parent := parents[i]
				if parent >= 0 {
					require.GreaterOrEqual(t, parent, first[k])
					parent -= first[k]
				}
				tr.spans = append(tr.spans, fmt.Sprintf("%d %s %x %x", parent, resourceText(all.ResourceOf(i)), telemetry.AppendScope(nil, s.Scope), telemetry.AppendSpan(nil, &s)))
				for p := range q.Need {
					tr.match[p] = tr.match[p] || all.Match(i, q.Need[p])
				}
			}
			if q.Order == storage.NewestFirst {
				require.LessOrEqual(t, tr.start, rest, "the rest starts after a trace: %s", text)
			}
			out = append(out, tr)
		}
		rest = min(rest, b.Rest())
		for _, key := range q.Keys {
			checkColumn(t, b, key, all, text)
		}
	}
	return out
}

// checkColumn requires that a column is the values that the spans have.
func checkColumn(t *testing.T, b storage.TraceBlock, key storage.SpanKey, all *storage.SpanBlock, text string) {
	t.Helper()
	c, err := b.Column(key)
	require.NoError(t, err)
	var want, got []string
	for i := range all.Len() {
		s := all.Span(i)
		key.Each(all.ResourceOf(i), &s, func(v telemetry.Value) { want = append(want, fmt.Sprintf("%d %s %s", i, v.Kind(), v.AppendJSON(nil))) })
	}
	if c.Rows == nil {
		require.Equal(t, b.Len(), c.Len(), "%+v: %s", key, text)
	}
	for i := range c.Len() {
		row := int32(i)
		if c.Rows != nil {
			row = c.Rows[i]
		}
		v := c.Value(i)
		got = append(got, fmt.Sprintf("%d %s %s", row, v.Kind(), v.AppendJSON(nil)))
	}
	require.Equal(t, want, got, "%+v: %s", key, text)
}

func (w *twin) askTraces(t *testing.T, want, got storage.View) {
	t.Helper()
	lo, hi := w.span()
	q := storage.TraceQuery{
		Tenant: pick(w.rng, tenants), Start: lo, End: hi, Order: storage.Order(2 * w.rng.IntN(2)), Fragments: w.rng.IntN(4) == 0,
		Keys: []storage.SpanKey{pick(w.rng, storedKeys()), pick(w.rng, storedKeys())},
	}
	for range w.rng.IntN(3) {
		if w.rng.IntN(2) == 0 {
			q.Need = append(q.Need, w.valueMatch())
		} else {
			q.Need = append(q.Need, w.predicate(1))
		}
	}
	text := show(q)
	have := make(map[telemetry.TraceID][]wholeTrace)
	for _, tr := range readTraces(t, got, q, text) {
		have[tr.id] = append(have[tr.id], tr)
	}
	for _, tr := range readTraces(t, want, q, text) {
		some := have[tr.id]
		if !slices.Contains(tr.match, false) && !q.Fragments {
			require.NotEmpty(t, some, "trace %s is missing: %s", tr.id, text)
		}
		if q.Fragments {
			checkFragments(t, &tr, some, len(q.Need) == 0 && lo == math.MinInt64 && hi == math.MaxInt64, text)
			continue
		}
		require.LessOrEqual(t, len(some), 1, "trace %s comes once: %s", tr.id, text)
		for _, o := range some {
			require.Equal(t, tr.spans, o.spans, "trace %s: %s", tr.id, text)
		}
	}

	q.Need = nil
	wantKeys, err := want.SpanKeys(t.Context(), q)
	require.NoError(t, err)
	keys, err := got.SpanKeys(t.Context(), q)
	require.NoError(t, err)
	require.Subset(t, keys, wantKeys, text)
	key := pick(w.rng, storedKeys())
	wantValues, err := want.SpanValues(t.Context(), key, q, 0)
	require.NoError(t, err)
	values, err := got.SpanValues(t.Context(), key, q, 0)
	require.NoError(t, err)
	require.Subset(t, values, wantValues, "%+v: %s", key, text)
	few, err := got.SpanValues(t.Context(), key, q, 2)
	require.NoError(t, err)
	require.Len(t, few, min(2, len(values)))
	require.Subset(t, values, few)
}

// checkFragments requires that fragments have spans of a trace: all of them if nothing may be left out. A span's parent
// may be in another fragment.
func checkFragments(t *testing.T, tr *wholeTrace, some []wholeTrace, all bool, text string) {
	t.Helper()
	spans := func(of []string) []string {
		out := make([]string, len(of))
		for i, s := range of {
			var parent int
			_, err := fmt.Sscan(s, &parent)
			require.NoError(t, err)
			out[i] = s[len(strconv.Itoa(parent)):]
		}
		sort.Strings(out)
		return out
	}
	var have []string
	for _, o := range some {
		have = append(have, o.spans...)
	}
	if all {
		require.Equal(t, spans(tr.spans), spans(have), text)
		return
	}
	for _, o := range spans(have) {
		require.Contains(t, spans(tr.spans), o, text)
	}
}

// TestCorruptTracesAreSetAside breaks a byte of a part: a read of traces fails at most once, and answers from the rest then.
func TestCorruptTracesAreSetAside(t *testing.T) {
	failed := 0
	for k := range 16 {
		disk := vfs.NewMem()
		m := newMachine(disk)
		requireOpen(t, m)
		for n := range 2 {
			b := telemetry.Batch{Tenant: tenant, Resource: testResource}
			for i := range 20 {
				b.Spans = append(b.Spans, telemetry.Span{
					TraceID: traceID(n*20 + i), SpanID: telemetry.SpanID{byte(i)}, Name: fmt.Sprintf("span %d", i*7919), Start: start.UnixNano() + int64(i*i),
					Attrs: telemetry.Attrs{{Key: "user", Value: telemetry.String(fmt.Sprintf("user-%d", i*104729))}},
				})
			}
			_, _, err := m.db.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
			require.NoError(t, err)
			require.NoError(t, m.db.Flush(t.Context()))
		}
		m.stop()
		first := ""
		walk(t, disk, "data/blobs/parts/traces", func(name string) {
			if first == "" || name < first {
				first = name
			}
		})
		b, err := vfs.ReadFile(disk, first, 1<<20)
		require.NoError(t, err)
		b[16+k*len(b)/16] ^= 0x40
		f, err := disk.Create(first)
		require.NoError(t, err)
		_, err = f.Write(b)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		requireOpen(t, m)
		for try := range 3 {
			v, err := m.db.View(t.Context(), 0)
			require.NoError(t, err)
			found, err := namesOf(t, v)
			if err != nil {
				require.ErrorIs(t, err, part.ErrCorrupt)
				require.Zero(t, try, "the part is set aside by now")
				failed++
			} else {
				require.GreaterOrEqual(t, found, 20, "what is in the other part")
			}
			require.Equal(t, err != nil || found < 40, len(v.Warnings()) > 0)
			require.NoError(t, v.Close())
		}
	}
	require.Positive(t, failed, "a column that is decoded late")
}

// namesOf returns in how many spans a column of names and one of attributes were found.
func namesOf(t *testing.T, v storage.View) (found int, err error) {
	t.Helper()
	for b, err := range v.Traces(t.Context(), storage.TraceQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64}) {
		if err != nil {
			return found, err
		}
		if _, err := b.Column(storage.Field(storage.SpanName)); err != nil {
			return found, err
		}
		c, err := b.Column(storage.SpanKey{Scope: storage.RecordScope, Name: "user"})
		if err != nil {
			return found, err
		}
		found += c.Len()
	}
	return found, nil
}
