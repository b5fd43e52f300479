//go:build long

package deploy_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tool returns the path of a tool that make chart installs.
func tool(t *testing.T, named string) string {
	t.Helper()
	path, err := filepath.Abs("../../.tools/" + named)
	require.NoError(t, err)
	require.FileExists(t, path, "run these tests with make chart, which installs it")
	return path
}

// helm runs helm with nothing of the user's and returns its output.
func helm(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, "helm"), args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CONFIG_HOME="+home, "HELM_CACHE_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+home+"/none")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return append(out, stderr.Bytes()...), err
	}
	return out, nil
}

func render(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := helm(t, append([]string{"template", "braid", chart, "--namespace", "braid"}, args...)...)
	require.NoError(t, err, "%s", out)
	return out
}

// TestChart renders the chart for each file of values, validates what comes out, and loads the configurations in it
// with the binaries that will read them.
func TestChart(t *testing.T) {
	dir, bin := schemas(t), binaries(t)
	tests := []struct {
		values        string
		objects       int
		agent, server string // names of the ConfigMaps
	}{
		{"default", 11, "braid-agent", "braid"},
		{"minimal", 2, "braid-agent", ""},
		{"full", 20, "watch-agent", "watch"},
	}
	for _, tt := range tests {
		t.Run(tt.values, func(t *testing.T) {
			file := filepath.Join(chart, "ci", tt.values+"-values.yaml")
			out, err := helm(t, "lint", "--strict", chart, "--values", file)
			require.NoError(t, err, "%s", out)
			text := render(t, "--values", file)
			require.Equal(t, string(text), string(render(t, "--values", file)), "two renderings are equal")
			said, err := validate(t, dir, text)
			require.NoError(t, err, said)
			objects := parse(t, text)
			require.Len(t, objects, tt.objects)
			t.Logf("%d bytes, %s", len(text), strings.TrimSpace(said))

			env := []string{"NODE_NAME=node-1", "NODE_IP=10.0.0.7"}
			agent, _ := at(find(t, objects, "ConfigMap", tt.agent), "data", "braid-agent.yaml").(string)
			check(t, bin, "braid-agent", agent, env)
			if tt.server == "" {
				return
			}
			folder := t.TempDir() // rules and SLOs, where the server will find them
			server, _ := at(find(t, objects, "ConfigMap", tt.server), "data", "braid.yaml").(string)
			for _, o := range objects {
				what, ok := strings.CutPrefix(name(o), tt.server+"-")
				if kind(o) != "ConfigMap" || !ok || what != "rules" && what != "slos" {
					continue
				}
				require.NoError(t, os.Mkdir(filepath.Join(folder, what), 0o700))
				for file, content := range at(o, "data").(map[string]any) {
					require.NoError(t, os.WriteFile(filepath.Join(folder, what, file), []byte(content.(string)), 0o600))
				}
				require.Contains(t, server, "/etc/braid/"+what+"/")
			}
			shown := check(t, bin, "braid", strings.ReplaceAll(server, "/etc/braid/", folder+"/"), nil)
			if tt.values == "full" {
				require.Contains(t, shown, "max_samples: 100000000")
				require.Contains(t, shown, filepath.Join(folder, "slos"))
			}
		})
	}
}

