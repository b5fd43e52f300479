//go:build long

// Package durability kills the real binary and overloads it, and counts what is left.
package durability

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

// writer sends one kind of numbered records, one request after the other, and keeps account of them.
type writer struct {
	signal string
	id     int
	base   time.Time
	next   int
	acked  []span // acknowledged requests
	lost   []span // requests without an answer: stored as a whole once, or not at all
	again  []byte // a request without an answer that is sent once more after the restart
	retry  span
}

// span is the numbers [from, to) of one request.
type span struct{ from, to int }

func (w *writer) request(rng *rand.Rand) ([]byte, span, error) {
	s := span{w.next, w.next + 1 + rng.IntN(40)}
	w.next = s.to
	var b []byte
	var err error
	switch w.signal {
	case "traces":
		b, err = harness.Spans(w.id, s.from, s.to, w.base)
	case "logs":
		b, err = harness.Logs(w.id, s.from, s.to, w.base)
	default:
		b, err = harness.Samples(w.id, s.from, s.to, w.base)
	}
	return b, s, err
}

// load sends until the server is gone.
func (w *writer) load(ctx context.Context, s *harness.Server, rng *rand.Rand) error {
	for ctx.Err() == nil {
		body, r := w.again, w.retry
		if body == nil {
			var err error
			if body, r, err = w.request(rng); err != nil {
				return err
			}
		}
		code, _, err := s.Post(ctx, w.signal, body, "")
		switch {
		case code == http.StatusOK && err == nil:
			w.acked = append(w.acked, r)
			w.again = nil
		case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
			w.again, w.retry = body, r
		case code != 0 && code != http.StatusOK:
			return err
		default: // no answer: some clients try again after the restart, others do not
			if w.again = nil; rng.IntN(2) == 0 {
				w.again, w.retry = body, r
			} else {
				w.lost = append(w.lost, r)
			}
			return nil
		}
	}
	return nil
}

// read returns how often each number of the writer is stored, in the order in which the store gives them.
func (w *writer) read(t *testing.T, s *harness.Server) []int {
	t.Helper()
	switch w.signal {
	case "traces":
		return w.readSpans(t, s)
	case "logs":
		return w.readLogs(t, s)
	default:
		return w.readSamples(t, s)
	}
}

