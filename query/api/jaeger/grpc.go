package jaeger

import (
	"context"
	"math"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/wire"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/storage"
)

// The two services take the same parameters but for the values of attributes, which the one of storage has typed.

// malformed is the answer to bytes that are not the message.
func malformed(err error) error {
	if err == nil || query.KindOf(err) == httpapi.BadData {
		return err
	}
	return httpapi.BadDataf("the request is malformed: %w", err)
}

// textOf returns the text of a field, or an error when it is none.
func textOf(f wire.Field) (string, error) {
	if f.Type != wire.Bytes {
		return "", wire.ErrMalformed
	}
	return f.S, nil
}

// nanosOf reads a Timestamp or a Duration.
func nanosOf(m string) (int64, error) {
	var seconds, nanos int64
	err := wire.Fields(m, func(f wire.Field) error {
		switch f.Num {
		case 1:
			seconds = int64(f.N)
		case 2:
			nanos = int64(int32(f.N))
		}
		return nil
	})
	if seconds > math.MaxInt64/int64(time.Second)-1 || seconds < math.MinInt64/int64(time.Second)+1 {
		return 0, httpapi.BadDataf("a time is not within the years 1678 to 2262")
	}
	return seconds*1e9 + nanos, err
}

// readParams reads a TraceQueryParameters. Field numbers differ from filter on.
func readParams(m string, storageAPI bool) (p params, err error) {
	p = newParams()
	err = wire.Fields(m, func(f wire.Field) (err error) {
		switch f.Num {
		case 1:
			p.service, err = textOf(f)
		case 2:
			p.operation, err = textOf(f)
		case 3:
			var a pair
			a, err = readPair(f.S, storageAPI)
			p.attrs = append(p.attrs, a)
		case 4:
			p.start, err = nanosOf(f.S)
		case 5:
			p.end, err = nanosOf(f.S)
		case 6:
			if f.S != "" {
				p.shortest, err = nanosOf(f.S)
			}
		case 7:
			if f.S != "" {
				p.longest, err = nanosOf(f.S)
			}
		case 8:
			p.depth = int(int32(f.N))
		case 9, 10, 11:
			if storageAPI && f.Num < 11 || !storageAPI && f.Num > 9 {
				return httpapi.Errorf(httpapi.BadData, "filters and pages are not supported; see GetCapabilities")
			}
		}
		return err
	})
	// Zero times and durations mean that there is no bound.
	if p.start == 0 {
		p.start = math.MinInt64
	}
	if p.end == 0 {
		p.end = math.MaxInt64
	}
	if p.shortest == 0 {
		p.shortest = math.MinInt64
	}
	if p.longest == 0 {
		p.longest = math.MaxInt64
	}
	if err != nil {
		return p, malformed(err)
	}
	return p, p.check()
}

func readPair(m string, typed bool) (a pair, err error) {
	err = wire.Fields(m, func(f wire.Field) (err error) {
		switch f.Num {
		case 1:
			a.key, err = textOf(f)
		case 2:
			if a.text, err = textOf(f); err == nil && typed {
				a.text, err = readAny(f.S)
			}
		}
		return err
	})
	return a, err
}

// readAny returns the text of an AnyValue of a simple type.
func readAny(m string) (text string, err error) {
	var v telemetry.Value
	err = wire.Fields(m, func(f wire.Field) error {
		switch f.Num {
		case 1:
			v = telemetry.String(f.S)
		case 2:
			v = telemetry.Bool(f.N != 0)
		case 3:
			v = telemetry.Int(int64(f.N))
		case 4:
			v = telemetry.Double(math.Float64frombits(f.N))
		case 7:
			v = telemetry.Bytes([]byte(f.S))
		default:
			return httpapi.BadDataf("attributes that are lists or maps cannot be looked for")
		}
		return nil
	})
	return v.Text(), err
}

// queryOf reads a request whose field 1 is the parameters.
func queryOf(req []byte, storageAPI bool) (p params, err error) {
	seen := false
	err = wire.Fields(string(req), func(f wire.Field) (err error) {
		if f.Num == 1 {
			seen = true
			p, err = readParams(f.S, storageAPI)
		}
		return err
	})
	if err == nil && !seen {
		err = httpapi.BadDataf("the request has no query")
	}
	return p, malformed(err)
}

func appendTime(dst []byte, num int, nanos int64) []byte {
	return wire.AppendMessage(dst, num, func(b []byte) []byte {
		t := time.Unix(0, nanos)
		return wire.AppendNumber(wire.AppendNumber(b, 1, uint64(t.Unix())), 2, uint64(t.Nanosecond()))
	})
}

