//go:build long

package deploy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// Where the schemas come from: modules, for the proxy of Go modules is what every builder of Braid reaches.
const (
	kubernetesModule = "k8s.io/kubernetes@v1.36.3"
	operatorModule   = "github.com/prometheus-operator/prometheus-operator@v0.92.0"
)

// schemas returns a folder with one strict JSON schema per kind of object, named as kubeconform looks for them.
func schemas(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	n := kubernetesSchemas(t, dir)
	n += customSchemas(t, dir, "servicemonitors", "podmonitors")
	require.Greater(t, n, 150)
	t.Logf("%d schemas", n)
	return dir
}

// moduleDir returns the folder that a module lies in, downloaded if need be.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	cmd.Dir = t.TempDir() // no module's own replacements
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	var m struct{ Dir string }
	require.NoError(t, json.Unmarshal(out, &m))
	return m.Dir
}

// kubernetesSchemas makes the schemas of Kubernetes's own kinds.
func kubernetesSchemas(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(moduleDir(t, kubernetesModule), "api/openapi-spec/swagger.json"))
	require.NoError(t, err)
	var api struct {
		Definitions map[string]map[string]any `json:"definitions"`
	}
	require.NoError(t, json.Unmarshal(text, &api))
	for name, d := range api.Definitions {
		switch name {
		case "io.k8s.apimachinery.pkg.util.intstr.IntOrString", "io.k8s.apimachinery.pkg.api.resource.Quantity":
			api.Definitions[name] = map[string]any{"type": []string{"string", "number"}}
		default:
			tighten(d)
		}
	}
	n := 0
	for _, d := range api.Definitions {
		kinds, _ := d["x-kubernetes-group-version-kind"].([]any)
		if len(kinds) != 1 { // such as DeleteOptions, which every group has
			continue
		}
		part := func(key string) string { s, _ := at(kinds[0], key).(string); return s }
		needed := make(map[string]any)
		collect(api.Definitions, d, needed)
		schema := maps.Clone(d)
		schema["definitions"] = needed
		write(t, dir, part("kind"), part("group"), part("version"), schema)
		n++
	}
	return n
}

// customSchemas makes the schemas of kinds of the Prometheus operator.
func customSchemas(t *testing.T, dir string, plurals ...string) int {
	t.Helper()
	for _, plural := range plurals {
		text, err := os.ReadFile(filepath.Join(moduleDir(t, operatorModule), "example/prometheus-operator-crd", "monitoring.coreos.com_"+plural+".yaml"))
		require.NoError(t, err)
		var crd object
		require.NoError(t, yaml.Unmarshal(text, &crd))
		schema := at(crd, "spec", "versions", 0, "schema", "openAPIV3Schema").(map[string]any)
		tighten(schema)
		write(t, dir, at(crd, "spec", "names", "kind").(string), at(crd, "spec", "group").(string), at(crd, "spec", "versions", 0, "name").(string), schema)
	}
	return len(plurals)
}

// tighten forbids properties that a schema does not name, all the way down.
func tighten(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			tighten(e)
		}
	case map[string]any:
		if v["x-kubernetes-int-or-string"] == true {
			v["type"] = []string{"string", "integer"}
			delete(v, "anyOf")
		}
		_, named := v["properties"].(map[string]any)
		if _, said := v["additionalProperties"]; named && !said && v["x-kubernetes-preserve-unknown-fields"] != true {
			v["additionalProperties"] = false
		}
		for _, e := range v {
			tighten(e)
		}
	}
}

// collect adds the definitions that v refers to.
func collect(all map[string]map[string]any, v any, into map[string]any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			collect(all, e, into)
		}
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			name := strings.TrimPrefix(ref, "#/definitions/")
			if _, done := into[name]; !done {
				into[name] = all[name]
				collect(all, all[name], into)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			collect(all, v[key], into)
		}
	}
}

func write(t *testing.T, dir, ofKind, group, version string, schema map[string]any) {
	t.Helper()
	suffix := version
	if group != "" {
		first, _, _ := strings.Cut(group, ".")
		suffix = first + "-" + version
	}
	text, err := json.Marshal(schema)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, strings.ToLower(fmt.Sprintf("%s-%s.json", ofKind, suffix))), text, 0o600))
}

// validate runs kubeconform over objects and returns what it says.
func validate(t *testing.T, schemas string, objects []byte) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, "kubeconform"), "-strict", "-summary", "-output", "text",
		"-schema-location", filepath.Join(schemas, "{{.ResourceKind}}{{.KindSuffix}}.json"), "-")
	cmd.Stdin = bytes.NewReader(objects)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestValidation shows that the validation finds what it is there for.
func TestValidation(t *testing.T) {
	dir := schemas(t)
	good := "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80, targetPort: http}]}\n"
	tests := []struct{ name, in, want string }{
		{"good", good, "Valid: 1, Invalid: 0, Errors: 0"},
		{"mistyped field", strings.Replace(good, "targetPort", "targetport", 1), "'targetport' not allowed"},
		{"wrong type", strings.Replace(good, "80", "many", 1), "want integer"},
		{"unknown kind", strings.Replace(good, "Service", "Servise", 1), "could not find schema"},
		{
			"required field", "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: a}\nspec: {selector: {}}\n",
			"missing property 'template'",
		},
		{
			"custom kind", "apiVersion: monitoring.coreos.com/v1\nkind: PodMonitor\nmetadata: {name: a}\nspec: {selector: {}, podMetricEndpoints: []}\n",
			"'podMetricEndpoints' not allowed",
		},
	}
	for _, tt := range tests {
		out, err := validate(t, dir, []byte(tt.in))
		require.Equal(t, tt.name == "good", err == nil, "%s: %s", tt.name, out)
		require.Contains(t, out, tt.want, tt.name)
	}
}
