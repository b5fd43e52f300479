package db_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/db"
	"github.com/braidobs/braid/storage/logs"
	"github.com/braidobs/braid/storage/logs/lines"
	"github.com/braidobs/braid/storage/metrics"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/columns"
	"github.com/braidobs/braid/storage/traces/join"
	"github.com/braidobs/braid/storage/vfs"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files of the current version")

const (
	goldenDir   = "testdata/v1"
	secondDir   = "testdata/v2" // what the second version wrote, where that differs
	thirdDir    = "testdata/v3" // and the third
	currentDir  = "testdata/v4" // what the current version writes, where that differs
	goldenParts = "../part/testdata/v1"
	// currentParts is what the current version writes, where that differs.
	currentParts = "../part/testdata/v2"
)

func keep(t *testing.T, name string, b []byte) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, b, 0o600))
}

// goldenBatch has something of each signal, with all that its tables keep.
func goldenBatch() telemetry.Batch {
	attrs := telemetry.NewAttrs([]telemetry.Attr{{Key: "k", Value: telemetry.Int(1)}, {Key: "nested", Value: telemetry.Map(telemetry.Attrs{{Key: "x", Value: telemetry.Double(math.NaN())}})}})
	scope := &telemetry.Scope{Name: "scope", Version: "1", SchemaURL: "https://s", Attrs: attrs, Dropped: 2}
	ns, ms := start.UnixNano(), start.UnixMilli()
	return telemetry.Batch{
		Tenant: tenant, Resource: testResource, Stream: labelSet("service_name", "shop", "namespace", "default"),
		Spans: []telemetry.Span{
			{
				TraceID: traceID(1), SpanID: telemetry.SpanID{1}, Kind: telemetry.SpanKindServer, Status: telemetry.StatusError, Flags: 1, Start: ns, End: ns + 5e6,
				Name: "GET /", State: "a=b", StatusMessage: "oops", Scope: scope, Attrs: attrs, DroppedAttrs: 1, DroppedEvents: 2, DroppedLinks: 3,
				Events: []telemetry.Event{{Time: ns + 1, Name: "e", Attrs: attrs, Dropped: 1}},
				Links:  []telemetry.Link{{TraceID: traceID(2), SpanID: telemetry.SpanID{2}, State: "c", Flags: 1, Attrs: attrs, Dropped: 1}},
			},
			{TraceID: traceID(1), SpanID: telemetry.SpanID{2}, ParentID: telemetry.SpanID{1}, Start: ns + 1, End: ns},
		},
		Logs: []telemetry.LogRecord{
			{Time: ns, Observed: ns + 7, Severity: 9, SeverityText: "INFO", TraceID: traceID(1), SpanID: telemetry.SpanID{1}, Flags: 1, EventName: "e", Dropped: 4, TimeInferred: true, Body: telemetry.String("a line"), Scope: scope, Attrs: attrs},
			{Time: ns + 1, Body: telemetry.Array([]telemetry.Value{telemetry.Bool(true), {}})},
		},
		Series: []telemetry.Series{
			{
				Labels: labelSet("__name__", "requests_total", "code", "200"), Metadata: &telemetry.Metadata{Type: telemetry.MetricCounter, Unit: "requests", Help: "Requests."},
				Samples: []telemetry.Sample{
					{T: ms, ST: ms - 1000, V: 1}, {T: ms + 1, V: math.Float64frombits(0x7ff0000000000002)}, {T: ms + 2, ST: ms + 3, V: math.Copysign(0, -1)},
				},
				Exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", traceID(1).String()), Value: 0.5, Ts: ms, HasTs: true}},
			},
			{
				Labels: labelSet("__name__", "latency"), Histograms: []telemetry.HistogramSample{
					{T: ms, ST: ms - 1, H: &histogram.Histogram{Schema: 1, Count: 3, Sum: 2.5, PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []int64{1, 1}}},
					{T: ms + 1, FH: &histogram.FloatHistogram{Schema: 0, Count: 1.5, Sum: 2, PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}}, PositiveBuckets: []float64{1.5}}},
				},
			},
		},
	}
}

