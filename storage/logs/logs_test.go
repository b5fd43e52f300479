package logs_test

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs"
	"github.com/braidobs/braid/storage/logs/lines"
	"github.com/braidobs/braid/storage/part"
)

// world makes rows, keeps them, and answers by looking at all of them.
type world struct {
	t    *testing.T
	rng  *rand.Rand
	enc  *zstd.Encoder
	zdec *zstd.Decoder
	dec  *lines.Decoder

	streams   []telemetry.LabelSet
	resources []*telemetry.Resource
	scopes    []*telemetry.Scope
	traces    []telemetry.TraceID
	rows      []worldRow // in the order of arrival
	parts     int
}

type worldRow struct {
	stream telemetry.LabelSet
	res    *telemetry.Resource
	rec    telemetry.LogRecord
	from   int // the batch that it came with
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), dec: lines.NewDecoder()}
	var err error
	w.enc, err = part.NewEncoder()
	require.NoError(t, err)
	w.zdec, err = part.NewDecoder()
	require.NoError(t, err)
	t.Cleanup(w.zdec.Close)
	for i := range 5 {
		w.streams = append(w.streams, telemetry.NewLabelSet(labels.FromStrings("app", fmt.Sprint("a", i%3), "pod", fmt.Sprint("p", i))))
	}
	w.resources = []*telemetry.Resource{nil, telemetry.NewResource("", w.attrs(3)), telemetry.NewResource("url", w.attrs(4))}
	w.scopes = []*telemetry.Scope{nil, {Name: "s"}, {Name: "s", Version: "1", Attrs: w.attrs(3)}}
	for range 6 {
		var id telemetry.TraceID
		for i := range id {
			id[i] = byte(w.rng.Uint32())
		}
		w.traces = append(w.traces, id)
	}
	return w
}

func some[T any](rng *rand.Rand, of []T) T { return of[rng.IntN(len(of))] }

func keys() []string { return []string{"user.id", "code", "where", "note", "empty"} }

func (w *world) value() telemetry.Value {
	switch w.rng.IntN(7) {
	case 0:
		return telemetry.Int(int64(w.rng.IntN(5)))
	case 1:
		return telemetry.Int(int64(w.rng.Uint64()))
	case 2:
		return telemetry.Bool(w.rng.IntN(2) == 0)
	case 3:
		return telemetry.Double(float64(w.rng.IntN(100)) / 8)
	case 4:
		return telemetry.String("")
	default:
		return telemetry.String(fmt.Sprint("u-", w.rng.IntN(6)))
	}
}

func (w *world) attrs(n int) telemetry.Attrs {
	var as []telemetry.Attr
	for range w.rng.IntN(n + 1) {
		as = append(as, telemetry.Attr{Key: some(w.rng, keys()), Value: w.value()})
	}
	return telemetry.NewAttrs(as)
}

// line makes a body.
func (w *world) line(at time.Time, trace telemetry.TraceID, span telemetry.SpanID) string {
	r := w.rng
	switch r.IntN(9) {
	case 0, 1:
		id := ""
		if !trace.IsZero() {
			id = fmt.Sprintf(`,"trace_id":"%s","span_id":"%s"`, trace, span)
		}
		return fmt.Sprintf(`{"ts":"%s","level":"%s","msg":"order %d placed","status":%d,"took":%.3f,"path":"/api/v%d/cart/%d"%s}`,
			at.UTC().Format("2006-01-02T15:04:05.000000Z"), some(r, []string{"info", "warn"}), r.IntN(9999), 200+r.IntN(300), r.Float64()*100, r.IntN(3), r.IntN(99), id)
	case 2:
		return fmt.Sprintf(`10.0.%d.%d - - [%s] "GET /x/%d HTTP/1.1" %d %d`, r.IntN(256), r.IntN(256), at.UTC().Format("02/Jan/2006:15:04:05 -0700"), r.IntN(50), 200+r.IntN(4), r.IntN(1e6))
	case 3:
		return fmt.Sprintf("level=%s took=%dms id=%08x user=u-%d", some(r, []string{"info", "error"}), r.IntN(900), r.Uint32(), r.IntN(6))
	case 4:
		return fmt.Sprintf("I%s %7d server.go:%d] ready %s", at.UTC().Format("0102 15:04:05.000000"), r.IntN(99), r.IntN(999), trace)
	case 5:
		return some(r, []string{"", "\x00", "panic: \xff\xfe", "\tat com.shop.Main(Main.java:12)", "ünïcödé 12", strings.Repeat("long ", 300), "007 08 9", `{"a":`, "\x11\x12"})
	case 6:
		return "needle" + strconv.Itoa(r.IntN(40)) + "x"
	default:
		return fmt.Sprintf("user %d logged in from 192.168.%d.%d session %s", r.IntN(1000), r.IntN(256), r.IntN(256), hex.EncodeToString([]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}))
	}
}

