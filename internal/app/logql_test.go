package app

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/storage"
)

// logsBegin is the time of the first line of the tests.
var logsBegin = time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC)

// logLine is a line such as services write, of several forms.
func logLine(rng *rand.Rand, app int, at time.Time) string {
	status := []int{200, 200, 200, 201, 404, 500, 503}[rng.IntN(7)]
	path := fmt.Sprintf("/api/v%d/cart/%d", rng.IntN(2), rng.IntN(12))
	switch (app + rng.IntN(4)/3) % 4 {
	case 0:
		return fmt.Sprintf(`{"ts":"%s","level":"%s","msg":"order %d placed","status":%d,"took":%.3f,"path":"%s","user":{"id":"u-%d"}}`,
			at.Format(time.RFC3339Nano), []string{"info", "warn", "error"}[rng.IntN(3)], rng.IntN(500), status, rng.Float64()*100, path, rng.IntN(9))
	case 1:
		return fmt.Sprintf("level=%s took=%dms status=%d path=%s id=%08x msg=\"request %d done\"", []string{"info", "error"}[rng.IntN(2)], rng.IntN(900), status, path, rng.Uint32(), rng.IntN(50))
	case 2:
		return fmt.Sprintf(`10.0.%d.%d - - [%s] "GET %s HTTP/1.1" %d %d`, rng.IntN(4), rng.IntN(256), at.Format("02/Jan/2006:15:04:05 -0700"), path, status, rng.IntN(1e6))
	default:
		return []string{"", "\x1b[31mred\x1b[0m level=info", `{"level":"info","status":`, "panic: \xff\x00", "timeout of connection " + strconv.Itoa(rng.IntN(1000))}[rng.IntN(5)]
	}
}

// logBatch is n lines of one stream from a time on, some of them at the same time.
func logBatch(rng *rand.Rand, n int, at time.Time) telemetry.Batch {
	app := rng.IntN(4)
	b := telemetry.Batch{
		Tenant: telemetry.DefaultTenant,
		Stream: telemetry.NewLabelSet(labels.FromStrings("app", "a"+strconv.Itoa(app), "env", "prod", "pod", "p"+strconv.Itoa(rng.IntN(2)))),
	}
	if app == 1 {
		b.Resource = telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{{Key: "host.name", Value: telemetry.String("h1")}}))
	}
	for range n {
		at = at.Add(time.Duration(rng.IntN(3)) * 100 * time.Millisecond)
		r := telemetry.LogRecord{Time: at.UnixNano(), Body: telemetry.String(logLine(rng, app, at)), Severity: uint8(rng.IntN(3)) * 8}
		if rng.IntN(6) == 0 {
			r.Attrs = telemetry.NewAttrs([]telemetry.Attr{{Key: []string{"user.id", "status", "code"}[rng.IntN(3)], Value: telemetry.String("m" + strconv.Itoa(rng.IntN(3)))}})
		}
		if rng.IntN(9) == 0 {
			r.TraceID = telemetry.TraceID{1, byte(rng.IntN(4))}
		}
		b.Logs = append(b.Logs, r)
	}
	return b
}

func writeLogs(t *testing.T, w storage.Writer, b telemetry.Batch) {
	t.Helper()
	req := testkit.Clone(storage.Request{Batches: []telemetry.Batch{b}})
	_, rejected, err := w.Write(t.Context(), req)
	require.NoError(t, err)
	require.Zero(t, rejected.Total(), rejected.Reasons)
}

// randomStages are stages such as people write, and some that meet their corners.
func randomStages(rng *rand.Rand) string {
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	filter := pick("", "", `|= "level"`, `!= "info"`, `|~ "(?i)TIMEOUT|order [0-9]+ placed"`, `|~ "cart/[0-5]\\b"`, `!~ "status.{1,3}200"`, `|> "<_>took=<_>"`, `|= ip("10.0.1.0/24")`, `|= "error" or "warn"`)
	parse := pick("", "| json", "| json", "| logfmt", "| logfmt", `| json status, id="user.id"`, `| logfmt took, where="path"`, `| pattern "<ip> - - [<_>] \"<method> <path> <_>\" <status> <size>"`, `| regexp "status[=:\"]+(?P<status>[0-9]+)"`, "| decolorize | logfmt --strict")
	test := pick("", "", `| status >= 400`, `| status="500" or took > 50`, `| level=~"err.*|warn"`, `| took > 300ms`, `| path!="/api/v1/cart/3"`, `| trace_id!=""`, `| detected_level="error"`, `| user_id=~"u-[1-4]"`, `| host_name="h1"`)
	form := pick("", "", "", `| line_format "{{.app}} {{.status}} {{__line__ | trunc 20}}"`, `| label_format s=status, both="{{.app}}/{{.pod}}"`, "| drop level, took", "| keep app, status")
	return filter + " " + parse + " " + test + " " + form
}

