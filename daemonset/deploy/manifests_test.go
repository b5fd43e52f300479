package deploy_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/braidobs/braid/daemonset"
	"github.com/braidobs/braid/internal/config"
)

var rewrite = flag.Bool("rewrite", false, "write what is made from the chart instead of comparing it")

const (
	chart = "helm/braid"
	base  = "kustomize/base"
)

// object is one object of Kubernetes.
type object = map[string]any

// at returns what lies at a path of keys and indexes, or nil.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, ok := v.(object)
			if !ok {
				return nil
			}
			v = m[p]
		case int:
			l, ok := v.([]any)
			if !ok || p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

func kind(o object) string { s, _ := at(o, "kind").(string); return s }
func name(o object) string { s, _ := at(o, "metadata", "name").(string); return s }

// parse returns the objects of a stream of YAML documents.
func parse(t *testing.T, text []byte) []object {
	t.Helper()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var out []object
	for {
		var o object
		err := dec.Decode(&o)
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		if len(o) > 0 {
			out = append(out, o)
		}
	}
}

// baseObjects returns all objects of the base.
func baseObjects(t *testing.T) []object {
	t.Helper()
	var out []object
	for _, comp := range []string{"agent", "server"} {
		text, err := os.ReadFile(filepath.Join(base, comp, comp+".yaml"))
		require.NoError(t, err)
		out = append(out, parse(t, text)...)
	}
	return out
}

// find returns the only object of a kind with a name, or with any when that is empty.
func find(t *testing.T, objects []object, ofKind, named string) object {
	t.Helper()
	var found []object
	for _, o := range objects {
		if kind(o) == ofKind && (named == "" || name(o) == named) {
			found = append(found, o)
		}
	}
	require.Len(t, found, 1, "%s %s", ofKind, named)
	return found[0]
}

// asAny is the YAML text as plain values, to compare with.
func asAny(t *testing.T, text string) any {
	t.Helper()
	var v any
	require.NoError(t, yaml.Unmarshal([]byte(text), &v))
	return v
}

// loadAgent returns the configuration of the agent that the text is, on a node.
func loadAgent(text string) (daemonset.Config, error) {
	env := map[string]string{"NODE_NAME": "node-1", "NODE_IP": "10.0.0.7"}
	cfg := daemonset.DefaultConfig()
	err := config.Loader{Env: func(k string) (string, bool) { v, ok := env[k]; return v, ok }}.Load(strings.NewReader(text), "braid-agent.yaml", &cfg)
	return cfg, err
}

func TestAgentConfiguration(t *testing.T) {
	objects := baseObjects(t)
	text, _ := at(find(t, objects, "ConfigMap", "braid-agent"), "data", "braid-agent.yaml").(string)
	cfg, err := loadAgent(text)
	require.NoError(t, err)
	require.Equal(t, "node-1", cfg.Kubernetes.Node)
	require.Equal(t, "https://10.0.0.7:10250", cfg.Scrape.Kubelet)

	server := find(t, objects, "Service", "braid")
	var port any
	for _, p := range at(server, "spec", "ports").([]any) {
		if at(p, "name") == "otlp-http" {
			port = at(p, "port")
		}
	}
	require.Equal(t, fmt.Sprintf("http://%s:%v", name(server), port), cfg.Backend.Endpoint)

	pod := at(find(t, objects, "DaemonSet", ""), "spec", "template", "spec")
	container := at(pod, "containers", 0)
	ports := make(map[any]any)
	for _, p := range at(container, "ports").([]any) {
		ports[at(p, "name")] = at(p, "containerPort")
	}
	for port, addr := range map[string]string{"http": string(cfg.Server.HTTP), "otlp-grpc": cfg.Server.OTLPGRPC, "otlp-http": cfg.Server.OTLPHTTP} {
		require.Equal(t, fmt.Sprintf("0.0.0.0:%v", ports[port]), addr, "port %s is that of the configuration", port)
	}

	env := make(map[any]any)
	for _, e := range at(container, "env").([]any) {
		env[at(e, "name")] = at(e, "valueFrom", "fieldRef", "fieldPath")
	}
	require.Equal(t, map[any]any{
		"NODE_NAME": "spec.nodeName", "NODE_IP": "status.hostIP", "POD_NAME": "metadata.name", "POD_UID": "metadata.uid", "GOMEMLIMIT": nil,
	}, env)

	hostPaths, mounts := make(map[any]any), make(map[string]any) // by name of the volume; by path
	for _, v := range at(pod, "volumes").([]any) {
		hostPaths[at(v, "name")] = at(v, "hostPath", "path")
	}
	writable := []string{}
	for _, m := range at(container, "volumeMounts").([]any) {
		path, _ := at(m, "mountPath").(string)
		mounts[path] = hostPaths[at(m, "name")]
		if at(m, "readOnly") != true {
			writable = append(writable, path)
		}
	}
	require.Equal(t, []string{cfg.State}, writable, "nothing of the node is writable but the state")
	require.Equal(t, cfg.State, mounts[cfg.State], "the state outlives the pod")
	require.Equal(t, "/var/log", mounts[filepath.Dir(cfg.Logs.PodsDir)], "files have the paths that the node has")
}

