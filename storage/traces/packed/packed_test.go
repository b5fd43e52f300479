package packed_test

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"
	"weak"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces/packed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// held is a span and where it lies.
type held struct {
	span telemetry.Span
	at   packed.Place
}

func add(s *packed.Spans, sp telemetry.Span) held { return held{sp, s.Add(&sp)} }

// read returns spans as a view has them.
func read(v packed.View, hs []held) []telemetry.Span {
	var as telemetry.Attrs
	got := make([]telemetry.Span, len(hs))
	for i, h := range hs {
		as = v.Span(h.at, h.span.TraceID, h.span.Start, &got[i], as)
	}
	return got
}

func requireSame(tb testing.TB, hs []held, got []telemetry.Span) {
	tb.Helper()
	for i := range got {
		require.Equal(tb, hs[i].span, got[i])
	}
}

func check(tb testing.TB, v packed.View, hs []held) {
	tb.Helper()
	requireSame(tb, hs, read(v, hs))
}

func TestSpans(t *testing.T) {
	t.Parallel()
	g := testkit.NewGen(7, testkit.Options{Signals: []storage.Signal{storage.Traces}})
	var s packed.Spans
	var all []held
	got := make(chan []telemetry.Span, 1)
	got <- nil
	for n := range 100 {
		req := g.Request(20)
		for i := range req.Batches {
			b := &req.Batches[i]
			first, again := s.Resource(b.Resource), s.Resource(b.Resource)
			require.Equal(t, b.Resource, first)
			require.Same(t, first, again)
			for _, sp := range b.Spans {
				all = append(all, add(&s, sp))
			}
		}
		s.Forget()
		if n%20 == 0 { // a view is read while more is added
			requireSame(t, all, <-got)
			v, some := s.View(), all
			go func() { got <- read(v, some) }()
		}
	}
	requireSame(t, all, <-got)
	check(t, s.View(), all)
}

func TestOdd(t *testing.T) {
	t.Parallel()
	id := telemetry.TraceID{1}
	long := strings.Repeat("long ", 30_000)
	text := func(key, v string) telemetry.Attr { return telemetry.Attr{Key: key, Value: telemetry.String(v)} }
	for name, sp := range map[string]telemetry.Span{
		"empty":         {},
		"all numbers":   {Kind: 255, Status: 255, Flags: math.MaxUint32, DroppedAttrs: math.MaxUint32, DroppedLinks: 1, Start: math.MaxInt64, End: math.MinInt64},
		"other numbers": {DroppedEvents: 1, Start: math.MinInt64, End: math.MaxInt64},
		"long texts":    {Name: long, State: long, StatusMessage: long, Attrs: telemetry.Attrs{text(long, long)}},
		"empty texts":   {Attrs: telemetry.Attrs{text("", "")}, Scope: &telemetry.Scope{}},
		"links":         {Links: []telemetry.Link{{TraceID: id, Flags: math.MaxUint32, Dropped: 3}, {State: "a=b", Attrs: telemetry.Attrs{text("a", "b")}}}},
		"events":        {Start: 7, Events: []telemetry.Event{{Time: math.MinInt64}, {Time: 6, Name: "n", Dropped: 4, Attrs: telemetry.Attrs{text("a", "b"), text("c", long)}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sp.TraceID = id
			var s packed.Spans
			var all []held
			for range 5 {
				all = append(all, add(&s, sp))
			}
			check(t, s.View(), all)
		})
	}
}

// More texts that repeat than are held once, beside others.
func TestTexts(t *testing.T) {
	t.Parallel()
	var s packed.Spans
	var all []held
	for n := range 80_000 {
		sp := telemetry.Span{TraceID: telemetry.TraceID{1}, Name: fmt.Sprint("name ", n/4)}
		sp.Attrs = telemetry.Attrs{
			{Key: fmt.Sprint("key ", n%70_000), Value: telemetry.String(strconv.Itoa(n))},
			{Key: "same", Value: telemetry.String("always")},
		}
		if h := add(&s, sp); n%97 == 0 {
			all = append(all, h)
		}
	}
	check(t, s.View(), all)
}

// Fields that are read by themselves are those of the whole span; a number stands for one text.
func TestFields(t *testing.T) {
	t.Parallel()
	var s packed.Spans
	var all []held
	g := testkit.NewGen(8, testkit.Options{Signals: []storage.Signal{storage.Traces}})
	long := strings.Repeat("long ", 1000)
	keys := []string{"absent", long}
	for range 30 {
		req := g.Request(20)
		for i := range req.Batches {
			for n, sp := range req.Batches[i].Spans {
				if n%3 == 0 {
					sp.Name = long + sp.Name
					sp.Attrs = telemetry.NewAttrs(append(slices.Clone(sp.Attrs), telemetry.Attr{Key: long, Value: telemetry.String(sp.Name)}))
				}
				all = append(all, add(&s, sp))
				for _, a := range sp.Attrs {
					if !slices.Contains(keys, a.Key) {
						keys = append(keys, a.Key)
					}
				}
			}
		}
	}
	v := s.View()
	texts := make(map[uint32]string)
	text := func(want string, got packed.Text) {
		require.Equal(t, telemetry.String(want), got.Value)
		if got.Number != packed.None {
			require.Less(t, int(got.Number), v.Texts())
			if was, ok := texts[got.Number]; ok {
				require.Equal(t, want, was)
			}
			texts[got.Number] = want
		}
	}
	for _, h := range all {
		sp := &h.span
		kind, status := v.Kind(h.at)
		id, parent := v.IDs(h.at)
		require.Equal(t, telemetry.Span{Kind: sp.Kind, Status: sp.Status, SpanID: sp.SpanID, ParentID: sp.ParentID, End: sp.End - sp.Start},
			telemetry.Span{Kind: kind, Status: status, SpanID: id, ParentID: parent, End: v.Duration(h.at)})
		text(sp.Name, v.Name(h.at))
		text(sp.State, v.State(h.at))
		text(sp.StatusMessage, v.Message(h.at))
	}
	for _, name := range keys {
		key := v.Key(name)
		for _, h := range all {
			got, ok := v.Attr(h.at, key)
			want, has := h.span.Attrs.Get(name)
			require.Equal(t, has, ok, "%s of %v", name, h.span.Attrs)
			if has && want.Kind() == telemetry.KindString {
				text(want.Str(), got)
			} else {
				require.Equal(t, want, got.Value)
			}
		}
	}
	require.NotEmpty(t, texts)
}

func TestSize(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 1000)
	var s packed.Spans
	for i := range 1000 {
		add(&s, telemetry.Span{Name: text, Attrs: telemetry.Attrs{{Key: "k", Value: telemetry.String(text)}, {Key: "n", Value: telemetry.Int(int64(i))}}})
	}
	require.Less(t, s.Size(), int64(30_000), "a text that repeats is held once")
	before := s.Size()
	add(&s, telemetry.Span{Name: strings.Repeat("y", 100_000)})
	require.Greater(t, s.Size(), before+100_000)
	before = s.Size()
	s.Resource(telemetry.NewResource("", telemetry.Attrs{{Key: "k", Value: telemetry.String(strings.Repeat("z", 10_000))}}))
	require.Greater(t, s.Size(), before+10_000)
}