func goldenRequest() *storage.Request {
	return &storage.Request{
		Key: storage.Key{1, 2, 15: 3}, Rejected: storage.Rejected{Spans: 1, Logs: 2, Samples: 3, Reasons: []string{"too old"}},
		Batches: []telemetry.Batch{goldenBatch(), {Tenant: "a"}},
	}
}

func goldenMask() *storage.Mask {
	return &storage.Mask{
		ID: 7, Tenant: tenant, Signal: storage.Logs, Start: -5, End: math.MaxInt64, Contains: "secret", Traces: []telemetry.TraceID{traceID(1)},
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", "b"), labels.MustNewMatcher(labels.MatchNotRegexp, "c", "d.*")},
	}
}

func TestGoldenRecords(t *testing.T) {
	if *rewrite {
		keep(t, thirdDir+"/series.rec", db.EncodeNumbered(goldenRequest()))
		keep(t, goldenDir+"/request.rec", db.EncodeRequest(goldenRequest()))
		keep(t, goldenDir+"/delete.rec", db.EncodeMask(goldenMask()))
		keep(t, goldenDir+"/sourced.rec", db.EncodeRequest(&storage.Request{Key: storage.Key{1}, Batches: []telemetry.Batch{piece(3, 5), piece(50, 51)}}))
		keep(t, goldenDir+"/setting.rec", db.EncodeSetting("key", []byte("value")))
	}
	for _, name := range []string{goldenDir + "/request.rec", thirdDir + "/series.rec"} {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		req, mask, err := db.DecodeRecord(b)
		require.NoError(t, err)
		require.Nil(t, mask)
		want := goldenRequest()
		require.Equal(t, want.Key, req.Key)
		require.Equal(t, want.Rejected, req.Rejected)
		require.Len(t, req.Batches, len(want.Batches))
		for i := range want.Batches {
			require.Equal(t, telemetry.AppendBatch(nil, &want.Batches[i]), telemetry.AppendBatch(nil, &req.Batches[i]))
		}
	}
	b, err := os.ReadFile(goldenDir + "/delete.rec")
	require.NoError(t, err)
	req, mask, err := db.DecodeRecord(b)
	require.NoError(t, err)
	require.Nil(t, req)
	require.Equal(t, fmt.Sprintf("%+v", goldenMask()), fmt.Sprintf("%+v", mask))
	b, err = os.ReadFile(goldenDir + "/sourced.rec")
	require.NoError(t, err)
	req, _, err = db.DecodeRecord(b)
	require.NoError(t, err)
	require.Len(t, req.Batches, 2)
	marks, err := db.DecodeMarks(b)
	require.NoError(t, err)
	require.Equal(t, []string{"agent pod 0 5", "agent pod 1 11"}, marks)
	b, err = os.ReadFile(goldenDir + "/setting.rec")
	require.NoError(t, err)
	key, value, err := db.DecodeSetting(b)
	require.NoError(t, err)
	require.Equal(t, "key value", key+" "+string(value))
}

// place returns a disk with the content of a directory.
func place(t *testing.T, from string) *vfs.Mem {
	t.Helper()
	disk := vfs.NewMem()
	require.NoError(t, filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		name, err := filepath.Rel(from, path)
		require.NoError(t, err)
		require.NoError(t, vfs.MkdirAllSync(disk, filepath.Dir(name)))
		f, err := disk.Create(name)
		require.NoError(t, err)
		_, err = f.Write(b)
		require.NoError(t, err)
		return f.Close()
	}))
	return disk
}

