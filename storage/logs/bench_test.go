package logs_test

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs"
	"github.com/braidobs/braid/storage/logs/lines"
	"github.com/braidobs/braid/storage/part"
)

const rows = 200_000

// record returns line i; every 20,000th holds a needle.
func record(i int) telemetry.LogRecord {
	body := fmt.Sprintf("level=info msg=\"request done\" path=/cart/%d took=%dms status=200", i%97, i%900)
	switch {
	case i%20_000 == 7:
		body = "level=error msg=\"needle in the stack\""
	case i%20 == 3:
		body += " trace_id=" + trace(i)
	}
	return telemetry.LogRecord{
		Time: int64(i) * 1e6, Severity: 9, SeverityText: "INFO", Body: telemetry.String(body),
		Attrs: telemetry.NewAttrs([]telemetry.Attr{{Key: "user.id", Value: telemetry.String(fmt.Sprintf("u-%d", i%5000))}}),
	}
}

func trace(i int) string {
	return fmt.Sprintf("%016x%016x", uint64(i)*0x9e3779b97f4a7c15, uint64(i+1)*0xbf58476d1ce4e5b9)
}

func stream(i int) telemetry.LabelSet {
	return telemetry.NewLabelSet(labels.FromStrings("service_name", fmt.Sprintf("service-%d", i%20)))
}

// bigPart returns a part with all lines, in several segments.
func bigPart(b *testing.B) *logs.Part {
	b.Helper()
	layout := logs.DefaultLayout()
	layout.SegmentBlocks = 5
	bd := logs.NewBuilder(b.Context(), layout, lines.NewDecoder())
	for i := range rows {
		r := record(i)
		bd.Add(stream(i), nil, &r)
	}
	enc, err := part.NewEncoder()
	require.NoError(b, err)
	var buf bytes.Buffer
	w := part.NewWriter(&buf, enc, nil)
	require.NoError(b, bd.Write(w))
	require.NoError(b, w.Close())
	dec, err := part.NewDecoder()
	require.NoError(b, err)
	b.Cleanup(dec.Close)
	p, err := part.Open("bench.part", bytes.NewReader(buf.Bytes()), int64(buf.Len()), dec, nil)
	require.NoError(b, err)
	return logs.OpenPart(p, 1, 0, rows*1e6)
}

func BenchmarkScan(b *testing.B) {
	p := bigPart(b)
	dec := lines.NewDecoder()
	for _, bb := range []struct {
		name string
		q    storage.LogQuery
		want int
	}{
		{"needle", storage.LogQuery{Where: storage.LineContains("needle"), Columns: storage.LogAll}, rows / 20_000},
		{"absent", storage.LogQuery{Where: storage.LineContains("zqnabsent1"), Columns: storage.LogAll}, 0},
		{"trace", storage.LogQuery{Where: storage.LineContains(trace(100_003)), Columns: storage.LogAll, Order: storage.NewestFirst, Limit: 100}, 1},
		{"newest of a stream", storage.LogQuery{
			Where:   storage.And{storage.StreamMatch{labels.MustNewMatcher(labels.MatchEqual, "service_name", "service-3")}, storage.LineContains("path=/cart/3")},
			Columns: storage.LogAll, Order: storage.NewestFirst, Limit: 100,
		}, 100},
		{"stream", storage.LogQuery{Where: storage.StreamMatch{labels.MustNewMatcher(labels.MatchEqual, "service_name", "service-3")}, Columns: storage.LogBody}, rows / 20},
		{"newest", storage.LogQuery{Order: storage.NewestFirst, Limit: 100, Columns: storage.LogBody | storage.LogStream}, 100},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				q := bb.q
				q.End = math.MaxInt64
				blk, err := logs.Collect(b.Context(), []logs.Source{p}, logs.Scan{LogQuery: q, Decoder: dec}, func(_ int, err error) error { return err })
				if err != nil || blk.Len() != bb.want {
					b.Fatal(blk.Len(), err)
				}
			}
			b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "lines/s")
		})
	}
}

// BenchmarkCount reads times and streams of all rows.
func BenchmarkCount(b *testing.B) {
	p := bigPart(b)
	q := storage.LogQuery{End: math.MaxInt64, Columns: storage.LogStream}
	dec := lines.NewDecoder()
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		err := p.Scan(b.Context(), &logs.Scan{LogQuery: q, Decoder: dec}, func(r logs.Rows) error {
			n += r.Len()
			return nil
		})
		if err != nil || n != rows {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/line")
}

func BenchmarkHeadAppend(b *testing.B) {
	batch := telemetry.Batch{Tenant: "t", Stream: stream(1)}
	for i := range 100 {
		batch.Logs = append(batch.Logs, record(i))
	}
	h := logs.NewHead()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		if n++; n%10_000 == 0 {
			h = logs.NewHead()
		}
		h.Append(storage.Position(n), &batch)
	}
	b.ReportMetric(float64(b.N)*100/b.Elapsed().Seconds(), "lines/s")
}
