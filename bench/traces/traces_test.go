package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// TestLoad: what the generator makes is OTLP, the same each time, and of the size that targets are given for.
func TestLoad(t *testing.T) {
	l := load{traces: 500, duration: time.Hour, end: time.Unix(1_800_000_000, 0), seed: 1, request: 1000}
	s := newShop()
	require.Len(t, s.services, 21)
	var b batch
	b.of = make(map[[2]int][]byte)
	var tr, again trace
	spans := 0
	for n := range l.traces {
		l.trace(s, n, &tr)
		l.trace(s, n, &again)
		require.Equal(t, tr.id, again.id)
		require.Len(t, again.spans, len(tr.spans))
		ids := make(map[[8]byte]bool)
		for i := range tr.spans {
			p := &tr.spans[i]
			require.Greater(t, p.end, p.start)
			require.True(t, i == 0 || ids[p.parent], "the parent comes first")
			ids[p.id] = true
			k := [2]int{p.pod, p.scope}
			b.of[k] = appendBytes(b.of[k], 2, string(p.appendOTLP(nil, &tr)))
			spans++
		}
	}
	body := b.encode(s)
	req := ptraceotlp.NewExportRequest()
	require.NoError(t, req.UnmarshalProto(body))
	require.Equal(t, spans, req.Traces().SpanCount())
	t.Logf("%.1f spans a trace, %d bytes a span", float64(spans)/float64(l.traces), len(body)/spans)
	require.InDelta(t, 22.7, float64(spans)/float64(l.traces), 2)
	require.InDelta(t, 343, len(body)/spans, 40)
}

// TestRun sends a small load to a real server and compares what it answers with what was sent.
func TestRun(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-n", "300", "-queries=false", "-dir", t.TempDir(), "-config", "storage:\n  flush_interval: 1s\n"}, &out))
	require.Contains(t, out.String(), "spans and traces of the searches are those that were sent")
}
