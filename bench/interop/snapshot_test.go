//go:build long

package interop

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

// TestSnapshot deletes series and takes a snapshot of a running server, and starts another one on it.
func TestSnapshot(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := harness.Start(ctx, harness.Options{Binary: braid, Data: dir, Server: "  admin_api: true\n"})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	file := filepath.Join(dir, "metrics.prom")
	require.NoError(t, os.WriteFile(file, []byte("kept 1\nkept{a=\"b\"} 2\ndropped 3\n"), 0o600))
	tool(t, "push", "metrics", "http://"+s.HTTP, file)
	post := func(path string) string {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.HTTP+"/api/v1/admin/tsdb/"+path, http.NoBody)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, 2, resp.StatusCode/100)
		var out struct{ Data struct{ Name string } }
		if resp.StatusCode == http.StatusOK {
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&out))
		}
		return out.Data.Name
	}
	post("delete_series?" + url.Values{"match[]": {"dropped"}}.Encode())
	post("clean_tombstones")
	name := post("snapshot")
	require.NotEmpty(t, name)
	s.Kill()

	other := t.TempDir()
	require.NoError(t, os.Rename(filepath.Join(dir, "store", "snapshots", name), filepath.Join(other, "store")))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "store")))
	again, err := harness.Start(ctx, harness.Options{Binary: braid, Data: other})
	require.NoError(t, err)
	t.Cleanup(again.Kill)
	require.JSONEq(t, `["kept"]`, query(t, again, "", "label/__name__/values", nil))
	require.JSONEq(t, `["b"]`, query(t, again, "", "label/a/values", url.Values{"match[]": {"kept"}}))
}
