package app

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/braidobs/braid/alerting"
	"github.com/braidobs/braid/internal/lifecycle"
)

// CheckRules reads the rule files that the configuration names. The error has every mistake.
func CheckRules(cfg Config, log *slog.Logger) error {
	if _, err := alerting.Check(cfg.Alerting, cfg.PromQL.Parser(), log); err != nil {
		return fmt.Errorf("the rules have mistakes:\n%w", err)
	}
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
