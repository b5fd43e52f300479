package ruletest_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/alerting/rules/ruletest"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/promql"
)

type store struct{ *testkit.Store }

func (store) Close(context.Context) error { return nil }

func runner() ruletest.Runner {
	return ruletest.Runner{
		Open:   func(context.Context) (ruletest.Store, error) { return store{testkit.NewStore("c")}, nil },
		PromQL: promql.DefaultConfig(), Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
}

func TestMistakes(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"no YAML", "tests: [", []string{"t.yml:1: did not find expected node content"}},
		{"unknown keys", "rule_filez: []\ntests:\n- nam: x\n", []string{"t.yml:1: field rule_filez not found", "t.yml:3: field nam not found"}},
		{"order", "group_eval_order:\n- a\n- a\n", []string{"t.yml:3: group name repeated in evaluation order: a"}},
		{"no alertname", "tests:\n- name: x\n  alert_rule_test:\n  - eval_time: 1m\n", []string{`t.yml:4: test "x": an item under alert_rule_test misses required attribute alertname at eval_time 1m`}},
		{"several series", "tests:\n- name: x\n  input_series:\n  - {series: 'a{', values: '1'}\n  - {series: 'b', values: 'z'}\n", []string{`t.yml:4: test "x": series "a{"`, `t.yml:5: test "x": series "b"`}},
		{"time", "tests:\n- start_timestamp: soon\n", []string{`t.yml:2: "soon" is neither a time in RFC 3339 nor in seconds since 1970`}},
		{"expression", "tests:\n- name: x\n  promql_expr_test:\n  - expr: sum(\n  - expr: up\n    exp_samples: [{labels: 'up{', value: 1}]\n  - expr: up\n    exp_samples: [{labels: up, histogram: '{{count:1}} 2'}]\n", []string{
			`t.yml:4: test "x": expr "sum(" at 0s: invalid parameter`, `t.yml:5: test "x": expr "up" at 0s: labels "up{"`, `t.yml:7: test "x": expr "up" at 0s: histogram "{{count:1}} 2": expected 1 value, got 2`,
		}},
		{"rule files", "rule_files: ['[']\ntests: [{}]\n", []string{"t.yml:1: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			require.NoError(t, os.WriteFile("t.yml", []byte(tt.in), 0o600))
			_, err := runner().File(t.Context(), "t.yml")
			for _, w := range tt.want {
				require.ErrorContains(t, err, w)
			}
			require.Len(t, strings.Split(err.Error(), "\n"), len(tt.want))
		})
	}
	_, err := runner().File(t.Context(), filepath.Join(t.TempDir(), "none.yml"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestCancelled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t.yml")
	require.NoError(t, os.WriteFile(file, []byte("tests:\n- promql_expr_test: [{expr: '1', eval_time: 200y}]\n"), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := runner().File(ctx, file)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// TestAsInTheServer requires what a test of rules is for: order of groups, labels and URL of templates, later groups
// seeing earlier ones, staleness.
func TestAsInTheServer(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "r.yml"), []byte(`groups:
- name: second
  rules:
  - alert: Twice
    expr: twice > 5
    for: 2m
    labels: {level: "{{ if gt $value 1.0 }}high{{ else }}low{{ end }}"}
    annotations: {summary: "{{ $externalLabels.cluster }} {{ $externalURL }} {{ $value | humanize }}"}
- name: first
  rules:
  - {record: twice, expr: 2 * x}
`), 0o600))
	file := filepath.Join(dir, "t.yml")
	require.NoError(t, os.WriteFile(file, []byte(`rule_files: ["*r.yml"]
group_eval_order: [first, second]
tests:
- interval: 1m
  external_labels: {cluster: c1}
  external_url: http://braid.example
  input_series:
  - {series: 'x{a="b"}', values: '1+1x4 _ stale'}
  alert_rule_test:
  - {eval_time: 3m, alertname: Twice}
  - eval_time: 4m
    alertname: Twice
    exp_alerts:
    - exp_labels: {a: b, level: high}
      exp_annotations: {summary: c1 http://braid.example 10}
  - {eval_time: 7m, alertname: Twice}
  promql_expr_test:
  - expr: twice
    eval_time: 4m
    exp_samples: [{labels: 'twice{a="b"}', value: 10}]
  - {expr: twice, eval_time: 7m}
  - expr: count_over_time(x[4m:])
    eval_time: 4m
    exp_samples: [{labels: '{a="b"}', value: 4}]
`), 0o600))
	_, err := runner().File(t.Context(), file)
	require.NoError(t, err)
}

func FuzzFile(f *testing.F) {
	f.Add([]byte("rule_files: [x]\ntests: [{interval: 1m, input_series: [{series: a, values: '1x2'}], promql_expr_test: [{expr: a}]}]"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("tests: [{start_timestamp: 1e300}]"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		if strings.Contains(string(b), "x") || strings.Contains(string(b), "eval") { // no long tests
			return
		}
		file := filepath.Join(dir, "t.yml")
		require.NoError(t, os.WriteFile(file, b, 0o600))
		_, err := runner().File(t.Context(), file)
		if err != nil {
			require.NotEmpty(t, err.Error())
		}
	})
}
