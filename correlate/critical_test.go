package correlate_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/correlate"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/storage"
)

// write stores spans, one to a line: "number parent service name from to [error]"; parent - is none, times are milliseconds
// after start.
func write(t *testing.T, s *testkit.Store, trace byte, lines ...string) {
	t.Helper()
	var req storage.Request
	for _, l := range lines {
		f := strings.Fields(l)
		number := func(i int) byte { n, err := strconv.Atoi(f[i]); require.NoError(t, err); return byte(n) }
		at := func(i int) int64 {
			n, err := strconv.Atoi(f[i])
			require.NoError(t, err)
			return start.UnixNano() + int64(n)*1e6
		}
		sp := telemetry.Span{TraceID: id(trace), SpanID: telemetry.SpanID{7: number(0)}, Name: f[3], Start: at(4), End: at(5)}
		if f[1] != "-" {
			sp.ParentID = telemetry.SpanID{7: number(1)}
		}
		if len(f) > 6 {
			sp.Status, sp.StatusMessage = telemetry.StatusError, "no"
		}
		req.Batches = append(req.Batches, telemetry.Batch{Tenant: telemetry.DefaultTenant, Resource: resource("service.name", f[2]), Spans: []telemetry.Span{sp}})
	}
	_, _, err := s.Write(t.Context(), req)
	require.NoError(t, err)
}

func correlator(s storage.Reader) *correlate.Correlator {
	return correlate.New(correlate.DefaultConfig(), s, func() time.Time { return start }, nil)
}

// steps returns a path as text: "span:from-to", in milliseconds after start.
func steps(t *testing.T, p *correlate.CriticalPath) string {
	t.Helper()
	var out []string
	for _, s := range p.Steps {
		n, err := strconv.ParseUint(s.SpanID, 16, 64)
		require.NoError(t, err)
		from, err := strconv.ParseInt(s.StartTimeUnixNano, 10, 64)
		require.NoError(t, err)
		from = (from - start.UnixNano()) / 1e6
		out = append(out, fmt.Sprintf("%d:%d-%d", n, from, from+s.DurationNanos/1e6))
	}
	return strings.Join(out, " ")
}

func TestCriticalPath(t *testing.T) {
	for _, c := range []struct {
		name       string
		spans      []string
		want       string
		incomplete bool
	}{
		{"a span alone", []string{"1 - web GET 0 100"}, "1:0-100", false},
		{"a child", []string{"1 - web GET 0 100", "2 1 db SELECT 20 60"}, "1:0-20 2:20-60 1:60-100", false},
		{"one after the other", []string{"1 - web GET 0 100", "2 1 db a 10 30", "3 1 db b 40 90"}, "1:0-10 2:10-30 1:30-40 3:40-90 1:90-100", false},
		{"side by side: the one that ends last", []string{"1 - web GET 0 100", "2 1 db a 10 80", "3 1 db b 10 90"}, "1:0-10 3:10-90 1:90-100", false},
		{"overlap: the earlier one up to the later one's start", []string{"1 - web GET 0 100", "2 1 db a 10 60", "3 1 db b 50 90"}, "1:0-10 2:10-50 3:50-90 1:90-100", false},
		{"grandchildren", []string{"1 - web GET 0 100", "2 1 cart get 10 90", "3 2 db SELECT 30 50"}, "1:0-10 2:10-30 3:30-50 2:50-90 1:90-100", false},
		{"a child that goes on after its parent", []string{"1 - web GET 0 100", "2 1 mail send 80 500"}, "1:0-80 2:80-100", false},
		{"a child that starts after its parent's end", []string{"1 - web GET 0 100", "2 1 mail send 150 500"}, "1:0-100", false},
		{"a child that starts before its parent", []string{"1 - web GET 0 100", "2 1 cart get 50 90", "3 2 db SELECT 20 80"}, "1:0-50 3:50-80 2:80-90 1:90-100", false},
		{"a child that ends before it starts", []string{"1 - web GET 0 100", "2 1 db a 50 40"}, "1:0-100", false},
		{"a lost root", []string{"2 1 cart get 10 90", "3 2 db SELECT 30 50"}, "2:10-30 3:30-50 2:50-90", true},
		{"a fragment beside the root", []string{"1 - web GET 0 100", "3 9 db SELECT 30 50"}, "1:0-100", true},
		{"a root without a duration", []string{"1 - web GET 0 0", "2 1 db a 0 50"}, "", false},
		{"equal spans: the first", []string{"1 - web GET 0 100", "2 1 db a 10 90", "3 1 db b 10 90"}, "1:0-10 3:10-90 1:90-100", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testkit.NewStore("")
			write(t, s, 1, c.spans...)
			p, err := correlator(s).CriticalPath(t.Context(), telemetry.DefaultTenant, id(1))
			require.NoError(t, err)
			require.Equal(t, c.want, steps(t, p))
			require.Equal(t, c.incomplete, p.Incomplete)
		})
	}
}

