//go:build long

package tempo

import (
	"fmt"
	"slices"
)

// spanQueries find spans one by one, or traces by properties of theirs.
func spanQueries() []string {
	var out []string
	add := func(format string, args ...[]string) {
		var each func(done []any, rest [][]string)
		each = func(done []any, rest [][]string) {
			if len(rest) == 0 {
				out = append(out, fmt.Sprintf(format, done...))
				return
			}
			for _, a := range rest[0] {
				each(append(slices.Clip(done), a), rest[1:])
			}
		}
		each(nil, args)
	}
	all := []string{"=", "!=", ">", ">=", "<", "<="}
	add(`{ span.code %s 404 }`, all)
	add(`{ span.load %s 1.5 }`, all)
	add(`{ duration %s 250ms }`, []string{">", ">=", "<", "<="})
	add(`{ span.foo %s "baz" }`, all)
	add(`{ .foo %s "bar" }`, []string{"=", "!="})
	add(`{ resource.foo %s "bar" }`, []string{"=", "!="})
	add(`{ span.foo %s "ba." }`, []string{"=~", "!~"})
	add(`{ name %s "GET.*" }`, []string{"=~", "!~"})
	add(`{ resource.service.name %s "cart|db" }`, []string{"=~", "!~"})
	add(`{ %s = nil }`, []string{"span.foo", "resource.region", "span.code", "span.hit", "span.load"})
	add(`{ %s != nil }`, []string{"span.foo", "resource.region", ".foo", "span.tags", "event.message", "link.why", "instrumentation.lib"})
	add(`{ status %s %s }`, []string{"=", "!="}, []string{"error", "ok", "unset"})
	add(`{ kind %s %s }`, []string{"=", "!="}, []string{"client", "server", "internal", "producer", "consumer"})
	add(`{ span.%s = %s }`, []string{"hit"}, []string{"true", "false"})
	add(`{ span.tags %s "a" }`, []string{"=", "=~"})
	add(`{ span.numbers %s 2 }`, []string{"=", ">", "<="})
	add(`{ event:name = "%s" }`, []string{"exception", "log", "nope"})
	add(`{ event.message =~ "%s" }`, []string{"out.*", "timeout", "nope"})
	add(`{ event:timeSinceStart > %s }`, []string{"1ms", "4ms"})
	add(`{ instrumentation:%s }`, []string{`name = "http"`, `version = "1.1"`, `version =~ "1\\.[02]"`, `name != "sql"`})
	add(`{ nestedSetParent %s }`, []string{"< 0", "= -1", "= 1"})
	out = append(out,
		`{ }`, `{}`, `{ true }`, `{ false }`, `{ 1 = 1 }`, `{ 1 = 2 }`, `{ "a" = "a" }`,
		`{ span.code.text = "5" }`, `{ span."with blank" = "yes" }`, `{ ."with blank" = "yes" }`, `{ span.code = "404" }`,
		`{ event.attempt >= 2 }`, `{ link.why = "retry" }`, `{ instrumentation.lib = "x" }`, `{ statusMessage = "timeout" }`,
		`{ span:name = "query" && span:kind = client && span:status = error }`, `{ span:duration > 800ms }`, `{ span:statusMessage =~ "re.*" }`,
		`{ traceDuration > 1s }`, `{ traceDuration <= 300ms }`, `{ trace:duration > 1200ms }`, `{ duration > 0.5s }`, `{ duration > 300000us && duration < 0.4s }`,
		`{ rootName = "query" }`, `{ rootServiceName = "db" }`, `{ trace:rootName =~ "GET.*" && trace:rootService = "cart" }`, `{ rootName != name }`,
		`{ span.code >= 400 && span.foo = "bar" }`, `{ span.code >= 400 || span.foo = "bar" }`, `{ (span.hit = true || status = error) && kind = server }`,
		`{ status = error || kind = client && span.foo != nil }`, `{ resource.replica = 1 && resource.region = "eu" }`, `{ resource.replica + 1 = 3 }`,
		`{ span.size * 2 > 6000 }`, `{ span.size / 2 > 2000 }`, `{ span.size % 2 = 1 }`, `{ span.load ^ 2 < 4 }`, `{ -span.size < -4000 }`, `{ span.size - span.code > 3000 }`,
		`{ span.load * 2 + 1 >= 4.5 }`, `{ span.code + span.load > 500 }`, `{ duration * 2 > 1s }`, `{ duration > 100ms * 5 }`, `{ span.size > 1000 + 1000 * 2 }`, `{ traceDuration - duration > 700ms }`,
		`{ span.foo = resource.foo }`, `{ span.foo != resource.foo }`, `{ span.size > span.code }`, `{ span.size >= 2 && span.size <= 300 }`,
		"{ span.foo = `bar` }", `{ span.size < maxInt }`, `{ span.size > minInt }`,
		`{ span:id = "1000000000010001" }`, `{ trace:id = "abc00000000000010000000000000001" }`, `{ nestedSetLeft = 1 }`, `{ nestedSetRight = 2 }`,
		`{ span:childCount > 2 }`, `{ span:childCount = 0 && kind = server }`, `{ link:traceID != "" }`, `{ link:spanID = "1000000000010001" }`,
		`{ span.hit }`, `{ !span.hit }`, `{ span.hit && status = error }`, `{ !(span.code = 200) && span.code != nil }`,
		`{ status = error /* of any kind */ }`, "{ status = error } // at the end",
	)
	return out
}

