package tempo

import (
	"cmp"
	"context"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

const (
	defaultTraces = 20
	defaultSpans  = 3 // of each trace
	maxSpanSet    = 1000
	pageRows      = 1000
	noRoot        = "<root span not yet received>"
)

// field is an intrinsic of a span that is searched like a tag.
type field struct {
	name  string
	match storage.SpanField
	text  func(*telemetry.Span) string
}

func intrinsics() []field {
	return []field{
		{"kind", storage.SpanKindField, func(s *telemetry.Span) string { return s.Kind.String() }},
		{"name", storage.SpanName, func(s *telemetry.Span) string { return s.Name }},
		{"status", storage.SpanStatus, func(s *telemetry.Span) string { return s.Status.String() }},
	}
}

func intrinsic(tag string) (field, bool) {
	fs := intrinsics()
	i := slices.IndexFunc(fs, func(f field) bool { return f.name == tag })
	if i < 0 {
		return field{}, false
	}
	return fs[i], true
}

// tag is a key and the value that it must have.
type tag struct{ key, value string }

// parseTags reads logfmt: key=value key2="a value", separated by blanks.
func parseTags(s string) ([]tag, error) {
	var out []tag
	for i := 0; i < len(s); {
		if s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r' {
			i++
			continue
		}
		at := i
		n := strings.IndexAny(s[i:], "= \t\r\n\"")
		if n <= 0 || s[i+n] != '=' {
			return nil, httpapi.BadDataf("invalid tags at character %d: want key=value", at+1)
		}
		t := tag{key: s[i : i+n]}
		i += n + 1
		if i < len(s) && s[i] == '"' {
			quoted, err := strconv.QuotedPrefix(s[i:])
			if err == nil {
				t.value, err = strconv.Unquote(quoted)
			}
			if err != nil {
				return nil, httpapi.BadDataf("invalid tags at character %d: the quoted value does not end or has an unknown escape", i+1)
			}
			i += len(quoted)
			if i < len(s) && !strings.ContainsRune(" \t\r\n", rune(s[i])) {
				return nil, httpapi.BadDataf("invalid tags at character %d: want a blank after a quoted value", i+1)
			}
		} else {
			n := strings.IndexAny(s[i:], " \t\r\n")
			if n < 0 {
				n = len(s) - i
			}
			t.value = s[i : i+n]
			i += n
		}
		out = append(out, t)
	}
	return out, nil
}

