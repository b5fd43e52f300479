package traces_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"iter"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/columns"
	"github.com/braidobs/braid/storage/traces/join"
)

func small() columns.Layout { return columns.Layout{PageRows: 64, SegmentRows: 4000, FullRows: 1000} }

// drawSpan draws a span that may collide with others in all that orders it.
func drawSpan(t *rapid.T) telemetry.Span {
	ids := rapid.IntRange(0, 5)
	when := rapid.OneOf(rapid.Int64Range(start, start+20), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64, start - 1, start + day - 1, start + day, start + 5*day}))
	s := telemetry.Span{Start: when.Draw(t, "start"), Name: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"), Flags: uint32(rapid.IntRange(0, 3).Draw(t, "flags"))}
	s.TraceID[3], s.SpanID[0], s.ParentID[0] = byte(ids.Draw(t, "trace")), byte(ids.Draw(t, "span")), byte(ids.Draw(t, "parent"))
	s.End = s.Start + rapid.Int64Range(-3, 10).Draw(t, "length")
	if rapid.Bool().Draw(t, "attrs") {
		s.Attrs = telemetry.Attrs{num("n", int64(ids.Draw(t, "n"))), text("t", s.Name)}
	}
	return s
}

// TestReadAnswersLikeRows keeps random spans in heads, parts and merged parts, deletes some, and requires that reads answer as if
// all were in one slice.
func TestReadAnswersLikeRows(t *testing.T) {
	outer := newShelf(t, columns.Layout{})
	rapid.Check(t, func(t *rapid.T) {
		s := *outer
		s.tb = t
		s.layout = columns.Layout{PageRows: rapid.IntRange(1, 9).Draw(t, "page"), SegmentRows: rapid.IntRange(5, 40).Draw(t, "segment"), FullRows: int64(rapid.IntRange(5, 30).Draw(t, "full"))}
		resources := []*telemetry.Resource{nil, telemetry.NewResource("", telemetry.Attrs{text("service.name", "shop")})}
		var (
			rows  []storage.SpanRow // in the order of arrival
			files []*file
			masks []traces.Mask
			pos   storage.Position
			head  = traces.NewHead()
		)
		flush := func() {
			files = append(files, s.flush(head, pos)...)
			head = traces.NewHead()
		}
		steps := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 12).Draw(t, "steps")
		for _, step := range steps {
			switch {
			case step < 5:
				b := telemetry.Batch{Tenant: "t", Resource: rapid.SampledFrom(resources).Draw(t, "resource")}
				for range rapid.IntRange(1, 20).Draw(t, "spans") {
					b.Spans = append(b.Spans, drawSpan(t))
				}
				for i := range b.Spans {
					sp := b.Spans[i]
					rows = append(rows, storage.SpanRow{Resource: b.Resource, Span: &sp})
				}
				head.Append(pos, &b)
				pos++
			case step < 7:
				flush()
			case step < 9:
				byDay := make(map[int64][]*file)
				var days []int64
				for _, f := range files {
					lo, _ := f.Bounds()
					d := lo / day
					if lo < 0 {
						d--
					}
					if byDay[d] == nil {
						days = append(days, d)
					}
					byDay[d] = append(byDay[d], f)
				}
				files = files[:0]
				for _, d := range days {
					if f := s.merge(masks, pos, byDay[d]...); f != nil {
						files = append(files, f)
					}
				}
			default: // a delete seals the head first
				flush()
				m := storage.Mask{Start: start + rapid.Int64Range(-1, 10).Draw(t, "from"), End: math.MaxInt64}
				if rapid.Bool().Draw(t, "some") {
					m.Traces = []telemetry.TraceID{drawSpan(t).TraceID, drawSpan(t).TraceID}
				}
				masks = append(masks, traces.NewMask(&m, pos))
				rows = slices.DeleteFunc(rows, func(r storage.SpanRow) bool {
					in := m.Traces == nil || !r.Span.TraceID.IsZero() && slices.Contains(m.Traces, r.Span.TraceID)
					return in && r.Span.Start >= m.Start && r.Span.Start <= m.End
				})
			}
		}
		srcs := append(sources(files...), head.Snapshot().Tenant("t"))
		checkTraces(t, srcs, rows, masks)
		checkRows(t, srcs, rows, masks)
	})
}

