package ingest_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

func TestLines(t *testing.T) {
	const hex = "0123456789abcdef0123456789abcdef"
	id, err := telemetry.ParseTraceID(hex)
	require.NoError(t, err)
	own := telemetry.TraceID{9}
	span := telemetry.SpanID{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}
	long := strings.Repeat("x", ingest.MaxLine-1)
	tests := []struct {
		name string
		in   telemetry.LogRecord
		want telemetry.LogRecord
		cut  bool
	}{
		{"nothing to find", telemetry.LogRecord{Body: telemetry.String("hello")}, telemetry.LogRecord{Body: telemetry.String("hello")}, false},
		{
			"found",
			telemetry.LogRecord{Body: telemetry.String(`{"level":"warn","trace_id":"` + hex + `","span_id":"` + hex[:16] + `"}`)},
			telemetry.LogRecord{Severity: 13, TraceID: id, SpanID: span, Body: telemetry.String(`{"level":"warn","trace_id":"` + hex + `","span_id":"` + hex[:16] + `"}`)},
			false,
		},
		{
			"what was sent goes first",
			telemetry.LogRecord{Severity: 9, TraceID: own, Body: telemetry.String(`{"level":"warn","trace_id":"` + hex + `"}`)},
			telemetry.LogRecord{Severity: 9, TraceID: own, Body: telemetry.String(`{"level":"warn","trace_id":"` + hex + `"}`)},
			false,
		},
		{
			"one was sent",
			telemetry.LogRecord{TraceID: own, Body: telemetry.String(`level=error trace_id=` + hex)},
			telemetry.LogRecord{Severity: 17, TraceID: own, Body: telemetry.String(`level=error trace_id=` + hex)},
			false,
		},
		{"a span without a trace", telemetry.LogRecord{Body: telemetry.String(`level=info span_id=` + hex[:16])}, telemetry.LogRecord{Severity: 9, Body: telemetry.String(`level=info span_id=` + hex[:16])}, false},
		{
			"in attributes",
			telemetry.LogRecord{Body: telemetry.String(`level=info x=y`), Attrs: telemetry.Attrs{{Key: "level", Value: telemetry.String("warn")}, {Key: "trace_id", Value: telemetry.String(hex)}}},
			telemetry.LogRecord{Severity: 13, TraceID: id, Body: telemetry.String(`level=info x=y`), Attrs: telemetry.Attrs{{Key: "level", Value: telemetry.String("warn")}, {Key: "trace_id", Value: telemetry.String(hex)}}},
			false,
		},
		{"not text", telemetry.LogRecord{Body: telemetry.Bytes([]byte("ERROR"))}, telemetry.LogRecord{Body: telemetry.Bytes([]byte("ERROR"))}, false},
		{"just fits", telemetry.LogRecord{Body: telemetry.String(long + "y")}, telemetry.LogRecord{Body: telemetry.String(long + "y")}, false},
		{
			"too long",
			telemetry.LogRecord{Body: telemetry.String(long + "yz"), Attrs: telemetry.Attrs{{Key: "a", Value: telemetry.Int(1)}, {Key: "z", Value: telemetry.Int(2)}}},
			telemetry.LogRecord{
				Body:  telemetry.String(long + "y"),
				Attrs: telemetry.Attrs{{Key: "a", Value: telemetry.Int(1)}, {Key: "log.truncated", Value: telemetry.Bool(true)}, {Key: "z", Value: telemetry.Int(2)}},
			},
			true,
		},
		{
			"no character is cut",
			telemetry.LogRecord{Body: telemetry.String(long + "éz")},
			telemetry.LogRecord{Body: telemetry.String(long), Attrs: telemetry.Attrs{{Key: "log.truncated", Value: telemetry.Bool(true)}}},
			true,
		},
		{
			"ten megabytes",
			telemetry.LogRecord{Body: telemetry.String(strings.Repeat("\x80", 10<<20))},
			telemetry.LogRecord{Body: telemetry.String(strings.Repeat("\x80", ingest.MaxLine-4)), Attrs: telemetry.Attrs{{Key: "log.truncated", Value: telemetry.Bool(true)}}},
			true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &store{}
			p, reg := newPipeline(t, s, nil)
			tt.in.Time, tt.want.Time = now.UnixNano(), now.UnixNano()
			rej, err := p.Write(t.Context(), "t", storage.Key{}, []telemetry.Batch{{Logs: []telemetry.LogRecord{tt.in}}}, storage.Rejected{})
			require.NoError(t, err)
			require.Zero(t, rej.Total())
			got := s.last.Batches[0].Logs[0]
			if tt.want.Body != got.Body { // which may have a megabyte
				t.Fatal("the body differs")
			}
			got.Body, tt.want.Body = telemetry.Value{}, telemetry.Value{}
			require.Equal(t, tt.want, got)
			want := "0"
			if tt.cut {
				want = "1"
			}
			require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP braid_ingest_cut_lines_total Log lines over 1 MiB, of which only the beginning was kept; they have the attribute log.truncated.
# TYPE braid_ingest_cut_lines_total counter
braid_ingest_cut_lines_total `+want+"\n"), "braid_ingest_cut_lines_total"))
		})
	}
}

func TestSeverityOfStreams(t *testing.T) {
	s := &store{}
	p, _ := newPipeline(t, s, nil)
	_, err := p.Write(t.Context(), "t", storage.Key{}, []telemetry.Batch{{Stream: set("app", "x", "level", "error"), Logs: []telemetry.LogRecord{
		{Time: now.UnixNano(), Body: telemetry.String("INFO x")},
		{Time: now.UnixNano(), Body: telemetry.String("INFO x"), Attrs: telemetry.Attrs{{Key: "severity", Value: telemetry.String("debug")}}},
		{Time: now.UnixNano(), Severity: 21},
	}}}, storage.Rejected{})
	require.NoError(t, err)
	var got []uint8
	for _, r := range s.last.Batches[0].Logs {
		got = append(got, r.Severity)
	}
	require.Equal(t, []uint8{17, 5, 21}, got)
}
