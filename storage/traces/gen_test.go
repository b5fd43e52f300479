package traces_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/columns"
	"github.com/braidobs/braid/storage/traces/join"
)

const day = int64(86400e9)

// start is a day on which the tests take place.
const start = 20_000 * day

// file is a part and its bytes.
type file struct {
	*traces.Part
	raw   *part.Part
	bytes []byte
	rows  int64
}

// shelf opens parts.
type shelf struct {
	tb interface {
		require.TestingT
		Helper()
	}
	layout columns.Layout
	open   *traces.Segments
	enc    *zstd.Encoder
	dec    *zstd.Decoder
}

func newShelf(tb testing.TB, l columns.Layout) *shelf {
	tb.Helper()
	enc, err := part.NewEncoder()
	require.NoError(tb, err)
	dec, err := part.NewDecoder()
	require.NoError(tb, err)
	tb.Cleanup(dec.Close)
	return &shelf{tb: tb, layout: l, open: traces.NewSegments(), enc: enc, dec: dec}
}

// write makes a part; nil when the builder has nothing.
func (s *shelf) write(b *traces.Builder, to storage.Position) *file {
	s.tb.Helper()
	var buf bytes.Buffer
	w := part.NewWriter(&buf, s.enc, map[string]string{})
	require.NoError(s.tb, b.Write(w))
	require.NoError(s.tb, w.Close())
	if b.Empty() {
		return nil
	}
	rows, _, lo, hi := b.Rows()
	f := s.read(buf.Bytes(), to, lo, hi)
	f.rows = rows
	return f
}

func (s *shelf) read(b []byte, to storage.Position, lo, hi int64) *file {
	s.tb.Helper()
	p, err := part.Open(fmt.Sprintf("%d.part", to), bytes.NewReader(b), int64(len(b)), s.dec, nil)
	require.NoError(s.tb, err)
	return &file{Part: traces.OpenPart(p, to, lo, hi, s.open), raw: p, bytes: b}
}

// flush makes the parts of a head, one a day.
func (s *shelf) flush(h *traces.Head, to storage.Position) (files []*file) {
	s.tb.Helper()
	snap := h.Snapshot()
	for _, t := range snap.Tenants() {
		src := snap.Tenant(t)
		for _, d := range src.Days() {
			b := traces.NewBuilder(context.Background(), s.layout)
			b.AddDay(src, d)
			if f := s.write(b, to); f != nil {
				files = append(files, f)
			}
		}
	}
	return files
}

// merge makes one part of several.
func (s *shelf) merge(masks []traces.Mask, to storage.Position, files ...*file) *file {
	s.tb.Helper()
	b := traces.NewBuilder(context.Background(), s.layout)
	for _, f := range files {
		require.NoError(s.tb, b.AddPart(f.Part, masks))
	}
	return s.write(b, to)
}

func sources(files ...*file) []traces.Source {
	out := make([]traces.Source, len(files))
	for i, f := range files {
		out[i] = f.Part
	}
	return out
}

func all() join.Query {
	return join.Query{TraceQuery: storage.TraceQuery{Start: math.MinInt64, End: math.MaxInt64}, Lo: math.MinInt64, Hi: math.MaxInt64, Cost: &storage.ReadStats{}}
}

func fail(_ int, err error) error { return err }

// spansOf returns each trace that a read yields as text, span after span; each comes once.
func spansOf(tb require.TestingT, srcs []traces.Source, q join.Query, shared *join.Shared) map[telemetry.TraceID][]string {
	out := make(map[telemetry.TraceID][]string)
	for b, err := range join.Read(context.Background(), srcs, q, shared, fail) {
		require.NoError(tb, err)
		addSpans(tb, out, b)
	}
	return out
}

func addSpans(tb require.TestingT, out map[telemetry.TraceID][]string, b storage.TraceBlock) {
	ids, err := b.Traces()
	require.NoError(tb, err)
	first, err := b.First()
	require.NoError(tb, err)
	parents, err := b.Parents()
	require.NoError(tb, err)
	rows := make([]int, b.Len())
	for i := range rows {
		rows[i] = i
	}
	blk, err := b.Spans(rows, storage.SpanAll)
	require.NoError(tb, err)
	for k, id := range ids {
		require.NotContains(tb, out, id, "a trace comes once")
		for i := first[k]; i < first[k+1]; i++ {
			p := parents[i]
			if p >= 0 {
				p -= first[k]
			}
			s := blk.Span(int(i))
			out[id] = append(out[id], spanText(p, blk.ResourceOf(int(i)), &s))
		}
	}
}

