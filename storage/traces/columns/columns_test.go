package columns_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces/columns"
)

// all returns every row as it was given.
func all(n int) []int {
	rows := make([]int, n)
	for i := range rows {
		rows[i] = i
	}
	return rows
}

// back reads all traces of a part.
func back(t require.TestingT, p *columns.Part) []trace {
	var out []trace
	for i := range p.Len() {
		s, err := p.Segment(i)
		require.NoError(t, err)
		for k := range s.Blocks() {
			b, err := s.BlockIn(k, &columns.Memory{})
			require.NoError(t, err)
			out = append(out, tracesOf(t, b)...)
		}
	}
	return out
}

// block is what Block and Chosen are.
type block interface {
	First() ([]int32, error)
	Len() int
	Traces() ([]telemetry.TraceID, error)
	Starts() ([]int64, error)
	Durations() ([]int64, error)
	Parents() ([]int32, error)
	Column(key storage.SpanKey) (*storage.SpanColumn, error)
	Spans(rows []int, cols storage.SpanColumns) (*storage.SpanBlock, error)
}

// tracesOf reads the traces of a block.
func tracesOf(t require.TestingT, b block) (out []trace) {
	first, err := b.First()
	require.NoError(t, err)
	parents, err := b.Parents()
	require.NoError(t, err)
	sp, err := b.Spans(all(b.Len()), storage.SpanAll)
	require.NoError(t, err)
	for n := range len(first) - 1 {
		var tr trace
		for row := first[n]; row < first[n+1]; row++ {
			s := sp.Span(int(row))
			up := parents[row]
			if up >= 0 {
				up -= first[n]
			}
			tr.rows = append(tr.rows, storage.SpanRow{Resource: sp.ResourceOf(int(row)), Span: &s})
			tr.parents = append(tr.parents, up)
		}
		out = append(out, tr)
	}
	return out
}

// chosen compares some traces of a block with what they are. Nothing else was asked of the block.
func chosen(t require.TestingT, s *columns.Segment, k int, of []trace, some ...int32) {
	open := func() (*columns.Chosen, []storage.SpanRow, []trace) {
		b, err := s.BlockIn(k, &columns.Memory{})
		require.NoError(t, err)
		c, err := b.Choose(some)
		require.NoError(t, err)
		var want []trace
		for _, n := range some {
			want = append(want, of[n])
		}
		return c, flat(want), want
	}
	c, rows, want := open()
	require.Equal(t, len(rows), c.Len())
	ids, err := c.Traces()
	require.NoError(t, err)
	starts, err := c.Starts()
	require.NoError(t, err)
	durs, err := c.Durations()
	require.NoError(t, err)
	for i, tr := range want {
		require.Equal(t, tr.id(), ids[i])
	}
	for i, r := range rows {
		require.Equal(t, r.Span.Start, starts[i])
		require.Equal(t, r.Span.End-r.Span.Start, durs[i])
	}
	same(t, want, tracesOf(t, c))
	c, rows, _ = open()
	sameColumns(t, c, rows)
	c, rows, _ = open()
	tornColumns(t, s, k, flat(of))
	last := len(rows) - 1
	sp, err := c.Spans([]int{last, 0}, 0) // a few are looked for by themselves
	require.NoError(t, err)
	for i, r := range []storage.SpanRow{rows[last], rows[0]} {
		require.Equal(t, r.Span.SpanID, sp.SpanID[i])
		require.Equal(t, r.Span.ParentID, sp.ParentID[i])
	}
}

// tornColumns compares every third row of a block with what it is.
func tornColumns(t require.TestingT, s *columns.Segment, k int, of []storage.SpanRow) {
	b, err := s.BlockIn(k, &columns.Memory{})
	require.NoError(t, err)
	set := make([]uint64, (len(of)+63)/64)
	var rows []storage.SpanRow
	for i, r := range of {
		if i%3 != 2 {
			continue
		}
		set[i/64] |= 1 << (i % 64)
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		return
	}
	c, err := b.ChooseRows(set)
	require.NoError(t, err)
	sameColumns(t, c, rows)
	parents, err := c.Parents()
	require.NoError(t, err)
	first, err := c.First()
	require.NoError(t, err)
	ids, err := c.Traces()
	require.NoError(t, err)
	full, err := b.Parents()
	require.NoError(t, err)
	for n, id := range ids {
		for i := first[n]; i < first[n+1]; i++ {
			require.Equal(t, id, rows[i].Span.TraceID)
			up := full[3*i+2]
			switch {
			case up >= 0 && up%3 == 2:
				require.Equal(t, up/3, parents[i])
			case up >= 0:
				require.Equal(t, int32(storage.LostParent), parents[i])
			default:
				require.Equal(t, up, parents[i])
			}
		}
	}
	require.Equal(t, len(rows), int(first[len(ids)]))
}

