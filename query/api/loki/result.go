package loki

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql"
)

// result gathers lines by their labels.
type result struct {
	categorized bool
	streams     map[telemetry.LabelSet]*stream
	lines       int
	bytes       int
}

type stream struct {
	labels  telemetry.LabelSet
	entries []entry
}

type entry struct {
	time int64
	line string
	meta []logql.Label // when it is told apart from the labels
}

func newResult(categorized bool) *result {
	return &result{categorized: categorized, streams: make(map[telemetry.LabelSet]*stream)}
}

// add adds a line.
func (r *result) add(en *logql.Entry) {
	e := entry{time: en.Time, line: en.Line}
	key := en.Labels
	if r.categorized {
		e.meta = append(en.Structured, en.Parsed...)
		key = en.Stream
	}
	s := r.streams[key]
	if s == nil {
		s = &stream{labels: key}
		r.streams[key] = s
	}
	s.entries = append(s.entries, e)
	r.lines++
	r.bytes += len(e.line)
}

func appendString(dst []byte, s string) []byte { return telemetry.AppendJSONString(dst, s) }

func appendLabels(dst []byte, set telemetry.LabelSet) []byte {
	dst = append(dst, '{')
	first := true
	set.Range(func(name, value string) {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(appendString(dst, name), ':')
		dst = appendString(dst, value)
	})
	return append(dst, '}')
}

// appendTo appends the answer to a query.
func (r *result) appendTo(dst []byte, warnings []string, took time.Duration) []byte {
	dst = append(dst, `{"status":"success",`...)
	if len(warnings) > 0 {
		dst = append(dst, `"warnings":[`...)
		for i, w := range warnings {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, w)
		}
		dst = append(dst, `],`...)
	}
	dst = append(dst, `"data":{"resultType":"streams",`...)
	if r.categorized {
		dst = append(dst, `"encodingFlags":["categorize-labels"],`...)
	}
	dst = append(dst, `"result":[`...)
	for i, key := range slices.Sorted(maps.Keys(r.streams)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		s := r.streams[key]
		dst = appendLabels(append(dst, `{"stream":`...), s.labels)
		dst = append(dst, `,"values":[`...)
		for j := range s.entries {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = r.appendEntry(dst, &s.entries[j])
		}
		dst = append(dst, "]}"...)
	}
	dst = append(dst, `],"stats":`...)
	dst = r.appendStats(dst, took)
	return append(dst, "}}"...)
}

func (r *result) appendEntry(dst []byte, e *entry) []byte {
	dst = append(dst, `["`...)
	dst = strconv.AppendInt(dst, e.time, 10)
	dst = append(dst, `",`...)
	dst = appendString(dst, e.line)
	if r.categorized {
		dst = append(dst, ",{"...)
		for i, p := range e.meta {
			if i == 0 {
				dst = append(dst, `"structuredMetadata":{`...)
			} else {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, p.Name), ':')
			dst = appendString(dst, p.Value)
		}
		if len(e.meta) > 0 {
			dst = append(dst, '}')
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// appendStats appends the statistics of what was returned.
func (r *result) appendStats(dst []byte, took time.Duration) []byte {
	perSecond := func(n int) int64 {
		if took <= 0 {
			return 0
		}
		return int64(float64(n) / took.Seconds())
	}
	dst = append(dst, `{"summary":{"bytesProcessedPerSecond":`...)
	dst = strconv.AppendInt(dst, perSecond(r.bytes), 10)
	dst = append(dst, `,"linesProcessedPerSecond":`...)
	dst = strconv.AppendInt(dst, perSecond(r.lines), 10)
	dst = append(dst, `,"totalBytesProcessed":`...)
	dst = strconv.AppendInt(dst, int64(r.bytes), 10)
	dst = append(dst, `,"totalLinesProcessed":`...)
	dst = strconv.AppendInt(dst, int64(r.lines), 10)
	dst = append(dst, `,"execTime":`...)
	dst = strconv.AppendFloat(dst, took.Seconds(), 'f', -1, 64)
	dst = append(dst, `,"queueTime":0,"subqueries":0,"totalEntriesReturned":`...)
	dst = strconv.AppendInt(dst, int64(r.lines), 10)
	return append(dst, "}}"...)
}

// appendConstant appends the answer to a query that is a number.
func appendConstant(dst []byte, at int64, v float64) []byte {
	dst = append(dst, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[`...)
	dst = strconv.AppendFloat(dst, float64(at/1e6)/1e3, 'f', -1, 64)
	dst = append(dst, `,"`...)
	dst = strconv.AppendFloat(dst, v, 'f', -1, 64)
	dst = append(dst, `"]}],"stats":`...)
	dst = new(result).appendStats(dst, 0)
	return append(dst, "}}"...)
}

func appendNames(dst []byte, seen map[string]bool) []byte {
	dst = append(dst, `{"status":"success","data":[`...)
	for i, n := range slices.Sorted(maps.Keys(seen)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, n)
	}
	return append(dst, "]}"...)
}

func appendSeries(dst []byte, sets []telemetry.LabelSet) []byte {
	dst = append(dst, `{"status":"success","data":[`...)
	for i, s := range sets {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendLabels(dst, s)
	}
	return append(dst, "]}"...)
}
