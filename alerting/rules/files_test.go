package rules_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/alerting/rules"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/query/promql"
)

func reading() rules.Reading { return rules.Reading{Parser: promql.DefaultConfig().Parser()} }

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

const whole = `groups:
  - name: all
    interval: 30s
    query_offset: 10s
    limit: 5
    labels: {team: shop}
    rules:
      - record: job:up:sum
        expr: sum by (job) (up)
        labels: {kind: sum}
      - alert: Down
        expr: up == 0
        for: 5m
        keep_firing_for: 1m
        labels: {severity: page}
        annotations: {summary: "{{ $labels.job }} is down: {{ $value }}"}
`

func TestLoad(t *testing.T) {
	file := write(t, "a.yml", whole)
	set, err := reading().Load(filepath.Join(filepath.Dir(file), "*.yml"), file, filepath.Join(filepath.Dir(file), "*.none"))
	require.NoError(t, err)
	require.Equal(t, []string{file}, set.Names())
	require.Len(t, set.Unmatched, 1)
	require.Equal(t, 2, set.Rules())
	g := set.Groups(file)[0]
	require.Equal(t, "30s", g.Interval.String())
	require.Equal(t, "10s", g.QueryOffset.String())
	require.Equal(t, 5, g.Limit)
	require.Equal(t, map[string]string{"team": "shop"}, g.Labels)
	require.Equal(t, "1m", g.Rules[1].KeepFiringFor.String())
}

// TestMistakes requires that every mistake is told, with its place and the rule, however many there are.
func TestMistakes(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"many", `groups:
  - name: a
    interval: soon
    colour: blue
    rules:
      - record: x
        expr: sum(
        for: 1m
      - alert: B
        expr: up ==
        for: a while
        labels: {"": x, severity: "{{ $valu }}"}
        annotations:
          summary: "{{ .Nope"
      - expr: up
      - alert: C
        record: d
        expr: up
        severity: page
  - name: a
    rules: none
  - rules: []
top: level
`, []string{
			`3:15: group "a": interval: "soon" is not a duration such as 30s, 5m or 1d`,
			`4:5: group "a": unknown field "colour" in a rule group`,
			`6:17: group "a", rule "x": invalid field 'for' in recording rule`,
			`7:15: group "a", rule "x": could not parse expression: 1:5: parse error: unclosed left parenthesis`,
			`10:15: group "a", rule "B": could not parse expression: 1:6: parse error: unexpected end of input`,
			`11:14: group "a", rule "B": for: "a while" is not a duration such as 30s, 5m or 1d`,
			`12:18: group "a", rule "B": invalid label name: `,
			`12:25: group "a", rule "B": label "severity": template: `,
			`14:11: group "a", rule "B": annotation "summary": template: `,
			`15:9: group "a", rule "number 3": one of 'record' or 'alert' must be set`,
			`17:17: group "a", rule "C": only one of 'record' and 'alert' must be set`,
			`19:9: group "a", rule "C": unknown field "severity" in a rule`,
			`20:11: group "a": the group's name is repeated; it is in line 2 already`,
			`21:12: group "a": rules must be a list, not "none"`,
			`22:5: the group has no name`,
			`23:1: unknown field "top" in a rule file`,
		}},
		{"no YAML", "groups:\n  - name: [", []string{`2: `}},
		{"no rule file", "- 1\n", []string{`1:1: a rule file must be a mapping, not a list`}},
		{"group labels", "groups:\n- name: a\n  labels: {__name__: x}\n  rules: []\n", []string{`3:12: group "a": invalid label name: __name__`}},
		{"key twice", "groups:\n- name: a\n  name: b\n", []string{`3:3: group "a": key "name" is there already, in line 2`}},
		{"label no text", "groups:\n- name: a\n  rules:\n  - record: x\n    expr: up\n    labels: {a: [1]}\n", []string{`6:17: group "a", rule "x": a must be a text, not a list`}},
		{"name with braces", "groups:\n- name: a\n  rules:\n  - record: x{}\n    expr: up\n", []string{`4:13: group "a", rule "x{}": braces present`}},
		{"limit", "groups:\n- name: a\n  limit: many\n", []string{`3:10: group "a": limit: "many" is not a whole number`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := reading().Parse("f.yml", []byte(tt.in))
			require.Error(t, err)
			got := strings.Split(err.Error(), "\n")
			require.Len(t, got, len(tt.want), err.Error())
			for i, w := range tt.want {
				require.True(t, strings.HasPrefix(got[i], "f.yml:"+w), "%d: got  %s\nwant f.yml:%s", i, got[i], w)
			}
		})
	}
}

