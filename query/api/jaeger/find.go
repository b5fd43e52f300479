package jaeger

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/api/otlp"
	"github.com/braidobs/braid/storage"
)

const (
	defaultDepth = 100
	maxDepth     = 1500
	pageRows     = 1000
	// chunkSpans and chunkBytes are how much of a trace one message of a stream holds: clients of gRPC take 4 MiB.
	chunkSpans = 5000
	chunkBytes = 2 << 20
)

// params say which traces are looked for: those with a span that meets all of it.
type params struct {
	service, operation string
	attrs              []pair // each on the span, its events or links, its scope or its resource
	start, end         int64  // of the span's start, nanoseconds, both ends included
	shortest, longest  int64  // of the span
	depth              int    // how many traces at most
}

// pair is an attribute and the text of its value.
type pair struct{ key, text string }

func newParams() params {
	return params{start: math.MinInt64, end: math.MaxInt64, longest: math.MaxInt64, shortest: math.MinInt64}
}

// check fills in what was left out and refuses what cannot be.
func (p *params) check() error {
	switch {
	case p.depth < 0:
		return httpapi.BadDataf("invalid search depth %d: want a positive number", p.depth)
	case p.depth == 0:
		p.depth = defaultDepth
	case p.depth > maxDepth:
		return httpapi.BadDataf("invalid search depth %d: at most %d traces are returned at once; narrow the time range", p.depth, maxDepth)
	}
	if p.end < p.start {
		return httpapi.BadDataf("invalid time range: it ends before it starts")
	}
	if p.longest < p.shortest {
		return httpapi.BadDataf("invalid durations: the longest is below the shortest")
	}
	return nil
}

// where returns the predicate that a span must match.
func (p *params) where() storage.Predicate {
	var all storage.And
	if p.service != "" {
		all = append(all, textMatch(serviceKey(), p.service))
	}
	if p.operation != "" {
		all = append(all, textMatch(storage.Field(storage.SpanName), p.operation))
	}
	if p.shortest != math.MinInt64 || p.longest != math.MaxInt64 {
		all = append(all, storage.DurationRange{Min: p.shortest, Max: p.longest})
	}
	for _, a := range p.attrs {
		all = append(all, attrMatch(a))
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

func serviceKey() storage.SpanKey {
	return storage.SpanKey{Scope: storage.ResourceScope, Name: "service.name"}
}

// attrMatch matches spans with an attribute, or with the field that Jaeger has as a tag of that name.
func attrMatch(a pair) storage.Predicate {
	var any storage.Or
	for _, s := range []storage.AttrScope{storage.RecordScope, storage.ResourceScope, storage.InstrumentationScope, storage.EventScope, storage.LinkScope} {
		any = append(any, textMatch(storage.SpanKey{Scope: s, Name: a.key}, a.text))
	}
	number := func(f storage.SpanField, n int64) {
		any = append(any, valueMatch(storage.Field(f), telemetry.Int(n)))
	}
	switch a.key {
	case "error":
		if a.text == "true" {
			number(storage.SpanStatus, int64(telemetry.StatusError))
		}
	case "otel.status_code", "span.status":
		switch strings.ToLower(a.text) {
		case "error":
			number(storage.SpanStatus, int64(telemetry.StatusError))
		case "ok":
			number(storage.SpanStatus, int64(telemetry.StatusOK))
		}
	case "span.kind":
		if k, ok := kindOf(a.text); ok {
			number(storage.SpanKindField, int64(k))
		}
	case "otel.scope.name":
		any = append(any, textMatch(storage.Field(storage.ScopeName), a.text))
	case "otel.scope.version":
		any = append(any, textMatch(storage.Field(storage.ScopeVersion), a.text))
	case "event":
		any = append(any, textMatch(storage.Field(storage.EventName), a.text))
	}
	return any
}

// textMatch matches values that have the text, whatever their type.
func textMatch(key storage.SpanKey, text string) storage.ValueMatch {
	values := []telemetry.Value{telemetry.String(text)}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		values = append(values, telemetry.Int(n))
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		values = append(values, telemetry.Double(f))
	}
	if b, err := strconv.ParseBool(text); err == nil {
		values = append(values, telemetry.Bool(b))
	}
	return valueMatch(key, values...)
}

func valueMatch(key storage.SpanKey, values ...telemetry.Value) storage.ValueMatch {
	return storage.ValueMatch{Key: key, Equal: values, Accept: func(v telemetry.Value) bool { return slices.Contains(values, v) }}
}

// kindOf returns the kind that a word of Jaeger names.
func kindOf(s string) (telemetry.SpanKind, bool) {
	for k := telemetry.SpanKindInternal; k <= telemetry.SpanKindConsumer; k++ {
		if strings.EqualFold(k.String(), s) {
			return k, true
		}
	}
	return 0, false
}

// found is a trace and a time at which one of its spans that were looked for started.
type found struct {
	id telemetry.TraceID
	at int64
}

// find returns the traces with a span that p selects, the one with the newest such span first.
func find(ctx context.Context, v storage.View, tenant telemetry.Tenant, p *params) ([]found, error) {
	seen := make(map[telemetry.TraceID]bool)
	var out []found
	q := storage.SpanQuery{Tenant: tenant, Start: p.start, End: p.end, Order: storage.NewestFirst, Limit: pageRows, Where: p.where()}
	for {
		n, oldest := 0, int64(math.MaxInt64)
		for b, err := range v.Spans(ctx, q) {
			if err != nil {
				return nil, err
			}
			for i := range b.Len() {
				n++
				oldest = min(oldest, b.Start[i])
				if id := b.TraceID[i]; !seen[id] {
					seen[id] = true
					out = append(out, found{id, b.Start[i]})
					if len(out) == p.depth {
						return out, nil
					}
				}
			}
		}
		if n < q.Limit {
			return out, nil
		}
		if oldest == q.End { // a page of one time only: look further with a larger one
			q.Limit *= 2
		}
		q.End = oldest
	}
}

// trace sends a trace in chunks, and says whether it has a span.
func trace(ctx context.Context, v storage.View, tenant telemetry.Tenant, id telemetry.TraceID, f func(res *telemetry.Resource, s *telemetry.Span) error) error {
	q := storage.SpanQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Where: storage.TraceIn{id}, Columns: storage.SpanAll}
	for b, err := range v.Spans(ctx, q) {
		if err != nil {
			return err
		}
		for i := range b.Len() {
			s := b.Span(i)
			if err := f(b.ResourceOf(i), &s); err != nil {
				return err
			}
		}
	}
	return nil
}

