package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// trace is what is printed of Braid's answer; see docs/api/correlate.md.
type trace struct {
	TraceID           string   `json:"traceID"`
	StartTimeUnixNano string   `json:"startTimeUnixNano"`
	DurationNanos     int64    `json:"durationNanos"`
	Services          []string `json:"services"`
	Spans             []struct {
		SpanID            string          `json:"spanID"`
		ParentSpanID      string          `json:"parentSpanID"`
		Name              string          `json:"name"`
		Service           string          `json:"service"`
		Pod               string          `json:"pod"`
		Status            string          `json:"status"`
		StartTimeUnixNano string          `json:"startTimeUnixNano"`
		DurationNanos     int64           `json:"durationNanos"`
		Attributes        json.RawMessage `json:"attributes"`
	} `json:"spans"`
	Logs []struct {
		TimeUnixNano string `json:"timeUnixNano"`
		Severity     string `json:"severity"`
		Body         string `json:"body"`
		Service      string `json:"service"`
	} `json:"logs"`
	Entities []struct {
		Kind   string   `json:"kind"`
		Pod    string   `json:"pod"`
		Spans  int      `json:"spans"`
		Logs   int      `json:"logs"`
		Link   string   `json:"link"`
		Series []series `json:"series"`
	} `json:"entities"`
	Links struct {
		Trace string `json:"trace"`
		Logs  string `json:"logs"`
		Self  string `json:"self"`
	} `json:"links"`
}

type series struct {
	Name   string   `json:"name"`
	Topic  string   `json:"topic"`
	Unit   string   `json:"unit"`
	Link   string   `json:"link"`
	Points [][2]any `json:"points"`
}

// told says whether the pods of the trace have series to show.
func (t *trace) told() bool {
	pods := 0
	for _, e := range t.Entities {
		if e.Kind != "pod" {
			continue
		}
		pods++
		if !slices.ContainsFunc(e.Series, func(s series) bool { return len(s.Points) >= 2 }) {
			return false
		}
	}
	return pods >= 4
}

func nanos(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// print writes the joined answer for a person.
func (d *demo) print(t *trace, took time.Duration) {
	start := nanos(t.StartTimeUnixNano)
	ms := func(n int64) string { return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64) + " ms" }
	fmt.Fprintf(d.out, "\nA slow order, %s after the start: trace %s took %s in %s\n", took.Round(time.Second), t.TraceID, ms(t.DurationNanos), strings.Join(t.Services, ", "))

	fmt.Fprintf(d.out, "\nIts spans (start, duration, service, name):\n")
	depth := map[string]int{}
	for _, s := range t.Spans {
		depth[s.SpanID] = depth[s.ParentSpanID] + 1
		mark := "  "
		if s.DurationNanos > 700e6 {
			mark = "! "
		}
		fmt.Fprintf(d.out, "%s%10s %10s  %s%s: %s\n", mark, ms(nanos(s.StartTimeUnixNano)-start), ms(s.DurationNanos), strings.Repeat("  ", depth[s.SpanID]-1), s.Service, s.Name)
	}
	fmt.Fprintf(d.out, "\nThe log lines that carry its ID:\n")
	for _, l := range t.Logs {
		fmt.Fprintf(d.out, "  %10s  %-5s %-9s %s\n", ms(nanos(l.TimeUnixNano)-start), l.Severity, l.Service, l.Body)
	}
	fmt.Fprintf(d.out, "\nThe pods behind it and their series around it:\n")
	for _, e := range t.Entities {
		if e.Kind != "pod" {
			continue
		}
		fmt.Fprintf(d.out, "  %s: %d spans, %d log lines    %s%s\n", e.Pod, e.Spans, e.Logs, d.base, e.Link)
		shown := map[string]bool{}
		for _, s := range e.Series {
			if len(s.Points) == 0 || shown[s.Topic] || s.Topic == "other" {
				continue
			}
			shown[s.Topic] = true
			fmt.Fprintf(d.out, "    %-8s %-45s %s  last %v %s\n", s.Topic, s.Name, sparkline(s.Points), s.Points[len(s.Points)-1][1], s.Unit)
		}
	}
	fmt.Fprintf(d.out, "\nAsk again:\n  %s%s\n  %s%s\n", d.base, t.Links.Self, d.base, t.Links.Trace)
	if t.Links.Logs != "" {
		fmt.Fprintf(d.out, "  %s%s\n", d.base, t.Links.Logs)
	}
	for _, e := range t.Entities {
		if e.Kind == "pod" && strings.HasPrefix(e.Pod, "database") && len(e.Series) > 0 {
			fmt.Fprintf(d.out, "  %s%s\n", d.base, e.Series[0].Link)
		}
	}
}

// sparkline draws up to 24 points as bars between the smallest and the largest.
func sparkline(points [][2]any) string {
	var xs []float64
	for _, p := range points[max(0, len(points)-24):] {
		if x, err := strconv.ParseFloat(fmt.Sprint(p[1]), 64); err == nil {
			xs = append(xs, x)
		}
	}
	if len(xs) == 0 {
		return ""
	}
	lo, hi := slices.MinFunc(xs, cmp.Compare[float64]), slices.MaxFunc(xs, cmp.Compare[float64])
	bars := []rune("▁▂▃▄▅▆▇█")
	var s strings.Builder
	for _, x := range xs {
		i := 0
		if hi > lo {
			i = int((x - lo) / (hi - lo) * float64(len(bars)-1))
		}
		s.WriteRune(bars[min(max(i, 0), len(bars)-1)])
	}
	return s.String()
}