// Texts of a request share its memory, which must not stay for the sake of a few of them.
func TestNothingIsKept(t *testing.T) {
	t.Parallel()
	var s packed.Spans
	var hs []held
	body := func() weak.Pointer[byte] {
		body := strings.Repeat("0123456789", 1000)
		text := func(i int) string { return body[i : i+10] }
		as := func() telemetry.Attrs {
			return telemetry.Attrs{{Key: text(100), Value: telemetry.String(text(200))}, {Key: text(105), Value: telemetry.String(text(305))}}
		}
		for range 3 {
			sp := telemetry.Span{
				Name: text(1), State: text(2), StatusMessage: text(3), Scope: &telemetry.Scope{Name: text(4), Attrs: as()}, Attrs: as(),
				Events: []telemetry.Event{{Name: text(5), Attrs: as()}}, Links: []telemetry.Link{{State: text(6), Attrs: as()}},
			}
			hs = append(hs, held{at: s.Add(&sp)})
			s.Resource(telemetry.NewResource(text(7), as()))
		}
		s.Forget()
		return weak.Make(unsafe.StringData(body))
	}()
	runtime.GC()
	require.Nil(t, body.Value())
	v := s.View()
	var sp telemetry.Span
	v.Span(hs[2].at, telemetry.TraceID{}, 0, &sp, nil)
	require.Equal(t, "1234567890", sp.Name)
}

func BenchmarkSpan(b *testing.B) {
	g := testkit.NewGen(7, testkit.Options{Signals: []storage.Signal{storage.Traces}})
	var s packed.Spans
	var all []held
	for len(all) < 10_000 {
		req := g.Request(100)
		for i := range req.Batches {
			for _, sp := range req.Batches[i].Spans {
				all = append(all, add(&s, sp))
			}
		}
	}
	perSpan := func(b *testing.B) {
		b.Helper()
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(all)), "ns/span")
	}
	b.Run("add", func(b *testing.B) {
		for b.Loop() {
			var s packed.Spans
			for i := range all {
				s.Add(&all[i].span)
			}
		}
		perSpan(b)
	})
	b.Run("read", func(b *testing.B) {
		v := s.View()
		var as telemetry.Attrs
		var sp telemetry.Span
		for b.Loop() {
			for i := range all {
				as = v.Span(all[i].at, telemetry.TraceID{}, 0, &sp, as[:0])
			}
		}
		perSpan(b)
	})
	b.ReportMetric(float64(s.Size())/float64(len(all)), "bytes/span")
}
