package plugin

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

// line is one log line on its way into a frame.
type line struct {
	at       nanos
	body     string
	severity string
	traceID  string
	spanID   string
	labels   json.RawMessage // object
	types    json.RawMessage // object: label -> indexed or structured
}

const (
	labelIndexed    = "I" // of the stream
	labelStructured = "S" // of the record
)

// logs answers LogQL. Lines become one frame, numbers become series.
func (d *Datasource) logs(ctx context.Context, q *query) (data.Frames, error) {
	step, err := q.step()
	if err != nil {
		return nil, err
	}
	expr := q.expand(q.Expr, step, d.set.scrape)
	if strings.TrimSpace(expr) == "" {
		return nil, badRequest("the LogQL query is empty: select streams, such as {service_name=\"cart\"}")
	}
	limit := d.set.maxLines
	if q.MaxLines != 0 {
		limit = q.MaxLines
	}
	if limit < 0 {
		return nil, badRequest("maxLines must not be negative")
	}
	direction := "backward"
	switch q.Direction {
	case "", direction:
	case "forward":
		direction = "forward"
	default:
		return nil, badRequest("direction %q is neither backward nor forward", q.Direction)
	}
	body, err := d.client.get(ctx, "/loki/api/v1/query_range", url.Values{
		"query": {expr}, "limit": {strconv.Itoa(limit)}, "direction": {direction}, "step": {seconds(step.Milliseconds())},
		"start": {strconv.FormatInt(q.from.UnixNano(), 10)}, "end": {strconv.FormatInt(q.to.UnixNano(), 10)},
	})
	if err != nil {
		return nil, err
	}
	var a promAnswer
	if err := d.client.decode(body, &a); err != nil {
		return nil, err
	}
	var frames data.Frames
	if a.Data.ResultType == "streams" {
		lines, err := d.streamLines(a.Data.Result)
		if err != nil {
			return nil, err
		}
		frames = data.Frames{d.logFrame(lines, direction == "forward", limit)}
		notices(frames, data.NoticeSeverityWarning, a.Warnings)
	} else if frames, err = d.promFrames(&a, q, step); err != nil {
		return nil, err
	}
	for _, f := range frames {
		f.Meta.ExecutedQueryString = "Expr: " + expr
	}
	return frames, nil
}

// entry is [nanoseconds, line, {"structuredMetadata": {...}}].
type entry struct {
	at       nanos
	body     string
	metadata map[string]string
}

func (e *entry) UnmarshalJSON(b []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	if len(parts) < 2 || len(parts) > 3 {
		return fmt.Errorf("a log line has %d parts, want 2 or 3", len(parts))
	}
	if err := json.Unmarshal(parts[0], &e.at); err != nil {
		return err
	}
	if err := json.Unmarshal(parts[1], &e.body); err != nil {
		return err
	}
	if len(parts) == 2 {
		return nil
	}
	var extra struct {
		StructuredMetadata map[string]string `json:"structuredMetadata"`
		Parsed             map[string]string `json:"parsed"`
	}
	if err := json.Unmarshal(parts[2], &extra); err != nil {
		return err
	}
	e.metadata = extra.StructuredMetadata
	for k, v := range extra.Parsed {
		if e.metadata == nil {
			e.metadata = make(map[string]string, len(extra.Parsed))
		}
		e.metadata[k] = v
	}
	return nil
}

func (d *Datasource) streamLines(result json.RawMessage) ([]line, error) {
	var streams []struct {
		Stream map[string]string `json:"stream"`
		Values []entry           `json:"values"`
	}
	if err := d.client.decode(result, &streams); err != nil {
		return nil, err
	}
	var out []line
	for i := range streams {
		for j := range streams[i].Values {
			e := &streams[i].Values[j]
			labels, types := make(map[string]string, len(e.metadata)), make(map[string]string, len(e.metadata))
			for k, v := range e.metadata {
				labels[k], types[k] = v, labelStructured
			}
			for k, v := range streams[i].Stream {
				labels[k], types[k] = v, labelIndexed
			}
			l := line{at: e.at, body: e.body, severity: firstOf(labels, "detected_level", "severity_text", "level", "severity")}
			l.spanID = firstOf(labels, "span_id", "spanID", "spanId", "spanid")
			l.traceID = firstOf(labels, "trace_id", "traceID", "traceId", "traceid")
			l.labels, l.types = rawObject(labels), rawObject(types)
			out = append(out, l)
		}
	}
	return out, nil
}

func firstOf(labels map[string]string, names ...string) string {
	for _, n := range names {
		if v := labels[n]; v != "" {
			return v
		}
	}
	return ""
}

// logFrame is a frame of the type log-lines. limit is how many lines were asked for; 0 for all.
func (d *Datasource) logFrame(lines []line, forward bool, limit int) *data.Frame {
	if len(lines) == 0 {
		f := empty(data.FrameTypeLogLines)
		f.Meta.PreferredVisualization = data.VisTypeLogs
		return f
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		if forward {
			a, b = b, a
		}
		switch {
		case a.at > b.at:
			return -1
		case a.at < b.at:
			return 1
		}
		return 0
	})
	n := len(lines)
	at, body, severity, id := make([]time.Time, n), make([]string, n), make([]string, n), make([]string, n)
	labels, types := make([]json.RawMessage, n), make([]json.RawMessage, n)
	traceID, spanID := make([]*string, n), make([]*string, n)
	seen := make(map[string]int, n)
	for i := range lines {
		l := &lines[i]
		at[i], body[i], severity[i], labels[i], types[i] = l.at.time(), l.body, level(l.severity), l.labels, l.types
		id[i] = lineID(l, seen)
		if l.traceID != "" {
			traceID[i] = &l.traceID
		}
		if l.spanID != "" {
			spanID[i] = &l.spanID
		}
	}
	f := data.NewFrame("logs",
		data.NewField("timestamp", nil, at), data.NewField("body", nil, body), data.NewField("severity", nil, severity),
		data.NewField("id", nil, id), data.NewField("labels", nil, labels), data.NewField("labelTypes", nil, types),
		withLinks(data.NewField("traceID", nil, traceID), d.traceLink()...), data.NewField("spanID", nil, spanID))
	f.Meta = &data.FrameMeta{Type: data.FrameTypeLogLines, TypeVersion: contractVersion(), PreferredVisualization: data.VisTypeLogs}
	if limit > 0 {
		f.Meta.Custom = map[string]int{"limit": limit}
	}
	return f
}

// lineID names a line by its content, so that it has the same name in every answer. Lines that are equal in everything
// are numbered.
func lineID(l *line, seen map[string]int) string {
	h := fnv.New128a()
	_, _ = h.Write([]byte(l.body)) // a hash takes everything
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(l.labels)
	id := strconv.FormatInt(int64(l.at), 10) + "_" + hex.EncodeToString(h.Sum(nil))
	k := seen[id]
	seen[id] = k + 1
	if k > 0 {
		id += "_" + strconv.Itoa(k)
	}
	return id
}

// level is Grafana's name of a severity.
func level(s string) string {
	s = strings.ToLower(s)
	if rest := strings.TrimRight(s, "1234"); rest != "" { // INFO2
		s = rest
	}
	switch s {
	case "critical", "fatal", "crit", "alert", "emerg", "emergency", "panic":
		return "critical"
	case "error", "err", "eror":
		return "error"
	case "warning", "warn":
		return "warning"
	case "info", "information", "informational", "notice":
		return "info"
	case "debug", "dbug":
		return "debug"
	case "trace":
		return "trace"
	}
	return "unknown"
}