const worldStart = int64(1_700_000_000e9)

// batch adds rows as one flush and returns its part.
func (w *world) batch(n int, l logs.Layout) *logs.Part {
	w.parts++
	b := logs.NewBuilder(w.t.Context(), l, w.dec)
	from := len(w.rows)
	for range n {
		at := worldStart + int64(w.rng.IntN(300))*1e9 // often the same time
		rec := telemetry.LogRecord{Time: at, Severity: uint8(w.rng.IntN(25)), Scope: some(w.rng, w.scopes), Attrs: w.attrs(4), Flags: uint32(w.rng.IntN(2))}
		if w.rng.IntN(3) == 0 {
			rec.TraceID = some(w.rng, w.traces)
			rec.SpanID = telemetry.SpanID{byte(w.rng.Uint32()), 7}
		}
		switch w.rng.IntN(3) {
		case 0:
			rec.Observed = at + 5
		case 1:
			rec.Observed, rec.SeverityText, rec.EventName, rec.Dropped, rec.TimeInferred = worldStart, "INFO", "e", 3, true
		}
		rec.Body = telemetry.String(w.line(time.Unix(0, at), rec.TraceID, rec.SpanID))
		if w.rng.IntN(12) == 0 {
			rec.Body = telemetry.Array([]telemetry.Value{w.value(), w.value()})
		}
		w.rows = append(w.rows, worldRow{some(w.rng, w.streams), some(w.rng, w.resources), rec, w.parts})
	}
	for i := range w.rows[from:] {
		r := &w.rows[from+i]
		b.Add(r.stream, r.res, &r.rec)
	}
	return w.write(b)
}

func (w *world) write(b *logs.Builder) *logs.Part {
	var buf bytes.Buffer
	pw := part.NewWriter(&buf, w.enc, map[string]string{})
	require.NoError(w.t, b.Write(pw))
	require.NoError(w.t, pw.Close())
	p, err := part.Open("test.part", bytes.NewReader(buf.Bytes()), int64(buf.Len()), w.zdec, nil)
	require.NoError(w.t, err)
	require.NoError(w.t, p.Verify())
	_, _, lo, hi := b.Rows()
	return logs.OpenPart(p, storage.Position(w.parts), lo, hi)
}

// needle returns a text that may stand in lines: a piece of one, or something else.
func (w *world) needle() string {
	s := some(w.rng, w.rows).rec.Body.Text()
	if len(s) == 0 || w.rng.IntN(6) == 0 {
		return some(w.rng, []string{"needle7", "needle77", "zzabsentzz", "0", "e", "u-", "GET /x/", hex.EncodeToString(w.traces[0][:]), "deadbeef", "", "\xff"})
	}
	from := w.rng.IntN(len(s))
	return s[from:min(len(s), from+1+w.rng.IntN(20))]
}

func (w *world) matcher() *labels.Matcher {
	name := some(w.rng, keys())
	value := fmt.Sprint("u-", w.rng.IntN(6))
	if w.rng.IntN(3) == 0 {
		value = some(w.rng, []string{"", "1", "true", "[\"u-1\"]"})
	}
	switch w.rng.IntN(4) {
	case 0:
		return labels.MustNewMatcher(labels.MatchRegexp, name, "u-[0-3]|1")
	case 1:
		return labels.MustNewMatcher(labels.MatchNotEqual, name, value)
	default:
		return labels.MustNewMatcher(labels.MatchEqual, name, value)
	}
}