// binaries builds the server and the agent as a release does and returns their folder.
func binaries(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-tags", "timetzdata", "-ldflags", "-s -w", "-o", dir+"/", "../../cmd/braid", "../../cmd/braid-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// check has a binary check a configuration and returns the whole of it.
func check(t *testing.T, bin, binary, text string, env []string) string {
	t.Helper()
	require.NotEmpty(t, text)
	file := filepath.Join(t.TempDir(), binary+".yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, binary), "check", "-config", file)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// TestRefusedValues shows what the chart says to values that cannot be meant.
func TestRefusedValues(t *testing.T) {
	tests := []struct{ set, want string }{
		{"agent.tolerationz=x", "'tolerationz' not allowed"},
		{"server.replicas=3", "'replicas' not allowed"},
		{"server.persistence.size=large", "does not match pattern"},
		{"server.ports.http=0", "minimum"},
		{"agent.image.digest=latest", "does not match pattern"},
		{"server.persistence.retentionPolicy.whenDeleted=Maybe", "must be one of"},
		{"server.rules.a=b", "does not match pattern"},
		{"agent.endpoint=braid:4318", "does not match pattern"},
		{"server.enabled=false", "agent.endpoint: must be given when server.enabled is false"},
		{"agent.config.server.http=1", "agent.config.server.http: the chart sets it; use agent.ports.http"},
		{"agent.config.state=/x", "agent.config.state: the chart sets it; use agent.stateDir"},
		{"server.config.data=/x", "server.config.data: the chart sets it; use server.persistence"},
		{"server.ingress.enabled=true", "server.ingress.hosts: must name at least one"},
	}
	for _, tt := range tests {
		out, err := helm(t, "template", "braid", chart, "--set", tt.set)
		require.Error(t, err, tt.set)
		require.Contains(t, string(out), tt.want, tt.set)
	}
}

// TestVariants looks at single values whose effect is not a line copied from them.
func TestVariants(t *testing.T) {
	tests := []struct {
		name      string
		set       []string
		has, lack string
	}{
		{"nothing at all", []string{"agent.enabled=false", "server.enabled=false"}, "", "kind:"},
		{"server alone", []string{"agent.enabled=false"}, "kind: StatefulSet", "kind: ClusterRole"},
		{"data without a claim", []string{"server.persistence.enabled=false"}, "emptyDir: {}", "volumeClaimTemplates"},
		{"name of the release", []string{"nameOverride=obs"}, "name: braid-obs-agent", "name: braid-agent"},
		{"no ports of the node", []string{"agent.otlp.hostPort=false"}, "containerPort: 4318", "hostPort"},
		{"no limit of memory", []string{"agent.resources.limits=null", "server.useGOMEMLIMIT=false"}, "", "GOMEMLIMIT"},
		{"limit in powers of ten", []string{"agent.resources.limits.memory=1G"}, `value: "800000000"`, ""},
		{"no probe", []string{"agent.livenessProbe=null", "server.livenessProbe=null"}, "readinessProbe", "livenessProbe"},
		{"another port", []string{"server.ports.otlpHttp=5318"}, "endpoint: http://braid.braid.svc:5318", ""},
	}
	for _, tt := range tests {
		var args []string
		for _, s := range tt.set {
			args = append(args, "--set", s)
		}
		out := string(render(t, args...))
		require.Contains(t, out, tt.has, tt.name)
		if tt.lack != "" {
			require.NotContains(t, out, tt.lack, tt.name)
		}
	}
}

// TestNotes looks at what helm says after an installation.
func TestNotes(t *testing.T) {
	tests := []struct{ set, has, lack string }{
		{"cluster=a", "value: http://$(NODE_IP):4318", "all data is gone"},
		{"agent.otlp.hostPort=false", "value: http://braid-agent.braid.svc:4318", "NODE_IP"},
		{"agent.enabled=false", "http://braid.braid.svc:9090", "privileged"},
		{"server.persistence.enabled=false", "all data is gone with the pod", "<nil>"},
	}
	for _, tt := range tests {
		out, err := helm(t, "install", "braid", chart, "--namespace", "braid", "--dry-run=client", "--set", tt.set)
		require.NoError(t, err, "%s", out)
		_, notes, found := strings.Cut(string(out), "\nNOTES:\n")
		require.True(t, found)
		require.Contains(t, notes, tt.has, tt.set)
		require.NotContains(t, notes, tt.lack, tt.set)
	}
}

// TestUnits has systemd read its units.
func TestUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd is not installed")
	}
	dir := t.TempDir()
	for _, unit := range []string{"braid.service", "braid-agent.service"} {
		text, err := os.ReadFile("systemd/" + unit)
		require.NoError(t, err)
		file := filepath.Join(dir, unit)
		here := regexp.MustCompile(`(?m)^ExecStart=.*$`).ReplaceAll(text, []byte("ExecStart=/bin/true")) // verify looks for the program
		require.NoError(t, os.WriteFile(file, here, 0o600))
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", file).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Empty(t, string(out))
		out, err = exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--threshold=30", file).CombinedOutput()
		require.NoError(t, err, "%s", out) // 0 is shut, 100 is open
	}
}

// TestKustomize requires that the base is what the chart makes, less what says that Helm made it, and that overlays
// build on it.
func TestKustomize(t *testing.T) {
	text := render(t, "--set", "agent.endpoint=http://braid:4318") // any namespace
	source := regexp.MustCompile(`^# Source: braid/templates/(\w+)/`)
	helms := regexp.MustCompile(`(?m)^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n`)
	made := map[string]*strings.Builder{"agent": {}, "server": {}}
	for doc := range strings.SplitSeq("\n"+string(text), "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		head, body, _ := strings.Cut(doc, "\n")
		g := source.FindStringSubmatch(head)
		require.NotNil(t, g, head)
		made[g[1]].WriteString("---\n" + strings.TrimSpace(helms.ReplaceAllString(body, "")) + "\n")
	}
	for comp, b := range made {
		file := filepath.Join(base, comp, comp+".yaml")
		if *rewrite {
			require.NoError(t, os.WriteFile(file, []byte(header(t)+b.String()), 0o644))
			continue
		}
		old, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, header(t)+b.String(), string(old), "run make chart ARGS=-rewrite")
	}

	if _, err := exec.LookPath("kubectl"); err != nil {
		require.Empty(t, os.Getenv("CI"), "kubectl must be installed where CI runs")
		t.Skip("overlays are built with kubectl, which is not installed")
	}
	dir := schemas(t)
	for folder, kinds := range map[string]string{
		base:                             "kind: StatefulSet",
		"kustomize/overlays/namespace":   "kind: Namespace",
		"kustomize/overlays/agent-only":  "-backend=https://braid.example.com:4318",
		"kustomize/overlays/server-only": "kind: StatefulSet",
	} {
		out, err := exec.CommandContext(t.Context(), "kubectl", "kustomize", folder).Output()
		require.NoError(t, err, folder)
		require.Contains(t, string(out), kinds)
		said, err := validate(t, dir, out)
		require.NoError(t, err, "%s: %s", folder, said)
		t.Logf("%s: %s", folder, strings.TrimSpace(said))
	}
}