// checkTraces requires that Read yields the traces that rows, which are in the order of arrival, are.
func checkTraces(t *rapid.T, srcs []traces.Source, rows []storage.SpanRow, masks []traces.Mask) {
	byID := make(map[telemetry.TraceID][]storage.SpanRow)
	firsts := make(map[telemetry.TraceID]int64)
	for _, r := range rows {
		id := r.Span.TraceID
		if at, ok := firsts[id]; !ok || r.Span.Start < at {
			firsts[id] = r.Span.Start
		}
		byID[id] = append(byID[id], r)
	}
	want := make(map[telemetry.TraceID][]string)
	var settler storage.Settler
	for id, some := range byID {
		for i, p := range settler.Settle(some) {
			want[id] = append(want[id], spanText(p, some[i].Resource, some[i].Span))
		}
	}
	q := all()
	q.Masks = masks
	q.Order = rapid.SampledFrom([]storage.Order{storage.Unordered, storage.NewestFirst}).Draw(t, "order")
	got := make(map[telemetry.TraceID][]string)
	rest := int64(math.MaxInt64)
	for b, err := range join.Read(t.Context(), srcs, q, join.NewShared(rapid.IntRange(0, 4).Draw(t, "at once")), fail) {
		require.NoError(t, err)
		addSpans(t, got, b)
		ids, err := b.Traces()
		require.NoError(t, err)
		for _, id := range ids {
			if q.Order == storage.NewestFirst {
				require.LessOrEqual(t, firsts[id], rest)
			}
		}
		rest = min(rest, b.Rest())
	}
	require.Equal(t, want, got)

	ids := []telemetry.TraceID{drawSpan(t).TraceID, drawSpan(t).TraceID}
	q.Need = []storage.Predicate{storage.TraceIn(ids)}
	wanted := make(map[telemetry.TraceID][]string)
	for _, id := range ids {
		if !id.IsZero() && want[id] != nil {
			wanted[id] = want[id]
		}
	}
	require.Equal(t, wanted, spansOf(t, srcs, q, join.NewShared(0)), "by ID")

	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "asked for")
	q.Need = []storage.Predicate{
		storage.ValueMatch{Key: storage.Field(storage.SpanName), Equal: []telemetry.Value{telemetry.String(name)}, Accept: func(v telemetry.Value) bool { return v == telemetry.String(name) }},
		storage.DurationRange{Min: 5, Max: 7},
	}
	some := spansOf(t, srcs, q, join.NewShared(0))
	for id, spans := range some {
		require.Equal(t, want[id], spans)
	}
	for id, rows := range byID {
		if slices.ContainsFunc(rows, func(r storage.SpanRow) bool { return r.Span.Name == name }) &&
			slices.ContainsFunc(rows, func(r storage.SpanRow) bool { d := r.Span.End - r.Span.Start; return d >= 5 && d <= 7 }) {
			require.Contains(t, some, id, "a trace with matching spans is not ruled out")
		}
	}
}

// checkRows requires that rows come in the order of the contract.
func checkRows(t *rapid.T, srcs []traces.Source, rows []storage.SpanRow, masks []traces.Mask) {
	var where storage.Predicate
	if rapid.Bool().Draw(t, "by ID") {
		where = storage.TraceIn{drawSpan(t).TraceID, drawSpan(t).TraceID}
	}
	rows = slices.Clone(rows)
	if ids, ok := storage.TracesOf(where); ok {
		rows = slices.DeleteFunc(rows, func(r storage.SpanRow) bool {
			return r.Span.TraceID.IsZero() || !slices.Contains(ids, r.Span.TraceID)
		})
	}
	slices.SortStableFunc(rows, func(a, b storage.SpanRow) int {
		x, y := a.Span, b.Span
		return cmp.Or(cmp.Compare(x.Start, y.Start), bytes.Compare(x.TraceID[:], y.TraceID[:]), bytes.Compare(x.SpanID[:], y.SpanID[:]), bytes.Compare(x.ParentID[:], y.ParentID[:]))
	})
	q := traces.Scan{SpanQuery: storage.SpanQuery{Start: math.MinInt64, End: math.MaxInt64, Columns: storage.SpanAll, Order: storage.OldestFirst, Where: where}, Masks: masks}
	if rapid.Bool().Draw(t, "newest") {
		q.Order = storage.NewestFirst
		slices.Reverse(rows)
	}
	if q.Limit = rapid.IntRange(0, 10).Draw(t, "limit"); q.Limit > 0 {
		rows = rows[:min(q.Limit, len(rows))]
	}
	b, err := traces.Collect(t.Context(), srcs, q, fail)
	require.NoError(t, err)
	var want, got []string
	for _, r := range rows {
		want = append(want, spanText(0, r.Resource, r.Span))
	}
	for i := range b.Len() {
		s := b.Span(i)
		got = append(got, spanText(0, b.ResourceOf(i), &s))
	}
	require.Equal(t, want, got)
}