func TestMistakesOfFiles(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.yml"), []byte("groups: 1"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b.yml"), []byte("groups:\n- name: x\n  rulez: []"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "big.yml"), make([]byte, rules.MaxFileBytes+1), 0o600))
	r := reading()
	r.Sources = []rules.Source{func() ([]rules.Generated, error) {
		return []rules.Generated{{Name: "slo:x", Groups: []rulefmt.RuleGroup{{Name: "g", Rules: []rulefmt.Rule{{Record: "r", Expr: "("}}}}}}, errors.New("slo y: no objective")
	}}
	_, err := r.Load(filepath.Join(dir, "*.yml"), filepath.Join(dir, "none.yml"), "[")
	require.Error(t, err)
	for _, want := range []string{
		"a.yml:1:9: groups must be a list", "b.yml:3:3: group \"x\": unknown field", "big.yml: is larger than 16MiB",
		"none.yml: no such file or directory", "[: is no pattern", "slo y: no objective", `slo:x: group "g", rule "r": could not parse expression`,
	} {
		require.ErrorContains(t, err, want)
	}
	errs, ok := errors.AsType[config.Errors](err)
	require.True(t, ok)
	require.Len(t, errs, 7)
}

func TestManyMistakesAreCounted(t *testing.T) {
	var b strings.Builder
	b.WriteString("groups:\n- name: a\n  rules:\n")
	for range 150 {
		b.WriteString("  - record: x\n")
	}
	_, err := reading().Parse("f.yml", []byte(b.String()))
	require.ErrorContains(t, err, "f.yml: 50 more mistakes")
}

func TestUnknownFieldsIgnored(t *testing.T) {
	r := reading()
	r.IgnoreUnknown = true
	in := []byte("owner: me\ngroups:\n- name: a\n  tier: 1\n  rules:\n  - record: x\n    expr: up\n    why: because\n")
	_, err := r.Parse("f.yml", in)
	require.NoError(t, err)
	_, err = r.Parse("f.yml", append(in, "  - record: y\n    expr: (\n    why: because\n"...))
	require.ErrorContains(t, err, "f.yml:10:11")
	require.NotContains(t, err.Error(), "why")
}

func TestDuplicates(t *testing.T) {
	file := write(t, "a.yml", "groups:\n- name: a\n  labels: {x: y}\n  rules:\n  - {record: r, expr: up}\n  - {record: r, expr: up, labels: {z: z}}\n- name: b\n  rules:\n  - {record: r, expr: down, labels: {x: y}}\n")
	set, err := reading().Load(file)
	require.NoError(t, err)
	require.Equal(t, []string{`record "r" with labels map[x:y] is there more than once: ` + file + ` group "a", ` + file + ` group "b"`}, set.Duplicates())
}

// promtool returns promtool's test files.
func promtool(tb testing.TB) string {
	tb.Helper()
	out, err := exec.CommandContext(tb.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus").Output()
	require.NoError(tb, err)
	return filepath.Join(strings.TrimSpace(string(out)), "cmd", "promtool", "testdata")
}

// FuzzParse requires that a file is right exactly when Prometheus says so, and that what is wrong has a name.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("groups: &a\n- name: x\n  rules: *a\n"))
	f.Add([]byte("groups:\n- <<: &b {name: x}\n  rules: [{record: r, expr: up, for: 1}]\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("groups:\n- &g\n  name: x\n  rules: []\n- *g\n---\nb"))
	files, err := filepath.Glob(filepath.Join(promtool(f), "*rules*.yml"))
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(f, err)
		if len(b) < 10_000 {
			f.Add(b)
		}
	}
	parser := promql.DefaultConfig().Parser()
	f.Fuzz(func(t *testing.T, b []byte) {
		_, want := rulefmt.Parse(b, false, model.UTF8Validation, parser, promslog.NewNopLogger())
		groups, err := reading().Parse("f.yml", b)
		require.Equal(t, len(want) == 0, err == nil, "%v: %v", want, err)
		if err != nil {
			_, ok := errors.AsType[*rules.Mistake](err)
			require.True(t, ok)
			require.NotEmpty(t, err.Error())
			return
		}
		require.NotNil(t, groups)
	})
}
