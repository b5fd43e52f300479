package tempo

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql"
	"github.com/braidobs/braid/query/traceql/syntax"
)

// tagsOf returns the attributes that there are by scope, at most limit names of each; 0 for all.
func (a *API) tagsOf(c *call) ([]traceql.Tags, traceql.Stats, error) {
	q := traceql.TagsQuery{Tenant: c.tenant, Scope: c.params.get("scope"), Filter: traceql.ParseFilter(c.params.get("q"))}
	if q.Scope == "none" { // what Grafana sends for all scopes
		q.Scope = ""
	}
	var err error
	if q.Start, q.End, err = c.params.timeRange(); err != nil {
		return nil, traceql.Stats{}, err
	}
	limit, err := c.params.number("limit", 0, 0, math.MaxInt32)
	if err != nil {
		return nil, traceql.Stats{}, err
	}
	tags, stats, err := a.engine().Tags(c.ctx, c.view, q)
	for i := range tags {
		if limit > 0 && len(tags[i].Names) > limit {
			tags[i].Names = tags[i].Names[:limit]
		}
	}
	return tags, stats, err
}

// namesOf returns the names of all scopes, without intrinsics that have a scope in their name.
func namesOf(tags []traceql.Tags) []string {
	var out []string
	for _, t := range tags {
		for _, n := range t.Names {
			if t.Scope != "intrinsic" || !strings.Contains(n, ":") {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (a *API) tagsV1(c *call) (answer, error) {
	tags, stats, err := a.tagsOf(c)
	if err != nil {
		return answer{}, err
	}
	body := appendNames([]byte(`{"tagNames":`), namesOf(tags))
	return answer{typeJSON, append(appendStats(append(body, `,"metrics":`...), stats), '}'), nil}, nil
}

func (a *API) tagsV2(c *call) (answer, error) {
	tags, stats, err := a.tagsOf(c)
	if err != nil {
		return answer{}, err
	}
	body := []byte(`{"scopes":[`)
	for i, t := range tags {
		if i > 0 {
			body = append(body, ',')
		}
		body = telemetry.AppendJSONString(append(body, `{"name":`...), t.Scope)
		body = append(appendNames(append(body, `,"tags":`...), t.Names), '}')
	}
	return answer{typeJSON, append(appendStats(append(body, `],"metrics":`...), stats), '}'), nil}, nil
}

func appendNames(dst []byte, names []string) []byte {
	dst = append(dst, '[')
	for i, n := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = telemetry.AppendJSONString(dst, n)
	}
	return append(dst, ']')
}

// valuesOf returns the values of a tag, sorted as text.
func (a *API) valuesOf(c *call, tag string) ([]traceql.Value, traceql.Stats, error) {
	q := traceql.ValuesQuery{Tenant: c.tenant, Filter: traceql.ParseFilter(c.params.get("q"))}
	var err error
	if q.Field, err = traceql.ParseField(tag); err != nil {
		// Old clients name attributes without a scope.
		var again error
		if q.Field, again = traceql.ParseField("." + tag); again != nil {
			return nil, traceql.Stats{}, fmt.Errorf("invalid tag: %w", err)
		}
	}
	if q.Start, q.End, err = c.params.timeRange(); err != nil {
		return nil, traceql.Stats{}, err
	}
	if q.Limit, err = c.params.number("limit", 0, 0, math.MaxInt32); err != nil {
		return nil, traceql.Stats{}, err
	}
	res, err := a.engine().Values(c.ctx, c.view, q)
	if err != nil {
		return nil, traceql.Stats{}, err
	}
	return res.Values, res.Stats, nil
}

// tagOf returns the tag that the path names.
func tagOf(c *call) (string, error) {
	tag := c.r.PathValue("tag")
	if tag == "" {
		return "", httpapi.BadDataf("the path names no tag")
	}
	return tag, nil
}

func (a *API) valuesV1(c *call) (answer, error) {
	tag, err := tagOf(c)
	if err != nil {
		return answer{}, err
	}
	vs, stats, err := a.valuesOf(c, tag)
	if err != nil {
		return answer{}, err
	}
	body := appendNames([]byte(`{"tagValues":`), texts(vs))
	return answer{typeJSON, append(appendStats(append(body, `,"metrics":`...), stats), '}'), nil}, nil
}

func texts(vs []traceql.Value) []string {
	var out []string
	for _, v := range vs {
		out = append(out, valueText(v))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (a *API) valuesV2(c *call) (answer, error) {
	tag, err := tagOf(c)
	if err != nil {
		return answer{}, err
	}
	vs, stats, err := a.valuesOf(c, tag)
	if err != nil {
		return answer{}, err
	}
	body := []byte(`{"tagValues":[`)
	for i, v := range vs {
		if i > 0 {
			body = append(body, ',')
		}
		body = telemetry.AppendJSONString(append(body, `{"type":`...), typeName(v))
		body = append(telemetry.AppendJSONString(append(body, `,"value":`...), valueText(v)), '}')
	}
	return answer{typeJSON, append(appendStats(append(body, `],"metrics":`...), stats), '}'), nil}, nil
}

// valueText writes a value as Tempo does: floats do not look like integers.
func valueText(v traceql.Value) string {
	text := v.Text()
	if v.Type == syntax.TypeFloat && !strings.ContainsAny(text, ".eIN") {
		text += ".0"
	}
	return text
}

// typeName is what Tempo calls the type of a value.
func typeName(v traceql.Value) string {
	switch v.Type {
	case syntax.TypeInt:
		return "int"
	case syntax.TypeFloat:
		return "float"
	case syntax.TypeBool:
		return "bool"
	case syntax.TypeDuration:
		return "duration"
	case syntax.TypeStatus, syntax.TypeKind:
		return "keyword"
	default:
		return "string"
	}
}
