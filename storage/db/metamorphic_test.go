package db_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/vfs"
)

// TestMetamorphic gives the engine and the oracle (testkit.Store) the same random requests, changes the layout of
// the engine (heads, parts, merged parts, restarts, deletes), and requires the same answers to random queries. A
// failure names its seed: run it alone with -run 'TestMetamorphic/worker0/seed7$'.
func TestMetamorphic(t *testing.T) { seeds(t, metamorphicSeeds, metamorphicTrial) }

// twin is the engine and what it is compared with.
type twin struct {
	m       *machine
	rng     *rand.Rand
	gen     *testkit.Gen
	kept    []storage.Request // all that was written, less what was deleted
	oracle  *testkit.Store    // of kept
	known   *testkit.Store    // of all that was written: deletes do not make identities unknown
	deleted bool
	last    storage.Request // for a retry
	traces  []telemetry.TraceID
	ids     []telemetry.ResourceID
	times   []int64 // nanoseconds
}

var tenants = []telemetry.Tenant{telemetry.DefaultTenant, "other"}

func metamorphicTrial(t *testing.T, seed uint64) {
	t.Helper()
	rng := testRand(seed ^ 0x3e7a)
	w := &twin{m: newMachine(vfs.NewMem()), rng: rng, oracle: testkit.NewStore("test"), known: testkit.NewStore("test")}
	w.m.cfg.Cluster = "test"
	w.m.sharedTraces = []int{0, 3}[rng.IntN(2)]
	w.gen = testkit.NewGen(seed, testkit.Options{
		Start: start, Step: []time.Duration{time.Millisecond, time.Second, time.Hour}[rng.IntN(3)], InOrder: rng.IntN(2) == 0,
	})
	defer w.m.stop()
	require.NoError(t, w.m.open(t.Context()))
	w.write(t)
	for range 40 {
		switch p := rng.IntN(100); {
		case p < 45:
			w.write(t)
		case p < 60:
			require.NoError(t, w.m.db.Flush(t.Context()))
		case p < 70:
			require.NoError(t, w.m.db.Maintain(t.Context()))
		case p < 73:
			w.m.stop()
			require.NoError(t, w.m.open(t.Context()))
		case p < 75:
			require.NoError(t, w.m.db.Close(t.Context()))
			require.NoError(t, w.m.blobs.Close())
			require.NoError(t, w.m.open(t.Context()))
		case p < 78:
			w.delete(t)
		default:
			w.ask(t)
		}
	}
	for range 3 {
		w.ask(t)
	}
	w.dump(t)
}

func (w *twin) write(t *testing.T) {
	t.Helper()
	var req storage.Request
	if w.rng.IntN(10) == 0 && w.last.Batches != nil { // at the same time, so within the window of retries
		req = testkit.Clone(w.last)
	} else {
		req = w.gen.Request(1 + w.rng.IntN(60))
		w.learn(&req)
		w.kept = append(w.kept, testkit.Clone(req))
		w.last = testkit.Clone(req)
	}
	w.m.clock.set(time.Unix(0, w.gen.Now()))
	for _, s := range []*testkit.Store{w.oracle, w.known} {
		_, _, err := s.Write(t.Context(), testkit.Clone(req))
		require.NoError(t, err)
	}
	pos, _, err := w.m.db.Write(t.Context(), testkit.Clone(req))
	if errors.Is(err, storage.ErrOverloaded) {
		require.NoError(t, w.m.db.Flush(t.Context()))
		pos, _, err = w.m.db.Write(t.Context(), req)
	}
	require.NoError(t, err)
	v, err := w.m.db.View(t.Context(), pos)
	require.NoError(t, err)
	require.NoError(t, v.Close())
}

// learn notes what queries may ask for.
func (w *twin) learn(req *storage.Request) {
	for i := range req.Batches {
		b := &req.Batches[i]
		if b.Resource != nil {
			w.ids = append(w.ids, b.Resource.ID)
		}
		for j := range b.Spans {
			w.traces = append(w.traces, b.Spans[j].TraceID)
			w.times = append(w.times, b.Spans[j].Start)
		}
		for j := range b.Logs {
			w.traces = append(w.traces, b.Logs[j].TraceID)
			w.times = append(w.times, b.Logs[j].Time)
		}
		for j := range b.Series {
			if r := telemetry.LabelResource(b.Series[j].Labels); r != nil && j == 0 {
				w.ids = append(w.ids, r.ID)
			}
			for _, p := range b.Series[j].Samples {
				w.times = append(w.times, p.T*1e6)
			}
		}
	}
}

