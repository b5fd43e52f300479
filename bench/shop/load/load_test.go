package load_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/bench/shop/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve records requests and answers them with handle.
func serve(t *testing.T, handle http.HandlerFunc) (addr string, seen func() []string) {
	t.Helper()
	var mu sync.Mutex
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		got = append(got, r.Method+" "+r.URL.Path+" "+string(body))
		mu.Unlock()
		handle(w, r)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), func() []string {
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(got) // requests of an open loop overtake each other
		return got
	}
}

func TestSeed(t *testing.T) {
	run := func(seed uint64) ([]string, load.Summary) {
		addr, seen := serve(t, func(http.ResponseWriter, *http.Request) {})
		sum, err := load.Run(t.Context(), load.Config{
			Target: addr, RPS: 2000, Duration: 200 * time.Millisecond, Seed: seed, MaxInFlight: 1000,
			Timeout: 30 * time.Second, Grace: 30 * time.Second,
		}, time.Now)
		require.NoError(t, err)
		return seen(), sum
	}
	first, sum := run(1)
	again, _ := run(1)
	other, _ := run(2)
	require.Equal(t, first, again)
	require.NotEqual(t, first, other)
	require.InDelta(t, 400, len(first), 80)
	require.Equal(t, len(first), sum.Sent)
	require.Equal(t, len(first), sum.Status["200"])
	require.Zero(t, sum.Dropped+sum.Failed, sum.Error)
	require.Equal(t, sum.Orders, sum.Routes["POST /checkout"])
	require.Positive(t, sum.P50)
	require.LessOrEqual(t, sum.P50, sum.P95)
	require.LessOrEqual(t, sum.P95, sum.P99)
}

// A server that does not answer must not slow the schedule down: what does not fit is dropped and counted.
func TestOpenLoop(t *testing.T) {
	addr, _ := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	sum, err := load.Run(t.Context(), load.Config{
		Target: addr, RPS: 500, Duration: 200 * time.Millisecond, MaxInFlight: 4, Timeout: 2 * time.Second, Grace: time.Minute,
	}, time.Now)
	require.NoError(t, err)
	require.Equal(t, 4, sum.Sent)
	require.Equal(t, 4, sum.Failed)
	require.InDelta(t, 96, sum.Dropped, 40)
}

func TestGrace(t *testing.T) {
	addr, seen := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan load.Summary, 1)
	go func() {
		sum, _ := load.Run(ctx, load.Config{Target: addr, RPS: 500, MaxInFlight: 2, Timeout: time.Minute, Grace: time.Millisecond}, time.Now)
		done <- sum
	}()
	require.Eventually(t, func() bool { return len(seen()) > 0 }, 30*time.Second, time.Millisecond)
	cancel()
	sum := <-done
	require.Equal(t, sum.Sent, sum.Failed)
	require.Positive(t, sum.Failed)
}