// pagesOf returns the bytes of all blocks of the tables of a part but those that count blocks of others.
func pagesOf(t *testing.T, f *file) (out [][]byte) {
	t.Helper()
	pages := f.raw.Table("pages")
	for b := range pages.Blocks() {
		blob, err := pages.Blob(b)
		require.NoError(t, err)
		out = append(out, bytes.Clone(blob))
	}
	require.NotEmpty(t, out)
	return out
}

func TestMergesCopyWhatIsFull(t *testing.T) {
	s, shop := newShelf(t, small()), newShop(1)
	var files []*file
	var want [][]byte
	for n := range 3 {
		h := traces.NewHead()
		shop.fill(h, 1500)
		f := s.flush(h, storage.Position(n))
		require.Len(t, f, 1)
		files = append(files, f...)
		want = append(want, pagesOf(t, f[0])...)
	}
	merged := s.merge(nil, 9, files...)
	require.Equal(t, want, pagesOf(t, merged))
	require.Equal(t, spansOf(t, sources(files...), all(), join.NewShared(0)), spansOf(t, sources(merged), all(), join.NewShared(0)))

	// What a delete does not touch is copied, too.
	h := traces.NewHead()
	h.Append(9, &telemetry.Batch{Tenant: "t", Spans: []telemetry.Span{{TraceID: telemetry.TraceID{1}, SpanID: telemetry.SpanID{1}, Start: start}}})
	few := s.flush(h, 10)[0]
	mask := traces.NewMask(&storage.Mask{Start: math.MinInt64, End: math.MaxInt64, Traces: []telemetry.TraceID{{1}}}, 10)
	left := s.merge([]traces.Mask{mask}, 10, append(files, few)...)
	require.Equal(t, want, pagesOf(t, left))
	require.Nil(t, s.merge([]traces.Mask{mask}, 10, few), "nothing is left")
}

func TestMergesFoldFragments(t *testing.T) {
	s := newShelf(t, small())
	var files []*file
	span := func(n, parent byte, at int64) telemetry.Span {
		return telemetry.Span{TraceID: telemetry.TraceID{7}, SpanID: telemetry.SpanID{n}, ParentID: telemetry.SpanID{parent}, Start: start + at, End: start + at + 1}
	}
	for n, some := range [][]telemetry.Span{{span(3, 2, 3), span(4, 9, 4)}, {span(1, 0, 1)}, {span(2, 1, 2)}} {
		h := traces.NewHead()
		h.Append(storage.Position(n), &telemetry.Batch{Tenant: "t", Spans: some})
		h.Append(storage.Position(n), &telemetry.Batch{Tenant: "t", Spans: []telemetry.Span{{TraceID: telemetry.TraceID{byte(10 + n)}, SpanID: telemetry.SpanID{1}, Start: start}}})
		files = append(files, s.flush(h, storage.Position(n))...)
	}
	q := all()
	shared := join.NewShared(0)
	want := spansOf(t, sources(files...), q, shared)
	require.Equal(t, want, spansOf(t, sources(files...), q, shared), "how spans hang together is known now")
	require.Len(t, want, 4)
	require.Len(t, want[telemetry.TraceID{7}], 4)
	merged := s.merge(nil, 9, files...)
	q.Fragments = true
	require.Equal(t, want, spansOf(t, sources(merged), q, join.NewShared(0)), "what was stored apart is one")
	for b, err := range join.Read(t.Context(), sources(merged), q, join.NewShared(0), fail) {
		require.NoError(t, err)
		ids, err := b.Traces()
		require.NoError(t, err)
		first, err := b.First()
		require.NoError(t, err)
		at := first[slices.Index(ids, telemetry.TraceID{7})]
		parents, err := b.Parents()
		require.NoError(t, err)
		require.Equal(t, []int32{storage.NoParent, at, at + 1, storage.LostParent}, parents[at:at+4])
	}
}