func TestAgentRights(t *testing.T) {
	objects := baseObjects(t)
	role := find(t, objects, "ClusterRole", "")
	require.Equal(t, asAny(t, `
- {apiGroups: [""], resources: [pods], verbs: [list, watch]}
- {apiGroups: [""], resources: [nodes/metrics], verbs: [get]}
`), at(role, "rules"), "the watch of pods in daemonset/kube and the scrape of the kubelet in daemonset/scrape")
	binding := find(t, objects, "ClusterRoleBinding", "")
	require.Equal(t, name(role), at(binding, "roleRef", "name"))
	require.Equal(t, asAny(t, `[{kind: ServiceAccount, name: braid-agent, namespace: braid}]`), at(binding, "subjects"))
	for _, o := range objects {
		require.NotContains(t, []string{"Role", "RoleBinding", "Secret"}, kind(o))
	}
	require.Equal(t, "braid-agent", at(find(t, objects, "DaemonSet", ""), "spec", "template", "spec", "serviceAccountName"))
	server := at(find(t, objects, "StatefulSet", ""), "spec", "template", "spec")
	require.Equal(t, "braid", at(server, "serviceAccountName"))
	require.Equal(t, false, at(server, "automountServiceAccountToken"), "the server has no business with the API")
}

func TestSecurityContexts(t *testing.T) {
	objects := baseObjects(t)
	tests := []struct{ kind, pod, container string }{
		{
			"DaemonSet", `{seccompProfile: {type: RuntimeDefault}}`,
			`{runAsUser: 0, runAsGroup: 0, runAsNonRoot: false, privileged: false, allowPrivilegeEscalation: false,
			  readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}`,
		},
		{
			"StatefulSet",
			`{runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, fsGroupChangePolicy: OnRootMismatch,
			  seccompProfile: {type: RuntimeDefault}}`,
			`{privileged: false, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}`,
		},
	}
	for _, tt := range tests {
		spec := at(find(t, objects, tt.kind, ""), "spec", "template", "spec")
		require.Equal(t, asAny(t, tt.pod), at(spec, "securityContext"))
		require.Len(t, at(spec, "containers"), 1)
		require.Equal(t, asAny(t, tt.container), at(spec, "containers", 0, "securityContext"))
		for _, key := range []string{"hostNetwork", "hostPID", "hostIPC"} {
			require.Nil(t, at(spec, key))
		}
	}
}

func TestProbes(t *testing.T) {
	objects := baseObjects(t)
	for _, workload := range []string{"DaemonSet", "StatefulSet"} {
		container := at(find(t, objects, workload, ""), "spec", "template", "spec", "containers", 0)
		for probe, path := range map[string]string{"startupProbe": "/-/healthy", "livenessProbe": "/-/healthy", "readinessProbe": "/-/ready"} {
			require.Equal(t, map[string]any{"path": path, "port": "http"}, at(container, probe, "httpGet"), "%s %s", workload, probe)
		}
		require.True(t, slices.ContainsFunc(at(container, "ports").([]any), func(p any) bool { return at(p, "name") == "http" }))
	}
	startup := at(find(t, objects, "StatefulSet", ""), "spec", "template", "spec", "containers", 0, "startupProbe")
	budget := at(startup, "periodSeconds").(int) * at(startup, "failureThreshold").(int)
	require.GreaterOrEqual(t, budget, 600, "seconds for recovery")
}

func TestDefaultsOfTheAgent(t *testing.T) {
	spec := at(find(t, baseObjects(t), "DaemonSet", ""), "spec")
	require.Equal(t, asAny(t, `[{operator: Exists}]`), at(spec, "template", "spec", "tolerations"))
	require.Equal(t, "10%", at(spec, "updateStrategy", "rollingUpdate", "maxUnavailable"))
	require.Equal(t, asAny(t, `{requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 256Mi}}`), at(spec, "template", "spec", "containers", 0, "resources"))
}