// writeGoldenDirectory leaves a store with parts, a merged part, a delete, a checkpointed state and a log.
func writeGoldenDirectory(t *testing.T) {
	t.Helper()
	disk := vfs.NewMem()
	m := newMachine(disk)
	requireOpen(t, m)
	write := func(from, to int) {
		for n := from; n < to; n++ {
			_, _, err := m.db.Write(t.Context(), numbered(n, start.Add(time.Duration(n)*time.Second)))
			require.NoError(t, err)
		}
	}
	for i := range 4 {
		write(i*5, i*5+5)
		require.NoError(t, m.db.Flush(t.Context()))
	}
	require.NoError(t, m.db.Maintain(t.Context()))
	_, err := m.db.Delete(t.Context(), storage.Mask{
		Tenant: tenant, Signal: storage.Logs, Start: math.MinInt64, End: math.MaxInt64,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "part", "0")},
	})
	require.NoError(t, err)
	write(20, 25)
	_, _, err = m.db.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{piece(0, 10)}})
	require.NoError(t, err)
	require.NoError(t, m.db.Set(t.Context(), senderKey, []byte("5")))
	require.NoError(t, m.db.Flush(t.Context()))
	write(25, 30)
	_, _, err = m.db.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{piece(10, 20)}})
	require.NoError(t, err)
	m.stop()
	require.NoError(t, os.RemoveAll(currentDir+"/data"))
	walk(t, disk, "data", func(name string) {
		b, err := vfs.ReadFile(disk, name, 1<<30)
		require.NoError(t, err)
		keep(t, filepath.Join(currentDir, name), b)
	})
}

// TestGoldenDirectory opens a data directory that each version wrote, reads it, and goes on with it.
func TestGoldenDirectory(t *testing.T) {
	if *rewrite {
		writeGoldenDirectory(t)
	}
	for _, dir := range []string{goldenDir, secondDir, thirdDir, currentDir} {
		t.Run(filepath.Base(dir), func(t *testing.T) { goOn(t, dir) })
	}
}

func goOn(t *testing.T, dir string) {
	t.Helper()
	m := newMachine(place(t, dir))
	requireOpen(t, m)
	if dir != goldenDir {
		s := sender{rng: testRand(1), acked: 20, next: 5, ck: 5}
		s.check(t, m.db)
		for s.next < 50 {
			require.True(t, s.send(t, m.db))
		}
		s.check(t, m.db)
	}
	look := func(tries int) {
		f, warnings := read(t, m.db)
		require.Empty(t, warnings)
		acked, deleted := map[int]bool{}, map[int]bool{}
		for n := range tries {
			acked[n] = true
			deleted[n] = n%3 == 0 && n < 20
		}
		check(t, f, acked, deleted, tries)
		rs, err := m.db.Receipts(t.Context(), tenant)
		require.NoError(t, err)
		require.Len(t, rs, 1)
	}
	look(30)
	_, _, err := m.db.Write(t.Context(), numbered(30, start))
	require.NoError(t, err)
	_, _, err = m.db.Write(t.Context(), numbered(29, start))
	require.NoError(t, err, "a retry of what is in the log")
	require.NoError(t, m.db.Flush(t.Context()))
	require.NoError(t, m.db.Maintain(t.Context()))
	look(31)
}

// goldenSnapshots are the snapshots by their version.
func goldenSnapshots() []string {
	return []string{goldenDir + "/snapshot.state", secondDir + "/snapshot.state"}
}

// writeGoldenSnapshot writes a snapshot with all that the current version knows.
func writeGoldenSnapshot(t *testing.T) {
	t.Helper()
	disk := vfs.NewMem()
	m := newMachine(disk)
	requireOpen(t, m)
	for n := range 3 {
		_, _, err := m.db.Write(t.Context(), numbered(n, start))
		require.NoError(t, err)
	}
	_, _, err := m.db.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{piece(3, 5), piece(50, 51)}})
	require.NoError(t, err)
	require.NoError(t, m.db.Set(t.Context(), "key", []byte("value")))
	_, err = m.db.Delete(t.Context(), *goldenMask())
	require.NoError(t, err)
	require.NoError(t, m.db.Flush(t.Context()))
	walk(t, disk, "data/blobs/meta", func(name string) {
		b, err := vfs.ReadFile(disk, name, 1<<30)
		require.NoError(t, err)
		keep(t, goldenSnapshots()[1], b)
	})
}