// many returns parts of a few thousand spans each, one after the other in time.
func many(t *testing.T, s *shelf, parts int) []*file {
	t.Helper()
	shop := newShop(2)
	var files []*file
	for n := range parts {
		h := traces.NewHead()
		shop.fill(h, 2000)
		files = append(files, s.flush(h, storage.Position(n))...)
	}
	return files
}

func TestTheNewestTracesReadFewBlocks(t *testing.T) {
	files := many(t, newShelf(t, small()), 8)
	shared := join.NewShared(0)
	spansOf(t, sources(files...), all(), shared) // so that it is known which traces lie in several parts
	q := all()
	q.Order = storage.NewestFirst
	found := 0
	for b, err := range join.Read(t.Context(), sources(files...), q, shared, fail) {
		require.NoError(t, err)
		starts, err := b.Starts()
		require.NoError(t, err)
		first, err := b.First()
		require.NoError(t, err)
		for k := range len(first) - 1 {
			if slices.Min(starts[first[k]:first[k+1]]) > b.Rest() {
				found++
			}
		}
		if found >= 3 {
			break
		}
	}
	require.GreaterOrEqual(t, found, 3)
	require.Less(t, q.Cost.Blocks, int64(20))
	require.Less(t, q.Cost.Rows, int64(4000))

	scan := traces.Scan{SpanQuery: storage.SpanQuery{Start: math.MinInt64, End: math.MaxInt64, Order: storage.NewestFirst, Limit: 20}, Cost: &storage.ReadStats{}}
	b, err := traces.Collect(t.Context(), sources(files...), scan, fail)
	require.NoError(t, err)
	require.Equal(t, 20, b.Len())
	require.Less(t, scan.Cost.Rows, int64(3000))
}

// TestTheNewestTracesAfterADelete deletes the first span of a trace in several places: then it starts later than they say.
func TestTheNewestTracesAfterADelete(t *testing.T) {
	s := newShelf(t, small())
	span := func(trace, n byte, at int64) *traces.Head {
		h := traces.NewHead()
		h.Append(1, &telemetry.Batch{Tenant: "t", Spans: []telemetry.Span{{TraceID: telemetry.TraceID{trace}, SpanID: telemetry.SpanID{n}, Start: start + at, End: start + at}}})
		return h
	}
	mask := traces.NewMask(&storage.Mask{Start: start, End: start + 20}, 9)
	old, other, late := s.flush(span(1, 1, 10), 2)[0], s.flush(span(2, 1, 50), 3)[0], span(1, 2, 100)
	whole := span(1, 1, 10)
	whole.Append(1, &telemetry.Batch{Tenant: "t", Spans: []telemetry.Span{{TraceID: telemetry.TraceID{1}, SpanID: telemetry.SpanID{2}, Start: start + 100, End: start + 100}}})
	for name, srcs := range map[string][]traces.Source{
		"parts": sources(old, other, s.flush(late, 4)[0]),
		"head":  append(sources(old, other), late.Snapshot().Tenant("t")),
		"one":   sources(s.flush(whole, 2)[0], other),
	} {
		t.Run(name, func(t *testing.T) {
			q := all()
			q.Order, q.Masks = storage.NewestFirst, []traces.Mask{mask}
			var got []telemetry.TraceID
			rest := int64(math.MaxInt64)
			for b, err := range join.Read(t.Context(), srcs, q, join.NewShared(0), fail) {
				require.NoError(t, err)
				ids, err := b.Traces()
				require.NoError(t, err)
				starts, err := b.Starts()
				require.NoError(t, err)
				require.LessOrEqual(t, slices.Max(starts), rest)
				got, rest = append(got, ids...), b.Rest()
			}
			require.Equal(t, []telemetry.TraceID{{1}, {2}}, got)
		})
	}
}