func randomMetric(rng *rand.Rand) string {
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	sel := pick(`{env="prod"}`, `{env="prod",app=~"a[01]"}`, `{app="a1"}`, `{app!="a3",env="prod"}`)
	by := pick("app", "status", "level, app", "path", "detected_level", "host_name", "user_id, pod", "trace_id")
	stages := randomStages(rng) + ` | __error__=""`
	window := pick("10s", "1m", "7s", "5m")
	if rng.IntN(3) > 0 {
		op := pick("count_over_time", "rate", "bytes_over_time", "bytes_rate")
		return fmt.Sprintf(`%s by (%s) (%s(%s %s [%s]))`, pick("sum", "max"), by, op, sel, stages, window)
	}
	parser, unwrap := "| json", pick("took", "status")
	if rng.IntN(2) == 0 {
		parser, unwrap = "| logfmt", pick("duration(took)", "status")
	}
	f := pick("sum_over_time(", "avg_over_time(", "max_over_time(", "min_over_time(", "quantile_over_time(0.9, ", "stddev_over_time(", "first_over_time(", "last_over_time(", "rate(")
	inner := fmt.Sprintf(`%s%s %s | unwrap %s | __error__="" [%s])`, f, sel, parser, unwrap, window)
	if f == "first_over_time(" || f == "last_over_time(" {
		by = "app, pod" // one stream: lines of several at the same time have no order here
	}
	if f == "sum_over_time(" || f == "rate(" {
		return fmt.Sprintf("sum by (%s) (%s)", by, inner)
	}
	return inner + fmt.Sprintf(" by (%s)", by)
}

// logStores returns the engine and a store that looks at everything, with the same lines: in parts of several ages, which
// merges go over, and in memory.
func logStores(t *testing.T, rng *rand.Rand) (*memoryStore, *testkit.Store) {
	t.Helper()
	store, err := openMemory(context.WithoutCancel(t.Context()), func() time.Time { return logsBegin.Add(time.Hour) })
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close(context.WithoutCancel(t.Context()))) })
	naive := testkit.NewStore("")
	for i := range 12 {
		for range 3 {
			b := logBatch(rng, 1+rng.IntN(60), logsBegin.Add(time.Duration(i)*5*time.Second-time.Duration(rng.IntN(20))*time.Second))
			writeLogs(t, store, b)
			writeLogs(t, naive, b)
		}
		if i%3 == 0 || i == 4 {
			require.NoError(t, store.Flush(t.Context()))
		}
		if i == 7 {
			require.NoError(t, store.Maintain(t.Context()))
		}
	}
	return store, naive
}

func logView(t *testing.T, r storage.Reader) storage.View {
	t.Helper()
	v, err := r.View(t.Context(), 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = v.Close() })
	return v
}

// TestLogQLOverLayouts asks random queries of the engine and of a store that looks at everything, row by row.
func TestLogQLOverLayouts(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 11))
			store, naive := logStores(t, rng)
			real, plain := logView(t, store), logView(t, naive)
			fast, rows := logql.Engine{Limits: logql.Limits{Series: 10_000, Points: 1000}}, logql.Engine{Limits: logql.Limits{Series: 10_000, Points: 1000}, Rows: true}
			answers, lines := 0, 0
			for range 30 {
				query := randomMetric(rng)
				e, err := logql.Parse(query)
				require.NoError(t, err, query)
				q := logql.MetricQuery{Tenant: telemetry.DefaultTenant, Expr: e, Start: logsBegin.UnixNano(), End: logsBegin.Add(70 * time.Second).UnixNano()}
				if rng.IntN(3) > 0 {
					q.Step = []time.Duration{5 * time.Second, 17 * time.Second}[rng.IntN(2)]
				}
				want, wantErr := rows.Metric(t.Context(), plain, q)
				got, gotErr := fast.Metric(t.Context(), real, q)
				if wantErr != nil {
					require.Error(t, gotErr, query)
					continue
				}
				require.NoError(t, gotErr, query)
				sameSeries(t, want.Series, got.Series, query)
				answers += len(want.Series)
			}
			for range 25 {
				query := `{env="prod"} ` + randomStages(rng)
				e, err := logql.Parse(query)
				require.NoError(t, err, query)
				q := logql.LinesQuery{
					Tenant: telemetry.DefaultTenant, Expr: e, Start: logsBegin.Add(-20 * time.Second).UnixNano(), End: logsBegin.Add(60 * time.Second).UnixNano(),
					Newest: rng.IntN(2) == 0, Limit: []int{0, 1, 10, 100}[rng.IntN(4)],
				}
				want, err := rows.Lines(t.Context(), plain, q)
				require.NoError(t, err, query)
				got, err := fast.Lines(t.Context(), real, q)
				require.NoError(t, err, query)
				require.Equal(t, want.Entries, got.Entries, query)
				require.Equal(t, want.Next, got.Next, query)
				lines += len(want.Entries)
			}
			require.Greater(t, answers, 30)
			require.Greater(t, lines, 200)
		})
	}
}

