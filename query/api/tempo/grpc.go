package tempo

import (
	"context"
	"encoding/binary"
	"math"
	"net/url"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/wire"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/api/otlp"
	"github.com/braidobs/braid/query/traceql"
)

// RegisterGRPC adds tempopb.StreamingQuerier, with which Grafana's data source gets answers while they are found. Requests
// are turned into the parameters of HTTP, so that both mean the same; searches send what they have found so far.
func (a *API) RegisterGRPC(r grpc.ServiceRegistrar) {
	stream := func(l query.Language, read func(req string) (params, error), f func(c *call, send func([]byte) error) error) func(context.Context, []byte, func([]byte) error) error {
		return func(ctx context.Context, req []byte, send func([]byte) error) error {
			p, err := read(string(req))
			if err != nil {
				return httpapi.BadDataf("the request is malformed: %w", err)
			}
			return a.query(ctx, l, p.get("q"), func(c *call) error {
				c.params = p
				return f(c, send)
			})
		}
	}
	httpapi.RawService{
		Name: "tempopb.StreamingQuerier",
		Stream: map[string]func(context.Context, []byte, func([]byte) error) error{
			"Search":              stream(query.TraceQL, readSearch, a.rpcSearch),
			"SearchTags":          stream(query.Labels, readTags, a.rpcTags),
			"SearchTagsV2":        stream(query.Labels, readTags, a.rpcTagsV2),
			"SearchTagValues":     stream(query.Labels, readValues, a.rpcValues),
			"SearchTagValuesV2":   stream(query.Labels, readValues, a.rpcValuesV2),
			"MetricsQueryRange":   stream(query.TraceQL, readRange, a.rpcRange),
			"MetricsQueryInstant": stream(query.TraceQL, readRange, a.rpcInstant),
		},
	}.Register(r)
}

// readParams turns the fields of a message into parameters, by their numbers; durations are in the given unit.
func readParams(m string, names map[uint64]string, more func(p url.Values, f wire.Field) error) (params, error) {
	p := make(url.Values)
	err := wire.Fields(m, func(f wire.Field) error {
		name := names[f.Num]
		switch {
		case name == "":
			if more != nil {
				return more(p, f)
			}
		case f.Type == wire.Bytes:
			p.Set(name, f.S)
		case f.Type == wire.Varint && f.N > 0:
			p.Set(name, strconv.FormatUint(f.N, 10))
		}
		return nil
	})
	return params(p), err
}

func readSearch(m string) (params, error) {
	p, err := readParams(m, map[uint64]string{4: "limit", 5: "start", 6: "end", 8: "q", 9: "spss"}, func(p url.Values, f wire.Field) error {
		switch f.Num {
		case 1:
			var k, v string
			err := wire.Fields(f.S, func(f wire.Field) error {
				switch f.Num {
				case 1:
					k = f.S
				case 2:
					v = f.S
				}
				return nil
			})
			p.Set("tags", p.Get("tags")+" "+k+"="+strconv.Quote(v))
			return err
		case 2:
			p.Set("minDuration", strconv.FormatUint(f.N, 10)+"ms")
		case 3:
			if f.N > 0 {
				p.Set("maxDuration", strconv.FormatUint(f.N, 10)+"ms")
			}
		}
		return nil
	})
	return p, err
}

func readTags(m string) (params, error) {
	return readParams(m, map[uint64]string{1: "scope", 2: "q", 3: "start", 4: "end", 5: "limit"}, nil)
}

func readValues(m string) (params, error) {
	return readParams(m, map[uint64]string{1: "tag", 2: "q", 4: "start", 5: "end", 6: "limit"}, nil)
}

func readRange(m string) (params, error) {
	p, err := readParams(m, map[uint64]string{1: "q", 2: "start", 3: "end", 16: "exemplars"}, func(p url.Values, f wire.Field) error {
		if f.Num == 4 && f.N > 0 && f.N < math.MaxInt64 {
			p.Set("step", time.Duration(f.N).String())
		}
		return nil
	})
	return p, err
}

