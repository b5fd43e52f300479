package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/util/logging"

	"github.com/braidobs/braid/alerting/slo"
	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/scrape"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/selfobs"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query"
	promapi "github.com/braidobs/braid/query/api/prometheus"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/blob/dir"
	"github.com/braidobs/braid/storage/vfs"
)

// newEngine returns the PromQL engine with its query log.
func (a *App) newEngine(counter *slo.Counter, observer *query.Observer) (*promql.Engine, error) {
	deps := promql.Deps{
		Config: a.cfg.PromQL, Reader: a.spanMetrics(), Metrics: a.reg, Virtual: counter, Observer: observer, Log: a.log, SubqueryStep: a.cfg.Alerting.EvaluationInterval.Std(),
		Now: a.opts.Now,
	}
	if a.cfg.PromQL.QueryLog != "" {
		l, err := logging.NewJSONFileLogger(a.cfg.PromQL.QueryLog)
		if err != nil {
			return nil, fmt.Errorf("open promql.query_log: %w", err)
		}
		a.queryLog, deps.QueryLog = l, l
	}
	return promql.New(deps)
}

// closeQueryLog ends the query log, when there is one.
func (a *App) closeQueryLog(context.Context) error {
	if a.queryLog == nil {
		return nil
	}
	return a.queryLog.Close()
}

// promAPI returns the Prometheus API.
func (a *App) promAPI(engine *promql.Engine, counter *slo.Counter, observer *query.Observer) *promapi.API {
	cfg := a.cfg
	deps := promapi.Deps{
		Engine: engine, Reader: a.spanMetrics(), Observer: observer, Errors: a.errs, Now: a.opts.Now, Version: a.opts.Version,
		Status: promapi.Status{
			Config: func() (string, error) {
				var b strings.Builder
				err := config.Print(&b, &cfg)
				return b.String(), err
			},
			Flags: a.flags(),
			Began: a.began, Corrupt: a.corrupt, Retention: cfg.Storage.Retention.String(),
		},
	}
	if a.scraper != nil {
		deps.Targets = targets{a.scraper}
	}
	if cfg.Server.AdminAPI {
		deps.Admin = &promapi.Admin{Store: a.db, Clean: a.db.Maintain, Snapshot: a.snapshot, Deleted: counter.Forget}
	}
	return promapi.New(deps)
}

// flags returns the settings that are flags of Prometheus, by their names there.
func (a *App) flags() map[string]string {
	cfg, out := a.cfg, make(map[string]string)
	for group, flags := range map[string]map[string]string{
		"query": {
			"lookback-delta": cfg.PromQL.Lookback.String(), "max-concurrency": strconv.Itoa(cfg.PromQL.Concurrency),
			"max-samples": strconv.Itoa(cfg.PromQL.MaxSamples), "timeout": cfg.PromQL.Timeout.String(),
		},
		"storage.tsdb": {"path": cfg.Data, "retention.time": cfg.Storage.Retention.String()},
		"web":          {"enable-admin-api": strconv.FormatBool(cfg.Server.AdminAPI), "listen-address": string(cfg.Server.HTTP)},
	} {
		for name, value := range flags {
			out[group+"."+name] = value
		}
	}
	return out
}

// corrupt returns the number of damaged parts.
func (a *App) corrupt() int64 {
	st, err := a.db.Stats(context.Background())
	if err != nil {
		return 0
	}
	n := 0
	for _, s := range []storage.Signal{storage.Metrics, storage.Logs, storage.Traces} {
		n += len(st.Signals[s].Corrupt)
	}
	return int64(n)
}

// snapshot makes a folder below the data that a process can be started on as its data, and returns its name.
func (a *App) snapshot(ctx context.Context) (name string, err error) {
	var unique [8]byte
	_, _ = rand.Read(unique[:]) // never fails
	name = a.opts.Now().UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(unique[:])
	folder := filepath.Join(a.cfg.Data, "snapshots", name)
	to, err := dir.Open(vfs.OS{}, filepath.Join(folder, "blobs"))
	if err != nil {
		return "", err
	}
	if err := errors.Join(a.db.Snapshot(ctx, to), to.Close()); err != nil {
		return "", errors.Join(err, os.RemoveAll(folder))
	}
	return name, nil
}

// targets are those of the scraper, for the API.
type targets struct{ *scrape.Scraper }

// Pools implements promapi.Targets.
func (t targets) Pools() []string { return t.Jobs() }

// Active implements promapi.Targets.
func (t targets) Active() []promapi.Target {
	var out []promapi.Target
	for _, s := range t.Targets() {
		target := promapi.Target{
			Discovered: s.Discovered, Labels: s.Labels, Pool: s.Job, URL: s.URL, Health: s.Health, LastScrape: s.Last, LastDuration: s.Took,
			Interval: s.Interval, Timeout: s.Timeout,
			Metadata: func() []promapi.TargetMetadata {
				var all []promapi.TargetMetadata
				for _, f := range s.Families() {
					all = append(all, promapi.TargetMetadata{Metric: f.Name, Metadata: f.Metadata})
				}
				return all
			},
		}
		if s.Err != nil {
			target.LastError = s.Err.Error()
		}
		out = append(out, target)
	}
	return out
}

// newScraper makes the scraper when there is something to scrape.
func (a *App) newScraper(pipe *ingest.Pipeline) (err error) {
	if len(a.cfg.Scrape.Static) > 0 {
		a.scraper, err = scrape.New(a.cfg.Scrape, scrape.Deps{Pipeline: pipe, Tenant: telemetry.DefaultTenant, Log: a.log, Metrics: a.reg})
	}
	return err
}

// runScraper scrapes, when there is something to scrape.
func (a *App) runScraper(ctx context.Context) error {
	if a.scraper == nil {
		return nil
	}
	return a.scraper.Run(selfobs.Suppress(ctx))
}
