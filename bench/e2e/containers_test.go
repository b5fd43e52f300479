//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/braidobs/braid/bench/harness"
	"github.com/braidobs/braid/bench/shop/instrument"
)

// runtime is a containerd of the test's own: its folders, its socket, no network but the host's.
type runtime struct {
	dir  string
	sock string
	rt   cri.RuntimeServiceClient
}

func startContainerd(t *testing.T) *runtime {
	t.Helper()
	containerd := tool(t, "containerd", "containerd")
	tool(t, "runc", "runc")
	dir, err := os.MkdirTemp("", "braid-e2e-") //nolint:usetesting // the path of a socket must be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &runtime{dir: dir, sock: filepath.Join(dir, "c.sock")}
	config := filepath.Join(dir, "config.toml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `version = 2
root = %q
state = %q
[grpc]
  address = %q
[ttrpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "braid.test/pause:1"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = %q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), r.sock, r.sock+".ttrpc", filepath.Join(dir, "cni")), 0o600))
	background(t, dir, containerd, "--config", config)
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(dir, "containerd.log")); t.Failed() && err == nil {
			t.Logf("containerd said:\n%s", log[max(0, len(log)-4000):])
		}
	})
	conn, err := grpc.NewClient("unix://"+r.sock, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	r.rt = cri.NewRuntimeServiceClient(conn)
	require.Eventually(t, func() bool {
		_, err := r.rt.Version(t.Context(), &cri.VersionRequest{})
		return err == nil
	}, 30*time.Second, 100*time.Millisecond, "containerd answers")
	return r
}

// blob is content and what an OCI manifest says of it.
type blob struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
	content   []byte
}

func newBlob(mediaType string, content []byte) blob {
	sum := sha256.Sum256(content)
	return blob{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(content), content: content}
}

// load makes an OCI image of one static binary and imports it.
func (r *runtime) load(t *testing.T, name, binary string) {
	t.Helper()
	b, err := os.ReadFile(binary)
	require.NoError(t, err)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "run", Mode: 0o755, Size: int64(len(b))}))
	_, err = w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	encode := func(v any) []byte {
		out, err := json.Marshal(v)
		require.NoError(t, err)
		return out
	}
	l := newBlob("application/vnd.oci.image.layer.v1.tar", layer.Bytes())
	config := newBlob("application/vnd.oci.image.config.v1+json", encode(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Entrypoint": []string{"/run"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{l.Digest}},
	}))
	manifest := newBlob("application/vnd.oci.image.manifest.v1+json", encode(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []blob{l},
	}))
	index := encode(map[string]any{"schemaVersion": 2, "manifests": []map[string]any{{
		"mediaType": manifest.MediaType, "digest": manifest.Digest, "size": manifest.Size,
		"annotations": map[string]string{"io.containerd.image.name": name},
	}}})
	file := filepath.Join(r.dir, filepath.Base(binary)+".tar")
	f, err := os.Create(file)
	require.NoError(t, err)
	out := tar.NewWriter(f)
	add := func(name string, content []byte) {
		require.NoError(t, out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}))
		_, err := out.Write(content)
		require.NoError(t, err)
	}
	add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	for _, x := range []blob{l, config, manifest} {
		add("blobs/sha256/"+x.Digest[len("sha256:"):], x.content)
	}
	add("index.json", index)
	require.NoError(t, out.Close())
	require.NoError(t, f.Close())
	msg, err := exec.CommandContext(t.Context(), tool(t, "ctr", "containerd"), "--address", r.sock, "--namespace", "k8s.io", "images", "import", file).CombinedOutput()
	require.NoError(t, err, string(msg))
}

