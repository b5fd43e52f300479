package loki

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

// flushEvery is how many bytes of an export are gathered before they are sent.
const flushEvery = 64 << 10

// searchFor returns the query for all lines that contain the texts, whatever their stream: what a selector of LogQL, which
// must name something, cannot say.
func searchFor(texts []string) (logql.Expr, error) {
	l := &syntax.Log{}
	for _, t := range texts {
		if t != "" {
			l.Stages = append(l.Stages, &syntax.LineFilter{Op: syntax.Contains, Alternatives: []syntax.Alternative{{Text: t}}})
		}
	}
	if len(l.Stages) == 0 {
		return nil, invalid("text", errors.New("it is what lines contain, and must not be empty"))
	}
	return l, nil
}

// search answers with the lines of all streams that contain each text.
func (a *API) search(r *http.Request) ([]byte, error) {
	s, err := a.timeRange(r, defaultRange)
	if err != nil {
		return nil, err
	}
	e, err := searchFor(r.Form["text"])
	if err != nil {
		return nil, err
	}
	return a.lines(r, e, s)
}

// export sends all lines of a query, one JSON object a line, in bounded memory. It takes its time.
func (a *API) export(w http.ResponseWriter, r *http.Request) {
	err := r.ParseForm()
	if err != nil {
		a.errors.Text(w, r, httpapi.Query, httpapi.BadDataf("malformed parameters: %w", err))
		return
	}
	ctx := r.Context()
	done := a.Observer.Start(ctx, query.LogQL, httpapi.TenantFrom(ctx), described(r))
	out := &exporter{w: w}
	err = a.exportTo(r, out)
	done(err)
	if err == nil {
		err = out.flush()
	}
	switch {
	case err == nil:
	case !out.begun:
		a.errors.Text(w, r, httpapi.Query, err)
	default: // the status is sent already: the last line says that it is not whole
		e, _ := a.errors.Header(w, r, httpapi.Query, err)
		out.buf = append(appendString(append(out.buf, `{"error":`...), e.Message), "}\n"...)
		_ = out.flush() // the client may be gone
	}
}

// exporter writes lines.
type exporter struct {
	w     http.ResponseWriter
	buf   []byte
	begun bool
}

func (o *exporter) flush() error {
	if !o.begun {
		o.begun = true
		o.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	if _, err := o.w.Write(o.buf); err != nil {
		return err
	}
	o.buf = o.buf[:0]
	return http.NewResponseController(o.w).Flush()
}

func (o *exporter) entry(e *logql.Entry) error {
	o.buf = append(appendEntry(o.buf, e), '\n')
	if len(o.buf) < flushEvery {
		return nil
	}
	return o.flush()
}

// appendEntry appends an entry as an object.
func appendEntry(dst []byte, e *logql.Entry) []byte {
	dst = strconv.AppendInt(append(dst, `{"ns":"`...), e.Time, 10)
	dst = append(dst, `","time":"`...)
	dst = time.Unix(0, e.Time).UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = appendString(append(dst, `","line":`...), e.Line)
	return append(appendLabels(append(dst, `,"labels":`...), e.Labels), '}')
}

func (a *API) exportTo(r *http.Request, out *exporter) error {
	s, err := a.timeRange(r, defaultRange)
	if err != nil {
		return err
	}
	limit := 0
	if r.Form.Get("limit") != "" {
		if limit, err = number(r, "limit", 0); err != nil {
			return err
		}
	}
	var e logql.Expr
	if r.Form.Get("query") == "" && r.Form.Has("text") {
		e, err = searchFor(r.Form["text"])
	} else {
		e, err = logql.Parse(r.Form.Get("query"))
	}
	if err != nil {
		return err
	}
	if e.Kind() != syntax.Lines {
		return httpapi.BadDataf("only lines can be exported, and the query is for numbers")
	}
	newest := false
	switch strings.ToLower(r.Form.Get("direction")) {
	case "", "forward":
	case "backward":
		newest = true
	default:
		return invalid("direction", errors.New("want forward or backward"))
	}
	ctx := r.Context()
	q := logql.LinesQuery{Tenant: httpapi.TenantFrom(ctx), Expr: e, Start: s.start, End: s.end, Newest: newest, Limit: limit}
	return a.view(ctx, func(v storage.View) error {
		_, err := a.engine.Each(ctx, v, q, out.entry)
		if ws := v.Warnings(); err == nil && len(ws) > 0 {
			out.buf = append(appendTexts(append(out.buf, `{"warnings":`...), ws), "}\n"...)
		}
		return err
	})
}

// around answers with the lines before and after a time, mostly that of a line: those of its stream, as the query says.
func (a *API) around(r *http.Request) ([]byte, error) {
	at, err := parseTime(r.Form.Get("time"))
	if err != nil {
		return nil, invalid("time", err)
	}
	e, err := logql.Parse(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	if e.Kind() != syntax.Lines {
		return nil, httpapi.BadDataf("the query is for numbers, and lines are wanted")
	}
	far := defaultRange
	if s := r.Form.Get("within"); s != "" {
		if far, err = parseDuration(s); err != nil {
			return nil, invalid("within", err)
		}
	}
	ctx := r.Context()
	body := []byte(`{"status":"success","data":{`)
	err = a.view(ctx, func(v storage.View) error {
		for i, side := range []struct {
			name       string
			newest     bool
			start, end int64
		}{{"before", true, at - int64(far), at}, {"after", false, at, at + int64(far)}} {
			n, err := a.sideLimit(r, side.name)
			if err != nil {
				return err
			}
			entries, err := a.side(ctx, v, logql.LinesQuery{
				Tenant: httpapi.TenantFrom(ctx), Expr: e, Start: side.start, End: side.end, Newest: side.newest, Limit: n,
			})
			if err != nil {
				return err
			}
			if i > 0 {
				body = append(body, ',')
			}
			body = append(body, `"`+side.name+`":[`...)
			for k := range entries {
				if k > 0 {
					body = append(body, ',')
				}
				body = appendEntry(body, &entries[k])
			}
			body = append(body, ']')
		}
		return nil
	})
	return append(body, "}}"...), err
}

// sideLimit returns how many lines are wanted on one side.
func (a *API) sideLimit(r *http.Request, name string) (int, error) {
	if r.Form.Get(name) == "0" {
		return 0, nil
	}
	n, err := number(r, name, 10)
	return min(n, a.Config.MaxLines), err
}

// side reads the lines of one side.
func (a *API) side(ctx context.Context, v storage.View, q logql.LinesQuery) ([]logql.Entry, error) {
	if q.Limit == 0 {
		return nil, nil
	}
	out, err := a.engine.Lines(ctx, v, q)
	if err != nil {
		return nil, err
	}
	return out.Entries, nil
}
