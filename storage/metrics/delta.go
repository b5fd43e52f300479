package metrics

import (
	"maps"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Deltas turns delta series into cumulative ones in the order in which requests are appended to the log. Its
// state advances with Convert, and with Observe over what Convert returned and the log gave back. It is for one
// caller at a time.
//
// The rules are those of the OpenTelemetry Collector's deltatocumulative processor: a sample whose time is not
// after its predecessor's is out of order, one that starts before the first one's start is too old; both are
// rejected. A gap is accepted.
type Deltas struct {
	max    int
	states map[deltaKey]deltaState
}

type deltaKey struct {
	tenant telemetry.Tenant
	labels telemetry.LabelSet
}

type deltaState struct {
	start, last int64 // milliseconds
	v           float64
	fh          *histogram.FloatHistogram // never changed in place
}

// NewDeltas returns an empty state that follows at most max series.
func NewDeltas(max int) *Deltas { return &Deltas{max: max, states: make(map[deltaKey]deltaState)} }

// Len returns the number of series followed.
func (d *Deltas) Len() int { return len(d.states) }

// Convert makes the delta series of the batches cumulative, in place, and removes the samples it rejects.
func (d *Deltas) Convert(batches []telemetry.Batch) storage.Rejected {
	var rejected storage.Rejected
	for i := range batches {
		b := &batches[i]
		for j := range b.Series {
			s := &b.Series[j]
			if !s.Delta {
				continue
			}
			key := deltaKey{tenant: b.Tenant, labels: s.Labels}
			st, had := d.states[key]
			if !had && len(d.states) >= d.max {
				n := len(s.Samples) + len(s.Histograms)
				s.Samples, s.Histograms = nil, nil
				reject(&rejected, s, n)
				rejected.Reason("more than %d delta series (limit storage.max_delta_series): send cumulative temporality or raise the limit", d.max)
				continue
			}
			convert(s, &st, had, &rejected)
			if st.last == 0 && !had {
				continue
			}
			key.labels = telemetry.LabelSet(append([]byte(nil), s.Labels...))
			d.states[key] = st
		}
	}
	return rejected
}

func reject(r *storage.Rejected, s *telemetry.Series, n int) {
	if !s.Derived {
		r.Samples += n
	}
}

// convert advances st over the samples of s.
func convert(s *telemetry.Series, st *deltaState, known bool, rejected *storage.Rejected) {
	name := s.Labels.Get("__name__")
	follows := func(t, start int64) bool {
		switch {
		case !known:
			st.start, known = start, true
			if start == 0 {
				st.start = t
			}
		case t <= st.last:
			reject(rejected, s, 1)
			rejected.Reason("metric %s: a delta that ends at %d came after one that ends at %d", name, t, st.last)
			return false
		case start != 0 && start < st.start:
			reject(rejected, s, 1)
			rejected.Reason("metric %s: a delta that starts at %d is older than the series, which starts at %d", name, start, st.start)
			return false
		}
		return true
	}
	kept := s.Samples[:0]
	for _, p := range s.Samples {
		if follows(p.T, p.ST) {
			st.v += p.V
			st.last = p.T
			kept = append(kept, telemetry.Sample{T: p.T, ST: st.start, V: st.v})
		}
	}
	s.Samples = kept
	hists := s.Histograms[:0]
	for _, p := range s.Histograms {
		if !follows(p.T, p.ST) {
			continue
		}
		fh := p.FH
		if p.H != nil {
			fh = p.H.ToFloat(nil)
		}
		if st.fh != nil {
			sum, _, _, err := st.fh.Copy().Add(fh)
			if err != nil {
				reject(rejected, s, 1)
				rejected.Reason("metric %s: delta histogram cannot be added: %v", name, err)
				continue
			}
			fh = sum.Compact(0)
		}
		fh = fh.Copy()
		fh.CounterResetHint = histogram.UnknownCounterReset
		st.fh, st.last = fh, p.T
		hists = append(hists, telemetry.HistogramSample{T: p.T, ST: st.start, FH: fh})
	}
	s.Histograms = hists
}

// Observe takes over the state from batches that Convert returned and the log gave back.
func (d *Deltas) Observe(batches []telemetry.Batch) {
	for i := range batches {
		b := &batches[i]
		for j := range b.Series {
			s := &b.Series[j]
			if !s.Delta || len(s.Samples)+len(s.Histograms) == 0 {
				continue
			}
			key := deltaKey{tenant: b.Tenant, labels: telemetry.LabelSet(append([]byte(nil), s.Labels...))}
			st := d.states[key]
			if n := len(s.Samples); n > 0 {
				p := s.Samples[n-1]
				st.start, st.last, st.v = p.ST, p.T, p.V
			}
			if n := len(s.Histograms); n > 0 {
				p := s.Histograms[n-1]
				st.start, st.last, st.fh = p.ST, p.T, p.FH
			}
			d.states[key] = st
		}
	}
}

// Forget drops the series whose last sample lies before t: the next one starts anew.
func (d *Deltas) Forget(t int64) {
	for k, st := range d.states {
		if st.last < t {
			delete(d.states, k)
		}
	}
}

// Clone returns a copy that shares nothing that changes.
func (d *Deltas) Clone() *Deltas {
	c := &Deltas{max: d.max, states: make(map[deltaKey]deltaState, len(d.states))}
	maps.Copy(c.states, d.states)
	return c
}

// AppendTo appends the state for a snapshot.
func (d *Deltas) AppendTo(dst []byte) []byte {
	dst = telemetry.AppendUvarint(dst, uint64(len(d.states)))
	for k, st := range d.states {
		dst = telemetry.AppendString(dst, string(k.tenant))
		s := telemetry.Series{Labels: k.labels, Delta: true}
		if st.fh != nil {
			s.Histograms = []telemetry.HistogramSample{{T: st.last, ST: st.start, FH: st.fh}}
		}
		if st.fh == nil || st.v != 0 { // a series may have had both
			s.Samples = []telemetry.Sample{{T: st.last, ST: st.start, V: st.v}}
		}
		dst = telemetry.AppendSeries(dst, &s)
	}
	return dst
}

// Load reads what AppendTo wrote.
func (d *Deltas) Load(in *telemetry.Decoder) error {
	for range in.Count(4) {
		b := telemetry.Batch{Tenant: telemetry.Tenant(in.Str()), Series: []telemetry.Series{in.Series()}}
		if in.Err() != nil {
			break
		}
		d.Observe([]telemetry.Batch{b})
	}
	return in.Err()
}