// same compares traces span by span.
func same(t require.TestingT, want, got []trace) {
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, want[i].parents, got[i].parents)
		for k := range want[i].rows {
			require.Equal(t, want[i].rows[k], got[i].rows[k])
		}
	}
}

// keysOf returns every key that could have values, and some that have none.
func keysOf() []storage.SpanKey {
	var out []storage.SpanKey
	for f := storage.SpanName; f <= storage.LinkSpan; f++ {
		out = append(out, storage.Field(f))
	}
	for _, scope := range []storage.AttrScope{storage.AnyScope, storage.RecordScope, storage.InstrumentationScope, storage.ResourceScope, storage.EventScope, storage.LinkScope} {
		for _, name := range []string{"", "a", "b", "http.method", "id", "n", "none"} {
			out = append(out, storage.SpanKey{Scope: scope, Name: name})
		}
	}
	return out
}

// sameColumns compares each column of a block with what its spans say.
func sameColumns(t require.TestingT, b block, rows []storage.SpanRow) {
	for _, key := range keysOf() {
		c, err := b.Column(key)
		require.NoError(t, err)
		at := 0
		for i, r := range rows {
			key.Each(r.Resource, r.Span, func(v telemetry.Value) {
				require.Less(t, at, c.Len(), "%v", key)
				row := i
				if c.Rows != nil {
					row = int(c.Rows[at])
				}
				require.Equal(t, i, row, "%v", key)
				require.Equal(t, v, c.Value(at), "%v", key)
				at++
			})
		}
		require.Equal(t, at, c.Len(), "%v", key)
		if c.Rows == nil {
			require.Equal(t, len(rows), c.Len(), "%v", key)
		}
		seen := make(map[telemetry.Value]bool)
		for _, v := range c.Dict {
			require.False(t, seen[v], "%v", key)
			seen[v] = true
		}
	}
}

func flat(ts []trace) (rows []storage.SpanRow) {
	for _, t := range ts {
		rows = append(rows, t.rows...)
	}
	return rows
}

// layouts have small pages, so that few rows make several.
func layouts() []columns.Layout {
	return []columns.Layout{columns.DefaultLayout(), {PageRows: 3, SegmentRows: 40, FullRows: 20}, {PageRows: 10, SegmentRows: 1000, FullRows: 500}}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		ts := settle(odd(r))
		l := rapid.SampledFrom(layouts()).Draw(r, "layout")
		p := open(t, write(t, l, ts))
		same(r, ts, back(r, p))
		at := 0
		for i := range p.Len() {
			s, err := p.Segment(i)
			require.NoError(r, err)
			require.Equal(r, p.Info(i), s.Info())
			segment(r, s, ts[at:at+s.Info().Traces])
			at += s.Info().Traces
		}
	})
}

// segment compares what a segment says with its traces.
func segment(t require.TestingT, s *columns.Segment, ts []trace) {
	ids, err := s.TraceIDs()
	require.NoError(t, err)
	var want []telemetry.TraceID
	for _, tr := range ts {
		want = append(want, tr.id())
	}
	slices.SortFunc(want, func(a, b telemetry.TraceID) int { return slices.Compare(a[:], b[:]) })
	require.Equal(t, want, ids)
	values := make(map[storage.SpanKey]map[telemetry.Value]bool)
	for _, key := range keysOf() {
		values[key] = make(map[telemetry.Value]bool)
		for _, r := range flat(ts) {
			key.Each(r.Resource, r.Span, func(v telemetry.Value) { values[key][v] = true })
		}
		got := make(map[telemetry.Value]bool)
		require.NoError(t, s.Values(key, func(v telemetry.Value) bool {
			require.False(t, got[v])
			got[v] = true
			return true
		}))
		require.Equal(t, values[key], got, "%v", key)
	}
	keys, err := s.Keys()
	require.NoError(t, err)
	for key, vs := range values {
		if key.Scope != storage.FieldScope && key.Scope != storage.AnyScope {
			require.Equal(t, len(vs) > 0, slices.Contains(keys, key), "%v", key)
		}
	}
	at := 0
	var m columns.Memory
	for k := range s.Blocks() {
		b, err := s.BlockIn(k, &m)
		require.NoError(t, err)
		mine := ts[at : at+s.BlockInfo(k).Traces]
		info := s.BlockInfo(k)
		require.Equal(t, len(flat(mine)), info.Rows)
		require.Equal(t, info.Rows, b.Len())
		starts, err := b.Starts()
		require.NoError(t, err)
		durs, err := b.Durations()
		require.NoError(t, err)
		lo, hi := b.Bounds()
		for i, r := range flat(mine) {
			require.Equal(t, r.Span.Start, starts[i])
			require.Equal(t, r.Span.End-r.Span.Start, durs[i])
			require.GreaterOrEqual(t, starts[i], info.Start)
			require.LessOrEqual(t, starts[i], info.LastStart)
			require.GreaterOrEqual(t, min(r.Span.Start, r.Span.End), lo)
			require.LessOrEqual(t, max(r.Span.Start, r.Span.End), hi)
		}
		got, err := b.Traces()
		require.NoError(t, err)
		for i, tr := range mine {
			require.Equal(t, tr.id(), got[i])
			require.GreaterOrEqual(t, info.LastFirst, tr.first())
			block, n, err := s.Find(tr.id())
			require.NoError(t, err)
			require.Equal(t, []int{k, i}, []int{block, n})
		}
		sameColumns(t, b, flat(mine))
		last := int32(len(mine) - 1)
		chosen(t, s, k, mine, last)
		if last > 1 {
			chosen(t, s, k, mine, 0, last/2, last)
		}
		at += len(mine)
	}
	block, n, err := s.Find(telemetry.TraceID{15: 99})
	require.NoError(t, err)
	require.Equal(t, []int{-1, -1}, []int{block, n})
}

// TestMergeIsTheSame gathers segments trace by trace, and copies them.
func TestMergeIsTheSame(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		ts := settle(odd(r))
		cut := rapid.IntRange(0, len(ts)).Draw(r, "cut")
		l := rapid.SampledFrom(layouts()).Draw(r, "layout")
		p := open(t, write(t, l, ts[:cut], ts[cut:]))
		to := rapid.SampledFrom(layouts()).Draw(r, "to")
		gathered := build(t, func(w *part.Writer) {
			cw := columns.NewWriter(w, to)
			for i := range p.Len() {
				s, err := p.Segment(i)
				require.NoError(r, err)
				for k := range s.Blocks() {
					b, err := s.Block(k)
					require.NoError(r, err)
					for n := range s.BlockInfo(k).Traces {
						if cw.Full() {
							require.NoError(r, cw.End())
						}
						require.NoError(r, cw.AddFrom(b, n))
					}
				}
			}
			require.NoError(r, cw.Close())
		})
		same(r, ts, back(r, open(t, gathered)))
		copied := build(t, func(w *part.Writer) {
			cw := columns.NewWriter(w, to)
			for i := range p.Len() {
				s, err := p.Segment(i)
				require.NoError(r, err)
				require.NoError(r, cw.Copy(s))
			}
			require.NoError(r, cw.Close())
		})
		same(r, ts, back(r, open(t, copied)))
	})
}

func TestShop(t *testing.T) {
	ts := newShop().traces(6000)
	b := write(t, columns.DefaultLayout(), ts)
	p := open(t, b)
	same(t, ts, back(t, p))
}

// TestConcurrentReaders reads one segment from several goroutines, each with blocks of its own.
func TestConcurrentReaders(t *testing.T) {
	ts := newShop().traces(2000)
	s, err := open(t, write(t, columns.Layout{PageRows: 300, SegmentRows: 1 << 20, FullRows: 1000}, ts)).Segment(0)
	require.NoError(t, err)
	rows := flat(ts)
	failed := make(chan error, 4)
	for range cap(failed) {
		go func() {
			var m columns.Memory
			at := 0
			for k := range s.Blocks() {
				b, err := s.BlockIn(k, &m)
				if err == nil {
					_, err = s.Where(storage.AttrMatch{M: labels.MustNewMatcher(labels.MatchEqual, "user.id", "user-00001")})
				}
				var c *storage.SpanColumn
				if err == nil {
					c, err = b.Column(storage.SpanKey{Scope: storage.AnyScope, Name: "service.name"})
				}
				var sp *storage.SpanBlock
				if err == nil {
					sp, err = b.Spans(all(b.Len()), storage.SpanAll)
				}
				for i := 0; err == nil && i < b.Len(); i++ {
					if want := rows[at+i]; sp.Name[i] != want.Span.Name || c.Value(i).Str() != want.Resource.Attrs.Text("service.name") {
						err = fmt.Errorf("row %d of block %d is another one", i, k)
					}
				}
				if err != nil {
					failed <- err
					return
				}
				at += b.Len()
			}
			failed <- nil
		}()
	}
	for range cap(failed) {
		require.NoError(t, <-failed)
	}
}
