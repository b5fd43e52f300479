package conformance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// minExamples is how many examples there are at least: fewer would mean that they are no longer found.
const minExamples = 7

// example is a block of shell commands of a page.
type example struct {
	line   int
	script string
	output string // that the page shows after it, with ... for what varies
}

// examples returns the fenced blocks sh of a page, each with the block json or text that follows before the next one.
func examples(page string) []example {
	var out []example
	var block strings.Builder
	kind, began := "", 0
	for i, line := range strings.Split(page, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case kind == "" && isFence:
			kind, began = fence, i+1
			if kind == "" {
				kind = "text"
			}
			block.Reset()
		case isFence:
			switch {
			case kind == "sh":
				out = append(out, example{line: began, script: block.String()})
			case (kind == "json" || kind == "text") && len(out) > 0 && out[len(out)-1].output == "":
				out[len(out)-1].output = block.String()
			}
			kind = ""
		case strings.HasPrefix(line, "#"):
			if kind != "" {
				block.WriteString(line + "\n")
			}
		case kind != "":
			block.WriteString(line + "\n")
		}
	}
	return out
}

// notRun says which pages have examples that need more than a shell and curl, and why that is so.
func notRun(page string) string {
	switch filepath.Base(page) {
	case "shop.md":
		return "runs until it is stopped, on ports of its own; bench/shop tests it"
	default:
		return ""
	}
}

// TestExamples runs the examples of README.md and docs against one server, in the order of the pages, and looks for
// the output that they show.
func TestExamples(t *testing.T) {
	const root = "../.."
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			require.Empty(t, os.Getenv("CI"), "%s must be installed where CI runs", tool)
			t.Skipf("the examples are for people who have %s, which this machine lacks", tool)
		}
	}
	work, ran := t.TempDir(), 0
	s := start(t, t.TempDir(), "alerting:\n  rules: ["+work+"/rules/*.yml]\n")
	ports := strings.NewReplacer(
		"localhost:4317", s.OTLPGRPC, "localhost:4318", s.OTLPHTTP, "localhost:9090", s.HTTP,
		"127.0.0.1:4317", s.OTLPGRPC, "127.0.0.1:4318", s.OTLPHTTP, "127.0.0.1:9090", s.HTTP,
	)
	pages := []string{root + "/docs/api/otlp.md"} // sends what the others ask for
	for _, pattern := range []string{"/docs/api/*.md", "/docs/guides/*.md", "/README.md"} {
		found, err := filepath.Glob(root + pattern)
		require.NoError(t, err)
		for _, p := range found {
			if p != pages[0] {
				pages = append(pages, p)
			}
		}
	}
	for _, page := range pages {
		if why := notRun(page); why != "" {
			t.Logf("%s: not run: %s", page, why)
			continue
		}
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, e := range examples(string(text)) {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			cmd := exec.CommandContext(ctx, "bash", "-e", "-o", "pipefail", "-c", ports.Replace(e.script))
			cmd.Dir = work
			cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(server)+string(os.PathListSeparator)+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			cancel()
			require.NoError(t, err, "%s:%d\n%s", page, e.line, out)
			shows(t, page, e, string(out))
			ran++
		}
	}
	require.GreaterOrEqual(t, ran, minExamples)
	t.Logf("%d examples of %d pages", ran, len(pages))
}

// shows requires that the pieces of the output that a page shows appear in this order. White space does not count.
func shows(t *testing.T, page string, e example, out string) {
	t.Helper()
	bare := func(s string) string { return strings.Join(strings.Fields(s), "") }
	rest := bare(out)
	for piece := range strings.SplitSeq(e.output, "...") {
		_, after, found := strings.Cut(rest, bare(piece))
		require.True(t, found, "%s:%d: %s\nis not, or not in this place, in\n%s", page, e.line, piece, out)
		rest = after
	}
}

func TestExamplesParser(t *testing.T) {
	got := examples("# x\n```sh\n# comment\na\n```\ntext\n```json\n{\"b\":...}\n```\n```yaml\nc: 1\n```\n    d\n```sh\ne\n```\n")
	require.Equal(t, []example{
		{line: 2, script: "# comment\na\n", output: "{\"b\":...}\n"},
		{line: 14, script: "e\n"},
	}, got)
}
