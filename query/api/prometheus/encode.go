package prometheus

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/braidobs/braid/internal/telemetry"
	braid "github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

// truncate cuts a vector or matrix to the limit, and says whether it had to; 0 is no limit.
func truncate(v parser.Value, limit int) (parser.Value, bool) {
	if limit <= 0 {
		return v, false
	}
	switch v := v.(type) {
	case promql.Matrix:
		if len(v) > limit {
			return v[:limit], true
		}
	case promql.Vector:
		if len(v) > limit {
			return v[:limit], true
		}
	}
	return v, false
}

// exemplarsOf returns the exemplars of all series that the expression selects.
func exemplarsOf(ctx context.Context, v storage.View, expr parser.Expr, q storage.SeriesQuery) ([]exemplar.QueryResult, error) {
	byLabels := make(map[string]exemplar.QueryResult)
	for _, ms := range parser.ExtractSelectors(expr) {
		q.Matchers = ms
		some, err := v.Exemplars(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, r := range some { // selectors may overlap
			byLabels[string(telemetry.NewLabelSet(r.SeriesLabels))] = r
		}
	}
	return slices.SortedFunc(maps.Values(byLabels), func(a, b exemplar.QueryResult) int {
		return labels.Compare(a.SeriesLabels, b.SeriesLabels)
	}), nil
}

func appendString(dst []byte, s string) []byte { return telemetry.AppendJSONString(dst, s) }

// appendList appends a JSON array.
func appendList[T any](dst []byte, list []T, each func([]byte, T) []byte) []byte {
	dst = append(dst, '[')
	for i, e := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = each(dst, e)
	}
	return append(dst, ']')
}

func appendStrings(dst []byte, list []string) []byte { return appendList(dst, list, appendString) }

// appendNotes appends a member with a list, or nothing when it is empty.
func appendNotes(dst []byte, member string, list []string) []byte {
	if len(list) == 0 {
		return dst
	}
	return appendStrings(append(dst, member...), list)
}

func appendLabelSets(dst []byte, list []labels.Labels) []byte {
	return appendList(dst, list, appendLabels)
}

func appendLabels(dst []byte, ls labels.Labels) []byte {
	dst = append(dst, '{')
	first := true
	ls.Range(func(l labels.Label) {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = appendString(dst, l.Name)
		dst = append(dst, ':')
		dst = appendString(dst, l.Value)
	})
	return append(dst, '}')
}

// appendTime appends milliseconds as seconds.
func appendTime(dst []byte, ms int64) []byte {
	if ms < 0 {
		dst = append(dst, '-')
		ms = -ms
	}
	dst = strconv.AppendInt(dst, ms/1000, 10)
	if frac := ms % 1000; frac != 0 {
		dst = append(dst, '.', byte('0'+frac/100), byte('0'+frac/10%10), byte('0'+frac%10))
	}
	return dst
}

// appendFloat appends a number as a JSON string, which can be NaN as well.
func appendFloat(dst []byte, f float64) []byte {
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	dst = append(dst, '"')
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	return append(dst, '"')
}

func appendFPoint(dst []byte, p promql.FPoint) []byte {
	dst = appendTime(append(dst, '['), p.T)
	dst = appendFloat(append(dst, ','), p.F)
	return append(dst, ']')
}

func appendHPoint(dst []byte, p promql.HPoint) []byte {
	dst = appendTime(append(dst, '['), p.T)
	dst = appendHistogram(append(dst, ','), p.H)
	return append(dst, ']')
}

