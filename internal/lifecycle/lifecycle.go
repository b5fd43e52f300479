// Package lifecycle starts the parts of a process in order and stops them in reverse.
//
// One process calls Run once, with its parts listed so that each comes after those it needs: storage before
// ingest, ingest before listeners, and last what tells the world that the process is ready.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// DefaultGrace is how long a part may take to stop when it does not say.
const DefaultGrace = 10 * time.Second

// linger is how long a Stop whose context has ended is waited for.
const linger = 100 * time.Millisecond

// Part is one thing with a life: a store, a listener, a loop. Nil functions are skipped.
type Part struct {
	// Name is how errors and logs call the part.
	Name string

	// Start gets the part ready and returns; the next part starts after that. Its context ends when the process is
	// asked to stop while it starts, and must not be kept. After an error neither Run nor Stop is called: Start
	// cleans up after itself.
	Start func(ctx context.Context) error

	// Run works until its context ends, then returns. It is called in a goroutine of its own after Start. An error
	// other than the end of its context stops the process; nil before that means that its work is done.
	Run func(ctx context.Context) error

	// Stop releases what Start took. It is called once, after Run returned and after all later parts stopped.
	Stop func(ctx context.Context) error

	// Grace is the time that Run (after its context ends) and Stop have together; zero is DefaultGrace. At its end
	// the context given to Stop ends; a part that is not back then is named in the error and left behind.
	Grace time.Duration
}

// running is a part that has started.
type running struct {
	Part
	cancel context.CancelFunc // of Run's context
	done   chan struct{}      // closed when Run returned; nil without a Run
}

// Run starts the parts in order, waits until ctx ends or a Run fails, and stops the parts that started in reverse
// order, each within its grace. A part that fails to start stops the ones before it.
//
// It returns nil when ctx ended and everything stopped cleanly. Otherwise the error names each part that failed,
// the cause first. When Run returns, every goroutine that it started has ended, except those of parts that the
// error names as not stopped in time.
func Run(ctx context.Context, log *slog.Logger, parts ...Part) error {
	up, cancel := context.WithCancelCause(ctx) // ends when everything has to stop
	defer cancel(nil)

	var started []*running
	var errs []error
	failed := make(chan error, len(parts)) // errors of Run functions, in the order they came
	for _, p := range parts {
		if up.Err() != nil {
			break
		}
		if p.Start != nil {
			if err := p.Start(up); err != nil {
				if up.Err() == nil || !errors.Is(err, context.Canceled) {
					errs = append(errs, fmt.Errorf("start %s: %w", p.Name, err))
				}
				cancel(err)
				break
			}
		}
		log.Debug("part started", "part", p.Name)
		r := &running{Part: p, cancel: func() {}}
		if p.Run != nil {
			r.run(ctx, func(err error) {
				failed <- fmt.Errorf("run %s: %w", p.Name, err)
				cancel(err)
			})
		}
		started = append(started, r)
	}
	<-up.Done()
	log.Debug("stopping", "cause", context.Cause(up))

	for _, r := range slices.Backward(started) {
		if err := r.stop(ctx); err != nil {
			log.Error("part did not stop cleanly", "part", r.Name, "err", err)
			errs = append(errs, err)
			continue
		}
		log.Debug("part stopped", "part", r.Name)
	}
	var causes []error
	for {
		select {
		case err := <-failed:
			causes = append(causes, err)
		default:
			return errors.Join(append(causes, errs...)...)
		}
	}
}

// run calls Run in a goroutine, in a context that has the values of ctx and ends only by r.cancel.
func (r *running) run(ctx context.Context, fail func(error)) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel, r.done = cancel, make(chan struct{})
	go func() {
		defer close(r.done)
		defer cancel()
		err := r.Run(own)
		if err != nil && (own.Err() == nil || !errors.Is(err, context.Canceled)) {
			fail(err)
		}
	}()
}

// stop ends Run, then calls Stop, all within the grace.
func (r *running) stop(ctx context.Context) error {
	grace := r.Grace
	if grace <= 0 {
		grace = DefaultGrace
	}
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()

	r.cancel()
	late := fmt.Errorf("stop %s: not done after %s", r.Name, grace)
	if r.done != nil {
		select {
		case <-r.done:
		case <-own.Done():
			return late
		}
	}
	if r.Stop == nil {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- r.Stop(own) }()
	select {
	case err := <-done:
		return r.stopError(err)
	case <-own.Done():
	}
	t := time.NewTimer(linger)
	defer t.Stop()
	select { // Stop may heed the end of its context
	case err := <-done:
		return errors.Join(late, r.stopError(err))
	case <-t.C:
		return late
	}
}

func (r *running) stopError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("stop %s: %w", r.Name, err)
}
