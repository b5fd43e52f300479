package storage_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

func eq(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}

func re(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchRegexp, name, value)
}

func attrs(pairs ...string) telemetry.Attrs {
	var as []telemetry.Attr
	for i := 0; i < len(pairs); i += 2 {
		as = append(as, telemetry.Attr{Key: pairs[i], Value: telemetry.String(pairs[i+1])})
	}
	return telemetry.NewAttrs(as)
}

var (
	resource = telemetry.NewResource("", attrs("where", "resource", "service.name", "shop"))
	scope    = &telemetry.Scope{Name: "s", Attrs: attrs("where", "scope", "lib", "pg")}
	stream   = telemetry.NewLabelSet(labels.FromStrings("service_name", "shop", "env", "prod"))
	trace    = telemetry.TraceID{1}
)

// logRow is the row of the tables below.
func logRow() *telemetry.LogRecord {
	return &telemetry.LogRecord{
		Time: 5, Severity: 9, TraceID: trace, Scope: scope, Body: telemetry.String("level=info took=5ms"),
		Attrs: telemetry.NewAttrs(append(attrs("where", "record"), telemetry.Attr{Key: "code", Value: telemetry.Int(200)})),
	}
}

func spanRow() *telemetry.Span {
	return &telemetry.Span{
		TraceID: trace, SpanID: telemetry.SpanID{2}, ParentID: telemetry.SpanID{3}, Start: 5, End: 15, Name: "GET /", Kind: telemetry.SpanKindServer,
		Status: telemetry.StatusError, StatusMessage: "oops", Scope: scope, Attrs: attrs("where", "record"),
	}
}

func yes() storage.Predicate { return storage.And{} }
func no() storage.Predicate  { return storage.Or{} }

// anyRow holds for both signals.
func anyRow() map[string]struct {
	p    storage.Predicate
	want bool
} {
	type c = struct {
		p    storage.Predicate
		want bool
	}
	attr := func(s storage.AttrScope, m *labels.Matcher) storage.Predicate {
		return storage.AttrMatch{Scope: s, M: m}
	}
	return map[string]c{
		"nothing asked":                    {nil, true},
		"and of nothing":                   {yes(), true},
		"or of nothing":                    {no(), false},
		"and":                              {storage.And{yes(), yes()}, true},
		"and with a no":                    {storage.And{yes(), no()}, false},
		"or with a yes":                    {storage.Or{no(), yes()}, true},
		"or of no":                         {storage.Or{no(), no()}, false},
		"not":                              {storage.Not{P: no()}, true},
		"not yes":                          {storage.Not{P: yes()}, false},
		"not nothing":                      {storage.Not{}, false},
		"resource":                         {storage.ResourceIn{{9}, resource.ID}, true},
		"another resource":                 {storage.ResourceIn{{9}}, false},
		"no resource":                      {storage.ResourceIn{}, false},
		"trace":                            {storage.TraceIn{{9}, trace}, true},
		"another trace":                    {storage.TraceIn{{9}}, false},
		"the zero trace":                   {storage.TraceIn{{}}, false},
		"attribute: record first":          {attr(storage.AnyScope, eq("where", "record")), true},
		"attribute: not the scope's":       {attr(storage.AnyScope, eq("where", "scope")), false},
		"attribute of the record":          {attr(storage.RecordScope, eq("where", "record")), true},
		"attribute of the scope":           {attr(storage.InstrumentationScope, eq("where", "scope")), true},
		"attribute of the resource":        {attr(storage.ResourceScope, eq("where", "resource")), true},
		"any scope reaches the scope":      {attr(storage.AnyScope, eq("lib", "pg")), true},
		"any scope reaches the resource":   {attr(storage.AnyScope, eq("service.name", "shop")), true},
		"the record lacks it":              {attr(storage.RecordScope, eq("service.name", "shop")), false},
		"the resource lacks it":            {attr(storage.ResourceScope, eq("lib", "pg")), false},
		"absent is empty":                  {attr(storage.AnyScope, eq("absent", "")), true},
		"absent matches an open pattern":   {attr(storage.AnyScope, re("absent", ".*")), true},
		"absent does not match a text":     {attr(storage.AnyScope, re("absent", ".+")), false},
		"attribute by pattern":             {attr(storage.AnyScope, re("service.name", "sh.p")), true},
		"a pattern is anchored":            {attr(storage.AnyScope, re("service.name", "sh")), false},
		"nested":                           {storage.And{storage.Not{P: storage.Or{no(), storage.TraceIn{{9}}}}, storage.ResourceIn{resource.ID}}, true},
		"a predicate of the other is a no": {storage.And{storage.LineContains(""), storage.DurationRange{Max: 1 << 60}}, false},
	}
}