// TestWhatIsNeeded reads traces by predicates that few rows match, from parts with many traces a block and a head, and requires that
// all of these come, whole, and few others.
func TestWhatIsNeeded(t *testing.T) {
	s, shop := newShelf(t, columns.Layout{PageRows: 2048, SegmentRows: 1 << 20, FullRows: 1 << 20}), newShop(7)
	var files []*file
	for n := range 2 {
		h := traces.NewHead()
		shop.fill(h, 5000)
		files = append(files, s.flush(h, storage.Position(n))...)
	}
	h := traces.NewHead()
	shop.fill(h, 1000)
	srcs := append(sources(files...), h.Snapshot().Tenant("t"))
	shared := join.NewShared(0)
	want := spansOf(t, srcs, all(), shared)
	rows := make(map[telemetry.TraceID]*storage.SpanBlock)
	for b, err := range join.Read(t.Context(), srcs, all(), shared, fail) {
		require.NoError(t, err)
		ids, err := b.Traces()
		require.NoError(t, err)
		first, err := b.First()
		require.NoError(t, err)
		for k, id := range ids {
			var some []int
			for row := first[k]; row < first[k+1]; row++ {
				some = append(some, int(row))
			}
			rows[id], err = b.Spans(some, storage.SpanAll)
			require.NoError(t, err)
		}
	}
	is := func(scope storage.AttrScope, name string, v telemetry.Value) storage.Predicate {
		return storage.ValueMatch{Key: storage.SpanKey{Scope: scope, Name: name}, Accept: func(x telemetry.Value) bool { return x == v }, Equal: []telemetry.Value{v}}
	}
	service := is(storage.ResourceScope, "service.name", telemetry.String("service-03"))
	failed := is(storage.RecordScope, "http.response.status_code", telemetry.Int(500))
	slow := storage.DurationRange{Min: 10e6, Max: math.MaxInt64}
	for name, need := range map[string][]storage.Predicate{
		"one row":  {storage.And{service, failed, slow}},
		"wide":     {service, failed},
		"two rows": {storage.And{service, slow}, storage.And{failed, slow}},
		"three":    {storage.And{service, slow}, failed, storage.And{slow, is(storage.RecordScope, "url.path", telemetry.String("none"))}},
	} {
		wanted := make(map[telemetry.TraceID]bool)
		matching, got := 0, 0 // spans
		for id, b := range rows {
			some := make([]bool, len(need))
			for i := range b.Len() {
				every := true
				for k, p := range need {
					ok := b.Match(i, p)
					some[k] = some[k] || ok
					every = every && ok
				}
				if every {
					matching++
				}
			}
			if !slices.Contains(some, false) {
				wanted[id] = true
			}
		}
		require.Equal(t, name != "three", len(wanted) > 3, name)
		for _, order := range []storage.Order{storage.Unordered, storage.NewestFirst} {
			if name == "wide" && order == storage.Unordered {
				continue // they are many
			}
			q := all()
			q.Need, q.Order = need, order
			got := spansOf(t, srcs, q, shared)
			for id := range wanted {
				require.Contains(t, got, id, name)
			}
			for id, spans := range got {
				require.Equal(t, want[id], spans, name)
			}
			if name != "wide" { // of which blocks come whole
				require.Len(t, got, len(wanted), name)
			}
		}
		q := all()
		q.Need, q.Fragments = need, true
		for b, err := range join.Read(t.Context(), srcs, q, shared, fail) {
			require.NoError(t, err)
			blk, err := b.Spans(rowNumbers(b.Len()), storage.SpanAll)
			require.NoError(t, err)
			for i := range b.Len() {
				if !slices.ContainsFunc(need, func(p storage.Predicate) bool { return !blk.Match(i, p) }) {
					got++
				}
			}
		}
		require.Equal(t, matching, got, "each span for itself: %s", name)
	}
}

