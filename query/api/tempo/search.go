package tempo

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/api/otlp"
	"github.com/braidobs/braid/query/traceql"
	"github.com/braidobs/braid/query/traceql/syntax"
)

const (
	defaultTraces = 20
	defaultSpans  = 3 // of each set
	maxSpanSet    = 1000
)

// tag is a key and the value that it must have.
type tag struct{ key, value string }

// parseTags reads logfmt: key=value key2="a value", separated by blanks.
func parseTags(s string) ([]tag, error) {
	var out []tag
	for i := 0; i < len(s); {
		if s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r' {
			i++
			continue
		}
		at := i
		n := strings.IndexAny(s[i:], "= \t\r\n\"")
		if n <= 0 || s[i+n] != '=' {
			return nil, httpapi.BadDataf("invalid tags at character %d: want key=value", at+1)
		}
		t := tag{key: s[i : i+n]}
		i += n + 1
		if i < len(s) && s[i] == '"' {
			quoted, err := strconv.QuotedPrefix(s[i:])
			if err == nil {
				t.value, err = strconv.Unquote(quoted)
			}
			if err != nil {
				return nil, httpapi.BadDataf("invalid tags at character %d: the quoted value does not end or has an unknown escape", i+1)
			}
			i += len(quoted)
			if i < len(s) && !strings.ContainsRune(" \t\r\n", rune(s[i])) {
				return nil, httpapi.BadDataf("invalid tags at character %d: want a blank after a quoted value", i+1)
			}
		} else {
			n := strings.IndexAny(s[i:], " \t\r\n")
			if n < 0 {
				n = len(s) - i
			}
			t.value = s[i : i+n]
			i += n
		}
		out = append(out, t)
	}
	return out, nil
}

// tagQuery is the TraceQL for the search by tags: one span has them all, and the trace is as long as asked for. A tag is an
// attribute of the span or of its resource, except that service.name is always the resource's; values are compared as text.
func tagQuery(tags []tag, shortest, longest int64) string {
	var conds []string
	for _, t := range tags {
		conds = append(conds, t.cond())
	}
	if shortest > 0 {
		conds = append(conds, fmt.Sprintf("traceDuration >= %dns", shortest))
	}
	if longest < math.MaxInt64 {
		conds = append(conds, fmt.Sprintf("traceDuration <= %dns", longest))
	}
	return "{ " + strings.Join(conds, " && ") + " }"
}

func (t tag) cond() string {
	quoted := strconv.Quote(t.value)
	switch t.key {
	case "name":
		return "name = " + quoted
	case "status":
		switch t.value {
		case "error", "ok", "unset":
			return "status = " + t.value
		}
		return "false"
	case "kind":
		switch t.value {
		case "unspecified", "internal", "server", "client", "producer", "consumer":
			return "kind = " + t.value
		}
		return "false"
	case "service.name":
		return "resource.service.name = " + quoted
	}
	values := []string{quoted}
	if n, err := strconv.ParseInt(t.value, 10, 64); err == nil {
		if strconv.FormatInt(n, 10) == t.value {
			values = append(values, t.value)
		}
	} else if f, err := strconv.ParseFloat(t.value, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
		values = append(values, strconv.FormatFloat(f, 'f', -1, 64))
	}
	if t.value == "true" || t.value == "false" {
		values = append(values, t.value)
	}
	var any []string
	for _, v := range values {
		key := strconv.Quote(t.key)
		any = append(any, "span."+key+" = "+v, "resource."+key+" = "+v)
	}
	return "(" + strings.Join(any, " || ") + ")"
}

// searchOf reads what to search for.
func (a *API) searchOf(c *call) (q traceql.SearchQuery, err error) {
	p := c.params
	text := p.get("q")
	if text == "" {
		tags, err := parseTags(p.get("tags"))
		if err != nil {
			return q, err
		}
		shortest, err := p.duration("minDuration", 0)
		if err != nil {
			return q, err
		}
		longest, err := p.duration("maxDuration", math.MaxInt64)
		if err != nil {
			return q, err
		}
		if longest < shortest {
			return q, httpapi.BadDataf("invalid maxDuration %q: it is below minDuration %q", p.get("maxDuration"), p.get("minDuration"))
		}
		text = tagQuery(tags, shortest, longest)
	}
	if q.Query, err = traceql.Parse(text); err != nil {
		return q, fmt.Errorf("invalid q: %w", err)
	}
	q.Tenant = c.tenant
	if q.Start, q.End, err = p.timeRange(); err != nil {
		return q, err
	}
	if q.Limit, err = p.number("limit", min(defaultTraces, a.Config.MaxTraces), 1, math.MaxInt32); err != nil {
		return q, err
	}
	if q.Limit > a.Config.MaxTraces {
		return q, httpapi.BadDataf("invalid limit %d: it is over tempo.max_traces (%d); the answer's cursor leads to more", q.Limit, a.Config.MaxTraces)
	}
	if q.Spans, err = p.number("spss", defaultSpans, 0, maxSpanSet); err != nil {
		return q, err
	}
	if s := p.get("cursor"); s != "" {
		if q.After, err = traceql.ParseCursor(s); err != nil {
			return q, err
		}
	}
	return q, nil
}