// queryService is jaeger.api_v3.QueryService.
func (a *API) queryService() httpapi.RawService {
	return httpapi.RawService{
		Name: "jaeger.api_v3.QueryService",
		Unary: map[string]func(ctx context.Context, req []byte) ([]byte, error){
			"GetServices":     a.rpcServices,
			"GetOperations":   a.rpcOperations,
			"GetDependencies": a.rpcDependencies,
		},
		Stream: map[string]func(ctx context.Context, req []byte, send func([]byte) error) error{
			"GetTrace": a.rpcTrace,
			"FindTraces": func(ctx context.Context, req []byte, send func([]byte) error) error {
				return a.rpcFind(ctx, req, false, send)
			},
			"FindTraceSummaries": func(ctx context.Context, req []byte, send func([]byte) error) error {
				return a.rpcSummaries(ctx, req, false, send)
			},
		},
	}
}

// traceReader is jaeger.storage.v2.TraceReader.
func (a *API) traceReader() httpapi.RawService {
	return httpapi.RawService{
		Name: "jaeger.storage.v2.TraceReader",
		Unary: map[string]func(ctx context.Context, req []byte) ([]byte, error){
			"GetServices":   a.rpcServices,
			"GetOperations": a.rpcOperations,
			"FindTraceIDs":  a.rpcFindIDs,
		},
		Stream: map[string]func(ctx context.Context, req []byte, send func([]byte) error) error{
			"GetTraces": a.rpcTraces,
			"FindTraces": func(ctx context.Context, req []byte, send func([]byte) error) error {
				return a.rpcFind(ctx, req, true, send)
			},
			"FindTraceSummaries": func(ctx context.Context, req []byte, send func([]byte) error) error {
				return a.rpcSummaries(ctx, req, true, send)
			},
		},
	}
}

// dependencyReader is jaeger.storage.v2.DependencyReader.
func (a *API) dependencyReader() httpapi.RawService {
	return httpapi.RawService{
		Name:  "jaeger.storage.v2.DependencyReader",
		Unary: map[string]func(ctx context.Context, req []byte) ([]byte, error){"GetDependencies": a.rpcDependencies},
	}
}

// capabilities is jaeger.storage.v2.Capabilities: a search needs no service, and one span must match all of it.
func capabilities() httpapi.RawService {
	return httpapi.RawService{
		Name: "jaeger.storage.v2.Capabilities",
		Unary: map[string]func(ctx context.Context, req []byte) ([]byte, error){
			"GetCapabilities": func(context.Context, []byte) ([]byte, error) {
				return wire.AppendMessage(nil, 1, func(b []byte) []byte { return wire.AppendNumber(wire.AppendNumber(b, 1, 1), 2, 1) }), nil
			},
		},
	}
}

func (a *API) rpcServices(ctx context.Context, _ []byte) (out []byte, err error) {
	err = a.view(ctx, query.Labels, "GetServices", func(v storage.View, tenant telemetry.Tenant) error {
		list, err := services(ctx, v, tenant)
		for _, s := range list {
			out = wire.AppendBytes(out, 1, s)
		}
		return err
	})
	return out, err
}

func (a *API) rpcOperations(ctx context.Context, req []byte) (out []byte, err error) {
	var service, kind string
	err = wire.Fields(string(req), func(f wire.Field) (err error) {
		switch f.Num {
		case 1:
			service, err = textOf(f)
		case 2:
			kind, err = textOf(f)
		}
		return err
	})
	if err != nil {
		return nil, malformed(err)
	}
	err = a.view(ctx, query.Labels, "GetOperations "+service, func(v storage.View, tenant telemetry.Tenant) error {
		list, err := a.operationsOf(&call{ctx: ctx, view: v, tenant: tenant}, service, kind)
		for _, op := range list {
			out = wire.AppendMessage(out, 1, func(b []byte) []byte { return wire.AppendText(wire.AppendText(b, 1, op.Name), 2, op.Kind) })
		}
		return err
	})
	return out, err
}

func (a *API) rpcDependencies(ctx context.Context, req []byte) (out []byte, err error) {
	start, end := int64(math.MinInt64), int64(math.MaxInt64)
	err = wire.Fields(string(req), func(f wire.Field) (err error) {
		switch f.Num {
		case 1:
			start, err = nanosOf(f.S)
		case 2:
			end, err = nanosOf(f.S)
		}
		return err
	})
	if err != nil {
		return nil, malformed(err)
	}
	err = a.view(ctx, query.Search, "GetDependencies", func(v storage.View, tenant telemetry.Tenant) error {
		list, err := dependencies(ctx, v, tenant, start, end)
		for _, d := range list {
			out = wire.AppendMessage(out, 1, func(b []byte) []byte {
				return wire.AppendNumber(wire.AppendText(wire.AppendText(b, 1, d.parent), 2, d.child), 3, d.calls)
			})
		}
		return err
	})
	return out, err
}

