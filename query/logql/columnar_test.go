package logql_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/storage"
)

// splitting is a view that cuts bodies into templates and variables wherever the kinds of gaps allow.
type splitting struct {
	storage.View
	seed  uint64
	lines int // blocks given as Lines
}

// Logs implements storage.LogReader.
func (v *splitting) Logs(ctx context.Context, q storage.LogQuery) iter.Seq2[*storage.LogBlock, error] {
	asked := q.Columns
	if asked&storage.LogLines != 0 {
		q.Columns = asked&^storage.LogLines | storage.LogBody
	}
	return func(yield func(*storage.LogBlock, error) bool) {
		for b, err := range v.View.Logs(ctx, q) {
			if err == nil && asked&storage.LogLines != 0 && asked&storage.LogBody == 0 {
				v.split(b)
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

func (v *splitting) split(b *storage.LogBlock) {
	type shape struct {
		t    *storage.Template
		vars [][]string
	}
	shapes := make(map[string]int)
	var all []*shape
	l := &storage.Lines{}
	for i := range b.Len() {
		t, vars := cut(b.Body[i].Text(), v.seed)
		key := fmt.Sprintf("%q %v", t.Text, t.Gaps)
		n, ok := shapes[key]
		if !ok {
			n = len(all)
			shapes[key] = n
			all = append(all, &shape{t: t, vars: make([][]string, len(t.Gaps))})
		}
		l.Shape = append(l.Shape, uint32(n))
		rows := 0
		for _, s := range l.Shape[:i] {
			if int(s) == n {
				rows++
			}
		}
		l.Row = append(l.Row, uint32(rows))
		for g, s := range vars {
			all[n].vars[g] = append(all[n].vars[g], s)
		}
	}
	for n, s := range all {
		rows := 0
		for _, m := range l.Shape {
			if int(m) == n {
				rows++
			}
		}
		l.Shapes = append(l.Shapes, &storage.Shape{Template: s.t, Rows: rows, Load: func(gap int) (*storage.Variables, error) {
			return variables(s.vars[gap], v.seed+uint64(gap)), nil
		}})
	}
	b.Body, b.Lines = nil, l
	v.lines++
}

// chance says yes in one of n cases, always the same for the same arguments.
func chance(seed uint64, i, n int) bool {
	x := (seed + uint64(i)*0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	return (x^x>>31)%uint64(n) == 0
}

// cut splits a line: runs of letters and digits, and now and then more than that, become gaps.
func cut(line string, seed uint64) (*storage.Template, []string) {
	if chance(seed, len(line), 50) {
		return &storage.Template{Text: []string{"", ""}, Gaps: []storage.Gap{storage.GapLine}}, []string{line}
	}
	t := &storage.Template{}
	var vars []string
	text := ""
	word := func(c byte) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	token := 0
	for i := 0; i < len(line); {
		n := i
		for n < len(line) && word(line[n]) {
			n++
		}
		if n == i {
			text += line[i : i+1]
			i++
			continue
		}
		token++
		if n+1 < len(line) && line[n] == '.' && word(line[n+1]) { // take decimal numbers whole
			for n++; n < len(line) && word(line[n]); n++ {
			}
		}
		if chance(seed, token, 4) { // take more than one word
			for n < len(line) && n < i+12 && strings.IndexByte("\"\\=", line[n]) < 0 && line[n] >= 0x20 && line[n] < 0x7f {
				n++
			}
		}
		kind, ok := classify(line[i:n], seed+uint64(token))
		keep := chance(seed, token+1000, 3)
		isKey := strings.HasPrefix(line[n:], `":`) || strings.HasPrefix(line[n:], "=") // mostly the same in all lines
		if !ok || keep || isKey && !chance(seed, token+2000, 20) {
			text += line[i:n]
			i = n
			continue
		}
		t.Text, t.Gaps, vars = append(t.Text, text), append(t.Gaps, kind), append(vars, line[i:n])
		text = ""
		i = n
	}
	t.Text = append(t.Text, text)
	return t, vars
}

// classify returns one of the kinds that a text may be.
func classify(s string, seed uint64) (storage.Gap, bool) {
	all := func(f func(c byte) bool) bool {
		for i := range len(s) {
			if !f(s[i]) {
				return false
			}
		}
		return s != ""
	}
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	letter := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
	var kinds []storage.Gap
	if all(digit) {
		kinds = append(kinds, storage.GapDigits)
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil && json.Valid([]byte(s)) {
		kinds = append(kinds, storage.GapNumber)
	}
	if all(func(c byte) bool { return digit(c) || letter(c) }) {
		kinds = append(kinds, storage.GapWord)
	}
	if all(func(c byte) bool { return c >= 0x21 && c != '"' && c != '\\' && c != '=' && c != 0x7f }) {
		kinds = append(kinds, storage.GapPlain)
	}
	if all(func(c byte) bool { return c >= 0x20 && c != '"' && c != '\\' }) {
		kinds = append(kinds, storage.GapQuoted)
	}
	if all(func(c byte) bool { return digit(c) || letter(c) || strings.IndexByte(" +-:.,/", c) >= 0 }) {
		kinds = append(kinds, storage.GapTime)
	}
	if len(kinds) == 0 {
		return 0, false
	}
	if seed%4 > 0 {
		return kinds[0], true
	}
	return kinds[seed/4%uint64(len(kinds))], true
}

// variables returns texts in one of their forms.
func variables(texts []string, seed uint64) *storage.Variables {
	for scale := range 4 {
		v := &storage.Variables{Ints: []int64{}, Scale: scale}
		for _, s := range texts {
			n, err := strconv.ParseInt(strings.Replace(s, ".", "", 1), 10, 64)
			if err != nil || string(storage.AppendDecimal(nil, n, scale)) != s {
				v = nil
				break
			}
			v.Ints = append(v.Ints, n)
		}
		if v != nil && chance(seed, 1, 2) {
			return v
		}
	}
	if chance(seed, 2, 2) {
		return &storage.Variables{Texts: texts}
	}
	v := &storage.Variables{Dict: []string{}}
	codes := make(map[string]uint32)
	for _, s := range texts {
		if _, ok := codes[s]; !ok {
			codes[s] = uint32(len(v.Dict))
			v.Dict = append(v.Dict, s)
		}
		v.Code = append(v.Code, codes[s])
	}
	return v
}

// drawTidy draws lines that a parser reads without errors.
func drawTidy(t *rapid.T) string {
	level := rapid.SampledFrom([]string{"error", "info", "warn"}).Draw(t, "level")
	status := rapid.SampledFrom([]string{"200", "500", "7", "0", "12.5", "404"}).Draw(t, "status")
	path := rapid.SampledFrom([]string{"/a", "/b", "/a/1", "/a/22"}).Draw(t, "path")
	d := rapid.SampledFrom([]string{"5ms", "1h", "2.5s", "17ms"}).Draw(t, "d")
	n := rapid.SampledFrom([]string{"1.50", "2.25", "-3.75", "0.05"}).Draw(t, "n")
	if rapid.Bool().Draw(t, "json") {
		return fmt.Sprintf(`{"ts":"2026-03-04T05:06:07Z","level":"%s","status":%s,"d":"%s","path":"%s","m":{"n":%s},"list":[1,"x"]}`, level, status, d, path, n)
	}
	return fmt.Sprintf(`ts=2026-03-04T05:06:07Z level=%s status=%s d=%s path="%s" m_n=%s done`, level, status, d, path, n)
}

// drawLine draws lines that look alike, with all that goes wrong in them.
func drawLine(t *rapid.T) string {
	word := rapid.SampledFrom([]string{"error", "info", "a", "x y", "0", "7", "500", "12.5", "1.50", "-3", "5ms", "1h", "2MiB", "1.2.3.4", "", "é", "a\\\"b", "\\u00e9", "\\q", "true", "null", "2026-03-04T05:06:07Z", "/api/v1"})
	number := rapid.SampledFrom([]string{"0", "1", "200", "500", "12.5", "-7", "1e3", "true", "null", "[1,{\"a\":\"]\"}]", "{}", "{\"x\":1}", "12a", "01", "\"5\""})
	key := rapid.SampledFrom([]string{"level", "status", "app", "env", "d", "path", "m.n", "a_b", "__error__", "0k", "", "k\\n"})
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0, 1, 2, 3:
		s := fmt.Sprintf(`{"level":"%s","status":%s,"d":"%s","path":"/%s","m":{"n":%s}`, word.Draw(t, "level"), number.Draw(t, "status"), word.Draw(t, "d"), word.Draw(t, "path"), number.Draw(t, "n"))
		if rapid.Bool().Draw(t, "more") {
			s += fmt.Sprintf(`, "%s" : "%s"`, key.Draw(t, "key"), word.Draw(t, "value"))
		}
		return s + rapid.SampledFrom([]string{"}", "}", "}", "} tail", "", ","}).Draw(t, "end")
	case 4, 5, 6:
		quote := rapid.SampledFrom([]string{"", `"`, `"`}).Draw(t, "quote")
		return fmt.Sprintf(`%s level=%s status=%s %s=%s%s%s d=%s path="%s"`, rapid.SampledFrom([]string{"ts=2026-03-04T05:06:07Z", "2026-03-04 05:06:07", "word", "x=\"", "a=b=c", ""}).Draw(t, "head"),
			word.Draw(t, "level"), number.Draw(t, "status"), key.Draw(t, "key"), quote, word.Draw(t, "value"), quote, word.Draw(t, "d"), word.Draw(t, "path"))
	case 7:
		return word.Draw(t, "line")
	default:
		return rapid.StringMatching(`[a-z0-9 ="{}\\:,.\[\]-]{0,30}`).Draw(t, "any")
	}
}

func drawQuery(t *rapid.T) string {
	parser := rapid.SampledFrom([]string{"json", "logfmt", "logfmt", "logfmt --strict", "logfmt --keep-empty"}).Draw(t, "parser")
	label := rapid.SampledFrom([]string{"level", "status", "app", "env", "d", "path", "m_n", "a_b", "nope", "_0k"})
	var test func(depth int) string
	test = func(depth int) string {
		if depth > 0 && rapid.IntRange(0, 3).Draw(t, "deep") == 0 {
			return "(" + test(depth-1) + rapid.SampledFrom([]string{" and ", " or "}).Draw(t, "op") + test(depth-1) + ")"
		}
		return label.Draw(t, "label") + " " + rapid.SampledFrom([]string{
			`="error"`, `!="error"`, `=~"e.*|5.*"`, `!~"[0-9]+"`, `=""`, `!=""`, `="500"`, `="12.5"`, `="1.50"`, `>=500`, `<7`, `==12.5`, `!=0`, `>4ms`, `<=1h`, `>1MB`, `=ip("1.2.0.0/16")`, `!=ip("1.2.3.4")`,
		}).Draw(t, "test")
	}
	parts := []string{"| " + parser}
	for range rapid.IntRange(0, 2).Draw(t, "tests") {
		if rapid.IntRange(0, 3).Draw(t, "error") == 0 {
			parts = append(parts, `__error__`+rapid.SampledFrom([]string{`=""`, `!=""`, `=~"JSON.*"`}).Draw(t, "error test"))
			continue
		}
		parts = append(parts, test(2))
	}
	stages := strings.Join(parts, " | ")
	by := strings.Join(rapid.SliceOfN(label, 0, 3).Draw(t, "by"), ", ")
	window := rapid.SampledFrom([]string{"10s", "20s", "7s", "1m"}).Draw(t, "window")
	switch rapid.IntRange(0, 3).Draw(t, "op") {
	case 0, 1:
		stages += rapid.SampledFrom([]string{"", ` | __error__=""`}).Draw(t, "last")
		return fmt.Sprintf(`sum by (%s) (%s({env="x"} %s [%s]))`, by, rapid.SampledFrom([]string{"count_over_time", "rate"}).Draw(t, "f"), stages, window)
	default:
		unwrap := label.Draw(t, "unwrap")
		if c := rapid.SampledFrom([]string{"", "", "duration", "bytes"}).Draw(t, "conversion"); c != "" {
			unwrap = c + "(" + unwrap + ")"
		}
		stages += " | unwrap " + unwrap + rapid.SampledFrom([]string{"", ` | __error__=""`, ` | __error__="" | status!="0"`}).Draw(t, "after")
		if rapid.Bool().Draw(t, "sum") {
			return fmt.Sprintf(`sum by (%s) (sum_over_time({env="x"} %s [%s]))`, by, stages, window)
		}
		f := rapid.SampledFrom([]string{"quantile_over_time(0.9,", "avg_over_time(", "max_over_time(", "min_over_time(", "stdvar_over_time(", "first_over_time(", "last_over_time("}).Draw(t, "f")
		return fmt.Sprintf(`%s {env="x"} %s [%s]) by (%s)`, f, stages, window, by)
	}
}

// Metric queries give the same over templates and columns as row by row.
func TestColumnsAgreeWithRows(t *testing.T) {
	compared := 0
	rapid.Check(t, func(t *rapid.T) {
		store := testkit.NewStore("")
		line := rapid.SampledFrom([]func(*rapid.T) string{drawLine, drawTidy, drawTidy}).Draw(t, "line")
		for s := range rapid.IntRange(1, 3).Draw(t, "streams") {
			ls := []logql.Label{{Name: "env", Value: "x"}, {Name: "s", Value: strconv.Itoa(s)}}
			if rapid.IntRange(0, 2).Draw(t, "app") == 0 {
				ls = append([]logql.Label{{Name: "app", Value: "stream" + strconv.Itoa(s)}}, ls...)
			}
			if rapid.IntRange(0, 3).Draw(t, "leveled") == 0 {
				ls = append(ls, logql.Label{Name: "level", Value: "error"})
				pipeline.SortLabels(ls)
			}
			b := telemetry.Batch{Tenant: telemetry.DefaultTenant, Stream: telemetry.LabelSet(pipeline.EncodeLabels(nil, ls))}
			if rapid.IntRange(0, 5).Draw(t, "resource") == 0 {
				b.Resource = telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{{Key: rapid.SampledFrom([]string{"a.b", "host"}).Draw(t, "key"), Value: telemetry.String("r")}}))
			}
			for i := range rapid.IntRange(1, 12).Draw(t, "rows") {
				r := telemetry.LogRecord{Time: base.Add(time.Duration(i) * 3 * time.Second).UnixNano(), Body: telemetry.String(line(t))}
				if rapid.IntRange(0, 9).Draw(t, "attributes") == 0 {
					r.Attrs = telemetry.NewAttrs([]telemetry.Attr{{Key: rapid.SampledFrom([]string{"a.b", "path", "trace"}).Draw(t, "key"), Value: telemetry.String("m")}})
				}
				b.Logs = append(b.Logs, r)
			}
			_, _, err := store.Write(context.Background(), storage.Request{Batches: []telemetry.Batch{b}})
			require.NoError(t, err)
		}
		view, err := store.View(context.Background(), 0)
		require.NoError(t, err)
		cut := &splitting{View: view, seed: rapid.Uint64().Draw(t, "seed")}
		for range 4 {
			query := drawQuery(t)
			e, err := logql.Parse(query)
			require.NoError(t, err, query)
			q := logql.MetricQuery{Tenant: telemetry.DefaultTenant, Expr: e, Start: base.UnixNano(), End: base.Add(time.Minute).UnixNano()}
			if rapid.Bool().Draw(t, "range") {
				q.Step = 10 * time.Second
			}
			rows := logql.Engine{Limits: logql.DefaultLimits(), Rows: true}
			fast := logql.Engine{Limits: logql.DefaultLimits()}
			want, wantErr := rows.Metric(context.Background(), view, q)
			got, gotErr := fast.Metric(context.Background(), cut, q)
			if wantErr != nil {
				require.Error(t, gotErr, query)
				continue
			}
			require.NoError(t, gotErr, query)
			requireClose(t, want.Series, got.Series, query)
			compared++
		}
		require.NoError(t, view.Close())
	})
	require.Positive(t, compared)
}

// requireClose compares series to 1e-9.
func requireClose(t *rapid.T, want, got []logql.Series, msg string) {
	require.Len(t, got, len(want), msg)
	for i := range want {
		require.Equal(t, want[i].Labels, got[i].Labels, msg)
		require.Len(t, got[i].Points, len(want[i].Points), msg)
		for k, p := range want[i].Points {
			require.Equal(t, p.Time, got[i].Points[k].Time, msg)
			x := got[i].Points[k].Value
			near := math.Abs(p.Value-x) <= 1e-9*math.Max(1, math.Abs(p.Value)) || p.Value == x || math.IsNaN(p.Value) && math.IsNaN(x)
			require.True(t, near, "%s: %v, not %v", msg, x, p.Value)
		}
	}
}

// Counts of rows by their stream and metadata are what the lines have.
func TestCountsByMetadata(t *testing.T) {
	for seed := range uint64(20) {
		store := testkit.NewStore("")
		gen := testkit.NewGen(seed, testkit.Options{Signals: []storage.Signal{storage.Logs}, Tenants: []telemetry.Tenant{telemetry.DefaultTenant}})
		for range 10 {
			_, _, err := store.Write(t.Context(), gen.Request(20))
			require.NoError(t, err)
		}
		view, err := store.View(t.Context(), 0)
		require.NoError(t, err)
		everything, err := logql.Parse(`{service_name=~".+"}`)
		require.NoError(t, err)
		end := base.Add(24 * time.Hour).UnixNano()
		eng := logql.Engine{}
		rows, err := eng.Lines(t.Context(), view, logql.LinesQuery{Tenant: telemetry.DefaultTenant, Expr: everything, End: end + 1})
		require.NoError(t, err)
		for _, by := range [][]string{nil, {"detected_level"}, {"service_name", "detected_level"}, {"severity_text"}, {"scope_name", "trace_id"}, {"seq"}} {
			want := make(map[telemetry.LabelSet]float64)
			for _, en := range rows.Entries {
				var ls []logql.Label
				for _, l := range pipeline.AppendLabels(nil, en.Labels) {
					if by == nil || slices.Contains(by, l.Name) {
						ls = append(ls, l)
					}
				}
				want[telemetry.LabelSet(pipeline.EncodeLabels(nil, ls))]++
			}
			query := `count_over_time({service_name=~".+"}[100y])`
			if by != nil {
				query = "sum by (" + strings.Join(by, ", ") + ") (" + query + ")"
			}
			e, err := logql.Parse(query)
			require.NoError(t, err)
			m, err := eng.Metric(t.Context(), view, logql.MetricQuery{Tenant: telemetry.DefaultTenant, Expr: e, End: end})
			require.NoError(t, err)
			got := make(map[telemetry.LabelSet]float64)
			for _, s := range m.Series {
				got[s.Labels] = s.Points[0].Value
			}
			require.Equal(t, want, got, query)
			require.NotEmpty(t, want)
		}
		require.NoError(t, view.Close())
	}
}

// A query that is cancelled ends.
func TestCancelled(t *testing.T) {
	v := newReady(64, 4096)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, query := range []string{`sum(count_over_time({app="a"} | json | status > 5 [1h]))`, `sum(count_over_time({app="a"}[1h]))`, `sum by (detected_level) (count_over_time({app="a"}[1h]))`} {
		e, err := logql.Parse(query)
		require.NoError(t, err)
		_, err = new(logql.Engine).Metric(ctx, v, logql.MetricQuery{Tenant: telemetry.DefaultTenant, Expr: e, End: base.Add(time.Hour).UnixNano()})
		require.ErrorIs(t, err, context.Canceled)
	}
}

// A tail gives what a query gives.
func TestTail(t *testing.T) {
	stream := telemetry.LabelSet(pipeline.EncodeLabels(nil, []logql.Label{{Name: "app", Value: "a"}}))
	e, err := logql.Parse(`{app="a"} |= "x" | logfmt | n > 1 | line_format "{{.n}}"`)
	require.NoError(t, err)
	tail, err := new(logql.Engine).Tail(e)
	require.NoError(t, err)
	require.True(t, tail.Selects(stream))
	require.False(t, tail.Selects(""))
	for line, want := range map[string]string{"x n=2": "2", "y n=2": "", "x n=1": "", "x n=30": "30"} {
		en, ok, err := tail.Match(stream, nil, &telemetry.LogRecord{Time: 5, Body: telemetry.String(line)})
		require.NoError(t, err)
		require.Equal(t, want != "", ok)
		require.Equal(t, want, en.Line)
	}
	_, err = logql.Parse(`vector(1)`)
	require.NoError(t, err)
}
