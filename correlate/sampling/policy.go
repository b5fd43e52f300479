package sampling

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/storage"
)

// Config is what an operator can set.
type Config struct {
	Policy string `yaml:"policy" help:"File with what is kept of traces that are not new any more; empty keeps everything. See docs/guides/sampling.md."`
}

// Policy says what is kept of the traces of a day once it is over for a while.
type Policy struct {
	// After is how long after its end a day is kept as it is.
	After config.Duration `yaml:"after"`
	// OneIn is of how many traces one is kept that nothing below keeps.
	OneIn int `yaml:"one_in"`
	// Errors keeps traces with a span whose status is error.
	Errors bool `yaml:"errors"`
	// Logs keeps traces that a log record of the severity error or above names.
	Logs bool `yaml:"logs"`
	// Exemplars keeps traces that an exemplar of a series points at.
	Exemplars bool `yaml:"exemplars"`
	// Slow keeps traces in which a service took longer for an operation than this quantile of the day; 1 for none.
	Slow float64 `yaml:"slow"`
	// Rare keeps traces with an operation that a service did fewer times that day.
	Rare int `yaml:"rare"`
}

// DefaultPolicy keeps days whole for a day, and then what is of interest and a tenth of the rest.
func DefaultPolicy() Policy {
	return Policy{After: config.Duration(24 * time.Hour), OneIn: 10, Errors: true, Logs: true, Exemplars: true, Slow: 0.99, Rare: 100}
}

// ParsePolicy reads a policy in YAML; what it does not name is as in DefaultPolicy. All mistakes are returned.
func ParsePolicy(b []byte) (Policy, error) {
	p := DefaultPolicy()
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&p); err != nil && !errors.Is(err, io.EOF) {
		return p, fmt.Errorf("read the policy: %w", err)
	}
	return p, p.validate()
}

func (p Policy) validate() error {
	var e config.Errors
	if p.After < config.Duration(time.Hour) {
		e.Field("after", errors.New("must be an hour at least: traces come late"))
	}
	if p.OneIn < 1 || p.OneIn > storage.MaxWeight {
		e.Field("one_in", fmt.Errorf("must be from 1 to %d", storage.MaxWeight))
	}
	if !(p.Slow > 0 && p.Slow <= 1) {
		e.Field("slow", errors.New("must be above 0 and at most 1"))
	}
	if p.Rare < 0 {
		e.Field("rare", errors.New("must not be negative"))
	}
	return e.Err()
}
