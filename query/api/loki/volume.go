package loki

import (
	"cmp"
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/storage"
)

const (
	// maxVolumes is how many series an answer about volumes may have.
	maxVolumes = 5000
	// defaultVolumes is how many it has unless more are asked for.
	defaultVolumes = 100
	// maxBuckets bounds streams times steps.
	maxBuckets = 4_000_000
	// sampled is how many blocks are measured line by line; after that it is some lines of each stream's first block, and of
	// every sparse-th one.
	sampled = 8
	sparse  = 16
	// spread is how many lines of such a block are measured at least, if it has them.
	spread = 200
)

// measured is what a stream has in a range of time.
type measured struct {
	rows []int64 // of each bucket
	// lines and bytes are of the lines that were measured.
	lines, bytes int64
	block        int // in which it was met first
}

// volumes is what streams have.
type volumes struct {
	streams      map[telemetry.LabelSet]*measured
	lines, bytes int64 // that were measured in all
}

// measure counts the lines of the streams that match, in buckets of width. Lengths are taken of all lines of what is in
// memory and of the first blocks, after that of a sample.
func (a *API) measure(ctx context.Context, v storage.View, s span, ms []*labels.Matcher, width int64) (*volumes, error) {
	n := int((s.end - s.start + width - 1) / width)
	out := &volumes{streams: make(map[telemetry.LabelSet]*measured)}
	if n <= 0 {
		return out, nil
	}
	blocks := 0
	for b, err := range v.Logs(ctx, storage.LogQuery{
		Tenant: httpapi.TenantFrom(ctx), Start: s.start, End: s.end - 1, Where: storage.StreamMatch(ms), Columns: storage.LogStream | storage.LogLines,
	}) {
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		blocks++
		of := make([]*measured, len(b.Streams))
		var line []byte
		for i, t := range b.Time {
			code := b.Stream[i]
			m := of[code]
			if m == nil {
				if m, err = out.stream(b.Streams[code], n, blocks); err != nil {
					return nil, err
				}
				of[code] = m
			}
			m.rows[(t-s.start)/width]++
			switch {
			case b.Body != nil || blocks <= sampled || m.lines == 0:
			case (m.block == blocks || blocks%sparse == 0) && i%max(b.Len()/spread, 1) == 0:
			default:
				continue
			}
			size := 0
			if b.Body != nil {
				size = len(b.Body[i].Text())
			} else {
				if line, err = b.Lines.AppendLine(line[:0], i); err != nil {
					return nil, err
				}
				size = len(line)
			}
			m.lines++
			m.bytes += int64(size)
		}
	}
	for _, m := range out.streams {
		out.lines, out.bytes = out.lines+m.lines, out.bytes+m.bytes
	}
	return out, nil
}

// stream returns what is known of a stream that a block has rows of.
func (v *volumes) stream(set telemetry.LabelSet, buckets, block int) (*measured, error) {
	if m := v.streams[set]; m != nil {
		return m, nil
	}
	if (len(v.streams)+1)*buckets > maxBuckets {
		return nil, httpapi.Errorf(httpapi.QueryLimit, "there are more than %d streams times %d steps, the limit is %d: narrow the selector, or ask for a larger step",
			len(v.streams), buckets, maxBuckets)
	}
	m := &measured{rows: make([]int64, buckets), block: block}
	v.streams[telemetry.LabelSet(strings.Clone(string(set)))] = m
	return m, nil
}

// of returns the bytes of n lines of a stream.
func (v *volumes) of(m *measured, n int64) float64 {
	lines, bytes := m.lines, m.bytes
	if lines == 0 {
		lines, bytes = v.lines, v.bytes
	}
	if lines == 0 {
		return 0
	}
	if n == lines {
		return float64(bytes)
	}
	return math.Round(float64(n) * float64(bytes) / float64(lines))
}