func spanText(parent int32, res *telemetry.Resource, s *telemetry.Span) string {
	name := "-"
	if res != nil {
		name = res.ID.String()
	}
	return fmt.Sprintf("%d %s %x %x", parent, name, telemetry.AppendScope(nil, s.Scope), telemetry.AppendSpan(nil, s))
}

// shop makes requests of about a thousand spans, each of one of six nodes, of traces of about twenty spans each.
type shop struct {
	r     *rand.Rand
	pods  []*telemetry.Resource
	scope *telemetry.Scope
	now   int64
	nodes [6]map[int][]telemetry.Span // by pod
	held  [6]int
}

func newShop(seed uint64) *shop {
	s := &shop{r: rand.New(rand.NewPCG(seed, 1)), now: start, scope: &telemetry.Scope{Name: "io.opentelemetry.http", Version: "1.2.0"}}
	for i := range 84 {
		s.pods = append(s.pods, telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{
			text("service.name", fmt.Sprintf("service-%02d", i%21)), text("k8s.pod.name", fmt.Sprintf("service-%02d-%08x", i%21, s.r.Uint32())),
			text("k8s.node.name", "node-"+strconv.Itoa(i%6)), text("service.namespace", "shop"),
		})))
	}
	for i := range s.nodes {
		s.nodes[i] = make(map[int][]telemetry.Span)
	}
	return s
}

func text(k, v string) telemetry.Attr { return telemetry.Attr{Key: k, Value: telemetry.String(v)} }

func num(k string, v int64) telemetry.Attr { return telemetry.Attr{Key: k, Value: telemetry.Int(v)} }

func (s *shop) spanID() (id telemetry.SpanID) {
	binary.BigEndian.PutUint64(id[:], s.r.Uint64())
	return id
}

// request returns what a node sends next: a batch for each of its pods.
func (s *shop) request() []telemetry.Batch {
	for {
		for n := range s.nodes {
			if s.held[n] < 1000 {
				continue
			}
			var out []telemetry.Batch
			for _, pod := range slices.Sorted(keysOf(s.nodes[n])) {
				out = append(out, telemetry.Batch{Tenant: "t", Resource: s.pods[pod], Spans: s.nodes[n][pod]})
			}
			s.nodes[n], s.held[n] = make(map[int][]telemetry.Span), 0
			return out
		}
		s.trace()
	}
}

func keysOf(m map[int][]telemetry.Span) func(func(int) bool) {
	return func(yield func(int) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// trace makes the next trace.
func (s *shop) trace() {
	s.now += int64(s.r.ExpFloat64() * 40e6)
	var id telemetry.TraceID
	binary.BigEndian.PutUint64(id[:], s.r.Uint64())
	binary.BigEndian.PutUint64(id[8:], s.r.Uint64())
	var ids []telemetry.SpanID
	at, n := s.now, 8+s.r.IntN(30)
	user := "user-" + strconv.Itoa(s.r.IntN(20000))
	for i := range n {
		at += int64(s.r.ExpFloat64() * 300e3)
		sp := telemetry.Span{
			TraceID: id, SpanID: s.spanID(), Kind: telemetry.SpanKind(1 + i%3), Scope: s.scope, Start: at, End: at + int64(s.r.ExpFloat64()*5e6),
			Name: "GET /api/v1/" + []string{"cart", "item", "order", "user"}[s.r.IntN(4)], Flags: 257,
			Attrs: telemetry.NewAttrs([]telemetry.Attr{
				text("http.request.method", "GET"), num("http.response.status_code", []int64{200, 200, 200, 404, 500}[s.r.IntN(5)]),
				text("url.path", fmt.Sprintf("/api/v1/x/%d", s.r.IntN(100000))), num("client.port", int64(32768+s.r.IntN(28000))),
				text("user.id", user), text("request.id", fmt.Sprintf("%016x", s.r.Uint64())),
			}),
		}
		if i > 0 {
			sp.ParentID = ids[s.r.IntN(len(ids))]
		}
		ids = append(ids, sp.SpanID)
		pod := s.r.IntN(len(s.pods))
		s.nodes[pod%6][pod] = append(s.nodes[pod%6][pod], sp)
		s.held[pod%6]++
	}
}

// fill appends requests to a head until it has so many spans.
func (s *shop) fill(h *traces.Head, spans int64) {
	pos := storage.Position(0)
	for {
		if _, n := h.Size(); n >= spans {
			return
		}
		pos++
		for _, b := range s.request() {
			h.Append(pos, &b)
		}
	}
}
