package spanmetrics_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

const (
	tenant = telemetry.DefaultTenant
	begin  = int64(1_772_600_400e9) // a whole hour
	minute = int64(60e9)
)

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

func str(key, value string) telemetry.Attr {
	return telemetry.Attr{Key: key, Value: telemetry.String(value)}
}

// randomTraces returns the spans of n traces that begin within an hour, in no order. Parents may be missing, children may end
// after their parents, spans may end before they start.
func randomTraces(rng *rand.Rand, n int) []storage.SpanRow {
	var resources []*telemetry.Resource
	for _, name := range []string{"cart", "checkout", "frontend", "payment", ""} {
		var as []telemetry.Attr
		if name != "" {
			as = append(as, str("service.name", name), str("service.namespace", "shop"), str("service.instance.id", name+"-0"), str("cloud.region", "eu"))
		}
		resources = append(resources, telemetry.NewResource("", telemetry.NewAttrs(as)))
	}
	var out []storage.SpanRow
	for t := range n {
		at := begin + rng.Int64N(60*minute)
		state := pick(rng, "", "", "ot=th:8", "a=b,ot=th:c") // stands for 1, 1, 2 and 4 traces
		for i := range 1 + rng.IntN(12) {
			s := &telemetry.Span{
				TraceID: telemetry.TraceID{1, 14: byte(t >> 8), 15: byte(t)}, SpanID: telemetry.SpanID{7: byte(i + 1)},
				Name: pick(rng, "GET /", "pay"), Kind: telemetry.SpanKind(rng.IntN(6)), Status: telemetry.StatusCode(rng.IntN(3)),
				Start: at + rng.Int64N(3e9), State: state,
			}
			if i > 0 && rng.IntN(9) > 0 {
				s.ParentID = telemetry.SpanID{7: byte(rng.IntN(i+1) + 1)}
			}
			if s.ParentID == s.SpanID {
				s.ParentID = telemetry.SpanID{7: 0xee} // is not stored
			}
			s.End = s.Start + pick(rng, -5e6, 0, 1e6, 2e6, 2e6+1, rng.Int64N(20e9))
			as := []telemetry.Attr{str("http.route", pick(rng, "/a", "/b"))}
			if rng.IntN(3) == 0 {
				as = append(as, str("db.system.name", "postgresql"))
				if rng.IntN(2) == 0 {
					as = append(as, str("db.namespace", pick(rng, "orders", "users")))
				}
			}
			if rng.IntN(5) == 0 {
				as = append(as, str("peer.service", "bank"))
			}
			if rng.IntN(5) == 0 {
				as = append(as, telemetry.Attr{Key: "retries", Value: telemetry.Int(int64(rng.IntN(3)))})
			}
			s.Attrs = telemetry.NewAttrs(as)
			out = append(out, storage.SpanRow{Resource: pick(rng, resources...), Span: s})
		}
	}
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// requestOf returns a request that stores rows.
func requestOf(rows []storage.SpanRow) storage.Request {
	var req storage.Request
	for _, r := range rows {
		req.Batches = append(req.Batches, telemetry.Batch{Tenant: tenant, Resource: r.Resource, Spans: []telemetry.Span{*r.Span}})
	}
	return req
}

// event is something that a counter counts: at a time, with a duration.
type event struct {
	at, length int64
	labels     map[string]string
}

// times returns an event as often as the trace of a span stands for others.
func times(e event, r storage.SpanRow) []event {
	return slices.Repeat([]event{e}, int(1/telemetry.Probability(r.Span.State)))
}

func service(r storage.SpanRow) string { return r.Resource.Attrs.Text("service.name") }

func end(r storage.SpanRow) int64 { return max(r.Span.Start, r.Span.End) }

// naiveSpans returns what the metrics of spans count, with attributes as labels.
func naiveSpans(rows []storage.SpanRow, attrs ...string) []event {
	var out []event
	for _, r := range rows {
		e := event{at: end(r), length: end(r) - r.Span.Start, labels: map[string]string{
			"service": service(r), "span_name": r.Span.Name, "span_kind": "SPAN_KIND_" + strings.ToUpper(r.Span.Kind.String()),
			"status_code": "STATUS_CODE_" + strings.ToUpper(r.Span.Status.String()),
		}}
		for _, a := range attrs {
			v := r.Span.Attrs.Text(a)
			if _, ok := r.Span.Attrs.Get(a); !ok {
				v = r.Resource.Attrs.Text(a)
			}
			e.labels[strings.ReplaceAll(a, ".", "_")] = v
		}
		out = append(out, times(e, r)...)
	}
	return out
}

// call is an edge as the guide defines it.
type call struct {
	client, server *storage.SpanRow // nil for one that is not there
	labels         map[string]string
}

// naiveCalls looks at every pair of spans of each trace.
func naiveCalls(rows []storage.SpanRow) []call {
	var out []call
	add := func(client, server *storage.SpanRow, from, to, kind string) {
		if from != "" && to != "" {
			out = append(out, call{client, server, map[string]string{"client": from, "server": to, "connection_type": kind}})
		}
	}
	traces := make(map[telemetry.TraceID][]*storage.SpanRow)
	for i := range rows {
		id := rows[i].Span.TraceID
		traces[id] = append(traces[id], &rows[i])
	}
	for i := range rows {
		r := &rows[i]
		var parent *storage.SpanRow
		served := false
		for _, o := range traces[r.Span.TraceID] {
			if o.Span.SpanID == r.Span.ParentID {
				parent = o
			}
			if o.Span.ParentID == r.Span.SpanID && o.Span.Kind == telemetry.SpanKindServer {
				served = true
			}
		}
		switch r.Span.Kind {
		case telemetry.SpanKindServer:
			if parent != nil && parent.Span.Kind == telemetry.SpanKindClient {
				add(parent, r, service(*parent), service(*r), "")
			}
			if r.Span.ParentID.IsZero() {
				add(nil, r, "user", service(*r), "virtual_node")
			}
		case telemetry.SpanKindConsumer:
			if parent != nil && parent.Span.Kind == telemetry.SpanKindProducer {
				add(parent, r, service(*parent), service(*r), "messaging_system")
			}
		case telemetry.SpanKindClient:
			if served {
				continue
			}
			to, kind := "", "virtual_node"
			for _, a := range []string{"peer.service", "db.namespace", "db.name", "db.system.name", "db.system"} {
				v := r.Span.Attrs.Text(a)
				if to == "" {
					to = v
				}
				if v != "" && a != "peer.service" {
					kind = "database"
				}
			}
			add(r, nil, service(*r), to, kind)
		default:
		}
	}
	return out
}

// naiveEdges returns what a metric of the service graph counts.
func naiveEdges(rows []storage.SpanRow, what string) []event {
	var out []event
	for _, c := range naiveCalls(rows) {
		client, server := c.client, c.server
		if client == nil {
			client = server
		}
		if server == nil {
			server = client
		}
		e := event{at: max(end(*client), end(*server)), labels: c.labels}
		switch what {
		case "failed":
			if client.Span.Status != telemetry.StatusError && server.Span.Status != telemetry.StatusError {
				continue
			}
		case "client":
			e.length = end(*client) - client.Span.Start
		case "server":
			e.length = end(*server) - server.Span.Start
		case "queue":
			if c.labels["connection_type"] != "messaging_system" {
				continue
			}
			e.length = max(server.Span.Start-end(*client), 0)
		}
		out = append(out, times(e, *server)...)
	}
	return out
}

// within adds up the values of the events after from and up to to, by labels.
func within(events []event, from, to int64, value func(event) float64) map[string]float64 {
	out := make(map[string]float64)
	for _, e := range events {
		if e.at > from && e.at <= to {
			out[labels.FromMap(withoutEmpty(e.labels)).String()] += value(e)
		}
	}
	return out
}

// below counts the events of each bucket as the label le has them.
func below(events []event, le []string) []event {
	var out []event
	for _, e := range events {
		for _, l := range le {
			bound, _ := strconv.ParseFloat(l, 64)
			if float64(e.length)/1e9 <= bound {
				ls := map[string]string{"le": l}
				maps.Copy(ls, e.labels)
				out = append(out, event{at: e.at, labels: ls})
			}
		}
	}
	return out
}

func withoutEmpty(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		if v != "" {
			out[k] = v
		}
	}
	return out
}

func one(event) float64 { return 1 }

func seconds(e event) float64 { return float64(e.length) / 1e9 }
