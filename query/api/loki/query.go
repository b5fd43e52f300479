package loki

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

// queryRange answers with the lines from start up to, but without, end, or with numbers at each step.
func (a *API) queryRange(r *http.Request) ([]byte, error) {
	s, err := a.timeRange(r, defaultRange)
	if err != nil {
		return nil, err
	}
	step, err := s.step(r)
	if err != nil {
		return nil, err
	}
	e, err := logql.Parse(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	if e.Kind() == syntax.Lines {
		return a.lines(r, e, s)
	}
	return a.numbers(r, e, s, step)
}

// query answers an instant query: with numbers, or with the lines of the hour up to its time.
func (a *API) query(r *http.Request) ([]byte, error) {
	at := a.Now().UnixNano()
	if s := r.Form.Get("time"); s != "" {
		var err error
		if at, err = parseTime(s); err != nil {
			return nil, invalid("time", err)
		}
	}
	e, err := logql.Parse(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	if e.Kind() == syntax.Lines {
		return a.lines(r, e, span{at - int64(defaultRange), at + 1})
	}
	return a.numbers(r, e, span{at, at}, 0)
}

// numbers computes a query for numbers.
func (a *API) numbers(r *http.Request, e logql.Expr, s span, step time.Duration) (body []byte, err error) {
	ctx, began := r.Context(), a.Now()
	err = a.view(ctx, func(v storage.View) error {
		res, err := a.engine.Metric(ctx, v, logql.MetricQuery{Tenant: httpapi.TenantFrom(ctx), Expr: e, Start: s.start, End: s.end, Step: step})
		if err != nil {
			return err
		}
		body = appendMetrics(nil, res, step > 0, v.Warnings(), a.Now().Sub(began))
		return nil
	})
	return body, err
}

// page is what a request for lines says about how many and in which order.
type page struct {
	limit    int
	newest   bool
	interval time.Duration
	after    *logql.Cursor
}

// page reads the parameters limit, direction, interval and cursor.
func (a *API) page(r *http.Request) (p page, err error) {
	if p.limit, err = number(r, "limit", min(defaultLines, a.Config.MaxLines)); err != nil {
		return p, err
	}
	if p.limit > a.Config.MaxLines {
		return p, httpapi.BadDataf("limit %d is over loki.max_lines (%d): ask for less and go on with the cursor of the answer", p.limit, a.Config.MaxLines)
	}
	switch strings.ToLower(r.Form.Get("direction")) {
	case "", "backward":
		p.newest = true
	case "forward":
	default:
		return p, invalid("direction", errors.New("want forward or backward"))
	}
	if s := r.Form.Get("interval"); s != "" {
		if p.interval, err = parseDuration(s); err != nil {
			return p, invalid("interval", err)
		}
	}
	if s := r.Form.Get("cursor"); s != "" {
		if p.after, err = parseCursor(s); err != nil {
			return p, invalid("cursor", err)
		}
	}
	return p, nil
}

// parseCursor reads what formatCursor wrote.
func parseCursor(s string) (*logql.Cursor, error) {
	at, rows, ok := strings.Cut(s, ".")
	t, err1 := strconv.ParseInt(at, 10, 64)
	n, err2 := strconv.ParseUint(rows, 10, 31)
	if !ok || err1 != nil || err2 != nil {
		return nil, fmt.Errorf("%.60q is not of an earlier answer", s)
	}
	return &logql.Cursor{Time: t, Rows: int(n)}, nil
}

func formatCursor(c *logql.Cursor) string {
	if c == nil {
		return ""
	}
	return strconv.FormatInt(c.Time, 10) + "." + strconv.Itoa(c.Rows)
}

// lines reads the lines that a query selects.
func (a *API) lines(r *http.Request, e logql.Expr, s span) (body []byte, err error) {
	p, err := a.page(r)
	if err != nil {
		return nil, err
	}
	ctx, began := r.Context(), a.Now()
	err = a.view(ctx, func(v storage.View) error {
		q := logql.LinesQuery{
			Tenant: httpapi.TenantFrom(ctx), Expr: e, Start: s.start, End: s.end, Newest: p.newest, Limit: p.limit, After: p.after,
		}
		var out *logql.Lines
		var err error
		if p.interval > 0 {
			out, err = a.spaced(ctx, v, q, int64(p.interval))
		} else {
			out, err = a.engine.Lines(ctx, v, q)
		}
		if err != nil {
			return err
		}
		body = appendLines(nil, out, categorized(r), v.Warnings(), a.Now().Sub(began))
		return nil
	})
	return body, err
}

// errEnough ends a reading that has found what it wanted.
var errEnough = errors.New("enough")

// spaced reads lines with at least an interval of time between them.
func (a *API) spaced(ctx context.Context, v storage.View, q logql.LinesQuery, interval int64) (*logql.Lines, error) {
	limit := q.Limit
	q.Limit = 0
	out := &logql.Lines{}
	var last int64
	stats, err := a.engine.Each(ctx, v, q, func(en *logql.Entry) error {
		if d := en.Time - last; len(out.Entries) > 0 && d < interval && d > -interval {
			return nil
		}
		last = en.Time
		out.Entries = append(out.Entries, *en)
		if len(out.Entries) == limit {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	out.Stats = stats
	return out, nil
}

// categorized says whether the client wants structured metadata apart from the labels of the stream.
func categorized(r *http.Request) bool {
	for _, h := range r.Header.Values("X-Loki-Response-Encoding-Flags") {
		for flag := range strings.SplitSeq(h, ",") {
			if strings.TrimSpace(flag) == "categorize-labels" {
				return true
			}
		}
	}
	return false
}

// formatQuery lays a query out.
func (a *API) formatQuery(r *http.Request) ([]byte, error) {
	e, err := logql.Parse(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	return append(appendString([]byte(`{"status":"success","data":`), logql.Format(e)), '}'), nil
}
