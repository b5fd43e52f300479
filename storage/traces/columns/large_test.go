package columns_test

import (
	"encoding/binary"
	"flag"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces/columns"
)

// large returns a trace of n spans, with what f adds to each.
func large(n int, f func(i int, s *telemetry.Span)) trace {
	rows := make([]storage.SpanRow, n)
	for i := range rows {
		s := &telemetry.Span{TraceID: telemetry.TraceID{1}, Start: int64(i), End: int64(i + 5), Name: "x", Kind: telemetry.SpanKindServer}
		binary.BigEndian.PutUint64(s.SpanID[:], uint64(i+1))
		if i > 0 {
			binary.BigEndian.PutUint64(s.ParentID[:], uint64(i/3+1))
		}
		f(i, s)
		rows[i].Span = s
	}
	var s storage.Settler
	return trace{parents: s.Settle(rows), rows: rows}
}

// TestLargeTraces writes traces over several pages, and between small ones.
func TestLargeTraces(t *testing.T) {
	plain := func(int, *telemetry.Span) {}
	tests := []struct {
		name   string
		layout columns.Layout
		trace  trace
		most   int // segments
	}{
		{"several pages", columns.Layout{PageRows: 100, SegmentRows: 4000, FullRows: 1000}, large(1000, plain), 1},
		{"more pages than a trace may have", columns.Layout{PageRows: 10, SegmentRows: 10000, FullRows: 1000}, large(1500, plain), 6},
		{"large attributes", columns.DefaultLayout(), large(120, func(i int, s *telemetry.Span) {
			s.Attrs = telemetry.Attrs{text("large", strings.Repeat(string(rune('a'+i%20)), 64<<10-i))}
		}), 1},
		{"many events", columns.DefaultLayout(), large(30, func(_ int, s *telemetry.Span) {
			for k := range 1000 {
				s.Events = append(s.Events, telemetry.Event{Time: int64(k), Name: "tick", Attrs: telemetry.Attrs{num("k", int64(k%100))}})
			}
		}), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			shop := newShop().traces(100)
			before, after := shop[:len(shop)/2], shop[len(shop)/2:]
			all := append(append(slices.Clip(before), tt.trace), after...)
			p := open(t, write(t, tt.layout, all))
			require.LessOrEqual(t, p.Len(), tt.most)
			check := func(p *columns.Part) {
				var rows []storage.SpanRow
				parts := 0
				for _, tr := range back(t, p) {
					rows = append(rows, tr.rows...)
					if tr.id() == tt.trace.id() {
						parts++
					}
				}
				require.Equal(t, flat(all), rows, "spans stay, whatever is cut")
				require.LessOrEqual(t, parts, tt.most)
			}
			check(p)
			gathered := build(t, func(w *part.Writer) {
				cw := columns.NewWriter(w, tt.layout)
				for i := range p.Len() {
					s, err := p.Segment(i)
					require.NoError(t, err)
					for k := range s.Blocks() {
						b, err := s.Block(k)
						require.NoError(t, err)
						for n := range s.BlockInfo(k).Traces {
							require.NoError(t, cw.AddFrom(b, n))
						}
					}
				}
				require.NoError(t, cw.Close())
			})
			check(open(t, gathered))
		})
	}
}

// TestLargeTraceIsOneBlock reads a trace of several pages as one block.
func TestLargeTraceIsOneBlock(t *testing.T) {
	tr := large(1000, func(i int, s *telemetry.Span) {
		s.Attrs = telemetry.Attrs{num("a", int64(i)), text("b", string(rune('a'+i%3)))}
		if i > 700 {
			s.Attrs = append(s.Attrs, text("id", strings.Repeat("i", i)))
		}
	})
	s, err := open(t, write(t, columns.Layout{PageRows: 100, SegmentRows: 4000, FullRows: 1000}, []trace{tr})).Segment(0)
	require.NoError(t, err)
	require.Equal(t, 1, s.Blocks())
	segment(t, s, []trace{tr})
	b, err := s.Block(0)
	require.NoError(t, err)
	sp, err := b.Spans([]int{999, 3, 500}, storage.SpanAll)
	require.NoError(t, err)
	for i, row := range []int{999, 3, 500} {
		require.Equal(t, *tr.rows[row].Span, sp.Span(i))
	}
	blocks, err := s.Where(storage.TraceIn{tr.id()})
	require.NoError(t, err)
	require.Equal(t, uint64(1), blocks)
}