func (w *writer) readSpans(t *testing.T, s *harness.Server) (out []int) {
	t.Helper()
	for n := 0; n < w.next; n += harness.PerTrace {
		var answer struct {
			Trace struct {
				ResourceSpans []struct {
					ScopeSpans []struct {
						Spans []struct{ Name string }
					}
				}
			}
		}
		_, err := s.JSON(t.Context(), "/api/v2/traces/"+harness.TraceID(w.id, n).String(), nil, &answer)
		require.NoError(t, err)
		for _, rs := range answer.Trace.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, sp := range ss.Spans {
					x, err := strconv.Atoi(sp.Name)
					require.NoError(t, err)
					out = append(out, x)
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

func (w *writer) readLogs(t *testing.T, s *harness.Server) (out []int) {
	t.Helper()
	const limit = 5000
	start := w.base.Add(-time.Second).UnixNano()
	for {
		var answer struct {
			Data struct {
				Result []struct {
					Values [][]any
				}
			}
		}
		_, err := s.JSON(t.Context(), "/loki/api/v1/query_range", url.Values{
			"query": {fmt.Sprintf(`{service_name="writer-%d"}`, w.id)}, "direction": {"forward"}, "limit": {strconv.Itoa(limit)},
			"start": {strconv.FormatInt(start, 10)}, "end": {strconv.FormatInt(w.base.Add(time.Hour).UnixNano(), 10)},
		}, &answer)
		require.NoError(t, err)
		n, last := 0, start
		var page []int
		var times []int64
		for _, r := range answer.Data.Result {
			for _, v := range r.Values {
				at, err := strconv.ParseInt(v[0].(string), 10, 64)
				require.NoError(t, err)
				require.GreaterOrEqual(t, at, last, "a stream is in the order of time")
				last = at
				x, err := strconv.Atoi(v[1].(string))
				require.NoError(t, err)
				page, times = append(page, x), append(times, at)
				n++
			}
		}
		if n < limit {
			return append(out, page...)
		}
		for i := range page { // the last time may go on in the next page
			if times[i] < last {
				out = append(out, page[i])
			}
		}
		start = last
	}
}

func (w *writer) readSamples(t *testing.T, s *harness.Server) (out []int) {
	t.Helper()
	var answer struct {
		Data struct {
			Result []struct {
				Values [][2]any
			}
		}
	}
	_, err := s.JSON(t.Context(), "/api/v1/query", url.Values{
		"query": {fmt.Sprintf(`numbers{service_name="writer-%d"}[2h]`, w.id)},
		"time":  {strconv.FormatInt(w.base.Add(time.Hour).Unix(), 10)},
	}, &answer)
	require.NoError(t, err)
	for _, r := range answer.Data.Result {
		for _, v := range r.Values {
			x, err := strconv.ParseFloat(v[1].(string), 64)
			require.NoError(t, err)
			require.InDelta(t, float64(w.base.UnixMilli())/1000+x/1000, v[0].(float64), 0.0005)
			out = append(out, int(x))
		}
	}
	return out
}

// check requires that each acknowledged number is there once, and requests without an answer as a whole once or
// not at all.
func (w *writer) check(t *testing.T, got []int) {
	t.Helper()
	name := fmt.Sprintf("%s of writer %d", w.signal, w.id)
	if w.signal == "logs" { // ties by arrival: the numbers of a writer rise
		require.True(t, slices.IsSorted(got), "%s: in the order of time, ties by arrival", name)
	}
	count := make([]int, w.next)
	for _, n := range got {
		count[n]++
	}
	for _, r := range w.acked {
		for n := r.from; n < r.to; n++ {
			require.Equal(t, 1, count[n], "%s: number %d was acknowledged", name, n)
		}
	}
	for _, r := range w.lost {
		for n := r.from; n < r.to; n++ {
			require.LessOrEqual(t, count[n], 1, "%s: number %d", name, n)
			require.Equal(t, count[r.from], count[n], "%s: request %d to %d is atomic", name, r.from, r.to)
		}
	}
}

func TestKill(t *testing.T) {
	const kills, perSignal = 50, 3
	ctx := t.Context()
	dir := t.TempDir()
	binary, err := harness.Build(ctx, dir)
	require.NoError(t, err)
	// Small heads and a short interval, so that kills also hit flushes and merges.
	opts := harness.Options{Binary: binary, Data: dir, Config: "storage:\n  head_bytes: 2MiB\n  flush_interval: 1s\n"}
	base := time.Now().Truncate(time.Second)
	var writers []*writer
	for i, signal := range []string{"traces", "logs", "metrics"} {
		for k := range perSignal {
			writers = append(writers, &writer{signal: signal, id: i*perSignal + k, base: base})
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var slowest time.Duration
	for range kills {
		s, err := harness.Start(ctx, opts)
		require.NoError(t, err)
		slowest = max(slowest, s.Startup)
		life, cancel := context.WithTimeout(ctx, time.Duration(100+rng.IntN(900))*time.Millisecond)
		var wg sync.WaitGroup
		errs := make([]error, len(writers))
		for i, w := range writers {
			seed := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
			wg.Go(func() { errs[i] = w.load(ctx, s, seed) })
		}
		<-life.Done()
		cancel()
		s.Kill()
		wg.Wait()
		for _, err := range errs {
			require.NoError(t, err)
		}
	}
	s, err := harness.Start(ctx, opts)
	require.NoError(t, err)
	defer s.Kill()
	acked := 0
	for _, w := range writers {
		if w.again != nil { // the last retries
			code, _, err := s.Post(ctx, w.signal, w.again, "")
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, code)
			w.acked = append(w.acked, w.retry)
		}
		w.check(t, w.read(t, s))
		for _, r := range w.acked {
			acked += r.to - r.from
		}
		require.Greater(t, len(w.acked), kills, "every writer gets through")
	}
	parts, err := s.Metric(ctx, "braid_storage_parts")
	require.NoError(t, err)
	require.Positive(t, parts)
	t.Logf("%d kills, %d acknowledged records each found once, slowest start %s, %.0f parts", kills, acked, slowest, parts)
	require.NoError(t, s.Stop(ctx))
}

// TestRecoveryIsBounded fills the heads with 256 MiB, kills the server and requires a quick and small restart.
func TestRecoveryIsBounded(t *testing.T) {
	const head = 256 << 20
	ctx := t.Context()
	dir := t.TempDir()
	binary, err := harness.Build(ctx, dir)
	require.NoError(t, err)
	opts := harness.Options{Binary: binary, Data: dir, Config: "storage:\n  head_bytes: 512MiB\n  flush_interval: 1h\n  log_bytes: 4GiB\n"}
	s, err := harness.Start(ctx, opts)
	require.NoError(t, err)
	base := time.Now().Truncate(time.Second)
	held := func() float64 {
		x, err := s.Metric(ctx, "braid_storage_head_bytes")
		require.NoError(t, err)
		return x
	}
	for n := 0; held() < head; n += 20_000 {
		for _, kind := range []struct {
			signal string
			build  func(writer, from, to int, at time.Time) ([]byte, error)
		}{{"traces", harness.Spans}, {"logs", harness.Logs}, {"metrics", harness.Samples}} {
			body, err := kind.build(0, n, n+20_000, base)
			require.NoError(t, err)
			code, _, err := s.Post(ctx, kind.signal, body, "")
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, code)
		}
	}
	before := held()
	s.Kill()
	s, err = harness.Start(ctx, opts)
	require.NoError(t, err)
	defer s.Kill()
	u, err := s.Usage()
	require.NoError(t, err)
	require.InEpsilon(t, before, held(), 0.2)
	t.Logf("a head of %.0f MiB was recovered in %s, peak RSS %d MiB", before/(1<<20), s.Startup, u.PeakRSS>>20)
	require.Less(t, s.Startup, 10*time.Second)
	require.Less(t, u.PeakRSS, int64(2*head))
}