// run starts a pod with one container in the network of the host, its log where the kubelet has it.
func (r *runtime) run(t *testing.T, pods string, id instrument.Identity, args ...string) {
	t.Helper()
	ctx := t.Context()
	sandbox := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: id.Pod, Namespace: id.Namespace, Uid: id.PodUID},
		LogDirectory: filepath.Join(pods, fmt.Sprintf("%s_%s_%s", id.Namespace, id.Pod, id.PodUID)),
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
		}},
	}
	require.NoError(t, os.MkdirAll(filepath.Join(sandbox.GetLogDirectory(), id.Container), 0o755))
	box, err := r.rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: sandbox})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_, err := r.rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: box.GetPodSandboxId()})
		require.NoError(t, err)
		_, err = r.rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: box.GetPodSandboxId()})
		require.NoError(t, err)
	})
	c, err := r.rt.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: box.GetPodSandboxId(), SandboxConfig: sandbox,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: id.Container}, Image: &cri.ImageSpec{Image: "braid.test/shop:1"},
			Command: []string{"/run"}, Args: args, LogPath: filepath.Join(id.Container, "0.log"),
			Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}, ReadonlyRootfs: true,
			}},
		},
	})
	require.NoError(t, err)
	_, err = r.rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.GetContainerId()})
	require.NoError(t, err)
}

// TestContainers runs the shop in real containers under containerd, whose logs the agent tails where a kubelet's are.
func TestContainers(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("containers need root")
		}
		t.Skip("containers need root")
	}
	const seed = 1
	pods := t.TempDir()
	db := instrument.NewIdentity("database", "database", "1.0.0", seed)
	metrics := freeAddr(t)
	s := start(t, pods, metrics, db)
	shop, err := harness.BuildPackage(t.Context(), s.bin, "bench/shop/cmd/shop")
	require.NoError(t, err)
	pauseSource := filepath.Join(s.dir, "pause.go")
	require.NoError(t, os.WriteFile(pauseSource, []byte("package main\n\nimport (\n\t\"os\"\n\t\"os/signal\"\n\t\"syscall\"\n)\n\nfunc main() {\n\tc := make(chan os.Signal, 1)\n\tsignal.Notify(c, syscall.SIGTERM, syscall.SIGINT)\n\t<-c\n}\n"), 0o600))
	pause := filepath.Join(s.bin, "pause")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", pause, pauseSource)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	msg, err := build.CombinedOutput()
	require.NoError(t, err, string(msg))

	r := startContainerd(t)
	r.load(t, "braid.test/pause:1", pause)
	r.load(t, "braid.test/shop:1", shop)
	fact(t, "containerd runs, two images of static binaries are imported")
	addr := map[string]string{"database": freeAddr(t), "cart": freeAddr(t), "checkout": freeAddr(t), "frontend": freeAddr(t)}
	common := func(role string, more ...string) []string {
		return append([]string{
			"-role", role, "-instance", role, "-version", "1.0.0", "-seed", "1", "-log-json", "-otlp-logs=false", "-metric-interval", "1s",
			"-otlp-grpc", s.agentGRPC, "-otlp-http", s.agentHTTP, "-database", addr["database"], "-cart", addr["cart"],
		}, more...)
	}
	id := func(role string) instrument.Identity { return instrument.NewIdentity(role, role, "1.0.0", seed) }
	r.run(t, pods, db, common("database", "-grpc", addr["database"], "-admin", metrics)...)
	r.run(t, pods, id("cart"), common("cart", "-http", addr["cart"])...)
	r.run(t, pods, id("checkout"), common("checkout", "-grpc", addr["checkout"])...)
	r.run(t, pods, id("frontend"), common("frontend", "-http", addr["frontend"], "-checkout", addr["checkout"])...)
	require.Eventually(t, func() bool { return get(t.Context(), "http://"+addr["frontend"]+"/products", nil) == nil }, 30*time.Second, 200*time.Millisecond, "the shop sells")
	r.run(t, pods, id("load"), "-role", "load", "-target", addr["frontend"], "-seed", "1", "-rps", "10")
	fact(t, "the shop runs in five pods")

	scenario(t, s, &place{pods: pods, database: db, metrics: metrics, injected: func(t *testing.T) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+metrics+"/fault", bytes.NewReader([]byte(`{"kind":"slow_database","delay":"800ms","ratio":0.9}`)))
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusOK, resp.StatusCode)
	}})
}
