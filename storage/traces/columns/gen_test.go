package columns_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces/columns"
)

// trace is what Writer.Add takes.
type trace struct {
	rows    []storage.SpanRow
	parents []int32
}

func (t trace) first() int64 {
	at := int64(math.MaxInt64)
	for _, r := range t.rows {
		at = min(at, r.Span.Start)
	}
	return at
}

func (t trace) id() telemetry.TraceID { return t.rows[0].Span.TraceID }

// settle makes traces of spans, in the order of segments.
func settle(byID map[telemetry.TraceID][]storage.SpanRow) []trace {
	var out []trace
	var s storage.Settler
	for _, rows := range byID {
		rows = slices.Clone(rows)
		out = append(out, trace{parents: slices.Clone(s.Settle(rows)), rows: rows})
	}
	slices.SortFunc(out, func(a, b trace) int {
		x, y := a.id(), b.id()
		return cmp.Or(cmp.Compare(a.first(), b.first()), bytes.Compare(x[:], y[:]))
	})
	return out
}

// write makes a part of segments, each of some traces.
func write(tb testing.TB, l columns.Layout, segments ...[]trace) []byte {
	tb.Helper()
	return build(tb, func(w *part.Writer) {
		cw := columns.NewWriter(w, l)
		for _, ts := range segments {
			for _, t := range ts {
				require.NoError(tb, cw.Add(t.rows, t.parents))
			}
			require.NoError(tb, cw.End())
		}
		require.NoError(tb, cw.Close())
	})
}

// codec is one compressor for all tests.
var codec = sync.OnceValue(func() (c struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
},
) {
	var err, err2 error
	c.enc, err = part.NewEncoder()
	c.dec, err2 = part.NewDecoder()
	if err != nil || err2 != nil {
		panic(errors.Join(err, err2))
	}
	return c
})

func build(tb testing.TB, f func(w *part.Writer)) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w := part.NewWriter(&buf, codec().enc, map[string]string{})
	f(w)
	require.NoError(tb, w.Close())
	return buf.Bytes()
}

func open(tb testing.TB, b []byte) *columns.Part {
	tb.Helper()
	p, err := part.Open("test.part", bytes.NewReader(b), int64(len(b)), codec().dec, nil)
	require.NoError(tb, err)
	require.NoError(tb, p.Verify())
	out, err := columns.Open(p)
	require.NoError(tb, err)
	out.Keep(columns.NewCache(10_000))
	return out
}