// setQueries are about several spans of a trace.
func setQueries() []string {
	var out []string
	sides := [][2]string{
		{`{ resource.service.name = "cart" }`, `{ status = error }`},
		{`{ kind = server }`, `{ span.foo = "bar" }`},
		{`{ name = "query" }`, `{ name = "wait" }`},
		{`{ }`, `{ span.code = 500 }`},
	}
	for _, op := range []string{">", ">>", "<", "<<", "~", "!>", "!>>", "!<", "!<<", "!~", "&>", "&<", "&~", "&&", "||"} {
		for _, s := range sides {
			out = append(out, s[0]+" "+op+" "+s[1])
		}
	}
	out = append(out,
		`{ name = } }`, `{ span.foo }  | `, `{ duration = "a" }`, `{ } | count()`, `count() > 3`, // wrong for both
		`{ name = "query" } > { name = "wait" } > { }`, `{ name = "query" } >> ({ status = error } && { kind = client })`,
		`({ kind = server } >> { kind = client }) && { status = ok }`, `{ name = "query" } || { name = "wait" } && { status = error }`,
		`({ name = "query" } || { name = "wait" }) ~ { status = error }`, `{ nestedSetParent < 0 } > { status = error }`, `{ nestedSetParent < 0 } >> { event:name = "exception" }`,
	)
	for _, p := range []string{
		`count() > 3`, `count() = 1`, `count() != 2`, `count() <= 2`, `avg(duration) > 500ms`, `max(duration) >= 850ms`, `min(duration) < 20ms`, `sum(duration) > 3s`,
		`avg(span.size) > 2500`, `min(span.load) = 0.25`, `max(span.code) < 500`, `sum(span.size) >= 20000`, `max(span.load) > 3`,
		`by(resource.service.name)`, `by(name) | count() > 1`, `by(status) | avg(duration) > 400ms`, `by(span.foo) | count() = 2`, `by(kind) | count() > 2 | coalesce()`,
		`coalesce()`, `coalesce() | count() > 2`, `{ status = error }`, `{ status = error } | count() > 1`, `by(resource.service.name) | { status = error } | count() > 1`,
		`select(span.foo)`, `select(span.code, duration, status, resource.region) | count() > 2`, `by(span.code >= 400)`, `by(span.size % 3) | count() > 2`, `max(duration) > 700ms | min(duration) < 50ms`,
	} {
		out = append(out, `{ } | `+p, `{ span.foo != nil } | `+p)
	}
	out = append(out, `{ kind = server } >> { kind = client } | count() > 1`, `({ status = error } || { span.code >= 500 }) | by(name) | count() > 1`,
		`({ kind = server } | count() > 1) && ({ status = error } | count() > 0)`, `({ kind = server } | count() > 2) || ({ status = error } | count() > 2)`,
		`({ kind = server } | count() > 1) >> ({ status = error } | count() > 0)`, `({ span.foo = "bar" }) | count() > 2`)
	return out
}

