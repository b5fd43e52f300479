package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/braidobs/braid/internal/app"
	"github.com/braidobs/braid/internal/config"
)

const rulesUsage = `braid rules works on rule files in the format of Prometheus.

  braid rules check [flags] [FILE...]   report every mistake, with file, line and column
  braid rules test [flags] FILE...      run unit tests in the format of promtool test rules

Examples:
  braid rules check rules/*.yml
  braid rules check -config braid.yaml          the files that the configuration names
  braid rules test rules/tests/*.yml
  braid rules test -run 'checkout' tests.yml    the tests whose name matches

The exit code is 0 when nothing is wrong, otherwise 1.

Flags:
`

// rules is the command "rules".
func rules(ctx context.Context, args []string, out, errOut io.Writer) error {
	flags := flag.NewFlagSet("braid rules", flag.ContinueOnError)
	run := flags.String("run", "", "test: run only tests whose name matches this regular `expression`")
	ignore := flags.Bool("ignore-unknown-fields", false, "test: fields of rule files that are not known are no mistake")
	command, cfg, err := parse(flags, rulesUsage, args, out, errOut)
	if err != nil {
		return err
	}
	switch command {
	case "check":
		if flags.NArg() > 0 {
			cfg.Alerting.Rules = flags.Args()
		}
		if len(cfg.Alerting.Rules) == 0 {
			return errors.New("name rule files, or a configuration that does; see braid rules -help")
		}
		return app.ReportRules(out, cfg)
	case "test":
		if flags.NArg() == 0 {
			return errors.New("name test files; see braid rules -help")
		}
		tests := app.RuleTests{Files: flags.Args(), IgnoreUnknown: *ignore}
		if *run != "" {
			var err error
			if tests.Run, err = regexp.Compile(*run); err != nil {
				return fmt.Errorf("flag -run: %w", err)
			}
		}
		return app.TestRules(ctx, out, cfg, time.Now, tests)
	case "":
		flags.Usage()
		return errors.New("which one: check or test?")
	default:
		return fmt.Errorf("unknown command %q of braid rules; see braid rules -help", command)
	}
}

// parse reads the arguments of a command that has commands of its own: which of them, the flags, and the configuration
// that flag -config names.
func parse(flags *flag.FlagSet, usage string, args []string, out, errOut io.Writer) (command string, cfg app.Config, err error) {
	file := flags.String("config", "", "the configuration `file`, YAML: its sections promql and alerting say what is read, and how")
	flags.SetOutput(errOut)
	flags.Usage = func() {
		to := errOut
		if helpAsked(args) {
			to = out
		}
		fmt.Fprint(to, usage)
		flags.SetOutput(to)
		flags.PrintDefaults()
	}
	if len(args) > 0 && len(args[0]) > 0 && args[0][0] != '-' {
		command, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return "", cfg, err
	}
	cfg = app.DefaultConfig()
	if *file != "" {
		err = config.LoadFile(*file, &cfg)
	}
	return command, cfg, err
}

// helpAsked says whether help was asked for rather than shown because of a mistake.
func helpAsked(args []string) bool {
	for _, a := range args {
		switch a {
		case "-h", "-help", "--h", "--help":
			return true
		}
	}
	return false
}

const sloUsage = `braid slo works on files of service level objectives, in the short form or of OpenSLO v1.

  braid slo check [flags] [FILE...]     report every mistake, with file, line and column
  braid slo rules [flags] [FILE...]     print the recording and alerting rules that the objectives turn into

Examples:
  braid slo check slos/*.yml
  braid slo rules -config braid.yaml

The exit code is 0 when nothing is wrong, otherwise 1.

Flags:
`

// slos is the command "slo".
func slos(args []string, out, errOut io.Writer) error {
	flags := flag.NewFlagSet("braid slo", flag.ContinueOnError)
	command, cfg, err := parse(flags, sloUsage, args, out, errOut)
	if err != nil {
		return err
	}
	if flags.NArg() > 0 {
		cfg.Alerting.SLOs = flags.Args()
	}
	switch command {
	case "check", "rules":
		if len(cfg.Alerting.SLOs) == 0 {
			return errors.New("name files of objectives, or a configuration that does; see braid slo -help")
		}
		return app.ReportSLOs(out, cfg, command == "rules")
	case "":
		flags.Usage()
		return errors.New("which one: check or rules?")
	default:
		return fmt.Errorf("unknown command %q of braid slo; see braid slo -help", command)
	}
}