// predicate says which spans have all the tags. A tag is an attribute of the span or of its resource, except that
// service.name is always the resource's.
func predicate(tags []tag) storage.Predicate {
	var all storage.And
	for _, t := range tags {
		m := labels.MustNewMatcher(labels.MatchEqual, t.key, t.value)
		if f, ok := intrinsic(t.key); ok {
			all = append(all, storage.FieldMatch{Field: f.match, M: m})
			continue
		}
		onResource := storage.AttrMatch{Scope: storage.ResourceScope, M: m}
		if t.key == "service.name" {
			all = append(all, onResource)
			continue
		}
		all = append(all, storage.Or{storage.AttrMatch{Scope: storage.RecordScope, M: m}, onResource})
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// request is a search.
type request struct {
	tenant                   telemetry.Tenant
	tags                     []tag
	where                    storage.Predicate
	start, end               int64
	minDuration, maxDuration int64 // of the whole trace
	limit, spans             int
}

func (a *API) search(r *http.Request, p params) (answer, error) {
	q := request{tenant: httpapi.TenantFrom(r.Context())}
	if s := strings.Join(strings.Fields(p.get("q")), ""); s != "" && s != "{}" {
		return answer{}, httpapi.BadDataf("invalid q %q: TraceQL is not supported yet, except {}; use tags, minDuration and maxDuration", p.get("q"))
	}
	var err error
	if q.tags, err = parseTags(p.get("tags")); err != nil {
		return answer{}, err
	}
	q.where = predicate(q.tags)
	if q.start, q.end, err = p.timeRange(); err != nil {
		return answer{}, err
	}
	if q.minDuration, err = p.duration("minDuration", 0); err != nil {
		return answer{}, err
	}
	if q.maxDuration, err = p.duration("maxDuration", math.MaxInt64); err != nil {
		return answer{}, err
	}
	if q.maxDuration < q.minDuration {
		return answer{}, httpapi.BadDataf("invalid maxDuration %q: it is below minDuration %q", p.get("maxDuration"), p.get("minDuration"))
	}
	if q.limit, err = p.number("limit", min(defaultTraces, a.Config.MaxTraces), 1, math.MaxInt32); err != nil {
		return answer{}, err
	}
	if q.limit > a.Config.MaxTraces {
		return answer{}, httpapi.BadDataf("invalid limit %d: it is over tempo.max_traces (%d)", q.limit, a.Config.MaxTraces)
	}
	if q.spans, err = p.number("spss", defaultSpans, 0, maxSpanSet); err != nil {
		return answer{}, err
	}
	v, err := a.Reader.View(r.Context(), 0)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = v.Close() }()
	rows, inspected, err := find(r.Context(), v, &q)
	if err != nil {
		return answer{}, err
	}
	return answer{typeJSON, appendSearch(nil, &q, rows, inspected)}, nil
}

// row is a trace that was found.
type row struct {
	id            telemetry.TraceID
	start, end    int64
	service, name string
	matched       int
	spans         []telemetry.Span // those that matched, as many as asked for
	rootStart     int64
}

// find returns the traces with a matching span, those with the most recent one, in the order of their starts,
// most recent first. Matching spans are read in pages, newest first, until there are enough traces; each page's
// traces are then read whole.
func find(ctx context.Context, v storage.View, q *request) (rows []*row, inspected int, err error) {
	seen := make(map[telemetry.TraceID]bool)
	page := storage.SpanQuery{
		Tenant: q.tenant, Start: q.start, End: q.end, Order: storage.NewestFirst, Limit: pageRows,
		Where: q.where,
	}
	if q.maxDuration < math.MaxInt64 { // no span is longer than its trace
		within := storage.DurationRange{Min: math.MinInt64, Max: q.maxDuration}
		page.Where = storage.And{within}
		if q.where != nil {
			page.Where = storage.And{within, q.where}
		}
	}
	for len(rows) < q.limit {
		var ids []telemetry.TraceID
		n, oldest, newest := 0, int64(math.MaxInt64), int64(math.MinInt64)
		for b, err := range v.Spans(ctx, page) {
			if err != nil {
				return nil, 0, err
			}
			for i := range b.Len() {
				n++
				oldest, newest = min(oldest, b.Start[i]), max(newest, b.Start[i])
				if id := b.TraceID[i]; !seen[id] {
					seen[id] = true
					ids = append(ids, id)
				}
			}
		}
		// Of many traces in a page only those that the answer still needs are read whole.
		for some := range slices.Chunk(ids, max(q.limit-len(rows), 16)) {
			found, err := readTraces(ctx, v, q, some, oldest, newest)
			if err != nil {
				return nil, 0, err
			}
			inspected += len(some)
			rows = append(rows, found...)
			if len(rows) >= q.limit {
				break
			}
		}
		if n < page.Limit {
			break
		}
		if oldest == page.End { // a page of one time only: look further with a larger one
			page.Limit *= 2
		}
		page.End = oldest
	}
	rows = rows[:min(len(rows), q.limit)]
	slices.SortStableFunc(rows, func(a, b *row) int {
		return cmp.Or(cmp.Compare(b.start, a.start), slices.Compare(a.id[:], b.id[:]))
	})
	return rows, inspected, nil
}

// readTraces reads traces whole and returns those that are as long as asked for, in the order of ids.
func readTraces(ctx context.Context, v storage.View, q *request, ids []telemetry.TraceID, oldest, newest int64) ([]*row, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	found := make(map[telemetry.TraceID]*row, len(ids))
	for b, err := range v.Spans(ctx, storage.SpanQuery{
		Tenant: q.tenant, Start: before(oldest, around), End: after(newest, around), Where: storage.TraceIn(ids),
		Columns: storage.SpanNames | storage.SpanResource | storage.SpanAttrs | storage.NeedsOfSpans(q.where),
	}) {
		if err != nil {
			return nil, err
		}
		for i := range b.Len() {
			s := b.Span(i)
			t := found[s.TraceID]
			if t == nil {
				t = &row{id: s.TraceID, start: math.MaxInt64, end: math.MinInt64, service: noRoot, rootStart: math.MaxInt64}
				found[s.TraceID] = t
			}
			t.add(b, i, &s, q)
		}
	}
	var rows []*row
	for _, id := range ids {
		t := found[id]
		if t == nil {
			continue
		}
		if d := t.end - t.start; d < q.minDuration || d > q.maxDuration {
			continue
		}
		slices.SortFunc(t.spans, func(a, b telemetry.Span) int {
			return cmp.Or(cmp.Compare(a.Start, b.Start), slices.Compare(a.SpanID[:], b.SpanID[:]))
		})
		t.spans = t.spans[:min(len(t.spans), q.spans)]
		rows = append(rows, t)
	}
	return rows, nil
}

func (t *row) add(b *storage.SpanBlock, i int, s *telemetry.Span, q *request) {
	t.start, t.end = min(t.start, s.Start), max(t.end, s.End)
	if s.ParentID.IsZero() && s.Start < t.rootStart {
		t.rootStart, t.name, t.service = s.Start, s.Name, ""
		if res := b.ResourceOf(i); res != nil {
			t.service = res.Attrs.Text("service.name")
		}
	}
	if s.Start < q.start || s.Start > q.end || !b.Match(i, q.where) {
		return
	}
	t.matched++
	if len(t.spans) < maxSpanSet {
		s.Attrs = named(s.Attrs, q.tags)
		t.spans = append(t.spans, *s)
	}
}

// named returns the attributes that were asked about.
func named(as telemetry.Attrs, tags []tag) telemetry.Attrs {
	var out telemetry.Attrs
	for _, t := range tags {
		if v, ok := as.Get(t.key); ok {
			out = append(out, telemetry.Attr{Key: t.key, Value: v})
		}
	}
	return out
}

func appendSearch(dst []byte, q *request, rows []*row, inspected int) []byte {
	dst = append(dst, `{"traces":[`...)
	for i, t := range rows {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"traceID":"`...)
		dst = append(dst, t.id.String()...)
		dst = append(dst, `","rootServiceName":`...)
		dst = telemetry.AppendJSONString(dst, t.service)
		dst = append(dst, `,"rootTraceName":`...)
		dst = telemetry.AppendJSONString(dst, t.name)
		dst = append(dst, `,"startTimeUnixNano":"`...)
		dst = strconv.AppendInt(dst, t.start, 10)
		dst = append(dst, `","durationMs":`...)
		dst = strconv.AppendInt(dst, (t.end-t.start)/1e6, 10)
		if q.spans > 0 {
			set := appendSpanSet(nil, t)
			dst = append(append(dst, `,"spanSet":`...), set...)
			dst = append(append(dst, `,"spanSets":[`...), set...)
			dst = append(dst, ']')
		}
		dst = append(dst, '}')
	}
	dst = append(dst, `],"metrics":{"inspectedTraces":`...)
	dst = strconv.AppendInt(dst, int64(inspected), 10)
	return append(dst, `,"totalBlocks":1,"completedJobs":1,"totalJobs":1}}`...)
}

func appendSpanSet(dst []byte, t *row) []byte {
	dst = append(dst, `{"spans":[`...)
	for i := range t.spans {
		s := &t.spans[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"spanID":"`...)
		dst = append(dst, s.SpanID.String()...)
		dst = append(dst, `","name":`...)
		dst = telemetry.AppendJSONString(dst, s.Name)
		dst = append(dst, `,"startTimeUnixNano":"`...)
		dst = strconv.AppendInt(dst, s.Start, 10)
		dst = append(dst, `","durationNanos":"`...)
		dst = strconv.AppendInt(dst, s.Duration(), 10)
		dst = append(dst, `","attributes":[`...)
		for j, at := range s.Attrs {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"key":`...)
			dst = telemetry.AppendJSONString(dst, at.Key)
			dst = append(dst, `,"value":`...)
			dst = append(appendAnyValue(dst, at.Value), '}')
		}
		dst = append(dst, "]}"...)
	}
	dst = append(dst, `],"matched":`...)
	return append(strconv.AppendInt(dst, int64(t.matched), 10), '}')
}

// appendAnyValue appends a value as OTLP's JSON does; lists and maps as their text.
func appendAnyValue(dst []byte, v telemetry.Value) []byte {
	switch v.Kind() {
	case telemetry.KindBool:
		dst = strconv.AppendBool(append(dst, `{"boolValue":`...), v.Bool())
	case telemetry.KindInt:
		dst = strconv.AppendInt(append(dst, `{"intValue":"`...), v.Int(), 10)
		dst = append(dst, '"')
	case telemetry.KindDouble:
		dst = v.AppendJSON(append(dst, `{"doubleValue":`...))
	default:
		dst = telemetry.AppendJSONString(append(dst, `{"stringValue":`...), v.Text())
	}
	return append(dst, '}')
}
