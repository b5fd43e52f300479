package slo

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// SpansMetric is the name of the series of counted spans: braid_slo_spans{slo="...",outcome="total"|"bad"}. A sample is
// the number of spans that started in the bucket of time that ends with it, so that sum_over_time over a range is the
// exact number of spans in it; one whose trace was kept at random counts as those it stands for. The series are not stored: they are counted from the spans when they are asked for.
const SpansMetric = "braid_slo_spans"

const (
	labelOutcome = "outcome"
	outcomeTotal = "total"
	outcomeBad   = "bad"
	// bucketsPerWindow is how finely the shortest window is divided.
	bucketsPerWindow = 30
	minBucket        = 100 * time.Millisecond
	// maxBuckets bounds what is kept of one objective: 31 days of 10 seconds.
	maxBuckets = 31 * 24 * 360
)

// count is what a bucket holds.
type count struct{ total, bad uint32 }

// Counter counts the spans of objectives, by buckets of time. It implements promql.Virtual. What it has counted it keeps until a span is stored that
// started in the bucket: Touch must be told of every write after it is visible. It is safe for concurrent use.
type Counter struct {
	reader storage.Reader
	tenant telemetry.Tenant
	bucket int64 // nanoseconds, whole milliseconds

	mu     sync.Mutex // guards what follows
	slos   map[string]*counted
	writes uint64 // rises with every Touch

	scanned prometheus.Counter
	scans   prometheus.Counter
}

// counted is the buckets of one objective, by their number: the start divided by the bucket's length.
type counted struct {
	sli     *SpanSLI
	buckets map[int64]count
	touched map[int64]uint64 // the value of writes when a bucket was last touched, while scans are under way
	scans   int
}

// NewCounter returns a counter of the spans of a tenant, without objectives.
func NewCounter(reader storage.Reader, tenant telemetry.Tenant, o Options, reg prometheus.Registerer) *Counter {
	bucket := max((scaled(Windows()[0].Short, o.Scale) / bucketsPerWindow).Truncate(time.Millisecond), minBucket)
	c := &Counter{
		reader: reader, tenant: tenant, bucket: int64(bucket), slos: make(map[string]*counted),
		scanned: prometheus.NewCounter(prometheus.CounterOpts{Name: "braid_slo_spans_scanned_total", Help: "Spans read to count those of objectives."}),
		scans:   prometheus.NewCounter(prometheus.CounterOpts{Name: "braid_slo_scans_total", Help: "Ranges of time in which spans of objectives were counted."}),
	}
	reg.MustRegister(c.scanned, c.scans)
	return c
}

// Bucket returns the length of a bucket.
func (c *Counter) Bucket() time.Duration { return time.Duration(c.bucket) }

// Set replaces the objectives. What was counted of one that stays as it is is kept.
func (c *Counter) Set(slos []SLO) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[string]*counted)
	for i := range slos {
		s := &slos[i]
		if s.SLI.Spans == nil {
			continue
		}
		if old := c.slos[s.Name]; old != nil && fmt.Sprintf("%+v", old.sli.bad()) == fmt.Sprintf("%+v", s.SLI.Spans.bad()) {
			next[s.Name] = old
			continue
		}
		next[s.Name] = &counted{sli: s.SLI.Spans, buckets: make(map[int64]count), touched: make(map[int64]uint64)}
	}
	c.slos = next
}

func (c *Counter) number(nanos int64) int64 {
	n := nanos / c.bucket
	if nanos < 0 && nanos%c.bucket != 0 {
		n--
	}
	return n
}