// delete deletes something in the engine, and builds the oracle anew without it.
func (w *twin) delete(t *testing.T) {
	t.Helper()
	lo, hi := w.span()
	m := storage.Mask{Tenant: pick(w.rng, tenants), Signal: storage.Signal(1 + w.rng.IntN(3)), Start: lo, End: hi}
	switch m.Signal {
	case storage.Metrics:
		m.Start, m.End = ms(lo), ms(hi)
		m.Matchers = w.seriesMatchers()
	case storage.Logs:
		if w.rng.IntN(2) == 0 {
			m.Matchers = w.streamMatchers()
		}
		if w.rng.IntN(2) == 0 {
			m.Contains = pick(w.rng, words())
		}
		if w.rng.IntN(3) == 0 {
			m.Traces = w.someTraces()
		}
	case storage.Traces:
		m.Traces = w.someTraces()
		if len(m.Traces) == 0 {
			return
		}
	}
	_, err := w.m.db.Delete(t.Context(), m)
	require.NoError(t, err)
	w.deleted = true
	w.oracle = testkit.NewStore("test")
	for i := range w.kept {
		for j := range w.kept[i].Batches {
			if b := &w.kept[i].Batches[j]; b.Tenant == m.Tenant {
				cover(b, &m)
			}
		}
		_, _, err := w.oracle.Write(t.Context(), testkit.Clone(w.kept[i]))
		require.NoError(t, err)
	}
}

// cover removes from b what m covers, as simply as possible.
func cover(b *telemetry.Batch, m *storage.Mask) {
	inside := func(t int64) bool { return t >= m.Start && t <= m.End }
	switch m.Signal {
	case storage.Logs:
		where := storage.And{storage.StreamMatch(m.Matchers), storage.LineContains(m.Contains)}
		if len(m.Traces) > 0 {
			where = append(where, storage.TraceIn(m.Traces))
		}
		b.Logs = slices.DeleteFunc(b.Logs, func(r telemetry.LogRecord) bool {
			var one storage.LogBlock
			one.Append(b.Stream, b.Resource, &r, storage.LogAll)
			return inside(r.Time) && one.Match(0, where)
		})
	case storage.Traces:
		b.Spans = slices.DeleteFunc(b.Spans, func(s telemetry.Span) bool {
			return inside(s.Start) && slices.Contains(m.Traces, s.TraceID)
		})
	case storage.Metrics:
		for i := range b.Series {
			s := &b.Series[i]
			if !storage.MatchLabels(s.Labels, m.Matchers) {
				continue
			}
			s.Samples = slices.DeleteFunc(s.Samples, func(p telemetry.Sample) bool { return inside(p.T) })
			s.Histograms = slices.DeleteFunc(s.Histograms, func(p telemetry.HistogramSample) bool { return inside(p.T) })
			s.Exemplars = slices.DeleteFunc(s.Exemplars, func(e exemplar.Exemplar) bool { return inside(e.Ts) })
		}
	}
}

// dump compares everything that there is.
func (w *twin) dump(t *testing.T) {
	t.Helper()
	if w.deleted { // the oracle has forgotten identities, too
		return
	}
	for _, tn := range tenants {
		require.Equal(t, testkit.Dump(t, w.oracle, tn), testkit.Dump(t, w.m.db, tn))
	}
}

func pick[T any](rng *rand.Rand, of []T) T { return of[rng.IntN(len(of))] }

// ms returns the millisecond in which a time lies.
func ms(ns int64) int64 {
	if ns == math.MinInt64 || ns == math.MaxInt64 {
		return ns
	}
	return ns / 1e6
}

// span returns a time range, in nanoseconds, often one whose ends are those of records.
func (w *twin) span() (lo, hi int64) {
	switch {
	case w.rng.IntN(3) == 0 || len(w.times) == 0:
		return math.MinInt64, math.MaxInt64
	case w.rng.IntN(4) == 0:
		at := pick(w.rng, w.times)
		return at, at
	default:
		lo, hi = pick(w.rng, w.times), pick(w.rng, w.times)
		return min(lo, hi), max(lo, hi)
	}
}