func TestGoldenSnapshot(t *testing.T) {
	if *rewrite {
		writeGoldenSnapshot(t)
	}
	for i, want := range [][]int{{1, 0, 1, 0, 0}, {1, 0, 2, 1, 1}} {
		b, err := os.ReadFile(goldenSnapshots()[i])
		require.NoError(t, err)
		s := db.NewState()
		require.NoError(t, s.Load("x", b))
		masks, deltas, dirs := s.Counts()
		require.Equal(t, want, []int{masks, deltas, dirs, s.Sources(), s.Values()})
		again := db.NewState()
		require.NoError(t, again.Load("x", s.Encode()))
		require.Equal(t, s.Encode(), again.Encode())
		if i == 1 {
			require.Equal(t, b, s.Encode())
		}
	}
}

// writeGoldenParts writes the parts that a flush of goldenBatch makes.
func writeGoldenParts(t *testing.T) {
	t.Helper()
	disk := vfs.NewMem()
	m := newMachine(disk)
	requireOpen(t, m)
	_, _, err := m.db.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{goldenBatch()}})
	require.NoError(t, err)
	require.NoError(t, m.db.Flush(t.Context()))
	walk(t, disk, "data/blobs/parts", func(name string) {
		b, err := vfs.ReadFile(disk, name, 1<<30)
		require.NoError(t, err)
		keep(t, filepath.Join(currentParts, strings.Split(name, "/")[3]+".part"), b)
	})
}

func openBytes(b []byte) (*part.Part, error) {
	dec, err := part.NewDecoder()
	if err != nil {
		return nil, err
	}
	return part.Open("golden.part", bytes.NewReader(b), int64(len(b)), dec, nil)
}