// pageTraces is how many traces of a search are found before they are sent.
const pageTraces = 20

// rpcSearch sends each message as soon as it is found: pages of the one search, the most recent traces first.
func (a *API) rpcSearch(c *call, send func([]byte) error) error {
	q, err := a.searchOf(c)
	if err != nil {
		return err
	}
	var stats traceql.Stats
	for left := q.Limit; ; {
		q.Limit = min(left, pageTraces)
		res, err := a.engine().Search(c.ctx, c.view, q)
		if err != nil {
			return err
		}
		left -= len(res.Traces)
		stats.Traces, stats.Spans = stats.Traces+res.Stats.Traces, stats.Spans+res.Stats.Spans
		stats.Bytes, stats.Blocks = stats.Bytes+res.Stats.Bytes, stats.Blocks+res.Stats.Blocks
		var m []byte
		for i := range res.Traces {
			m = wire.AppendMessage(m, 1, func(b []byte) []byte { return protoTrace(b, &res.Traces[i], q.Spans > 0) })
		}
		if err := send(protoStats(m, stats)); err != nil {
			return err
		}
		if q.After = res.Next; q.After == nil || left <= 0 {
			return nil
		}
	}
}

// protoStats appends the metrics of an answer.
func protoStats(dst []byte, s traceql.Stats) []byte {
	return wire.AppendMessage(dst, 2, func(b []byte) []byte {
		b = wire.AppendNumber(b, 1, uint64(s.Traces))
		b = wire.AppendNumber(b, 2, uint64(s.Bytes))
		b = wire.AppendNumber(b, 3, uint64(s.Blocks))
		b = wire.AppendNumber(wire.AppendNumber(b, 4, 1), 5, 1)
		return wire.AppendNumber(b, 7, uint64(s.Spans))
	})
}

// protoRead appends the metrics of an answer about tags.
func protoRead(dst []byte, s traceql.Stats) []byte {
	return wire.AppendMessage(dst, 2, func(b []byte) []byte {
		b = wire.AppendNumber(b, 1, uint64(s.Bytes))
		b = wire.AppendNumber(wire.AppendNumber(b, 2, 1), 3, 1)
		return wire.AppendNumber(b, 4, uint64(s.Blocks))
	})
}

func protoTrace(b []byte, t *traceql.Trace, sets bool) []byte {
	b = wire.AppendText(b, 1, t.ID.String())
	b = wire.AppendText(b, 2, t.RootService)
	b = wire.AppendText(b, 3, t.RootName)
	b = wire.AppendNumber(b, 4, uint64(t.Start))
	b = wire.AppendNumber(b, 5, uint64(t.Duration/int64(time.Millisecond)))
	if sets {
		for i := range t.Sets {
			set := func(b []byte) []byte { return protoSet(b, &t.Sets[i]) }
			if i == 0 {
				b = wire.AppendMessage(b, 6, set)
			}
			b = wire.AppendMessage(b, 7, set)
		}
	}
	for _, s := range t.Services {
		b = wire.AppendMessage(b, 8, func(b []byte) []byte {
			return wire.AppendMessage(wire.AppendText(b, 1, s.Service), 2, func(b []byte) []byte {
				return wire.AppendNumber(wire.AppendNumber(b, 1, uint64(s.Spans)), 2, uint64(s.Errors))
			})
		})
	}
	return b
}

func protoSet(b []byte, set *traceql.SpanSet) []byte {
	for i := range set.Spans {
		s := &set.Spans[i]
		b = wire.AppendMessage(b, 1, func(b []byte) []byte {
			b = wire.AppendText(wire.AppendText(b, 1, s.ID.String()), 2, s.Name)
			b = wire.AppendNumber(wire.AppendNumber(b, 3, uint64(s.Start)), 4, uint64(s.Duration))
			return protoAttrs(b, 5, s.Attrs)
		})
	}
	return protoAttrs(wire.AppendNumber(b, 2, uint64(set.Matched)), 3, set.Attrs)
}

