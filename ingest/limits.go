package ingest

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Names of the limits, the values of the label reason.
const (
	reasonOld        = "too_old"
	reasonFuture     = "too_far_in_future"
	reasonSize       = "record_too_large"
	reasonAttributes = "too_many_attributes"
	reasonName       = "name_too_long"
	reasonLabels     = "too_many_labels"
	reasonValue      = "label_value_too_long"
	reasonUTF8       = "not_utf8"
	reasonNoLabels   = "no_labels"
	reasonMalformed  = "malformed"
	reasonTime       = "time_out_of_range"
)

// The times that the store can hold: milliseconds whose nanoseconds fit.
const (
	minStored = math.MinInt64 / 1_000_000
	maxStored = math.MaxInt64 / 1_000_000
)

// broken is a limit that a record is over: its name and what the sender is told.
type broken struct{ reason, message string }

// none says that no limit is broken.
func (b broken) none() bool { return b.reason == "" }

// limiter applies the limits to the batches of one request.
type limiter struct {
	c                  Config
	p                  *Pipeline
	minNano, maxNano   int64
	minMilli, maxMilli int64
	rejected           storage.Rejected
	refused            Written           // what rejected does not tell apart
	counts             map[[2]string]int // by signal and reason
	cut                int               // lines
}

func newLimiter(p *Pipeline) *limiter {
	l := &limiter{
		c: p.config, p: p, counts: make(map[[2]string]int),
		minNano: math.MinInt64, maxNano: math.MaxInt64, minMilli: minStored, maxMilli: maxStored,
	}
	if !l.c.TimeWindow {
		return l
	}
	now := p.now()
	latest := now.Add(l.c.MaxFuture.Std())
	l.maxNano, l.maxMilli = latest.UnixNano(), latest.UnixMilli()
	if l.c.Retention > 0 {
		earliest := now.Add(-l.c.Retention.Std())
		l.minMilli, l.minNano = earliest.UnixMilli(), earliest.UnixNano()
	}
	return l
}

// flush hands the counts to the metrics.
func (l *limiter) flush() {
	for k, n := range l.counts {
		l.p.rejected.WithLabelValues(k[0], k[1]).Add(float64(n))
	}
	l.p.cut.Add(float64(l.cut))
}

// reject notes n records that break a limit. The caller counts them in l.rejected; derived ones have n of 0 and are
// only told about.
func (l *limiter) reject(s storage.Signal, b broken, n int) {
	l.rejected.Reason("%s", b.message)
	l.counts[[2]string{s.String(), b.reason}] += n
}

// batch removes what is over a limit and says whether anything is left.
func (l *limiter) batch(b *telemetry.Batch) bool {
	if br := l.resource(b); !br.none() {
		var t tally
		for i := range b.Series {
			if !b.Series[i].Derived {
				t.samples += len(b.Series[i].Samples) + len(b.Series[i].Histograms)
			}
		}
		t.spans, t.logs = len(b.Spans), len(b.Logs)
		l.rejected.Spans += t.spans
		l.rejected.Logs += t.logs
		l.rejected.Samples += t.samples
		for s, n := range map[storage.Signal]int{storage.Traces: t.spans, storage.Logs: t.logs, storage.Metrics: t.samples} {
			if n > 0 {
				l.reject(s, br, n)
			}
		}
		return false
	}
	l.spans(b)
	l.logs(b)
	l.series(b)
	return len(b.Spans)+len(b.Logs)+len(b.Series) > 0
}

func (l *limiter) resource(b *telemetry.Batch) broken {
	if b.Source != nil {
		if err := b.Source.Check(len(b.Logs)); err != nil {
			return broken{reasonMalformed, err.Error()}
		}
	}
	if b.Resource != nil {
		if br := l.attrs(b.Resource.Attrs, "a resource"); !br.none() {
			return br
		}
		if n := b.Resource.Attrs.Size() + len(b.Resource.SchemaURL); n > int(l.c.MaxRecord) {
			return l.tooLarge("a resource")
		}
	}
	if len(b.Logs) > 0 && b.Stream != "" {
		return l.labels(b.Stream)
	}
	return broken{}
}