// indexStats tells how much the streams of a selector have.
func (a *API) indexStats(r *http.Request) (body []byte, err error) {
	s, err := a.timeRange(r, defaultRange)
	if err != nil {
		return nil, err
	}
	ms, err := matchersOf(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	err = a.view(ctx, func(v storage.View) error {
		found, err := a.measure(ctx, v, s, ms, max(s.end-s.start, 1))
		if err != nil {
			return err
		}
		rows, bytes := int64(0), 0.0
		for _, m := range found.streams {
			rows += m.rows[0]
			bytes += found.of(m, m.rows[0])
		}
		body = append(body, `{"streams":`...)
		body = strconv.AppendInt(body, int64(len(found.streams)), 10)
		body = append(body, `,"chunks":`...)
		body = strconv.AppendInt(body, v.ReadStats().Blocks, 10)
		body = append(body, `,"bytes":`...)
		body = strconv.AppendInt(body, int64(bytes), 10)
		body = append(body, `,"entries":`...)
		body = append(strconv.AppendInt(body, rows, 10), '}')
		return nil
	})
	return body, err
}

// volume tells how many bytes of lines there are, by labels, the largest first.
func (a *API) volume(r *http.Request) ([]byte, error) {
	s, err := a.timeRange(r, defaultRange)
	if err != nil {
		return nil, err
	}
	return a.volumesOf(r, s, max(s.end-s.start, 1), false)
}

// volumeRange is volume for each step.
func (a *API) volumeRange(r *http.Request) ([]byte, error) {
	s, err := a.timeRange(r, defaultRange)
	if err != nil {
		return nil, err
	}
	step, err := s.step(r)
	if err != nil {
		return nil, err
	}
	if n := (s.end - s.start) / int64(step); n > int64(a.engine.Limits.Points) {
		return nil, httpapi.BadDataf("the query has %d steps, the limit is %d: ask for a larger step or a shorter range", n, a.engine.Limits.Points)
	}
	return a.volumesOf(r, s, int64(step), true)
}

func (a *API) volumesOf(r *http.Request, s span, width int64, matrix bool) (body []byte, err error) {
	limit, err := number(r, "limit", defaultVolumes)
	if err != nil {
		return nil, err
	}
	if limit > maxVolumes {
		return nil, invalid("limit", errors.New("must be at most "+strconv.Itoa(maxVolumes)))
	}
	ms, err := matchersOf(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	groups, err := groupingOf(r, ms)
	if err != nil {
		return nil, err
	}
	ctx, began := r.Context(), a.Now()
	err = a.view(ctx, func(v storage.View) error {
		found, err := a.measure(ctx, v, s, ms, width)
		if err != nil {
			return err
		}
		sums := make(map[telemetry.LabelSet][]float64)
		for set, m := range found.streams {
			for _, g := range groups(set) {
				sum := sums[g]
				if sum == nil {
					sum = make([]float64, len(m.rows))
					sums[g] = sum
				}
				for k, n := range m.rows {
					sum[k] += found.of(m, n)
				}
			}
		}
		series := make([]logql.Series, 0, len(sums))
		total := make(map[telemetry.LabelSet]float64)
		for g, sum := range sums {
			se := logql.Series{Labels: g}
			for k, x := range sum {
				if x > 0 {
					total[g] += x
					se.Points = append(se.Points, logql.Point{Time: min(s.start+int64(k+1)*width, s.end), Value: x})
				}
			}
			if len(se.Points) > 0 {
				series = append(series, se)
			}
		}
		slices.SortFunc(series, func(x, y logql.Series) int {
			return cmp.Or(cmp.Compare(total[y.Labels], total[x.Labels]), slices.Compare(texts(x.Labels), texts(y.Labels)))
		})
		series = series[:min(len(series), limit)]
		kind := "vector"
		if matrix {
			kind = "matrix"
		}
		body = appendHead(nil, kind, v.Warnings())
		body = appendSeriesPoints(append(body, `"result":`...), series, matrix)
		st := v.ReadStats()
		body = appendStats(append(body, `,"stats":`...), logql.Stats{Lines: st.Rows, Bytes: st.Bytes, Blocks: st.Blocks, Returned: int64(len(series))}, a.Now().Sub(began))
		body = append(body, "}}"...)
		return nil
	})
	return body, err
}

// groupingOf returns the labels that volumes of a stream count for: those of targetLabels, else those that the selector
// names, else all of them; with aggregateBy=labels each of these alone, without its value.
func groupingOf(r *http.Request, ms []*labels.Matcher) (func(telemetry.LabelSet) []telemetry.LabelSet, error) {
	by := r.Form.Get("aggregateBy")
	if by != "" && by != "series" && by != "labels" {
		return nil, invalid("aggregateBy", errors.New("want series or labels"))
	}
	var names []string
	for name := range strings.SplitSeq(r.Form.Get("targetLabels"), ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 && by != "labels" {
		for _, m := range ms {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return func(set telemetry.LabelSet) (out []telemetry.LabelSet) {
		var kept []byte
		set.Range(func(name, value string) {
			if len(names) > 0 && !slices.Contains(names, name) {
				return
			}
			if by == "labels" {
				out = append(out, telemetry.LabelSet(telemetry.AppendString(telemetry.AppendString(nil, name), "")))
				return
			}
			kept = telemetry.AppendString(telemetry.AppendString(kept, name), value)
		})
		if by != "labels" && len(kept) > 0 {
			out = append(out, telemetry.LabelSet(kept))
		}
		return out
	}, nil
}