func protoAttrs(b []byte, num int, as []traceql.Attr) []byte {
	for i := range as {
		b = protoText(b, num, as[i].Key, sentAs(as[i].Value))
	}
	return b
}

func protoText(b []byte, num int, key string, v telemetry.Value) []byte {
	return wire.AppendMessage(b, num, func(b []byte) []byte {
		return wire.AppendMessage(wire.AppendText(b, 1, key), 2, func(b []byte) []byte { return otlp.AppendValue(b, v) })
	})
}

func (a *API) rpcTags(c *call, send func([]byte) error) error {
	tags, stats, err := a.tagsOf(c)
	if err != nil {
		return err
	}
	var m []byte
	for _, n := range namesOf(tags) {
		m = wire.AppendBytes(m, 1, n)
	}
	return send(protoRead(m, stats))
}

func (a *API) rpcTagsV2(c *call, send func([]byte) error) error {
	tags, stats, err := a.tagsOf(c)
	if err != nil {
		return err
	}
	var m []byte
	for _, t := range tags {
		m = wire.AppendMessage(m, 1, func(b []byte) []byte {
			b = wire.AppendText(b, 1, t.Scope)
			for _, n := range t.Names {
				b = wire.AppendBytes(b, 2, n)
			}
			return b
		})
	}
	return send(protoRead(m, stats))
}

func (a *API) rpcValues(c *call, send func([]byte) error) error {
	vs, stats, err := a.valuesOf(c, c.params.get("tag"))
	if err != nil {
		return err
	}
	var m []byte
	for _, s := range texts(vs) {
		m = wire.AppendBytes(m, 1, s)
	}
	return send(protoRead(m, stats))
}

func (a *API) rpcValuesV2(c *call, send func([]byte) error) error {
	vs, stats, err := a.valuesOf(c, c.params.get("tag"))
	if err != nil {
		return err
	}
	var m []byte
	for _, v := range vs {
		m = wire.AppendMessage(m, 1, func(b []byte) []byte { return wire.AppendText(wire.AppendText(b, 1, typeName(v)), 2, valueText(v)) })
	}
	return send(protoRead(m, stats))
}

// protoDouble appends a number that may be zero.
func protoDouble(b []byte, num int, v float64) []byte {
	return binary.LittleEndian.AppendUint64(binary.AppendUvarint(b, uint64(num)<<3|uint64(wire.Fixed64)), math.Float64bits(v))
}

func (a *API) rpcRange(c *call, send func([]byte) error) error {
	res, err := a.rangeOf(c)
	if err != nil {
		return err
	}
	var m []byte
	for i := range res.Series {
		s := &res.Series[i]
		m = wire.AppendMessage(m, 1, func(b []byte) []byte {
			b = protoAttrs(b, 1, s.Labels)
			for _, p := range s.Points {
				b = wire.AppendMessage(b, 2, func(b []byte) []byte {
					return wire.AppendNumber(protoDouble(b, 1, p.Value), 2, uint64(p.Time/int64(time.Millisecond)))
				})
			}
			for _, e := range s.Exemplars {
				b = wire.AppendMessage(b, 4, func(b []byte) []byte {
					b = protoText(b, 1, "trace:id", telemetry.String(e.Trace.String()))
					return wire.AppendNumber(protoDouble(b, 2, e.Value), 3, uint64(e.Time/int64(time.Millisecond)))
				})
			}
			return b
		})
	}
	return send(protoStats(m, res.Stats))
}

func (a *API) rpcInstant(c *call, send func([]byte) error) error {
	res, err := a.instantOf(c)
	if err != nil {
		return err
	}
	var m []byte
	for i := range res.Series {
		m = wire.AppendMessage(m, 1, func(b []byte) []byte {
			return protoDouble(protoAttrs(b, 1, res.Series[i].Labels), 2, last(res.Series[i].Points))
		})
	}
	return send(protoStats(m, res.Stats))
}
