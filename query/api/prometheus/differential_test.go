package prometheus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	stock "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/jsonutil"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/storage"
)

// TestSameAsPrometheus asks the same questions of the stock engine over the stock database and of Braid over the
// naive store, and wants the same bytes.
func TestSameAsPrometheus(t *testing.T) {
	const step = 15 * time.Second
	start := time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC)
	db := teststorage.New(t)
	s := testkit.NewStore("c")
	g := testkit.NewGen(42, testkit.Options{
		Tenants: []telemetry.Tenant{tenant}, Signals: []storage.Signal{storage.Metrics}, InOrder: true, Start: start, Step: step,
	})
	source := promstorage.QueryableFunc(func(mint, maxt int64) (promstorage.Querier, error) {
		q, err := db.Querier(mint, maxt)
		return inOrder{q}, err
	})
	samples := 0
	for range 200 {
		req := g.Request(40)
		app := db.Appender(t.Context())
		for i := range req.Batches {
			b := &req.Batches[i]
			b.Series = slices.DeleteFunc(b.Series, func(se telemetry.Series) bool { return strings.Contains(string(se.Labels), "\xff") })
			for j := range b.Series {
				if se := &b.Series[j]; len(se.Samples) > 0 && (i+j)%17 == 0 {
					se.Samples[len(se.Samples)-1].V = math.Float64frombits(value.StaleNaN)
				}
				samples += appendTo(t, app, &b.Series[j])
			}
		}
		require.NoError(t, app.Commit())
		_, _, err := s.Write(t.Context(), req)
		require.NoError(t, err)
	}
	require.Greater(t, samples, 5000)

	h := handler(t, s, nil)
	engine := stock.NewEngine(stock.EngineOpts{
		MaxSamples: 50_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 }, Parser: parser.NewParser(parser.Options{}),
	})
	rng := rand.New(rand.NewPCG(7, 7))
	answers, failures, again := 0, 0, 0
	for range 600 {
		expr := expression(rng, 2)
		at := start.Add(time.Duration(rng.Int64N(int64(50 * time.Minute)))).Truncate(time.Millisecond)
		params := url.Values{"query": {expr}}
		path := "query"
		if rng.IntN(2) == 0 {
			params.Set("time", at.Format(time.RFC3339Nano))
		} else {
			path = "query_range"
			params.Set("start", fmt.Sprintf("%.3f", float64(at.UnixMilli())/1000))
			params.Set("end", at.Add(10*time.Minute).Format(time.RFC3339Nano))
			params.Set("step", "47s")
		}
		ask := func() (string, error) {
			var q stock.Query
			var err error
			if path == "query" {
				q, err = engine.NewInstantQuery(t.Context(), source, nil, expr, at)
			} else {
				q, err = engine.NewRangeQuery(t.Context(), source, nil, expr, at, at.Add(10*time.Minute), 47*time.Second)
			}
			require.NoError(t, err, expr)
			defer q.Close()
			res := q.Exec(t.Context())
			if res.Err != nil {
				return "", res.Err
			}
			return reference(expr, res), nil
		}
		// The engine adds up some intermediate results in the order of a map, so that last bits differ from run to run.
		for attempt := 0; ; attempt++ {
			want, err := ask()
			code, body := do(t, h, http.MethodGet, "/api/v1/"+path+"?"+params.Encode(), "")
			if err != nil {
				failures++
				require.Equal(t, http.StatusUnprocessableEntity, code, "%s\n%v\n%s", expr, err, body)
				break
			}
			require.Equal(t, http.StatusOK, code, body)
			if !strings.Contains(expr, "sort") { // nothing else gives a vector an order
				want, body = sorted(t, want), sorted(t, body)
			}
			if want != body && attempt < 20 {
				again++
				continue
			}
			require.Equal(t, want, body, expr)
			if strings.Contains(want, `"value`) || strings.Contains(want, `"histogram`) {
				answers++
			}
			break
		}
	}
	t.Logf("%d samples, 600 queries: %d with an answer, %d with an error, %d asked again", samples, answers, failures, again)
	require.Greater(t, answers, 200)
	require.Less(t, again, 300)

	querier, err := db.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, querier.Close()) }()
	names, _, err := querier.LabelNames(t.Context(), nil)
	require.NoError(t, err)
	_, body := do(t, h, http.MethodGet, "/api/v1/labels", "")
	require.Equal(t, `{"status":"success","data":["`+strings.Join(names, `","`)+`"]}`, body)
}

// sorted puts the result of an answer into the order of its text and leaves the rest as it is.
func sorted(t *testing.T, body string) string {
	t.Helper()
	var a struct {
		Data struct{ Result []json.RawMessage }
	}
	_, rest, _ := strings.Cut(body, `"result":[`)
	if !strings.HasPrefix(rest, "{") {
		return body
	}
	require.NoError(t, json.Unmarshal([]byte(body), &a))
	texts := make([]string, len(a.Data.Result))
	for i, r := range a.Data.Result {
		texts[i] = string(r)
	}
	whole := strings.Join(texts, ",")
	require.Contains(t, body, whole)
	slices.Sort(texts)
	return strings.Replace(body, whole, strings.Join(texts, ","), 1)
}

// inOrder always sorts: otherwise the head of the database returns series in the order of their creation.
type inOrder struct{ promstorage.Querier }

// Select implements promstorage.Querier.
func (q inOrder) Select(ctx context.Context, _ bool, h *promstorage.SelectHints, ms ...*labels.Matcher) promstorage.SeriesSet {
	return q.Querier.Select(ctx, true, h, ms...)
}

