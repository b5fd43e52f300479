package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

const (
	pods     = 40
	services = 10
)

// gen makes requests that look like those of services on Kubernetes: a request is one pod's.
type gen struct {
	rng      *rand.Rand
	base     time.Time
	counters [][]float64 // by pod, then series
}

func newGen(base time.Time) *gen { return &gen{rng: rand.New(rand.NewPCG(42, 1)), base: base} }

func (g *gen) resource(r pcommon.Resource, pod int) {
	a := r.Attributes()
	a.PutStr("service.name", fmt.Sprintf("service-%d", pod%services))
	a.PutStr("service.version", fmt.Sprintf("1.%d.0", pod%3))
	a.PutStr("service.instance.id", fmt.Sprintf("instance-%d", pod))
	a.PutStr("k8s.namespace.name", []string{"shop", "billing", "search"}[pod%3])
	a.PutStr("k8s.pod.name", fmt.Sprintf("service-%d-7d9f8b6c5-%05x", pod%services, pod*2654435761%0xfffff))
	a.PutStr("k8s.pod.uid", fmt.Sprintf("9a7c%04x-0000-4000-8000-%012x", pod, pod*7919))
	a.PutStr("k8s.container.name", "app")
	a.PutStr("k8s.node.name", fmt.Sprintf("node-%d", pod%6))
	a.PutStr("k8s.cluster.name", "bench")
}

// spans are n spans of one pod in traces of about 20 spans over several requests.
func (g *gen) spans(request, n int) ([]byte, error) {
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	g.resource(rs.Resource(), request%pods)
	ss := rs.ScopeSpans().AppendEmpty()
	ss.Scope().SetName("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp")
	names := []string{"GET /products/{id}", "POST /checkout", "SELECT products", "PUT /cart/{user}", "charge card"}
	for i := range n {
		s := ss.Spans().AppendEmpty()
		var id pcommon.TraceID
		t := uint64(request/pods*n+i) / 2 // about pods*2/4 spans a trace
		binary.BigEndian.PutUint64(id[:], t*0x9e3779b97f4a7c15)
		binary.BigEndian.PutUint64(id[8:], (t+1)*0xbf58476d1ce4e5b9)
		s.SetTraceID(id)
		var sid, parent pcommon.SpanID
		binary.BigEndian.PutUint64(sid[:], g.rng.Uint64())
		binary.BigEndian.PutUint64(parent[:], g.rng.Uint64())
		s.SetSpanID(sid)
		s.SetParentSpanID(parent)
		k := g.rng.IntN(len(names))
		s.SetName(names[k])
		s.SetKind(ptrace.SpanKind(1 + k%3))
		start := g.base.Add(time.Duration(request) * 5 * time.Millisecond).Add(time.Duration(g.rng.IntN(5e6)))
		s.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
		s.SetEndTimestamp(pcommon.NewTimestampFromTime(start.Add(time.Duration(g.rng.ExpFloat64() * 2e7))))
		a := s.Attributes()
		a.PutStr("http.request.method", "GET")
		a.PutStr("http.route", names[k])
		a.PutStr("url.path", fmt.Sprintf("/products/%d", g.rng.IntN(5000)))
		a.PutInt("http.response.status_code", int64([]int{200, 200, 200, 200, 200, 404, 500}[g.rng.IntN(7)]))
		a.PutStr("network.peer.address", fmt.Sprintf("10.1.%d.%d", g.rng.IntN(4), g.rng.IntN(250)))
		a.PutInt("network.peer.port", int64(30000+g.rng.IntN(30000)))
		a.PutStr("user.id", fmt.Sprintf("u-%06d", g.rng.IntN(200000)))
		if g.rng.IntN(50) == 0 {
			s.Status().SetCode(ptrace.StatusCodeError)
			s.Status().SetMessage("upstream timed out")
		}
	}
	return ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()
}

