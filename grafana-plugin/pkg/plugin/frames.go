package plugin

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

// link is a link that opens a query of this data source. In q, ${__value.raw} stands for the value that is clicked.
func (d *Datasource) link(title string, q map[string]any) data.DataLink {
	return data.DataLink{Title: title, Internal: &data.InternalDataLink{Query: q, DatasourceUID: d.set.uid, DatasourceName: d.set.name}}
}

func (d *Datasource) traceLink() []data.DataLink {
	return []data.DataLink{d.link("Open trace", map[string]any{"queryType": typeTrace, "traceId": "${__value.raw}"})}
}

func withLinks(f *data.Field, links ...data.DataLink) *data.Field {
	if f.Config == nil {
		f.Config = &data.FieldConfig{}
	}
	f.Config.Links = append(f.Config.Links, links...)
	return f
}

func withUnit(f *data.Field, unit string) *data.Field {
	if f.Config == nil {
		f.Config = &data.FieldConfig{}
	}
	f.Config.Unit = unit
	return f
}

// contractVersion is the version of the dataplane contract that typed frames follow.
func contractVersion() data.FrameTypeVersion { return data.FrameTypeVersion{0, 1} }

// table is a frame for a table. "table" as a type has no version.
func table(name string, fields ...*data.Field) *data.Frame {
	f := data.NewFrame(name, fields...)
	f.Meta = &data.FrameMeta{Type: data.FrameTypeTable, PreferredVisualization: data.VisTypeTable}
	return f
}

// series is a frame with one series.
func series(name string, labels data.Labels, at []time.Time, values []float64, step time.Duration) *data.Frame {
	tf := data.NewField("Time", nil, at)
	if step > 0 {
		tf.Config = &data.FieldConfig{Interval: float64(step.Milliseconds())}
	}
	vf := data.NewField("Value", labels, values)
	vf.Config = &data.FieldConfig{DisplayNameFromDS: name}
	f := data.NewFrame(name, tf, vf)
	f.Meta = &data.FrameMeta{Type: data.FrameTypeTimeSeriesMulti, TypeVersion: contractVersion(), PreferredVisualization: data.VisTypeGraph}
	return f
}

// empty is what an answer without data is: a frame with a type and no fields.
func empty(t data.FrameType) *data.Frame {
	f := data.NewFrame("")
	f.Meta = &data.FrameMeta{Type: t, TypeVersion: contractVersion()}
	return f
}

// notices puts messages on the first frame.
func notices(frames data.Frames, severity data.NoticeSeverity, texts []string) {
	for i, t := range texts {
		if i == 20 {
			frames[0].AppendNotices(data.Notice{Severity: severity, Text: fmt.Sprintf("and %d more", len(texts)-i)})
			return
		}
		frames[0].AppendNotices(data.Notice{Severity: severity, Text: clip(t)})
	}
}

// nanos is a time or a duration in nanoseconds, which JSON has as a number or as a string of one.
type nanos int64

func (n *nanos) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "" || s == "null" {
		return nil
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return fmt.Errorf("nanoseconds %q: %w", clip(s), err)
	}
	*n = nanos(v)
	return nil
}

func (n nanos) time() time.Time { return time.Unix(0, int64(n)).UTC() }

// millis are milliseconds with decimals, as the trace view wants them.
func (n nanos) millis() float64 {
	const ms = int64(time.Millisecond)
	// Whole and rest apart: as one number, nanoseconds of today are beyond what a float64 holds exactly.
	return float64(int64(n)/ms) + float64(int64(n)%ms)/float64(ms)
}

// point is [seconds, "value"].
type point struct {
	at    time.Time
	value float64
}

func (p *point) UnmarshalJSON(b []byte) error {
	s := strings.TrimSpace(string(b))
	s, ok := strings.CutPrefix(s, "[")
	s, ok2 := strings.CutSuffix(s, "]")
	at, value, ok3 := strings.Cut(s, ",")
	if !ok || !ok2 || !ok3 {
		return fmt.Errorf("sample %q is not [time, value]", clip(string(b)))
	}
	sec, err := strconv.ParseFloat(strings.TrimSpace(at), 64)
	if err != nil || !(math.Abs(sec) < 1e11) {
		return fmt.Errorf("time of sample %q is not in seconds", clip(at))
	}
	p.at = time.UnixMilli(int64(math.Round(sec * 1000))).UTC()
	if p.value, err = strconv.ParseFloat(strings.Trim(strings.TrimSpace(value), `"`), 64); err != nil {
		return fmt.Errorf("value of sample: %w", err)
	}
	return nil
}

// rawObject is a JSON object as it came.
func rawObject(m any) json.RawMessage {
	b, err := json.Marshal(m)
	if err != nil { // maps of strings and of what was decoded from JSON can be encoded
		return json.RawMessage("{}")
	}
	return b
}