func (l *limiter) spans(b *telemetry.Batch) {
	kept := b.Spans[:0]
	var scope scopeCheck
	for i := range b.Spans {
		s := &b.Spans[i]
		br := l.nano(s.Start, "a span")
		if br.none() {
			br = scope.check(l, s.Scope)
		}
		if br.none() {
			br = l.attrs(s.Attrs, "a span")
		}
		for j := 0; j < len(s.Events) && br.none(); j++ {
			br = l.attrs(s.Events[j].Attrs, "an event")
		}
		for j := 0; j < len(s.Links) && br.none(); j++ {
			br = l.attrs(s.Links[j].Attrs, "a link")
		}
		if br.none() && s.Size() > int(l.c.MaxRecord) {
			br = l.tooLarge("a span")
		}
		if !br.none() {
			l.rejected.Spans++
			l.reject(storage.Traces, br, 1)
			continue
		}
		kept = append(kept, *s)
	}
	b.Spans = kept
}

func (l *limiter) logs(b *telemetry.Batch) {
	var scope scopeCheck
	severity := streamSeverity(b.Stream)
	b.KeepLogs(func(i int) bool {
		r := &b.Logs[i]
		br := l.record(r)
		if br.none() {
			br = scope.check(l, r.Scope)
		}
		if br.none() {
			l.line(r, severity)
		}
		if br.none() && r.Size() > int(l.c.MaxRecord) {
			br = l.tooLarge("a log record")
		}
		if !br.none() {
			l.rejected.Logs++
			l.reject(storage.Logs, br, 1)
		}
		return br.none()
	})
}

// record checks what a log record is over beside its size, which is known when it is cut.
func (l *limiter) record(r *telemetry.LogRecord) broken {
	if br := l.nano(r.Time, "a log record"); !br.none() {
		return br
	}
	return l.attrs(r.Attrs, "a log record")
}

// scopeCheck remembers the answer for the last scope: neighbours share it.
type scopeCheck struct {
	last *telemetry.Scope
	was  broken
}

func (c *scopeCheck) check(l *limiter, s *telemetry.Scope) broken {
	if s == c.last {
		return c.was
	}
	c.last, c.was = s, broken{}
	if s != nil {
		c.was = l.attrs(s.Attrs, "a scope")
		if c.was.none() && len(s.Name)+len(s.Version)+len(s.SchemaURL)+s.Attrs.Size() > int(l.c.MaxRecord) {
			c.was = l.tooLarge("a scope")
		}
	}
	return c.was
}

func (l *limiter) series(b *telemetry.Batch) {
	kept := b.Series[:0]
	for i := range b.Series {
		s := &b.Series[i]
		points := len(s.Samples) + len(s.Histograms)
		if s.Known == nil {
			if br := l.labels(s.Labels); !br.none() {
				l.refused.Histograms += len(s.Histograms)
				l.refused.Exemplars += len(s.Exemplars)
				l.rejectSamples(s, br, points)
				continue
			}
		}
		if !l.inside(s) {
			l.window(s)
		}
		if len(s.Samples)+len(s.Histograms) == 0 && (points > 0 || len(s.Exemplars) == 0 && s.Metadata == nil) {
			l.refused.Exemplars += len(s.Exemplars)
			continue
		}
		if len(kept) == i {
			kept = kept[:i+1] // in its place already
			continue
		}
		kept = append(kept, *s)
	}
	clear(b.Series[len(kept):])
	b.Series = kept
}

// inside says that s has nothing but float samples, all within the time window: the common case.
func (l *limiter) inside(s *telemetry.Series) bool {
	if len(s.Histograms)+len(s.Exemplars) > 0 {
		return false
	}
	for i := range s.Samples {
		if t := s.Samples[i].T; t < l.minMilli || t > l.maxMilli {
			return false
		}
	}
	return true
}

func (l *limiter) rejectSamples(s *telemetry.Series, br broken, n int) {
	if s.Derived {
		n = 0
	}
	l.rejected.Samples += n
	l.reject(storage.Metrics, br, n)
}

// window removes the samples and exemplars of s that are outside the time window or too large.
func (l *limiter) window(s *telemetry.Series) {
	samples := s.Samples[:0]
	for _, v := range s.Samples {
		if br := l.milli(v.T); !br.none() {
			l.rejectSamples(s, br, 1)
			continue
		}
		samples = append(samples, v)
	}
	s.Samples = samples
	histograms := s.Histograms[:0]
	for _, v := range s.Histograms {
		br := l.milli(v.T)
		if one := (telemetry.Series{Histograms: []telemetry.HistogramSample{v}}); br.none() && one.Size() > int(l.c.MaxRecord) {
			br = l.tooLarge("a histogram")
		}
		if !br.none() {
			l.refused.Histograms++
			l.rejectSamples(s, br, 1)
			continue
		}
		histograms = append(histograms, v)
	}
	s.Histograms = histograms
	exemplars := s.Exemplars[:0]
	for _, e := range s.Exemplars {
		if br := l.exemplar(&e); !br.none() {
			l.refused.Exemplars++
			l.reject(storage.Metrics, br, 0)
			continue
		}
		exemplars = append(exemplars, e)
	}
	s.Exemplars = exemplars
}