// logs are n lines of one pod, about 200 bytes each: half of them JSON, one in twenty with a trace ID.
func (g *gen) logs(request, n int) ([]byte, error) {
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	g.resource(rl.Resource(), request%pods)
	recs := rl.ScopeLogs().AppendEmpty().LogRecords()
	for i := range n {
		r := recs.AppendEmpty()
		at := g.base.Add(time.Duration(request) * 5 * time.Millisecond).Add(time.Duration(i) * 10 * time.Microsecond)
		r.SetTimestamp(pcommon.NewTimestampFromTime(at))
		r.SetObservedTimestamp(pcommon.NewTimestampFromTime(at.Add(time.Duration(g.rng.IntN(1e6)))))
		level := []string{"info", "info", "info", "debug", "warn", "error"}[g.rng.IntN(6)]
		r.SetSeverityText(level)
		r.SetSeverityNumber(map[string]plog.SeverityNumber{"debug": 5, "info": 9, "warn": 13, "error": 17}[level])
		if i%2 == 0 {
			r.Body().SetStr(fmt.Sprintf(`{"ts":"%s","level":"%s","caller":"server/handler.go:%d","msg":"request done","method":"GET","path":"/products/%d","status":%d,"duration_ms":%.3f,"user":"u-%06d"}`,
				at.UTC().Format(time.RFC3339Nano), level, 100+g.rng.IntN(40), g.rng.IntN(5000), []int{200, 200, 200, 404, 500}[g.rng.IntN(5)], g.rng.ExpFloat64()*20, g.rng.IntN(200000)))
		} else {
			r.Body().SetStr(fmt.Sprintf(`10.1.%d.%d - - [%s] "GET /static/app-%d.js HTTP/1.1" %d %d "-" "Mozilla/5.0 (X11; Linux x86_64)"`,
				g.rng.IntN(4), g.rng.IntN(250), at.UTC().Format("02/Jan/2006:15:04:05 -0700"), g.rng.IntN(300), []int{200, 200, 304}[g.rng.IntN(3)], g.rng.IntN(90000)))
		}
		if g.rng.IntN(20) == 0 {
			var id pcommon.TraceID
			binary.BigEndian.PutUint64(id[:], g.rng.Uint64())
			binary.BigEndian.PutUint64(id[8:], g.rng.Uint64())
			r.SetTraceID(id)
		}
	}
	return plogotlp.NewExportRequestFromLogs(ld).MarshalProto()
}

// samples are one scrape of n series of one pod: counters, gauges and constants, each 15 s after the one before.
func (g *gen) samples(request, n int) ([]byte, error) {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	pod := request % pods
	g.resource(rm.Resource(), pod)
	if g.counters == nil {
		g.counters = make([][]float64, pods)
	}
	if g.counters[pod] == nil {
		g.counters[pod] = make([]float64, n)
	}
	at := pcommon.NewTimestampFromTime(g.base.Add(time.Duration(request/pods) * 15 * time.Second).Add(time.Duration(pod) * time.Millisecond))
	ms := rm.ScopeMetrics().AppendEmpty().Metrics()
	const perMetric = 20
	for i := 0; i < n; i += perMetric {
		m := ms.AppendEmpty()
		var points pmetric.NumberDataPointSlice
		kind := i / perMetric % 4
		if kind < 2 {
			m.SetName(fmt.Sprintf("app.requests.%d", i/perMetric))
			sum := m.SetEmptySum()
			sum.SetIsMonotonic(true)
			sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			points = sum.DataPoints()
		} else {
			m.SetName(fmt.Sprintf("app.gauge.%d", i/perMetric))
			points = m.SetEmptyGauge().DataPoints()
		}
		for j := i; j < min(i+perMetric, n); j++ {
			c := &g.counters[pod][j]
			switch kind {
			case 0:
				*c += float64(g.rng.IntN(100))
			case 1:
				*c += g.rng.ExpFloat64()
			case 2:
				*c = float64(g.rng.IntN(1 << 20))
			case 3:
				*c = 1
			}
			p := points.AppendEmpty()
			p.SetTimestamp(at)
			p.SetDoubleValue(*c)
			p.Attributes().PutStr("route", fmt.Sprintf("/r/%d", j%perMetric))
		}
	}
	return pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
}
