package db_test

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// ask puts random queries to both.
func (w *twin) ask(t *testing.T) {
	t.Helper()
	got, err := w.m.db.View(t.Context(), 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, got.Close()) }()
	want, err := w.oracle.View(t.Context(), 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, want.Close()) }()
	for i := range 4 {
		w.askLogs(t, want, got)
		w.askSpans(t, want, got)
		if i%2 == 0 { // it reads all that there is
			w.askTraces(t, want, got)
		}
		w.askSeries(t, want, got)
		w.askEntities(t, got)
	}
	require.Empty(t, got.Warnings())
}

// row is one row of an answer: when, of which stream or trace, and everything in it as text.
type row struct {
	at    int64
	group string
	text  string
}

func texts(rows []row) []string {
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = r.group + " " + r.text
	}
	return out
}

// compareRows requires that both are the same rows: in an order, each group in the same order.
func compareRows(t *testing.T, order storage.Order, want, got []row, q string) {
	t.Helper()
	if order == storage.Unordered {
		w, g := texts(want), texts(got)
		sort.Strings(w)
		sort.Strings(g)
		require.Equal(t, w, g, q)
		return
	}
	byGroup := func(rows []row) map[string][]string {
		m := make(map[string][]string)
		for _, r := range rows {
			m[r.group] = append(m[r.group], r.text)
		}
		return m
	}
	require.Equal(t, byGroup(want), byGroup(got), q)
	require.True(t, slices.IsSortedFunc(got, func(a, b row) int {
		if order == storage.NewestFirst {
			a, b = b, a
		}
		return int(min(max(a.at-b.at, -1), 1))
	}), "rows in order: %s", q)
}

// cut returns the first rows of an answer.
func cut(rows []row, limit int) []row {
	if limit > 0 && len(rows) > limit {
		return rows[:limit]
	}
	return rows
}

func readLogs(t *testing.T, v storage.View, q storage.LogQuery) []row {
	t.Helper()
	var out []row
	for b, err := range v.Logs(t.Context(), q) {
		require.NoError(t, err)
		c := q.Columns
		require.Equal(t, c&storage.LogBody != 0, b.Body != nil, "columns as asked for")
		require.Equal(t, c&storage.LogAttrs != 0, b.Attrs != nil)
		require.Equal(t, c&storage.LogSeverity != 0, b.Severity != nil)
		require.Equal(t, c&storage.LogTraceID != 0, b.TraceID != nil)
		require.Equal(t, c&storage.LogObserved != 0, b.Observed != nil)
		require.Equal(t, c&storage.LogStream != 0, b.Stream != nil)
		require.Equal(t, c&storage.LogResource != 0, b.Resource != nil)
		require.Equal(t, c&storage.LogScope != 0, b.Scope != nil)
		for i := range b.Len() {
			r := b.Record(i)
			out = append(out, row{
				at: r.Time, group: string(b.StreamIf(i)),
				text: fmt.Sprintf("%s %x %x", resourceText(b.ResourceOf(i)), telemetry.AppendScope(nil, r.Scope), telemetry.AppendLogRecord(nil, &r)),
			})
		}
	}
	return out
}

// readLines reads the texts of bodies, split or not.
func readLines(t *testing.T, v storage.View, q storage.LogQuery) []row {
	t.Helper()
	var out []row
	for b, err := range v.Logs(t.Context(), q) {
		require.NoError(t, err)
		require.NotEqual(t, b.Body != nil, b.Lines != nil, "bodies come in one form")
		for i := range b.Len() {
			text := ""
			if b.Lines != nil {
				line, err := b.Lines.AppendLine(nil, i)
				require.NoError(t, err)
				text = string(line)
			} else {
				text = b.Body[i].Text()
			}
			out = append(out, row{at: b.Time[i], group: string(b.StreamIf(i)), text: strconv.Quote(text)})
		}
	}
	return out
}

func resourceText(r *telemetry.Resource) string {
	if r == nil {
		return "-"
	}
	return r.ID.String()
}

