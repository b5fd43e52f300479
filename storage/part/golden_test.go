package part_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage/part"
)

// TestGolden reads the tables of the parts that version 1 wrote. Their records are read by a test of the engine,
// which also writes them (-rewrite).
func TestGolden(t *testing.T) {
	tests := map[string]map[string]int64{
		"metrics": {"series": 2, "samples": 3, "histograms": 2, "exemplars": 1, "evidence": 2, "resources": 1, "metadata": 1},
		"logs":    {"streams": 1, "rows": 2, "resources": 1, "scopes": 2, "traces": 1},
		"traces":  {"spans": 2, "resources": 1, "scopes": 2, "traces": 1},
	}
	for signal, tables := range tests {
		b, err := os.ReadFile("testdata/v1/" + signal + ".part")
		require.NoError(t, err)
		p, err := open(t, b, nil)
		require.NoError(t, err)
		require.NoError(t, p.Verify())
		require.Equal(t, signal, p.Prop("signal"))
		require.Equal(t, "default", p.Prop("tenant"))
		require.Equal(t, "0", p.Prop("from"))
		require.Equal(t, "1", p.Prop("to"))
		for name, rows := range tables {
			require.Equal(t, rows, p.Table(name).Rows(), "%s: table %s", signal, name)
		}
		rs, err := part.ReadResources(p)
		require.NoError(t, err)
		require.Equal(t, "shop", rs[0].Attrs.Text("service.name"))
	}
}
