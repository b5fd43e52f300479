package remotewrite

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
)

// Reasons of refusals beside those of package ingest.
const (
	reasonMalformed = "malformed"
	reasonUTF8      = "not_utf8"
	reasonNoName    = "no_metric_name"
	reasonHistogram = "bad_histogram"
	reasonSymbol    = "bad_symbol"
	reasonNoTime    = "no_time"
	reasonEmpty     = "no_samples"
)

// nameLabel is the label that holds the name of the metric.
const nameLabel = "__name__"

// refusal is why something of a request is not stored: a word for the metrics, and what the sender is told.
type refusal struct{ reason, message string }

func (r refusal) none() bool { return r.reason == "" }

// pair is a label as it was sent.
type pair struct{ name, value []byte }

// sortPairs sorts ps by name and says whether they can be labels: every one has a name, none is there twice.
func sortPairs(ps []pair) refusal {
	byName := func(a, b pair) int { return bytes.Compare(a.name, b.name) }
	if !slices.IsSortedFunc(ps, byName) {
		slices.SortFunc(ps, byName)
	}
	for i := range ps {
		if len(ps[i].name) == 0 {
			return refusal{reasonMalformed, "a label has no name"}
		}
		if i > 0 && bytes.Equal(ps[i].name, ps[i-1].name) {
			return refusal{reasonMalformed, "label " + text(ps[i].name) + " is given twice"}
		}
	}
	return refusal{}
}

// labelSet makes the canonical form of the labels in d.pairs, which it sorts, and checks it.
func (d *decoder) labelSet() (telemetry.LabelSet, refusal) {
	r := sortPairs(d.pairs)
	named := false
	d.canonical = d.canonical[:0]
	for i := range d.pairs {
		p := &d.pairs[i]
		if len(p.value) == 0 {
			continue
		}
		named = named || string(p.name) == nameLabel
		d.canonical = appendText(d.canonical, p.name)
		d.canonical = appendText(d.canonical, p.value)
	}
	if r.none() && len(d.pairs) == 0 {
		r = refusal{reasonNoName, "a series has no labels"}
	}
	if r.none() && !named {
		r = refusal{reasonNoName, "a series has no label " + nameLabel}
	}
	if !r.none() {
		return "", d.describe(r)
	}
	ls := telemetry.LabelSet(d.canonical)
	if reason, message := d.pipeline.CheckLabels(ls); reason != "" {
		return "", d.describe(refusal{reason, message})
	}
	return ls, refusal{}
}

func appendText(dst, s []byte) []byte {
	dst = telemetry.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// describe adds the labels in d.pairs to a refusal, as far as somebody will read it.
func (d *decoder) describe(r refusal) refusal {
	if !d.tells() {
		return r
	}
	var b strings.Builder
	b.WriteString(r.message + ": {")
	for i := range d.pairs {
		if i > 0 {
			b.WriteString(", ")
		}
		if b.Len() > 300 {
			b.WriteString("...")
			break
		}
		b.WriteString(text(d.pairs[i].name) + "=" + text(d.pairs[i].value))
	}
	b.WriteByte('}')
	r.message = b.String()
	return r
}

// text quotes what a client sent, cut to a length that fits a message.
func text(b []byte) string {
	if len(b) > 80 {
		return fmt.Sprintf("%q...", b[:80])
	}
	return fmt.Sprintf("%q", b)
}

// exemplarLabels returns the labels in d.pairs, which it sorts, as those of an exemplar.
func (d *decoder) exemplarLabels() (labels.Labels, refusal) {
	if r := sortPairs(d.pairs); !r.none() {
		return labels.EmptyLabels(), refusal{r.reason, "an exemplar is not stored: " + r.message}
	}
	d.builder.Reset()
	for i := range d.pairs {
		p := &d.pairs[i]
		if !utf8.Valid(p.name) || !utf8.Valid(p.value) {
			return labels.EmptyLabels(), refusal{reasonUTF8, "an exemplar has a label that is not valid UTF-8"}
		}
		if len(p.value) > 0 {
			d.builder.Add(string(p.name), string(p.value))
		}
	}
	return d.builder.Labels(), refusal{}
}