func (w *twin) askLogs(t *testing.T, want, got storage.View) {
	t.Helper()
	lo, hi := w.span()
	q := storage.LogQuery{
		Tenant: pick(w.rng, tenants), Start: lo, End: hi, Where: w.where(), Order: storage.Order(w.rng.IntN(3)),
		Columns: storage.LogColumns(w.rng.Uint32())&storage.LogAll | storage.LogStream,
	}
	text := show(q)
	full := readLogs(t, got, q)
	compareRows(t, q.Order, readLogs(t, want, q), full, text)
	if q.Order != storage.Unordered {
		q.Limit = 1 + w.rng.IntN(30)
		require.Equal(t, texts(cut(full, q.Limit)), texts(readLogs(t, got, q)), "limit %d: %s", q.Limit, text)
	}
	q.Order, q.Limit, q.Columns = storage.Unordered, 0, storage.LogColumns(w.rng.Uint32())&storage.LogAll
	compareRows(t, q.Order, readLogs(t, want, q), readLogs(t, got, q), text)

	q.Order, q.Columns, q.Split = storage.Order(w.rng.IntN(3)), storage.LogLines|storage.LogStream, w.rng.IntN(2) == 0
	compareRows(t, q.Order, readLines(t, want, q), readLines(t, got, q), text)

	ws, err := want.Streams(t.Context(), q)
	require.NoError(t, err)
	gs, err := got.Streams(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, append([]telemetry.LabelSet{}, ws...), append([]telemetry.LabelSet{}, gs...), "streams: %s", text)
}

func readSpans(t *testing.T, v storage.View, q storage.SpanQuery) []row {
	t.Helper()
	var out []row
	for b, err := range v.Spans(t.Context(), q) {
		require.NoError(t, err)
		c := q.Columns
		require.Equal(t, c&storage.SpanNames != 0, b.Name != nil, "columns as asked for")
		require.Equal(t, c&storage.SpanAttrs != 0, b.Attrs != nil)
		require.Equal(t, c&storage.SpanEvents != 0, b.Events != nil)
		require.Equal(t, c&storage.SpanLinks != 0, b.Links != nil)
		require.Equal(t, c&storage.SpanMessages != 0, b.State != nil)
		for i := range b.Len() {
			s := b.Span(i)
			out = append(out, row{
				at: s.Start, group: s.TraceID.String(),
				text: fmt.Sprintf("%s %x %x", resourceText(b.ResourceOf(i)), telemetry.AppendScope(nil, s.Scope), telemetry.AppendSpan(nil, &s)),
			})
		}
	}
	return out
}

func (w *twin) askSpans(t *testing.T, want, got storage.View) {
	t.Helper()
	lo, hi := w.span()
	q := storage.SpanQuery{
		Tenant: pick(w.rng, tenants), Start: lo, End: hi, Where: w.where(), Order: storage.Order(w.rng.IntN(3)),
		Columns: storage.SpanColumns(w.rng.Uint32()) & storage.SpanAll,
	}
	text := show(q)
	full := readSpans(t, got, q)
	compareRows(t, q.Order, readSpans(t, want, q), full, text)
	if q.Order != storage.Unordered {
		q.Limit = 1 + w.rng.IntN(30)
		require.Equal(t, texts(cut(full, q.Limit)), texts(readSpans(t, got, q)), "limit %d: %s", q.Limit, text)
	}
}

func readSeries(t *testing.T, v storage.View, q storage.SeriesQuery) []string {
	t.Helper()
	var out []string
	set := v.Series(t.Context(), q)
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		it = s.Iterator(it)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			line := fmt.Sprintf("%s %d %d ", s.Labels(), it.AtT(), it.AtST())
			switch kind {
			case chunkenc.ValFloat:
				_, f := it.At()
				line += strconv.FormatUint(math.Float64bits(f), 16)
			case chunkenc.ValHistogram:
				_, h := it.AtHistogram(nil)
				line += hex.EncodeToString(telemetry.AppendHistogram(nil, &telemetry.HistogramSample{H: h}))
			default:
				_, h := it.AtFloatHistogram(nil)
				line += hex.EncodeToString(telemetry.AppendHistogram(nil, &telemetry.HistogramSample{FH: h}))
			}
			out = append(out, line)
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return out
}

