package testkit

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Dump returns everything that a store holds of a tenant as text, one line a record, in an order that does not
// depend on the layout: spans by their content, logs by stream and time in the order of arrival, samples by
// labels and time, exemplars, the names of the families that have metadata, and entities. Two stores that were
// given the same requests in the same order have the same dump.
func Dump(tb testing.TB, r storage.Reader, tenant telemetry.Tenant) []string {
	tb.Helper()
	v, err := r.View(tb.Context(), 0)
	require.NoError(tb, err)
	defer func() { require.NoError(tb, v.Close()) }()
	lines, err := DumpView(tb.Context(), v, tenant)
	require.NoError(tb, err)
	return lines
}

// DumpView is Dump of a view.
func DumpView(ctx context.Context, v storage.View, tenant telemetry.Tenant) ([]string, error) {
	var out []string
	for _, f := range []func(context.Context, storage.View, telemetry.Tenant) ([]string, error){dumpSpans, dumpLogs, dumpSeries, dumpEntities} {
		lines, err := f(ctx, v, tenant)
		if err != nil {
			return nil, err
		}
		out = append(out, lines...)
	}
	return out, nil
}

func dumpSpans(ctx context.Context, v storage.View, tenant telemetry.Tenant) ([]string, error) {
	var out []string
	for b, err := range v.Spans(ctx, storage.SpanQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Columns: storage.SpanAll}) {
		if err != nil {
			return nil, fmt.Errorf("read spans: %w", err)
		}
		for i := range b.Len() {
			s := b.Span(i)
			out = append(out, fmt.Sprintf("span %s %s %x %x", resourceText(b.ResourceOf(i)), s.TraceID,
				telemetry.AppendScope(nil, s.Scope), telemetry.AppendSpan(nil, &s)))
		}
	}
	slices.Sort(out)
	return out, nil
}

func resourceText(r *telemetry.Resource) string {
	if r == nil {
		return "-"
	}
	return r.ID.String()
}

func dumpLogs(ctx context.Context, v storage.View, tenant telemetry.Tenant) ([]string, error) {
	streams := make(map[telemetry.LabelSet][]string)
	for b, err := range v.Logs(ctx, storage.LogQuery{
		Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Columns: storage.LogAll, Order: storage.OldestFirst,
	}) {
		if err != nil {
			return nil, fmt.Errorf("read logs: %w", err)
		}
		for i := range b.Len() {
			r := b.Record(i)
			streams[b.StreamOf(i)] = append(streams[b.StreamOf(i)], fmt.Sprintf("log %s %s %x %x", b.StreamOf(i).Labels(),
				resourceText(b.ResourceOf(i)), telemetry.AppendScope(nil, r.Scope), telemetry.AppendLogRecord(nil, &r)))
		}
	}
	var out []string
	for _, s := range slices.Sorted(maps.Keys(streams)) {
		out = append(out, streams[s]...)
	}
	return out, nil
}

func dumpSeries(ctx context.Context, v storage.View, tenant telemetry.Tenant) ([]string, error) {
	q := storage.SeriesQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64}
	var out []string
	set := v.Series(ctx, q)
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		it = s.Iterator(it)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			switch kind {
			case chunkenc.ValFloat:
				t, f := it.At()
				out = append(out, fmt.Sprintf("sample %s %d %d %x", s.Labels(), t, it.AtST(), math.Float64bits(f)))
			case chunkenc.ValHistogram:
				t, h := it.AtHistogram(nil)
				out = append(out, fmt.Sprintf("sample %s %d %d int %s", s.Labels(), t, it.AtST(), h))
			default:
				t, h := it.AtFloatHistogram(nil)
				out = append(out, fmt.Sprintf("sample %s %d %d float %s", s.Labels(), t, it.AtST(), h))
			}
		}
		if err := it.Err(); err != nil {
			return nil, fmt.Errorf("read samples: %w", err)
		}
	}
	if err := set.Err(); err != nil {
		return nil, fmt.Errorf("read series: %w", err)
	}
	ex, err := v.Exemplars(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("read exemplars: %w", err)
	}
	for _, r := range ex {
		for _, e := range r.Exemplars {
			out = append(out, fmt.Sprintf("exemplar %s %s %d %x", r.SeriesLabels, e.Labels, e.Ts, math.Float64bits(e.Value)))
		}
	}
	meta, err := v.Metadata(ctx, tenant, "")
	if err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(meta)) {
		out = append(out, "metadata "+name)
	}
	vouched, err := v.SeriesResources(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	for _, s := range slices.Sorted(maps.Keys(vouched)) {
		ids := make([]string, 0, len(vouched[s]))
		for _, id := range vouched[s] {
			ids = append(ids, id.String())
		}
		sort.Strings(ids)
		out = append(out, fmt.Sprintf("evidence %s %s", s.Labels(), strings.Join(ids, ",")))
	}
	return out, nil
}

func dumpEntities(ctx context.Context, v storage.View, tenant telemetry.Tenant) ([]string, error) {
	es, err := v.Entities(ctx, tenant, telemetry.Query{Start: math.MinInt64})
	if err != nil {
		return nil, fmt.Errorf("read entities: %w", err)
	}
	var out []string
	for i := range es {
		for _, r := range es[i].Resources {
			out = append(out, fmt.Sprintf("entity %s %s %d %d", es[i].Key, r.Resource.ID, r.Start, r.End))
		}
	}
	return out, nil
}

// Numbers returns the numbers of Options.Numbered that a view holds of a tenant, sorted; a record that is stored
// twice is there twice.
func Numbers(ctx context.Context, v storage.View, tenant telemetry.Tenant) ([]uint64, error) {
	var out []uint64
	add := func(as telemetry.Attrs) {
		if n, ok := as.Get("seq"); ok && n.Kind() == telemetry.KindInt {
			out = append(out, uint64(n.Int()))
		}
	}
	for b, err := range v.Spans(ctx, storage.SpanQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Columns: storage.SpanAttrs}) {
		if err != nil {
			return nil, fmt.Errorf("read spans: %w", err)
		}
		for i := range b.Len() {
			add(b.Attrs[i])
		}
	}
	for b, err := range v.Logs(ctx, storage.LogQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Columns: storage.LogAttrs}) {
		if err != nil {
			return nil, fmt.Errorf("read logs: %w", err)
		}
		for i := range b.Len() {
			add(b.Attrs[i])
		}
	}
	set := v.Series(ctx, storage.SeriesQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64})
	for set.Next() {
		if set.At().Labels().Get("seq") == "" {
			continue
		}
		it := set.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			_, n := it.At()
			out = append(out, uint64(n))
		}
	}
	if err := set.Err(); err != nil {
		return nil, fmt.Errorf("read series: %w", err)
	}
	slices.Sort(out)
	return out, nil
}
