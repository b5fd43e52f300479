package spanmetrics

import (
	"encoding/binary"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/api/otlp"
	"github.com/braidobs/braid/storage"
)

// spans counts those of a block one by one.
func (c *collector) spans(b storage.TraceBlock) error {
	for _, d := range c.dims {
		if err := c.load(d, b); err != nil {
			return err
		}
	}
	var rows []int      // of the spans whose size is asked for
	var groups []*group // theirs
	for row := range b.Len() {
		step := c.step(row)
		if step < 0 {
			continue
		}
		var k key
		for i, d := range c.dims {
			k[i] = d.rows[row]
		}
		g, err := c.group(&k)
		if err != nil {
			return err
		}
		switch {
		case !g.keep:
		case c.metric.measure == sizes:
			rows, groups = append(rows, row), append(groups, g)
		case c.metric.measure == latency:
			c.count(g, step, row, max(c.durations[row], 0))
		default:
			c.count(g, step, row, 1)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	sb, err := b.Spans(rows, storage.SpanAll)
	if err != nil {
		return err
	}
	for i, row := range rows {
		s := sb.Span(i)
		c.count(groups[i], c.step(row), row, sizeOf(&s))
	}
	return nil
}

// sizeOf returns the bytes of a span as OTLP's protobuf, without the tag and the length before it.
func sizeOf(s *telemetry.Span) int64 {
	var t otlp.Traces
	t.Add(nil, s)
	n := t.Size() - 2
	for more := 1; n >= 1<<(7*more); more++ { // each seven bits of the length are a byte
		n--
	}
	return int64(n)
}

// resources finds those that sent spans that ended in the range.
func (c *collector) resources(b storage.TraceBlock) error {
	var rows []int
	for row := range b.Len() {
		if c.step(row) >= 0 {
			rows = append(rows, row)
		}
	}
	sb, err := b.Spans(rows, storage.SpanResource)
	if err != nil {
		return err
	}
	for i := range rows {
		r := sb.ResourceOf(i)
		if r == nil || r.Attrs.Text("service.name") == "" {
			continue
		}
		// A resource's ID is a hash: half of it is the key of its group.
		var k key
		for j := range 4 {
			k[j] = binary.LittleEndian.Uint32(r.ID[4*j:])
		}
		if c.groups[k] != nil {
			continue
		}
		g, err := c.add(infoLabels(r))
		if err != nil {
			return err
		}
		c.groups[k] = g
	}
	return nil
}

// infoLabels returns the labels of traces_target_info.
func infoLabels(r *telemetry.Resource) labels.Labels {
	pairs := make(map[string]string)
	for _, a := range r.Attrs {
		switch name := labelName(a.Key); a.Key {
		case "service.name", "service.namespace", "service.instance.id":
		default:
			if v := a.Value.Text(); v != "" && name != "" && pairs[name] == "" {
				pairs[name] = v
			}
		}
	}
	job := r.Attrs.Text("service.name")
	if ns := r.Attrs.Text("service.namespace"); ns != "" {
		job = ns + "/" + job
	}
	pairs[model.JobLabel] = job
	if id := r.Attrs.Text("service.instance.id"); id != "" {
		pairs[model.InstanceLabel] = id
	}
	return labels.FromMap(pairs)
}
