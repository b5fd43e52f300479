// Package internal_test holds the architecture of Braid as a test.
package internal_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/braidobs/braid"

// leaves may be imported by every package whose row does not say alone, and may import each other.
func leaves() []string {
	return []string{
		"internal/config", "internal/lifecycle", "internal/httpapi", "internal/selfobs", "internal/telemetry", "internal/wire", "storage/vfs",
	}
}

// alone in a row takes the leaves away.
const alone = "alone"

// mayImport says what of this module each package may import besides the leaves. "a" is package a, "a/..." the
// packages below it as well. The row of a package is the longest one that fits; a package without one is an error.
//
//	ingest -> storage <- query <- correlate <- alerting        daemonset -> (OTLP over the wire) -> ingest
func mayImport() map[string][]string {
	contract := "storage"
	return map[string][]string{
		"internal":             {alone}, // this test
		"internal/telemetry":   {alone},
		"internal/wire":        {alone},
		"internal/config":      {},
		"internal/lifecycle":   {},
		"internal/httpapi":     {},
		"internal/selfobs":     {},
		"internal/testkit/...": {"internal/testkit/...", contract},
		"internal/app/...":     {"..."},
		"cmd/...":              {"internal/app/...", "daemonset/..."},

		"storage":             {alone, "internal/telemetry"},
		"storage/column":      {alone},
		"storage/part":        {alone, "internal/telemetry", "storage/column"},
		"storage/vfs/...":     {"storage/vfs/..."},
		"storage/wal/...":     {"storage/wal/..."},
		"storage/blob/...":    {"storage/blob/..."},
		"storage/catalog/...": {"storage/catalog/..."},
		"storage/metrics/...": {"storage/metrics/...", contract, "storage/part", "storage/column"},
		"storage/logs/...":    {"storage/logs/...", contract, "storage/part", "storage/column"},
		"storage/traces/...":  {"storage/traces/...", contract, "storage/part", "storage/column"},
		"storage/db/...":      {"storage/..."},

		"ingest/...":    {"ingest/...", contract},
		"query/...":     {"query/...", contract},
		"correlate/...": {"correlate/...", "query/...", contract},
		"alerting/...":  {"alerting/...", "query/...", "correlate/...", contract},
		"daemonset/...": {"daemonset/...", "ingest/...", contract, "storage/wal/..."},

		"grafana-plugin/...": {alone, "grafana-plugin/..."}, // speaks HTTP
		"bench/...":          {"bench/...", "internal/testkit/..."},
	}
}

// inTests is what tests may import as well.
func inTests() []string { return []string{"internal/testkit/..."} }

func TestImports(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-tags", "long,e2e",
		"-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".." // the root of the module
	out, err := cmd.Output()
	require.NoError(t, err)
	table := mayImport()
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		path := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		key := row(table, path)
		if key == "" && path != "" {
			t.Errorf("%s has no row in the table of mayImport", path)
			continue
		}
		allowed := table[key]
		if !slices.Contains(allowed, alone) {
			allowed = append(allowed, leaves()...)
		}
		check := func(what string, imports, allowed []string) {
			for _, i := range imports {
				i, ours := strings.CutPrefix(i, module+"/")
				if ours && i != path && !slices.ContainsFunc(allowed, func(rule string) bool { return matches(rule, i) }) {
					t.Errorf("%s%s must not import %s: it may import %v", path, what, i, allowed)
				}
			}
		}
		check("", p.Imports, allowed)
		check(" (test)", slices.Concat(p.TestImports, p.XTestImports), slices.Concat(allowed, inTests(), leaves()))
	}
}

// row returns the longest key of table that fits path.
func row(table map[string][]string, path string) string {
	best := ""
	for key := range table {
		if matches(key, path) && len(key) > len(best) {
			best = key
		}
	}
	return best
}

func matches(rule, path string) bool {
	if rule == "..." {
		return true
	}
	folder, below := strings.CutSuffix(rule, "/...")
	return path == folder || below && strings.HasPrefix(path, folder+"/")
}

func TestMatches(t *testing.T) {
	tests := []struct {
		rule, path string
		want       bool
	}{
		{"storage", "storage", true},
		{"storage", "storage/db", false},
		{"storage/...", "storage", true},
		{"storage/...", "storage/db", true},
		{"storage/...", "storages", false},
		{"...", "anything", true},
		{alone, "storage", false},
	}
	for _, tt := range tests {
		require.Equal(t, tt.want, matches(tt.rule, tt.path), "%s %s", tt.rule, tt.path)
	}
	table := mayImport()
	require.Equal(t, "storage/wal/...", row(table, "storage/wal/file"))
	require.Equal(t, "storage", row(table, "storage"))
	require.Empty(t, row(table, "storage/new"))
	require.Empty(t, row(table, "other"))
}
