package app_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/braidobs/braid/internal/app"
	"github.com/braidobs/braid/internal/config"
)

// TestDeployedConfigurations loads what Braid is installed with.
func TestDeployedConfigurations(t *testing.T) {
	load := func(t *testing.T, text string) app.Config {
		t.Helper()
		cfg := app.DefaultConfig()
		require.NoError(t, config.Loader{}.Load(strings.NewReader(text), "braid.yaml", &cfg))
		return cfg
	}
	t.Run("kubernetes", func(t *testing.T) {
		manifest, err := os.ReadFile("../../daemonset/deploy/kustomize/base/server/server.yaml")
		require.NoError(t, err)
		dec := yaml.NewDecoder(strings.NewReader(string(manifest)))
		var text string
		for text == "" {
			var o struct {
				Kind string            `yaml:"kind"`
				Data map[string]string `yaml:"data"`
			}
			require.NoError(t, dec.Decode(&o))
			text = o.Data["braid.yaml"]
		}
		cfg := load(t, text)
		require.Equal(t, "/var/lib/braid", cfg.Data)
		require.Contains(t, string(manifest), "mountPath: "+cfg.Data+"\n", "data lies on the volume")
		for addr, port := range map[config.Addr]string{cfg.Server.HTTP: "http", cfg.Server.OTLPGRPC: "otlp-grpc", cfg.Server.OTLPHTTP: "otlp-http"} {
			_, number, _ := strings.Cut(string(addr), "0.0.0.0:")
			require.Contains(t, string(manifest), "- name: "+port+"\n              containerPort: "+number+"\n")
		}
	})
	t.Run("systemd", func(t *testing.T) {
		text, err := os.ReadFile("../../daemonset/deploy/systemd/braid.yaml")
		require.NoError(t, err)
		cfg := load(t, string(text))
		require.Equal(t, "/var/lib/braid", cfg.Data)
		require.Equal(t, app.DefaultConfig().Server, cfg.Server, "loopback, as without a file")
	})
}
