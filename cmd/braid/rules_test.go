package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRulesHelp(t *testing.T) {
	for _, args := range [][]string{{"rules", "-help"}, {"rules", "test", "--help"}, {"rules", "check", "-h"}} {
		out, errOut, err := call(t, args...)
		require.ErrorIs(t, err, flag.ErrHelp)
		require.Empty(t, errOut)
		for _, want := range []string{"braid rules check", "braid rules test", "Examples:", "-config", "-run", "exit code"} {
			require.Contains(t, out, want)
		}
	}
}

func TestRulesUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"rules"}, "which one: check or test?"},
		{[]string{"rules", "bake"}, `unknown command "bake" of braid rules`},
		{[]string{"rules", "check"}, "name rule files, or a configuration that does"},
		{[]string{"rules", "test"}, "name test files"},
		{[]string{"rules", "test", "-run", "(", "x.yml"}, "flag -run: "},
		{[]string{"rules", "test", "-nonsense"}, "flag provided but not defined"},
		{[]string{"rules", "check", filepath.Join(t.TempDir(), "none.yml")}, "none.yml: no such file or directory"},
	} {
		_, _, err := call(t, tt.args...)
		require.ErrorContains(t, err, tt.want)
	}
	_, _, err := call(t, "rules", "test", filepath.Join(t.TempDir(), "none.yml"))
	require.EqualError(t, err, "1 of 1 test files failed")
}

// TestRulesCheck requires that check and serve name every mistake of every rule file before anything starts.
func TestRulesCheck(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yml"), filepath.Join(dir, "bad.yml")
	require.NoError(t, os.WriteFile(good, []byte("groups:\n- name: a\n  rules:\n  - {record: x, expr: up}\n  - {record: x, expr: up}\n"), 0o600))
	require.NoError(t, os.WriteFile(bad, []byte("groups:\n- name: a\n  rules:\n  - {record: x, expr: \"(\"}\n  - {alert: Y, expr: \")\", for: never}\n"), 0o600))
	out, _, err := call(t, "rules", "check", good, filepath.Join(dir, "*.rules"))
	require.NoError(t, err)
	require.Contains(t, out, good+": 1 groups, 2 rules, no mistakes")
	require.Contains(t, out, `warning: record "x" with labels map[] is there more than once`)
	require.Contains(t, out, "warning: no file matches "+filepath.Join(dir, "*.rules"))
	data := filepath.Join(dir, "data")
	cfg := write(t, "data: "+data+"\nalerting:\n  rules: ["+dir+"/*.yml]\n")
	for _, args := range [][]string{{"rules", "check", good, bad}, {"rules", "check", "-config", cfg}, {"check", "-config", cfg}, {"serve", "-config", cfg}} {
		_, _, err := call(t, args...)
		for _, want := range []string{
			bad + `:4:23: group "a", rule "x": could not parse expression`, bad + `:5:22: group "a", rule "Y": could not parse expression`,
			bad + `:5:32: group "a", rule "Y": for: "never" is not a duration`,
		} {
			require.ErrorContains(t, err, want, "%v", args)
		}
	}
	require.NoDirExists(t, data)
}

func TestRulesTest(t *testing.T) {
	dir := t.TempDir()
	rules, tests := filepath.Join(dir, "rules.yml"), filepath.Join(dir, "tests.yml")
	require.NoError(t, os.WriteFile(rules, []byte("groups:\n- name: a\n  rules:\n  - {record: x, expr: 2 * y}\n"), 0o600))
	require.NoError(t, os.WriteFile(tests, []byte(`rule_files: [rules.yml]
tests:
- name: good
  input_series: [{series: y, values: 1+1x5}]
  promql_expr_test: [{expr: x, eval_time: 2m, exp_samples: [{labels: x, value: 6}]}]
- name: bad
  input_series: [{series: y, values: 1+1x5}]
  promql_expr_test: [{expr: x, eval_time: 2m, exp_samples: [{labels: x, value: 7}]}]
`), 0o600))
	out, _, err := call(t, "rules", "test", "-run", "good", tests)
	require.NoError(t, err)
	require.Equal(t, tests+": ok, 1 tests\n", out)
	out, _, err = call(t, "rules", "test", tests)
	require.EqualError(t, err, "1 of 1 test files failed")
	require.Contains(t, out, tests+`:8: test "bad": expr "x" at 2m`)
	require.Contains(t, out, `{__name__="x"} 7E+00`)
}
