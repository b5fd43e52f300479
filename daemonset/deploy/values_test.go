package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// value is a value of the chart with its comment.
type value struct{ path, help, standard string }

// values returns the values of the chart: every key with a comment that begins with "--".
func values(t *testing.T) []value {
	t.Helper()
	text, err := os.ReadFile(chart + "/values.yaml")
	require.NoError(t, err)
	var doc yaml.Node
	require.NoError(t, yaml.Unmarshal(text, &doc))
	var out []value
	var walk func(n *yaml.Node, prefix string)
	walk = func(n *yaml.Node, prefix string) {
		for i := 0; i < len(n.Content); i += 2 {
			key, v := n.Content[i], n.Content[i+1]
			path := prefix + key.Value
			help, documented := strings.CutPrefix(key.HeadComment, "# -- ")
			if !documented {
				require.Equal(t, yaml.MappingNode, v.Kind, "values.yaml: %s has no comment", path)
				require.NotEmpty(t, v.Content, "values.yaml: %s has no comment", path)
				walk(v, path+".")
				continue
			}
			require.NotContains(t, help, "\n", "values.yaml: %s: a comment is one line", path)
			out = append(out, value{path, help, standard(t, v)})
		}
	}
	walk(doc.Content[0], "")
	return out
}

// standard writes a default for the table.
func standard(t *testing.T, n *yaml.Node) string {
	t.Helper()
	var v any
	require.NoError(t, n.Decode(&v))
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}

// TestReadme keeps the table of values in the chart's README.
func TestReadme(t *testing.T) {
	const begin, end = "<!-- values: made by go test ./daemonset/deploy -run TestReadme -rewrite -->\n", "<!-- end of values -->\n"
	var table strings.Builder
	table.WriteString("| value | default | what it does |\n|---|---|---|\n")
	escape := strings.NewReplacer("|", "\\|")
	for _, v := range values(t) {
		fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", v.path, escape.Replace(v.standard), escape.Replace(v.help))
	}
	file := chart + "/README.md"
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), begin)
	require.True(t, found)
	old, after, found := strings.Cut(rest, end)
	require.True(t, found)
	if *rewrite {
		require.NoError(t, os.WriteFile(file, []byte(before+begin+table.String()+end+after), 0o644))
		return
	}
	require.Equal(t, table.String(), old, "run go test ./daemonset/deploy -run TestReadme -rewrite")
}

// TestSchemaIsStrict requires that the schema of the values knows each one, and lets no others in.
func TestSchemaIsStrict(t *testing.T) {
	text, err := os.ReadFile(chart + "/values.schema.json")
	require.NoError(t, err)
	var schema map[string]any
	require.NoError(t, json.Unmarshal(text, &schema))
	resolve := func(v any) any {
		if ref, ok := at(v, "$ref").(string); ok {
			return at(schema, "$defs", strings.TrimPrefix(ref, "#/$defs/"))
		}
		return v
	}
	for _, v := range values(t) {
		node := any(schema)
		for key := range strings.SplitSeq(v.path, ".") {
			require.Equal(t, false, at(node, "additionalProperties"), "values.schema.json: above %s", v.path)
			node = resolve(at(node, "properties", key))
			require.NotNil(t, node, "values.schema.json: %s is missing", v.path)
		}
	}
	known := make(map[string]bool)
	for _, v := range values(t) {
		known[v.path] = true
	}
	var walk func(node any, path string)
	walk = func(node any, path string) {
		props, _ := at(resolve(node), "properties").(map[string]any)
		for key, p := range props {
			here := strings.TrimPrefix(path+"."+key, ".")
			if !known[here] {
				require.NotNil(t, at(resolve(p), "properties"), "values.schema.json: %s is no value", here)
				walk(p, here)
			}
		}
	}
	walk(schema, "")
}
