package contract_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/grafana-plugin/internal/contract"
)

// TestBroken: the checker sees what it is for.
func TestBroken(t *testing.T) {
	one := data.FrameTypeVersion{0, 1}
	at := func(secs ...int64) *data.Field {
		ts := make([]time.Time, len(secs))
		for i, s := range secs {
			ts[i] = time.Unix(s, 0)
		}
		return data.NewField("Time", nil, ts)
	}
	series := func(fields ...*data.Field) *data.Frame {
		f := data.NewFrame("", fields...)
		f.Meta = &data.FrameMeta{Type: data.FrameTypeTimeSeriesMulti, TypeVersion: one}
		return f
	}
	lines := func(id []string, severity string, labels string) *data.Frame {
		n := len(id)
		ts, body, sev, raw, types, trace := make([]time.Time, n), make([]string, n), make([]string, n), make([]json.RawMessage, n), make([]json.RawMessage, n), make([]*string, n)
		for i := range n {
			sev[i], raw[i], types[i] = severity, json.RawMessage(labels), json.RawMessage(`{"a":"I"}`)
		}
		link := data.NewField("traceID", nil, trace)
		link.Config = &data.FieldConfig{Links: []data.DataLink{{Title: "x", Internal: &data.InternalDataLink{DatasourceUID: "u", Query: map[string]string{"queryType": "trace"}}}}}
		f := data.NewFrame("", data.NewField("timestamp", nil, ts), data.NewField("body", nil, body), data.NewField("severity", nil, sev),
			data.NewField("id", nil, id), data.NewField("labels", nil, raw), data.NewField("labelTypes", nil, types), link)
		f.Meta = &data.FrameMeta{Type: data.FrameTypeLogLines, TypeVersion: one, PreferredVisualization: data.VisTypeLogs}
		return f
	}
	noVersion := series()
	noVersion.Meta.TypeVersion = data.FrameTypeVersion{}
	trace := data.NewFrame("", data.NewField("traceID", nil, []string{"a"}))
	trace.Meta = &data.FrameMeta{PreferredVisualization: data.VisTypeTrace}
	badLink := data.NewField("Value", nil, []float64{1})
	badLink.Config = &data.FieldConfig{Links: []data.DataLink{{Title: "x"}}}
	tests := []struct {
		name string
		in   data.Frames
		want string // empty when it is good
	}{
		{"no frames", nil, "not no frame"},
		{"no meta", data.Frames{data.NewFrame("")}, "meta is missing"},
		{"no data", data.Frames{series()}, ""},
		{"no version", data.Frames{noVersion}, "want 0.1"},
		{"series", data.Frames{series(at(1, 2), data.NewField("Value", nil, []float64{1, 2}))}, ""},
		{"order", data.Frames{series(at(2, 1), data.NewField("Value", nil, []float64{1, 2}))}, "does not come after"},
		{"twice", data.Frames{series(at(1, 1), data.NewField("Value", nil, []float64{1, 2}))}, "does not come after"},
		{"text", data.Frames{series(at(1), data.NewField("Value", nil, []string{"a"}))}, "one of numbers"},
		{"lengths", data.Frames{series(at(1), data.NewField("Value", nil, []float64{1, 2}))}, "different field lengths"},
		{"names", data.Frames{series(at(1), data.NewField("Time", nil, []float64{1}))}, "two fields are called"},
		{"link", data.Frames{series(at(1), badLink)}, "a link must have"},
		{"lines", data.Frames{lines([]string{"a", "b"}, "info", `{"a":1}`)}, ""},
		{"same ID", data.Frames{lines([]string{"a", "a"}, "info", `{"a":1}`)}, "not unique"},
		{"severity", data.Frames{lines([]string{"a"}, "loud", `{"a":1}`)}, "none of Grafana's"},
		{"labels", data.Frames{lines([]string{"a"}, "info", `[]`)}, "labels of line 0"},
		{"types", data.Frames{lines([]string{"a"}, "info", `{"b":1}`)}, "has no type"},
		{"trace", data.Frames{trace}, "no field spanID"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := contract.Check(tt.in)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
		})
	}
}