// Touching returns the buckets that a request will change, for Touch; nil when it has no spans of the tenant, or no
// objective counts any.
func (c *Counter) Touching(batches []telemetry.Batch) []int64 {
	c.mu.Lock()
	none := len(c.slos) == 0
	c.mu.Unlock()
	if none {
		return nil
	}
	var out []int64
	for i := range batches {
		if batches[i].Tenant != c.tenant {
			continue
		}
		for j := range batches[i].Spans {
			n := c.number(batches[i].Spans[j].Start)
			if len(out) == 0 || out[len(out)-1] != n {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Touch forgets what was counted in buckets.
func (c *Counter) Touch(buckets []int64) {
	if len(buckets) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	for _, s := range c.slos {
		for _, b := range buckets {
			delete(s.buckets, b)
			if s.scans > 0 {
				s.touched[b] = c.writes
			}
		}
	}
}

// Writer tells a counter of what is written.
type Writer struct {
	storage.Writer
	Counter *Counter
}

// Write implements storage.Writer.
func (w Writer) Write(ctx context.Context, req storage.Request) (storage.Position, storage.Rejected, error) {
	buckets := w.Counter.Touching(req.Batches) // before the batches are given away
	pos, rejected, err := w.Writer.Write(ctx, req)
	w.Counter.Touch(buckets) // after an error as well: the request may have been stored
	return pos, rejected, err
}

// Forget forgets everything counted: records were deleted.
func (c *Counter) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	for _, s := range c.slos {
		for b := range s.buckets {
			if s.scans > 0 {
				s.touched[b] = c.writes
			}
			delete(s.buckets, b)
		}
	}
}

// Select implements promql.Virtual.
func (c *Counter) Select(ctx context.Context, tenant telemetry.Tenant, start, end int64, ms []*labels.Matcher) (set promstorage.SeriesSet, ok bool) {
	if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool {
		return m.Type == labels.MatchEqual && m.Name == model.MetricNameLabel && m.Value == SpansMetric
	}) {
		return nil, false
	}
	if tenant != c.tenant {
		return promstorage.EmptySeriesSet(), true
	}
	c.mu.Lock()
	names := make([]string, 0, len(c.slos))
	for name := range c.slos {
		names = append(names, name)
	}
	c.mu.Unlock()
	sort.Strings(names)
	var out []promstorage.Series
	for _, outcome := range []string{outcomeBad, outcomeTotal} {
		for _, name := range names {
			ls := labels.FromStrings(model.MetricNameLabel, SpansMetric, labelOutcome, outcome, LabelSLO, name)
			if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) }) {
				samples, err := c.samples(ctx, name, outcome == outcomeBad, start, end)
				if err != nil {
					return promstorage.ErrSeriesSet(fmt.Errorf("count the spans of objective %s: %w", name, err)), true
				}
				out = append(out, promstorage.NewListSeries(ls, samples))
			}
		}
	}
	return &seriesSet{list: out, at: -1}, true
}

// samples returns the counts of the buckets that end in a range of milliseconds. Buckets without spans have no sample.
func (c *Counter) samples(ctx context.Context, name string, bad bool, start, end int64) ([]chunks.Sample, error) {
	// The sample of bucket n stands at its end, (n+1)*bucket.
	first, last := c.number(start*1e6-1), c.number(end*1e6)-1
	if last-first > maxBuckets {
		first = last - maxBuckets
	}
	if first > last {
		return nil, nil
	}
	counts, err := c.counts(ctx, name, first, last)
	if err != nil {
		return nil, err
	}
	var out []chunks.Sample
	for i, n := range counts {
		if n.total == 0 {
			continue
		}
		value := n.total
		if bad {
			value = n.bad
		}
		out = append(out, sample{t: (first + int64(i) + 1) * c.bucket / 1e6, v: float64(value)})
	}
	return out, nil
}