// TestCriticalPathOfRandomTraces holds the definition against spans that lie anyhow: the steps cover the root without gap or
// overlap, each lies within its span, and while a span works itself none of its children does.
func TestCriticalPathOfRandomTraces(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		type timed struct{ parent, from, to int }
		spans := map[byte]timed{}
		var lines []string
		for i := 1; i <= 1+rng.IntN(15); i++ {
			x := timed{from: rng.IntN(100)}
			x.to = x.from + rng.IntN(60) - 3
			parent := "-"
			if i > 1 {
				x.parent = 1 + rng.IntN(i-1)
				parent = strconv.Itoa(x.parent)
			}
			spans[byte(i)] = x
			lines = append(lines, fmt.Sprintf("%d %s web GET %d %d", i, parent, x.from, x.to))
		}
		s := testkit.NewStore("")
		write(t, s, 1, lines...)
		p, err := correlator(s).CriticalPath(t.Context(), telemetry.DefaultTenant, id(1))
		require.NoError(t, err)
		root := spans[1]
		require.Equal(t, int64(max(root.to-root.from, 0))*1e6, p.DurationNanos)
		at, total := root.from, int64(0)
		for step := range strings.FieldsSeq(steps(t, p)) {
			var n byte
			var from, to int
			_, err := fmt.Sscanf(step, "%d:%d-%d", &n, &from, &to)
			require.NoError(t, err)
			require.Equal(t, at, from, "no gap: %v", lines)
			require.Less(t, from, to)
			require.True(t, spans[n].from <= from && to <= spans[n].to, "%s of %v", step, lines)
			for child, x := range spans {
				if x.parent == int(n) && x.to > x.from {
					require.False(t, x.from < to && x.to > from, "%d works during %s of %v", child, step, lines)
				}
			}
			at, total = to, total+int64(to-from)*1e6
		}
		require.Equal(t, p.DurationNanos, total)
		sum := int64(0)
		for _, x := range p.Spans {
			sum += x.SelfNanos
		}
		require.Equal(t, total, sum)
	}
}

// table returns a diff as text: "depth change service/name delta error", one to a line.
func table(d *correlate.TraceDiff) []string {
	var out []string
	for _, s := range d.Spans {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%d %s %s/%s %d %s", s.Depth, s.Change, s.Service, s.Name, s.DeltaNanos/1e6, s.Error)))
	}
	return out
}