func (w *twin) askSeries(t *testing.T, want, got storage.View) {
	t.Helper()
	lo, hi := w.span()
	q := storage.SeriesQuery{Tenant: pick(w.rng, tenants), Start: ms(lo), End: ms(hi), Matchers: w.seriesMatchers(), Limit: w.rng.IntN(4)}
	text := show(q)
	require.Equal(t, readSeries(t, want, q), readSeries(t, got, q), text)

	ctx := t.Context()
	sets := func(v storage.View, q storage.SeriesQuery) []telemetry.LabelSet {
		s, err := v.LabelSets(ctx, q)
		require.NoError(t, err)
		return append([]telemetry.LabelSet{}, s...)
	}
	// The engine goes by the first and last sample of a series in each part: a series is there if it has samples in the
	// range, and may be there if it has samples before and after.
	all := q
	all.Limit = 0
	before, after := all, all
	before.Start, after.End = math.MinInt64, math.MaxInt64
	may := slices.DeleteFunc(sets(want, before), func(s telemetry.LabelSet) bool { return !slices.Contains(sets(want, after), s) })
	have := sets(got, all)
	require.Subset(t, have, sets(want, all), text)
	require.Subset(t, may, have, text)
	require.True(t, slices.IsSortedFunc(have, func(a, b telemetry.LabelSet) int { return labels.Compare(a.Labels(), b.Labels()) }))
	cut := func(n int) int {
		if q.Limit > 0 {
			return min(q.Limit, n)
		}
		return n
	}
	require.Equal(t, have[:cut(len(have))], sets(got, q), text)
	name := pick(w.rng, []string{"__name__", "instance", "code", "absent"})
	asked := []struct {
		read func(v storage.View, q storage.SeriesQuery) ([]string, error)
		of   func(s telemetry.LabelSet, add func(string))
	}{
		{func(v storage.View, q storage.SeriesQuery) ([]string, error) { return v.LabelNames(ctx, q) }, func(s telemetry.LabelSet, add func(string)) {
			s.Range(func(name, _ string) { add(name) })
		}},
		{func(v storage.View, q storage.SeriesQuery) ([]string, error) { return v.LabelValues(ctx, name, q) }, func(s telemetry.LabelSet, add func(string)) {
			if v := s.Get(name); v != "" {
				add(v)
			}
		}},
	}
	for _, a := range asked {
		least, err := a.read(want, all)
		require.NoError(t, err)
		some, err := a.read(got, all)
		require.NoError(t, err)
		most := map[string]bool{}
		for _, s := range may {
			a.of(s, func(x string) { most[x] = true })
		}
		require.Subset(t, some, least, text)
		require.Subset(t, slices.Collect(maps.Keys(most)), some, text)
		require.True(t, slices.IsSorted(some))
		few, err := a.read(got, q)
		require.NoError(t, err)
		require.Equal(t, append([]string{}, some[:cut(len(some))]...), append([]string{}, few...), text)
	}
	exemplars := func(v storage.View) []string {
		rs, err := v.Exemplars(ctx, q)
		require.NoError(t, err)
		var out []string
		for _, r := range rs {
			for _, e := range r.Exemplars {
				out = append(out, fmt.Sprintf("%s %s %d %t %x", r.SeriesLabels, e.Labels, e.Ts, e.HasTs, math.Float64bits(e.Value)))
			}
		}
		return out
	}
	require.Equal(t, exemplars(want), exemplars(got), text)
	if !w.deleted {
		metric := pick(w.rng, []string{"", "http_requests_total", "request_seconds", "absent"})
		wm, err := want.Metadata(ctx, q.Tenant, metric)
		require.NoError(t, err)
		gm, err := got.Metadata(ctx, q.Tenant, metric)
		require.NoError(t, err)
		require.Equal(t, wm, gm)
	}
	w.askEvidence(t, want, got, q)
}

