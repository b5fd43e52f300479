package telemetry

import (
	"math"
	"strconv"
	"strings"
)

// A trace that was kept at random says so in the trace state of its spans, as OpenTelemetry's specification of probability
// sampling has it: "ot=th:c" names the rejection threshold, the 56 bits of a random number below which a trace is dropped, as
// up to 14 hexadecimal digits without the zeros at their end. One kept with probability p stands for 1/p traces.
//
// https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/

const (
	otelMember = "ot="
	otelTh     = "th:"
	thDigits   = 14
	thMax      = 1 << 56
)

// Probability returns the probability with which the trace of a span with the given trace state was kept: 1 where the state
// does not tell, or tells nonsense.
func Probability(state string) float64 {
	if !strings.Contains(state, otelTh) {
		return 1
	}
	th, ok := threshold(state)
	if !ok {
		return 1
	}
	return float64(thMax-th) / thMax
}

// threshold returns the threshold that a trace state tells.
func threshold(state string) (uint64, bool) {
	for member := range strings.SplitSeq(state, ",") {
		value, ok := strings.CutPrefix(strings.TrimSpace(member), otelMember)
		if !ok {
			continue
		}
		for sub := range strings.SplitSeq(value, ";") {
			digits, ok := strings.CutPrefix(sub, otelTh)
			if !ok {
				continue
			}
			if digits == "" || len(digits) > thDigits {
				return 0, false
			}
			th, err := strconv.ParseUint(digits+strings.Repeat("0", thDigits-len(digits)), 16, 64)
			return th, err == nil
		}
	}
	return 0, false
}

// WithProbability returns the trace state of a span whose trace was kept with probability p once more, in addition to what
// state tells. A p of 1 or more changes nothing.
func WithProbability(state string, p float64) string {
	if p >= 1 {
		return state
	}
	p *= Probability(state)
	th := min(uint64(math.Round((1-p)*thMax)), thMax-1)
	digits := strings.TrimRight(leftZeros(strconv.FormatUint(th, 16)), "0")
	if digits == "" {
		digits = "0"
	}
	ours := []string{otelTh + digits}
	var others []string
	for member := range strings.SplitSeq(state, ",") {
		member = strings.TrimSpace(member)
		value, ok := strings.CutPrefix(member, otelMember)
		if !ok {
			if member != "" {
				others = append(others, member)
			}
			continue
		}
		for sub := range strings.SplitSeq(value, ";") {
			if sub != "" && !strings.HasPrefix(sub, otelTh) {
				ours = append(ours, sub)
			}
		}
	}
	return strings.Join(append([]string{otelMember + strings.Join(ours, ";")}, others...), ",")
}

func leftZeros(s string) string { return strings.Repeat("0", thDigits-len(s)) + s }