// rpcTrace is QueryService.GetTrace.
func (a *API) rpcTrace(ctx context.Context, req []byte, send func([]byte) error) error {
	var text string
	err := wire.Fields(string(req), func(f wire.Field) (err error) {
		if f.Num == 1 {
			text, err = textOf(f)
		}
		return err
	})
	if err != nil {
		return malformed(err)
	}
	id, err := telemetry.ParseTraceID(text)
	if err != nil {
		return httpapi.BadDataf("%w", err)
	}
	return a.view(ctx, query.Trace, "GetTrace "+text, func(v storage.View, tenant telemetry.Tenant) error {
		any, err := chunks(ctx, v, tenant, id, send)
		if err == nil && !any {
			err = httpapi.NotFoundf("trace %s not found", id)
		}
		return err
	})
}

// rpcTraces is TraceReader.GetTraces: traces that are not stored are left out.
func (a *API) rpcTraces(ctx context.Context, req []byte, send func([]byte) error) error {
	var ids []telemetry.TraceID
	err := wire.Fields(string(req), func(f wire.Field) error {
		if f.Num != 1 {
			return nil
		}
		return wire.Fields(f.S, func(f wire.Field) error {
			if f.Num != 1 {
				return nil
			}
			if len(f.S) != 16 {
				return httpapi.BadDataf("a trace ID has %d bytes, want 16", len(f.S))
			}
			ids = append(ids, telemetry.TraceID([]byte(f.S)))
			return nil
		})
	})
	if err != nil {
		return malformed(err)
	}
	return a.view(ctx, query.Trace, "GetTraces", func(v storage.View, tenant telemetry.Tenant) error {
		for _, id := range ids {
			if _, err := chunks(ctx, v, tenant, id, send); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *API) rpcFind(ctx context.Context, req []byte, storageAPI bool, send func([]byte) error) error {
	p, err := queryOf(req, storageAPI)
	if err != nil {
		return err
	}
	return a.view(ctx, query.Search, "FindTraces "+p.service, func(v storage.View, tenant telemetry.Tenant) error {
		list, err := find(ctx, v, tenant, &p)
		if err != nil {
			return err
		}
		for _, t := range list {
			if _, err := chunks(ctx, v, tenant, t.id, send); err != nil {
				return err
			}
		}
		return nil
	})
}

// rpcFindIDs is TraceReader.FindTraceIDs.
func (a *API) rpcFindIDs(ctx context.Context, req []byte) (out []byte, err error) {
	p, err := queryOf(req, true)
	if err != nil {
		return nil, err
	}
	err = a.view(ctx, query.Search, "FindTraceIDs "+p.service, func(v storage.View, tenant telemetry.Tenant) error {
		list, err := find(ctx, v, tenant, &p)
		if err != nil {
			return err
		}
		sums, err := summaries(ctx, v, tenant, list)
		for _, s := range sums {
			out = wire.AppendMessage(out, 1, func(b []byte) []byte {
				return appendTime(appendTime(wire.AppendBytes(b, 1, s.id[:]), 2, s.start), 3, s.end)
			})
		}
		return err
	})
	return out, err
}

// summaryChunk is how many summaries one message holds.
const summaryChunk = 100

func (a *API) rpcSummaries(ctx context.Context, req []byte, storageAPI bool, send func([]byte) error) error {
	p, err := queryOf(req, storageAPI)
	if err != nil {
		return err
	}
	return a.view(ctx, query.Search, "FindTraceSummaries "+p.service, func(v storage.View, tenant telemetry.Tenant) error {
		list, err := find(ctx, v, tenant, &p)
		if err != nil {
			return err
		}
		sums, err := summaries(ctx, v, tenant, list)
		if err != nil {
			return err
		}
		var out []byte
		for i := range sums {
			out = wire.AppendMessage(out, 1, func(b []byte) []byte { return sums[i].append(b, storageAPI) })
			if i%summaryChunk == summaryChunk-1 || i == len(sums)-1 {
				if err := send(out); err != nil {
					return err
				}
				out = nil
			}
		}
		return nil
	})
}

// append appends the fields of a TraceSummary: the ID as bytes, or as text.
func (s *summary) append(b []byte, storageAPI bool) []byte {
	if storageAPI {
		b = wire.AppendBytes(b, 1, s.id[:])
	} else {
		b = wire.AppendBytes(b, 1, s.id.String())
	}
	b = wire.AppendText(b, 2, s.rootService)
	b = wire.AppendText(b, 3, s.rootName)
	b = wire.AppendFixed64(b, 4, uint64(s.start))
	b = wire.AppendFixed64(b, 5, uint64(s.end))
	b = wire.AppendNumber(b, 6, uint64(s.spans))
	b = wire.AppendNumber(b, 7, uint64(s.errors))
	b = wire.AppendNumber(b, 8, uint64(s.orphans))
	for _, x := range s.services {
		b = wire.AppendMessage(b, 9, func(b []byte) []byte {
			return wire.AppendNumber(wire.AppendNumber(wire.AppendText(b, 1, x.name), 2, uint64(x.spans)), 3, uint64(x.errors))
		})
	}
	return b
}