func (w *world) where(depth int) storage.Predicate {
	n := 12
	if depth == 0 {
		n = 8
	}
	switch w.rng.IntN(n) {
	case 0:
		return storage.StreamMatch{labels.MustNewMatcher(labels.MatchEqual, "app", fmt.Sprint("a", w.rng.IntN(4)))}
	case 1:
		ids := storage.TraceIn{some(w.rng, w.traces)}
		if w.rng.IntN(2) == 0 {
			ids = append(ids, telemetry.TraceID{9}, some(w.rng, w.traces))
		}
		return ids
	case 2:
		return storage.AttrMatch{Scope: storage.AttrScope(w.rng.IntN(4)), M: w.matcher()}
	case 3:
		return storage.SeverityRange{Min: 5, Max: uint8(w.rng.IntN(20))}
	case 4:
		re := regexp.MustCompile(some(w.rng, []string{`took=\d{3}`, "^I", "e.*e", "7$"}))
		return storage.LineMatch(re.MatchString)
	case 5, 6:
		return storage.LineContains(w.needle())
	case 7:
		if r := some(w.rng, w.resources); r != nil {
			return storage.ResourceIn{r.ID}
		}
		return nil
	case 8:
		return storage.Not{P: w.where(depth - 1)}
	case 9:
		return storage.Or{w.where(depth - 1), w.where(depth - 1)}
	default:
		return storage.And{w.where(depth - 1), w.where(depth - 1), w.where(depth - 1)}
	}
}

func stamp(t int64) string { return strconv.FormatInt(t, 10) }

func show(stream telemetry.LabelSet, res *telemetry.Resource, r *telemetry.LogRecord) string {
	id := "-"
	if res != nil {
		id = res.ID.String()
	}
	return fmt.Sprintf("%q %s %x %x", string(stream), id, telemetry.AppendScope(nil, r.Scope), telemetry.AppendLogRecord(nil, r))
}

// want answers a query from all rows.
func (w *world) want(q *storage.LogQuery, hidden func(r *worldRow) bool) []string {
	var idx []int
	for i := range w.rows {
		r := &w.rows[i]
		if r.rec.Time < q.Start || r.rec.Time > q.End || hidden(r) {
			continue
		}
		var one storage.LogBlock
		one.Append(r.stream, r.res, &r.rec, storage.LogAll)
		if one.Match(0, q.Where) {
			idx = append(idx, i)
		}
	}
	slices.SortStableFunc(idx, func(a, b int) int {
		return cmp.Or(cmp.Compare(w.rows[a].rec.Time, w.rows[b].rec.Time), cmp.Compare(w.rows[a].stream, w.rows[b].stream))
	})
	if q.Order == storage.NewestFirst {
		slices.Reverse(idx)
	}
	out := []string{}
	for _, i := range idx {
		r := &w.rows[i]
		out = append(out, stamp(r.rec.Time)+" "+show(r.stream, r.res, &r.rec))
	}
	return out
}