func TestLogPredicates(t *testing.T) {
	type c = struct {
		p    storage.Predicate
		want bool
	}
	tests := anyRow()
	maps.Copy(tests, map[string]c{
		"stream":                    {storage.StreamMatch{eq("env", "prod"), re("service_name", "s.*")}, true},
		"another stream":            {storage.StreamMatch{eq("env", "prod"), eq("service_name", "cart")}, false},
		"absent label":              {storage.StreamMatch{eq("absent", "")}, true},
		"line":                      {storage.LineContains("took=5"), true},
		"another line":              {storage.LineContains("took=6"), false},
		"line function":             {storage.LineMatch(func(l string) bool { return strings.HasPrefix(l, "level") }), true},
		"severity":                  {storage.SeverityRange{Min: 9, Max: 9}, true},
		"lower severity":            {storage.SeverityRange{Min: 1, Max: 8}, false},
		"number as text":            {storage.AttrMatch{M: eq("code", "200")}, true},
		"a field of spans":          {storage.FieldMatch{M: re("", ".*")}, false},
		"not a field of spans":      {storage.Not{P: storage.FieldMatch{M: re("", ".*")}}, true},
		"a duration is about spans": {storage.DurationRange{Max: 1 << 60}, false},
	})
	for name, tt := range tests {
		var all, few storage.LogBlock
		all.Append(stream, resource, logRow(), storage.LogAll)
		few.Append(stream, resource, logRow(), storage.NeedsOfLogs(tt.p))
		require.Equal(t, tt.want, all.Match(0, tt.p), name)
		require.Equal(t, tt.want, few.Match(0, tt.p), "%s: the columns that it needs suffice", name)
	}
	var bare storage.LogBlock
	bare.Append("", nil, &telemetry.LogRecord{}, storage.LogAll)
	require.False(t, bare.Match(0, storage.TraceIn{{}}), "the zero ID is none")
	require.False(t, bare.Match(0, storage.ResourceIn{{}}))
	require.True(t, bare.Match(0, storage.AttrMatch{M: eq("x", "")}))
	require.Nil(t, bare.ResourceOf(0))
	require.Nil(t, bare.ScopeOf(0))
}

func TestSpanPredicates(t *testing.T) {
	type c = struct {
		p    storage.Predicate
		want bool
	}
	field := func(f storage.SpanField, v string) storage.Predicate {
		return storage.FieldMatch{Field: f, M: eq("", v)}
	}
	tests := anyRow()
	maps.Copy(tests, map[string]c{
		"name":            {field(storage.SpanName, "GET /"), true},
		"another name":    {field(storage.SpanName, "GET"), false},
		"kind":            {field(storage.SpanKindField, "server"), true},
		"status":          {field(storage.SpanStatus, "error"), true},
		"message":         {field(storage.SpanStatusMessage, "oops"), true},
		"parent":          {field(storage.SpanParent, "0300000000000000"), true},
		"root":            {field(storage.SpanParent, ""), false},
		"unknown field":   {field(99, ""), true},
		"duration":        {storage.DurationRange{Min: 10, Max: 10}, true},
		"longer":          {storage.DurationRange{Min: 11, Max: 99}, false},
		"a stream":        {storage.StreamMatch{}, false},
		"a line":          {storage.LineContains(""), false},
		"a severity":      {storage.SeverityRange{Max: 255}, false},
		"a line function": {storage.LineMatch(func(string) bool { return true }), false},
	})
	for name, tt := range tests {
		var all, few storage.SpanBlock
		all.Append(resource, spanRow(), storage.SpanAll)
		few.Append(resource, spanRow(), storage.NeedsOfSpans(tt.p))
		require.Equal(t, tt.want, all.Match(0, tt.p), name)
		require.Equal(t, tt.want, few.Match(0, tt.p), "%s: the columns that it needs suffice", name)
	}
	var bare storage.SpanBlock
	bare.Append(nil, &telemetry.Span{}, storage.SpanAll)
	require.True(t, bare.Match(0, field(storage.SpanParent, "")))
	require.True(t, bare.Match(0, field(storage.SpanStatus, "unset")))
}

