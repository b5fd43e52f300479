package app_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/internal/app"
)

// promtool returns promtool's own test files.
func promtool(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus").Output()
	require.NoError(t, err)
	return filepath.Join(strings.TrimSpace(string(out)), "cmd", "promtool", "testdata")
}

// TestPromtoolFixtures requires the verdicts that promtool's own tests require of promtool, from the engine that
// serves, its disk in memory.
func TestPromtoolFixtures(t *testing.T) {
	dir := promtool(t)
	for _, tt := range []struct {
		file, run string
		ignore    bool
		pass      bool
		ran       int
		text      string // in what fails
	}{
		{file: "unittest.yml", pass: true, ran: 5},
		{file: "long-period.yml", pass: true, ran: 1},
		{file: "bad-input-series.yml", text: "bad-input-series.yml:3: test"},
		{file: "bad-promql.yml", text: "many-to-many"},
		{file: "bad-rules-syntax-test.yml", text: "bad-rules-syntax.yml:7:15: group \"bad-syntax\", rule \"x\": could not parse expression"},
		{file: "bad-rules-error-test.yml", text: "many-to-many"},
		{file: "failing.yml", text: "alert InstanceDown at 5m"},
		{file: "at-modifier-test.yml", pass: true, ran: 1},
		{file: "negative-offset-test.yml", pass: true, ran: 1},
		{file: "no-test-group-interval.yml", pass: true, ran: 1},
		{file: "start-time-test.yml", pass: true, ran: 4},
		{file: "rules_run.yml", text: `test "wrong test"`},
		{file: "rules_run.yml", run: "correct|wrong", text: `test "wrong test"`},
		{file: "rules_run.yml", run: "correct", pass: true, ran: 1},
		{file: "rules_run.yml", run: "wrong", text: `test "wrong test"`},
		{file: "rules_run_extrafields.yml", ignore: true, pass: true, ran: 1},
		{file: "rules_run_extrafields.yml", text: `unknown field "ownership"`},
		{file: "rules_run_no_fuzzy.yml", text: "2.9999999999999996E+00"},
		{file: "rules_run_fuzzy.yml", run: "correct", pass: true, ran: 1},
		{file: "rules_run_fuzzy.yml", run: "wrong", text: `test "wrong fuzzy match"`},
	} {
		t.Run(tt.file+" "+tt.run, func(t *testing.T) {
			defer goleak.VerifyNone(t)
			tests := app.RuleTests{Files: []string{filepath.Join(dir, tt.file)}, IgnoreUnknown: tt.ignore}
			if tt.run != "" {
				tests.Run = regexp.MustCompile(tt.run)
			}
			var out bytes.Buffer
			err := app.TestRules(t.Context(), &out, app.DefaultConfig(), time.Now, tests)
			if tt.pass {
				require.NoError(t, err, out.String())
				require.Contains(t, out.String(), fmt.Sprintf("%s: ok, %d tests", tt.file, tt.ran))
				return
			}
			require.EqualError(t, err, "1 of 1 test files failed")
			require.Contains(t, out.String(), tt.text)
		})
	}
}