// TestPartsAnswerLikeRows asks parts, merged or not, and a head, anything, and compares with a look at all rows: with
// blocks, segments and merges of all sizes.
func TestPartsAnswerLikeRows(t *testing.T) {
	for seed := range uint64(6) {
		w := newWorld(t, seed)
		l := logs.Layout{
			BlockRows: 1 + w.rng.IntN(40), BlockText: 1 << (6 + w.rng.IntN(8)), SegmentBlocks: 1 + w.rng.IntN(9),
			FullRows: int64(1 + w.rng.IntN(80)), FullText: int64(1) << (8 + w.rng.IntN(8)),
		}
		var sources []logs.Source
		var parts []*logs.Part
		for range 2 + w.rng.IntN(5) {
			parts = append(parts, w.batch(1+w.rng.IntN(60), l))
		}
		var masks []logs.Mask
		hidden := func(*worldRow) bool { return false }
		if seed%3 == 1 { // a delete covers what came with the first parts
			at := storage.Position(w.parts - 1)
			m := logs.NewMask(&storage.Mask{Start: worldStart, End: worldStart + 200e9, Contains: "e"}, at)
			masks = []logs.Mask{m}
			hidden = func(r *worldRow) bool {
				return r.from <= int(at) && r.rec.Time <= worldStart+200e9 && strings.Contains(r.rec.Body.Text(), "e")
			}
		}
		for len(parts) > 0 {
			n := 1 + w.rng.IntN(len(parts))
			if n == 1 {
				sources = append(sources, parts[0])
			} else {
				b := logs.NewBuilder(t.Context(), l, w.dec)
				for _, p := range parts[:n] {
					require.NoError(t, b.AddPart(p, masks))
				}
				if merged := w.write(b); !b.Empty() {
					sources = append(sources, merged)
				}
			}
			parts = parts[n:]
		}
		head := logs.NewHead()
		w.parts++
		for range 20 {
			from := len(w.rows)
			w.batch(1, l)
			w.rows[from].from = w.parts
			r := &w.rows[from]
			head.Append(storage.Position(w.parts), &telemetry.Batch{Tenant: "t", Stream: r.stream, Resource: r.res, Logs: []telemetry.LogRecord{r.rec}})
		}
		sources = append(sources, head.Snapshot().Tenant("t"))
		for n := range 120 {
			q := storage.LogQuery{Start: math.MinInt64, End: math.MaxInt64, Where: w.where(2), Columns: storage.LogAll, Order: storage.OldestFirst}
			if w.rng.IntN(2) == 0 {
				q.Start, q.End = worldStart+int64(w.rng.IntN(200))*1e9, worldStart+int64(100+w.rng.IntN(300))*1e9
			}
			if w.rng.IntN(2) == 0 {
				q.Order = storage.NewestFirst
			}
			text := fmt.Sprintf("seed %d, query %d: %#v", seed, n, q)
			want := w.want(&q, hidden)
			require.Equal(t, want, w.collect(sources, q, masks), text)
			if len(want) > 0 {
				q.Limit = 1 + w.rng.IntN(len(want))
				require.Equal(t, want[:q.Limit], w.collect(sources, q, masks), "limit %d: %s", q.Limit, text)
				q.Limit = 0
			}
			q.Order, q.Columns, q.Split = storage.Unordered, storage.LogLines|storage.LogAll&^storage.LogBody, n%2 == 0
			got := w.scan(sources, q, masks)
			slices.Sort(want)
			slices.Sort(got)
			require.Equal(t, want, got, "lines: %s", text)
		}
	}
}

func (w *world) collect(sources []logs.Source, q storage.LogQuery, masks []logs.Mask) []string {
	b, err := logs.Collect(w.t.Context(), sources, logs.Scan{LogQuery: q, Masks: masks, Decoder: w.dec}, func(_ int, err error) error { return err })
	require.NoError(w.t, err)
	out := []string{}
	for i := range b.Len() {
		r := b.Record(i)
		out = append(out, stamp(r.Time)+" "+show(b.StreamOf(i), b.ResourceOf(i), &r))
	}
	return out
}

// scan reads without order, bodies as lines: those that are no strings come as their text, and are looked up by it.
func (w *world) scan(sources []logs.Source, q storage.LogQuery, masks []logs.Mask) []string {
	out := []string{}
	for _, s := range sources {
		scan := logs.Scan{LogQuery: q, Masks: masks, Decoder: w.dec, Cost: &storage.ReadStats{}}
		rows := 0
		require.NoError(w.t, s.Scan(w.t.Context(), &scan, func(b logs.Rows) error {
			rows += b.Len()
			for i := range b.Len() {
				r := b.Record(i)
				if b.Lines != nil {
					line, err := b.Lines.AppendLine(nil, i)
					require.NoError(w.t, err)
					r.Body = telemetry.String(string(line))
					for k := range w.rows {
						o := &w.rows[k].rec
						if o.Body.Kind() != telemetry.KindString && o.Time == r.Time && o.Body.Text() == string(line) && o.Severity == r.Severity && fmt.Sprint(o.Attrs) == fmt.Sprint(r.Attrs) {
							r.Body = o.Body
						}
					}
				}
				out = append(out, stamp(r.Time)+" "+show(b.StreamOf(i), b.ResourceOf(i), &r))
			}
			return nil
		}))
		require.GreaterOrEqual(w.t, scan.Cost.Rows, int64(rows))
	}
	return out
}
