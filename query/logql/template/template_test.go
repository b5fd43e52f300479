package template_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/query/logql/template"
)

func execute(t *testing.T, s, line string, stop func() bool) (string, error) {
	t.Helper()
	tmpl, err := template.Parse(s, nil)
	require.NoError(t, err, s)
	tmpl.StopWhen(stop)
	labels := map[string]string{"app": "shop", "n": "7"}
	return tmpl.Execute(line, 5e9, func(name string) string { return labels[name] }, func() map[string]string { return labels })
}

func TestExecute(t *testing.T) {
	for in, want := range map[string]string{
		"plain":               "plain",
		"{{.app}}-{{.none}}.": "shop-.",
		`{{printf "%5.2f|%-4s|%q|%%" 1.5 .app "x"}}`:                        ` 1.50|shop|"x"|%`,
		`{{print 1 2 "a"}} {{println "x"}}`:                                 "1 2a x\n",
		`{{html "<a>"}} {{js "'"}} {{urlquery "a b"}}`:                      `&lt;a&gt; \' a+b`,
		`{{count "l" __line__}} {{regexReplaceAll "(l+)" __line__ "<$1>"}}`: "2 he<ll>o",
		"{{now.Unix}} {{unixEpoch __timestamp__}}":                          "0 5",
	} {
		got, err := execute(t, in, "hello", nil)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
}

func TestLimits(t *testing.T) {
	for name, in := range map[string]string{
		"loop":   "{{range $i := 100000}}{{end}}",
		"text":   `{{$x := "ab"}}{{range $i := 60}}{{$x = print $x $x}}{{end}}`,
		"width":  `{{printf "%2000000000d" 1}}`,
		"output": `{{repeat 2000000 "x"}}`,
		"regex":  `{{range $i := 100}}{{count "[ab]{500}" __line__}}{{end}}`,
	} {
		_, err := execute(t, in, strings.Repeat("a", 10_000), nil)
		require.ErrorIs(t, err, template.ErrLimit, name)
		require.NotContains(t, err.Error(), "executing", name)
	}
	_, err := template.Parse(strings.Repeat("x", template.MaxLength+1), nil)
	require.ErrorContains(t, err, "longer than 65536 bytes")
	asked := 0
	_, err = execute(t, "{{range $i := 1000}}{{end}}", "", func() bool { asked++; return asked > 9 })
	require.ErrorIs(t, err, template.ErrLimit)
	require.Equal(t, 10, asked)
}
