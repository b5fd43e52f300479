// Package fault lets a shop service misbehave on request: slow queries, a burst of errors, a leak. The faults show in
// the service's telemetry as they would in production; nothing in it says that a fault was switched on.
package fault

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Kind is one way to misbehave.
type Kind string

// The kinds.
const (
	SlowDatabase Kind = "slow_database" // queries take Delay longer
	ErrorBurst   Kind = "error_burst"   // requests fail with a 500 and a logged stack
	LeakingPod   Kind = "leaking_pod"   // memory grows by Rate a second, to Limit
)

// maxLeak bounds what a leak may ask for: the demo runs on small machines.
const maxLeak = 1 << 30

// Fault is what POST /fault takes.
type Fault struct {
	Kind    Kind     `json:"kind"`
	Ratio   float64  `json:"ratio,omitzero"`   // share of queries or requests, in (0, 1]; 1 when absent
	Version string   `json:"version,omitzero"` // only instances of this service.version; any when absent
	Delay   Duration `json:"delay,omitzero"`   // slow_database: how much longer; 800ms when absent
	Query   string   `json:"query,omitzero"`   // slow_database: only this statement; any when absent
	Rate    Size     `json:"rate,omitzero"`    // leaking_pod: bytes a second; 8MiB when absent
	Limit   Size     `json:"limit,omitzero"`   // leaking_pod: where it stops; 128MiB when absent
}

// WithDefaults fills in what was left out.
func (f Fault) WithDefaults() Fault {
	if f.Kind != LeakingPod && f.Ratio == 0 {
		f.Ratio = 1
	}
	if f.Kind == SlowDatabase && f.Delay == 0 {
		f.Delay = Duration(800 * time.Millisecond)
	}
	if f.Kind == LeakingPod && f.Rate == 0 {
		f.Rate = 8 << 20
	}
	if f.Kind == LeakingPod && f.Limit == 0 {
		f.Limit = 128 << 20
	}
	return f
}

// Validate returns all mistakes, each with its field.
func (f Fault) Validate() error {
	var errs []error
	bad := func(field, message string) { errs = append(errs, fmt.Errorf("%s: %s", field, message)) }
	switch f.Kind {
	case SlowDatabase, ErrorBurst, LeakingPod:
	default:
		bad("kind", fmt.Sprintf("%q is not one of %s, %s, %s", f.Kind, SlowDatabase, ErrorBurst, LeakingPod))
	}
	if !(f.Ratio >= 0 && f.Ratio <= 1) { // also refuses NaN
		bad("ratio", "must be between 0 and 1")
	}
	if f.Delay < 0 || f.Delay > Duration(time.Minute) {
		bad("delay", "must be between 0 and 1m")
	}
	if f.Rate != 0 && f.Rate < 1<<10 || f.Rate > maxLeak {
		bad("rate", "must be between 1KiB and 1GiB")
	}
	if f.Limit < 0 || f.Limit > maxLeak {
		bad("limit", "must be between 0 and 1GiB")
	}
	return errors.Join(errs...)
}

// Duration is a time.Duration that is written as text ("800ms").
type Duration time.Duration

// MarshalText writes the duration the way time.ParseDuration reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes, written as a number or with a unit ("8MiB").
type Size int64

// UnmarshalJSON reads 8388608, "8388608", "8192KiB" or "8MiB".
func (s *Size) UnmarshalJSON(b []byte) error {
	text := string(b)
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	unit := Size(1)
	for _, u := range []struct {
		suffix string
		unit   Size
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			text, unit = rest, u.unit
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return fmt.Errorf("parse size %s: %w", b, err)
	}
	*s = Size(n) * unit
	if *s/unit != Size(n) {
		return fmt.Errorf("parse size %s: out of range", b)
	}
	return nil
}
