package prometheus

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
)

// Target is what is scraped, and how it went last.
type Target struct {
	Discovered, Labels labels.Labels // before and after relabelling
	Pool               string        // the job
	URL                string
	Health             string // up, down or unknown
	LastError          string
	LastScrape         time.Time
	LastDuration       time.Duration
	Interval, Timeout  string
	Metadata           func() []TargetMetadata // of the metrics that it exposes
}

// TargetMetadata describes a metric family as a target does.
type TargetMetadata struct {
	Metric string
	telemetry.Metadata
}

// Targets knows what is scraped.
type Targets interface {
	// Pools returns the names of the jobs.
	Pools() []string
	// Active returns the targets of all jobs, the jobs in the order of their names.
	Active() []Target
}

func (a *API) pools(*http.Request) (result, error) {
	names := []string{}
	if a.Targets != nil {
		names = append(names, a.Targets.Pools()...)
	}
	slices.Sort(names)
	return jsonResult(map[string][]string{"scrapePools": names})
}

// active returns the targets, none without a scraper.
func (a *API) active() []Target {
	if a.Targets == nil {
		return nil
	}
	return a.Targets.Active()
}

func (a *API) targets(r *http.Request) (result, error) {
	type target struct {
		DiscoveredLabels   labels.Labels `json:"discoveredLabels"`
		Labels             labels.Labels `json:"labels"`
		ScrapePool         string        `json:"scrapePool"`
		ScrapeURL          string        `json:"scrapeUrl"`
		GlobalURL          string        `json:"globalUrl"`
		LastError          string        `json:"lastError"`
		LastScrape         time.Time     `json:"lastScrape"`
		LastScrapeDuration float64       `json:"lastScrapeDuration"`
		Health             string        `json:"health"`
		ScrapeInterval     string        `json:"scrapeInterval"`
		ScrapeTimeout      string        `json:"scrapeTimeout"`
	}
	pool, state := r.FormValue("scrapePool"), strings.ToLower(r.FormValue("state"))
	out := []target{}
	if state == "" || state == "any" || state == "active" {
		for _, t := range a.active() {
			if pool == "" || pool == t.Pool {
				out = append(out, target{
					t.Discovered, t.Labels, t.Pool, t.URL, t.URL, t.LastError, t.LastScrape, t.LastDuration.Seconds(), t.Health, t.Interval, t.Timeout,
				})
			}
		}
	}
	dropped := map[string]int(nil)
	if state == "" || state == "any" || state == "dropped" {
		dropped = make(map[string]int)
		if a.Targets != nil {
			for _, p := range a.Targets.Pools() {
				dropped[p] = 0
			}
		}
	}
	return jsonResult(struct {
		Active  []target       `json:"activeTargets"`
		Dropped []target       `json:"droppedTargets"` // none: there is no relabelling
		Counts  map[string]int `json:"droppedTargetCounts"`
	}{out, []target{}, dropped})
}

func (a *API) targetMetadata(r *http.Request) (result, error) {
	limit := -1
	if s := r.FormValue("limit"); s != "" {
		var err error
		if limit, err = strconv.Atoi(s); err != nil {
			return result{}, httpapi.BadDataf("limit must be a number")
		}
	}
	var ms []*labels.Matcher
	if s := r.FormValue("match_target"); s != "" {
		var err error
		if ms, err = a.Engine.Parser().ParseMetricSelector(s); err != nil {
			return result{}, invalid("match_target", err)
		}
	}
	type metadata struct {
		Target labels.Labels `json:"target"`
		Metric string        `json:"metric,omitempty"`
		Type   string        `json:"type"`
		Help   string        `json:"help"`
		Unit   string        `json:"unit"`
	}
	metric := r.FormValue("metric")
	out := []metadata{}
	for _, t := range a.active() {
		if limit >= 0 && len(out) >= limit {
			break
		}
		if slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(t.Labels.Get(m.Name)) }) {
			continue
		}
		for _, md := range t.Metadata() {
			switch metric {
			case "":
				out = append(out, metadata{t.Labels, md.Metric, md.Type.String(), md.Help, md.Unit})
			case md.Metric:
				out = append(out, metadata{t.Labels, "", md.Type.String(), md.Help, md.Unit})
			}
		}
	}
	return jsonResult(out)
}

func errEndBeforeStart() error { return errors.New("end timestamp must not be before start time") }
