package columns_test

import (
	"bytes"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces/columns"
)

const benchSpans = 200_000

// BenchmarkWrite writes a segment of settled traces.
func BenchmarkWrite(b *testing.B) {
	ts := newShop().traces(benchSpans)
	enc, err := part.NewEncoder()
	require.NoError(b, err)
	size := 0
	b.ReportAllocs()
	for b.Loop() {
		var buf bytes.Buffer
		w := part.NewWriter(&buf, enc, map[string]string{})
		cw := columns.NewWriter(w, columns.DefaultLayout())
		for _, t := range ts {
			if err := cw.Add(t.rows, t.parents); err != nil {
				b.Fatal(err)
			}
		}
		if err := cw.Close(); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		size = buf.Len()
	}
	n := spansOf(ts)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/span")
	b.ReportMetric(float64(size)/float64(n), "bytes/span")
}

// BenchmarkSettle is what settling costs before.
func BenchmarkSettle(b *testing.B) {
	s := newShop()
	var ts [][]storage.SpanRow
	n := 0
	for n < benchSpans {
		ts = append(ts, s.trace())
		n += len(ts[len(ts)-1])
	}
	var settler storage.Settler
	var rows []storage.SpanRow
	for b.Loop() {
		for _, t := range ts {
			rows = append(rows[:0], t...)
			settler.Settle(rows)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/span")
}

// BenchmarkGather makes one segment of four that lie one after the other.
func BenchmarkGather(b *testing.B) {
	s := newShop()
	p := open(b, write(b, columns.DefaultLayout(), s.traces(benchSpans/4), s.traces(benchSpans/4), s.traces(benchSpans/4), s.traces(benchSpans/4)))
	enc, err := part.NewEncoder()
	require.NoError(b, err)
	n := 0
	for b.Loop() {
		n = 0
		var buf bytes.Buffer
		w := part.NewWriter(&buf, enc, map[string]string{})
		cw := columns.NewWriter(w, columns.DefaultLayout())
		for i := range p.Len() {
			s, err := p.Segment(i)
			require.NoError(b, err)
			n += s.Info().Rows
			for k := range s.Blocks() {
				blk, err := s.Block(k)
				require.NoError(b, err)
				for t := range s.BlockInfo(k).Traces {
					if err := cw.AddFrom(blk, t); err != nil {
						b.Fatal(err)
					}
				}
			}
		}
		require.NoError(b, cw.Close())
		require.NoError(b, w.Close())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/span")
}

// BenchmarkColumns decodes one column of all blocks.
func BenchmarkColumns(b *testing.B) {
	ts := newShop().traces(benchSpans)
	p := open(b, write(b, columns.DefaultLayout(), ts))
	s, err := p.Segment(0)
	require.NoError(b, err)
	read := func(name string, f func(b *columns.Block) error) {
		b.Run(name, func(b *testing.B) {
			var m columns.Memory
			for b.Loop() {
				for k := range s.Blocks() {
					blk, err := s.BlockIn(k, &m)
					if err == nil {
						err = f(blk)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*s.Info().Rows), "ns/row")
		})
	}
	key := func(name string, key storage.SpanKey) {
		read(name, func(b *columns.Block) error { _, err := b.Column(key); return err })
	}
	read("nothing", func(b *columns.Block) error { _, err := b.First(); return err })
	read("starts", func(b *columns.Block) error { _, err := b.Starts(); return err })
	read("durations", func(b *columns.Block) error { _, err := b.Durations(); return err })
	read("parents", func(b *columns.Block) error { _, err := b.Parents(); return err })
	key("name", storage.Field(storage.SpanName))
	key("service", storage.SpanKey{Scope: storage.ResourceScope, Name: "service.name"})
	key("status", storage.SpanKey{Scope: storage.RecordScope, Name: "http.response.status_code"})
	key("port", storage.SpanKey{Scope: storage.RecordScope, Name: "client.port"})
	key("user", storage.SpanKey{Scope: storage.RecordScope, Name: "user.id"})
	key("request", storage.SpanKey{Scope: storage.RecordScope, Name: "request.id"})
	read("spans", func(b *columns.Block) error { _, err := b.Spans(all(b.Len()), storage.SpanAll); return err })
	read("20 spans", func(b *columns.Block) error { _, err := b.Spans(all(20), storage.SpanAll); return err })
}

// BenchmarkPrune asks a segment, opened anew or open, for the blocks that may match.
func BenchmarkPrune(b *testing.B) {
	ts := newShop().traces(benchSpans)
	p := open(b, write(b, columns.DefaultLayout(), ts))
	span := func(name string) storage.SpanKey { return storage.SpanKey{Scope: storage.RecordScope, Name: name} }
	equal := func(key storage.SpanKey, v telemetry.Value) storage.Predicate {
		return storage.ValueMatch{Key: key, Accept: func(x telemetry.Value) bool { return x == v }, Equal: []telemetry.Value{v}}
	}
	for name, need := range map[string][]storage.Predicate{
		"miss":   {storage.TraceIn{{1}}},
		"user":   {equal(span("user.id"), telemetry.String("nobody"))},
		"5xx":    {storage.And{equal(span("http.response.status_code"), telemetry.Int(500)), equal(storage.SpanKey{Scope: storage.ResourceScope, Name: "service.name"}, telemetry.String("service-00"))}},
		"absent": {equal(span("no.such"), telemetry.String("x"))},
	} {
		b.Run(name+"/open", func(b *testing.B) {
			s, err := p.Segment(0)
			require.NoError(b, err)
			for b.Loop() {
				if _, err := s.Prune(need); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/anew", func(b *testing.B) {
			for b.Loop() {
				s, err := p.Segment(0)
				if err == nil {
					_, err = s.Prune(need)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSieve looks in each block for the traces that match, with the codes of pages kept and not, and reads the starts of these.
func BenchmarkSieve(b *testing.B) {
	ts := newShop().traces(benchSpans)
	span := func(name string) storage.SpanKey { return storage.SpanKey{Scope: storage.RecordScope, Name: name} }
	equal := func(key storage.SpanKey, v telemetry.Value) storage.Predicate {
		return storage.ValueMatch{Key: key, Accept: func(x telemetry.Value) bool { return x == v }, Equal: []telemetry.Value{v}}
	}
	service := equal(storage.SpanKey{Scope: storage.ResourceScope, Name: "service.name"}, telemetry.String("service-00"))
	user, _ := ts[len(ts)/2].rows[0].Span.Attrs.Get("user.id")
	for name, p := range map[string]storage.Predicate{
		"5xx":  storage.And{equal(span("http.response.status_code"), telemetry.Int(500)), service},
		"slow": storage.And{service, storage.DurationRange{Min: 1e9, Max: math.MaxInt64}},
		"user": equal(span("user.id"), user),
	} {
		for kept, limit := range map[string]int64{"kept": 16 << 20, "anew": 0} {
			b.Run(name+"/"+kept, func(b *testing.B) {
				part := open(b, write(b, columns.DefaultLayout(), ts))
				part.Keep(columns.NewCache(limit))
				s, err := part.Segment(0)
				require.NoError(b, err)
				var m columns.Memory
				b.ReportAllocs()
				for b.Loop() {
					t, err := s.Test(p)
					require.NoError(b, err)
					for k := range s.Blocks() {
						blk, err := s.BlockIn(k, &m)
						require.NoError(b, err)
						set, err := blk.Sieve(t)
						require.NoError(b, err)
						var some []int32
						for i := range int32(64 * len(set)) {
							if set[i/64]>>(i%64)&1 == 1 {
								some = append(some, i)
							}
						}
						if len(some) == 0 {
							continue
						}
						c, err := blk.Choose(some)
						require.NoError(b, err)
						_, err = c.Starts()
						require.NoError(b, err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*s.Info().Rows), "ns/row")
			})
		}
	}
}