// TestGoldenParts reads the records of the parts that version 1 wrote.
func TestGoldenParts(t *testing.T) {
	if *rewrite {
		writeGoldenParts(t)
	}
	want := goldenBatch()
	file := func(dir string, s storage.Signal) *part.Part {
		b, err := os.ReadFile(fmt.Sprintf("%s/%s.part", dir, s))
		require.NoError(t, err)
		p, err := openBytes(b)
		require.NoError(t, err)
		require.NoError(t, p.Verify())
		require.Equal(t, s.String(), p.Prop("signal"))
		return p
	}
	var got telemetry.Batch
	got.Tenant, got.Resource, got.Stream = want.Tenant, want.Resource, want.Stream
	for _, dir := range []string{goldenParts, currentParts} {
		got.Logs = nil
		lp := logs.OpenPart(file(dir, storage.Logs), 1, math.MinInt64, math.MaxInt64)
		lq := storage.LogQuery{Start: math.MinInt64, End: math.MaxInt64, Columns: storage.LogAll}
		require.NoError(t, lp.Scan(t.Context(), &logs.Scan{LogQuery: lq, Decoder: lines.NewDecoder()}, func(b logs.Rows) error {
			for i := range b.Len() {
				require.Equal(t, want.Stream, b.StreamOf(i))
				require.Equal(t, want.Resource, b.ResourceOf(i))
				got.Logs = append(got.Logs, b.Record(i))
			}
			return nil
		}))
		require.Len(t, got.Logs, len(want.Logs))
		for i := range want.Logs { // equal scopes are one in a batch
			require.Equal(t, want.Logs[i].Scope, got.Logs[i].Scope)
			got.Logs[i].Scope = want.Logs[i].Scope
		}
		require.Equal(t, want.Logs, got.Logs, dir)
	}
	for _, dir := range []string{goldenParts, currentParts} {
		got.Spans = nil
		tp := traces.OpenPart(file(dir, storage.Traces), 1, math.MinInt64, math.MaxInt64, traces.NewSegments())
		tq := storage.SpanQuery{Start: math.MinInt64, End: math.MaxInt64, Columns: storage.SpanAll}
		require.NoError(t, tp.Scan(t.Context(), &traces.Scan{SpanQuery: tq}, func(b traces.Rows) error {
			for i := range b.Len() {
				require.Equal(t, want.Resource, b.ResourceOf(i))
				got.Spans = append(got.Spans, b.Span(i))
			}
			return nil
		}))
		require.Len(t, got.Spans, len(want.Spans))
		for i := range want.Spans { // equal scopes are one in a batch
			require.Equal(t, want.Spans[i].Scope, got.Spans[i].Scope)
			got.Spans[i].Scope = want.Spans[i].Scope
		}
		require.Equal(t, telemetry.AppendBatch(nil, &telemetry.Batch{Spans: want.Spans}), telemetry.AppendBatch(nil, &telemetry.Batch{Spans: got.Spans}), dir)
	}
	slices.Reverse(want.Series) // by labels
	for _, dir := range []string{goldenParts, currentParts} {
		b, err := os.ReadFile(dir + "/metrics.part")
		require.NoError(t, err)
		p, err := openBytes(b)
		require.NoError(t, err)
		require.NoError(t, p.Verify())
		mp := metrics.OpenPart(p, 1, math.MinInt64, math.MaxInt64)
		got.Series = nil
		sq := storage.SeriesQuery{Start: math.MinInt64, End: math.MaxInt64}
		sel, err := mp.Select(t.Context(), &sq, metrics.Samples|metrics.Exemplars|metrics.EvidenceOf, nil)
		require.NoError(t, err)
		for i := range sel.Len() {
			var buf metrics.Buffer
			d, err := sel.Read(i, &buf)
			require.NoError(t, err)
			s := telemetry.Series{Labels: d.Labels, Exemplars: d.Exemplars}
			require.Len(t, d.Evidence, 1)
			require.Equal(t, want.Resource, d.Evidence[0].Resource)
			for k, at := range d.T {
				p := telemetry.Sample{T: at, V: d.V[k]}
				if d.ST != nil {
					p.ST = d.ST[k]
				}
				s.Samples = append(s.Samples, p)
			}
			for _, p := range d.Histograms {
				s.Histograms = append(s.Histograms, telemetry.HistogramSample{T: p.T, ST: p.ST, H: p.H, FH: p.FH})
			}
			got.Series = append(got.Series, s)
		}
		require.NoError(t, mp.Metadata("", func(name string, m telemetry.Metadata) {
			require.Equal(t, "requests_total", name)
			got.Series[1].Metadata = &m
		}))
		for i := range want.Series {
			require.Equal(t, telemetry.AppendSeries(nil, &want.Series[i]), telemetry.AppendSeries(nil, &got.Series[i]), dir)
		}
	}
	require.Equal(t, telemetry.AppendBatch(nil, &want), telemetry.AppendBatch(nil, &got))
}