func TestNeeds(t *testing.T) {
	m := eq("a", "b")
	for _, tt := range []struct {
		p     storage.Predicate
		logs  storage.LogColumns
		spans storage.SpanColumns
	}{
		{nil, 0, 0},
		{storage.And{}, 0, 0},
		{storage.And{storage.LineContains("x"), storage.Or{storage.TraceIn{}, storage.Not{P: storage.ResourceIn{}}}}, storage.LogBody | storage.LogTraceID | storage.LogResource, storage.SpanResource},
		{storage.StreamMatch{m}, storage.LogStream, 0},
		{storage.LineMatch(nil), storage.LogBody, 0},
		{storage.SeverityRange{}, storage.LogSeverity, 0},
		{storage.AttrMatch{M: m}, storage.LogAttrs | storage.LogScope | storage.LogResource, storage.SpanAttrs | storage.SpanScope | storage.SpanResource},
		{storage.AttrMatch{Scope: storage.RecordScope, M: m}, storage.LogAttrs, storage.SpanAttrs},
		{storage.AttrMatch{Scope: storage.InstrumentationScope, M: m}, storage.LogScope, storage.SpanScope},
		{storage.AttrMatch{Scope: storage.ResourceScope, M: m}, storage.LogResource, storage.SpanResource},
		{storage.FieldMatch{Field: storage.SpanName, M: m}, 0, storage.SpanNames},
		{storage.FieldMatch{Field: storage.SpanStatusMessage, M: m}, 0, storage.SpanMessages},
		{storage.FieldMatch{Field: storage.SpanParent, M: m}, 0, 0},
		{storage.DurationRange{}, 0, 0},
	} {
		require.Equal(t, tt.logs, storage.NeedsOfLogs(tt.p), "%+v", tt.p)
		require.Equal(t, tt.spans, storage.NeedsOfSpans(tt.p), "%+v", tt.p)
	}
}

func TestTracesOf(t *testing.T) {
	one := storage.TraceIn{trace}
	for _, tt := range []struct {
		p    storage.Predicate
		want []telemetry.TraceID
		ok   bool
	}{
		{nil, nil, false},
		{one, one, true},
		{storage.TraceIn{}, []telemetry.TraceID{}, true},
		{storage.And{storage.LineContains("x"), storage.And{one}}, one, true},
		{storage.Or{one, one}, nil, false},
		{storage.Not{P: one}, nil, false},
		{storage.And{storage.Not{P: one}}, nil, false},
	} {
		ids, ok := storage.TracesOf(tt.p)
		require.Equal(t, tt.ok, ok, "%+v", tt.p)
		require.ElementsMatch(t, tt.want, ids)
	}
}

func TestBlocksHoldWhatWasAppended(t *testing.T) {
	var lb storage.LogBlock
	lb.Append(stream, resource, logRow(), storage.LogAll)
	lb.Append("", nil, &telemetry.LogRecord{Time: 6}, storage.LogAll)
	require.Equal(t, *logRow(), lb.Record(0))
	require.Equal(t, telemetry.LogRecord{Time: 6}, lb.Record(1))
	require.Equal(t, stream, lb.StreamOf(0))
	require.Same(t, resource, lb.ResourceOf(0))
	require.Empty(t, lb.StreamIf(1))
	var none storage.LogBlock
	none.Append(stream, resource, logRow(), 0)
	require.Equal(t, telemetry.LogRecord{Time: 5}, none.Record(0))
	require.Empty(t, none.StreamIf(0))
	var sb storage.SpanBlock
	sb.Append(resource, spanRow(), storage.SpanAll)
	require.Equal(t, *spanRow(), sb.Span(0))
	require.Same(t, resource, sb.ResourceOf(0))
	var bare storage.SpanBlock
	bare.Append(resource, spanRow(), 0)
	require.Nil(t, bare.ResourceOf(0))
	require.Empty(t, bare.Span(0).Name)
	require.EqualValues(t, 15, bare.Span(0).End)
}

func TestRejected(t *testing.T) {
	var r storage.Rejected
	for i := range 20 {
		r.Reason("reason %d", i/2)
	}
	require.Len(t, r.Reasons, storage.MaxReasons, "distinct and bounded")
	a := storage.Rejected{Spans: 1, Logs: 2, Samples: 3, Reasons: []string{"100% full"}}
	a.Add(storage.Rejected{Spans: 1, Reasons: []string{"100% full", "50% empty"}})
	require.Equal(t, storage.Rejected{Spans: 2, Logs: 2, Samples: 3, Reasons: []string{"100% full", "50% empty"}}, a)
	require.Equal(t, 7, a.Total())
}

func TestOverloaded(t *testing.T) {
	err := error(&storage.Overloaded{Reason: "the disk is full", RetryAfter: time.Second, Err: storage.ErrFull})
	require.ErrorIs(t, err, storage.ErrOverloaded)
	require.ErrorIs(t, err, storage.ErrFull)
	require.EqualError(t, err, "overloaded: the disk is full")
	require.NotErrorIs(t, &storage.Overloaded{}, storage.ErrFull)
	over, ok := errors.AsType[*storage.Overloaded](err)
	require.True(t, ok)
	require.Equal(t, time.Second, over.RetryAfter)
}