func TestDiff(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b []string
		want []string
	}{
		{
			"the same",
			[]string{"1 - web GET 0 100", "2 1 db SELECT 10 20"},
			[]string{"1 - web GET 500 600", "2 1 db SELECT 510 520"},
			[]string{"0 same web/GET 0", "1 same db/SELECT 0"},
		},
		{
			"slower, faster, and not worth a word",
			[]string{"1 - web GET 0 100", "2 1 db a 10 20", "3 1 db b 20 40"},
			[]string{"1 - web GET 0 105", "2 1 db a 10 80", "3 1 db b 80 82"},
			[]string{"0 same web/GET 5", "1 slower db/a 60", "1 faster db/b -18"},
		},
		{
			"added and removed with what is below",
			[]string{"1 - web GET 0 100", "2 1 cart get 10 50", "3 2 db SELECT 20 30", "4 1 mail send 60 70"},
			[]string{"1 - web GET 0 100", "5 1 cache get 5 8", "6 5 redis GET 6 7", "4 1 mail send 60 70"},
			[]string{"0 same web/GET 0", "1 added cache/get 0", "2 added redis/GET 0", "1 removed cart/get 0", "2 removed db/SELECT 0", "1 same mail/send 0"},
		},
		{
			"repeated calls are told apart by their order",
			[]string{"1 - web GET 0 100", "2 1 db q 10 20", "3 1 db q 20 30"},
			[]string{"1 - web GET 0 100", "2 1 db q 10 20", "3 1 db q 20 70", "4 1 db q 70 80"},
			[]string{"0 same web/GET 0", "1 same db/q 0", "1 slower db/q 40", "1 added db/q 0"},
		},
		{
			"errors",
			[]string{"1 - web GET 0 100", "2 1 db a 10 20 error", "3 1 db b 20 30"},
			[]string{"1 - web GET 0 100", "2 1 db a 10 20", "3 1 db b 20 30 error"},
			[]string{"0 same web/GET 0", "1 same db/a 0 repaired", "1 same db/b 0 failed"},
		},
		{
			"another root",
			[]string{"1 - web GET 0 100"},
			[]string{"1 - api GET 0 100"},
			[]string{"0 added api/GET 0", "0 removed web/GET 0"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testkit.NewStore("")
			write(t, s, 1, c.a...)
			write(t, s, 2, c.b...)
			d, err := correlator(s).Diff(t.Context(), telemetry.DefaultTenant, id(1), id(2))
			require.NoError(t, err)
			require.Equal(t, c.want, table(d))
			require.Equal(t, len(c.a), d.A.Spans)
			require.Equal(t, len(c.b), d.B.Spans)
		})
	}
}

// TestDiffOfRandomTraces compares traces with themselves, and each way around.
func TestDiffOfRandomTraces(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		s := testkit.NewStore("")
		for _, trace := range []byte{1, 2} {
			var lines []string
			for i := 1; i <= 1+rng.IntN(12); i++ {
				parent := "-"
				if i > 1 && rng.IntN(10) > 0 {
					parent = strconv.Itoa(rng.IntN(i + 2)) // a later one, itself, or one that is lost, too
				}
				from := rng.IntN(50)
				lines = append(lines, fmt.Sprintf("%d %s s%d n%d %d %d", i, parent, rng.IntN(2), rng.IntN(2), from, from+rng.IntN(50)))
			}
			write(t, s, trace, lines...)
		}
		c := correlator(s)
		self, err := c.Diff(t.Context(), telemetry.DefaultTenant, id(1), id(1))
		require.NoError(t, err)
		require.Equal(t, self.A.Spans, self.Same)
		require.Len(t, self.Spans, self.Same)
		there, err := c.Diff(t.Context(), telemetry.DefaultTenant, id(1), id(2))
		require.NoError(t, err)
		back, err := c.Diff(t.Context(), telemetry.DefaultTenant, id(2), id(1))
		require.NoError(t, err)
		both := there.Same + there.Slower + there.Faster
		require.Equal(t, there.A.Spans, both+there.Removed)
		require.Equal(t, there.B.Spans, both+there.Added)
		require.Equal(t, []int{there.Added, there.Removed, there.Failed}, []int{back.Removed, back.Added, back.Repaired})
	}
}

func TestPathAndDiffOverHTTP(t *testing.T) {
	h := shop(t)
	var data json.RawMessage
	require.Equal(t, http.StatusOK, get(t, h, "/api/v1/traces/1/critical-path", &data))
	require.Contains(t, string(data), `"service":"web"`)
	require.Equal(t, http.StatusOK, get(t, h, "/api/v1/traces/diff?a=1&b=3", &data))
	require.Contains(t, string(data), `"removed":1`)
	for path, want := range map[string]int{
		"/api/v1/traces/77/critical-path": http.StatusNotFound, "/api/v1/traces/xyz/critical-path": http.StatusBadRequest,
		"/api/v1/traces/diff?a=1&b=77": http.StatusNotFound, "/api/v1/traces/diff?a=1": http.StatusBadRequest,
	} {
		require.Equal(t, want, get(t, h, path, nil), path)
	}
	s := testkit.NewStore("")
	write(t, s, 1, "1 - web GET 0 100", "2 1 db SELECT 10 20")
	cfg := correlate.DefaultConfig()
	cfg.MaxSpans = 1
	_, err := correlate.New(cfg, s, func() time.Time { return start }, nil).CriticalPath(t.Context(), telemetry.DefaultTenant, id(1))
	known := &httpapi.Error{}
	require.ErrorAs(t, err, &known)
	require.Equal(t, httpapi.QueryLimit, known.Kind)
}
