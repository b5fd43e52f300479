package db

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/braidobs/braid/storage"
)

// gauges describes the store as it is when somebody asks.
type gauges struct {
	d                                                 *DB
	headBytes, headRecords, parts, partBytes, records *prometheus.Desc
	corrupt, views, log, resources, index, series     *prometheus.Desc
	kept                                              *prometheus.Desc
}

func newGauges(d *DB) *gauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("braid_storage_"+name, help, labels, nil)
	}
	return &gauges{
		d:           d,
		headBytes:   desc("head_bytes", "Memory held by records that are not in parts yet.", "signal"),
		headRecords: desc("head_records", "Records that are not in parts yet.", "signal"),
		parts:       desc("parts", "Live parts.", "signal"),
		partBytes:   desc("part_bytes", "Size of the live parts on disk.", "signal"),
		records:     desc("part_records", "Records in live parts.", "signal"),
		index:       desc("index_bytes", "Size of the labels of series in the live parts on disk.", "signal"),
		series:      desc("active_series", "Series that are written to, of all tenants."),
		corrupt:     desc("quarantined_parts", "Parts that are corrupt and set aside.", "signal"),
		views:       desc("open_views", "Views that queries hold open."),
		log:         desc("log_bytes", "Size of the write-ahead log on disk."),
		resources:   desc("directory_resources", "Resources whose identity is known."),
		kept:        desc("trace_memory_bytes", "Memory that keeps what reads of traces ask again: open segments, and columns and heads of their pages.", "of"),
	}
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.headBytes, g.headRecords, g.parts, g.partBytes, g.records, g.corrupt, g.views, g.log, g.resources, g.index, g.series, g.kept} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	if g.d.closed.Load() {
		return
	}
	st, err := g.d.Stats(context.Background())
	if err != nil {
		return
	}
	set := func(d *prometheus.Desc, x float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, x, labels...)
	}
	for s, ss := range st.Signals {
		set(g.headBytes, float64(ss.HeadBytes), s.String())
		set(g.headRecords, float64(ss.HeadRecords), s.String())
		set(g.parts, float64(ss.Parts), s.String())
		set(g.partBytes, float64(ss.PartBytes), s.String())
		set(g.records, float64(ss.PartRecords), s.String())
		set(g.corrupt, float64(len(ss.Corrupt)), s.String())
	}
	set(g.index, float64(st.Signals[storage.Metrics].IndexBytes), storage.Metrics.String())
	set(g.series, float64(g.d.active.Len()))
	set(g.log, float64(st.LogSize))
	g.d.mu.Lock()
	views, resources := len(g.d.views), 0
	for _, dir := range g.d.dirs {
		resources += dir.Len()
	}
	g.d.mu.Unlock()
	set(g.views, float64(views))
	open, pages := g.d.segments.Size()
	set(g.kept, float64(open), "segments")
	set(g.kept, float64(pages), "pages")
	set(g.resources, float64(resources))
}