func appendTo(t *testing.T, app promstorage.Appender, se *telemetry.Series) int {
	t.Helper()
	n := 0
	ok := func(err error) {
		n++
		if !errors.Is(err, promstorage.ErrOutOfOrderSample) {
			require.NoError(t, err)
		}
	}
	ls := se.Labels.Labels()
	for _, p := range se.Samples {
		_, err := app.Append(0, ls, p.T, p.V)
		ok(err)
	}
	for _, p := range se.Histograms {
		var err error
		if p.H != nil {
			_, err = app.AppendHistogram(0, ls, p.T, p.H.Copy(), nil)
		} else {
			_, err = app.AppendHistogram(0, ls, p.T, nil, p.FH.Copy())
		}
		ok(err)
	}
	return n
}

// expression returns a random expression that parses.
func expression(rng *rand.Rand, depth int) string {
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	metric := func() string {
		m := pick("http_requests_total", "queue_length", "request_seconds_bucket", "latency_seconds", `{__name__=~"h.*|q.*"}`)
		if m[0] != '{' {
			m += pick("", "", `{pod="cart-1"}`, `{job!~"shop/(cart|checkout)"}`, `{instance=~".*-0",pod!=""}`, `{nothing=""}`)
		}
		return m
	}
	modifier := func() string { return pick("", "", "", " offset 1m", " offset -30s", " @ 1772601000", " @ end()") }
	switch n := rng.IntN(12); {
	case depth == 0 || n < 2:
		return metric() + modifier()
	case n < 5:
		f := pick("rate", "increase", "irate", "delta", "deriv", "avg_over_time", "max_over_time", "count_over_time", "last_over_time", "sum_over_time", "changes", "resets", "stddev_over_time", "present_over_time")
		return f + "(" + metric() + "[" + pick("1m", "3m", "10m") + "]" + modifier() + ")"
	case n < 8:
		by := pick("", " by (job)", " by (job, code)", " without (pod, instance)")
		return pick("sum", "avg", "max", "min", "count", "group", "stddev") + by + " (" + expression(rng, depth-1) + ")"
	case n == 8:
		return pick("topk", "bottomk") + "(2, " + expression(rng, 0) + ")"
	case n == 9:
		return "histogram_quantile(0.9, sum by (le, job) (rate(" + pick("request_seconds_bucket", "latency_seconds") + "[5m])))"
	case n == 10:
		return "max_over_time((" + expression(rng, depth-1) + ")[4m:30s])"
	default:
		return pick("sum by (job) (", "max by (job) (") + expression(rng, depth-1) + ") " + pick("+", "/", "> bool", "and", "unless", "or", "==") +
			" sum by (job) (" + expression(rng, depth-1) + ")"
	}
}

// reference encodes a result with the pieces that Prometheus itself encodes with.
func reference(expr string, res *stock.Result) string {
	st := jsoniter.NewStream(jsoniter.ConfigCompatibleWithStandardLibrary, nil, 0)
	metric := func(ls labels.Labels) {
		st.WriteRaw(`{"metric":{`)
		i := 0
		ls.Range(func(l labels.Label) {
			if i++; i > 1 {
				st.WriteMore()
			}
			st.WriteString(l.Name)
			st.WriteRaw(":")
			st.WriteString(l.Value)
		})
		st.WriteRaw("}")
	}
	floats := func(ps ...stock.FPoint) {
		for i, p := range ps {
			if i > 0 {
				st.WriteMore()
			}
			st.WriteRaw("[")
			jsonutil.MarshalTimestamp(p.T, st)
			st.WriteMore()
			jsonutil.MarshalFloat(p.F, st)
			st.WriteRaw("]")
		}
	}
	histograms := func(ps ...stock.HPoint) {
		for i, p := range ps {
			if i > 0 {
				st.WriteMore()
			}
			st.WriteRaw("[")
			jsonutil.MarshalTimestamp(p.T, st)
			st.WriteMore()
			jsonutil.MarshalHistogram(p.H, st)
			st.WriteRaw("]")
		}
	}
	st.WriteRaw(`{"status":"success","data":{"resultType":"` + string(res.Value.Type()) + `","result":[`)
	switch v := res.Value.(type) {
	case stock.Vector:
		for i, s := range v {
			if i > 0 {
				st.WriteMore()
			}
			metric(s.Metric)
			if s.H != nil {
				st.WriteRaw(`,"histogram":`)
				histograms(stock.HPoint{T: s.T, H: s.H})
			} else {
				st.WriteRaw(`,"value":`)
				floats(stock.FPoint{T: s.T, F: s.F})
			}
			st.WriteRaw("}")
		}
	case stock.Matrix:
		for i, s := range v {
			if i > 0 {
				st.WriteMore()
			}
			metric(s.Metric)
			if len(s.Floats) > 0 {
				st.WriteRaw(`,"values":[`)
				floats(s.Floats...)
				st.WriteRaw("]")
			}
			if len(s.Histograms) > 0 {
				st.WriteRaw(`,"histograms":[`)
				histograms(s.Histograms...)
				st.WriteRaw("]")
			}
			st.WriteRaw("}")
		}
	}
	st.WriteRaw("]}")
	warnings, infos := res.Warnings.AsStrings(expr, 10, 10)
	for _, notes := range []struct {
		name string
		list []string
	}{{"warnings", warnings}, {"infos", infos}} {
		if len(notes.list) > 0 {
			st.WriteRaw(`,"` + notes.name + `":[`)
			for i, text := range notes.list {
				if i > 0 {
					st.WriteMore()
				}
				st.WriteString(text)
			}
			st.WriteRaw("]")
		}
	}
	st.WriteRaw("}")
	return string(st.Buffer())
}
