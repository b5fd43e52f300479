//go:build long

package tempo

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/braidobs/braid/internal/testkit/rawgrpc"
	"github.com/braidobs/braid/internal/wire"
)

// call calls a method of the StreamingQuerier on the port of HTTP, and returns the fields of all messages.
func (d *differential) call(t *testing.T, s server, tenant, method string, req []byte) ([]wire.Field, error) {
	t.Helper()
	if d.conns == nil {
		d.conns = make(map[string]*grpc.ClientConn)
	}
	if d.conns[s.HTTP] == nil {
		d.conns[s.HTTP] = rawgrpc.Dial(d.t, s.HTTP)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-scope-orgid", tenant)
	messages, err := rawgrpc.Call(ctx, d.conns[s.HTTP], "/tempopb.StreamingQuerier/"+method, req)
	var out []wire.Field
	for _, m := range messages {
		out = append(out, fields(t, m)...)
	}
	return out, err
}

func fields(t *testing.T, m string) (out []wire.Field) {
	t.Helper()
	require.NoError(t, wire.Fields(m, func(f wire.Field) error { out = append(out, f); return nil }))
	return out
}

// streamed searches over gRPC. Of a trace that comes several times the last is what counts.
func (d *differential) streamed(t *testing.T, s server, tenant, q string) answer {
	t.Helper()
	req := wire.AppendNumber(wire.AppendText(nil, 8, q), 4, 1000)
	req = wire.AppendNumber(wire.AppendNumber(req, 5, uint64(d.base.Unix()-60)), 6, uint64(d.base.Unix()+90))
	found, err := d.call(t, s, tenant, "Search", wire.AppendNumber(req, 9, 100))
	if err != nil {
		return answer{err: err.Error()}
	}
	traces := make(map[string]foundTrace)
	for _, f := range found {
		if f.Num == 1 {
			tr := readTrace(t, f.S)
			traces[tr.TraceID] = tr
		}
	}
	res := searchResult{Traces: slices.Collect(maps.Values(traces))}
	return res.answer(q)
}

func readTrace(t *testing.T, m string) foundTrace {
	t.Helper()
	tr := foundTrace{}
	for _, f := range fields(t, m) {
		switch f.Num {
		case 1:
			tr.TraceID = f.S
		case 2:
			tr.RootServiceName = f.S
		case 3:
			tr.RootTraceName = f.S
		case 4:
			tr.StartTimeUnixNano = strconv.FormatUint(f.N, 10)
		case 5:
			tr.DurationMs = int(f.N)
		case 7:
			tr.SpanSets = append(tr.SpanSets, readSet(t, f.S))
		case 8:
			if tr.ServiceStats == nil {
				tr.ServiceStats = make(map[string]serviceStats)
			}
			name, stats := "", serviceStats{}
			for _, e := range fields(t, f.S) {
				if e.Num == 1 {
					name = e.S
					continue
				}
				for _, n := range fields(t, e.S) {
					if n.Num == 1 {
						stats.SpanCount = int(n.N)
					} else {
						stats.ErrorCount = int(n.N)
					}
				}
			}
			tr.ServiceStats[name] = stats
		}
	}
	return tr
}

func readSet(t *testing.T, m string) foundSet {
	t.Helper()
	set := foundSet{}
	for _, f := range fields(t, m) {
		switch f.Num {
		case 1:
			sp := foundSpan{}
			for _, f := range fields(t, f.S) {
				switch f.Num {
				case 1:
					sp.SpanID = f.S
				case 2:
					sp.Name = f.S
				case 3:
					sp.StartTimeUnixNano = strconv.FormatUint(f.N, 10)
				case 4:
					sp.DurationNanos = strconv.FormatUint(f.N, 10)
				case 5:
					sp.Attributes = append(sp.Attributes, readAttr(t, f.S))
				}
			}
			set.Spans = append(set.Spans, sp)
		case 2:
			set.Matched = int(f.N)
		case 3:
			set.Attributes = append(set.Attributes, readAttr(t, f.S))
		}
	}
	return set
}

// readAttr reads a KeyValue of OTLP; the value is named as JSON names it.
func readAttr(t *testing.T, m string) attr {
	t.Helper()
	a := attr{Value: make(map[string]any)}
	for _, f := range fields(t, m) {
		if f.Num == 1 {
			a.Key = f.S
			continue
		}
		for _, v := range fields(t, f.S) {
			switch v.Num {
			case 1:
				a.Value["stringValue"] = v.S
			case 2:
				a.Value["boolValue"] = v.N != 0
			case 3:
				a.Value["intValue"] = strconv.FormatInt(int64(v.N), 10)
			case 4:
				a.Value["doubleValue"] = math.Float64frombits(v.N)
			default:
				a.Value["other"] = v.S
			}
		}
	}
	return a
}

// streamedSeries asks for numbers over time over gRPC. Of a series that comes several times the last is what counts.
func (d *differential) streamedSeries(t *testing.T, s server, tenant, q string) answer {
	t.Helper()
	req := wire.AppendNumber(wire.AppendText(nil, 1, q), 2, uint64(d.base.Add(-10*time.Second).UnixNano()))
	req = wire.AppendNumber(req, 3, uint64(d.base.Add(90*time.Second).UnixNano()))
	found, err := d.call(t, s, tenant, "MetricsQueryRange", wire.AppendNumber(req, 4, uint64(10*time.Second)))
	if err != nil {
		return answer{err: err.Error()}
	}
	list := make(map[string]series)
	for _, f := range found {
		if f.Num != 1 {
			continue
		}
		one := series{}
		for _, f := range fields(t, f.S) {
			switch f.Num {
			case 1:
				one.Labels = append(one.Labels, readAttr(t, f.S))
			case 2:
				p := sample{TimestampMs: "0"}
				for _, f := range fields(t, f.S) {
					if f.Num == 1 {
						p.Value = math.Float64frombits(f.N)
					} else {
						p.TimestampMs = strconv.FormatUint(f.N, 10)
					}
				}
				one.Samples = append(one.Samples, p)
			}
		}
		list[one.Labels.String()] = one
	}
	return answer{rows: points(q, slices.Collect(maps.Values(list)))}
}
