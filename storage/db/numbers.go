package db

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	signalmetrics "github.com/braidobs/braid/storage/metrics"
)

// numbers gives series numbers in the log, so that their labels are told once in an era: from one head of metrics to
// the next. So whatever is replayed from the end of a flush finds the labels it speaks of in what is replayed. It is
// guarded by DB.order.
type numbers struct {
	era  uint64
	next uint32
}

// begin starts an era.
func (n *numbers) begin() { n.era, n.next = n.era+1, 0 }

// The head of a series in a record: two bits below the number, which is told as the difference to the one after the
// series before.
const (
	seriesFresh = 1 // its labels follow
	seriesPlain = 2 // one float sample without a start time, and nothing else
)

// append appends the series of the batches, whose entries stand in the same order.
func (n *numbers) append(dst []byte, batches []telemetry.Batch, entries []*signalmetrics.Entry) []byte {
	dst = telemetry.AppendUvarint(dst, n.era)
	last, at := int64(-1), int64(0)
	for i := range batches {
		ss := batches[i].Series
		dst = telemetry.AppendUvarint(dst, uint64(len(ss)))
		for j := range ss {
			s := &ss[j]
			number, fresh := entries[j].Number(n.era, n.next)
			head := zigzag(int64(number)-last-1) << 2
			last = int64(number)
			plain := len(s.Samples) == 1 && s.Samples[0].ST == 0 && len(s.Histograms) == 0 && len(s.Exemplars) == 0 && s.Metadata == nil && !s.Delta
			if plain {
				head |= seriesPlain
			}
			if fresh {
				head |= seriesFresh
				n.next++
			}
			dst = telemetry.AppendUvarint(dst, head)
			if fresh {
				dst = telemetry.AppendString(dst, string(entries[j].Labels()))
			}
			if !plain {
				bare := *s
				bare.Labels = ""
				dst = telemetry.AppendSeries(dst, &bare)
				continue
			}
			dst = telemetry.AppendVarint(dst, s.Samples[0].T-at)
			at = s.Samples[0].T
			dst = appendValue(dst, s.Samples[0].V)
		}
		entries = entries[len(ss):]
	}
	return dst
}

// maxWhole is the largest whole number up to which every float64 is exact.
const maxWhole = 1 << 53

// appendValue appends a whole number as an odd number, anything else as a zero and its bits.
func appendValue(dst []byte, v float64) []byte {
	if n := int64(v); float64(n) == v && n > -maxWhole && n < maxWhole && !(n == 0 && math.Signbit(v)) {
		return telemetry.AppendUvarint(dst, zigzag(n)<<1|1)
	}
	return binary.LittleEndian.AppendUint64(append(dst, 0), math.Float64bits(v))
}

func readValue(d *telemetry.Decoder) float64 {
	u := d.Uvarint()
	if u&1 != 0 {
		return float64(unzigzag(u >> 1))
	}
	if u != 0 {
		d.Fail("a value that begins with %d", u)
	}
	return d.Float()
}

