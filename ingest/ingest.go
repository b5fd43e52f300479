// Package ingest is the way of telemetry into the store: what every protocol has in common once its wire format is
// translated. It applies the limits of the operator, record by record, and hands the rest to a storage.Writer.
//
// A record over a limit is rejected with a reason that names the setting. The records beside it are stored, and
// the answer of the protocol says how many were not. Only bodies of logs are cut, at MaxLine, and marked.
package ingest

import (
	"errors"
	"fmt"
	"time"

	"github.com/braidobs/braid/internal/config"
)

// maxLabelBytes is what the label sets of Prometheus can hold in one name or value.
const maxLabelBytes = 1<<24 - 1

// Config is what an operator can set.
type Config struct {
	// Retention is how far back records are accepted; zero is any time. The assembly sets it to what the store
	// keeps: it has no key of its own.
	Retention     config.Duration `yaml:"-"`
	MaxFuture     config.Duration `yaml:"max_future" help:"How far in the future the time of a record may lie."`
	TimeWindow    bool            `yaml:"time_window" help:"Whether records older than the retention and beyond max_future are rejected. Off is for test suites that start in 1970."`
	MaxTenants    int             `yaml:"max_tenants" help:"How many tenants may write."`
	MaxRecord     config.Size     `yaml:"max_record" help:"The largest span, log record or native histogram, in memory."`
	MaxAttributes int             `yaml:"max_attributes" help:"The most attributes of a record, an event, a link, a scope or a resource."`
	MaxName       config.Size     `yaml:"max_name" help:"The longest name of an attribute or a label."`
	MaxLabels     int             `yaml:"max_labels" help:"The most labels of a series, its name included."`
	MaxLabelValue config.Size     `yaml:"max_label_value" help:"The longest value of a label of a series or a stream."`
	LabelCache    config.Size     `yaml:"label_cache" help:"How much memory label sets may take that are remembered as checked; the store shares them."`
}

// DefaultConfig returns limits that well-behaved senders do not notice.
func DefaultConfig() Config {
	return Config{
		Retention:     config.Duration(30 * 24 * time.Hour),
		MaxFuture:     config.Duration(time.Hour),
		TimeWindow:    true,
		MaxTenants:    1000,
		MaxRecord:     2 << 20,
		MaxAttributes: 256,
		MaxName:       1 << 10,
		MaxLabels:     64,
		MaxLabelValue: 64 << 10,
		LabelCache:    256 << 20,
	}
}

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	positive := func(name string, n int64) {
		if n <= 0 {
			e.Field(name, errors.New("must be positive"))
		}
	}
	positive("max_tenants", int64(c.MaxTenants))
	positive("max_record", c.MaxRecord.Bytes())
	positive("max_attributes", int64(c.MaxAttributes))
	positive("max_name", c.MaxName.Bytes())
	positive("max_labels", int64(c.MaxLabels))
	positive("max_label_value", c.MaxLabelValue.Bytes())
	positive("label_cache", c.LabelCache.Bytes())
	if c.MaxName > maxLabelBytes {
		e.Field("max_name", fmt.Errorf("must be at most %d bytes", maxLabelBytes))
	}
	if c.MaxLabelValue > maxLabelBytes {
		e.Field("max_label_value", fmt.Errorf("must be at most %d bytes", maxLabelBytes))
	}
	return e.Err()
}