// exemplar checks an exemplar, which is no record of its own: it is dropped with a reason and not counted.
func (l *limiter) exemplar(e *exemplar.Exemplar) broken {
	if e.HasTs {
		if br := l.milli(e.Ts); !br.none() {
			return broken{br.reason, strings.Replace(br.message, "a sample", "an exemplar", 1)}
		}
	}
	out := broken{}
	e.Labels.Range(func(lb labels.Label) {
		if out.none() && (lb.Name == "" || !utf8.ValidString(lb.Name) || !utf8.ValidString(lb.Value)) {
			out = broken{reasonUTF8, "an exemplar has a label that is not valid UTF-8 or has no name"}
		}
	})
	return out
}

func (l *limiter) nano(t int64, what string) broken {
	if t >= l.minNano && t <= l.maxNano {
		return broken{}
	}
	return l.outside(t < l.minNano, what)
}

func (l *limiter) milli(t int64) broken {
	if t >= l.minMilli && t <= l.maxMilli {
		return broken{}
	}
	if t < minStored || t > maxStored {
		return broken{reasonTime, "the time of a sample is not within the years 1678 to 2262"}
	}
	return l.outside(t < l.minMilli, "a sample")
}

func (l *limiter) outside(old bool, what string) broken {
	if old {
		return broken{reasonOld, fmt.Sprintf("the time of %s is older than the retention of %s (setting storage.retention)", what, l.c.Retention)}
	}
	return broken{reasonFuture, fmt.Sprintf("the time of %s is more than %s in the future (setting ingest.max_future)", what, l.c.MaxFuture)}
}

func (l *limiter) tooLarge(what string) broken {
	return broken{reasonSize, fmt.Sprintf("%s is larger than %s (setting ingest.max_record)", what, l.c.MaxRecord)}
}

func (l *limiter) attrs(as telemetry.Attrs, what string) broken {
	if len(as) > l.c.MaxAttributes {
		return broken{reasonAttributes, fmt.Sprintf("%s has more than %d attributes (setting ingest.max_attributes)", what, l.c.MaxAttributes)}
	}
	for i := range as {
		if len(as[i].Key) > int(l.c.MaxName) {
			return broken{reasonName, fmt.Sprintf("an attribute of %s has a name longer than %s (setting ingest.max_name)", what, l.c.MaxName)}
		}
	}
	return broken{}
}

// labels checks the labels of a series or a stream. The answer is the same for all series of one data point:
// le and quantile do not count, nor do the suffixes of the name.
func (l *limiter) labels(ls telemetry.LabelSet) broken {
	n, seen := 0, 0
	out := broken{}
	ls.Range(func(name, value string) {
		seen++
		if name != "le" && name != "quantile" {
			n++
		}
		if name == "__name__" {
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				if v, ok := strings.CutSuffix(value, suffix); ok {
					value = v
					break
				}
			}
		}
		switch {
		case !out.none():
		case len(name) > int(l.c.MaxName):
			out = broken{reasonName, fmt.Sprintf("a label has a name longer than %s (setting ingest.max_name)", l.c.MaxName)}
		case len(value) > int(l.c.MaxLabelValue):
			out = broken{reasonValue, fmt.Sprintf("a label has a value longer than %s (setting ingest.max_label_value)", l.c.MaxLabelValue)}
		case !utf8.ValidString(name) || !utf8.ValidString(value):
			out = broken{reasonUTF8, "a label is not valid UTF-8"}
		}
	})
	switch {
	case !out.none():
		return out
	case n > l.c.MaxLabels:
		return broken{reasonLabels, fmt.Sprintf("there are more than %d labels (setting ingest.max_labels)", l.c.MaxLabels)}
	case seen == 0:
		return broken{reasonNoLabels, "a series has no labels"}
	}
	if err := ls.Check(); err != nil {
		return broken{reasonMalformed, "a label is given twice or has no name"}
	}
	return broken{}
}
