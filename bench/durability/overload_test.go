//go:build long

package durability

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

// flood is the account of numbered requests: request n has the signal n%3.
type flood struct {
	s         *harness.Server
	templates []*harness.Template
	base      time.Time
	next      atomic.Int64

	mu      sync.Mutex // guards what follows
	acked   map[int]bool
	unknown map[int]bool
	refused int
	wrong   []string
}

// at gives each request a time of its own.
func (f *flood) at(n int) time.Time { return f.base.Add(time.Duration(n) * time.Millisecond) }

func (f *flood) send(ctx context.Context) bool {
	n := int(f.next.Add(1) - 1)
	t := f.templates[n%len(f.templates)]
	code, header, err := f.s.Post(ctx, t.Signal, t.Request(n, f.at(n)), "")
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case code == http.StatusOK && err == nil:
		f.acked[n] = true
		return true
	case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
		f.refused++
		if header.Get("Retry-After") == "" {
			f.wrong = append(f.wrong, "no Retry-After: "+err.Error())
		}
	case code == 0:
		f.unknown[n] = true
	default:
		f.wrong = append(f.wrong, err.Error())
	}
	return false
}

// TestOverload sends three times what was just accepted, for a minute, to a server with 512 MiB.
func TestOverload(t *testing.T) {
	const limit, minute = 512 << 20, time.Minute
	ctx := t.Context()
	dir := t.TempDir()
	binary, err := harness.Build(ctx, dir)
	require.NoError(t, err)
	s, err := harness.Start(ctx, harness.Options{Binary: binary, Data: dir, Config: "memory: 512MiB\n"})
	require.NoError(t, err)
	defer s.Kill()
	f := &flood{s: s, base: time.Now().Add(-10 * time.Minute).Truncate(time.Second), acked: map[int]bool{}, unknown: map[int]bool{}}
	for _, signal := range []string{"traces", "logs", "metrics"} {
		tmpl, err := harness.NewTemplate(signal, 500)
		require.NoError(t, err)
		f.templates = append(f.templates, tmpl)
	}

	const calibrate = 10 * time.Second
	var accepted atomic.Int64
	closed, cancel := context.WithTimeout(ctx, calibrate)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for closed.Err() == nil {
				if f.send(ctx) {
					accepted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	cancel()
	rate := 3 * float64(accepted.Load()) / calibrate.Seconds()
	t.Logf("accepted %.0f requests/s of 500 records; now %.0f/s for %s", rate/3, rate, minute)

	end, cancel := context.WithTimeout(ctx, minute)
	defer cancel()
	var peak, queries atomic.Int64
	wg.Go(func() { // what an operator would watch
		for end.Err() == nil {
			u, err := s.Usage()
			if err == nil {
				peak.Store(max(peak.Load(), u.RSS))
			}
			pause(end, 50*time.Millisecond)
		}
	})
	wg.Go(func() {
		for end.Err() == nil {
			var out struct{ Status string }
			q, cancel := context.WithTimeout(ctx, 15*time.Second)
			_, err := s.JSON(q, "/api/v1/query", url.Values{"query": {`count(request_number)`}}, &out)
			cancel()
			f.mu.Lock()
			if err != nil || out.Status != "success" {
				f.wrong = append(f.wrong, fmt.Sprintf("query: %v %s", err, out.Status))
			}
			f.mu.Unlock()
			queries.Add(1)
			pause(end, 250*time.Millisecond)
		}
	})
	due, sent, began := 0, 0, time.Now()
	outstanding := make(chan struct{}, 2000) // sockets, not patience: the sender does not wait for answers
	for end.Err() == nil {
		for due = int(time.Since(began).Seconds() * rate); sent < due; sent++ {
			select {
			case outstanding <- struct{}{}:
				wg.Go(func() {
					defer func() { <-outstanding }()
					f.send(ctx)
				})
			default:
			}
		}
		pause(end, time.Millisecond)
	}
	wg.Wait()
	u, err := s.Usage()
	require.NoError(t, err)
	t.Logf("%d acknowledged, %d refused, %d without an answer, %d queries, peak RSS %d MiB (VmHWM %d MiB)",
		len(f.acked), f.refused, len(f.unknown), queries.Load(), peak.Load()>>20, u.PeakRSS>>20)
	require.Empty(t, f.wrong)
	require.Positive(t, f.refused, "the load was too small to be an overload")
	require.Positive(t, queries.Load())
	require.Less(t, u.PeakRSS, int64(limit))
	f.check(t)
	require.NoError(t, s.Stop(ctx))
}

// pause paces a load; it ends early with ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// check requires that every acknowledged request is stored exactly once, whole.
func (f *flood) check(t *testing.T) {
	t.Helper()
	total := int(f.next.Load())
	stored := make([]int, total)
	f.countSamples(t, stored)
	f.countLines(t, stored)
	for n := range total {
		if n%3 != 0 {
			continue
		}
		var answer struct {
			Trace struct {
				ResourceSpans []struct {
					ScopeSpans []struct{ Spans []struct{ Name string } }
				}
			}
		}
		_, err := f.s.JSON(t.Context(), "/api/v2/traces/"+harness.NumberedTrace(n).String(), nil, &answer)
		require.NoError(t, err)
		spans := 0
		for _, rs := range answer.Trace.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				spans += len(ss.Spans)
			}
		}
		require.Contains(t, []int{0, 500}, spans, "request %d", n)
		stored[n] = spans / 500
	}
	for n := range total {
		if f.acked[n] {
			require.Equal(t, 1, stored[n], "request %d was acknowledged", n)
		} else {
			require.LessOrEqual(t, stored[n], 1, "request %d", n)
		}
	}
}

func (f *flood) countSamples(t *testing.T, stored []int) {
	t.Helper()
	var answer struct {
		Data struct {
			Result []struct{ Values [][2]any }
		}
	}
	_, err := f.s.JSON(t.Context(), "/api/v1/query", url.Values{
		"query": {`request_number[2h]`}, "time": {strconv.FormatInt(f.base.Add(time.Hour).Unix(), 10)},
	}, &answer)
	require.NoError(t, err)
	for _, r := range answer.Data.Result {
		for _, v := range r.Values {
			n, err := strconv.ParseFloat(v[1].(string), 64)
			require.NoError(t, err)
			stored[int(n)]++
		}
	}
}

func (f *flood) countLines(t *testing.T, stored []int) {
	t.Helper()
	for from := f.base.Add(-time.Second); from.Before(f.at(len(stored)).Add(time.Second)); from = from.Add(time.Second) {
		var answer struct {
			Data struct {
				Result []struct{ Values [][]any }
			}
		}
		_, err := f.s.JSON(t.Context(), "/loki/api/v1/query_range", url.Values{
			"query": {`{service_name="writer-0"} |= "number "`}, "limit": {"5000"}, "direction": {"forward"},
			"start": {strconv.FormatInt(from.UnixNano(), 10)}, "end": {strconv.FormatInt(from.Add(time.Second).UnixNano(), 10)},
		}, &answer)
		require.NoError(t, err)
		rows := 0
		for _, r := range answer.Data.Result {
			for _, v := range r.Values {
				n, err := strconv.ParseInt(strings.TrimPrefix(v[1].(string), "number "), 16, 64)
				require.NoError(t, err)
				stored[n]++
				rows++
			}
		}
		require.Less(t, rows, 5000)
	}
}