func sameSeries(t *testing.T, want, got []logql.Series, query string) {
	t.Helper()
	require.Len(t, got, len(want), query)
	for i := range want {
		require.Equal(t, want[i].Labels, got[i].Labels, query)
		require.Len(t, got[i].Points, len(want[i].Points), query)
		for k, p := range want[i].Points {
			x := got[i].Points[k]
			require.Equal(t, p.Time, x.Time, query)
			near := math.Abs(p.Value-x.Value) <= 1e-9*math.Max(1, math.Abs(p.Value)) || p.Value == x.Value || math.IsNaN(p.Value) && math.IsNaN(x.Value)
			require.True(t, near, "%s: %v, not %v", query, x.Value, p.Value)
		}
	}
}

// TestLogPages goes through all lines with a cursor while lines arrive at other times, are flushed and merged: each line
// that was there at the beginning comes once, in order, and none comes twice.
func TestLogPages(t *testing.T) {
	for seed := range uint64(6) {
		newest := seed%2 == 0
		t.Run(fmt.Sprintf("%d newest %t", seed, newest), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 12))
			store, _ := logStores(t, rng)
			query := []string{`{env="prod"}`, `{env="prod"} |= "level"`, `{env="prod"} | json | status >= 400`}[seed/2]
			e, err := logql.Parse(query)
			require.NoError(t, err)
			q := logql.LinesQuery{Tenant: telemetry.DefaultTenant, Expr: e, Start: logsBegin.Add(-time.Minute).UnixNano(), End: logsBegin.Add(time.Hour).UnixNano(), Newest: newest}
			eng := logql.Engine{}
			all, err := eng.Lines(t.Context(), logView(t, store), q)
			require.NoError(t, err)
			require.NotEmpty(t, all.Entries)
			var got []logql.Entry
			for pages := 0; ; pages++ {
				q.Limit = 1 + rng.IntN(60)
				v, err := store.View(t.Context(), 0)
				require.NoError(t, err)
				page, err := eng.Lines(t.Context(), v, q)
				require.NoError(t, err)
				require.NoError(t, v.Close())
				got = append(got, page.Entries...)
				if q.After = page.Next; q.After == nil {
					break
				}
				require.Less(t, pages, 2*len(all.Entries))
				if pages < 30 { // lines whose times are odd: those of the beginning have whole tenths of seconds
					b := logBatch(rng, 5, logsBegin.Add(time.Duration(rng.IntN(60))*time.Second))
					for i := range b.Logs {
						b.Logs[i].Time += int64(1 + pages)
					}
					writeLogs(t, store, b)
				}
				switch rng.IntN(4) {
				case 0:
					require.NoError(t, store.Flush(t.Context()))
				case 1:
					require.NoError(t, store.Maintain(t.Context()))
				default:
				}
			}
			var old []logql.Entry
			for i, en := range got {
				if i > 0 {
					require.True(t, en.Time == got[i-1].Time || (en.Time > got[i-1].Time) != newest, "in order")
				}
				if en.Time%int64(100*time.Millisecond) == 0 {
					old = append(old, en)
				}
			}
			require.Equal(t, all.Entries, old)
			seen := make(map[string]int)
			for _, en := range got {
				seen[fmt.Sprint(en.Time, en.Labels, en.Line)]++
			}
			again, err := eng.Lines(t.Context(), logView(t, store), logql.LinesQuery{Tenant: q.Tenant, Expr: e, Start: q.Start, End: q.End})
			require.NoError(t, err)
			for _, en := range again.Entries {
				seen[fmt.Sprint(en.Time, en.Labels, en.Line)]--
			}
			for en, n := range seen {
				require.LessOrEqual(t, n, 0, en)
			}
		})
	}
}
