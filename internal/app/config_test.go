package app_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/app"
	"github.com/braidobs/braid/internal/config"
)

// TestBudget keeps the configuration small: a new key needs an old one to go.
func TestBudget(t *testing.T) {
	keys := config.Keys(app.DefaultConfig())
	require.LessOrEqual(t, len(keys), 80)
	require.Greater(t, len(keys), 20)
}

// TestHelp requires a sentence for every key and section.
func TestHelp(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, config.Example(&out, app.DefaultConfig()))
	key := regexp.MustCompile(`^\s*([a-z_]+):`)
	comment := ""
	keys := 0
	for line := range strings.SplitSeq(out.String(), "\n") {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "# "); ok {
			comment = text
			continue
		}
		if m := key.FindStringSubmatch(line); m != nil {
			require.NotEmpty(t, comment, "%s has no help", m[1])
			require.True(t, strings.HasSuffix(comment, "."), "%s: %q is no sentence", m[1], comment)
			keys++
		}
		comment = ""
	}
	require.GreaterOrEqual(t, keys, len(config.Keys(app.DefaultConfig())))
}

func TestDefaults(t *testing.T) {
	cfg := app.DefaultConfig()
	require.NoError(t, config.Validate(&cfg))
}

// TestSettingsExist requires that a setting that a message or a page names can be set.
func TestSettingsExist(t *testing.T) {
	const root = "../.."
	keys := config.Keys(app.DefaultConfig())
	sections, leaves := []string{"query"}, []string(nil)
	for _, k := range keys {
		if section, _, nested := strings.Cut(k, "."); nested {
			sections = append(sections, section)
			leaves = append(leaves, k[strings.LastIndexByte(k, '.')+1:])
		}
	}
	setting := regexp.MustCompile(`\b[a-z_]+(?:\.[a-z_]+)+\b`)
	named := 0
	check := func(path, text string) {
		for _, name := range setting.FindAllString(text, -1) {
			section, _, _ := strings.Cut(name, ".")
			if slices.Contains(sections, section) && slices.Contains(leaves, name[strings.LastIndexByte(name, '.')+1:]) {
				require.Contains(t, keys, name, path)
				named++
			}
		}
	}
	require.NoError(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := e.Name()
		if e.IsDir() {
			if path != root && strings.HasPrefix(name, ".") || slices.Contains([]string{"bin", "testdata", "node_modules", "adr", "helm"}, name) {
				return filepath.SkipDir
			}
			return nil
		}
		switch {
		case name == "kubernetes.md": // speaks of values of the chart
		case strings.HasSuffix(name, ".md"):
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			check(path, string(b))
		case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					check(path, lit.Value)
				}
				return true
			})
		}
		return nil
	}))
	require.Greater(t, named, 20)
}
