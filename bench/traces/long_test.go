//go:build long

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

// TestLongTrace sends a trace of 100,000 spans over five days, a thousand spans a request, and reads it back whole and page by page:
// from memory and from disk, each span once, in the order of starts, within 256 MiB.
func TestLongTrace(t *testing.T) {
	const (
		spans  = 100_000
		page   = 1000
		maxRSS = 256 << 20
	)
	dir := t.TempDir()
	binary, err := harness.Build(t.Context(), dir)
	require.NoError(t, err)
	srv, err := start(t.Context(), braid, binary, dir, "storage: {flush_interval: 1s}\n")
	require.NoError(t, err)
	t.Cleanup(srv.s.Kill)
	tr := trace{id: [16]byte{1, 2, 3, 4, 15: 5}}
	first := time.Now().Add(-5 * 24 * time.Hour).Truncate(time.Second)
	id := func(n int) (out [8]byte) {
		copy(out[:], fmt.Sprintf("%08d", n))
		return out
	}
	half := func(from, to int) {
		for n := from; n < to; n += page {
			var of []byte
			for i := n; i < n+page; i++ {
				at := first.Add(time.Duration(i) * 4 * time.Second).UnixNano()
				s := span{id: id(i), name: "step", kind: 1, start: at, end: at + int64(time.Second)}
				if i > 0 {
					s.parent = id((i - 1) / 4)
				}
				s.attrs = appendText(appendInt(nil, "step.number", int64(i)), 9, "step.text", fmt.Sprintf("number %d of a long way", i))
				of = appendBytes(of, 2, string(s.appendOTLP(nil, &tr)))
			}
			body := appendBytes(nil, 1, string(appendBytes(nil, 2, string(of))))
			require.NoError(t, harness.Send(t.Context(), srv.http, srv.otlp, http.Header{"Content-Type": {"application/x-protobuf"}}, body))
		}
	}
	half(0, spans/2)
	require.NoError(t, srv.s.Flushed(t.Context(), "traces"))
	half(spans/2, spans)
	check := func(when string) {
		seen, cursor := 0, ""
		for {
			q := url.Values{"limit": {strconv.Itoa(page)}}
			if cursor != "" {
				q.Set("cursor", cursor)
			}
			got := readPage(t.Context(), t, srv, tr.id, q)
			for _, name := range got.ids {
				require.Equal(t, fmt.Sprintf("%08d", seen), name, when)
				seen++
			}
			if cursor = got.cursor; cursor == "" {
				break
			}
		}
		require.Equal(t, spans, seen, when)
		u, err := srv.s.Usage()
		require.NoError(t, err)
		t.Logf("%s: %d pages, peak RSS %d MB", when, (spans+page-1)/page, u.PeakRSS/1e6)
		require.Less(t, u.PeakRSS, int64(maxRSS), when)
	}
	check("young")
	require.NoError(t, srv.s.Flushed(t.Context(), "traces"))
	check("on disk")
	// At once, in the form that is smallest.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s/api/v2/traces/%x", srv.s.HTTP, tr.id), nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "application/protobuf")
	resp, err := srv.http.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	whole := 0
	buf := make([]byte, 64<<10)
	for {
		n, err := resp.Body.Read(buf)
		if whole += n; err != nil {
			break
		}
	}
	require.Greater(t, whole, spans*100)
	u, err := srv.s.Usage()
	require.NoError(t, err)
	t.Logf("whole: %d MB of protobuf, peak RSS %d MB", whole/1e6, u.PeakRSS/1e6)
	require.Less(t, u.PeakRSS, int64(maxRSS), "whole")
}

// pageOf is what a page has.
type pageOf struct {
	ids    []string
	cursor string
}

func readPage(ctx context.Context, t *testing.T, srv *target, id [16]byte, q url.Values) (out pageOf) {
	t.Helper()
	b, err := srv.get(ctx, fmt.Sprintf("/api/v2/traces/%x", id), q, false)
	require.NoError(t, err)
	var got struct {
		Status, Message string
		Trace           struct {
			ResourceSpans []struct {
				ScopeSpans []struct {
					Spans []struct{ SpanID string }
				}
			}
		}
	}
	require.NoError(t, json.Unmarshal(b, &got))
	_, out.cursor, _ = strings.Cut(got.Message, "cursor=")
	require.Equal(t, got.Status == "PARTIAL", out.cursor != "")
	for _, r := range got.Trace.ResourceSpans {
		for _, sc := range r.ScopeSpans {
			for _, s := range sc.Spans {
				var text []byte
				_, err := fmt.Sscanf(s.SpanID, "%x", &text)
				require.NoError(t, err)
				out.ids = append(out.ids, string(text))
			}
		}
	}
	return out
}
