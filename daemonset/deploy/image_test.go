//go:build e2e

package deploy_test

import (
	"bufio"
	"debug/elf"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestImages builds the binaries as the Dockerfile does and runs each in a folder with nothing else in it, as the user
// of its image: no shell, no libraries, no /tmp, no /etc, no /proc.
func TestImages(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an empty root folder takes root")
	}
	dockerfile, err := os.ReadFile("../../Dockerfile")
	require.NoError(t, err)
	bin := t.TempDir()
	build := []string{"build", "-trimpath", "-tags", "timetzdata", "-ldflags", "-s -w -X main.version=test", "-o", bin + "/", "../../cmd/braid", "../../cmd/braid-agent"}
	require.Contains(t, string(dockerfile), `CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH`)
	require.Contains(t, string(dockerfile), `go build -trimpath -tags timetzdata -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./cmd/braid ./cmd/braid-agent`)
	for _, arch := range []string{"arm64", "amd64"} { // the last stays
		cmd := exec.CommandContext(t.Context(), "go", build...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		for _, name := range []string{"braid", "braid-agent"} {
			size := requireStatic(t, filepath.Join(bin, name))
			t.Logf("%s linux/%s: %d bytes", name, arch, size)
		}
	}
	tests := []struct {
		name, config string
		user         uint32
	}{
		{"braid", "data: /var/lib/braid\nserver: {http: 127.0.0.1:0, otlp_grpc: 127.0.0.1:0, otlp_http: 127.0.0.1:0}\nself: {format: json}\n", 65532},
		{"braid-agent", "state: /var/lib/braid-agent\nserver: {http: 127.0.0.1:0, otlp_grpc: 127.0.0.1:0, otlp_http: 127.0.0.1:0}\nlogs: {pods_dir: ''}\nself: {format: json}\n", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			require.NoError(t, os.Chmod(filepath.Dir(root), 0o755))
			state := filepath.Join(root, "var/lib", tt.name)
			require.NoError(t, os.MkdirAll(state, 0o755))
			require.NoError(t, os.Chown(state, int(tt.user), int(tt.user)))
			binary, err := os.ReadFile(filepath.Join(bin, tt.name))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(root, tt.name), binary, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(root, "config.yaml"), []byte(tt.config), 0o644))
			run(t, root, tt.name, tt.user)

			var files []string // beside the state
			require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() && !strings.HasPrefix(path, state) {
					files = append(files, strings.TrimPrefix(path, root))
				}
				return err
			}))
			require.ElementsMatch(t, []string{"/" + tt.name, "/config.yaml"}, files, "the root file system may be read-only")
		})
	}
}

// requireStatic requires that a binary needs no interpreter and no library, and returns its size.
func requireStatic(t *testing.T, file string) int64 {
	t.Helper()
	f, err := elf.Open(file)
	require.NoError(t, err)
	defer f.Close()
	for _, p := range f.Progs {
		require.NotEqual(t, elf.PT_INTERP, p.Type)
		require.NotEqual(t, elf.PT_DYNAMIC, p.Type)
	}
	require.Nil(t, f.Section(".symtab"), "stripped")
	info, err := os.Stat(file)
	require.NoError(t, err)
	return info.Size()
}

// run runs a binary in an empty root folder until it is ready, asks it, and stops it.
func run(t *testing.T, root, binary string, user uint32) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/"+binary, "-config", "/config.yaml")
	cmd.Err = nil // it is looked for in the new root
	cmd.Dir = "/"
	cmd.Env = []string{"TZ=Asia/Tokyo"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: user, Gid: user}}
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var ready struct{ Msg, HTTP, Time string }
	lines := bufio.NewScanner(stderr)
	var all []string
	for ready.Msg != "ready" && lines.Scan() {
		all = append(all, lines.Text())
		require.NoError(t, json.Unmarshal(lines.Bytes(), &ready), lines.Text())
	}
	require.Equal(t, "ready", ready.Msg, "%s", all)
	require.True(t, strings.HasSuffix(ready.Time, "+09:00"), "%s: time zones are in the binary", ready.Time)
	resp, err := http.Get("http://" + ready.HTTP + "/-/ready")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for lines.Scan() {
		all = append(all, lines.Text())
	}
	require.NoError(t, cmd.Wait(), "%s", all)
}