func TestWriterRefusesRowsOutOfOrder(t *testing.T) {
	tr := large(10, func(int, *telemetry.Span) {})
	tr.parents[3] = 8
	build(t, func(w *part.Writer) {
		require.ErrorContains(t, columns.NewWriter(w, columns.DefaultLayout()).Add(tr.rows, tr.parents), "row 3 of a trace does not come after its parent, row 8")
	})
}

// TestManyKeys ends segments before they have too many keys.
func TestManyKeys(t *testing.T) {
	tr := large(200, func(i int, s *telemetry.Span) {
		for k := range 50 {
			s.Attrs = append(s.Attrs, num("k"+string(rune(1000+50*i+k)), math.MaxInt64))
		}
		s.Attrs = telemetry.NewAttrs(s.Attrs)
	})
	build(t, func(w *part.Writer) {
		cw := columns.NewWriter(w, columns.DefaultLayout())
		require.NoError(t, cw.Add(tr.rows, tr.parents))
		require.True(t, cw.Full())
		require.NoError(t, cw.End())
		require.False(t, cw.Full())
	})
}

var rewrite = flag.Bool("rewrite", false, "write the golden file")

// TestGolden reads a file of version 1. What is written may differ in what the compressor makes of it.
func TestGolden(t *testing.T) {
	const file = "testdata/v1.part"
	scope := &telemetry.Scope{Name: "lib", Version: "1", Attrs: telemetry.Attrs{text("s", "t")}}
	res := telemetry.NewResource("", telemetry.Attrs{text("service.name", "shop")})
	tr := large(300, func(i int, s *telemetry.Span) {
		s.Attrs = telemetry.Attrs{
			num("a", int64(i*7919%100000)), text("id", strconv.Itoa(i*i)), text("method", []string{"GET", "POST"}[i%2]),
			text("user", "user-"+strconv.Itoa(i%100)),
			{Key: "v", Value: telemetry.Double(float64(i % 70))},
		}
		if i%40 == 0 {
			s.Scope, s.State, s.StatusMessage, s.Status, s.Flags, s.DroppedLinks = scope, "k=v", "bad", telemetry.StatusError, 1, 2
			s.Events = []telemetry.Event{{Time: int64(i + 1), Name: "exception", Attrs: telemetry.Attrs{text("e", "x")}, Dropped: 1}}
			s.Links = []telemetry.Link{{TraceID: telemetry.TraceID{2}, SpanID: telemetry.SpanID{3}, State: "k=w", Flags: 2, Attrs: telemetry.Attrs{num("l", 1)}}}
			binary.BigEndian.PutUint64(s.ParentID[:], uint64(5000+i))
		}
	})
	for i := range tr.rows {
		if i%7 > 0 {
			tr.rows[i].Resource = res
		}
	}
	other := large(20, func(i int, s *telemetry.Span) { s.TraceID[0], s.Start, s.End = 4, int64(i+1)*1000, int64(i+1)*2000 })
	ts := []trace{tr, other}
	b := write(t, columns.Layout{PageRows: 200, SegmentRows: 1000, FullRows: 100}, ts[:1], ts)
	ts = append(ts[:1:1], ts...)
	if *rewrite {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, b, 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	same(t, ts, back(t, open(t, want)))
	same(t, ts, back(t, open(t, b)))
}