// odd draws spans with everything that a sender may say.
func odd(t *rapid.T) map[telemetry.TraceID][]storage.SpanRow {
	texts := rapid.SampledFrom([]string{"", "a", "b", "GET /", "0123456789abcdef", "é\xff", "x\x00y"})
	value := rapid.Custom(func(t *rapid.T) telemetry.Value {
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			return telemetry.Value{}
		case 1:
			return telemetry.Bool(rapid.Bool().Draw(t, "bool"))
		case 2:
			return telemetry.Int(rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 3)).Draw(t, "int"))
		case 3:
			return telemetry.Double(math.Float64frombits(rapid.SampledFrom([]uint64{0, 1 << 63, 0x7ff8000000000001, 0x7ff8000000000002, 0x3ff0000000000000}).Draw(t, "bits")))
		case 4:
			return telemetry.Bytes([]byte(texts.Draw(t, "bytes")))
		case 5:
			return telemetry.Array([]telemetry.Value{telemetry.Int(1), telemetry.String(texts.Draw(t, "element"))})
		case 6:
			return telemetry.Map(telemetry.Attrs{{Key: "k", Value: telemetry.String(texts.Draw(t, "entry"))}})
		case 7:
			return telemetry.String(strconv.Itoa(rapid.IntRange(0, 1000).Draw(t, "id")))
		default:
			return telemetry.String(texts.Draw(t, "text"))
		}
	})
	attrs := rapid.Custom(func(t *rapid.T) telemetry.Attrs {
		n := rapid.IntRange(0, 4).Draw(t, "attrs")
		var as telemetry.Attrs
		for range n {
			as = append(as, telemetry.Attr{Key: rapid.SampledFrom([]string{"", "a", "b", "http.method", "id", "n"}).Draw(t, "key"), Value: value.Draw(t, "value")})
		}
		if as = telemetry.NewAttrs(as); len(as) == 0 {
			return nil
		}
		return as
	})
	resources := []*telemetry.Resource{nil, telemetry.NewResource("", nil), telemetry.NewResource("u", attrs.Draw(t, "resource")), telemetry.NewResource("", telemetry.Attrs{{Key: "a", Value: telemetry.String("b")}})}
	resources[2].Dropped = 3
	scopes := []*telemetry.Scope{nil, {}, {Name: "lib", Version: "1", Attrs: attrs.Draw(t, "scope")}, {Name: "lib", Version: "2", SchemaURL: "s", Dropped: 7}}
	number := rapid.SampledFrom([]uint32{0, 0, 0, 1, math.MaxUint32})
	when := rapid.OneOf(rapid.Int64Range(0, 50), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64, 1e18, 1e18 + 1000, 2e18}))
	spanID := rapid.Custom(func(t *rapid.T) (id telemetry.SpanID) {
		id[7] = byte(rapid.IntRange(0, 12).Draw(t, "span ID"))
		return id
	})
	out := make(map[telemetry.TraceID][]storage.SpanRow)
	for range rapid.IntRange(1, 40).Draw(t, "spans") {
		var id telemetry.TraceID
		id[0] = byte(rapid.IntRange(0, 5).Draw(t, "trace ID"))
		s := &telemetry.Span{
			TraceID: id, SpanID: spanID.Draw(t, "id"), ParentID: spanID.Draw(t, "parent"), Start: when.Draw(t, "start"),
			Kind: telemetry.SpanKind(rapid.IntRange(0, 7).Draw(t, "kind")), Status: telemetry.StatusCode(rapid.IntRange(0, 3).Draw(t, "status")),
			Flags: number.Draw(t, "flags"), Name: texts.Draw(t, "name"), State: texts.Draw(t, "state"), StatusMessage: texts.Draw(t, "message"),
			Scope: rapid.SampledFrom(scopes).Draw(t, "scope"), Attrs: attrs.Draw(t, "attrs"),
			DroppedAttrs: number.Draw(t, "d1"), DroppedEvents: number.Draw(t, "d2"), DroppedLinks: number.Draw(t, "d3"),
		}
		s.End = s.Start + rapid.OneOf(rapid.Int64Range(-5, 100), rapid.Int64()).Draw(t, "duration")
		for range rapid.IntRange(-2, 3).Draw(t, "events") {
			s.Events = append(s.Events, telemetry.Event{Time: when.Draw(t, "time"), Name: texts.Draw(t, "event"), Attrs: attrs.Draw(t, "attrs"), Dropped: number.Draw(t, "dropped")})
		}
		for range rapid.IntRange(-3, 2).Draw(t, "links") {
			s.Links = append(s.Links, telemetry.Link{TraceID: id, SpanID: spanID.Draw(t, "link"), State: texts.Draw(t, "state"), Flags: number.Draw(t, "flags"), Attrs: attrs.Draw(t, "attrs"), Dropped: number.Draw(t, "dropped")})
		}
		out[id] = append(out[id], storage.SpanRow{Resource: rapid.SampledFrom(resources).Draw(t, "resource"), Span: s})
	}
	return out
}

// shop generates traces of a shop of 21 services: about 23 spans each, with attributes as the semantic conventions have them.
type shop struct {
	r     *rand.Rand
	pods  [][]*telemetry.Resource
	scope []*telemetry.Scope
	now   int64
}

func newShop() *shop {
	s := &shop{r: rand.New(rand.NewPCG(1, 1)), now: 1_780_000_000_000_000_000}
	langs := []string{"go", "java", "nodejs", "python"}
	for i := range 21 {
		lang := langs[i%4]
		s.scope = append(s.scope, &telemetry.Scope{Name: "io.opentelemetry." + lang + ".http", Version: "1." + strconv.Itoa(i%3)})
		var pods []*telemetry.Resource
		for k := range 3 + i%5 {
			pods = append(pods, telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{
				text("service.name", fmt.Sprintf("service-%02d", i)), text("service.namespace", "shop"), text("telemetry.sdk.language", lang),
				text("k8s.pod.name", fmt.Sprintf("service-%02d-%08x-%05x", i, s.r.Uint32(), k)), text("k8s.pod.uid", fmt.Sprintf("%016x%016x", s.r.Uint64(), s.r.Uint64())),
				text("k8s.node.name", fmt.Sprintf("node-%d", (i+k)%6)), text("deployment.environment", "production"),
			})))
		}
		s.pods = append(s.pods, pods)
	}
	return s
}

func text(k, v string) telemetry.Attr {
	return telemetry.Attr{Key: k, Value: telemetry.String(v)}
}

func num(k string, v int64) telemetry.Attr {
	return telemetry.Attr{Key: k, Value: telemetry.Int(v)}
}