// counts returns what the buckets from first to last hold; it counts those that are not known.
func (c *Counter) counts(ctx context.Context, name string, first, last int64) ([]count, error) {
	out := make([]count, last-first+1)
	c.mu.Lock()
	s := c.slos[name]
	if s == nil {
		c.mu.Unlock()
		return nil, nil
	}
	var missing [][2]int64 // ranges, both ends included
	for b := first; b <= last; b++ {
		n, ok := s.buckets[b]
		if ok {
			out[b-first] = n
			continue
		}
		if len(missing) > 0 && missing[len(missing)-1][1] == b-1 {
			missing[len(missing)-1][1] = b
		} else {
			missing = append(missing, [2]int64{b, b})
		}
	}
	if len(missing) == 0 {
		c.mu.Unlock()
		return out, nil
	}
	since := c.writes // before the view is opened: what is written from now on touches what it changes
	s.scans++
	c.mu.Unlock()
	err := c.scanAll(ctx, s.sli, missing, func(r [2]int64) []count { return out[r[0]-first : r[1]-first+1] })
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.scans--; err == nil {
		for _, r := range missing {
			for b := r[0]; b <= r[1]; b++ {
				if s.touched[b] <= since {
					s.buckets[b] = out[b-first]
				}
			}
		}
		if len(s.buckets) > 2*maxBuckets {
			for b := range s.buckets {
				if b < last-maxBuckets {
					delete(s.buckets, b)
				}
			}
		}
	}
	if s.scans == 0 {
		clear(s.touched)
	}
	return out, err
}

// scanAll counts the spans in ranges of buckets, all from one view.
func (c *Counter) scanAll(ctx context.Context, sli *SpanSLI, ranges [][2]int64, into func([2]int64) []count) error {
	v, err := c.reader.View(ctx, 0)
	if err != nil {
		return err
	}
	defer v.Close()
	for _, r := range ranges {
		if err := c.scan(ctx, v, sli, r[0], r[1], into(r)); err != nil {
			return err
		}
	}
	return nil
}

// scan counts the spans that started in the buckets from first to last.
func (c *Counter) scan(ctx context.Context, v storage.View, sli *SpanSLI, first, last int64, into []count) error {
	c.scans.Inc()
	total, bad := sli.Total.Predicate(), sli.bad()
	q := storage.SpanQuery{
		Tenant: c.tenant, Start: first * c.bucket, End: (last+1)*c.bucket - 1, Where: total,
		Columns: storage.SpanMessages | storage.NeedsOfSpans(total) | storage.NeedsOfSpans(bad),
	}
	read := 0
	for b, err := range v.Spans(ctx, q) {
		if err != nil {
			return err
		}
		read += b.Len()
		for i := range b.Len() {
			n := &into[c.number(b.Start[i])-first]
			weight := b.Weight(i)
			n.total = plus(n.total, weight)
			if b.Match(i, bad) {
				n.bad = plus(n.bad, weight)
			}
		}
	}
	c.scanned.Add(float64(read))
	return nil
}

// plus adds up, to the largest number at most.
func plus(n uint32, more int64) uint32 { return uint32(min(int64(n)+more, math.MaxUint32)) }

// sample implements chunks.Sample.
type sample struct {
	t int64
	v float64
}

func (s sample) T() int64                    { return s.t }
func (sample) ST() int64                     { return 0 }
func (s sample) F() float64                  { return s.v }
func (sample) H() *histogram.Histogram       { return nil }
func (sample) FH() *histogram.FloatHistogram { return nil }
func (sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample         { return s }
func (s sample) String() string              { return strconv.FormatFloat(s.v, 'g', -1, 64) }

// seriesSet is a promstorage.SeriesSet over a list in the order of labels.
type seriesSet struct {
	list []promstorage.Series
	at   int // -1 before the first Next
}

// Next implements promstorage.SeriesSet.
func (s *seriesSet) Next() bool {
	s.at++
	return s.at < len(s.list)
}

// At implements promstorage.SeriesSet.
func (s *seriesSet) At() promstorage.Series { return s.list[s.at] }

// Err implements promstorage.SeriesSet.
func (*seriesSet) Err() error { return nil }

// Warnings implements promstorage.SeriesSet.
func (*seriesSet) Warnings() annotations.Annotations { return nil }