func rowNumbers(n int) []int {
	rows := make([]int, n)
	for i := range rows {
		rows[i] = i
	}
	return rows
}

func TestTracesByID(t *testing.T) {
	files := many(t, newShelf(t, small()), 4)
	var id telemetry.TraceID
	want := 0
	for i, spans := range spansOf(t, sources(files...), all(), join.NewShared(0)) {
		id, want = i, len(spans)
		break
	}
	scan := traces.Scan{SpanQuery: storage.SpanQuery{Start: math.MinInt64, End: math.MaxInt64, Order: storage.OldestFirst, Where: storage.TraceIn{id}}, Cost: &storage.ReadStats{}}
	b, err := traces.Collect(t.Context(), sources(files...), scan, fail)
	require.NoError(t, err)
	require.Equal(t, want, b.Len())
	require.Equal(t, int64(want), scan.Cost.Rows, "no rows but its own")
	require.LessOrEqual(t, scan.Cost.Blocks, int64(3))

	q := all()
	q.Need = []storage.Predicate{storage.TraceIn{id}}
	require.Len(t, spansOf(t, sources(files...), q, join.NewShared(0))[id], want)
	require.LessOrEqual(t, q.Cost.Bytes, int64(100_000), "the other traces are not looked at")

	scan.Cost = &storage.ReadStats{}
	scan.Where = storage.TraceIn{{1, 2, 3}}
	b, err = traces.Collect(t.Context(), sources(files...), scan, fail)
	require.NoError(t, err)
	require.Zero(t, b.Len())
	require.Equal(t, storage.ReadStats{}, *scan.Cost, "a miss opens no block")
}

func TestReadsEnd(t *testing.T) {
	files := many(t, newShelf(t, small()), 3)
	q := all()
	q.MaxBytes = 1000
	err := last(join.Read(t.Context(), sources(files...), q, join.NewShared(0), fail))
	require.ErrorIs(t, err, storage.ErrReadLimit)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err = range join.Read(ctx, sources(files...), all(), join.NewShared(0), fail) {
		cancel()
	}
	require.ErrorIs(t, err, context.Canceled)
}

func last(blocks iter.Seq2[storage.TraceBlock, error]) (err error) {
	blocks(func(_ storage.TraceBlock, e error) bool {
		err = e
		return true
	})
	return err
}

// TestCorruptPartsAreLeftOut breaks one byte after the other of a part, and requires that reads answer from the other.
func TestCorruptPartsAreLeftOut(t *testing.T) {
	s := newShelf(t, small())
	files := many(t, s, 2)
	others := spansOf(t, sources(files[1]), all(), join.NewShared(0))
	broken := 0
	for at := 20; at < len(files[0].bytes)-5000; at += len(files[0].bytes) / 20 {
		b := bytes.Clone(files[0].bytes)
		b[at] ^= 0x55
		lo, hi := files[0].Bounds()
		bad := s.read(b, 1, lo, hi)
		failures := 0
		got := make(map[telemetry.TraceID]bool)
		q := all()
		q.Need = []storage.Predicate{storage.ValueMatch{Key: storage.SpanKey{Scope: storage.ResourceScope, Name: "service.namespace"}, Accept: func(telemetry.Value) bool { return true }}}
		for b, err := range join.Read(t.Context(), sources(bad, files[1]), q, join.NewShared(0), func(src int, err error) error {
			require.Zero(t, src)
			require.ErrorIs(t, err, part.ErrCorrupt)
			failures++
			return nil
		}) {
			require.NoError(t, err)
			ids, err := b.Traces()
			require.NoError(t, err)
			for _, id := range ids {
				got[id] = true
			}
		}
		for id := range others {
			require.True(t, got[id], "a trace of the other part")
		}
		if failures > 0 {
			broken++
		}
	}
	require.Positive(t, broken)
	errBad := errors.New("bad")
	b := bytes.Clone(files[0].bytes)
	for i := 20; i < len(b)*3/4; i += 50 {
		b[i] ^= 1
	}
	err := last(join.Read(t.Context(), sources(s.read(b, 1, 0, math.MaxInt64)), all(), join.NewShared(0), func(int, error) error { return errBad }))
	require.ErrorIs(t, err, errBad)
}
