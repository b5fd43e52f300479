package tempo

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/http"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// traceV1 answers with the trace itself; its list of resource spans is called batches.
func (a *API) traceV1(r *http.Request, p params) (answer, error) {
	td, err := a.trace(r, p)
	if err != nil {
		return answer{}, err
	}
	if wantsProto(r) {
		b, err := new(ptrace.ProtoMarshaler).MarshalTraces(td)
		return answer{typeProto, b}, err
	}
	b, err := new(ptrace.JSONMarshaler).MarshalTraces(td)
	rest, ok := bytes.CutPrefix(b, []byte(`{"resourceSpans":`))
	if err == nil && !ok {
		err = fmt.Errorf("pdata writes traces as %.20q", b)
	}
	return answer{typeJSON, append([]byte(`{"batches":`), rest...)}, err
}

// traceV2 answers with a message that holds the trace. The protobuf form of a trace is that of OTLP's TracesData.
func (a *API) traceV2(r *http.Request, p params) (answer, error) {
	td, err := a.trace(r, p)
	if err != nil {
		return answer{}, err
	}
	if wantsProto(r) {
		b, err := new(ptrace.ProtoMarshaler).MarshalTraces(td)
		out := binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(b))) // field 1, with its length
		return answer{typeProto, append(out, b...)}, err
	}
	b, err := new(ptrace.JSONMarshaler).MarshalTraces(td)
	out := append([]byte(`{"trace":`), b...)
	return answer{typeJSON, append(out, '}')}, err
}

// trace reads the trace that the request names.
func (a *API) trace(r *http.Request, p params) (ptrace.Traces, error) {
	td := ptrace.NewTraces()
	id, err := telemetry.ParseTraceID(r.PathValue("id"))
	if err != nil {
		return td, httpapi.BadDataf("%w", err)
	}
	start, end, err := p.timeRange()
	if err != nil {
		return td, err
	}
	ctx := r.Context()
	v, err := a.Reader.View(ctx, 0)
	if err != nil {
		return td, err
	}
	defer func() { _ = v.Close() }()
	enc := newEncoder(td)
	n := 0
	for b, err := range v.Spans(ctx, storage.SpanQuery{
		Tenant: httpapi.TenantFrom(ctx), Start: before(start, around), End: after(end, around),
		Where: storage.TraceIn{id}, Columns: storage.SpanAll, Order: storage.OldestFirst, Limit: a.Config.MaxSpans + 1,
	}) {
		if err != nil {
			return td, err
		}
		for i := range b.Len() {
			if n++; n > a.Config.MaxSpans {
				return td, httpapi.Errorf(httpapi.QueryLimit,
					"trace %s has more spans than tempo.max_spans (%d): search for some of them with tags, or raise the limit", id, a.Config.MaxSpans)
			}
			s := b.Span(i)
			enc.add(b.ResourceOf(i), &s)
		}
	}
	if n == 0 {
		return td, httpapi.NotFoundf("trace %s not found", id)
	}
	return td, nil
}

// encoder sorts spans into resources and scopes.
type encoder struct {
	td        ptrace.Traces
	resources map[telemetry.ResourceID]*resourceSpans
}

type resourceSpans struct {
	ptrace.ResourceSpans
	scopes map[string]ptrace.ScopeSpans // by their canonical form
}

func newEncoder(td ptrace.Traces) *encoder {
	return &encoder{td: td, resources: make(map[telemetry.ResourceID]*resourceSpans)}
}

func (e *encoder) add(res *telemetry.Resource, s *telemetry.Span) {
	var id telemetry.ResourceID
	if res != nil {
		id = res.ID
	}
	rs := e.resources[id]
	if rs == nil {
		rs = &resourceSpans{e.td.ResourceSpans().AppendEmpty(), make(map[string]ptrace.ScopeSpans)}
		e.resources[id] = rs
		if res != nil {
			rs.SetSchemaUrl(res.SchemaURL)
			rs.Resource().SetDroppedAttributesCount(res.Dropped)
			setAttrs(rs.Resource().Attributes(), res.Attrs)
		}
	}
	key := string(telemetry.AppendScope(nil, s.Scope))
	ss, ok := rs.scopes[key]
	if !ok {
		ss = rs.ScopeSpans().AppendEmpty()
		rs.scopes[key] = ss
		if sc := s.Scope; sc != nil {
			ss.SetSchemaUrl(sc.SchemaURL)
			ss.Scope().SetName(sc.Name)
			ss.Scope().SetVersion(sc.Version)
			ss.Scope().SetDroppedAttributesCount(sc.Dropped)
			setAttrs(ss.Scope().Attributes(), sc.Attrs)
		}
	}
	setSpan(ss.Spans().AppendEmpty(), s)
}

func setSpan(out ptrace.Span, s *telemetry.Span) {
	out.SetTraceID(pcommon.TraceID(s.TraceID))
	out.SetSpanID(pcommon.SpanID(s.SpanID))
	out.SetParentSpanID(pcommon.SpanID(s.ParentID))
	out.TraceState().FromRaw(s.State)
	out.SetFlags(s.Flags)
	out.SetName(s.Name)
	out.SetKind(ptrace.SpanKind(s.Kind))
	out.SetStartTimestamp(pcommon.Timestamp(s.Start))
	out.SetEndTimestamp(pcommon.Timestamp(s.End))
	out.Status().SetCode(ptrace.StatusCode(s.Status))
	out.Status().SetMessage(s.StatusMessage)
	out.SetDroppedAttributesCount(s.DroppedAttrs)
	out.SetDroppedEventsCount(s.DroppedEvents)
	out.SetDroppedLinksCount(s.DroppedLinks)
	setAttrs(out.Attributes(), s.Attrs)
	for i := range s.Events {
		e := out.Events().AppendEmpty()
		e.SetTimestamp(pcommon.Timestamp(s.Events[i].Time))
		e.SetName(s.Events[i].Name)
		e.SetDroppedAttributesCount(s.Events[i].Dropped)
		setAttrs(e.Attributes(), s.Events[i].Attrs)
	}
	for i := range s.Links {
		l := out.Links().AppendEmpty()
		l.SetTraceID(pcommon.TraceID(s.Links[i].TraceID))
		l.SetSpanID(pcommon.SpanID(s.Links[i].SpanID))
		l.TraceState().FromRaw(s.Links[i].State)
		l.SetFlags(s.Links[i].Flags)
		l.SetDroppedAttributesCount(s.Links[i].Dropped)
		setAttrs(l.Attributes(), s.Links[i].Attrs)
	}
}

func setAttrs(m pcommon.Map, as telemetry.Attrs) {
	m.EnsureCapacity(len(as))
	for i := range as {
		setValue(m.PutEmpty(as[i].Key), as[i].Value)
	}
}

func setValue(out pcommon.Value, v telemetry.Value) {
	switch v.Kind() {
	case telemetry.KindString:
		out.SetStr(v.Str())
	case telemetry.KindBool:
		out.SetBool(v.Bool())
	case telemetry.KindInt:
		out.SetInt(v.Int())
	case telemetry.KindDouble:
		out.SetDouble(v.Double())
	case telemetry.KindBytes:
		out.SetEmptyBytes().FromRaw([]byte(v.Str()))
	case telemetry.KindArray:
		list := out.SetEmptySlice()
		for _, e := range v.Array() {
			setValue(list.AppendEmpty(), e)
		}
	case telemetry.KindMap:
		setAttrs(out.SetEmptyMap(), v.Map())
	case telemetry.KindEmpty:
	}
}
