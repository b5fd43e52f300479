//go:build long

package alerting

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSameVerdictsAsPromtool runs both programs on every unit test file of promtool's own tests, and on each of them
// with one of its numbers or times changed at a time, and wants the same exit code. promtool is built in the module
// bench/tools, for it needs replacements that this module has not.
func TestSameVerdictsAsPromtool(t *testing.T) {
	promtool := filepath.Join(t.TempDir(), "promtool")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", promtool, "github.com/prometheus/prometheus/cmd/promtool")
	build.Dir = "../tools"
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	list := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus")
	list.Dir = "../tools"
	b, err := list.Output()
	require.NoError(t, err)
	source := filepath.Join(strings.TrimSpace(string(b)), "cmd", "promtool", "testdata")
	dir := t.TempDir()
	found, err := filepath.Glob(filepath.Join(source, "*.yml"))
	require.NoError(t, err)
	var fixtures []string
	for _, f := range found {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(f)), b, 0o600))
		if regexp.MustCompile(`(?m)^tests:`).Match(b) {
			fixtures = append(fixtures, filepath.Base(f))
		}
	}
	require.GreaterOrEqual(t, len(fixtures), 14)

	compared, failed := 0, 0
	same := func(file string, flags ...string) {
		want, wantOut := verdict(t, dir, promtool, append(append([]string{"test", "rules"}, flags...), file)...)
		got, gotOut := verdict(t, dir, binary, append(append([]string{"rules", "test"}, flags...), file)...)
		require.Equal(t, want, got, "%s %v\npromtool:\n%s\nbraid:\n%s", file, flags, wantOut, gotOut)
		compared++
		if want != 0 {
			failed++
		}
	}
	for _, f := range fixtures {
		for _, flags := range [][]string{nil, {"--run", "correct"}, {"--run", "wrong"}, {"--ignore-unknown-fields"}} {
			same(f, flags...)
		}
	}
	changed := filepath.Join(dir, "changed.yml")
	number := regexp.MustCompile(`(?m)^.*\b(value|eval_time|exp_labels|interval|values|severity|alertname|expr): *['"]?(.*)$`)
	for _, f := range fixtures {
		b, err := os.ReadFile(filepath.Join(dir, f))
		require.NoError(t, err)
		for i, at := range number.FindAllSubmatchIndex(b, 60) {
			text := string(b[:at[4]]) + strconv.Itoa(i%3) + string(b[at[4]:])
			require.NoError(t, os.WriteFile(changed, []byte(text), 0o600))
			same("changed.yml", "--ignore-unknown-fields")
		}
	}
	t.Logf("%d verdicts are the same, %d of them failures", compared, failed)
	require.Greater(t, compared, 200)
	require.Greater(t, compared-failed, 40)
	require.Greater(t, failed, 40)
}

// verdict runs a program and returns its exit code.
func verdict(t *testing.T, dir, bin string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bin, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), string(out)
	}
	require.NoError(t, err)
	return 0, string(out)
}
