package app

import (
	"context"
	"fmt"
	"os"

	"github.com/braidobs/braid/correlate/sampling"
	"github.com/braidobs/braid/internal/lifecycle"
)

// samplingPolicy reads the policy of a configuration; nil keeps everything.
func samplingPolicy(c sampling.Config) (*sampling.Policy, error) {
	if c.Policy == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	b, err := os.ReadFile(c.Policy)
	if err != nil {
		return nil, fmt.Errorf("sampling.policy: %w", err)
	}
	p, err := sampling.ParsePolicy(b)
	if err != nil {
		return nil, fmt.Errorf("sampling.policy: %s: %w", c.Policy, err)
	}
	return &p, nil
}

// samplingPart thins out the traces of days that are over, if there is a policy.
func (a *App) samplingPart() lifecycle.Part {
	return lifecycle.Part{Name: "sampling", Run: func(ctx context.Context) error {
		p, err := samplingPolicy(a.cfg.Sampling)
		if err != nil || p == nil {
			return err
		}
		return sampling.New(sampling.Deps{Policy: *p, Store: a.db, Now: a.opts.Now, Log: a.log, Metrics: a.reg}).Run(ctx)
	}}
}
