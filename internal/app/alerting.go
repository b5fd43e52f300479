package app

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/braidobs/braid/alerting"
	"github.com/braidobs/braid/alerting/rules"
	"github.com/braidobs/braid/alerting/slo"
	"github.com/braidobs/braid/correlate/evidence"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/lifecycle"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/promql"
)

// CheckRules reads the rule files and objectives that the configuration names. The error has every mistake.
func CheckRules(cfg Config, log *slog.Logger) error {
	if _, err := alerting.Check(cfg.Alerting, cfg.PromQL.Parser(), log); err != nil {
		return fmt.Errorf("the rules have mistakes:\n%w", err)
	}
	_, err := samplingPolicy(cfg.Sampling)
	return err
}

// assembleAlerting puts together what evaluates rules and objectives, sends alerts and explains them.
func (a *App) assembleAlerting(engine *promql.Engine, counter *slo.Counter, rt *httpapi.Router) error {
	c := a.cfg.Alerting
	external, err := alerting.ExternalURL(c, string(a.cfg.Server.HTTP))
	if err != nil {
		return err
	}
	objectives := slo.NewManager(slo.Deps{
		Files: c.SLOs, Options: slo.Options{Scale: c.SLOScale}, Tenant: telemetry.Tenant(c.Tenant), Engine: engine, Counter: counter, Errors: a.errs, Now: a.opts.Now,
	})
	explainer := slo.NewExplainer(slo.ExplainerDeps{
		Manager: objectives, Collector: evidence.NewCollector(a.db, engine, a.opts.Now, a.reg), State: a.db, URL: external.String(),
		Errors: a.errs, Now: a.opts.Now, Log: a.log,
	})
	a.alert, err = alerting.New(alerting.Deps{
		Config: c, Engine: engine, Writer: a.db, Sources: []rules.Source{objectives.Source}, Annotate: explainer.Annotate,
		Addr: string(a.cfg.Server.HTTP), Errors: a.errs, Log: a.log, Metrics: a.reg, Now: a.opts.Now,
	})
	if err != nil {
		return err
	}
	a.alert.Register(rt)
	objectives.Register(rt)
	explainer.Register(rt)
	return nil
}

// alertingPart evaluates rules, and reads them anew when it is told to.
func (a *App) alertingPart() lifecycle.Part {
	return lifecycle.Part{
		Name: "alerting", Grace: alerting.Grace,
		Start: func(ctx context.Context) error { return a.alert.Start(ctx) },
		Run: func(ctx context.Context) error {
			done := make(chan error, 1)
			go func() { done <- a.alert.Run(ctx) }()
			for {
				select {
				case <-a.opts.Reload:
					_ = a.alert.Reload() // logs what is wrong
				case err := <-done:
					return err
				}
			}
		},
	}
}
