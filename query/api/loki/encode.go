package loki

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql"
)

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

func appendPairs(dst []byte, ls []logql.Label) []byte {
	dst = append(dst, '{')
	for i, l := range ls {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, l.Name), ':')
		dst = appendString(dst, l.Value)
	}
	return append(dst, '}')
}

// appendHead appends what an answer to a query begins with.
func appendHead(dst []byte, kind string, warnings []string) []byte {
	dst = append(dst, `{"status":"success",`...)
	for i, w := range warnings {
		if i == 0 {
			dst = append(dst, `"warnings":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = appendString(dst, w)
	}
	if len(warnings) > 0 {
		dst = append(dst, `],`...)
	}
	return append(dst, `"data":{"resultType":"`+kind+`",`...)
}

// group is the entries of an answer with the same labels.
type group struct {
	labels  telemetry.LabelSet
	entries []*logql.Entry
}

// grouped returns entries by their labels, those by name.
func grouped(entries []logql.Entry, categorized bool) []group {
	known := make(map[telemetry.LabelSet]int)
	var out []group
	for i := range entries {
		set := entries[i].Labels
		if categorized {
			set = entries[i].Stream
		}
		g, ok := known[set]
		if !ok {
			g = len(out)
			known[set] = g
			out = append(out, group{labels: set})
		}
		out[g].entries = append(out[g].entries, &entries[i])
	}
	slices.SortFunc(out, func(a, b group) int {
		return slices.Compare(texts(a.labels), texts(b.labels))
	})
	return out
}

// texts returns names and values in turn.
func texts(s telemetry.LabelSet) (out []string) {
	s.Range(func(name, value string) { out = append(out, name, value) })
	return out
}

// appendLines appends the answer to a query for lines.
func appendLines(dst []byte, l *logql.Lines, categorized bool, warnings []string, took time.Duration) []byte {
	dst = appendHead(dst, "streams", warnings)
	if categorized {
		dst = append(dst, `"encodingFlags":["categorize-labels"],`...)
	}
	dst = append(dst, `"result":`...)
	dst = appendStreams(dst, l.Entries, categorized)
	if l.Next != nil {
		dst = appendString(append(dst, `,"cursor":`...), formatCursor(l.Next))
	}
	dst = appendStats(append(dst, `,"stats":`...), l.Stats, took)
	return append(dst, "}}"...)
}

// appendStreams appends entries as Loki groups them.
func appendStreams(dst []byte, entries []logql.Entry, categorized bool) []byte {
	dst = append(dst, '[')
	for i, g := range grouped(entries, categorized) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendLabels(append(dst, `{"stream":`...), g.labels)
		dst = append(dst, `,"values":[`...)
		for j, e := range g.entries {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `["`...)
			dst = strconv.AppendInt(dst, e.Time, 10)
			dst = append(dst, `",`...)
			dst = appendString(dst, e.Line)
			if categorized {
				dst = appendCategories(append(dst, ','), e)
			}
			dst = append(dst, ']')
		}
		dst = append(dst, "]}"...)
	}
	return append(dst, ']')
}

// appendCategories appends the labels of an entry that are not its stream's.
func appendCategories(dst []byte, e *logql.Entry) []byte {
	dst = append(dst, '{')
	if len(e.Structured) > 0 {
		dst = appendPairs(append(dst, `"structuredMetadata":`...), e.Structured)
	}
	if len(e.Parsed) > 0 {
		if len(e.Structured) > 0 {
			dst = append(dst, ',')
		}
		dst = appendPairs(append(dst, `"parsed":`...), e.Parsed)
	}
	return append(dst, '}')
}

func appendPoint(dst []byte, p logql.Point) []byte {
	dst = append(dst, '[')
	dst = strconv.AppendFloat(dst, float64(p.Time/1e6)/1e3, 'f', -1, 64)
	dst = append(dst, `,"`...)
	dst = strconv.AppendFloat(dst, p.Value, 'f', -1, 64)
	return append(dst, `"]`...)
}

// appendMetrics appends the answer to a query for numbers.
func appendMetrics(dst []byte, m *logql.Metrics, matrix bool, warnings []string, took time.Duration) []byte {
	kind := "vector"
	switch {
	case m.Scalar:
		kind = "scalar"
	case matrix:
		kind = "matrix"
	}
	dst = appendHead(dst, kind, warnings)
	dst = append(dst, `"result":`...)
	if m.Scalar {
		dst = appendPoint(dst, m.Series[0].Points[0])
	} else {
		dst = appendSeriesPoints(dst, m.Series, matrix)
	}
	dst = appendStats(append(dst, `,"stats":`...), m.Stats, took)
	return append(dst, "}}"...)
}

func appendSeriesPoints(dst []byte, series []logql.Series, matrix bool) []byte {
	dst = append(dst, '[')
	for i, s := range series {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendLabels(append(dst, `{"metric":`...), s.Labels)
		if !matrix {
			dst = append(appendPoint(append(dst, `,"value":`...), s.Points[0]), '}')
			continue
		}
		dst = append(dst, `,"values":[`...)
		for j, p := range s.Points {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = appendPoint(dst, p)
		}
		dst = append(dst, "]}"...)
	}
	return append(dst, ']')
}

// appendStats appends statistics in the shape that Loki's clients read; what has no meaning here is zero.
func appendStats(dst []byte, s logql.Stats, took time.Duration) []byte {
	num := func(key string, n int64) {
		dst = append(dst, '"')
		dst = append(dst, key...)
		dst = append(dst, `":`...)
		dst = append(strconv.AppendInt(dst, n, 10), ',')
	}
	perSecond := func(n int64) int64 {
		if took <= 0 {
			return 0
		}
		return int64(float64(n) / took.Seconds())
	}
	dst = append(dst, `{"summary":{`...)
	num("bytesProcessedPerSecond", perSecond(s.Bytes))
	num("linesProcessedPerSecond", perSecond(s.Lines))
	num("totalBytesProcessed", s.Bytes)
	num("totalLinesProcessed", s.Lines)
	dst = append(dst, `"execTime":`...)
	dst = strconv.AppendFloat(dst, took.Seconds(), 'f', -1, 64)
	dst = append(dst, ',')
	num("queueTime", 0)
	num("subqueries", 0)
	num("totalEntriesReturned", s.Returned)
	num("splits", 1)
	num("shards", 1)
	num("totalPostFilterLines", s.Returned)
	dst = append(dst, `"totalStructuredMetadataBytesProcessed":0},"querier":{"store":{"totalChunksRef":0,`...)
	num("totalChunksDownloaded", s.Blocks)
	dst = append(dst, `"chunksDownloadTime":0,"chunk":{"headChunkBytes":0,"headChunkLines":0,`...)
	num("decompressedBytes", s.Bytes)
	num("decompressedLines", s.Lines)
	num("postFilterLines", s.Returned)
	return append(dst, `"compressedBytes":0,"totalDuplicates":0}}},"ingester":{"totalReached":0,"totalChunksMatched":0,"totalBatches":0,"totalLinesSent":0}}`...)
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
