package tempo

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql"
)

const (
	// since is what a query of numbers is about that tells no time.
	since = time.Hour
	// defaultExemplars is how many exemplars a range query has.
	defaultExemplars = 100
	maxExemplars     = 1000
)

// metricsOf reads a query of numbers.
func (a *API) metricsOf(c *call) (q traceql.MetricsQuery, err error) {
	p := c.params
	text := p.get("q")
	if text == "" {
		text = p.get("query")
	}
	if text == "" {
		return q, httpapi.BadDataf("the parameter q is missing: want a TraceQL query such as { } | rate()")
	}
	if q.Query, err = traceql.Parse(text); err != nil {
		return q, fmt.Errorf("invalid q: %w", err)
	}
	q.Tenant = c.tenant
	if q.End, err = p.time("end", a.Now().UnixNano()); err != nil {
		return q, err
	}
	length, err := p.duration("since", int64(since))
	if err != nil {
		return q, err
	}
	if q.Start, err = p.time("start", q.End-length); err != nil {
		return q, err
	}
	if q.End < q.Start {
		return q, httpapi.BadDataf("invalid end %q: it is before start %q", p.get("end"), p.get("start"))
	}
	return q, nil
}

// stepOf returns the distance of points: what is asked for, or what makes about a hundred of them.
func stepOf(text string, length int64) (int64, error) {
	if text == "" {
		for _, s := range []time.Duration{time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour} {
			if length/int64(s) <= 120 {
				return int64(s), nil
			}
		}
		return int64(6 * time.Hour), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		seconds, bad := strconv.ParseFloat(text, 64)
		if bad != nil || !(seconds > 0 && seconds < math.MaxInt64/1e9) {
			return 0, httpapi.BadDataf("invalid step %q: want a duration such as 15s or 1m, or seconds", text)
		}
		d = time.Duration(seconds * 1e9)
	}
	if d < time.Millisecond {
		return 0, httpapi.BadDataf("invalid step %q: want a millisecond at least", text)
	}
	return int64(d), nil
}

// rangeOf answers a query over time.
func (a *API) rangeOf(c *call) (*traceql.MetricsResult, error) {
	q, err := a.metricsOf(c)
	if err != nil {
		return nil, err
	}
	if q.Step, err = stepOf(c.params.get("step"), q.End-q.Start); err != nil {
		return nil, err
	}
	if q.Exemplars, err = c.params.number("exemplars", defaultExemplars, 0, maxExemplars); err != nil {
		return nil, err
	}
	return a.engine().Metrics(c.ctx, c.view, q)
}

// instantOf answers a query with one number a series.
func (a *API) instantOf(c *call) (*traceql.MetricsResult, error) {
	q, err := a.metricsOf(c)
	if err != nil {
		return nil, err
	}
	return a.engine().Metrics(c.ctx, c.view, q)
}

// last returns the last of some points.
func last(ps []traceql.Point) float64 {
	if len(ps) == 0 {
		return math.NaN()
	}
	return ps[len(ps)-1].Value
}

func (a *API) queryRange(c *call) (answer, error) {
	res, err := a.rangeOf(c)
	if err != nil {
		return answer{}, err
	}
	body := []byte(`{"series":[`)
	for i := range res.Series {
		s := &res.Series[i]
		if i > 0 {
			body = append(body, ',')
		}
		body = appendAttrs(append(body, `{"labels":`...), s.Labels)
		body = append(body, `,"samples":[`...)
		for j, p := range s.Points {
			if j > 0 {
				body = append(body, ',')
			}
			body = appendSample(append(body, '{'), p.Time, p.Value)
			body = append(body, '}')
		}
		body = append(body, ']')
		if len(s.Exemplars) > 0 {
			body = append(body, `,"exemplars":[`...)
			for j, e := range s.Exemplars {
				if j > 0 {
					body = append(body, ',')
				}
				body = append(body, `{"labels":[{"key":"trace:id","value":{"stringValue":"`...)
				body = append(append(body, e.Trace.String()...), `"}}],`...)
				body = append(appendSample(body, e.Time, e.Value), '}')
			}
			body = append(body, ']')
		}
		body = append(body, '}')
	}
	return answer{typeJSON, append(appendStats(append(body, `],"metrics":`...), res.Stats), '}'), nil}, nil
}

func appendSample(dst []byte, t int64, v float64) []byte {
	dst = strconv.AppendInt(append(dst, `"timestampMs":"`...), t/int64(time.Millisecond), 10)
	return appendFloat(append(dst, `","value":`...), v)
}

// appendFloat appends a number, one that JSON cannot write as protobuf does.
func appendFloat(dst []byte, v float64) []byte { return telemetry.Double(v).AppendJSON(dst) }

func (a *API) queryInstant(c *call) (answer, error) {
	res, err := a.instantOf(c)
	if err != nil {
		return answer{}, err
	}
	body := []byte(`{"series":[`)
	for i := range res.Series {
		s := &res.Series[i]
		if i > 0 {
			body = append(body, ',')
		}
		body = appendAttrs(append(body, `{"labels":`...), s.Labels)
		body = append(appendFloat(append(body, `,"value":`...), last(s.Points)), '}')
	}
	return answer{typeJSON, append(appendStats(append(body, `],"metrics":`...), res.Stats), '}'), nil}, nil
}