// chunks sends a trace as messages of OTLP, and says whether there was one.
func chunks(ctx context.Context, v storage.View, tenant telemetry.Tenant, id telemetry.TraceID, send func([]byte) error) (any bool, err error) {
	var t otlp.Traces
	flush := func() error {
		if t.Len() == 0 {
			return nil
		}
		any = true
		b := t.Append(nil)
		t = otlp.Traces{}
		return send(b)
	}
	err = trace(ctx, v, tenant, id, func(res *telemetry.Resource, s *telemetry.Span) error {
		if t.Add(res, s); t.Len() >= chunkSpans || t.Size() >= chunkBytes {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	return any, err
}

// services returns the names of all services, sorted.
func services(ctx context.Context, v storage.View, tenant telemetry.Tenant) ([]string, error) {
	vs, err := v.SpanValues(ctx, serviceKey(), storage.TraceQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64}, 0)
	out := make([]string, 0, len(vs))
	for _, x := range vs {
		out = append(out, x.Text())
	}
	slices.Sort(out)
	return slices.Compact(out), err
}

// operation is a name and a kind that spans have.
type operation struct {
	name string
	kind telemetry.SpanKind
}

// operations returns what the spans of a service are called, sorted; kind 0 means all kinds.
func operations(ctx context.Context, v storage.View, tenant telemetry.Tenant, service string, kind telemetry.SpanKind) ([]operation, error) {
	name, kindKey, owner := storage.Field(storage.SpanName), storage.Field(storage.SpanKindField), serviceKey()
	q := storage.TraceQuery{
		Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Fragments: true,
		Need: []storage.Predicate{textMatch(owner, service)}, Keys: []storage.SpanKey{owner, name, kindKey},
	}
	seen := make(map[operation]bool)
	for b, err := range v.Traces(ctx, q) {
		if err != nil {
			return nil, err
		}
		var cols [3]storage.ColumnReader
		for i, k := range q.Keys {
			c, err := b.Column(k)
			if err != nil {
				return nil, err
			}
			cols[i] = c.Reader()
		}
		for row := range int32(b.Len()) {
			if cols[0].At(row).Text() != service {
				continue
			}
			op := operation{cols[1].At(row).Str(), telemetry.SpanKind(cols[2].At(row).Int())}
			if kind == 0 || op.kind == kind {
				seen[op] = true
			}
		}
	}
	out := make([]operation, 0, len(seen))
	for op := range seen {
		out = append(out, op)
	}
	slices.SortFunc(out, func(a, b operation) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return int(a.kind) - int(b.kind)
	})
	return out, nil
}