// appendHistogram appends a native histogram. A bucket is how its bounds are meant (0: without the lower one, 1:
// without the upper one, 2: without both, 3: with both), the bounds and the count; empty ones are left out.
func appendHistogram(dst []byte, h *histogram.FloatHistogram) []byte {
	dst = appendFloat(append(dst, `{"count":`...), h.Count)
	dst = appendFloat(append(dst, `,"sum":`...), h.Sum)
	found := false
	for it := h.AllBucketIterator(); it.Next(); {
		b := it.At()
		if b.Count == 0 {
			continue
		}
		if !found {
			dst = append(dst, `,"buckets":[`...)
		} else {
			dst = append(dst, ',')
		}
		found = true
		bounds := byte('2')
		switch {
		case b.LowerInclusive && b.UpperInclusive:
			bounds = '3'
		case b.LowerInclusive:
			bounds = '1'
		case b.UpperInclusive:
			bounds = '0'
		}
		dst = append(dst, '[', bounds, ',')
		dst = append(appendFloat(dst, b.Lower), ',')
		dst = append(appendFloat(dst, b.Upper), ',')
		dst = append(appendFloat(dst, b.Count), ']')
	}
	if found {
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

func appendSample(dst []byte, s promql.Sample) []byte {
	dst = appendLabels(append(dst, `{"metric":`...), s.Metric)
	if s.H != nil {
		dst = appendHPoint(append(dst, `,"histogram":`...), promql.HPoint{T: s.T, H: s.H})
	} else {
		dst = appendFPoint(append(dst, `,"value":`...), promql.FPoint{T: s.T, F: s.F})
	}
	return append(dst, '}')
}

func appendSeries(dst []byte, s promql.Series) []byte {
	dst = appendLabels(append(dst, `{"metric":`...), s.Metric)
	if len(s.Floats) > 0 {
		dst = appendList(append(dst, `,"values":`...), s.Floats, appendFPoint)
	}
	if len(s.Histograms) > 0 {
		dst = appendList(append(dst, `,"histograms":`...), s.Histograms, appendHPoint)
	}
	return append(dst, '}')
}

// appendValue appends the result of a query.
func appendValue(dst []byte, v parser.Value) []byte {
	switch v := v.(type) {
	case promql.Vector:
		return appendList(dst, v, appendSample)
	case promql.Matrix:
		return appendList(dst, v, appendSeries)
	case promql.Scalar:
		dst = appendTime(append(dst, '['), v.T)
		dst = append(dst, `,"`...)
		dst = strconv.AppendFloat(dst, v.V, 'f', -1, 64)
		return append(dst, `"]`...)
	case promql.String:
		dst = appendTime(append(dst, '['), v.T)
		dst = appendString(append(dst, ','), v.V)
		return append(dst, ']')
	default:
		return append(dst, "null"...)
	}
}

// appendQueryData appends a result with the statistics asked for: none, those of Prometheus, or ("all") those with what
// was read of the store as well.
func appendQueryData(dst []byte, v parser.Value, ans *braid.Answer, statistics string) []byte {
	dst = append(dst, `{"resultType":"`...)
	dst = append(dst, v.Type()...)
	dst = append(dst, `","result":`...)
	dst = appendValue(dst, v)
	if statistics != "" && ans.Stats != nil {
		if b, err := json.Marshal(stats.NewQueryStats(ans.Stats)); err == nil {
			dst = append(dst, `,"stats":`...)
			dst = append(dst, b...)
			if statistics == "all" {
				dst = fmt.Appendf(dst[:len(dst)-1], `,"read":{"series":%d,"samples":%d,"bytes":%d}}`, ans.Read.Series, ans.Read.Samples, ans.Read.Bytes)
			}
		}
	}
	return append(dst, '}')
}

func appendExemplars(dst []byte, list []exemplar.QueryResult) []byte {
	return appendList(dst, list, func(dst []byte, r exemplar.QueryResult) []byte {
		dst = appendLabels(append(dst, `{"seriesLabels":`...), r.SeriesLabels)
		dst = appendList(append(dst, `,"exemplars":`...), r.Exemplars, func(dst []byte, e exemplar.Exemplar) []byte {
			dst = appendLabels(append(dst, `{"labels":`...), e.Labels)
			dst = appendFloat(append(dst, `,"value":`...), e.Value)
			dst = appendTime(append(dst, `,"timestamp":`...), e.Ts)
			return append(dst, '}')
		})
		return append(dst, '}')
	})
}

// appendMetadata appends the families in the order of their names, as many as the limits allow; negative is no
// limit.
func appendMetadata(dst []byte, found map[string][]telemetry.Metadata, limit, perMetric int) []byte {
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(found)) {
		if limit >= 0 && i >= limit {
			break
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, name)
		dst = append(dst, ':')
		list := slices.SortedFunc(slices.Values(found[name]), func(a, b telemetry.Metadata) int {
			return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Help, b.Help))
		})
		if perMetric > 0 && len(list) > perMetric {
			list = list[:perMetric]
		}
		dst = appendList(dst, list, func(dst []byte, m telemetry.Metadata) []byte {
			dst = appendString(append(dst, `{"type":`...), m.Type.String())
			dst = appendString(append(dst, `,"unit":`...), m.Unit)
			dst = appendString(append(dst, `,"help":`...), m.Help)
			return append(dst, '}')
		})
	}
	return append(dst, '}')
}