func (a *API) search(c *call) (answer, error) {
	q, err := a.searchOf(c)
	if err != nil {
		return answer{}, err
	}
	res, err := a.engine().Search(c.ctx, c.view, q)
	if err != nil {
		return answer{}, err
	}
	body := []byte(`{"traces":[`)
	for i := range res.Traces {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendTrace(body, &res.Traces[i], q.Spans > 0)
	}
	body = append(appendStats(append(body, `],"metrics":`...), res.Stats), '}')
	var p page
	if res.Next != nil {
		p.cursor = res.Next.String()
	}
	return answer{typeJSON, body, &p}, nil
}

// appendStats appends what a query cost.
func appendStats(dst []byte, s traceql.Stats) []byte {
	for _, f := range []struct {
		name  string
		n     int64
		quote bool // 64 bits are text in protobuf's JSON
	}{
		{`{"inspectedTraces":`, s.Traces, false},
		{`,"inspectedSpans":`, s.Spans, true},
		{`,"inspectedBytes":`, s.Bytes, true},
		{`,"totalBlocks":`, s.Blocks, false},
	} {
		dst = append(dst, f.name...)
		if f.quote {
			dst = append(dst, '"')
		}
		dst = strconv.AppendInt(dst, f.n, 10)
		if f.quote {
			dst = append(dst, '"')
		}
	}
	return append(dst, `,"completedJobs":1,"totalJobs":1}`...)
}

func appendTrace(dst []byte, t *traceql.Trace, sets bool) []byte {
	dst = telemetry.AppendJSONString(append(dst, `{"traceID":`...), t.ID.String())
	dst = telemetry.AppendJSONString(append(dst, `,"rootServiceName":`...), t.RootService)
	dst = telemetry.AppendJSONString(append(dst, `,"rootTraceName":`...), t.RootName)
	dst = strconv.AppendInt(append(dst, `,"startTimeUnixNano":"`...), t.Start, 10)
	dst = strconv.AppendInt(append(dst, `","durationMs":`...), t.Duration/int64(time.Millisecond), 10)
	if sets && len(t.Sets) > 0 {
		first := appendSet(nil, &t.Sets[0])
		dst = append(append(append(dst, `,"spanSet":`...), first...), `,"spanSets":[`...)
		dst = append(dst, first...)
		for i := range t.Sets[1:] {
			dst = appendSet(append(dst, ','), &t.Sets[i+1])
		}
		dst = append(dst, ']')
	}
	dst = append(dst, `,"serviceStats":{`...)
	for i, s := range t.Services {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = telemetry.AppendJSONString(dst, s.Service)
		dst = strconv.AppendInt(append(dst, `:{"spanCount":`...), int64(s.Spans), 10)
		dst = strconv.AppendInt(append(dst, `,"errorCount":`...), int64(s.Errors), 10)
		dst = append(dst, '}')
	}
	return append(dst, "}}"...)
}

func appendSet(dst []byte, set *traceql.SpanSet) []byte {
	dst = append(dst, `{"spans":[`...)
	for i := range set.Spans {
		s := &set.Spans[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = telemetry.AppendJSONString(append(dst, `{"spanID":`...), s.ID.String())
		dst = telemetry.AppendJSONString(append(dst, `,"name":`...), s.Name)
		dst = strconv.AppendInt(append(dst, `,"startTimeUnixNano":"`...), s.Start, 10)
		dst = strconv.AppendInt(append(dst, `","durationNanos":"`...), s.Duration, 10)
		dst = append(appendAttrs(append(dst, `","attributes":`...), s.Attrs), '}')
	}
	dst = strconv.AppendInt(append(dst, `],"matched":`...), int64(set.Matched), 10)
	if len(set.Attrs) > 0 {
		dst = appendAttrs(append(dst, `,"attributes":`...), set.Attrs)
	}
	return append(dst, '}')
}

func appendAttrs(dst []byte, as []traceql.Attr) []byte {
	dst = append(dst, '[')
	for i := range as {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = telemetry.AppendJSONString(append(dst, `{"key":`...), as[i].Key)
		dst = append(otlp.AppendValueJSON(append(dst, `,"value":`...), sentAs(as[i].Value)), '}')
	}
	return append(dst, ']')
}

// sentAs returns a value as Tempo sends it: what OTLP has no type for as text.
func sentAs(v traceql.Value) telemetry.Value {
	switch v.Type {
	case syntax.TypeNil, syntax.TypeStatus, syntax.TypeKind, syntax.TypeDuration:
		return telemetry.String(v.Text())
	default:
		return v.Value
	}
}