func (s *shop) id() (id telemetry.SpanID) {
	binary.BigEndian.PutUint64(id[:], s.r.Uint64())
	return id
}

// trace returns the next trace, as it is sent.
func (s *shop) trace() []storage.SpanRow {
	s.now += int64(s.r.ExpFloat64() * 40e6)
	var id telemetry.TraceID
	binary.BigEndian.PutUint64(id[:], s.r.Uint64())
	binary.BigEndian.PutUint64(id[8:], s.r.Uint64())
	user := fmt.Sprintf("user-%05d", s.r.IntN(20000))
	var out []storage.SpanRow
	var call func(parent telemetry.SpanID, service, depth int, start, length int64)
	add := func(parent telemetry.SpanID, service int, kind telemetry.SpanKind, name string, start, length int64, as ...telemetry.Attr) telemetry.SpanID {
		pods := s.pods[service]
		sp := &telemetry.Span{TraceID: id, SpanID: s.id(), ParentID: parent, Kind: kind, Name: name, Start: start, End: start + length, Scope: s.scope[service], Flags: 257, Attrs: telemetry.NewAttrs(as)}
		if s.r.IntN(60) == 0 {
			sp.Status, sp.StatusMessage = telemetry.StatusError, "upstream connect error"
			sp.Events = []telemetry.Event{{Time: start + length/2, Name: "exception", Attrs: telemetry.NewAttrs([]telemetry.Attr{
				text("exception.type", "java.net.ConnectException"), text("exception.message", "connection refused: 10.0."+strconv.Itoa(s.r.IntN(255))),
			})}}
		}
		out = append(out, storage.SpanRow{Resource: pods[s.r.IntN(len(pods))], Span: sp})
		return sp.SpanID
	}
	call = func(parent telemetry.SpanID, service, depth int, start, length int64) {
		route := fmt.Sprintf("/api/v1/%s/{id}", []string{"cart", "item", "order", "user"}[(service+depth)%4])
		method := []string{"GET", "POST"}[(service+depth)%2]
		status := int64(200)
		if s.r.IntN(40) == 0 {
			status = []int64{404, 500, 503}[s.r.IntN(3)]
		}
		me := add(parent, service, telemetry.SpanKindServer, method+" "+route, start, length,
			text("http.request.method", method), text("http.route", route), num("http.response.status_code", status),
			text("url.path", fmt.Sprintf("/api/v1/x/%d", s.r.IntN(100000))), text("client.address", fmt.Sprintf("10.0.%d.%d", s.r.IntN(4), s.r.IntN(250))),
			num("client.port", int64(32768+s.r.IntN(28000))), text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) "+strconv.Itoa(s.r.IntN(12))), text("user.id", user))
		at := start + int64(s.r.ExpFloat64()*100e3)
		if service%3 == 0 {
			add(me, service, telemetry.SpanKindClient, "SELECT items", at, length/8,
				text("db.system", "postgresql"), text("db.query.text", fmt.Sprintf("SELECT id, name, price FROM items WHERE id = %d", s.r.IntN(1e6))), text("server.address", "postgres-0"), num("server.port", 5432))
			at += length / 8
		}
		if depth >= 4 {
			return
		}
		for range 1 + s.r.IntN(2) {
			to := (service*3 + s.r.IntN(3) + 1) % 21
			took := int64(float64(length) * (0.1 + 0.3*s.r.Float64()))
			c := add(me, service, telemetry.SpanKindClient, "call "+strconv.Itoa(to), at, took,
				text("http.request.method", "GET"), text("server.address", fmt.Sprintf("service-%02d", to)), num("server.port", 8080), num("http.response.status_code", 200),
				text("request.id", fmt.Sprintf("%016x", s.r.Uint64())))
			call(c, to, depth+1, at+int64(s.r.ExpFloat64()*50e3), took-took/10)
			at += took
		}
	}
	call(telemetry.SpanID{}, s.r.IntN(3), 0, s.now, int64(math.Exp(s.r.NormFloat64())*80e6))
	return out
}

// traces returns traces of about n spans, settled.
func (s *shop) traces(n int) []trace {
	byID := make(map[telemetry.TraceID][]storage.SpanRow)
	for n > 0 {
		rows := s.trace()
		byID[rows[0].Span.TraceID] = rows
		n -= len(rows)
	}
	return settle(byID)
}

func spansOf(ts []trace) (n int) {
	for _, t := range ts {
		n += len(t.rows)
	}
	return n
}