func (w *twin) someTraces() []telemetry.TraceID {
	var out []telemetry.TraceID
	for range w.rng.IntN(4) {
		if len(w.traces) > 0 {
			out = append(out, pick(w.rng, w.traces))
		}
	}
	if w.rng.IntN(4) == 0 {
		out = append(out, telemetry.TraceID{1, 2, 3})
	}
	return out
}

func words() []string {
	return []string{"GET", "level=", "order", "e", "日本語", "nowhere", "handled request 1", "\n"}
}

func (w *twin) matcher(names, values []string) *labels.Matcher {
	name, value := pick(w.rng, names), pick(w.rng, values)
	kind := labels.MatchType(w.rng.IntN(4))
	if kind >= labels.MatchRegexp {
		value = pick(w.rng, []string{".*", ".+", "c.*", "prod|x", "", "cart-[01]"})
	}
	return labels.MustNewMatcher(kind, name, value)
}

func (w *twin) matchers(names, values []string) []*labels.Matcher {
	var out []*labels.Matcher
	for range w.rng.IntN(3) {
		out = append(out, w.matcher(names, values))
	}
	return out
}

func (w *twin) streamMatchers() []*labels.Matcher {
	return w.matchers([]string{"service_name", "namespace", "pod", "absent"}, []string{"cart", "checkout", "prod", "cart-1", "database-0", "", "café-☕"})
}

func (w *twin) seriesMatchers() []*labels.Matcher {
	ms := w.matchers([]string{"job", "instance", "code", "path", "le", "__name__", "absent"}, []string{"shop/cart", "200", "/cart", "cart-1", "0.1", "+Inf", "", "queue_length"})
	if w.rng.IntN(2) == 0 {
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, "__name__", pick(w.rng, []string{"http_requests_total", "queue_length", "latency_seconds", "request_seconds_bucket", "nothing"})))
	}
	return ms
}

// predicate returns a random predicate of at most the given depth. Some are about the other signal.
func (w *twin) predicate(depth int) storage.Predicate {
	kinds := 14
	if depth == 0 {
		kinds = 10
	}
	switch w.rng.IntN(kinds) {
	case 0:
		return storage.StreamMatch(w.streamMatchers())
	case 1:
		var ids storage.ResourceIn
		for range w.rng.IntN(3) {
			if len(w.ids) > 0 {
				ids = append(ids, pick(w.rng, w.ids))
			}
		}
		return ids
	case 2, 3:
		return storage.TraceIn(w.someTraces())
	case 4:
		return storage.LineContains(pick(w.rng, words()))
	case 5:
		n := w.rng.IntN(80)
		return storage.LineMatch(func(line string) bool { return len(line) > n })
	case 6:
		return storage.SeverityRange{Min: uint8(w.rng.IntN(20)), Max: uint8(w.rng.IntN(25))}
	case 7:
		names := []string{"http.request.method", "http.response.status_code", "service.name", "k8s.pod.name", "library", "extra", "absent", "a.b"}
		return storage.AttrMatch{Scope: storage.AttrScope(w.rng.IntN(4)), M: w.matcher(names, []string{"GET", "200", "500", "cart", "cart-1", "pg", "", "plain"})}
	case 8:
		return storage.FieldMatch{Field: storage.SpanField(w.rng.IntN(5)), M: w.matcher([]string{"x"}, []string{"GET /", "server", "error", "", "deadline exceeded", "checkout"})}
	case 9:
		if w.rng.IntN(2) == 0 {
			return w.valueMatch()
		}
		return storage.DurationRange{Min: w.rng.Int64N(1e9), Max: w.rng.Int64N(1e10)}
	case 10, 11:
		return storage.And(w.predicates(depth))
	case 12:
		return storage.Or(w.predicates(depth))
	default:
		return storage.Not{P: w.predicate(depth - 1)}
	}
}

func (w *twin) predicates(depth int) []storage.Predicate {
	var out []storage.Predicate
	for range w.rng.IntN(4) {
		out = append(out, w.predicate(depth-1))
	}
	return out
}

func (w *twin) where() storage.Predicate {
	if w.rng.IntN(4) == 0 {
		return nil
	}
	return w.predicate(2)
}

// show writes a query for the message of a failure.
func show(q any) string { return fmt.Sprintf("%+v", q) }
