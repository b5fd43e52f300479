package plugin

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// queryType says what a query asks for.
type queryType string

const (
	typeMetrics      queryType = "metrics"      // expr is PromQL
	typeLogs         queryType = "logs"         // expr is LogQL
	typeTrace        queryType = "trace"        // traceId
	typeTraceLogs    queryType = "traceLogs"    // traceId, spanId: the log lines of a trace or of one of its spans
	typeTraceMetrics queryType = "traceMetrics" // traceId: the key series of the pods and services that ran a trace
	typeSearch       queryType = "search"       // tags, service, minDuration, maxDuration, limit
	typeTraceQL      queryType = "traceql"      // expr is TraceQL, format
	typeResource     queryType = "resource"     // resource, kind: what a pod, service, ... sent
)

// query is the JSON model of a query. README.md describes the fields.
type query struct {
	QueryType    queryType `json:"queryType"`
	Expr         string    `json:"expr"`
	Instant      bool      `json:"instant"`
	Format       string    `json:"format"`
	Exemplars    bool      `json:"exemplars"`
	LegendFormat string    `json:"legendFormat"`
	MinStep      string    `json:"minStep"`
	MaxLines     int       `json:"maxLines"`
	Direction    string    `json:"direction"`
	TraceID      string    `json:"traceId"`
	SpanID       string    `json:"spanId"`
	Service      string    `json:"service"`
	Tags         string    `json:"tags"`
	MinDuration  string    `json:"minDuration"`
	MaxDuration  string    `json:"maxDuration"`
	Limit        int       `json:"limit"`
	Resource     string    `json:"resource"`
	Kind         string    `json:"kind"`

	from, to  time.Time
	interval  time.Duration // what Grafana finds fit for the width of the panel
	maxPoints int64
	fromAlert bool
}

// maxSeriesPoints is what the server accepts as points of one series.
const maxSeriesPoints = 11000

// step returns the distance of points: what Grafana asks for, not below minStep, and not so small that the server refuses.
func (q *query) step() (time.Duration, error) {
	span := q.to.Sub(q.from)
	step := q.interval
	if step <= 0 {
		step = span / time.Duration(max(q.maxPoints, 100))
	}
	if q.MinStep != "" {
		least, err := parseDuration(q.MinStep)
		if err != nil {
			return 0, badRequest("minStep: %w", err)
		}
		step = max(step, least)
	}
	step = max(step, span/(maxSeriesPoints-1), time.Millisecond)
	if up := step.Truncate(time.Millisecond); up < step { // up, so that the points do not get more
		step = up + time.Millisecond
	}
	return step, nil
}

// aligned returns the time range at multiples of step, so that a panel that is loaded again shows the same points.
func (q *query) aligned(step time.Duration) (from, to int64) {
	ms := step.Milliseconds()
	floor := func(t time.Time) int64 {
		at := t.UnixMilli()
		return at - (at%ms+ms)%ms
	}
	return floor(q.from), floor(q.to)
}

// expand replaces the variables of Grafana that depend on the step. In the browser Grafana replaces most of them itself;
// alert rules come with all of them.
func (q *query) expand(expr string, step, scrape time.Duration) string {
	if !strings.Contains(expr, "$") {
		return expr
	}
	rate := max(step+scrape, 4*scrape)
	span := q.to.Sub(q.from)
	pairs := make([]string, 0, 24)
	for _, v := range [][2]string{ // longer names first
		{"__interval_ms", strconv.FormatInt(step.Milliseconds(), 10)},
		{"__interval", formatDuration(step)},
		{"__rate_interval", formatDuration(rate)},
		{"__range_ms", strconv.FormatInt(span.Milliseconds(), 10)},
		{"__range_s", strconv.FormatInt(int64(math.Ceil(span.Seconds())), 10)},
		{"__range", formatDuration(span)},
	} {
		pairs = append(pairs, "${"+v[0]+"}", v[1], "$"+v[0], v[1])
	}
	return strings.NewReplacer(pairs...).Replace(expr)
}

// formatDuration writes a duration as PromQL reads it.
func formatDuration(d time.Duration) string {
	if d%time.Second == 0 {
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	}
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10) + "ms"
}

// parseDuration reads 90s, 1m30s or 1d.
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, badRequest("%q is not a duration such as 15s, 1m or 1d", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, badRequest("%q is not a duration such as 15s, 1m or 1d", s)
	}
	return d, nil
}

func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }
