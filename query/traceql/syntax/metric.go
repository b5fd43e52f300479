package syntax

import "strconv"

// metric reads a function that makes series of spans, and says whether there is one. It stands behind stages.
func (p *parser) metric(stages []Node) (*MetricFunc, bool, error) {
	t := p.peek()
	if t.kind != ident || !p.tokens[p.i+1].is("(") {
		return nil, false, nil
	}
	f := &MetricFunc{at: at(t.at), Op: MetricOp(t.s)}
	switch f.Op {
	case Rate, CountOverTime, MinOverTime, MaxOverTime, AvgOverTime, SumOverTime, QuantileOverTime, HistogramOverTime, Compare:
	default:
		return nil, false, nil
	}
	if len(stages) == 0 {
		return nil, false, p.fail(t, "%s needs spans before it, as in {} | %s(...)", f.Op, f.Op)
	}
	p.i += 2
	var err error
	switch f.Op {
	case Rate, CountOverTime:
	case Compare:
		err = p.compare(f)
	default:
		if f.Of, err = p.operandField(); err == nil && f.Op == QuantileOverTime {
			f.Quantiles, err = p.quantiles()
		}
	}
	if err != nil {
		return nil, false, err
	}
	if err := p.want(")"); err != nil {
		return nil, false, err
	}
	if t := p.peek(); t.word("by") {
		if f.Op == Compare {
			return nil, false, p.fail(t, "compare does not go with by: it groups by all attributes")
		}
		p.next()
		if err := p.want("("); err != nil {
			return nil, false, err
		}
		if f.By, err = p.attributes(); err != nil {
			return nil, false, err
		}
	}
	return f, true, nil
}

// quantiles reads numbers behind commas.
func (p *parser) quantiles() ([]float64, error) {
	var out []float64
	if err := p.want(","); err != nil {
		return nil, err
	}
	for {
		t := p.next()
		if err := p.part(t); err != nil {
			return nil, err
		}
		v, err := strconv.ParseFloat(t.s, 64)
		if t.kind != number || err != nil {
			return nil, p.fail(t, "unexpected %s; want a quantile from 0 to 1", t.describe())
		}
		out = append(out, v)
		if !p.take(",") {
			return out, nil
		}
	}
}

// compare reads {selection}, top, start, end.
func (p *parser) compare(f *MetricFunc) error {
	t := p.next()
	if !t.is("{") {
		return p.fail(t, "unexpected %s; want what is selected, as in compare({ status = error })", t.describe())
	}
	var err error
	if f.Selection, err = p.filter(t); err != nil {
		return err
	}
	f.Top = DefaultTop
	var args []int64
	for p.take(",") {
		t := p.next()
		n, err := strconv.ParseInt(t.s, 10, 64)
		if t.kind != number || err != nil || len(args) == 3 {
			return p.fail(t, "unexpected %s; want compare({...}, how many values, start, end), the times in nanoseconds", t.describe())
		}
		args = append(args, n)
	}
	switch len(args) {
	case 0:
	case 1:
		f.Top = int(args[0])
	case 3:
		f.Top, f.Start, f.End = int(args[0]), args[1], args[2]
	default:
		return p.fail(p.peek(), "compare needs both a start and an end, or neither")
	}
	return nil
}
