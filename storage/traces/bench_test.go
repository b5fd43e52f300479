package traces_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/columns"
	"github.com/braidobs/braid/storage/traces/join"
)

const benchSpans = 50_000

func perSpan(b *testing.B, spans int64) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(int64(b.N)*spans), "ns/span")
}

// BenchmarkHeadAppend appends requests of a thousand spans each.
func BenchmarkHeadAppend(b *testing.B) {
	shop := newShop(1)
	var batches []telemetry.Batch
	spans := int64(0)
	for spans < benchSpans {
		for _, batch := range shop.request() {
			batches = append(batches, batch)
			spans += int64(len(batch.Spans))
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		h := traces.NewHead()
		for i := range batches {
			h.Append(storage.Position(i), &batches[i])
		}
	}
	perSpan(b, spans)
}

// BenchmarkFlush writes a head as a part.
func BenchmarkFlush(b *testing.B) {
	s, shop := newShelf(b, columns.DefaultLayout()), newShop(1)
	h := traces.NewHead()
	shop.fill(h, benchSpans)
	_, spans := h.Size()
	size := 0
	b.ReportAllocs()
	for b.Loop() {
		size = 0
		for _, f := range s.flush(h, 1) {
			size += len(f.bytes)
		}
	}
	perSpan(b, spans)
	b.ReportMetric(float64(size)/float64(spans), "bytes/span")
}

// flushed returns parts as flushes leave them.
func flushed(b *testing.B, s *shelf, parts int) (files []*file, spans int64) {
	b.Helper()
	shop := newShop(1)
	for n := range parts {
		h := traces.NewHead()
		shop.fill(h, benchSpans)
		for _, f := range s.flush(h, storage.Position(n)) {
			files = append(files, f)
			spans += f.rows
		}
	}
	return files, spans
}

// BenchmarkMerge makes one part of four: of small segments, and of full ones, which are copied.
func BenchmarkMerge(b *testing.B) {
	for name, full := range map[string]int64{"gather": 192 << 10, "copy": 1} {
		b.Run(name, func(b *testing.B) {
			l := columns.DefaultLayout()
			l.FullRows = full
			s := newShelf(b, l)
			files, spans := flushed(b, s, 4)
			size := 0
			b.ReportAllocs()
			for b.Loop() {
				size = len(s.merge(nil, 9, files...).bytes)
			}
			perSpan(b, spans)
			b.ReportMetric(float64(size)/float64(spans), "bytes/span")
		})
	}
}

// BenchmarkRead reads whole traces of eight parts of 50,000 spans and of a head: all of them, with nothing known about what
// lies in several parts, the newest, those with an attribute, and the pieces that a large trace is returned in.
func BenchmarkRead(b *testing.B) {
	s := newShelf(b, columns.DefaultLayout())
	files, spans := flushed(b, s, 8)
	h := traces.NewHead()
	newShop(9).fill(h, benchSpans/5)
	srcs := append(sources(files...), h.Snapshot().Tenant("t"))
	user := storage.ValueMatch{
		Key:    storage.SpanKey{Scope: storage.RecordScope, Name: "user.id"},
		Accept: func(v telemetry.Value) bool { return v.Str() == "user-17" }, Equal: []telemetry.Value{telemetry.String("user-17")},
	}
	run := func(name string, q func(*join.Query), shared func() *join.Shared, blocks int) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				query, n := all(), 0
				q(&query)
				for blk, err := range join.Read(b.Context(), srcs, query, shared(), fail) {
					if err == nil {
						_, err = blk.Parents()
					}
					if err == nil {
						_, err = blk.Column(storage.Field(storage.SpanName))
					}
					if err != nil {
						b.Fatal(err)
					}
					if n++; n == blocks {
						break
					}
				}
			}
			perSpan(b, spans)
		})
	}
	known := join.NewShared(0)
	kept := func() *join.Shared { return known }
	run("all", func(*join.Query) {}, kept, 0)
	run("all, nothing known", func(*join.Query) {}, func() *join.Shared { return join.NewShared(0) }, 0)
	run("fragments", func(q *join.Query) { q.Fragments = true }, kept, 0)
	run("newest", func(q *join.Query) { q.Order = storage.NewestFirst }, kept, 3)
	run("attribute", func(q *join.Query) { q.Need = []storage.Predicate{user} }, kept, 0)
	run("absent", func(q *join.Query) {
		absent := user
		absent.Accept, absent.Equal = func(telemetry.Value) bool { return false }, []telemetry.Value{}
		q.Need = []storage.Predicate{absent}
	}, kept, 0)
}

// BenchmarkByID looks for a trace in eight parts, and for one that is in none.
func BenchmarkByID(b *testing.B) {
	s := newShelf(b, columns.DefaultLayout())
	files, _ := flushed(b, s, 8)
	var id telemetry.TraceID
	for blk, err := range join.Read(b.Context(), sources(files[4]), all(), join.NewShared(0), fail) {
		require.NoError(b, err)
		ids, err := blk.Traces()
		require.NoError(b, err)
		id = ids[len(ids)/2]
		break
	}
	for name, id := range map[string]telemetry.TraceID{"hit": id, "miss": {1, 2, 3}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				scan := traces.Scan{SpanQuery: storage.SpanQuery{Start: math.MinInt64, End: math.MaxInt64, Order: storage.OldestFirst, Columns: storage.SpanAll, Where: storage.TraceIn{id}}}
				blk, err := traces.Collect(b.Context(), sources(files...), scan, fail)
				if err != nil || (blk.Len() > 0) != (name == "hit") {
					b.Fatal(blk.Len(), err)
				}
			}
		})
	}
}

// BenchmarkByIDInMany looks for a trace that is in none of a thousand segments, which a store does not keep open.
func BenchmarkByIDInMany(b *testing.B) {
	s, shop := newShelf(b, columns.DefaultLayout()), newShop(1)
	var files []*file
	for n := range 1000 {
		h := traces.NewHead()
		shop.fill(h, 200)
		files = append(files, s.flush(h, storage.Position(n))...)
	}
	query := all()
	query.Need = []storage.Predicate{storage.TraceIn{{1, 2, 3}}}
	known := join.NewShared(0)
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range join.Read(b.Context(), sources(files...), query, known, fail) {
			b.Fatal("found", err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(files)), "ns/segment")
}

// BenchmarkPage returns a page of a thousand spans in the middle of a trace of 100,000.
func BenchmarkPage(b *testing.B) {
	h := traces.NewHead()
	for n := range int64(1000) {
		batch := telemetry.Batch{Tenant: "t", Spans: make([]telemetry.Span, 100)}
		for i := range batch.Spans {
			batch.Spans[i] = telemetry.Span{TraceID: telemetry.TraceID{1}, SpanID: telemetry.SpanID{1, byte(n), byte(n >> 8), byte(i)}, Start: start + n*1e6 + int64(i), Name: "page", Attrs: telemetry.Attrs{num("n", n)}}
		}
		h.Append(1, &batch)
	}
	s := newShelf(b, columns.DefaultLayout())
	files := s.flush(h, 1)
	b.ReportAllocs()
	for b.Loop() {
		scan := traces.Scan{SpanQuery: storage.SpanQuery{Start: start + 500e6, End: math.MaxInt64, Order: storage.OldestFirst, Limit: 1000, Columns: storage.SpanAll, Where: storage.TraceIn{{1}}}}
		blk, err := traces.Collect(b.Context(), sources(files...), scan, fail)
		if err != nil || blk.Len() != 1000 {
			b.Fatal(blk.Len(), err)
		}
	}
}
