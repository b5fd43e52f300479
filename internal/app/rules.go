package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"go.yaml.in/yaml/v3"

	"github.com/braidobs/braid/alerting"
	"github.com/braidobs/braid/alerting/rules/ruletest"
	"github.com/braidobs/braid/alerting/slo"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/storage/blob/dir"
	"github.com/braidobs/braid/storage/catalog/mem"
	"github.com/braidobs/braid/storage/db"
	"github.com/braidobs/braid/storage/vfs"
	"github.com/braidobs/braid/storage/wal"
	"github.com/braidobs/braid/storage/wal/file"
)

// ReportRules reads the rule files that the configuration names and writes what is in them, and what is odd but no
// mistake. The error has every mistake.
func ReportRules(out io.Writer, cfg Config) error {
	set, err := alerting.Check(cfg.Alerting, cfg.PromQL.Parser(), plainLog(out))
	if err != nil {
		return err
	}
	for _, p := range set.Unmatched {
		fmt.Fprintf(out, "warning: no file matches %s\n", p)
	}
	for _, d := range set.Duplicates() {
		fmt.Fprintf(out, "warning: %s\n", d)
	}
	for _, name := range set.Names() {
		n := 0
		for _, g := range set.Groups(name) {
			n += len(g.Rules)
		}
		fmt.Fprintf(out, "%s: %d groups, %d rules, no mistakes\n", name, len(set.Groups(name)), n)
	}
	return nil
}

// ReportSLOs reads the objectives that the configuration names and writes what they are or, when asked for, the rules
// that they turn into. The error has every mistake.
func ReportSLOs(out io.Writer, cfg Config, asRules bool) error {
	slos, err := slo.Reader{Parser: cfg.PromQL.Parser()}.Load(cfg.Alerting.SLOs...)
	if err != nil {
		return err
	}
	only := alerting.Config{SLOs: cfg.Alerting.SLOs, SLOScale: cfg.Alerting.SLOScale}
	if _, err := alerting.Check(only, cfg.PromQL.Parser(), plainLog(out)); err != nil {
		return err
	}
	if len(slos) == 0 {
		fmt.Fprintln(out, "warning: no file matches")
	}
	all := rulefmt.RuleGroups{}
	for i := range slos {
		s := &slos[i]
		if !asRules {
			fmt.Fprintf(out, "%s:%d: %s: %s%% over %s, no mistakes\n", s.File, s.Line, s.Name, strconv.FormatFloat(s.Objective*100, 'g', 10, 64), model.Duration(s.Period))
		}
		all.Groups = append(all.Groups, s.Rules(slo.Options{Scale: cfg.Alerting.SLOScale}).Groups...)
	}
	if !asRules {
		return nil
	}
	b, err := yaml.Marshal(all)
	if err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	_, err = out.Write(b)
	return err
}

// RuleTests are test files of rules.
type RuleTests struct {
	Files         []string
	Run           *regexp.Regexp // of the names of tests; nil for all
	IgnoreUnknown bool           // fields of rule files that are not known are no mistake
}

// TestRules runs the tests of rules, each against an empty store in memory, and writes what came of them. The error
// says how many files failed.
func TestRules(ctx context.Context, out io.Writer, cfg Config, now func() time.Time, tests RuleTests) error {
	runner := ruletest.Runner{
		Open:   func(ctx context.Context) (ruletest.Store, error) { return openMemory(ctx, now) },
		PromQL: cfg.PromQL, Run: tests.Run, IgnoreUnknown: tests.IgnoreUnknown, Log: plainLog(out), Now: now,
	}
	failed := 0
	for _, f := range tests.Files {
		ran, err := runner.File(ctx, f)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
			fmt.Fprintf(out, "%s: FAILED\n%s\n", f, indent(err))
			continue
		}
		fmt.Fprintf(out, "%s: ok, %d tests\n", f, ran)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d test files failed", failed, len(tests.Files))
	}
	return nil
}

// indent writes an error with its lines indented.
func indent(err error) string {
	return regexp.MustCompile(`(?m)^`).ReplaceAllString(err.Error(), "  ")
}

// plainLog writes messages as a person reads them: without a time.
func plainLog(out io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// memoryStore is a store of the real engine whose disk is memory.
type memoryStore struct {
	*db.DB
	blobs *dir.Store
	stop  context.CancelFunc
	ended chan error
}

// century is longer than the time since 1970, where tests of rules play.
const century = config.Duration(100 * 365 * 24 * time.Hour)

func openMemory(ctx context.Context, now func() time.Time) (*memoryStore, error) {
	disk := vfs.NewMem()
	blobs, err := dir.Open(disk, "blobs")
	if err != nil {
		return nil, fmt.Errorf("open a store in memory: %w", err)
	}
	cfg := db.DefaultConfig()
	cfg.Retention, cfg.CacheBytes = century, 0
	d, err := db.Open(ctx, cfg, db.Deps{
		OpenLog: func(at wal.Position) (wal.Log, error) {
			return file.Open(ctx, file.Options{FS: disk, Dir: "wal", Shard: shard, AtLeast: at, Now: now})
		},
		Blobs: blobs, Catalog: mem.New(), Now: now,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a store in memory: %w", err), blobs.Close())
	}
	running, stop := context.WithCancel(ctx)
	s := &memoryStore{DB: d, blobs: blobs, stop: stop, ended: make(chan error, 1)}
	go func() { s.ended <- d.Run(running) }()
	return s, nil
}

// Close ends the store; what is in it is gone.
func (s *memoryStore) Close(ctx context.Context) error {
	s.stop()
	err := <-s.ended
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, s.DB.Close(ctx), s.blobs.Close())
}
