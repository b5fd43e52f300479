package harness

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// Template is an encoded request that is made unique by writing over it in place, so that a sender spends next to
// no time on a request.
type Template struct {
	Signal  string
	Records int // in each request
	body    []byte
	ids     []int // offsets of the 16-byte trace ID of the request
	times   []int // offsets of its time, 8 bytes
	lines   []int // offsets of its number, 16 hexadecimal digits
	values  []int // offsets of its number as a double
}

const (
	markTime  = 0x7a11c0de7a11c0de
	markLine  = "0badc0de0badc0de"
	markValue = 8.765432109876543e+111
)

var markID = pcommon.TraceID{0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef} //nolint:gochecknoglobals // a constant

// NewTemplate returns requests of a signal (traces, logs or metrics) with n records that look like those of a
// service on Kubernetes.
func NewTemplate(signal string, n int) (*Template, error) {
	t := &Template{Signal: signal, Records: n}
	var err error
	switch signal {
	case "traces":
		t.body, err = spanTemplate(n)
	case "logs":
		t.body, err = logTemplate(n)
	case "metrics":
		t.body, err = sampleTemplate(n)
	default:
		err = fmt.Errorf("no signal is called %q", signal)
	}
	if err != nil {
		return nil, err
	}
	t.ids = find(t.body, markID[:])
	t.times = find(t.body, binary.LittleEndian.AppendUint64(nil, markTime))
	t.lines = find(t.body, []byte(markLine))
	t.values = find(t.body, binary.LittleEndian.AppendUint64(nil, math.Float64bits(markValue)))
	return t, nil
}

func find(b, mark []byte) (at []int) {
	for off := 0; ; {
		i := bytes.Index(b[off:], mark)
		if i < 0 {
			return at
		}
		at = append(at, off+i)
		off += i + len(mark)
	}
}

// NumberedTrace is the trace ID of request n.
func NumberedTrace(n int) pcommon.TraceID {
	var id pcommon.TraceID
	binary.BigEndian.PutUint64(id[:], 0xb1a1d<<32|uint64(n)*0x9e3779b9&0xffffffff)
	binary.BigEndian.PutUint64(id[8:], uint64(n)+1)
	return id
}

// Line is what the numbered line of request n ends with.
func Line(n int) string { return fmt.Sprintf("%016x", n) }

// Request returns request n at a time, in a buffer of its own.
func (t *Template) Request(n int, at time.Time) []byte {
	b := slices.Clone(t.body)
	id := NumberedTrace(n)
	for _, off := range t.ids {
		copy(b[off:], id[:])
	}
	for _, off := range t.times {
		binary.LittleEndian.PutUint64(b[off:], uint64(at.UnixNano()))
	}
	for _, off := range t.lines {
		copy(b[off:], Line(n))
	}
	for _, off := range t.values {
		binary.LittleEndian.PutUint64(b[off:], math.Float64bits(float64(n)))
	}
	return b
}

func spanTemplate(n int) ([]byte, error) {
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	resource(rs.Resource(), 0)
	ss := rs.ScopeSpans().AppendEmpty()
	ss.Scope().SetName("bench/harness")
	for i := range n {
		s := ss.Spans().AppendEmpty()
		s.SetTraceID(markID)
		var id, parent pcommon.SpanID
		binary.BigEndian.PutUint64(id[:], uint64(i)*0x9e3779b97f4a7c15+1)
		s.SetSpanID(id)
		if i > 0 {
			binary.BigEndian.PutUint64(parent[:], uint64(i/2)*0x9e3779b97f4a7c15+1)
			s.SetParentSpanID(parent)
		}
		s.SetName([]string{"GET /products", "SELECT products", "POST /checkout", "charge card"}[i%4])
		s.SetKind(ptrace.SpanKind(1 + i%3))
		s.SetStartTimestamp(markTime)
		s.SetEndTimestamp(markTime)
		a := s.Attributes()
		a.PutStr("http.request.method", "GET")
		a.PutStr("url.path", fmt.Sprintf("/products/%d", i*7919%1000))
		a.PutInt("http.response.status_code", int64([]int{200, 200, 200, 404, 500}[i%5]))
		a.PutStr("network.peer.address", fmt.Sprintf("10.1.%d.%d", i%7, i*31%251))
		a.PutInt("network.peer.port", int64(30000+i*7919%30000))
	}
	return ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()
}

func logTemplate(n int) ([]byte, error) {
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	resource(rl.Resource(), 0)
	recs := rl.ScopeLogs().AppendEmpty().LogRecords()
	for i := range n {
		r := recs.AppendEmpty()
		r.SetTimestamp(markTime)
		r.SetObservedTimestamp(markTime)
		r.SetSeverityNumber(plog.SeverityNumber([]int{9, 9, 9, 13, 17}[i%5]))
		if i == 0 {
			r.Body().SetStr("number " + markLine)
			continue
		}
		r.Body().SetStr(fmt.Sprintf("request GET /products/%d took %d ms, user u-%05d, %d rows", i*7919%1000, i*31%977, i*104729%100000, i%50))
		r.Attributes().PutStr("http.route", "/products/{id}")
		r.Attributes().PutInt("thread.id", int64(i%16))
	}
	return plogotlp.NewExportRequestFromLogs(ld).MarshalProto()
}

func sampleTemplate(n int) ([]byte, error) {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	resource(rm.Resource(), 0)
	ms := rm.ScopeMetrics().AppendEmpty().Metrics()
	for i := range n {
		m := ms.AppendEmpty()
		var p pmetric.NumberDataPoint
		if i == 0 {
			m.SetName("request_number")
			p = m.SetEmptyGauge().DataPoints().AppendEmpty()
			p.SetDoubleValue(markValue)
		} else {
			m.SetName(fmt.Sprintf("bench.requests.%d", i%20))
			sum := m.SetEmptySum()
			sum.SetIsMonotonic(true)
			sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			p = sum.DataPoints().AppendEmpty()
			p.SetDoubleValue(float64(i * 17))
			p.Attributes().PutInt("shard", int64(i))
		}
		p.SetTimestamp(markTime)
	}
	return pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
}