func zigzag(x int64) uint64   { return uint64(x<<1) ^ uint64(x>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// numbering is the labels by their numbers while the log is read.
type numbering struct {
	era    uint64
	labels []telemetry.LabelSet
	// lenient says that the record is below the end of every chain: its series may speak of labels that are gone with
	// the beginning of the log, and then are left out.
	lenient bool
}

// read reads the series of the batches.
func (n *numbering) read(d *telemetry.Decoder, batches []telemetry.Batch) {
	unknown := func(format string, args ...any) {
		if !n.lenient {
			d.Fail(format, args...)
			return
		}
		d.Take(d.Len())
		for i := range batches {
			batches[i].Series = nil
		}
	}
	era := d.Uvarint()
	if d.Err() == nil && era < n.era {
		d.Fail("era %d after era %d", era, n.era)
	}
	if era > n.era {
		n.era, n.labels = era, nil
	}
	last, at := int64(-1), int64(0)
	for i := range batches {
		count := d.Count(3)
		if count == 0 || d.Err() != nil {
			continue
		}
		ss := make([]telemetry.Series, 0, count)
		samples := make([]telemetry.Sample, count)
		for j := 0; j < count && d.Err() == nil; j++ {
			head := d.Uvarint()
			number := last + 1 + unzigzag(head>>2)
			last = number
			if head&seriesFresh != 0 {
				if number != int64(len(n.labels)) {
					unknown("series %d is new after %d", number, len(n.labels))
					return
				}
				n.labels = append(n.labels, telemetry.LabelSet(strings.Clone(string(d.LabelSet()))))
			}
			if number < 0 || number >= int64(len(n.labels)) {
				unknown("series %d is not known", number)
				return
			}
			var s telemetry.Series
			if head&seriesPlain == 0 {
				if s = d.Series(); s.Labels != "" {
					d.Fail("a numbered series has labels")
				}
			} else {
				at += d.Varint()
				s.Samples = samples[j : j+1 : j+1]
				s.Samples[0] = telemetry.Sample{T: at, V: readValue(d)}
			}
			s.Labels = n.labels[number]
			ss = append(ss, s)
		}
		batches[i].Series = ss
	}
}

// refuseSeries takes what a limit of active series refused out of the request, tells the sender, and counts it in a
// series of its own. It returns the entries of what is left. It needs order.
func (d *DB) refuseSeries(req *storage.Request, entries []*signalmetrics.Entry, over []signalmetrics.Overflow) []*signalmetrics.Entry {
	kept := make([]*signalmetrics.Entry, 0, len(entries))
	for i := range req.Batches {
		b := &req.Batches[i]
		n := 0
		for j := range b.Series {
			if entries[j] != nil {
				b.Series[n] = b.Series[j]
				kept = append(kept, entries[j])
				n++
			}
		}
		entries = entries[len(b.Series):]
		b.Series = b.Series[:n]
	}
	for i := range over {
		o := &over[i]
		req.Rejected.Samples += o.Samples
		req.Rejected.Reason("%s", o.Reason())
		d.m.overflow.WithLabelValues(o.Setting).Add(float64(o.Samples))
		s, e := d.overflow.series(o, d.active)
		req.Batches = append(req.Batches, telemetry.Batch{Tenant: o.Tenant, Series: []telemetry.Series{s}})
		kept = append(kept, e)
	}
	return kept
}

// overflows counts, for each metric that has more series than allowed, the samples that were refused.
type overflows struct {
	counts map[overflowKey]float64
}

type overflowKey struct {
	tenant telemetry.Tenant
	metric string
}

// maxOverflows bounds the metrics that are told apart; those beyond are counted together.
const maxOverflows = 1000

// overflowMetric is the name of the series that count what was refused.
const overflowMetric = "braid_series_overflow_total"

// series returns the next sample of the series that counts what a metric lost.
func (o *overflows) series(x *signalmetrics.Overflow, active *signalmetrics.Active) (telemetry.Series, *signalmetrics.Entry) {
	k := overflowKey{x.Tenant, x.Metric}
	if _, ok := o.counts[k]; !ok && len(o.counts) >= maxOverflows {
		k.metric = "(others)"
	}
	o.counts[k] += float64(x.Samples)
	ls := telemetry.LabelSet(telemetry.AppendString(telemetry.AppendString(telemetry.AppendString(telemetry.AppendString(nil, "__name__"), overflowMetric), "metric"), k.metric))
	return telemetry.Series{
		Labels: ls, Samples: []telemetry.Sample{{T: x.Last, V: o.counts[k]}},
		Metadata: &telemetry.Metadata{Type: telemetry.MetricCounter, Help: "Samples refused because the metric or the tenant has too many active series."},
	}, active.Reserve(x.Tenant, ls)
}
