package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs"
	"github.com/braidobs/braid/storage/logs/lines"
	"github.com/braidobs/braid/storage/part"
)

func TestTmp(t *testing.T) {
	l := load{lines: 504 * 300, duration: 6 * time.Minute, seed: 1, end: time.Unix(1_700_000_000, 0)}
	if d := os.Getenv("LINES_DIR"); d != "" {
		l.extra, _ = readExtra(d)
	}
	w := newWriter(&l, 0)
	raw := map[kind]int{}
	all := 0
	dec := lines.NewDecoder()
	b := logs.NewBuilder(t.Context(), logs.DefaultLayout(), dec)
	per := map[kind]*logs.Builder{}
	for i := range streams {
		app, pod := i%apps, i/apps
		set := telemetry.NewLabelSet(labels.FromStrings("app", appName(app), "pod", podName(app, pod)))
		k := kindOf(app)
		if per[k] == nil {
			per[k] = logs.NewBuilder(t.Context(), logs.DefaultLayout(), dec)
		}
		for n := range 300 {
			at := l.end.Add(time.Duration(n)*1200*time.Millisecond + time.Duration(w.rng.IntN(1e9)))
			line := strings.Clone(string(w.line(app, pod, at)))
			raw[k] += len(line) + 1
			all += len(line) + 1
			r := &telemetry.LogRecord{Time: at.UnixNano(), Body: telemetry.String(line)}
			b.Add(set, nil, r)
			per[k].Add(set, nil, r)
		}
	}
	write := func(name string, b *logs.Builder, raw int) []byte {
		enc, err := part.NewEncoder()
		require.NoError(t, err)
		var buf bytes.Buffer
		pw := part.NewWriter(&buf, enc, map[string]string{})
		at := time.Now()
		require.NoError(t, b.Write(pw))
		require.NoError(t, pw.Close())
		took := time.Since(at)
		fmt.Printf("%s: %d raw, %d bytes, ratio %.2f, %.1f MB/s, %.1f s/GB\n", name, raw, buf.Len(), float64(raw)/float64(buf.Len()), float64(raw)/1e6/took.Seconds(), took.Seconds()/float64(raw)*1e9)
		return buf.Bytes()
	}
	for k, n := range []string{"json", "access", "klog", "java", "foreign"} {
		write(n, per[kind(k)], raw[kind(k)])
	}
	data := write("all", b, all)
	zd, err := part.NewDecoder()
	require.NoError(t, err)
	p, err := part.Open("x", bytes.NewReader(data), int64(len(data)), zd, nil)
	require.NoError(t, err)
	fmt.Println(p.Describe())
	lp := logs.OpenPart(p, 1, 0, 1<<62)
	for _, q := range []struct {
		name string
		q    storage.LogQuery
	}{
		{"bodies", storage.LogQuery{Columns: storage.LogBody}},
		{"times, streams", storage.LogQuery{Columns: storage.LogStream}},
		{"contains", storage.LogQuery{Columns: storage.LogStream, Where: storage.LineContains("upstream timed out")}},
		{"absent", storage.LogQuery{Columns: storage.LogStream, Where: storage.LineContains("zqnabsent1")}},
		{"hex", storage.LogQuery{Columns: storage.LogStream, Where: storage.LineContains("deadbeefcafe0123")}},
	} {
		q.q.Start, q.q.End = 0, 1<<62
		at := time.Now()
		n := 0
		s := logs.Scan{LogQuery: q.q, Decoder: dec}
		require.NoError(t, lp.Scan(t.Context(), &s, func(r logs.Rows) error { n += r.Len(); return nil }))
		fmt.Println(q.name, n, time.Since(at))
	}
}