// scanEverything opens a part as each signal and reads all there is; only corruption may be wrong.
func scanEverything(t *testing.T, p *part.Part) {
	t.Helper()
	ctx := context.Background()
	corrupt := func(err error) {
		if err != nil {
			require.ErrorIs(t, err, part.ErrCorrupt)
		}
	}
	masks := []storage.Predicate{nil, storage.LineContains("ine 1"), storage.AttrMatch{M: labels.MustNewMatcher(labels.MatchEqual, "a", "b")}, storage.TraceIn{traceID(1), {}}, storage.StreamMatch{labels.MustNewMatcher(labels.MatchEqual, "service_name", "shop")}}
	lp := logs.OpenPart(p, 1, math.MinInt64, math.MaxInt64)
	tp := traces.OpenPart(p, 1, math.MinInt64, math.MaxInt64, traces.NewSegments())
	for _, where := range masks {
		lq := storage.LogQuery{Start: math.MinInt64, End: math.MaxInt64, Columns: storage.LogAll, Where: where}
		_, err := logs.Collect(ctx, []logs.Source{lp}, logs.Scan{LogQuery: lq, Decoder: lines.NewDecoder()}, func(_ int, err error) error { return err })
		corrupt(err)
		lq.Columns = storage.LogLines
		corrupt(lp.Scan(ctx, &logs.Scan{LogQuery: lq, Decoder: lines.NewDecoder()}, func(r logs.Rows) error {
			for i := range r.Len() {
				if r.Lines != nil {
					if _, err := r.Lines.AppendLine(nil, i); err != nil {
						return fmt.Errorf("%w: %w", part.ErrCorrupt, err)
					}
				}
			}
			return nil
		}))
		corrupt(lp.Streams(ctx, &logs.Scan{LogQuery: lq, Decoder: lines.NewDecoder()}, func(telemetry.LabelSet) {}))
		tq := storage.SpanQuery{Start: math.MinInt64, End: math.MaxInt64, Columns: storage.SpanAll, Where: where, Order: storage.NewestFirst, Limit: 1}
		_, err = traces.Collect(ctx, []traces.Source{tp}, traces.Scan{SpanQuery: tq}, func(_ int, err error) error { return err })
		corrupt(err)
		rq := join.Query{TraceQuery: storage.TraceQuery{Start: math.MinInt64, End: math.MaxInt64, Need: []storage.Predicate{where}}, Lo: math.MinInt64, Hi: math.MaxInt64}
		for b, err := range join.Read(ctx, []traces.Source{tp, tp}, rq, join.NewShared(0), func(_ int, err error) error { return err }) {
			corrupt(err)
			if err == nil {
				_, err = b.Column(storage.Field(storage.SpanName))
				corrupt(err)
			}
		}
		_, err = join.Keys(ctx, []traces.Source{tp}, rq, join.NewShared(0), func(_ int, err error) error { return err })
		corrupt(err)
	}
	_, err := lp.Resources()
	corrupt(err)
	mp := metrics.OpenPart(p, 1, math.MinInt64, math.MaxInt64)
	sq := storage.SeriesQuery{Start: math.MinInt64, End: math.MaxInt64}
	some := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "code", "2.+"), labels.MustNewMatcher(labels.MatchNotEqual, "x", "y")}
	masks2 := []metrics.Mask{{Position: 5, Start: 0, End: math.MaxInt64, Matchers: some}}
	for _, q := range []storage.SeriesQuery{sq, {Start: 5, End: math.MaxInt64, Matchers: some}} {
		sel, err := mp.Select(ctx, &q, metrics.Samples|metrics.Exemplars|metrics.EvidenceOf, masks2)
		corrupt(err)
		if err == nil {
			m := metrics.Merge([]metrics.Selection{sel}, func(_ int, err error) error { return err })
			corrupt(m.Each(ctx, func(*metrics.Data) error { return nil }))
		}
		corrupt(mp.LabelNames(ctx, &q, func(string) {}))
		corrupt(mp.LabelValues(ctx, "code", &q, func(string) {}))
	}
	enc, err := part.NewEncoder()
	require.NoError(t, err)
	tb := traces.NewBuilder(ctx, columns.DefaultLayout())
	if err = tb.AddPart(tp, []traces.Mask{traces.NewMask(&storage.Mask{Start: 0, End: math.MaxInt64, Traces: []telemetry.TraceID{traceID(1)}}, 5)}); err == nil {
		err = tb.Write(part.NewWriter(io.Discard, enc, map[string]string{}))
	}
	corrupt(err)
	b := metrics.NewBuilder(ctx)
	if err := b.AddPart(mp, masks2); err != nil {
		corrupt(err)
	} else {
		corrupt(b.Write(part.NewWriter(io.Discard, enc, map[string]string{})))
	}
	corrupt(mp.Metadata("", func(string, telemetry.Metadata) {}))
}
