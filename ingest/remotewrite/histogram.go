package remotewrite

import (
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/braidobs/braid/internal/telemetry"
)

// wireHistogram is a native histogram as both versions of the protocol write it.
type wireHistogram struct {
	h          histogram.FloatHistogram // what both kinds share, and the counts of a float histogram
	float      bool
	count      uint64
	zeroFloat  bool
	zero       uint64
	pos, neg   []int64 // differences of an integer histogram
	hint       uint64
	t, started int64
}

// parse reads the message b. Field 17, the start time, is there since version 2.
func (w *wireHistogram) parse(b []byte, version2 bool) error {
	for i := 0; i < len(b); {
		f, end, err := next(b, i)
		if err != nil {
			return err
		}
		i = end
		switch f.num {
		case 1:
			err, w.count, w.float = f.is(wireVarint), f.n, false
		case 2:
			err, w.h.Count, w.float = f.is(wireFixed8), f.float(), true
		case 3:
			err, w.h.Sum = f.is(wireFixed8), f.float()
		case 4:
			err, w.h.Schema = f.is(wireVarint), zigzag32(f.n)
		case 5:
			err, w.h.ZeroThreshold = f.is(wireFixed8), f.float()
		case 6:
			err, w.zero, w.zeroFloat = f.is(wireVarint), f.n, false
		case 7:
			err, w.h.ZeroCount, w.zeroFloat = f.is(wireFixed8), f.float(), true
		case 8:
			w.h.NegativeSpans, err = appendSpan(w.h.NegativeSpans, &f)
		case 9:
			w.neg, err = appendDeltas(w.neg, &f)
		case 10:
			w.h.NegativeBuckets, err = appendFloats(w.h.NegativeBuckets, &f)
		case 11:
			w.h.PositiveSpans, err = appendSpan(w.h.PositiveSpans, &f)
		case 12:
			w.pos, err = appendDeltas(w.pos, &f)
		case 13:
			w.h.PositiveBuckets, err = appendFloats(w.h.PositiveBuckets, &f)
		case 14:
			err, w.hint = f.is(wireVarint), f.n
		case 15:
			err, w.t = f.is(wireVarint), int64(f.n)
		case 16:
			w.h.CustomValues, err = appendFloats(w.h.CustomValues, &f)
		case 17:
			if version2 {
				err, w.started = f.is(wireVarint), int64(f.n)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cost is what the histogram takes in memory, in bytes.
func (w *wireHistogram) cost() int {
	return 256 + 8*(len(w.h.PositiveSpans)+len(w.h.NegativeSpans)+len(w.h.PositiveBuckets)+len(w.h.NegativeBuckets)+
		len(w.h.CustomValues)+len(w.pos)+len(w.neg))
}

// sample returns the histogram, or why it is refused. A resolution that only reserved schemas have is reduced to
// the finest one that is used, as Prometheus does.
func (w *wireHistogram) sample() (telemetry.HistogramSample, refusal) {
	p := telemetry.HistogramSample{T: w.t, ST: w.started}
	hint := histogram.UnknownCounterReset
	if w.hint <= uint64(histogram.GaugeType) {
		hint = histogram.CounterResetHint(w.hint)
	}
	pos, neg := len(w.pos), len(w.neg)
	if w.float {
		pos, neg = len(w.h.PositiveBuckets), len(w.h.NegativeBuckets)
	}
	if length(w.h.PositiveSpans) != uint64(pos) || length(w.h.NegativeSpans) != uint64(neg) {
		return p, refusal{reasonHistogram, "a histogram is not stored: its spans do not fit its buckets"}
	}
	reduce := histogram.IsExponentialSchemaReserved(w.h.Schema) && w.h.Schema > histogram.ExponentialSchemaMax
	var err error
	if w.float {
		h := w.h
		h.CounterResetHint = hint
		if !w.zeroFloat {
			h.ZeroCount = 0
		}
		if reduce {
			err = h.ReduceResolution(histogram.ExponentialSchemaMax)
		}
		if err == nil {
			err = h.Validate()
		}
		p.FH = &h
	} else {
		h := histogram.Histogram{
			CounterResetHint: hint, Schema: w.h.Schema, ZeroThreshold: w.h.ZeroThreshold, Count: w.count, Sum: w.h.Sum,
			PositiveSpans: w.h.PositiveSpans, NegativeSpans: w.h.NegativeSpans, PositiveBuckets: w.pos, NegativeBuckets: w.neg,
			CustomValues: w.h.CustomValues,
		}
		if !w.zeroFloat {
			h.ZeroCount = w.zero
		}
		if reduce {
			err = h.ReduceResolution(histogram.ExponentialSchemaMax)
		}
		if err == nil {
			err = h.Validate()
		}
		p.H = &h
	}
	if err != nil {
		return p, refusal{reasonHistogram, "a histogram is not stored: " + err.Error()}
	}
	return p, refusal{}
}

// length returns the number of buckets that spans speak of.
func length(spans []histogram.Span) (n uint64) {
	for _, s := range spans {
		n += uint64(s.Length)
	}
	return n
}

func appendSpan(dst []histogram.Span, f *field) ([]histogram.Span, error) {
	if err := f.is(wireBytes); err != nil {
		return nil, err
	}
	var s histogram.Span
	for i := 0; i < len(f.b); {
		g, end, err := next(f.b, i)
		if err != nil {
			return nil, err
		}
		i = end
		switch g.num {
		case 1:
			err, s.Offset = g.is(wireVarint), zigzag32(g.n)
		case 2:
			err, s.Length = g.is(wireVarint), uint32(g.n)
		}
		if err != nil {
			return nil, err
		}
	}
	return append(dst, s), nil
}

func appendDeltas(dst []int64, f *field) ([]int64, error) {
	if dst == nil && f.wire == wireBytes {
		dst = make([]int64, 0, varints(f.b))
	}
	err := eachVarint(f, func(n uint64) { dst = append(dst, zigzag64(n)) })
	return dst, err
}