// metricQueries are for numbers; structural is whether they are about several spans of a trace.
func metricQueries() []string {
	var out []string
	filters := []string{`{ }`, `{ status = error }`, `{ resource.service.name = "cart" && span.foo != nil }`}
	for _, f := range filters {
		for _, p := range []string{
			`rate()`, `count_over_time()`, `rate() by (resource.service.name)`, `count_over_time() by (span.foo, kind)`, `count_over_time() by (span.code)`, `count_over_time() by (span.hit)`,
			`min_over_time(duration)`, `max_over_time(duration) by (name)`, `avg_over_time(duration) by (resource.service.name)`, `sum_over_time(duration)`, `avg_over_time(span.load)`, `sum_over_time(span.size) by (kind)`, `max_over_time(span.size) by (status)`,
			`min_over_time(span.size)`, `avg_over_time(span.size) by (span.foo)`, `histogram_over_time(span.size)`, `histogram_over_time(duration)`, `histogram_over_time(duration) by (kind)`,
			`quantile_over_time(duration, 0.5, 0.9)`, `quantile_over_time(span.size, 0.99) by (kind)`,
			`count_over_time() by (resource.service.name) > 2`, `rate() by (name) | topk(2)`, `max_over_time(duration) by (resource.service.name, name) | bottomk(2)`, `max_over_time(duration) by (kind) < 800ms`,
			`count_over_time() by (rootServiceName)`, `rate() by (statusMessage)`, `count_over_time() by (instrumentation:name)`, `count_over_time() by (resource.region)`,
		} {
			out = append(out, f+" | "+p)
		}
	}
	out = append(out,
		`{ nestedSetParent < 0 } | rate() by (resource.service.name)`, `{ kind = server } >> { kind = client } | count_over_time()`, `{ kind = server } > { } | count_over_time() by (name)`,
		`{ event:name = "exception" } | count_over_time()`, `{ } | by(name) | count() > 2 | count_over_time()`, `{ } | select(span.foo) | rate()`,
		`({ status = error } | count_over_time()) / ({ } | count_over_time())`, `({ status = error } | count_over_time() by (name)) / ({ } | count_over_time() by (name))`,
		`({ status = error } | count_over_time()) * 100`, `({ } | count_over_time() by (kind)) - ({ status = error } | count_over_time() by (kind))`, `({ } | max_over_time(duration)) + ({ } | min_over_time(duration))`,
		`{ } | count_over_time() with(sample=false)`, `{ } | rate() with(exemplars=false)`,
		`{ } | compare({ status = error })`, `{ } | compare({ duration > 500ms }, 10)`,
	)
	return out
}

// differing are queries that are answered otherwise on purpose, as docs/api/traceql.md says, with what it calls them.
func differing() map[string]string {
	return map[string]string{
		`{ !(span.code = 200) }`:                                  "without a value on the other side",
		`{ span.hit = true || .nope }`:                            "without a value on the other side",
		`{ event.message = nil }`:                                 "event.x = nil",
		`{ span.tags != "a" }`:                                    "arrays",
		`{ parent.span.foo = "bar" }`:                             "parent.x",
		`{ } | max(duration) - min(duration) > 800ms`:             "several aggregates",
		`({ kind = server } | count() > 1) && { status = error }`: "(pipeline) && {...}",
		`{ event:name = nil }`:                                    "span:parentID = nil",
		`{ .foo = nil }`:                                          ".x = nil",
		`{ nestedSetParent > 3 }`:                                 "numbers of nested sets",
		`{ span.size ^ 2 < 10000 }`:                               "integers to a power",
		`{ } &>> { span.code = 500 }`:                             "&>>",
		`{ kind = server } &<< { span.foo = "bar" }`:              "&<<",
		`{ event:name != "log" }`:                                 "of spans without events",
	}
}
