package tempo

import (
	"encoding/base64"
	"encoding/binary"
	"math"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/wire"
	"github.com/braidobs/braid/query/api/otlp"
	"github.com/braidobs/braid/storage"
)

// traceV1 answers with the trace itself; its list of resource spans is called batches.
func (a *API) traceV1(c *call) (answer, error) {
	t, p, err := a.trace(c)
	if err != nil {
		return answer{}, err
	}
	if !t.JSON {
		return answer{typeProto, t.Append(nil), p}, nil
	}
	return answer{typeJSON, append(t.AppendList([]byte(`{"batches":`)), '}'), p}, nil
}

// traceV2 answers with a message that holds the trace, and where its next page begins.
func (a *API) traceV2(c *call) (answer, error) {
	t, p, err := a.trace(c)
	if err != nil {
		return answer{}, err
	}
	more := "the trace goes on at cursor=" + p.cursor
	if !t.JSON { // the protobuf form of a trace is that of OTLP's TracesData
		body := wire.AppendMessage(nil, 1, t.Append)
		if p.cursor != "" {
			body = wire.AppendText(wire.AppendNumber(body, 3, 1), 4, more)
		}
		return answer{typeProto, body, p}, nil
	}
	body := t.Append([]byte(`{"trace":`))
	if p.cursor != "" {
		body = telemetry.AppendJSONString(append(body, `,"status":"PARTIAL","message":`...), more)
	}
	return answer{typeJSON, append(body, '}'), p}, nil
}

// place is where a page of a trace begins: behind some of the spans that start at a time.
type place struct {
	start int64
	skip  uint64
}

// String returns the place as the parameter cursor has it.
func (p *place) String() string {
	b := binary.AppendUvarint(binary.BigEndian.AppendUint64(nil, uint64(p.start)), p.skip)
	return base64.RawURLEncoding.EncodeToString(b)
}

func parsePlace(s string) (*place, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil && len(b) > 8 {
		if skip, n := binary.Uvarint(b[8:]); n == len(b)-8 && skip < math.MaxInt32 {
			return &place{int64(binary.BigEndian.Uint64(b)), skip}, nil
		}
	}
	return nil, httpapi.BadDataf("invalid cursor %q: want what the answer before said", s)
}

// trace reads the trace that the request names, or a page of it: spans by start, with where the next page begins.
func (a *API) trace(c *call) (*otlp.Traces, *page, error) {
	id, err := telemetry.ParseTraceID(c.r.PathValue("id"))
	if err != nil {
		return nil, nil, httpapi.BadDataf("%w", err)
	}
	start, end, err := c.params.timeRange()
	if err != nil {
		return nil, nil, err
	}
	limit, err := c.params.number("limit", 0, 1, a.Config.MaxSpans)
	if err != nil {
		return nil, nil, err
	}
	q := storage.SpanQuery{
		Tenant: c.tenant, Start: before(start, around), End: after(end, around), Where: storage.TraceIn{id}, Columns: storage.SpanAll,
	}
	if start == 0 {
		q.Start = math.MinInt64
	}
	from := place{start: math.MinInt64}
	if s := c.params.get("cursor"); s != "" {
		p, err := parsePlace(s)
		if err != nil {
			return nil, nil, err
		}
		from = *p
		q.Start = max(q.Start, from.start)
	}
	if limit > 0 {
		q.Order, q.Limit = storage.OldestFirst, limit+int(from.skip)+1
	}
	t := &otlp.Traces{JSON: !wantsProto(c.r)}
	next := &page{}
	last := from
	for b, err := range c.view.Spans(c.ctx, q) {
		if err != nil {
			return nil, nil, err
		}
		for i := range b.Len() {
			if b.Start[i] == from.start && from.skip > 0 {
				from.skip--
				continue
			}
			if limit > 0 && t.Len() == limit {
				next.cursor = last.String()
				break
			}
			if t.Len() >= a.Config.MaxSpans {
				return nil, nil, httpapi.Errorf(httpapi.QueryLimit,
					"trace %s has more spans than tempo.max_spans (%d): read it in pages with limit=, search for some of its spans, or raise the limit", id, a.Config.MaxSpans)
			}
			if b.Start[i] != last.start {
				last = place{start: b.Start[i]}
			}
			last.skip++
			s := b.Span(i)
			t.Add(b.ResourceOf(i), &s)
		}
	}
	if t.Len() == 0 {
		return nil, nil, httpapi.NotFoundf("trace %s not found", id)
	}
	return t, next, nil
}
