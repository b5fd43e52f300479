package tail

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/storage/vfs"
)

// Config is section "logs" of the agent's configuration.
type Config struct {
	PodsDir        string          `yaml:"pods_dir" help:"Where the kubelet keeps the logs of containers; empty reads none."`
	Sources        []Source        `yaml:"sources" help:"Files of the host to read as well."`
	MaxRecord      config.Size     `yaml:"max_record" help:"Of a longer record the first part is kept."`
	MaxInflight    config.Size     `yaml:"max_inflight" help:"How many bytes may be read and not acknowledged, over all streams. At all of it reading waits."`
	MaxHeld        config.Size     `yaml:"max_held" help:"How many bytes that are not sent yet deleted files are kept open for. Over it the oldest of the loudest stream are dropped."`
	MaxAge         config.Duration `yaml:"max_age" help:"At the first start on a host, files that were last written longer ago are not read; 0 reads all."`
	RescanInterval config.Duration `yaml:"rescan_interval" help:"How often all directories are listed, beside the file system's own events."`
}

// Source is a set of files of the host.
type Source struct {
	Name       string            `yaml:"name" help:"Name of the source; part of what the backend knows its streams by."`
	Include    []string          `yaml:"include" help:"Patterns of paths such as /var/log/*.log. Rotated siblings (.1, .2.gz, -20260131) are found by themselves."`
	Exclude    []string          `yaml:"exclude" help:"Patterns of paths that are left out."`
	Format     string            `yaml:"format" help:"How lines are written: auto, cri, docker or raw."`
	Attributes map[string]string `yaml:"attributes" help:"Attributes of the resource that the records belong to."`
}

// SetDefaults implements config.Defaulter.
func (s *Source) SetDefaults() { s.Format = "auto" }

// DefaultConfig reads the logs of all pods of the node.
func DefaultConfig() Config {
	return Config{
		PodsDir:        "/var/log/pods",
		MaxRecord:      1 << 20,
		MaxInflight:    8 << 20,
		MaxHeld:        1 << 30,
		RescanInterval: config.Duration(10 * time.Second),
	}
}

// Validate returns all mistakes.
func (c Config) Validate() error {
	var errs config.Errors
	if c.PodsDir != "" && !filepath.IsAbs(c.PodsDir) {
		errs.Field("pods_dir", errors.New("must be an absolute path"))
	}
	names := map[string]bool{}
	for i, s := range c.Sources {
		if names[s.Name] {
			errs.Field(fmt.Sprintf("sources[%d].name", i), fmt.Errorf("%q is the name of another source as well", s.Name))
		}
		names[s.Name] = true
	}
	if c.MaxRecord < 1<<10 || c.MaxRecord > 64<<20 {
		errs.Field("max_record", errors.New("must be from 1KiB to 64MiB"))
	}
	if c.MaxInflight < 1<<20 || c.MaxInflight > 1<<30 {
		errs.Field("max_inflight", errors.New("must be from 1MiB to 1GiB"))
	}
	if c.MaxHeld < 0 {
		errs.Field("max_held", errors.New("must not be negative"))
	}
	if c.RescanInterval < config.Duration(time.Second) {
		errs.Field("rescan_interval", errors.New("must be at least 1s"))
	}
	return errs.Err()
}

// Validate returns all mistakes.
func (s Source) Validate() error {
	var errs config.Errors
	if s.Name == "" || len(s.Name) > 64 {
		errs.Field("name", errors.New("must have 1 to 64 bytes"))
	}
	if len(s.Include) == 0 {
		errs.Field("include", errors.New("must name at least one pattern"))
	}
	for name, patterns := range map[string][]string{"include": s.Include, "exclude": s.Exclude} {
		for i, p := range patterns {
			if _, err := filepath.Match(p, ""); err != nil || !filepath.IsAbs(p) {
				errs.Field(fmt.Sprintf("%s[%d]", name, i), fmt.Errorf("%q is not a pattern of absolute paths", p))
			}
		}
	}
	switch s.Format {
	case "", "auto", "cri", "docker", "raw":
	default:
		errs.Field("format", fmt.Errorf("%q is not one of auto, cri, docker and raw", s.Format))
	}
	return errs.Err()
}

// Deps is what a tailer works with. Sink, Now, FS and StateDir are needed.
type Deps struct {
	Sink     Sink
	Now      func() time.Time
	FS       vfs.FS // of StateDir; logs are read from the file system of the host
	StateDir string // of the checkpoint
	// Skip says that a stream is not to be read. It is asked when a stream is found, and again at each full listing.
	Skip    func(StreamKey) bool
	Log     *slog.Logger          // nil logs nothing
	Metrics prometheus.Registerer // nil keeps them to itself
	// Grace is how long Run waits for sends under way after its context ended; 0 is 5 seconds.
	Grace time.Duration
}

func (d Deps) withDefaults() (Deps, error) {
	var errs []error
	if d.Sink == nil {
		errs = append(errs, errors.New("dependency Sink: must be set"))
	}
	if d.Now == nil {
		errs = append(errs, errors.New("dependency Now: must be set"))
	}
	if d.FS == nil || d.StateDir == "" {
		errs = append(errs, errors.New("dependencies FS and StateDir: must be set"))
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Skip == nil {
		d.Skip = func(StreamKey) bool { return false }
	}
	if d.Grace <= 0 {
		d.Grace = 5 * time.Second
	}
	return d, errors.Join(errs...)
}
