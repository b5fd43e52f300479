package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"
)

// TraceID is the trace that has log lines and an exemplar, and one span of which failed.
const TraceID = "5b8efff798038103d269b633813fc60c"

// Minutes is how long the shop's metrics reach back from the time that Fill is given.
const Minutes = 20

type object = map[string]any

// Fill sends the telemetry of a shop as it was in the minutes before now.
func (s *Server) Fill(ctx context.Context, now time.Time) error {
	for _, r := range []struct {
		path string
		body object
	}{{"/v1/traces", traces(now)}, {"/v1/logs", logs(now)}, {"/v1/metrics", metrics(now)}} {
		b, err := json.Marshal(r.body)
		if err != nil {
			return err
		}
		if err := s.send(ctx, r.path, b); err != nil {
			return fmt.Errorf("send to %s: %w", r.path, err)
		}
	}
	return nil
}

func nano(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

// attrs makes attributes of pairs of a key and a value.
func attrs(kvs ...any) []object {
	var out []object
	for i := 0; i+1 < len(kvs); i += 2 {
		out = append(out, object{"key": kvs[i], "value": value(kvs[i+1])})
	}
	return out
}

func value(v any) object {
	switch v := v.(type) {
	case int:
		return object{"intValue": strconv.Itoa(v)}
	case float64:
		return object{"doubleValue": v}
	case bool:
		return object{"boolValue": v}
	case []any:
		var list []object
		for _, e := range v {
			list = append(list, value(e))
		}
		return object{"arrayValue": object{"values": list}}
	default:
		return object{"stringValue": fmt.Sprint(v)}
	}
}

// podUID is stable, so that recorded answers stay the same.
func podUID(service string) string {
	return map[string]string{
		"frontend": "11111111-1111-4111-8111-111111111111", "cart": "22222222-2222-4222-8222-222222222222",
		"database": "33333333-3333-4333-8333-333333333333",
	}[service]
}

func resource(service string) object {
	return object{"attributes": attrs(
		"service.name", service, "service.namespace", "shop", "service.instance.id", service+"-0", "service.version", "1.2.0",
		"k8s.cluster.name", "test", "k8s.namespace.name", "shop", "k8s.pod.name", service+"-0", "k8s.pod.uid", podUID(service),
		"k8s.container.name", service, "k8s.node.name", "node-1")}
}

func scope() object { return object{"name": "shop", "version": "1.2.0"} }

func traces(now time.Time) object {
	start := now.Add(-2 * time.Minute)
	at := func(d time.Duration) string { return nano(start.Add(d)) }
	ms := time.Millisecond
	span := func(id, parent, name string, kind int, from, to time.Duration, more object) object {
		o := object{
			"traceId": TraceID, "spanId": id, "parentSpanId": parent, "name": name, "kind": kind,
			"startTimeUnixNano": at(from), "endTimeUnixNano": at(to),
		}
		maps.Copy(o, more)
		return o
	}
	by := func(service string, spans ...object) object {
		return object{"resource": resource(service), "scopeSpans": []object{{"scope": scope(), "spans": spans}}}
	}
	root := span("eee19b7ec3c1b174", "", "GET /cart", 2, 0, 823*ms+137*time.Microsecond, object{
		"traceState": "vendor=1",
		"attributes": attrs("http.request.method", "GET", "http.response.status_code", 500, "ratio", 0.25, "cached", false, "big", 1<<60, "items", []any{"tea", 2}),
	})
	call := span("eee19b7ec3c1b175", "eee19b7ec3c1b174", "GetCart", 3, 2*ms, 820*ms, nil)
	serve := span("eee19b7ec3c1b176", "eee19b7ec3c1b175", "GetCart", 2, 3*ms, 819*ms, object{
		"links": []object{{"traceId": "00000000000000000000000000000abc", "spanId": "00000000000000cd", "attributes": attrs("why", "retry")}},
	})
	query := span("eee19b7ec3c1b177", "eee19b7ec3c1b176", "SELECT cart", 3, 5*ms, 815*ms+250*time.Microsecond, object{
		"status": object{"code": 2, "message": "deadlock"},
		"events": []object{{"timeUnixNano": at(810 * ms), "name": "exception", "attributes": attrs("exception.type", "Deadlock")}},
	})
	front := []object{root, call}
	for i := range 6 { // short traces around it
		o := span(fmt.Sprintf("aaaaaaaaaaaaaa%02x", i), "", "GET /", 2, time.Duration(i-6)*time.Minute, time.Duration(i-6)*time.Minute+time.Duration(10*(i+1))*ms, nil)
		o["traceId"] = fmt.Sprintf("000000000000000000000000000000%02x", i+1)
		front = append(front, o)
	}
	return object{"resourceSpans": []object{by("frontend", front...), by("cart", serve), by("database", query)}}
}

func logs(now time.Time) object {
	start := now.Add(-2 * time.Minute)
	record := func(after time.Duration, number int, text, body, span string, more ...any) object {
		o := object{
			"timeUnixNano": nano(start.Add(after)), "severityNumber": number, "severityText": text,
			"body": object{"stringValue": body}, "attributes": attrs(more...),
		}
		if span != "" {
			o["traceId"], o["spanId"] = TraceID, span
		}
		return o
	}
	ms := time.Millisecond
	by := func(service string, records ...object) object {
		return object{"resource": resource(service), "scopeLogs": []object{{"scope": scope(), "logRecords": records}}}
	}
	var front []object
	for i := range 8 {
		front = append(front, record(time.Duration(i-10)*time.Minute, 9, "INFO", "page served in "+strconv.Itoa(7*i+3)+" ms", "", "page", i))
	}
	front = append(front, record(823*ms, 17, "ERROR", "request failed: upstream timeout", "eee19b7ec3c1b174", "http.route", "/cart"))
	return object{"resourceLogs": []object{
		by("frontend", front...),
		by("cart", record(4*ms, 5, "DEBUG", "reading the cart", "eee19b7ec3c1b176"),
			record(500*ms, 13, "WARN", "still waiting", "eee19b7ec3c1b176", "attempt", 1), record(500*ms, 13, "WARN", "still waiting", "eee19b7ec3c1b176", "attempt", 1)),
		by("database", record(815*ms, 21, "FATAL", "deadlock found\nwhen trying to get lock", "eee19b7ec3c1b177", "table", "cart")),
	}}
}

func metrics(now time.Time) object {
	by := func(service string, ms ...object) object {
		return object{"resource": resource(service), "scopeMetrics": []object{{"scope": scope(), "metrics": ms}}}
	}
	const every = 15 * time.Second
	points := func(point func(i int, at time.Time) object) []object {
		var out []object
		n := int(Minutes * time.Minute / every)
		for i := range n + 1 {
			at := now.Add(-time.Duration(n-i) * every)
			o := point(i, at)
			o["timeUnixNano"], o["startTimeUnixNano"] = nano(at), nano(now.Add(-time.Hour))
			out = append(out, o)
		}
		return out
	}
	wave := func(i int) float64 { return float64((i*i)%17) / 4 }
	var all []object
	for k, service := range []string{"frontend", "cart", "database"} {
		all = append(all, by(service,
			object{"name": "container.memory.working_set", "unit": "By", "gauge": object{"dataPoints": points(func(i int, _ time.Time) object {
				return object{"asInt": strconv.Itoa((100 + 20*k + i%9) << 20)}
			})}},
			object{"name": "shop.requests", "unit": "{request}", "sum": object{"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": points(func(i int, _ time.Time) object {
				return object{"asInt": strconv.Itoa(i*(30+k*10) + int(wave(i))), "attributes": attrs("route", "/"+service)}
			})}},
			object{"name": "http.server.request.duration", "unit": "s", "histogram": object{"aggregationTemporality": 2, "dataPoints": points(func(i int, at time.Time) object {
				o := object{
					"explicitBounds": []float64{0.01, 0.1, 1}, "bucketCounts": []string{strconv.Itoa(20 * i), strconv.Itoa(8 * i), strconv.Itoa(2 * i), "0"},
					"count": strconv.Itoa(30 * i), "sum": 2*float64(i) + wave(i)/4, "attributes": attrs("http.route", "/"+service, "http.response.status_code", 200),
				}
				if at.Equal(now.Add(-2 * time.Minute)) {
					o["exemplars"] = []object{{"timeUnixNano": nano(at), "asDouble": 0.823, "traceId": TraceID, "spanId": "eee19b7ec3c1b174"}}
				}
				return o
			})}},
			object{"name": "shop.queue.wait", "unit": "s", "exponentialHistogram": object{"aggregationTemporality": 2, "dataPoints": points(func(i int, _ time.Time) object {
				return object{"scale": 0, "zeroCount": "0", "count": strconv.Itoa(3 * i), "sum": float64(i), "positive": object{"offset": -3, "bucketCounts": []string{strconv.Itoa(2 * i), strconv.Itoa(i)}}}
			})}}))
	}
	return object{"resourceMetrics": all}
}