// TestReferences requires that what objects name is there.
func TestReferences(t *testing.T) {
	objects := baseObjects(t)
	for _, workload := range []string{"DaemonSet", "StatefulSet"} {
		o := find(t, objects, workload, "")
		labels := at(o, "spec", "template", "metadata", "labels").(object)
		selects := func(selector any) bool {
			for k, v := range selector.(object) {
				if labels[k] != v {
					return false
				}
			}
			return true
		}
		require.True(t, selects(at(o, "spec", "selector", "matchLabels")))
		services := 0
		for _, s := range objects {
			if kind(s) == "Service" && selects(at(s, "spec", "selector")) {
				services++
			}
		}
		require.Equal(t, map[string]int{"DaemonSet": 1, "StatefulSet": 2}[workload], services)
		find(t, objects, "ServiceAccount", at(o, "spec", "template", "spec", "serviceAccountName").(string))
		for _, v := range at(o, "spec", "template", "spec", "volumes").([]any) {
			if configMap, ok := at(v, "configMap", "name").(string); ok {
				args := at(o, "spec", "template", "spec", "containers", 0, "args", 0).(string)
				require.Contains(t, at(find(t, objects, "ConfigMap", configMap), "data"), filepath.Base(args), "the file that the process is to read")
			}
		}
	}
	find(t, objects, "Service", at(find(t, objects, "StatefulSet", ""), "spec", "serviceName").(string))
}

// TestNothingRandom keeps out of the templates what gives another text each time, or asks the cluster.
func TestNothingRandom(t *testing.T) {
	bad := regexp.MustCompile(`\b(rand[A-Z]\w*|genCA\w*|genPrivateKey|genS\w*Cert\w*|genSelf\w*|uuidv4|now|ago|date\w*|lookup|htpasswd|bcrypt|getHostByName|env|expandenv)\b`)
	action := regexp.MustCompile(`(?s)\{\{.*?\}\}`)
	quoted := regexp.MustCompile(`"[^"]*"|/\*.*?\*/|\.[A-Za-z.]+|\$[A-Za-z]*`)
	seen := 0
	err := filepath.WalkDir(chart+"/templates", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, a := range action.FindAllString(string(text), -1) {
			seen++
			require.Empty(t, bad.FindString(quoted.ReplaceAllString(a, " ")), "%s: %s", path, a)
		}
		return err
	})
	require.NoError(t, err)
	require.Greater(t, seen, 100)
	require.Regexp(t, bad, quoted.ReplaceAllString(`{{ randAlphaNum 10 }}`, " "))
	require.NotRegexp(t, bad, quoted.ReplaceAllString(`{{ .Values.env }}`, " "))
}

// chartSum is a checksum of what the manifests are made from.
func chartSum(t *testing.T) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(chart, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(chart, path)
		if err != nil || d.IsDir() || rel != "values.yaml" && rel != "Chart.yaml" && !strings.HasPrefix(rel, "templates") {
			return err
		}
		text, err := os.ReadFile(path)
		fmt.Fprintf(h, "%s %d\n%s", filepath.ToSlash(rel), len(text), text)
		return err
	})
	require.NoError(t, err)
	return hex.EncodeToString(h.Sum(nil))
}

// header is what the manifests made from the chart begin with.
func header(t *testing.T) string {
	t.Helper()
	return "# Made from the Helm chart by make chart ARGS=-rewrite; do not edit.\n# Chart: " + chartSum(t) + "\n"
}

// TestManifestsAreCurrent fails when the chart was changed and the manifests were not made anew. That they are what
// the chart makes is tested with helm, by make chart.
func TestManifestsAreCurrent(t *testing.T) {
	if *rewrite {
		t.Skip("they are being written")
	}
	for _, comp := range []string{"agent", "server"} {
		text, err := os.ReadFile(filepath.Join(base, comp, comp+".yaml"))
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(text), header(t)), "the chart has changed: run make chart ARGS=-rewrite")
	}
}

// TestSystemd loads the configuration that comes with the units.
func TestSystemd(t *testing.T) {
	text, err := os.ReadFile("systemd/braid-agent.yaml")
	require.NoError(t, err)
	cfg, err := loadAgent(string(text))
	require.NoError(t, err)
	require.Equal(t, "/var/lib/braid-agent", cfg.State)
	require.NotEmpty(t, cfg.Logs.Sources)
	require.NotEmpty(t, cfg.Scrape.Static)
	for unit, want := range map[string][]string{
		"braid.service":       {"ExecStart=/usr/local/bin/braid -config /etc/braid/braid.yaml", "StateDirectory=braid\n", "User=braid"},
		"braid-agent.service": {"ExecStart=/usr/local/bin/braid-agent -config /etc/braid/braid-agent.yaml", "StateDirectory=braid-agent\n"},
	} {
		text, err := os.ReadFile("systemd/" + unit)
		require.NoError(t, err)
		for _, w := range want {
			require.Contains(t, string(text), w)
		}
	}
}
