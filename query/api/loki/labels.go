package loki

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

// isAll says whether a selector is absent or {}, which stands for all streams where nothing but labels is asked for.
func isAll(selector string) bool {
	s := strings.Join(strings.Fields(selector), "")
	return s == "" || s == "{}"
}

// matchersOf returns the matchers of a selector; those of a whole query for lines will do.
func matchersOf(selector string) ([]*labels.Matcher, error) {
	if isAll(selector) {
		return nil, nil
	}
	e, err := logql.Parse(selector)
	if err != nil {
		return nil, err
	}
	l, ok := e.(*syntax.Log)
	if !ok {
		return nil, httpapi.BadDataf("a selector is wanted, such as {app=\"shop\"}, and not a query for numbers")
	}
	return l.Matchers, nil
}

// streams returns the streams that the selectors match, each once, by their labels; no selector means all streams.
func (a *API) streams(ctx context.Context, v storage.View, s span, selectors []string) ([]telemetry.LabelSet, error) {
	var where []storage.Predicate
	for _, text := range selectors {
		ms, err := matchersOf(text)
		if err != nil {
			return nil, err
		}
		if ms == nil {
			where = nil
			break
		}
		where = append(where, storage.StreamMatch(ms))
	}
	if len(where) == 0 {
		where = append(where, nil)
	}
	var out []telemetry.LabelSet
	for _, p := range where {
		some, err := v.Streams(ctx, storage.LogQuery{Tenant: httpapi.TenantFrom(ctx), Start: s.start, End: s.end - 1, Where: p})
		if err != nil {
			return nil, err
		}
		for _, set := range some {
			out = append(out, telemetry.LabelSet(strings.Clone(string(set)))) // it outlives the view
		}
	}
	slices.SortFunc(out, func(a, b telemetry.LabelSet) int { return slices.Compare(texts(a), texts(b)) })
	return slices.Compact(out), nil
}

// found returns the streams that the request's time range and the selectors leave.
func (a *API) found(r *http.Request, selectors ...string) (sets []telemetry.LabelSet, err error) {
	s, err := a.timeRange(r, defaultLabels)
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	err = a.view(ctx, func(v storage.View) error {
		sets, err = a.streams(ctx, v, s, selectors)
		return err
	})
	return sets, err
}

func (a *API) labelNames(r *http.Request) ([]byte, error) {
	sets, err := a.found(r, r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, s := range sets {
		s.Range(func(name, _ string) { seen[name] = true })
	}
	return appendNames(nil, seen), nil
}

func (a *API) labelValues(r *http.Request) ([]byte, error) {
	sets, err := a.found(r, r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, s := range sets {
		if v := s.Get(r.PathValue("name")); v != "" {
			seen[v] = true
		}
	}
	return appendNames(nil, seen), nil
}

func (a *API) series(r *http.Request) ([]byte, error) {
	sets, err := a.found(r, append(slices.Clone(r.Form["match[]"]), r.Form["match"]...)...)
	if err != nil {
		return nil, err
	}
	dst := []byte(`{"status":"success","data":[`)
	for i, s := range sets {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendLabels(dst, s)
	}
	return append(dst, "]}"...), nil
}

// detectedLabels tells the labels of streams with the number of their values.
func (a *API) detectedLabels(r *http.Request) ([]byte, error) {
	sets, err := a.found(r, r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	values := make(map[string]map[string]bool)
	for _, s := range sets {
		s.Range(func(name, value string) {
			if values[name] == nil {
				values[name] = make(map[string]bool)
			}
			values[name][value] = true
		})
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(len(values[x]), len(values[y])), cmp.Compare(x, y))
	})
	dst := []byte(`{"detectedLabels":[`)
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(append(dst, `{"label":`...), name)
		dst = append(dst, `,"cardinality":`...)
		dst = append(strconv.AppendInt(dst, int64(len(values[name])), 10), '}')
	}
	return append(dst, "]}"...), nil
}

// buildInfo tells the version of the API.
func (a *API) buildInfo(*http.Request) ([]byte, error) {
	return fmt.Appendf(nil, `{"version":%q,"revision":%q,"branch":"braid","buildUser":"","buildDate":"","goVersion":%q}`,
		spoken, a.Version, runtime.Version()), nil
}

// drilldownLimits tells Logs Drilldown what it may ask for.
func (a *API) drilldownLimits(*http.Request) ([]byte, error) {
	limits := a.engine.Limits
	return fmt.Appendf(nil, `{"limits":{"discover_log_levels":true,"discover_service_name":["service","app","application","name",`+
		`"app_kubernetes_io_name","container","container_name","k8s_container_name","component","workload","job","k8s_job_name"],`+
		`"log_level_fields":["level","LEVEL","Level","severity","SEVERITY","Severity","lvl","log_level"],"max_entries_limit_per_query":%d,`+
		`"max_line_size_truncate":true,"max_query_bytes_read":"%dB","max_query_length":"0s","max_query_lookback":"0s","max_query_range":"0s",`+
		`"max_query_series":%d,"metric_aggregation_enabled":false,"pattern_persistence_enabled":true,"query_timeout":%q,"retention_period":"0s",`+
		`"retention_stream":[],"volume_enabled":true,"volume_max_series":%d},"pattern_ingester_enabled":true,"version":%q}`,
		a.Config.MaxLines, limits.Bytes, limits.Series, queryTimeout, maxVolumes, spoken), nil
}
