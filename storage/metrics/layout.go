package metrics

import (
	"github.com/braidobs/braid/storage/part"
)

// The layout of a part, see docs/format/part.md, section metrics. Parts of the first layout have a table "samples"
// with a row a sample instead of pages.
const (
	tableNames      = "names"      // the label names
	tableValues     = "values"     // the values of each label, sorted
	tableIndex      = "index"      // the labels of the series and their times, in storage order
	tableTimes      = "times"      // the distinct columns of times
	tablePages      = "pages"      // the columns of values
	tableHistograms = "histograms" // native histograms, a row each
	tableExemplars  = "exemplars"
	tableEvidence   = "evidence"
	tableMetadata   = "metadata"

	tableSeries  = "series"  // first layout: canonical labels, sorted
	tableSamples = "samples" // first layout: float samples, a row each
)

const (
	// windowMillis is the length of the windows of time that samples are cut into, from the epoch on.
	windowMillis = 2 * 3600 * 1000
	// groupSeries is how many series a block of the index holds.
	groupSeries = 1024
	// pageSeries is how many series a page holds at most, pageBytes about how many bytes.
	pageSeries = 128
	pageBytes  = 64 << 10
	// timesColumns is how many columns of times a block holds, timesBytes about how many bytes.
	timesColumns = 64
	timesBytes   = 64 << 10
	// dictValues is how many values a block of a dictionary holds, dictBytes about how many bytes.
	dictValues = 512
	dictBytes  = 64 << 10
	// maxBound is how much of the first value of such a block the footer repeats.
	maxBound = 64
	// maxSeries bounds the series of a part.
	maxSeries = 1 << 28
)

// windowOf returns the number of the window that a time lies in.
func windowOf(t int64) int64 { return floorDiv(t, windowMillis) }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// columnsOf returns the columns of a table. Tables with rows are sorted by series, then time.
func columnsOf(table string) []part.Column {
	num := func(name string) part.Column { return part.Column{Name: name, Type: part.Int64} }
	switch table {
	case tableSamples:
		return []part.Column{num("series"), num("time"), num("start"), {Name: "value", Type: part.Float64}}
	case tableHistograms:
		return []part.Column{num("series"), num("time"), num("start"), {Name: "histogram", Type: part.Bytes}}
	case tableExemplars:
		return []part.Column{num("series"), num("time"), {Name: "exemplar", Type: part.Bytes}}
	case tableEvidence:
		return []part.Column{num("series"), num("resource"), num("first"), num("last")}
	case tableMetadata:
		return []part.Column{{Name: "metric", Type: part.Bytes}, {Name: "metadata", Type: part.Bytes}}
	default:
		return []part.Column{{Name: "data", Type: part.Blob}}
	}
}