// askEvidence asks which resources vouch for series. The engine keeps a time range for each resource and series
// in each part: its answer lies between the resources that brought a sample of the time asked for, and those whose
// first and last sample enclose any of it.
func (w *twin) askEvidence(t *testing.T, want, got storage.View, q storage.SeriesQuery) {
	t.Helper()
	ctx := t.Context()
	q.Limit = 0
	wide, err := w.known.View(ctx, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, wide.Close()) }()
	least := w.vouchers(&q)
	most, err := wide.SeriesResources(ctx, q)
	require.NoError(t, err)
	have, err := got.SeriesResources(ctx, q)
	require.NoError(t, err)
	live, err := want.LabelSets(ctx, q)
	require.NoError(t, err)
	require.ElementsMatch(t, live, slices.Collect(maps.Keys(have)))
	for s, ids := range have {
		require.Subset(t, most[s], ids)
		require.Subset(t, ids, least[s])
		if !w.deleted && q.Start == math.MinInt64 && q.End == math.MaxInt64 {
			require.ElementsMatch(t, most[s], ids)
		}
	}
	if len(w.ids) == 0 {
		return
	}
	q.Resources = []telemetry.ResourceID{pick(w.rng, w.ids)}
	sets, err := got.LabelSets(ctx, q)
	require.NoError(t, err)
	for _, s := range live {
		in := slices.Contains(sets, s)
		if slices.Contains(least[s], q.Resources[0]) {
			require.True(t, in, "%s brought samples of %s", q.Resources[0], s.Labels())
		}
		if !slices.Contains(most[s], q.Resources[0]) {
			require.False(t, in, "%s does not vouch for %s", q.Resources[0], s.Labels())
		}
	}
	require.Subset(t, live, sets)
}

// vouchers returns the resources that brought a sample of the time asked for.
func (w *twin) vouchers(q *storage.SeriesQuery) map[telemetry.LabelSet][]telemetry.ResourceID {
	out := make(map[telemetry.LabelSet][]telemetry.ResourceID)
	inside := func(t int64) bool { return t >= q.Start && t <= q.End }
	for i := range w.kept {
		for j := range w.kept[i].Batches {
			b := &w.kept[i].Batches[j]
			for k := range b.Series {
				s := &b.Series[k]
				r := b.Resource
				if r == nil {
					r = telemetry.LabelResource(s.Labels)
				}
				brought := slices.ContainsFunc(s.Samples, func(p telemetry.Sample) bool { return inside(p.T) }) ||
					slices.ContainsFunc(s.Histograms, func(p telemetry.HistogramSample) bool { return inside(p.T) })
				if b.Tenant == q.Tenant && r != nil && brought && !slices.Contains(out[s.Labels], r.ID) {
					out[s.Labels] = append(out[s.Labels], r.ID)
				}
			}
		}
	}
	return out
}

func (w *twin) askEntities(t *testing.T, got storage.View) {
	t.Helper()
	lo, hi := w.span()
	q := telemetry.Query{
		Start: lo, End: hi, Kind: pick(w.rng, []telemetry.EntityKind{"", telemetry.EntityPod, telemetry.EntityContainer, telemetry.EntityService, telemetry.EntityHost}),
		Name: pick(w.rng, []string{"", "", "cart-1", "prod/cart-1", "cart", "shop/cart", "node-1"}),
	}
	if w.rng.IntN(3) == 0 && len(w.ids) > 0 {
		q.Resources = []telemetry.ResourceID{pick(w.rng, w.ids)}
	}
	tn := pick(w.rng, tenants)
	wide, err := w.known.View(t.Context(), 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, wide.Close()) }()
	we, err := wide.Entities(t.Context(), tn, q)
	require.NoError(t, err)
	ge, err := got.Entities(t.Context(), tn, q)
	require.NoError(t, err)
	require.Equal(t, append([]telemetry.Entity{}, we...), append([]telemetry.Entity{}, ge...), show(q))
}
