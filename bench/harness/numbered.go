package harness

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// PerTrace is how many numbered spans share a trace ID.
const PerTrace = 100

// resource is the pod of a writer.
func resource(r pcommon.Resource, writer int) {
	a := r.Attributes()
	a.PutStr("service.name", fmt.Sprintf("writer-%d", writer))
	a.PutStr("k8s.namespace.name", "load")
	a.PutStr("k8s.pod.name", fmt.Sprintf("writer-%d", writer))
	a.PutStr("k8s.pod.uid", fmt.Sprintf("00000000-0000-0000-0000-%012d", writer))
}

// TraceID is the trace of the numbered span n of a writer.
func TraceID(writer, n int) pcommon.TraceID {
	var id pcommon.TraceID
	binary.BigEndian.PutUint32(id[:], 0xb1a1d)
	binary.BigEndian.PutUint32(id[4:], uint32(writer))
	binary.BigEndian.PutUint64(id[8:], uint64(n/PerTrace)+1)
	return id
}

// Spans returns a request with the spans [from, to) of a writer, each named by its number.
func Spans(writer, from, to int, at time.Time) ([]byte, error) {
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	resource(rs.Resource(), writer)
	spans := rs.ScopeSpans().AppendEmpty().Spans()
	for n := from; n < to; n++ {
		s := spans.AppendEmpty()
		s.SetTraceID(TraceID(writer, n))
		var id pcommon.SpanID
		binary.BigEndian.PutUint64(id[:], uint64(n)+1)
		s.SetSpanID(id)
		s.SetName(strconv.Itoa(n))
		s.SetStartTimestamp(pcommon.NewTimestampFromTime(at))
		s.SetEndTimestamp(pcommon.NewTimestampFromTime(at.Add(time.Millisecond)))
	}
	return ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()
}

// Logs returns a request with the log records [from, to) of a writer, each line its number. Two neighbours share a
// time.
func Logs(writer, from, to int, at time.Time) ([]byte, error) {
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	resource(rl.Resource(), writer)
	recs := rl.ScopeLogs().AppendEmpty().LogRecords()
	for n := from; n < to; n++ {
		r := recs.AppendEmpty()
		r.SetTimestamp(pcommon.NewTimestampFromTime(at.Add(time.Duration(n/2) * time.Microsecond)))
		r.Body().SetStr(strconv.Itoa(n))
	}
	return plogotlp.NewExportRequestFromLogs(ld).MarshalProto()
}

// Samples returns a request with the samples [from, to) of a writer's series "numbers", each with its number as
// value and its number in milliseconds after base as time.
func Samples(writer, from, to int, base time.Time) ([]byte, error) {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	resource(rm.Resource(), writer)
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("numbers")
	points := m.SetEmptyGauge().DataPoints()
	for n := from; n < to; n++ {
		p := points.AppendEmpty()
		p.SetTimestamp(pcommon.NewTimestampFromTime(base.Add(time.Duration(n) * time.Millisecond)))
		p.SetDoubleValue(float64(n))
	}
	return pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
}
