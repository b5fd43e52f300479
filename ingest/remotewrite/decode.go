package remotewrite

import (
	"fmt"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// expansion is how many times the largest body a request may need in memory once it is decoded.
const expansion = 8

// What things take in memory, in bytes.
const (
	seriesCost   = 112
	sampleCost   = 24
	exemplarCost = 96
	symbolCost   = 24
)

// leastSeries is how many bytes a series with a sample has at least in a request.
const leastSeries = 28

// decoder turns one request after the other into series. It walks the wire format where it lies and keeps nothing of
// it: what it makes of labels are the strings of the interner. It is for one goroutine at a time.
type decoder struct {
	pipeline *ingest.Pipeline
	interner *ingest.Interner
	last     *ingest.Labels // of the series before, nil for the first
	budget   int            // bytes that the request may still take

	series   []telemetry.Series
	samples  []telemetry.Sample // those of one series after the other; the series point into it
	first    int                // where the samples of the series being read begin
	rejected storage.Rejected
	refused  map[string]int
	hits     int
	misses   int

	pairs     []pair
	canonical []byte
	raw       []byte // label fields that do not lie together
	builder   labels.ScratchBuilder
	symbols   symbols
	seen      map[described]struct{}
}

// begin prepares for a request whose body may have so many bytes at most.
func (d *decoder) begin(maxBody int) {
	d.budget = expansion * maxBody
	d.series, d.samples, d.first = nil, nil, 0
	d.rejected, d.hits, d.misses, d.last = storage.Rejected{}, 0, 0, nil
	clear(d.refused)
	clear(d.seen)
}

// end forgets what points into the request and what belongs to the caller now.
func (d *decoder) end() {
	d.series, d.samples, d.rejected = nil, nil, storage.Rejected{}
	clear(d.pairs[:cap(d.pairs)])
	d.symbols.end()
}

// spend takes n bytes from the budget.
func (d *decoder) spend(n int) error {
	if d.budget -= n; d.budget < 0 {
		return errTooMuch()
	}
	return nil
}

func errTooMuch() error {
	return httpapi.Errorf(httpapi.TooLarge, "the request needs more than %d times the memory of the largest body (setting remote_write.max_body); send less in one request", expansion)
}

// reserve makes room for n series of a body of so many bytes with one sample each.
func (d *decoder) reserve(n, body int) {
	n = min(n, body/leastSeries+1)
	d.series = make([]telemetry.Series, 0, n)
	d.samples = make([]telemetry.Sample, 0, n)
}

// sample adds a sample to the series being read.
func (d *decoder) sample(s telemetry.Sample) {
	if len(d.samples) == cap(d.samples) {
		mine := d.samples[d.first:]
		room := make([]telemetry.Sample, len(mine), max(2*len(mine), min(len(d.samples), 8192), 64))
		copy(room, mine)
		d.samples, d.first = room, 0
	}
	d.samples = append(d.samples, s)
}

// tells says whether the text of one more reason would reach the sender.
func (d *decoder) tells() bool { return len(d.rejected.Reasons) < storage.MaxReasons }

// refuse notes that n samples are not stored.
func (d *decoder) refuse(r refusal, n int) {
	d.rejected.Samples += n
	d.refused[r.reason] += n
	if d.tells() {
		d.rejected.Reason("%s", r.message)
	}
}

// part is the series being read: what is not samples.
type part struct {
	histograms []telemetry.HistogramSample
	exemplars  []exemplar.Exemplar
	metadata   *telemetry.Metadata
	bad        int // histograms that were refused
}

// keep ends the series being read: it gets the labels, or is refused.
func (d *decoder) keep(ls *telemetry.Interned, r refusal, p *part) {
	mine := d.samples[d.first:len(d.samples):len(d.samples)]
	if !r.none() {
		d.refuse(r, len(mine)+len(p.histograms))
		d.samples = d.samples[:d.first]
		return
	}
	d.first = len(d.samples)
	if len(mine)+len(p.histograms)+len(p.exemplars) == 0 && p.metadata == nil {
		return
	}
	d.date(p, mine)
	d.series = append(d.series, telemetry.Series{
		Labels: ls.Labels, Samples: mine, Histograms: p.histograms, Exemplars: p.exemplars, Metadata: p.metadata, Known: ls,
	})
}

// histogram reads a native histogram into p.
func (d *decoder) histogram(p *part, b []byte, version2 bool) error {
	var w wireHistogram
	if err := w.parse(b, version2); err != nil {
		return err
	}
	if err := d.spend(w.cost()); err != nil {
		return err
	}
	h, r := w.sample()
	if !r.none() {
		p.bad++
		d.refuse(r, 1)
		return nil
	}
	p.histograms = append(p.histograms, h)
	return nil
}

// exemplar adds an exemplar with the labels in d.pairs to p.
func (d *decoder) exemplar(p *part, value float64, t int64) error {
	cost := exemplarCost
	for i := range d.pairs {
		cost += 32 + len(d.pairs[i].name) + len(d.pairs[i].value)
	}
	if err := d.spend(cost); err != nil {
		return err
	}
	ls, r := d.exemplarLabels()
	if !r.none() {
		d.refuse(r, 0)
		return nil
	}
	p.exemplars = append(p.exemplars, exemplar.Exemplar{Labels: ls, Value: value, Ts: t, HasTs: t != 0})
	return nil
}

// date gives exemplars without a time that of the last sample beside them, and refuses those that have none.
func (d *decoder) date(p *part, samples []telemetry.Sample) {
	kept := p.exemplars[:0]
	for _, e := range p.exemplars {
		switch {
		case e.HasTs:
		case len(samples) > 0:
			e.Ts, e.HasTs = samples[len(samples)-1].T, true
		case len(p.histograms) > 0:
			e.Ts, e.HasTs = p.histograms[len(p.histograms)-1].T, true
		default:
			d.refuse(refusal{reasonNoTime, "an exemplar has neither a time nor a sample beside it"}, 0)
			continue
		}
		kept = append(kept, e)
	}
	p.exemplars = kept
}

// metadata returns the metadata of a family, or says what is wrong with it.
func (d *decoder) metadata(t uint64, unit, help []byte) (*telemetry.Metadata, refusal, error) {
	if err := d.spend(64 + len(unit) + len(help)); err != nil {
		return nil, refusal{}, err
	}
	if !utf8.Valid(unit) || !utf8.Valid(help) {
		return nil, refusal{reasonUTF8, "the unit or help of a metric is not valid UTF-8"}, nil
	}
	if limit := d.pipeline.Config().MaxLabelValue; len(unit) > int(limit) || len(help) > int(limit) {
		return nil, refusal{"label_value_too_long", fmt.Sprintf("the unit or help of a metric is longer than %s (setting ingest.max_label_value)", limit)}, nil
	}
	m := &telemetry.Metadata{Unit: string(unit), Help: string(help)}
	if t <= uint64(telemetry.MetricStateset) { // both protocols number the types as the disk does
		m.Type = telemetry.MetricType(t)
	}
	return m, refusal{}, nil
}
